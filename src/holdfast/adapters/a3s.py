"""a3s-code's `SessionStore` over a holdfast store: the trait of its version 2.0, with its names.

Ids are exact, a save is one commit that hides what went and appends what came, lists are sorted, an error is never
"not there", and the key of a model is never kept. docs/ORIGINS.md tells, defect by defect, what is different.
`SyncSessionStore` does the work; the others are asynchronous, one hop to a thread for each call.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from holdfast.adapters.a3s_parts import (
    DEFAULT_AUTO_COMPACT_THRESHOLD as DEFAULT_AUTO_COMPACT_THRESHOLD,
    ConfirmationPolicy as ConfirmationPolicy,
    ContentBlock as ContentBlock,
    ContextUsage as ContextUsage,
    ImageBlock as ImageBlock,
    LlmConfigData as LlmConfigData,
    LlmCostRecord as LlmCostRecord,
    Message as Message,
    OtherBlock as OtherBlock,
    PermissionPolicy as PermissionPolicy,
    SecurityConfig as SecurityConfig,
    SessionConfig as SessionConfig,
    SessionQueueConfig as SessionQueueConfig,
    SessionState as SessionState,
    Task as Task,
    TextBlock as TextBlock,
    TokenUsage as TokenUsage,
    ToolResultBlock as ToolResultBlock,
    ToolUseBlock as ToolUseBlock,
)
from holdfast.adapters.a3s_sync import (
    SyncFileSessionStore as SyncFileSessionStore,
    SyncMemorySessionStore as SyncMemorySessionStore,
    SyncSessionStore as SyncSessionStore,
)
from holdfast.adapters.a3s_types import (
    ArtifactStore as ArtifactStore,
    SessionData as SessionData,
    ToolArtifact as ToolArtifact,
    ToolDefinition as ToolDefinition,
    TraceEvent as TraceEvent,
    VerificationCheck as VerificationCheck,
    VerificationReport as VerificationReport,
)
from holdfast.store import Store


class SessionStore:
    """a3s-code's `SessionStore`: `SyncSessionStore` for asyncio, one hop to a thread for each call.

    A cancelled wait does not undo a save that is under way; save again.
    """

    def __init__(self, store: Store, place: str = "default", *, user: str | None = None) -> None:
        self.sync: SyncSessionStore = SyncSessionStore(store, place, user=user)

    async def save(self, session: SessionData) -> None:
        """See `SyncSessionStore.save`."""
        await asyncio.to_thread(self.sync.save, session)

    async def save_snapshot(
        self,
        session: SessionData,
        artifacts: ArtifactStore | None = None,
        trace_events: Sequence[TraceEvent] | None = None,
        verification_reports: Sequence[VerificationReport] | None = None,
    ) -> None:
        """See `SyncSessionStore.save_snapshot`."""
        await asyncio.to_thread(self.sync.save_snapshot, session, artifacts, trace_events, verification_reports)

    async def load(self, id: str) -> SessionData | None:
        """See `SyncSessionStore.load`."""
        return await asyncio.to_thread(self.sync.load, id)

    async def delete(self, id: str) -> None:
        """See `SyncSessionStore.delete`."""
        await asyncio.to_thread(self.sync.delete, id)

    async def list(self) -> list[str]:
        """See `SyncSessionStore.list`."""
        return await asyncio.to_thread(self.sync.list)

    async def exists(self, id: str) -> bool:
        """See `SyncSessionStore.exists`."""
        return await asyncio.to_thread(self.sync.exists, id)

    async def save_artifacts(self, id: str, artifacts: ArtifactStore) -> None:
        """See `SyncSessionStore.save_artifacts`."""
        await asyncio.to_thread(self.sync.save_artifacts, id, artifacts)

    async def load_artifacts(self, id: str) -> ArtifactStore | None:
        """See `SyncSessionStore.load_artifacts`."""
        return await asyncio.to_thread(self.sync.load_artifacts, id)

    async def save_trace_events(self, id: str, events: Sequence[TraceEvent]) -> None:
        """See `SyncSessionStore.save_trace_events`."""
        await asyncio.to_thread(self.sync.save_trace_events, id, events)

    async def load_trace_events(self, id: str) -> Sequence[TraceEvent] | None:
        """See `SyncSessionStore.load_trace_events`."""
        return await asyncio.to_thread(self.sync.load_trace_events, id)

    async def save_verification_reports(self, id: str, reports: Sequence[VerificationReport]) -> None:
        """See `SyncSessionStore.save_verification_reports`."""
        await asyncio.to_thread(self.sync.save_verification_reports, id, reports)

    async def load_verification_reports(self, id: str) -> Sequence[VerificationReport] | None:
        """See `SyncSessionStore.load_verification_reports`."""
        return await asyncio.to_thread(self.sync.load_verification_reports, id)

    async def health_check(self) -> None:
        """See `SyncSessionStore.health_check`."""
        await asyncio.to_thread(self.sync.health_check)

    def backend_name(self) -> str:
        """See `SyncSessionStore.backend_name`."""
        return self.sync.backend_name()


class FileSessionStore(SessionStore):
    """a3s-code's `FileSessionStore`: `SyncFileSessionStore` for asyncio."""

    def __init__(self, store: Store, folder: str | os.PathLike[str], *, user: str | None = None) -> None:
        self.sync = SyncFileSessionStore(store, folder, user=user)


class MemorySessionStore(SessionStore):
    """a3s-code's `MemorySessionStore`: `SyncMemorySessionStore` for asyncio."""

    def __init__(self, store: Store | None = None, place: str = "default", *, user: str | None = None) -> None:
        self.sync = SyncMemorySessionStore(store, place, user=user)
