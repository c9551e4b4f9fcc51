"""Where a process is: its machine since the last boot, itself, and the clocks that it may trust.

Clocks of two machines are never compared. Within one boot of one machine all processes share the monotonic clock, and
can see whether another process is still there; a *place* is what names that: the boot, and the namespaces in which
process numbers and the monotonic clock mean the same. Where it can't be told (there is no /proc), a place is empty, and
nothing is decided from it.
"""

from __future__ import annotations

import os
import time
from functools import lru_cache
from typing import NamedTuple

from holdfast.clock import boot, now


class Process(NamedTuple):
    """A process, told from any that gets its number later: by its place, and by when it `born` (ticks since boot)."""

    place: str
    pid: int
    born: int


class Place:
    """The place and the clocks of this process."""

    def wall(self) -> int:
        """The time for people: microseconds since 1970 UTC. It may jump."""
        return now()

    def monotonic(self) -> int:
        """The time for decisions: microseconds since some moment of this boot, which never jump."""
        return time.monotonic_ns() // 1000

    def name(self) -> str:
        """What names this place; "" if nothing does."""
        return _name()

    def process(self) -> Process:
        """This process."""
        pid = os.getpid()
        stat = _stat(pid)
        return Process(self.name() if stat else "", pid, stat.born if stat else 0)

    def gone(self, process: Process) -> bool:
        """Whether a process of this place has surely ended. In doubt it has not."""
        try:
            os.kill(process.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # it is another user's, so there is one
        stat = _stat(process.pid)
        if stat is None:
            return False
        # The first thread of a process may end before the others: then it looks dead, and is not.
        return stat.born != process.born or (stat.state in "ZX" and stat.threads <= 1)


class _Stat(NamedTuple):
    state: str
    threads: int
    born: int


def _stat(pid: int) -> _Stat | None:
    """What the kernel says of a process; None if it says nothing."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()  # behind the name, which may hold anything
        return _Stat(fields[0], int(fields[17]), int(fields[19]))
    except (OSError, ValueError, IndexError):
        return None


@lru_cache(1)
def _name() -> str:
    try:
        spaces = [os.stat(f"/proc/self/ns/{name}").st_ino for name in ("pid", "time")]
    except OSError:
        return ""
    return "/".join([boot(), *map(str, spaces)]) if boot() else ""
