"""Which rows a search hits: those that the index of words knows, and those behind its mark, which are read and matched.

All is read in one transaction, so a row is behind the mark or in the index, never both and never neither. The two kinds
make one order. By time it is exact. By score, what is not indexed yet comes first, as SQLite's rank weighs a word by
how rare it is in the index, and has none for what it does not know; within each kind the best comes first.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from holdfast import search
from holdfast.backends.engine import Connection
from holdfast.backends.fts import WordIndex
from holdfast.backends.rows import ENTRY, LIVING, as_number, tag_filter

AHEAD = 1e6
"""What a score gets to be above every rank of SQLite's, which is at most about 40 for each of 64 terms."""

_COLUMNS = ", ".join(f"e.{name}" for name in ENTRY.split(", "))


class Wanted(NamedTuple):
    """What a search asks for; see `Backend.search`."""

    kind: str
    query: search.Node
    id: str | None
    tags: Mapping[str, str | None]
    newest: bool
    offset: int
    limit: int

    def where(self) -> tuple[str, list[Any]]:
        """Conditions on the entry `e` and its head `h`, and their values."""
        where, values = tag_filter(self.tags)
        if self.id is not None:
            where += " AND h.id = ?"
            values.append(self.id)
        return f"e.void = 0 AND h.kind = ? AND h.dead = {LIVING}{where}", [self.kind, *values]


class Match(NamedTuple):
    """A row that matches: the one of the highest rank comes first. `row` holds kind, id and the columns of `ENTRY`."""

    rank: tuple[float, int, int]
    score: float
    row: Any


def find(db: Connection, words: WordIndex, wanted: Wanted) -> tuple[list[Match], bool]:
    """The wanted page of all rows that match, and whether every row behind the mark could be read.

    Args:
        db: A read connection amid a transaction.
    """
    mark = words.mark(db)
    fresh, whole = _fresh(db, words, mark or 0, wanted)
    # At most so many of those that come before the page are fresh; the others are indexed, and need not be looked at.
    passed = max(wanted.offset - len(fresh), 0)
    start = wanted.offset - passed
    known = [] if mark is None else _known(db, wanted, passed, start + wanted.limit)
    found = sorted(fresh + known, key=_rank, reverse=True)  # equals keep the index's order, as on any page
    return found[start : start + wanted.limit], whole


def _rank(match: Match) -> tuple[float, int, int]:
    return match.rank


def _known(db: Connection, wanted: Wanted, offset: int, limit: int) -> list[Match]:
    """Rows that the index knows."""
    where, values = wanted.where()
    order = "e.at DESC, e.seq DESC, e.n DESC" if wanted.newest else "fts.rank"
    sql = (
        f"SELECT fts.rank, h.kind, h.id, {_COLUMNS} FROM fts JOIN entry e ON e.n = fts.rowid "  # noqa: S608  # the texts above
        f"JOIN head h ON h.n = e.head WHERE fts MATCH ? AND {where} ORDER BY {order} LIMIT ? OFFSET ?"
    )
    rows = db.execute(sql, (search.to_fts5(wanted.query), *values, min(limit, 2**62), min(offset, 2**62))).fetchall()
    return [Match(_time(row) if wanted.newest else (-row[0], 0, 0), -row[0], row[1:]) for row in rows]


def _fresh(db: Connection, words: WordIndex, mark: int, wanted: Wanted) -> tuple[list[Match], bool]:
    """Rows behind the mark that may be on the page or before it; no more of them are held at a time."""
    where, values = wanted.where()
    # CROSS keeps SQLite from reading whole sessions to find their last rows.
    sql = (
        f"SELECT 0, h.kind, h.id, {_COLUMNS} FROM entry e CROSS JOIN head h ON h.n = e.head "  # noqa: S608  # as above
        f"WHERE e.n > ? AND {where}"
    )
    whole = True

    def matches() -> Iterator[Match]:
        nonlocal whole
        rows = db.execute(sql, (mark, *values))
        while (row := rows.fetchone()) is not None:
            text = words.words(row[-1])
            if text is None:
                whole = False
            elif search.matches(wanted.query, text):
                score = AHEAD + search.score(wanted.query, text)
                at, _, n = time = _time(row)
                yield Match(time if wanted.newest else (score, at, n), score, row[1:])

    return heapq.nlargest(wanted.offset + wanted.limit, matches(), key=_rank), whole


def _time(row: Any) -> tuple[int, int, int]:
    """Time, seq and number of a row, by which the newest comes first."""
    _, _, _, n, _, seq, _, at, *_ = row
    return as_number(at), as_number(seq), n
