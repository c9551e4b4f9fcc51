"""What a case found out: one row for each statement about it."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """One line of the table. `ratio` is ours to the other's; `goal` is "" for a row that only informs."""

    what: str
    ours: str
    other: str
    ratio: float | None = None
    goal: str = ""
    reached: bool | None = None
    note: str = ""


def seconds(value: float) -> str:
    """A time as a person writes it."""
    if value < 0.001:
        return f"{value * 1e6:,.0f} µs"
    return f"{value * 1e3:,.1f} ms" if value < 1 else f"{value:,.2f} s"


def times(value: float) -> str:
    """A ratio."""
    return f"{value:.2f} ×"


def rate(value: float) -> str:
    """Operations a second."""
    return f"{value:,.0f}/s"


def at_most(what: str, ours: float, other: float, limit: float | None, against: str, form=seconds, note="") -> Row:
    """A row where less is better: ours may be `limit` times the other's; None only informs."""
    ratio = ours / other if other else float("inf")
    goal, reached = ("", None) if limit is None else (f"≤ {limit:g} ×", ratio <= limit)
    return Row(what, form(ours), f"{against} {form(other)}", ratio, goal, reached, note)


def at_least(what: str, ours: float, other: float, limit: float | None, against: str, form=rate, note="") -> Row:
    """A row where more is better: ours should be `limit` times the other's; None only informs."""
    ratio = ours / other if other else float("inf")
    goal, reached = ("", None) if limit is None else (f"≥ {limit:g} ×", ratio >= limit)
    return Row(what, form(ours), f"{against} {form(other)}", ratio, goal, reached, note)


def not_run(what: str, why: str) -> Row:
    """A row for what could not be measured here."""
    return Row(what, "–", "not run", note=why)
