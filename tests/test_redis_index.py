"""What a process remembers of a store on Redis, beside what changes, is lost or ends there: its words, who listens."""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import holdfast
from servers import redis as servers
from test_redis import prefix

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("redis")]


def test_the_words_of_what_is_gone_find_nothing_else(tmp_path: Path) -> None:
    """The last row of the index goes, and the next event gets a row: not the same."""
    with holdfast.open(servers.url(prefix=prefix(tmp_path))) as store:
        store.create("a").append(holdfast.user("apple"))
        assert len(store.search("apple").items) == 1
        store.delete("a")
        store.create("b").append(holdfast.user("pear"))
        assert [hit.session for hit in store.search("pear").items] == ["b"]
        assert store.search("apple").items == []


def test_a_process_with_many_open_files_listens(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 2048), hard), hard))
    files: list[int] = []
    url = servers.url(prefix=prefix(tmp_path))
    try:
        while not files or files[-1] < 1100:
            files.append(os.dup(0))
        with holdfast.open(url) as store, holdfast.open(url) as other:
            session = other.create("s")
            woken = threading.Event()
            stop = store.backend.listen(woken.set)
            try:
                assert woken.wait(20)
                for n in range(3):
                    woken.clear()
                    session.append(holdfast.user(f"text {n}"))
                    assert woken.wait(20)
            finally:
                stop()
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_child_that_is_forked_amid_a_search_can_search(tmp_path: Path) -> None:
    """SQLite has locks for all of a process: one that a thread held at the fork would never be free in the child."""
    with holdfast.open(servers.url(prefix=prefix(tmp_path))) as store:
        store.create("s").append(holdfast.user("apple"))
        words, done = store.backend._words, threading.Event()  # type: ignore[attr-defined]  # to be in SQLite all the time

        def work() -> None:
            while not done.is_set():
                for _ in range(10):
                    words.forget()
                    words._open()
                os.sched_yield()  # locks are not fair, and the fork waits for this one

        thread = threading.Thread(target=work)
        thread.start()
        try:
            assert all(_searched_by_a_child(store) == 0 for _ in range(40))
        finally:
            done.set()
            thread.join()


def _searched_by_a_child(store: holdfast.Store) -> int:
    """How a child ended that searches at once; an alarm ends one that waits for ever."""
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        status = 1
        try:
            status = 0 if len(store.search("apple").items) == 1 else 2
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


def test_a_listener_that_stops_as_it_is_woken_leaves_others_files_alone(tmp_path: Path) -> None:
    """Its thread still looks at its own file then, whose number another one may have a moment later."""
    with holdfast.open(servers.url(prefix=prefix(tmp_path))) as store:
        taken: list[int] = []
        stops: list[Callable[[], None]] = []
        told, known = threading.Event(), threading.Event()

        def wake() -> None:
            if threading.current_thread().name == "holdfast-listen" and not taken:
                known.wait(20)
                stops[0]()
                taken.extend((*os.pipe(), *os.pipe()))
                told.set()

        stops.append(store.backend.listen(wake))
        [thread] = [t for t in threading.enumerate() if t.name == "holdfast-listen"]
        known.set()
        try:
            assert told.wait(20)
            thread.join(20)
            assert not thread.is_alive()
        finally:
            for file in taken:
                os.fstat(file)  # still ours
                os.close(file)
