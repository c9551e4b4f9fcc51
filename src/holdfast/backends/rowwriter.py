"""What a batch of commits does to the rows: heads, entries, tags and runs, in the caller's transaction.

The heads that this process wrote last are remembered, and believed only while `PRAGMA data_version` says that nobody
else has written since; so an append costs one insert and one update.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from holdfast.backends.bodies import Bodies
from holdfast.backends.changes import stamp
from holdfast.backends.engine import Connection
from holdfast.backends.entryrows import hide, new_rows, numbered
from holdfast.backends.fts import WordIndex
from holdfast.backends.remains import forget_tags, remains
from holdfast.backends.rows import (
    GROW_HEAD,
    UPDATE_HEAD,
    Numbers,
    encode,
    grown_values,
    head_of,
    head_row,
    head_values,
    insert_entries,
    insert_head,
    is_sound,
    newest_row,
    only_grew,
    write_tags,
)
from holdfast.backends.runs import OpenRuns, forget, forget_all, pages, remove_rows, scanned
from holdfast.errors import Corrupt
from holdfast.plan import Commit, Head, Ref, Refused, plan

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


class RowWriter:
    """Makes commits into rows. One thread at a time calls it, in a write transaction."""

    def __init__(self, bodies: Bodies, words: WordIndex) -> None:
        self.numbers = Numbers(0)
        self._bodies = bodies
        self._words = words
        self._heads: OrderedDict[Ref, Known] = OrderedDict()
        self._version = (0, -1)
        self._changed: dict[Ref, Known] = {}
        self._rows: list[tuple[Any, ...]] = []
        self._waiting: set[int] = set()  # the heads whose entries are among these rows

    def write(
        self, db: Connection, opened: int, batch: Sequence[Commit], packs: Sequence[Sequence[bytes]]
    ) -> list[Head | Refused]:
        """Make commits in order; what each came to.

        Args:
            db: The connection, in the transaction.
            opened: Which connection it is: the versions of two have nothing to say about each other.
            batch: The commits.
            packs: Their bodies, packed.
        """
        self._trust(db, opened)
        self._changed.clear()
        self._rows.clear()
        self._waiting.clear()
        results: list[Head | Refused] = []
        for commit, packed in zip(batch, packs, strict=True):
            results.append(self._apply(db, commit, packed))
        self._insert(db)
        self._save(db, self._changed.values())
        return results

    def committed(self) -> None:
        """The transaction was committed: the heads are in the file as they are here."""
        for known in self._changed.values():
            known.saved = known.head
        while len(self._heads) > REMEMBERED:
            self._heads.popitem(last=False)

    def distrust(self) -> None:
        """The transaction failed: believe nothing that is remembered."""
        self._heads.clear()
        self._version = (0, -1)

    def _trust(self, db: Connection, opened: int) -> None:
        """Believe the remembered heads only if no other connection has written since."""
        version = (opened, db.execute("PRAGMA data_version").fetchone()[0])
        if version != self._version:
            self._heads.clear()
            self.numbers.newest = newest_row(db)
            self._bodies.distrust()
            self._version = version

    def _apply(
        self,
        db: Connection,
        commit: Commit,
        packed: Sequence[bytes],
    ) -> Head | Refused:
        """Make one commit, but for the new entries and the head, which join those to be written in the end."""
        rows = self._rows
        known = self._known(db, commit)
        ids: list[str] = []
        for entry in commit.append:
            if entry.id:
                ids.append(entry.id)  # noqa: PERF401  # of one entry, as mostly, this is quicker
        reworks = commit.void or commit.delete or commit.trim is not None
        if rows and (reworks or (ids and known is not None and known.n in self._waiting)):
            self._insert(db)  # what follows must see them
        if known is None:
            before, planned = None, plan(None, (), commit)
        else:
            before = known.head
            planned = plan(before, self._there(db, known.n, ids) if ids else (), commit)
        if isinstance(planned, Refused):
            return planned
        head, entries = planned
        if known is None:
            # The first run of a new head closes none, so its row is not asked for.
            first = numbered(db, self.numbers, runs := OpenRuns(), 0, entries)
            known = self._heads[commit.ref] = Known(insert_head(db, head, runs.data), head, runs)
            write_tags(db, known.n, {}, head.tags)
            if not entries:
                stamp(db, known.n)
        else:
            first = numbered(db, self.numbers, known.runs, known.n, entries)
            known.head = head
            self._changed[commit.ref] = known
        packed = self._bodies.place(known.n, commit, before, head, entries, packed)
        rows += new_rows(first, known.n, entries, packed)
        self._waiting.add(known.n)
        if reworks:
            self._insert(db)
            self._rework(db, commit, known, before or head)
        return head

    def _insert(self, db: Connection) -> None:
        """Write the entries that wait to be written together."""
        insert_entries(db, self._rows)
        self._rows.clear()
        self._waiting.clear()

    def _rework(self, db: Connection, commit: Commit, known: Known, before: Head) -> None:
        """What a commit changes of entries that are there."""
        n, head = known.n, known.head
        for span in commit.void:
            hide(db, n, known.runs.data, span.first, span.last, span.hide)
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
        elif (known := self._heads.get(ref)) is not None:
            return known
        row = head_row(db, ref)
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

    def _there(self, db: Connection, n: int, ids: Sequence[str]) -> set[str]:
        """Those of the ids that the log holds."""
        if len(ids) == 1:
            row = db.execute("SELECT 1 FROM entry WHERE head = ? AND id = ?", (n, ids[0])).fetchone()
            return set() if row is None else set(ids)
        found: set[str] = set()
        for some in chunks(ids):
            marks = ",".join("?" * len(some))
            sql = f"SELECT id FROM entry WHERE head = ? AND id IN ({marks})"  # noqa: S608  # placeholders only
            found.update(row[0] for row in db.execute(sql, (n, *some)).fetchall())
        return found

    def _save(self, db: Connection, changed: Iterable[Known]) -> None:
        """Write each changed head once, however many commits changed it."""
        grown: list[tuple[Any, ...]] = []
        moved: list[tuple[Any, ...]] = []
        for known in changed:
            head, saved = known.head, known.saved
            if only_grew(head, saved):
                grown.append(grown_values(head, known.tags, known.runs.data, known.n))
                continue
            if head.tags is not saved.tags:
                write_tags(db, known.n, saved.tags, head.tags)
                known.tags = encode(head.tags)
            if head.dead or head.last in (saved.last, head.base, head.trim):
                stamp(db, known.n)
            moved.append((*head_values(head, known.tags, known.runs.data), known.n))
        if grown:
            _execute(db, GROW_HEAD, grown)
        if moved:
            _execute(db, UPDATE_HEAD, moved)

    def _remove(self, db: Connection, known: Known, first: int, last: int) -> None:
        found = scanned(db, known.n) if known.damaged else pages(db, known.n, known.runs.data, first, last)
        for rows in found:
            sound = all(map(is_sound, rows))
            self._words.forget(db, [(row[0], row[7]) for row in rows] if sound else None)
            remove_rows(db, rows)


def _execute(db: Connection, sql: str, rows: Sequence[Sequence[Any]]) -> None:
    if len(rows) == 1:
        db.execute(sql, rows[0])
    else:
        db.executemany(sql, rows)


def chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """So many ids at a time as one statement takes."""
    for start in itertools.count(0, 500):
        some = ids[start : start + 500]
        if not some:
            return
        yield some
