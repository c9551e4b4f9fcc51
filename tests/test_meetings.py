"""Where features meet that know nothing of each other: each test is of one place where they did not fit at first."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import holdfast
from holdfast import (
    Conflict,
    Deleted,
    Exists,
    HoldfastError,
    LeaseLost,
    NotFound,
    Policy,
    Session,
    Store,
    Trashed,
    Turn,
    assistant,
    report,
    tasks,
    tool_call,
    usage,
    user,
)
from holdfast.artifacts.sweeping import sweep
from holdfast.bundle import read_bundle, write_bundle, write_documents
from holdfast.copies import copy_session
from holdfast.heads.info import session_ref
from holdfast.history.branching import pins
from holdfast.plan import Commit, Head, Refused

FORMATS = Path(__file__).parent / "data" / "formats"
WAYS: dict[str, Callable[[Turn], object]] = {
    "append": lambda turn: turn.append(user("late")),
    "update": lambda turn: turn.update(title="late", name="late", labels=["late"], config={"late": 1}),
    "save": lambda turn: turn.save(user("late"), metadata={"late": 1}, name="late"),
    "artifact": lambda turn: turn.artifacts.put("late", "late"),
    "artifact deleted": lambda turn: turn.artifacts.delete("kept"),
    "remove_last": lambda turn: turn.remove_last(),
    "rewind": lambda turn: turn.rewind(to=1),
    "clear": lambda turn: turn.clear(),
    "undo": lambda turn: turn.undo(),
    "compact": lambda turn: turn.compact("late", 2),
    "repair": lambda turn: turn.repair(),
    "fork": lambda turn: turn.fork(id="late"),
    "state": lambda turn: turn.set_state("paused"),
    "run": lambda turn: turn.set_state("running", turn="late"),
    "delete": lambda turn: turn.delete(),
}


def interrupted(store: Store, parent: str, child: str) -> None:
    """A fork that got no further than to pin its parent."""
    inner = store.backend.commit

    def commit(batch: Any) -> list[Head | Refused]:
        if any(each.ref.id == child for each in batch):
            raise KeyboardInterrupt
        return inner(batch)

    store.backend.commit = commit  # type: ignore[method-assign]  # the seam is where the fault is put
    try:
        with pytest.raises(KeyboardInterrupt):
            store.session(parent).fork(id=child)
    finally:
        store.backend.commit = inner  # type: ignore[method-assign]


@pytest.mark.parametrize("over", ["overtaken", "ended"])
@pytest.mark.parametrize("way", WAYS)
def test_a_turn_that_is_over_stores_nothing_in_any_way(store: Store, way: str, over: str) -> None:
    session = store.session("s")
    session.append(user("one"), assistant("two", tool_call("open", "f")), user("three"))
    session.artifacts.put("kept", "kept")
    session.remove_last()
    interrupted(store, "s", "child")
    turn = session.turn().take()
    if over == "ended":
        turn.end()
    else:  # as by one who saw it stand still, and ended, too
        tags = {"turn": None, "state": "idle", "lease_beat": None, "lease_ttl": None, "lease_owner": None}
        store.backend.commit([Commit(ref=session_ref("s"), tags=tags)])
    heads = {kind: list(store.backend.scan(kind)) for kind in store.backend.kinds()}
    events = [event.seq for event in session.events(include_hidden=True)]
    with pytest.raises(LeaseLost):
        WAYS[way](turn)
    assert {kind: list(store.backend.scan(kind)) for kind in heads} == heads
    assert [event.seq for event in session.events(include_hidden=True)] == events
    assert store.peek("child") is None
    assert store.peek("late") is None
    if over == "overtaken":
        with pytest.raises(LeaseLost):
            turn.end()


def test_a_name_is_kept_in_the_trash_though_nothing_claims_it(store: Store) -> None:
    """A copy has its name without a claim."""
    with holdfast.open("memory://") as source:
        source.create("a", name="x").append(user("one"))
        copy_session(source, store, "a")
    store.trash.put("a")
    with pytest.raises(Exists):
        store.create("b", name="x")
    store.trash.restore("a")
    assert store.resolve("x").id == "a"


def test_a_fork_that_is_asked_for_again_is_told_to_be_in_the_trash(store: Store) -> None:
    session = store.session("s")
    session.append(user("one"))
    session.fork(id="child")
    store.trash.put("child")
    with pytest.raises(Trashed):
        session.fork(id="child")
    with pytest.raises(Trashed):
        session.fork(at=0, id="child")


def test_the_trash_is_told_before_forks_are(store: Store) -> None:
    store.session("s").append(user("one"))
    store.session("s").fork(id="child")
    store.trash.put("child")
    store.trash.put("s")
    with pytest.raises(Trashed):
        store.delete("s")
    with pytest.raises(Trashed):
        store.delete("child")


@pytest.mark.parametrize("gone", ["deleted", "purged"])
def test_what_a_fork_left_behind_that_is_gone_keeps_nobody(store: Store, gone: str) -> None:
    session = store.session("s")
    session.append(user("one"))
    inner = store.backend.commit

    def commit(batch: Any) -> list[Head | Refused]:
        if any(each.ref.id == "s" and None in (each.tags or {}).values() for each in batch):
            raise KeyboardInterrupt  # behind the child's creation
        return inner(batch)

    store.backend.commit = commit  # type: ignore[method-assign]  # the seam is where the fault is put
    with pytest.raises(KeyboardInterrupt):
        session.fork(id="child")
    store.backend.commit = inner  # type: ignore[method-assign]
    if gone == "deleted":
        store.delete("child")
    else:
        store.trash.put("child")
        store.trash.purge("child")
    assert store.prune(Policy(max_age=0)).apply().moved == ("s",)
    store.trash.restore("s")
    session.fork(id="other")
    assert pins(store.head("s")) == {}
    store.delete("other")
    store.trash.put("s")


def test_a_sweep_spares_what_moves_to_and_fro_while_it_looks(store: Store) -> None:
    store.session("s").artifacts.put("kept", "needed")
    store.trash.put("s")

    # It was in the trash when those that live were looked at, each time.
    inner = store.backend.scan
    passes = iter(["first", "second"])

    def scan(kind: str, after: str = "", limit: int = 1000, *, trashed: bool = False) -> Any:
        if kind == "session" and not trashed:
            if next(passes, "") == "second":
                store.trash.put("s")
            found = inner(kind, after, limit)
            store.trash.restore("s")
            return found
        return inner(kind, after, limit, trashed=trashed)

    store.backend.scan = scan  # type: ignore[method-assign]  # the others come just then
    swept = sweep(store)
    store.backend.scan = inner  # type: ignore[method-assign]
    assert swept.digests == ()
    assert store.session("s").artifacts.get("kept") == b"needed"


@pytest.mark.parametrize("how", ["put", "prune", "delete"])
def test_a_parent_stays_while_its_fork_comes_back(store: Store, how: str) -> None:
    """Who puts a session away, or deletes it, looked for its forks before one of them was restored."""
    store.session("s").append(user("one"))
    store.session("s").fork(id="child")
    store.trash.put("child")
    inner, restores = store.backend.find, [lambda: store.trash.restore("child")]

    def find(kind: str, tags: Any, **more: Any) -> Any:
        found = inner(kind, tags, **more)
        if "forked" in tags and restores:
            restores.pop()()
        return found

    plan = store.prune(Policy(max_age=0))
    store.backend.find = find  # type: ignore[method-assign]  # the other one comes just then
    if how == "prune":
        assert plan.apply().moved == ()
    else:
        with pytest.raises(Conflict, match="child"):
            store.trash.put("s") if how == "put" else store.delete("s")
    store.backend.find = inner  # type: ignore[method-assign]
    assert restores == []
    assert [m.text for m in store.session("child").messages()] == ["one"]
    assert store.exists("s")


def test_a_parent_that_is_put_away_while_its_fork_comes_back_comes_back_too(store: Store) -> None:
    store.session("s").append(user("one"))
    store.session("s").fork(id="child")
    store.trash.put("child")
    inner, puts = store.batcher.commit, [lambda: store.trash.put("s")]

    def commit(each: Commit) -> Head | Refused:
        if puts and "forking" in (each.tags or {}):
            puts.pop()()  # just before the parent is held
        return inner(each)

    store.batcher.commit = commit  # type: ignore[method-assign]  # the other one comes just then
    store.trash.restore("child")
    store.batcher.commit = inner  # type: ignore[method-assign]
    assert puts == []
    assert {info.id for info in store.sessions()} == {"s", "child"}
    with pytest.raises((NotFound, Deleted, Conflict)):
        store.trash.restore("s")


@pytest.mark.parametrize("by", ["day", "model", "session"])
def test_a_copy_of_a_fork_tells_the_days_of_what_it_began_with(store: Store, by: str) -> None:
    old = 1_767_225_600_000_000  # 2026-01-01
    session = store.create("s", created_at=old)
    session.append(holdfast.Event(payload=usage("m", 5, response_id="r1"), at=old + 1))
    session.fork(id="child").append(
        holdfast.Event(payload=usage("m", 7, response_id="r2"), at=old + 3 * 86_400_000_000)
    )
    with holdfast.open("memory://") as other:
        copy_session(store, other, "child")
        told = {total.key: total.input_tokens for total in other.usage(by=by).totals}
        early = other.usage(until=old + 2).total.input_tokens
        copy_session(other, store, "child")  # and there and back it is the same
    assert told == {"day": {"2026-01-01": 5, "2026-01-04": 7}, "model": {"m": 12}, "session": {"child": 12}}[by]
    assert early == 5
    assert store.usage().total.input_tokens == 12


READS: dict[str, Callable[[Session], object]] = {
    "messages": lambda s: [m.text for m in s.messages()],
    "events": lambda s: [e.seq for e in s.events(include_hidden=True) if e.type != "edit"],
    "artifacts": lambda s: [a.name for a in s.artifacts.list()],
    "stat": lambda s: getattr(s.artifacts.stat("f"), "sha256", None),
    "bytes": lambda s: s.artifacts.get("f"),
    "context": lambda s: [m.text for m in s.context().messages],
    "tasks": lambda s: [t.content for t in s.tasks()],
    "reports": lambda s: [r.subject for r in s.reports()],
    "validate": lambda s: s.validate(),
}


def whole_session(store: Store, id: str) -> Session:
    """A session with something of each kind."""
    session = store.create(id, name=f"name of {id}", labels=["l"], metadata={"a": 1}, config={"b": 2})
    session.append(user("one"), assistant("two"), tasks({"id": "1", "content": "t"}), report("r", []), usage("m", 5))
    session.artifacts.put("f", "bytes")
    session.append(user("three"))
    session.compact("so far", 2)
    session.append(user("four"), user("five"))
    session.remove_last()
    return session


@pytest.mark.parametrize("what", READS)
def test_what_is_in_the_trash_can_be_read_in_all_ways(store: Store, what: str) -> None:
    session = whole_session(store, "s")
    child = session.fork(id="child")
    before = READS[what](session)
    for id in ("child", "s"):
        store.trash.put(id)
    for one in (session, child, store.trash.get("s"), store.trash.get("child")):
        assert one is not None
        assert READS[what](one) == before


def test_what_is_gone_what_is_in_the_trash_and_what_never_was_are_told_apart(store: Store) -> None:
    nouns: list[Callable[[Session], object]] = [
        lambda s: s.append(user("late")), lambda s: s.update(title="late"), lambda s: s.update(name="late"),
        lambda s: s.save(user("late"), config={"a": 1}), lambda s: s.artifacts.put("late", "late"),
        lambda s: s.artifacts.delete("f"), lambda s: s.remove_last(), lambda s: s.clear(), lambda s: s.undo(),
        lambda s: s.compact("late", 1), lambda s: s.repair(), lambda s: s.fork(), lambda s: s.set_state("paused"),
        lambda s: s.turn().take(), lambda s: s.delete(), lambda s: s.info(), lambda s: store.tree(s.id),
        lambda s: store.trash.put(s.id), lambda s: store.recover(s.id),
    ]  # fmt: skip
    for id, error in (("gone", Deleted), ("put away", Trashed), ("purged", Deleted)):
        session = whole_session(store, id)
        if error is Trashed:
            store.trash.put(id)
        elif id == "gone":
            store.delete(id)
        else:
            store.trash.put(id)
            store.trash.purge(id)
        for noun in nouns:
            with pytest.raises(HoldfastError) as told:
                noun(session)
            assert type(told.value) is error
        assert store.get(id) is None
    for ask in (store.delete, store.tree, store.trash.put, store.trash.restore, store.resolve, store.recover):
        with pytest.raises(HoldfastError) as told:
            ask("never")
        assert type(told.value) is NotFound


def test_a_bundle_carries_all_that_hangs_on_a_session(store: Store) -> None:
    session = whole_session(store, "s")
    session.fork(id="child").artifacts.put("own", "own")
    store.documents.put("notes/x.md", "words")
    lines = [*write_bundle(store, ["s", "child"]), *write_documents(store)]
    with holdfast.open("memory://") as other:
        list(read_bundle(other, lines))
        assert [copied.new for copied in read_bundle(other, lines)] == [0] * 3
        for id in ("s", "child"):
            mine, copy = store.session(id), other.session(id)
            for what, read in READS.items():
                assert read(mine) == read(copy), what
            assert msgspec.structs.replace(copy.info(), rev=0) == msgspec.structs.replace(mine.info(), rev=0)
            assert [e.raw for e in copy.events(include_hidden=True)] == [
                e.raw for e in mine.events(include_hidden=True)
            ]
            assert {n: c for n, c in store.head(id).counts.items() if c} == dict(other.head(id).counts)
        assert other.head("s").tags["summary"] == store.head("s").tags["summary"]
        assert other.session("child").artifacts.get("own") == b"own"
        assert other.documents.exists("notes/x.md")
        with pytest.raises(Exists):
            other.create(name="name of s")
        other.session("s").artifacts.put("more", "more")  # its number is free there
        assert other.check(sweep=True).ok
        assert other.session("s").undo() is not None
        assert other.session("s").messages()[-1].text == "five"


@pytest.mark.parametrize("backend", ["sqlite", "files"])
def test_a_session_that_version_0_1_wrote_takes_part_in_all(backend: str, tmp_path: Path) -> None:
    shutil.copytree(FORMATS / "0.1" / backend, tmp_path / "old")
    url = f"sqlite://{tmp_path}/old/store.db" if backend == "sqlite" else f"file://{tmp_path}/old/store"
    with holdfast.open(url) as store:
        for info in store.sessions().items:
            session, id = store.session(info.id), info.id
            said = [m.text for m in session.messages()]
            assert session.context().last == info.last
            with session.turn() as turn:
                turn.artifacts.put("f", "bytes")
                turn.append(user("more"), usage("m", 5, response_id="r"))
            session.compact("so far", session.info().last)
            half, child = session.fork(at=info.last // 2), session.fork()
            assert child.artifacts.get("f") == b"bytes"
            assert half.artifacts.list() == []
            assert child.context().messages[0].text.endswith("so far")
            for name in (child.id, half.id):
                store.trash.put(name)
            store.trash.restore(child.id)
            assert [m.text for m in child.messages()] == [*said, "more"]
            with holdfast.open("memory://") as other:
                copy_session(store, other, id)
                assert other.session(id).info().counts == store.session(id).info().counts
                assert other.check().ok
            store.usage(by="day")
        done = store.prune(Policy(max_age=0, keep_named=False, keep_starred=False)).apply()
        assert done.moved
        assert done.failed == ()
        assert store.trash.undo(done.prune or "").failed == ()
        checked = store.check(sweep=True)
        assert checked.ok, checked.findings


def test_a_stuck_session_that_is_deleted_meanwhile_keeps_no_other_from_recovery(store: Store) -> None:
    for id in ("a", "b", "c"):
        store.session(id).set_state("running", turn="lost")
    inner, deletes = store.backend.get, ["a", "c"]

    def get(refs: Any) -> Any:
        if deletes and refs == [session_ref(deletes[0])]:
            store.backend.get = inner  # type: ignore[method-assign]
            store.delete(deletes.pop(0))
            store.backend.get = get  # type: ignore[method-assign]
        return inner(refs)

    store.backend.get = get  # type: ignore[method-assign]  # the other one comes just then
    made = {done.session: (done.applied, done.why) for done in store.recover(older_than=0)}
    store.backend.get = inner  # type: ignore[method-assign]
    assert deletes == []
    assert made["a"] == made["c"] == (False, "it was deleted meanwhile")
    assert made["b"][0]
    assert store.session("b").info().state == "error"
