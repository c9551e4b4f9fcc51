"""a3s-code's trait over each backend: the tests of its two stores, and what is better here.

The first parts carry the names of the tests they were ported from. Where one of those pins a defect, as file names
that different ids share, the test here states the better outcome.
"""

from __future__ import annotations

import asyncio
import functools
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

import holdfast
from a3s_files import (
    CONFIG,
    artifact,
    fill,
    message,
    pretty,
    put,
    report as report_file,
    session as document,
    text,
    trace,
)
from holdfast.adapters.a3s import (
    DEFAULT_AUTO_COMPACT_THRESHOLD,
    ArtifactStore,
    ConfirmationPolicy,
    ContextUsage,
    FileSessionStore,
    LlmConfigData,
    LlmCostRecord,
    MemorySessionStore,
    Message,
    OtherBlock,
    PermissionPolicy,
    SessionConfig,
    SessionData,
    SessionQueueConfig,
    SessionState,
    SessionStore,
    SyncFileSessionStore,
    SyncSessionStore,
    Task,
    TextBlock,
    TokenUsage,
    ToolArtifact,
    ToolDefinition,
    ToolUseBlock,
    TraceEvent,
    VerificationCheck,
    VerificationReport,
)
from holdfast.errors import Conflict, Corrupt, Invalid, Trashed, Unavailable
from holdfast.formats.a3s import place_of
from holdfast.model import Edit, Usage
from holdfast.store import Store
from transcripts import take


def asynchronous(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that runs in a loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "sessions"
    made.mkdir()
    return made


@pytest.fixture
def files(store: Store, folder: Path) -> FileSessionStore:
    return FileSessionStore(store, folder)


@pytest.fixture
def memory() -> Iterator[MemorySessionStore]:
    made = MemorySessionStore()
    yield made
    made.sync.store.close()


def create_test_session_data() -> SessionData:
    return SessionData(
        id="test-session-1",
        config=SessionConfig(
            name="Test Session",
            workspace="/tmp/workspace",
            system_prompt="You are helpful.",
            max_context_length=200_000,
            auto_compact=False,
            auto_compact_threshold=DEFAULT_AUTO_COMPACT_THRESHOLD,
            storage_type="file",
        ),
        state=SessionState.Active,
        messages=[Message.user("Hello"), Message(role="assistant", content=[TextBlock(text="Hi there!")])],
        context_usage=ContextUsage(used_tokens=100, max_tokens=200_000, percent=0.0005, turns=2),
        total_usage=TokenUsage(prompt_tokens=50, completion_tokens=50, total_tokens=100),
        tool_names=["bash", "read"],
        created_at=1700000000,
        updated_at=1700000100,
    )


def create_test_verification_report() -> VerificationReport:
    check = VerificationCheck(id="check:test", kind="test", description="Run tests").with_status("passed")
    return VerificationReport.new("program:test", [check])


def create_test_artifacts() -> ArtifactStore:
    artifacts = ArtifactStore()
    artifacts.put(
        ToolArtifact(
            artifact_id="tool-output:test:a",
            artifact_uri="a3s://tool-output/test/a",
            tool_name="test",
            content="artifact content",
            original_bytes=16,
            shown_bytes=4,
        )
    )
    return artifacts


# FileSessionStore


@asynchronous
async def test_file_store_save_and_load(files: FileSessionStore) -> None:
    session = create_test_session_data()
    await files.save(session)
    loaded = await files.load(session.id)
    assert loaded == session


@asynchronous
async def test_file_store_load_nonexistent(files: FileSessionStore) -> None:
    assert await files.load("nonexistent") is None


@asynchronous
async def test_file_store_delete(files: FileSessionStore) -> None:
    session = create_test_session_data()
    await files.save(session)
    assert await files.exists(session.id)
    await files.delete(session.id)
    assert not await files.exists(session.id)
    assert await files.load(session.id) is None


@asynchronous
async def test_file_store_save_and_load_artifacts(files: FileSessionStore) -> None:
    await files.save_artifacts("session/a", create_test_artifacts())
    loaded = await files.load_artifacts("session/a")
    assert loaded is not None
    assert len(loaded) == 1
    found = loaded.get("a3s://tool-output/test/a")
    assert found is not None
    assert found.content == "artifact content"


@asynchronous
async def test_file_store_save_and_load_trace_events(files: FileSessionStore) -> None:
    about = {"artifact": {"artifact_uri": "a3s://tool-output/read/abc"}}
    event = TraceEvent.tool_execution("read", True, 0, 9, 12, about)
    assert (event.metadata_keys, event.artifact_uris) == (["artifact"], ["a3s://tool-output/read/abc"])
    await files.save_trace_events("session/a", [event])
    assert await files.load_trace_events("session/a") == [event]


@asynchronous
async def test_file_store_save_and_load_verification_reports(files: FileSessionStore) -> None:
    report = create_test_verification_report()
    assert report.status == "passed"
    await files.save_verification_reports("session/a", [report])
    assert await files.load_verification_reports("session/a") == [report]


@asynchronous
async def test_memory_store_save_load_and_delete_artifacts(memory: MemorySessionStore) -> None:
    session = create_test_session_data()
    await memory.save(session)
    await memory.save_artifacts(session.id, create_test_artifacts())
    loaded = await memory.load_artifacts(session.id)
    assert loaded is not None
    assert loaded.get("a3s://tool-output/test/a") is not None
    await memory.delete(session.id)
    assert await memory.load_artifacts(session.id) is None


@asynchronous
async def test_memory_store_save_load_and_delete_trace_events(memory: MemorySessionStore) -> None:
    session = create_test_session_data()
    event = TraceEvent.tool_execution("grep", False, 1, 2, 24)
    await memory.save(session)
    await memory.save_trace_events(session.id, [event])
    assert await memory.load_trace_events(session.id) == [event]
    await memory.delete(session.id)
    assert await memory.load_trace_events(session.id) is None


@asynchronous
async def test_memory_store_save_load_and_delete_verification_reports(memory: MemorySessionStore) -> None:
    session = create_test_session_data()
    report = create_test_verification_report()
    await memory.save(session)
    await memory.save_verification_reports(session.id, [report])
    assert await memory.load_verification_reports(session.id) == [report]
    await memory.delete(session.id)
    assert await memory.load_verification_reports(session.id) is None


@asynchronous
async def test_file_store_list(files: FileSessionStore) -> None:
    assert await files.list() == []
    for number in (3, 1, 2):
        session = create_test_session_data()
        session.id = f"session-{number}"
        await files.save(session)
    assert await files.list() == ["session-1", "session-2", "session-3"]


@asynchronous
async def test_file_store_overwrite(files: FileSessionStore) -> None:
    session = create_test_session_data()
    await files.save(session)
    session.messages.append(Message.user("Another message"))
    session.updated_at = 1700000200
    await files.save(session)
    loaded = await files.load(session.id)
    assert loaded is not None
    assert (len(loaded.messages), loaded.updated_at) == (3, 1700000200)


@asynchronous
async def test_file_store_path_traversal_prevention(files: FileSessionStore, folder: Path) -> None:
    session = create_test_session_data()
    session.id = "../../../etc/passwd"
    await files.save(session)
    assert list(folder.iterdir()) == []  # an id is no path: nothing is written by its name anywhere
    loaded = await files.load(session.id)
    assert loaded is not None
    assert loaded.id == session.id
    assert await files.load("______etc_passwd") is None


@asynchronous
async def test_file_store_with_policies(files: FileSessionStore) -> None:
    session = create_test_session_data()
    session.config.confirmation_policy = ConfirmationPolicy.on()
    session.config.permission_policy = PermissionPolicy().allowing("Bash(cargo:*)").denying("Bash(rm:*)")
    session.config.queue_config = SessionQueueConfig()
    await files.save(session)
    loaded = await files.load(session.id)
    assert loaded is not None
    assert loaded.config == session.config
    assert loaded.config.permission_policy is not None
    assert loaded.config.permission_policy.allow == [{"rule": "Bash(cargo:*)"}]


@asynchronous
async def test_file_store_with_llm_config(files: FileSessionStore, store: Store) -> None:
    session = create_test_session_data()
    session.llm_config = LlmConfigData(
        provider="anthropic", model="claude-3-5-sonnet-20241022", api_key="the-secret", base_url=None
    )
    await files.save(session)
    loaded = await files.load(session.id)
    assert loaded is not None
    assert loaded.llm_config == LlmConfigData(provider="anthropic", model="claude-3-5-sonnet-20241022")
    found = files.sync.session(session.id)
    assert found is not None
    assert "the-secret" not in repr((found.info(), list(found.events(include_hidden=True))))


# MemorySessionStore


@asynchronous
async def test_memory_store_save_and_load(memory: MemorySessionStore) -> None:
    session = create_test_session_data()
    await memory.save(session)
    assert await memory.load(session.id) == session


@asynchronous
async def test_memory_store_delete(memory: MemorySessionStore) -> None:
    session = create_test_session_data()
    await memory.save(session)
    assert await memory.exists(session.id)
    await memory.delete(session.id)
    assert not await memory.exists(session.id)


@asynchronous
async def test_memory_store_list(memory: MemorySessionStore) -> None:
    for number in range(1, 4):
        session = create_test_session_data()
        session.id = f"session-{number}"
        await memory.save(session)
    assert len(await memory.list()) == 3


# SessionData


def test_session_data_serialization() -> None:
    session = create_test_session_data()
    assert SessionData.from_json(session.to_json()) == session


def test_tool_names_from_definitions() -> None:
    tools = [ToolDefinition(name="bash", description="Execute bash", parameters={}), ToolDefinition(name="read")]
    assert SessionData.tool_names_from_definitions(tools) == ["bash", "read"]


# Names of files: theirs are read only where the id inside is the one that is asked for


@asynchronous
async def test_file_store_backslash_sanitization(files: FileSessionStore, folder: Path) -> None:
    fill(folder, document("foo\\bar\\baz", [message("user", text("backslash"))]))
    assert (folder / "foo_bar_baz.json").exists()
    loaded = await files.load("foo\\bar\\baz")
    assert loaded is not None
    assert (loaded.id, len(loaded.messages)) == ("foo\\bar\\baz", 1)
    for other in ("foo/bar/baz", "foo_bar_baz", "foo..bar/baz"):
        assert await files.load(other) is None
        assert not await files.exists(other)
    session = create_test_session_data()
    session.id = "foo/bar/baz"
    await files.save(session)
    assert await files.list() == ["foo/bar/baz", "foo\\bar\\baz"]


@asynchronous
async def test_file_store_mixed_separator_sanitization(files: FileSessionStore, folder: Path) -> None:
    fill(folder, document("foo/bar\\baz..qux", [message("user", text("mixed"))]))
    assert (folder / "foo_bar_baz_qux.json").exists()
    loaded = await files.load("foo/bar\\baz..qux")
    assert loaded is not None
    assert loaded.id == "foo/bar\\baz..qux"
    await files.save(loaded)
    assert await files.load("foo_bar_baz_qux") is None
    assert await files.load("foo/bar\\baz..qux") == loaded


# What is broken


@asynchronous
async def test_file_store_corrupted_json_recovery(files: FileSessionStore, folder: Path, store: Store) -> None:
    put(folder, "test-id.json", b"not valid json {{{")
    with pytest.raises(Corrupt):
        await files.load("test-id")
    for kind in ("artifacts", "traces", "verification"):
        (folder / kind).mkdir()
    take(store, folder)
    (folder / "test-id.json").unlink()
    with pytest.raises(Corrupt, match="no JSON"):  # also from the store, where it is kept
        await files.load("test-id")


@asynchronous
async def test_file_store_exists(files: FileSessionStore) -> None:
    session = create_test_session_data()
    assert not await files.exists(session.id)
    await files.save(session)
    assert await files.exists(session.id)
    await files.delete(session.id)
    assert not await files.exists(session.id)


@asynchronous
async def test_memory_store_exists(memory: MemorySessionStore) -> None:
    assert not await memory.exists("unknown-id")
    session = create_test_session_data()
    await memory.save(session)
    assert await memory.exists(session.id)


@asynchronous
async def test_file_store_health_check(files: FileSessionStore, folder: Path) -> None:
    await files.health_check()
    assert files.backend_name() == "file"
    assert list(folder.iterdir()) == []


@asynchronous
async def test_file_store_health_check_bad_dir(store: Store) -> None:
    with pytest.raises(Unavailable, match="can't be written"):
        await FileSessionStore(store, "/nonexistent/path/that/does/not/exist").health_check()


@asynchronous
async def test_memory_store_health_check(memory: MemorySessionStore) -> None:
    await memory.health_check()
    assert memory.backend_name() == "memory"


@asynchronous
async def test_file_store_load_empty_file(files: FileSessionStore, folder: Path) -> None:
    put(folder, "empty-session.json", b"")
    with pytest.raises(Corrupt):
        await files.load("empty-session")


@asynchronous
async def test_file_store_load_partial_json(files: FileSessionStore, folder: Path) -> None:
    put(folder, "partial-session.json", b'{"id":"partial-session","message')
    with pytest.raises(Corrupt):
        await files.load("partial-session")


@asynchronous
async def test_file_store_concurrent_save(files: FileSessionStore) -> None:
    session = create_test_session_data()
    await files.save(session)
    await asyncio.gather(*(files.save(session) for _ in range(5)))
    loaded = await files.load(session.id)
    assert loaded == session


@asynchronous
async def test_file_store_load_nonexistent_returns_none(files: FileSessionStore) -> None:
    assert await files.load("does-not-exist-at-all") is None


# What is better here


@pytest.fixture
def sessions(store: Store) -> SyncSessionStore:
    return SyncSessionStore(store)


def cost(number: int) -> LlmCostRecord:
    return LlmCostRecord(
        model="m-1",
        provider="p",
        prompt_tokens=10 * number,
        completion_tokens=1,
        total_tokens=10 * number + 1,
        cost_usd=0.001,
        timestamp=f"2026-11-21T02:23:5{number}.813416687Z",
    )


def test_ids_are_exact(sessions: SyncSessionStore) -> None:
    ids = ["a/b", "a\\b", "a_b", "a..b", "", ".", "CON", "con", "é", "e\u0301", "x" * 1000, "nul\0", "~x", "line\n"]
    for id in ids:
        session = create_test_session_data()
        session.id = id
        session.messages = [Message.user(f"I am {id!r}")]
        sessions.save(session)
    assert sessions.list() == sorted(ids)
    for id in ids:
        loaded = sessions.load(id)
        assert loaded is not None
        assert (loaded.id, loaded.messages) == (id, [Message.user(f"I am {id!r}")])
    sessions.delete("a_b")
    assert sessions.list() == sorted(set(ids) - {"a_b"})


def test_a_save_is_one_commit_with_all_that_belongs_to_it(sessions: SyncSessionStore) -> None:
    session = create_test_session_data()
    event = TraceEvent.tool_execution("bash", True, 0, 1, 2)
    sessions.save_snapshot(session, create_test_artifacts(), [event], [create_test_verification_report()])
    found = sessions.session(session.id)
    assert found is not None
    assert found.info().rev == 1
    assert [e.type for e in found.events()] == ["message", "message", "step", "report", "artifact"]
    session.messages.append(Message.user("more"))
    sessions.save(session)
    assert (found.info().rev, found.info().last) == (2, 6)
    assert sessions.load_trace_events(session.id) == [event]


def test_a_save_that_says_nothing_new_stores_nothing(sessions: SyncSessionStore) -> None:
    session = create_test_session_data()
    session.cost_records = [cost(1)]
    session.tasks = [Task(id="1", content="x")]
    sessions.save_snapshot(session, create_test_artifacts(), [], [])
    found = sessions.session(session.id)
    assert found is not None
    rev = found.info().rev
    sessions.save_snapshot(session, create_test_artifacts(), [], [])
    loaded = sessions.load(session.id)
    assert loaded is not None
    sessions.save(loaded)
    assert found.info().rev == rev


def test_a_compacted_session_hides_what_went(sessions: SyncSessionStore) -> None:
    session = create_test_session_data()
    session.messages = [Message.user(f"m{n}") for n in range(10)]
    session.cost_records = [cost(1), cost(2)]
    sessions.save(session)
    session.messages = [Message.user("summary"), *session.messages[8:], Message.user("next")]
    session.cost_records.append(cost(3))
    sessions.save(session)
    found = sessions.session(session.id)
    assert found is not None
    assert found.info().rev == 2
    assert [m.text for m in found.messages()] == ["summary", "m8", "m9", "next"]
    assert found.info().counts.messages == 4
    assert found.info().counts.calls == 3
    assert len([e for e in found.events() if isinstance(e.payload, Edit)]) == 1
    assert len(list(found.events(types="message", include_hidden=True))) == 14
    assert sessions.load(session.id) == session
    assert sessions.store.check().ok
    session.messages.pop()  # a turn that was taken back costs nothing but hiding it
    sessions.save(session)
    assert (found.info().last, len(found.messages())) == (found.info().last, 3)
    assert found.undo() is not None
    assert len(found.messages()) == 4


def test_costs_are_counted_once_whatever_is_saved(sessions: SyncSessionStore) -> None:
    session = create_test_session_data()
    session.cost_records = [cost(1), cost(2)]
    sessions.save(session)
    session.cost_records = [cost(2), cost(1)]
    sessions.save(session)
    session.cost_records = [cost(2), cost(1), cost(1)]  # the same twice is two calls
    sessions.save(session)
    found = sessions.session(session.id)
    assert found is not None
    assert (found.info().counts.calls, found.info().counts.input_tokens) == (3, 40)
    assert sessions.load(session.id) == session
    usages = [e.payload for e in found.events(types="usage") if isinstance(e.payload, Usage)]
    assert [usage.repeated for usage in usages] == [False, True, False]


def test_totals_guards_and_the_time_of_creation_are_kept(sessions: SyncSessionStore) -> None:
    session = create_test_session_data()
    session.total_usage = TokenUsage(prompt_tokens=7, completion_tokens=8, total_tokens=15, cache_read_tokens=3)
    session.total_cost = 0.0000123
    session.config.permission_policy = PermissionPolicy().denying("Bash(rm:*)")
    sessions.save(session)
    session.created_at = 1700009999  # as their host does with every save
    sessions.save(session)
    loaded = sessions.load(session.id)
    assert loaded is not None
    assert loaded.created_at == 1700000000
    assert (loaded.total_usage, loaded.total_cost) == (session.total_usage, 0.0000123)
    assert loaded.context_usage == session.context_usage
    assert loaded.config.permission_policy == session.config.permission_policy


def test_what_is_not_known_is_kept(sessions: SyncSessionStore) -> None:
    session = create_test_session_data()
    session.extra = {"goal": {"deep": [1, None]}}
    session.config.extra = {"sandbox": True}
    block = OtherBlock(extra={"type": "thinking", "thinking": "x", "signature": "s"})
    session.messages.append(Message(role="narrator", content=[block], extra={"transcript_text": "t"}))
    session.tasks = [Task(id="1", content="x", extra={"owner": "me"})]
    sessions.save(session)
    assert sessions.load(session.id) == session
    found = sessions.session(session.id)
    assert found is not None
    assert found.info().config["sandbox"] is True


def test_a_file_with_a_block_that_is_not_known_is_one_that_the_program_loads(
    sessions: SyncSessionStore, tmp_path: Path
) -> None:
    from holdfast.cli.foreign import FOREIGN

    session = create_test_session_data()
    session.messages.append(Message(role="user", content=[OtherBlock(extra={"type": "thinking", "thinking": "x"})]))
    sessions.save(session)
    FOREIGN["a3s"](sessions.store, [sessions.session_id(session.id)], str(tmp_path / "out"), False)
    made = SessionData.from_json((tmp_path / "out" / "test-session-1.json").read_bytes())
    assert made.messages[-1].content == [TextBlock(text='{"type":"thinking","thinking":"x"}')]


def test_what_the_program_could_not_read_is_not_saved(sessions: SyncSessionStore) -> None:
    session = create_test_session_data()
    session.tasks = [Task(id="1", content="x", status="done")]
    with pytest.raises(Invalid, match=r"tasks\[0\].status is 'done'"):
        sessions.save(session)
    event = TraceEvent.tool_execution("x", True, 0, 0, 0)
    event.kind = "guess"
    with pytest.raises(Invalid, match="kind"):
        sessions.save_trace_events("x", [event])
    assert sessions.list() == []
    with pytest.raises(Invalid, match="slash"):
        SyncSessionStore(sessions.store, "a/b")


def test_a_damaged_session_is_an_error_and_not_missing(store: Store) -> None:
    sessions = SyncSessionStore(store)
    session = create_test_session_data()
    sessions.save(session)
    from holdfast.plan import Commit, Entry

    head = store.head(sessions.session_id(session.id))
    store.backend.commit([Commit(ref=head.ref, at=1, append=[Entry("", 1, b"{no json")])])
    with pytest.raises(Corrupt):
        sessions.load(session.id)
    assert sessions.exists(session.id)


def test_a_deletion_takes_all_along_and_what_comes_after_begins_anew(sessions: SyncSessionStore) -> None:
    session = create_test_session_data()
    sessions.save_snapshot(session, create_test_artifacts(), [TraceEvent.tool_execution("x", True, 0, 0, 0)], [])
    sessions.delete(session.id)
    sessions.delete(session.id)
    assert sessions.load_trace_events(session.id) is None
    session.created_at += 100
    sessions.save(session)
    assert sessions.load(session.id) == session
    assert sessions.load_artifacts(session.id) is None
    assert sessions.load_verification_reports(session.id) is None
    found = sessions.session(session.id)
    assert found is not None
    found.fork(id="child")
    with pytest.raises(Conflict):
        sessions.delete(session.id)


def test_parts_without_a_session_are_no_session(sessions: SyncSessionStore) -> None:
    sessions.save_artifacts("later", create_test_artifacts())
    assert (sessions.list(), sessions.exists("later"), sessions.load("later")) == ([], False, None)
    session = create_test_session_data()
    session.id = "later"
    sessions.save(session)
    assert sessions.load("later") == session
    kept = sessions.load_artifacts("later")
    assert kept is not None
    assert len(kept) == 1


def test_many_artifacts_stay_and_their_order_too(sessions: SyncSessionStore) -> None:
    made = [ToolArtifact.of(artifact(n, "x" * n)) for n in range(300)]
    sessions.save_artifacts("x", ArtifactStore(made))
    kept = sessions.load_artifacts("x")
    assert kept is not None
    assert list(kept) == made
    sessions.save_artifacts("x", ArtifactStore([made[7], made[3], made[299]]))
    kept = sessions.load_artifacts("x")
    assert kept is not None
    assert list(kept) == [made[7], made[3], made[299]]
    twins = [made[1], ToolArtifact.of({**artifact(1, "other"), "artifact_uri": "a3s://twin"})]
    sessions.save_artifacts("twins", ArtifactStore(twins))
    kept = sessions.load_artifacts("twins")
    assert kept is not None
    assert list(kept) == twins


def test_writers_at_once_leave_one_whole_session(sessions: SyncSessionStore) -> None:
    def save(number: int) -> None:
        session = create_test_session_data()
        session.messages = [Message.user(f"{number}.{n}") for n in range(5)]
        for _ in range(3):
            sessions.save(session)

    threads = [threading.Thread(target=save, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loaded = sessions.load("test-session-1")
    assert loaded is not None
    first = loaded.messages[0].content[0].text[0]
    assert [m.content[0].text for m in loaded.messages] == [f"{first}.{n}" for n in range(5)]


SAVING = """
import sys
import holdfast
from holdfast.adapters.a3s import *
store = holdfast.open(sys.argv[1])
sessions = SyncSessionStore(store)
for n in range(int(sys.argv[3])):
    name = f"{sys.argv[2]}.{n}"
    named = {"artifact_id": name, "artifact_uri": name, "tool_name": "t", "content": name}
    kept = ToolArtifact(**named, original_bytes=1, shown_bytes=1)
    session = SessionData(id="shared", messages=[Message.user(name)] * 3, updated_at=n)
    event = TraceEvent.tool_execution(name, True, 0, 0, 0)
    report = VerificationReport.new(name, [])
    sessions.save_snapshot(session, ArtifactStore([kept]), [event], [report])
    print(n, flush=True)
"""


def told(sessions: SyncSessionStore) -> set[str]:
    """What each part of the shared session says: one name, if all are of one save."""
    loaded, artifacts = sessions.load("shared"), sessions.load_artifacts("shared")
    assert loaded is not None
    said = {message.content[0].text for message in loaded.messages}
    said |= {kept.content for kept in artifacts or ()}
    said |= {event.name for event in sessions.load_trace_events("shared") or ()}
    return said | {report.subject for report in sessions.load_verification_reports("shared") or ()}


@pytest.mark.parametrize("scheme", ["file", "sqlite"])
def test_a_process_that_is_killed_in_a_save_leaves_one_generation(tmp_path: Path, scheme: str) -> None:
    url = f"{scheme}://{tmp_path}/store" + (".db" if scheme == "sqlite" else "")
    for round in range(4):
        running = subprocess.Popen(
            [sys.executable, "-c", SAVING, url, str(round), "100000"], stdout=subprocess.PIPE, text=True
        )
        assert running.stdout is not None
        for _ in range(5 + round):
            running.stdout.readline()
        running.kill()
        running.communicate()
        with holdfast.open(url) as store:
            assert len(told(SyncSessionStore(store))) == 1
            assert store.check().ok


@pytest.mark.parametrize("scheme", ["file", "sqlite"])
def test_processes_that_save_at_once_lose_no_save(tmp_path: Path, scheme: str) -> None:
    url = f"{scheme}://{tmp_path}/store" + (".db" if scheme == "sqlite" else "")
    with holdfast.open(url) as store:
        children = [
            subprocess.Popen([sys.executable, "-c", SAVING, url, name, "15"], stdout=subprocess.DEVNULL)
            for name in ("a", "b")
        ]
        assert [child.wait(120) for child in children] == [0, 0]
        sessions = SyncSessionStore(store)
        assert len(told(sessions)) == 1
        found = sessions.session("shared")
        assert found is not None
        assert found.info().rev == 30
        assert store.check().ok


def test_tool_names_and_maps_keep_their_order(sessions: SyncSessionStore) -> None:
    session = create_test_session_data()
    session.tool_names = ["z", "a", "m"]
    session.config.extra = {"z": 1, "a": {"y": 1, "b": 2}}
    sessions.save(session)
    loaded = sessions.load(session.id)
    assert loaded is not None
    assert loaded.to_json() == session.to_json()


def test_the_queue_has_the_program_s_own_defaults() -> None:
    queue = SessionQueueConfig()
    assert queue.json() == {
        "controlMaxConcurrency": 2,
        "queryMaxConcurrency": 4,
        "executeMaxConcurrency": 2,
        "generateMaxConcurrency": 1,
    }
    read = SessionQueueConfig.of({"queryMaxConcurrency": 3, "control_max_concurrency": 9})
    assert read.extra == {"control_max_concurrency": 9}
    assert read.json() == {"queryMaxConcurrency": 3, "control_max_concurrency": 9}


def test_a_whole_config_comes_back(url: str) -> None:
    """Every field of every part says something, and all of it is there in the order in which the program writes it."""
    config = SessionConfig.of(CONFIG)
    session = create_test_session_data()
    session.config = config
    assert (config.extra, list(config.json()), config.json()) == ({}, list(CONFIG), CONFIG)
    with holdfast.open(url) as store:
        sessions = SyncSessionStore(store)
        sessions.save(session)
        found = sessions.load(session.id)
        assert found == session
        if url.startswith("memory"):
            return
    with holdfast.open(url) as store:
        found = SyncSessionStore(store).load(session.id)
        assert found == session
        assert found.config.queue_config is not None
        assert found.config.queue_config.json() == CONFIG["queue_config"]
        assert json.loads(found.to_json())["config"] == CONFIG


def test_without_an_event_loop_it_is_saved_all_the_same(sessions: SyncSessionStore) -> None:
    session = create_test_session_data()
    sessions.save(session)
    assert sessions.load(session.id) == session


def test_runs_are_appended_to_and_not_rewritten(sessions: SyncSessionStore) -> None:
    found = None
    events = [TraceEvent.tool_execution("bash", True, 0, n, n) for n in range(200)]
    for count in (50, 100, 200):
        sessions.save_trace_events("x", events[:count])
        found = sessions.store.get(sessions.session_id("x"))
        assert found is not None
        assert found.info().last == count  # each event was stored once
    assert sessions.load_trace_events("x") == events


def test_a_folder_of_theirs_is_read_through_until_it_is_imported(store: Store, folder: Path) -> None:
    fill(folder, document("old"), artifacts=[artifact()], traces=[trace()], reports=[report_file()])
    put(folder, "stray.json", b"{}")
    fill(folder, document("inside"), stem="outside")
    sessions = SyncFileSessionStore(store, folder)
    assert sessions.list() == ["old"]
    before = sessions.load("old")
    assert before is not None
    assert json.loads(before.to_json()) == document("old")
    parts = sessions.load_artifacts("old"), sessions.load_trace_events("old"), sessions.load_verification_reports("old")
    assert [len(part or ()) for part in parts] == [1, 1, 1]
    assert sessions.load("outside") is None
    take(store, folder)
    assert sessions.list() == ["inside", "old"]
    assert sessions.load("old") == before
    sessions.delete("old")
    assert (sessions.load("old"), sessions.exists("old")) == (None, False)
    fill(folder, document("never"))
    sessions.delete("never")
    assert (sessions.load("never"), sessions.load_trace_events("never")) == (None, None)
    assert (folder / "never.json").read_bytes() == pretty(document("never")).encode()


def test_what_was_begun_here_is_no_import_s_to_change(store: Store, folder: Path) -> None:
    sessions = SyncFileSessionStore(store, folder)
    session = create_test_session_data()
    sessions.save(session)
    fill(folder, document(session.id))
    (told,) = take(store, folder).files
    assert told.skipped == "a session of this id was begun here, and never imported"
    assert sessions.load(session.id) == session


def test_it_is_the_same_session_for_holdfast(sessions: SyncSessionStore) -> None:
    session = create_test_session_data()
    sessions.save(session)
    found = sessions.session(session.id)
    assert found is not None
    with found.turn() as turn:
        turn.append(holdfast.user("run it"), holdfast.assistant("done"))
    loaded = sessions.load(session.id)
    assert loaded is not None
    assert [m.role for m in loaded.messages] == ["user", "assistant", "user", "assistant"]
    assert loaded.state == SessionState.Active
    assert loaded.updated_at > session.updated_at
    loaded.state = SessionState.Completed
    sessions.save(loaded)
    assert found.info().state == "completed"
    context = found.context()
    assert [m.role for m in context.messages][-1] == "assistant"


def test_what_is_in_the_trash_is_not_there_and_is_not_written_over(store: Store, folder: Path) -> None:
    fill(folder, document("test-session-1"))
    sessions = SyncFileSessionStore(store, folder)
    session = create_test_session_data()
    sessions.save_snapshot(session, create_test_artifacts())
    store.trash.put(sessions.session_id(session.id))
    assert (sessions.load(session.id), sessions.exists(session.id), sessions.list()) == (None, False, [])
    assert sessions.load_artifacts(session.id) is None
    for call in (lambda: sessions.save(session), lambda: sessions.delete(session.id)):
        with pytest.raises(Trashed):
            call()
    store.trash.restore(sessions.session_id(session.id))
    assert sessions.load(session.id) == session


def test_what_the_user_calls_a_secret_is_not_written(url: str) -> None:
    with holdfast.open(url, secrets=["tenant"]) as store:
        sessions = SyncSessionStore(store)
        session = create_test_session_data()
        session.extra = {"tenant": "acme-corp"}
        call = ToolUseBlock(id="c", name="bill", input={"tenant": "acme-corp", "sum": 7})
        session.messages.append(Message(role="assistant", content=[call]))
        sessions.save(session)
        sessions.save_trace_events(session.id, [])
        found = sessions.session(session.id)
        assert found is not None
        assert "acme-corp" not in repr((found.info(), [event.raw for event in found.events()]))
        loaded = sessions.load(session.id)
        assert loaded is not None
        assert loaded.messages[-1].content[0].input == {"tenant": "***", "sum": 7}


def test_places_and_users_are_apart(store: Store) -> None:
    one, other = SyncSessionStore(store, "one", user="ada"), SyncSessionStore(store, "two")
    one.save(create_test_session_data())
    assert (one.list(), other.list()) == (["test-session-1"], [])
    assert [info.user for info in store.sessions()] == ["ada"]
    assert place_of("/a") != place_of("/b")


@asynchronous
async def test_the_asynchronous_store_has_all_methods(store: Store) -> None:
    sessions = SessionStore(store)
    session = create_test_session_data()
    await sessions.save_snapshot(session, create_test_artifacts(), [], [create_test_verification_report()])
    assert await sessions.load(session.id) == session
    assert await sessions.load_trace_events(session.id) == []
    await sessions.health_check()
    assert sessions.backend_name() == "holdfast"
    public = {name for name in vars(SyncSessionStore) if not name.startswith("_")}
    assert public - {"session", "session_id", "name"} == {
        name for name in vars(SessionStore) if not name.startswith("_")
    }
