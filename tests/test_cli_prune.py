"""`holdfast prune`, `holdfast trash` and `session archive`: what goes, what stays, and what comes back."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import holdfast
from holdfast import user
from shell import Shell

HOSTILE = "\x1b]0;owned\x07\x9b31m\x7f\u202etxt"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Sessions `a` to `e`, the last one newest; `b` is starred, and `d` has the fork `e`."""
    made = Shell(tmp_path)
    with holdfast.open(made.url) as store:
        for id in "abcd":
            store.session(id, user="ada" if id < "d" else "bob").append(user(f"I am {id}"))
        store.session("b").update(labels=["starred"])
        store.session("d").fork(id="e")
    return made


def ids(shell: Shell) -> list[str]:
    return sorted(one["id"] for one in shell.ok("session", "list", "--json").json["items"])


def trashed(shell: Shell) -> list[str]:
    return sorted(one["session"]["id"] for one in shell.ok("trash", "list", "--json").json["items"])


def test_a_plan_says_what_why_and_what_is_spared_and_changes_nothing(shell: Shell) -> None:
    plan = shell.ok("prune", "plan", "--max-sessions", "0", "--json").json
    assert [one["session"] for one in plan["items"]] == ["a", "c", "e"]
    assert {one["session"]: one["why"] for one in plan["spared"]} == {
        "b": "it is starred",
        "d": "its fork 'e' reads its events",
    }
    assert (plan["bytes"], plan["sessions"]) == (sum(one["bytes"] for one in plan["items"]), 5)
    shown = shell.ok("prune", "plan", "--max-sessions", "0")
    assert [line.split()[0] for line in shown.out.splitlines()] == ["ID", "a", "c", "e", "d", "b"]
    assert shown.err.startswith("3 of 5 sessions would go, ")
    assert ids(shell) == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("args", "taken"),
    [
        (["--max-age", "1d"], []),
        (["--max-age", "0", "--user", "ada"], ["a", "c"]),
        (["--max-age", "0", "--take-starred", "--label", "starred"], ["b"]),
        (["--max-bytes", "1GiB"], []),
        (["--max-bytes", "0", "--keep-label", "starred", "--take-starred"], ["a", "c"]),  # `e` has none of its own
        (["--max-age", str(2**64)], []),
    ],
)
def test_a_policy_takes_what_its_options_say(shell: Shell, args: list[str], taken: list[str]) -> None:
    assert sorted(one["session"] for one in shell.ok("prune", "plan", *args, "--json").json["items"]) == taken


@pytest.mark.parametrize(
    "args",
    [
        ["plan"],
        ["apply", "--yes"],
        ["plan", "--user", "ada"],
        ["plan", "--max-age", "-1"],
        ["plan", "--max-age", "nan"],
        ["plan", "--max-age", "6m"],
        ["plan", "--max-sessions", "-1"],
        ["plan", "--max-age", "1d", "--state", "asleep"],
        ["apply", "--max-age", "0", "--batch", "0", "--yes"],
        ["apply", "--max-age", "0"],
        ["undo"],
    ],
)
def test_what_makes_no_sense_is_refused(shell: Shell, args: list[str]) -> None:
    done = shell("prune", *args)
    assert (done.code, done.out) == (2, "")
    assert ids(shell) == ["a", "b", "c", "d", "e"]


def test_a_prune_is_applied_told_and_undone(shell: Shell) -> None:
    assert shell.ok("prune", "history").err == "nothing was pruned yet\n"
    assert [one["session"] for one in shell.ok("prune", "apply", "--max-age", "0", "--dry-run", "--json").json["items"]]
    done = shell.ok("prune", "apply", "--max-age", "0", "--yes", "--archive", "old.jsonl", "--json").json
    assert (sorted(done["moved"]), done["failed"], done["archive"]) == (["a", "c", "e"], [], "old.jsonl")
    assert (ids(shell), trashed(shell)) == (["b", "d"], ["a", "c", "e"])
    (told,) = shell.ok("prune", "history", "--json").json["items"]
    assert (told["id"], told["state"], told["moved"], told["undone_at"]) == (done["prune"], "applied", 3, None)
    assert shell.ok("prune", "undo", done["prune"], "--dry-run", "--json").json["restored"]
    assert trashed(shell) == ["a", "c", "e"]
    back = shell.ok("prune", "undo", done["prune"], "--json").json
    assert (sorted(back["restored"]), back["failed"]) == (["a", "c", "e"], [])
    assert ids(shell) == ["a", "b", "c", "d", "e"]
    row = shell.ok("prune", "history").out.splitlines()[1].split()
    assert row[-6:] == ["undone", "3", "0", "0", f"{done['bytes']:,}", "old.jsonl"]
    assert shell("prune", "undo", "nothing").code == 3
    moved = sorted(
        one["session"] for one in shell.ok("import", "old.jsonl", "--store", "sqlite:o.db", "--json").json["items"]
    )
    assert moved == ["a", "c", "e"]


def test_a_prune_asks_on_a_terminal(shell: Shell) -> None:
    code, said = shell.answered("prune", "apply", "--max-age", "0", answer="n")
    assert code == 1
    assert "Put 3 sessions (" in said
    assert trashed(shell) == []
    assert shell.answered("prune", "apply", "--max-age", "0", answer="y")[0] == 0
    assert trashed(shell) == ["a", "c", "e"]


def test_what_is_touched_while_a_person_thinks_is_left_and_said_so(shell: Shell) -> None:
    ours, theirs = os.openpty()
    running = shell.start(
        "prune", "apply", "--max-age", "0", "--json", stdin=theirs, stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    said = b""
    while b"[y/N]: " not in said:
        said += os.read(ours, 1000)
    shell.ok("append", "a", "I am back")
    os.write(ours, b"y\n")
    out, _ = running.communicate(timeout=20)
    os.close(ours)
    assert running.returncode == 8
    assert b'"skipped": [{"session": "a", "why": "it was touched since"}]' in out
    assert trashed(shell) == ["c", "e"]


def test_a_cooldown_does_nothing_for_a_while(shell: Shell) -> None:
    shell.ok("prune", "apply", "--max-age", "0", "--user", "ada", "--cooldown", "1h", "--yes")
    done = shell.ok("prune", "apply", "--max-age", "0", "--cooldown", "1h", "--yes")
    assert (done.out, done.err.startswith("nothing was done: the cooldown goes on for")) == ("", True)
    assert "e" in ids(shell)


def test_an_archive_that_is_there_moves_nothing(shell: Shell) -> None:
    (shell.place / "old.jsonl").write_text("mine")
    for args in (["prune", "apply", "--max-age", "0", "--yes", "--archive"], ["session", "archive", "a", "-o"]):
        assert shell(*args, "old.jsonl").code == 4
        assert shell(*args, "no-folder/old.jsonl").code == 6
    assert (shell.place / "old.jsonl").read_text() == "mine"
    assert trashed(shell) == []


def test_sessions_are_archived_by_hand(shell: Shell) -> None:
    dry = shell.ok("session", "archive", "a", "b", "-o", "ab.jsonl", "--dry-run", "--json").json
    assert (dry["moved"], dry["dry_run"], (shell.place / "ab.jsonl").exists()) == (["a", "b"], True, False)
    done = shell.ok("session", "archive", "a", "b", "a", "-o", "ab.jsonl", "--json").json
    assert (done["moved"], done["archive"], done["dry_run"]) == (["a", "b"], "ab.jsonl", False)
    assert trashed(shell) == ["a", "b"]
    assert shell.ok("trash", "list", "--json").json["items"][0]["why"] == "archived"
    shell.ok("import", "ab.jsonl", "--store", "sqlite:o.db")
    assert "I am a" in shell.ok("session", "show", "a", "--store", "sqlite:o.db").out
    shell.ok("prune", "undo", done["prune"])
    assert "a" in ids(shell)
    shell.ok("session", "archive", "c")  # its file has a name of its own
    assert len(list(shell.place.glob("archive-*.jsonl"))) == 1


@pytest.mark.parametrize(
    ("code", "args"),
    [
        (2, ["session", "archive", "a", "-o", "-"]),
        (3, ["session", "archive", "a", "nobody"]),
        (4, ["session", "archive", "a", "d"]),
        (4, ["trash", "put", "d"]),
        (3, ["trash", "put", "a", "nobody"]),
        (3, ["trash", "restore", "nobody"]),
        (4, ["trash", "restore", "a"]),
        (4, ["trash", "restore", "a", "--dry-run"]),
        (2, ["trash", "purge"]),
        (3, ["trash", "purge", "nobody", "--yes"]),
        (7, ["--user", "bob", "trash", "put", "a"]),
        (7, ["--user", "bob", "session", "archive", "a"]),
    ],
)
def test_what_can_not_go_stays(shell: Shell, code: int, args: list[str]) -> None:
    done = shell(*args)
    assert (done.code, done.out) == (code, ""), done
    assert done.err.startswith("holdfast: ")
    assert ids(shell) == ["a", "b", "c", "d", "e"]
    assert not list(shell.place.glob("archive-*"))


def test_part_of_it_is_told_as_such(shell: Shell) -> None:
    done = shell("trash", "put", "a", "d", "--json", "--why", "Ada asked")
    assert (done.code, done.json["trashed"], [one["session"] for one in done.json["failed"]]) == (8, ["a"], ["d"])
    assert shell("trash", "restore", "a", "b").code == 8
    assert trashed(shell) == []
    told = shell("trash", "put", "a", "d")
    assert (told.code, told.out) == (8, "a\n")
    assert told.err.startswith("d: failed: ")


def test_the_trash_gives_back_by_the_start_of_an_id_or_by_name(shell: Shell) -> None:
    for id in ("xx1", "xx2", "yy1"):
        shell.ok("session", "new", id)
    shell.ok("session", "rename", "yy1", "why")
    shell.ok("trash", "put", "xx1", "xx2", "yy1")
    ambiguous = shell("trash", "restore", "xx")
    assert (ambiguous.code, "xx1" in ambiguous.err) == (2, True)
    assert shell.ok("trash", "restore", "why", "xx1", "--dry-run").out == "yy1\nxx1\n"
    assert shell.ok("trash", "restore", "why", "xx1").out == "yy1\nxx1\n"
    assert shell.ok("trash", "restore", "xx", "--json").json == {"restored": ["xx2"], "failed": [], "dry_run": False}


def test_a_purge_is_final_and_complete(shell: Shell) -> None:
    secret = "rosebud" * 3
    shell.ok("append", "a", secret)
    shell.ok("append", "a", "-", stdin=f"{secret}\n" * 9000)
    shell.ok("trash", "put", "a", "b")
    assert shell("trash", "purge", "a").code == 2
    dry = shell.ok("trash", "purge", "--older-than", "0", "--dry-run", "--json").json
    assert (sorted(dry["purged"]), dry["dry_run"]) == (["a", "b"], True)
    assert shell.ok("trash", "purge", "--older-than", "1d", "--yes").err == "0 sessions purged\n"
    assert shell.answered("trash", "purge", "a", answer="n")[0] == 1
    assert trashed(shell) == ["a", "b"]
    code, said = shell.answered("trash", "purge", "a", answer="y")
    assert (code, "Purge 1 session for good: a?" in said) == (0, True)
    assert trashed(shell) == ["b"]
    assert shell("append", "a", "late").code == 3
    left = [path for path in shell.place.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert left == []
    done = shell.ok("trash", "purge", "--older-than", "0", "--yes", "--json").json
    assert (done["purged"], done["left"]) == (["b"], "")


def test_a_parent_stays_as_long_as_its_fork(shell: Shell) -> None:
    shell.ok("trash", "put", "e")
    shell.ok("trash", "put", "d")
    for how in (["--dry-run"], ["--yes"]):
        done = shell("trash", "purge", "d", *how, "--json")
        assert (done.code, done.json["purged"], done.json["spared"][0]["session"]) == (8, [], "d")
    assert shell.ok("trash", "purge", "d", "e", "--dry-run", "--json").json["spared"] == []
    assert sorted(shell.ok("trash", "purge", "d", "e", "--yes", "--json").json["purged"]) == ["d", "e"]


def test_a_user_can_purge_and_is_told_what_she_can_not(shell: Shell) -> None:
    shell.ok("--user", "ada", "trash", "put", "a")
    assert shell.ok("--user", "bob", "trash", "list").err == "nothing is in the trash\n"
    done = shell("--user", "ada", "trash", "purge", "a", "--yes", "--json")
    assert (done.code, done.json["purged"]) == (8, ["a"])
    assert "only the whole store can be compacted" in done.json["left"]
    assert shell("--user", "ada", "compact").code == 7
    shell.ok("compact")


def test_stored_text_never_reaches_a_terminal_raw(shell: Shell) -> None:
    with holdfast.open(shell.url) as store:
        store.session("h", title=HOSTILE, labels=["h"])
        store.session("i", title=HOSTILE, labels=["h"])
        store.trash.put("h", why=HOSTILE)
    for args in (
        ["trash", "list"],
        ["prune", "plan", "--max-age", "0"],
        ["trash", "purge", "--older-than", "0", "--dry-run"],
        ["prune", "apply", "--max-age", "0", "--yes"],
        ["prune", "history"],
    ):
        for how in ([], ["--json"]):
            done = shell.ok(*how, *args)
            for text in (done.out, done.err):
                assert not [c for c in text if (c < " " and c != "\n") or "\x7f" <= c <= "\x9f"], args


def test_a_sweep_deletes_what_nothing_refers_to(shell: Shell) -> None:
    shell.ok("append", "a", "-", stdin="word " * 20_000)
    shell.ok("session", "delete", "a", "--yes")
    dry = shell.ok("check", "--sweep", "--dry-run", "--json").json
    assert (dry["ok"], dry["swept"]["deleted"], dry["swept"]["dry_run"]) == (True, 1, True)
    assert "1 of 1 blob deleted, " in shell.ok("check", "--sweep").out
    assert shell.ok("check", "--json").json["swept"] is None
    assert shell.ok("check", "--sweep", "--json").json["swept"]["blobs"] == 0
    for args in (["--dry-run"], ["b", "--sweep"]):
        assert shell("check", *args).code == 2
    assert shell("--user", "ada", "check", "--sweep").code == 7


def test_a_store_is_compacted(shell: Shell) -> None:
    shell.ok("append", "a", "--jsonl", stdin='{"type":"note","text":"' + "x" * 60_000 + '"}\n')
    shell.ok("session", "delete", "a", "--yes")
    done = shell.ok("compact", "--json").json
    assert (done["url"], done["after"] <= done["before"]) == (shell.url, True)
    shell.ok("init", "--store", "file:logs")
    assert shell.ok("compact", "--store", "file:logs", "--json").json["url"] == "file:logs"
