"""`holdfast doc`: documents byte for byte, and who was first."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import holdfast
from shell import COMMAND, Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    made.ok("init")
    return made


@pytest.mark.parametrize(
    ("id", "source"),
    [
        ("n/a.md", b""),
        ("n/a.md", "# Tïtle\r\n\r\n\x00 no end".encode()),
        ("n/a.json", b'{"b": 1.50,\r\n "a": 12345678901234567890}\n\n'),
        ("deep/er/x.md", b"line\n" * 400_000),
    ],
)
def test_a_source_comes_back_byte_for_byte(shell: Shell, id: str, source: bytes) -> None:
    (shell.place / "in").write_bytes(source)
    assert shell.ok("doc", "put", id, "in").out == f"{id}  revision 1\n"
    assert (
        shell.ok(
            "doc",
            "put",
            id,
            stdin=source,
        ).out
        == f"{id}  revision 2\n"
    )
    got = subprocess.run([*COMMAND, "doc", "get", id], env=shell.env, stdout=subprocess.PIPE, check=True)
    assert got.stdout == source
    shell.ok("doc", "get", id, "-o", "out")
    assert (shell.place / "out").read_bytes() == source
    assert shell.ok("doc", "get", id, "--json").json["source"].encode() == source


def test_of_two_who_replace_it_one_is_told(shell: Shell) -> None:
    assert shell.ok("doc", "put", "n/a.json", "--rev", "0", "--json", stdin="1").json == {
        "id": "n/a.json",
        "rev": 1,
        "size": 1,
        "dry_run": False,
    }
    assert shell("doc", "put", "n/a.json", "--rev", "0", stdin="2").code == 4
    assert shell.ok("doc", "put", "n/a.json", "--rev", "1", stdin="2").code == 0
    late = shell("doc", "put", "n/a.json", "--rev", "1", stdin="3")
    assert (late.code, late.out) == (4, "")
    assert "is at revision 2, not 1" in late.err
    assert shell("doc", "delete", "n/a.json", "--rev", "1", "--yes").code == 4
    assert shell.ok("doc", "get", "n/a.json").out == "2"
    assert shell.ok("doc", "delete", "n/a.json", "--rev", "2", "--yes").out == "n/a.json\n"
    assert shell("doc", "get", "n/a.json").code == 3


def test_a_dry_run_refuses_what_a_put_would_and_changes_nothing(shell: Shell) -> None:
    told = shell.ok("doc", "put", "n/a.md", "--dry-run", stdin="words")
    assert (told.out, told.err) == ("", "would put 5 bytes as n/a.md, which is new\n")
    assert shell.ok("doc", "list").err == "no document matches\n"
    shell.ok("doc", "put", "n/a.json", stdin="1")
    for args, stdin, code in (
        (["n/a.json", "--rev", "7"], b"1", 4),
        (["n/b.json", "--rev", "7"], b"1", 3),
        (["n/a.json"], b"{", 2),
        (["n/a.md"], b"\xff", 2),
        (["no-category.md"], b"", 2),
    ):
        for dry in ([], ["--dry-run"]):
            assert shell("doc", "put", *args, *dry, stdin=stdin).code == code, (args, dry)
    shell.ok("doc", "delete", "n/a.json", "--dry-run")
    assert shell.ok("doc", "get", "n/a.json").out == "1"


def test_a_list_is_by_category_and_goes_on_behind_its_cursor(shell: Shell) -> None:
    for id in ("a/1.md", "a/2.md", "b/3.md", "a/1.json"):
        shell.ok("doc", "put", id, stdin="1")
    first = shell.ok("doc", "list", "a", "--limit", "2", "--json").json
    rest = shell.ok("doc", "list", "a", "--cursor", first["cursor"], "--json").json
    assert [one["id"] for one in first["items"] + rest["items"]] == ["a/1.json", "a/2.md", "a/1.md"]
    assert shell.ok("doc", "list").out.splitlines()[0].split() == ["ID", "REV", "BYTES", "CHANGED"]


def test_deleting_asks_and_is_for_those_that_are_there(shell: Shell) -> None:
    for id in ("a/1.md", "a/2.md"):
        shell.ok("doc", "put", id, stdin="1")
    assert shell("doc", "delete", "a/1.md").code == 2
    assert shell("doc", "delete", "a/1.md", "a/9.md", "--yes").code == 3
    assert shell("doc", "delete", "a/1.md", "a/2.md", "--rev", "1", "--yes").code == 2
    assert shell.answered("doc", "delete", "a/1.md", answer="n")[0] == 1
    assert len(shell.ok("doc", "list", "--json").json["items"]) == 2
    code, said = shell.answered("doc", "delete", "a/1.md", answer="y")
    assert (code, "Delete a/1.md for good?" in said) == (0, True)
    assert shell.ok("doc", "delete", "a/2.md", "--yes", "--json").json == {"deleted": ["a/2.md"], "dry_run": False}


def test_users_have_documents_of_their_own(shell: Shell) -> None:
    shell.ok("--user", "ada", "doc", "put", "n/a.md", stdin="hers")
    assert shell("--user", "eve", "doc", "get", "n/a.md").code == 3
    assert shell("doc", "get", "n/a.md").code == 3
    assert shell.ok("--user", "ada", "doc", "get", "n/a.md").out == "hers"


def test_a_damaged_document_is_told(shell: Shell) -> None:
    shell.ok("doc", "put", "n/big.md", stdin="x" * 200_000)
    for blob in (shell.place / "store.db-blobs").rglob("*"):
        if blob.is_file():
            blob.write_bytes(b"?")
    done = shell("doc", "get", "n/big.md", "-o", "out")
    assert (done.code, (shell.place / "out").exists()) == (5, False)


def test_control_characters_stay_off_a_terminal(shell: Shell) -> None:
    shell.ok("doc", "put", "n/a\u202eb.md", stdin="\x1b]0;owned\x07\x9b")
    with holdfast.open(shell.url) as store:
        assert [one.id for one in store.documents.list()] == ["n/a\u202eb.md"]
    assert "\u202e" not in shell.ok("doc", "list").out
    assert "\u202e" not in shell.ok("doc", "put", "n/a\u202eb.md", stdin="\x1b]0;owned\x07").out
    assert "\x1b" not in shell.on_a_terminal("doc", "get", "n/a\u202eb.md")


def test_what_is_not_there_creates_no_store(tmp_path: Path) -> None:
    done = Shell(tmp_path)("doc", "put", "n/a.md", stdin="x")
    assert done.code == 3
    assert "init" in done.err
