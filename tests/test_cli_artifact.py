"""`holdfast artifact`: bytes in and out, of any size, and what damage is told."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

import holdfast
from shell import COMMAND, Shell

HOSTILE = "\x1b]0;owned\x07\x9b31m\r\u202etxt"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    with holdfast.open(made.url) as store:
        store.session("s", user="ada")
        store.session("t", user="bob")
    return made


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("data", [b"", b"\0\xff\r\n", b"text\n", os.urandom(3_000_000)], ids=len)
def test_bytes_come_back_as_they_were_put(shell: Shell, data: bytes) -> None:
    (shell.place / "in").write_bytes(data)
    for args, stdin in ((["in"], b""), (["-"], data), ([], data)):
        done = shell.ok("artifact", "put", "s", "a b", *args, "--tool", "make", "--json", stdin=stdin).json
        assert (done["sha256"], done["size"], done["tool"]) == (digest(data), len(data), "make")
    got = subprocess.run([*COMMAND, "artifact", "get", "s", "a b"], env=shell.env, stdout=subprocess.PIPE, check=True)
    assert got.stdout == data
    shell.ok("artifact", "get", "s", done["uri"], "-o", "out")
    assert (shell.place / "out").read_bytes() == data
    assert (shell.place / "out").stat().st_mode & 0o777 == 0o600
    assert shell.ok("artifact", "verify", "s").out == "a b: sound\n"
    with holdfast.open(shell.url) as store:
        assert store.session("s").info().last == 1  # the same again was no change


def test_a_file_is_not_replaced_unless_one_says_so(shell: Shell) -> None:
    shell.ok("artifact", "put", "s", "a", stdin="new")
    (shell.place / "out").write_text("old")
    assert shell("artifact", "get", "s", "a", "-o", "out").code == 4
    assert (shell.place / "out").read_text() == "old"
    assert shell.ok("artifact", "get", "s", "a", "-o", "out", "--force", "--json").json["file"] == "out"
    assert (shell.place / "out").read_text() == "new"


def test_a_list_has_the_newest_of_each_name(shell: Shell) -> None:
    for name, data in (("a", "1"), ("b", "22"), ("a", "333")):
        shell.ok("artifact", "put", "s", name, stdin=data)
    assert [(one["name"], one["size"]) for one in shell.ok("artifact", "list", "s", "--json").json["items"]] == [
        ("b", 2),
        ("a", 3),
    ]
    assert shell.ok("artifact", "list", "s").out.splitlines()[2].startswith("a         3 ")
    nothing = shell.ok("artifact", "list", "s", "--tool", "make")
    assert (nothing.out, nothing.err) == ("", "no artifact is of this tool\n")


def test_what_is_deleted_is_gone_all_or_none(shell: Shell) -> None:
    for name in ("a", "b"):
        shell.ok("artifact", "put", "s", name, stdin=name)
    done = shell("artifact", "delete", "s", "a", "nope")
    assert (done.code, done.out) == (3, "")
    assert shell.ok("artifact", "delete", "s", "a", "--dry-run", "--json").json["deleted"] == ["a"]
    assert len(shell.ok("artifact", "list", "s", "--json").json["items"]) == 2
    assert shell.ok("artifact", "delete", "s", "a", "b", "a").out == "a\nb\n"
    assert shell("artifact", "get", "s", "a").code == 3
    assert shell("artifact", "get", "s", "a", "--json").code == 2  # bytes are no JSON
    assert shell.ok("artifact", "list", "s").err == "it has no artifacts\n"


def test_a_dry_run_keeps_no_byte(shell: Shell) -> None:
    done = shell.ok("artifact", "put", "s", "a", "--dry-run", "--json", stdin=b"x" * 100_000).json
    assert (done["size"], done["sha256"], done["dry_run"]) == (100_000, digest(b"x" * 100_000), True)
    assert shell.ok("check", "--sweep", "--dry-run", "--json").json["swept"]["blobs"] == 0


def test_damage_is_told_and_no_file_is_left(shell: Shell) -> None:
    shell.ok("artifact", "put", "s", "good", stdin="good")
    data = os.urandom(100_000) + b"!"
    shell.ok("artifact", "put", "s", "bad", stdin=data)
    (blob,) = (
        path for path in (shell.place / "store.db-blobs").rglob("*") if path.parent.name + path.name == digest(data)
    )
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    done = shell("artifact", "verify", "s", "--json")
    assert done.code == 5
    assert [(one["name"], one["ok"]) for one in done.json["items"]] == [("good", True), ("bad", False)]
    assert shell("artifact", "verify", "s", "good").code == 0
    assert shell("artifact", "get", "s", "bad", "-o", "out").code == 5
    assert not (shell.place / "out").exists()


def test_a_limit_refuses_what_exceeds_it(shell: Shell) -> None:
    done = shell("artifact", "put", "s", "a", "--max-artifact-bytes", "1kB", stdin="x" * 1001)
    assert (done.code, done.out) == (2, "")
    assert "1,000 bytes" in done.err
    shell.ok("artifact", "put", "s", "a", "--max-artifact-bytes", "1kB", stdin="x" * 1000)
    assert shell("artifact", "put", "s", "b", "--max-artifacts", "1", stdin="x").code == 2


@pytest.mark.parametrize(
    ("code", "args"),
    [
        (3, ["artifact", "list", "nobody"]),
        (3, ["artifact", "get", "s", "nothing"]),
        (3, ["artifact", "verify", "s", "nothing"]),
        (2, ["artifact", "put", "s", ""]),
        (2, ["artifact", "put", "s@1", "a"]),
        (1, ["artifact", "put", "s", "a", "no-such-file"]),
        (7, ["--user", "eve", "artifact", "list", "s"]),
        (7, ["--user", "eve", "artifact", "put", "s", "a"]),
        (7, ["--user", "bob", "artifact", "get", "s", "a"]),
    ],
)
def test_exit_codes(shell: Shell, code: int, args: list[str]) -> None:
    shell.ok("append", "s", "Hi")
    done = shell(*args)
    assert (done.code, done.out) == (code, ""), done
    assert done.err.startswith("holdfast: ")
    assert "Traceback" not in done.err


def test_stored_text_never_reaches_a_terminal_raw(shell: Shell) -> None:
    shell.ok("artifact", "put", "s", HOSTILE.replace("\r", ""), "--tool", "t", "--media-type", HOSTILE, stdin=HOSTILE)
    name = shell.ok("artifact", "list", "s", "--json").json["items"][0]["name"]
    for args in (["list", "s"], ["verify", "s"], ["list", "s", "--json"], ["delete", "s", name, "--dry-run"]):
        out = shell.ok("artifact", *args).out
        assert not [c for c in out if (c < " " and c != "\n") or "\x7f" <= c <= "\x9f"], args
    shown = shell.on_a_terminal("artifact", "get", "s", name)
    assert "\x1b" not in shown
    assert "\\e]0;owned\\a" in shown


def test_a_closed_pipe_is_silent(shell: Shell) -> None:
    shell.ok("artifact", "put", "s", "a", stdin=b"line\n" * 1_000_000)
    with shell.start("artifact", "get", "s", "a") as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.readline()
        running.stdout.close()
        assert running.wait(20) == 0
        assert running.stderr.read() == b""
