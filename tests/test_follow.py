"""Whoever follows a session or watches a store hears of everything, once and in order, on every backend."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

import holdfast
from faults import BACKENDS, url_of
from holdfast import Event, Store, user
from holdfast.backends.listening import Listening
from holdfast.clock import now
from holdfast.finding.watch import Change


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
    since = now()
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


@contextmanager
def watched(store: Store) -> Generator[dict[str, Change]]:
    """The last change of each session that a watch tells, from now on."""
    told: dict[str, Change] = {}
    stop = threading.Event()
    began = threading.Event()

    def watch() -> None:
        for change in store.watch(stop=stop):
            told[change.session] = change
            began.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    while not began.wait(0.02):  # until it was told of something, it may not have begun
        store.session("begin").append(user("x"))
    try:
        yield told
    finally:
        stop.set()
        store.session("end").append(user("x"))
        watcher.join(20)
        assert not watcher.is_alive()


OLD = 1_000_000_000
"""A time in 1970."""


def test_what_is_recorded_of_long_ago_is_told(store: Store) -> None:
    known = store.create("known", created_at=OLD)
    with watched(store) as told:
        store.create("imported", created_at=OLD).append(Event(payload=user("x"), at=OLD + 1))
        eventually(lambda: "imported" in told and told["imported"].last == 1)
        assert told["imported"].at < OLD + 10
        known.append(Event(payload=user("x"), at=OLD + 1))
        eventually(lambda: "known" in told and told["known"].last == 1)


def test_a_deletion_is_told_as_one(store: Store) -> None:
    for id in ("newest", "old"):
        store.create(id, created_at=OLD).append(Event(payload=user("x"), at=OLD))
    store.create("gone before").delete()
    with watched(store) as told:
        store.delete("old")
        eventually(lambda: "old" in told and told["old"].deleted)
        store.session("newest").append(user("x"))
        store.delete("newest")
        eventually(lambda: "newest" in told and told["newest"].deleted)
        store.create("newest")
        eventually(lambda: not told["newest"].deleted)
        assert "gone before" not in told


OTHERS = """
import sys, holdfast
from holdfast import Event, user
with holdfast.open(sys.argv[1]) as store:
    store.delete("deleted")
    store.create("imported", created_at=1).append(Event(payload=user("x"), at=2))
    store.get("renamed").update(name="new")
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_watcher_is_told_of_all_that_another_process_does(backend: str, tmp_path: Path) -> None:
    url = url_of(backend, tmp_path)
    with holdfast.open(url) as store:
        for id in ("renamed", "quiet", "deleted"):
            store.create(id, created_at=OLD).append(Event(payload=user("x"), at=OLD))
        with watched(store) as told:
            subprocess.run([sys.executable, "-c", OTHERS, url], check=True, timeout=60)
            eventually(lambda: {"renamed", "deleted", "imported"} <= set(told))
            assert [told[id].deleted for id in ("renamed", "deleted", "imported")] == [False, True, False]
            assert "quiet" not in told


def test_a_look_that_fails_wakes_whoever_listens_and_is_not_the_last() -> None:
    fails = threading.Event()
    version = [0]

    def look() -> int:
        if fails.is_set():
            raise OSError("the disk is away")
        return version[0]

    listening = Listening(look)
    woken = threading.Semaphore(0)
    stop = listening.add(woken.release)
    fails.set()
    assert woken.acquire(timeout=20)
    fails.clear()
    while woken.acquire(timeout=0.2):  # what the failing looks brought about comes to an end
        pass
    version[0] = 1
    assert woken.acquire(timeout=20)
    stop()
