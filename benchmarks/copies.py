"""Copying a store from SQLite to a server, by the command as a process of its own: events a second, and its memory."""

from __future__ import annotations

import os
from collections.abc import Iterator

from benchmarks import ours
from benchmarks.bench import Bench
from benchmarks.imports import mebibytes, weighed
from benchmarks.rows import Row, at_most, not_run, rate

GOAL = 20_000
"""Events a second."""
EACH = 200
"""Events of a session."""


def run(bench: Bench) -> Iterator[Row]:
    """A little, then four times as much; what a process takes to start is in it."""
    command = ours.command()
    if command is None or not hasattr(os, "wait4"):
        yield not_run("copy SQLite → PostgreSQL", "there is no command to copy with, or no wait4 to weigh it")
        return
    server = bench.servers.postgres
    counts = bench.scaled(10_000, 400), bench.scaled(40_000, 1_600)
    took: list[float] = []
    peaks: list[int] = []
    for n, count in enumerate(counts):
        path = bench.path("holdfast.db")
        with ours.store(path, "process") as store:
            for number, said in enumerate(bench.corpus.batches(count, EACH)):
                ours.extend(store.create(f"copied-{number}"), said)
        copy = [*command, "copy", ours.url(path), server.url(f"copied_{n}")]
        seconds, peak = weighed(copy, dict(os.environ))
        took.append(seconds)
        peaks.append(peak)
    speed = (counts[1] - counts[0]) / (took[1] - took[0])
    yield Row(
        "copy SQLite → PostgreSQL, read back and compared", rate(speed), "–", None, f"≥ {GOAL:,}/s", speed >= GOAL,
        note=f"{counts[1]:,} events less {counts[0]:,}, so without the start of the process",
    )  # fmt: skip
    yield at_most("peak memory of a copy of 40,000 events ÷ of 10,000", peaks[1], peaks[0], 1.2, "of 10,000", mebibytes)
