"""The 50 newest of many sessions, with title and counts, against one indexed SELECT."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from benchmarks import ours, peers
from benchmarks.bench import Bench
from benchmarks.measure import interleaved, repeated, timed
from benchmarks.rows import Row, at_most, not_run

PAGE = 50
_NEWEST = "SELECT id, title, messages, at FROM session ORDER BY at DESC LIMIT ?"


def run(bench: Bench) -> Iterator[Row]:
    """10,000 and 100,000 sessions."""
    names = (10_000, 100_000)
    mine: list[float] = []
    for name, size in zip(names, bench.sizes(names), strict=True):
        path, bare = bench.listed(size)
        table = sqlite3.connect(bare)
        with ours.store(path) as store:
            assert [s.title for s in store.sessions(limit=PAGE)] == [r[1] for r in _newest(table)]
            samples = interleaved(
                {
                    "holdfast": repeated(lambda store=store: store.sessions(limit=PAGE), 10),
                    "bare": repeated(lambda table=table: _newest(table), 10),
                },
                bench.scaled(30, 2),
            )
        table.close()
        mine.append(samples["holdfast"].p50)
        yield at_most(f"list the {PAGE} newest of {name:,} sessions", mine[-1], samples["bare"].p50, 5, "bare SELECT")
    yield at_most(f"list the {PAGE} newest of 100,000 ÷ of 10,000", mine[1], mine[0], 1.2, "of 10,000")
    yield from _adk(bench, mine[0])


def _newest(table: sqlite3.Connection) -> list[tuple[str, str, int, int]]:
    return table.execute(_NEWEST, (PAGE,)).fetchall()


def _adk(bench: Bench, mine: float) -> Iterator[Row]:
    """google-adk lists all: it knows no page."""
    what = f"list the {PAGE} newest of 10,000 sessions"
    found, missing = peers.installed(bench.path)
    count = bench.scaled(500, 20)  # it takes milliseconds for each
    for peer in found:
        loop = peers.Loop()
        if isinstance(peer, peers.GoogleADK):
            for n in range(count):
                loop.run(peer.create(f"session-{n}", f"title {n}"))
            sample = interleaved({"peer": timed(lambda p=peer, o=loop: o.run(p.list()))}, bench.scaled(7, 1))
            yield at_most(what, mine, sample["peer"].p50, None, f"google-adk, all of {count:,}")
        loop.run(peer.close())
        loop.close()
    for why in missing:
        yield not_run(what, why)
