"""A plan of a prune over many sessions, against reading as many rows by one SELECT, and against ten seconds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from benchmarks import ours
from benchmarks.bench import Bench
from benchmarks.measure import interleaved, timed
from benchmarks.rows import Row, at_most
from holdfast import Policy

KEPT = 100
_OLDEST = "SELECT id, messages, at FROM session ORDER BY at"


def run(bench: Bench) -> Iterator[Row]:
    """10,000 and 100,000 sessions of which all but the newest are chosen."""
    names = (10_000, 100_000)
    mine = 0.0
    for name, size in zip(names, bench.sizes(names), strict=True):
        path, bare = bench.listed(size)
        table = sqlite3.connect(bare)
        policy = Policy(max_sessions=min(KEPT, size // 2))
        with ours.store(path) as store:
            plan = store.prune(policy)
            assert len(plan.chosen) == size - min(KEPT, size // 2)
            assert plan.bytes > 0
            samples = interleaved(
                {
                    "holdfast": timed(lambda store=store, policy=policy: store.prune(policy)),
                    "bare": timed(lambda table=table: table.execute(_OLDEST).fetchall()),
                },
                bench.scaled(5, 1),
            )
        table.close()
        mine = samples["holdfast"].p50
        yield at_most(f"plan a prune of {name:,} sessions", mine, samples["bare"].p50, None, "bare SELECT of all")
    yield at_most("plan a prune of 100,000 sessions", mine, 10.0, 1, "ten seconds")
