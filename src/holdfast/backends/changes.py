"""What changed since a look at the rows, told by numbers that cost an append nothing.

What grew is told by the rows of entries. A new row gets the number behind the highest. So what came since is behind the
highest of then, unless that one was deleted meanwhile: then its number may have come again. So a look remembers
several rows, from the newest back in steps that double. As long as one of them is there, no row before it is new.

What changed and left no new row is told by a number in its head, above the highest, and at least the time. As a head
never goes, the head that had the highest number has it still, or a higher one. Where it has not, rows were put back, or
built anew, and everything is told. If it has a higher one though rows were put back, so has all that changed since, as
time went on.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import msgspec

from holdfast.backends import positions
from holdfast.backends.engine import Connection
from holdfast.clock import now
from holdfast.errors import Corrupt
from holdfast.plan import Ref

_NUMBERED = "FROM head WHERE changed > 0 ORDER BY changed DESC LIMIT 1"
_STAMP = f"UPDATE head SET changed = max(?, 1 + ifnull((SELECT changed {_NUMBERED}), 0)) WHERE n = ?"  # noqa: S608  # the text above


_Number = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]


class Seen(NamedTuple):
    """A row that was there: its number, the row of its head, its seq, which is never given again, and its time."""

    n: _Number
    head: _Number
    seq: _Number
    at: _Number


class Looked(NamedTuple):
    """What a look remembers.

    Which rows these are, as they may be built anew; some rows of entries, from the newest back; the highest number of a
    change, and the row of its head.
    """

    rows: str
    seen: tuple[Seen, ...]
    changed: _Number
    head: _Number


def stamp(db: Connection, n: int) -> None:
    """Number the change of the head in a row that left no new entry."""
    db.execute(_STAMP, (now(), n))


def changed(db: Connection, store: str | None, since: str | None) -> tuple[str, list[Ref]]:
    """See `Backend.changed`.

    Args:
        db: A read connection amid a transaction.
        store: The store's id; None if it is the one of the rows.
        since: What a look answered, or None.
    """
    named = db.execute("SELECT value FROM meta WHERE name = 'store'").fetchone()
    if named is None:
        raise Corrupt("the store's id is gone from its table meta, so no position of it can be told from another's")
    rows = str(named[0])
    before = None if since is None else positions.read(since, store or rows, Looked)
    newest: Any = _row(db, "n <= ?", 2**62)
    number: Any = db.execute(f"SELECT changed, n {_NUMBERED}").fetchone()
    number = number or (0, 0)
    if before is not None and before.seen[:1] == (newest,) and (rows, *number) == (before.rows, *before[2:]):
        return str(since), []
    stands = positions.written(store or rows, Looked(rows, tuple(_back(db, newest)), *number))
    return stands, [] if before is None else _since(db, before, rows)


def _since(db: Connection, before: Looked, rows: str) -> list[Ref]:
    stands = db.execute("SELECT changed FROM head WHERE n = ?", (before.head,)).fetchone()
    if before.rows != rows or (before.changed and (stands is None or (stands[0] or 0) < before.changed)):
        return [Ref(*row) for row in db.execute("SELECT kind, id FROM head").fetchall()]
    # If none is left, whatever is there may be new.
    known = next((row.n for row in before.seen if _row(db, "n = ?", row.n) == row), 0)
    sql = (
        "SELECT kind, id FROM head WHERE changed > ?1 AND changed > 0 "
        "UNION SELECT kind, id FROM head WHERE n IN (SELECT head FROM entry WHERE n > ?2)"
    )
    return [Ref(*row) for row in db.execute(sql, (before.changed, known)).fetchall()]


def _back(db: Connection, newest: Seen | None) -> list[Seen]:
    found: list[Seen] = []
    row, step = newest, 1
    while row is not None:
        found.append(row)
        row, step = _row(db, "n <= ?", row.n - step), step * 2
    return found


def _row(db: Connection, where: str, n: int) -> Seen | None:
    row: Any = db.execute(f"SELECT n, head, seq, at FROM entry WHERE {where} ORDER BY n DESC LIMIT 1", (n,)).fetchone()  # noqa: S608  # the texts above
    return None if row is None else Seen(*row)
