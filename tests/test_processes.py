"""Several processes on one store: every acknowledged event once, gapless, and never an error of a lock."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

import holdfast
from faults import BACKENDS, output, start, url_of
from faults.history import Call, wrong
from faults.member import FIELDS, SESSIONS, THREADS
from faults.work import text_of
from holdfast import Store

CALLS, LONG = 400, 5_000
"""Calls of each process."""
UPDATES = 10
"""Rounds of each thread that updates."""


def history(url: str, processes: int, count: int, mode: str) -> list[Call]:
    """What the processes did, all beginning at the same time."""
    members = [start("member", url, f"p{number}", count, mode, stdin=subprocess.PIPE) for number in range(processes)]
    try:
        for member in members:
            assert member.stdout is not None
            assert member.stdout.readline() == b"ready\n"
        told = [member.communicate() for member in begun(members)]
        assert [member.returncode for member in members] == [0] * processes
        return [call for out, _ in told for call in msgspec.json.decode(out, type=list[Call])]
    finally:
        for member in members:
            member.kill()
            member.communicate()


def begun(members: Sequence[subprocess.Popen[bytes]]) -> Sequence[subprocess.Popen[bytes]]:
    """Let all of them begin before any is waited for."""
    for member in members:
        assert member.stdin is not None
        member.stdin.write(b"go\n")
        member.stdin.flush()
    return members


def logs(store: Store) -> dict[str, list[str]]:
    """All sessions that are there, read whole; their numbers must have no gap."""
    found: dict[str, list[str]] = {}
    for info in store.sessions(limit=10_000):
        events = list(store.session(info.id).events())
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        found[info.id] = [text_of(event) for event in events]
    return found


@pytest.mark.parametrize("mode", ["threads", "tasks"])
@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("backend", BACKENDS)
def test_processes_that_share_sessions_lose_nothing(
    backend: str, processes: int, mode: str, tmp_path: Path, long: bool
) -> None:
    url = url_of(backend, tmp_path)
    with holdfast.open(url) as store:
        for id in SESSIONS:
            store.session(id)
    calls = history(url, processes, LONG if long else CALLS, mode)
    with holdfast.open(url) as store:
        assert store.check().findings == ()
        found = logs(store)
        assert set(found) == set(SESSIONS)  # and no short one came back
        assert wrong(calls, found) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_hundred_callers_of_four_processes_get_one_new_session(backend: str, tmp_path: Path) -> None:
    url = url_of(backend, tmp_path)  # the store itself is new, too
    calls = history(url, 4, 50, "callers")
    assert len(calls) == 200
    with holdfast.open(url) as store:
        found = logs(store)
        assert list(found) == ["everybody's"]
        assert wrong(calls, found) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_updates_of_four_processes_all_hold_beside_appends(backend: str, tmp_path: Path) -> None:
    url = url_of(backend, tmp_path)
    calls = history(url, len(FIELDS), UPDATES * THREADS, "updates")
    members = {call.values[0].split()[0] for call in calls}
    assert len(members) == len(FIELDS) * THREADS
    every = [(who, n) for who in members for n in range(1, UPDATES + 1)]
    with holdfast.open(url) as store:
        assert store.check().findings == ()
        assert wrong(calls, logs(store)) == []
        info = store.session("updated").info()
    assert info.metadata == {f"{who} {n}": n for who, n in every}
    assert info.config == dict.fromkeys(members, UPDATES)
    assert set(info.labels) == {f"{who}/{n}" for who, n in every}
    assert info.counts.messages == len(every)
    for number, field in enumerate(FIELDS):  # the last word of one of the threads that said it
        assert getattr(info, field) in {f"{who} {UPDATES}" for who in members if who[1] == str(number)}, field


def test_a_fork_waits_for_a_read_that_needs_a_second_connection(tmp_path: Path) -> None:
    """As a search in a folder's store does, which looks up where a log is while it looks through the rows."""
    with holdfast.open(f"sqlite://{tmp_path}/store.db") as store:
        file = store.backend._file  # type: ignore[attr-defined]  # a fork between two reads of a thread has no other way in
        reading, done = threading.Event(), threading.Event()

        def read() -> None:
            with file.reader():
                reading.set()
                while not file._forking:
                    time.sleep(0.001)  # until the fork has begun, which takes no time
                with file.reader() as db:
                    db.execute("SELECT 1")
                    done.set()

        thread = threading.Thread(target=read)
        thread.start()
        reading.wait(20)
        child = os.fork()
        if child == 0:
            os._exit(0)
        was_done = done.is_set()
        os.waitpid(child, 0)
        thread.join(20)
        assert was_done


@pytest.mark.parametrize("how", ["fork", "pool", "busy", "left", "two"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_forked_child_and_its_parent_go_on_with_an_open_store(backend: str, how: str, tmp_path: Path) -> None:
    url = url_of(backend, tmp_path)
    told = output("forker", url, how)
    with holdfast.open(url) as store:
        assert store.check().findings == ()
        held = [text_of(event) for event in store.session("shared").events()]
    assert sorted(held) == sorted(told.decode().splitlines())
    assert len(held) >= 40


if sys.platform == "linux":  # the locks are POSIX's, the guard is made of Linux's

    @pytest.mark.parametrize("how", ["stray", "twice"])
    def test_a_stray_close_of_the_database_in_this_process_loses_nothing(how: str, tmp_path: Path) -> None:
        assert lost_by(how, tmp_path) == []

    @pytest.mark.parametrize("how", ["beside", "lent"])
    def test_a_read_sees_one_state_though_a_store_of_its_process_is_closed(how: str, tmp_path: Path) -> None:
        before, after = output("locks", url_of("sqlite", tmp_path), how).splitlines()
        assert before.startswith(b"(200, 206, 200, ")  # with the checkpoints of 200 events
        assert after == before

    def test_without_the_guard_a_stray_close_loses_writes(tmp_path: Path) -> None:
        assert len(lost_by("unguarded", tmp_path)) > 10


def lost_by(how: str, place: Path) -> list[str]:
    """The acknowledged events that another process does not find."""
    url = url_of("sqlite", place)
    acknowledged = output("locks", url, how).decode().splitlines()
    assert len(acknowledged) == 50
    with holdfast.open(url) as store:
        assert store.check().findings == ()
        held = {text_of(event) for event in store.session("s").events()}
    return [text for text in acknowledged if text not in held]


def test_nothing_but_sqlite_opens_a_live_database(tmp_path: Path) -> None:
    """Closing such a file would cancel the locks that SQLite holds on it; only the guard does, and keeps it open."""
    url = url_of("sqlite", tmp_path)
    assert output("locks", url, "audit") == b"opened 0 times\n"


def test_the_judge_of_histories_finds_what_is_wrong() -> None:
    log = ["a", "b", "c"]
    first = Call("append", "s", 0, 10, ["a", "b"], 1, 2)
    second = Call("append", "s", 20, 30, ["c"], 3, 3)
    assert wrong([first, second, Call("read", "s", 12, 15, ["a", "b"])], {"s": log}) == []
    for calls, held in (
        ([first, second], ["a", "b"]),  # lost
        ([first, second], ["a", "b", "c", "c"]),  # twice
        ([first, second], ["a", "c", "b"]),  # torn apart
        ([first], log),  # from nobody
        ([first, second, Call("read", "s", 12, 15, ["a"])], log),  # half a batch
        ([first, second, Call("read", "s", 12, 15, ["b", "a"])], log),  # out of order
        ([first, second, Call("read", "s", 31, 35, ["a", "b"])], log),  # too old
        ([first, second, Call("read", "other", 0, 1, [])], log),  # no such session
    ):
        assert wrong(calls, {"s": held}) != []
