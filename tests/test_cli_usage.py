"""`holdfast usage` and `holdfast report`: what calls took, and what was verified."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

import holdfast
from holdfast import Event, Report, tasks, usage, user
from shell import Shell

HOSTILE = "\x1b]0;owned\x07\x9b31m\x7f\r\n\u202etxt"
DAY = 86_400_000_000


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    with holdfast.open(made.url) as store:
        session = store.session("s", user="ada", agent="helper", project="shop", created_at=100 * DAY)
        session.append(
            Event(payload=usage("m", 1000, 20, response_id="1", cost=2_100_000), at=100 * DAY),
            Event(payload=usage("m", 1, 2, response_id="1", cost=7), at=100 * DAY),
            Event(payload=usage("n", 3, 4, cost=1), at=101 * DAY),
        )
        store.session("t", user="bob").append(user("Hi"))
    return made


def keys(out: object) -> list[tuple[str, int]]:
    assert isinstance(out, dict)
    return [(one["key"], one["cost"]) for one in out["items"]]


def test_totals_are_by_each_noun(shell: Shell) -> None:
    for noun, found in (
        ("daily", [("1970-04-11", 2_100_000), ("1970-04-12", 1)]),
        ("session", [("s", 2_100_001)]),
        ("model", [("m", 2_100_000), ("n", 1)]),
        ("agent", [("helper", 2_100_001)]),
        ("user", [("ada", 2_100_001)]),
        ("project", [("shop", 2_100_001)]),
    ):
        out = shell.ok("usage", noun, "--json").json
        assert keys(out) == found
        assert (out["total"]["cost"], out["total"]["calls"]) == (2_100_001, 2)


def test_people_read_dollars(shell: Shell) -> None:
    lines = shell.ok("usage", "model").out.splitlines()
    assert [line.split() for line in lines] == [
        ["MODEL", "CALLS", "INPUT", "OUTPUT", "CACHE", "READ", "CACHE", "WRITE", "COST", "COMPUTED"],
        ["m", "1", "1,000", "20", "0", "0", "$2.10"],
        ["n", "1", "3", "4", "0", "0", "$0.000001"],
        ["total", "2", "1,003", "24", "0", "0", "$2.100001"],
    ]


def test_times_and_filters_choose(shell: Shell) -> None:
    since = ["--since", "1970-04-12T00:00:00Z"]
    assert keys(shell.ok("usage", "model", *since, "--json").json) == [("n", 1)]
    assert keys(shell.ok("usage", "model", "--until", since[1], "--json").json) == [("m", 2_100_000)]
    nothing = shell.ok("usage", "model", "--user", "bob")
    assert (nothing.out, nothing.err) == ("", "no usage was recorded\n")
    assert keys(shell.ok("--user", "bob", "usage", "model", "--json").json) == []
    assert shell("usage", "daily", "--since", "yesterday").code == 2
    assert shell("usage", "hourly").code == 2


def test_sums_that_lack_a_damaged_session_say_so(shell: Shell) -> None:
    db = sqlite3.connect(shell.place / "store.db")
    db.execute("UPDATE entry SET body = zeroblob(20) WHERE seq = 3")
    db.commit()
    db.close()
    done = shell("usage", "daily", "--json")
    assert (done.code, done.json["damaged"]) == (5, ["s"])
    assert "not counted: session 's'" in done.err


def test_a_report_comes_to_what_its_checks_say(shell: Shell) -> None:
    for args, status in (
        (["--check", "a=passed", "--optional", "b=skipped"], "passed"),
        (["--check", "a=passed", "--check", "b=skipped"], "needs_review"),
        (["--check", "a=passed", "--risk", "not tried"], "needs_review"),
        (["--optional", "a=b=failed"], "failed"),
        ([], "skipped"),
        (["--check", "a=failed", "--status", "passed"], "passed"),
    ):
        dry = shell.ok("report", "add", "t", "it", *args, "--dry-run", "--json").json
        assert (dry["status"], dry["seq"]) == (status, None)
        assert shell.ok("report", "add", "t", "it", *args).out.split()[1] == status
    told = shell.ok("report", "list", "t", "--json").json["items"]
    assert [one["seq"] for one in told] == [2, 3, 4, 5, 6, 7]
    assert told[0]["checks"][1] == {"id": "b", "status": "skipped", "required": False}
    assert shell.ok("report", "show", "t", "--json").json == told[-1]
    assert shell.ok("report", "show", "t@3", "--json").json == told[1]
    assert shell.ok("report", "show", "t@2").out.splitlines() == [
        "passed  it",
        "  passed        a",
        "  skipped       b    (optional)",
    ]


def test_whole_checks_come_from_a_file_and_a_key_stores_once(shell: Shell) -> None:
    checks = json.dumps([{"id": "a", "status": "failed", "evidence_uris": ["file:log"], "more": 1}])
    for _ in range(2):
        done = shell.ok("report", "add", "t", "it", "--checks", "-", "--key", "k", "--json", stdin=checks)
        assert done.json["seq"] == 2
    assert shell.ok("report", "show", "t", "--json").json["checks"][0]["more"] == 1
    assert "see file:log" in shell.ok("report", "show", "t").out


@pytest.mark.parametrize(
    ("code", "args", "stdin"),
    [
        (2, ["report", "add", "t", "it", "--check", "tests"], ""),
        (2, ["report", "add", "t", "it", "--check", "tests=good"], ""),
        (2, ["report", "add", "t", "it", "--check", "a=passed", "--check", "a=passed"], ""),
        (2, ["report", "add", "t", "it", "--checks", "-"], "{"),
        (2, ["report", "add", "t", "it", "--checks", "-"], "[1]"),
        (2, ["report", "add", "t", "it", "--checks", "-"], "[" * 100_000),
        (3, ["report", "add", "nobody", "it"], ""),
        (3, ["report", "show", "t"], ""),
        (3, ["report", "show", "t@1"], ""),
        (7, ["--user", "eve", "report", "list", "t"], ""),
    ],
)
def test_what_is_no_report_is_refused(shell: Shell, code: int, args: list[str], stdin: str) -> None:
    done = shell(*args, stdin=stdin)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("holdfast: ")
    assert done.err.count("\n") == 1


def test_stored_text_never_reaches_a_terminal_raw(shell: Shell) -> None:
    odd = {"id": HOSTILE, "status": HOSTILE, "description": HOSTILE, "evidence_uris": [HOSTILE, {"x": HOSTILE}]}
    with holdfast.open(shell.url) as store:
        hostile = store.session("h", agent="a\x9b1m", user="h")
        hostile.append(
            Report(subject=HOSTILE, status=HOSTILE, checks=(odd, {"evidence_uris": 7}, {}), residual_risks=(HOSTILE,))
        )
        hostile.append(usage("m\u202e", 1, 1), tasks({"id": HOSTILE, "content": HOSTILE}))
    for args in (
        ["report", "list", "h"],
        ["report", "show", "h"],
        ["usage", "model"],
        ["usage", "agent"],
        ["session", "tasks", "h"],
    ):
        for how in ([], ["--json"]):
            out = shell.ok(*how, *args).out
            assert not [
                c for c in out if (c < " " and c != "\n") or "\x7f" <= c <= "\x9f" or (c == "\u202e" and not how)
            ], args


def test_tasks_are_the_list_as_it_stands(shell: Shell) -> None:
    assert shell.ok("session", "tasks", "t").err == "it has no tasks\n"
    with holdfast.open(shell.url) as store:
        store.session("t").append(tasks({"id": "1", "content": "Look"}))
        store.session("t").append(
            tasks(
                {"id": "1", "content": "Look", "status": "completed"},
                {"id": "2", "content": "Pay", "dependencies": ["1"]},
            )
        )
    assert [(one["id"], one["status"]) for one in shell.ok("session", "tasks", "t", "--json").json["items"]] == [
        ("1", "completed"),
        ("2", "pending"),
    ]
    assert shell.ok("session", "tasks", "t").out.splitlines()[2].split() == ["2", "pending", "medium", "1", "Pay"]
