"""The exit codes of docs/CLI.md: every error has the one that its row says."""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import sys
from pathlib import Path

import pytest

import holdfast
from holdfast import errors, user
from holdfast.cli.app import exit_code
from shell import Shell

DOCS = Path(__file__).parent.parent / "docs" / "CLI.md"


def documented() -> dict[str, int]:
    """The errors that the table names, with their codes."""
    table = DOCS.read_text(encoding="utf-8").partition("## Exit codes")[2].partition("## ")[0]
    rows = re.findall(r"^\| (\d+) \|.*\| ([^|]*) \|$", table, re.MULTILINE)
    return {name: int(code) for code, names in rows for name in re.findall(r"`([A-Z]\w+)`", names)}


def test_the_table_names_errors_that_there_are() -> None:
    assert set(documented()) <= set(errors.__all__)
    assert {"Uncertain": 1, "Unavailable": 6, "ReadOnly": 7}.items() <= documented().items()


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_has_the_exit_code_of_its_row(name: str) -> None:
    kind: type[errors.HoldfastError] = getattr(errors, name)
    rows = documented()
    named = next((parent.__name__ for parent in kind.__mro__ if parent.__name__ in rows), None)
    assert exit_code(kind("went wrong")) == (rows[named] if named else 1)


def test_a_store_that_another_holds_is_unavailable(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    with holdfast.open(shell.url) as store:
        store.create("s").append(user("Hi"))
    with open(tmp_path / "store.db-lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = shell("append", "s", "more", "--store", f"{shell.url}?timeout=0.2")
        assert (done.code, done.out) == (6, "")
        assert "locked for 0.2 s by process" in done.err
        assert "Hi" in shell.ok("session", "show", "s").out
    assert shell.ok("append", "s", "more").out == "s@2\n"


def as_others() -> None:
    """Let the modes of files hold for root, too, from the next program on that this process becomes."""
    if os.geteuid() == 0:
        drop_from_bounding_set, override_modes = 24, 1  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE
        if ctypes.CDLL(None, use_errno=True).prctl(drop_from_bounding_set, override_modes, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "root can't be kept from writing to everything")


if sys.platform == "linux":

    def test_a_store_that_may_not_be_written_is_denied(tmp_path: Path) -> None:
        shell = Shell(tmp_path)
        shell.ok("append", "s", "Hi", "--create")
        (tmp_path / "store.db").chmod(0o400)
        refused = shell.start("append", "s", "more", preexec_fn=as_others)  # no threads run here
        out, err = refused.communicate(timeout=60)
        assert (refused.returncode, out) == (7, b"")
        assert b"can't be written; check its mode" in err
        listed = shell.start("session", "show", "s", preexec_fn=as_others)
        assert b"Hi" in listed.communicate(timeout=60)[0]
        assert listed.returncode == 0
        (tmp_path / "store.db").chmod(0o600)
        assert shell.ok("append", "s", "more").out == "s@2\n"
