"""The peers on servers: the same libraries' own classes, in their own settings, over PostgreSQL and Redis.

Each is made inside the event loop that it is used in, by `open`. One that is not installed is reported as not run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from benchmarks.corpus import Said
from benchmarks.peers import GoogleADK, item


class Peer(Protocol):
    """What the cases do with one."""

    name: str

    async def open(self) -> None: ...
    async def append(self, id: str, said: Said) -> None: ...
    async def close(self) -> None: ...


class AgentsOnPostgres:
    """openai-agents: `SQLAlchemySession` over asyncpg, all sessions on one engine."""

    name = "openai-agents SQLAlchemySession"

    def __init__(self, address: str) -> None:
        import asyncpg  # noqa: F401  # the engine's driver
        from agents.extensions.memory import SQLAlchemySession
        from sqlalchemy.ext.asyncio import create_async_engine

        self._class, self._create = SQLAlchemySession, create_async_engine
        self._address = f"postgresql+asyncpg://{address}"
        self._sessions: dict[str, Any] = {}

    async def open(self) -> None:
        """Make the engine and the tables."""
        self._engine = self._create(self._address)
        await self._class("first", engine=self._engine, create_tables=True).get_items()

    def _session(self, id: str) -> Any:
        if id not in self._sessions:
            self._sessions[id] = self._class(id, engine=self._engine)
        return self._sessions[id]

    async def append(self, id: str, said: Said) -> None:
        """Add one item."""
        await self._session(id).add_items([item(said)])

    async def extend(self, id: str, said: Sequence[Said]) -> None:
        """Add many items at once."""
        await self._session(id).add_items([item(one) for one in said])

    async def load(self, id: str, last: int | None = None) -> int:
        """Load the items; their number."""
        return len(await self._session(id).get_items(last))

    async def close(self) -> None:
        """Close the connections."""
        await self._engine.dispose()


class AgentsOnRedis:
    """openai-agents: `RedisSession`, all sessions on one client."""

    name = "openai-agents RedisSession"

    def __init__(self, port: int) -> None:
        from agents.extensions.memory import RedisSession
        from redis.asyncio import Redis

        self._class, self._redis = RedisSession, Redis
        self._port = port
        self._sessions: dict[str, Any] = {}

    async def open(self) -> None:
        """Make the client."""
        self._client = self._redis(port=self._port)

    async def append(self, id: str, said: Said) -> None:
        """Add one item."""
        if id not in self._sessions:
            self._sessions[id] = self._class(id, redis_client=self._client)
        await self._sessions[id].add_items([item(said)])

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class ADKOnPostgres(GoogleADK):
    """google-adk: `DatabaseSessionService` over asyncpg."""

    name = "google-adk"

    def __init__(self, address: str) -> None:
        import asyncpg  # noqa: F401  # the engine's driver

        super().__init__(f"postgresql+asyncpg://{address}")


class LangGraphOnPostgres:
    """langgraph: `AsyncPostgresSaver`, one checkpoint for each message, as its graphs do it: get, add, put."""

    name = "langgraph AsyncPostgresSaver"

    def __init__(self, address: str) -> None:
        from langgraph.checkpoint.base import empty_checkpoint
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

        self._empty, self._class = empty_checkpoint, AsyncPostgresSaver
        self._address = f"postgresql://{address}"
        self._running = contextlib.AsyncExitStack()

    async def open(self) -> None:
        """Connect, and make the tables."""
        self._saver = await self._running.enter_async_context(self._class.from_conn_string(self._address))
        await self._saver.setup()

    async def append(self, id: str, said: Said) -> None:
        """Get the newest checkpoint, add to it, put it."""
        config: Any = {"configurable": {"thread_id": id, "checkpoint_ns": ""}}
        found = await self._saver.aget_tuple(config)
        checkpoint = self._empty()
        messages = found.checkpoint["channel_values"]["messages"] if found else []
        checkpoint["channel_values"] = {"messages": [*messages, item(said)]}
        before = found.checkpoint["channel_versions"]["messages"] if found else None
        version = self._saver.get_next_version(before, None)
        checkpoint["channel_versions"] = {"messages": version}
        metadata: Any = {"source": "loop", "step": 0, "parents": {}}
        await self._saver.aput(found.config if found else config, checkpoint, metadata, {"messages": version})

    async def close(self) -> None:
        """Close the connection."""
        await self._running.aclose()


def made(kinds: dict[str, Callable[[], Any]]) -> tuple[list[Any], list[str]]:
    """The peers that can be measured here, and the names of those that can't, with why."""
    found: list[Any] = []
    missing: list[str] = []
    for package, make in kinds.items():
        try:
            found.append(make())
        except ImportError as error:
            missing.append(f"{package}: {str(error).splitlines()[0]}")
    return found, missing
