"""A save is one commit, however much it saves: all of it is there, or nothing."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

import holdfast
from faults import BACKENDS, start, url_of
from faults.saver import save
from holdfast import Store, TooLarge, note
from holdfast.adapters.a3s_parts import Message
from holdfast.adapters.a3s_sync import SyncSessionStore
from holdfast.adapters.a3s_types import SessionData, TraceEvent
from holdfast.plan import MAX_ENTRIES, MAX_SAVED

TRACE = TraceEvent(name="bash", success=True, exit_code=0, duration_ms=1, output_bytes=2)
MANY = MAX_ENTRIES + 5_000
"""Events of a save that no append could take."""
IDS = {"session": "s", "a3s": "a3s:default/s", "oxios": "oxios:default/s"}
ROUNDS, LONG = 2, 60


def count(store: Store, how: str) -> int:
    """How many events of the save are there."""
    session = store.get(IDS[how])
    return 0 if session is None else sum(1 for event in session.events() if event.type in ("note", "message"))


@pytest.mark.parametrize("how", IDS)
def test_a_save_that_no_append_could_take_is_one_commit(store: Store, how: str) -> None:
    store.create("s")
    save(store, how, MANY)
    assert count(store, how) == MANY
    assert store.head(IDS[how]).rev == (2 if how == "session" else 1)
    assert store.check().ok


def test_a_retry_of_a_large_save_stores_nothing(store: Store) -> None:
    session = store.create("s")
    events = [note(f"line {n}") for n in range(MANY)]
    first = session.save(*events, key="k", labels=["a"])
    again = session.save(*events, key="k", labels=["a"])
    assert (again.first, again.last, again.repeated) == (first.first, first.last, True)
    assert count(store, "session") == MANY


def test_an_append_takes_no_more_than_before(store: Store) -> None:
    session = store.create("s")
    with pytest.raises(TooLarge):
        session.append(*(note(str(n)) for n in range(MAX_ENTRIES + 1)))
    assert session.info().last == 0


@pytest.mark.parametrize("how", ["session", "oxios"])
def test_what_is_too_large_for_one_commit_is_refused_whole(how: str) -> None:
    with holdfast.open("memory://") as store:
        store.create("s")
        with pytest.raises(TooLarge, match=f"{MAX_SAVED:,}"):
            save(store, how, MAX_SAVED + 1)
        assert count(store, how) == 0
        assert store.get("s") is not None
        assert (store.get(IDS[how]) is None) == (how != "session")


def test_a_save_that_is_too_large_leaves_what_was_saved_before() -> None:
    with holdfast.open("memory://") as store:
        mine = SyncSessionStore(store)
        mine.save(SessionData(id="s", messages=[Message.user("one")]))
        more = SessionData(id="s", messages=[Message.user(f"{n}") for n in range(MAX_SAVED + 1)])
        with pytest.raises(TooLarge):
            mine.save_snapshot(more, trace_events=[TRACE])
        loaded = mine.load("s")
        assert loaded is not None
        assert [message.json()["content"][0]["text"] for message in loaded.messages] == ["one"]
        assert mine.load_trace_events("s") is None


def test_a_save_of_all_that_one_may_have_is_seen_whole_by_a_reader(tmp_path: Path) -> None:
    for backend in BACKENDS:
        url = url_of(backend, tmp_path)
        with holdfast.open(url) as store:
            store.create("s")
            save(store, "session", MAX_SAVED)
        with holdfast.open(url) as store:
            (last,) = store.session("s").events(last=1)
            assert last.seq == MAX_SAVED
            store.session("s").append(note("and on"))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("how", IDS)
def test_a_large_save_that_is_killed_is_all_there_or_not_at_all(
    tmp_path: Path, backend: str, how: str, long: bool
) -> None:
    rnd, seen = random.Random(f"{backend} {how}"), set[int]()
    took = 1.0
    for number in range(1 + (LONG if long else ROUNDS)):
        place = tmp_path / str(number)
        place.mkdir()
        url = url_of(backend, place)
        with holdfast.open(url) as store:
            store.create("s")
        with start("saver", url, how, MANY) as program:
            assert program.stdout is not None
            assert program.stdout.readline() == b"go\n"
            begun = time.monotonic()
            if number:
                time.sleep(rnd.uniform(0.1, 1) * took)  # the moment of the kill, not a wait for anything
                os.kill(program.pid, signal.SIGKILL)
            told = program.stdout.read()
            if not number:
                took = time.monotonic() - begun  # the first is not killed, and tells how long a save takes
        with holdfast.open(url) as store:
            found = count(store, how)
            seen.add(found)
            assert found in (0, MANY)
            assert found == MANY or told == b""
            assert store.check().ok
            if how != "oxios":  # whose messages have other times now
                save(store, how, MANY)  # of what is there, nothing is stored again
                assert count(store, how) == MANY
    assert MANY in seen
