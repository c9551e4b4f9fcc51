"""Reads on PostgreSQL against the bare query on a bare table of the same rows with the right index.

A bare search is a GIN index over `tsvector`, the best 20 by `ts_rank`, their rows and JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator

import holdfast
from benchmarks import ours
from benchmarks.bench import Bench
from benchmarks.corpus import Said
from benchmarks.measure import Sample, interleaved, repeated, timed
from benchmarks.pgfloor import Bare
from benchmarks.rows import Row, at_most
from benchmarks.searches import LIMIT, QUERIES, RARE
from holdfast import Store

LAST = 50
PAGE = 50
FLOOR = "bare psycopg"


@contextlib.contextmanager
def _pair(bench: Bench, schema: str) -> Iterator[tuple[Store, Bare]]:
    """A store of ours and bare tables, on one server."""
    server = bench.servers.postgres
    bare = Bare(server.conninfo())
    with contextlib.closing(bare), holdfast.open(server.url(schema, durability="process")) as store:
        yield store, bare


def _both(mine: Callable[[], object], bare: Callable[[], object], times: int, rounds: int) -> dict[str, Sample]:
    return interleaved({"holdfast": repeated(mine, times), "bare": repeated(bare, times)}, rounds)


def load(bench: Bench) -> Iterator[Row]:
    """One session of 10,000 messages: all of it, and its last 50."""
    (count,) = bench.sizes([10_000])
    with _pair(bench, "loaded") as (store, bare):
        session = store.session("loaded")
        bare.begin("loaded")
        for said in bench.corpus.batches(count):
            ours.extend(session, said)
            bare.copy("loaded", said)
        bare.settle()
        whole = _both(session.messages, lambda: bare.load("loaded"), 1, bench.scaled(15, 2))
        last = _both(lambda: session.messages(last=LAST), lambda: bare.newest("loaded", LAST), 10, bench.scaled(30, 2))
    yield at_most("PostgreSQL: load 10,000 messages", whole["holdfast"].p50, whole["bare"].p50, 1.5, FLOOR)
    yield at_most(f"PostgreSQL: last {LAST} of 10,000 messages", last["holdfast"].p50, last["bare"].p50, 3, FLOOR)


def listed(bench: Bench) -> Iterator[Row]:
    """The 50 newest of 100,000 sessions, with title and counts."""
    (count,) = bench.sizes([100_000])
    with _pair(bench, "listed") as (store, bare):
        titles = [f"{n} {bench.corpus.one().text[:40]}" for n in range(count)]
        asyncio.run(ours.sessions(bench.servers.postgres.url("listed", durability="process"), titles))
        bare.listed((f"session-{n}", title.replace("\0", " "), 1, n) for n, title in enumerate(titles))
        bare.settle()
        assert len(store.sessions(limit=PAGE).items) == len(bare.sessions(PAGE))
        found = _both(lambda: store.sessions(limit=PAGE), lambda: bare.sessions(PAGE), 10, bench.scaled(30, 2))
    yield at_most(
        f"PostgreSQL: list the {PAGE} newest of 100,000 sessions", found["holdfast"].p50, found["bare"].p50, 3, FLOOR
    )


def search(bench: Bench) -> Iterator[Row]:
    """Searches in 200,000 messages; both indexes are built before. Common words take seconds each: a few rounds do."""
    count = bench.scaled(200_000, 2_000)
    with _pair(bench, "searched") as (store, bare):
        sessions = [f"searched-{n}" for n in range(-(-count // 1000))]
        bare.begin(*sessions)
        for id, said in zip(sessions, bench.corpus.batches(count, 1000), strict=True):
            said[0] = Said(said[0].role, f"{said[0].text} {RARE}" if id.endswith("0") else said[0].text)
            ours.extend(store.session(id), said)
            bare.copy(id, said)
        start = time.perf_counter()
        assert store.index() >= count
        middle = time.perf_counter()
        bare.index()
        end = time.perf_counter()
        bare.settle()
        yield at_most(
            "PostgreSQL: index, for each message", (middle - start) / count, (end - middle) / count, None,
            "bare to_tsvector and GIN, all at once",
        )  # fmt: skip
        for name, query in QUERIES.items():
            rounds = bench.scaled(11 if query == RARE else 3, 2)
            words = query.strip('"')
            samples = interleaved(
                {
                    "holdfast": timed(lambda q=query: store.search(q, limit=LIMIT)),
                    "bare": timed(lambda q=words: bare.find(q, LIMIT)),
                },
                rounds,
            )
            what = f"PostgreSQL: search 200,000 messages, {name}"
            yield at_most(what, samples["holdfast"].p50, samples["bare"].p50, 2, FLOOR)
