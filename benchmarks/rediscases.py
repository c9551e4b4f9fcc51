"""Redis with `appendfsync always`, against bare commands with the same bytes and the peer.

The floor of an append is an `XADD` of the message's JSON; that of many is a pipeline of them; a list is a sorted set
by time and a hash for each session. They keep no counts, checksums or keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import holdfast
from benchmarks import ours, serverpeers, tasks
from benchmarks.appends import Contest, rows_of
from benchmarks.bench import Bench
from benchmarks.floor import decode, encode
from benchmarks.measure import interleaved, repeated, timed
from benchmarks.rows import Row, at_least, at_most, not_run, rate, seconds
from benchmarks.searches import LIMIT, QUERIES
from holdfast import Store

FLOOR = "bare XADD"
BATCH = 500
LAST = PAGE = 50


class Bare:
    """Messages in streams."""

    def __init__(self, port: int) -> None:
        import redis

        self.client = redis.Redis(port=port)

    def append(self, id: str, said: tasks.Said) -> None:
        """Add one."""
        self.client.xadd(f"bare:{id}", {"b": encode(said)})

    def extend(self, id: str, said: list[tasks.Said]) -> None:
        """Add many by one round trip."""
        with self.client.pipeline(transaction=False) as pipe:
            for one in said:
                pipe.xadd(f"bare:{id}", {"b": encode(one)})
            pipe.execute()

    def load(self, id: str) -> list[object]:
        """Every message, decoded."""
        return [decode(fields[b"b"]) for _, fields in self.client.xrange(f"bare:{id}")]

    def newest(self, id: str, count: int) -> list[object]:
        """The last messages, decoded."""
        return [decode(fields[b"b"]) for _, fields in self.client.xrevrange(f"bare:{id}", count=count)][::-1]

    def listed(self, titles: list[str]) -> None:
        """Make sessions."""
        with self.client.pipeline(transaction=False) as pipe:
            for n, title in enumerate(titles):
                pipe.hset(f"bare:{n}:head", mapping={"title": title, "messages": 1, "at": n})
                pipe.zadd("bare:at", {str(n): n})
            pipe.execute()

    def sessions(self, count: int) -> list[Any]:
        """The newest, by two round trips."""
        ids = self.client.zrevrange("bare:at", 0, count - 1)
        with self.client.pipeline(transaction=False) as pipe:
            for id in ids:
                pipe.hgetall(b"bare:%b:head" % id)
            return pipe.execute()

    def close(self) -> None:
        """Close the connection."""
        self.client.close()


def append(bench: Bench) -> Iterator[Row]:
    """One writer, one message at a time."""
    what = "Redis, AOF always: append one message"
    server = bench.servers.redis
    contest = Contest(bench)
    bare = Bare(server.port)
    store = holdfast.open(server.url(blobs="redis"))
    session = store.session("s")
    contest.add("holdfast", lambda said: session.append(ours.payload(said)), store.close)
    contest.add(FLOOR, lambda said: bare.append("s", said), bare.close)
    found, missing = _peers(bench)
    for peer in found:
        contest.add_peer(peer)
    yield from rows_of(what, contest.run(bench.scaled(40, 2)), FLOOR, 2, ahead=True)
    for why in missing:
        yield not_run(what, why)
    yield from _unsynced(bench)


def _unsynced(bench: Bench) -> Iterator[Row]:
    """Without a file: what is left when no sync hides it."""
    server = bench.servers.unsynced_redis
    contest = Contest(bench)
    bare = Bare(server.port)
    store = holdfast.open(server.url(durability="process", blobs="redis"))
    session = store.session("s")
    contest.add("holdfast", lambda said: session.append(ours.payload(said)), store.close)
    contest.add(FLOOR, lambda said: bare.append("s", said), bare.close)
    mine, other = contest.run(bench.scaled(40, 2)).values()
    yield at_most("Redis without a file: append one message, p50", mine.p50, other.p50, None, FLOOR)


def _peers(bench: Bench) -> tuple[list[serverpeers.Peer], list[str]]:
    port = bench.servers.redis.port
    return serverpeers.made({"openai-agents": lambda: serverpeers.AgentsOnRedis(port)})


def together(bench: Bench) -> Iterator[Row]:
    """64 tasks on 64 sessions in one process."""
    rows: list[Row] = []
    asyncio.run(_together(bench, rows))
    yield from rows


async def _together(bench: Bench, rows: list[Row]) -> None:
    from redis.asyncio import Redis

    what = "Redis, AOF always: 64 tasks on 64 sessions"
    server = bench.servers.redis
    each = bench.scaled(40, 3)
    found, missing = _peers(bench)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Redis(port=server.port))
        store = await stack.enter_async_context(holdfast.aopen(server.url(blobs="redis")))
        sessions = {id: await store.session(id) for id in tasks.ids()}
        contestants: dict[str, tuple[tasks.Append, int]] = {
            "holdfast": (lambda id, said: sessions[id].append(ours.payload(said)), each),
            "bare XADD by 64 connections": (lambda id, said: client.xadd(f"bare:{id}", {"b": encode(said)}), each),
        }
        for peer in found:
            await peer.open()
            stack.push_async_callback(peer.close)
            contestants[peer.name] = (peer.append, each)
        rates, waits = await tasks.contest(bench, contestants, bench.scaled(5, 1))
    rows += tasks.rows_of(what, rates, waits, {"openai-agents RedisSession": 4})
    rows += [not_run(what, why) for why in missing]


def batches(bench: Bench) -> Iterator[Row]:
    """Many messages in one call, against a pipeline of XADD."""
    server = bench.servers.redis
    count = bench.scaled(BATCH, 50)
    with contextlib.closing(Bare(server.port)) as bare, holdfast.open(server.url(blobs="redis")) as store:
        session = store.session("batches")
        said = bench.corpus.said(count)
        samples = interleaved(
            {
                "holdfast": timed(lambda: ours.extend(session, said)),
                "XADD": timed(lambda: bare.extend("batches", said)),
            },
            bench.scaled(15, 2),
        )
    mine, other = (count / samples[name].p50 for name in ("holdfast", "XADD"))
    what = f"Redis, AOF always: append {count} messages in one call"
    yield at_least(what, mine, other, None, "pipelined XADD")


def reads(bench: Bench) -> Iterator[Row]:
    """A session of 10,000 messages, and a list of 20,000 sessions; no write is timed, so the server keeps no file."""
    server = bench.servers.unsynced_redis
    (count, many) = bench.sizes([10_000, 20_000])
    url = server.url(durability="process", blobs="redis")
    with contextlib.closing(Bare(server.port)) as bare, holdfast.open(url) as store:
        session = store.session("loaded")
        for said in bench.corpus.batches(count):
            ours.extend(session, said)
            bare.extend("loaded", said)
        yield _row(bench, "load 10,000 messages", session.messages, lambda: bare.load("loaded"), 1)
        yield _row(
            bench, f"last {LAST} of 10,000 messages",
            lambda: session.messages(last=LAST), lambda: bare.newest("loaded", LAST), 10,
        )  # fmt: skip
        titles = [f"{n} {bench.corpus.one().text[:40]}" for n in range(many)]
        bare.listed(titles)
        asyncio.run(ours.sessions(url, titles))
        what = f"list the {PAGE} newest of 20,000 sessions"
        yield _row(bench, what, lambda: store.sessions(limit=PAGE), lambda: bare.sessions(PAGE), 10)


def _row(bench: Bench, what: str, mine: Callable[[], object], bare: Callable[[], object], times: int) -> Row:
    found = interleaved({"holdfast": repeated(mine, times), "bare": repeated(bare, times)}, bench.scaled(15, 2))
    return at_most(f"Redis: {what}", found["holdfast"].p50, found["bare"].p50, None, "bare commands")


def search(bench: Bench) -> Iterator[Row]:
    """The first search of a process, which reads the whole store, and those after it."""
    server = bench.servers.unsynced_redis
    url = server.url(durability="process", blobs="redis")
    count = bench.scaled(20_000, 500)
    with holdfast.open(url) as store:
        for number, said in enumerate(bench.corpus.batches(count, 1000)):
            ours.extend(store.session(f"s{number}"), said)
    with holdfast.open(url) as store:
        first = _seconds(store)
        again = interleaved({"again": timed(lambda: _seconds(store))}, bench.scaled(11, 2))["again"].p50
    yield Row(f"Redis: first search of a process, {20_000:,} messages", f"{seconds(first)}, {rate(count / first)}", "–")
    yield at_most("Redis: a search after that ÷ the first", again, first, None, "the first")


def _seconds(store: Store) -> float:
    start = time.perf_counter()
    store.search(QUERIES["common word"], limit=LIMIT)
    return time.perf_counter() - start
