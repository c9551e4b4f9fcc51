"""Whoever follows a session or watches a store hears of everything, once and in order, on every backend."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import holdfast
from holdfast import (
    Store,
    user,
)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.005)


# --- Following ---


def test_a_follower_sees_every_event_once_in_order(store: Store) -> None:
    session = store.create("s")
    session.append(user("0"))
    seen: list[int] = []
    stop = threading.Event()

    def follow() -> None:
        for event in store.session("s").tail(after=0, stop=stop):
            seen.append(event.seq)
            if len(seen) == 101:
                return

    with ThreadPoolExecutor(3) as pool:
        following = pool.submit(follow)
        writing = [
            pool.submit(lambda: [store.session("s").append(user("x"), user("y")) for _ in range(25)]) for _ in range(2)
        ]
        for done in writing:
            done.result()
        following.result(timeout=20)
    assert seen == list(range(1, 102))


def test_a_tail_begins_with_the_newest(store: Store) -> None:
    session = store.create("s")
    session.append(*(user(str(n)) for n in range(30)))
    assert [e.seq for e in session.tail(follow=False)] == list(range(21, 31))
    assert [e.seq for e in session.tail(last=2, follow=False)] == [29, 30]
    assert [e.seq for e in session.tail(after=28, follow=False)] == [29, 30]
    assert list(session.tail(last=0, follow=False)) == []


def test_following_ends_with_the_session(store: Store) -> None:
    session = store.create("s")
    session.append(user("one"))
    seen: list[int] = []

    def follow() -> None:
        seen.extend(event.seq for event in session.tail())

    follower = threading.Thread(target=follow)
    follower.start()
    eventually(lambda: seen == [1])
    store.delete("s")
    follower.join(20)
    assert not follower.is_alive()


def test_following_ends_when_told(store: Store) -> None:
    session = store.create("s")
    stop = threading.Event()
    follower = threading.Thread(target=lambda: list(session.tail(stop=stop)))
    follower.start()
    stop.set()
    follower.join(20)
    assert not follower.is_alive()


def test_a_watcher_is_told_of_every_session_that_changes(store: Store) -> None:
    store.create("old")
    since = holdfast.info.now()
    newest: dict[str, int] = {}
    stop = threading.Event()

    def watch() -> None:
        for change in store.watch(since=since, stop=stop):
            newest[change.session] = change.last

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(20):
        store.session(f"s{number % 4}").append(user("x"))
    eventually(lambda: newest == {f"s{n}": 5 for n in range(4)})
    store.session("old").append(user("x"))
    eventually(lambda: newest.get("old") == 1)
    stop.set()
    store.session("s0").append(user("x"))
    watcher.join(20)
    assert not watcher.is_alive()
