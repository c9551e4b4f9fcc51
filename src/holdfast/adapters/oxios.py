"""oxios's `StateStore` over a holdfast store: its interface as of version 1.3.0, with its names.

Sessions are sessions of the store, with all that it knows of them; everything else are documents. A session is stored
by appends: see `oxios_saving` for how two who save at once lose nothing. What the original leaves to chance is settled;
docs/ORIGINS.md tells, defect by defect, what is different. `StateStore` is asynchronous, as there;
`BlockingStateStore` is the same without `await`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from holdfast.adapters.oxios_sync import DEFAULT, BlockingStateStore, validate_category, validate_name
from holdfast.adapters.oxios_types import (
    AgentResponse,
    PruneConfig,
    PruneThrottle,
    Session,
    SessionId,
    SessionMetadata,
    SessionSummary,
    Timestamp,
    TrajectoryRange,
    TrajectoryStepRecord,
    UserMessage,
)
from holdfast.aio.retention import AsyncPrunePlan
from holdfast.aio.session import AsyncSession
from holdfast.aio.store import AsyncStore
from holdfast.retention.retention import Pruned
from holdfast.store import Store

T = TypeVar("T")
P = ParamSpec("P")


class StateStore:
    """`BlockingStateStore` for asyncio, as the program has it; see there for what each method does and raises.

    Args:
        store: Where sessions and documents are kept: a store for asyncio, or any other.
        place, user: As there.
    """

    def __init__(self, store: AsyncStore | Store, place: str = DEFAULT, *, user: str | None = None) -> None:
        self._async = store if isinstance(store, AsyncStore) else AsyncStore(store)
        self._sync = BlockingStateStore(self._async.sync, place, user=user)

    def __repr__(self) -> str:
        return repr(self._sync).replace("BlockingStateStore", "StateStore", 1)

    async def _run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._async.run(call, *args, **kwargs)

    def session_id(self, session_id: str) -> str:
        """See `BlockingStateStore.session_id`."""
        return self._sync.session_id(session_id)

    async def session(self, session_id: str) -> AsyncSession | None:
        """See `BlockingStateStore.session`."""
        kept = await self._run(self._sync.session, session_id)
        return None if kept is None else AsyncSession(self._async, kept)

    def document_id(self, category: str, name: str, ending: str) -> str:
        """See `BlockingStateStore.document_id`."""
        return self._sync.document_id(category, name, ending)

    async def save_markdown(self, category: str, name: str, content: str) -> None:
        """See `BlockingStateStore.save_markdown`."""
        await self._run(self._sync.save_markdown, category, name, content)

    async def load_markdown(self, category: str, name: str) -> str | None:
        """See `BlockingStateStore.load_markdown`."""
        return await self._run(self._sync.load_markdown, category, name)

    async def save_json(self, category: str, name: str, data: Any) -> None:
        """See `BlockingStateStore.save_json`."""
        await self._run(self._sync.save_json, category, name, data)

    async def load_json(self, category: str, name: str, kind: Any = Any) -> Any:
        """See `BlockingStateStore.load_json`."""
        return await self._run(self._sync.load_json, category, name, kind)

    async def list_category(self, category: str) -> list[str]:
        """See `BlockingStateStore.list_category`."""
        return await self._run(self._sync.list_category, category)

    async def delete_file(self, category: str, name: str) -> bool:
        """See `BlockingStateStore.delete_file`."""
        return await self._run(self._sync.delete_file, category, name)

    async def save_session(self, session: Session) -> None:
        """See `BlockingStateStore.save_session`."""
        await self._run(self._sync.save_session, session)

    async def save_session_with_prune(
        self, session: Session, prune_config: PruneConfig, *, throttle: PruneThrottle | None = None, cooldown: float = 0
    ) -> Pruned:
        """See `BlockingStateStore.save_session_with_prune`."""
        return await self._run(
            self._sync.save_session_with_prune, session, prune_config, throttle=throttle, cooldown=cooldown
        )

    async def load_session(self, session_id: str) -> Session | None:
        """See `BlockingStateStore.load_session`."""
        return await self._run(self._sync.load_session, session_id)

    async def list_sessions(self, *, limit: int | None = None) -> list[SessionSummary]:
        """See `BlockingStateStore.list_sessions`."""
        return await self._run(self._sync.list_sessions, limit=limit)

    async def delete_session(self, session_id: str) -> bool:
        """See `BlockingStateStore.delete_session`."""
        return await self._run(self._sync.delete_session, session_id)

    async def get_or_create_session(self, user_id: str, session_id: str | None = None) -> Session:
        """See `BlockingStateStore.get_or_create_session`."""
        return await self._run(self._sync.get_or_create_session, user_id, session_id)

    async def update_session(self, session: Session) -> None:
        """See `BlockingStateStore.update_session`."""
        await self._run(self._sync.update_session, session)

    async def prune_plan(self, config: PruneConfig, *, cooldown: float = 0) -> AsyncPrunePlan:
        """See `BlockingStateStore.prune_plan`."""
        return AsyncPrunePlan(self._async, await self._run(self._sync.prune_plan, config, cooldown=cooldown))

    async def prune(self, config: PruneConfig, *, cooldown: float = 0) -> Pruned:
        """See `BlockingStateStore.prune`."""
        return await self._run(self._sync.prune, config, cooldown=cooldown)

    async def prune_sessions(self, config: PruneConfig) -> int:
        """See `BlockingStateStore.prune_sessions`."""
        return await self._run(self._sync.prune_sessions, config)

    async def prune_agents_by_config(self, max_entries: int, ttl_hours: int, batch_size: int) -> int:
        """See `BlockingStateStore.prune_agents_by_config`."""
        return await self._run(self._sync.prune_agents_by_config, max_entries, ttl_hours, batch_size)


__all__ = [
    "AgentResponse",
    "BlockingStateStore",
    "PruneConfig",
    "PruneThrottle",
    "Session",
    "SessionId",
    "SessionMetadata",
    "SessionSummary",
    "StateStore",
    "Timestamp",
    "TrajectoryRange",
    "TrajectoryStepRecord",
    "UserMessage",
    "validate_category",
    "validate_name",
]
