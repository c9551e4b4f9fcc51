"""Runs that stopped: which they are, how they are closed, and where to go on.

A run that stopped may leave tool calls without an answer, which no model accepts. A call that was executed, as its
step says, is answered with what it gave, so that it need not run twice; any other as interrupted. All that one session
needs is one commit, which is made only if the session is still as it was seen.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import msgspec

from holdfast.context.pairs import INTERRUPTED as INTERRUPTED, answering, pairing_of
from holdfast.errors import Invalid, NotFound
from holdfast.heads.info import CALL_TIMEOUT, SESSION
from holdfast.model import Message, State, Step, ToolCall, ToolResult
from holdfast.plan import Head
from holdfast.refusals import refusal
from holdfast.session import Session
from holdfast.storage import Storage
from holdfast.turns.leases import NO_LEASE, Lease, Mark, held, mark_of

PAGE = 500
_WHY = {
    "gone": "its process has ended",
    "expired": "its heartbeat stood still",
    "unleased": "it was silent and has no lease",
    "overdue": "a tool call was open for longer than its timeout",
}


class Finished(msgspec.Struct, frozen=True):
    """A tool call that was executed, and its result."""

    call: ToolCall
    result: ToolResult


class Recovery(msgspec.Struct, frozen=True):
    """What recovering a session does, or did if `applied`; `why` says why, or why not.

    `lease` is the run that stopped. To resume: `last_user` is what the user said last, `finished` are the calls made
    since whose results are known, and `open` those that were answered as interrupted. `answers` are the messages that
    are appended.
    """

    session: str
    why: str
    lease: Lease | None = None
    last_user: Message | None = None
    open: tuple[ToolCall, ...] = ()
    finished: tuple[Finished, ...] = ()
    answers: tuple[Message, ...] = ()
    applied: bool = False


def running(store: Storage) -> list[Lease]:
    """Who runs a session, the latest begun first; see `Store.running`."""
    found = [lease for head in _heads(store) if (lease := store.turns.sightings.look(head)[0]) is not None]
    store.turns.sightings.keep({lease.session for lease in found})
    return sorted(found, key=lambda lease: -lease.since)


def look_over(store: Storage, older_than: float | None) -> tuple[list[Lease], float | None]:
    """The runs that stopped, the oldest first, and the seconds after which another may turn out to have; None if none.

    Raises:
        Invalid: `older_than` is no number of seconds.
    """
    if older_than is not None and not older_than >= 0:
        raise Invalid(f"older_than is a number of seconds, 0 or more, not {older_than}", older_than=older_than)
    found: list[Lease] = []
    soonest: int | None = None
    seen: set[str] = set()
    for head in _heads(store):
        lease, left = store.turns.sightings.look(head)
        if lease is None:
            continue
        seen.add(lease.session)
        if lease.free or _silent(store, head, lease, older_than):
            found.append(lease)
            continue
        rest = _until_overdue(store, head, lease)
        if rest is not None and rest <= 0:
            found.append(msgspec.structs.replace(lease, standing="overdue"))
            continue
        soonest = min((time for time in (soonest, left, rest) if time is not None), default=None)
    store.turns.sightings.keep(seen)
    return sorted(found, key=lambda lease: lease.since), None if soonest is None else soonest / 1e6


def _heads(store: Storage) -> Iterator[Head]:
    after = None
    while True:
        heads = store.backend.find(SESSION, {"state": "running"}, after=after, limit=PAGE)
        yield from heads
        if len(heads) < PAGE:
            return
        after = (heads[-1].at, heads[-1].ref.id)


def _silent(store: Storage, head: Head, lease: Lease, older_than: float | None) -> bool:
    """Whether a run that nobody sends heartbeats for was silent for longer than the caller says it may be."""
    if lease.standing != "unleased" or older_than is None:
        return False
    return store.turns.place.wall() - head.at >= older_than * 1e6


def _until_overdue(store: Storage, head: Head, lease: Lease) -> int | None:
    """The microseconds of silence after which an open tool call is past its timeout; None if none has one."""
    shortest = head.tags.get(CALL_TIMEOUT, "")
    if not shortest.isdecimal():
        return None
    silence = store.turns.place.wall() - head.at
    if silence < int(shortest):
        return int(shortest) - silence
    # The tag tells only that there was such a call: whether it is open is in the log.
    calls = left_open(Session(store, head), lease.turn).open
    return min((call.timeout - silence for call in calls if call.timeout is not None), default=None)


def stuck(store: Storage, older_than: float | None, wait: float) -> list[Lease]:
    """See `Store.stuck`."""
    until = time.monotonic() + wait
    while True:
        found, soonest = look_over(store, older_than)
        if (pause := pause_of(soonest, until)) is None:
            return found
        threading.Event().wait(pause)


def pause_of(soonest: float | None, until: float) -> float | None:
    """The seconds after which to look again; None if that would tell nothing new."""
    rest = until - time.monotonic()
    return None if soonest is None or rest <= 0 else max(min(soonest, rest), 0.001)


def recover(
    store: Storage, sessions: Sequence[str], older_than: float | None, wait: float, dry_run: bool
) -> list[Recovery]:
    """See `Store.recover`."""
    over = {lease.session: lease for lease in stuck(store, older_than, wait)}
    made: list[Recovery] = []
    for id in sessions or over:
        lease = over.get(id)
        if lease is None:
            made.append(_spared(store, id))
            continue
        try:
            made.append(_recover(store, lease, dry_run=dry_run))
        except NotFound:  # what became of one keeps no other from being recovered
            made.append(Recovery(id, "it was deleted meanwhile", lease))
    return made


def _spared(store: Storage, id: str) -> Recovery:
    """Why a session that was named is left alone."""
    lease, left = store.turns.sightings.look(store.head(id))
    return Recovery(id, "it is not running" if lease is None else str(held(lease, left)), lease)


def _recover(store: Storage, lease: Lease, *, dry_run: bool) -> Recovery:
    head = store.head(lease.session)
    mark = mark_of(head)
    if mark is None or mark.turn != lease.turn:
        return Recovery(lease.session, "it changed meanwhile", lease)
    session = Session(store, head)
    why = _WHY[lease.standing]
    plan = left_open(session, lease.turn)
    plan = msgspec.structs.replace(plan, why=why, lease=lease)
    if dry_run:
        return plan
    with store.large.hold:
        return _closed(store, session, lease, mark, plan)


def _closed(store: Storage, session: Session, lease: Lease, mark: Mark, plan: Recovery) -> Recovery:
    """Close a run and answer its calls, if the session is still as it was seen."""
    closing = State(state="error", turn=mark.turn, reason=f"interrupted: {plan.why}")
    commit = session.prepare([*plan.answers, closing], None, session.last)
    tags = {**(commit.tags or {}), **NO_LEASE, "state": "error", "state_at": str(commit.at)}
    # The holder of an overdue call may be alive, and go on sending heartbeats.
    fence = {k: v for k, v in mark.fence.items() if k != "lease_beat" or lease.standing != "overdue"}
    commit = msgspec.structs.replace(commit, tags=tags, if_tags=fence)
    result = store.batcher.commit(commit)
    if isinstance(result, Head):
        store.turns.sightings.forget(lease.session)
        return msgspec.structs.replace(plan, applied=True)
    if result.why in ("tags", "last"):
        return msgspec.structs.replace(plan, why="it changed meanwhile")
    raise refusal(result, commit)


def left_open(session: Session, turn: str | None) -> Recovery:
    """What was begun since a turn and since the user's last message, and how it is answered."""
    said, last_user = _since(session, turn)
    pairing = pairing_of(enumerate(said, 1))
    told = sorted((asked for asked in pairing.asked if asked.result), key=lambda asked: asked.told)
    done = [asked for asked in pairing.open if asked.step]
    waiting = [asked for asked in pairing.open if not asked.step]
    return Recovery(
        session.id,
        "",
        last_user=last_user,
        open=tuple(asked.call for asked in waiting),
        finished=tuple(Finished(asked.call, asked.answer) for asked in told + done),
        answers=tuple(Message(role="tool", parts=(asked.answer,)) for asked in answering(done + waiting)),
    )


def _since(session: Session, turn: str | None) -> tuple[list[Message | Step], Message | None]:
    """The messages and steps since the turn began or since the user spoke, whichever is earlier, in order."""
    found: list[Message | Step] = []
    last_user: Message | None = None
    begun = turn is None
    for event in session.events(reverse=True, damaged="keep"):
        payload = event.payload
        if isinstance(payload, Message | Step):
            found.append(payload)
        if isinstance(payload, State) and payload.state == "running" and payload.turn == turn:
            begun = True
        if last_user is None and isinstance(payload, Message) and payload.role == "user" and not payload.tool_results:
            last_user = payload
        if begun and last_user is not None:
            break
    return found[::-1], last_user
