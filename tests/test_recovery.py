"""Runs that stopped: found, planned, closed, and answered so that the next model call is valid."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import holdfast
from faults import BACKENDS, url_of
from holdfast import (
    Invalid,
    LeaseLost,
    Message,
    NotFound,
    Recovery,
    State,
    Store,
    Turn,
    assistant,
    note,
    step,
    tool_call,
    tool_result,
    user,
)
from holdfast.model import AnyPayload
from holdfast.turns.recovery import INTERRUPTED
from rivals import FakePlace, placed
from test_turns_processes import DAY, holding


@pytest.fixture
def place() -> FakePlace:
    return FakePlace("here")


@pytest.fixture
def crashed(store: Store, place: FakePlace) -> Iterator[Store]:
    """The store as seen by the process that will be said to have ended."""
    with placed(store, place) as opened:
        yield opened


@pytest.fixture
def later(store: Store, place: FakePlace) -> Iterator[Store]:
    """The store as seen from the same machine when that process is gone."""
    fresh = FakePlace("here")
    fresh.born = 2
    fresh.ended.add(place.process())
    with placed(store, fresh) as opened:
        yield opened


def left(store: Store, *payloads: AnyPayload, id: str = "s") -> Turn:
    """A turn that stopped after these."""
    turn = store.session(id).turn(ttl=3600, owner="worker").take()
    if payloads:
        turn.append(*payloads)
    return turn


def valid(messages: list[Message]) -> bool:
    """What a strict model takes: each call is answered once, at once behind the message that asks."""
    waiting: list[str | None] = []
    for message in messages:
        if message.role == "tool":
            for result in message.tool_results:
                if result.id not in waiting:
                    return False
                waiting.remove(result.id)
        elif waiting:
            return False
        waiting += [call.id for call in message.tool_calls]
    return not waiting


def test_what_runs_is_told(store: Store) -> None:
    assert store.running() == []
    with store.session("a").turn(owner="one") as a, store.session("b").turn(owner="two") as b:
        assert [(r.session, r.turn, r.owner, r.standing) for r in store.running()] == [
            ("b", b.token, "two", "held"),
            ("a", a.token, "one", "held"),
        ]
        assert store.stuck(older_than=0) == []
        assert store.recover() == []
        assert store.running()[0].expires_at == int(store.head("b").tags["lease_beat"].split()[0]) + 60_000_000
    assert store.running() == []


def test_a_run_whose_process_has_ended_is_stuck_at_once(crashed: Store, later: Store) -> None:
    turn = left(crashed)
    assert crashed.stuck() == []
    (lease,) = later.stuck()
    assert (lease.session, lease.turn, lease.standing) == ("s", turn.token, "gone")


def test_from_elsewhere_it_is_stuck_once_its_heartbeat_stood_still(store: Store, crashed: Store) -> None:
    left(crashed)
    elsewhere = FakePlace("elsewhere")
    with placed(store, elsewhere) as other:
        elsewhere.wall_at += 10**15  # the time of day says nothing
        assert other.stuck(older_than=0) == []
        elsewhere.pass_seconds(3599)
        assert other.stuck() == []
        elsewhere.pass_seconds(1)
        assert [lease.standing for lease in other.stuck()] == ["expired"]
        (done,) = other.recover()
        assert done.applied


def test_who_stays_sees_a_heartbeat_stand_still(store: Store) -> None:
    stopped = FakePlace("stopped")
    with placed(store, stopped) as other:
        other.session("s").turn(ttl=0.2).take()
    assert store.stuck() == []
    assert [lease.session for lease in store.stuck(wait=60)] == ["s"]
    assert [r.applied for r in store.recover()] == [True]


def test_a_run_without_a_lease_is_stuck_when_it_was_silent_for_longer_than_it_may(store: Store) -> None:
    store.session("s").set_state("running", turn="A")
    clock = FakePlace("here", wall=store.head("s").at)
    with placed(store, clock) as other:
        clock.pass_seconds(100)
        assert other.stuck() == []
        assert other.stuck(older_than=101) == []
        (lease,) = other.stuck(older_than=100)
        assert (lease.turn, lease.standing) == ("A", "unleased")
        (done,) = other.recover(older_than=100)
    assert done.applied
    with pytest.raises(LeaseLost):
        store.session("s").set_state("idle", turn="A")


def test_a_call_that_is_open_for_longer_than_its_timeout_makes_a_living_turn_stuck(store: Store) -> None:
    turn = left(store, user("Pay."), assistant(tool_call("p", "pay", timeout=30), tool_call("w", "write", timeout=90)))
    clock = FakePlace("elsewhere", wall=store.head("s").at)
    with placed(store, clock) as other:
        clock.pass_seconds(29)
        assert other.stuck() == []
        turn.append(step("pay", call_id="p", output="paid"))  # whatever is heard breaks the silence
        clock.wall_at = store.head("s").at + 89_000_000
        assert other.stuck() == []  # the call that is still open may take longer
        store.turns.beat()
        clock.pass_seconds(1)
        (lease,) = other.stuck()
        assert (lease.session, lease.turn, lease.standing) == ("s", turn.token, "overdue")
        store.turns._kept[turn.token].due = 0  # pyright: ignore[reportPrivateUsage]  # the holder lives, and says so
        store.turns.beat()
        (done,) = other.recover()
        assert (done.applied, [c.id for c in done.open]) == (True, ["w"])
        assert "timeout" in done.why
        assert other.stuck() == []
    with pytest.raises(LeaseLost):
        turn.append(tool_result("w", "too late"))
    with pytest.raises(LeaseLost):
        turn.end()


def test_calls_that_were_answered_or_have_no_timeout_are_never_overdue(store: Store) -> None:
    left(store, user("a"), assistant(tool_call("c", "x", timeout=1)), tool_result("c"), assistant(tool_call("d", "y")))
    clock = FakePlace("elsewhere", wall=store.head("s").at)
    with placed(store, clock) as other:
        clock.wall_at += DAY
        assert other.stuck() == []


def test_who_stays_sees_a_call_pass_its_timeout(store: Store) -> None:
    left(store, user("a"), assistant(tool_call("c", "x", timeout=0.5)))
    assert [lease.standing for lease in store.stuck(wait=60)] == ["overdue"]


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf"), 1e12])
def test_a_timeout_that_is_no_number_of_seconds_is_refused(wrong: float) -> None:
    with pytest.raises(Invalid, match="timeout"):
        tool_call("c", "x", timeout=wrong)


@pytest.mark.parametrize("wrong", [-1.0, float("nan")])
def test_a_threshold_that_is_no_number_of_seconds_is_refused(store: Store, wrong: float) -> None:
    with pytest.raises(Invalid, match="older_than"):
        store.stuck(older_than=wrong)
    with pytest.raises(Invalid, match="older_than"):
        store.recover(older_than=wrong)


def test_a_plan_changes_nothing_and_recovering_does_what_it_says(crashed: Store, later: Store) -> None:
    asks = assistant(tool_call("c1", "lookup", {"order": 7}), tool_call("c2", "pay", 7), tool_call("c3", "mail"))
    turn = left(
        crashed,
        user("Pay order 7."),
        asks,
        tool_result("c1", "found"),
        step("pay", 7, "paid", call_id="c2", duration=5),
    )
    before = later.head("s")
    (plan,) = later.recover(dry_run=True)
    assert later.head("s") == before
    assert (plan.session, plan.why, plan.applied) == ("s", "its process has ended", False)
    (done,) = later.recover()
    assert done.applied
    assert (done.last_user, done.open, done.finished, done.answers) == (
        plan.last_user,
        plan.open,
        plan.finished,
        plan.answers,
    )
    assert done.last_user == user("Pay order 7.")
    assert [call.id for call in done.open] == ["c3"]
    assert [(f.call.id, f.result.response) for f in done.finished] == [("c1", "found"), ("c2", "paid")]
    session = later.session("s")
    assert session.info().state == "error"
    assert valid(session.messages())
    results = [r for m in session.messages() for r in m.tool_results]
    assert [(r.id, r.response, r.is_error) for r in results] == [
        ("c1", "found", False),
        ("c2", "paid", False),
        ("c3", INTERRUPTED, True),
    ]
    last = [*session.events()][-1].payload
    assert last == State(state="error", turn=turn.token, reason="interrupted: its process has ended")
    assert session.info().counts.errors == 1
    assert later.recover() == []
    with pytest.raises(LeaseLost):
        turn.append(note("late"))
    with pytest.raises(LeaseLost):
        turn.end()
    assert later.check().ok


def test_only_those_that_are_named_are_recovered_and_the_others_say_why(crashed: Store, later: Store) -> None:
    for id in ("a", "b"):
        left(crashed, id=id)
    later.session("idle")
    live = later.session("live").turn().take()
    told = {r.session: r for r in later.recover("b", "idle", "live")}
    assert {id: r.applied for id, r in told.items()} == {"b": True, "idle": False, "live": False}
    assert told["idle"].why == "it is not running"
    assert "held by" in told["live"].why
    assert [lease.session for lease in later.stuck()] == ["a"]
    with pytest.raises(NotFound):
        later.recover("nobody")
    live.end()


def test_a_session_that_moved_on_meanwhile_is_spared(
    crashed: Store, later: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    left(crashed, user("Hi"))
    real = later.batcher.commit

    def after_another(commit: object, **limit: int) -> object:
        monkeypatch.setattr(later.batcher, "commit", real)
        later.session("s").append(note("somebody writes without a turn"))
        return real(commit, **limit)  # type: ignore[arg-type]

    monkeypatch.setattr(later.batcher, "commit", after_another)
    (spared,) = later.recover()
    assert (spared.applied, spared.why) == (False, "it changed meanwhile")
    assert later.session("s").info().state == "running"
    (done,) = later.recover()
    assert done.applied


def test_only_the_stopped_turn_and_what_the_user_said_last_are_read(crashed: Store, later: Store) -> None:
    session = crashed.session("s")
    session.append(user("old"), assistant(tool_call("old", "x")), tool_result("old", 1))
    session.append(user("new"))
    left(crashed, assistant(tool_call("old", "x")), user("hurry"), assistant("Yes."))
    (done,) = later.recover()
    assert done.last_user == user("hurry")
    assert [call.id for call in done.open] == ["old"]  # an id that was used before is open again
    assert done.finished == ()


def test_a_new_turn_goes_on_where_the_one_before_stopped(crashed: Store, later: Store) -> None:
    old = left(
        crashed, user("Hi"), assistant(tool_call("c1", "x"), tool_call("c2", "y")), step("x", 1, "1", call_id="c1")
    )
    with later.session("s").turn() as turn:
        found = turn.resume()
        assert turn.resume().answers == ()
        assert found.lease is not None
        assert found.lease.turn == old.token
        assert [call.id for call in found.open] == ["c2"]
        assert [item.call.id for item in found.finished] == ["c1"]
        assert valid(turn.messages())
    with pytest.raises(ValueError, match="x"), later.session("s").turn() as turn:  # noqa: PT012
        turn.append(user("Again"), assistant(tool_call("c9", "x")))
        raise ValueError("x")
    with later.session("s").turn() as turn:
        assert [call.id for call in turn.resume().open] == ["c9"]
        assert valid(turn.messages())


@pytest.mark.parametrize("seed", range(500 // 50))
def test_random_histories_are_valid_behind_a_recovery(store: Store, seed: int) -> None:
    place, fresh = FakePlace("here"), FakePlace("here")
    fresh.ended.add(place.process())
    rnd = random.Random(seed)
    with placed(store, place) as crashed, placed(store, fresh) as later:
        for number in range(50):
            left(crashed, *history(rnd), id=f"s{number}")
        done = later.recover()
        assert len(done) == 50
        for each in done:
            assert valid(later.session(each.session).messages())
        assert later.recover() == later.running() == []


def history(rnd: random.Random) -> list[AnyPayload]:
    """A conversation with tools that stops anywhere."""
    said: list[AnyPayload] = [user("go")]
    for _ in range(rnd.randrange(4)):
        ids = [f"c{rnd.randrange(6)}" for _ in range(rnd.randrange(4))]
        ids = sorted(set(ids))
        said.append(assistant("so", *(tool_call(id, "tool", {"n": 1}) for id in ids)))
        for id in ids:
            if rnd.random() < 0.7:
                said.append(step("tool", {"n": 1}, "out", call_id=id, is_error=rnd.random() < 0.2))
            said.append(tool_result(id, "out"))
    return said[: 1 + rnd.randrange(len(said))]


def test_asyncio_recovers_alike(url: str) -> None:
    async def main() -> list[Recovery]:
        async with holdfast.aopen(url) as store:
            with placed(store.sync, FakePlace("stopped")) as other:
                other.session("s").turn(ttl=0.2).take().append(user("Hi"))
            assert [lease.standing for lease in await store.running()] == ["held"]
            assert await store.stuck() == []
            assert [r.applied for r in await store.recover(dry_run=True, wait=0.5)] == [False]
            return await store.recover()

    (done,) = asyncio.run(main())
    assert (done.applied, done.last_user) == (True, user("Hi"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_process_that_was_killed_inside_its_turn_is_recovered_by_the_next(backend: str, tmp_path: Path) -> None:
    url = url_of(backend, tmp_path)
    with holding(url, "wait", ttl=DAY) as holder:
        with holdfast.open(url) as store:
            assert store.recover() == []
            assert [lease.owner for lease in store.running()] == ["wait"]
        holder.kill()
        holder.wait()
    with holdfast.open(url) as store:
        (done,) = store.recover()
        assert (done.applied, done.last_user) == (True, user("in time"))
        assert store.check().ok
        with store.session("s").turn() as turn:
            assert turn.took_over is None
