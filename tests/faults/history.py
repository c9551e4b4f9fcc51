"""What several processes did to append logs, and whether it could have happened one after the other.

Every value is written once and a log only grows, so it is enough to look at the log in the end: each acknowledged
batch is in it once, together, in order and where the answer said; each read is a beginning of it that ends between
batches; and whatever was done before something else began is in what that one saw.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec


class Call(msgspec.Struct, frozen=True):
    """One answered call. `start` and `end` are of the machine's monotonic clock, `values` what was written or read."""

    kind: Literal["append", "read"]
    session: str
    start: int
    end: int
    values: list[str]
    first: int = 0
    last: int = 0


def wrong(calls: Sequence[Call], logs: Mapping[str, Sequence[str]]) -> list[str]:
    """Everything that can't be explained; `logs` is what the sessions held in the end."""
    found: list[str] = []
    for id, log in logs.items():
        mine = [call for call in calls if call.session == id]
        found += [f"{id}: {line}" for check in (_log, _reads, _order) for line in check(mine, log)]
    unknown = {call.session for call in calls} - logs.keys()
    return found + [f"{id}: not there" for id in sorted(unknown)]


def _log(calls: Sequence[Call], log: Sequence[str]) -> Iterator[str]:
    if len(set(log)) != len(log):
        yield "something is there twice"
    written = 0
    for call in calls:
        if call.kind == "append":
            written += len(call.values)
            if list(log[call.first - 1 : call.last]) != call.values:
                yield f"{call.values} was acknowledged as {call.first} to {call.last} and is not there"
    if written != len(log):
        yield f"holds {len(log)} events, and {written} were acknowledged"


def _reads(calls: Sequence[Call], log: Sequence[str]) -> Iterator[str]:
    ends = {0, *(call.last for call in calls if call.kind == "append")}
    for call in calls:
        if call.kind == "read":
            if list(log[: len(call.values)]) != call.values:
                yield f"a read of {len(call.values)} is not how the log begins"
            if len(call.values) not in ends:
                yield f"a read saw half a batch: {len(call.values)} events"


def _order(calls: Sequence[Call], log: Sequence[str]) -> Iterator[str]:
    """A call that began after another's end has seen what that one wrote or saw."""
    reached = sorted((call.end, _seen(call)) for call in calls)
    before = at = 0
    for call in sorted(calls, key=lambda call: call.start):
        while at < len(reached) and reached[at][0] < call.start:
            before = max(before, reached[at][1])
            at += 1
        if _seen(call) < before:
            yield f"a later {call.kind} saw {_seen(call)} events, an earlier call {before}"


def _seen(call: Call) -> int:
    return call.last if call.kind == "append" else len(call.values)
