"""Plans of prunes and the trash for asyncio: each operation is one hop to a thread. See `retention` and `trash`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from holdfast.aio.session import AsyncSession
from holdfast.finding.pages import Page
from holdfast.retention.retention import Pruned, PrunePlan
from holdfast.retention.trash import Purged, Restored, TrashedSession

if TYPE_CHECKING:
    from holdfast.aio.store import AsyncStore


class AsyncPrunePlan:
    """What a prune would do; see `PrunePlan` for its attributes, which are these."""

    def __init__(self, store: AsyncStore, plan: PrunePlan) -> None:
        self._store = store
        self._plan = plan
        self.policy = plan.policy
        self.at = plan.at
        self.sessions = plan.sessions
        self.matched = plan.matched
        self.chosen = plan.chosen
        self.spared = plan.spared
        self.damaged = plan.damaged
        self.bytes = plan.bytes

    def __repr__(self) -> str:
        return f"<Async{repr(self._plan)[1:]}"

    async def apply(self, *, archive: str | os.PathLike[str] | None = None) -> Pruned:
        """See `PrunePlan.apply`."""
        return await self._store.run(self._plan.apply, archive=archive)


class AsyncTrash:
    """The trash of an open store for asyncio; see `Trash` for what each method does and raises."""

    def __init__(self, store: AsyncStore) -> None:
        self._store = store
        self._trash = store.sync.trash

    async def list(
        self, *, user: str | None = None, prune: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[TrashedSession]:
        """See `Trash.list`."""
        return await self._store.run(self._trash.list, user=user, prune=prune, limit=limit, cursor=cursor)

    async def get(self, id: str | None = None, *, name: str | None = None) -> AsyncSession | None:
        """See `Trash.get`."""
        session = await self._store.run(self._trash.get, id, name=name)
        return None if session is None else AsyncSession(self._store, session)

    async def put(self, id: str | None = None, *, name: str | None = None, why: str = "by hand") -> None:
        """See `Trash.put`."""
        await self._store.run(self._trash.put, id, name=name, why=why)

    async def restore(self, id: str | None = None, *, name: str | None = None) -> AsyncSession:
        """See `Trash.restore`."""
        return AsyncSession(self._store, await self._store.run(self._trash.restore, id, name=name))

    async def undo(self, prune: str) -> Restored:
        """See `Trash.undo`."""
        return await self._store.run(self._trash.undo, prune)

    async def purge(self, *sessions: str, older_than: float | None = None) -> Purged:
        """See `Trash.purge`."""
        return await self._store.run(self._trash.purge, *sessions, older_than=older_than)
