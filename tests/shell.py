"""Runs the command as a process, as a shell does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import click

from holdfast.cli.app import holdfast

COMMAND = [sys.executable, "-m", "holdfast.cli"]


def hear_ctrl_c() -> None:
    """Before a command starts: tests that run in the background of a shell ignore SIGINT, and so would the command."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def commands() -> dict[tuple[str, ...], click.Command]:
    """Every command and group there is, by the words that call it; () is `holdfast` itself."""
    found: dict[tuple[str, ...], click.Command] = {(): holdfast}
    todo: list[tuple[str, ...]] = [()]
    while todo:
        path = todo.pop()
        group = found[path]
        context = click.Context(group)
        for name in group.list_commands(context) if isinstance(group, click.Group) else ():
            command = group.get_command(context, name)
            assert command is not None
            found[*path, name] = command
            todo.append((*path, name))
    return found


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as one JSON value."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """What it printed, a JSON value a line."""
        return [json.loads(line) for line in self.out.splitlines()]


class Shell:
    """A place with a store of its own, where commands run."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.url = f"sqlite://{place}/store.db"
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("HOLDFAST", "_HOLDFAST", "XDG_"))
        }
        for name in ("NO_COLOR", "CLAUDE_CONFIG_DIR", "CODEX_HOME"):
            kept.pop(name, None)
        self.env = {**kept, "HOME": str(place), "HOLDFAST_URL": self.url, "COLUMNS": "120", "TZ": "UTC"}

    def start(self, *args: str, **how: Any) -> subprocess.Popen[bytes]:
        """A command that goes on running."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
        if os.name == "posix":
            streams.setdefault("preexec_fn", hear_ctrl_c)
        return subprocess.Popen([*COMMAND, *args], cwd=self.place, env=self.env, **streams)

    def __call__(self, *args: str, stdin: str | bytes = b"", env: dict[str, str] | None = None) -> Done:
        """Run a command to its end."""
        done = subprocess.run(
            [*COMMAND, *args],
            cwd=self.place,
            env={**self.env, **(env or {})},
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def on_a_terminal(self, *args: str, talk: bool = False, **env: str) -> str:
        """What a command that must succeed writes to a terminal: its data, or its talk and not its data."""
        ours, theirs = os.openpty()
        streams = {"stdout": subprocess.DEVNULL if talk else theirs, "stderr": theirs if talk else subprocess.DEVNULL}
        terminal = {**self.env, "TERM": "xterm", "PAGER": "cat", **env}
        running = subprocess.Popen([*COMMAND, *args], cwd=self.place, env=terminal, stdin=theirs, **streams)
        os.close(theirs)
        written = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(ours, 65536):
                written += data
        assert running.wait(20) == 0
        os.close(ours)
        return written.decode().replace("\r\n", "\n")

    def answered(self, *args: str, answer: str) -> tuple[int, str]:
        """The exit code of a command that asks on a terminal, and what it says there; its question is answered so."""
        ours, theirs = os.openpty()
        running = self.start(*args, stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs)
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(ours, 1000):
                said += data
                if said.endswith(b"[y/N]: "):
                    os.write(ours, answer.encode() + b"\n")
        code = running.wait(20)
        os.close(ours)
        return code, said.decode()

    def ok(self, *args: str, stdin: str | bytes = b"") -> Done:
        """Run a command that must succeed."""
        done = self(*args, stdin=stdin)
        assert done.code == 0, done
        return done
