"""zeroclaw's trait over each backend: the tests of the trait and of its two backends, and what is better here.

The first two parts carry the names of the tests they were ported from. Where one of those pins a defect, the test here
states the better outcome.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.adapters.zeroclaw import ChatMessage, SessionBackend, SessionMetadata, SessionQuery
from holdfast.formats.zeroclaw import place_of
from holdfast.model import Event, Message, Text
from holdfast.plan import Commit, Ref
from holdfast.store import Store
from transcripts import take
from zeroclaw_files import connect, line, say

user, assistant = ChatMessage.user, ChatMessage.assistant


@pytest.fixture
def backend(store: Store) -> SessionBackend:
    return SessionBackend(store)


def ago(**time: float) -> int:
    return int((datetime.now(UTC) - timedelta(**time)).timestamp() * 1e6)


def old(backend: SessionBackend, key: str, **time: float) -> None:
    """A session whose one message was said so long ago."""
    at = ago(**time)
    made = backend.store.create(backend.session_id(key), agent="zeroclaw", created_at=at)
    made.append(Event(payload=Message(role="user", parts=(Text(content="ancient"),)), at=at))


def keys(found: list[SessionMetadata]) -> list[str]:
    return [metadata.key for metadata in found]


# The trait


def test_session_metadata_is_constructible() -> None:
    now = datetime.now(UTC)
    metadata = SessionMetadata(key="test", name=None, created_at=now, last_activity=now, message_count=5)
    assert (metadata.key, metadata.message_count) == ("test", 5)


def test_session_query_defaults() -> None:
    assert SessionQuery().keyword is None
    assert SessionQuery().limit is None


# The backend of JSONL files


def test_round_trip_append_and_load(backend: SessionBackend) -> None:
    backend.append("telegram_user123", user("hello"))
    backend.append("telegram_user123", assistant("hi there"))
    assert backend.load("telegram_user123") == [user("hello"), assistant("hi there")]


def test_load_nonexistent_session_returns_empty(backend: SessionBackend) -> None:
    assert backend.load("nonexistent") == []


def test_key_sanitization(backend: SessionBackend) -> None:
    backend.append("slack/thread:123/user", user("test"))
    assert len(backend.load("slack/thread:123/user")) == 1
    # There, these shared the file of the first one.
    others = [
        "slack_thread_123_user",
        "slack/thread:123_user",
        "SLACK/thread:123/user",
        "",
        " ",
        "~",
        "a\nb",
        "k" * 999,
    ]
    for key in others:
        assert backend.load(key) == []
        backend.append(key, user(f"only in {key!r}"))
    for key in others:
        assert backend.load(key) == [user(f"only in {key!r}")]
    assert backend.load("slack/thread:123/user") == [user("test")]
    assert sorted(backend.list_sessions()) == sorted([*others, "slack/thread:123/user"])


def test_list_sessions_returns_keys(backend: SessionBackend) -> None:
    backend.append("telegram_alice", user("hi"))
    backend.append("discord_bob", user("hey"))
    assert sorted(backend.list_sessions()) == ["discord_bob", "telegram_alice"]


def test_append_is_truly_append_only(backend: SessionBackend) -> None:
    first = backend.append("test_session", user("msg1"))
    session = backend.session("test_session")
    assert session is not None
    (before,) = session.events()
    second = backend.append("test_session", user("msg2"))
    assert (first.last, second.first) == (1, 2)
    assert next(session.events()).raw == before.raw
    assert len(list(session.events())) == 2


def test_remove_last_drops_final_message(backend: SessionBackend) -> None:
    backend.append("rm_test", user("first"))
    backend.append("rm_test", user("second"))
    assert backend.remove_last("rm_test")
    assert backend.load("rm_test") == [user("first")]


def test_remove_last_empty_returns_false(backend: SessionBackend) -> None:
    assert not backend.remove_last("nonexistent")
    backend.append("k", user("one"))
    assert backend.remove_last("k")
    assert not backend.remove_last("k")
    assert backend.list_sessions() == ["k"]


CORRUPT = line("user", "hello") + b"this is not valid json\n" + line("assistant", "world")


def imported(backend: SessionBackend, folder: Path, data: bytes) -> SessionBackend:
    """The place of a folder with one file, which was imported."""
    folder.mkdir()
    (folder / "corrupt_test.jsonl").write_bytes(data)
    take(backend.store, folder)
    return SessionBackend(backend.store, place_of(str(folder)))


def test_compact_removes_corrupt_lines(backend: SessionBackend, tmp_path: Path) -> None:
    there = imported(backend, tmp_path / "sessions", CORRUPT)
    session = there.session("corrupt_test")
    assert session is not None
    before = [event.raw for event in session.events()]
    there.compact("corrupt_test")
    assert [event.raw for event in session.events()] == before  # it is kept, byte for byte, and is in nobody's way
    assert there.load("corrupt_test") == [user("hello"), assistant("world")]
    there.compact("nonexistent")


def test_session_backend_trait_works_via_dyn(backend: SessionBackend) -> None:
    append: Callable[..., object] = backend.append
    append("trait_test", user("hello"))
    assert len(backend.load("trait_test")) == 1


def test_handles_corrupt_lines_gracefully(backend: SessionBackend, tmp_path: Path) -> None:
    there = imported(backend, tmp_path / "sessions", CORRUPT)
    assert there.load("corrupt_test") == [user("hello"), assistant("world")]


def test_delete_session_removes_file(backend: SessionBackend) -> None:
    backend.append("del_test", user("hello"))
    session = backend.session("del_test")
    assert session is not None
    assert backend.delete_session("del_test")
    assert backend.load("del_test") == []
    assert backend.session("del_test") is None
    with pytest.raises(holdfast.Deleted):
        session.append(holdfast.user("a late writer"))
    assert list(backend.store.search("hello")) == []


def test_delete_session_nonexistent_returns_false(backend: SessionBackend) -> None:
    assert not backend.delete_session("nonexistent")


def test_delete_session_via_trait(backend: SessionBackend) -> None:
    backend.append("k", user("hello"))
    assert backend.delete_session("k")
    assert not backend.delete_session("k")
    assert backend.list_sessions() == []
    backend.append("k", user("anew"))
    assert backend.load("k") == [user("anew")]


# The backend of SQLite


def test_round_trip_sqlite(backend: SessionBackend) -> None:
    backend.append("user1", user("hello"))
    backend.append("user1", assistant("hi"))
    assert [message.role for message in backend.load("user1")] == ["user", "assistant"]


def test_remove_last_sqlite(backend: SessionBackend) -> None:
    backend.append("u", user("a"))
    backend.append("u", user("b"))
    assert backend.remove_last("u")
    assert backend.load("u") == [user("a")]
    assert backend.list_sessions_with_metadata()[0].message_count == 1


def test_remove_last_empty_sqlite(backend: SessionBackend) -> None:
    assert not backend.remove_last("nonexistent")


def test_list_sessions_sqlite(backend: SessionBackend) -> None:
    backend.append("a", user("hi"))
    backend.append("b", user("hey"))
    backend.append("a", user("again"))
    assert backend.list_sessions() == ["a", "b"]


def test_metadata_tracks_counts(backend: SessionBackend) -> None:
    for word in "abc":
        backend.append("s1", user(word))
    (metadata,) = backend.list_sessions_with_metadata()
    assert metadata.message_count == 3


def test_fts5_search_finds_content(backend: SessionBackend) -> None:
    backend.append("code_chat", user("How do I parse JSON in Rust?"))
    backend.append("weather", user("What's the weather today?"))
    assert keys(backend.search(SessionQuery("Rust", 10))) == ["code_chat"]


def test_fts5_update_trigger_syncs_index(backend: SessionBackend) -> None:
    backend.append("chat", user("hello world"))
    assert keys(backend.search(SessionQuery("hello", 10))) == ["chat"]
    assert backend.remove_last("chat")
    backend.append("chat", user("goodbye world"))
    assert backend.search(SessionQuery("hello", 10)) == []
    assert keys(backend.search(SessionQuery("goodbye", 10))) == ["chat"]


def test_cleanup_stale_removes_old_sessions(backend: SessionBackend) -> None:
    old(backend, "old_session", hours=100)
    backend.append("new_session", user("fresh"))
    assert backend.cleanup_stale(48) == 1
    assert backend.list_sessions() == ["new_session"]


def test_delete_session_removes_all_data(backend: SessionBackend) -> None:
    backend.append("s1", user("hello"))
    backend.append("s1", assistant("hi"))
    backend.append("s2", user("other"))
    assert backend.delete_session("s1")
    assert backend.load("s1") == []
    assert backend.list_sessions() == ["s2"]


def test_delete_session_returns_false_for_missing(backend: SessionBackend) -> None:
    assert not backend.delete_session("nonexistent")


def test_migrate_from_jsonl_imports_and_renames(backend: SessionBackend, tmp_path: Path) -> None:
    """An import takes the place of the migration: it renames nothing, and may be repeated."""
    sessions = tmp_path / "sessions"
    there = imported(backend, sessions, line("user", "hello") + line("assistant", "hi"))
    assert there.load("corrupt_test") == [user("hello"), assistant("hi")]
    assert [path.name for path in sessions.iterdir()] == ["corrupt_test.jsonl"]
    assert take(backend.store, sessions).events == 0
    assert len(there.load("corrupt_test")) == 2


def test_set_session_name_persists(backend: SessionBackend) -> None:
    backend.append("s1", user("hello"))
    backend.set_session_name("s1", "My Session")
    assert [metadata.name for metadata in backend.list_sessions_with_metadata()] == ["My Session"]
    assert backend.get_session_name("s1") == "My Session"


def test_set_session_name_updates_existing(backend: SessionBackend) -> None:
    backend.append("s1", user("hello"))
    backend.set_session_name("s1", "First")
    backend.set_session_name("s1", "Second")
    assert backend.list_sessions_with_metadata()[0].name == "Second"


def test_sessions_without_name_return_none(backend: SessionBackend) -> None:
    backend.append("s1", user("hello"))
    assert backend.list_sessions_with_metadata()[0].name is None


def test_session_state_idle_to_running(backend: SessionBackend) -> None:
    backend.append("s1", user("hello"))
    backend.set_session_state("s1", "running", "turn-1")
    state = backend.get_session_state("s1")
    assert state is not None
    assert (state.state, state.turn_id) == ("running", "turn-1")
    assert state.turn_started_at is not None


def test_session_state_running_to_idle(backend: SessionBackend) -> None:
    backend.append("s1", user("hello"))
    backend.set_session_state("s1", "running", "turn-1")
    backend.set_session_state("s1", "idle")
    state = backend.get_session_state("s1")
    assert state is not None
    assert (state.state, state.turn_id, state.turn_started_at) == ("idle", None, None)


def test_session_state_running_to_error(backend: SessionBackend) -> None:
    backend.append("s1", user("hello"))
    backend.set_session_state("s1", "running", "turn-1")
    began = backend.get_session_state("s1")
    backend.set_session_state("s1", "error", "turn-1")
    state = backend.get_session_state("s1")
    assert state is not None
    assert began is not None
    assert (state.state, state.turn_id) == ("error", "turn-1")
    assert state.turn_started_at == began.turn_started_at  # there, an error forgets it


def test_list_running_sessions_returns_running_only(backend: SessionBackend) -> None:
    for key in ("s1", "s2", "s3"):
        backend.append(key, user("a"))
    backend.set_session_state("s1", "running", "t1")
    backend.set_session_state("s2", "running", "t2")
    assert sorted(keys(backend.list_running_sessions())) == ["s1", "s2"]


def stuck(store: Store, path: Path) -> SessionBackend:
    """The place of a database in which a session runs since ten minutes."""
    with connect(path) as made:
        at = (datetime.now(UTC) - timedelta(seconds=600)).isoformat()
        say(made, "s1", "user", "a", at)
        made.execute("UPDATE session_metadata SET state = 'running', turn_id = 'old', turn_started_at = ?", (at,))
    made.close()
    assert take(store, path).failed == []
    return SessionBackend(store, place_of(str(path)))


def test_list_stuck_sessions_detects_old_running(store: Store, tmp_path: Path) -> None:
    there = stuck(store, tmp_path / "sessions.db")
    assert keys(there.list_stuck_sessions(300)) == ["s1"]
    assert there.list_stuck_sessions(900) == []


def test_get_session_state_nonexistent(backend: SessionBackend) -> None:
    assert backend.get_session_state("nonexistent") is None


def test_session_state_migration_preserves_data(backend: SessionBackend) -> None:
    backend.append("s1", user("hello"))
    again = SessionBackend(backend.store)
    assert again.load("s1") == [user("hello")]
    state = again.get_session_state("s1")
    assert state is not None
    assert state.state == "idle"


def test_empty_name_clears_to_none(backend: SessionBackend) -> None:
    backend.append("s1", user("hello"))
    backend.set_session_name("s1", "Named")
    backend.set_session_name("s1", "")
    assert backend.list_sessions_with_metadata()[0].name is None


# What is better here


def test_what_cannot_be_read_is_an_error_and_not_empty(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/store"
    with holdfast.open(url) as store:
        backend = SessionBackend(store)
        backend.append("k", user("one"))
        backend.append("k", user("two"))
    (log,) = (tmp_path / "store" / "logs" / "session").iterdir()
    log.write_bytes(log.read_bytes().replace(b"one", b"owe"))
    with holdfast.open(url) as store:
        backend = SessionBackend(store)
        with pytest.raises(holdfast.Corrupt):
            backend.load("k")
        backend.append("k", user("three"))
        session = backend.session("k")
        assert session is not None
        found = [e.payload.text for e in session.events(damaged="keep") if isinstance(e.payload, Message)]
        assert found == ["two", "three"]  # and nothing that is there is lost


def test_a_list_with_a_damaged_session_says_so(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/store.db"
    with holdfast.open(url) as store:
        SessionBackend(store).append("k", user("one"))
        SessionBackend(store).set_session_state("k", "running", "t")
    with connect(tmp_path / "store.db") as database:
        database.execute("UPDATE head SET crc = crc + 1")
    database.close()
    with holdfast.open(url) as store:
        backend = SessionBackend(store)
        for call in (backend.list_sessions, backend.list_sessions_with_metadata):
            with pytest.raises(holdfast.Corrupt, match="zeroclaw:default/k"):
                call()


def test_times_and_counts_are_those_of_the_messages(backend: SessionBackend) -> None:
    old(backend, "k", days=3)
    backend.append("k", user("now"))
    (metadata,) = backend.list_sessions_with_metadata()
    assert metadata.last_activity - metadata.created_at > timedelta(days=2.9)
    assert metadata.message_count == 2


def test_every_method_does_what_it_says(backend: SessionBackend) -> None:
    old(backend, "old", hours=3)
    backend.append("k", user("needle"))
    backend.set_session_name("k", "N")
    backend.set_session_state("k", "running", "t")
    assert backend.get_session_name("k") == "N"
    state = backend.get_session_state("k")
    assert state is not None
    assert state.turn_id == "t"
    assert keys(backend.search(SessionQuery("needle"))) == ["k"]
    assert keys(backend.list_running_sessions()) == keys(backend.list_stuck_sessions(0)) == ["k"]
    assert backend.cleanup_stale(1) == 1


def test_removing_and_compacting_keep_what_was_there(backend: SessionBackend, tmp_path: Path) -> None:
    data = b'{"role":"user","content":"one","more":[1]}\nbroken\n' + line("user", "two")
    there = imported(backend, tmp_path / "sessions", data)
    assert there.remove_last("corrupt_test")
    there.compact("corrupt_test")
    session = there.session("corrupt_test")
    assert session is not None
    raws = [str(e.payload.source.raw) for e in session.events(include_hidden=True) if e.payload.source is not None]
    assert "".join(raws).encode() == data
    session.undo()
    assert there.load("corrupt_test") == [user("one"), user("two")]


def test_cleanup_spares_what_runs_what_is_held_and_what_a_fork_reads(backend: SessionBackend) -> None:
    for key in ("gone", "running", "held", "forked"):
        old(backend, key, hours=100)
    store = backend.store
    marked, held, forked = (store.session(backend.session_id(key)) for key in ("running", "held", "forked"))
    forked.fork(id="child")
    # As an import leaves it: it runs, and was not active since.
    store.batcher.commit(Commit(ref=Ref("session", marked.id), tags={"state": "running", "turn": "t"}))
    with held.turn():
        assert backend.cleanup_stale(48) == 1
    assert sorted(backend.list_sessions()) == ["forked", "held", "running"]


def test_cleanup_leaves_a_session_that_became_active_meanwhile(
    backend: SessionBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("a", "b"):
        old(backend, key, hours=100)
    listed = backend.store.sessions

    def and_then(**filters: object) -> object:
        page = listed(**filters)  # type: ignore[arg-type]
        backend.append("a", user("back again"))
        return page

    monkeypatch.setattr(backend.store, "sessions", and_then)
    assert backend.cleanup_stale(48) == 1
    monkeypatch.undo()
    assert backend.list_sessions() == ["a"]


def test_cleanup_counts_nothing_that_did_not_happen(backend: SessionBackend) -> None:
    old(backend, "k", hours=100)
    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(backend.cleanup_stale(48))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 1


@pytest.mark.parametrize("hours", [-1, 2**32, 2**63])
def test_hours_that_are_none_delete_nothing(backend: SessionBackend, hours: int) -> None:
    old(backend, "k", days=20_000)
    with pytest.raises(holdfast.Invalid):
        backend.cleanup_stale(hours)
    assert backend.cleanup_stale(2**32 - 1) == 0
    assert backend.list_sessions() == ["k"]


@pytest.mark.parametrize("late", ["A", None])
def test_a_late_idle_of_one_turn_does_not_end_another(backend: SessionBackend, late: str | None) -> None:
    backend.append("k", user("hello"))
    backend.set_session_state("k", "running", "A")
    with pytest.raises(holdfast.LeaseHeld, match="'A'"):
        backend.set_session_state("k", "running", "B")
    other = SessionBackend(backend.store)  # of another process, which did not begin A
    with pytest.raises(holdfast.LeaseHeld):
        other.set_session_state("k", "idle")
    other.set_session_state("k", "error", "A")
    other.set_session_state("k", "running", "B")
    with pytest.raises(holdfast.LeaseLost):
        backend.set_session_state("k", "idle", late)
    state = backend.get_session_state("k")
    assert state is not None
    assert (state.state, state.turn_id) == ("running", "B")


def test_states_and_keys_that_are_not_there_are_refused(backend: SessionBackend) -> None:
    backend.append("k", user("hello"))
    with pytest.raises(holdfast.Invalid, match="dreaming"):
        backend.set_session_state("k", "dreaming")
    with pytest.raises(holdfast.NotFound):
        backend.set_session_state("nonexistent", "running", "t")
    with pytest.raises(holdfast.NotFound):
        backend.set_session_name("nonexistent", "N")
    assert backend.get_session_name("nonexistent") is None


def test_what_is_stuck_is_recovered(store: Store, tmp_path: Path) -> None:
    there = stuck(store, tmp_path / "sessions.db")
    elsewhere = SessionBackend(store)
    assert elsewhere.recover_stuck_sessions(300) == []
    assert [recovery.applied for recovery in there.recover_stuck_sessions(300)] == [True]
    assert there.list_running_sessions() == []
    state = there.get_session_state("s1")
    assert state is not None
    assert (state.state, state.turn_id) == ("error", "old")
    there.set_session_state("s1", "running", "new")


def test_search_takes_words_as_they_are_and_keeps_its_limit(backend: SessionBackend) -> None:
    backend.append("quotes", user('he said "hello" -no OR prefix*'))
    for number in range(5):
        backend.append(f"n{number}", user(f"apple pear {number}"))
    backend.append("only_apple", user("apple"))
    assert keys(backend.search(SessionQuery('"hello"'))) == ["quotes"]
    assert keys(backend.search(SessionQuery('" -no OR prefix*'))) == ["quotes"]
    assert len(backend.search(SessionQuery("apple pear"))) == 5  # all words, not any
    assert len(backend.search(SessionQuery("apple", 2))) == 2
    assert len(backend.search(SessionQuery(limit=3))) == 3
    assert len(backend.search(SessionQuery())) == 7
    assert keys(backend.search(SessionQuery("only_apple"))) == ["only_apple"]  # a key is found, too
    assert backend.search(SessionQuery(" ")) == []
    with pytest.raises(holdfast.Invalid):
        backend.search(SessionQuery("apple", -1))


def test_search_finds_a_session_whose_accents_differ(backend: SessionBackend) -> None:
    backend.append("cv", user("C++ résumé"))
    assert keys(backend.search(SessionQuery("RESUME"))) == ["cv"]


def test_many_tasks_and_readers_share_a_backend(backend: SessionBackend) -> None:
    def write(name: int) -> None:
        for number in range(20):
            backend.append("k", user(f"{name} {number}"), key=f"{name}-{number}")
            backend.load("k", last=3)

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(backend.load("k")) == backend.list_sessions_with_metadata()[0].message_count == 80
    assert [message.content for message in backend.load("k") if message.content[0] == "2"] == [
        f"2 {number}" for number in range(20)
    ]


def test_messages_have_ids_and_times_and_tools_pair(backend: SessionBackend) -> None:
    backend.append("k", user("weather?"), key="m-1")
    assert backend.append("k", user("weather?"), key="m-1").repeated
    session = backend.session("k")
    assert session is not None
    session.append(holdfast.assistant("I look.", holdfast.tool_call("c1", "look", {"at": "sky"})))
    session.append(holdfast.tool_result("c1", "blue"))
    assert [message.role for message in backend.load("k")] == ["user", "assistant", "tool"]
    assert backend.load("k")[2].content == "blue"
    first = next(session.events())
    assert first.id == "m-1"
    assert first.at > 0
    assert session.messages()[2].tool_results[0].id == "c1"


def test_keys_that_join_to_the_same_text_are_apart_by_place(store: Store) -> None:
    one, other = SessionBackend(store, "telegram"), SessionBackend(store, "telegram_b")
    one.append("b_c", user("one"))
    other.append("c", user("other"))
    assert (one.load("b_c"), other.load("c")) == ([user("one")], [user("other")])
    assert (one.list_sessions(), other.list_sessions()) == (["b_c"], ["c"])
    with pytest.raises(holdfast.Invalid):
        SessionBackend(store, "a/b")


def test_a_turn_that_was_killed_leaves_an_open_run_that_is_closed(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/store.db"
    code = (
        "import os, sys, holdfast; from holdfast.adapters.zeroclaw import *\n"
        "backend = SessionBackend(holdfast.open(sys.argv[1]))\n"
        "backend.append('k', ChatMessage.user('do it'))\n"
        "with backend.session('k').turn() as turn:\n"
        "    turn.append(holdfast.assistant(holdfast.tool_call('c1', 'shell', {})))\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, url], check=False).returncode == -9
    with holdfast.open(url) as store:
        backend = SessionBackend(store)
        assert keys(backend.list_stuck_sessions(10**9)) == ["k"]  # at once: its process is gone
        (recovery,) = backend.recover_stuck_sessions(10**9)
        assert recovery.last_user is not None
        assert recovery.last_user.text == "do it"
        assert [message.role for message in backend.load("k")] == ["user", "assistant", "tool"]


def test_lists_and_loads_are_limited_on_demand(backend: SessionBackend) -> None:
    for number in range(5):
        backend.append("k", user(str(number)))
        backend.append(f"k{number}", user("x"))
    assert backend.load("k", last=2) == [user("3"), user("4")]
    assert backend.list_sessions(limit=2) == ["k4", "k"]
    assert keys(backend.list_sessions_with_metadata(limit=2)) == ["k4", "k"]


def test_a_load_of_the_newest_reads_no_others(backend: SessionBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    session = backend.store.create(backend.session_id("k"), agent="zeroclaw")
    session.append(*(holdfast.user(str(number)) for number in range(2000)))
    read: list[int] = []
    inner = backend.store.backend.read

    def counted(*given: Any, **how: Any) -> Any:
        found = inner(*given, **how)
        read.append(len(found))
        return found

    monkeypatch.setattr(backend.store.backend, "read", counted)
    assert backend.load("k", last=3) == [user("1997"), user("1998"), user("1999")]
    assert 3 <= sum(read) <= 10


def test_a_user_owns_what_the_backend_creates(store: Store) -> None:
    SessionBackend(store, user="ada").append("k", user("mine"))
    assert [info.user for info in store.sessions()] == ["ada"]
