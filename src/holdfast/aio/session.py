"""A session for asyncio: each operation is one hop to a thread, and appends meet in the batcher without one each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from holdfast.aio.weights import may_write_blobs
from holdfast.errors import Deleted
from holdfast.events.receipts import Receipt
from holdfast.heads.info import SessionInfo
from holdfast.heads.settings import SessionConfig
from holdfast.log import PAGE, POLL, Appendable, OnDamage
from holdfast.model import Edit, Event, Large, Message, Report
from holdfast.plan import Refused
from holdfast.session import Session
from holdfast.store import Store

if TYPE_CHECKING:
    from holdfast.aio.artifacts import AsyncArtifacts
    from holdfast.aio.store import AsyncStore
    from holdfast.aio.turns import AsyncTurn
    from holdfast.context.context import Context
    from holdfast.context.pairs import Problem
    from holdfast.context.repair import Repair
    from holdfast.context.tokens import Counter
    from holdfast.events.tasklists import Task


class AsyncSession:
    """One session for asyncio; see `Session` for what each method does and raises."""

    def __init__(self, store: AsyncStore, session: Session) -> None:
        self._store = store
        self._session = session
        self.id = session.id

    def __repr__(self) -> str:
        return f"<AsyncSession {self.id} at {self._session.last}>"

    @property
    def last(self) -> int:
        """See `Session.last`."""
        return self._session.last

    async def info(self) -> SessionInfo:
        """See `Session.info`."""
        return await self._store.run(self._session.info)

    async def append(self, *events: Appendable, key: str | None = None, expect: int | None = None) -> Receipt:
        """See `Session.append`. What is appended in one turn of the event loop shares one transaction."""
        session = self._session
        if may_write_blobs(events):
            return await self._store.run(session.append, *events, key=key, expect=expect)
        commit = session.prepare(events, key, expect)
        if session.asks_first(commit):
            return await self._store.run(session.stored, commit, key)
        result = await self._store.sync.batcher.enqueue(commit, asyncio.get_running_loop())
        if isinstance(result, Refused):
            return await self._store.run(session.receipt, commit, result, key)
        return session.receipt(commit, result, key)

    async def events(
        self,
        *,
        after: int = 0,
        before: int | None = None,
        last: int | None = None,
        types: Collection[str] | str | None = None,
        reverse: bool = False,
        include_hidden: bool = False,
        damaged: OnDamage = "raise",
    ) -> AsyncIterator[Event]:
        """See `Session.events`. One hop for each page."""
        found = await self._store.run(
            self._session.events, after=after, before=before, last=last, types=types, reverse=reverse,
            include_hidden=include_hidden, damaged=damaged,
        )  # fmt: skip
        while page := await self._store.run(_page, found):
            for event in page:
                yield event

    async def messages(self, *, last: int | None = None) -> list[Message]:
        """See `Session.messages`."""
        return await self._store.run(self._session.messages, last=last)

    async def tail(
        self, *, after: int | None = None, last: int = 10, follow: bool = True, stop: asyncio.Event | None = None
    ) -> AsyncIterator[Event]:
        """See `Session.tail`. No thread waits: a change wakes the event loop."""
        position = await self._store.run(self._session.before_last, last) if after is None else after
        async with woken(self._store.sync) as wait:
            while True:
                new = self._session.events(after=position, damaged="keep")
                try:
                    while page := await self._store.run(_page, new):
                        for event in page:
                            position = event.seq
                            yield event
                except Deleted:
                    return
                if not follow or (stop is not None and stop.is_set()):
                    return
                await wait()

    async def update(
        self,
        *,
        labels: Sequence[str] | Mapping[str, bool] | None = None,
        metadata: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | SessionConfig | None = None,
        **fields: str | None,
    ) -> SessionInfo:
        """See `Session.update`."""
        return await self._store.run(self._session.update, labels=labels, metadata=metadata, config=config, **fields)

    async def save(
        self,
        *events: Appendable,
        key: str | None = None,
        expect: int | None = None,
        labels: Sequence[str] | Mapping[str, bool] | None = None,
        metadata: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | SessionConfig | None = None,
        **fields: str | None,
    ) -> Receipt:
        """See `Session.save`."""
        return await self._store.run(
            self._session.save, *events, key=key, expect=expect, labels=labels, metadata=metadata, config=config,
            **fields,
        )  # fmt: skip

    async def tasks(self) -> list[Task]:
        """See `Session.tasks`."""
        return await self._store.run(self._session.tasks)

    async def reports(self) -> list[Report]:
        """See `Session.reports`."""
        return await self._store.run(self._session.reports)

    @property
    def artifacts(self) -> AsyncArtifacts:
        """See `Session.artifacts`."""
        from holdfast.aio.artifacts import AsyncArtifacts

        return AsyncArtifacts(self._store, self._session.artifacts)

    async def remove_last(self) -> Event | None:
        """See `Session.remove_last`."""
        return await self._store.run(self._session.remove_last)

    async def rewind(self, to: int) -> Edit | None:
        """See `Session.rewind`."""
        return await self._store.run(self._session.rewind, to)

    async def clear(self) -> Edit | None:
        """See `Session.clear`."""
        return await self._store.run(self._session.clear)

    async def undo(self) -> Edit | None:
        """See `Session.undo`."""
        return await self._store.run(self._session.undo)

    async def context(
        self,
        max_tokens: int | None = None,
        *,
        keep: int = 1,
        threshold: float | None = None,
        count: Counter | None = None,
        damaged: OnDamage = "raise",
    ) -> Context:
        """See `Session.context`. Counting is done in the thread."""
        return await self._store.run(
            self._session.context, max_tokens, keep=keep, threshold=threshold, count=count, damaged=damaged
        )

    async def compact(self, summary: str | Large, upto: int, *, seen: int | None = None) -> Event:
        """See `Session.compact`."""
        return await self._store.run(self._session.compact, summary, upto, seen=seen)

    async def validate(self) -> list[Problem]:
        """See `Session.validate`."""
        return await self._store.run(self._session.validate)

    async def repair(self) -> Repair:
        """See `Session.repair`."""
        return await self._store.run(self._session.repair)

    async def fork(self, at: int | None = None, *, name: str | None = None, id: str | None = None) -> AsyncSession:
        """See `Session.fork`."""
        return AsyncSession(self._store, await self._store.run(self._session.fork, at, name=name, id=id))

    def turn(
        self, *, ttl: float = 60, owner: str | None = None, reason: str | None = None, wait: float = 0
    ) -> AsyncTurn:
        """See `Session.turn`: `async with session.turn() as turn:`. No thread waits for a turn that is held."""
        from holdfast.aio.turns import AsyncTurn  # it is an AsyncSession, so this module comes first

        return AsyncTurn(self._store, self._session.turn(ttl=ttl, owner=owner, reason=reason, wait=wait))

    async def set_state(self, state: str, *, reason: str | None = None, turn: str | None = None) -> SessionInfo:
        """See `Session.set_state`."""
        return await self._store.run(self._session.set_state, state, reason=reason, turn=turn)

    async def delete(self) -> None:
        """See `Session.delete`."""
        await self._store.run(self._session.delete)


def _page(found: Iterator[Event]) -> list[Event]:
    return list(islice(found, PAGE))


@contextlib.asynccontextmanager
async def woken(store: Store) -> AsyncGenerator[Callable[..., Any]]:
    """Waiting for the next commit, without a thread: the backend's wake reaches the event loop."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: whoever commits must not fail for that
            loop.call_soon_threadsafe(event.set)

    async def wait(seconds: float = POLL) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), seconds)
        event.clear()

    stop = store.backend.listen(wake)
    try:
        yield wait
    finally:
        stop()
