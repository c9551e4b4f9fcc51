"""What is left of a head whose row is damaged, for whoever deletes it on purpose."""

from __future__ import annotations

from typing import Any

from holdfast.backends.engine import Connection
from holdfast.clock import now
from holdfast.plan import FIRST_TIME, LAST_TIME, MAX_BASE, Head, Ref


def remains(db: Connection, ref: Ref, row: Any) -> Head:
    """A head to delete instead of the damaged one in a row, such that its tombstone brings nothing back.

    No number that was given is given again: `last` is the highest that the row or the log speaks of. No writer who
    knew the head knows its revision: it is the time in microseconds, and no head changes more often than that.
    """
    n, _, _, rev, last, base, trim, at = row[:8]
    newest = db.execute(
        "SELECT max(seq) FROM entry WHERE head = ? AND typeof(seq) = 'integer' AND seq <= ?", (n, MAX_BASE)
    ).fetchone()[0]
    tags = db.execute("SELECT name, value FROM tag WHERE head = ?", (n,)).fetchall()
    return Head(
        ref,
        rev=max(now(), _within(0, rev, MAX_BASE)),
        last=max(newest or 0, *(_within(0, number, MAX_BASE) for number in (last, base, trim))),
        at=_within(FIRST_TIME, at, LAST_TIME),
        tags={name: value for name, value in tags if isinstance(name, str) and isinstance(value, str)},
    )


def forget_tags(db: Connection, n: int) -> None:
    """Remove every tag that a damaged head may be found by."""
    db.execute("DELETE FROM tag WHERE head = ?", (n,))


def _within(least: int, number: object, most: int) -> int:
    return number if isinstance(number, int) and least <= number <= most else 0
