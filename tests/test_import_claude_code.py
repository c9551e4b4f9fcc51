"""What becomes of a Claude Code transcript: its sessions, links, titles, messages, tools and usage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import Blob, Custom, Message, OtherPart, Reasoning, Summary, Text, ToolCall, ToolResult, Usage
from holdfast.heads.info import SessionInfo
from holdfast.store import Store
from transcripts import CLAUDE, MAIN, RESUMED, answered, events, said, source_bytes, take, take_one

ID = f"claude-code:{MAIN}"


@pytest.fixture
def store() -> Iterator[Store]:
    with holdfast.open("memory://") as opened:
        yield opened


@pytest.fixture
def imported(store: Store) -> Store:
    take(store, CLAUDE)
    return store


def info(store: Store, id: str) -> SessionInfo:
    session = store.get(id)
    assert session is not None
    return session.info()


def messages(store: Store, id: str = ID) -> list[Message]:
    session = store.get(id)
    assert session is not None
    return session.messages()


def results(store: Store) -> dict[str | None, ToolResult]:
    return {part.id: part for message in messages(store) for part in message.tool_results}


def usages(store: Store, id: str) -> list[Usage]:
    return [e.payload for e in events(store, id) if isinstance(e.payload, Usage)]


def test_every_line_is_kept_byte_for_byte(imported: Store) -> None:
    for path in CLAUDE.rglob("*.jsonl"):
        id = f"claude-code:{MAIN}/{path.stem}" if path.stem.startswith("agent-") else f"claude-code:{path.stem}"
        assert source_bytes(events(imported, id)) == path.read_bytes()


def test_a_session_tells_where_it_comes_from(imported: Store) -> None:
    main = info(imported, ID)
    assert (main.agent, main.project, main.state) == ("claude-code", "shop", "unknown")
    assert main.metadata["cwd"] == "/home/ana/shop"
    assert main.metadata["git_branch"] == "fix-cart"
    assert main.metadata["version"] == "2.1.4"
    assert main.metadata["source_program"] == "claude-code"
    assert main.metadata["source_session"] == MAIN
    assert main.metadata["source_file"].endswith(f"{MAIN}.jsonl")
    assert holdfast.model.rfc3339(main.created_at) == "2026-01-15T09:00:00.000000Z"
    assert holdfast.model.rfc3339(main.updated_at) == "2026-01-15T09:01:03.000000Z"


def test_lines_without_a_time_take_the_nearest_earlier_one(imported: Store) -> None:
    found = events(imported, ID)
    first, moon = found[0], next(e for e in found if e.type == "x.claude_code.moon-phase")
    assert first.at == info(imported, ID).created_at
    assert holdfast.model.rfc3339(moon.at) == "2026-01-15T09:01:03.000000Z"


def test_a_title_that_was_given_outweighs_a_summary_and_the_first_words(imported: Store) -> None:
    assert info(imported, ID).title == "Discount in the cart"


def test_without_a_title_the_first_words_that_the_user_wrote_are_it(imported: Store) -> None:
    assert info(imported, f"claude-code:{RESUMED}").title == "The cart total is wrong — please fix it"


@pytest.mark.parametrize(
    ("lines", "title"),
    [
        ([{"type": "summary", "summary": "Mine", "leafUuid": "s-1-1"}], "Mine"),
        ([{"type": "summary", "summary": "Another's", "leafUuid": "elsewhere"}], "Hello"),
        ([{"type": "custom-title", "customTitle": "Chosen"}, {"type": "ai-title", "aiTitle": "Made"}], "Chosen"),
        ([{"type": "ai-title", "aiTitle": "Old"}, {"type": "ai-title", "aiTitle": "New"}], "New"),
    ],
)
def test_titles(store: Store, tmp_path: Path, lines: list[dict[str, Any]], title: str) -> None:
    path = tmp_path / "t.jsonl"
    more = [holdfast.codec.encode_json({"sessionId": "s-1", **line}) + b"\n" for line in lines]
    path.write_bytes(said("<system-reminder>no words</system-reminder>", 0) + said("Hello", 1) + b"".join(more))
    assert info(store, take_one(store, path).session or "").title == title


def test_a_session_of_commands_only_is_called_after_the_first(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(said("<command-name>/init</command-name>", 0) + said("Do this", 1, isMeta=True))
    assert info(store, take_one(store, path).session or "").title == "/init"


def test_a_title_given_here_stays_when_the_file_grows(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(said("Hello", 0))
    id = take_one(store, path).session or ""
    session = store.get(id)
    assert session is not None
    session.update(title="Mine")
    with path.open("ab") as file:
        file.write(b'{"type":"custom-title","sessionId":"s-1","customTitle":"Theirs"}\n')
    assert take_one(store, path).events == 1
    assert info(store, id).title == "Mine"


def test_parts_of_messages(imported: Store) -> None:
    found = messages(imported)
    thinking = next(m for m in found if m.metadata and m.metadata.get("uuid") == "a-01")
    assert thinking.parts == (Reasoning(content="Look at the cart first.", signature="c2lnbmVk"),)
    call = next(m for m in found if m.metadata and m.metadata.get("uuid") == "a-03")
    assert call.parts == (ToolCall(id="t-1", name="Grep", arguments={"pattern": "discount"}),)
    assert call.finish_reason == "tool_use"
    picture = next(m for m in found if m.metadata and m.metadata.get("uuid") == "u-06")
    assert picture.parts[0] == Blob(content=picture.parts[0].content, mime_type="image/png", modality="image")
    assert picture.parts[1] == Text(content="See this picture")
    last = next(m for m in found if m.metadata and m.metadata.get("uuid") == "a-07")
    assert last.parts[0] == Reasoning(content="", signature="ZW5j")
    assert last.parts[2] == OtherPart(data={"type": "hologram", "shape": "cube"})


def test_messages_keep_their_links_and_say_what_the_user_did_not_write(imported: Store) -> None:
    found = {m.metadata["uuid"]: m.metadata for m in messages(imported) if m.metadata}
    assert found["a-01"]["parent_uuid"] == "u-03"
    assert found["a-01"]["response_id"] == found["a-03"]["response_id"] == "msg-1"
    assert found["u-01"]["meta"] is True
    assert found["u-02"]["meta"] is True
    assert "meta" not in found["u-03"]
    assert found["a-06"]["api_error"] is True


def test_what_the_user_wrote_while_the_agent_worked_is_a_message(imported: Store) -> None:
    queued = [m for m in messages(imported) if m.metadata and m.metadata.get("queued")]
    assert [(m.role, m.text) for m in queued] == [("user", "And add a test")]


def test_results_of_tools_have_their_call_their_failure_and_their_duration(imported: Store) -> None:
    found = results(imported)
    assert found["t-1"] == ToolResult(id="t-1", name="Grep", response="cart.py:12", duration=42_000)
    assert found["t-2"] == ToolResult(id="t-2", name="Bash", response="1 failed", is_error=True, duration=3_000_000)
    assert found["t-3"].duration == 34_500_000
    shown = next(m for m in messages(imported) if m.metadata and m.metadata.get("uuid") == "u-05")
    assert shown.role == "tool"
    assert isinstance(shown.parts[1], Blob)


def test_what_was_compacted_is_a_summary(imported: Store) -> None:
    found = [e.payload for e in events(imported, ID) if isinstance(e.payload, Summary)]
    assert [s.content for s in found] == ["This session is being continued: the discount was forgotten in cart.py."]


def test_lines_of_other_types_are_kept_and_unknown_ones_reported(store: Store) -> None:
    report = next(r for r in take(store, CLAUDE).files if r.session == ID)
    assert report.unknown == {"moon-phase": 1}
    moon = next(e.payload for e in events(store, ID) if e.type == "x.claude_code.moon-phase")
    assert isinstance(moon, Custom)
    assert moon.data == {"type": "moon-phase", "sessionId": MAIN, "phase": "full"}


def test_each_response_is_counted_once_with_all_its_input(imported: Store) -> None:
    found = {usage.response_id: usage for usage in usages(imported, ID)}
    assert list(found) == ["msg-1", "msg-2", "msg-3", "msg-4"]
    first = found["msg-1"]
    assert (first.model, first.provider) == ("claude-sonnet-4-5", "anthropic")
    assert (first.input_tokens, first.cache_read_tokens, first.cache_write_tokens) == (3210, 3000, 200)
    assert first.output_tokens == 60
    counts = info(imported, ID).counts
    assert (counts.input_tokens, counts.output_tokens) == (4 * 3210, 60 + 20 + 30 + 15)
    assert info(imported, ID).models == ("claude-sonnet-4-5",)


def test_a_response_that_grows_after_an_import_is_counted_in_full_and_no_more(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    lines = [said("Hi", 0), answered("m", 3, 1), answered("m", 10, 2), answered("n", 1, 3), answered("m", 12, 4)]
    for upto in (2, 2, 3, 4, 5, 5):
        path.write_bytes(b"".join(lines[:upto]))
        id = take_one(store, path).session or ""
    found = usages(store, id)
    assert sum(u.output_tokens for u in found) == 12 + 1
    assert sum(u.input_tokens for u in found) == 5 + 5


def test_a_subagent_is_a_session_whose_parent_is_the_main_one(imported: Store) -> None:
    agent = info(imported, f"{ID}/agent-a1b2c3d4")
    assert agent.parent == ID
    assert agent.title == "Find other totals"
    assert agent.metadata["agent_id"] == "a1b2c3d4"
    assert agent.metadata["agent_type"] == "general-purpose"
    assert agent.metadata["subagent"] is True
    assert [i.id for i in imported.sessions(parent=ID) if i.metadata.get("subagent")] == [agent.id]
    assert agent.counts.output_tokens == 8


def test_an_agent_file_beside_the_main_one_finds_its_parent_in_its_lines(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "agent-77.jsonl"
    path.write_bytes(said("Find it", 0, session="main", isSidechain=True, agentId="77"))
    assert take_one(store, path).session == "claude-code:main/agent-77"
    assert info(store, "claude-code:main/agent-77").parent == "claude-code:main"


def test_sidechains_within_a_file_stay_in_it_and_name_no_title(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(said("To the helper", 0, isSidechain=True) + said("To the agent", 1))
    id = take_one(store, path).session or ""
    assert [bool(m.metadata and m.metadata.get("sidechain")) for m in messages(store, id)] == [True, False]
    assert info(store, id).title == "To the agent"


def test_a_resumed_session_points_to_its_original_and_counts_only_what_is_new(imported: Store) -> None:
    resumed = info(imported, f"claude-code:{RESUMED}")
    assert resumed.parent == ID
    assert info(imported, ID).parent is None
    assert [u.response_id for u in usages(imported, resumed.id)] == ["msg-9"]
    assert resumed.counts.output_tokens == 12
    assert len(messages(imported, resumed.id)) == 11  # the history stands in it as it does in the file


def test_a_resumed_session_that_came_first_keeps_its_count_when_the_original_follows(store: Store) -> None:
    take(store, CLAUDE / f"{RESUMED}.jsonl")
    take(store, CLAUDE / f"{MAIN}.jsonl")
    both = usages(store, ID) + usages(store, f"claude-code:{RESUMED}")
    assert sorted(u.response_id or "" for u in both) == ["msg-1", "msg-2", "msg-3", "msg-4", "msg-9"]


def test_a_resumed_session_finds_an_original_that_was_imported_before(store: Store) -> None:
    take(store, CLAUDE / f"{MAIN}.jsonl")
    take(store, CLAUDE / f"{RESUMED}.jsonl")
    assert info(store, f"claude-code:{RESUMED}").parent == ID
    assert [u.response_id for u in usages(store, f"claude-code:{RESUMED}")] == ["msg-9"]


FIRST, SECOND, THIRD = (f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2, 3))


def chain(folder: Path, *, rename: bool) -> None:
    """Three files, each of which begins with the lines of the one before, with new session ids in them or the old."""
    lines: list[bytes] = []
    before = ""
    for number, id in enumerate((FIRST, SECOND, THIRD)):
        if rename:
            lines = [
                line.replace(f'"sessionId": "{before}"'.encode(), f'"sessionId": "{id}"'.encode()) for line in lines
            ]
        lines.append(said(f"Part {number}", number * 10, session=id))
        lines.append(answered(f"m-{number}", 1, number * 10 + 1, session=id))
        (folder / f"{id}.jsonl").write_bytes(b"".join(lines))
        before = id


@pytest.mark.parametrize("rename", [True, False], ids=["new ids", "old ids"])
def test_a_chain_of_resumed_sessions_is_linked_one_by_one(store: Store, tmp_path: Path, rename: bool) -> None:
    chain(tmp_path, rename=rename)
    take(store, tmp_path)
    parents = [info(store, f"claude-code:{id}").parent for id in (FIRST, SECOND, THIRD)]
    assert parents == [None, f"claude-code:{FIRST}", f"claude-code:{SECOND}"]
    assert [info(store, f"claude-code:{id}").counts.output_tokens for id in (FIRST, SECOND, THIRD)] == [1, 1, 1]


def test_of_two_branches_the_one_that_went_on_later_is_the_fork(store: Store, tmp_path: Path) -> None:
    common = said("Common", 0, session="x") + answered("m-0", 1, 1, session="x")
    (tmp_path / f"{SECOND}.jsonl").write_bytes(common + said("Went on first", 5, session="x"))
    (tmp_path / f"{FIRST}.jsonl").write_bytes(common + said("Forked later", 50, session="x"))
    take(store, tmp_path)
    assert info(store, f"claude-code:{FIRST}").parent == f"claude-code:{SECOND}"
    total = [info(store, f"claude-code:{id}").counts.output_tokens for id in (FIRST, SECOND)]
    assert sum(total) == 1


def test_a_fork_names_its_parent_itself(store: Store, tmp_path: Path) -> None:
    path = tmp_path / f"{FIRST}.jsonl"
    path.write_bytes(said("Hi", 0, session=FIRST, forkedFrom={"sessionId": SECOND, "messageUuid": "u"}))
    assert info(store, take_one(store, path).session or "").parent == f"claude-code:{SECOND}"


def test_a_copy_of_a_file_at_another_place_adds_nothing(store: Store, tmp_path: Path) -> None:
    take(store, CLAUDE / f"{MAIN}.jsonl")
    copy = tmp_path / f"{MAIN}.jsonl"
    copy.write_bytes((CLAUDE / f"{MAIN}.jsonl").read_bytes())
    before = info(store, ID).last
    assert take_one(store, copy).events == 0
    assert info(store, ID).last == before
    assert info(store, ID).parent is None


def test_calls_and_results_on_lines_of_their_own_are_read(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "old.jsonl"
    path.write_bytes(
        said("Read it", 0)
        + b'{"type":"tool_use","sessionId":"s-1","id":"t","name":"bash","input":{"command":"ls"},'
        + b'"timestamp":"2026-02-01T10:00:01Z"}\n'
        + b'{"type":"tool_result","sessionId":"s-1","tool_use_id":"t","output":"a.txt",'
        + b'"timestamp":"2026-02-01T10:00:02.500Z"}\n'
    )
    found = messages(store, take_one(store, path).session or "")
    assert found[1].parts == (ToolCall(id="t", name="bash", arguments={"command": "ls"}),)
    assert found[2].parts == (ToolResult(id="t", name="bash", response="a.txt", duration=1_500_000),)
