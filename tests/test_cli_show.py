"""`session show` as a person reads it, and what is asked of a person at a terminal."""

from __future__ import annotations

import io
import json
import os
import subprocess
from pathlib import Path

import pytest

import holdfast
from holdfast import Event, Large, assistant, custom, note, reasoning, step, tool_call, tool_result, usage, user
from shell import COMMAND, Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    with holdfast.open(made.url) as store:
        session = store.session("s", user="ada", agent="helper", labels=["billing"], title="An order")
        session.append(Event(payload=user("Where is order 7?"), at=1_000_000))
        said = assistant(reasoning("Hm, orders."), "Let me look.", tool_call("c1", "lookup", {"order": 7}))
        session.append(Event(payload=said, at=2_000_000))
        session.append(Event(payload=tool_result("c1", "line\n" * 40), at=5_500_000))
        session.append(assistant(tool_call("c2", "refund", {}), tool_call("c3", "wait", {})))
        session.append(tool_result("c2", "no such order", is_error=True, duration=1_200_000))
        session.append(
            step("deploy", {"to": "prod"}, "done", duration=250_000, exit_code=3, is_error=True, error="boom")
        )
        session.append(usage("m-1", 1200, 34, cost=12_300), custom("x.mood", {"good": True}))
        strange = b'{"v":1,"type":"hologram","depth":9}'
        payload = holdfast.Other(data={"type": "hologram"})
        session.append(Event(payload=payload, raw=strange))
        session.append(note(Large.from_stream(io.BytesIO(b"large\n" * 20_000))))
        session.append(user("take this back"))
        session.remove_last()
    return made


def test_the_header_says_who_how_much_and_when(shell: Shell) -> None:
    first, second, third, fourth = shell.ok("session", "show", "s").out.splitlines()[:4]
    assert first == "An order"
    assert second == "  s · user ada · agent helper · idle · #billing"
    assert third == (
        "  12 events · 5 messages · 3 tool calls · 1 step · 2 errors · 1,200 tokens in, 34 out · $0.0123 · m-1"
    )
    assert "UTC, over " in fourth


def test_calls_are_paired_with_how_they_went_and_how_long_they_took(shell: Shell) -> None:
    out = shell.ok("session", "show", "s").out
    assert "    → lookup  ✓ 3.5 s\n" in out  # no duration was recorded: the time between the two events
    assert "    → refund  ✗ 1.2 s\n" in out
    assert "    → wait  … open\n" in out
    assert "    ✗ refund  1.2 s\n      no such order\n" in out
    assert "    ✗ deploy  250 ms  exit code 3\n" in out
    assert "Hm, orders." in out


def test_long_output_is_collapsed_unless_all_is_asked_for(shell: Shell) -> None:
    out = shell.ok("session", "show", "s").out
    assert "… 28 more lines, --full" in out
    assert "… 120,000 bytes in all, --full" in out
    full = shell.ok("session", "show", "s", "--full").out
    assert "--full" not in full
    assert full.count("  line\n") == 40
    assert full.count("    large\n") == 20_000


def test_what_is_not_known_is_shown_as_what_it_is(shell: Shell) -> None:
    out = shell.ok("session", "show", "s").out
    assert "hologram  #9" in out
    assert "of a type or shape that this version does not know" in out
    assert '"depth": 9' in out
    assert "x.mood" in out


NEWER = {
    "type": "message", "role": "user", "priority": {"level": 3}, "parts": [
        {"type": "text", "content": "Hi", "lang": "en\x1b]"}, {"type": "text", "content": "you"},
        {"type": "smell", "of": "rain"},
    ],
}  # fmt: skip
"""A record as a newer version may write it: with fields that this one does not know."""


@pytest.fixture
def newer(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    lines = [NEWER, {"type": "step", "name": "deploy", "region": "eu"}, {"type": "note", "text": "that is all"}]
    made.ok("session", "new", "n")
    made.ok("append", "n", "--jsonl", "-", stdin="".join(json.dumps(line) + "\n" for line in lines))
    return made


def test_a_field_of_a_part_is_kept_whatever_its_name(shell: Shell) -> None:
    record = {"type": "message", "role": "user", "parts": [{"type": "text", "content": "x", "v": 7}]}
    shell.ok("append", "n", "--jsonl", "-", "--create", stdin=json.dumps(record) + "\n")
    (kept,) = [json.loads(line) for line in shell.ok("export", "n", "--format", "jsonl").out.splitlines()[1:2]]
    assert kept["body"]["parts"] == record["parts"]
    assert '"v": 7' in shell.ok("session", "show", "n").out


def test_unknown_fields_are_shown_beside_what_they_belong_to(newer: Shell) -> None:
    said = [line.strip() for line in newer.ok("session", "show", "n").out.splitlines()]
    hi = said.index("Hi", 1)  # the first line is the title
    assert said[hi + 1 : hi + 3] == ['other: {"lang": "en\\u001b]"}', "you"]
    assert 'other: {"priority": {"level": 3}}' in said
    assert 'other: {"region": "eu"}' in said
    assert sum(line.startswith("other") for line in said) == 3


@pytest.mark.parametrize(("form", "quoted"), [("md", '"'), ("html", "&quot;")])
def test_unknown_fields_are_exported_for_eyes(newer: Shell, form: str, quoted: str) -> None:
    out = newer.ok("export", "-f", form, "n").out.replace(quoted, '"')
    for fields in ('{"lang": "en\\u001b]"}', '{"priority": {"level": 3}}', '{"region": "eu"}'):
        assert out.count(fields) == 1
    assert out.count({"md": "**other**", "html": ">other<"}[form]) == 3


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    with holdfast.open(shell.url) as store:
        session = store.create("s")
        for raw in (b'{"v":1,"type":"note","text":"fine","mood":"\xff"}', b'{"v":1,"type":"note","text":"\xff"}'):
            session.append(Event(payload=note("fine"), raw=raw))
        assert [event.type for event in session.events(damaged="keep")] == ["note", "damaged"]
    out = shell.ok("session", "show", "s").out
    assert '    fine\n    other: {"unreadable": ' in out
    assert "    damaged: stored bytes are no JSON" in out


def test_hidden_events_are_shown_when_asked_for(shell: Shell) -> None:
    assert "take this back" not in shell.ok("session", "show", "s").out
    out = shell.ok("session", "show", "s", "--include-hidden").out
    assert "take this back" in out
    assert "  hidden\n" in out


def test_a_part_of_the_log_can_be_asked_for(shell: Shell) -> None:
    def seqs(*args: str) -> list[int]:
        return [event["seq"] for event in shell.ok("--json", "session", "show", "s", *args).json["items"]]

    assert seqs("--last", "2") == [10, 12]
    assert seqs("--after", "2", "--before", "5") == [3, 4]
    assert seqs("--types", "usage,step") == [6, 7]
    assert seqs("--last", "0") == []


def test_colours_say_the_same_words(shell: Shell) -> None:
    plain = shell.ok("session", "show", "s").out
    colored = shell.ok("--color", "session", "show", "s").out
    assert "\x1b[" in colored
    bare = "".join(piece.partition("m")[2] if number else piece for number, piece in enumerate(colored.split("\x1b[")))
    assert bare == plain


@pytest.mark.parametrize(("answer", "code", "there"), [("n", 1, True), ("y", 0, False)])
def test_deleting_asks_at_a_terminal(shell: Shell, answer: str, code: int, there: bool) -> None:
    ours, theirs = os.openpty()
    done = subprocess.Popen(
        [*COMMAND, "session", "delete", "s"],
        cwd=shell.place, env=shell.env, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, answer.encode() + b"\n")
    out, err = done.communicate(timeout=30)
    os.close(ours)
    assert (done.returncode, out) == (code, "" if there else "s\n")
    assert "for good?" in err
    assert (shell("session", "show", "s").code == 0) == there
