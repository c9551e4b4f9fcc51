"""Heads and entries as rows of a SQLite file: what the `sqlite` and `files` backends share.

A batch of commits is one transaction. The heads that this process wrote last are remembered, and believed only while
`PRAGMA data_version` says that nobody else has written since; so an append costs one insert and one update.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from holdfast import search
from holdfast.backend import Blobs, Heads, Hit, Problem, TextOf
from holdfast.backends.bodies import Bodies
from holdfast.backends.engine import Connection, Engine
from holdfast.backends.fts import Background, WordIndex
from holdfast.backends.listening import Listening
from holdfast.backends.remains import forget_tags, remains
from holdfast.backends.rowcheck import row_problems
from holdfast.backends.rows import (
    ENTRY,
    GROW_HEAD,
    HEAD,
    MISPLACED,
    UPDATE_HEAD,
    Numbers,
    as_bytes,
    as_number,
    as_text,
    encode,
    entry_crc,
    entry_values,
    find_sql,
    grown_values,
    head_of,
    head_values,
    insert_entries,
    insert_head,
    newest_row,
    only_grew,
    tag_filter,
    write_tags,
)
from holdfast.backends.runs import ALL, GONE, OpenRuns, forget, forget_all, log_rows, pages, remove_rows, scanned
from holdfast.backends.sqlitefile import SQLiteFile
from holdfast.errors import Corrupt, HoldfastError
from holdfast.plan import Commit, Entry, Head, Ref, Refused, plan

REMEMBERED = 4096
"""Heads that a process keeps in memory."""


class Known:
    """A head with its row number, as it is in the file or, while a transaction runs, as it will be.


    `damaged` says that the file holds something else, of which this is what remains.
    """

    __slots__ = ("damaged", "head", "n", "runs", "saved", "tags")

    def __init__(self, n: int, head: Head, runs: OpenRuns, *, damaged: bool = False) -> None:
        self.damaged = damaged
        self.n = n
        self.head = head
        self.runs = runs
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
        self._unpack = bodies.unpack
        self._facts = facts
        self._heads: OrderedDict[Ref, Known] = OrderedDict()
        self._data_version = (0, -1)
        self._numbers = Numbers(0)
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
                self._data_version = (0, -1)
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
            self._numbers.newest = newest_row(db)
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
        known = self._known(db, commit)
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
        runs = known.runs if known else OpenRuns()
        first = self._numbers.take(len(entries))
        if entries:
            runs.add(db, known.n if known else 0, entries[0].seq, first)  # the first run of a new head closes none
        if known is None:
            known = self._heads[commit.ref] = Known(insert_head(db, head, runs.data), head, runs)
            write_tags(db, known.n, {}, head.tags)
        else:
            known.head = head
            changed[commit.ref] = known
        packed = self._bodies.place(known.n, commit, before, head, entries, packed)
        for row, entry in enumerate(entries, first):
            rows.append(entry_values(row, known.n, entry, packed[row - first]))
        if commit.void or commit.delete or commit.trim is not None:
            insert_entries(db, rows)
            rows.clear()
            self._rework(db, commit, known, before or head)
        return head

    def _rework(self, db: Connection, commit: Commit, known: Known, before: Head) -> None:
        """What a commit changes of entries that are there."""
        n, head = known.n, known.head
        for span in commit.void:
            self._void(db, known, span.first, span.last, span.hide)
        if commit.delete:
            self._remove(db, known, max(before.base, before.trim) + 1, before.last)
            forget_all(db, n)
            known.runs = OpenRuns()
        elif commit.trim is not None:
            self._remove(db, known, max(before.base, before.trim) + 1, head.trim)
            forget(db, n, head.trim)
        if commit.delete or commit.trim is not None:
            self._words.forgotten(db)
            self._bodies.removed(db, n, head, known.runs.data)
        if known.damaged:
            forget_tags(db, n)
            known.damaged = False
            self._heads[commit.ref] = known

    def _known(self, db: Connection, commit: Commit) -> Known | None:
        ref = commit.ref
        if self._bodies.meet(db, ref):
            self._heads.pop(ref, None)
        known = self._heads.get(ref)
        if known is None:
            row = self._row(db, ref)
            if row is None:
                return None
            try:
                head = head_of(row)
            except Corrupt:
                if self._bodies.mend(db, ref):
                    return self._known(db, commit)
                if not commit.delete:
                    raise
                left = remains(db, ref, row)
                return Known(row[0], left, OpenRuns(), damaged=True)  # not to be remembered: it may be refused
            known = self._heads[ref] = Known(row[0], head, OpenRuns(row[-2]))
        return known

    def _row(self, db: Connection, ref: Ref) -> Any:
        return db.execute(f"SELECT {HEAD} FROM head WHERE kind = ? AND id = ?", ref).fetchone()  # noqa: S608  # columns

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
            if only_grew(head, saved):
                grown.append((*grown_values(head, known.tags, known.runs.data), known.n))
            else:
                db.execute(UPDATE_HEAD, (*head_values(head, known.tags, known.runs.data), known.n))
        if len(grown) == 1:
            db.execute(GROW_HEAD, grown[0])
        elif grown:
            db.executemany(GROW_HEAD, grown)

    def _void(self, db: Connection, known: Known, first: int, last: int, hide: bool) -> None:
        void = int(hide)
        for rows in pages(db, known.n, known.runs.data, first, last):
            for row, head, seq, id, at, was, crc, body in rows:
                if was != void:
                    # A row that is damaged stays so: its checksum must go on not to match.
                    sound = crc == entry_crc(head, seq, id, at, was, body)
                    new = entry_crc(head, seq, id, at, void, body) if sound else crc
                    db.execute("UPDATE entry SET void = ?, crc = ? WHERE n = ?", (void, new, row))

    def _remove(self, db: Connection, known: Known, first: int, last: int) -> None:
        found = scanned(db, known.n) if known.damaged else pages(db, known.n, known.runs.data, first, last)
        for rows in found:
            sound = all(crc == entry_crc(n, seq, id, at, void, body) for _, n, seq, id, at, void, crc, body in rows)
            self._words.forget(db, [(row[0], row[7]) for row in rows] if sound else None)
            remove_rows(db, rows)

    def get(self, refs: Sequence[Ref]) -> list[Head | None]:
        """The heads."""
        with self._guarded(), self._file.reader() as db:
            rows = [self._row(db, ref) for ref in refs]
        return [None if row is None else self._head(row) for row in rows]

    def _head(self, row: Any) -> Head:
        """A row as a head.

        Raises:
            Corrupt: it is damaged.
        """
        return head_of(row)

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
        upto = ALL if upto is None else upto
        with self._guarded(), self._file.reader() as db:
            db.execute("BEGIN")
            try:
                row = db.execute(f"SELECT {HEAD} FROM head WHERE kind = ? AND id = ?", ref).fetchone()  # noqa: S608  # columns
                if row is None:
                    return []
                if ids is not None:
                    rows = _with_ids(db, row[0], ids, after, upto)
                    rows = [r for r in (rows[::-1] if reverse else rows) if voided or not r[5]][:limit]
                else:
                    rows = log_rows(db, row, after, upto, limit, reverse, voided)
            finally:
                db.execute("ROLLBACK")
        return [self._entry(row) for row in rows]

    def _entry(self, row: Any) -> Entry:
        _, head, seq, id, at, void, crc, packed = row
        if crc != entry_crc(head, seq, id, at, void, packed):
            why = "its row is gone" if crc == GONE else "its checksum does not match"
            return Entry(as_text(id), as_number(at), as_bytes(packed), seq, bool(void), why)
        try:
            return Entry(id or "", at, self._unpack(packed), seq, void != 0)
        except Corrupt as error:
            return Entry(id or "", at, packed, seq, void != 0, error.message)

    def find(
        self, kind: str, tags: Mapping[str, str | None], *, after: tuple[int, str] | None = None, limit: int = 100
    ) -> Heads:
        """Living heads, newest first."""
        want = limit
        with self._guarded(), self._file.reader() as db:
            sql, values = find_sql(db, kind, tags, after)
            while True:
                rows = db.execute(
                    f"{sql} ORDER BY h.slot DESC, h.at DESC, h.id DESC LIMIT ?", (*values, want)
                ).fetchall()
                heads = self._sound(rows)
                if len(heads) >= limit or len(rows) < want:
                    return heads
                want += limit - len(heads)

    def _sound(self, rows: Sequence[Any]) -> Heads:
        """Heads for a list, which must not end at one that is damaged: it is named, and asking for it says so."""
        with contextlib.suppress(Corrupt):
            return Heads(map(head_of, rows))
        sound, damaged = list[Head](), list[Ref]()
        for row in rows:
            try:
                head = self._head(row)
            except Corrupt:
                head = None
            if head is not None and head.at == row[7] and row[-1] != MISPLACED:
                sound.append(head)
            else:
                damaged.append(Ref(as_text(row[1]), as_text(row[2])))
        return Heads(sound, damaged)

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
        """Entries that match, from the index, which is first brought up to date."""
        self.index()
        where, values = tag_filter(tags or {})
        if id is not None:
            where += " AND h.id = ?"
            values.append(id)
        order = "e.at DESC, e.seq DESC" if newest else "fts.rank"
        columns = ", ".join(f"e.{name}" for name in ENTRY.split(", "))
        sql = (
            f"SELECT h.kind, h.id, fts.rank, {columns} FROM fts JOIN entry e ON e.n = fts.rowid "  # noqa: S608  # as above
            f"JOIN head h ON h.n = e.head WHERE fts MATCH ? AND h.kind = ? AND e.void = 0{where} "
            f"ORDER BY {order} LIMIT ? OFFSET ?"
        )
        with self._guarded(), self._file.reader() as db:
            rows = db.execute(sql, (search.to_fts5(query), kind, *values, limit, min(offset, 2**62))).fetchall()
        return [Hit(Ref(row[0], row[1]), self._entry(row[3:]), -row[2]) for row in rows]

    def index(self) -> int:
        """Take in what is not indexed yet."""
        return self._catch_up(None)

    def _catch_up(self, pause: Callable[[float], bool] | None) -> int:
        with self._guarded():
            return self._words.catch_up(pause)

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


def _with_ids(db: Connection, n: int, ids: Sequence[str], after: int, upto: int) -> list[Any]:
    """The rows of a log that carry one of the ids, in order."""
    rows: list[Any] = []
    for some in _chunks(list(dict.fromkeys(i for i in ids if i))):
        marks = ",".join("?" * len(some))
        sql = f"SELECT {ENTRY} FROM entry WHERE head = ? AND id IN ({marks})"  # noqa: S608  # columns, placeholders
        rows += db.execute(sql, (n, *some)).fetchall()
    return sorted((row for row in rows if after < row[2] <= upto), key=lambda row: row[2])


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in itertools.count(0, 500):
        some = ids[start : start + 500]
        if not some:
            return
        yield some
