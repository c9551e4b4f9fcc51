"""The tool calls of a session's log: what is wrong with them, and answers for those that have none.

A log says what happened in the order in which it did, so a repair only appends. It can give each call its result; a
result that came late, twice or without a call stays where it is, and contexts put it where a model takes it.
"""

from __future__ import annotations

import msgspec

from holdfast.context.pairs import Asked, Pairing, Problem, answering
from holdfast.errors import Stale
from holdfast.history.history import Fence
from holdfast.log import Log
from holdfast.model import Message, Step
from holdfast.plan import Commit, Head
from holdfast.refusals import refusal
from holdfast.storage import Storage
from holdfast.turns.leases import held

TRIES = 50
"""How often a repair starts over when others append meanwhile; each time it reads what is new."""


class Repair(msgspec.Struct, frozen=True):
    """What a repair found and appended: `answers`, from the seq `first` on (0 if there were none to append).

    `left` are the problems that an append can't take away, such as an order; contexts are valid all the same.
    """

    session: str
    answers: tuple[Message, ...] = ()
    first: int = 0
    left: tuple[Problem, ...] = ()


def validate(log: Log) -> list[Problem]:
    """See `Session.validate`."""
    return _read(log).problems


def _read(log: Log, before: int | None = None) -> Pairing:
    pairing = Pairing()
    for event in log.events(before=before, damaged="keep"):
        if isinstance(event.payload, Message | Step):
            pairing.take(event.seq, event.payload)
    return pairing


def mend(store: Storage, log: Log, fence: Fence, *, dry_run: bool = False) -> Repair:
    """See `Session.repair`; with `dry_run`, what it would do, and nothing is stored."""
    for _ in range(TRIES):
        head = store.head(log.id)
        if not fence:
            _check_free(store, head)
        pairing = _read(log, head.last + 1)
        answers = [_answer(asked) for asked in answering(pairing.open)]
        if not answers:
            return Repair(log.id, left=tuple(pairing.problems))
        commit = Commit(ref=head.ref) if dry_run else log.prepare(answers, None, head.last)
        # What was read is as it was only if nobody hid anything either.
        result = head if dry_run else store.batcher.commit(msgspec.structs.replace(commit, if_rev=head.rev))
        if isinstance(result, Head):
            for place, answer in enumerate(answers, 1):
                pairing.take(head.last + place, answer)
            return Repair(log.id, tuple(answers), head.last + 1, tuple(pairing.problems))
        if result.why not in ("rev", "last"):
            raise refusal(result, commit)
    raise Stale(f"session {log.id!r} changed {TRIES} times during one repair; try again", session=log.id)


def _check_free(store: Storage, head: Head) -> None:
    """Refuse while a turn runs: only it knows which of its calls are under way."""
    lease, left = store.turns.sightings.look(head)
    if lease is not None and not lease.free:
        raise held(lease, left)


def _answer(asked: Asked) -> Message:
    return Message(role="tool", parts=(msgspec.structs.replace(asked.answer, id=asked.call.id),))
