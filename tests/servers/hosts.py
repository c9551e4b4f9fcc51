"""Hosts for the tests: namespaces with a network, a name and a monotonic clock of their own, joined by a veth pair.

A process in one takes this machine's other processes for those of another. They need root and the tools of iproute2 and
util-linux, and are gone with the process that holds them, which ends with the tests.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache

PATIENCE = 20
_numbers = itertools.count()


class Host:
    """One more host. `ours` is this machine's address on the wire between them, as the host reaches it."""

    def __init__(self) -> None:
        number = next(_numbers)
        wire = (os.getpid() * 4 + number % 4) % 32_768  # of the addresses that are kept for measurements, 198.18.0.0/15
        place = f"198.{18 + (wire >> 14)}.{wire >> 6 & 255}"
        self.ours, theirs = (f"{place}.{(wire & 63) * 4 + end}" for end in (1, 2))
        clock = ["--time", "--monotonic", str(86_400 * (number + 1))]
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--uts", *clock, "--fork", "sh", "-c", "echo $$; exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert self._holder.stdout is not None
            self._pid = self._holder.stdout.readline().strip()
            wired = f"hf{os.getpid()}n{number}"[:15]
            _done("ip", "link", "add", wired, "type", "veth", "peer", "name", "eth0", "netns", self._pid)
            _done("ip", "addr", "add", f"{self.ours}/30", "dev", wired)
            _done("ip", "link", "set", wired, "up")
            for command in (
                ["hostname", f"host-{number}"],
                ["ip", "addr", "add", f"{theirs}/30", "dev", "eth0"],
                ["ip", "link", "set", "lo", "up"],
                ["ip", "link", "set", "eth0", "up"],
            ):
                _done(*self.inside(command))
        except BaseException:
            self.close()
            raise

    def inside(self, command: Sequence[str]) -> list[str]:
        """What runs a command on this host; the process that is started becomes it."""
        return ["nsenter", "--target", self._pid, "--net", "--uts", "--time", "--", *command]

    def close(self) -> None:
        """End it; what runs on it goes on without a wire."""
        self._holder.communicate()


def _done(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    if done.returncode:
        raise OSError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")


@cache
def missing() -> str:
    """Why there can be no hosts on this machine; "" if there can be."""
    if os.geteuid():
        return "only root can make them"
    if lacking := [tool for tool in ("ip", "nsenter", "unshare", "hostname") if shutil.which(tool) is None]:
        return f"there is no {', '.join(lacking)}"
    try:
        Host().close()
    except OSError as error:
        return str(error)
    return ""
