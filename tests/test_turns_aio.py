"""Turns of event loops: the same meaning, and nothing held by a task that was cancelled."""

from __future__ import annotations

import asyncio

import pytest

from holdfast import AsyncStore, LeaseHeld, LeaseLost, Step, note, user
from rivals import FakePlace, placed
from test_aio import run


def test_a_turn_begins_writes_and_ends(url: str) -> None:
    async def use(store: AsyncStore) -> None:
        session = await store.session("s")
        async with session.turn(reason="asked") as turn:
            assert (await session.info()).state == "running"
            await turn.append(user("Hi"))
            async with turn.step("lookup", {"order": 7}, call_id="c1") as step:
                step.output = {"status": "shipped"}
            assert [m.text for m in await turn.messages()] == ["Hi"]
            with pytest.raises(LeaseHeld):
                async with session.turn():
                    raise AssertionError
            turn.complete("answered")
        assert (await session.info()).state == "completed"
        for write in (turn.append(user("late")), turn.update(title="late"), turn.delete()):
            with pytest.raises(LeaseLost):
                await write
        kinds = [event.type async for event in session.events()]
        assert kinds == ["state", "message", "step", "state"]
        (found,) = [event.payload async for event in session.events(types="step")]
        assert isinstance(found, Step)
        assert found.output == '{"status":"shipped"}'

    run(url, use)


def test_an_error_of_the_block_and_of_a_step_is_recorded_and_goes_on(url: str) -> None:
    async def use(store: AsyncStore) -> None:
        session = await store.session("s")
        with pytest.raises(ValueError, match="no such order"):
            async with session.turn() as turn, turn.step("lookup"):
                raise ValueError("no such order")
        step, state = [event.payload async for event in session.events(last=2)]
        assert isinstance(step, Step)
        assert (step.is_error, step.error) == (True, "ValueError: no such order")
        assert (await session.info()).state == state.state == "error"  # type: ignore[union-attr]

    run(url, use)


def test_tasks_that_wait_get_the_turn_one_after_the_other(url: str) -> None:
    async def use(store: AsyncStore) -> None:
        session = await store.session("s")

        async def work(number: int) -> None:
            async with session.turn(wait=100) as turn:
                await turn.append(note(str(number)))

        await asyncio.gather(*(work(number) for number in range(12)))
        kinds = [event.type async for event in session.events()]
        assert kinds == ["state", "note", "state"] * 12

    run(url, use)


def test_a_task_that_is_cancelled_while_it_takes_a_turn_gives_it_back(url: str) -> None:
    async def use(store: AsyncStore) -> None:
        session = await store.session("s")
        for _ in range(10):
            task = asyncio.ensure_future(session.turn(wait=100).__aenter__())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with session.turn():
                pass
        with pytest.raises(asyncio.CancelledError):
            async with session.turn():
                raise asyncio.CancelledError
        assert (await session.info()).state == "error"

    run(url, use)


def test_who_was_overtaken_is_told(url: str) -> None:
    async def use(store: AsyncStore) -> None:
        place = FakePlace("here")
        with placed(store.sync, place) as holder:
            late = holder.session("s").turn(ttl=0.2).take()
            session = await store.session("s")
            async with session.turn(wait=60) as turn:
                assert turn.took_over is not None
                assert turn.took_over.turn == late.token
            with pytest.raises(LeaseLost):
                late.end()

    run(url, use)
