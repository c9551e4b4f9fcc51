"""Every filter of `session list` and `search` is wired to what it is named after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import Event, assistant, tool_call, usage, user
from shell import Shell

DAY = 86_400_000_000
FIELDS: list[dict[str, Any]] = [
    # Each word stands in several fields, so that an option which asks for another field finds another session.
    {"user": "ann", "name": "web", "labels": ["coder"], "agent": "bob", "state": "running"},
    {"user": "bob", "title": "The ann", "labels": ["web"], "agent": "coder", "project": "ann", "parent": "s0"},
    {"user": "coder", "name": "ann", "labels": ["bob"], "agent": "ann", "project": "web", "state": "error"},
    {"title": "nobody's", "labels": ["ann"], "parent": "s1"},
]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    with holdfast.open(made.url) as store:
        for number, fields in enumerate(FIELDS):
            session = store.create(f"s{number}", created_at=number * DAY, **fields)
            for payload in (usage(("web", "ann")[number % 2]), user("the same words")):
                session.append(Event(payload=payload, at=number * DAY + DAY // 2))
    return made


BOTH = [
    (["--user", "ann"], "s0"),
    (["--state", "running"], "s0"),
    (["--label", "ann"], "s3"),
    (["--agent", "ann"], "s2"),
    (["--model", "ann"], "s1 s3"),
    (["--project", "ann"], "s1"),
    (["--user", "bob", "--label", "web", "--agent", "coder"], "s1"),
    (["--user", "bob", "--label", "bob"], ""),
]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], "s0 s1 s2 s3"),
        *BOTH,
        (["--parent", "s0"], "s1"),
        (["--name", "ann"], "s2"),
        (["--text", "ANN"], "s1 s2"),
        (["--since", "1970-01-02T12:00:00Z"], "s1 s2 s3"),
        (["--since", "1970-01-02T12:00:00.000001Z"], "s2 s3"),
        (["--until", "1970-01-02T00:00:00Z"], "s0 s1"),
        (["--until", "1970-01-01T23:59:59.999999Z"], "s0"),
        (["--limit", "2"], "s2 s3"),
    ],
)
def test_a_list_is_filtered(shell: Shell, args: list[str], expected: str) -> None:
    found = [item["id"] for item in shell.ok("--json", "session", "list", *args).json["items"]]
    assert sorted(found) == expected.split()
    assert found == sorted(found, reverse=True)  # those active last first


@pytest.mark.parametrize(
    ("args", "expected"),
    [([], "s0 s1 s2 s3"), *BOTH, (["--session", "s2"], "s2"), (["--newest", "--limit", "2"], "s2 s3")],
)
def test_a_search_is_filtered(shell: Shell, args: list[str], expected: str) -> None:
    found = [hit["session"] for hit in shell.ok("--json", "search", "words", *args).json["items"]]
    assert sorted(found) == expected.split()
    if "--newest" in args:
        assert found == sorted(found, reverse=True)


def test_a_parent_is_named_like_any_session(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.ok("session", "new", "p-1", "--name", "parent of all")
    shell.ok("session", "new", "child", "--parent", "parent of all")
    shell.ok("session", "new", "other", "--parent", "not here")
    listed = shell.ok("session", "list", "--parent", "parent of all", "--json").json["items"]
    assert [(item["id"], item["parent"]) for item in listed] == [("child", "p-1")]
    assert [i["id"] for i in shell.ok("session", "list", "--parent", "not here", "--json").json["items"]] == ["other"]


def test_a_state_and_answers_are_tried_before_they_are_stored(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    with holdfast.open(shell.url) as store:
        store.session("s").append(user("Hi"), assistant(tool_call("c", "look")))
    before = shell.ok("export", "s").out
    assert "would be paused" in shell.ok("session", "state", "s", "paused", "--dry-run").err
    assert "is idle already" in shell.ok("session", "state", "s", "idle", "--dry-run").err
    assert shell("session", "state", "s", "unknown", "--dry-run").code == 4
    assert "open: look c" in shell.ok("session", "resume", "s", "--answer", "--dry-run").out
    assert shell.ok("export", "s").out == before
