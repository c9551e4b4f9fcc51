"""The peers: what other programs do to keep a message. Each is imported when it is asked for; one that is not installed
is reported as not run.

`openai` and `adk` are the packages' own classes with their own settings. `Rewrite` is what programs do that keep a
session as one JSON document (read it, add to it, write it to a temporary file, rename), `Lines` what programs do that
append a line to a file which they open each time. Both can sync, and by themselves mostly do not.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.corpus import Said

PACKAGES = (
    "openai-agents", "google-adk", "langgraph-checkpoint-sqlite", "langgraph-checkpoint-postgres", "sqlalchemy",
    "asyncpg", "psycopg", "redis",
)  # fmt: skip


def version(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


class Loop:
    """An event loop of one's own, so that a burst pays for no start of one."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def run(self, made: Awaitable[Any]) -> Any:
        """Wait for it."""

        async def wait() -> Any:
            return await made

        return self._runner.run(wait())

    def close(self) -> None:
        """End it."""
        self._runner.close()


class OpenAIAgents:
    """openai-agents: `SQLiteSession`, in its default settings (WAL, synchronous FULL)."""

    name = "openai-agents"

    def __init__(self, path: Path) -> None:
        from agents import SQLiteSession

        self._class = SQLiteSession
        self._path = path
        self._sessions: dict[str, Any] = {}

    async def open(self) -> None:
        """Nothing to do before the first session."""

    def _session(self, id: str) -> Any:
        if id not in self._sessions:
            self._sessions[id] = self._class(id, self._path)
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
        """Close every session."""
        for session in self._sessions.values():
            session.close()


class GoogleADK:
    """google-adk: `DatabaseSessionService`, in its default settings, over the database of a URL of SQLAlchemy."""

    name = "google-adk"

    def __init__(self, url: str) -> None:
        from google.adk.events import Event
        from google.adk.sessions import DatabaseSessionService
        from google.genai import types

        self._service = DatabaseSessionService(url)
        self._event, self._types = Event, types
        self._sessions: dict[str, Any] = {}

    async def open(self) -> None:
        """Nothing to do before the first session."""

    async def create(self, id: str, title: str = "") -> Any:
        """Create a session."""
        state = {"title": title} if title else None
        self._sessions[id] = await self._service.create_session(app_name="b", user_id="u", session_id=id, state=state)
        return self._sessions[id]

    async def append(self, id: str, said: Said) -> None:
        """Append one event."""
        session = self._sessions.get(id) or await self.create(id)
        part = self._types.Part(text=said.text)
        content = self._types.Content(role="user" if said.role == "user" else "model", parts=[part])
        await self._service.append_event(session, self._event(author=said.role, content=content))

    async def load(self, id: str, last: int | None = None) -> int:
        """Load the events; their number."""
        from google.adk.sessions.base_session_service import GetSessionConfig

        config = GetSessionConfig(num_recent_events=last) if last else None
        session = await self._service.get_session(app_name="b", user_id="u", session_id=id, config=config)
        return 0 if session is None else len(session.events)

    async def list(self) -> int:
        """List the sessions; their number."""
        return len((await self._service.list_sessions(app_name="b", user_id="u")).sessions)

    async def close(self) -> None:
        """Close the service."""
        await self._service.close()


class Rewrite:
    """A session as one JSON document, written whole for each message: beside, then renamed."""

    def __init__(self, path: Path, *, durable: bool) -> None:
        self._path = path
        self._durable = durable

    def load(self) -> list[Any]:
        """The messages."""
        if not self._path.exists():
            return []
        with self._path.open(encoding="utf-8") as file:
            return json.load(file)["messages"]

    def append(self, said: Said) -> None:
        """Read, add, write."""
        self.save([*self.load(), item(said)])

    def save(self, messages: Sequence[Any]) -> None:
        """Write all of them."""
        beside = self._path.with_suffix(f".{os.getpid()}.{time.time_ns()}.tmp")
        with beside.open("w", encoding="utf-8") as file:
            json.dump({"id": "s", "messages": messages}, file)
            file.flush()
            if self._durable:
                os.fsync(file.fileno())
        beside.replace(self._path)

    def close(self) -> None:
        """Nothing is held open."""


class Lines:
    """A session as a file of lines, opened for each message."""

    def __init__(self, path: Path, *, durable: bool) -> None:
        self._path = path
        self._durable = durable

    def append(self, said: Said) -> None:
        """Open, write a line, close."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(item(said)) + "\n")
            file.flush()
            if self._durable:
                os.fsync(file.fileno())

    def close(self) -> None:
        """Nothing is held open."""


class LangGraph:
    """langgraph: `SqliteSaver`, one checkpoint for each message, as its graphs do it: get, add, put."""

    def __init__(self, path: Path) -> None:
        import sqlite3

        from langgraph.checkpoint.base import empty_checkpoint
        from langgraph.checkpoint.sqlite import SqliteSaver

        self._empty = empty_checkpoint
        self._saver = SqliteSaver(sqlite3.connect(path, check_same_thread=False, timeout=30))
        self._saver.setup()
        self._config: Any = {"configurable": {"thread_id": "s", "checkpoint_ns": ""}}

    def load(self) -> list[Any]:
        """The messages."""
        found = self._saver.get_tuple(self._config)
        return list(found.checkpoint["channel_values"]["messages"]) if found else []

    def append(self, said: Said) -> None:
        """Get the newest checkpoint, add to it, put it."""
        found = self._saver.get_tuple(self._config)
        checkpoint = self._empty()
        messages = found.checkpoint["channel_values"]["messages"] if found else []
        checkpoint["channel_values"] = {"messages": [*messages, item(said)]}
        metadata: Any = {"source": "loop", "step": 0, "parents": {}}
        self._saver.put(found.config if found else self._config, checkpoint, metadata, {})

    def close(self) -> None:
        """Close the file."""
        self._saver.conn.close()


def item(said: Said) -> dict[str, str]:
    """A message as most programs have it."""
    return {"role": said.role, "content": said.text}


Peer = OpenAIAgents | GoogleADK


def installed(path: Callable[[str], Path]) -> tuple[list[Peer], list[str]]:
    """The peers that can be measured here, each in a file of its own, and the names of those that can't, with why."""
    found: list[Peer] = []
    missing: list[str] = []
    kinds: tuple[tuple[Callable[[], Peer], str], ...] = (
        (lambda: OpenAIAgents(path("openai-agents.db")), "openai-agents"),
        (lambda: GoogleADK(f"sqlite+aiosqlite:///{path('google-adk.db')}"), "google-adk"),
    )
    for make, package in kinds:
        try:
            found.append(make())
        except ImportError as error:
            missing.append(f"{package}: {str(error).splitlines()[0]}")
    return found, missing


async def burst(peer: Peer, id: str, said: Sequence[Said]) -> list[float]:
    """Append one after another; the seconds of each."""
    times: list[float] = []
    for one in said:
        start = time.perf_counter()
        await peer.append(id, one)
        times.append(time.perf_counter() - start)
    return times
