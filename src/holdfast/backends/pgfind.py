"""How heads are found by tags, newest first: few heads of a tag are sorted, else all are walked by time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from holdfast.backends.pgrows import LISTED, Row, tag_filter
from holdfast.backends.pgserver import Server

FEW = 1000
"""Heads that carry a tag, up to which a filtered list is gathered and sorted instead of walked by time."""
_NEWEST = (2**62, "")
_COLUMNS = ", ".join(f"h.{name}" for name in LISTED.split(", "))


def find_rows(
    server: Server,
    schema: str,
    kind: str,
    tags: Mapping[str, str | None],
    after: tuple[int, str] | None,
    stands: int,
) -> tuple[Callable[[tuple[int, str], int], Sequence[Row]], tuple[int, str]]:
    """What reads a page of rows below a bound, and the first bound."""
    rarest = _rarest(server, schema, kind, tags)
    where, values = tag_filter(tags, schema)
    source = f"{schema}.head h"
    if rarest is not None:
        source = (
            f"(SELECT kind, id FROM {schema}.tag WHERE kind = %s AND digest = {schema}.digest(%s, %s) "
            f"AND name = %s AND value = %s OFFSET 0) AS x JOIN {schema}.head h ON h.kind = x.kind AND h.id = x.id"
        )
    given: list[Any] = [*([kind, *rarest, *rarest] if rarest else ()), kind, *values]

    def rows(bound: tuple[int, str], limit: int) -> Sequence[Row]:
        # The columns of the index, in its order, so that a page is read off it. What does not bound is not said, and
        # the limit is: so the server knows beforehand what the statement costs, and plans it once.
        below, ends = ("", ()) if bound == _NEWEST else ("AND (h.at, h.id) < (%s, %s) ", bound)
        sql = (
            f"SELECT {_COLUMNS} FROM {source} WHERE h.kind = %s AND h.standing = {stands}{where} {below}"
            f"ORDER BY h.at DESC, h.id DESC LIMIT {limit:d}"
        )
        return server.often(sql, [*given, *ends])

    return rows, after if after is not None else _NEWEST


def _rarest(server: Server, schema: str, kind: str, tags: Mapping[str, str | None]) -> tuple[str, str] | None:
    """The tag that the fewest heads carry, if they are few."""
    wanted = [(name, value) for name, value in tags.items() if value is not None]
    if not wanted:
        return None
    count = (
        f"(SELECT count(*) FROM (SELECT 1 FROM {schema}.tag WHERE kind = %s "  # quoted
        f"AND digest = {schema}.digest(%s, %s) LIMIT {FEW + 1}) AS found)"
    )
    counts = server.read(
        f"SELECT {', '.join([count] * len(wanted))}", [part for tag in wanted for part in (kind, *tag)]
    )
    few, tag = min(zip(counts[0], wanted, strict=True))
    return tag if few <= FEW else None
