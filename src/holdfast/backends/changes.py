"""Whose logs grew since a look at the rows, told by the numbers of rows, which cost an append nothing.

A new row gets the number behind the highest. So what came since is behind the highest of then, unless that one
was deleted meanwhile: then its number may have come again. So a look remembers several rows, from the newest back in
steps that double. As long as one of them is there, no row before it is new.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from holdfast.backends.engine import Connection
from holdfast.backends.rows import newest_row
from holdfast.plan import Ref


class Seen(NamedTuple):
    """A row that was there: its number, the row of its head, and its seq, which is never given again."""

    n: int
    head: int
    seq: int


def changed(db: Connection, since: object) -> tuple[object, list[Ref]]:
    """The rows that are there now, and the heads of those that came since others were there.

    Args:
        db: A read connection amid a transaction.
        since: What the last call answered first, or None.
    """
    if since is None:
        return _seen(db), []
    before = cast("list[Seen]", since)
    known = next((row.n for row in before if _row(db, "n = ?", row.n) == row), 0)
    if known == newest_row(db):
        return before, []
    # If none is left, whatever is there may be new.
    sql = "SELECT kind, id FROM head WHERE n IN (SELECT head FROM entry WHERE n > ?)"
    return _seen(db), [Ref(*row) for row in db.execute(sql, (known,)).fetchall()]


def _seen(db: Connection) -> list[Seen]:
    found: list[Seen] = []
    row, step = _row(db, "n <= ?", 2**62), 1
    while row is not None:
        found.append(row)
        row, step = _row(db, "n <= ?", row.n - step), step * 2
    return found


def _row(db: Connection, where: str, n: int) -> Seen | None:
    row: Any = db.execute(f"SELECT n, head, seq FROM entry WHERE {where} ORDER BY n DESC LIMIT 1", (n,)).fetchone()  # noqa: S608  # the texts above
    return None if row is None else Seen(*row)
