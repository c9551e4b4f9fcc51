"""Which rows a search hits: those that the index of words finds, read and matched where it can't tell for sure."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from holdfast import search
from holdfast.backends.pgarrays import int8s, texts
from holdfast.backends.pgrows import ENTRY, LIVING, tag_filter
from holdfast.backends.pgserver import Connection, Server, cursor
from holdfast.backends.pgwords import MARK, Terms, WordIndex, terms

AHEAD = 1e6
"""What a score gets to be above every rank of the index."""
PAGE = 50
"""Entries that are read at a time to be matched."""
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


class Match(NamedTuple):
    """A row that matches: whose it is, the columns of `ENTRY`, and how good it is."""

    kind: str
    id: str
    row: Sequence[Any]
    score: float


def find(server: Server, schema: str, words: WordIndex, wanted: Wanted, *, behind: bool) -> list[Match]:
    """The wanted page of all entries that match.

    Args:
        behind: The index could not be brought up to date, so what it lacks is read and matched.
    """
    query = terms(wanted.query)
    if query.plain and not behind and (found := _page(server, schema, wanted, query)) is not None:
        return found
    with server.snapshot() as db:
        if behind:
            return _with_fresh(db, schema, words, wanted, query)
        return list(_matched(db, schema, words, wanted, query))


def _with_fresh(db: Connection, schema: str, words: WordIndex, wanted: Wanted, query: Terms) -> list[Match]:
    """What the index finds, and before it what it has not taken in; by time they make one order."""
    all_of_it = wanted._replace(offset=0, limit=wanted.offset + wanted.limit)
    known = list(_matched(db, schema, words, all_of_it, query)) if words.is_there(db) else []
    where, values = tag_filter(wanted.tags, schema)
    living = f"SELECT 1 FROM {schema}.head h WHERE h.kind = %s AND h.id = %s AND h.standing = {LIVING}{where}"

    def fresh() -> Iterator[Match]:
        for row in words.fresh(db, wanted.kind, wanted.id):
            kind, id, _, _, _, hidden, *_, packed = row
            text = None if hidden else words.words(packed)
            if text is None or not search.matches(wanted.query, text):
                continue
            if db.execute(living.encode(), [kind, id, *values]).fetchone():
                yield Match(kind, id, row[2:], AHEAD + search.score(wanted.query, text))

    found = heapq.nlargest(all_of_it.limit, chain(known, fresh()), key=_newest if wanted.newest else _best)
    return found[wanted.offset :]


def _newest(match: Match) -> tuple[Any, ...]:
    return match.row[2], match.row[0]


def _best(match: Match) -> tuple[Any, ...]:
    return match.score, match.row[2]


def _found(schema: str, wanted: Wanted, query: Terms, columns: str, extra: str = "") -> tuple[str, list[Any]]:
    where, values = tag_filter(wanted.tags, schema)
    whose: list[Any] = [wanted.kind] if wanted.id is None else [wanted.kind, wanted.id]
    of = " AND kind = %s" if wanted.id is None else " AND kind = %s AND id = %s"
    score = "coalesce(ts_rank(w.words, %s::tsquery, 2), 0)::float8"
    order = "e.at DESC, e.seq DESC" if wanted.newest else "score DESC, e.at DESC, e.seq DESC"
    # The index comes first, whatever the planner believes of tables that nobody has analysed yet.
    sql = (
        f"SELECT w.kind, w.id, {columns}, {score} AS score FROM "
        f"(SELECT * FROM {schema}.words WHERE (words @@ %s::tsquery{extra}){of} OFFSET 0) AS w "
        f"CROSS JOIN LATERAL (SELECT * FROM {schema}.entry n "
        "WHERE n.kind = w.kind AND n.id = w.id AND n.seq = w.seq AND n.hidden = 0 OFFSET 0) AS e "
        f"CROSS JOIN LATERAL (SELECT 1 FROM {schema}.head h "
        f"WHERE h.kind = w.kind AND h.id = w.id AND h.standing = {LIVING}{where} OFFSET 0) AS living "
        f"ORDER BY {order}, w.id DESC LIMIT %s OFFSET %s"
    )
    wants = query.maybe if query.plain or query.cut else f"{query.sure} | ({query.maybe} & {MARK})"
    return sql, [query.maybe, wants, *whose, *values]


def _page(server: Server, schema: str, wanted: Wanted, query: Terms) -> list[Match] | None:
    """The page as the index finds it, which is all in one statement; None if it does not know the words of all rows."""
    sql, values = _found(schema, wanted, query, _COLUMNS)
    # One row on the left: what is joined to it keeps its order.
    sql = (
        f"SELECT vague.*, page.* FROM (SELECT EXISTS (SELECT 1 FROM {schema}.words WHERE words IS NULL)) AS vague "
        f"LEFT JOIN LATERAL ({sql}) AS page ON true"
    )
    rows = server.read(sql, [*values, min(wanted.limit, 2**62), min(wanted.offset, 2**62)])
    if rows[0][0]:
        return None
    return [Match(row[1], row[2], row[3:-1], row[-1]) for row in rows if row[1] is not None]


def _matched(db: Connection, schema: str, words: WordIndex, wanted: Wanted, query: Terms) -> Iterator[Match]:
    """The page of those among what the index finds that hit: for sure, or by their text."""
    sure = "false" if query.cut else f"coalesce(NOT w.words @@ $${MARK}$$::tsquery, false)"
    if query.plain:
        sure = "w.words IS NOT NULL"
    sql, values = _found(schema, wanted, query, f"e.seq, {sure}", " OR words IS NULL")
    passed = given = start = 0
    size = PAGE
    while given < wanted.limit:
        places = cursor(db).execute(sql.encode(), [*values, size, start]).fetchall()
        for at in range(0, len(places), PAGE):
            for match in _hits(db, schema, words, wanted, places[at : at + PAGE]):
                passed += 1
                if passed > wanted.offset:
                    given += 1
                    yield match
                    if given == wanted.limit:
                        return
        if len(places) < size:
            return
        start += size
        size *= 4


def _hits(
    db: Connection, schema: str, words: WordIndex, wanted: Wanted, places: Sequence[Sequence[Any]]
) -> Iterator[Match]:
    """Those of some places whose entry hits."""
    kinds, ids, seqs, sures, scores = zip(*places, strict=True)
    select = (
        f"SELECT e.kind, e.id, {_COLUMNS} FROM unnest(%b, %b, %b) AS w (kind, id, seq) "  # quoted
        f"JOIN {schema}.entry e ON e.kind = w.kind AND e.id = w.id AND e.seq = w.seq"
    ).encode()
    found = cursor(db).execute(select, (texts(kinds), texts(ids), int8s(seqs))).fetchall()
    rows = {row[:3]: row for row in found}
    for kind, id, seq, sure, score in zip(kinds, ids, seqs, sures, scores, strict=True):
        row = rows[kind, id, seq]
        text = None if sure else words.words(row[-1])
        if sure or (text is not None and search.matches(wanted.query, text)):
            yield Match(row[0], row[1], row[2:], score)
