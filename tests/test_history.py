"""History that is changed without being rewritten: what is hidden, what is shown again, and sums that agree."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import pytest
from hypothesis import given, strategies as st

import holdfast
from holdfast import (
    Change,
    Edit,
    Event,
    Invalid,
    LeaseLost,
    NotFound,
    Session,
    Store,
    assistant,
    note,
    step,
    tool_call,
    tool_result,
    usage,
    user,
)
from holdfast.copies import copy_session
from holdfast.heads.info import session_ref
from holdfast.history import history
from holdfast.plan import Commit, Entry, Head
from rivals import wait_for


def texts(session: Session) -> list[str]:
    return [message.text for message in session.messages()]


def seqs(session: Session, **options: Any) -> list[int]:
    return [event.seq for event in session.events(**options)]


def sound(store: Store) -> None:
    report = store.check()
    assert report.ok, report.findings


def test_a_rewind_hides_all_behind_a_seq_and_undo_shows_it_again(store: Store) -> None:
    session = store.create("s")
    session.append(user("one"), assistant("two", tool_call("c", "t")), tool_result("c", "no", is_error=True))
    session.append(step("t", is_error=True), usage("m", 5, cost=7), note("n"), user("three"))
    before = session.info()
    edit = session.rewind(to=1)
    assert edit is not None
    assert (edit.action, edit.ranges) == ("rewind", ((2, 7),))
    assert texts(session) == ["one"]
    assert [event.type for event in session.events()] == ["message", "edit"]
    assert [e.seq for e in session.events(include_hidden=True) if e.hidden] == [2, 3, 4, 5, 6, 7]
    counts = session.info().counts
    assert (counts.messages, counts.steps, counts.tool_calls, counts.errors) == (1, 0, 0, 0)
    assert (counts.input_tokens, counts.cost) == (5, 7)  # it was spent
    sound(store)
    again = session.undo()
    assert again is not None
    assert (again.action, again.ranges, again.undoes) == ("undo", ((2, 7),), 8)
    assert texts(session) == ["one", "two", "", "three"]
    assert session.info().counts == before.counts
    assert session.undo() is None
    assert session.last == 9
    sound(store)


def test_each_change_is_one_commit(store: Store) -> None:
    session = store.create("s")
    session.append(*(user(str(n)) for n in range(5)))
    rev = session.info().rev
    for number, change in enumerate((lambda: session.rewind(3), session.remove_last, session.clear, session.undo), 1):
        assert change() is not None
        assert session.info().rev == rev + number


def test_undo_goes_back_removal_by_removal(store: Store) -> None:
    session = store.create("s")
    session.append(*(user(c) for c in "abcde"))
    session.remove_last()
    session.rewind(to=2)
    session.append(user("f"), user("g"))
    session.remove_last()
    session.clear()
    assert texts(session) == []
    shown = [texts(session) for _ in range(4) if session.undo() is not None]
    assert shown == [list("abf"), list("abfg"), list("abcdfg"), list("abcdefg")]
    assert session.undo() is None
    assert session.info().counts.messages == 7
    sound(store)


def test_a_removal_behind_an_undo_is_undone_before_older_ones(store: Store) -> None:
    session = store.create("s")
    session.append(*(user(c) for c in "abcd"))
    session.rewind(to=3)
    session.rewind(to=2)
    session.undo()
    session.rewind(to=1)
    assert texts(session) == ["a"]
    session.undo()
    assert texts(session) == list("abc")
    session.undo()
    assert texts(session) == list("abcd")
    assert session.undo() is None
    sound(store)


def test_nothing_to_hide_or_to_undo_writes_nothing(store: Store) -> None:
    session = store.create("s")
    assert session.undo() is None
    assert session.clear() is None
    session.append(user("one"))
    rev = session.info().rev
    assert session.rewind(to=1) is None
    with pytest.raises(Invalid, match="no event 9"):
        session.rewind(to=9)
    with pytest.raises(Invalid):
        session.rewind(to=-1)
    assert session.info().rev == rev
    session.clear()
    assert session.clear() is None
    store.delete("s")
    for change in (session.clear, session.undo, lambda: session.rewind(0)):
        with pytest.raises(NotFound):
            change()


def test_what_is_hidden_is_not_found_and_found_again(store: Store) -> None:
    session = store.create("s")
    session.append(user("apple"), user("pear"))
    session.rewind(to=1)
    assert store.search("pear").items == []
    session.undo()
    assert [hit.seq for hit in store.search("pear")] == [2]


CHANGES: list[tuple[Callable[[Session], Any], str, tuple[tuple[int, int], ...]]] = [
    (Session.remove_last, "remove_last", ((3, 3),)),
    (Session.undo, "undo", ((3, 3),)),
    (lambda session: session.rewind(to=1), "rewind", ((2, 3),)),
    (Session.undo, "undo", ((2, 3),)),
    (Session.clear, "clear", ((1, 3),)),
    (Session.undo, "undo", ((1, 3),)),
]
"""Each change of history, and what its event says."""


def test_a_tail_and_a_watch_are_told_of_every_change(store: Store) -> None:
    session = store.create("s")
    session.append(user("one"), user("two"), user("three"))
    stop, met, told = threading.Event(), SimpleQueue[Event](), SimpleQueue[Change]()

    def follow() -> None:
        for event in session.tail(last=1, stop=stop):
            met.put(event)

    def watch() -> None:
        for change in store.watch(since=0, stop=stop):
            told.put(change)

    threads = [threading.Thread(target=follow, daemon=True), threading.Thread(target=watch, daemon=True)]
    for thread in threads:
        thread.start()
    assert (met.get(timeout=30).seq, told.get(timeout=30).last) == (3, 3)
    for number, (change, action, ranges) in enumerate(CHANGES, 4):
        change(session)
        event = met.get(timeout=30)
        assert isinstance(event.payload, Edit)
        assert (event.seq, event.payload.action, event.payload.ranges) == (number, action, ranges)
        seen = told.get(timeout=30)
        assert (seen.session, seen.last, seen.deleted) == ("s", number, False)
    stop.set()
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()
    assert met.empty()
    assert told.empty()


def test_appends_and_changes_of_history_at_once_lose_and_double_nothing(store: Store) -> None:
    session = store.create("s")
    session.append(*(user(f"first {n}") for n in range(50)))

    def work(number: int) -> None:
        own = store.session("s")
        for turn in range(10):
            own.append(user(f"{number}-{turn}"), step("t"), usage("m", 1))
            if number == 0:
                own.rewind(to=20)
            if number == 1:
                own.undo()
            if number == 2:
                own.remove_last()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    sound(store)
    while session.undo() is not None:
        pass
    everything = list(session.events(include_hidden=True))
    assert not any(event.hidden for event in everything)
    assert session.info().counts.messages == 50 + 40
    assert session.info().counts.steps == 40
    sound(store)


def test_a_rewind_that_returned_hid_what_was_acknowledged_before(store: Store) -> None:
    session = store.create("s")
    session.append(user("keep"))
    acknowledged: list[int] = []
    stop = threading.Event()

    def append() -> None:
        own = store.session("s")
        while not stop.is_set():
            acknowledged.append(own.append(user("x")).last)

    writer = threading.Thread(target=append)
    writer.start()
    try:
        for _ in range(10):
            known = list(acknowledged)
            session.rewind(to=1)
            visible = {e.seq for e in session.events(types="message")}
            assert not visible & set(known)
    finally:
        stop.set()
        writer.join()
    sound(store)


def test_a_thread_that_appends_all_the_time_does_not_keep_a_rewind_from_its_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between what it reads and what it commits, another thread appends, whenever one can."""
    monkeypatch.setattr(history, "TRIES", history.POLITE + 1)
    session = store.create("s")
    session.append(user("keep"), user("gone"))
    tries = 0
    look = store.head

    def meanwhile(id: str, *, trashed: bool = False) -> Head:
        nonlocal tries
        tries += 1
        head = look(id, trashed=trashed)
        writer = threading.Thread(target=lambda: store.session("s").append(user("x")), daemon=True)
        writer.start()
        writer.join(None if tries <= history.POLITE else 0.2)
        return head

    monkeypatch.setattr(store, "head", meanwhile)
    assert session.rewind(to=1) is not None
    assert tries == history.POLITE + 1
    monkeypatch.undo()
    wait_for(store, lambda: sum(1 for _ in session.messages()) == 2)  # the last writer came behind it


def test_a_change_of_history_is_copied(store: Store) -> None:
    session = store.create("s")
    session.append(*(user(c) for c in "abcd"))
    session.rewind(to=2)
    session.append(user("e"))
    with holdfast.open("memory://") as target:
        copy_session(store, target, "s")
        twin = target.session("s")
        assert texts(twin) == list("abe")
        twin.undo()
        assert texts(twin) == list("abcde")
        sound(target)


def test_a_turn_that_was_lost_changes_no_history(store: Store) -> None:
    session = store.create("s")
    turn = session.turn().take()
    turn.append(user("one"), user("two"), user("three"))
    assert turn.rewind(to=turn.last - 2) is not None
    assert turn.undo() is not None
    assert turn.remove_last() is not None
    before = store.head("s").last
    store.backend.commit([Commit(ref=session_ref("s"), tags={"turn": "another"})])
    for change in (turn.remove_last, turn.clear, lambda: turn.rewind(to=0), turn.undo, turn.delete):
        with pytest.raises(LeaseLost):
            change()
    assert texts(session) == ["one", "two"]
    assert session.info().last == before
    sound(store)


def test_an_edit_that_someone_appends_changes_nothing(store: Store) -> None:
    session = store.create("s")
    session.append(user("one"), Edit(action="rewind", ranges=((1, 1),), counts={"messages": -1}))
    assert texts(session) == ["one"]
    assert session.undo() is None
    sound(store)


def test_a_rewind_passes_over_what_is_damaged(tmp_path: Any) -> None:
    with holdfast.open(f"sqlite://{tmp_path}/s.db") as store:
        session = store.create("s")
        session.append(user("one"))
        store.backend.commit([Commit(ref=session._head.ref, append=[Entry("", 1, b"{")])])
        session.append(user("two"))
        assert session.rewind(to=1) is not None
        assert texts(session) == ["one"]
        assert session.undo() is not None
        assert seqs(session, damaged="keep") == [1, 2, 3, 4, 5]


def test_history_changes_from_asyncio(url: str) -> None:
    async def main() -> None:
        async with holdfast.aopen(url) as store:
            session = await store.session("s")
            await session.append(*(user(c) for c in "abc"))
            assert (await session.rewind(to=1)).action == "rewind"  # type: ignore[union-attr]  # it hid some
            assert (await session.clear()).action == "clear"  # type: ignore[union-attr]  # likewise
            assert (await session.undo()).undoes == 5  # type: ignore[union-attr]  # likewise
            assert [m.text for m in await session.messages()] == ["a"]

    asyncio.run(main())


STEPS = st.lists(st.one_of(st.sampled_from(["append", "remove", "undo", "clear"]), st.integers(0, 12)), max_size=25)


@given(STEPS)
def test_any_changes_agree_with_a_model_of_them(steps: list[Any]) -> None:
    with holdfast.open("memory://") as store:
        session = store.create("s")
        view: list[int] = []
        undone: list[list[int]] = []
        for action in steps:
            last = session.last
            if action == "append":
                session.append(user("x"))
                view.append(last + 1)
            elif action == "undo":
                assert (session.undo() is not None) == bool(undone)
                view = sorted(view + (undone.pop() if undone else []))
            else:
                to = 0 if action == "clear" else view[-1] - 1 if action == "remove" and view else action
                if action == "remove":
                    session.remove_last()
                elif action == "clear":
                    session.clear()
                elif to <= last:
                    session.rewind(to)
                hidden = [seq for seq in view if isinstance(to, int) and seq > to and to <= last]
                if hidden:
                    undone.append(hidden)
                view = [seq for seq in view if seq not in hidden]
            assert seqs(session, types="message") == view
            assert session.info().counts.messages == len(view)
        sound(store)
