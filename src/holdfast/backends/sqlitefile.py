"""One SQLite file as this process holds it: a writer, a pool of readers, the lock between processes, the guard.

What keeps it safe: every write transaction, with the checkpoint that it may bring about, runs under the lock of the
file `<path>-lock`, so writers of all processes take turns and none meets "database is locked"; nobody ever opens the
database file itself but SQLite, because closing it again would cancel the process's locks on it
(https://sqlite.org/howtocorrupt.html 2.2), and on Linux a guard of our own holds those locks a second time. A forked
child starts afresh with its own connections.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import threading
from collections.abc import Generator

from holdfast import forks
from holdfast.backends.disk import FILE_MODE, lock, locked, make_dir, sync_dir, try_lock, unavailable, unlock
from holdfast.backends.engine import Connection, Engine
from holdfast.backends.migrate import migrate
from holdfast.errors import Unavailable

MIN_FREE = 4 * 1024 * 1024
"""Bytes that must be free to open: SQLite maps its shared memory, and a full disk under it kills the process."""
MAX_READERS = 16
"""Idle read connections that are kept."""

_INHERITED: list[object] = []
"""What a forked child got from its parent and must neither use nor close."""


class SQLiteFile:
    """The connections of one process to one file."""

    def __init__(self, path: str, engine: Engine, *, durable: bool, timeout: float) -> None:
        self.path = os.path.abspath(path)
        self.engine = engine
        self.durable = durable
        self.timeout = timeout
        self.created = False
        self._closed = False
        self._start()
        try:
            self.created = self._create()
        except OSError as error:
            raise unavailable(error, f"{self.path} can't be opened") from error
        except engine.errors as error:
            raise engine.explain(error, self.path) from error

    def _start(self) -> None:
        self._forks = forks.count()
        self._writer: Connection | None = None
        self._readers: list[Connection] = []
        self._lock_fd = -1
        self._guards: list[int] = []
        self.mutex = threading.RLock()

    def _create(self) -> bool:
        folder = os.path.dirname(self.path)
        make_dir(folder)
        if hasattr(os, "statvfs"):
            free = os.statvfs(folder)
            if free.f_bavail * free.f_frsize < MIN_FREE:
                raise Unavailable(f"less than {MIN_FREE >> 20} MiB are free for {self.path}; make room first")
        with locked(self.path + "-lock", self.timeout):
            if not os.path.exists(self.path):
                os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE))
                sync_dir(folder)
            db = self.connect()
            try:
                mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
                if mode != "wal":
                    raise Unavailable(f"{self.path}: SQLite can't use WAL here ({mode}); is it a network file system?")
                new = migrate(db, self.path)
            finally:
                db.close()
        return new

    def connect(self) -> Connection:
        """A new connection with the store's settings."""
        db = self.engine.connect(self.path, self.timeout)
        db.execute(f"PRAGMA synchronous = {'FULL' if self.durable else 'NORMAL'}")
        # SQLite's default of 1,000 pages: a log that is reused soon keeps fsync cheap (measured, docs/ARCHITECTURE.md).
        db.execute("PRAGMA wal_autocheckpoint = 1000")
        return db

    def _here(self) -> None:
        if self._forks != forks.count():
            _INHERITED.extend([self._writer, *self._readers, self.mutex])
            self._start()
        if self._closed:
            raise Unavailable(f"the store {self.path} was closed")

    def writer(self) -> Connection:
        """The write connection; the caller holds `mutex`."""
        self._here()
        if self._writer is None:
            try:
                self._writer = self._open_writer()
            except OSError as error:
                raise unavailable(error, f"{self.path} can't be written") from error
        return self._writer

    def _open_writer(self) -> Connection:
        if self._lock_fd < 0:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
            self._lock_fd = os.open(self.path + "-lock", flags, FILE_MODE)
        db = self.connect()
        try:
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()  # opens the file and its log
            if self.durable:
                sync_dir(os.path.dirname(self.path))  # SQLite does it too, and does not tell when that fails
            self._guard()
        except BaseException:
            db.close()
            raise
        return db

    def begin(self) -> Connection:
        """Begin a write transaction under the lock of all processes; the caller holds `mutex`, and must `end` it.

        Raises:
            Unavailable: the lock could not be had.
        """
        db = self.writer()
        if not try_lock(self._lock_fd):
            lock(self._lock_fd, self.timeout, self.path)
        try:
            db.execute("BEGIN IMMEDIATE")
        except BaseException:
            unlock(self._lock_fd)
            raise
        return db

    def end(self, db: Connection, *, commit: bool) -> None:
        """Commit or undo the transaction, and give the lock back. A commit that fails is undone, and raises."""
        try:
            db.execute("COMMIT" if commit else "ROLLBACK")
        except BaseException as error:
            with contextlib.suppress(*self.engine.errors):
                db.execute("ROLLBACK")
            if commit or not isinstance(error, self.engine.errors):
                raise  # a rollback may fail because SQLite has rolled back by itself
        finally:
            unlock(self._lock_fd)

    @contextlib.contextmanager
    def transaction(self) -> Generator[Connection]:
        """`begin` and `end` around a block; what it raises undoes it."""
        with self.mutex:
            db = self.begin()
            try:
                yield db
            except BaseException:
                self.end(db, commit=False)
                raise
            self.end(db, commit=True)

    @contextlib.contextmanager
    def reader(self) -> Generator[Connection]:
        """A read connection, which never waits for a writer."""
        self._here()
        try:
            db = self._readers.pop()
        except IndexError:
            db = self.connect()
            db.execute("PRAGMA query_only = 1")
        try:
            yield db
        finally:
            if len(self._readers) < MAX_READERS and not self._closed:
                self._readers.append(db)
            else:
                db.close()

    def _guard(self) -> None:
        """Hold SQLite's shared locks once more, in a way that a stray close() in this process can't cancel."""
        if sys.platform != "linux" or self._guards:
            return
        import fcntl

        for path, start, length in ((self.path, 0x40000002, 510), (self.path + "-shm", 128, 1)):
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            self._guards.append(fd)
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, start, length, 0))

    def close(self) -> None:
        """Close all connections, under the lock: the last one of all processes checkpoints."""
        with self.mutex:
            if self._closed:
                return
            if self._forks != forks.count():
                self._closed = True
                return
            with locked(self.path + "-lock", self.timeout):
                self._closed = True
                self._unguard()
                for db in [*self._readers, self._writer]:
                    if db is not None:
                        with contextlib.suppress(*self.engine.errors):
                            db.close()  # a checkpoint that fails here loses nothing: the log stays and is read again
            self._readers.clear()
            self._writer = None
            for fd in [*self._guards, self._lock_fd]:
                if fd >= 0:
                    os.close(fd)

    def _unguard(self) -> None:
        if sys.platform == "linux" and self._guards:
            import fcntl

            for fd in self._guards:
                fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_UNLCK, 0, 0, 0, 0))
