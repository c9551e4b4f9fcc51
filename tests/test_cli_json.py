"""The shapes of `--json`: exactly the keys that docs/CLI.md names, for every command."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import assistant, report, step, tasks, tool_call, tool_result, usage, user
from shell import Shell, commands

DOCS = (Path(__file__).parent.parent / "docs" / "CLI.md").read_text(encoding="utf-8")
SHAPES_TABLE = DOCS[DOCS.index("| what | keys |") :]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    with holdfast.open(made.url) as store:
        store.session("t").append(user("Other"))
        store.session("s", user="ada").append(user("Hello"), usage("m", 1, 2, cost=3))
        more = store.session("more")
        more.append(report("it", [{"id": "a", "status": "passed"}]), tasks({"id": "1", "content": "Look"}))
        more.append(assistant(tool_call("c", "look", {})))
        store.session("early").append(tool_result("x", "no call"))
        more.artifacts.put("a", b"bytes")
        store.documents.put("n/a.json", 1)
        store.session("old").append(user("Old"))
        store.trash.put("old")
        store.session("older").append(user("Older"))
        store.session("older").update(labels=["old"])
        store.prune(holdfast.Policy(max_age=0, label="old")).apply()
    return made


def documented(what: str) -> set[str]:
    """The keys in the row of the table that begins so."""
    row = re.search(rf"^\| {re.escape(what)}[^|]*\| (.*) \|$", SHAPES_TABLE, re.MULTILINE)
    assert row is not None, what
    return set(re.findall(r"`([^`]*)`", row[1])[0].split())


SHAPES: dict[str, tuple[list[str], Any]] = {
    "session (": (["session", "list"], lambda out: out["items"][0]),
    "its `counts`": (["session", "list"], lambda out: out["items"][0]["counts"]),
    "event (": (["session", "show", "s"], lambda out: out["items"][0]),
    "hit (": (["search", "hello"], lambda out: out["items"][0]),
    "receipt (": (["append", "s", "x"], lambda out: out),
    "`session fork`": (["session", "fork", "s@1"], lambda out: out),
    "`session tree`": (["session", "tree", "s"], lambda out: out),
    "an item of `session diff`": (["session", "diff", "s", "t"], lambda out: out["items"][0]),
    "`session rewind`": (["session", "rewind", "s@1"], lambda out: out),
    "`session star`": (["session", "star", "s"], lambda out: out),
    "`session delete`": (["session", "delete", "s", "--yes"], lambda out: out),
    "`check`": (["check", "--sweep"], lambda out: out),
    "its `swept`": (["check", "--sweep"], lambda out: out["swept"]),
    "`session context`": (["session", "context", "s"], lambda out: out),
    "`session compact`": (["session", "compact", "s@1", "x"], lambda out: out),
    "problem (": (["session", "repair", "early", "--dry-run"], lambda out: out["left"][0]),
    "`session repair`": (["session", "repair", "more"], lambda out: out),
    "task (": (["session", "tasks", "more"], lambda out: out["items"][0]),
    "artifact (": (["artifact", "list", "more"], lambda out: out["items"][0]),
    "`artifact put`": (["artifact", "put", "more", "b", "bundle.jsonl"], lambda out: out),
    "`artifact get -o`": (["artifact", "get", "more", "a", "--force", "-o", "a"], lambda out: out),
    "`artifact verify`": (["artifact", "verify", "more"], lambda out: out["items"][0]),
    "`artifact delete`": (["artifact", "delete", "more", "a"], lambda out: out),
    "`report add`": (["report", "add", "s", "it"], lambda out: out),
    "report (": (["report", "show", "more"], lambda out: out),
    "total (": (["usage", "daily"], lambda out: out["items"][0]),
    "document (": (["doc", "list"], lambda out: out["items"][0]),
    "`doc put`": (["doc", "put", "n/b.json", "bundle.json"], lambda out: out),
    "`doc get`": (["doc", "get", "n/a.json"], lambda out: out),
    "`doc get -o`": (["doc", "get", "n/a.json", "--force", "-o", "a"], lambda out: out),
    "`doc delete`": (["doc", "delete", "n/a.json", "--yes"], lambda out: out),
    "an item of `prune plan`": (["prune", "plan", "--max-age", "0"], lambda out: out["items"][0]),
    "`prune apply`": (["prune", "apply", "--max-age", "0", "--yes"], lambda out: out),
    "prune (": (["prune", "history"], lambda out: out["items"][0]),
    "trashed (": (["trash", "list"], lambda out: out["items"][0]),
    "`trash put`": (["trash", "put", "s"], lambda out: out),
    "`trash restore`": (["trash", "restore", "old"], lambda out: out),
    "`trash purge`": (["trash", "purge", "old", "--yes"], lambda out: out),
    "`session archive`": (["session", "archive", "s", "-o", "s.jsonl"], lambda out: out),
    "`compact`": (["compact"], lambda out: out),
    "a file of `import`": (["import", "bundle.jsonl", "--store", "sqlite:o.db"], lambda out: out["items"][0]),
    "a session of `copy`": (["copy", "sqlite:store.db", "sqlite:o.db"], lambda out: out["items"][0]),
    "`export -o`": (["export", "s", "-f", "md", "-o", "s.md"], lambda out: out),
    "`init`": (["init"], lambda out: out),
    "`info`": (["info"], lambda out: out),
    "`version`": (["version"], lambda out: out),
    "`doctor`": (["doctor"], lambda out: out),
    "`completion`": (["completion", "zsh"], lambda out: out),
    "`demo`": (["demo"], lambda out: out),
}


@pytest.mark.parametrize("what", SHAPES)
def test_the_keys_are_those_that_are_documented(shell: Shell, what: str) -> None:
    args, part = SHAPES[what]
    (shell.place / "bundle.jsonl").write_text(shell.ok("export", "s").out)
    (shell.place / "bundle.json").write_text("1")
    for placed in (["--json", *args], [*args, "--json"]):
        if placed[0] != "--json" and args[0] not in ("search", "import", "copy", "init", "info", "version", "doctor"):
            continue  # once is enough for what changes the store
        assert set(part(shell.ok(*placed).json)) == documented(what)


def test_every_shape_of_the_table_is_pinned() -> None:
    rows = [row for row in re.findall(r"^\| (.*?) \|", SHAPES_TABLE, re.MULTILINE)[1:] if not row.startswith("-")]
    pinned = [*SHAPES, "lease (", "`session state`", "`session resume`", "recovery (", "`prune undo`"]
    pinned += ["a line of `copy --follow`", "`backup`", "`restore`"]  # by the tests of copies and backups
    pinned.append("change (")  # by the tests of watches
    unpinned = [row for row in rows if not any(row.startswith(what) for what in pinned)]
    assert unpinned == ["an error, on stderr"]


def test_lists_have_items_and_a_cursor_and_what_is_documented(shell: Shell) -> None:
    (shell.place / "bundle.jsonl").write_text(shell.ok("export", "s").out)
    assert set(shell.ok("session", "list", "--json").json) == {"items", "cursor", "damaged"}
    assert set(shell.ok("search", "nothing", "--json").json) == {"items", "cursor"}
    assert set(shell.ok("session", "show", "s", "--json").json) == {"items", "cursor", "session"}
    assert set(shell.ok("import", "bundle.jsonl", "--json").json) == {"items", "cursor", "events", "failed"}
    assert set(shell.ok("copy", shell.url, "sqlite:o.db", "--json").json) == {"items", "cursor"}
    assert set(shell.ok("doc", "list", "--json").json) == {"items", "cursor", "damaged"}
    assert set(shell.ok("trash", "list", "--json").json) == {"items", "cursor", "damaged"}
    assert set(shell.ok("artifact", "list", "more", "--json").json) == {"items", "cursor"}
    assert set(shell.ok("usage", "model", "--json").json) == {"items", "cursor", "by", "total", "damaged"}
    assert set(shell.ok("prune", "undo", "--dry-run", prune_of(shell), "--json").json) == documented("`prune undo`")
    assert set(shell.ok("prune", "plan", "--max-age", "0", "--json").json) == {
        "items", "cursor", "spared", "damaged", "bytes", "sessions", "matched", "at",
    }  # fmt: skip


def prune_of(shell: Shell) -> str:
    (done,) = shell.ok("prune", "history", "--json").json["items"]
    return str(done["id"])


def test_runs_have_the_shapes_that_are_documented(shell: Shell) -> None:
    assert set(shell.ok("session", "state", "s", "running", "--turn", "A", "--json").json) == documented(
        "`session state`"
    )
    found = shell.ok("stuck", "--older-than", "0", "--json").json["items"]
    assert [(set(lease), lease["turn"]) for lease in found] == [(documented("lease ("), "A")]
    held = shell("session", "recover", "s", "--json")
    assert (held.code, held.json["items"][0]["applied"]) == (8, False)
    assert shell("session", "state", "s", "idle", "--json").code == 4
    (planned,) = shell.ok("session", "recover", "--older-than", "0", "--dry-run", "--json").json["items"]
    assert (set(planned), planned["applied"]) == (documented("recovery ("), False)
    (done,) = shell.ok("session", "recover", "s", "--older-than", "0", "--json").json["items"]
    assert (done["applied"], done["lease"]["turn"]) == (True, "A")
    assert shell.ok("session", "state", "s", "--json").json == {"session": "s", "state": "error", "lease": None}
    assert shell.ok("stuck", "--json").json["items"] == []


def test_where_to_go_on_has_the_shape_of_a_recovery(shell: Shell) -> None:
    with holdfast.open(shell.url) as store:
        store.session("s").append(assistant(tool_call("c", "look"), tool_call("d", "pay")), step("look", call_id="c"))
    found = shell.ok("session", "resume", "s", "--json").json
    assert set(found) == documented("recovery (") | {"at"}
    assert (found["last_user"], [c["id"] for c in found["open"]], found["applied"]) == ("Hello", ["d"], False)
    told = shell.ok("session", "resume", "s", "--answer").out
    assert told == "user: Hello\nfinished: look c\ninterrupted: pay d\n"
    assert shell.ok("session", "resume", "s", "--json").json["open"] == []


def test_a_dry_run_changes_nothing(shell: Shell) -> None:
    before = shell.ok("export", "--all").out
    for args in (["fork", "s@1", "--id", "f"], ["rewind", "s@1"], ["undo", "s"], ["note", "s", "x"], ["star", "s"]):
        assert shell("session", *args, "--dry-run").code == 0
        assert shell("session", *args, "--dry-run", "--json").code == 0
    assert shell.ok("export", "--all").out == before


def test_streams_are_one_object_a_line(shell: Shell) -> None:
    assert [set(line) for line in shell.ok("tail", "s", "--json").lines] == [documented("event (")] * 2
    assert all(isinstance(line, dict) for line in shell.ok("export", "s").lines)


def test_an_error_is_json_with_a_type_and_a_message(shell: Shell) -> None:
    for args in (["session", "show", "nobody"], ["session", "lst"], ["export"], ["session", "list", "--limit", "x"]):
        done = shell("--json", *args)
        error = json.loads(done.err)["error"]
        assert {"type", "message"} <= set(error)
        assert done.out == ""


def test_every_command_is_documented() -> None:
    groups = {path[0] for path in commands() if len(path) > 1}
    names = [" ".join(path) for path in commands() if path and path != (path[0],) * (path[0] in groups)]
    assert [name for name in names if not re.search(rf"^\| `{name}\b", DOCS, re.MULTILINE)] == []


def test_every_exit_code_is_documented() -> None:
    table = DOCS[DOCS.index("## Exit codes") : DOCS.index("## JSON")]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == [*range(9), 130]
