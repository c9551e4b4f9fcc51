"""What becomes of a Codex rollout: each turn once, though the file says it twice; tools, usage, forks, old formats."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import Blob, Custom, Message, Reasoning, Summary, Text, ToolCall, ToolResult, Usage
from holdfast.heads.info import SessionInfo
from holdfast.store import Store
from transcripts import DATA, events, source_bytes, take, take_one

ROOT = DATA / "codex"
MAIN = "codex:019bc000-0000-7000-8000-0000000000c1"
FORK = "codex:019bc000-0000-7000-8000-0000000000d2"
AGENT = "codex:019bc000-0000-7000-8000-0000000000e3"
OLD = "codex:5973b6c0-94b8-487b-a530-2aeb6098ae0e"


@pytest.fixture
def store() -> Iterator[Store]:
    with holdfast.open("memory://") as opened:
        yield opened


@pytest.fixture
def imported(store: Store) -> Store:
    take(store, ROOT)
    return store


def info(store: Store, id: str) -> SessionInfo:
    session = store.get(id)
    assert session is not None
    return session.info()


def messages(store: Store, id: str = MAIN) -> list[Message]:
    session = store.get(id)
    assert session is not None
    return session.messages()


def results(store: Store, id: str = MAIN) -> dict[str | None, ToolResult]:
    return {part.id: part for message in messages(store, id) for part in message.tool_results}


def usages(store: Store, id: str) -> list[Usage]:
    return [e.payload for e in events(store, id) if isinstance(e.payload, Usage)]


def test_every_line_is_kept_byte_for_byte(store: Store) -> None:
    reports = take(store, ROOT).files
    assert len(reports) == 4
    for report in reports:
        assert source_bytes(events(store, report.session)) == Path(report.path).read_bytes()


def test_a_session_tells_where_it_comes_from(imported: Store) -> None:
    main = info(imported, MAIN)
    assert (main.agent, main.project, main.parent) == ("codex", "radio", None)
    assert main.metadata["cwd"] == "/home/ana/radio"
    assert main.metadata["git_branch"] == "main"
    assert main.metadata["git_commit"] == "abc123"
    assert main.metadata["version"] == "0.98.0"
    assert holdfast.model.rfc3339(main.created_at) == "2026-01-15T10:00:00.500000Z"
    assert holdfast.model.rfc3339(main.updated_at) == "2026-01-15T10:00:28.500000Z"


def test_each_turn_is_one_message_though_the_file_says_it_twice(imported: Store) -> None:
    found = [(m.role, m.text) for m in messages(imported) if m.text and not (m.metadata or {}).get("meta")]
    assert found == [
        ("system", "<permissions instructions>ask</permissions instructions>"),
        ("user", "Why is the radio silent?"),
        ("assistant", "The card was missing."),
    ]
    echo = next(e.payload for e in events(imported, MAIN) if e.type == "x.codex.agent_message")
    assert isinstance(echo, Custom)
    assert echo.metadata == {"echo": True}


def test_the_words_of_a_turn_are_found_once(imported: Store) -> None:
    hits = imported.search("card missing", session=MAIN)
    assert [hit.event.type for hit in hits] == ["message"]


def test_what_the_program_says_in_the_users_name_is_no_title(imported: Store) -> None:
    assert info(imported, FORK).title == "Why is the radio silent?"
    context = next(m for m in messages(imported) if m.text.startswith("<environment_context>"))
    assert context.metadata == {"meta": True}


def test_a_name_that_was_given_is_the_title(imported: Store) -> None:
    assert info(imported, MAIN).title == "Silent radio"


def test_parts_of_messages(imported: Store) -> None:
    found = messages(imported)
    asked = next(m for m in found if m.text == "Why is the radio silent?")
    assert isinstance(asked.parts[1], Blob)
    assert asked.parts[1].mime_type == "image/png"
    assert str(asked.parts[1].content).startswith("iVBOR")
    assert (Reasoning(content="Check the volume"),) in [m.parts for m in found]
    calls = [part for m in found for part in m.tool_calls]
    assert calls == [
        ToolCall(id="c-1", name="shell", arguments={"command": ["amixer"]}),
        ToolCall(id="c-2", name="apply_patch", arguments="*** Begin Patch"),
        ToolCall(id="c-3", name="local_shell", arguments={"type": "exec", "command": ["ls"]}),
        ToolCall(id="ws-1", name="web_search", arguments={"type": "search", "query": "radio"}),
    ]


def test_results_of_tools_have_their_call_their_failure_and_their_duration(imported: Store) -> None:
    found = results(imported)
    assert found["c-1"] == ToolResult(id="c-1", name="shell", response="no card", is_error=True, duration=1_250_000)
    assert found["c-2"] == ToolResult(id="c-2", name="apply_patch", response="done", duration=500_000)
    assert (found["c-3"].is_error, found["c-3"].duration) == (True, 300_000)


def test_a_result_without_a_measure_takes_the_time_since_its_call(store: Store, tmp_path: Path) -> None:
    path = rollout(tmp_path, call("c"), output("c", "fine", second=4))
    assert results(store, take_one(store, path).session or "")["c"].duration == 3_000_000


def test_each_response_is_counted_once_though_counts_repeat(imported: Store) -> None:
    found = usages(imported, MAIN)
    assert [(u.input_tokens, u.cache_read_tokens, u.output_tokens, u.reasoning_tokens) for u in found] == [
        (1000, 400, 50, 20),
        (1500, 1000, 40, 0),
    ]
    assert {(u.model, u.provider) for u in found} == {("gpt-5.2-codex", "openai")}
    assert info(imported, MAIN).counts.input_tokens == 2500
    assert info(imported, MAIN).models == ("gpt-5.2-codex",)


def test_running_totals_alone_are_counted_by_their_growth(store: Store, tmp_path: Path) -> None:
    totals = [(100, 10), (100, 10), (250, 30), (40, 5)]
    lines = [
        line(
            "event_msg", {"type": "token_count", "info": {"total_token_usage": {"input_tokens": i, "output_tokens": o}}}
        )
        for i, o in totals
    ]
    id = take_one(store, rollout(tmp_path, *lines)).session or ""
    assert [(u.input_tokens, u.output_tokens) for u in usages(store, id)] == [(100, 10), (150, 20), (40, 5)]


def test_what_was_compacted_is_a_summary(imported: Store) -> None:
    assert [e.payload.content for e in events(imported, MAIN) if isinstance(e.payload, Summary)] == [
        "The radio had no sound card."
    ]


def test_lines_of_unknown_types_are_kept_and_reported(store: Store) -> None:
    report = next(r for r in take(store, ROOT).files if r.session == MAIN)
    assert report.unknown == {"tide_table": 1, "sonar_ping": 1}
    tide = next(e.payload for e in events(store, MAIN) if e.type == "x.codex.tide_table")
    assert isinstance(tide, Custom)
    assert tide.data["payload"] == {"height": 3}


def test_a_fork_points_to_its_parent_and_counts_only_what_is_new(imported: Store) -> None:
    fork = info(imported, FORK)
    assert fork.parent == MAIN
    assert [(u.input_tokens, u.output_tokens) for u in usages(imported, FORK)] == [(1500, 30)]
    assert fork.counts.input_tokens == 1500
    assert "Why is the radio silent?" in [m.text for m in messages(imported, FORK)]


@pytest.mark.parametrize("first", ["T10-00", "T11-00"])
def test_a_fork_and_its_parent_are_counted_once_in_whatever_order_they_come(store: Store, first: str) -> None:
    paths = sorted((ROOT / "sessions").rglob("*.jsonl"), key=lambda path: first not in path.name)
    for path in paths:
        take(store, path)
    assert info(store, MAIN).counts.input_tokens + info(store, FORK).counts.input_tokens == 4000


def test_forks_of_a_parent_that_is_not_there_count_their_common_history_once(store: Store, tmp_path: Path) -> None:
    path = next((ROOT / "sessions").rglob("*T11-00*.jsonl"))
    other = tmp_path / path.name.replace("d2.jsonl", "d3.jsonl")
    other.write_bytes(path.read_bytes().replace(b"0000000000d2", b"0000000000d3"))
    take(store, path)
    take(store, other)
    assert info(store, FORK).counts.input_tokens == 4000
    assert info(store, FORK[:-1] + "3").counts.input_tokens == 0


def test_a_subagent_points_to_the_session_that_spawned_it(imported: Store) -> None:
    agent = info(imported, AGENT)
    assert agent.parent == MAIN
    assert agent.metadata["subagent"] is True
    assert agent.metadata["agent_name"] == "Kelp"
    assert agent.metadata["agent_type"] == "explorer"


def test_a_rollout_from_before_there_were_envelopes(imported: Store) -> None:
    old = info(imported, OLD)
    assert (old.title, old.metadata["git_branch"]) == ("Say ahoy", "old-main")
    assert [m.text for m in messages(imported, OLD)][:2] == ["Say ahoy", "Ahoy"]
    assert results(imported, OLD)["k-1"] == ToolResult(
        id="k-1", name="shell", response="today", is_error=True, duration=2_000_000
    )
    assert old.created_at == holdfast.model.to_micros("2025-05-07T17:24:21.123Z")


def test_a_session_that_was_archived_adds_nothing(store: Store, tmp_path: Path) -> None:
    path = next((ROOT / "sessions").rglob("*T10-00*.jsonl"))
    archived = tmp_path / "archived_sessions" / path.name
    archived.parent.mkdir()
    archived.write_bytes(path.read_bytes())
    assert take_one(store, path).events > 0
    report = take_one(store, archived)
    assert (report.session, report.events, report.error) == (MAIN, 0, None)


@pytest.mark.parametrize(
    ("given", "response", "failed", "duration"),
    [
        ("plain", "plain", False, 1_000_000),
        ({"content": "held", "success": False}, "held", True, 1_000_000),
        ({"stdout": "x", "exitCode": 3}, {"stdout": "x", "exitCode": 3}, True, 1_000_000),
        ([{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}], "a\nb", False, 1_000_000),
        ('{"output":"o","metadata":{"exit_code":0,"duration_seconds":0.25}}', "o", False, 250_000),
        ("Wall time: 1.5 seconds\nProcess exited with code 7\nOutput:\nno", None, True, 1_500_000),
        ("Output:\nExit code: 9", None, False, 1_000_000),
        (None, None, False, 1_000_000),
    ],
)
def test_outputs_in_the_shapes_they_had_over_time(
    store: Store, tmp_path: Path, given: Any, response: Any, failed: bool, duration: int
) -> None:
    path = rollout(tmp_path, call("c"), output("c", given, second=2))
    result = results(store, take_one(store, path).session or "")["c"]
    assert result.response == (given if response is None else response)
    assert (result.is_error, result.duration) == (failed, duration)


def line(type: str, payload: dict[str, Any], second: int = 1) -> dict[str, Any]:
    return {"timestamp": f"2026-02-01T10:00:{second:02}Z", "type": type, "payload": payload}


def call(id: str) -> dict[str, Any]:
    return line("response_item", {"type": "function_call", "name": "shell", "arguments": "{}", "call_id": id})


def output(id: str, given: Any, second: int) -> dict[str, Any]:
    return line("response_item", {"type": "function_call_output", "call_id": id, "output": given}, second)


def rollout(folder: Path, *lines: dict[str, Any]) -> Path:
    path = folder / "rollout-2026-02-01T10-00-00-x.jsonl"
    meta = line("session_meta", {"id": "r-1", "cwd": "/w"}, 0)
    path.write_text("".join(json.dumps(each) + "\n" for each in (meta, *lines)))
    return path


# Each turn once, in whatever ways a file says it


def event(kind: str, second: int = 1, **fields: Any) -> dict[str, Any]:
    return line("event_msg", {"type": kind, **fields}, second)


def item(role: str, *texts: str, second: int = 1) -> dict[str, Any]:
    type = "input_text" if role == "user" else "output_text"
    content = [{"type": type, "text": text} for text in texts]
    return line("response_item", {"type": "message", "role": role, "content": content}, second)


def thought(*texts: str) -> dict[str, Any]:
    summary = [{"type": "summary_text", "text": text} for text in texts]
    return line("response_item", {"type": "reasoning", "summary": summary, "encrypted_content": "gAAA"})


def completed(kind: str, *texts: str, **fields: Any) -> dict[str, Any]:
    content = [{"type": "text" if kind == "UserMessage" else "Text", "text": text} for text in texts]
    return event("item_completed", item={"type": kind, "id": "i", "content": content, **fields})


def said(store: Store, id: str = "codex:r-1") -> list[tuple[str, str]]:
    """The conversation: who, and what; of thoughts too."""
    found = []
    for message in messages(store, id):
        thoughts = [str(part.content) for part in message.parts if isinstance(part, Reasoning)]
        found.append((message.role, message.text or " ".join(thoughts)))
    return found


ASK, THINK, ANSWER = ("user", "Which fail?"), ("assistant", "Hm."), ("assistant", "None.")
EVENTS = [
    event("task_started"),
    event("user_message", message="Which fail?", images=[]),
    event("agent_reasoning", text="Hm."),
    event("token_count", info=None),
    event("agent_message", message="None.", phase="final_answer"),
    event("task_complete", last_agent_message="None."),
]
COMPLETED = [
    completed("UserMessage", "Which fail?"),
    event("item_completed", item={"type": "Reasoning", "id": "r", "summary_text": ["Hm."], "raw_content": []}),
    completed("AgentMessage", "None.", phase="final_answer"),
]
ITEMS = [item("user", "Which fail?"), thought("Hm."), item("assistant", "None.")]
FORMS: dict[str, list[dict[str, Any]]] = {
    "events only": EVENTS,
    "completed items only": COMPLETED,
    "items only": ITEMS,
    "item, then event": [ITEMS[0], EVENTS[1], ITEMS[1], EVENTS[2], ITEMS[2], EVENTS[4]],
    "event, then item": [EVENTS[1], ITEMS[0], EVENTS[2], ITEMS[1], EVENTS[4], ITEMS[2]],
    "events of a response, then its items": [ITEMS[0], EVENTS[1], *EVENTS[2:5], *ITEMS[1:]],
    "all items, then all events": [*ITEMS, *EVENTS],
    "all events, then all items": [*EVENTS, *ITEMS],
    "completed items and items": [ITEMS[0], COMPLETED[0], ITEMS[1], COMPLETED[1], COMPLETED[2], ITEMS[2]],
    "events and completed items": [COMPLETED[0], EVENTS[1], COMPLETED[1], EVENTS[2], EVENTS[4], COMPLETED[2]],
    "all three": [ITEMS[0], COMPLETED[0], EVENTS[1], EVENTS[2], COMPLETED[1], ITEMS[1], *COMPLETED[2:], *ITEMS[2:]],
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("step", [100, 3, 1])
def test_a_turn_counts_once_in_whatever_form_it_stands_and_however_often_it_is_imported(
    store: Store, tmp_path: Path, name: str, step: int
) -> None:
    lines = FORMS[name]
    for upto in [*range(step, len(lines), step), len(lines)]:
        path = rollout(tmp_path, *lines[:upto])
        take(store, path)
    assert said(store) == [ASK, THINK, ANSWER]
    assert source_bytes(events(store, "codex:r-1")) == path.read_bytes()
    assert info(store, "codex:r-1").title == "Which fail?"
    assert [hit.event.type for hit in store.search("none", session="codex:r-1") if not is_aside(hit.event)] == [
        "message"
    ]
    assert take_one(store, path).events == 0


def is_aside(found: Any) -> bool:
    return found.type == "x.codex.task_complete"


@pytest.mark.parametrize("first", FORMS)
@pytest.mark.parametrize("second", ["events only", "completed items only", "items only", "event, then item"])
def test_a_file_may_go_on_in_another_form(store: Store, tmp_path: Path, first: str, second: str) -> None:
    more = json.loads(
        json.dumps(FORMS[second]).replace("Which fail?", "And now?").replace("None.", "Two.").replace("Hm.", "Ah.")
    )
    take(store, rollout(tmp_path, *FORMS[first]))
    take(store, rollout(tmp_path, *FORMS[first], *more))
    assert said(store) == [ASK, THINK, ANSWER, ("user", "And now?"), ("assistant", "Ah."), ("assistant", "Two.")]


@pytest.mark.parametrize("name", FORMS)
def test_the_same_words_in_two_turns_are_two_messages(store: Store, tmp_path: Path, name: str) -> None:
    take(store, rollout(tmp_path, *FORMS[name], *FORMS[name]))
    assert said(store) == [ASK, THINK, ANSWER] * 2


@pytest.mark.parametrize("events_first", [True, False])
def test_thoughts_in_several_pieces_are_told_once(store: Store, tmp_path: Path, events_first: bool) -> None:
    pieces = [
        event("agent_reasoning", text="One."),
        event("agent_reasoning_section_break"),
        event("agent_reasoning", text="Two."),
    ]
    lines = [*pieces, thought("One.", "Two.")] if events_first else [thought("One.", "Two."), *pieces]
    take(store, rollout(tmp_path, *lines))
    assert said(store) == [("assistant", "One.\n\nTwo.")]


def test_what_the_program_does_not_show_makes_no_other_message(store: Store, tmp_path: Path) -> None:
    whole = "Done.\n<oai-mem-citation>\nMEMORY.md:1\n</oai-mem-citation>"
    take(store, rollout(tmp_path, event("agent_message", message="Done."), item("assistant", whole)))
    assert said(store) == [("assistant", whole)]


def test_an_event_that_shows_one_piece_of_an_item_is_its_echo(store: Store, tmp_path: Path) -> None:
    take(store, rollout(tmp_path, item("user", "# In the editor", "Go"), event("user_message", message="Go")))
    assert [text for _, text in said(store)] == ["# In the editor\nGo"]


def test_pictures_that_only_an_event_tells_are_parts_of_its_message(store: Store, tmp_path: Path) -> None:
    url = "data:image/png;base64,iVBORw0KGgo="
    take(store, rollout(tmp_path, event("user_message", message="See", images=[url])))
    (message,) = messages(store, "codex:r-1")
    assert message.parts == (Text(content="See"), Blob(content="iVBORw0KGgo=", mime_type="image/png", modality="image"))


def test_an_echo_keeps_all_but_the_words(store: Store, tmp_path: Path) -> None:
    take(store, rollout(tmp_path, *FORMS["all events, then all items"]))
    echoes = [e.payload for e in events(store, "codex:r-1") if isinstance(e.payload, Custom) and e.payload.metadata]
    assert [(echo.type, echo.data) for echo in echoes] == [
        ("x.codex.message", {"type": "message", "role": "user"}),
        ("x.codex.reasoning", {"type": "reasoning", "encrypted_content": "gAAA"}),
        ("x.codex.message", {"type": "message", "role": "assistant"}),
    ]


def test_events_that_wait_for_their_items_keep_their_place_and_time(store: Store, tmp_path: Path) -> None:
    lines = [
        event("agent_message", 1, message="One."),
        event("token_count", 2, info=None),
        event("agent_message", 3, message="Two."),
        item("assistant", "Two.", second=4),
        line("turn_context", {"model": "m"}, 5),
    ]
    take(store, rollout(tmp_path, *lines))
    found = [(e.type, e.at // 1_000_000 % 60) for e in events(store, "codex:r-1")]
    assert found == [
        ("x.codex.session_meta", 0),
        ("message", 1),
        ("x.codex.token_count", 2),
        ("x.codex.agent_message", 3),
        ("message", 4),
        ("x.codex.turn_context", 5),
    ]


KILLED = """
import os, signal, sys
import holdfast
from holdfast import importer
importer.BATCH_EVENTS = 2
commits = 0
def killed(progress):
    global commits
    commits += 1
    if commits > int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
with holdfast.open(sys.argv[1]) as store:
    importer.import_files(store, importer.find_sources([sys.argv[2]]), progress=killed)
"""


def test_an_import_killed_while_events_wait_loses_none_and_tells_none_twice(tmp_path: Path, long: bool) -> None:
    lines = [each for form in FORMS.values() for each in form]
    path = rollout(tmp_path, *lines)
    with holdfast.open("memory://") as straight:
        take(straight, path)
        whole = said(straight)
    url = f"file://{tmp_path}/store"
    for _ in range(20 if long else 5):
        child = subprocess.run([sys.executable, "-c", KILLED, url, str(path), "1"], check=False, timeout=60)
        assert child.returncode == -signal.SIGKILL
    with holdfast.open(url) as store:
        take(store, path)
        assert said(store) == whole
        assert source_bytes(events(store, "codex:r-1")) == path.read_bytes()
        assert take_one(store, path).events == 0
