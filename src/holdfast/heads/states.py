"""The states of a session, and which may follow which. Every change is an event in the commit that makes it.

While a turn holds a session, the state is the turn's to change. `unknown` is what imported data may be in: nothing
leads back to it.
"""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.clock import now
from holdfast.errors import Conflict, Invalid, LeaseLost, Stale
from holdfast.heads.info import STATES, SessionInfo, info_of
from holdfast.plan import Commit, Head, Refused, check_id, precondition
from holdfast.refusals import refusal
from holdfast.storage import Storage
from holdfast.turns.keeping import state_event
from holdfast.turns.leases import held

MOVES: Mapping[str, frozenset[str]] = {
    "unknown": frozenset({"idle", "running", "paused", "completed", "error"}),
    "idle": frozenset({"running", "paused", "completed", "error"}),
    "running": frozenset({"idle", "paused", "completed", "error"}),
    "paused": frozenset({"idle", "running", "completed", "error"}),
    "completed": frozenset({"idle", "running"}),
    "error": frozenset({"idle", "running", "completed"}),
}
"""From each state, those that may follow it."""
RETRIES = 200
"""How often a change starts over when others change the state at the same time."""


def allowed(before: str, after: str) -> bool:
    """Whether one state may follow the other."""
    return after in MOVES.get(before, frozenset())


def change(
    store: Storage,
    id: str,
    state: str,
    reason: str | None,
    turn: str | None,
    fence: Mapping[str, str | None] | None = None,
) -> tuple[Head, SessionInfo]:
    """Change the state of a session that no lease holds; see `Session.set_state`; who lost its `fence` can't."""
    for _ in range(RETRIES):
        head, changes = look(store, id, state, turn, fence)
        if not changes:
            return head, info_of(head)
        holder = head.tags.get("turn")
        at = now()
        running = state == "running"
        commit = Commit(
            ref=head.ref,
            at=at,
            if_tags={"turn": holder, "state": head.tags.get("state")},  # what a fence expects of it, too
            tags={"state": state, "state_at": str(at), "turn": turn if running else None},
            append=[state_event(at, state, turn, reason, store.large)],
        )
        result = store.batcher.commit(commit)
        if isinstance(result, Head):
            return result, info_of(result)
        if result.why != "tags":
            raise refusal(result, commit)
    raise Stale(f"session {id!r} changed {RETRIES} times during one change of state; try again", session=id)


def look(
    store: Storage, id: str, state: str, turn: str | None, fence: Mapping[str, str | None] | None = None
) -> tuple[Head, bool]:
    """The head of a session whose state may be changed now to this one, and whether that would be a change.

    It raises what the change would raise.
    """
    if state not in STATES:
        raise Invalid(f"state {state!r} is not one of {', '.join(STATES)}", state=state)
    if turn is not None:
        check_id(turn, "turn")
    head = store.head(id)
    expected = Commit(ref=head.ref, if_tags=fence)
    if lost := precondition(head, expected):
        raise refusal(Refused(lost, head), expected)
    before = head.tags.get("state", "unknown")
    if before == state and head.tags.get("turn") == (turn if state == "running" else None):
        return head, False
    _check_turn(store, head, turn, state)
    if not allowed(before, state):
        raise Conflict(
            f"session {id!r} is {before}, and {state} can't follow; {', '.join(sorted(MOVES[before]))} can",
            session=id,
            state=before,
        )
    return head, True


def _check_turn(store: Storage, head: Head, turn: str | None, state: str) -> None:
    """Refuse a change by somebody else than who runs the session."""
    holder = head.tags.get("turn")
    mine = None if state == "running" else turn
    if holder == mine and "lease_beat" not in head.tags:
        return
    if mine is not None and holder != mine:
        raise LeaseLost(
            f"turn {turn!r} does not run session {head.ref.id!r} any more, so it can't make it {state}",
            session=head.ref.id,
            turn=holder,
        )
    lease, left = store.turns.sightings.look(head)
    if lease is not None:
        raise held(lease, left)
