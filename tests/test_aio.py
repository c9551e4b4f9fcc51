"""The asynchronous store means what the synchronous one means: the same names, arguments and answers."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

import holdfast
from holdfast import (
    Artifacts,
    AsyncArtifacts,
    AsyncDocuments,
    AsyncPrunePlan,
    AsyncSession,
    AsyncStore,
    AsyncTrash,
    AsyncTurn,
    Deleted,
    Denied,
    Documents,
    Exists,
    Invalid,
    KeyReused,
    NotFound,
    Policy,
    PrunePlan,
    Session,
    Stale,
    Step,
    Store,
    Trash,
    Turn,
    assistant,
    note,
    user,
)
from holdfast.clock import now
from holdfast.log import Log
from holdfast.upkeep import Upkeep

T = TypeVar("T")
PATIENCE = 20


def run(url: str, use: Callable[[AsyncStore], Awaitable[T]]) -> T:
    """Use a store in an event loop of its own."""

    async def main() -> T:
        async with holdfast.aopen(url) as store:
            async with asyncio.timeout(PATIENCE * 3):
                return await use(store)

    return asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


# --- Parity ---

INSIDE = {
    "secrets",
    "text_of",
    "before_last",
    "head",
    "peek",
    "prepare",
    "receipt",
    "stored",
    "counted",
    "decode",
    "asks_first",
} | {
    "take",
    "take_or_pause",
    "end",
    "large",
}
"""Public to the package, so that both sessions share one meaning; no part of what users call."""

ENTERED = {"turn", "step", "complete", "pause", "for_user"}
"""Called without `await`: what they do is done when a block is entered or left, or is nothing that could wait."""


def public(cls: type) -> set[str]:
    """The names that a class adds; of a session, also those of its log, and of a store those of its upkeep."""
    below = {Session: Log, Store: Upkeep}.get(cls)
    return {name for name in [*vars(cls), *(vars(below) if below else ())] if not name.startswith("_")}


def called_like(method: Any) -> list[tuple[str, Any, Any]]:
    parameters = inspect.signature(method).parameters.values()
    return [(p.name, p.kind, p.default) for p in parameters]


MIRRORS = [
    (Store, AsyncStore),
    (Session, AsyncSession),
    (Turn, AsyncTurn),
    (Documents, AsyncDocuments),
    (Artifacts, AsyncArtifacts),
    (Trash, AsyncTrash),
    (PrunePlan, AsyncPrunePlan),
]


@pytest.mark.parametrize(("sync", "mirror"), MIRRORS)
def test_both_have_the_same_methods(sync: type, mirror: type) -> None:
    own = {"run", "sync", "url", "token", "took_over", "stored"} | ({"open"} if mirror is AsyncStore else set())
    assert public(sync) - INSIDE == public(mirror) - own


@pytest.mark.parametrize(
    ("sync", "mirror", "name"),
    [
        (sync, mirror, name)
        for sync, mirror in MIRRORS
        for name in sorted(public(mirror) & public(sync))
        if inspect.isfunction(vars(mirror)[name])
    ],
)
def test_both_are_called_alike(sync: type, mirror: type, name: str) -> None:
    here, there = getattr(sync, name), getattr(mirror, name)
    assert called_like(there) == called_like(here)
    assert name in ENTERED or inspect.iscoroutinefunction(there) or inspect.isasyncgenfunction(there)
    iterates = inspect.signature(here).return_annotation.startswith("Iterator[")
    assert inspect.isasyncgenfunction(there) == iterates
    assert there.__doc__, f"{name} has no docstring"


def test_both_are_opened_and_copied_alike() -> None:
    assert called_like(holdfast.aopen) == called_like(holdfast.open)
    assert called_like(holdfast.acopy_store) == called_like(holdfast.copy_store)
    assert called_like(holdfast.afollow_store) == called_like(holdfast.follow_store)


# --- The same answers ---


def test_sessions_are_pruned_restored_and_purged(url: str, tmp_path: Path) -> None:
    async def use(store: AsyncStore) -> None:
        for number in range(4):
            await (await store.session(f"s{number}")).append(user("one"))
        plan = await store.prune(Policy(max_sessions=1))
        assert [one.session for one in plan.chosen] == ["s0", "s1", "s2"]
        done = await plan.apply(archive=tmp_path / "archive")
        assert done.moved == ("s0", "s1", "s2")
        assert (await store.prunes())[0].id == done.prune
        assert [one.session.id for one in await store.trash.list(limit=2)] == ["s2", "s1"]
        away = await store.trash.get("s1")
        assert away is not None
        assert [m.text for m in await away.messages()] == ["one"]
        await (await store.trash.restore("s1")).append(user("two"))
        assert (await store.trash.undo(str(done.prune))).restored == ("s2", "s0")
        await store.trash.put("s3", why="done with it")
        assert (await store.trash.purge(older_than=0)).purged == ("s3",)
        await store.compact()
        assert (await store.check()).ok

    run(url, use)


def test_a_session_is_recorded_and_read(url: str) -> None:
    async def use(store: AsyncStore) -> None:
        session = await store.session("s", user="ann", labels=["x"])
        receipt = await session.append(user("one"), assistant("two"), key="k")
        assert (receipt.first, receipt.last, receipt.repeated) == (1, 2, False)
        assert (await session.append(user("one"), assistant("two"), key="k")).repeated
        assert session.last == 2
        assert [e.seq async for e in session.events()] == [1, 2]
        assert [e.seq async for e in session.events(reverse=True, last=1)] == [2]
        assert [m.text for m in await session.messages()] == ["one", "two"]
        assert (await session.update(title="T", metadata={"a": 1})).title == "T"
        taken = await session.remove_last()
        assert taken is not None
        assert taken.seq == 2
        assert (await session.info()).counts.messages == 1
        assert [i.id for i in await store.sessions(label="x")] == ["s"]
        assert [h.seq for h in await store.search("one")] == [1]
        assert [h.seq for h in await store.search("two")] == []
        assert await store.exists("s")
        assert await store.get("nobody") is None
        assert (await store.resolve("@last")).id == "s"
        assert isinstance(await store.index(), int)
        assert (await store.check()).ok
        assert [e.seq async for e in session.tail(follow=False)] == [1, 3]  # the removal is an event, too

    run(url, use)


def test_failures_are_the_same(url: str) -> None:
    async def use(store: AsyncStore) -> None:
        session = await store.create("s", user="ann")
        await session.append(user("one"), key="k")
        for call, error in (
            (store.create("s"), Exists),
            (store.session("s", user="bob"), Denied),
            (store.delete("nobody"), NotFound),
            (store.session(""), Invalid),
            (session.append(), Invalid),
            (session.append(user("x"), expect=0), Stale),
            (session.append(user("two"), key="k"), KeyReused),
            (session.append(user("x", metadata={"n": float("nan")})), Invalid),
            (session.update(state="running"), Invalid),
            (store.sessions(limit=0), Invalid),
        ):
            with pytest.raises(error):
                await call
        await store.delete("s")
        with pytest.raises(Deleted):
            await session.append(user("late"))
        with pytest.raises(Deleted):
            _ = [e async for e in session.events()]

    run(url, use)


def test_a_large_value_is_stored_from_the_event_loop(url: str) -> None:
    async def use(store: AsyncStore) -> None:
        session = await store.session("s")
        await session.append(user("x" * 3_000_000))
        (message,) = await session.messages()
        assert await store.run(lambda: message.text) == "x" * 3_000_000

    run(url, use)


# --- Many tasks ---


def test_sixty_four_tasks_lose_nothing(url: str) -> None:
    async def use(store: AsyncStore) -> None:
        async def write(number: int) -> list[int]:
            session = await store.session("shared")
            own = await store.session(f"own-{number}")
            seqs = []
            for turn in range(5):
                seqs.append((await session.append(user(f"{number}:{turn}"), key=f"{number}:{turn}")).first)
                await own.append(user("x"))
            return seqs

        told = await asyncio.gather(*(write(number) for number in range(64)))
        assert sorted(seq for seqs in told for seq in seqs) == list(range(1, 321))
        shared = await store.session("shared")
        stored = {e.seq: e.id async for e in shared.events()}
        for number, seqs in enumerate(told):
            assert [stored[seq] for seq in seqs] == [f"{number}:{turn}" for turn in range(5)]
        assert (await shared.info()).counts.messages == 320
        for number in range(64):
            assert (await (await store.session(f"own-{number}")).info()).last == 5

    run(url, use)


def test_two_hundred_tasks_get_one_new_session_and_lose_nothing(url: str) -> None:
    async def use(store: AsyncStore) -> None:
        async def call(number: int) -> int:
            session = await store.session("shared", user="ann", title=f"by {number}")
            return (await session.append(user(f"m{number}"))).first

        told = await asyncio.gather(*map(call, range(200)))
        assert sorted(told) == list(range(1, 201))
        session = await store.session("shared", user="ann")
        messages = [m.text for m in await session.messages()]
        assert [messages[seq - 1] for seq in told] == [f"m{number}" for number in range(200)]
        assert (await session.info()).counts.messages == 200
        assert len(await store.sessions()) == 1

    run(url, use)


def test_appends_of_one_turn_keep_their_order(url: str) -> None:
    async def use(store: AsyncStore) -> None:
        session = await store.session("s")
        receipts = await asyncio.gather(*(session.append(user(str(n))) for n in range(100)))
        assert [r.first for r in receipts] == list(range(1, 101))
        assert [m.text for m in await session.messages()] == [str(n) for n in range(100)]

    run(url, use)


def test_one_bad_append_does_not_fail_its_neighbours(url: str) -> None:
    async def use(store: AsyncStore) -> None:
        session = await store.session("s")
        results = await asyncio.gather(
            *(session.append(user(str(n)), expect=999 if n % 3 == 0 else None) for n in range(30)),
            return_exceptions=True,
        )
        assert [isinstance(r, Stale) for r in results] == [n % 3 == 0 for n in range(30)]
        assert (await session.info()).last == 20

    run(url, use)


def test_threads_and_tasks_share_one_store(url: str) -> None:
    async def use(store: AsyncStore) -> None:
        session = await store.session("s")

        def write() -> None:
            for _ in range(30):
                store.sync.session("s").append(user("thread"))

        threads = [threading.Thread(target=write) for _ in range(2)]
        for thread in threads:
            thread.start()
        await asyncio.gather(*(session.append(user("task")) for _ in range(60)))
        for thread in threads:
            await asyncio.to_thread(thread.join)
        assert (await session.info()).counts.messages == 120
        assert [e.seq async for e in session.events()] == list(range(1, 121))

    run(url, use)


# --- Cancelling ---


def test_cancelling_the_wait_does_not_undo_the_write(url: str) -> None:
    async def use(store: AsyncStore) -> None:
        session = await store.session("s")
        # The lock held: what is appended waits, and is certainly not stored yet when it is cancelled.
        batcher = store.sync.batcher
        with batcher._lock:
            task = asyncio.create_task(session.append(user("kept"), key="k"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        receipt = await session.append(user("kept"), key="k")
        assert receipt.first == 1
        assert receipt.repeated
        assert [m.text for m in await session.messages()] == ["kept"]

    run(url, use)


def test_many_cancelled_appends_leave_a_sound_store(url: str) -> None:
    async def use(store: AsyncStore) -> None:
        session = await store.session("s")
        tasks = [asyncio.create_task(session.append(user(str(n)), key=f"k{n}")) for n in range(100)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(session.append(user(str(n)), key=f"k{n}") for n in range(100)))
        stored = [e async for e in session.events()]
        assert [e.seq for e in stored] == list(range(1, 101))
        assert {e.id for e in stored} == {f"k{n}" for n in range(100)}
        assert (await store.check()).ok

    run(url, use)


def test_a_store_closes_although_appends_were_cancelled(url: str) -> None:
    async def main() -> None:
        store = await holdfast.aopen(url)
        session = await store.session("s")
        tasks = [asyncio.create_task(session.append(user(str(n)))) for n in range(20)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await store.close()
        await store.close()

    asyncio.run(main())


# --- Following ---


def test_a_follower_sees_every_event_once_in_order(url: str) -> None:
    async def use(store: AsyncStore) -> None:
        session = await store.session("s")
        await session.append(user("first"))
        seen: list[int] = []
        stop = asyncio.Event()

        async def follow() -> None:
            nonlocal seen
            async for event in session.tail(after=0, stop=stop):
                seen += [event.seq]

        following = asyncio.create_task(follow())
        await asyncio.gather(*(session.append(user("x"), note("y")) for _ in range(50)))
        await until(lambda: len(seen) == 101)
        assert seen == list(range(1, 102))
        stop.set()
        await session.append(user("wakes it"))
        async with asyncio.timeout(PATIENCE):
            await following

    run(url, use)


def test_following_ends_with_the_session(url: str) -> None:
    async def use(store: AsyncStore) -> None:
        session = await store.session("s")
        await session.append(user("one"))
        seen: list[int] = []

        async def follow() -> None:
            nonlocal seen
            async for event in session.tail():
                seen += [event.seq]

        following = asyncio.create_task(follow())
        await until(lambda: seen == [1])
        await store.delete("s")
        async with asyncio.timeout(PATIENCE):
            await following

    run(url, use)


def test_a_watcher_is_told_of_every_session_that_changes(url: str) -> None:
    async def use(store: AsyncStore) -> None:
        since = now()
        newest: dict[str, int] = {}
        stop = asyncio.Event()

        async def watch() -> None:
            async for change in store.watch(since=since, stop=stop):
                newest[change.session] = change.last

        watching = asyncio.create_task(watch())
        for number in range(12):
            await (await store.session(f"s{number % 3}")).append(user("x"))
        await until(lambda: newest == {"s0": 4, "s1": 4, "s2": 4})
        stop.set()
        await (await store.session("s0")).append(user("wakes it"))
        async with asyncio.timeout(PATIENCE):
            await watching

    run(url, use)


def test_a_listener_left_behind_does_not_fail_a_later_write(url: str) -> None:
    """An event loop that ended while it followed: the store, shared with threads, goes on."""
    with holdfast.open(url) as store:
        mirror = AsyncStore(store)

        async def follow_a_little() -> AsyncIterator[Any]:
            session = await mirror.session("s")
            await session.append(user("one"))
            tail = session.tail()
            assert (await anext(tail)).seq == 1
            return tail

        loop = asyncio.new_event_loop()
        tail = loop.run_until_complete(follow_a_little())
        loop.close()  # without shutting its generators down
        assert store.session("s").append(user("two")).first == 2
        other = asyncio.new_event_loop()
        other.run_until_complete(tail.aclose())
        other.close()
        mirror._threads.shutdown()


def test_a_page_of_events_at_a_time_is_read(url: str) -> None:
    async def use(store: AsyncStore) -> None:
        session = await store.session("s")
        await session.append(*(user(str(n)) for n in range(1200)))
        assert [e.seq async for e in session.events()] == list(range(1, 1201))
        first = []
        async for event in session.events():
            first.append(event.seq)
            if len(first) == 3:
                break
        assert first == [1, 2, 3]

    run(url, use)


def test_two_loops_one_after_the_other_use_one_file(url: str, tmp_path: Path) -> None:
    if url.startswith("memory"):
        return

    async def append(store: AsyncStore) -> int:
        return (await (await store.session("s")).append(user("x"))).first

    assert [run(url, append) for _ in range(3)] == [1, 2, 3]


def test_iterators_are_mirrored_by_asynchronous_iterators() -> None:
    assert inspect.signature(Session.events).return_annotation == f"{Iterator.__name__}[Event]"
    assert inspect.signature(AsyncSession.events).return_annotation == f"{AsyncIterator.__name__}[Event]"


def test_what_hangs_on_a_session_is_kept_and_read(url: str) -> None:
    async def use(store: AsyncStore) -> None:
        session = await store.session("s")
        made = await session.artifacts.put("a", b"x" * 3_000_000, tool="t")
        assert made.size == 3_000_000
        assert [a.name for a in await session.artifacts.list(tool="t")] == ["a"]
        assert [len(piece) async for piece in session.artifacts.read("a")] == [1 << 20, 1 << 20, 3_000_000 - (2 << 20)]
        found = await session.artifacts.stat("a")
        assert found is not None
        assert await session.artifacts.get(found.uri or "") == b"x" * 3_000_000
        assert await session.artifacts.get("b") is None
        assert await session.artifacts.delete("a")
        with pytest.raises(NotFound):
            _ = [piece async for piece in session.artifacts.read("a")]
        await session.save(
            holdfast.tasks(holdfast.Task(id="1", content="x")),
            holdfast.report("r"),
            holdfast.usage("m", 1, response_id="r"),
            title="T",
        )
        assert [t.id for t in await session.tasks()] == ["1"]
        assert [r.subject for r in await session.reports()] == ["r"]
        await session.append(note("n"), holdfast.usage("m", 2, response_id="r"))
        assert (await store.usage("model")).total.input_tokens == 1
        fork = await session.fork()
        assert (await fork.append(holdfast.usage("m", 1, response_id="r"))).repeated
        async with session.turn() as turn:
            async with turn.step("build") as step:
                step.output = "y" * 100_000
            async with turn.step("look") as step:
                step.output = "short"
        assert [a.tool for a in await session.artifacts.list()] == ["build"]
        steps = [event.payload async for event in session.events(types="step")]
        assert [s.output_bytes for s in steps if isinstance(s, Step)] == [100_000, 5]
        report = await store.check(sweep=True)
        assert report.ok
        assert report.swept is not None
        assert report.swept.deleted == 0

    run(url, use)
