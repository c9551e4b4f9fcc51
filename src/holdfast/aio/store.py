"""The same store for asyncio: each operation is one hop to a thread, and appends meet in the batcher without one each.

The meaning is that of `Store` and `Session`, which do the work. A cancelled wait does not undo a write that is under
way: repeat the call with the same key to learn what became of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Generator,
    Iterable,
    Mapping,
)
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from holdfast.aio.session import AsyncSession, woken
from holdfast.finding.hits import SearchHit
from holdfast.finding.pages import Page
from holdfast.finding.watch import Change, Watcher
from holdfast.heads.info import SessionInfo
from holdfast.heads.settings import SessionConfig
from holdfast.history.branching import Branch
from holdfast.log import Appendable, OnDamage
from holdfast.model import to_micros
from holdfast.store import Store
from holdfast.turns.leases import Lease
from holdfast.turns.recovery import Recovery, look_over, pause_of
from holdfast.urls import default_url

if TYPE_CHECKING:
    from holdfast.aio.documents import AsyncDocuments
    from holdfast.aio.retention import AsyncPrunePlan, AsyncTrash
    from holdfast.check import CheckReport
    from holdfast.events.receipts import Receipt
    from holdfast.events.totals import UsageReport
    from holdfast.moving.backups import Backup
    from holdfast.moving.copying import CopyReport
    from holdfast.reading import Replica
    from holdfast.retention.policies import Policy
    from holdfast.retention.prunes import Prune

T = TypeVar("T")
P = ParamSpec("P")
THREADS = 8
"""Reads that run at the same time."""


def aopen(url: str | None = None, *, secrets: Collection[str] = ()) -> Opening:
    """Open a store for asyncio: `async with aopen(url) as store:`, or `store = await aopen(url)`.

    Args:
        url, secrets: See `holdfast.open`, also for what it raises.
    """
    return Opening(url, secrets)


class Opening:
    """A store that is about to be opened: awaited it is the store, as a context manager it closes it, too."""

    def __init__(self, url: str | None, secrets: Collection[str]) -> None:
        self._url = url
        self._secrets = secrets
        self._store: AsyncStore | None = None

    def __await__(self) -> Generator[Any, None, AsyncStore]:
        return AsyncStore.open(self._url, self._secrets).__await__()

    async def __aenter__(self) -> AsyncStore:
        self._store = await AsyncStore.open(self._url, self._secrets)
        return self._store

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._store is not None:
            await self._store.close()


class AsyncStore:
    """An open store for asyncio; see `Store` for what each method does and raises."""

    def __init__(self, store: Store, threads: ThreadPoolExecutor | None = None) -> None:
        self._store = store
        self._owns_threads = threads is None
        self._threads = threads or ThreadPoolExecutor(THREADS, thread_name_prefix="holdfast")
        self.user = store.user

    @classmethod
    async def open(cls, url: str | None = None, secrets: Collection[str] = ()) -> AsyncStore:
        """Open a store."""
        return cls(await asyncio.to_thread(Store, url or default_url(), secrets))

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
        if self._owns_threads:
            self._threads.shutdown(wait=False)

    def for_user(self, user: str) -> AsyncStore:
        """See `Store.for_user`. It shares this store's threads."""
        return AsyncStore(self._store.for_user(user), self._threads)

    async def reader(self, *, own: bool = True) -> AsyncStore:
        """See `Store.reader`. It shares this store's threads."""
        return AsyncStore(await self.run(self._store.reader, own=own), self._threads)

    async def behind(self) -> float:
        """See `Store.behind`."""
        return await self.run(self._store.behind)

    async def replicas(self) -> list[Replica]:
        """See `Store.replicas`."""
        return await self.run(self._store.replicas)

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
        config: Mapping[str, Any] | SessionConfig | None = None,
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
        config: Mapping[str, Any] | SessionConfig | None = None,
        created_at: datetime | int | None = None,
    ) -> AsyncSession:
        """See `Store.create`."""
        session = await self.run(
            self._store.create, id, user=user, name=name, title=title, agent=agent, parent=parent, project=project,
            state=state, labels=labels, metadata=metadata, config=config, created_at=created_at,
        )  # fmt: skip
        return AsyncSession(self, session)

    async def get(
        self, id: str | None = None, *, name: str | None = None, damaged: OnDamage = "raise"
    ) -> AsyncSession | None:
        """See `Store.get`."""
        session = await self.run(self._store.get, id, name=name, damaged=damaged)
        return None if session is None else AsyncSession(self, session)

    async def exists(self, id: str | None = None, *, name: str | None = None) -> bool:
        """See `Store.exists`."""
        return await self.run(self._store.exists, id, name=name)

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
        name: str | None = None,
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
            self._store.search, query, session=session, name=name, user=user, state=state, label=label, agent=agent,
            model=model, project=project, newest=newest, limit=limit, cursor=cursor, width=width,
        )  # fmt: skip

    async def commit_in(
        self, connection: object, id: str, *events: Appendable, key: str | None = None, expect: int | None = None
    ) -> Receipt:
        """See `Store.commit_in`: the connection is a synchronous one, used in a thread."""
        return await self.run(self._store.commit_in, connection, id, *events, key=key, expect=expect)

    async def usage(
        self,
        by: str = "session",
        *,
        since: datetime | int | str | None = None,
        until: datetime | int | str | None = None,
        user: str | None = None,
        agent: str | None = None,
        model: str | None = None,
        project: str | None = None,
    ) -> UsageReport:
        """See `Store.usage`."""
        return await self.run(
            self._store.usage, by, since=since, until=until, user=user, agent=agent, model=model, project=project
        )

    async def index(self) -> int:
        """See `Store.index`."""
        return await self.run(self._store.index)

    async def delete(self, id: str | None = None, *, name: str | None = None) -> None:
        """See `Store.delete`."""
        await self.run(self._store.delete, id, name=name)

    @cached_property
    def documents(self) -> AsyncDocuments:
        """See `Store.documents`."""
        from holdfast.aio.documents import AsyncDocuments

        return AsyncDocuments(self, self._store.documents)

    @property
    def trash(self) -> AsyncTrash:
        """See `Store.trash`."""
        from holdfast.aio.retention import AsyncTrash

        return AsyncTrash(self)

    async def prune(self, policy: Policy) -> AsyncPrunePlan:
        """See `Store.prune`."""
        from holdfast.aio.retention import AsyncPrunePlan

        return AsyncPrunePlan(self, await self.run(self._store.prune, policy))

    async def prunes(self, *, limit: int = 50) -> list[Prune]:
        """See `Store.prunes`."""
        return await self.run(self._store.prunes, limit=limit)

    async def compact(self) -> None:
        """See `Store.compact`."""
        await self.run(self._store.compact)

    async def backup(self, path: str, *, replace: bool = False) -> Backup:
        """See `Store.backup`."""
        return await self.run(self._store.backup, path, replace=replace)

    async def restore(
        self, path: str, *, merge: bool = False, partial: bool = False, dry_run: bool = False
    ) -> CopyReport:
        """See `Store.restore`."""
        return await self.run(self._store.restore, path, merge=merge, partial=partial, dry_run=dry_run)

    async def tree(self, id: str | None = None, *, name: str | None = None) -> Branch:
        """See `Store.tree`."""
        return await self.run(self._store.tree, id, name=name)

    async def watch(
        self,
        *,
        after: str | None = None,
        since: datetime | int | str | None = None,
        stop: asyncio.Event | None = None,
    ) -> AsyncIterator[Change]:
        """See `Store.watch`. No thread waits: a change wakes the event loop. It begins with the first step."""
        start = None if since is None else to_micros(since)
        watcher = await self.run(Watcher, self._store.backend, since=start, after=after)
        async with woken(self._store) as wait:
            while stop is None or not stop.is_set():
                for change in await self.run(watcher.changes):
                    yield change
                await wait()

    async def position(self) -> str:
        """See `Store.position`."""
        return await self.run(self._store.position)

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
        self,
        *sessions: str,
        name: str | None = None,
        older_than: float | None = None,
        wait: float = 0,
        dry_run: bool = False,
    ) -> list[Recovery]:
        """See `Store.recover`. No thread waits."""
        if wait > 0:
            await self.stuck(older_than=older_than, wait=wait)  # what this store saw, it remembers
        return await self.run(self._store.recover, *sessions, name=name, older_than=older_than, dry_run=dry_run)

    async def check(
        self, *, session: str | None = None, name: str | None = None, sweep: bool = False, repair: bool = False
    ) -> CheckReport:
        """See `Store.check`."""
        return await self.run(self._store.check, session=session, name=name, sweep=sweep, repair=repair)

    @property
    def sync(self) -> Store:
        """The store underneath, for use in threads."""
        return self._store
