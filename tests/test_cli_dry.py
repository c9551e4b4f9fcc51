"""`--dry-run` of the commands that write: they say what the run itself would say, and nothing is stored."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import holdfast
from a3s_files import fill as fill_a3s, session as a3s_session
from holdfast import Store, note, user
from holdfast.backends import rehearsed
from holdfast.errors import Conflict, Exists
from shell import Shell
from transcripts import CLAUDE, MAIN, take
from zeroclaw_files import fill as fill_zeroclaw


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    made.ok("session", "new", "s", "--name", "order")
    made.ok("append", "s", "Hello")
    return made


def held(url: str) -> dict[str, Any]:
    """All that a store has."""
    with holdfast.open(url) as store:
        heads = {id: store.backend.get([(kind, id)]) for kind in store.backend.kinds() for id in ids(store, kind)}  # type: ignore[list-item]  # a Ref is a tuple
        events = {
            info.id: [event.raw for event in store.session(info.id).events(include_hidden=True)]
            for info in store.sessions(limit=1000)
        }
        return {"heads": heads, "events": events, "blobs": store.backend.blobs.scan("", 1000)}


def ids(store: Store, kind: str) -> list[str]:
    return [head.ref.id for head in store.backend.scan(kind)]


CHANGES = [
    ("session", "new"),
    ("session", "new", "other", "--name", "n"),
    ("session", "rename", "s", "new-name", "--title", "T"),
    ("session", "rename", "s", ""),
    ("session", "label", "s", "a", "--remove", "b"),
    ("session", "delete", "s"),
    ("append", "s", "more"),
    ("append", "fresh", "more", "--create", "--user", "ada"),
    ("append", "s", "more", "--key", "k", "--expect", "1"),
    ("compact",),
]


@pytest.mark.parametrize("args", CHANGES, ids=" ".join)
def test_a_dry_run_changes_nothing_and_says_what_would_be(shell: Shell, args: tuple[str, ...]) -> None:
    before = held(shell.url)
    said = shell.ok(*args, "--dry-run")
    assert said.out == ""
    assert "would be" in said.err
    assert held(shell.url) == before
    dry = shell.ok(*args, "--dry-run", "--json").json
    assert dry.pop("dry_run") is True
    assert held(shell.url) == before
    done = shell.ok(*args, *(["--yes"] if "delete" in args else []), "--json").json
    assert dry.keys() == done.keys()
    unlike = {"id", "updated_at", "created_at", "rev", "after"}
    assert {key: dry[key] for key in dry if key not in unlike} == {key: done[key] for key in done if key not in unlike}


REFUSED = [
    ("session", "new", "s"),
    ("session", "new", "other", "--name", "order"),
    ("session", "rename", "nobody", "x"),
    ("session", "label", "nobody", "x"),
    ("session", "delete", "s"),
    ("append", "nobody", "x"),
    ("append", "s", "x", "--expect", "7"),
    ("append", "s", "x", "--create", "--user", "mallory"),
    ("import", "nowhere"),
]


@pytest.mark.parametrize("args", REFUSED, ids=" ".join)
def test_what_would_be_refused_is_refused(shell: Shell, args: tuple[str, ...]) -> None:
    shell.ok("session", "fork", "s", "--id", "child")
    before = held(shell.url)
    dry = shell(*args, "--dry-run")
    done = shell(*args, *(["--yes"] if "delete" in args else []))
    assert dry.code == done.code != 0
    last = [told.err.splitlines()[-1].split(":")[-1].strip() for told in (dry, done)]
    assert last[0] == last[1]
    assert held(shell.url) == before


def test_no_store_is_created_by_a_dry_run(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    for args in (["session", "new", "s"], ["append", "s", "x", "--create"], ["import", str(CLAUDE)]):
        shell.ok(*args, "--dry-run")
    assert shell("append", "s", "x", "--dry-run").code == 3
    assert not (tmp_path / "store.db").exists()


def test_an_import_that_is_tried_counts_what_it_would_store(shell: Shell, tmp_path: Path) -> None:
    fill_a3s(tmp_path / "a3s", a3s_session("x"))
    fill_zeroclaw(tmp_path / "z" / "sessions.db")
    paths = [str(CLAUDE), str(tmp_path / "a3s"), str(tmp_path / "z" / "sessions.db")]
    before = held(shell.url)
    dry = shell.ok("import", *paths, "--dry-run", "--json").json
    assert held(shell.url) == before
    assert shell.ok("import", *paths, "--dry-run").err.splitlines()[-1].startswith("a dry run, nothing was stored: ")
    done = shell.ok("import", *paths, "--json").json
    assert dry.pop("dry_run") is True
    assert dry == done
    assert done["events"] > 0
    again = shell.ok("import", *paths, "--dry-run", "--json").json
    assert (again["events"], again["failed"]) == (0, 0)
    assert MAIN in str(again)


def test_a_bundle_that_is_tried_counts_what_it_would_store(shell: Shell, tmp_path: Path) -> None:
    shell.ok("export", "--all", "-o", str(tmp_path / "all.jsonl"))
    target = ["--store", f"file://{tmp_path}/there"]
    for _ in range(2):
        dry = shell.ok("import", str(tmp_path / "all.jsonl"), "--dry-run", "--json", *target).json
        done = shell.ok("import", str(tmp_path / "all.jsonl"), "--json", *target).json
        assert dry.pop("dry_run") is True
        assert dry == done


def test_a_copy_that_is_tried_tells_what_is_new_and_what_would_fail(shell: Shell, tmp_path: Path) -> None:
    target = f"file://{tmp_path}/there"
    args = ["copy", shell.url, target]
    assert shell.ok(*args, "--dry-run", "--json").json["items"][0]["new"] == 1
    assert not (tmp_path / "there").exists()
    shell.ok(*args)
    shell.ok("append", "s", "and more")
    dry = shell.ok(*args, "--dry-run", "--json").json
    assert [(one["events"], one["new"], one["error"]) for one in dry["items"]] == [(2, 1, None)]
    shell.ok("append", "s", "there", "--store", target)
    dry, done = shell(*args, "--dry-run", "--json"), shell(*args, "--json")
    assert dry.code == done.code == 4
    assert dry.json["items"] == done.json["items"]


# What it stands on


def test_all_that_is_tried_in_a_store_is_seen_there_and_nowhere_else(store: Store) -> None:
    session = store.create("s", name="n", labels=["a"])
    session.append(*(user(f"line {n}") for n in range(5)))
    store.create("other")
    with Store(store.url, backend=rehearsed(store.backend, store.text_of)) as tried:
        mine = tried.session("s")
        mine.append(note("x" * 100_000), key="k")
        assert mine.append(note("x" * 100_000), key="k").repeated
        mine.remove_last()
        assert [m.text for m in mine.messages()] == [f"line {n}" for n in range(4)]
        assert [str(e.payload.text)[:1] for e in mine.events(types="note")] == ["x"]  # type: ignore[union-attr]  # notes
        fork = mine.fork(at=2, id="child")
        fork.append(note("in the fork"))
        assert [e.seq for e in fork.events()] == [1, 2, 3]
        with pytest.raises(Exists):
            tried.create("s")
        with pytest.raises(Conflict):
            tried.session("s").delete()
        assert {info.id for info in tried.sessions()} == {"s", "other", "child"}
        assert {info.id for info in tried.sessions(limit=1)} == {"child"}
        assert "s" in {info.id for info in tried.sessions(label="a")}
        tried.session("other").delete()
        assert tried.get("other") is None
        assert [info.id for info in tried.sessions(name="n")] == ["s"]
        assert tried.check().ok
    assert {info.id for info in store.sessions()} == {"s", "other"}
    assert (store.session("s").info().rev, store.session("s").info().last) == (session.info().rev, 5)
    assert store.backend.blobs.scan("", 10) == []


def test_what_is_damaged_can_be_deleted_dry(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.ok("append", "s", "x", "--create")
    with closing(sqlite3.connect(tmp_path / "store.db")) as db, db:
        db.execute("UPDATE head SET crc = crc + 1 WHERE kind = 'session'")
    assert "would be deleted" in shell.ok("session", "delete", "s", "--dry-run").err
    assert shell("session", "show", "s").code == 5


def test_an_imported_session_is_tried_on_top_of_what_is_there(store: Store) -> None:
    take(store, CLAUDE)
    count = len(list(store.sessions(limit=1000)))
    with Store(store.url, backend=rehearsed(store.backend, store.text_of)) as tried:
        assert take(tried, CLAUDE).events == 0
        assert len(list(tried.sessions(limit=1000))) == count


def test_a_dry_run_beside_a_writer_numbers_its_events_as_its_head_does(url: str) -> None:
    """The writer goes on between the look at the head and the one at the log."""
    with holdfast.open(url) as real:
        real.create("s").append(user("1"))
        heads = real.backend.get
        with Store(real.url, backend=rehearsed(real.backend, real.text_of)) as dry:
            session = dry.session("s")

            def get_then_write(refs: Any) -> Any:
                found = heads(refs)
                real.backend.get = heads  # type: ignore[method-assign]
                real.session("s").append(user("2"))
                return found

            real.backend.get = get_then_write  # type: ignore[method-assign]
            session.append(user("tried"))
            assert [event.seq for event in session.events()] == [1, 2]
            assert [message.text for message in session.messages()] == ["1", "tried"]
