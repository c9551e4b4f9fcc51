"""`holdfast session` context, compact, validate and repair, and texts on stdin of any size."""

from __future__ import annotations

import json
import resource
import subprocess
from pathlib import Path

import pytest

import holdfast
from holdfast import assistant, step, system, tool_call, tool_result, user
from holdfast.formats import anthropic, openai, otel
from shell import COMMAND, Shell

HOSTILE = "\x1b]0;owned\x07\x9b31m\x7f\r\n\u202etxt"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A session `s` in which a call is open."""
    made = Shell(tmp_path)
    with holdfast.open(made.url) as store:
        session = store.session("s", user="ada")
        session.append(system("Be brief."), user("Where is order 7?"))
        session.append(assistant("Let me look.", tool_call("c1", "lookup", {"order": 7})), tool_result("c1", "shipped"))
        session.append(assistant(tool_call("c2", "pay", {})), user("Hello?"))
    return made


@pytest.mark.parametrize("form", ["openai", "responses", "anthropic", "otel"])
def test_a_provider_s_client_takes_what_is_printed(shell: Shell, form: str) -> None:
    made = {"openai": openai.to_chat, "responses": openai.to_responses, "otel": otel.to_messages}
    with holdfast.open(shell.url) as store:
        messages = store.session("s").context().messages
    plain = shell.ok("session", "context", "s", "-f", form)
    whole = shell.ok("session", "context", "s", "-f", form, "--json").json
    if form == "anthropic":
        request = anthropic.to_messages(messages)
        assert plain.json == {"system": request.system, "messages": list(request)}
        assert (whole["system"], whole["messages"]) == (request.system, list(request))
    else:
        assert plain.json == whole["messages"] == list(made[form](messages))
        assert whole["system"] is None
    assert "@5 dangling: a call of 'pay' has no result" in plain.err
    assert (whole["format"], whole["last"], whole["cut"], whole["seqs"][0]) == (form, 6, False, 1)


def test_a_person_sees_a_line_for_each_message_and_how_full_it_is(shell: Shell) -> None:
    told = shell.ok("session", "context", "s")
    assert told.out.splitlines()[0] == "@1 system: Be brief."
    assert "of 200,000 tokens, 6 messages" in told.err
    small = shell.ok("session", "context", "s", "--max-tokens", "30", "--keep", "1")
    assert small.out.splitlines() == ["@1 system: Be brief.", "@6 user: Hello?"]
    assert "older messages had no room" in small.err
    assert shell("session", "context", "s", "--max-tokens", "0").code == 2
    with holdfast.open(shell.url) as store:
        assert store.session("s").info().last == 6


def test_a_summary_stands_for_what_it_is_told(shell: Shell) -> None:
    assert (
        shell.ok("session", "compact", "s@4", "Shipped.", "--dry-run").err
        == "would stand for the events of s up to 4\n"
    )
    assert shell.ok("session", "compact", "s@4", "It was shipped.").out == "s@7\n"
    assert shell.ok("session", "context", "s").out.splitlines()[1].endswith("\\n\\nIt was shipped.")
    done = shell.ok("session", "compact", "s", "-", "--upto", "6", "--json", stdin="w " * 100_000 + "\n").json
    assert done == {"session": "s", "seq": 8, "start": 1, "end": 6, "dry_run": False}
    late = shell("session", "compact", "s@5", "Too late.")
    assert (late.code, late.out) == (4, "")
    for args in (["s"], ["s@4"], ["s", "x"], ["s@4", "x", "--upto", "4"], ["s", "x", "--upto", "99"], ["s@4", ""]):
        assert shell("session", "compact", *args).code == 2, args


def test_calls_are_validated_and_repaired_by_appending(shell: Shell) -> None:
    found = shell("session", "validate", "s", "--json")
    assert (found.code, [one["kind"] for one in found.json["items"]]) == (5, ["dangling"])
    assert shell("session", "validate", "s").out == "@5 dangling: a call of 'pay' has no result\n"
    with holdfast.open(shell.url) as store:
        store.session("s").append(step("pay", output="p" * 200_000, call_id="c2"))
        blobs = len(store.backend.blobs.scan())
        dry = shell.ok("session", "repair", "s", "--dry-run", "--json").json
        assert len(store.backend.blobs.scan()) == blobs
    done = shell.ok("session", "repair", "s", "--json").json
    assert (done["answers"], done["first"]) == (["c2"], 8)
    assert dry == {**done, "dry_run": True}
    assert shell.ok("session", "repair", "s").out.startswith("@8 late: ")


def test_nothing_is_repaired_while_a_turn_runs(shell: Shell) -> None:
    with holdfast.open(shell.url) as store, store.session("s").turn():
        for how in ([], ["--dry-run"]):
            assert shell("session", "repair", "s", *how).code == 4


@pytest.mark.parametrize("command", ["context", "validate", "repair", "compact", "tasks"])
def test_what_is_not_there_or_another_s_is_refused(shell: Shell, command: str) -> None:
    more = ["x", "--upto", "1"] if command == "compact" else []
    assert shell("session", command, "nobody", *more).code == 3
    assert shell("--user", "eve", "session", command, "s", *more).code == 7


def test_stored_text_never_reaches_a_terminal_raw(shell: Shell) -> None:
    with holdfast.open(shell.url) as store:
        hostile = store.session("h")
        hostile.append(
            user(HOSTILE), assistant(tool_call(HOSTILE, HOSTILE, {HOSTILE: HOSTILE})), tool_result("no", HOSTILE)
        )
    for args in (["context", "h"], ["context", "h", "-f", "openai"], ["validate", "h"], ["repair", "h", "--dry-run"]):
        for how in ([], ["--json"]):
            done = shell(*how, "session", *args)
            assert done.code == (5 if "validate" in args else 0)
            for text in (done.out, done.err):
                assert not [c for c in text if (c < " " and c != "\n") or "\x7f" <= c <= "\x9f"], args


def test_a_closed_pipe_is_silent(shell: Shell) -> None:
    with holdfast.open(shell.url) as store:
        store.session("s").append(*[user(f"line {number} " * 20) for number in range(2000)])
    with shell.start("session", "context", "s") as running:
        assert running.stdout is not None
        running.stdout.readline()
        running.stdout.close()
        assert running.wait(20) == 0


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "no newline",
        "two\n\n",
        "x" * 65_536,
        "x" * 65_536 + "\n",
        "x" * 65_537,
        "x" * 65_537 + "\n",
        "x" * 65_536 + "\n\n",
        "é" * 40_000 + "\n",
        "\n" * 70_000,
        "ab\n" * 1_000_000,
    ],
    ids=len,
)
def test_a_text_on_stdin_is_stored_as_the_api_stores_it(shell: Shell, text: str) -> None:
    said = text.removesuffix("\n")
    with holdfast.open(shell.url) as store:
        store.session("s").append(user(said), key="k")
        again = shell.ok("append", "s", "-", "--key", "k", "--json", stdin=text).json
        assert again["repeated"]
        assert store.session("s").messages()[-1].text == said


def test_a_long_text_that_is_no_utf8_stores_nothing(shell: Shell) -> None:
    for data in (b"x" * 2_000_000 + b"\xff", b"x" * 100_000 + b"\xc3", b"\xff"):
        done = shell("append", "s", "-", stdin=data)
        assert (done.code, done.out) == (2, "")
        assert f"(byte {len(data) - 1:,})" in done.err
    assert shell("append", "s", "-", stdin="").code == 2
    with holdfast.open(shell.url) as store:
        assert store.session("s").info().last == 6


def test_a_text_larger_than_memory_is_stored(shell: Shell) -> None:
    """200 MB in a process that may never hold 180 MB of data."""
    size, chunk = 200_000_000, b"0123456789" * 100_000
    most = 180_000_000

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))

    done = subprocess.Popen(
        [*COMMAND, "append", "s", "-", "--json"],
        env=shell.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=bounded,  # nothing else runs in this process
    )
    assert done.stdin is not None
    for _ in range(size // len(chunk)):
        done.stdin.write(chunk)
    out, _ = done.communicate(timeout=120)
    assert (done.returncode, json.loads(out)["last"]) == (0, 7)
