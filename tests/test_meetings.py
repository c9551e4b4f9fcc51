"""Where features meet that know nothing of each other: each test is of one place where they did not fit at first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import holdfast
from holdfast import (
    Conflict,
    Deleted,
    Exists,
    LeaseLost,
    NotFound,
    Policy,
    Store,
    Trashed,
    Turn,
    assistant,
    tool_call,
    user,
)
from holdfast.branching import pins
from holdfast.copies import copy_session
from holdfast.info import session_ref
from holdfast.plan import Commit, Head, Refused
from holdfast.sweeping import sweep

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
    events = [event.seq for event in session.events(hidden=True)]
    with pytest.raises(LeaseLost):
        WAYS[way](turn)
    assert {kind: list(store.backend.scan(kind)) for kind in heads} == heads
    assert [event.seq for event in session.events(hidden=True)] == events
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
