"""One folder of readable logs: a line for each commit, in a file for each session. All else can be built from them.

    holdfast.json             the version of the layout, and the store's id
    logs/session/<name>.jsonl
    blobs/                    large values
    index.db                  rows for the logs: heads, lists, words. Delete it, and the next open builds it again.
    writers                   who has the store open, and whether the index can be believed
    open-lock                 whose lock is held to open and to close

The rows are those of the SQLite backend, with the place of a body instead of the body. They are not synced: whoever
opens the store and is alone, though those before did not all close it, compares every log with its rows first. An
index that is removed or replaced while somebody has the store open is noticed by the next one, who is refused.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from holdfast import forks
from holdfast.backend import Hit, Problem, TextOf
from holdfast.backends.adoption import AdoptingLock, adopt, ahead, replaced, replay_all, sync_log_folders
from holdfast.backends.blobplace import DATABASE, begin_blobs, open_blobs
from holdfast.backends.blobs import DirectoryBlobs
from holdfast.backends.disk import FILE_MODE, locked, make_dir, sync_dir, sync_file, sync_files, unavailable, write_all
from holdfast.backends.engine import Connection, Engine
from holdfast.backends.filelogs import LogBodies
from holdfast.backends.gate import BlobLock
from holdfast.backends.leftovers import left_over, removed
from holdfast.backends.logcheck import head_in_log, log_problems
from holdfast.backends.replay import LOG_TABLE, WrongLog, all_files
from holdfast.backends.rowbackend import Guarded, RowBackend
from holdfast.backends.rows import Numbers, newest_row
from holdfast.backends.sqlitefile import SQLiteFile
from holdfast.backends.writers import State, Trust, Writers
from holdfast.errors import Corrupt, HoldfastError, Invalid, Unavailable
from holdfast.plan import Commit, Entry, Head, Ref, Refused
from holdfast.urls import Location

if TYPE_CHECKING:
    from holdfast.backends.matching import Wanted

T = TypeVar("T")

LAYOUT = 1
"""Version of the layout; a newer one is refused."""
INDEX = 1
"""Version of the index; one of another version is built anew."""
TIMEOUT = 30.0
"""Seconds to wait for a lock."""
PATIENCE = 0.1
"""Seconds for which one who only read waits for it to close."""
TRIES = 50
"""How often something is read that another process may write anew again and again."""


class FilesBackend(RowBackend):
    """A store in a folder of logs. See `Backend` for what the methods promise."""

    def __init__(self, where: Location, text_of: TextOf) -> None:
        durability = where.params.get("durability", "disk")
        self.root = os.path.abspath(where.path)
        self._gate = os.path.join(self.root, "open-lock")
        self._index_path = os.path.join(self.root, "index.db")
        self._closed = False
        self._leftovers = False
        layout = os.path.join(self.root, "holdfast.json")
        wanted, folder = where.params.get("blobs"), os.path.join(self.root, "blobs")
        if wanted == DATABASE:
            raise Invalid("a folder store has no database for large values; write blobs=file:///folder", blobs=wanted)
        try:
            if os.path.exists(layout):
                _check_layout(layout)
            make_dir(self.root)
            with locked(self._gate, TIMEOUT):
                if not os.path.exists(layout):
                    begin_blobs(wanted, folder)
                    _write_layout(layout)
                id = _check_layout(layout) or _write_layout(layout)  # earlier versions wrote none
                blobs = open_blobs(wanted, folder, self._lock_of) or DirectoryBlobs(folder)
                make_dir(os.path.join(self.root, "logs"))
                self._writers = Writers(self.root, durability)
                try:
                    file = self._open_index()
                except BaseException:
                    self._writers.close()
                    raise
        except OSError as error:
            raise unavailable(error, f"{self.root} can't be opened") from error
        self._logs = LogBodies(self.root, durability == "disk", self._adopt, self._name_of)
        facts = {"engine": "files", "durability": durability, "path": self.root}
        super().__init__(file, self._logs, blobs, text_of, facts, id)
        self.path = self.root
        forks.watch(self)

    def _lock_of(self, lock: BlobLock) -> BlobLock:
        return AdoptingLock(lock, self._adopt_ahead)

    def _open_index(self) -> SQLiteFile:
        """The index, as it can be believed; the caller has the lock to open."""
        file = self._open_alone() if self._writers.alone() else self._open_beside()
        self._writers.share()
        return file

    def _open_beside(self) -> SQLiteFile:
        """The index that others have open, and have compared with the logs."""
        stamp = self._writers.read().stamp
        if os.path.exists(self._index_path):
            file = self._connect()
            if _is_ours(stamp) and _stamp(file) == stamp:
                return file
            file.close()
        raise Unavailable(
            f"{self._index_path} was removed or replaced while the store is open; close it everywhere, then open it"
        )

    def _open_alone(self) -> SQLiteFile:
        """The index: compared with the logs if nobody can vouch for it, built anew if it is not usable."""
        state = self._writers.read()
        if os.path.exists(self._index_path) and _is_ours(state.stamp):
            with contextlib.suppress(Corrupt):
                file = self._connect()
                with _closing_on_error(file):
                    if _stamp(file) == state.stamp:
                        if state.open or not state.clean:
                            self._compare(file, state.trust(), kept=state.outlived())
                        return file
                file.close()
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._index_path + suffix)
        file = self._connect()
        with _closing_on_error(file):
            self._compare(file, Trust.LOOKS, kept=False)
        return file

    def _connect(self) -> SQLiteFile:
        engine = Engine("stdlib")
        file = SQLiteFile(self._index_path, engine, durable=False, timeout=TIMEOUT, derived=True)
        with _closing_on_error(file), Guarded(engine, file.path):
            with file.reader() as db:  # a writer would have to wait for others
                made = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'log'").fetchone()
            if not made:
                with file.transaction() as db:
                    db.execute(LOG_TABLE)
        return file

    def _compare(self, file: SQLiteFile, trust: Trust, *, kept: bool) -> None:
        """Compare every log with its rows, and take in what differs; nobody else has the store open.

        Rows that were not `kept` may get other numbers now than they had, by which positions would go astray.
        """
        stamp = _new_stamp()
        with Guarded(file.engine, file.path), file.transaction() as db:
            if not kept:
                db.execute("UPDATE meta SET value = ? WHERE name = 'store'", (os.urandom(8).hex(),))
            replay_all(db, self.root, trust)
            left = left_over(db, self.root)
            _write_stamp(db, stamp)
        self._writers.write(State(stamp))
        if left:
            self._leftovers = removed(left) is not None
            sync_log_folders(self.root)

    def _adopt(self, db: Connection, name: str, anew: bool) -> bool:
        return adopt(db, self.root, name, self._writer.numbers, anew=anew)

    def _adopt_ahead(self) -> None:
        """Take in all that killed writers left ahead of the rows, so that whoever looks at these sees all there is."""
        with self._file.mutex:
            with self._guarded(), self._file.reader() as db:
                names = ahead(db, self.root)
            if names:
                self._note()
                with self._guarded(), self._file.transaction() as db:
                    self._adopt_some(db, names)

    def _adopt_some(self, db: Connection, names: Sequence[str]) -> None:
        self._writer.distrust()  # what it remembers of them is old then
        for name in names:
            with contextlib.suppress(WrongLog):  # it hides no other; `verify` names it
                adopt(db, self.root, name, Numbers(newest_row(db)))

    def _head(self, row: Any) -> Head:
        """As for any row; but what is damaged in the index may be whole in the log."""
        try:
            return super()._head(row)
        except Corrupt:
            head = head_in_log(self._file, self.root, row[0])
            if head is None:
                raise
            return head

    def _name_of(self, n: int) -> str | None:
        with self._guarded(), self._file.reader() as db:
            row = db.execute("SELECT name FROM log WHERE head = ?", (n,)).fetchone()
        return None if row is None else row[0]

    def commit(self, batch: Sequence[Commit]) -> list[Head | Refused]:
        """Make commits in order."""
        if not self._writers.noted:
            with self._file.mutex:
                self._note()
        return super().commit(batch)

    def compact(self) -> None:
        """The index, as for any rows; logs were written anew when something of them was forgotten.

        Raises:
            Unavailable: something is left of them that can't be removed; all else was done.
        """
        with self._file.mutex:
            self._note()
            with self._guarded(), self._file.transaction() as db:  # nobody else is amid a commit
                # What the rows speak of, if a log was replaced and the writer killed, stands in the old one alone.
                self._adopt_some(db, replaced(self.root))
                failed = removed(left_over(db, self.root))
            sync_log_folders(self.root)
            self._leftovers = self._logs.leftovers = failed is not None
        super().compact()
        if failed is not None:
            raise failed

    def _note(self) -> None:
        """From now on the rows may differ from what is on the disk; say so durably, once."""
        if self._closed:
            raise Unavailable(f"the store {self.root} was closed")
        if self._writers.noted:
            return
        try:
            with locked(self._gate, TIMEOUT):
                self._writers.note()
        except OSError as error:
            raise unavailable(error, f"nothing was stored in {self.root}") from error

    def read(
        self,
        ref: Ref,
        *,
        after: int = 0,
        upto: int | None = None,
        ids: Sequence[str] | None = None,
        limit: int | None = None,
        reverse: bool = False,
        voided: bool = False,
    ) -> list[Entry]:
        """Entries of one log."""
        read = super().read
        return self._settled(
            lambda: read(ref, after=after, upto=upto, ids=ids, limit=limit, reverse=reverse, voided=voided),
            lambda entries: any(entry.fault for entry in entries),
        )

    def _search(self, wanted: Wanted) -> tuple[list[Hit], bool]:
        search = super()._search
        return self._settled(
            lambda: search(wanted),
            lambda found: not found[1] or any(hit.entry.fault for hit in found[0]),
        )

    def _settled(self, look: Callable[[], T], is_faulty: Callable[[T], bool]) -> T:
        """What is found; looked at again if it is faulty: the log may just have been written anew."""
        found = look()
        for _ in range(TRIES - 1):
            if not is_faulty(found):
                break
            self._logs.refresh()
            before, found = found, look()
            if found == before:
                break  # twice the same: the log stood still, and it is so
        return found

    def _entry(self, row: tuple[Any, ...]) -> Entry:
        """As for any row; but what is damaged comes with the bytes that stand in the log."""
        entry = super()._entry(row)
        if not entry.fault:
            return entry
        return Entry(entry.id, entry.at, self._logs.damaged(entry.body), entry.seq, entry.void, entry.fault)

    def verify(self) -> list[Problem]:
        """Read every line of every log, then the rows, and hold them against each other."""
        self._logs.refresh()
        problems: list[Problem] = []
        for name in all_files(self.root, ".jsonl"):
            try:
                problems += log_problems(self._file, self.root, name)
            except self._engine.errors as error:
                problems.append(Problem(None, None, f"{name} can't be held against the index: {error}"))
        return problems + [problem for problem in super().verify() if not self._has_passed(problem)]

    def _has_passed(self, problem: Problem) -> bool:
        """Whether an entry is sound, or gone, when it is looked at again."""
        if problem.ref is None or problem.seq is None:
            return False
        seen = self.read(problem.ref, after=problem.seq - 1, upto=problem.seq, voided=True)
        return not any(entry.fault for entry in seen)

    def before_fork(self) -> None:
        """See `forks`: no write is under way, and no log is open."""
        self._file.mutex.acquire()
        self._logs.distrust()

    def after_fork(self, *, child: bool) -> None:
        """See `forks`: the child opens its own files."""
        if not child:
            self._file.mutex.release()
            return
        self._logs.refresh()
        self._logs.unsynced.clear()  # the parent's to sync
        if not self._closed:
            self._writers.forked()

    def close(self) -> None:
        """Close the files; the last one to close says that the index can be believed."""
        with self._file.mutex:
            if self._closed:
                return
            self._closed = True
        self._background.close()
        self._listening.close()
        patience = TIMEOUT if self._writers.noted else PATIENCE
        try:
            # What fails here loses nothing: the next one to open compares the logs with the index.
            with contextlib.suppress(OSError, HoldfastError), self._file.mutex, locked(self._gate, patience):
                self._leave()
            super().close()
        finally:
            self._logs.close()
            self._writers.close()

    def _leave(self) -> None:
        """Take this process's note away; if nobody else is here, and nobody was killed, vouch for the index."""
        paths = self._logs.unsynced
        sync_files(paths)
        for folder in {os.path.dirname(path) for path in paths}:
            sync_dir(folder)
        state = self._writers.read()
        left = self._writers.without_mine(state)
        if self._leftovers or self._logs.leftovers:
            return  # the next one looks for them, and tries again
        if self._writers.alone() and not left.open and not left.clean:
            stamp = _new_stamp()
            with self._guarded(), self._file.transaction() as db:
                _write_stamp(db, stamp)
            super().close()
            if not os.path.exists(self._index_path + "-wal"):  # otherwise SQLite's checkpoint failed
                sync_file(self._index_path)
                left = State(stamp, clean=True)
        if left != state:
            self._writers.write(left)

    def info(self) -> Mapping[str, str]:
        """Facts for a person."""
        writing = ", ".join(note.owner for note in self._writers.read().open)
        return {**super().info(), "logs": os.path.join(self.root, "logs"), "written by": writing or "nobody"}


def _check_layout(path: str) -> str:
    """The id of the store; "" if it has none."""
    try:
        with open(path, encoding="utf-8") as file:
            told = json.load(file)
        found = int(told["layout"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Corrupt(f'{path} does not say the layout\'s version; it should be {{"layout": {LAYOUT}}}') from None
    if found > LAYOUT:
        raise Invalid(
            f"{path} was written by a newer holdfast (layout {found}, this one knows {LAYOUT}); upgrade", layout=found
        )
    return str(told.get("id", ""))


def _write_layout(path: str) -> str:
    """Give the store an id."""
    id = os.urandom(8).hex()
    beside = path + ".new"
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), FILE_MODE)
    try:
        write_all(fd, json.dumps({"layout": LAYOUT, "id": id}).encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(beside, path)
    sync_dir(os.path.dirname(path))
    return id


def _new_stamp() -> str:
    return f"{INDEX}-{os.urandom(8).hex()}"


def _is_ours(stamp: str) -> bool:
    return stamp.startswith(f"{INDEX}-")


def _stamp(file: SQLiteFile) -> str | None:
    with Guarded(file.engine, file.path), file.reader() as db:
        row = db.execute("SELECT value FROM meta WHERE name = 'stamp'").fetchone()
    return row[0] if row else None


def _write_stamp(db: Connection, stamp: str) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES ('stamp', ?)", (stamp,))


@contextlib.contextmanager
def _closing_on_error(file: SQLiteFile) -> Generator[None]:
    try:
        yield
    except BaseException:
        file.close()
        raise
