"""Copies for asyncio: a thread of the source's does the work, and the event loop is told how it goes.

A wait that is cancelled ends the copy behind the session at hand, and only then the wait; the same call goes on there.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from holdfast.aio.store import AsyncStore
from holdfast.copies import Copied
from holdfast.moving.copying import CopyReport, copy_store
from holdfast.moving.following import Behind, follow_store

T = TypeVar("T")


async def acopy_store(
    source: AsyncStore,
    target: AsyncStore,
    *,
    sessions: Sequence[str] | None = None,
    told: Callable[[Copied], None] | None = None,
) -> CopyReport:
    """See `copy_store`. `told` is called in the event loop."""
    work = _Work()
    copy = partial(copy_store, source.sync, target.sync, sessions=sessions, told=work.telling(told))
    return await work.done(source, copy)


async def afollow_store(
    source: AsyncStore,
    target: AsyncStore,
    *,
    stop: asyncio.Event,
    told: Callable[[Copied], None] | None = None,
    behind: Callable[[Behind], None] | None = None,
) -> CopyReport:
    """See `follow_store`. `told` and `behind` are called in the event loop. It takes a thread as long as it lasts."""
    work = _Work()

    async def hear() -> None:
        await stop.wait()
        work.stop.set()

    hearing = asyncio.create_task(hear())
    follow = partial(
        follow_store, source.sync, target.sync, stop=work.stop, told=work.telling(told), behind=work.telling(behind)
    )
    try:
        return await work.done(source, follow)
    finally:
        hearing.cancel()


class _Ended(Exception):
    """Nobody waits for the copy any more."""


class _Work:
    """A copy in a thread, and who waits for it."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._cancelled = False
        self._loop = asyncio.get_running_loop()

    def telling(self, call: Callable[[T], None] | None) -> Callable[[T], None]:
        """What the thread calls, so that the loop calls the other one; it ends the copy if nobody waits."""

        def tell(what: T) -> None:
            if self._cancelled:
                raise _Ended
            if call is not None:
                self._loop.call_soon_threadsafe(call, what)

        return tell

    async def done(self, source: AsyncStore, copy: Callable[[], CopyReport]) -> CopyReport:
        """What the copy came to."""
        running = asyncio.create_task(source.run(copy))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self._cancelled = True
            self.stop.set()
            await asyncio.wait([running])
            if not running.cancelled():
                running.exception()  # looked at: whatever it was, the wait was given up
            raise
