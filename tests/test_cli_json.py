"""The shapes of `--json`: exactly the keys that docs/CLI.md names, for every command."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import assistant, step, tool_call, usage, user
from holdfast.cli.app import LAZY
from shell import Shell

DOCS = (Path(__file__).parent.parent / "docs" / "CLI.md").read_text(encoding="utf-8")
SHAPES_TABLE = DOCS[DOCS.index("| what | keys |") :]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    with holdfast.open(made.url) as store:
        store.session("t").append(user("Other"))
        store.session("s", user="ada").append(user("Hello"), usage("m", 1, 2, cost=3))
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
    "`check`": (["check"], lambda out: out),
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
    for placed in (["--json", *args], [*args, "--json"]):
        if args[0] in ("append", "check", "session", "export") and placed[-1] == "--json":
            continue  # once is enough for what changes the store
        assert set(part(shell.ok(*placed).json)) == documented(what)


def test_every_shape_of_the_table_is_pinned() -> None:
    rows = [row for row in re.findall(r"^\| (.*?) \|", SHAPES_TABLE, re.MULTILINE)[1:] if not row.startswith("-")]
    pinned = [*SHAPES, "lease (", "`session state`", "`session resume`", "recovery ("]
    unpinned = [row for row in rows if not any(row.startswith(what) for what in pinned)]
    assert unpinned == ["an error, on stderr"]


def test_lists_have_items_and_a_cursor_and_what_is_documented(shell: Shell) -> None:
    (shell.place / "bundle.jsonl").write_text(shell.ok("export", "s").out)
    assert set(shell.ok("session", "list", "--json").json) == {"items", "cursor", "damaged"}
    assert set(shell.ok("search", "nothing", "--json").json) == {"items", "cursor"}
    assert set(shell.ok("session", "show", "s", "--json").json) == {"items", "cursor", "session"}
    assert set(shell.ok("import", "bundle.jsonl", "--json").json) == {"items", "cursor", "events", "failed"}
    assert set(shell.ok("copy", shell.url, "sqlite:o.db", "--json").json) == {"items", "cursor"}


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
    commands = [name for name in LAZY if name != "session"]
    commands += [f"session {name}" for name in ("list", "show", "new", "rename", "label", "state", "recover", "delete")]
    assert [name for name in commands if not re.search(rf"^\| `{name}\b", DOCS, re.MULTILINE)] == []


def test_every_exit_code_is_documented() -> None:
    table = DOCS[DOCS.index("## Exit codes") : DOCS.index("## JSON")]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == [*range(9), 130]
