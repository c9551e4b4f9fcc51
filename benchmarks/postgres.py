"""PostgreSQL beside bare psycopg, in one run: python benchmarks/postgres.py [URL]

Without a URL it starts a private server whose files are on disk, as the tests do. The rows that bare psycopg writes are
as large as ours: one for the event, and one for its session.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

import holdfast
from holdfast import user

APPENDS = 1000
TASKS = 64
EACH = 40
TEXT = "The order was shipped yesterday and should arrive within two days. " * 14
TABLES = """
DROP TABLE IF EXISTS bare_event; DROP TABLE IF EXISTS bare_session;
CREATE TABLE bare_event (session text, seq bigint, at bigint, body bytea, PRIMARY KEY (session, seq));
CREATE TABLE bare_session (id text PRIMARY KEY, last bigint, at bigint, body bytea);
CREATE INDEX ON bare_session (at);
INSERT INTO bare_session VALUES ('s', 0, 0, '');
"""


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else started()
    conninfo = url.partition("?")[0]
    with psycopg.connect(conninfo) as db:
        db.execute(TABLES)
        db.commit()
        with holdfast.open(url) as store:
            session = store.session("s")
            bare, ours = alternately(lambda n: write(db, n), lambda n: session.append(user(f"{n} {TEXT}")))
    tell("append, one writer, p50", f"{ours:.0f} µs", f"{bare:.0f} µs", ours / bare, "≤ 1.5")
    together = asyncio.run(tasks(url))
    tell(f"{TASKS} tasks, {TASKS} sessions", f"{together:,.0f}/s", f"{1e6 / bare:,.0f}/s", together * bare / 1e6, "≥ 3")


def started() -> str:
    """The URL of a store on a server of our own, on disk: in memory a sync would cost nothing."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from servers import processes
    from servers.postgres import Postgres

    processes.IN_MEMORY = Path(os.devnull)
    server = Postgres().start()
    server.create_database()
    return server.url("bench")


def write(db: psycopg.Connection, n: int) -> None:
    body = f"{n} {TEXT}".encode()
    db.execute("INSERT INTO bare_event VALUES ('s', %s, %s, %s)", (n, n, body))
    db.execute("UPDATE bare_session SET last = %s, at = %s WHERE id = 's'", (n, n))
    db.commit()


def alternately(*what: Callable[[int], object]) -> list[float]:
    """The median microseconds of each, taken in turns, so that what else the machine does meets all."""
    took: list[list[float]] = [[] for _ in what]
    for n in range(1, APPENDS + 1):
        for times, act in zip(took, what, strict=True):
            began = time.perf_counter()
            act(n)
            times.append(time.perf_counter() - began)
    return [sorted(times)[len(times) // 2] * 1e6 for times in took]


async def tasks(url: str) -> float:
    """Appends a second of many tasks, each to a session of its own."""
    async with holdfast.aopen(url) as store:
        sessions = [await store.session(f"t{n}") for n in range(TASKS)]

        async def work(session: holdfast.AsyncSession) -> None:
            for n in range(EACH):
                await session.append(user(f"{n} {TEXT}"))

        began = time.perf_counter()
        await asyncio.gather(*map(work, sessions))
        return TASKS * EACH / (time.perf_counter() - began)


def tell(case: str, ours: str, bare: str, ratio: float, goal: str) -> None:
    print(f"{case:28} holdfast {ours:>12}   bare psycopg {bare:>10}   × {ratio:.2f}   (goal {goal})")


if __name__ == "__main__":
    main()
