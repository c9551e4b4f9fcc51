"""Turns: one holder at a time, fenced writes, heartbeats, and ends that nobody else's turn suffers from."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

import holdfast
from holdfast import Deleted, Invalid, LeaseHeld, LeaseLost, State, Store, Turn, assistant, note, user
from holdfast.plan import Commit, Head, Refused
from holdfast.turns.leases import Lease, Sightings
from rivals import DAY, FakePlace, placed, wait_for


def states(store: Store, id: str = "s") -> list[tuple[str, str | None, str | None]]:
    found = [event.payload for event in store.session(id).events(types="state")]
    return [(p.state, p.turn, p.reason) for p in found if isinstance(p, State)]


@pytest.fixture
def place() -> FakePlace:
    return FakePlace("here")


@pytest.fixture
def elsewhere() -> FakePlace:
    return FakePlace("elsewhere", monotonic=900_000_000)


@pytest.fixture
def holder(store: Store, place: FakePlace) -> Iterator[Store]:
    with placed(store, place) as opened:
        yield opened


@pytest.fixture
def rival(store: Store, elsewhere: FakePlace) -> Iterator[Store]:
    with placed(store, elsewhere) as opened:
        yield opened


def begun(store: Store, **given: float) -> Turn:
    """A turn that nobody ends."""
    return store.session("s").turn(**given).take()


# --- A turn and its end ---


def test_a_turn_begins_and_ends_with_one_commit_each(store: Store) -> None:
    session = store.session("s")
    before = session.info()
    with session.turn(reason="asked") as turn:
        assert (session.info().state, session.info().rev) == ("running", before.rev + 1)
        turn.append(user("Hi"))
    after = session.info()
    assert (after.state, after.rev, after.last) == ("idle", before.rev + 3, 3)
    assert states(store) == [("running", turn.token, "asked"), ("idle", turn.token, None)]
    tags = store.head("s").tags
    assert [name for name in tags if name == "turn" or name.startswith("lease")] == []
    assert store.check().ok


@pytest.mark.parametrize("how", ["ends", "fails", "by hand"])
def test_a_turn_costs_two_commits_of_the_engine(store: Store, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    session = store.session("s")
    session.append(user("Hi"))
    commit, made = store.backend.commit, list[int]()

    def counting(batch: Sequence[Commit]) -> list[Head | Refused]:
        made.append(len(batch))
        return commit(batch)

    monkeypatch.setattr(store.backend, "commit", counting)
    if how == "by hand":
        session.turn().take().end()
    else:
        with contextlib.suppress(ValueError), session.turn():
            if how == "fails":
                raise ValueError("the tool broke")
    assert made == [1, 1]
    assert session.info().state == ("error" if how == "fails" else "idle")


def test_a_turn_is_the_session_it_runs(store: Store) -> None:
    with store.session("s").turn() as turn:
        assert turn.append(user("one"), key="k").last == 2
        assert turn.append(user("one"), key="k").repeated
        assert turn.update(title="T", metadata={"a": 1}).metadata == {"a": 1}
        assert [m.text for m in turn.messages()] == ["one"]
        assert turn.remove_last() is not None


@pytest.mark.parametrize(
    ("mark", "state"), [(Turn.complete, "completed"), (Turn.pause, "paused"), (lambda turn, why: None, "idle")]
)
def test_how_a_turn_ends(store: Store, mark: Callable[[Turn, str], None], state: str) -> None:
    with store.session("s").turn() as turn:
        mark(turn, "because")
        turn.append(user("still its own"))
    assert store.session("s").info().state == state
    assert states(store)[-1] == (state, turn.token, None if state == "idle" else "because")
    with store.session("s").turn():
        assert store.session("s").info().state == "running"


def test_an_error_of_the_block_is_recorded_without_secrets_and_goes_on(store: Store) -> None:
    with pytest.raises(ValueError, match="sk-"), store.session("s").turn() as turn:  # noqa: PT012
        turn.complete()
        raise ValueError("refused: api_key=sk-abcdefghij1234567890, see https://u:pass@host/x")
    assert states(store)[-1] == ("error", turn.token, "ValueError: refused: api_key=***, see https://u:***@host/x")
    assert store.session("s").info().state == "error"


def test_a_turn_that_was_not_begun_or_is_over_writes_nothing(store: Store) -> None:
    turn = store.session("s").turn()
    with pytest.raises(LeaseLost):
        turn.append(user("early"))
    with turn:
        pass
    for write in writes(turn):
        with pytest.raises(LeaseLost):
            write()
    with pytest.raises(Invalid, match="begun before"), turn:
        raise AssertionError
    assert store.session("s").info().last == 2


def test_a_turn_of_a_deleted_session(store: Store) -> None:
    session = store.session("s")
    session.delete()
    with pytest.raises(Deleted), session.turn():
        raise AssertionError
    session = store.create("t")
    with pytest.raises(Deleted), session.turn() as turn:
        turn.delete()


@pytest.mark.parametrize("wrong", [{"ttl": 0.0}, {"ttl": -1.0}, {"ttl": math.nan}, {"ttl": math.inf}, {"ttl": 2.0**63}])
def test_a_ttl_out_of_range_is_refused(store: Store, wrong: dict[str, float]) -> None:
    with pytest.raises(Invalid, match="ttl"):
        store.session("s").turn(**wrong)


@pytest.mark.parametrize("wait", [-1.0, math.nan])
def test_a_wait_out_of_range_is_refused(store: Store, wait: float) -> None:
    with pytest.raises(Invalid, match="wait"):
        store.session("s").turn(wait=wait)


# --- Held, overtaken, fenced ---


def writes(turn: Turn) -> list[Callable[[], object]]:
    return [
        lambda: turn.append(user("late")),
        lambda: turn.append(user("late"), expect=0),
        lambda: turn.update(title="late"),
        lambda: turn.update(metadata={"late": 1}),
        turn.delete,
    ]


def test_a_held_turn_names_the_holder_and_when_it_expires(holder: Store, rival: Store, place: FakePlace) -> None:
    with (
        holder.session("s").turn(ttl=30, owner="worker 7") as turn,
        pytest.raises(LeaseHeld) as told,
        rival.session("s").turn(),
    ):
        raise AssertionError
    assert (told.value.session, told.value.turn, told.value.owner) == ("s", turn.token, "worker 7")
    assert told.value.expires_at == place.wall_at + 30_000_000
    assert "worker 7" in str(told.value)
    assert isinstance(told.value, holdfast.Conflict)


def test_who_was_overtaken_stores_nothing_and_ends_nothing(holder: Store, rival: Store, elsewhere: FakePlace) -> None:
    with pytest.raises(LeaseLost), holder.session("s").turn(ttl=10) as late:  # noqa: PT012
        late.append(user("in time"))
        with pytest.raises(LeaseHeld), rival.session("s").turn(ttl=10):
            raise AssertionError
        elsewhere.pass_seconds(10)
        new = begun(rival, ttl=10)
        assert new.took_over is not None
        assert (new.took_over.turn, new.took_over.standing) == (late.token, "expired")
        before = store_of(holder)
        for write in writes(late):
            with pytest.raises(LeaseLost):
                write()
        assert store_of(holder) == before
    assert rival.head("s").tags["turn"] == new.token  # the late end of one turn does not clear the other
    assert rival.session("s").info().state == "running"
    new.end()
    assert [(state, turn) for state, turn, _ in states(rival)] == [
        ("running", late.token),
        ("error", late.token),
        ("running", new.token),
        ("idle", new.token),
    ]
    assert rival.check().ok


def store_of(store: Store) -> object:
    head = store.head("s")
    return head, [event.raw for event in store.session("s").events(include_hidden=True)]


def test_a_late_end_behind_an_error_of_the_block_is_noted_on_it(
    holder: Store, rival: Store, elsewhere: FakePlace
) -> None:
    with pytest.raises(KeyError) as told, holder.session("s").turn(ttl=10):  # noqa: PT012
        with pytest.raises(LeaseHeld):
            begun(rival)
        elsewhere.pass_seconds(10)
        begun(rival)
        raise KeyError("x")
    assert "was not recorded" in told.value.__notes__[0]


# --- Clocks ---


@pytest.mark.parametrize("jump", [DAY * 1000, -DAY * 1000])
@pytest.mark.parametrize("whose", ["holder", "rival"])
def test_a_jump_of_a_wall_clock_hands_no_live_lease_away(
    holder: Store, rival: Store, place: FakePlace, elsewhere: FakePlace, whose: str, jump: int
) -> None:
    turn = begun(holder, ttl=30)
    for _ in range(20):  # ten minutes with a heartbeat in time
        with pytest.raises(LeaseHeld):
            begun(rival)
        (place if whose == "holder" else elsewhere).wall_at += jump
        jump = -jump
        with pytest.raises(LeaseHeld):
            begun(rival)
        place.pass_seconds(29)
        elsewhere.pass_seconds(29)
        holder.turns.beat()
    turn.append(note("still mine"))


def test_seen_from_elsewhere_a_lease_expires_when_its_heartbeat_stood_still_for_the_ttl(
    holder: Store, rival: Store, place: FakePlace, elsewhere: FakePlace
) -> None:
    begun(holder, ttl=30)
    elsewhere.pass_seconds(1e6)  # what passed before it was seen counts for nothing
    with pytest.raises(LeaseHeld) as told:
        begun(rival)
    assert told.value.left == 30_000_000
    elsewhere.pass_seconds(29.9)
    with pytest.raises(LeaseHeld):
        begun(rival)
    place.pass_seconds(29.9)
    holder.turns.beat()
    elsewhere.pass_seconds(29.9)
    with pytest.raises(LeaseHeld):
        begun(rival)
    elsewhere.pass_seconds(30)
    begun(rival)


def test_at_the_same_place_a_fresh_process_knows_at_once(store: Store, holder: Store, place: FakePlace) -> None:
    begun(holder, ttl=30)
    place.pass_seconds(29)
    fresh = FakePlace("here", monotonic=place.monotonic_at)
    with placed(store, fresh) as rival:
        with pytest.raises(LeaseHeld) as told:
            begun(rival)
        assert told.value.left == 1_000_000
        fresh.pass_seconds(1)
        assert begun(rival).took_over is not None


def test_a_holder_whose_process_has_ended_is_overtaken_at_once(store: Store, holder: Store, place: FakePlace) -> None:
    begun(holder, ttl=3600)
    fresh = FakePlace("here", monotonic=place.monotonic_at)
    fresh.born = 2  # it even has the number of the one that ended
    with placed(store, fresh) as rival:
        with pytest.raises(LeaseHeld):
            begun(rival)
        fresh.ended.add(place.process())
        turn = begun(rival)
        assert turn.took_over is not None
        assert turn.took_over.standing == "gone"


def test_that_a_process_of_another_place_is_not_here_says_nothing(
    holder: Store, rival: Store, place: FakePlace, elsewhere: FakePlace
) -> None:
    begun(holder, ttl=3600)
    elsewhere.ended.add(place.process())
    with pytest.raises(LeaseHeld):
        begun(rival)


def test_a_place_without_a_name_decides_nothing_from_it(store: Store) -> None:
    nowhere = FakePlace("")
    with placed(store, nowhere) as holder, placed(store, FakePlace("", monotonic=10**15)) as rival:
        nowhere.ended.add(nowhere.process())
        begun(holder, ttl=30)
        with pytest.raises(LeaseHeld):
            begun(rival)


def test_a_heartbeat_between_the_look_and_the_take_keeps_the_lease(
    holder: Store, rival: Store, place: FakePlace, elsewhere: FakePlace
) -> None:
    turn = begun(holder, ttl=30)
    with pytest.raises(LeaseHeld):
        begun(rival)
    elsewhere.pass_seconds(31)

    class Late(Sightings):
        def look(self, head: Head) -> tuple[Lease | None, int | None]:
            found = super().look(head)
            place.pass_seconds(10)
            holder.turns.beat()
            return found

    late = Late(elsewhere)
    late._seen = rival.turns.sightings._seen
    rival.turns.sightings = late
    with pytest.raises(LeaseHeld):
        begun(rival)
    turn.append(note("still mine"))


# --- Heartbeats and waiting ---


def test_one_thread_keeps_all_turns_of_a_store_alive(store: Store) -> None:
    others = set(threading.enumerate())
    turns = [store.session(f"s{n}").turn(ttl=0.3).take() for n in range(5)]
    began = {turn.id: store.head(turn.id).tags["lease_beat"] for turn in turns}
    activity = {turn.id: store.head(turn.id).at for turn in turns}
    wait_for(store, lambda: all(store.head(id).rev >= 7 for id in began))
    assert all(store.head(id).tags["lease_beat"] != beat for id, beat in began.items())
    assert {id: store.head(id).at for id in began} == activity  # a heartbeat is no activity
    [keeper] = [thread for thread in threading.enumerate() if thread.name == "holdfast-turns" and thread not in others]
    for turn in turns:
        turn.end()
    store.close()
    assert not keeper.is_alive()


def test_who_waits_gets_the_turn_when_it_comes_free(store: Store) -> None:
    order: list[str] = []

    def second() -> None:
        with store.session("s").turn(wait=60):
            order.append("second")

    with store.session("s").turn():
        thread = threading.Thread(target=second)
        thread.start()
        store.session("other").append(note("wakes it for nothing"))
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]


def test_who_waited_long_enough_is_told(store: Store) -> None:
    with store.session("s").turn(), pytest.raises(LeaseHeld), store.session("s").turn(wait=0.05):
        raise AssertionError


def test_who_waits_takes_over_from_a_holder_that_stands_still(store: Store, holder: Store) -> None:
    begun(holder, ttl=0.2)  # its clock stands still, so no heartbeat is ever due
    with store.session("s").turn(wait=60) as turn:
        assert turn.took_over is not None


def test_only_one_of_many_threads_holds_a_turn(store: Store) -> None:
    inside: list[int] = []
    most: list[int] = []
    session = store.session("s")

    def work(number: int) -> None:
        for _ in range(5):
            with session.turn(wait=120) as turn:
                inside.append(number)
                most.append(len(inside))
                turn.append(assistant(str(number)))
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(200)
    assert most == [1] * 20
    kinds = [event.type for event in session.events()]
    assert kinds == ["state", "message", "state"] * 20
