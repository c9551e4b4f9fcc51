"""Turns for asyncio; see `holdfast.turns.turns` for what they mean."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from holdfast.aio.session import AsyncSession, woken
from holdfast.aio.store import AsyncStore
from holdfast.errors import HoldfastError, LeaseHeld
from holdfast.events.receipts import Receipt
from holdfast.events.steps import OpenStep
from holdfast.turns.leases import Lease
from holdfast.turns.recovery import Recovery
from holdfast.turns.turns import Turn

T = TypeVar("T")


class AsyncTurn(AsyncSession):
    """A turn of a session: `async with session.turn() as turn:`. See `Turn`; all that a session can do is fenced."""

    def __init__(self, store: AsyncStore, turn: Turn) -> None:
        super().__init__(store, turn)
        self._turn = turn

    def __repr__(self) -> str:
        return f"<Async{repr(self._turn)[1:]}"

    @property
    def token(self) -> str:
        """See `Turn`."""
        return self._turn.token

    @property
    def took_over(self) -> Lease | None:
        """See `Turn`."""
        return self._turn.took_over

    async def __aenter__(self) -> Self:
        turn = self._turn
        try:
            await self._taken(turn.take)
            return self
        except LeaseHeld:
            if turn.wait == 0:
                raise
        until = time.monotonic() + turn.wait
        async with woken(self._store.sync) as wait:
            while (pause := await self._taken(turn.take_or_pause, until)) is not None:
                await wait(pause)
        return self

    async def _taken(self, take: Callable[..., T], *arguments: Any) -> T:
        """Take the lease in a thread. When the wait is cancelled, what was taken meanwhile is given back."""
        taking = asyncio.ensure_future(self._store.run(take, *arguments))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError as cancelled:
            await asyncio.wait([taking])
            if not taking.cancelled() and (failed := taking.exception()) is not None:
                cancelled.add_note(f"taking the turn failed: {failed}")
            await self._store.run(self._turn.end)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.shield(self._store.run(self._turn.end, error))

    def complete(self, reason: str | None = None) -> None:
        """See `Turn.complete`."""
        self._turn.complete(reason)

    def pause(self, reason: str | None = None) -> None:
        """See `Turn.pause`."""
        self._turn.pause(reason)

    async def resume(self) -> Recovery:
        """See `Turn.resume`."""
        return await self._store.run(self._turn.resume)

    def step(
        self, name: str, arguments: Any = None, *, call_id: str | None = None, kind: str = "tool_execution"
    ) -> AsyncStep:
        """See `Turn.step`: `async with turn.step(…) as step:`."""
        return AsyncStep(self, self._turn.step(name, arguments, call_id=call_id, kind=kind))

    async def stored(self, step: OpenStep, error: BaseException | None) -> Receipt:
        """Append a step; a large output in a thread."""
        if step.is_large():
            return await self._store.run(step.store, error)
        return await self.append(step.done(error))


class AsyncStep:
    """A step under way, as an asynchronous context manager around an `OpenStep`."""

    def __init__(self, turn: AsyncTurn, step: OpenStep) -> None:
        self._turn = turn
        self._step = step

    async def __aenter__(self) -> OpenStep:
        return self._step.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._step.stop()
        try:
            await asyncio.shield(self._turn.stored(self._step, error))
        except HoldfastError as failed:
            if error is None:
                raise
            error.add_note(f"the step was not recorded: {failed}")
