"""Copies for asyncio: the same copy, told of in the event loop, and ended with the wait for it."""

from __future__ import annotations

import asyncio
import threading

import pytest

import holdfast
from holdfast import Behind, Copied, ReadOnly, user
from holdfast.moving.digests import session_digest

PATIENCE = 30


def test_a_copy_and_what_follows_it_are_equal_and_told_of_in_the_loop() -> None:
    async def main() -> None:
        async with holdfast.aopen("memory://") as source, holdfast.aopen("memory://") as target:
            session = await source.session("s")
            await session.append(user("one"))
            told: list[Copied] = []
            threads: set[int] = set()

            def tell(one: Copied) -> None:
                told.append(one)
                threads.add(threading.get_ident())

            report = await holdfast.acopy_store(source, target, told=tell)
            assert (report.sessions, report.events, [one.session for one in told]) == (1, 1, ["s"])
            stop, in_step = asyncio.Event(), asyncio.Event()

            def behind(how: Behind) -> None:
                if how == Behind():
                    in_step.set()

            follow = asyncio.create_task(holdfast.afollow_store(source, target, stop=stop, told=tell, behind=behind))
            while sum(one.new for one in told) < 3:
                in_step.clear()
                await session.append(user("more"))
                await in_step.wait()
            await session.append(user("last"))
            stop.set()
            assert (await follow).failed == ()
            assert threads == {threading.get_ident()}
            digests = [session_digest(store.sync, store.sync.head("s")) for store in (source, target)]
            assert digests[0] == digests[1]

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


@pytest.mark.parametrize("how", ["copy", "follow"])
def test_a_cancelled_copy_ends_and_the_next_goes_on(how: str) -> None:
    async def main() -> None:
        async with holdfast.aopen("memory://") as source, holdfast.aopen("memory://") as target:
            for number in range(500):
                await (await source.session(f"s{number:03}")).append(user("x"))
            first = asyncio.Event()

            def tell(_: Copied) -> None:
                first.set()

            if how == "copy":
                copy = asyncio.create_task(holdfast.acopy_store(source, target, told=tell))
            else:
                copy = asyncio.create_task(holdfast.afollow_store(source, target, stop=asyncio.Event(), told=tell))
            await first.wait()
            copy.cancel()
            with pytest.raises(asyncio.CancelledError):
                await copy
            assert not [thread for thread in threading.enumerate() if thread.name.startswith("holdfast-copy")]
            assert (await holdfast.acopy_store(source, target)).sessions == 500

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_what_a_copy_raises_comes_out() -> None:
    async def main() -> None:
        async with holdfast.aopen("memory://") as source, holdfast.aopen("memory://") as target:
            await source.session("s")
            with pytest.raises(ReadOnly):
                await holdfast.acopy_store(source, await target.reader())

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
