"""a3s-code's folders, read and written: what comes back to the byte, what is refused, what is kept beside."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

import holdfast
from a3s_files import (
    TALK,
    Json,
    artifact,
    cost,
    encoded,
    fill,
    fill_v1,
    message,
    pretty,
    put,
    report,
    session,
    text,
    trace,
    tree,
)
from holdfast.errors import Conflict, Deleted, Invalid
from holdfast.formats import a3s_rules as rules
from holdfast.formats.a3s import place_of, session_id_of
from holdfast.formats.written import Written
from holdfast.importer import FileReport
from holdfast.model import Edit, Message, Source, Step
from holdfast.session import Session
from holdfast.store import Store
from shell import Shell
from transcripts import take


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as 2.0.0 leaves it."""
    made = tmp_path / "sessions"
    fill(
        made,
        session("fixture", tasks=[]),
        artifacts=[artifact(1), artifact(2, "ünï\n" * 30_000)],
        traces=[trace(metadata_keys=["exit_code"], artifact_uris=[artifact(1)["artifact_uri"]]), trace("read")],
        reports=[report(), report(residual_risks=["who knows"])],
    )
    fill(made, session("foo/bar\\baz..qux", [message("user", text("traversal"))]))
    fill(made, session("ユニコード", []))
    return made


def exported(store: Store, out: Path, ids: list[str] | None = None) -> Written:
    """Write sessions, of all if none are named, as the command does."""
    from holdfast.cli.foreign import FOREIGN

    ids = [info.id for info in store.sessions(limit=1000)] if ids is None else ids
    return FOREIGN["a3s"](store, ids, str(out), False)


def of(store: Store, folder: Path, id: str) -> Session:
    found = store.get(session_id_of(place_of(str(folder)), id))
    assert found is not None
    return found


def by_id(reports: list[FileReport]) -> dict[str, FileReport]:
    return {(report.session or "").partition("/")[2]: report for report in reports}


# The folders of 2.0 and 3.x


def test_a_folder_is_recognised_and_comes_back_byte_for_byte(store: Store, folder: Path, tmp_path: Path) -> None:
    reports = take(store, folder).files
    assert [report.error for report in reports] == [None, None, None]
    assert {report.program for report in reports} == {"a3s"}
    exported(store, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(folder)
    assert store.check().ok


def test_a_workspace_is_searched_for_its_sessions(store: Store, tmp_path: Path) -> None:
    fill(tmp_path / "work" / ".a3s" / "tui" / "sessions", session("tui"))
    (found,) = take(store, tmp_path / "work").files
    assert (found.session or "").endswith("/tui")
    assert found.error is None


def test_a_folder_with_nothing_but_session_files_is_recognised(store: Store, tmp_path: Path) -> None:
    put(tmp_path, "plain/a.json", b"{}")
    put(tmp_path, "plain/s-1.json", pretty(session()))
    told = by_id(take(store, tmp_path / "plain").files)
    assert set(told) == {"s-1", "~store"}
    exported(store, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "plain")
    put(tmp_path, "other/s.json", b'{"id": 1, "name": "x"}')
    assert take(store, tmp_path / "other").files == []


def test_what_a_session_says_becomes_its_own(store: Store, folder: Path) -> None:
    take(store, folder)
    found = of(store, folder, "fixture")
    info = found.info()
    assert (info.state, info.agent, info.title) == ("idle", "a3s", "Run the tests, please.")
    assert info.created_at == 1795227194_000_000
    assert (info.counts.input_tokens, info.counts.output_tokens, info.counts.calls, info.counts.cost) == (
        60,
        60,
        2,
        4200,
    )
    assert (info.config["workspace"], info.config["llm"]["model"]) == ("/home/dev/project", "m-1")
    assert [m.role for m in found.messages()] == ["user", "assistant", "tool", "user", "assistant"]
    assert found.validate() == []
    (call,) = found.messages()[1].tool_calls
    assert (call.id, call.arguments) == ("call-1", {"command": "make test", "n": 1e-7})
    assert [r.status for r in found.reports()] == ["failed", "failed"]
    steps = [event.payload for event in found.events(types="step")]
    assert isinstance(steps[0], Step)
    assert (steps[0].duration, steps[0].metadata_keys, steps[0].output_bytes) == (6000, ("exit_code",), 12)


def test_artifacts_are_the_sessions_own(store: Store, folder: Path) -> None:
    take(store, folder)
    artifacts = of(store, folder, "fixture").artifacts
    told = artifact(2, "ünï\n" * 30_000)
    found = artifacts.stat(told["artifact_uri"])
    assert found is not None
    assert (found.name, found.size, found.shown, found.tool) == (told["artifact_id"], 180_000, 4, "bash")
    assert artifacts.get(told["artifact_id"]) == told["content"].encode()


def test_a_second_import_changes_nothing(store: Store, folder: Path) -> None:
    take(store, folder)
    revs = {info.id: info.rev for info in store.sessions(limit=100)}
    again = take(store, folder)
    assert again.events == 0
    assert {info.id: info.rev for info in store.sessions(limit=100)} == revs


def test_a_session_that_went_on_adds_what_is_new(store: Store, folder: Path, tmp_path: Path) -> None:
    take(store, folder)
    longer = session("fixture", [*TALK, message("user", text("more"))], updated_at=1795227300, state="Completed")
    longer["cost_records"] = [cost(1), cost(2), cost(3)]
    fill(folder, longer, artifacts=[artifact(1), artifact(3)], traces=[trace("new")], reports=[])
    told = by_id(take(store, folder).files)["fixture"]
    found = of(store, folder, "fixture")
    assert found.info().state == "completed"
    assert len(found.messages()) == 6
    assert found.info().counts.calls == 3
    assert [a.name for a in found.artifacts.list()] == [artifact(1)["artifact_id"], artifact(3)["artifact_id"]]
    assert list(found.reports()) == []
    assert told.known >= 7
    exported(store, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(folder)
    assert store.check().ok


def test_a_compacted_session_hides_what_went_and_leaves_what_was_said_here(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    take(store, folder)
    found = of(store, folder, "fixture")
    found.append(holdfast.user("said here"))
    fill(folder, session("fixture", [message("user", text("Summary")), TALK[4]], tasks=[], updated_at=1795227999))
    take(store, folder)
    assert [m.text for m in found.messages()] == ["said here", "Summary", "A picture."]
    assert len([e for e in found.events(include_hidden=True) if isinstance(e.payload, Message)]) == 8
    assert [e.payload.action for e in found.events() if isinstance(e.payload, Edit)] == ["rewind"]
    assert found.info().counts.calls == 2  # the same calls are not counted again
    assert store.check().ok
    assert take(store, folder).events == 0
    fill(folder, session("fixture", [message("user", text("Summary"))], tasks=[], updated_at=1795229999))
    take(store, folder)
    assert [m.text for m in found.messages()] == ["said here", "Summary"]


def test_files_of_later_versions_are_kept_as_they_are(store: Store, folder: Path, tmp_path: Path) -> None:
    put(folder, "runs/fixture.json", b'[ {"snapshot":{"id":"run-1","session_id":"fixture"},"events":[]} ]\n')
    put(folder, "subagent_tasks/fixture.json", b"[]")
    put(folder, "loop_checkpoints/run-1.json", b'{"run_id":"run-1","session_id":"fixture","turn":1}')
    put(folder, "workflow_checkpoints/w-1.json", b'{"of": "nobody"}')
    put(folder, "notes/hello.bin", b"\xff\x00\xfe")
    reports = by_id(take(store, folder).files)
    held = list(of(store, folder, "fixture").events(types="x.a3s.file"))
    assert len(held) == 3
    assert reports["~store"].unreadable == []
    exported(store, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(folder)
    assert take(store, folder).events == 0


def test_names_that_share_a_file_are_told_by_the_id_inside(store: Store, folder: Path) -> None:
    fill(folder, session("a_b", [message("user", text("the other"))]), stem="x")
    fill(folder, session("a/b", [message("user", text("slash"))]))
    reports = by_id(take(store, folder).files)
    assert of(store, folder, "a/b").messages()[0].text == "slash"
    assert of(store, folder, "a_b").messages()[0].text == "the other"
    assert reports["a_b"].notes == ["the session inside is 'a_b', which its file is not named for"]
    fill(folder, session("a/b", [message("user", text("twice"))]), stem="y")
    reports = by_id(take(store, folder).files)
    assert "tells the session 'a/b' that a_b.json tells, too" in reports["~store"].unreadable[0].reason


def test_two_sessions_are_never_given_one_file(store: Store, tmp_path: Path) -> None:
    for id in ("a/b", "a_b"):
        store.create(id).append(holdfast.user("x"))
    with pytest.raises(Conflict):
        exported(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    store.create("n" * 300)
    with pytest.raises(Invalid):
        exported(store, tmp_path / "out", ["n" * 300])


@pytest.mark.parametrize("path", ["../out.json", "/tmp/x.json", "a/../../x.json", "nul\0.json", "a//b.json", ""])
def test_no_file_is_written_outside_of_the_folder(store: Store, tmp_path: Path, path: str) -> None:
    hostile = holdfast.custom("x.a3s.file", {"path": path})
    source = Source(file="x", line=1, raw="{}")
    store.create("a3s:place/~store").append(msgspec.structs.replace(hostile, source=source))
    store.create("a3s:place/x", metadata={"a3s": {"document": {"id": "x"}, "file": path}})
    for id in ("a3s:place/~store", "a3s:place/x"):
        with pytest.raises(Invalid):
            exported(store, tmp_path / "out", [id])
    assert not (tmp_path / "out.json").exists()


def test_a_session_that_was_deleted_here_stays_so(store: Store, folder: Path) -> None:
    take(store, folder)
    of(store, folder, "fixture").delete()
    told = by_id(take(store, folder).files)["fixture"]
    assert told.skipped == "its session was deleted here"
    with pytest.raises(Deleted):
        store.head(session_id_of(place_of(str(folder)), "fixture"))


def test_a_session_in_the_trash_here_is_left_there(store: Store, folder: Path) -> None:
    take(store, folder)
    id = of(store, folder, "fixture").id
    store.trash.put(id)
    fill(folder, session("fixture", []))
    assert by_id(take(store, folder).files)["fixture"].skipped == "its session is in the trash here"
    store.trash.restore(id)
    assert take(store, folder).failed == []
    assert of(store, folder, "fixture").messages() == []


def test_a_key_in_a_file_is_left_out(store: Store, folder: Path, tmp_path: Path) -> None:
    secret = "sk-THE-KEY-123"
    fill(folder, session("keyed", llm_config={"api_key": secret}))
    put(folder, "broken.json", '{"llm_config": {"api_key": "' + secret + '"')
    told = by_id(take(store, folder).files)
    assert told["keyed"].notes == ["the key of a model was left out"]
    for info in store.sessions(limit=100):
        found = store.get(info.id)
        assert found is not None
        assert secret not in repr((info, [event.raw for event in found.events(include_hidden=True)]))
    exported(store, tmp_path / "out")
    assert all(secret.encode() not in data for data in tree(tmp_path / "out").values())
    made = json.loads((tmp_path / "out" / "keyed.json").read_bytes())
    assert made["llm_config"] == {"provider": "anthropic", "model": "m-1", "base_url": None}


# What the program takes, and what it refuses


def without(name: str, under: str = "") -> Callable[[Json], None]:
    def change(document: Json) -> None:
        del (document[under] if under else document)[name]

    return change


def having(name: str, value: Any, under: str = "") -> Callable[[Json], None]:
    def change(document: Json) -> None:
        (document[under] if under else document)[name] = value

    return change


def block(value: Any) -> Callable[[Json], None]:
    return having("messages", [{"role": "user", "content": [value]}])


REQUIRED = [
    *(without(name) for name in ("id", "config", "state", "messages", "context_usage", "total_usage", "tool_names")),
    *(without(name) for name in ("thinking_enabled", "created_at", "updated_at")),
    *(without(name, "context_usage") for name in ("used_tokens", "max_tokens", "percent", "turns")),
    *(without(name, "total_usage") for name in ("prompt_tokens", "completion_tokens", "total_tokens")),
    *(without(name, "config") for name in ("name", "workspace", "max_context_length", "auto_compact")),
    *(without(name, "llm_config") for name in ("provider", "model")),
]
REFUSED = [
    *REQUIRED,
    having("state", "active"),
    having("state", 1),
    having("id", None),
    having("messages", None),
    having("messages", [{"role": "user", "content": "a text"}]),
    having("messages", [{"content": []}]),
    having("messages", [{"role": "user"}]),
    block({"type": "thinking", "thinking": "x"}),
    block({"type": "text"}),
    block({"type": "tool_use", "id": "1", "name": "x"}),
    block({"type": "tool_result", "tool_use_id": "1", "content": {"a": 1}}),
    block({"type": "tool_result", "tool_use_id": "1", "content": [{"type": "document"}]}),
    block({"type": "image", "source": {"type": "url", "media_type": "image/png", "data": ""}}),
    having("cost_records", None),
    having("tasks", None),
    having("tasks", [{"id": "1", "description": "x", "status": "pending"}]),
    having("tasks", [{"id": "1", "content": "x", "status": "done"}]),
    having("todos", []),
    having("thinking_budget", -1),
    having("created_at", 1.5),
    having("tool_names", [1]),
    having("max_context_length", 2**32, "config"),
    having("auto_compact_threshold", None, "config"),
    having("storage_type", "File", "config"),
    having("planning_mode", "auto", "config"),
    having("permission_policy", {"deny": None}, "config"),
    having("permission_policy", {"allow": [{"pattern": "x"}]}, "config"),
    having("confirmation_policy", {"enabled": True}, "config"),
    having("security_config", {"enabled": True}, "config"),
    having("queue_config", {"laneHandlers": {"Fast": {"mode": "Internal"}}}, "config"),
    # A struct as an array of its fields: each that has no default must be there, and none may be too much.
    having("config", ["", "/src", None, 200_000, True, 0.8, "file", None, None, None, None]),
    having("context_usage", [0, 200_000, 0.0]),
    having("context_usage", [0, 200_000, 0.0, 0, 0]),
    having("context_usage", ["0", 200_000, 0.0, 0]),
    having("llm_config", ["p", "m", None]),
    having("messages", [["user"]]),
    block([]),
    block(["text"]),
    block(["text", "a", "b"]),
    block([0, "a"]),
    block(["thinking", "x"]),
    having("state", {"Active": 1}),
    having("state", {"Active": None, "Paused": None}),
    having("state", ["Active"]),
    having("queue_config", {"laneHandlers": {"Query": ["Internal", 1, 2]}}, "config"),
    having("cost_records", [{**cost(1), "timestamp": "2026-06-14"}]),
]
ACCEPTED = [
    *(without(name) for name in ("total_cost", "cost_records", "thinking_budget", "tasks", "llm_config", "model_name")),
    *(without(name, "config") for name in ("system_prompt", "auto_compact_threshold", "storage_type", "planning_mode")),
    *(without(name, "total_usage") for name in ("cache_read_tokens", "cache_write_tokens")),
    without("base_url", "llm_config"),
    having("unknown_field", {"any": [1, None]}),
    having("unknown_field", 2**63, "config"),
    having("messages", [{"role": "narrator", "content": [], "trust": "external"}]),
    block({"type": "tool_result", "tool_use_id": "1", "content": "x", "is_error": None}),
    block({"type": "tool_result", "tool_use_id": "1", "content": [text("x")], "trust": "external"}),
    block({"type": "text", "text": "", "more": 1.0}),
    having("permission_policy", {"deny": ["Bash"], "ask": [{"rule": "Read(*)"}]}, "config"),
    having("queue_config", {"control_max_concurrency": 9, "dlqMaxSize": None}, "config"),
    having("percent", 1, "context_usage"),
    having("parent_id", "other"),
    having("created_at", -(2**63)),
    having("thinking_budget", 2**64 - 1),
    having("config", ["", "/src", None, 200_000, True, 0.8, "file", None, None, None, None, None]),
    having("config", ["", "/src", None, 200_000, True, 0.8, "file", None, None, [["Bash"]], "p", None, "Auto", True]),
    having("context_usage", [0, 200_000, 0.5, 0]),
    having("total_usage", [1, 2, 3, None, 4]),
    having("llm_config", ["p", "m", None, None]),
    having("messages", [["user", [["text", "hi"], {"type": "text", "text": "you"}]], ["assistant", [], "hm"]]),
    block(["tool_use", "1", "bash", {"a": [1]}]),
    block(["tool_result", "1", "out", None]),
    block(["tool_result", "1", [["text", "out"], ["image", ["base64", "image/png", ""]]], True]),
    block({"type": "image", "source": ["base64", "image/png", ""]}),
    having("cost_records", [["m", "p", 1, 2, 3, 0.5, "2026-06-14T01:02:03Z", None]]),
    *(
        having("cost_records", [{**cost(1), "timestamp": told}])
        for told in ("+10000-01-01T00:00:00Z", "-0044-03-15T00:00:00Z", " 2026-6-14 1:2:3 UTC", "2026-06-14T01:02:60Z")
    ),
    having("tasks", [["1", "Test", "pending", "high", None, [], None], ["2", "More", {"failed": None}]]),
    having("state", {"Active": None}),
    having("storage_type", {"memory": None}, "config"),
    having("queue_config", {"laneHandlers": {"Query": ["Internal", 1]}}, "config"),
]


@pytest.mark.parametrize("change", REFUSED)
def test_what_the_program_refuses_is_isolated_told_and_kept(tmp_path: Path, change: Callable[[Json], None]) -> None:
    document = session()
    document = copy.deepcopy(document)
    change(document)
    folder = tmp_path / "sessions"
    fill(folder, document if document.get("id") else {**document, "id": "s-1"})
    put(folder, "s-1.json", pretty(document))
    fill(folder, session("sound"))
    with holdfast.open("memory://") as store:
        told = by_id(take(store, folder).files)
        assert set(told) == {"sound", "~store"}
        assert [u.reason.partition(":")[0] for u in told["~store"].unreadable] == ["s-1.json"]
        exported(store, tmp_path / "out")
        assert tree(tmp_path / "out") == tree(folder)


@pytest.mark.parametrize("change", ACCEPTED)
def test_what_the_program_accepts_comes_back_as_it_was(tmp_path: Path, change: Callable[[Json], None]) -> None:
    document = copy.deepcopy(session())
    change(document)
    folder = tmp_path / "sessions"
    fill(folder, document)
    with holdfast.open("memory://") as store:
        (told,) = take(store, folder).files
        assert (told.error, told.unreadable) == (None, [])
        exported(store, tmp_path / "out")
        assert tree(tmp_path / "out") == tree(folder)
        assert take(store, folder).events == 0


def test_a_session_as_an_array_is_what_it_says(store: Store, tmp_path: Path) -> None:
    document = session("s-1")
    order = list(rules.TOP)
    folder = tmp_path / "sessions"
    fill(folder, document, artifacts=[artifact(1)], traces=[trace()], reports=[report()])
    values = [document.get(name) for name in order]
    put(folder, "s-1.json", pretty(values))
    put(folder, "artifacts/s-1/artifacts.json", pretty([[list(artifact(1).values())]]))
    put(folder, "verification/s-1.json", pretty([list(report().values())]))
    take(store, folder)
    found = of(store, folder, "s-1")
    assert [message.text for message in found.messages()] == texts_of(document)
    assert found.info().config["workspace"] == document["config"]["workspace"]
    assert [one.name for one in found.artifacts.list()] == [artifact(1)["artifact_id"]]
    assert [one.subject for one in found.reports()] == [report()["subject"]]
    exported(store, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(folder)
    assert take(store, folder).events == 0
    found.append(Message(role="user"))  # now the file must be made anew, as 2.0.0 writes it
    exported(store, tmp_path / "again")
    again = json.loads((tmp_path / "again" / "s-1.json").read_bytes())
    assert again["messages"][:-1] == document["messages"]


def texts_of(document: Json) -> list[str]:
    """The words of each message."""
    return ["".join(block.get("text", "") for block in message["content"]) for message in document["messages"]]


@pytest.mark.parametrize("key", ["sk-positional-1", None])
def test_a_key_in_an_array_is_left_out(store: Store, tmp_path: Path, key: str | None) -> None:
    folder = tmp_path / "sessions"
    fill(folder, session("s-1", llm_config=["p", "m", key, "https://x"]))
    refused = {**session("s-2"), "llm_config": ["p", "m", key, "https://x"], "state": "none"}
    put(folder, "s-2.json", pretty(refused))
    take(store, folder)
    assert of(store, folder, "s-1").info().config["llm"] == {"provider": "p", "model": "m", "base_url": "https://x"}
    exported(store, tmp_path / "out")
    for path, data in tree(tmp_path / "out").items():
        assert b"sk-positional" not in data, path
    for info in store.sessions(limit=10):
        for event in store.session(info.id).events(include_hidden=True):
            assert b"sk-positional" not in event.raw
    if key is None:
        assert tree(tmp_path / "out") == tree(folder)


@pytest.mark.parametrize(
    "twice",
    [
        ('"name": ""', '"name": "", "name": ""'),
        ('"role": "user"', '"role": "user", "role": "user"'),
        ('"type": "text"', '"type": "text", "type": "text"'),
        ('"used_tokens": ', '"used_tokens": 1, "used_tokens": '),
        ('"tasks": [', '"tasks": [], "tasks": ['),
    ],
)
def test_a_field_that_is_there_twice_is_refused_at_any_depth(tmp_path: Path, twice: tuple[str, str]) -> None:
    folder = tmp_path / "sessions"
    fill(folder, session("s-1", [message("user", text("x"))]))
    put(folder, "s-1.json", (folder / "s-1.json").read_text().replace(*twice))
    with holdfast.open("memory://") as store:
        told = by_id(take(store, folder).files)
        assert "there twice" in told["~store"].unreadable[0].reason
        exported(store, tmp_path / "out")
        assert tree(tmp_path / "out") == tree(folder)


def test_a_task_of_the_newer_form_may_have_a_description(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "sessions"
    fill_v1(folder, session("s-1", tasks=[{"id": "1", "description": "Test", "status": "pending"}]))
    take(store, folder)
    assert [task.content for task in of(store, folder, "s-1").tasks()] == ["Test"]
    exported(store, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(folder)


def test_tasks_may_be_called_todos(store: Store, tmp_path: Path) -> None:
    document = session()
    document["todos"] = document.pop("tasks")
    folder = tmp_path / "sessions"
    fill(folder, document)
    take(store, folder)
    assert [task.content for task in of(store, folder, "s-1").tasks()] == ["Test"]
    exported(store, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(folder)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not valid json {{{",
        b'{"id":"s-1","message',
        b"\xef\xbb\xbf" + pretty(session()).encode(),
        pretty(session()).encode() + b",",
        pretty(session()).encode().replace(b"Active", b"\xff"),
        b"[]",
        b"[" * 200 + b"]" * 200,
        pretty(session()).encode().replace(b'"id": "s-1"', b'"id": "s-1", "id": "s-1"'),
    ],
)
def test_a_broken_file_is_kept_and_told(tmp_path: Path, data: bytes) -> None:
    folder = tmp_path / "sessions"
    fill(folder, session("sound"))
    put(folder, "s-1.json", data)
    with holdfast.open("memory://") as store:
        told = by_id(take(store, folder).files)
        assert told["~store"].unreadable_lines == 1
        exported(store, tmp_path / "out")
        assert tree(tmp_path / "out") == tree(folder)
        put(folder, "s-1.json", pretty(session()))  # mended: then it is a session
        assert set(by_id(take(store, folder).files)) == {"sound", "s-1", "~store"}
        assert len(of(store, folder, "s-1").messages()) == 5
        exported(store, tmp_path / "again")
        assert tree(tmp_path / "again") == tree(folder)


def test_broken_files_beside_a_session_do_not_take_it_along(store: Store, folder: Path, tmp_path: Path) -> None:
    put(folder, "traces/fixture.json", b"[{")
    put(folder, "artifacts/fixture/artifacts.json", b'{"artifacts": null}')
    told = by_id(take(store, folder).files)["fixture"]
    assert [u.reason.partition(":")[0] for u in told.unreadable] == [
        "artifacts/fixture/artifacts.json",
        "traces/fixture.json",
    ]
    assert len(of(store, folder, "fixture").messages()) == 5
    exported(store, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(folder)


def test_other_ways_to_write_the_same_come_back_as_they_were(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "sessions"
    fill(folder, session("x"), traces=[trace()])
    put(folder, "x.json", json.dumps(session("x")) + "\n")
    put(folder, "traces/x.json", json.dumps([trace()], indent=1))
    take(store, folder)
    exported(store, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(folder)
    of(store, folder, "x").append(holdfast.user("changed"))
    exported(store, tmp_path / "changed", [of(store, folder, "x").id])
    made = json.loads((tmp_path / "changed" / "x.json").read_bytes())
    assert made["messages"][-1] == message("user", text("changed"))
    assert (tmp_path / "changed" / "traces" / "x.json").read_bytes() == (folder / "traces" / "x.json").read_bytes()


def test_a_file_that_is_too_large_or_none_stops_no_other(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.formats.a3s_in.MAX_FILE", 400_000)
    put(folder, "loop_checkpoints/run.json", b" " * 400_001)
    put(folder, "huge.json", b" " * 400_001)
    os.mkfifo(folder / "runs.json")
    reports = take(store, folder).files
    told = by_id(reports)
    assert {"fixture", "foo/bar\\baz..qux", "ユニコード"} <= set(told)
    failed = {Path(report.path).name: str(report.error) for report in reports if report.error}
    assert set(failed) == {"huge.json", "runs.json"}
    assert "larger than 400,000 bytes" in failed["huge.json"]
    (unread,) = (report.unreadable for report in reports if report.unreadable)
    assert "loop_checkpoints/run.json" in unread[0].reason


def test_links_that_lead_out_are_not_followed(store: Store, folder: Path, tmp_path: Path) -> None:
    put(tmp_path, "secret.json", pretty(session("secret")))
    (folder / "secret.json").symlink_to(tmp_path / "secret.json")
    told = by_id(take(store, folder).files)
    assert "secret" not in told
    assert told[""].unreadable[0].reason == "secret.json: a link that leads out of the folder"


def test_left_overs_of_saves_are_no_sessions(store: Store, folder: Path) -> None:
    put(folder, "fixture.json.1795227194123.77.tmp", b"{")
    put(folder, ".health_check", b"ok")
    (told,) = [report for report in take(store, folder).files if report.notes]
    assert told.session is None
    assert len(told.notes) == 2


# The layout of later versions


def test_snapshots_of_later_versions_come_back_byte_for_byte(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "sessions"
    runs = [{"snapshot": {"id": "run-1", "prompt": "p" * 2000}, "events": []}]
    fill_v1(
        folder,
        session("a/b"),
        artifacts=[artifact(1)],
        trace_events=[trace()],
        verification_reports=[report(effect_digest="sha256:1")],
        run_records=runs,
        session_review={"by": "nobody"},
    )
    fill_v1(folder, session("a_b"))
    put(folder, "v1/runs/" + encoded("a/b") + ".json", b"[]")
    reports = by_id(take(store, folder).files)
    assert set(reports) == {"a/b", "a_b"}
    found = of(store, folder, "a/b")
    assert (len(found.messages()), len(found.artifacts.list()), len(found.reports())) == (5, 1, 1)
    exported(store, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(folder)
    assert take(store, folder).events == 0
    found.append(holdfast.user("more"))
    exported(store, tmp_path / "changed", [found.id])
    made = json.loads((tmp_path / "changed" / "v1" / "sessions" / (encoded("a/b") + ".json")).read_bytes())
    assert (made["schema_version"], made["run_records"], len(made["session"]["messages"])) == (1, runs, 6)


@pytest.mark.parametrize("parts", [{"schema_version": 2}, {"schema_version": None}, {"session": None}])
def test_snapshots_of_other_versions_are_refused(store: Store, tmp_path: Path, parts: Json) -> None:
    folder = tmp_path / "sessions"
    fill_v1(folder, session("x"))
    put(folder, f"v1/sessions/{encoded('y')}.json", pretty({"schema_version": 1, "session": session("y"), **parts}))
    reports = by_id(take(store, folder).files)
    assert set(reports) == {"x", "~store"}
    exported(store, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(folder)


def test_what_is_encrypted_is_told_and_kept(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "sessions"
    fill_v1(folder, session("x"))
    put(folder, f"v1/sessions/{encoded('sealed')}.json", b"A3SE\x01" + bytes(range(60)))
    told = by_id(take(store, folder).files)["~store"]
    assert "it is encrypted (A3SE)" in told.unreadable[0].reason
    exported(store, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(folder)


def test_who_writes_there_is_no_session(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "sessions"
    fill_v1(folder, session("x"))
    put(folder, "v1/wal/session-store.ndjson", b'{"schema":"a3s.code.session-store-wal-entry.v1"}\n{"torn')
    put(folder, "v1/writer_lease.json", b'{"schema":"a3s.code.session-store-writer-lease.v1","epoch":1}')
    told = {report.session: report for report in take(store, folder).files}
    assert [len(report.notes) for report in told.values()] == [0, 2]
    assert [info.id for info in store.sessions()] == [session_id_of(place_of(str(folder)), "x")]


def test_the_newer_file_of_a_session_wins(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "sessions"
    fill(folder, session("x", [message("user", text("old"))]))
    fill_v1(folder, session("x", [message("user", text("new"))]))
    told = by_id(take(store, folder).files)
    assert of(store, folder, "x").messages()[0].text == "new"
    assert "x.json: it tells the session 'x'" in told["~store"].unreadable[0].reason
    exported(store, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(folder)


# What is written


def test_a_session_of_any_origin_is_one_that_the_program_loads(store: Store, tmp_path: Path) -> None:
    made = store.create("support-42", config={"system_prompt": "Be kind.", "auto_compact_threshold": "odd"})
    made.append(
        holdfast.user("Where is order 7?"),
        holdfast.assistant(holdfast.reasoning("hm"), "Let me look", holdfast.tool_call("c1", "lookup", {"order": 7})),
        holdfast.tool_result("c1", {"state": "sent"}),
        holdfast.usage("m-2", 100, 20, provider="p", cost=holdfast.usd("0.002")),
        holdfast.step("lookup", {"order": 7}, "sent", exit_code=0, duration=1500),
        holdfast.report("order", [holdfast.Check(id="seen", status="passed")]),
        holdfast.tasks(holdfast.Task(id="1", content="Answer")),
    )
    made.artifacts.put("log.txt", b"all of it", shown=3)
    done = exported(store, tmp_path / "out")
    files = tree(tmp_path / "out")
    document = rules.read(files["support-42.json"], rules.session)
    assert list(document) == [name for name in rules.TOP if name in document]
    assert document["config"]["system_prompt"] == "Be kind."
    assert (document["config"]["auto_compact_threshold"], document["total_usage"]["total_tokens"]) == (0.8, 120)
    assert b'"auto_compact_threshold": 0.8,' in files["support-42.json"]
    assert [m["role"] for m in document["messages"]] == ["user", "assistant", "user"]
    assert document["messages"][1]["reasoning_content"] == "hm"
    assert document["cost_records"][0]["cost_usd"] == 0.002
    (step,) = rules.read(files["traces/support-42.json"], rules.traces)
    assert (step["duration_ms"], step["output_bytes"]) == (1, 4)
    (checked,) = rules.read(files["verification/support-42.json"], rules.verification)
    assert checked["checks"][0]["id"] == "seen"
    (kept,) = rules.read(files["artifacts/support-42/artifacts.json"], rules.artifacts)["artifacts"]
    assert (kept["content"], kept["original_bytes"], kept["shown_bytes"]) == ("all of it", 9, 3)
    assert (done.sessions, done.messages, done.damaged) == (1, 3, 0)


def test_what_happened_here_goes_into_the_file(store: Store, folder: Path, tmp_path: Path) -> None:
    take(store, folder)
    found = of(store, folder, "fixture")
    found.append(holdfast.user("new"), holdfast.usage("m-1", 5, 6, cost=holdfast.usd("0.001")))
    found.set_state("completed")
    exported(store, tmp_path / "out", [found.id])
    made = json.loads((tmp_path / "out" / "fixture.json").read_bytes())
    assert (made["state"], made["total_usage"]["total_tokens"], len(made["cost_records"])) == ("Completed", 121, 3)
    assert made["total_cost"] == pytest.approx(0.0010123)
    assert made["updated_at"] > 1795227200 or made["updated_at"] == found.info().updated_at // 1_000_000
    rules.session(made, "")


def test_a_fork_is_a_session_of_its_own_there(store: Store, folder: Path, tmp_path: Path) -> None:
    take(store, folder)
    parent = of(store, folder, "fixture")
    parent.fork(at=1, id="child").append(holdfast.user("otherwise"))
    exported(store, tmp_path / "out", [parent.id, "child"])
    made = json.loads((tmp_path / "out" / "child.json").read_bytes())
    assert (made["id"], [len(m["content"]) for m in made["messages"]]) == ("child", [1, 1])
    assert (tmp_path / "out" / "fixture.json").read_bytes() == (folder / "fixture.json").read_bytes()


# Of any size, by any path


def test_sessions_of_any_size_come_back(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "sessions"
    many = [message("user" if n % 2 else "assistant", text(f"message {n}")) for n in range(20_000)]
    fill(folder, session("many", many))
    huge = {"type": "tool_result", "tool_use_id": "c", "content": "é" * 3_000_000, "is_error": None}
    fill(folder, session("huge", [message("user", huge)]), artifacts=[artifact(n, "x" * n) for n in range(1, 400)])
    assert [report.error for report in take(store, folder).files] == [None, None]
    assert len(of(store, folder, "many").messages()) == 20_000
    assert len(of(store, folder, "huge").artifacts.list()) == 399  # theirs keeps 256
    exported(store, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(folder)


KILLED = """
import os, sys
import holdfast
from holdfast.formats import a3s_put
from holdfast.importer import find_sources, import_files
a3s_put.FIT_ENTRIES = 3
url, folder, left = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = holdfast.open(url)
commit = store.batcher.commit
def counted(change, **limit):
    global left
    if left == 0:
        os.kill(os.getpid(), 9)
    left -= 1
    return commit(change, **limit)
store.batcher.commit = counted
import_files(store, find_sources([folder]))
"""


@pytest.mark.parametrize("left", [0, 1, 2, 3, 5, 6])
@pytest.mark.parametrize("scheme", ["file", "sqlite"])
def test_an_import_that_was_killed_goes_on_where_it_was(folder: Path, tmp_path: Path, scheme: str, left: int) -> None:
    url = f"{scheme}://{tmp_path}/store" + (".db" if scheme == "sqlite" else "")
    with holdfast.open(url):
        pass
    killed = subprocess.run([sys.executable, "-c", KILLED, url, str(folder), str(left)], check=False)
    assert killed.returncode == -9
    with holdfast.open(url) as store:
        take(store, folder)
        found = of(store, folder, "fixture")
        assert len(list(found.events(include_hidden=True))) == 5 + 2 + 2 + 2 + 2
        assert found.info().counts.calls == 2
        exported(store, tmp_path / "out")
        assert tree(tmp_path / "out") == tree(folder)
        assert store.check().ok
        assert take(store, folder).events == 0


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
BLOCKS = (
    st.builds(text, WORDS)
    | st.builds(lambda i, n, v: {"type": "tool_use", "id": i, "name": n, "input": v}, WORDS, WORDS, VALUES)
    | st.builds(
        lambda i, c, e: {"type": "tool_result", "tool_use_id": i, "content": c, "is_error": e},
        WORDS,
        WORDS | st.lists(st.builds(text, WORDS), max_size=2),
        st.none() | st.booleans(),
    )
    | st.builds(lambda d: {"type": "image", "source": {"type": "base64", "media_type": "x/y", "data": d}}, WORDS)
)
MESSAGES = st.lists(
    st.builds(
        lambda r, b, t, m: {"role": r, "content": b} | ({} if t is None else {"reasoning_content": t}) | m,
        st.sampled_from(["user", "assistant", "system", "tool", ""]) | WORDS,
        st.lists(BLOCKS, max_size=3),
        st.none() | WORDS,
        st.dictionaries(st.sampled_from(["trust", "x"]), VALUES, max_size=1),
    ),
    max_size=5,
)


@given(MESSAGES, WORDS, NUMBERS, st.floats(width=32, allow_nan=False, allow_infinity=False), VALUES)
def test_whatever_a_session_says_comes_back(
    messages: list[Json], id: str, cost: float, percent: float, more: Any
) -> None:
    import tempfile

    from holdfast.formats import rustjson

    document = session(id, messages, total_cost=cost, more=more)
    document["context_usage"]["percent"] = rustjson.F32(percent)
    data = rustjson.pretty(document).encode()
    with tempfile.TemporaryDirectory() as place, holdfast.open("memory://") as store:
        folder = Path(place) / "sessions"
        fill(folder, session("other"))
        put(folder, "any.json", data)
        reports = take(store, folder).files
        assert [report.error for report in reports] == [None, None]
        exported(store, Path(place) / "out")
        assert (Path(place) / "out" / "any.json").read_bytes() == data
        assert take(store, folder).events == 0


# The command


def test_the_command_imports_and_exports(folder: Path, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.ok("init")
    told = shell.ok("import", "--json", str(folder)).json["items"]
    assert {(file["program"], file["error"]) for file in told} == {("a3s", None)}
    done = shell.ok("export", "--all", "-f", "a3s", "-o", str(tmp_path / "out"), "--json").json
    assert (done["format"], done["sessions"], done["unsaid"]) == ("a3s", 3, 0)
    assert tree(tmp_path / "out") == tree(folder)
    assert shell("export", "--all", "-f", "a3s", "-o", str(tmp_path / "out")).code == 4  # nothing is replaced
    shell.ok("export", "--all", "-f", "a3s", "-o", str(tmp_path / "out"), "--force")
    assert tree(tmp_path / "out") == tree(folder)
