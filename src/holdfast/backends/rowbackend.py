"""Heads and entries as rows of a SQLite file: what the `sqlite` and `files` backends share.

A batch of commits is one transaction; reads see one state of the file, and wait for no writer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from holdfast.backend import Blobs, Heads, Hit, Problem, TextOf
from holdfast.backends.bodies import Bodies
from holdfast.backends.changes import changed
from holdfast.backends.engine import Connection, Engine
from holdfast.backends.fts import Background, NoFTS5, WordIndex
from holdfast.backends.listening import Listening
from holdfast.backends.rows import (
    DEAD,
    ENTRY,
    FOUND,
    HEAD,
    IN_TRASH,
    LISTED,
    LIVING,
    MISPLACED,
    as_bytes,
    as_number,
    as_text,
    entry_crc,
    find_sql,
    head_of,
    head_row,
    heads_of,
    is_sound,
)
from holdfast.backends.rowwriter import RowWriter, chunks
from holdfast.backends.runs import ALL, GONE, Page, led, log_rows
from holdfast.backends.sqlitefile import SQLiteFile
from holdfast.errors import Corrupt, HoldfastError, ReadOnly, Unavailable
from holdfast.plan import Commit, Entry, Head, Ref, Refused

if TYPE_CHECKING:
    from holdfast.backends.matching import Wanted
    from holdfast.search import Node

BACKGROUND_PATIENCE = 1.0
"""Seconds that the thread beside a recording waits for other writers: whoever closes the store waits for it."""
PATIENCE = 0.05
"""Seconds that a search waits for writers to bring the index up to date; it can do without. They take turns of a few
milliseconds, so one who holds the lock for longer is slow or stands still."""


class RowBackend:
    """Heads and entries in the rows of a SQLite file, whose bodies are where `bodies` keeps them.

    `id` is the store's; None if the file itself is the store, and has it.

    See `Backend` for what the methods promise.
    """

    def __init__(
        self,
        file: SQLiteFile,
        bodies: Bodies,
        blobs: Blobs,
        text_of: TextOf,
        facts: Mapping[str, str],
        id: str | None = None,
    ) -> None:
        self.path = file.path
        self._id = id
        self.blobs = blobs
        self._file = file
        self._engine = file.engine
        self._bodies = bodies
        self._unpack = bodies.unpack
        self._facts = facts
        self._words = WordIndex(file, bodies.unpack, text_of)
        self._writer = RowWriter(bodies, self._words)
        self._background = Background(lambda pause: self._catch_up(pause, BACKGROUND_PATIENCE))
        self._listening = Listening(file.version)

    def _guarded(self) -> Guarded:
        return Guarded(self._engine, self.path)

    def commit(self, batch: Sequence[Commit]) -> list[Head | Refused]:
        """Make commits in order, in one transaction."""
        with self._file.mutex:
            packs = list(map(self._bodies.pack, batch))
            try:
                db = self._file.begin()
                try:
                    results = self._write(db, batch, packs)
                finally:
                    self._file.release()  # not before the bodies are as the rows say: the next writer may be another's
            except BaseException as error:
                self._writer.distrust()
                if isinstance(error, self._engine.errors):
                    raise self._engine.explain(error, self.path) from error
                raise
            self._writer.committed()
            self._background.notice(sum(map(len, packs)))
        self._listening.wake()
        return results

    def _write(self, db: Connection, batch: Sequence[Commit], packs: Sequence[Sequence[bytes]]) -> list[Head | Refused]:
        try:
            results = self._writer.write(db, self._file.opened, batch, packs)
            self._bodies.settle(db)
        except BaseException:
            try:
                self._bodies.undo()
            finally:
                self._file.end(db, commit=False)
            raise
        self._end(db)
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

    def get(self, refs: Sequence[Ref]) -> list[Head | None]:
        """The heads."""
        with self._guarded(), self._file.reader() as db:
            rows = [head_row(db, ref) for ref in refs]
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
        page: Page | None = None
        with self._guarded(), self._file.snapshot() as db:
            row = head_row(db, ref)
            if row is None:
                return []
            if ids is not None:
                rows = _with_ids(db, row[0], ids, after, upto)
                rows = [r for r in (rows[::-1] if reverse else rows) if voided or not (r[5] and is_sound(r))][:limit]
            else:
                if limit is not None:
                    page = led(db, row, after, upto, limit, reverse, voided)
                rows = log_rows(db, row, after, upto, limit, reverse, voided) if page is None else ()
        if page is None:
            return [self._entry(row) for row in rows]
        entries = self._entries(row[0], page)
        return entries[::-1] if reverse else entries

    def _entries(self, n: int, page: Page) -> list[Entry]:
        """The entries of a page of the head in row `n`."""
        return [self._entry((0, n, seq, *row)) for seq, row in enumerate(page.rows, page.first)]

    def _entry(self, row: Any) -> Entry:
        _, head, seq, id, at, void, crc, packed = row
        if crc != entry_crc(head, seq, id, at, void, packed):
            return packed_entry(row)
        try:
            return Entry(id or "", at, self._unpack(packed), seq, void != 0)
        except Corrupt as error:
            return Entry(id or "", at, packed, seq, void != 0, error.message)

    def find(
        self,
        kind: str,
        tags: Mapping[str, str | None],
        *,
        after: tuple[int, str] | None = None,
        limit: int = 100,
        dead: bool = False,
        trashed: bool = False,
    ) -> Heads:
        """Living heads, or tombstones, newest first."""
        standing = DEAD if dead else IN_TRASH if trashed else LIVING
        with self._guarded(), self._file.reader() as db:
            rest, values = find_sql(db, kind, tags, after, standing)
            rows = db.execute(f"SELECT {LISTED} {rest} LIMIT ?", (kind, standing, *values, limit)).fetchall()
            heads = heads_of(kind, standing, rows)
            if heads is not None:
                return Heads(heads)
            return self._heads_of(db, f"SELECT {FOUND} {rest}", values, limit)

    def scan(self, kind: str, after: str = "", limit: int = 1000, *, trashed: bool = False) -> Heads:
        """Living heads by id."""
        standing = IN_TRASH if trashed else LIVING
        sql = f"SELECT {HEAD} FROM head WHERE kind = ? AND id > ? AND dead = {standing} ORDER BY id"  # noqa: S608
        with self._guarded(), self._file.reader() as db:
            heads = self._heads_of(db, sql, (kind, after), limit)
        # A damaged index may lead back, and whoever asks on behind the last would never come to an end.
        return Heads([head for head in heads if head.ref.id > after], heads.damaged)

    def kinds(self) -> list[str]:
        """The kinds of heads, from one to the next by the index: there are few of many heads each."""
        found: list[str] = []
        with self._guarded(), self._file.reader() as db:
            last = ""
            while row := db.execute("SELECT min(kind) FROM head WHERE kind > ?", (last,)).fetchone():
                if row[0] is None or as_text(row[0]) <= last:  # a damaged index may lead back
                    break
                found.append(last := as_text(row[0]))
        return found

    def _heads_of(self, db: Connection, sql: str, values: Sequence[Any], limit: int) -> Heads:
        """The first heads that a query finds, however many that are damaged stand among them."""
        want = limit
        while True:
            rows = db.execute(f"{sql} LIMIT ?", (*values, want)).fetchall()
            heads = self._sound(rows, limit)
            if len(heads) >= limit or len(rows) < want:
                return heads
            want *= 2

    def _sound(self, rows: Sequence[Any], limit: int) -> Heads:
        """Heads for a list, which must not end at one that is damaged: it is named, and asking for it says so."""
        if len(rows) <= limit:
            with contextlib.suppress(Corrupt):
                return Heads(map(head_of, rows))
        sound, damaged = list[Head](), list[Ref]()
        for row in rows:
            if len(sound) == limit:
                break
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
        query: Node,
        *,
        id: str | None = None,
        tags: Mapping[str, str | None] | None = None,
        newest: bool = False,
        offset: int = 0,
        limit: int = 100,
    ) -> list[Hit]:
        """Entries that match: from the index, and from what it has not taken in."""
        from holdfast.backends.matching import Wanted

        return self._search(Wanted(kind, query, id, tags or {}, newest, offset, limit))[0]

    def _search(self, wanted: Wanted) -> tuple[list[Hit], bool]:
        """The hits, and whether every entry could be read that had to be."""
        from holdfast.backends.matching import find

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

    def changed(self, since: str | None = None) -> tuple[str, list[Ref]]:
        """The heads that new rows belong to, and those with a new number."""
        with self._guarded(), self._file.snapshot() as db:
            return changed(db, self._id, since)

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` after each commit of this process, and soon after another's."""
        return self._listening.add(wake)

    def compact(self) -> None:
        """Words that are gone leave the index, then all is written anew, and the log of the file is cut off."""
        with self._guarded():
            self._words.compact()
            self._file.compact()

    def verify(self) -> list[Problem]:
        """SQLite's own check, every record's checksum, and whether what they are found by agrees."""
        from holdfast.backends.rowcheck import row_problems

        problems: list[Problem] = []
        try:
            with self._file.reader() as db:
                # What was found stays, though SQLite may fail then.
                problems.extend(row_problems(db, self._entry, self._engine.errors))
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


def packed_entry(row: Any) -> Entry:
    """A row of `ENTRY` as an entry whose body is as it stands in the row."""
    _, head, seq, id, at, void, crc, packed = row
    if crc == entry_crc(head, seq, id, at, void, packed):
        return Entry(id or "", at, packed, seq, void != 0)
    why = "its row is gone" if crc == GONE else "its checksum does not match"
    return Entry(as_text(id), as_number(at), as_bytes(packed), seq, bool(void), why)


def _with_ids(db: Connection, n: int, ids: Sequence[str], after: int, upto: int) -> list[Any]:
    """The rows of a log that carry one of the ids, in order."""
    rows: list[Any] = []
    for some in chunks(list(dict.fromkeys(i for i in ids if i))):
        marks = ",".join("?" * len(some))
        sql = f"SELECT {ENTRY} FROM entry WHERE head = ? AND id IN ({marks})"  # noqa: S608  # columns, placeholders
        rows += db.execute(sql, (n, *some)).fetchall()
    return sorted((row for row in rows if after < row[2] <= upto), key=lambda row: row[2])
