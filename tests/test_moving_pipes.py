"""Pipes where a file is expected: what can be read only once, and what nothing may replace."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

import holdfast
from holdfast import user
from shell import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A store with one session, a backup of it, and a named pipe."""
    made = Shell(tmp_path)
    with holdfast.open(made.url) as store:
        store.session("s").append(user("x"))
        store.backup(str(tmp_path / "b.zst"))
    os.mkfifo(tmp_path / "pipe")
    return made


@pytest.mark.parametrize("command", [("backup", "pipe"), ("export", "--all", "-o", "pipe")])
def test_a_pipe_is_not_replaced_by_a_file(shell: Shell, command: tuple[str, ...]) -> None:
    done = shell(*command, "--force")
    assert done.code == 2
    assert "is a pipe or device" in done.err
    assert stat.S_ISFIFO((shell.place / "pipe").stat().st_mode)


def test_a_restore_of_what_can_be_read_only_once_is_refused_at_once(shell: Shell) -> None:
    done = shell("restore", "pipe", "--store", "sqlite:new.db")
    assert done.code == 2
    assert "can be read only once" in done.err
    assert not (shell.place / "new.db").exists()


def test_a_bundle_is_imported_from_a_pipe(shell: Shell) -> None:
    bundle = (shell.place / "b.zst").read_bytes()
    writer = threading.Thread(target=(shell.place / "pipe").write_bytes, args=(bundle,))
    writer.start()
    done = shell.ok("import", "pipe", "--store", "sqlite:new.db", "--json")
    writer.join()
    assert [(item["session"], item["events"]) for item in done.json["items"]] == [("s", 1)]
