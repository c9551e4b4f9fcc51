"""Appends to Redis beside a bare XADD of the same bytes, in one run: `python -m benchmarks.redisruns [--sync SETTING]`.

It starts a server of its own, as the tests do (append-only file, `appendfsync always`, on a disk), and prints a table.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import redis

import holdfast

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from servers import processes, redis as servers  # they are the tests'

COUNT = 2000
TASKS = 64
TEXT = "".join(f"word{n} " for n in range(220))
"""About 1.8 KB, as the other benchmarks' messages."""


def timed(call: Callable[[int], Any]) -> list[float]:
    """Seconds of each call, after some that are not counted."""
    for n in range(100):
        call(n)
    spent: list[float] = []
    for n in range(100, 100 + COUNT):
        began = time.perf_counter()
        call(n)
        spent.append(time.perf_counter() - began)
    return sorted(spent)


def together(calls: Sequence[Callable[[int], Any]]) -> list[list[float]]:
    """Seconds of several calls that take turns, so that what else the machine does meets all of them."""
    spent: list[list[float]] = [[] for _ in calls]
    for n in range(COUNT):
        for times, call in zip(spent, calls, strict=True):
            began = time.perf_counter()
            call(n)
            times.append(time.perf_counter() - began)
    return [sorted(times[100:]) for times in spent]


def told(name: str, spent: list[float]) -> float:
    """A line of the table; the middle of the times."""
    p50, p99 = statistics.median(spent), spent[int(len(spent) * 0.99)]
    print(f"{name:<40} p50 {p50 * 1e6:8.0f} µs   p99 {p99 * 1e6:8.0f} µs   {1 / statistics.mean(spent):8.0f} /s")
    return p50


async def in_tasks(url: str) -> float:
    """Appends a second from 64 tasks to 64 sessions."""
    async with holdfast.aopen(url) as store:
        sessions = [await store.session(f"t{n}") for n in range(TASKS)]

        async def work(session: Any) -> None:
            for n in range(COUNT // 10):
                await session.append(holdfast.user(f"{n} {TEXT}"))

        began = time.perf_counter()
        await asyncio.gather(*(work(session) for session in sessions))
        return TASKS * (COUNT // 10) / (time.perf_counter() - began)


def delays(url: str) -> list[float]:
    """Seconds from before an append to its arrival at a tail of another opening, which hears of it from Redis."""
    spent: list[float] = []
    stop = threading.Event()
    with holdfast.open(url) as writer, holdfast.open(url) as reader:
        session = writer.session("tailed")
        began: list[float] = [0.0]
        arrived = threading.Event()

        def follow() -> None:
            for _ in reader.session("tailed").tail(after=0, stop=stop):
                spent.append(time.perf_counter() - began[0])
                arrived.set()

        thread = threading.Thread(target=follow)
        thread.start()
        for n in range(300):
            arrived.clear()
            began[0] = time.perf_counter()
            session.append(holdfast.user(f"{n} {TEXT}"))
            arrived.wait(20)
        stop.set()
        session.append(holdfast.user("the end"))
        thread.join()
    return sorted(spent[50:300])


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sync", default="always", help="appendfsync of the server")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        data = Path(place) / "data"
        data.mkdir()
        processes.give(data)
        server = servers.Redis(appendfsync=given.sync, dir=str(data)).start()
        try:
            run(server, "disk" if given.sync == "always" else "process")
        finally:
            server.stop()


def run(server: servers.Redis, durability: str) -> None:
    """All cases."""
    url = server.url(durability=durability)
    with holdfast.open(url) as store, redis.Redis(port=server.port) as client:
        session = store.session("s")
        times = together(
            [
                lambda n: client.xadd("bare", {"b": f"{n} {TEXT}"}),
                lambda n: session.append(holdfast.user(f"{n} {TEXT}")),
            ]
        )
        bare, ours = told("bare XADD, one writer", times[0]), told("append, one writer", times[1])
        print(f"{'':<40} {ours / bare:.2f} × bare")
        told("last 50 of the session", timed(lambda _: list(session.events(last=50))))
        told("list 50", timed(lambda _: store.sessions(limit=50)))
    print(f"{'append, 64 tasks, 64 sessions':<40} {asyncio.run(in_tasks(url)):8.0f} /s")
    told("append to arrival at a tail", delays(url))
    with holdfast.open(url) as store:
        began = time.perf_counter()
        found = len(store.search("word7", limit=10).items)
        first = time.perf_counter() - began
        events = sum(info.counts.messages for info in store.sessions(limit=1000))
        print(f"first search of a process, {events:,} events: {first:.2f} s ({found} shown)")
        told("search after that", timed(lambda _: store.search("word7", limit=10)))


if __name__ == "__main__":
    main()
