"""The words of a store's entries, in an FTS5 index that this process keeps for itself in a file without a name.

Redis has no index of words. So whoever searches first reads the store once, and each search after that takes in what
changed since, by the list of changes; so it finds every acknowledged event. The file is gone with the process, however
it ends. A hit is read again from Redis before it is told: what was lost or purged meanwhile is never found.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Generator, Mapping, Sequence
from typing import Any
from zlib import crc32

from holdfast import forks, search
from holdfast.backend import TextOf, readable
from holdfast.backends import rediskeys
from holdfast.backends.redislists import Lists, Mark
from holdfast.backends.redislogs import EXACT, Logs, Part
from holdfast.backends.redisnodes import Servers
from holdfast.backends.rows import tag_filter
from holdfast.backends.spans import Spans, holds
from holdfast.errors import Unavailable
from holdfast.plan import Entry, Head, Ref

PAGE = 1000
"""Entries that are read of one session at a time."""
GROUP = 100
"""Sessions that are read at a time."""

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE head (
    n INTEGER PRIMARY KEY, kind TEXT, id TEXT, standing BLOB, base INTEGER, trim INTEGER, last INTEGER,
    hidden TEXT, UNIQUE (kind, id)
);
CREATE TABLE tag (head INTEGER, name TEXT, value TEXT, PRIMARY KEY (head, name)) WITHOUT ROWID;
CREATE INDEX by_tag ON tag (name, value, head);
CREATE TABLE entry (
    n INTEGER PRIMARY KEY AUTOINCREMENT, head INTEGER, place INTEGER, at INTEGER, void INTEGER, crc INTEGER,
    UNIQUE (head, place)
);
CREATE VIRTUAL TABLE fts USING fts5(text, content='', tokenize='ascii');
"""
"""The words of a row can't be taken out of `fts`, so no number of an entry comes again (AUTOINCREMENT)."""

Found = tuple[Ref, int, int, float]
"""A match: whose, its place, the checksum of its record, its score."""


class Words:
    """This process's index."""

    def __init__(self, servers: Servers, logs: Logs, lists: Lists, text_of: TextOf) -> None:
        self._servers = servers
        self._logs = logs
        self._lists = lists
        self._text_of = text_of
        self._orphans: list[sqlite3.Connection] = []
        self._start()
        forks.watch(self)

    def _start(self) -> None:
        self._mutex = threading.Lock()
        self._sqlite = threading.RLock()
        """Held while SQLite works, and never while a server is waited for."""
        self._db: sqlite3.Connection | None = None
        self._position: list[Mark] | None = None

    def before_fork(self) -> None:
        """See `forks`: locks of the library's own, of its memory say, would stay locked in the child for ever."""
        self._sqlite.acquire()

    def after_fork(self, *, child: bool) -> None:
        """See `forks`: the parent's file is not the child's, which begins its own when it searches."""
        if not child:
            self._sqlite.release()
            return
        if self._db is not None:
            self._orphans.append(self._db)  # closing it would end what the parent goes on with
        self._start()

    @contextlib.contextmanager
    def _asking(self) -> Generator[None]:
        """While a server is asked amid a transaction: a fork need not wait for it."""
        held = self._sqlite
        held.release()
        try:
            yield
        finally:
            held.acquire()

    def catch_up(self) -> int:
        """Take in all that changed; how many entries are new."""
        with self._mutex:
            return self._catch_up(self._open())

    def find(
        self,
        kind: str,
        query: search.Node,
        id: str | None,
        tags: Mapping[str, str | None],
        *,
        newest: bool,
        offset: int,
        limit: int,
    ) -> list[Found]:
        """The wanted page of all entries that match."""
        where, values = tag_filter(tags)
        if id is not None:
            where += " AND h.id = ?"
            values.append(id)
        order = "e.at DESC, e.place DESC, e.n DESC" if newest else "fts.rank, e.n"
        sql = (
            "SELECT h.kind, h.id, e.place, e.crc, fts.rank FROM fts JOIN entry e ON e.n = fts.rowid "  # noqa: S608  # the texts above
            f"JOIN head h ON h.n = e.head WHERE fts MATCH ? AND e.void = 0 AND h.kind = ? AND h.standing = ?{where} "
            f"ORDER BY {order} LIMIT ? OFFSET ?"
        )
        given = (search.to_fts5(query), kind, rediskeys.LIVING, *values, min(limit, 2**62), min(offset, 2**62))
        with self._mutex:
            db = self._open()
            self._catch_up(db)
            with self._sqlite:
                rows = db.execute(sql, given).fetchall()
        return [(Ref(row[0], row[1]), row[2], row[3], -row[4]) for row in rows]

    def forget(self) -> None:
        """Begin anew."""
        with self._mutex, self._sqlite:
            if self._db is not None:
                self._db.close()
            self._db = None
            self._position = None

    def _open(self) -> sqlite3.Connection:
        with self._sqlite:
            if self._db is None:
                db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
                try:
                    db.executescript(_SCHEMA)
                except sqlite3.Error as error:
                    db.close()
                    raise Unavailable(
                        f"this Python's SQLite can't index words ({error}), so there is no search"
                    ) from error
                self._db = db
                self._position = None
            return self._db

    def _catch_up(self, db: sqlite3.Connection) -> int:
        if self._position is None:
            self._position = [Mark()] * self._lists.shards
        position, refs, whole = self._lists.changed(self._position)
        if whole:
            self._forget_others(db, {shard: set[Ref]() for shard in whole}, refs)
        new = 0
        for start in range(0, len(refs), GROUP):
            new += self._take_in(db, refs[start : start + GROUP])
        self._position = position
        return new

    def _forget_others(self, db: sqlite3.Connection, told: Mapping[int, set[Ref]], refs: Sequence[Ref]) -> None:
        """Of shards that were told whole, forget what is not among it: it is lost."""
        for ref in refs:
            told.get(self._lists.shard_of(ref), set()).add(ref)
        with self._sqlite:
            for n, kind, id in db.execute("SELECT n, kind, id FROM head").fetchall():
                ref = Ref(kind, id)
                shard = self._lists.shard_of(ref)
                if shard in told and ref not in told[shard]:
                    _forget(db, n)

    def _take_in(self, db: sqlite3.Connection, refs: Sequence[Ref]) -> int:
        heads = self._lists.heads(refs)
        with self._sqlite:
            rows = [_row(db, ref) for ref in refs]
        # The last entry that is known is read again: if it is another one now, the server lost some and went on.
        calls = [
            self._logs.part_call(ref, max(row[4], 1) if row else 1, EXACT, PAGE)
            for ref, row in zip(refs, rows, strict=True)
        ]
        answers = self._servers.ask(calls)
        new = 0
        with self._sqlite:
            db.execute("BEGIN")
            try:
                for ref, head, answer in zip(refs, heads, answers, strict=True):
                    new += self._update(db, ref, head if isinstance(head, Head) else None, answer)
            except BaseException:
                # There is no journal to go back by.
                db.execute("COMMIT")
                self._position = None
                self._db = None
                db.close()
                raise
            db.execute("COMMIT")
        return new

    def _update(self, db: sqlite3.Connection, ref: Ref, head: Head | None, answer: list[Any]) -> int:
        """Make the rows of a session say what it is now."""
        row = _row(db, ref)
        if head is None or head.dead:
            if row is not None:
                _forget(db, row[0])
            return 0
        with self._asking():
            part = self._logs.part_in(ref, answer)
        if part is None:
            return 0
        if row is not None and (row[2] != part.bounds.base or not _continues(db, row, part)):
            _forget(db, row[0])
            row = None
        n = _write_head(db, row, head, part)
        known = row[4] if row else 0
        start = at = max(known, part.bounds.trim)
        while at < part.bounds.last:
            if not part.first <= at + 1 < part.first + len(part.records):
                with self._asking():
                    more = self._logs.part(ref, at + 1, EXACT, PAGE)
                if more is None or more.bounds.base != part.bounds.base or not more.records:
                    break  # it was deleted meanwhile, which the next time tells
                part = more
            at = self._insert(db, n, ref, part, at)
        db.execute("UPDATE head SET last = ? WHERE n = ?", (at, n))
        _hide(db, n, row, part.hidden)
        return at - start

    def _insert(self, db: sqlite3.Connection, n: int, ref: Ref, part: Part, at: int) -> int:
        """Take in the records of a part behind the place `at`; the last place that was."""
        for place in range(max(at + 1, part.first), part.first + len(part.records)):
            record = part.records[place - part.first]
            entry = self._logs.entry(ref, part, place, record, hidden=holds(part.hidden, place))
            text = "" if entry.fault else readable(self._text_of, entry.body) or ""
            row = db.execute(
                "INSERT INTO entry (head, place, at, void, crc) VALUES (?, ?, ?, ?, ?)",
                (n, place, entry.at, entry.void, crc32(record or b"")),
            ).lastrowid
            db.execute("INSERT INTO fts (rowid, text) VALUES (?, ?)", (row, text))
        return part.first + len(part.records) - 1

    def close(self) -> None:
        """Give the file back."""
        self.forget()


def _row(db: sqlite3.Connection, ref: Ref) -> Any:
    sql = "SELECT n, standing, base, trim, last, hidden FROM head WHERE kind = ? AND id = ?"
    return db.execute(sql, ref).fetchone()


def _continues(db: sqlite3.Connection, row: Any, part: Part) -> bool:
    """Whether the last entry that is known is still the one that it was."""
    last = row[4]
    if last <= part.bounds.trim:
        return True
    if last > part.bounds.last or part.first != last or not part.records:
        return False
    known = db.execute("SELECT crc FROM entry WHERE head = ? AND place = ?", (row[0], last)).fetchone()
    return known is None or known[0] == crc32(part.records[0] or b"")


def _forget(db: sqlite3.Connection, n: int) -> None:
    for table, column in (("entry", "head"), ("tag", "head"), ("head", "n")):
        db.execute(f"DELETE FROM {table} WHERE {column} = ?", (n,))  # noqa: S608  # the names above


def _write_head(db: sqlite3.Connection, row: Any, head: Head, part: Part) -> int:
    stands, base, trim = rediskeys.standing(head), part.bounds.base, part.bounds.trim
    if row is None:
        sql = "INSERT INTO head (kind, id, standing, base, trim, last, hidden) VALUES (?, ?, ?, ?, ?, 0, '')"
        n = db.execute(sql, (*head.ref, stands, base, trim)).lastrowid or 0
    else:
        n = row[0]
        db.execute("UPDATE head SET standing = ?, trim = ? WHERE n = ?", (stands, trim, n))
        if trim > row[3]:
            db.execute("DELETE FROM entry WHERE head = ? AND place <= ?", (n, trim))
        db.execute("DELETE FROM tag WHERE head = ?", (n,))
    db.executemany("INSERT INTO tag VALUES (?, ?, ?)", [(n, name, value) for name, value in head.tags.items()])
    return n


def _hide(db: sqlite3.Connection, n: int, row: Any, hidden: Spans) -> None:
    """Bring what is hidden in step, if that changed."""
    told = repr(hidden)
    if row is not None and row[5] == told:
        return
    if row is not None:
        db.execute("UPDATE entry SET void = 0 WHERE head = ? AND void = 1", (n,))
    for first, last in hidden:
        db.execute("UPDATE entry SET void = 1 WHERE head = ? AND place BETWEEN ? AND ?", (n, first, last))
    db.execute("UPDATE head SET hidden = ? WHERE n = ?", (told, n))


def sound(entry: Entry, record: bytes | None, crc: int) -> bool:
    """Whether an entry is the one that the index knows."""
    return record is not None and crc32(record) == crc and not entry.void
