"""The trash: what is in it is out of view, refuses writes, can be brought back, and once purged is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

import holdfast
from holdfast import (
    Conflict,
    Deleted,
    Edit,
    Exists,
    Invalid,
    LeaseHeld,
    NotFound,
    Policy,
    Session,
    Spared,
    Store,
    Trashed,
    Unavailable,
    assistant,
    note,
    user,
)
from holdfast.bundle import read_bundle, write_bundle
from holdfast.copies import copy_session
from holdfast.finding.watch import Watcher
from holdfast.heads.info import session_ref
from holdfast.plan import Commit, Head
from holdfast.retention.putting import PRUNED, WHY


def put(store: Store, id: str = "s", **fields: Any) -> Session:
    """A session in the trash, as it was held before."""
    session = store.session(id, **fields)
    session.append(user(f"apple of {id}"), assistant("pear"))
    store.trash.put(id, why="it is over")
    return session


# --- Out of view ---


def test_what_is_in_the_trash_is_left_out_everywhere(store: Store) -> None:
    put(store, "long-id", name="trip", labels=["x"])
    store.session("other").append(user("apple"))
    assert [info.id for info in store.sessions()] == ["other"]
    assert store.sessions(name="trip").items == store.sessions(label="x").items == []
    assert [hit.session for hit in store.search("apple")] == ["other"]
    assert store.search("apple", session="long-id").items == []
    assert store.resolve("@last").id == "other"
    assert store.get("long-id") is None
    assert not store.exists("long-id")
    for reference in ("trip", "long"):
        with pytest.raises(NotFound):
            store.resolve(reference)
    assert store.running() == store.stuck(older_than=0) == []
    assert store.prune(Policy(max_age=0)).sessions == 1


def test_a_search_in_a_fork_in_the_trash_finds_nothing_of_its_parent(store: Store) -> None:
    parent = store.session("parent")
    parent.append(user("apple"))
    parent.fork(id="child")
    assert len(store.search("apple", session="child")) == 1
    store.trash.put("child")
    assert store.search("apple", session="child").items == []
    assert len(store.search("apple", session="parent")) == 1


def test_whoever_asks_for_it_is_told_where_it_is(store: Store) -> None:
    put(store)
    asked: list[Callable[[], object]] = [
        lambda: store.session("s"), lambda: store.create("s"), lambda: store.resolve("s"), lambda: store.tree("s"),
        lambda: store.delete("s"), lambda: store.trash.put("s"), lambda: list(write_bundle(store, ["s"])),
    ]  # fmt: skip
    for ask in asked:
        with pytest.raises(Trashed, match="'s' is in the trash; restore it from there first"):
            ask()
    assert issubclass(Trashed, Deleted)
    assert not issubclass(Trashed, Exists)


def test_every_write_is_refused_by_whoever_held_the_session(store: Store) -> None:
    session = put(store)
    before = store.peek("s"), list(session.events(include_hidden=True))
    writes: list[Callable[[], object]] = [
        lambda: session.append(note("late")), lambda: session.append(note("late"), expect=session.last),
        lambda: session.append(note("late"), key="k"), lambda: session.update(title="t"),
        lambda: session.update(metadata={"a": 1}), session.remove_last, lambda: session.rewind(0), session.clear,
        session.undo, lambda: session.fork(id="child"), lambda: session.set_state("error"), session.turn().take,
        session.delete,
    ]  # fmt: skip
    for write in writes:
        with pytest.raises(Trashed):
            write()
    assert (store.peek("s"), list(session.events(include_hidden=True))) == before
    assert store.peek("child") is None


def test_a_retry_of_what_was_stored_before_is_answered(store: Store) -> None:
    session = store.session("s")
    session.append(user("one"), key="k")
    store.trash.put("s")
    assert session.append(user("one"), key="k").repeated


def test_its_log_can_still_be_read(store: Store) -> None:
    session = put(store)
    child = store.session("a")
    child.append(*(user(str(n)) for n in range(600)))
    fork = child.fork(at=590, id="fork")
    store.trash.put("fork")
    for read in (session, store.trash.get("s")):
        assert read is not None
        assert [m.text for m in read.messages()] == ["apple of s", "pear"]
    assert len(fork.messages()) == 590
    assert store.trash.get("a") is None
    assert store.trash.get("nobody") is None


def test_copies_and_imports_do_not_write_into_it(store: Store) -> None:
    with holdfast.open("memory://") as other:
        other.session("s").append(user("one"))
        copy_session(other, store, "s")
        store.trash.put("s")
        with pytest.raises(Trashed):
            copy_session(other, store, "s")
        other.session("s").append(user("two"))
        (told,) = read_bundle(store, write_bundle(other, ["s"]))
        assert isinstance(told.error, Trashed)
        with pytest.raises(Trashed):
            copy_session(store, other, "s")


def test_a_watch_and_a_tail_are_told(store: Store) -> None:
    session = store.session("s", created_at=1)
    session.append(holdfast.Event(payload=user("one"), at=1))
    watcher = Watcher(store.backend)
    store.trash.put("s")
    assert [(c.session, c.trashed, c.deleted) for c in watcher.changes()] == [("s", True, False)]
    store.trash.restore("s")
    assert [(c.session, c.trashed, c.deleted) for c in watcher.changes()] == [("s", False, False)]
    store.trash.put("s")
    store.trash.purge("s")
    assert [(c.session, c.trashed, c.deleted) for c in watcher.changes()] == [("s", False, True)]


def test_a_tail_goes_on_through_the_trash(store: Store) -> None:
    session = store.session("s")
    session.append(user("one"))
    store.trash.put("s")
    assert [e.type for e in session.tail(follow=False)] == ["message", "edit"]
    store.trash.restore("s")
    edits = [e.payload for e in session.tail(follow=False) if isinstance(e.payload, Edit)]
    assert [edit.action for edit in edits] == ["trash", "restore"]


# --- In and out ---


def test_a_list_tells_what_is_there_since_when_and_why(store: Store) -> None:
    store.create("a", user="ann").append(user("one"))
    store.create("b", user="bob").append(user("two"))
    store.create("c", user="ann")
    done = store.prune(Policy(max_age=0, user="bob")).apply()
    store.trash.put("a", why="asked for by ann")
    store.trash.put("c")
    page = store.trash.list()
    assert [(one.session.id, one.why, one.prune) for one in page] == [
        ("c", "by hand", None),
        ("b", page[1].why, done.prune),
        ("a", "asked for by ann", None),
    ]
    assert page[1].bytes == done.bytes > 0
    assert page[2].trashed_at >= page[2].session.updated_at
    assert [one.session.id for one in store.trash.list(user="ann")] == ["c", "a"]
    assert [one.session.id for one in store.trash.list(prune=done.prune)] == ["b"]
    first = store.trash.list(limit=2)
    assert [one.session.id for one in store.trash.list(limit=2, cursor=first.cursor)] == ["a"]
    with pytest.raises(Invalid):
        store.trash.list(limit=0)


def test_a_session_comes_back_as_it_was(store: Store) -> None:
    session = store.session("s", user="ann", name="trip", labels=["x"], metadata={"a": 1}, created_at=5)
    session.append(user("apple"), key="k")
    before = store.peek("s")
    assert before is not None
    store.trash.put("s")
    head = store.peek("s")
    assert head is not None
    assert head.at == before.at
    back = store.trash.restore("s")
    after = store.peek("s")
    assert after is not None
    assert msgspec.structs.replace(after, rev=before.rev, last=before.last) == before
    assert not {PRUNED, WHY} & set(after.tags)
    assert back.append(user("apple"), key="k").repeated
    assert back.append(user("pear")).first == 4
    assert [hit.seq for hit in store.search("apple")] == [1]
    assert [info.id for info in store.sessions()] == ["s"]
    assert store.resolve("trip").id == "s"
    with pytest.raises(Conflict, match="not in the trash"):
        store.trash.restore("s")
    with pytest.raises(NotFound):
        store.trash.restore("nobody")
    assert store.check().ok


def test_a_removal_before_can_still_be_undone_after(store: Store) -> None:
    session = store.session("s")
    session.append(user("one"), user("two"))
    session.remove_last()
    store.trash.put("s")
    session = store.trash.restore("s")
    session.undo()
    assert [m.text for m in session.messages()] == ["one", "two"]
    session.clear()
    assert [e.payload.action for e in session.events(types="edit")] == [  # type: ignore[union-attr]
        "remove_last", "trash", "restore", "undo", "clear",
    ]  # fmt: skip


def test_whom_somebody_needs_is_not_put_away(store: Store) -> None:
    store.session("run").set_state("running", turn="t")
    with store.session("turn").turn(), pytest.raises(LeaseHeld, match="is held by turn"):
        store.trash.put("turn")
    store.session("parent").fork(id="child")
    for id, why in (("run", "is held by"), ("parent", "its fork 'child' reads its events")):
        with pytest.raises(Conflict, match=why):
            store.trash.put(id)
    store.trash.put("turn")
    for id in ("nobody", "turn"):
        with pytest.raises(NotFound):
            store.trash.put(id)
    assert len(store.trash.list()) == 1


@pytest.mark.parametrize("why", ["\ud800", "a\0b", "x" * 2049])
def test_a_reason_that_can_not_be_stored_is_refused(store: Store, why: str) -> None:
    store.session("s")
    with pytest.raises(Invalid):
        store.trash.put("s", why=why)
    store.trash.put("s", why="x" * 2048)
    assert store.trash.list()[0].why == "x" * 2048


def test_a_fork_brings_its_parents_back_with_it(store: Store) -> None:
    store.session("a").append(user("one"))
    store.session("a").fork(id="b").append(user("two"))
    store.session("b").fork(id="c").append(user("three"))
    for id in ("c", "b", "a"):
        store.trash.put(id)
    store.trash.restore("c")
    assert {info.id for info in store.sessions()} == {"a", "b", "c"}
    assert [m.text for m in store.session("c").messages()] == ["one", "two", "three"]


def test_a_name_stays_with_its_session_in_the_trash_and_goes_with_a_purge(store: Store) -> None:
    put(store, "a", name="trip")
    with pytest.raises(Exists, match="'a' is called 'trip'"):
        store.create("b", name="trip")
    with pytest.raises(NotFound):
        store.resolve("trip")
    store.trash.restore("a")
    assert store.resolve("trip").id == "a"
    store.trash.put("a")
    store.trash.purge("a")
    store.create("b", name="trip")
    assert store.resolve("trip").id == "b"


def test_a_purge_deletes_the_large_values_that_nothing_else_needs(store: Store) -> None:
    for id, words in (("gone", "secret "), ("kept", "other ")):
        store.session(id).append(note(words * 100_000), note("shared " * 100_000))
        store.session(id).artifacts.put("notes.txt", f"{words} of {id}".encode())
    store.session("away").append(note("put away " * 100_000))
    before = set(store.backend.blobs.scan())
    store.trash.put("gone")
    store.trash.put("away")
    done = store.trash.purge("gone")
    assert (done.purged, done.left) == (("gone",), "")
    assert done.blobs == len(before) - len(store.backend.blobs.scan()) == 2
    assert [str(e.payload.text) for e in store.session("kept").events(types="note")] == [
        "other " * 100_000,
        "shared " * 100_000,
    ]
    store.trash.restore("away")
    assert store.check().ok


# --- Purging ---


def test_a_purge_is_final_and_a_late_writer_stays_out(store: Store) -> None:
    session = put(store)
    assert store.trash.purge("s") == holdfast.Purged(purged=("s",))
    for write in (lambda: session.append(note("late")), lambda: store.trash.restore("s"), lambda: store.session("s")):
        with pytest.raises(Deleted, match="was deleted"):
            write()
    assert store.trash.list().items == []
    assert store.create("s").append(user("anew")).first > 3
    assert store.check().ok


def test_a_purge_takes_only_what_is_old_enough_and_named(store: Store) -> None:
    for id in ("a", "b", "c"):
        put(store, id)
    assert store.trash.purge(older_than=3600).purged == ()
    assert store.trash.purge("a", older_than=3600).purged == ()
    assert store.trash.purge("b").purged == ("b",)
    store.session("living")
    told = store.trash.purge("living", "nobody", "b", older_than=0)
    assert [one.session for one in told.failed] == ["living", "nobody", "b"]
    assert store.exists("living")
    assert store.trash.purge(older_than=0).purged == ("a", "c")


@pytest.mark.parametrize("older_than", [-1, float("nan"), float("inf"), True, "1"])
def test_what_makes_no_sense_is_refused(store: Store, older_than: Any) -> None:
    put(store)
    with pytest.raises(Invalid):
        store.trash.purge(older_than=older_than)
    with pytest.raises(Invalid, match="older_than=0 purges all"):
        store.trash.purge()
    assert len(store.trash.list()) == 1
    assert store.trash.purge(older_than=2**63).purged == store.trash.purge(older_than=2**64 - 1).purged == ()


def test_a_parent_is_purged_behind_its_forks_and_never_before(store: Store) -> None:
    store.session("a").append(user("one"))
    store.session("a").fork(id="b").append(user("two"))
    store.session("b").fork(id="c").append(user("three"))
    for id in ("c", "b", "a"):
        store.trash.put(id)
    assert store.trash.purge("a", "b").spared == (
        Spared(session="a", why="its fork 'b' reads its events"),
        Spared(session="b", why="its fork 'c' reads its events"),
    )
    with pytest.raises(Trashed):
        store.delete("a")
    done = store.trash.purge(older_than=0)
    assert done.purged == ("c", "b", "a")
    assert done.spared == ()


def test_a_living_fork_in_the_trash_of_nobody_keeps_its_parent(store: Store) -> None:
    store.session("a").append(user("one"))
    child = store.session("a").fork(id="b")
    store.trash.put("b")
    with pytest.raises(Conflict, match=r"its fork 'b' reads its events.*or purge it if it is in the trash"):
        store.delete("a")
    store.trash.put("a")
    # As it may come about when both change at the same moment.
    store.backend.commit(
        [Commit(ref=session_ref("b"), if_tags={"trashed": _trashed(store, "b")}, tags={"trashed": None})]
    )
    assert [m.text for m in child.messages()] == ["one"]
    assert [one.session for one in store.trash.purge(older_than=0).spared] == ["a"]
    assert [m.text for m in child.messages()] == ["one"]


def _trashed(store: Store, id: str) -> str:
    head = store.peek(id)
    assert head is not None
    return head.tags["trashed"]


def test_what_is_restored_while_it_is_purged_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "a")
    put(store, "b")
    real = store.batcher.commit_all

    def commit_all(commits: list[Commit]) -> Any:
        store.trash.restore("a")
        return real(commits)

    monkeypatch.setattr(store.batcher, "commit_all", commit_all)
    done = store.trash.purge(older_than=0)
    assert done.purged == ("b",)
    assert [(one.session, one.why) for one in done.spared] == [("a", "it was restored or purged meanwhile")]
    assert [m.text for m in store.session("a").messages()] == ["apple of a", "pear"]


def test_two_purges_at_once_count_each_session_once(store: Store) -> None:
    for number in range(30):
        put(store, f"s{number}")
    with ThreadPoolExecutor(3) as threads:
        done = list(threads.map(lambda _: store.trash.purge(older_than=0), range(3)))
    purged = [id for one in done for id in one.purged]
    assert sorted(purged) == sorted(f"s{n}" for n in range(30))
    assert not any(one.failed for one in done)


def test_a_damaged_head_in_the_trash_can_be_purged(tmp_path: Path) -> None:
    import sqlite3

    url = f"sqlite://{tmp_path}/store.db"
    with holdfast.open(url) as store:
        put(store, "a")
        put(store, "b")
    with sqlite3.connect(tmp_path / "store.db") as db:
        db.execute("UPDATE head SET rev = 77 WHERE id = 'a'")
    db.close()
    with holdfast.open(url) as store:
        assert store.trash.list().damaged == ("a",)
        with pytest.raises(Trashed):
            store.delete("a")
        assert set(store.trash.purge(older_than=0).purged) == {"a", "b"}
        assert store.check().ok


def test_where_a_head_stands_is_part_of_what_may_be_damaged(tmp_path: Path) -> None:
    import sqlite3

    url = f"sqlite://{tmp_path}/store.db"
    with holdfast.open(url) as store:
        put(store, "a")
        store.session("b")
    for standing in (1, 0, 3):
        with sqlite3.connect(tmp_path / "store.db") as db:
            db.execute("UPDATE head SET dead = ? WHERE id = 'a'", (standing,))
            db.execute("UPDATE head SET dead = 2 WHERE id = 'b'")
        db.close()
        with holdfast.open(url) as store:
            assert {finding.session for finding in store.check().findings} == {"a", "b"}
            for id in ("a", "b"):
                with pytest.raises(holdfast.Corrupt):
                    store.peek(id)


# --- No byte is left ---


def left_in(place: Path, text: str) -> list[str]:
    """The files that hold a text: found by another process, as closing a file here would take SQLite's locks away."""
    found = subprocess.run(["grep", "-rlaF", text, str(place)], capture_output=True, text=True, check=False)
    return found.stdout.split()


@pytest.mark.parametrize("backend", ["sqlite", "file"])
@pytest.mark.parametrize("how", ["purge", "delete and compact"])
def test_no_byte_is_left_in_any_file_while_the_store_is_open(tmp_path: Path, backend: str, how: str) -> None:
    url = f"sqlite://{tmp_path}/store.db" if backend == "sqlite" else f"file://{tmp_path}/store"
    with holdfast.open(url) as store, holdfast.open(url) as beside:
        for number in range(40):
            session = store.session(f"s{number}", title=f"zebratitle {number}")
            for turn in range(10):
                session.append(user(f"zebraword{turn} and {'zebra ' * turn * 40}"), assistant("kept"))
                store.session("kept").append(user(f"kept {turn}"))
            session.update(metadata={"note": "zebrameta"}, labels=["zebralabel"])
        store.session("kept").append(user("kept to the last"))
        assert len(store.search("zebraword3", limit=100)) == 40
        store.index()
        assert len(beside.sessions(limit=100)) == 41
        assert left_in(tmp_path, "zebra")
        if how == "purge":
            assert len(store.prune(Policy(max_sessions=1)).apply().moved) + 1 == 41
            assert beside.search("zebraword3").items == []
            done = store.trash.purge(older_than=0)
            assert (len(done.purged), done.left) == (40, "")
        else:
            for number in range(40):
                store.delete(f"s{number}")
            store.compact()
        assert left_in(tmp_path, "zebra") == []
        assert len(beside.search("kept", limit=1000)) == 401
        assert beside.check().ok
        beside.session("kept").append(user("it goes on"))
        assert len(store.search("goes on")) == 1


def test_space_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with holdfast.open(f"sqlite://{path}?durability=process") as store:
        for number in range(50):
            store.session(f"s{number}").append(*(user(os.urandom(2000).hex()) for _ in range(40)))
        store.session("kept").append(user("kept"))
        store.compact()
        full = path.stat().st_size
        store.prune(Policy(max_sessions=1)).apply()
        store.trash.purge(older_than=0)
        assert path.stat().st_size < full / 5
        assert (tmp_path / "store.db-wal").stat().st_size == 0


READER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("BEGIN")
db.execute("SELECT * FROM head").fetchone()
print("open", flush=True)
sys.stdin.read()
"""


def test_a_read_that_goes_on_is_told_and_a_later_try_ends_it(tmp_path: Path) -> None:
    with holdfast.open(f"sqlite://{tmp_path}/store.db?timeout=0.2") as store:
        put(store)
        store.search("apple")
        command = [sys.executable, "-c", READER, str(tmp_path / "store.db")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
            assert reader.stdout is not None
            assert reader.stdout.readline() == b"open\n"
            done = store.trash.purge("s")
            assert done.purged == ("s",)
            assert "a long read elsewhere keeps its log" in done.left
            with pytest.raises(Unavailable):
                store.compact()
            store.session("new").append(user("writers go on"))
            reader.communicate()
        store.compact()
        assert left_in(tmp_path, "apple") == []


def test_a_head_that_was_put_away_by_nobody_we_know_is_told_as_it_is(store: Store) -> None:
    made = store.backend.commit([Commit(ref=session_ref("s"), if_rev=0, tags={"trashed": "soon", "created": "1"})])
    assert isinstance(made[0], Head)
    assert [(one.session.id, one.trashed_at, one.why) for one in store.trash.list()] == [("s", 0, "")]
    assert store.trash.purge(older_than=0).purged == ("s",)
