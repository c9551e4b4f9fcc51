"""Which rows a search hits: those that the index of words finds, read and matched where it can't tell for sure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from holdfast import search
from holdfast.backends.pgarrays import int8s, texts
from holdfast.backends.pgrows import ENTRY, LIVING, tag_filter
from holdfast.backends.pgserver import Connection, Server, cursor
from holdfast.backends.pgwords import WordIndex, tsquery

AHEAD = 1e6
"""What a score gets to be above every rank of the index."""
PAGE = 200
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
    query, exact = tsquery(wanted.query)
    with server.snapshot() as db:
        if behind:
            return _with_fresh(db, schema, words, wanted, query)
        vague = db.execute(f"SELECT 1 FROM {schema}.words WHERE words IS NULL LIMIT 1".encode()).fetchone()
        if exact and not vague:
            return list(_page(db, schema, wanted, query))
        return list(_matched(db, schema, words, wanted, query))


def _with_fresh(db: Connection, schema: str, words: WordIndex, wanted: Wanted, query: str) -> list[Match]:
    """What the index finds, and before it what it has not taken in; by time they make one order."""
    all_of_it = wanted._replace(offset=0, limit=wanted.offset + wanted.limit)
    known = list(_matched(db, schema, words, all_of_it, query))
    where, values = tag_filter(wanted.tags, schema)
    living = f"SELECT 1 FROM {schema}.head h WHERE h.kind = %s AND h.id = %s AND h.standing = {LIVING}{where}"
    fresh: list[Match] = []
    for row in words.fresh(db):
        kind, id, _, _, _, hidden, *_, packed = row
        if kind != wanted.kind or hidden or wanted.id not in (None, id):
            continue
        text = words.words(packed)
        if text is None or not search.matches(wanted.query, text):
            continue
        if db.execute(living.encode(), [kind, id, *values]).fetchone():
            fresh.append(Match(kind, id, row[2:], AHEAD + search.score(wanted.query, text)))
    fresh.sort(key=lambda match: (match.score, match.row[2]), reverse=True)
    found = fresh + known
    if wanted.newest:
        found.sort(key=lambda match: (match.row[2], match.row[0]), reverse=True)
    return found[wanted.offset : all_of_it.limit]


def _found(schema: str, wanted: Wanted, query: str, columns: str, extra: str = "") -> tuple[str, list[Any]]:
    where, values = tag_filter(wanted.tags, schema)
    if wanted.id is not None:
        where += " AND h.id = %s"
        values.append(wanted.id)
    score = "coalesce(ts_rank(w.words, %s::tsquery, 2), 0)::float8"
    order = "e.at DESC, e.seq DESC" if wanted.newest else "score DESC, e.at DESC, e.seq DESC"
    sql = (
        f"SELECT w.kind, w.id, {columns}, {score} AS score FROM {schema}.words w "
        f"JOIN {schema}.entry e ON e.kind = w.kind AND e.id = w.id AND e.seq = w.seq "
        f"JOIN {schema}.head h ON h.kind = w.kind AND h.id = w.id "
        f"WHERE (w.words @@ %s::tsquery{extra}) AND e.hidden = 0 AND h.kind = %s AND h.standing = {LIVING}{where} "
        f"ORDER BY {order}, w.id DESC"
    )
    return sql, [query, query, wanted.kind, *values]


def _page(db: Connection, schema: str, wanted: Wanted, query: str) -> Iterator[Match]:
    """The page as the index finds it."""
    sql, values = _found(schema, wanted, query, _COLUMNS)
    bounds = [min(wanted.limit, 2**62), min(wanted.offset, 2**62)]
    for row in cursor(db).execute(f"{sql} LIMIT %s OFFSET %s".encode(), [*values, *bounds]).fetchall():
        yield Match(row[0], row[1], row[2:-1], row[-1])


def _matched(db: Connection, schema: str, words: WordIndex, wanted: Wanted, query: str) -> Iterator[Match]:
    """The page of those among what the index finds that match by their text."""
    sql, values = _found(schema, wanted, query, "e.seq", " OR w.words IS NULL")
    places = cursor(db).execute(sql.encode(), values).fetchall()
    select = (
        f"SELECT e.kind, e.id, {_COLUMNS} FROM unnest(%b, %b, %b) AS w (kind, id, seq) "  # quoted
        f"JOIN {schema}.entry e ON e.kind = w.kind AND e.id = w.id AND e.seq = w.seq"
    ).encode()
    passed = given = 0
    for start in range(0, len(places), PAGE):
        kinds, ids, seqs, scores = zip(*places[start : start + PAGE], strict=True)
        found = cursor(db).execute(select, (texts(kinds), texts(ids), int8s(seqs))).fetchall()
        rows = {row[:3]: row for row in found}
        for place, score in zip(zip(kinds, ids, seqs, strict=True), scores, strict=True):
            row = rows[place]
            text = words.words(row[-1])
            if text is None or not search.matches(wanted.query, text):
                continue
            passed += 1
            if passed > wanted.offset and given < wanted.limit:
                given += 1
                yield Match(row[0], row[1], row[2:], score)
        if given >= wanted.limit:
            return
