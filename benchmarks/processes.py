"""Several processes on one file: four with 16 sessions each at full speed, then four on one session; what is kept."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import holdfast
from benchmarks import ours, peers
from benchmarks.bench import Bench
from benchmarks.corpus import Corpus, Said
from benchmarks.measure import sample
from benchmarks.rows import Row, at_least, not_run, seconds

PROCESSES = 4
SESSIONS = 16
EACH = 50
"""Messages that each process appends to the one session."""


class Told(NamedTuple):
    """What a process reports: the appends that were acknowledged, by session, how long each took, and errors."""

    acknowledged: dict[str, int]
    waits: list[float]
    errors: list[str]


def many(bench: Bench) -> Iterator[Row]:
    """Four processes with 16 sessions each."""
    duration = 0.5 if bench.quick else 3.0
    rounds = bench.scaled(3, 1)
    kinds = ["holdfast"] + (["openai-agents"] if peers.version("openai-agents") else [])
    told: dict[str, list[list[Told]]] = {kind: [] for kind in kinds}
    lost: dict[str, int] = dict.fromkeys(kinds, 0)
    for _ in range(rounds):
        for kind in kinds:
            path = bench.path(f"{kind}.db")
            results = _together(_many_worker, kind, path, duration)
            told[kind].append(results)
            lost[kind] += _lost(kind, path, results)
    what = "4 processes × 16 sessions on one file, durability disk"
    mine = _figures(told["holdfast"], duration)
    note = f"p50 {seconds(mine.p50)}, p99 {seconds(mine.p99)}, {mine.errors} errors, {lost['holdfast']} lost"
    if "openai-agents" in told:
        other = _figures(told["openai-agents"], duration)
        theirs = f"openai-agents (p99 {seconds(other.p99)}, {other.errors} errors, {lost['openai-agents']} lost)"
        yield at_least(what, mine.rate, other.rate, 5, theirs, note=note)
    else:
        yield not_run(what, "openai-agents is not installed")
    good = mine.p99 < 0.05 and not mine.errors and not lost["holdfast"]
    yield Row(what + ": p99, errors, lost", note, "–", None, "p99 < 50 ms, 0, 0", good)


class Figures(NamedTuple):
    """All rounds of one kind."""

    rate: float
    p50: float
    p99: float
    errors: int


def _figures(rounds: list[list[Told]], duration: float) -> Figures:
    rates = sorted(sum(len(told.waits) for told in results) / duration for results in rounds)
    waits = sample([[w for told in results for w in told.waits] or [float("inf")] for results in rounds])
    errors = sum(len(told.errors) for results in rounds for told in results)
    return Figures(rates[len(rates) // 2], waits.p50, waits.p99, errors)


def _together(worker: Callable[..., Any], *args: Any) -> list[Any]:
    """Run a worker in every process, started at the same moment; what each returned.

    Raises:
        RuntimeError: one failed.
    """
    context = multiprocessing.get_context("spawn")
    queue, barrier = context.Queue(), context.Barrier(PROCESSES)
    started = [context.Process(target=_run, args=(worker, n, barrier, queue, args)) for n in range(PROCESSES)]
    for process in started:
        process.start()
    told = [queue.get(timeout=120) for _ in started]
    for process in started:
        process.join(60)
    for one in told:
        if isinstance(one, str):
            raise RuntimeError(f"a process failed:\n{one}")
    return told


def _run(worker: Callable[..., Any], n: int, barrier: Any, queue: Any, args: Sequence[Any]) -> None:
    try:
        queue.put(worker(n, barrier, *args))
    except Exception:
        barrier.abort()  # nobody waits for one that is gone
        queue.put(traceback.format_exc())


def _many_worker(n: int, barrier: Any, kind: str, path: Path, duration: float) -> Told:
    return asyncio.run(_many(n, barrier, kind, path, duration))


async def _many(n: int, barrier: Any, kind: str, path: Path, duration: float) -> Told:
    ids = [f"p{n}-{s}" for s in range(SESSIONS)]
    said = Corpus(n).said(500)
    if kind == "holdfast":
        store = await holdfast.aopen(ours.url(path))
        sessions = {id: await store.session(id) for id in ids}

        async def append(id: str, one: Said) -> None:
            await sessions[id].append(ours.payload(one))

        close = store.close
    else:
        peer = peers.OpenAIAgents(path)
        append, close = peer.append, peer.close
    told = Told(dict.fromkeys(ids, 0), [], [])
    for id in ids:
        await append(id, said[0])
        told.acknowledged[id] += 1
    barrier.wait()
    end = time.perf_counter() + duration

    async def task(id: str, first: int) -> None:
        i = first
        while (start := time.perf_counter()) < end:
            i += 1
            try:
                await append(id, said[i % len(said)])
            except Exception as error:
                told.errors.append(repr(error))
                continue
            told.waits.append(time.perf_counter() - start)
            told.acknowledged[id] += 1

    await asyncio.gather(*(task(id, 31 * s) for s, id in enumerate(ids)))
    await close()
    return told


def _lost(kind: str, path: Path, results: list[Told]) -> int:
    """Acknowledged appends that are not there; a gap in the numbers counts as lost too."""
    acknowledged = {id: count for told in results for id, count in told.acknowledged.items()}
    if kind == "holdfast":
        with ours.store(path) as store:
            stored = {id: [event.seq for event in store.session(id).events()] for id in acknowledged}
        return sum(seqs != list(range(1, acknowledged[id] + 1)) for id, seqs in stored.items())

    async def count() -> int:
        peer = peers.OpenAIAgents(path)
        found = [acknowledged[id] - await peer.load(id) for id in acknowledged]
        await peer.close()
        return sum(found)

    return asyncio.run(count())


def one(bench: Bench) -> Iterator[Row]:
    """Four processes append to one session; how many of the acknowledged are there in the end."""
    stored = {kind: _on_one(bench, kind) for kind in ("holdfast", "langgraph", "document")}
    total = PROCESSES * EACH
    what = f"4 processes on one session, {total} appends: stored"
    acknowledged, kept = stored["holdfast"] or (0, 0)
    for kind, name in (("langgraph", "langgraph SqliteSaver"), ("document", "whole-file JSON rewrite")):
        found = stored[kind]
        if found is None:
            yield not_run(what, "langgraph-checkpoint-sqlite is not installed")
        else:
            yield Row(what, f"{kept} of {acknowledged}", f"{name} {found[1]} of {found[0]}", None, "all", kept == total)


def _on_one(bench: Bench, kind: str) -> tuple[int, int] | None:
    """How many appends were acknowledged, and how many messages are there; None if it can't be run."""
    if kind == "langgraph" and not peers.version("langgraph-checkpoint-sqlite"):
        return None
    path = bench.path(f"{kind}.db")
    if kind == "holdfast":
        with ours.store(path) as store:
            store.session("s")
    elif kind == "langgraph":
        peers.LangGraph(path).close()
    acknowledged = sum(_together(_one_worker, kind, path))
    if kind == "holdfast":
        with ours.store(path) as store:
            return acknowledged, len(store.session("s").messages())
    reader = peers.LangGraph(path) if kind == "langgraph" else peers.Rewrite(path, durable=True)
    stored = len(reader.load())
    reader.close()
    return acknowledged, stored


def _one_worker(n: int, barrier: Any, kind: str, path: Path) -> int:
    said = Corpus(n).said(EACH)
    if kind == "holdfast":
        store = ours.store(path)
        session = store.session("s")
        append, close = (lambda one: session.append(ours.payload(one))), store.close
    else:
        peer = peers.LangGraph(path) if kind == "langgraph" else peers.Rewrite(path, durable=True)
        append, close = peer.append, peer.close
    barrier.wait()
    acknowledged = 0
    for one in said:
        append(one)
        acknowledged += 1
    close()
    return acknowledged
