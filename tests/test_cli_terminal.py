"""What is for terminals only: the pager and the progress bar. A terminal is a real one (a pty)."""

from __future__ import annotations

from pathlib import Path

import pytest

import holdfast
from holdfast import user
from shell import Shell
from transcripts import said

MARK = "the pager was here"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    with holdfast.open(made.url) as store:
        store.create("s").append(user("Where is order 7?"))
    pager = tmp_path / "pager"
    pager.write_text(f"#!/bin/sh\necho {MARK}\nexec cat\n")
    pager.chmod(0o700)
    made.env["PAGER"] = str(pager)
    return made


def test_a_session_is_shown_in_the_pager_of_a_terminal_only(shell: Shell) -> None:
    show = ["session", "show", "s"]
    paged = shell.on_a_terminal(*show, PAGER=shell.env["PAGER"])
    assert paged.startswith(MARK)
    assert "Where is order 7?" in paged
    assert "Where is order 7?" in shell.ok(*show).out  # a pipe
    as_json = shell.on_a_terminal("--json", *show, PAGER=shell.env["PAGER"])
    assert "Where is order 7?" in as_json
    for not_paged in (shell.ok(*show).out, shell.ok("--color", *show).out, as_json):
        assert MARK not in not_paged


def test_an_import_shows_a_bar_on_a_terminal_only(shell: Shell) -> None:
    bar = "importing  ["
    for name in ("tty", "quiet", "pipe", "json"):
        (shell.place / f"{name}.jsonl").write_bytes(b"".join(said(f"m{n}", n, name) for n in range(200)))
    talk = shell.on_a_terminal("import", "tty.jsonl", talk=True)
    assert bar in talk
    assert "100%" in talk
    assert shell.on_a_terminal("-q", "import", "quiet.jsonl", talk=True) == ""
    for done in (shell.ok("import", "pipe.jsonl"), shell.ok("--json", "import", "json.jsonl")):
        assert bar not in done.out + done.err
    with holdfast.open(shell.url) as store:
        assert len(store.sessions()) == 5
