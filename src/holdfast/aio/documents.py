"""Documents for asyncio: each operation is one hop to a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

from holdfast.documents import agents
from holdfast.documents.agents import AgentPrune
from holdfast.documents.docheads import Document, DocumentInfo
from holdfast.documents.documents import Documents, Source
from holdfast.finding.pages import Page

if TYPE_CHECKING:
    from holdfast.aio.store import AsyncStore


class AsyncDocuments:
    """The documents of a store for asyncio; see `Documents` for what each method does and raises."""

    def __init__(self, store: AsyncStore, documents: Documents) -> None:
        self._store = store
        self._documents = documents

    async def put(self, id: str, content: Any, *, rev: int | None = None) -> DocumentInfo:
        """See `Documents.put`."""
        return await self._store.run(self._documents.put, id, content, rev=rev)

    async def write(self, id: str, source: Source, *, rev: int | None = None) -> DocumentInfo:
        """See `Documents.write`. A stream is read in a thread."""
        return await self._store.run(self._documents.write, id, source, rev=rev)

    async def get(self, id: str) -> Document | None:
        """See `Documents.get`."""
        return await self._store.run(self._documents.get, id)

    async def info(self, id: str) -> DocumentInfo | None:
        """See `Documents.info`."""
        return await self._store.run(self._documents.info, id)

    async def open(self, id: str) -> BinaryIO:
        """See `Documents.open`. The stream blocks: read it in a thread."""
        return await self._store.run(self._documents.open, id)

    async def exists(self, id: str) -> bool:
        """See `Documents.exists`."""
        return await self._store.run(self._documents.exists, id)

    async def delete(self, id: str, *, rev: int | None = None) -> bool:
        """See `Documents.delete`."""
        return await self._store.run(self._documents.delete, id, rev=rev)

    async def rename(self, id: str, to: str, *, rev: int | None = None) -> DocumentInfo:
        """See `Documents.rename`."""
        return await self._store.run(self._documents.rename, id, to, rev=rev)

    async def list(
        self, category: str | None = None, *, limit: int = 50, cursor: str | None = None
    ) -> Page[DocumentInfo]:
        """See `Documents.list`."""
        return await self._store.run(self._documents.list, category, limit=limit, cursor=cursor)

    async def categories(self, under: str | None = None) -> dict[str, int]:
        """See `Documents.categories`."""
        return await self._store.run(self._documents.categories, under)

    async def prune_agents(
        self,
        *,
        max_age: float | None = None,
        max_count: int | None = None,
        batch: int | None = None,
        category: str = agents.CATEGORY,
    ) -> AgentPrune:
        """See `Documents.prune_agents`. What the plan does when it is applied blocks: `store.run(plan.apply)`."""
        return await self._store.run(
            self._documents.prune_agents, max_age=max_age, max_count=max_count, batch=batch, category=category
        )
