"""What a prune may take: a policy, and the pure choice that it makes among sessions.

Invariant: nothing is chosen unless a limit says so, and there is none by default. A limit only looks back: of two
sessions the one that was active later is never chosen before the other, and what is spared takes nobody's place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from holdfast.errors import Invalid
from holdfast.heads.info import STARRED, STATES, filter_tags
from holdfast.plan import check_id

MAX_BATCH = 1000
"""Sessions that one transaction moves at the most, so that other writers get their turn."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Which sessions a prune moves to the trash: those that match, and are beyond a limit. There is none by default.

    Limits: `max_age` in seconds since the last activity; `max_sessions`, the newest so many stay; `max_bytes`, the
    newest stay that fit into so many bytes together, in the sense of `Chosen.bytes`. 0 keeps none that matches, and a
    number beyond all that there is takes none. They hold together: what one of them takes goes.

    Matching: `user`, `agent`, `project`, `state`, `label`; only sessions that carry exactly this are counted and taken.

    Spared always: who runs or is leased, and whom a fork reads through or is about to. Spared unless said otherwise:
    `keep_named`, `keep_starred` (the label "starred"), and those that carry one of `keep_labels`.

    `batch` sessions are moved in one transaction; others write between two. `cooldown` is how many seconds after a
    prune that succeeded, by whomever, this one does nothing.

    Raises:
        Invalid: a number is negative, NaN, infinite, none at all or out of range; a field can't be a session's.
    """

    max_age: float | None = None
    max_sessions: int | None = None
    max_bytes: int | None = None
    user: str | None = None
    agent: str | None = None
    project: str | None = None
    state: str | None = None
    label: str | None = None
    keep_named: bool = True
    keep_starred: bool = True
    keep_labels: tuple[str, ...] = ()
    batch: int = 100
    cooldown: float = 0

    def __post_init__(self) -> None:
        check_seconds(self.max_age, "max_age")
        check_seconds(self.cooldown, "cooldown")
        _check_count(self.max_sessions, "max_sessions")
        _check_count(self.max_bytes, "max_bytes")
        _check_count(self.batch, "batch")
        if not 1 <= self.batch <= MAX_BATCH:
            raise Invalid(f"batch must be from 1 to {MAX_BATCH:,} sessions, not {self.batch}", batch=self.batch)
        if self.state is not None and self.state not in STATES:
            raise Invalid(f"state {self.state!r} is not one of {', '.join(STATES)}", state=self.state)
        self.tags()
        if isinstance(self.keep_labels, str):
            raise Invalid("keep_labels is a tuple of labels, not one string", keep_labels=self.keep_labels)
        for label in self.keep_labels:
            check_id(label, "label")

    def tags(self) -> Mapping[str, str | None]:
        """The tags of the sessions that match."""
        return filter_tags(user=self.user, agent=self.agent, project=self.project, state=self.state, label=self.label)

    def may_take(self, active: int, now: int) -> bool:
        """Whether a session that was active then can be beyond a limit, or takes part in what puts another one there.

        Of those that can't, nothing need be remembered. Times are in microseconds since 1970 UTC.
        """
        if self.max_sessions is not None or self.max_bytes is not None:
            return True
        return self.max_age is not None and now - active > micros(self.max_age)

    def spares(self, tags: Mapping[str, str]) -> str:
        """Why a session with these tags is spared by what the policy keeps; "" if it is not."""
        if self.keep_starred and f"label:{STARRED}" in tags:
            return "it is starred"
        if self.keep_named and "name" in tags:
            return f"it has a name, {tags['name']!r}"
        kept = next((label for label in self.keep_labels if f"label:{label}" in tags), None)
        return "" if kept is None else f"it carries the label {kept!r}"


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """A session that matches a policy, as far as the choice needs to know it. `spared` says why it must stay."""

    at: int
    id: str
    rev: int
    bytes: int
    spared: str


class Chosen(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A session that a prune would take, and why. `rev` is its revision then, `updated_at` its last activity.

    `bytes` is the length of the bodies of its own events, as JSON and before any compression, taken back ones included.
    It stands in its head. What large values and artifacts take is not in it, as others may share them, nor is what
    it reads through a parent.
    """

    session: str
    why: str
    bytes: int
    rev: int
    updated_at: int


class Spared(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A session that was left as it is, and why."""

    session: str
    why: str


def choose(policy: Policy, found: Iterable[Candidate], now: int) -> tuple[list[Chosen], list[Spared]]:
    """What a policy takes of the sessions that match it, the longest inactive first, and what it spares of them.

    Args:
        policy: The limits.
        found: The sessions that match.
        now: The time in microseconds since 1970 UTC.
    """
    chosen: list[Chosen] = []
    spared: list[Spared] = []
    total = 0
    newest_first = sorted(found, key=lambda one: (one.at, one.id), reverse=True)
    for place, one in enumerate(newest_first, 1):
        total += one.bytes
        why = _beyond(policy, one, place, total, now)
        if why and one.spared:
            spared.append(Spared(session=one.id, why=one.spared))
        elif why:
            chosen.append(Chosen(session=one.id, why=why, bytes=one.bytes, rev=one.rev, updated_at=one.at))
    chosen.reverse()
    spared.reverse()
    return chosen, spared


def _beyond(policy: Policy, one: Candidate, place: int, total: int, now: int) -> str:
    """Why a session is beyond a limit; "" if it is not."""
    if policy.max_age is not None and now - one.at > micros(policy.max_age):
        return f"it was not active for {_told(now - one.at)}; max_age is {_told(micros(policy.max_age))}"
    if policy.max_sessions is not None and place > policy.max_sessions:
        return f"it is number {place:,} by last activity; max_sessions is {policy.max_sessions:,}"
    if policy.max_bytes is not None and total > policy.max_bytes:
        return f"with it and the newer ones there are {total:,} bytes; max_bytes is {policy.max_bytes:,}"
    return ""


def _told(length: int) -> str:
    """A length of time in microseconds, in words."""
    seconds = length // 1_000_000
    for size, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds // size:,} {unit}"
    return f"{seconds} seconds"


def micros(seconds: float) -> int:
    """Seconds as microseconds, exactly for whole ones, however many."""
    return seconds * 1_000_000 if isinstance(seconds, int) else int(seconds * 1_000_000)


def check_seconds(value: Any, name: str) -> None:
    """Refuse what is no length of time: a number of seconds from 0 on."""
    if value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise Invalid(f"{name} is a number of seconds, not {value!r:.80}", **{name: value})
    if isinstance(value, float) and not math.isfinite(value * 1_000_000):
        raise Invalid(f"{name} is a finite number of seconds, not {value}; None is no limit", **{name: value})
    if value < 0:
        raise Invalid(f"{name} is a number of seconds, 0 or more, not {value}", **{name: value})


def _check_count(value: Any, name: str) -> None:
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise Invalid(f"{name} is a whole number, not {value!r:.80}", **{name: value})
    if value < 0:
        raise Invalid(f"{name} is 0 or more, not {value}", **{name: value})


def in_batches(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    """So many of the items at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))
