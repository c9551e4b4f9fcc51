"""Forks: who must be told before one, and afterwards in the parent and in the child.

A child has its parent's memory but none of its threads, so a lock that a thread held stays locked for ever, and what an
engine remembers about its open files is not true there. So a part that holds such things lets go of them before the
fork and starts afresh behind it. `os.fork` and `multiprocessing` tell; starting another program needs nothing of it.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Part(Protocol):
    """What holds locks, threads or open files."""

    def before_fork(self) -> None:
        """This process is about to be forked."""
        ...

    def after_fork(self, *, child: bool) -> None:
        """It was."""
        ...


_parts: weakref.WeakSet[Part] = weakref.WeakSet()
_told: list[Part] = []


def watch(part: Part) -> None:
    """Tell a part of forks, as long as it lives."""
    _parts.add(part)


def _before() -> None:
    _told[:] = list(_parts)
    for part in _told:
        part.before_fork()


def _after(*, child: bool) -> None:
    for part in _told:
        part.after_fork(child=child)
    _told.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_parent=lambda: _after(child=False), after_in_child=lambda: _after(child=True)
    )
