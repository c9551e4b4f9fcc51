"""Every example of the README and the docs is run as it stands there.

The blocks of a file run from top to bottom, in one new folder, with `HOLDFAST_URL` naming a new store in it. All
```python blocks of a file share one namespace. In a ```console block each line that starts with `$ ` is a command for
the shell, which must end with exit code 0; the lines below it are what it prints, both streams together. If no line is
shown, any output will do. In a shown line `...` stands for any text within the line, and a line that is only `...` for
any number of lines. Other blocks (sh, json, text, sql) are not run.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import holdfast
from holdfast.backends.migrate import scripts

ROOT = Path(__file__).parent.parent
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


class Block(NamedTuple):
    """A fenced block: its language, its text, and the line of the file that it starts on."""

    language: str
    text: str
    line: int


class Command(NamedTuple):
    """A command of a console block and what it is said to print."""

    line: str
    shown: list[str]


def blocks(text: str) -> Iterator[Block]:
    for match in FENCE.finditer(text):
        yield Block(match[1], match[2], text.count("\n", 0, match.start(2)) + 1)


def commands(text: str) -> Iterator[Command]:
    found: list[Command] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append(Command(line[2:], []))
        else:
            found[-1].shown.append(line)
    return iter(found)


def as_shown(shown: list[str], printed: str) -> bool:
    """Whether the output is what the example shows."""
    pattern = ""
    for line in shown:
        if line.strip() == "...":
            pattern += r"(?:[^\n]*\n)*"
        else:
            pattern += r"[^\n]*".join(re.escape(piece) for piece in line.rstrip().split("...")) + "\n"
    plain = "".join(line.rstrip() + "\n" for line in printed.splitlines())
    return re.fullmatch(pattern, plain) is not None


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new folder with a new store, where the commands find holdfast and nothing of the user's."""
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("HOLDFAST", "XDG_", "CLAUDE", "CODEX"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOLDFAST_URL", f"sqlite://{tmp_path}/store.db")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


def run(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_example_does_what_it_says(path: Path, place: Path) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(path.read_text(encoding="utf-8")):
        if block.language == "python":
            code = compile("\n" * (block.line - 1) + block.text, str(path), "exec", dont_inherit=True)
            exec(code, names)
        elif block.language == "console":
            for command in commands(block.text):
                done = run(command.line)
                where = f"{path.name}:{block.line}: $ {command.line}\nprinted:\n{done.stdout}"
                assert done.returncode == 0, where
                assert not command.shown or as_shown(command.shown, done.stdout), where


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_program_runs(path: Path, place: Path) -> None:
    done = run(f"{sys.executable} {path}")
    assert done.returncode == 0, done.stdout
    assert done.stdout


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_to_one(path: Path) -> None:
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    broken = [link for link in LINK.findall(text) if "://" not in link and not (path.parent / link).exists()]
    assert not broken


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_fence_is_closed(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(list(blocks(text)))


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        (["a"], "a\n", True),
        (["a"], "a\nb\n", False),
        (["a ... c"], "a b c\n", True),
        (["a ... c"], "a\nc\n", False),
        (["a", "...", "z"], "a\nz\n", True),
        (["a", "...", "z"], "a\nb\nc\nz\n", True),
        (["..."], "", True),
        (["a.c"], "abc\n", False),
    ],
)
def test_the_rule_for_what_is_left_out(shown: list[str], printed: str, same: bool) -> None:
    assert as_shown(shown, printed) == same


def test_blocks_and_commands_are_found() -> None:
    text = "Hi\n\n```python\nx = 1\n```\n\n```console\n$ echo 1\n1\n$ true\n```\n"
    assert list(blocks(text)) == [Block("python", "x = 1\n", 4), Block("console", "$ echo 1\n1\n$ true\n", 8)]
    assert list(commands("$ echo 1\n1\n$ true\n")) == [Command("echo 1", ["1"]), Command("true", [])]


def test_the_api_page_names_every_public_name() -> None:
    text = (ROOT / "docs" / "API.md").read_text(encoding="utf-8")
    missing = [name for name in holdfast.__all__ if not re.search(rf"\b{name}\b", text)]
    assert not missing


def test_the_formats_page_names_every_column_of_the_sqlite_schema() -> None:
    text = (ROOT / "docs" / "FORMATS.md").read_text(encoding="utf-8")
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        for _, script in scripts("sqlite"):
            db.executescript(script)
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = [row[1] for table in tables for row in db.execute(f"PRAGMA table_info({table})")]
    assert [name for name in (*tables, *columns) if f"`{name}`" not in text] == []
