"""64 asyncio tasks on 64 sessions in one process, every append synced: what an agent server does all day."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator

import holdfast
from benchmarks import ours, peers
from benchmarks.bench import Bench
from benchmarks.corpus import Said
from benchmarks.floor import Bare
from benchmarks.measure import Sample, sample
from benchmarks.rows import Row, at_least, not_run, seconds

TASKS = 64
Append = Callable[[str, Said], Awaitable[object]]


def run(bench: Bench) -> Iterator[Row]:
    """Appends a second, by contestant, in turns."""
    asyncio.run(_measure(bench, rows := []))
    yield from rows


async def _measure(bench: Bench, rows: list[Row]) -> None:
    each = bench.scaled(100, 5)
    rounds = bench.scaled(5, 1)
    found, missing = peers.installed(bench.path)
    bare = Bare(bench.path("bare.db"))

    async def bare_append(id: str, said: Said) -> None:
        bare.append(id, said)

    async with holdfast.aopen(ours.url(bench.path("holdfast.db"))) as store:
        sessions = {id: await store.session(id) for id in ids()}
        contestants: dict[str, tuple[Append, int]] = {
            "holdfast": (lambda id, said: sessions[id].append(ours.payload(said)), each),
            "bare sqlite3, one commit each": (bare_append, each),
        }
        for peer in found:
            contestants[peer.name] = (peer.append, each if peer.name == "openai-agents" else max(1, each // 20))
        samples, latencies = await contest(bench, contestants, rounds)
    for peer in found:
        await peer.close()
    bare.close()
    goals = {"openai-agents": 8, "bare sqlite3, one commit each": 4}
    rows += rows_of("64 tasks on 64 sessions, durability disk", samples, latencies, goals)
    rows += [not_run("64 tasks on 64 sessions", why) for why in missing]


def ids() -> list[str]:
    """The sessions."""
    return [f"s{n}" for n in range(TASKS)]


async def contest(
    bench: Bench, contestants: dict[str, tuple[Append, int]], rounds: int
) -> tuple[dict[str, float], dict[str, Sample]]:
    """Let each append so many messages from each of 64 tasks, in turns: appends a second, and how long each takes.

    The first round does not count.
    """
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    waits: dict[str, list[list[float]]] = {name: [] for name in contestants}
    for round_ in range(rounds + 1):
        for name, (append, each) in contestants.items():
            said = bench.corpus.said(each)
            start = time.perf_counter()
            times = await asyncio.gather(*(_task(append, id, said) for id in ids()))
            took = time.perf_counter() - start
            if round_:
                rates[name].append(each * TASKS / took)
                waits[name].append([t for one in times for t in one])
    return {n: sorted(r)[len(r) // 2] for n, r in rates.items()}, {n: sample(w) for n, w in waits.items()}


async def _task(append: Append, id: str, said: list[Said]) -> list[float]:
    times: list[float] = []
    for one in said:
        start = time.perf_counter()
        await append(id, one)
        times.append(time.perf_counter() - start)
    return times


def rows_of(what: str, rates: dict[str, float], waits: dict[str, Sample], goals: dict[str, float]) -> Iterator[Row]:
    """Ours against each of the others."""
    mine = rates.pop("holdfast")
    note = f"each waits {seconds(waits['holdfast'].p50)} (p50), {seconds(waits['holdfast'].p99)} (p99)"
    for name, rate in rates.items():
        yield at_least(what, mine, rate, goals.get(name), name, note=note)
