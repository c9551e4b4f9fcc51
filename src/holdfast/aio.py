"""The same store for asyncio: each operation is one hop to a thread, and appends meet in the batcher without one each.

The meaning is that of `Store` and `Session`, which do the work. A cancelled wait does not undo a write that is under
way: repeat the call with the same key to learn what became of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from holdfast.branching import Branch
from holdfast.check import CheckReport
from holdfast.errors import Deleted
from holdfast.hits import SearchHit
from holdfast.info import SessionInfo, now
from holdfast.leases import Lease
from holdfast.model import Edit, Event, Message, to_micros
from holdfast.pages import Page
from holdfast.plan import Refused
from holdfast.receipts import Receipt
from holdfast.recovery import Recovery, look_over, pause_of
from holdfast.session import PAGE, POLL, Appendable, OnDamage, Session
from holdfast.store import Store, default_url
from holdfast.watch import Change, Watcher
from holdfast.weights import may_write_blobs

if TYPE_CHECKING:
    from holdfast.aioturns import AsyncTurn

T = TypeVar("T")
P = ParamSpec("P")
THREADS = 8
"""Reads that run at the same time."""


def aopen(url: str | None = None) -> Opening:
    """Open a store for asyncio: `async with aopen(url) as store:`, or `store = await aopen(url)`.

    Args:
        url: See `holdfast.open`, also for what it raises.
    """
    return Opening(url)


class Opening:
    """A store that is about to be opened: awaited it is the store, as a context manager it closes it, too."""

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._store: AsyncStore | None = None

    def __await__(self) -> Generator[Any, None, AsyncStore]:
        return AsyncStore.open(self._url).__await__()

    async def __aenter__(self) -> AsyncStore:
        self._store = await AsyncStore.open(self._url)
        return self._store

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._store is not None:
            await self._store.close()


class AsyncStore:
    """An open store for asyncio; see `Store` for what each method does and raises."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="holdfast")

    @classmethod
    async def open(cls, url: str | None = None) -> AsyncStore:
        """Open a store."""
        return cls(await asyncio.to_thread(Store, url or default_url()))

    @property
    def url(self) -> str:
        """What it was opened with."""
        return self._store.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """One hop: a call in a thread of this store. The call goes on to its end even if the wait is cancelled."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: call(*args, **kwargs))

    async def close(self) -> None:
        """See `Store.close`."""
        await asyncio.to_thread(self._store.close)
        self._threads.shutdown(wait=False)

    async def session(
        self,
        id: str | None = None,
        *,
        user: str | None = None,
        name: str | None = None,
        title: str | None = None,
        agent: str | None = None,
        parent: str | None = None,
        project: str | None = None,
        state: str = "idle",
        labels: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        created_at: datetime | int | None = None,
    ) -> AsyncSession:
        """See `Store.session`."""
        session = await self.run(
            self._store.session, id, user=user, name=name, title=title, agent=agent, parent=parent, project=project,
            state=state, labels=labels, metadata=metadata, config=config, created_at=created_at,
        )  # fmt: skip
        return AsyncSession(self, session)

    async def create(
        self,
        id: str | None = None,
        *,
        user: str | None = None,
        name: str | None = None,
        title: str | None = None,
        agent: str | None = None,
        parent: str | None = None,
        project: str | None = None,
        state: str = "idle",
        labels: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        created_at: datetime | int | None = None,
    ) -> AsyncSession:
        """See `Store.create`."""
        session = await self.run(
            self._store.create, id, user=user, name=name, title=title, agent=agent, parent=parent, project=project,
            state=state, labels=labels, metadata=metadata, config=config, created_at=created_at,
        )  # fmt: skip
        return AsyncSession(self, session)

    async def get(self, id: str, *, damaged: OnDamage = "raise") -> AsyncSession | None:
        """See `Store.get`."""
        session = await self.run(self._store.get, id, damaged=damaged)
        return None if session is None else AsyncSession(self, session)

    async def exists(self, id: str) -> bool:
        """See `Store.exists`."""
        return await self.run(self._store.exists, id)

    async def resolve(self, reference: str) -> AsyncSession:
        """See `Store.resolve`."""
        return AsyncSession(self, await self.run(self._store.resolve, reference))

    async def sessions(
        self,
        *,
        user: str | None = None,
        state: str | None = None,
        label: str | None = None,
        agent: str | None = None,
        model: str | None = None,
        project: str | None = None,
        parent: str | None = None,
        name: str | None = None,
        text: str | None = None,
        since: datetime | int | str | None = None,
        until: datetime | int | str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[SessionInfo]:
        """See `Store.sessions`."""
        return await self.run(
            self._store.sessions, user=user, state=state, label=label, agent=agent, model=model, project=project,
            parent=parent, name=name, text=text, since=since, until=until, limit=limit, cursor=cursor,
        )  # fmt: skip

    async def search(
        self,
        query: str,
        *,
        session: str | None = None,
        user: str | None = None,
        state: str | None = None,
        label: str | None = None,
        agent: str | None = None,
        model: str | None = None,
        project: str | None = None,
        newest: bool = False,
        limit: int = 20,
        cursor: str | None = None,
        width: int = 160,
    ) -> Page[SearchHit]:
        """See `Store.search`."""
        return await self.run(
            self._store.search, query, session=session, user=user, state=state, label=label, agent=agent, model=model,
            project=project, newest=newest, limit=limit, cursor=cursor, width=width,
        )  # fmt: skip

    async def index(self) -> int:
        """See `Store.index`."""
        return await self.run(self._store.index)

    async def delete(self, id: str) -> None:
        """See `Store.delete`."""
        await self.run(self._store.delete, id)

    async def tree(self, id: str) -> Branch:
        """See `Store.tree`."""
        return await self.run(self._store.tree, id)

    async def watch(
        self, *, since: datetime | int | None = None, stop: asyncio.Event | None = None
    ) -> AsyncIterator[Change]:
        """See `Store.watch`. No thread waits: a change wakes the event loop."""
        watcher = await self.run(Watcher, self._store.backend, now() if since is None else to_micros(since))
        async with woken(self._store) as wait:
            while stop is None or not stop.is_set():
                for change in await self.run(watcher.changes):
                    yield change
                await wait()

    async def running(self) -> list[Lease]:
        """See `Store.running`."""
        return await self.run(self._store.running)

    async def stuck(self, *, older_than: float | None = None, wait: float = 0) -> list[Lease]:
        """See `Store.stuck`. No thread waits."""
        until = time.monotonic() + wait
        while True:
            found, soonest = await self.run(look_over, self._store, older_than)
            if (pause := pause_of(soonest, until)) is None:
                return found
            await asyncio.sleep(pause)

    async def recover(
        self, *sessions: str, older_than: float | None = None, wait: float = 0, dry_run: bool = False
    ) -> list[Recovery]:
        """See `Store.recover`. No thread waits."""
        if wait > 0:
            await self.stuck(older_than=older_than, wait=wait)  # what this store saw, it remembers
        return await self.run(self._store.recover, *sessions, older_than=older_than, dry_run=dry_run)

    async def check(self, *, session: str | None = None) -> CheckReport:
        """See `Store.check`."""
        return await self.run(self._store.check, session=session)

    @property
    def sync(self) -> Store:
        """The store underneath, for use in threads."""
        return self._store


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
        if may_write_blobs(events) or session.asks_first(events, key):
            return await self._store.run(session.append, *events, key=key, expect=expect)
        commit = session.prepare(events, key, expect)
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
        hidden: bool = False,
        damaged: OnDamage = "raise",
    ) -> AsyncIterator[Event]:
        """See `Session.events`. One hop for each page."""
        found = await self._store.run(
            self._session.events, after=after, before=before, last=last, types=types, reverse=reverse, hidden=hidden,
            damaged=damaged,
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
        config: Mapping[str, Any] | None = None,
        **fields: str | None,
    ) -> SessionInfo:
        """See `Session.update`."""
        return await self._store.run(self._session.update, labels=labels, metadata=metadata, config=config, **fields)

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

    async def fork(self, at: int | None = None, *, name: str | None = None, id: str | None = None) -> AsyncSession:
        """See `Session.fork`."""
        return AsyncSession(self._store, await self._store.run(self._session.fork, at, name=name, id=id))

    def turn(
        self, *, ttl: float = 60, owner: str | None = None, reason: str | None = None, wait: float = 0
    ) -> AsyncTurn:
        """See `Session.turn`: `async with session.turn() as turn:`. No thread waits for a turn that is held."""
        from holdfast.aioturns import AsyncTurn  # it is an AsyncSession, so this module comes first

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
