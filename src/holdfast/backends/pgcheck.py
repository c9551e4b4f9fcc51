"""What is wrong with a store's rows: every checksum, and what else the rows are found by held against them.

Heads, tags and entries are read side by side in the order of their keys, in one transaction that sees one state, so it
takes little memory however large the store is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import psycopg

from holdfast.backend import Problem
from holdfast.backends.pgrows import ENTRY, HEAD, Row, head_of
from holdfast.backends.pgserver import Connection, Server
from holdfast.backends.pgwords import RULES
from holdfast.errors import Corrupt
from holdfast.plan import Entry, Head, Ref

CHUNK = 500
"""Rows that are fetched at a time."""


def row_problems(server: Server, schema: str, entry_of: Callable[[Ref, Row], Entry]) -> Iterator[Problem]:
    """What is wrong with the rows.

    Args:
        entry_of: Makes a row of `ENTRY` an entry, and says its fault.
    """
    try:
        with server.snapshot() as db:
            yield from _heads(db, schema, entry_of)
            yield from _words(db, schema)
    except Corrupt as error:
        yield Problem(None, None, error.message)  # what was found before stays


def _all(db: Connection, name: str, sql: str) -> Iterator[Row]:
    with psycopg.ServerCursor(db, name) as cursor:
        cursor.itersize = CHUNK
        yield from cursor.execute(sql.encode(), binary=True)


def _heads(db: Connection, schema: str, entry_of: Callable[[Ref, Row], Entry]) -> Iterator[Problem]:
    heads = _all(db, "heads", f"SELECT {HEAD} FROM {schema}.head ORDER BY kind, id")  # quoted
    tags = Beside(_all(db, "tags", f"SELECT kind, id, name, value FROM {schema}.tag ORDER BY kind, id"))
    entries = Beside(_all(db, "entries", f"SELECT kind, id, {ENTRY} FROM {schema}.entry ORDER BY kind, id, seq"))
    for row in heads:
        ref = Ref(*row[:2])
        yield from _without_head(tags.before(ref), entries.before(ref))
        kept = {name: value for _, _, name, value in tags.of(ref)}
        try:
            head = head_of(row)
        except Corrupt as error:
            head = None
            yield Problem(ref, None, error.message)
        if head is not None and kept != head.tags:
            yield Problem(ref, None, "the rows that it is found by do not agree with its tags")
        yield from _log(ref, head, entries.of(ref), entry_of)
    yield from _without_head(tags.before(None), entries.before(None))


def _log(ref: Ref, head: Head | None, rows: Iterator[Row], entry_of: Callable[[Ref, Row], Entry]) -> Iterator[Problem]:
    """Damaged entries, and how many are not there."""
    count = 0
    for row in rows:
        count += 1
        if fault := entry_of(ref, row[2:]).fault:
            yield Problem(ref, row[2], fault)
    if head is not None:
        left = head.last - max(head.base, head.trim) - count
        if left:
            what = f"{left} of its events are not there" if left > 0 else f"it has {-left} events too many"
            yield Problem(ref, None, what)


def _without_head(tags: Iterator[Row], entries: Iterator[Row]) -> Iterator[Problem]:
    for (kind, id), rows in groupby(tags, key=lambda row: row[:2]):
        yield Problem(None, None, f"{len(list(rows))} tags are kept for {kind} {id!r}, which is not there")
    for (kind, id), rows in groupby(entries, key=lambda row: row[:2]):
        yield Problem(None, None, f"{len(list(rows))} events are kept for {kind} {id!r}, which is not there")


class Beside:
    """Rows that are read beside the heads they belong to, in the same order."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._rows = rows
        self._next: Any = next(rows, None)

    def before(self, ref: Ref | None) -> Iterator[Row]:
        """Those of heads below this one; all that are left for None."""
        while self._next is not None and (ref is None or _key(self._next) < ref):
            yield self._taken()

    def of(self, ref: Ref) -> Iterator[Row]:
        """Those of this head."""
        while self._next is not None and _key(self._next) == ref:
            yield self._taken()

    def _taken(self) -> Row:
        row, self._next = self._next, next(self._rows, None)
        return row


def _key(row: Row) -> tuple[str, str]:
    return row[0], row[1]


def _words(db: Connection, schema: str) -> Iterator[Problem]:
    """Entries that search takes for indexed, and the index does not know; and the other way round."""
    meta = dict(
        db.execute(f"SELECT name, value FROM {schema}.meta WHERE name IN ('words', 'norm')".encode()).fetchall()
    )
    if meta.get("norm") != RULES:
        return  # the next search begins it anew
    join = f"FROM {schema}.entry e FULL JOIN {schema}.words w ON w.kind = e.kind AND w.id = e.id AND w.seq = e.seq"
    lost = (
        f"SELECT e.kind, e.id, count(*), min(e.seq) {join} JOIN {schema}.head h ON h.kind = e.kind AND h.id = e.id "
        "WHERE w.seq IS NULL AND pg_visible_in_snapshot(h.grown::text::xid8, %s::pg_snapshot) GROUP BY e.kind, e.id"
    )
    for kind, id, count, first in db.execute(lost.encode(), (meta["words"],)).fetchall():
        yield Problem(Ref(kind, id), None, f"search misses {count} of its events, the first is {first}")
    odd = db.execute(f"SELECT count(*) {join} WHERE e.seq IS NULL".encode()).fetchone()  # quoted
    if odd and odd[0]:
        yield Problem(None, None, f"the index of words holds {odd[0]} events that it should not")
