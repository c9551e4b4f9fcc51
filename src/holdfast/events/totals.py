"""What model calls took, summed over the sessions of a store, and what it comes to by a list of prices.

A session's counters hold its totals, so most of an answer is read off heads. A log is read only where the head can't
tell: by day or in a range of time, if the session lived on several days or reaches over the range's ends; by model, if
it used several; and of a fork, whose counters begin with its parent's, its own part is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

import msgspec

from holdfast import codec
from holdfast.clock import from_micros
from holdfast.errors import Corrupt, Invalid
from holdfast.finding.listing import all_heads
from holdfast.heads.info import MODEL, SESSION, UNSPLIT, created_at, is_counted
from holdfast.history.ancestry import FORKED
from holdfast.model import Usage, to_micros
from holdfast.plan import Head
from holdfast.storage import Storage

BY = ("session", "model", "agent", "day", "user", "project")
"""What totals can be given by."""
PAGE = 1000
MILLION = 1_000_000
DAY = 86_400 * MILLION
"""Microseconds of a day."""


class UsageTotal(msgspec.Struct, frozen=True, kw_only=True):
    """What the calls of one `key` took: a session's id, a model, an agent, a user, a project, or a day in UTC as
    `2026-08-01`; "" for those that have none.

    `cost` is in micro-dollars as recorded, `cost_computed` from a price list; a call may have either, or both, or none,
    so the two are not to be added.
    """

    key: str
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost: int = 0
    cost_computed: int = 0

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


class UsageReport(msgspec.Struct, frozen=True, kw_only=True):
    """Totals by key, those in `totals`, and of all in `total`. `damaged` names sessions that could not be read."""

    totals: tuple[UsageTotal, ...]
    total: UsageTotal
    damaged: tuple[str, ...] = ()


FIELDS = tuple(field for field in UsageTotal.__struct_fields__ if field != "key")


def usage_totals(
    store: Storage,
    by: str,
    since: datetime | int | str | None,
    until: datetime | int | str | None,
    tags: Mapping[str, str | None],
) -> UsageReport:
    """See `Store.usage`."""
    start, end = (None if time is None else to_micros(time) for time in (since, until))
    if by not in BY:
        raise Invalid(f"usage can't be given by {by!r}; there are {', '.join(BY)}", by=by)
    sums: dict[str, dict[str, int]] = {}
    damaged: list[str] = []
    question = _Question(store, by, start, end)
    for head in _heads(store, tags, start, damaged):
        if end is not None and created_at(head) >= end and UNSPLIT not in head.tags:
            continue
        try:
            found = list(question.parts_of(head))
        except Corrupt:
            damaged.append(head.ref.id)
            continue
        for key, counts in found:
            into = sums.setdefault(key, dict.fromkeys(FIELDS, 0))
            for name in FIELDS:
                into[name] += counts.get(name, 0)
    totals = tuple(UsageTotal(key=key, **counts) for key, counts in sorted(sums.items()) if any(counts.values()))
    total = UsageTotal(key="", **{name: sum(counts[name] for counts in sums.values()) for name in FIELDS})
    return UsageReport(totals=totals, total=total, damaged=tuple(damaged))


def _heads(store: Storage, tags: Mapping[str, str | None], start: int | None, damaged: list[str]) -> Iterator[Head]:
    """The sessions that carry the tags and were active since then, each once, also those that are active meanwhile."""
    if start is None and not tags and store.user is None:  # by id, each is met once, and none need be remembered
        for heads in all_heads(store.backend):
            damaged += [ref.id for ref in heads.damaged if ref.id not in damaged]
            yield from heads
        return
    met: set[str] = set()
    began: int | None = None
    stop = start
    while True:
        after: tuple[int, str] | None = None
        newest = None
        more = False
        while True:
            heads = store.backend.find(SESSION, tags, after=after, limit=PAGE)
            damaged += [ref.id for ref in heads.damaged if ref.id not in damaged]
            for head in heads:
                newest = head.at if newest is None else newest
                if (stop is not None and head.at < stop) or (began is not None and head.at < began):
                    break
                if head.ref.id not in met:
                    met.add(head.ref.id)
                    more = True
                    yield head
            else:
                if len(heads) == PAGE:
                    after = (heads[-1].at, heads[-1].ref.id)
                    continue
            break
        # Who became active while pages were turned moved to the front: look there again, until nobody new is there.
        if newest is None or not more:
            return
        began = newest


class _Question(NamedTuple):
    """What is asked of each session."""

    store: Storage
    by: str
    start: int | None
    end: int | None

    def parts_of(self, head: Head) -> Iterator[tuple[str, Mapping[str, int]]]:
        """What a session adds, and to which keys."""
        counts = head.counts
        if FORKED not in head.tags and not any(counts.get(name) for name in ("calls", "input_tokens", "output_tokens")):
            return
        key = self._key_of(head)
        if key is not None and self._covers(head):
            yield key, counts
            return
        for at, usage in _usages(self.store, head):
            if (self.start is None or at >= self.start) and (self.end is None or at < self.end):
                yield self._key_at(head, at, usage), _counts_of(usage)

    def _key_of(self, head: Head) -> str | None:
        """The one key that all usage of a session belongs to, if its head can tell."""
        if FORKED in head.tags or not is_counted(head):
            return None
        if self.by == "day":
            day = _day(created_at(head))
            return day if day == _day(head.at) and UNSPLIT not in head.tags else None
        if self.by == "model":
            models = [tag for tag in head.tags if tag.startswith(MODEL)]
            return models[0][len(MODEL) :] if len(models) == 1 and UNSPLIT not in head.tags else None
        return _said(head, self.by)

    def _covers(self, head: Head) -> bool:
        """Whether all usage of a session surely lies in the time that is asked for."""
        if self.start is None and self.end is None:
            return True
        if UNSPLIT in head.tags:
            return False
        return (self.start is None or created_at(head) >= self.start) and (self.end is None or head.at < self.end)

    def _key_at(self, head: Head, at: int, usage: Usage) -> str:
        if self.by == "day":
            return _day(at)
        return usage.model if self.by == "model" else _said(head, self.by)


def _said(head: Head, by: str) -> str:
    return head.ref.id if by == "session" else head.tags.get(by, "")


def _usages(store: Storage, head: Head) -> Iterator[tuple[int, Usage]]:
    """The usage that a session's own log tells, taken back or not, without what was counted before."""
    after = 0
    while entries := store.backend.read(head.ref, after=after, upto=head.last, limit=PAGE, voided=True):
        for entry in entries:
            if b'"usage"' not in entry.body and not entry.fault:
                continue
            if entry.fault:
                raise Corrupt(f"event {entry.seq} of session {head.ref.id!r} is damaged: {entry.fault}")
            payload = codec.decode(entry.body, store.large)
            if isinstance(payload, Usage) and not payload.repeated:
                yield entry.at, payload
        after = entries[-1].seq


def _counts_of(usage: Usage) -> dict[str, int]:
    return {"calls": 0 if usage.grown else 1, **{name: getattr(usage, name) or 0 for name in FIELDS[1:]}}


def _day(at: int) -> str:
    return _named_day(at // DAY)


@lru_cache(4096)
def _named_day(number: int) -> str:
    return from_micros(number * DAY).strftime("%Y-%m-%d")


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What a model takes, in micro-dollars for a million tokens: `usd("3")` for three dollars.

    The cache's prices are those of input if not given; `reasoning` is for tokens that are not among the output's.
    """

    input: int
    output: int
    cache_read: int | None = None
    cache_write: int | None = None
    reasoning: int = 0


def priced(usage: Usage, prices: Mapping[str, Price]) -> Usage:
    """The usage with `cost_computed` from a list of prices by model; as it is, if the list lacks the model.

    What was recorded as `cost` stays beside it. Rounded half to even, once for each call.
    """
    price = prices.get(usage.model)
    if price is None:
        return usage
    read, written = usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
    fresh = max(usage.input_tokens - read - written, 0)  # the input counts them, too
    millionths = (
        fresh * price.input
        + read * (price.input if price.cache_read is None else price.cache_read)
        + written * (price.input if price.cache_write is None else price.cache_write)
        + usage.output_tokens * price.output
        + usage.reasoning_tokens * price.reasoning
    )
    whole, rest = divmod(millionths, MILLION)
    up = rest * 2 > MILLION or (rest * 2 == MILLION and whole % 2)
    return msgspec.structs.replace(usage, cost_computed=whole + bool(up))
