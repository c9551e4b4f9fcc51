"""Forks: a child shows what its parent was, whatever either does later, and costs the same however long that was."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, strategies as st

import holdfast
from holdfast import (
    Branch,
    Conflict,
    Corrupt,
    Deleted,
    Event,
    Exists,
    Invalid,
    KeyReused,
    NotFound,
    Session,
    Store,
    Unavailable,
    assistant,
    step,
    tool_call,
    usage,
    user,
)
from holdfast.bundle import read_bundle, write_bundle
from holdfast.copies import copy_session
from holdfast.heads.info import session_ref
from holdfast.history.ancestry import FORKED, newest_edit
from holdfast.history.branching import MARK, PIN, pins
from holdfast.plan import Commit, Head, Refused


def texts(session: Session) -> list[str]:
    return [message.text for message in session.messages()]


def view(session: Session, **options: Any) -> list[tuple[int, bool, bytes]]:
    return [(event.seq, event.hidden, event.raw) for event in session.events(include_hidden=True, **options)]


def sound(store: Store) -> None:
    report = store.check()
    assert report.ok, report.findings
    assert report.unfinished == ()


def said(store: Store, id: str, words: Sequence[str]) -> Session:
    session = store.create(id)
    session.append(*(user(word) for word in words))
    return session


# --- Reading ---


def test_a_fork_reads_its_parents_events_with_equal_seqs_and_then_its_own(store: Store) -> None:
    parent = store.create("p", user="ann", agent="a", project="x", metadata={"m": 1}, config={"c": 2}, labels=["l"])
    parent.append(user("one"), assistant("two"), step("t", is_error=True), usage("m1", 5, cost=3))
    child = parent.fork(name="other way")
    assert child.last == 4
    assert view(child) == view(parent)
    assert child.append(user("mine")).first == 5
    assert parent.append(user("theirs")).first == 5
    assert texts(child) == ["one", "two", "mine"]
    assert texts(parent) == ["one", "two", "theirs"]
    assert [e.seq for e in child.events(reverse=True)] == [5, 4, 3, 2, 1]
    assert [e.seq for e in child.events(after=1, before=5)] == [2, 3, 4]
    assert [e.seq for e in child.events(last=3)] == [3, 4, 5]
    assert [e.seq for e in child.events(types="message", last=2)] == [2, 5]
    assert [m.text for m in child.messages(last=2)] == ["two", "mine"]
    assert [e.seq for e in child.tail(last=3, follow=False)] == [3, 4, 5]
    info = child.info()
    assert (info.parent, info.name, info.user, info.agent, info.project) == ("p", "other way", "ann", "a", "x")
    assert (info.title, info.metadata, info.config, info.labels, info.models) == (
        "one",
        {"m": 1},
        {"c": 2},
        (),
        ("m1",),
    )
    counts = info.counts
    assert (counts.messages, counts.steps, counts.errors, counts.input_tokens, counts.cost) == (3, 1, 1, 5, 3)
    sound(store)


def test_a_fork_is_of_what_the_session_was_at_that_event(store: Store) -> None:
    parent = said(store, "p", "abcde")
    parent.append(usage("m", 1), step("t"))
    parent.rewind(to=3)
    parent.append(user("f"), usage("m", 1))
    parent.undo()
    for at, shown, usages in (
        (0, "", 0),
        (2, "ab", 0),
        (5, "abcde", 0),
        (7, "abcde", 1),
        (8, "abc", 1),
        (9, "abcf", 1),
    ):
        child = parent.fork(at=at)
        assert texts(child) == list(shown)
        assert (child.info().counts.messages, child.info().counts.input_tokens) == (len(shown), usages)
        assert child.append(user("x")).first == at + 1
    assert texts(parent.fork()) == list("abcdef")
    sound(store)


def test_a_fork_keeps_its_view_whatever_the_parent_hides_or_shows(store: Store) -> None:
    parent = said(store, "p", "abcd")
    parent.rewind(to=3)
    child = parent.fork()
    parent.undo()
    parent.rewind(to=1)
    parent.append(user("z"))
    assert texts(child) == list("abc")
    assert texts(parent) == list("az")
    child.append(user("y"))
    parent.clear()
    assert texts(child) == list("abcy")
    assert [e.seq for e in child.events(include_hidden=True) if e.hidden] == [4]
    assert [e.seq for e in child.events(reverse=True, types="message", last=2)] == [6, 3]
    sound(store)


def test_a_fork_hides_and_shows_what_it_reads_through_its_parent_for_itself(store: Store) -> None:
    parent = said(store, "p", "abcd")
    parent.rewind(to=3)
    child = parent.fork()
    child.append(user("e"))
    assert child.rewind(to=1) is not None
    assert texts(child) == ["a"]
    assert child.info().counts.messages == 1
    assert texts(parent) == list("abc")
    grandchild = child.fork()
    assert texts(grandchild) == ["a"]
    assert child.undo() is not None
    assert texts(child) == list("abce")
    assert child.undo() is not None  # what the parent had hidden before the fork
    assert texts(child) == list("abcde")
    assert child.undo() is None
    assert texts(parent) == list("abc")
    assert texts(grandchild) == ["a"]
    assert grandchild.remove_last() is not None
    assert texts(grandchild) == []
    sound(store)


def test_forks_of_forks_read_through_all_of_them(store: Store) -> None:
    session = said(store, "s0", "a")
    for depth in range(1, 8):
        session = session.fork(id=f"s{depth}")
        session.append(user(str(depth)), user("x"))
        session.remove_last()
    assert texts(session) == ["a", *"1234567"]
    assert [e.seq for e in session.events(include_hidden=True)] == list(range(1, 23))
    early = session.fork(at=2, id="early")  # a place that belongs to an ancestor of its parent
    assert texts(early) == ["a", "1"]
    store.get("s1").clear()  # type: ignore[union-attr]  # it is there
    assert texts(session) == ["a", *"1234567"]
    assert texts(early) == ["a", "1"]
    sound(store)


def test_a_read_of_many_pages_crosses_from_parent_to_child(store: Store) -> None:
    parent = store.create("p")
    parent.append(*(user(str(n)) for n in range(1200)))
    child = parent.fork(at=1100)
    child.append(*(user(f"c{n}") for n in range(700)))
    parent.rewind(to=100)
    expected = [*range(1, 1801)]
    assert [e.seq for e in child.events()] == expected
    assert [e.seq for e in child.events(reverse=True)] == expected[::-1]
    assert [e.seq for e in child.events(last=1000)] == expected[-1000:]
    assert child.info().counts.messages == 1800
    sound(store)


def test_a_key_that_the_parent_used_before_the_fork_is_known_to_the_fork(store: Store) -> None:
    parent = store.create("p")
    receipt = parent.append(user("one"), user("two"), key="k")
    child = parent.fork()
    again = child.append(user("one"), user("two"), key="k")
    assert (again.repeated, again.first, again.last, again.session) == (True, receipt.first, receipt.last, child.id)
    assert child.append(Event(payload=user("one"), id="k")).first == 1
    with pytest.raises(KeyReused):
        child.append(user("other"), key="k")
    parent.append(user("later"), key="l")
    assert not child.append(user("mine"), key="l").repeated
    assert child.append(user("mine"), key="l").repeated
    assert texts(child) == ["one", "two", "mine"]


def test_a_search_in_a_store_finds_shared_events_once_in_the_session_that_owns_them(store: Store) -> None:
    parent = said(store, "p", ["apple"])
    child = parent.fork(id="c")
    child.append(user("apple pie"))
    assert {(hit.session, hit.seq) for hit in store.search("apple")} == {("p", 1), ("c", 2)}


def test_a_search_in_a_fork_finds_what_it_shows_of_its_parents(store: Store) -> None:
    parent = said(store, "p", ["apple one", "pear", "apple two", "apple three"])
    child = parent.fork(at=3, id="c")
    child.append(user("apple four"))
    assert {(h.session, h.seq) for h in store.search("apple", session="c")} == {("p", 1), ("p", 3), ("c", 4)}
    newest = store.search("apple", session="c", newest=True)
    assert [h.seq for h in newest] == [4, 3, 1]
    first = store.search("apple", session="c", newest=True, limit=2)
    rest = store.search("apple", session="c", newest=True, limit=2, cursor=first.cursor)
    assert [h.seq for h in first] + [h.seq for h in rest] == [4, 3, 1]
    assert rest.cursor is None
    child.rewind(to=2)
    assert [h.seq for h in store.search("apple", session="c")] == [1]
    assert len(store.search("apple", session="p")) == 3
    assert store.search("apple", session="c", agent="nobody").items == []
    child.undo()
    parent.clear()
    assert [h.seq for h in store.search("apple", session="c", newest=True)] == [4, 3, 1]  # which the parent hides now
    assert {h.seq for h in store.search("apple", session="c")} == {1, 3, 4}
    assert store.search("apple", session="p").items == []
    child.rewind(to=2)
    assert [h.seq for h in store.search("apple", session="c")] == [1]


def test_a_fork_is_told_to_a_tail_and_can_be_followed(store: Store) -> None:
    child = said(store, "p", "ab").fork()
    stop = threading.Event()
    met: list[int] = []
    begun = threading.Event()

    def follow() -> None:
        for event in child.tail(last=2, stop=stop):
            met.append(event.seq)
            begun.set()
            if event.seq == 3:
                return

    thread = threading.Thread(target=follow)
    thread.start()
    assert begun.wait(30)
    child.append(user("c"))
    thread.join(30)
    assert met == [1, 2, 3]


# --- Making ---


def test_a_fork_can_only_be_made_of_what_is_there(store: Store) -> None:
    parent = said(store, "p", "abc")
    for at in (-1, 4):
        with pytest.raises(Invalid, match="can't be forked at"):
            parent.fork(at=at)
    store.create("taken")
    with pytest.raises(Exists):
        parent.fork(id="taken")
    with pytest.raises(Exists):
        parent.fork(id="p")
    store.create("gone").delete()
    with pytest.raises(Deleted):
        parent.fork(id="gone")
    assert pins(store.head("p")) == {}
    sound(store)
    parent.delete()
    with pytest.raises(NotFound):
        parent.fork()


def test_the_same_fork_again_is_the_same_session(store: Store) -> None:
    parent = said(store, "p", "abc")
    parent.fork(at=2, id="c").append(user("x"))
    again = parent.fork(at=2, id="c")
    assert texts(again) == list("abx")
    with pytest.raises(Exists):
        parent.fork(at=1, id="c")


def test_many_forks_at_once_all_hold(store: Store) -> None:
    parent = said(store, "p", "abc")
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda n: store.session("p").fork(at=n % 4, id=f"c{n}").id, range(24)))
    assert {branch.session.id for branch in store.tree("p").forks} == set(made)
    assert texts(parent) == list("abc")
    sound(store)


def test_an_id_of_any_length_can_be_forked_from_and_to(store: Store) -> None:
    parent = said(store, "p" * 512, "ab")
    child = parent.fork(id="c" * 512)
    assert texts(child) == list("ab")
    assert child.fork().info().parent == "c" * 512


# --- Deleting ---


def test_a_parent_is_not_deleted_under_a_living_fork(store: Store) -> None:
    parent = said(store, "p", "ab")
    child = parent.fork(id="c")
    grandchild = child.fork(id="g")
    for session, fork in ((parent, "c"), (child, "g")):
        with pytest.raises(Conflict, match="fork") as caught:
            session.delete()
        assert caught.value.fork == fork
    grandchild.delete()
    child.delete()
    parent.delete()
    assert not store.exists("p")
    sound(store)


class Interrupted(Exception):
    pass


def interrupted_fork(store: Store, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """A fork whose process ends before its commit number `step`."""
    commit, count = store.batcher.commit, 0

    def counted(change: Commit) -> Head | Refused:
        nonlocal count
        count += 1
        if count == step:
            raise Interrupted
        return commit(change)

    session = store.session("p")
    with monkeypatch.context() as patch:
        patch.setattr(store.batcher, "commit", counted)
        with pytest.raises(Interrupted):
            session.fork(id="c")


@pytest.mark.parametrize("step", [2, 3])
def test_a_fork_that_was_interrupted_is_named_and_healed(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    parent = said(store, "p", "ab")
    interrupted_fork(store, monkeypatch, step)
    report = store.check()
    assert report.ok
    assert [(f.session, f.what) for f in report.unfinished] == [("p", "its fork 'c' was not finished")]
    assert store.exists("c") == (step == 3)
    assert texts(parent.fork(id="c")) == list("ab")
    sound(store)


def test_another_fork_clears_up_behind_an_interrupted_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = said(store, "p", "ab")
    interrupted_fork(store, monkeypatch, 3)
    parent.fork()
    sound(store)


def test_a_fork_that_was_interrupted_before_its_child_was_there_hinders_no_delete(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = said(store, "p", "ab")
    interrupted_fork(store, monkeypatch, 2)
    parent.delete()
    with pytest.raises(Deleted):  # its process, had it only been slow
        store.session("c")
    sound(store)


def test_a_delete_that_looked_before_a_fork_was_pinned_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = said(store, "p", "ab")
    find, done = store.backend.find, []

    def find_and_be_overtaken(*args: Any, **options: Any) -> Any:
        found = find(*args, **options)
        if not done:
            done.append(parent.fork(id="c"))
        return found

    monkeypatch.setattr(store.backend, "find", find_and_be_overtaken)
    with pytest.raises(Conflict):
        store.delete("p")
    assert texts(done[0]) == list("ab")
    sound(store)


def test_forks_and_deletes_at_once_leave_no_orphan(store: Store) -> None:
    for round in range(15):
        id = f"p{round}"
        said(store, id, "ab")
        ready = threading.Barrier(2)

        def fork(id: str = id, ready: threading.Barrier = ready) -> Session | None:
            session = store.session(id)
            ready.wait(30)
            try:
                return session.fork(id=f"{id}-c")
            except NotFound:
                return None

        def delete(id: str = id, ready: threading.Barrier = ready) -> bool:
            ready.wait(30)
            try:
                store.delete(id)
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            child, deleted = pool.submit(fork), pool.submit(delete)
            made = child.result(60)
            assert deleted.result(60) == (made is None)
        if made is not None:
            assert texts(made) == list("ab")
    sound(store)


def test_a_parent_that_is_gone_after_all_is_told_by_reads_and_check(store: Store) -> None:
    said(store, "p", "ab").fork(id="c").append(user("own"))
    store.backend.commit([Commit(ref=session_ref("p"), at=1, delete=True)])
    child = store.get("c")
    assert child is not None
    with pytest.raises(Corrupt, match="'p' is gone"):
        list(child.events())
    assert [e.seq for e in child.events(after=2)] == [3]
    assert [f.session for f in store.check().findings] == ["c"]


# --- Trees ---


def test_a_tree_shows_a_lineage_from_any_of_its_sessions(store: Store) -> None:
    root = said(store, "root", "abc")
    a = root.fork(at=1, id="a")
    root.fork(at=3, id="b")
    a.append(user("x"))
    a.fork(id="aa")

    def shape(branch: Branch) -> Any:
        return branch.session.id, branch.at, [shape(fork) for fork in branch.forks]

    expected = ("root", 0, [("a", 1, [("aa", 2, [])]), ("b", 3, [])])
    for id in ("root", "a", "aa", "b"):
        assert shape(store.tree(id)) == expected
    assert shape(store.tree(said(store, "alone", "a").id)) == ("alone", 0, [])
    with pytest.raises(NotFound):
        store.tree("nobody")


# --- Copies ---


@pytest.mark.parametrize("way", ["copy", "bundle"])
def test_a_copy_of_a_fork_is_whole_and_goes_there_and_back(store: Store, way: str) -> None:
    parent = said(store, "p", "abcd")
    parent.rewind(to=3)
    child = parent.fork(id="c")
    child.append(user("e"), key="k")
    parent.clear()

    def carry(source: Store, target: Store) -> int:
        if way == "copy":
            return copy_session(source, target, "c").new
        (told,) = read_bundle(target, write_bundle(source, ["c"]))
        assert told.error is None
        return told.new

    with holdfast.open("memory://") as target:
        assert carry(store, target) == 6
        twin = target.get("c")
        assert twin is not None
        assert view(twin) == view(child)
        assert FORKED not in target.head("c").tags
        assert twin.info().counts == child.info().counts
        assert twin.info().parent == "p"
        sound(target)
        rev = target.head("c").rev
        assert carry(store, target) == 0
        assert target.head("c").rev == rev
        assert carry(target, store) == 0
        twin.append(user("f"))
        assert carry(target, store) == 1
        assert texts(child) == list("abcef")
        child.undo()
        twin.delete()
        assert store.tree("p").forks[0].session.id == "c"
    sound(store)


def test_what_ties_a_session_to_its_forks_is_not_copied(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    said(store, "p", "ab")
    interrupted_fork(store, monkeypatch, 2)
    with holdfast.open("memory://") as target:
        copy_session(store, target, "p")
        tags = target.head("p").tags
        assert MARK not in tags
        assert pins(target.head("p")) == {}


# --- asyncio ---


def test_forks_from_asyncio(url: str) -> None:
    async def main() -> None:
        async with holdfast.aopen(url) as store:
            parent = await store.session("p")
            await parent.append(user("a"), key="k")
            child = await parent.fork(at=1, name="n", id="c")
            assert (await child.append(user("a"), key="k")).repeated
            await child.append(user("b"))
            assert [m.text for m in await child.messages()] == ["a", "b"]
            assert (await store.tree("c")).forks[0].session.name == "n"

    asyncio.run(main())


# --- Cost ---


def test_a_fork_reads_and_writes_the_same_however_long_its_parent_is(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, commit = store.backend.read, store.backend.commit
    work: list[int] = []

    def counted_read(*args: Any, **options: Any) -> Any:
        found = read(*args, **options)
        work.append(len(found))
        return found

    def counted_commit(batch: Any) -> Any:
        work.extend(len(change.append) + len(change.void) for change in batch)
        return commit(batch)

    done: list[list[int]] = []
    for id, count in (("short", 10), ("long", 5000)):
        session = said(store, id, "x" * count)
        session.remove_last()
        with monkeypatch.context() as patch:
            patch.setattr(store.backend, "read", counted_read)
            patch.setattr(store.backend, "commit", counted_commit)
            work.clear()
            session.fork()
            done.append(list(work))
    assert done[0] == done[1] == [0, 0, 0]


# --- Any history ---

ACTIONS = st.lists(
    st.tuples(
        st.integers(0, 3), st.sampled_from(["append", "append", "remove", "rewind", "undo", "fork"]), st.integers(0, 9)
    ),
    max_size=40,
)


class Model:
    """What a session's view should be: its messages, and what its removals hid, as seqs; and all it was before."""

    def __init__(self, shown: list[int], removed: list[list[int]], last: int) -> None:
        self.shown, self.removed, self.last = shown, removed, last
        self.past: dict[int, tuple[list[int], list[list[int]]]] = {}

    def stand(self, last: int) -> None:
        self.last = last
        self.past[last] = list(self.shown), [list(r) for r in self.removed]

    def fork(self, at: int) -> Model:
        shown, removed = self.past[at]
        child = Model(list(shown), [list(r) for r in removed], at)
        child.past = {seq: state for seq, state in self.past.items() if seq <= at}
        return child


def act(session: Session, model: Model, action: str, number: int) -> None:
    hidden: list[int] = []
    if action == "append":
        session.append(user("x"))
        model.shown.append(model.last + 1)
    elif action == "remove":
        hidden = model.shown[-1:]
        session.remove_last()
    elif action == "rewind":
        to = model.last * number // 9
        hidden = [seq for seq in model.shown if seq > to]
        session.rewind(to)
    else:
        assert (session.undo() is not None) == bool(model.removed)
        if model.removed:
            model.shown = sorted(model.shown + model.removed.pop())
    if hidden:
        model.removed.append(hidden)
        model.shown = [seq for seq in model.shown if seq not in hidden]
    model.stand(session.info().last)


def test_edits_of_a_fork_and_its_parent_with_the_same_seq_are_told_apart(store: Store) -> None:
    parent = said(store, "p", "ab")
    parent.clear()
    child = parent.fork(at=1)
    child.remove_last()
    child.undo()
    assert newest_edit(store.head(child.id)) == newest_edit(store.head("p")) == 3
    assert texts(child) == ["a"]
    assert texts(parent) == []


@given(ACTIONS)
def test_any_forks_and_changes_agree_with_a_model_of_them(actions: list[tuple[int, str, int]]) -> None:
    with holdfast.open("memory://") as store:
        root = Model([], [], 0)
        root.stand(0)
        made = [(store.create("s"), root)]
        for which, action, number in actions:
            session, model = made[which % len(made)]
            if action == "fork":
                at = model.last * number // 9
                made.append((session.fork(at=at), model.fork(at)))
            else:
                act(session, model, action, number)
        for session, model in made:
            assert [e.seq for e in session.events(types="message")] == model.shown
            assert [e.seq for e in session.events(include_hidden=True)] == list(range(1, model.last + 1))
            assert session.info().counts.messages == len(model.shown)
        sound(store)


def test_a_delete_takes_the_id_from_a_fork_that_was_interrupted_and_leaves_no_session(store: Store) -> None:
    store.session("p").append(user("one"))
    head = store.head("p")
    pinned = store.batcher.commit(Commit(ref=head.ref, tags={f"{PIN}x": "child", MARK: "m"}))
    assert isinstance(pinned, Head)
    store.delete("p")
    dead = store.backend.get([session_ref("child")])[0]
    assert dead is not None
    assert (dead.dead, dead.rev) == (True, 1)  # it never lived, not even for a moment
    assert list(store.sessions()) == []


def test_a_fork_keeps_the_timeout_of_open_calls(store: Store) -> None:
    session = store.create("s")
    session.append(assistant("", tool_call("c", "t", timeout=5)), usage("m", 1))
    fork = session.fork()
    assert store.head(fork.id).tags["call_timeout"] == "5000000"
    assert fork.info().models == ("m",)


def test_a_fork_that_is_there_is_told_though_its_pin_could_not_be_taken_away(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = store.session("s")
    session.append(user("a"))
    commit, made = store.batcher.commit, list[Commit]()

    def failing(one: Commit, **how: Any) -> Any:
        made.append(one)
        if len(made) == 3:
            raise Unavailable("the disk is full")
        return commit(one, **how)

    monkeypatch.setattr(store.batcher, "commit", failing)
    fork = session.fork(id="f")
    assert len(made) == 3
    monkeypatch.undo()
    assert [found.text for found in fork.messages()] == ["a"]
    fork.delete()
    session.delete()
    assert store.check().ok
