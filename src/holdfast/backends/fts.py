"""The words of a store's entries, in an FTS5 index that is fed in batches and caught up by every search that can.

Nothing is indexed on the append path. The index knows up to which row it has read (`mark`). A search first takes in
what came since, unless it would have to wait for a writer, and matches by itself what is then behind the mark, so it
finds every acknowledged event. The index holds no text of its own: what it matched is joined with the entries, so a
hidden or deleted one is never found, and to forget a row it is told the same words again.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from holdfast import forks
from holdfast.backend import TextOf, readable
from holdfast.backends.engine import Connection
from holdfast.backends.rows import newest_row
from holdfast.errors import Corrupt, HoldfastError, Unavailable

BATCH = 1024
"""Rows that one transaction takes in."""

_CREATE = "CREATE VIRTUAL TABLE IF NOT EXISTS fts USING fts5(text, content='', tokenize='ascii')"


class IndexedFile(Protocol):
    """The database whose entries are indexed."""

    def reader(self) -> contextlib.AbstractContextManager[Connection]:
        """A read connection."""
        ...

    def transaction(self, patience: float | None = None) -> contextlib.AbstractContextManager[Connection]:
        """A write transaction; `patience` is how many seconds to wait for other writers."""
        ...


class NoFTS5(Unavailable):
    """This SQLite can't index words."""


class WordIndex:
    """The index over the table `entry` of one file."""

    def __init__(self, file: IndexedFile, unpack: Callable[[bytes], bytes], text_of: TextOf) -> None:
        self._file = file
        self._unpack = unpack
        self._text_of = text_of

    def catch_up(self, pause: Callable[[float], bool] | None = None, patience: float | None = None) -> int:
        """Take in every entry that was there when it began and is not indexed yet; how many were taken in.

        Args:
            pause: Called between batches with the seconds that the last one took; True ends it.
            patience: Seconds to wait for other writers; the store's `timeout` if not given.

        Raises:
            NoFTS5: this SQLite has no FTS5.
            Unavailable: the lock of the writers could not be had.
        """
        done = 0
        with self._file.reader() as db:
            upto = newest_row(db)
        while True:
            began = time.monotonic()
            with self._file.reader() as db:
                mark = self.mark(db)
                rows = [] if mark is None or mark >= upto else self._rows(db, mark)
            if mark is None:
                self._prepare(patience)
            elif not rows:
                return done
            else:
                done += self._take_in(mark, rows, patience)
                if pause is not None and pause(time.monotonic() - began):
                    return done

    def mark(self, db: Connection) -> int | None:
        """Up to which row the index has read; None if there is no index of our words yet."""
        from holdfast.search import NORM

        found = dict(db.execute("SELECT name, value FROM meta WHERE name IN ('fts_mark', 'fts_norm')").fetchall())
        return found["fts_mark"] if found.get("fts_norm") == NORM else None

    def _rows(self, db: Connection, mark: int) -> list[tuple[int, int, bytes]]:
        sql = "SELECT n, crc, body FROM entry WHERE n > ? ORDER BY n LIMIT ?"
        return _rising(mark, db.execute(sql, (mark, BATCH)).fetchall())

    def _prepare(self, patience: float | None) -> None:
        """Begin an empty index; rows written by other rules of normalisation are forgotten."""
        from holdfast.search import NORM

        with self._file.transaction(patience) as db:
            try:
                db.execute(_CREATE)
            except Exception as error:
                if "no such module" not in str(error):
                    raise
                raise NoFTS5(
                    "this SQLite was built without FTS5, so there is no search; "
                    "install holdfast[apsw] and open the store with ?engine=apsw"
                ) from None
            db.execute("INSERT INTO fts (fts) VALUES ('delete-all')")
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", [("fts_norm", NORM), ("fts_mark", 0)])

    def _take_in(self, mark: int, rows: list[tuple[int, int, bytes]], patience: float | None) -> int:
        # What can't be read has no words; `verify` names it.
        words = [(n, self.words(body) or "") for n, _, body in rows]
        last = rows[-1][0]
        with self._file.transaction(patience) as db:
            # The words were read outside the transaction, so as not to hold up writers; what changed is read again.
            sql = "SELECT n, crc FROM entry WHERE n > ? AND n <= ? ORDER BY n"
            now = _rising(mark, db.execute(sql, (mark, last)).fetchall())
            if self.mark(db) != mark or [tuple(row) for row in now] != [(n, crc) for n, crc, _ in rows]:
                return 0
            db.executemany("INSERT INTO fts (rowid, text) VALUES (?, ?)", words)
            db.execute("UPDATE meta SET value = ? WHERE name = 'fts_mark'", (last,))
        return len(rows)

    def compact(self) -> None:
        """Take what was forgotten out of the index's own tables: until then its words stand there as such."""
        with self._file.reader() as db:
            made = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'fts'").fetchone()
            mark = self.mark(db)
        if not made:
            return
        if mark is None:
            self._prepare(None)
        with self._file.transaction() as db:
            db.execute("INSERT INTO fts (fts) VALUES ('optimize')")

    def words(self, packed: object) -> str | None:
        """The words of a row's body, as far as they can be read; None if it can't be read at all."""
        if not isinstance(packed, bytes):  # a flipped bit may change a column's type
            return None
        try:
            return readable(self._text_of, self._unpack(packed))
        except Corrupt:
            return None

    def forget(self, db: Connection, rows: Iterable[tuple[int, bytes]] | None) -> None:
        """Before rows leave the table `entry`: take their words out, in the caller's transaction.

        None stands for rows of which some are damaged. Told other words than it holds, the index would break: it is
        begun anew by the next search.
        """
        mark = self.mark(db)
        if mark is None:
            return
        try:
            gone = None if rows is None else [(n, self._text_of(self._unpack(body))) for n, body in rows if n <= mark]
        except Corrupt:
            gone = None
        if gone is None:
            db.execute("DELETE FROM meta WHERE name = 'fts_norm'")
        else:
            db.executemany("INSERT INTO fts (fts, rowid, text) VALUES ('delete', ?, ?)", gone)

    def forgotten(self, db: Connection) -> None:
        """After rows left: numbers of rows at the end may come again, so the index must read them again."""
        db.execute("UPDATE meta SET value = min(value, ?) WHERE name = 'fts_mark'", (newest_row(db),))


class Background:
    """Feeds the index beside a long recording, so that the first search need not take in all of it.

    A thread starts when enough has come since the last time, and ends when it has caught up. It leaves the processor
    and the lock to writers: while they are busy it rests most of the time. Whether it runs makes no difference to what
    a search finds.
    """

    START = 8192
    """Entries of this process after which it is worth a thread."""
    REST = 30
    """How much longer than it works it rests while writers are busy."""
    QUIET = 0.1
    """Seconds without a commit after which they are not."""

    def __init__(self, catch_up: Callable[[Callable[[float], bool]], int]) -> None:
        self._catch_up = catch_up
        self._start()
        forks.watch(self)

    def _start(self) -> None:
        self._waiting = 0
        self._noticed = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def before_fork(self) -> None:
        """See `forks`."""

    def after_fork(self, *, child: bool) -> None:
        """See `forks`: the thread stays with the parent."""
        if child:
            self._start()

    def notice(self, entries: int) -> None:
        """So many entries were committed; the caller holds the writer's mutex."""
        self._waiting += entries
        self._noticed = time.monotonic()
        if self._waiting >= self.START and not self._stop.is_set():
            self._waiting = 0
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="holdfast-index", daemon=True)
                with contextlib.suppress(RuntimeError):  # no thread to be had: then the next search takes it all in
                    self._thread.start()

    def _work(self) -> None:
        # What fails here fails again, and is told, when somebody searches.
        with contextlib.suppress(HoldfastError):
            self._catch_up(self._rest)

    def _rest(self, worked: float) -> bool:
        busy = time.monotonic() - self._noticed < self.QUIET
        return self._stop.wait(worked * self.REST if busy else 0)

    def close(self) -> None:
        """End the thread after its batch."""
        self._stop.set()
        thread = self._thread
        if thread is not None and thread.is_alive():
            thread.join()


def _rising(mark: int, rows: list[Any]) -> list[Any]:
    """The rows up to the first that is out of order: a damaged file may lead back, and following it would never end."""
    for index, row in enumerate(rows):
        if row[0] <= mark:
            return rows[:index]
        mark = row[0]
    return rows
