"""The lock between those who put blobs and those who delete some: two files in a folder of the machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from contextlib import AbstractContextManager
from typing import Protocol

from holdfast import forks
from holdfast.backend import BLOB_PATIENCE
from holdfast.backends.disk import FILE_MODE, lock, make_dir, share, sign, signature, unavailable, unlock


class BlobLock(Protocol):
    """Keeps who puts blobs and who deletes some apart; see `Blobs.shared` and `Blobs.exclusive`."""

    def shared(self) -> AbstractContextManager[None]:
        """Keep deleters out."""
        ...

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep everybody else out."""
        ...

    def confirm(self) -> None:
        """See that whoever keeps everybody else out still does, before each value that is deleted.

        Raises:
            Unavailable: the lock was lost meanwhile, so somebody may have begun to need the value.
        """
        ...


class Gate:
    """Held by any number of writers at once, or by one who deletes. The system gives it back, however a holder ends."""

    def __init__(self, path: str, *, durable: bool = True) -> None:
        self._path = path
        self._durable = durable
        self._locks: set[int] = set()
        forks.watch(self)

    @contextlib.contextmanager
    def shared(self) -> Generator[None]:
        """Keep deleters out.

        Raises:
            Unavailable: somebody deleted all the time, or the files can't be had.
        """
        with self._open("gate") as gate, self._open("lock") as lock:
            # Whoever waits for the others to finish holds the gate, so that new ones do not keep it waiting for ever.
            share(gate, BLOB_PATIENCE, self._path)
            share(lock, BLOB_PATIENCE, self._path)
            unlock(gate)
            yield

    @contextlib.contextmanager
    def exclusive(self) -> Generator[None]:
        """Keep everybody else out.

        Raises:
            Unavailable: somebody held it all the time, or the files can't be had.
        """
        with self._open("gate") as gate, self._open("lock") as alone:
            lock(gate, BLOB_PATIENCE, self._path)
            lock(alone, BLOB_PATIENCE, self._path)
            sign(alone, signature())
            yield

    def confirm(self) -> None:
        """The system takes it from nobody."""

    @contextlib.contextmanager
    def _open(self, name: str) -> Generator[int]:
        """A lock file of its own for each holder."""
        try:
            make_dir(self._path, self._durable)
            path = os.path.join(self._path, name)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), FILE_MODE)
        except OSError as error:
            raise unavailable(error, "the lock of the blobs can't be had") from error
        self._locks.add(fd)
        try:
            yield fd
        finally:
            if fd in self._locks:  # in a forked child it is closed already
                self._locks.remove(fd)
                os.close(fd)

    def before_fork(self) -> None:
        """See `forks`."""

    def after_fork(self, *, child: bool) -> None:
        """See `forks`: a lock that a thread holds is the parent's, and lasts as long as anybody has it open."""
        if child:
            for fd in self._locks:
                os.close(fd)
            self._locks.clear()
