"""States: which may follow which, and that each change is an event of who may make it."""

from __future__ import annotations

import itertools

import pytest

from holdfast import Conflict, Invalid, LeaseHeld, LeaseLost, NotFound, State, Store
from holdfast.heads.info import STATES
from holdfast.heads.states import MOVES, allowed
from rivals import FakePlace, placed


def test_every_state_has_its_moves_and_none_leads_back_to_unknown() -> None:
    assert set(MOVES) == set(STATES)
    assert all(not allowed(state, "unknown") for state in STATES)
    assert all(not allowed(state, state) for state in STATES)
    assert all(allowed(state, "running") for state in STATES if state != "running")  # a turn may begin in any
    assert all(allowed("running", state) for state in ("idle", "paused", "completed", "error"))
    assert not allowed("completed", "paused")
    assert not allowed("no such state", "idle")


@pytest.mark.parametrize(("before", "after"), list(itertools.product(STATES, STATES)))
def test_a_change_is_an_event_or_refused(store: Store, before: str, after: str) -> None:
    session = store.create("s", state=before)
    if before == after:
        assert session.set_state(after).last == 0
    elif allowed(before, after):
        info = session.set_state(after, reason="because")
        assert (info.state, info.last, info.rev) == (after, 1, 2)
        (event,) = session.events()
        assert event.payload == State(state=after, reason="because")
        assert int(store.head("s").tags["state_at"]) == event.at
    else:
        with pytest.raises(Conflict, match=before):
            session.set_state(after)
        assert (session.info().state, session.info().last) == (before, 0)


def test_a_word_that_is_no_state_is_refused(store: Store) -> None:
    with pytest.raises(Invalid, match="one of unknown, idle"):
        store.session("s").set_state("busy")
    with pytest.raises(Invalid, match="turn"):
        store.session("s").set_state("running", turn="")
    session = store.session("t")
    session.delete()
    with pytest.raises(NotFound):
        session.set_state("paused")


def test_a_late_idle_of_one_run_does_not_clear_another(store: Store) -> None:
    session = store.session("s")
    session.set_state("running", turn="A")
    session.set_state("running", turn="A")  # said again: no change
    with pytest.raises(LeaseHeld, match="'A'"):
        session.set_state("running", turn="B")
    with pytest.raises(LeaseHeld):
        session.set_state("idle")
    session.set_state("idle", turn="A")
    session.set_state("idle", turn="A")
    session.set_state("running", turn="B")
    for late in ("idle", "error"):
        with pytest.raises(LeaseLost):
            session.set_state(late, turn="A")
    assert session.info().state == "running"
    session.set_state("error", turn="B", reason="failed")
    said = [(e.payload.state, e.payload.turn) for e in session.events() if isinstance(e.payload, State)]
    assert said == [("running", "A"), ("idle", "A"), ("running", "B"), ("error", "B")]


def test_while_a_turn_holds_a_session_its_state_is_the_turns(store: Store) -> None:
    session = store.session("s")
    with session.turn() as turn:
        for change in ({"state": "idle"}, {"state": "running", "turn": "A"}, {"state": "idle", "turn": turn.token}):
            with pytest.raises(LeaseHeld):
                session.set_state(**change)
        with pytest.raises(LeaseLost):
            session.set_state("idle", turn="A")
    assert [e.type for e in session.events()] == ["state", "state"]


def test_a_turn_begins_where_a_run_was_only_marked_without_a_name(store: Store) -> None:
    session = store.session("s")
    session.set_state("running")
    with session.turn() as turn:
        assert turn.took_over is None
    session.set_state("running", turn="A")
    with placed(store, FakePlace("elsewhere")) as other, pytest.raises(LeaseHeld, match="no lease that could expire"):
        other.session("s").turn().take()
