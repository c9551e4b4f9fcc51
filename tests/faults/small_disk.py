"""Disks that get full: a small tmpfs where this user may mount one, and everywhere a limit on the size of files."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Protocol

SIZE = 16 * 1024 * 1024
"""Bytes of the tmpfs."""
LEFT = 200 * 1024
"""Bytes that `fill` leaves, on the disk or for each file to grow."""


class SmallDisk(Protocol):
    """A folder that can be made full."""

    place: Path

    def fill(self) -> None:
        """Take all but `LEFT`."""
        ...

    def free(self) -> None:
        """Give it back."""
        ...


class Tmpfs:
    """A small file system of its own: ENOSPC."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._ballast = place / "ballast"

    def fill(self) -> None:
        disk = os.statvfs(self.place)
        self._ballast.write_bytes(bytes(disk.f_bavail * disk.f_frsize - LEFT))

    def free(self) -> None:
        self._ballast.unlink()


class Limited:
    """A folder on a large disk, and a limit of this process for every file: EFBIG."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self) -> None:
        largest = max(path.stat().st_size for path in self.place.rglob("*"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest + LEFT, self._limit[1]))

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limit)


@contextlib.contextmanager
def mounted(place: Path) -> Generator[Tmpfs]:  # as for `limited`
    """A tmpfs, not below pytest's folders: one that a killed run leaves behind must not be in the way of the next."""
    with tempfile.TemporaryDirectory(prefix="holdfast-tmpfs-") as folder:
        options = f"size={SIZE},mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True, capture_output=True)
        try:
            yield Tmpfs(Path(folder))
        finally:
            subprocess.run(["umount", folder], check=True)


@contextlib.contextmanager
def limited(place: Path) -> Generator[Limited]:
    """A limit that ends with the block."""
    disk = Limited(place)
    try:
        yield disk
    finally:
        disk.free()


def can_mount() -> bool:
    """Whether a tmpfs may be mounted here."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    try:
        with mounted(Path()):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


DISKS = {"limited": limited, **({"tmpfs": mounted} if can_mount() else {})}
"""The kinds of disk that this machine can offer."""
