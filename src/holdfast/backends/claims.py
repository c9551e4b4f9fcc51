"""The files that this process has open with SQLite: with which library, by how many stores, and their guard.

SQLite's locks belong to the process. Two copies of the library cancel each other's, and closing any descriptor of a
file cancels all of them (https://sqlite.org/howtocorrupt.html 2.2). So a file is claimed for one library; and on Linux
a guard of our own holds SQLite's shared locks a second time, which stray closes can't cancel. The guard's descriptors
are themselves such as must not be closed beside anybody: all stores of the process on a file share one guard, and only
the last of them takes it down.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import threading
import weakref
from collections.abc import Generator

from holdfast import forks
from holdfast.backends.engine import Engine
from holdfast.errors import Invalid

_SHARED = (("", 0x40000002, 510), ("-shm", 128, 1))
"""The bytes that SQLite locks, shared, while it has a file open: of the database and of its shared memory."""


class Claim:
    """One file, as all stores of this process have it open."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._engine = ""
        self._stores = 0
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._fds: list[int] = []
        self._guarded = False
        self._file: tuple[int, int] | None = None

    def take(self, engine: Engine) -> None:
        """Claim the file for one more store, before it connects. Waits for the last store before it to have left.

        Raises:
            Invalid: this process has it open with the other library.
        """
        with self._lock:
            if self._stores and self._engine != engine.name:
                raise Invalid(
                    f"{self.path} is open in this process with engine={self._engine}, and two SQLite libraries on one "
                    f"file damage it; open it with engine={self._engine}, or close it first",
                    path=self.path,
                    engine=self._engine,
                )
            self._engine = engine.name
            self._stores += 1

    def is_at_its_place(self) -> bool:
        """Whether the file that is open, if any is, is still what the path leads to."""
        file = self._file
        if file is None:
            return True
        try:
            status = os.stat(self.path)  # not by `_identity`, as every commit asks
        except FileNotFoundError:
            return False
        return file == (status.st_dev, status.st_ino)

    def guard(self) -> None:
        """Hold SQLite's shared locks once more, if that is not done yet; the caller has a connection that holds them.

        Raises:
            OSError: the system refuses.
        """
        if self._guarded:
            return
        with self._lock:
            if self._file is None:
                self._file = _identity(self.path)
            self._lock_all()
            self._guarded = True

    def _lock_all(self) -> None:
        if sys.platform == "linux":
            import fcntl

            for suffix, _, _ in _SHARED[len(self._fds) :]:  # what a call before opened must not be closed for a retry
                self._fds.append(os.open(self.path + suffix, os.O_RDONLY | os.O_CLOEXEC))
            for fd, (_, start, length) in zip(self._fds, _SHARED, strict=True):
                fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, start, length, 0))

    @contextlib.contextmanager
    def leaving(self, *, alone: bool) -> Generator[None]:
        """Around the closing of all connections of a store, which gives its claim back.

        Args:
            alone: Whether no writer of any process is at work: then SQLite may find that it is the last to close, and
                put the log in order. Otherwise the guard, standing until the end, makes it leave the log as it is.
        """
        with self._lock:
            last = self._stores == 1
            if last and alone:
                self._unlock()
            try:
                yield
            finally:
                self._stores -= 1
                if last:
                    self._close()

    def _unlock(self) -> None:
        if sys.platform == "linux":
            import fcntl

            for fd in self._fds:
                fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_UNLCK, 0, 0, 0, 0))

    def _close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
        self._guarded = False
        self._file = None

    def forked(self) -> None:
        """In a child: its parent's stores and claim are its own, the guard is not. SQLite holds no locks here yet."""
        self._close()
        self._start()


def _identity(path: str) -> tuple[int, int] | None:
    """What tells a file from any other, whatever its name; None if there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


class Claims:
    """The claims of this process, by the real paths of the files. Another file at a path is another claim."""

    def __init__(self) -> None:
        self._start()
        self._claims: weakref.WeakSet[Claim] = weakref.WeakSet()  # also of files that were moved away
        forks.watch(self)

    def _start(self) -> None:
        self._lock = threading.Lock()

    def take(self, path: str, engine: Engine) -> Claim:
        """Claim a file for one more store that opens it with this library.

        Raises:
            Invalid: this process has it open with the other one.
        """
        with self._lock:
            claim = next((c for c in self._claims if c.path == path and c.is_at_its_place()), None)
            if claim is None:
                claim = Claim(path)
                self._claims.add(claim)
        claim.take(engine)
        return claim

    def before_fork(self) -> None:
        """See `forks`: the guards stand, also while every store has closed its connections."""

    def after_fork(self, *, child: bool) -> None:
        """See `forks`: a lock may be that of a thread which is not here."""
        if child:
            self._start()
            for claim in list(self._claims):
                claim.forked()


CLAIMS = Claims()
