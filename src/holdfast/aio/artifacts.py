"""The artifacts of a session for asyncio; see `holdfast.artifacts.artifacts` for what they mean."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from holdfast.artifacts.artifacts import Artifacts
from holdfast.model import Artifact

if TYPE_CHECKING:
    from holdfast.aio.store import AsyncStore


class AsyncArtifacts:
    """The artifacts of one session for asyncio; see `Artifacts` for what each method does and raises."""

    def __init__(self, store: AsyncStore, artifacts: Artifacts) -> None:
        self._store = store
        self._artifacts = artifacts

    async def put(
        self,
        name: str,
        data: bytes | str | BinaryIO,
        *,
        media_type: str | None = None,
        tool: str | None = None,
        uri: str | None = None,
        shown: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        max_artifacts: int | None = None,
        max_artifact_bytes: int | None = None,
    ) -> Artifact:
        """See `Artifacts.put`. A stream is read in a thread."""
        return await self._store.run(
            self._artifacts.put, name, data, media_type=media_type, tool=tool, uri=uri, shown=shown, metadata=metadata,
            max_artifacts=max_artifacts, max_artifact_bytes=max_artifact_bytes,
        )  # fmt: skip

    async def list(self, *, tool: str | None = None) -> list[Artifact]:
        """See `Artifacts.list`."""
        return await self._store.run(self._artifacts.list, tool=tool)

    async def stat(self, name: str) -> Artifact | None:
        """See `Artifacts.stat`."""
        return await self._store.run(self._artifacts.stat, name)

    async def get(self, name: str) -> bytes | None:
        """See `Artifacts.get`."""
        return await self._store.run(self._artifacts.get, name)

    async def read(self, name: str) -> AsyncIterator[bytes]:
        """See `Artifacts.read`. One hop for each piece."""
        pieces = await self._store.run(self._artifacts.read, name)
        while (piece := await self._store.run(_next, pieces)) is not None:
            yield piece

    async def delete(self, name: str) -> bool:
        """See `Artifacts.delete`."""
        return await self._store.run(self._artifacts.delete, name)


def _next(pieces: Iterator[bytes]) -> bytes | None:
    return next(pieces, None)
