"""holdfast as a contestant: stores filled and messages made, always through the public interface."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

import holdfast
from benchmarks.corpus import Said
from holdfast import Message, Session, Store, message, tool_result, user
from holdfast.backends.fts import Background


def url(path: Path, durability: str = "disk") -> str:
    """The URL of a store in one file."""
    return f"sqlite://{path.as_posix()}?durability={durability}"


def payload(said: Said) -> Message:
    """A message of ours."""
    return tool_result("c1", said.text) if said.role == "tool" else message(said.role, said.text)


def extend(session: Session, said: Sequence[Said]) -> None:
    """Append many, in one batch."""
    session.append(*map(payload, said))


def store(path: Path, durability: str = "disk") -> Store:
    """An open store."""
    return holdfast.open(url(path, durability))


async def sessions(url: str, titles: Sequence[str]) -> None:
    """A session of one message for each title, by many tasks: their commits share transactions."""
    tasks = 512  # the more, the fewer transactions
    async with holdfast.aopen(url) as store:

        async def work(task: int) -> None:
            for n in range(task, len(titles), tasks):
                session = await store.create(f"session-{n}", title=titles[n])
                await session.append(user("Where is it?"))

        await asyncio.gather(*map(work, range(tasks)))


@contextlib.contextmanager
def no_background() -> Iterator[None]:
    """No store feeds its index beside appends: so that what that costs can be told."""
    with patch.object(Background, "START", 10**12):
        yield


def command() -> list[str] | None:
    """How the command is run: the script that was installed beside this Python, else by its module; None without it."""
    script = Path(sys.executable).parent / "holdfast"
    if importlib.util.find_spec("holdfast.cli") is None:
        return None
    return [str(script)] if script.exists() else [sys.executable, "-m", "holdfast.cli"]
