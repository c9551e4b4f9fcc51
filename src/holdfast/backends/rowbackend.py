"""Heads and entries as rows of a SQLite file: what the `sqlite` and `files` backends share.

A batch of commits is one transaction. The heads that this process wrote last are remembered, and believed only while
`PRAGMA data_version` says that nobody else has written since; so an append costs one insert and one update.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from holdfast import search
from holdfast.backend import Blobs, Hit, Problem, TextOf
from holdfast.backends.bodies import Bodies
from holdfast.backends.changes import changed
from holdfast.backends.engine import Connection, Engine
from holdfast.backends.fts import Background, NoFTS5, WordIndex
from holdfast.backends.listening import Listening
from holdfast.backends.matching import Wanted, find
from holdfast.backends.rowcheck import row_problems
from holdfast.backends.rows import (
    ENTRY,
    GROW_HEAD,
    HEAD,
    UPDATE_HEAD,
    as_bytes,
    as_number,
    as_text,
    encode,
    entry_crc,
    entry_values,
    find_sql,
    head_of,
    head_values,
    insert_entries,
    insert_head,
    only_grew,
    write_tags,
)
from holdfast.backends.sqlitefile import SQLiteFile
from holdfast.errors import Corrupt, HoldfastError, ReadOnly, Unavailable
from holdfast.plan import Commit, Entry, Head, Ref, Refused, plan

REMEMBERED = 4096
"""Heads that a process keeps in memory."""
PATIENCE = 0.05
"""Seconds that a search waits for writers to bring the index up to date; it can do without. They take turns of a few
milliseconds, so one who holds the lock for longer is slow or stands still."""


class Known:
    """A head with its row number, as it is in the file or, while a transaction runs, as it will be."""

    __slots__ = ("head", "n", "saved", "tags")

    def __init__(self, n: int, head: Head) -> None:
        self.n = n
        self.head = head
        self.saved = head
        self.tags = encode(head.tags)


class RowBackend:
    """Heads and entries in the rows of a SQLite file, whose bodies are where `bodies` keeps them.

    See `Backend` for what the methods promise.
    """

    def __init__(
        self, file: SQLiteFile, bodies: Bodies, blobs: Blobs, text_of: TextOf, facts: Mapping[str, str]
    ) -> None:
        self.path = file.path
        self.blobs = blobs
        self._file = file
        self._engine = file.engine
        self._bodies = bodies
        self._facts = facts
        self._heads: OrderedDict[Ref, Known] = OrderedDict()
        self._data_version = (0, -1)
        self._words = WordIndex(file, bodies.unpack, text_of)
        self._background = Background(self._catch_up)
        self._listening = Listening(file.version)

    def _guarded(self) -> Guarded:
        return Guarded(self._engine, self.path)

    def commit(self, batch: Sequence[Commit]) -> list[Head | Refused]:
        """Make commits in order, in one transaction."""
        with self._file.mutex:
            packs = [self._bodies.pack(commit) for commit in batch]
            changed: dict[Ref, Known] = {}
            rows: list[tuple[Any, ...]] = []
            try:
                db = self._file.begin()
                try:
                    self._trust(db)
                    results = [self._apply(db, c, p, changed, rows) for c, p in zip(batch, packs, strict=True)]
                    insert_entries(db, rows)
                    self._save(db, changed.values())
                    self._bodies.settle(db)
                except BaseException:
                    try:
                        self._bodies.undo()
                    finally:
                        self._file.end(db, commit=False)
                    raise
                self._end(db)
            except BaseException as error:
                self._heads.clear()
                if isinstance(error, self._engine.errors):
                    raise self._engine.explain(error, self.path) from error
                raise
            for known in changed.values():
                known.saved = known.head
            while len(self._heads) > REMEMBERED:
                self._heads.popitem(last=False)
            self._background.notice(sum(map(len, packs)))
        self._listening.wake()
        return results

    def _end(self, db: Connection) -> None:
        try:
            self._file.end(db, commit=True)
        except self._engine.errors as error:
            self._bodies.undo()
            raise self._failed_commit(error) from error
        except BaseException:
            self._bodies.undo()
            raise
        self._bodies.done()

    def _failed_commit(self, error: Exception) -> HoldfastError:
        """What it means that the engine failed while it committed; here, that nothing was stored."""
        return self._engine.explain(error, self.path)

    def _trust(self, db: Connection) -> None:
        """Believe the remembered heads only if no other connection has written since."""
        # Numbers of different connections have nothing to say about each other.
        version = (self._file.opened, db.execute("PRAGMA data_version").fetchone()[0])
        if version != self._data_version:
            self._heads.clear()
            self._bodies.distrust()
            self._data_version = version

    def _apply(
        self,
        db: Connection,
        commit: Commit,
        packed: Sequence[bytes],
        changed: dict[Ref, Known],
        rows: list[tuple[Any, ...]],
    ) -> Head | Refused:
        """Make one commit, but for the new entries, which join `rows`, and the head, which joins `changed`."""
        known = self._known(db, commit.ref)
        ids = [entry.id for entry in commit.append if entry.id]
        if rows and (ids or commit.void or commit.delete or commit.trim is not None):
            insert_entries(db, rows)  # what follows must see them
            rows.clear()
        there = self._there(db, known.n, ids) if known and ids else ()
        planned = plan(known.head if known else None, there, commit)
        if isinstance(planned, Refused):
            return planned
        head, entries = planned
        before = known.head if known else None
        if known is None:
            known = self._heads[commit.ref] = Known(insert_head(db, head), head)
            write_tags(db, known.n, {}, head.tags)
        else:
            known.head = head
            changed[commit.ref] = known
        packed = self._bodies.place(known.n, commit, before, head, entries, packed)
        rows += [entry_values(known.n, entry, body) for entry, body in zip(entries, packed, strict=not commit.delete)]
        if commit.void or commit.delete or commit.trim is not None:
            insert_entries(db, rows)
            rows.clear()
            for span in commit.void:
                self._void(db, known.n, span.first, span.last, span.hide)
            if commit.delete or commit.trim is not None:
                self._remove(db, known.n, head.last if commit.delete else head.trim)
                self._bodies.removed(db, known.n, head)
        return head

    def _known(self, db: Connection, ref: Ref) -> Known | None:
        if self._bodies.meet(db, ref):
            self._heads.pop(ref, None)
        known = self._heads.get(ref)
        if known is None:
            row = db.execute(f"SELECT {HEAD} FROM head WHERE kind = ? AND id = ?", ref).fetchone()  # noqa: S608  # columns
            if row is None:
                return None
            known = self._heads[ref] = Known(row[0], head_of(row))
        return known

    def _there(self, db: Connection, n: int, ids: Sequence[str]) -> set[str]:
        """Those of the ids that the log holds."""
        found: set[str] = set()
        for some in _chunks(ids):
            marks = ",".join("?" * len(some))
            sql = f"SELECT id FROM entry WHERE head = ? AND id IN ({marks})"  # noqa: S608  # placeholders only
            found.update(row[0] for row in db.execute(sql, (n, *some)).fetchall())
        return found

    def _save(self, db: Connection, changed: Iterable[Known]) -> None:
        """Write each changed head once, however many commits changed it."""
        grown: list[tuple[Any, ...]] = []
        for known in changed:
            head, saved = known.head, known.saved
            if head.tags is not saved.tags:
                write_tags(db, known.n, saved.tags, head.tags)
                known.tags = encode(head.tags)
            values = head_values(head, known.tags)
            if only_grew(head, saved):
                rev, last, _, _, at, _, _, _, counts, _, crc = values
                grown.append((rev, last, at, counts, crc, known.n))
            else:
                db.execute(UPDATE_HEAD, (*values, known.n))
        if len(grown) == 1:
            db.execute(GROW_HEAD, grown[0])
        elif grown:
            db.executemany(GROW_HEAD, grown)

    def _void(self, db: Connection, n: int, first: int, last: int, hide: bool) -> None:
        rows = db.execute(
            f"SELECT n, {ENTRY} FROM entry WHERE head = ? AND seq BETWEEN ? AND ? AND void = ?",  # noqa: S608  # columns
            (n, first, last, not hide),
        ).fetchall()
        void = int(hide)
        for row, head, seq, id, at, was, crc, body in rows:
            # A row that is damaged stays so: its checksum must go on not to match.
            sound = crc == entry_crc(head, seq, id, at, was, body)
            new = entry_crc(head, seq, id, at, void, body) if sound else crc
            db.execute("UPDATE entry SET void = ?, crc = ? WHERE n = ?", (void, new, row))

    def _remove(self, db: Connection, n: int, upto: int) -> None:
        rows = db.execute("SELECT n, body FROM entry WHERE head = ? AND seq <= ?", (n, upto)).fetchall()
        self._words.forget(db, rows)
        db.execute("DELETE FROM entry WHERE head = ? AND seq <= ?", (n, upto))
        self._words.forgotten(db)

    def get(self, refs: Sequence[Ref]) -> list[Head | None]:
        """The heads."""
        with self._guarded(), self._file.reader() as db:
            sql = f"SELECT {HEAD} FROM head WHERE kind = ? AND id = ?"  # noqa: S608  # columns
            rows = [db.execute(sql, ref).fetchone() for ref in refs]
        return [None if row is None else head_of(row) for row in rows]

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
        where = "head = (SELECT n FROM head WHERE kind = ? AND id = ?) AND seq > ?"
        values: list[Any] = [*ref, min(after, 2**63 - 1)]
        if upto is not None:
            where += " AND seq <= ?"
            values.append(min(upto, 2**63 - 1))
        if not voided:
            where += " AND void = 0"
        order = "DESC" if reverse else "ASC"
        sql = f"SELECT {ENTRY} FROM entry WHERE {where}"  # noqa: S608  # the texts above
        with self._guarded(), self._file.reader() as db:
            if ids is None:
                rows = db.execute(
                    f"{sql} ORDER BY seq {order} LIMIT ?", (*values, -1 if limit is None else limit)
                ).fetchall()
            else:
                rows = self._with_ids(db, sql, values, ids)
                rows.sort(key=lambda row: row[1], reverse=reverse)
                rows = rows[:limit]
        return [self._entry(row) for row in rows]

    def _with_ids(self, db: Connection, sql: str, values: Sequence[Any], ids: Sequence[str]) -> list[Any]:
        rows: list[Any] = []
        for some in _chunks(list(dict.fromkeys(i for i in ids if i))):
            rows += db.execute(f"{sql} AND id IN ({','.join('?' * len(some))})", (*values, *some)).fetchall()
        return rows

    def _entry(self, row: Any) -> Entry:
        head, seq, id, at, void, crc, packed = row
        if crc != entry_crc(head, seq, id, at, void, packed):
            return Entry(as_text(id), as_number(at), as_bytes(packed), seq, bool(void), "its checksum does not match")
        try:
            return Entry(id or "", at, self._bodies.unpack(packed), seq, bool(void))
        except Corrupt as error:
            return Entry(id or "", at, packed, seq, bool(void), error.message)

    def find(
        self,
        kind: str,
        tags: Mapping[str, str | None],
        *,
        after: tuple[int, str] | None = None,
        limit: int = 100,
        dead: bool = False,
    ) -> list[Head]:
        """Living heads, or tombstones, newest first."""
        with self._guarded(), self._file.reader() as db:
            sql, values = find_sql(db, kind, tags, after, dead=dead)
            return _heads(db, f"{sql} ORDER BY h.slot DESC, h.at DESC, h.id DESC", values, limit)

    def scan(self, kind: str, after: str = "", limit: int = 1000) -> list[Head]:
        """Living heads by id."""
        sql = f"SELECT {HEAD} FROM head WHERE kind = ? AND id > ? AND dead = 0 ORDER BY id"  # noqa: S608  # columns
        with self._guarded(), self._file.reader() as db:
            return _heads(db, sql, (kind, after), limit)

    def search(
        self,
        kind: str,
        query: search.Node,
        *,
        id: str | None = None,
        tags: Mapping[str, str | None] | None = None,
        newest: bool = False,
        offset: int = 0,
        limit: int = 100,
    ) -> list[Hit]:
        """Entries that match: from the index, and from what it has not taken in."""
        return self._search(Wanted(kind, query, id, tags or {}, newest, offset, limit))[0]

    def _search(self, wanted: Wanted) -> tuple[list[Hit], bool]:
        """The hits, and whether every entry could be read that had to be."""
        try:
            self._catch_up(patience=PATIENCE)
        except NoFTS5:
            raise
        except (Unavailable, ReadOnly):
            pass  # the index can't be written now; it need not be, to find all
        with self._guarded(), self._file.snapshot() as db:
            matches, whole = find(db, self._words, wanted)
        return [Hit(Ref(*m.row[:2]), self._entry(m.row[2:]), m.score) for m in matches], whole

    def index(self) -> int:
        """Take in what is not indexed yet."""
        return self._catch_up()

    def _catch_up(self, pause: Callable[[float], bool] | None = None, patience: float | None = None) -> int:
        with self._guarded():
            return self._words.catch_up(pause, patience)

    def changed(self, since: object = None) -> tuple[object, list[Ref]]:
        """The heads that new rows belong to."""
        with self._guarded(), self._file.snapshot() as db:
            return changed(db, since)

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` after each commit of this process, and soon after another's."""
        return self._listening.add(wake)

    def verify(self) -> list[Problem]:
        """SQLite's own check, every record's checksum, and whether what they are found by agrees."""
        problems: list[Problem] = []
        try:
            with self._file.reader() as db:
                problems.extend(row_problems(db, self._entry))  # what was found stays, though SQLite may fail then
        except self._engine.errors as error:
            problems.append(Problem(None, None, f"SQLite can't read on: {error}"))
        return problems

    def info(self) -> Mapping[str, str]:
        """Facts for a person."""
        return {
            **self._facts,
            "library": f"{self._engine.name} {self._engine.version}",
            "wal_reset_bug": "no" if self._engine.safe() else "guarded",
        }

    def close(self) -> None:
        """Close the file."""
        self._background.close()
        self._listening.close()
        self._file.close()


class Guarded:
    """Turns the library's errors into ours; cheaper than a generator-based context on the append path."""

    __slots__ = ("_engine", "_path")

    def __init__(self, engine: Engine, path: str) -> None:
        self._engine = engine
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, self._engine.errors):
            raise self._engine.explain(error, self._path) from error


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in itertools.count(0, 500):
        some = ids[start : start + 500]
        if not some:
            return
        yield some


def _heads(db: Connection, sql: str, values: Sequence[Any], limit: int) -> list[Head]:
    """The first heads that a query finds, however many that are damaged stand among them."""
    want = limit
    while True:
        rows = db.execute(f"{sql} LIMIT ?", (*values, want)).fetchall()
        heads = [head for row in rows if (head := _sound(row)) is not None]
        if len(heads) >= limit or len(rows) < want:
            return heads[:limit]
        want += limit - len(heads)


def _sound(row: Any) -> Head | None:
    """A head for a list, which must not end at one that is damaged: `verify` names it, and asking for it says so."""
    try:
        return head_of(row)
    except Corrupt:
        return None
