"""Names: of one user's sessions no two are called the same, whoever asks at once and whoever is killed."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

import holdfast
from holdfast import (
    Conflict,
    Corrupt,
    Denied,
    Exists,
    Invalid,
    LeaseLost,
    NotFound,
    Store,
    TooLarge,
    Trashed,
    Unavailable,
    user,
)
from holdfast.bundle import read_bundle, write_bundle
from holdfast.clock import now
from holdfast.copies import copy_session
from holdfast.heads.info import session_ref
from holdfast.heads.names import GRACE, NAME, claim_ref
from holdfast.plan import Commit, Head

TESTS = Path(__file__).parent
PATIENCE = 30


def ended(started: subprocess.Popen[str]) -> str | int:
    """What it said at its end; by which signal, if by one."""
    with started:
        said, _ = started.communicate(timeout=PATIENCE)
    return started.returncode if started.returncode < 0 else said.strip()


def called(store: Store, name: str) -> list[str]:
    return sorted(info.id for info in store.sessions(name=name))


def claims(store: Store) -> set[tuple[str, str]]:
    return {(head.tags["name"], head.tags["session"]) for head in store.backend.scan(NAME)}


def test_a_name_belongs_to_one_session_of_a_user(store: Store) -> None:
    a = store.create("a", name="n")
    for call in (
        lambda: store.create("b", name="n"),
        lambda: store.session("b", name="n"),
        lambda: store.create(name="n"),
        lambda: store.session("c").update(name="n", title="not set either"),
        lambda: a.fork(name="n", id="b"),
    ):
        with pytest.raises(Exists, match="'a' is called 'n'") as told:
            call()
        assert told.value.session == "a"
    assert not store.exists("b")
    assert store.session("c").info().title is None
    assert store.resolve("n").id == "a"
    assert store.session("a", name="n").id == "a"
    assert store.session("a", name="other").info().name == "n"  # an old one keeps its own
    assert a.update(name="n").name == "n"
    assert claims(store) == {("n", "a")}


def test_each_user_has_her_own_names(store: Store) -> None:
    ids = [store.create(name="n", user=who).id for who in (None, "ann", "bob")]
    assert called(store, "n") == sorted(ids)
    assert store.for_user("ann").resolve("n").id == ids[1]
    assert store.for_user("bob").create("x", name="m").info().user == "bob"
    with pytest.raises(Exists):
        store.create(name="m", user="bob")
    with pytest.raises(Exists):
        store.for_user("bob").session("y").update(name="m")
    with pytest.raises(Invalid, match="could be"):
        store.resolve("n")
    store.for_user("ann").session("z").update(name="m")


def test_a_rename_frees_the_old_name_at_once(store: Store) -> None:
    a, b = store.create("a", name="one"), store.create("b")
    a.update(name="two")
    b.update(name="one")
    a.update(name=None)
    b.update(name="two")
    a.update(name="one")
    b.update(name="")
    assert claims(store) == {("one", "a")}
    assert (a.info().name, b.info().name) == ("one", None)


def test_a_deleted_session_frees_its_name(store: Store) -> None:
    store.create("a", name="n").delete()
    store.create("b", name="n")
    store.delete("b")
    store.create("a", name="n")
    assert claims(store) == {("n", "a")}
    assert store.resolve("n").id == "a"


def test_a_fork_takes_its_name_and_the_same_call_again_does(store: Store) -> None:
    parent = store.create("p", name="parent")
    parent.append(user("x"))
    fork = parent.fork(name="child", id="f")
    assert parent.fork(at=1, name="child", id="f").id == fork.id
    assert store.resolve("child").id == "f"
    assert claims(store) == {("parent", "p"), ("child", "f")}


def test_a_turn_names_its_session_until_it_is_overtaken(store: Store) -> None:
    session = store.session("s")
    with session.turn() as turn:
        turn.update(name="in a turn")
        store.batcher.commit(Commit(ref=session_ref("s"), tags={"turn": "another"}))
        with pytest.raises(LeaseLost):
            turn.update(name="late")
        store.batcher.commit(Commit(ref=session_ref("s"), tags={"turn": turn.token}))
    assert claims(store) == {("in a turn", "s")}


def test_names_that_cant_be(store: Store) -> None:
    for name, error in (("x" * 2049, TooLarge), ("a\0b", Invalid), ("\ud800", Invalid)):
        for call in (
            lambda name=name: store.create("s", name=name),
            lambda name=name: store.session("t").update(name=name),
        ):
            with pytest.raises(error):
                call()
    assert claims(store) == set()
    assert not store.exists("s")
    assert store.create("s", name="ü/..\n: x" + "y" * 2000).info().name


def test_where_nothing_is_named_nothing_is_claimed(store: Store) -> None:
    store.session("s").update(title="t")
    store.create(name="")
    with pytest.raises(NotFound):
        holdfast.Session(store, Head(session_ref("gone"))).update(name="n")
    with pytest.raises(Invalid):
        store.create("x", name="n", state="no such state")
    assert claims(store) == set()


def test_those_named_before_there_were_claims_count(store: Store) -> None:
    """As 0.1 stored them: the tag alone."""
    store.session("old")
    store.batcher.commit(Commit(ref=session_ref("old"), tags={"name": "n"}))
    assert store.resolve("n").id == "old"
    with pytest.raises(Exists):
        store.create("new", name="n")
    assert claims(store) == set()
    store.session("old").update(name="m")
    store.create("new", name="n")
    store.batcher.commit(Commit(ref=session_ref("old"), tags={"name": "q"}))
    store.delete("old")
    store.create("newer", name="q")


def test_copies_that_bring_a_name_twice_keep_all(store: Store, tmp_path: Path) -> None:
    store.create("here", name="n")
    with holdfast.open(f"sqlite://{tmp_path}/other.db") as other:
        for id in ("there", "bundled"):
            other.create(id, name="n").append(user("kept")) if id == "there" else other.create(id, name="m")
        other.session("bundled").update(name=None)
        other.session("there").update(name="k")
        other.session("bundled").update(name="n")
        other.session("there").update(name="n2")
        lines = list(write_bundle(other, ["bundled"]))
        other.session("bundled").update(name="n3")
        other.session("there").update(name="n")
        assert copy_session(other, store, "there").error is None
    assert [one.error for one in read_bundle(store, lines)] == [None]
    assert called(store, "n") == ["bundled", "here", "there"]
    assert [m.text for m in store.session("there").messages()] == ["kept"]
    with pytest.raises(Invalid, match="could be"):
        store.resolve("n")
    with pytest.raises(Exists):
        store.create(name="n")
    store.session("here").update(name="first")
    store.session("there").update(name="second")
    assert store.resolve("n").id == "bundled"
    store.session("bundled").update(name="third")
    assert store.create(name="n").info().name == "n"


# --- At once ---


def test_many_threads_and_one_name(store: Store) -> None:
    told: list[str] = []

    def create(number: int) -> None:
        with contextlib.suppress(Exists):
            told.append(store.create(f"s{number}", name="n").id)

    threads = [threading.Thread(target=create, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert called(store, "n") == told
    assert len(told) == 1


def test_renames_of_one_session_leave_one_claim(store: Store) -> None:
    session = store.create("s", name="first")

    def rename(number: int) -> None:
        for turn in range(5):
            store.session("s").update(name=f"{number}-{turn}")

    threads = [threading.Thread(target=rename, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert claims(store) == {(session.info().name, "s")}


def test_calls_for_one_id_and_name_get_one_session(store: Store) -> None:
    got: list[Any] = []

    def ask() -> None:
        got.append(store.session("s", name="n").info().name)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == ["n"] * 12
    assert claims(store) == {("n", "s")}


RACER = """
import sys, holdfast
url, number = sys.argv[1:]
with holdfast.open(url) as store:
    sys.stdin.readline()
    won = []
    for name in map(str, range(25)):
        try:
            store.create(f"{number}-{name}", name=name)
            won.append(name)
        except holdfast.Exists:
            pass
    print(*won)
"""


@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_processes_do_not_get_the_same_name(tmp_path: Path, backend: str) -> None:
    url = f"{backend}://{tmp_path}/store.db"
    with holdfast.open(url) as store:
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", RACER, url, str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for n in range(4)
        ]
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        won = [str(ended(racer)).split() for racer in racers]
        assert [racer.returncode for racer in racers] == [0] * 4
        assert sorted(name for names in won for name in names) == sorted(map(str, range(25)))
        for number, names in enumerate(won):
            for name in names:
                assert called(store, name) == [f"{number}-{name}"]
        assert store.check().ok


# --- Killed and paused between the steps ---


def namer(url: str, step: str, how: str, id: str, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "faults.namer", url, step, how, id, name],
        cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("backend", ["file", "sqlite"])
@pytest.mark.parametrize("exists", [True, False])
def test_a_name_is_not_stuck_when_its_claimer_is_killed(tmp_path: Path, backend: str, exists: bool) -> None:
    url = f"{backend}://{tmp_path}/store.db"
    with holdfast.open(url) as store:
        if exists:
            store.create("killed", name="old")
        assert ended(namer(url, "give", "kill", "killed", "n")) == -9
        assert claims(store) >= {("n", "killed")}
        assert called(store, "n") == []
        assert store.create("other", name="n").id == "other"
        assert claims(store) == {("n", "other")} | ({("old", "killed")} if exists else set())
        # The killed one's call again is told of it, and may take another.
        with pytest.raises(Exists):
            store.session("killed").update(name="n")
        assert store.session("killed").update(name="m").name == "m"
        store.create(name="old")


@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_the_call_again_takes_the_claim_that_was_left(tmp_path: Path, backend: str) -> None:
    url = f"{backend}://{tmp_path}/store.db"
    with holdfast.open(url) as store:
        assert ended(namer(url, "give", "kill", "s", "n")) == -9
        assert store.create("s", name="n").info().name == "n"
        assert claims(store) == {("n", "s")}


@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_an_old_name_is_free_though_its_release_was_cut_off(tmp_path: Path, backend: str) -> None:
    url = f"{backend}://{tmp_path}/store.db"
    with holdfast.open(url) as store:
        store.create("s")
        first = namer(url, "release", "kill", "s", "old")
        assert ended(first) == "named"
        assert ended(namer(url, "release", "kill", "s", "new")) == -9
        assert claims(store) >= {("old", "s"), ("new", "s")}
        assert store.session("s").info().name == "new"
        assert store.create("t", name="old").id == "t"
        assert ended(namer(url, "release", "kill", "u", "n")) == "named"
        store.delete("u")
        assert store.create("v", name="n").id == "v"


def test_a_claimer_that_stands_still_keeps_the_name_for_a_while(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/store.db"
    with holdfast.open(url) as store:
        paused = namer(url, "give", "stop", "slow", "n")
        assert paused.stdout is not None
        assert paused.stdout.readline() == "stands\n"
        with pytest.raises(Exists, match="is being given"):
            store.create("other", name="n")
        assert ended(paused) == "named"
        assert called(store, "n") == ["slow"]


@pytest.mark.parametrize("exists", [True, False])
def test_a_claimer_that_stood_still_for_too_long_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    """The name was given to another session after a minute: by then only one session has it, in the end."""
    url = f"sqlite://{tmp_path}/store.db"
    with holdfast.open(url) as store:
        if exists:
            store.create("slow")
        paused = namer(url, "give", "stop", "slow", "n")
        assert paused.stdout is not None
        assert paused.stdout.readline() == "stands\n"
        monkeypatch.setattr("holdfast.heads.names.GRACE", -1)
        store.create("other", name="n")
        monkeypatch.setattr("holdfast.heads.names.GRACE", GRACE)
        assert ended(paused) == "Exists"
        assert called(store, "n") == ["other"]
        assert claims(store) == {("n", "other")}


def test_a_clock_that_jumped_leaves_no_name_stuck(store: Store) -> None:
    tags = {"name": "n", "session": "nobody", "process": "1 1 another-machine"}
    for at in (1, now() + 10 * GRACE):
        ref = claim_ref(None, "n")
        there = store.backend.get([ref])[0]
        store.batcher.commit(Commit(ref=ref, at=at, if_rev=there.rev if there else 0, tags=tags))
        store.create(name="n").delete()


def test_a_write_that_fails_gives_the_name_free(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = store.backend.commit

    def fail(batch: Any) -> Any:
        if any(each.ref.kind == "session" for each in batch):
            raise Unavailable("the engine is busy")
        return commit(batch)

    monkeypatch.setattr(store.backend, "commit", fail)
    with pytest.raises(Unavailable):
        store.create("s", name="n")
    assert claims(store) == set()


def test_a_name_that_was_given_is_not_told_to_have_failed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, get = store.backend.commit, store.backend.get

    def fail(*_: Any) -> Any:
        raise Unavailable("the engine is busy")

    def then_fail(batch: Any) -> Any:
        done = commit(batch)
        if any(each.ref.kind == "session" for each in batch):
            monkeypatch.setattr(store.backend, "get", fail)
        return done

    monkeypatch.setattr(store.backend, "commit", then_fail)
    assert store.create("s", name="n").id == "s"
    monkeypatch.setattr(store.backend, "get", get)
    assert store.resolve("n").id == "s"


def test_an_uncertain_answer_keeps_the_claim_for_the_call_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = store.backend.commit

    def lose(batch: Any) -> Any:
        done = commit(batch)
        if any(each.ref.kind == "session" for each in batch):
            raise holdfast.Uncertain("the answer was lost")
        return done

    monkeypatch.setattr(store.backend, "commit", lose)
    with pytest.raises(holdfast.Uncertain):
        store.session("s", name="n")
    monkeypatch.setattr(store.backend, "commit", commit)
    assert store.session("s", name="n").info().name == "n"
    assert claims(store) == {("n", "s")}


def test_a_view_can_take_no_claim_of_another(store: Store) -> None:
    store.create("b", user="bob", name="n")
    view = store.for_user("alice")
    with pytest.raises(Denied):
        view.backend.get([claim_ref("bob", "n")])
    claim = Commit(ref=claim_ref("bob", "m"), at=1, if_rev=0, tags={"user": "bob", "name": "m", "session": "x"})
    with pytest.raises(Denied):
        view.batcher.commit(claim)
    forged = msgspec.structs.replace(claim, tags={"name": "m", "session": "x"})  # hers, under bob's id
    with pytest.raises(Denied):
        view.batcher.commit(forged)
    assert store.for_user("bob").create(name="m").info().name == "m"


# --- Names where ids do ---


def test_a_name_finds_a_session_wherever_an_id_does(store: Store) -> None:
    made = store.create("s", name="n")
    made.append(user("the sea"))
    child = made.fork(at=1, id="c", name="child")
    found = store.get(name="n")
    assert found is not None
    assert found.id == "s"
    assert store.get(name="other") is None
    assert (store.exists(name="n"), store.exists(name="other")) == (True, False)
    assert store.tree(name="child").session.id == "s"
    assert [hit.session for hit in store.search("sea", name="n")] == ["s"]
    assert store.check(name="n").sessions == 1
    assert [done.session for done in store.recover(name="n")] == ["s"]
    store.trash.put(name="child")
    assert not store.exists(name="child")
    held = store.trash.get(name="child")
    assert held is not None
    assert held.id == child.id
    assert store.trash.get(name="n") is None
    assert store.check(name="child").sessions == 1
    for call in (store.session, store.delete, store.tree, store.trash.put):
        with pytest.raises(Trashed):
            call(name="child")
    with pytest.raises(Conflict, match="not in the trash"):
        store.trash.restore(name="n")
    assert store.trash.restore(name="child").id == "c"
    store.delete(name="child")
    assert store.get("c") is None
    assert store.get("n") is None  # an id is exact


def test_a_name_that_nobody_has_or_several_have_says_so(store: Store) -> None:
    calls: list[Callable[..., Any]] = [
        store.delete, store.tree, store.check, store.recover, store.trash.put, store.trash.restore,
        lambda **how: store.search("x", **how),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(NotFound, match="no session called 'n'"):
            call(name="n")
    ids = {store.create(name="n", user=who).id for who in (None, "ann")}
    for call in [*calls, store.get, store.exists, store.session]:
        with pytest.raises(Invalid, match="several sessions") as told:
            call(name="n")
        assert set(told.value.facts["matches"]) == ids  # type: ignore[call-overload]
    for call in (store.get, store.exists, store.delete, store.tree, store.trash.get, store.trash.put):
        with pytest.raises(Invalid, match="not both"):
            call("s", name="n")
        with pytest.raises(Invalid, match="say which"):
            call()
    assert store.get(name="") is None
    with pytest.raises(TooLarge):
        store.get(name="x" * 3000)
    assert len(list(store.sessions())) == 2


def test_in_her_store_a_name_is_hers(store: Store) -> None:
    ann, bob = store.for_user("ann"), store.for_user("bob")
    mine = ann.session(name="n")
    assert bob.get(name="n") is None
    with pytest.raises(NotFound):
        bob.delete(name="n")
    other = bob.session(name="n")
    assert mine.id != other.id
    assert ann.session(name="n").id == mine.id == store.session(name="n", user="ann").id
    assert other.info().user == "bob"
    bob.delete(name="n")
    assert ann.exists(name="n")


def test_a_session_by_name_is_made_once_and_found_again(store: Store) -> None:
    made = store.session(name="n", title="t", labels=(label for label in "ab"))
    assert made.info().labels == ("a", "b")
    again = store.session(name="n", title="other")
    assert (again.id, again.info().title) == (made.id, "t")
    assert store.session("x").id == "x"
    assert store.session(name="").id != store.session(name="").id
    with pytest.raises(Invalid):
        store.session(name="m", state="no such state")
    assert not store.exists(name="m")
    damaged = store.session(name=made.id)  # called like another's id: not that one
    assert damaged.id != made.id


def test_of_many_who_ask_for_a_name_all_get_one_session(store: Store) -> None:
    found: list[str] = []
    with ThreadPoolExecutor(100) as pool:
        found = [made.id for made in pool.map(lambda _: store.session(name="n"), range(100))]
    assert len(set(found)) == 1
    assert called(store, "n") == [found[0]]
    assert claims(store) == {("n", found[0])}


def test_of_many_tasks_that_ask_for_a_name_all_get_one_session(url: str) -> None:
    async def work() -> None:
        async with holdfast.aopen(url) as store:
            made = await asyncio.gather(*(store.session(name="n") for _ in range(100)))
            assert len({session.id for session in made}) == 1
            found = await store.get(name="n")
            assert found is not None
            assert found.id == made[0].id
            await store.trash.put(name="n")
            assert not await store.exists(name="n")
            await store.trash.restore(name="n")
            assert (await store.tree(name="n")).session.id == found.id
            await store.delete(name="n")

    asyncio.run(work())


BY_NAME = """
import sys, holdfast
with holdfast.open(sys.argv[1]) as store:
    sys.stdin.readline()
    print(store.session(name="n").id)
"""


def test_processes_that_ask_for_a_name_get_one_session(url: str) -> None:
    if url.startswith("memory"):
        return  # no other process has it
    with holdfast.open(url) as store:
        command = [sys.executable, "-c", BY_NAME, url]
        started = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
        ]
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        assert len({ended(process) for process in started}) == 1
        assert len(called(store, "n")) == 1


def test_a_deletion_by_name_meets_nobody_who_was_renamed_meanwhile(store: Store) -> None:
    """Whoever bears the name when it is deleted goes; who has given it away stays."""
    turns = threading.Barrier(2)

    def rename() -> None:
        turns.wait()
        with contextlib.suppress(NotFound):
            store.session("old").update(name="m")
            store.session("new").update(name="n")

    for _ in range(20):
        store.create("old", name="n")
        store.create("new")
        thread = threading.Thread(target=rename)
        thread.start()
        turns.wait()
        with contextlib.suppress(NotFound):
            store.delete(name="n")
        thread.join()
        left = {id: found.info().name for id in ("old", "new") if (found := store.get(id)) is not None}
        assert left in (
            {"old": "m", "new": "n"},  # nobody was called so just then
            {"old": "m"},
            {"new": None},
        )
        for id in left:
            store.delete(id)


def test_a_rename_races_a_look_by_name_and_none_is_made_twice(store: Store) -> None:
    store.create("s", name="n")
    stop = threading.Event()

    def rename() -> None:
        session = store.session("s")
        while not stop.is_set():
            session.update(name="m")
            session.update(name="n")

    thread = threading.Thread(target=rename)
    thread.start()
    try:
        for _ in range(200):
            found = store.get(name="n")
            assert found is None or found.id == "s"
        made = {store.session(name="third").id for _ in range(20)}
        assert len(made) == 1
    finally:
        stop.set()
        thread.join()
    assert called(store, "n") == ["s"]


def test_a_damaged_session_is_found_by_its_name_as_by_its_id(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with holdfast.open(f"sqlite://{path}") as store:
        store.create("s", name="n").append(user("x"))
    with sqlite3.connect(path) as db:
        db.execute("UPDATE head SET at = 5 WHERE kind = 'session'")
    db.close()
    with holdfast.open(f"sqlite://{path}") as store:
        with pytest.raises(Corrupt):
            store.get(name="n")
        found = store.get(name="n", damaged="keep")
        assert found is not None
        assert len(list(found.events(damaged="keep"))) == 1
