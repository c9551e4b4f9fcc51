"""The batcher: what becomes of waiting commits when a batch fails, is interrupted, or meets a close."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import holdfast
from holdfast import Invalid, Store, Unavailable, Uncertain, note, user
from holdfast.heads.info import session_ref as ref
from holdfast.plan import Commit, Head, Refused


def held(store: Store, commits: Callable[[], None], *, waiting: int) -> None:
    """Run `commits` while the store's lock is held, until so many wait in the queue; then let them go."""
    batcher = store.batcher
    with batcher._lock:  # the one place that shows how many wait
        commits()
        deadline = time.monotonic() + 10
        while len(batcher._queue) < waiting:
            assert time.monotonic() < deadline
            time.sleep(0.001)


class Failing:
    """A backend's commit that fails in a stated way for batches of more than one."""

    def __init__(self, store: Store, error: BaseException) -> None:
        self.real = store.backend.commit
        self.error = error
        self.calls: list[int] = []
        store.backend.commit = self  # type: ignore[method-assign]

    def __call__(self, batch: Sequence[Commit]) -> list[Head | Refused]:
        self.calls.append(len(batch))
        if len(batch) > 1:
            raise self.error
        return self.real(batch)


def test_many_commits_of_one_caller_are_each_on_its_own(store: Store) -> None:
    ids = [f"s{number}" for number in range(2500)]
    made = store.batcher.commit_all([Commit(ref=ref(id), if_rev=0) for id in ids])
    assert [result.ref.id for result in made if isinstance(result, Head)] == ids
    told = store.batcher.commit_all([Commit(ref=ref("s1"), if_rev=0), Commit(ref=ref("new"), if_rev=0)])
    assert [type(result) for result in told] == [Refused, Head]
    with pytest.raises(Invalid):
        store.batcher.commit_all([Commit(ref=ref("s2"), tags={"x": "1"}), Commit(ref=ref("a\0b"))])
    assert store.batcher.commit_all([]) == []
    assert not store.head("s2").tags
    failing = Failing(store, holdfast.Corrupt("a row is damaged"))
    told = store.batcher.commit_all([Commit(ref=ref(id), tags={"x": "1"}) for id in ("s1", "s2")])
    assert [type(result) for result in told] == [Head, Head]
    assert failing.calls == [2, 1, 1]
    failing.error = Unavailable("the disk is full")
    told = store.batcher.commit_all([Commit(ref=ref(id), tags={"x": "2"}) for id in ("s1", "s2")])
    assert [type(result) for result in told] == [Unavailable, Unavailable]


def together(store: Store, count: int) -> list[BaseException | None]:
    """Append from so many threads in one batch; what each was told."""
    sessions = [store.session(f"s{i}") for i in range(count)]
    told: list[BaseException | None] = [None] * count

    def append(i: int) -> None:
        try:
            sessions[i].append(user("hi"))
        except BaseException as error:
            told[i] = error

    threads = [threading.Thread(target=append, args=(i,)) for i in range(count)]
    held(store, lambda: [t.start() for t in threads] and None, waiting=count)
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive(), "a caller waits for ever"
    return told


def test_a_commit_the_engine_cannot_take_fails_alone() -> None:
    with holdfast.open("memory://") as store:
        failing = Failing(store, Invalid("no"))
        assert together(store, 4) == [None] * 4
        assert failing.calls.count(4) == 1


def test_an_engine_that_is_away_is_asked_once_for_all() -> None:
    with holdfast.open("memory://") as store:
        failing = Failing(store, Unavailable("locked"))
        told = together(store, 4)
        assert [type(t) for t in told] == [Unavailable] * 4
        assert [c for c in failing.calls if c > 1] == [4]


def test_an_unexpected_error_is_never_followed_by_a_retry() -> None:
    with holdfast.open("memory://") as store:
        Failing(store, RuntimeError("can't start new thread"))
        assert [type(t) for t in together(store, 4)] == [Uncertain] * 4


def test_an_interrupt_of_the_writer_leaves_nobody_waiting() -> None:
    with holdfast.open("memory://") as store:
        Failing(store, KeyboardInterrupt())
        told = together(store, 4)
        assert sorted(type(t).__name__ for t in told) == ["KeyboardInterrupt", "Uncertain", "Uncertain", "Uncertain"]


def test_an_append_after_close_is_refused_and_not_stored(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/s.db"

    async def main() -> None:
        store = await holdfast.aopen(url)
        session = await store.session("s")
        await session.append(note("one"))
        await store.close()
        with pytest.raises(Unavailable):
            await session.append(note("two"))

    asyncio.run(main())
    with holdfast.open(url) as store:
        assert [e.seq for e in store.session("s").events()] == [1]


def test_what_tasks_append_in_one_turn_is_one_transaction() -> None:
    async def main() -> list[int]:
        async with holdfast.aopen("memory://") as store:
            sessions = [await store.session(f"s{i}") for i in range(64)]
            real = store.sync.backend.commit
            sizes: list[int] = []

            def commit(batch: Sequence[Commit]) -> list[Head | Refused]:
                sizes.append(len(batch))
                return real(batch)

            store.sync.backend.commit = commit  # type: ignore[method-assign]

            async def record(session: holdfast.AsyncSession) -> None:
                await session.append(user("hi"))
                await session.append(user("x" * 20_000))  # large for a message, too small for a blob

            await asyncio.gather(*map(record, sessions))
            return sizes

    assert asyncio.run(main()) == [64, 64]


def test_a_turn_that_a_close_interrupts_is_stored() -> None:
    """The close comes from another thread while the loop is still in the turn in which it appended."""
    with holdfast.open("memory://") as store:
        session = store.session("s")

        async def main() -> Head | Refused:
            loop = asyncio.get_running_loop()
            loop.call_soon(close_in_a_thread)  # before the end of the turn in which it appends
            waiting = store.batcher.enqueue(session.prepare([note("x")], None, None), loop)
            return await waiting

        def close_in_a_thread() -> None:
            thread = threading.Thread(target=store.batcher.close)
            thread.start()
            thread.join(10)

        assert isinstance(asyncio.run(main()), Head)
        assert [e.seq for e in session.events()] == [1]


def test_a_search_returns_while_a_writer_goes_on(tmp_path: Path) -> None:
    with holdfast.open(f"sqlite://{tmp_path}/s.db?durability=process") as store:
        session = store.session("s")
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                session.append(*[note("ordinary words") for _ in range(300)])

        writer = threading.Thread(target=write)
        writer.start()
        try:
            session.append(note("needle"))
            done: list[int] = []
            searcher = threading.Thread(target=lambda: done.append(len(store.search("needle"))))
            searcher.start()
            searcher.join(30)
            assert done == [1]
        finally:
            stop.set()
            writer.join()
            searcher.join()


def test_a_key_and_the_places_of_another_never_meet() -> None:
    with holdfast.open("memory://") as store:
        session = store.session("s")
        first = session.append(note("x"), key="m")
        session.append(note("y"), key="m#1")
        assert session.append(note("x"), key="m").first == first.first
        pair = session.append(note("a"), note("b"), key="n")
        assert session.append(note("c"), key="n#1").first == pair.last + 1
        with pytest.raises(Invalid, match="joins keys"):
            session.append(note("z"), key="n\u241f1")


def test_reading_on_after_a_deletion_is_told() -> None:
    with holdfast.open("memory://") as store:
        session = store.session("s")
        for _ in range(3):
            session.append(*[note("x") for _ in range(300)])
        events = session.events()
        next(events)
        session.delete()
        with pytest.raises(holdfast.Deleted):
            list(events)


def test_a_tail_begins_with_what_was_not_taken_back() -> None:
    with holdfast.open("memory://") as store:
        session = store.session("s")
        for i in range(13):
            session.append(user(str(i)))
        for _ in range(11):
            session.remove_last()
        assert [e.seq for e in session.tail(last=13, follow=False)] == [1, 2, *range(14, 25)]  # and the removals


def test_watching_goes_on_after_an_event_dated_ahead() -> None:
    with holdfast.open("memory://") as store:
        ahead = store.session("ahead")
        present = store.session("present")
        seen = store.watch()
        stop = threading.Event()
        told: list[str] = []
        watcher = threading.Thread(target=lambda: told.extend(c.session for c in store.watch(stop=stop)))
        watcher.start()
        deadline = time.monotonic() + 20
        ahead.append(holdfast.Event(payload=note("later"), at=present.info().updated_at + 3_600_000_000))
        while "ahead" not in told:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        present.append(note("now"))
        while "present" not in told:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        stop.set()
        watcher.join()
        seen.close()
