"""Appends on PostgreSQL, everything synced: one writer, many tasks, and batches, against bare psycopg and the peers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack

import holdfast
from benchmarks import ours, serverpeers, tasks
from benchmarks.appends import BURST, FILLED, Contest, rows_of
from benchmarks.bench import Bench
from benchmarks.measure import interleaved, timed
from benchmarks.pgfloor import Bare, Pool
from benchmarks.rows import Row, at_least, at_most, not_run

FLOOR = "bare psycopg"
BATCH = 500
"""Messages of a batch."""
FEW = 5
"""Appends in a turn of those that take milliseconds, or whose sessions make each append slower."""


def append(bench: Bench) -> Iterator[Row]:
    """One writer, one message at a time."""
    what = "PostgreSQL: append one message"
    server = bench.servers.postgres
    contest = Contest(bench)
    bare = Bare(server.conninfo())
    bare.begin("s")
    store = holdfast.open(server.url())
    session = store.session("s")
    for said in bench.corpus.batches(bench.scaled(FILLED, 50)):
        ours.extend(session, said)
        bare.copy("s", said)
    contest.add("holdfast", lambda said: session.append(ours.payload(said)), store.close)
    contest.add(FLOOR, lambda said: bare.append("s", said), bare.close)
    contest.add("bare psycopg, one round trip", lambda said: bare.pipelined("s", said))
    found, missing = _peers(bench)
    for peer in found:
        quick = peer.name.startswith("openai-agents")
        contest.add_peer(peer, bench.scaled(FILLED, 50), BURST if quick else FEW)
    samples = contest.run(bench.scaled(30, 2))
    yield from rows_of(what, samples, FLOOR, 1.5, ahead=True)
    for why in missing:
        yield not_run(what, why)


def _peers(bench: Bench) -> tuple[list[serverpeers.Peer], list[str]]:
    address = f"holdfast@127.0.0.1:{bench.servers.postgres.port}/test"
    return serverpeers.made(
        {
            "openai-agents": lambda: serverpeers.AgentsOnPostgres(address),
            "google-adk": lambda: serverpeers.ADKOnPostgres(address),
            "langgraph-checkpoint-postgres": lambda: serverpeers.LangGraphOnPostgres(address),
        }
    )


def together(bench: Bench) -> Iterator[Row]:
    """64 tasks on 64 sessions in one process."""
    rows: list[Row] = []
    asyncio.run(_together(bench, rows))
    yield from rows


async def _together(bench: Bench, rows: list[Row]) -> None:
    what = "PostgreSQL: 64 tasks on 64 sessions"
    server = bench.servers.postgres
    each = bench.scaled(40, 3)
    bare = Bare(server.conninfo())
    bare.begin(*tasks.ids())

    async def one_by_one(id: str, said: tasks.Said) -> None:
        bare.append(id, said)

    found, missing = _peers(bench)
    pool = Pool(bare, server.conninfo())
    async with AsyncExitStack() as stack:
        stack.callback(bare.close)
        store = await stack.enter_async_context(holdfast.aopen(server.url()))
        sessions = {id: await store.session(id) for id in tasks.ids()}
        contestants: dict[str, tuple[tasks.Append, int]] = {
            "holdfast": (lambda id, said: sessions[id].append(ours.payload(said)), each),
            "bare psycopg, one commit each": (one_by_one, max(1, each // 4)),
            pool.name: (pool.append, each),
        }
        for peer in (pool, *found):
            await peer.open()
            stack.push_async_callback(peer.close)
        for peer in found:
            contestants[peer.name] = (peer.append, max(1, each // (8 if peer.name.startswith("openai") else 20)))
        rates, waits = await tasks.contest(bench, contestants, bench.scaled(4, 1))
    goals = {"openai-agents SQLAlchemySession": 6, "bare psycopg, one commit each": 3}
    rows += tasks.rows_of(what, rates, waits, goals)
    rows += [not_run(what, why) for why in missing]


def batches(bench: Bench) -> Iterator[Row]:
    """Many messages in one commit, against COPY, which writes rows as fast as the server takes them."""
    server = bench.servers.postgres
    count = bench.scaled(BATCH, 50)
    bare = Bare(server.conninfo())
    bare.begin("batches")
    with holdfast.open(server.url()) as store:
        session = store.session("batches")
        said = bench.corpus.said(count)
        samples = interleaved(
            {
                "holdfast": timed(lambda: ours.extend(session, said)),
                "COPY": timed(lambda: bare.copy("batches", said)),
            },
            bench.scaled(15, 2),
        )
    bare.close()
    mine, other = (count / samples[name].p50 for name in ("holdfast", "COPY"))
    yield at_least(f"PostgreSQL: append {count} messages in one call", mine, other, None, "bare COPY")
    yield at_most("PostgreSQL: the same, p99", samples["holdfast"].p99, samples["COPY"].p99, None, "bare COPY")
