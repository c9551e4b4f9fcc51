"""oxios's `StateStore` over each backend: the seven tests it has itself, and what is better here.

The first part carries the names of the tests they were ported from, which are asynchronous there and here.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.adapters.oxios import (
    AgentResponse,
    BlockingStateStore,
    PruneConfig,
    PruneThrottle,
    Session,
    SessionId,
    StateStore,
    Timestamp,
    TrajectoryRange,
    TrajectoryStepRecord,
    UserMessage,
)
from holdfast.errors import Conflict, Corrupt, Deleted, Denied, Invalid, NotFound
from holdfast.formats.oxios import session_of
from holdfast.formats.oxios_out import session_bytes
from holdfast.formats.written import Written
from holdfast.formats.zeroclaw import place_of
from holdfast.plan import Commit, Ref
from holdfast.store import Store
from oxios_files import AT, document, fill, written
from transcripts import take

Body = Callable[[StateStore], Coroutine[Any, Any, None]]
HOUR = timedelta(hours=1)


def run(url: str, body: Body) -> None:
    """Run the body of an asynchronous test with a store of its own."""

    async def whole() -> None:
        async with holdfast.aopen(url) as store:
            await body(StateStore(store))

    asyncio.run(whole())


@pytest.fixture
def state(store: Store) -> BlockingStateStore:
    return BlockingStateStore(store)


def said(user_id: str, *words: str, id: str | None = None) -> Session:
    session = Session.new(user_id) if id is None else Session.with_id(user_id, id)
    for word in words:
        session.add_user_message(word)
    return session


def old(state: BlockingStateStore, id: str, hours: float = 48, user_id: str = "old-user") -> Session:
    """A session that was updated so many hours ago."""
    session = Session.with_id(user_id, id)
    session.updated_at = datetime.now(UTC) - hours * HOUR
    state.save_session(session)
    return session


def loaded(state: BlockingStateStore, id: str) -> Session:
    session = state.load_session(id)
    assert session is not None
    return session


def words(session: Session) -> list[str]:
    return [message.content for message in session.user_messages]


def ids(state: BlockingStateStore) -> list[str]:
    return [summary.id for summary in state.list_sessions()]


# The program's own tests


def test_session_creation_and_persistence(url: str) -> None:
    async def body(store: StateStore) -> None:
        session = Session.new("user-123")
        session.add_user_message("Hello")
        await store.save_session(session)
        found = await store.load_session(session.id)
        assert found is not None
        assert found.user_id == "user-123"
        assert len(found.user_messages) == 1

    run(url, body)


def test_session_list_sorts_by_updated(url: str) -> None:
    async def body(store: StateStore) -> None:
        for i in range(3):
            session = Session.new(f"user-{i}")
            session.add_user_message(f"Message {i}")
            session.updated_at = datetime.now(UTC) + timedelta(milliseconds=10 * i)
            await store.save_session(session)
        sessions = await store.list_sessions()
        assert len(sessions) == 3
        assert sessions[0].user_id == "user-2"

    run(url, body)


def test_delete_session(url: str) -> None:
    async def body(store: StateStore) -> None:
        session = Session.new("user-123")
        await store.save_session(session)
        assert await store.delete_session(session.id)
        assert await store.load_session(session.id) is None

    run(url, body)


def test_get_or_create_session_existing(url: str) -> None:
    async def body(store: StateStore) -> None:
        existing = Session.new("user-123")
        existing.add_user_message("Original message")
        await store.save_session(existing)
        retrieved = await store.get_or_create_session("user-123", existing.id)
        assert retrieved.id == existing.id
        assert len(retrieved.user_messages) == 1

    run(url, body)


def test_get_or_create_session_new(url: str) -> None:
    async def body(store: StateStore) -> None:
        session = await store.get_or_create_session("user-456", None)
        assert session.user_id == "user-456"
        assert session.user_messages == []

    run(url, body)


def test_prune_sessions_by_count(url: str) -> None:
    async def body(store: StateStore) -> None:
        for i in range(5):
            session = Session.new(f"user-{i}")
            session.add_user_message(f"Message {i}")
            session.updated_at = datetime.now(UTC) + timedelta(milliseconds=10 * i)
            await store.save_session(session)
        pruned = await store.prune_sessions(PruneConfig(max_sessions=3, ttl_hours=0))
        assert pruned == 2
        remaining = await store.list_sessions()
        assert {summary.user_id for summary in remaining} == {"user-2", "user-3", "user-4"}

    run(url, body)


def test_prune_sessions_by_ttl(url: str) -> None:
    async def body(store: StateStore) -> None:
        old_session = Session.new("old-user")
        old_session.updated_at = datetime.now(UTC) - timedelta(hours=48)
        await store.save_session(old_session)
        recent_session = Session.new("recent-user")
        recent_session.add_user_message("Hello")
        await store.save_session(recent_session)
        pruned = await store.prune_sessions(PruneConfig(max_sessions=0, ttl_hours=24))
        assert pruned == 1
        remaining = await store.list_sessions()
        assert [summary.user_id for summary in remaining] == ["recent-user"]

    run(url, body)


# The interface


def test_both_stores_have_the_same_methods() -> None:
    def public(cls: type) -> dict[str, Any]:
        return {name: value for name, value in vars(cls).items() if not name.startswith("_")}

    sync, there = public(BlockingStateStore), public(StateStore)
    assert set(sync) == set(there)
    for name, method in there.items():
        here = inspect.signature(sync[name]).parameters.values()
        assert [(p.name, p.default) for p in inspect.signature(method).parameters.values()] == [
            (p.name, p.default) for p in here
        ]
        assert inspect.iscoroutinefunction(method) == (name not in ("session_id", "document_id"))


def test_every_asynchronous_method_does_what_the_other_does(url: str) -> None:
    async def body(store: StateStore) -> None:
        await store.save_markdown("notes", "n", "text\r\n")
        await store.save_json("notes", "n", {"a": [1.0, None]})
        assert await store.load_markdown("notes", "n") == "text\r\n"
        assert await store.load_json("notes", "n") == {"a": [1.0, None]}
        assert await store.list_category("notes") == ["n"]
        assert await store.delete_file("notes", "n")
        session = said("u", "one", id="s")
        assert (await store.save_session_with_prune(session, PruneConfig())).moved == ()
        session.add_user_message("two")
        await store.update_session(session)
        kept = await store.session("s")
        assert kept is not None
        assert [message.text for message in await kept.messages()] == ["one", "two"]
        assert store.session_id("s") == kept.id
        assert store.document_id("a/b", "c", "md") == "a/b/c.md"
        plan = await store.prune_plan(PruneConfig(max_sessions=0, ttl_hours=1))
        assert (await plan.apply()).moved == ()
        assert (await store.prune(PruneConfig())).moved == ()
        assert await store.prune_agents_by_config(1, 1, 1) == 0
        assert "StateStore default" in repr(store)

    run(url, body)


def test_a_session_comes_back_with_all_it_has(state: BlockingStateStore) -> None:
    session = Session.with_id("alice", "s")
    session.add_user_message("List\n🦀")
    session.extend_trajectory([])
    session.extend_trajectory(
        [
            TrajectoryStepRecord(
                tool_name="bash",
                tool_args={"z": 1, "a": 2**64 - 1, "f": 1e-7},
                output_summary="x",
                duration_ms=3,
                tool_call_id="c",
                timestamp=Timestamp.of("2026-01-02T03:04:05.123456789Z"),
            )
        ]
    )
    session.add_agent_response(
        AgentResponse(content="done", seed_id="seed", evaluation_passed=False, trajectory_range=TrajectoryRange(0, 1))
    )
    session.set_active_seed("seed")
    session.set_active_persona("p")
    session.set_metadata("title", "A title")
    session.set_metadata("n", {"deep": [None, 0.5]})
    state.save_session(session)
    found = loaded(state, "s")
    assert found == session
    assert found.get_metadata("n") == {"deep": [None, 0.5]}
    assert found.get_metadata("none") is None
    assert (found.exchange_count(), found.is_empty()) == (1, False)
    (step,) = found.trajectory()
    assert isinstance(step.timestamp, Timestamp)
    assert step.timestamp.text == "2026-01-02T03:04:05.123456789Z"
    session.set_active_seed(None)
    session.metadata.pop("n")
    state.save_session(session)
    found = loaded(state, "s")
    assert (found.active_seed_id, found.metadata) == (None, {"title": "A title"})


def test_what_is_saved_is_a_file_of_the_program(state: BlockingStateStore, store: Store) -> None:
    session = said("alice", "hi", id="s")
    session.add_agent_response(AgentResponse(content="hello"))
    state.save_session(session)
    made = session_of(session_bytes(store, state.session_id("s"), Written()))
    names = ["id", "user_id", "user_messages", "agent_responses", "created_at", "updated_at", "metadata"]
    assert list(made) == names
    assert made["id"] == "s"
    fields = ["content", "session_id", "seed_id", "phase_reached", "evaluation_passed", "timestamp"]
    assert list(made["agent_responses"][0]) == fields
    session.set_active_seed("x")
    session.extend_trajectory([TrajectoryStepRecord(tool_name="ls")])
    state.save_session(session)
    made = session_of(session_bytes(store, state.session_id("s"), Written()))
    assert list(made) == [*names[:4], "trajectory_steps", "active_seed_id", *names[4:]]


def test_ids_and_times() -> None:
    assert SessionId.new() != SessionId.new()
    assert str(SessionId("x")) == "x"
    moment = Timestamp.of("2026-01-02T03:04:05.123456789+02:00")
    assert (moment.microsecond, moment.hour, moment.text[-6:]) == (123456, 1, "+02:00")
    for copied in (copy.deepcopy(moment), pickle.loads(pickle.dumps(moment))):  # our own bytes
        assert (copied, copied.text) == (moment, moment.text)
    assert Timestamp.of("+12000-01-01T00:00:00Z").year == 9999
    for wrong in ("2026-01-02", "2026-01-02T03:04:05", datetime(2026, 1, 1)):  # noqa: DTZ001  # that is what is refused
        with pytest.raises(Invalid):
            Timestamp.of(wrong)


def test_values_are_kept_as_serde_writes_them(state: BlockingStateStore, store: Store) -> None:
    state.save_json("notes", "n", {"small": 1e-7, "big": 1e16, "none": float("nan"), "empty": [], "é": "\x7f"})
    kept = store.documents.get("notes/n.json")
    assert kept is not None
    assert kept.source.decode() == (
        '{\n  "small": 1e-7,\n  "big": 1e16,\n  "none": null,\n  "empty": [],\n  "é": "\x7f"\n}'
    )
    assert state.load_json("notes", "n", dict[str, Any])["big"] == 1e16
    with pytest.raises(Invalid, match="is none of"):
        state.load_json("notes", "n", list[int])
    with pytest.raises(Invalid, match="no JSON value"):
        state.save_json("notes", "n", object())


def test_sessions_are_json_documents_too(state: BlockingStateStore) -> None:
    state.save_json("sessions", "s-1", document())
    assert words(loaded(state, "s-1"))[1:] == ["and again"]
    told = state.load_json("sessions", "s-1")
    assert told["agent_responses"] == document()["agent_responses"]
    assert state.load_json("sessions", "s-1", Session) == loaded(state, "s-1")
    assert state.load_json("sessions", "none") is None
    state.save_json("sessions", "t", said("u", "x", id="t"))
    assert state.list_category("sessions") == ["s-1", "t"]
    for wrong in ({"id": "x"}, document(id="other"), [1]):
        with pytest.raises(Invalid):
            state.save_json("sessions", "x", wrong)


# What is better here


@pytest.mark.parametrize("name", ["../../victim", "..", "a/b", "a\\b", ""])
def test_names_that_lead_elsewhere_are_refused_by_every_method(state: BlockingStateStore, name: str) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: state.delete_session(name),
        lambda: state.load_session(name),
        lambda: state.save_session(Session.with_id("u", name)),
        lambda: state.get_or_create_session("u", name),
        lambda: state.save_markdown("notes", name, "x"),
        lambda: state.load_markdown("notes", name),
        lambda: state.save_json("notes", name, 1),
        lambda: state.load_json("notes", name),
        lambda: state.delete_file("notes", name),
    ]
    for call in calls:
        with pytest.raises(Invalid):
            call()


@pytest.mark.parametrize("name", ["a..b", ".", " ", "~", "CON", "é", "x.json", "a:b", "x" * 200])
def test_names_are_exact(state: BlockingStateStore, store: Store, name: str) -> None:
    state.save_markdown("notes", name, "text")
    state.save_json("notes", name.upper(), 1)
    assert state.load_markdown("notes", name) == "text"
    assert state.list_category("notes") == sorted({name, name.upper()})
    state.save_session(said("u", "hi", id=name))
    assert words(loaded(state, name)) == ["hi"]
    assert ids(state) == [name]


@pytest.mark.parametrize("name", ["a\nb", "\0", "x" * 600])
def test_names_that_no_list_would_show_are_refused(state: BlockingStateStore, name: str) -> None:
    for call in (
        lambda: state.save_markdown("notes", name, ""),
        lambda: state.save_session(Session.with_id("u", name)),
    ):
        with pytest.raises(Invalid):
            call()


@pytest.mark.parametrize("category", ["", ".", "./a", "a/.", "..", "a/../b", "/a", "a/", "a//b", "a\\b"])
def test_categories_that_are_others_or_none_are_refused(state: BlockingStateStore, category: str) -> None:
    with pytest.raises(Invalid):
        state.save_markdown(category, "n", "x")
    with pytest.raises(Invalid):
        state.list_category(category)


def test_twins_are_listed_once_and_deleted_together(state: BlockingStateStore) -> None:
    state.save_markdown("notes", "n", "x")
    state.save_json("notes", "n", 1)
    state.save_markdown("notes/more", "m", "x")
    assert state.list_category("notes") == ["n"]
    assert state.delete_file("notes", "n")
    assert state.list_category("notes") == []
    assert not state.delete_file("notes", "n")


def test_a_twin_of_a_session_takes_no_place_in_a_prune(state: BlockingStateStore) -> None:
    for number in range(3):
        state.save_session(said("u", "x", id=f"s-{number}"))
    state.save_markdown("sessions", "s-0", "# twin")
    assert state.list_category("sessions") == ["s-0", "s-1", "s-2"]
    assert state.prune_sessions(PruneConfig(max_sessions=3, ttl_hours=0)) == 0
    assert len(ids(state)) == 3


def test_two_who_load_change_and_save_lose_nothing(state: BlockingStateStore) -> None:
    state.save_session(said("u", "first", id="s"))
    one, two = loaded(state, "s"), loaded(state, "s")
    one.add_user_message("A")
    one.set_metadata("a", 1)
    two.add_user_message("B")
    two.set_metadata("b", 2)
    two.set_active_persona("p")
    state.save_session(one)
    state.save_session(two)
    found = loaded(state, "s")
    assert words(found) == ["first", "A", "B"]
    assert (found.metadata, found.active_persona_id) == ({"a": 1, "b": 2}, "p")
    one.add_user_message("C")
    state.save_session(one)
    assert words(loaded(state, "s")) == ["first", "A", "B", "C"]


def test_who_sets_what_another_has_set_is_told(state: BlockingStateStore) -> None:
    state.save_session(said("u", "first", id="s"))
    one, two, three = (loaded(state, "s") for _ in range(3))
    one.set_metadata("title", "one")
    two.set_metadata("title", "two")
    two.add_user_message("B")
    three.set_metadata("title", "one")
    state.save_session(one)
    with pytest.raises(Conflict, match="title") as caught:
        state.save_session(two)
    assert caught.value.facts["current"] == "one"
    assert words(loaded(state, "s")) == ["first"]
    state.save_session(three)  # both say the same


def test_what_was_said_is_not_changed_by_a_save(state: BlockingStateStore) -> None:
    state.save_session(said("u", "one", "two", id="s"))
    shorter = loaded(state, "s")
    del shorter.user_messages[1:]
    other = loaded(state, "s")
    other.user_messages[0] = UserMessage("changed", other.user_messages[0].timestamp)
    stranger = said("u", "else", id="s")
    for session in (shorter, other, stranger):
        with pytest.raises(Conflict, match="do not begin with"):
            state.save_session(session)
    assert words(loaded(state, "s")) == ["one", "two"]


def test_many_threads_lose_no_message(state: BlockingStateStore) -> None:
    state.save_session(said("u", id="s"))

    def talk(number: int) -> None:
        for turn in range(5):
            session = loaded(state, "s")
            session.add_user_message(f"{number}.{turn}")
            state.save_session(session)

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(words(loaded(state, "s"))) == sorted(f"{a}.{b}" for a in range(6) for b in range(5))


def test_two_processes_lose_no_message(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/s.db"
    code = (
        "import sys, holdfast\nfrom holdfast.adapters.oxios import BlockingStateStore\n"
        "with holdfast.open(sys.argv[1]) as store:\n"
        "    state = BlockingStateStore(store)\n"
        "    for turn in range(20):\n"
        "        session = state.get_or_create_session('u', 's')\n"
        "        session.add_user_message(f'{sys.argv[2]}.{turn}')\n"
        "        state.update_session(session)\n"
    )
    with holdfast.open(url) as store:
        running = [subprocess.Popen([sys.executable, "-c", code, url, name]) for name in "ab"]  # our own code
        assert [process.wait(60) for process in running] == [0, 0]
        found = words(loaded(BlockingStateStore(store), "s"))
    assert sorted(found) == sorted(f"{name}.{turn}" for name in "ab" for turn in range(20))


def test_a_save_whose_answer_was_lost_may_be_repeated(state: BlockingStateStore) -> None:
    session = said("u", "same", id="s")
    session.user_messages.append(session.user_messages[0])  # said twice in one moment: two messages
    before = copy.deepcopy(session)
    state.save_session(session)
    assert words(loaded(state, "s")) == ["same", "same"]
    state.save_session(before)
    later = loaded(state, "s")
    later.add_user_message("more")
    again = copy.deepcopy(later)
    state.save_session(later)
    state.save_session(again)  # as if nobody had told it that it was stored
    assert words(loaded(state, "s")) == ["same", "same", "more"]


def test_of_many_who_create_at_once_one_does(state: BlockingStateStore) -> None:
    together = threading.Barrier(6)

    def begin(number: int) -> None:
        together.wait()
        session = state.get_or_create_session("u", "s")
        session.add_user_message(str(number))
        state.save_session(session)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(words(loaded(state, "s"))) == list("012345")


def test_a_session_is_given_to_its_user_only(state: BlockingStateStore, store: Store) -> None:
    state.save_session(said("alice", "secret", id="s"))
    with pytest.raises(Denied):
        state.get_or_create_session("mallory", "s")
    with pytest.raises(Denied):
        state.save_session(said("mallory", "mine now", id="s"))
    hers = BlockingStateStore(store.for_user("mallory"))
    with pytest.raises(Denied):
        hers.load_session("s")
    assert hers.list_sessions() == []
    assert words(BlockingStateStore(store.for_user("alice")).get_or_create_session("alice", "s")) == ["secret"]


def test_what_was_deleted_stays_deleted(state: BlockingStateStore) -> None:
    session = said("u", "x", id="s")
    with pytest.raises(NotFound):
        state.update_session(session)
    state.save_session(session)
    late = loaded(state, "s")
    assert state.delete_session("s")
    assert not state.delete_session("s")
    late.add_user_message("late")
    for save in (state.save_session, state.update_session):
        with pytest.raises(Deleted):
            save(late)
    assert state.load_session("s") is None
    state.save_session(said("u", "anew", id="s"))  # a new one is one of its own
    assert words(loaded(state, "s")) == ["anew"]


def test_a_prune_with_a_save_spares_what_was_saved_and_is_done_with_it(state: BlockingStateStore) -> None:
    for number in range(3):
        state.save_session(said("u", "x", id=f"s-{number}"))
    ancient = Session.with_id("u", "ancient")
    ancient.updated_at = datetime.now(UTC) - 500 * HOUR
    done = state.save_session_with_prune(ancient, PruneConfig(max_sessions=1, ttl_hours=24))
    assert sorted(done.moved) == [state.session_id(f"s-{number}") for number in range(2)]
    assert ids(state) == ["s-2", "ancient"]


def test_a_prune_with_a_save_asks_its_throttle(state: BlockingStateStore) -> None:
    throttle = PruneThrottle(3600)
    config = PruneConfig(max_sessions=1, ttl_hours=0)
    moved = [
        len(state.save_session_with_prune(said("u", "x"), config, throttle=throttle, cooldown=0).moved)
        for _ in range(3)
    ]
    assert moved == [0, 0, 0]
    throttle.release()
    assert len(state.save_session_with_prune(said("u", "x"), config, throttle=throttle).moved) == 3


def test_a_prune_spares_what_runs_what_is_starred_and_what_is_touched(state: BlockingStateStore, store: Store) -> None:
    for name in ("running", "starred", "named", "forked", "touched", "plain"):
        old(state, name)
    for name in ("starred", "named"):
        store.backend.commit([Commit(ref=Ref("session", state.session_id(name)), tags={"label:starred": "1"})])
    kept = state.session("forked")
    assert kept is not None
    store.backend.commit([Commit(ref=Ref("session", state.session_id("running")), tags={"state": "running"})])
    plan = state.prune_plan(PruneConfig(max_sessions=0, ttl_hours=24))
    touched = loaded(state, "touched")
    touched.add_user_message("I am back")
    state.save_session(touched)
    kept.fork(id="fork")
    done = plan.apply()
    assert done.moved == (state.session_id("plain"),)
    skipped = {one.session for one in done.skipped}
    assert skipped == {state.session_id("touched"), state.session_id("forked")}
    assert {one.session for one in plan.spared} == {state.session_id(name) for name in ("running", "starred", "named")}


def test_a_prune_can_be_undone(state: BlockingStateStore, store: Store) -> None:
    session = old(state, "s")
    done = state.prune(PruneConfig(max_sessions=0, ttl_hours=24))
    assert state.load_session("s") is None
    with pytest.raises(Deleted):
        state.save_session(session)
    assert done.prune is not None
    assert store.trash.undo(done.prune).restored == (state.session_id("s"),)
    assert loaded(state, "s") == session


@pytest.mark.parametrize("most", [2**63 - 1, 2**64 - 1, 2**63])
def test_the_largest_numbers_prune_nothing(state: BlockingStateStore, most: int) -> None:
    old(state, "s", hours=9999)
    assert state.prune_sessions(PruneConfig(max_sessions=most, ttl_hours=most)) == 0
    assert state.prune_sessions(PruneConfig(max_sessions=0, ttl_hours=0)) == 0
    state.save_json("agents", "a", {"created_at": AT.format(0), "status": "Completed"})
    assert state.prune_agents_by_config(most, most, most) == 0
    assert ids(state) == ["s"]
    for wrong in (-1, 1.5, float("nan"), True):
        with pytest.raises(Invalid):
            PruneConfig(max_sessions=wrong)  # type: ignore[arg-type]  # that is what is tried
        with pytest.raises(Invalid):
            state.prune_agents_by_config(wrong, 0, 1)  # type: ignore[arg-type]  # that is what is tried


def test_a_prune_counts_what_happened(state: BlockingStateStore) -> None:
    for number in range(3):
        old(state, f"s-{number}")
    plan = state.prune_plan(PruneConfig(max_sessions=0, ttl_hours=24))
    assert state.delete_session("s-1")
    assert len(plan.apply().moved) == 2
    assert state.prune_sessions(PruneConfig(max_sessions=0, ttl_hours=24)) == 0


def test_a_prune_leaves_other_places_and_programs_alone(state: BlockingStateStore, store: Store) -> None:
    other = BlockingStateStore(store, "other")
    for one in (state, other):
        for number in range(3):
            old(one, f"s-{number}")
    store.create("chat", created_at=1)
    assert state.prune_sessions(PruneConfig(max_sessions=2, ttl_hours=0)) == 1
    assert (len(ids(state)), len(ids(other)), store.exists("chat")) == (2, 3, True)
    with pytest.raises(Invalid, match="slash"):
        BlockingStateStore(store, "a/b")


def test_a_cooldown_holds_for_all_and_is_not_used_up_by_nothing(state: BlockingStateStore, store: Store) -> None:
    config = PruneConfig(max_sessions=0, ttl_hours=24)
    assert state.prune(config, cooldown=3600).moved == ()
    old(state, "a")
    assert len(state.prune(config, cooldown=3600).moved) == 1
    old(state, "b")
    done = BlockingStateStore(store).prune(config, cooldown=3600)
    assert (done.moved, done.wait > 3000) == ((), True)


def test_a_throttle_gives_back_what_failed() -> None:
    throttle = PruneThrottle(3600)
    assert throttle.should_prune()
    assert not throttle.should_prune()
    throttle.release()
    assert throttle.should_prune()
    always = PruneThrottle(0)
    assert always.should_prune()
    assert always.should_prune()
    with pytest.raises(Invalid):
        PruneThrottle(-1)


def test_agents_are_pruned_the_oldest_first_and_those_that_run_stay(state: BlockingStateStore, store: Store) -> None:
    def agent(name: str, hours: float, status: str = "Completed") -> None:
        at = Timestamp.of(datetime.now(UTC) - hours * HOUR).text
        state.save_json("agents", name, {"id": name, "name": name, "status": status, "created_at": at})

    for name, hours in (("a", 50), ("b", 40), ("c", 30), ("d", 2), ("e", 1)):
        agent(name, hours)
    agent("running", 60, "Running")
    state.save_json("agents", "odd", ["no record"])
    assert state.prune_agents_by_config(0, 24, 2) == 2
    assert state.list_category("agents") == ["c", "d", "e", "odd", "running"]
    assert state.prune_agents_by_config(0, 24, 10) == 1
    assert state.prune_agents_by_config(2, 0, 10) == 1
    assert state.list_category("agents") == ["e", "odd", "running"]
    assert state.list_category("trash/agents") == ["a", "b", "c", "d"]
    other = BlockingStateStore(store, "other")
    other.save_json("agents", "x", {"status": "Failed", "created_at": "2020-01-01T00:00:00Z"})
    assert other.prune_agents_by_config(0, 1, 1) == 1
    assert store.documents.exists("trash/oxios/other/agents/x.json")


def test_a_damaged_session_is_an_error_and_not_missing(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/s.db"
    with holdfast.open(url) as store:
        state = BlockingStateStore(store)
        for name in ("s-1", "s-2"):
            state.save_session(said("u", "x", id=name))
        store.backend.commit([Commit(ref=Ref("session", state.session_id("s-1")), tags={"created": "no number"})])
        with pytest.raises(Corrupt, match="s-1"):
            state.list_sessions()
        assert words(loaded(state, "s-2")) == ["x"]


def test_a_summary_tells_titles_projects_and_all_messages(state: BlockingStateStore) -> None:
    korean = "안녕하세요 이것은 매우 긴 한국어 첫 메시지입니다 제목이 잘리는지 확인합니다"
    session = said("u", f"\n\n{korean}", id="long")
    session.add_agent_response(AgentResponse(content="yes"))
    session.set_metadata("project_ids", ["p-1", "p-2"])
    session.set_active_seed("seed")
    state.save_session(session)
    session = said("u", id="empty")
    session.set_metadata("project_ids", "p-3, p-4")
    state.save_session(session)
    session = said("u", "x" * 61, id="web")
    session.set_metadata("project_id", "p-5")
    state.save_session(session)
    told = {summary.id: summary for summary in state.list_sessions()}
    assert told["long"].title == korean
    assert (told["long"].message_count, told["long"].project_ids) == (2, ("p-1", "p-2"))
    assert (told["long"].project_id, told["long"].active_seed_id) == ("p-1", "seed")
    assert (told["empty"].title, told["empty"].project_ids) == (None, ("p-3", "p-4"))
    assert (told["web"].title, told["web"].project_id) == ("x" * 59 + "…", "p-5")
    assert len(state.list_sessions(limit=2)) == 2
    session.set_metadata("title", "Named")
    state.save_session(session)
    assert state.list_sessions()[0].title == "Named"
    kept = state.session("web")
    assert kept is not None
    assert kept.info().title == "Named"


def test_what_was_said_stays_in_its_order(state: BlockingStateStore) -> None:
    session = said("u", "a question that failed", "another", id="s")
    session.add_agent_response(AgentResponse(content="an answer"))
    session.add_user_message("a third")
    state.save_session(session)
    kept = state.session("s")
    assert kept is not None
    assert [(message.role, message.text) for message in kept.messages()] == [
        ("user", "a question that failed"),
        ("user", "another"),
        ("assistant", "an answer"),
        ("user", "a third"),
    ]
    only = Session.new("u")
    assert only.is_empty()
    only.add_agent_response(AgentResponse(content="unasked"))
    assert not only.is_empty()


def test_what_the_version_does_not_know_stays(store: Store, tmp_path: Path) -> None:
    base = fill(tmp_path / "state", "head")
    take(store, base)
    state = BlockingStateStore(store, place_of(str(base)))
    session = loaded(state, "s-1")
    session.add_user_message("more")
    session.set_metadata("title", "New")
    state.save_session(session)
    made = session_of(session_bytes(store, state.session_id("s-1"), Written()))
    was = document("head")
    for name in ("reasoning_records", "parent_session_id", "project_id", "agent_responses", "trajectory_steps"):
        assert made[name] == was[name]
    assert made["user_messages"][:2] == was["user_messages"]
    assert made["metadata"] == {**was["metadata"], "title": "New"}
    assert made["trajectory_steps"][0]["tool_args"]["z"] == 2**64 - 1
    # The source goes on, and what was changed here stays.
    was["user_messages"].append({"content": "there", "timestamp": AT.format("9")})
    was["metadata"]["title"] = "Theirs"
    (base / "sessions" / "s-1.json").write_bytes(written(was))
    take(store, base)
    found = loaded(state, "s-1")
    assert words(found)[2:] == ["there", "more"]
    assert found.metadata["title"] == "New"


def test_a_list_opens_no_log_and_a_save_writes_what_is_new(
    state: BlockingStateStore, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = said("u", *(f"message {number}" for number in range(50)), id="s")
    state.save_session(session)
    written_now: list[int] = []
    commit = store.batcher.commit

    def counted(one: Commit, **limit: int) -> Any:
        written_now.append(len(one.append))
        return commit(one, **limit)

    monkeypatch.setattr(store.batcher, "commit", counted)
    session.add_user_message("one more")
    state.save_session(session)
    state.save_session(session)
    assert written_now == [1]
    monkeypatch.setattr(store.backend, "read", None)
    assert state.list_sessions()[0].message_count == 51
    assert state.prune_sessions(PruneConfig()) == 0


def test_steps_that_are_not_there_can_not_be_named(state: BlockingStateStore) -> None:
    for start, end in ((1, 0), (0, 2), (-1, 0)):
        session = Session.new("u")
        session.extend_trajectory([TrajectoryStepRecord(tool_name="ls")])
        session.add_agent_response(AgentResponse(content="x", trajectory_range=TrajectoryRange(start, end)))
        with pytest.raises(Invalid):
            state.save_session(session)
        assert state.load_session(session.id) is None


def test_what_the_program_could_not_read_is_refused(state: BlockingStateStore) -> None:
    wrong: list[Session] = []
    for value in (object(), {1: "x"}, (1,), float("nan"), "\ud800"):
        session = Session.new("u")
        session.metadata["x"] = value
        wrong.append(session)
    session = Session.new("u")
    session.extend_trajectory([TrajectoryStepRecord(tool_name="ls", duration_ms=-1)])
    wrong.append(session)
    wrong.append(Session("s", 7))  # type: ignore[arg-type]  # that is what is tried
    for session in wrong:
        with pytest.raises(Invalid):
            state.save_session(session)
    assert state.list_sessions() == []


def test_what_is_called_a_secret_is_not_written() -> None:
    with holdfast.open("memory://", secrets=["token"]) as store:
        state = BlockingStateStore(store)
        session = Session.with_id("u", "s")
        session.set_metadata("token", "abc")
        session.set_metadata("more", {"token": "abc", "kept": 1})
        session.extend_trajectory([TrajectoryStepRecord(tool_name="curl", tool_args={"token": "abc", "url": "x"})])
        state.save_session(session)
        state.save_session(session)
        found = loaded(state, "s")
        assert found.metadata == {"more": {"kept": 1}}
        assert found.trajectory()[0].tool_args == {"token": "***", "url": "x"}
        session.add_user_message("more")
        state.save_session(session)
        assert words(loaded(state, "s")) == ["more"]


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    for url in (f"sqlite://{tmp_path}/s.db", f"file://{tmp_path}/f"):
        with holdfast.open(url) as store:
            state = BlockingStateStore(store)
            state.save_session(said("u", "x"))
            state.save_markdown("notes", "n", "x")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert {path.stat().st_mode & 0o077 for path in files} == {0}


def test_a_fork_knows_its_parent_and_its_project(state: BlockingStateStore, store: Store) -> None:
    session = said("u", "x", id="s")
    session.set_metadata("project_id", "p-1")
    state.save_session(session)
    kept = state.session("s")
    assert kept is not None
    fork = kept.fork()
    assert fork.info().project == "p-1"
    assert store.tree(fork.id).session.id == kept.id
