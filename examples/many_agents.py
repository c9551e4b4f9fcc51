"""Sixty-four agents that record at the same time: their appends meet and share transactions."""

from __future__ import annotations

import asyncio
import tempfile
import time

import holdfast
from holdfast import assistant, user

AGENTS = 64
TURNS = 20


async def agent(store: holdfast.AsyncStore, number: int) -> None:
    """One conversation, recorded as it happens."""
    session = await store.session(f"agent-{number}", agent="example")
    for turn in range(TURNS):
        await session.append(user(f"question {turn}"))
        await session.append(assistant(f"answer {turn}"))


async def main() -> None:
    """Run all of them on one store."""
    with tempfile.TemporaryDirectory() as folder:
        async with holdfast.aopen(f"sqlite://{folder}/agents.db") as store:
            start = time.perf_counter()
            await asyncio.gather(*(agent(store, number) for number in range(AGENTS)))
            seconds = time.perf_counter() - start
            page = await store.sessions(agent="example", limit=AGENTS)
            stored = sum(info.counts.messages for info in page)
            print(f"{stored} messages, each on disk before its await returned, in {seconds:.2f} s")


if __name__ == "__main__":
    asyncio.run(main())
