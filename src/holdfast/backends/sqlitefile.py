"""One SQLite file as this process holds it: a writer, a pool of readers, the lock between processes, the guard.

What keeps it safe: every write transaction, with the checkpoint that it may bring about, runs under the lock of the
file `<path>-lock`, so writers of all processes take turns and none meets "database is locked", and who only reads needs
no lock, neither to open nor to close; nobody ever opens the
database file itself but SQLite, because closing it again would cancel the process's locks on it, which on Linux the
guard holds a second time (see `claims`). All connections are closed while the process is forked.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Generator

from holdfast import forks
from holdfast.backends.claims import CLAIMS
from holdfast.backends.disk import (
    FILE_MODE,
    lock,
    locked,
    make_dir,
    sign,
    signature,
    sync_dir,
    try_lock,
    unavailable,
    unlock,
)
from holdfast.backends.engine import Connection, Engine
from holdfast.backends.migrate import NEWEST, check_ours, is_current, migrate
from holdfast.errors import HoldfastError, Invalid, Unavailable

MIN_FREE = 4 * 1024 * 1024
"""Bytes that must be free to open: SQLite maps its shared memory, and a full disk under it kills the process."""
PATIENCE = 0.1
"""Seconds to wait for the writers' lock when closing, which can do without."""
FOR_READERS = 5.0
"""Seconds to wait for reads to end before the log can be cut off: all writers wait meanwhile."""
MAX_READERS = 16
"""Idle read connections that are kept."""


class SQLiteFile:
    """The connections of one process to one file."""

    def __init__(
        self,
        path: str,
        engine: Engine,
        *,
        durable: bool,
        timeout: float,
        derived: bool = False,
        begin: Callable[[], None] | None = None,
    ) -> None:
        """Open the file.

        Args:
            begin: What is to be done before there is a file, while nobody else can make one.
            derived: All that is in it can be built anew: who has it open goes on writing when it is moved away.
        """
        self.path = os.path.realpath(path)  # what SQLite opens: the files beside it must be the same by any name
        self.engine = engine
        self.durable = durable
        self.timeout = timeout
        self._derived = derived
        self._begin = begin
        self.created = False
        self.opened = 0
        self._watches = 0
        self._closed = False
        self._start()
        self._claim = CLAIMS.take(self.path, engine)
        forks.watch(self)
        try:
            self.created = self._create()
        except BaseException as error:
            self._closed = True
            with self._claim.leaving(alone=False):
                self._close_all()
            if isinstance(error, OSError):
                raise unavailable(error, f"{self.path} can't be opened") from error
            if isinstance(error, engine.errors):
                raise engine.explain(error, self.path) from error
            raise

    def _start(self) -> None:
        self._writer: Connection | None = None
        self._readers: list[Connection] = []
        self._watch: Connection | None = None
        self._lent = 0
        self._mine = threading.local()
        self._forking = False
        self._lock_fd = -1
        self._me = b""
        self.mutex = threading.RLock()
        self._pool = threading.Condition()

    def _create(self) -> bool:
        folder = os.path.dirname(self.path)
        make_dir(folder)
        if hasattr(os, "statvfs"):
            free = os.statvfs(folder)
            if free.f_bavail * free.f_frsize < MIN_FREE:
                raise Unavailable(f"less than {MIN_FREE >> 20} MiB are free for {self.path}; make room first")
        if self._is_made():
            return False
        with locked(self.path + "-lock", self.timeout), self._nothing_left():
            if self._begin is not None and not (os.path.exists(self.path) and os.path.getsize(self.path)):
                self._begin()
            if not os.path.exists(self.path):
                os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE))
                sync_dir(folder)
            db = self.connect()
            try:
                check_ours(db, self.path, NEWEST)  # before anything is changed
                mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
                if mode != "wal":
                    raise Unavailable(f"{self.path}: SQLite can't use WAL here ({mode}); is it a network file system?")
                new = migrate(db, self.path)
            finally:
                db.close()
        return new

    @contextlib.contextmanager
    def _nothing_left(self) -> Generator[None]:
        """Around the making of a file, under the lock: if there is none in the end, the lock's file goes, too.

        Who waits for the lock then sees that it is not the one at its place any more (see `locked`), and who writes
        opens it where there is a file already.
        """
        try:
            yield
        except BaseException:
            if not os.path.exists(self.path):
                with contextlib.suppress(OSError):
                    os.unlink(self.path + "-lock")
            raise

    def _is_made(self) -> bool:
        """Whether the file is ready for use, and then the first reader has it. No writer is waited for."""
        # A file gets its first bytes when its maker, under the lock, turns WAL on; a reader before would be in the way.
        if not os.path.exists(self.path) or not os.path.getsize(self.path):
            return False
        try:
            with contextlib.ExitStack() as stack:
                db = self.connect()
                stack.callback(db.close)
                if not is_current(db, self.path):
                    return False
                db.execute("PRAGMA query_only = 1")
                self._claim.guard()
                with self._pool:
                    self._readers.append(db)
                stack.pop_all()
        except (*self.engine.errors, Invalid):
            # Who makes or converts a store has the lock's file by then; without one, nobody is, and none is to be left.
            if not os.path.exists(self.path + "-lock"):
                raise
            return False  # whoever opens it under the lock meets and tells what is wrong
        return True

    def connect(self) -> Connection:
        """A new connection with the store's settings."""
        db = self.engine.connect(self.path, self.timeout)
        try:
            db.execute(f"PRAGMA synchronous = {'FULL' if self.durable else 'NORMAL'}")
            # SQLite's default of 1,000 pages: a log that is reused soon keeps fsync cheap (docs/ARCHITECTURE.md).
            db.execute("PRAGMA wal_autocheckpoint = 1000")
        except BaseException:
            db.close()
            raise
        return db

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable(f"the store {self.path} was closed")

    def writer(self) -> Connection:
        """The write connection; the caller holds `mutex`. `opened` counts how often it was another one."""
        if self._writer is None:  # as it is once the store was closed
            self._check_open()
            try:
                self._writer = self._open_writer()
            except OSError as error:
                raise unavailable(error, f"{self.path} can't be written") from error
            self.opened += 1
        return self._writer

    def _open_writer(self) -> Connection:
        if self._lock_fd < 0:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
            self._lock_fd = os.open(self.path + "-lock", flags, FILE_MODE)
            self._me = signature()
        db = self._open()
        try:
            if self.durable:
                sync_dir(os.path.dirname(self.path))  # SQLite does it too, and does not tell when that fails
        except BaseException:
            db.close()
            raise
        return db

    def _check_place(self) -> None:
        """Refuse to go on with a file that has no name any more, or to mix it with the one that took its place."""
        if not self._claim.is_at_its_place():
            raise self._displaced()

    def _displaced(self) -> Unavailable:
        return Unavailable(
            f"{self.path} was moved away, removed or replaced while the store has it open, and nothing is written "
            "to it any more; put it back, or close the store and open it again",
            path=self.path,
        )

    def _open(self) -> Connection:
        """A connection that has the file, its log and its locks; and the guard."""
        self._check_place()
        db = self.connect()
        try:
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            self._claim.guard()
        except OSError as error:
            db.close()
            raise unavailable(error, f"{self.path} can't be opened") from error
        except BaseException:
            db.close()
            raise
        return db

    def begin(self, patience: float | None = None) -> Connection:
        """Begin a write transaction under the lock of all processes.

        The caller holds `mutex`, and must `end` it and then `release` the lock.

        Args:
            patience: Seconds to wait for other writers; the store's `timeout` if not given.

        Raises:
            Unavailable: the lock could not be had.
        """
        db = self.writer()
        if not (self._derived or self._claim.is_at_its_place()):
            raise self._displaced()
        self._lock(patience)
        try:
            if patience is None:
                db.execute("BEGIN IMMEDIATE")
            else:
                self._begin_within(db, patience)
        except BaseException:
            unlock(self._lock_fd)
            raise
        return db

    def _lock(self, patience: float | None = None) -> None:
        if not try_lock(self._lock_fd):
            lock(self._lock_fd, self.timeout if patience is None else patience, self.path)
        sign(self._lock_fd, self._me)

    def _begin_within(self, db: Connection, patience: float) -> None:
        """The same beside another program, which knows nothing of our lock."""
        with self._waiting(db, patience):
            db.execute("BEGIN IMMEDIATE")

    @contextlib.contextmanager
    def _waiting(self, db: Connection, seconds: float) -> Generator[None]:
        """SQLite waits no longer than that within the block."""
        db.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")
        try:
            yield
        finally:
            db.execute(f"PRAGMA busy_timeout = {int(self.timeout * 1000)}")

    def end(self, db: Connection, *, commit: bool) -> None:
        """Commit or undo the transaction. A commit that fails is undone, and raises."""
        try:
            db.execute("COMMIT" if commit else "ROLLBACK")
        except BaseException as error:
            with contextlib.suppress(*self.engine.errors):
                db.execute("ROLLBACK")
            if commit or not isinstance(error, self.engine.errors):
                raise  # a rollback may fail because SQLite has rolled back by itself

    def release(self) -> None:
        """Give the lock of all processes back, once all is as the transaction left it."""
        unlock(self._lock_fd)

    @contextlib.contextmanager
    def transaction(self, patience: float | None = None) -> Generator[Connection]:
        """`begin` and `end` around a block; what it raises undoes it. `patience` is for this process's writers too."""
        if not self.mutex.acquire(timeout=-1 if patience is None else patience):
            raise Unavailable(f"{self.path} is being written to by another thread", path=self.path)
        try:
            db = self.begin(patience)
            try:
                try:
                    yield db
                except BaseException:
                    self.end(db, commit=False)
                    raise
                self.end(db, commit=True)
            finally:
                self.release()
        finally:
            self.mutex.release()

    def compact(self) -> None:
        """Write the file anew without what was deleted, and cut its log off, under the lock of all processes.

        Nothing less is sure: freed space keeps its bytes, also between the rows of a page, and the log keeps old pages.

        Raises:
            Unavailable: somebody reads and does not end, so the log can't be cut off.
        """
        with self.mutex:
            db = self.writer()
            self._check_place()
            self._lock()
            try:
                db.execute("VACUUM")
                with self._waiting(db, min(self.timeout, FOR_READERS)):
                    busy = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            finally:
                self.release()
        if busy:
            raise Unavailable(
                f"{self.path} was written anew, but a long read elsewhere keeps its log, where bytes of what was "
                "deleted may stand; try again when it has ended",
                path=self.path,
            )

    @contextlib.contextmanager
    def snapshot(self) -> Generator[Connection]:
        """A read connection that sees one state of the file all the time."""
        with self.reader() as db:
            db.execute("BEGIN")
            try:
                yield db
            finally:
                db.execute("ROLLBACK")

    @contextlib.contextmanager
    def reader(self) -> Generator[Connection]:
        """A read connection, which never waits for a writer."""
        depth: int = getattr(self._mine, "depth", 0)
        with self._pool:
            # A fork waits for what is lent, so a thread that has a connection must get another one to come to its end.
            while self._forking and not depth:
                self._pool.wait()
            self._check_open()
            db = self._readers.pop() if self._readers else None
            self._lent += 1
            self._mine.depth = depth + 1
        try:
            if db is None:
                db = self._open()
                db.execute("PRAGMA query_only = 1")
            yield db
        finally:
            with self._pool:
                self._lent -= 1
                self._mine.depth = depth
                if db is not None:
                    self._readers.append(db)
                if self._closed and not self._lent:
                    self._leave()
                while len(self._readers) > MAX_READERS:
                    self._readers.pop().close()
                self._pool.notify_all()

    def version(self) -> tuple[int, int]:
        """What is another with every commit of any process."""
        with self._pool:
            self._check_open()
            if self._watch is None:
                self._watch = self._open()
                self._watches += 1
            return self._watches, int(self._watch.execute("PRAGMA data_version").fetchone()[0])

    def close(self) -> None:
        """Close all connections; the last one of all processes checkpoints, if no writer has the lock."""
        with self.mutex, self._pool:
            if self._closed:
                return
            self._closed = True
            if self._lent:
                self._close_all()  # whoever reads goes on to the end of that, and the last one leaves
            else:
                self._leave()

    def _leave(self) -> None:
        """Close what is open and give the claim back; the caller holds `_pool`, and nothing is lent."""
        with contextlib.ExitStack() as stack:
            alone = False
            with contextlib.suppress(HoldfastError, OSError):
                if os.path.exists(self.path + "-lock"):  # a writer makes it before it opens the file
                    stack.enter_context(locked(self.path + "-lock", min(self.timeout, PATIENCE)))
                alone = True
            with self._claim.leaving(alone=alone):
                self._close_all()

    def _close_all(self) -> None:
        for db in [*self._readers, self._watch, self._writer]:
            if db is not None:
                with contextlib.suppress(*self.engine.errors):
                    db.close()  # a checkpoint that fails here loses nothing: the log stays and is read again
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
        self._readers.clear()
        self._watch = self._writer = None
        self._lock_fd = -1

    def before_fork(self) -> None:
        """See `forks`: SQLite's memory of its locks is wrong in a child, so nothing may be open meanwhile."""
        self.mutex.acquire()
        self._pool.acquire()
        self._forking = True
        self._pool.wait_for(lambda: not self._lent, self.timeout)
        if not self._closed:
            self._close_all()

    def after_fork(self, *, child: bool) -> None:
        """See `forks`: whoever needs a connection opens it."""
        if child:
            self._start()
        else:
            self._forking = False
            self._pool.notify_all()
            self._pool.release()
            self.mutex.release()
