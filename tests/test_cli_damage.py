"""What a shell is told of a session whose head is damaged, and what it can do about it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import holdfast
from holdfast import assistant, note, tool_call, user
from shell import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A store with a sound session and one whose head is damaged."""
    made = Shell(tmp_path)
    with holdfast.open(made.url) as store:
        for id in ("sound", "hurt"):
            store.session(id, name=f"the {id} one").append(user("Hello"), user(f"I am {id}"))
    with closing(sqlite3.connect(tmp_path / "store.db")) as db, db:
        db.execute("UPDATE head SET body = x'00' WHERE id = 'hurt'")
    return made


def test_a_list_names_what_it_leaves_out(shell: Shell) -> None:
    for quiet in ([], ["-q"]):
        done = shell.ok(*quiet, "session", "list")
        assert "sound" in done.out
        assert "hurt" not in done.out
        assert done.err == "left out: the head of session 'hurt' is damaged; `holdfast check hurt` says more\n"
    done = shell.ok("session", "list", "--json")
    assert [item["id"] for item in done.json["items"]] == ["sound"]
    assert done.json["damaged"] == ["hurt"]


@pytest.mark.parametrize("ref", ["hurt", "hur", "the hurt one", "@last"])
def test_a_check_reports_it(shell: Shell, ref: str) -> None:
    done = shell("check", ref)
    assert done.code == 5
    assert "hurt  the head of session 'hurt' is damaged: its checksum does not match" in done.out
    assert done.out.endswith("1 session, 2 events: 1 found\n")
    found = shell("check", ref, "--json").json
    assert (found["ok"], found["events"], found["findings"][0]["session"]) == (False, 2, "hurt")
    assert shell("check", "sound").code == 0


def test_its_events_are_shown_and_can_be_appended_elsewhere(shell: Shell) -> None:
    done = shell("session", "show", "hurt")
    assert done.code == 5
    assert "I am hurt" in done.out
    assert "holdfast session delete hurt" in done.err
    shown = shell("session", "show", "hurt", "--json", "--full")
    assert (shown.code, shown.json["session"]) == (5, None)
    payloads = [json.dumps(event["payload"]) for event in shown.json["items"]]
    assert shell.ok("append", "saved", "--create", "--jsonl", stdin="\n".join(payloads)).out == "saved@2\n"
    assert "I am hurt" in shell.ok("session", "show", "saved").out
    one = shell("session", "show", "hurt@2")
    assert one.code == 5
    assert "I am hurt" in one.out


def test_large_values_are_saved_whole_or_not_at_all(shell: Shell) -> None:
    text = "".join(f"line {n}\n" for n in range(20_000))
    with holdfast.open(shell.url) as store:
        store.create("long").append(
            user(text),
            assistant(tool_call("c", "run", {"script": text})),
            note(text),
            holdfast.custom("x.log", {"of": [text]}),
            holdfast.Note(text="short", source=holdfast.Source(file="f", line=1, raw=text)),
        )
        wanted = list(store.get("long").events())
    with closing(sqlite3.connect(shell.place / "store.db")) as db, db:
        db.execute("UPDATE head SET body = x'00' WHERE id = 'long'")
    as_stored = [json.dumps(event["payload"]) for event in shell("session", "show", "long", "--json").json["items"]]
    for payload in as_stored:
        refused = shell("append", "saved", "--create", "--jsonl", stdin=payload)
        assert refused.code == 2
        assert "--full" in refused.err
    shown = shell("session", "show", "long", "--json", "--full").json["items"]
    whole = [json.dumps(event["payload"]) for event in shown]
    shell.ok("append", "saved", "--create", "--jsonl", stdin="\n".join(whole))
    assert [event["payload"] for event in shell.ok("tail", "saved", "--json", "--full").lines] == [
        json.loads(payload) for payload in whole
    ]
    with holdfast.open(shell.url) as store:
        assert [event.raw for event in store.get("saved").events()] == [event.raw for event in wanted]


def test_bytes_that_no_record_can_bring_are_told(shell: Shell) -> None:
    shell.ok("artifact", "put", "sound", "a.bin", stdin=b"\xff" * 9)
    event = shell.ok("session", "show", "sound", "--json", "--full").json["items"][-1]["payload"]
    refused = shell("append", "saved", "--create", "--jsonl", stdin=json.dumps(event))
    assert (refused.code, refused.out) == (2, "")
    assert "copy the session" in refused.err


def test_whoever_writes_is_told_what_to_do(shell: Shell) -> None:
    for command in (["append", "hurt", "more"], ["session", "rename", "hurt", "x"], ["export", "hurt"]):
        done = shell(*command)
        assert done.code == 5
        assert "delete" in done.err


def test_it_is_deleted_on_purpose_only(shell: Shell) -> None:
    assert shell("session", "delete", "hurt").code == 2
    assert shell("check", "hurt").code == 5
    assert shell.ok("session", "delete", "hurt", "--yes").out == "hurt\n"
    assert shell.ok("check").out == "1 session, 2 events: all sound\n"
    assert shell("append", "hurt", "late").code == 3
    assert shell.ok("session", "list").err == ""


def test_an_export_of_all_tells_what_is_missing(shell: Shell) -> None:
    done = shell("export", "--all", "-o", "all.jsonl", "--json")
    assert done.code == 5
    assert (done.json["sessions"], done.json["left_out"]) == (1, ["hurt"])
    assert "left out: the head of session 'hurt'" in done.err
    assert shell.ok("import", "all.jsonl", "--store", "sqlite:other.db").code == 0


def test_a_copy_of_all_tells_what_is_missing(shell: Shell) -> None:
    done = shell("copy", "sqlite:store.db", "sqlite:other.db", "--json")
    assert done.code == 8
    told = {item["session"]: item["error"] for item in done.json["items"]}
    assert told["sound"] is None
    assert told["hurt"]["type"] == "Corrupt"
    assert shell("copy", "sqlite:store.db", "sqlite:other.db", "--session", "hurt").code == 5
