"""What is wrong with the rows of a file: every checksum, and what else the rows are found by held against them.

All is read in one transaction, so that what a writer changes meanwhile is seen as it was, never half.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from holdfast.backend import Problem
from holdfast.backends.engine import Connection
from holdfast.backends.rows import ENTRY, HEAD, SLOT, as_text, head_of
from holdfast.backends.runs import leading
from holdfast.errors import Corrupt
from holdfast.plan import Entry, Head, Ref
from holdfast.search import NORM


def row_problems(
    db: Connection, entry_of: Callable[[Any], Entry], errors: tuple[type[Exception], ...]
) -> Iterator[Problem]:
    """What is wrong with the rows that a read connection sees.

    Args:
        db: The connection.
        entry_of: Makes a row of `ENTRY` an entry, and says its fault.
        errors: What the engine raises.
    """
    lines = _checked(db)
    if any("fts5" in line for line in lines):
        # From 3.44 on SQLite checks FTS5, by what this connection remembers of it from before others wrote; a query
        # makes it look anew.
        with contextlib.suppress(*errors):
            db.execute("SELECT rowid FROM fts WHERE fts MATCH 'x'").fetchone()
        lines = _checked(db)
    yield from (Problem(None, None, f"SQLite: {line}") for line in lines)
    db.execute("BEGIN")
    try:
        logs: dict[Any, Led] = {}
        yield from _heads(db, logs)
        yield from _slots(db)
        yield from _entries(db, entry_of, logs)
        yield from _words(db)
    finally:
        db.execute("ROLLBACK")


def _checked(db: Connection) -> list[str]:
    return [line for (line,) in db.execute("PRAGMA integrity_check(20)").fetchall() if line != "ok"]


class Led:
    """What a head says of its log: the runs that lead to the entries, and how many of them have not been met yet."""

    __slots__ = ("left", "runs")

    def __init__(self, head: Head, runs: bytes) -> None:
        self.runs = runs
        self.left = head.last - max(head.base, head.trim)

    def leads_to(self, db: Connection, n: int, seq: int, row: int) -> bool:
        """Whether the entry `seq` of the head in row `n` is looked for in this row."""
        return any(run == (seq, row) for run in leading(db, n, self.runs, seq, seq)[:1])


def _heads(db: Connection, logs: dict[Any, Led]) -> Iterator[Problem]:
    """Damaged heads, and those that a list by tag finds wrongly or not at all. The sound ones join `logs`."""
    # A sum for each head instead of its tags, which stand in another order: little memory, and each table read once.
    sums: dict[Any, int] = {}
    for name, value, n in _all(db, "SELECT name, value, head FROM tag"):
        sums[n] = sums.get(n, 0) + hash((name, value))
    for row in _all(db, f"SELECT {HEAD} FROM head"):  # noqa: S608  # columns
        found = sums.pop(row[0], 0)
        try:
            head = head_of(row)
        except Corrupt as error:
            yield Problem(Ref(as_text(row[1]), as_text(row[2])), None, error.message)
            continue
        logs[row[0]] = Led(head, row[-2])
        if found != sum(map(hash, head.tags.items())):
            yield Problem(head.ref, None, "the rows that it is found by do not agree with its tags")
    for n in sums:
        yield Problem(None, None, f"tags are kept for the head in row {n}, which is not there")


def _slots(db: Connection) -> Iterator[Problem]:
    """Heads that the list by time has in a wrong place."""
    for kind, id in _all(db, f"SELECT kind, id FROM head WHERE slot IS NOT at >> {SLOT}"):  # noqa: S608  # a number
        yield Problem(Ref(as_text(kind), as_text(id)), None, "its place in the list by time is not that of its time")


def _entries(db: Connection, entry_of: Callable[[Any], Entry], logs: dict[Any, Led]) -> Iterator[Problem]:
    """Damaged entries, those that nothing leads to, and logs that lack some."""
    columns = ", ".join(f"e.{name}" for name in ENTRY.split(", "))
    sql = f"SELECT h.kind, h.id, {columns} FROM entry e LEFT JOIN head h ON h.n = e.head ORDER BY e.n"  # noqa: S608
    for row in _all(db, sql):
        kind, id, number, n, seq = row[:5]
        log = logs.get(n)
        if log is not None:
            log.left -= 1
        if kind is None:
            yield Problem(None, seq, f"row {number} belongs to no session")
        elif fault := entry_of(row[2:]).fault:
            yield Problem(Ref(kind, id), seq, fault)
        elif log is not None and not log.leads_to(db, n, seq, number):
            yield Problem(Ref(kind, id), None, f"event {seq} is in row {number}, where it is not looked for")
    for n, log in logs.items():
        if log.left:
            ref = Ref(*db.execute("SELECT kind, id FROM head WHERE n = ?", (n,)).fetchone())
            what = f"{log.left} of its events are not there" if log.left > 0 else f"it has {-log.left} events too many"
            yield Problem(ref, None, what)


def _words(db: Connection) -> Iterator[Problem]:
    """Entries that search takes for indexed, and the index does not know; and the other way round."""
    meta = dict(db.execute("SELECT name, value FROM meta WHERE name IN ('fts_mark', 'fts_norm')").fetchall())
    if meta.get("fts_norm") != NORM:
        return  # the next search begins it anew
    mark = meta.get("fts_mark")
    newest = db.execute("SELECT coalesce(max(n), 0) FROM entry").fetchone()[0]
    if not isinstance(mark, int) or not 0 <= mark <= newest:
        yield Problem(None, None, f"the index of words says it has read up to row {mark!r} of {newest}")
        return
    lost = (
        "SELECT h.kind, h.id, count(*), min(e.seq) FROM entry e JOIN head h ON h.n = e.head "
        "WHERE e.n <= ? AND NOT EXISTS (SELECT 1 FROM fts_docsize d WHERE d.id = e.n) GROUP BY h.n"
    )
    for kind, id, count, first in db.execute(lost, (mark,)).fetchall():
        yield Problem(
            Ref(as_text(kind), as_text(id)), None, f"search misses {count} of its events, the first is {first}"
        )
    odd = "SELECT count(*) FROM fts_docsize d WHERE d.id > ? OR NOT EXISTS (SELECT 1 FROM entry e WHERE e.n = d.id)"
    count = db.execute(odd, (mark,)).fetchone()[0]
    if count:
        yield Problem(None, None, f"the index of words holds {count} events that it should not")


def _all(db: Connection, sql: str) -> Iterator[Any]:
    """The rows of a query, one at a time."""
    rows = db.execute(sql)
    while (row := rows.fetchone()) is not None:
        yield row
