"""The command as a process: sessions, appends, lists, and what each exit code means."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import click
import pytest

import holdfast
from holdfast import assistant, tool_call, tool_result, user
from shell import COMMAND, Shell, commands


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def order(shell: Shell) -> Shell:
    """A shell whose store holds the session `order-7`."""
    with holdfast.open(shell.url) as store:
        session = store.session("order-7", user="ada", name="order", labels=["billing"])
        session.append(user("Where is order 7?"))
        session.append(assistant("Let me look.", tool_call("c1", "lookup", {"order": 7})))
        session.append(tool_result("c1", {"status": "shipped"}, duration=1_200_000))
        session.append(assistant("It was shipped."))
    return shell


def test_version_needs_neither_click_nor_the_store(shell: Shell) -> None:
    assert shell.ok("--version").out == f"holdfast {holdfast.__version__}\n"
    code = "import sys; from holdfast.cli import main\ntry: main(['--version'])\nexcept SystemExit: pass\n"
    late = "print([m for m in ('click', 'msgspec', 'sqlite3', 'rich') if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code + late], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == "[]"


def test_help_begins_with_examples(shell: Shell) -> None:
    assert len(commands()) > 70
    for path, command in commands().items():
        named = " ".join(["holdfast", *path])
        told = command.get_help(click.Context(command, info_name=named))
        head, example, *_ = told.splitlines()
        assert head == "Examples:", named
        assert named in example, named  # `completion` has an example in which it is not the first word
    for args in ([], ["session"], ["usage", "daily"]):
        assert shell.ok(*args, "--help").out.startswith("Examples:\n")


def test_what_changes_something_can_be_tried_dry() -> None:
    dry = {path for path, command in commands().items() if any("--dry-run" in p.opts for p in command.params)}
    assert {" ".join(path) for path in dry} == {
        *(f"session {name}" for name in ("fork", "rewind", "undo", "note", "star", "state", "resume", "recover")),
        *(f"session {name}" for name in ("compact", "repair", "archive")),
        *(f"session {name}" for name in ("new", "rename", "label", "delete")),
        *("append", "import", "copy", "compact", "backup", "restore"),
        *("artifact put", "artifact delete", "report add", "doc put", "doc delete"),
        *("prune apply", "prune undo", "trash put", "trash restore", "trash purge", "check"),
    }


def test_a_session_is_made_filled_shown_and_deleted(shell: Shell) -> None:
    assert shell.ok("session", "new", "s1", "--user", "ada").out == "s1\n"
    assert shell.ok("append", "s1", "Hello there").out == "s1@1\n"
    assert "Hello there" in shell.ok("session", "show", "s1").out
    assert shell.ok("session", "rename", "s1", "greeting", "--title", "A greeting").out == "s1\n"
    assert shell.ok("session", "label", "greeting", "a", "b").out == "s1\n"
    assert shell.ok("session", "label", "greeting", "--remove", "b", "--json").json["labels"] == ["a"]
    assert "A greeting" in shell.ok("session", "list", "--label", "a").out
    assert shell.ok("session", "delete", "greeting", "--yes").out == "s1\n"
    assert shell("session", "show", "s1").code == 3


def test_every_form_of_reference_finds_the_session(order: Shell) -> None:
    for ref in ("order-7", "order-", "order", "@last"):
        assert order.ok("--json", "session", "show", ref).json["session"]["id"] == "order-7"
    one = order.ok("session", "show", "order@2", "--json").json["items"]
    assert [event["seq"] for event in one] == [2]
    assert order("session", "show", "order@9").code == 3
    assert order("session", "delete", "--yes", "order@2").code == 2


def test_an_ambiguous_reference_is_a_usage_error_that_names_the_candidates(shell: Shell) -> None:
    for id in ("aa1", "aa2"):
        shell.ok("session", "new", id)
    done = shell("session", "show", "aa", "--json")
    assert done.code == 2
    assert '"matches": ["aa' in done.err
    assert "aa1" in done.err
    assert "aa2" in done.err


def test_append_never_creates_by_accident(shell: Shell) -> None:
    shell.ok("init")
    assert shell("append", "nobody", "Hi").code == 3
    assert shell.ok("append", "nobody", "Hi", "--create").out == "nobody@1\n"
    # The start of another session's id is not that session when one may be created.
    assert shell.ok("append", "no", "Hi", "--create").out == "no@1\n"


def test_append_reads_stdin_by_dash_and_without_text(shell: Shell) -> None:
    shell.ok("append", "s", "-", "--create", "--role", "assistant", stdin="two\nlines\n")
    shell.ok("append", "s", stdin="more")
    with holdfast.open(shell.url) as store:
        assert [(m.role, m.text) for m in store.session("s").messages()] == [
            ("assistant", "two\nlines"),
            ("user", "more"),
        ]


def test_append_takes_payloads_with_all_their_fields(shell: Shell) -> None:
    lines = (
        '{"type":"message","role":"user","parts":[{"type":"text","content":"Hi","mood":9}],"odd":123456789012345678901}\n'
        '\n{"type":"x.deploy","data":{"sha":"1"},"later":{"k":[1]}}\n{"type":"note","text":"' + "n" * 100_000 + '"}\n'
    )
    receipt = shell.ok("append", "s", "--jsonl", "--create", "--json", "--key", "k", stdin=lines).json
    assert receipt == {"session": "s", "first": 1, "last": 3, "durability": "disk", "repeated": False}
    assert shell.ok("append", "s", "--jsonl", "--json", "--key", "k", stdin=lines).json == {**receipt, "repeated": True}
    events = shell.ok("tail", "s", "--json").lines
    assert events[0]["payload"]["odd"] == 123456789012345678901
    assert events[0]["payload"]["parts"][0]["mood"] == 9
    assert events[1]["payload"] == {"v": 1, "type": "x.deploy", "data": {"sha": "1"}, "later": {"k": [1]}}
    assert events[2]["payload"]["large"]["text"]["size"] == 100_000


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[1]",
        '{"type":"message"}',
        '{"type":"nonsense"}',
        '{"text":"no type"}',
        '{"type":"note","text":NaN}',
        "\x00\xff",
    ],
)
def test_a_bad_payload_stores_nothing_and_is_named_by_its_line(shell: Shell, line: str) -> None:
    shell.ok("session", "new", "s")
    done = shell("append", "s", "--jsonl", stdin='{"type":"note","text":"good"}\n' + line + "\n")
    assert done.code == 2
    assert "Traceback" not in done.err
    assert shell.ok("session", "show", "s", "--json").json["items"] == []


def test_records_without_end_are_refused_at_the_limit(shell: Shell) -> None:
    with subprocess.Popen(["yes", '{"type":"note","text":"more"}'], stdout=subprocess.PIPE) as endless:
        done = subprocess.run(
            [*COMMAND, "append", "s", "--jsonl", "--create"],
            stdin=endless.stdout, capture_output=True, text=True, env=shell.env, timeout=60, check=False,
        )  # fmt: skip
        endless.kill()
    assert (done.returncode, done.stdout) == (2, "")
    assert "more than 10,000 records" in done.stderr


def test_a_tail_ends_where_the_log_does(order: Shell) -> None:
    assert [e["seq"] for e in order.ok("tail", "order", "-n", "2", "--json").lines] == [3, 4]
    assert [e["seq"] for e in order.ok("tail", "order@3", "--json").lines] == [4]
    assert "It was shipped." in order.ok("tail", "order").out


def test_search_finds_and_marks(order: Shell) -> None:
    assert "order-7@4" in order.ok("search", "shipped -status").out
    found = order.ok("search", "shipped", "--json", "--limit", "1").json
    assert len(found["items"]) == 1
    rest = order.ok("search", "shipped", "--json", "--cursor", found["cursor"]).json
    assert {hit["seq"] for hit in found["items"] + rest["items"]} == {3, 4}
    start, end = found["items"][0]["highlights"][0]
    assert found["items"][0]["snippet"][start:end].casefold() == "shipped"
    nothing = order.ok("search", "absent")
    assert (nothing.out, nothing.err) == ("", "no event matches\n")


def test_a_list_goes_on_behind_its_cursor(shell: Shell) -> None:
    with holdfast.open(shell.url) as store:
        for number in range(5):
            store.create(f"s{number}")
    first = shell.ok("session", "list", "--limit", "2", "--json").json
    rest = shell.ok("session", "list", "--cursor", first["cursor"], "--json").json
    assert sorted(i["id"] for i in first["items"] + rest["items"]) == [f"s{n}" for n in range(5)]
    assert rest["cursor"] is None


@pytest.mark.parametrize(
    ("code", "args"),
    [
        (0, ["session", "list"]),
        (2, ["session", "list", "--limit", "0"]),
        (2, ["session", "lst"]),
        (2, ["session", "list", "--store", "mysql://x"]),
        (2, ["session", "rename", "order-7"]),
        (2, ["session", "delete", "order-7"]),
        (2, ["append", "order-7", "x", "--expect", "-1"]),
        (3, ["session", "show", "nobody"]),
        (3, ["session", "list", "--store", "sqlite:nothing.db"]),
        (4, ["session", "new", "order-7"]),
        (4, ["append", "order-7", "x", "--expect", "1"]),
        (6, ["init", "--store", "sqlite:/dev/null/x.db"]),
        (7, ["append", "order-7", "x", "--user", "eve"]),
        (7, ["append", "order-7", "x", "--user", "eve", "--create"]),
    ],
)
def test_exit_codes(order: Shell, code: int, args: list[str]) -> None:
    plain, as_json = order(*args), order("--json", *args)
    assert (plain.code, as_json.code) == (code, code), (plain, as_json)
    if code:
        assert plain.out == ""
        assert plain.err.startswith("holdfast: ")
        assert plain.err.count("\n") == 1
        assert "Traceback" not in plain.err


def test_an_error_as_json_says_its_type_and_facts(order: Shell) -> None:
    done = order("append", "order-7", "x", "--expect", "1", "--json")
    assert '"type": "Stale"' in done.err
    assert '"last": 4' in done.err


def test_a_damaged_event_is_shown_and_found_by_a_check(order: Shell) -> None:
    assert order.ok("check").out == "1 session, 4 events: all sound\n"
    db = sqlite3.connect(order.place / "store.db")
    db.execute("UPDATE entry SET body = zeroblob(20) WHERE seq = 3")
    db.commit()
    db.close()
    done = order("check")
    assert done.code == 5
    assert "order-7@3" in done.out
    assert "damaged" in order.ok("session", "show", "order-7").out
    third = order.ok("tail", "order-7", "--json").lines[2]
    assert (third["payload"], third["type"]) == (None, "damaged")
    assert third["damaged"]


def test_a_failure_has_a_traceback_only_for_debugging(order: Shell) -> None:
    assert "Traceback" in order("session", "show", "nobody", env={"HOLDFAST_DEBUG": "1"}).err


def test_a_closed_pipe_is_silent(order: Shell) -> None:
    order.ok("append", "order", "-", stdin="line\n" * 200_000)
    running = order.start("tail", "order", "--full")
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.readline()
    running.stdout.close()
    assert running.wait(20) == 0
    assert running.stderr.read() == b""
    running.stderr.close()


def test_ctrl_c_ends_a_follower_that_printed_what_came(order: Shell) -> None:
    with order.start("tail", "-f", "order", "--json") as running:
        assert running.stdout is not None
        assert running.stderr is not None
        for _ in range(4):
            running.stdout.readline()
        order.ok("append", "order", "news")
        assert b"news" in running.stdout.readline()
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 130
        assert b"Traceback" not in running.stderr.read()


def test_a_follower_ends_when_the_session_is_deleted(order: Shell) -> None:
    with order.start("tail", "-f", "order", "--json") as running:
        assert running.stdout is not None
        running.stdout.readline()
        order.ok("session", "delete", "order", "--yes")
        assert running.wait(20) == 0


HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\r\u202etxt"


def test_control_characters_of_stored_text_never_reach_the_terminal(shell: Shell) -> None:
    with holdfast.open(shell.url) as store:
        session = store.session("s", title="t\x1b[31m", user="u\x1b[1m", labels=["l"], metadata={"m": HOSTILE})
        session.append(user(HOSTILE, name=HOSTILE))
        session.append(assistant(tool_call(HOSTILE, HOSTILE, {HOSTILE: HOSTILE})))
        session.append(tool_result(HOSTILE, {HOSTILE: [HOSTILE]}, name=HOSTILE))
        session.append(holdfast.step(HOSTILE, HOSTILE, HOSTILE, error=HOSTILE, artifacts=[HOSTILE]))
        session.append(holdfast.custom("x." + HOSTILE, HOSTILE), holdfast.note(HOSTILE), holdfast.usage("m"))
    for args in (
        ["session", "show", "s", "--full"],
        ["session", "list"],
        ["tail", "s"],
        ["search", "owned"],
        ["check"],
    ):
        for how in ([], ["--json"], ["--color"]):
            out = shell.ok(*how, *args).out
            own = "\x1b" if how == ["--color"] else ""
            assert not [c for c in out if (c < " " and c not in "\n" + own) or "\x7f" <= c <= "\x9f"], (how, args)
            assert "\x1b]" not in out
            assert "\x1b[2J" not in out


def test_colours_only_on_a_terminal_and_not_with_no_color(order: Shell) -> None:
    plain = order.ok("search", "shipped").out
    assert "\x1b" not in plain
    assert "\x1b[" in order.on_a_terminal("search", "shipped")
    assert order.on_a_terminal("search", "shipped", NO_COLOR="1") == plain
    assert "\x1b" not in order.on_a_terminal("--no-color", "session", "list")
    assert "order-7" in order.on_a_terminal("session", "show", "order")


@pytest.mark.parametrize(
    "args",
    [
        ["session", "new", "order-7"],
        ["append", "gone", "Hi"],
        ["append", "gone", "Hi", "--create"],
        ["append", "nobody", "Hi"],
        ["append", "order-7", "Hi", "--expect", "1"],
        ["append", "order-7", "other", "--key", "k"],
        ["append", "order-7", "Hi", "--user", "bob"],
        ["session", "show", "nobody"],
        ["session", "list", "--since", "2026-01-01"],
        ["session", "list", "--since", "yesterday"],
        ["session", "list", "--limit", "0"],
        ["session", "list", "--cursor", "x"],
        ["session", "label", "order-7", "a\nb"],
        ["search", "x", "--limit", "0"],
        ["copy", "sqlite:store.db", "mongodb://x"],
        ["prune", "undo", "nothing"],
        ["prune", "apply", "--max-age", "0", "--batch", "1001", "--yes"],
        ["trash", "restore", "gone"],
        ["trash", "put", "gone"],
        ["trash", "purge"],
        ["doc", "delete", "n/gone.md", "--rev", "3", "--yes"],
        ["doc", "put", "n/gone.md", "--rev", "3"],
        ["doc", "put", "gone.txt"],
        ["artifact", "put", "order-7", "a", "--max-artifacts", "0"],
        ["report", "add", "order-7", "it", "--check", "a=fine"],
        ["session", "compact", "order-7@1", ""],
    ],
)
def test_what_an_error_says_fits_a_shell(order: Shell, args: list[str]) -> None:
    with holdfast.open(order.url) as store:
        store.create("gone").delete()
        store.documents.put("n/gone.md", "words")
        store.documents.delete("n/gone.md")
        store.session("order-7").append(user("Hi"), key="k")
    done = order(*args)
    assert done.err.startswith("holdfast: ")
    assert not re.search(r"\w\(|\w=|\bdatetime\b|\bstore\.|\{", done.err), done.err


@pytest.mark.parametrize("args", ["session show REF", "append REF Hi --create", "export REF"])
def test_who_names_a_deleted_session_is_told_how_to_begin_it_anew(shell: Shell, args: str) -> None:
    shell.ok("append", "it's", "Hi", "--create")
    shell.ok("session", "delete", "it's", "--yes")
    told = shell(*["it's" if arg == "REF" else arg for arg in args.split()])
    assert told.code == 3
    command = re.findall(r"`holdfast (.*)`", told.err)[0]
    shell.ok(*shlex.split(command))
    assert shell.ok("append", "it's", "again").out == "it's@2\n"


def test_a_group_without_a_command_is_told_its_commands(shell: Shell) -> None:
    for args in ([], ["session"], ["prune"]):
        done = shell(*args)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("Examples:\n")
        assert done.err.rstrip().splitlines()[-1].startswith("  ")  # the last command
    assert json.loads(shell("--json", "session").err)["error"]["message"].startswith("Missing command; ")
    assert shell("bogus").err == "holdfast: No such command 'bogus'; holdfast --help says more\n"


@pytest.mark.parametrize("closed", ["1", "2"])
def test_a_stream_that_is_closed_is_no_failure(order: Shell, closed: str) -> None:
    def run(args: str) -> int:
        return subprocess.run(
            ["/bin/sh", "-c", f'exec "$0" -m holdfast.cli {args} {closed}>&-', sys.executable],
            cwd=order.place, env=order.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
        ).returncode  # fmt: skip

    assert run("session list") == 0
    assert run("session show nobody") == 3


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_words_and_names_are_utf_8_whatever_the_locale(shell: Shell, tmp_path: Path) -> None:
    place = f"sqlite:{tmp_path}/Grüße.db"
    assert shell("append", "日本", "Grüße 🦀", "--create", "--store", place, env=ASCII).code == 0
    assert shell("export", "日本", "--store", place, "-o", "Grüße.jsonl", env=ASCII).code == 0
    assert shell("copy", place, "file:Grüße", env=ASCII).code == 0
    assert shell("import", "Grüße.jsonl", env=ASCII).code == 0
    for url in (place, f"file:{tmp_path}/Grüße", shell.url):
        with holdfast.open(url) as store:
            assert [m.text for m in store.session("日本").messages()] == ["Grüße 🦀"]


def test_a_text_that_is_no_utf_8_is_refused_as_from_stdin(order: Shell) -> None:
    for env in ({}, ASCII):
        done = subprocess.run(
            [*COMMAND, "append", "order-7", b"a\xff"],
            cwd=order.place, env={**order.env, **env}, capture_output=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (2, b"holdfast: TEXT is not UTF-8\n")
    assert order("append", "order-7", stdin=b"a\xff").code == 2


def test_nothing_from_stdin_is_no_message(order: Shell) -> None:
    for args in (["append", "order-7"], ["append", "order-7", "-"], ["append", "new", "--create"]):
        assert order(*args).code == 2
    assert order("session", "show", "new").code == 3
    assert order.ok("append", "order-7", "").out == "order-7@5\n"


def test_a_store_that_is_missing_is_told_with_what_creates_it(shell: Shell) -> None:
    assert shell("session", "list").err.endswith("yet; `holdfast init` creates one\n")
    hint = shell("session", "list", "--store", "sqlite:my store.db").err.split("`")[1]
    subprocess.run(["/bin/sh", "-c", hint.replace("holdfast", f"{sys.executable} -m holdfast.cli")],
                   cwd=shell.place, env=shell.env, check=True)  # fmt: skip
    assert shell("session", "list", "--store", "sqlite:my store.db").code == 0
    assert "init" not in shell("copy", "sqlite:none.db", "sqlite:b.db").err


def test_a_file_of_another_kind_is_not_sent_to_a_check_that_fails_too(shell: Shell) -> None:
    (shell.place / "notes.db").write_text("no database\n" * 1000)
    done = shell("session", "list", "--store", "sqlite:notes.db")
    assert done.code == 5
    assert "check" not in done.err


@pytest.mark.parametrize("way", ["ctrl-c", "ctrl-d"])
def test_who_breaks_off_at_the_question_deletes_nothing(order: Shell, way: str) -> None:
    ours, theirs = os.openpty()
    running = order.start("session", "delete", "order-7", stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    said = b""
    while b"for good? [y/N]" not in said:
        said += os.read(ours, 1000)
    while running.poll() is None:  # again, as people do: a key that comes before the program waits for it is lost
        running.send_signal(signal.SIGINT) if way == "ctrl-c" else os.write(ours, b"\x04")
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(timeout=1)
    with contextlib.suppress(OSError):  # how a terminal ends
        while more := os.read(ours, 1000):
            said += more
    os.close(ours)
    assert running.returncode == 130
    assert b"unexpected" not in said
    order.ok("session", "show", "order-7")


def test_the_newest_session_is_not_created_under_the_name_that_asks_for_it(order: Shell) -> None:
    assert order("append", "@last", "Hi", "--create").code == 2
    assert order("session", "new", "@last").code == 2
    assert [s["id"] for s in order.ok("--json", "session", "list").json["items"]] == ["order-7"]


def test_records_of_types_from_elsewhere_are_carried_over_and_slips_are_refused(order: Shell) -> None:
    later = b'{"v":1,"type":"hologram","beam":{"color":"red"}}\n'
    assert order("append", "order-7", "--jsonl", stdin=b'{"type":"hologram"}').code == 2
    order("append", "order-7", "--jsonl", stdin=later)
    payload = order.ok("session", "show", "order-7", "--json").json["items"][-1]["payload"]
    assert payload == {"v": 1, "type": "hologram", "beam": {"color": "red"}}


def test_json_may_be_asked_for_behind_a_group(order: Shell) -> None:
    assert order.ok("session", "--json", "list").json == order.ok("--json", "session", "list").json
