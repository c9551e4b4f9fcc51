"""From an append to its arrival at a tail in another process, and what a reader that waits takes of the processor.

The clock starts before the append, so its commit is part of the delay. Run as a program with a URL it is the reader: it
prints the time (CLOCK_MONOTONIC, which all processes share) of each event that it hears of.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import holdfast
from benchmarks import ours
from benchmarks.bench import Bench
from benchmarks.corpus import Said
from benchmarks.measure import sample
from benchmarks.onservers import NotHereError
from benchmarks.rows import Row, not_run, seconds
from holdfast import Session

PAUSE = 0.01
"""Seconds between two appends: the reader is waiting again by then."""
SERVER, LOCAL = (0.005, 0.025), (0.025, 0.1)
"""Seconds that the middle of the delays may take, and 99 of 100."""


def run(bench: Bench) -> Iterator[Row]:
    """All backends that are here."""
    kinds: dict[str, tuple[Callable[[], str], tuple[float, float]]] = {
        "PostgreSQL": (lambda: bench.servers.postgres.url("tailed"), SERVER),
        "Redis, AOF always": (lambda: bench.servers.redis.url(prefix="tailed", blobs="redis"), SERVER),
        "SQLite": (lambda: ours.url(bench.path("holdfast.db")), LOCAL),
        "files": (lambda: f"file://{bench.path('folder').as_posix()}", LOCAL),
    }
    for name, (url, limits) in kinds.items():
        what = f"{name}: from an append to a tail in another process"
        try:
            yield from _rows(what, url(), bench, limits)
        except NotHereError as error:
            yield not_run(what, str(error))


def _rows(what: str, url: str, bench: Bench, limits: tuple[float, float]) -> Iterator[Row]:
    command = [sys.executable, "-m", "benchmarks.tails", url]
    root = Path(__file__).resolve().parent.parent
    with holdfast.open(url) as store:
        session = store.session("tailed")
        session.append(holdfast.user("the first"))
        with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as reader:
            try:
                assert reader.stdout is not None
                reader.stdout.readline()
                said = bench.corpus.said(bench.scaled(300, 20))
                found = sample([[_delay(session, reader.stdout, one) for one in said][len(said) // 6 :]])
                busy = _busy(reader.pid, bench.scaled(5, 1))
            finally:
                reader.kill()
    told = f"p50 {seconds(found.p50)}, p99 {seconds(found.p99)}"
    goal = f"p50 < {seconds(limits[0])}, p99 < {seconds(limits[1])}"
    yield Row(what, told, "–", None, goal, found.p50 < limits[0] and found.p99 < limits[1])
    if busy is not None:
        yield Row(f"{what}: processor of a reader that waits", f"{busy:.2%}", "–", None, "< 1 %", busy < 0.01)


def _delay(session: Session, heard: IO[str], said: Said) -> float:
    """Seconds from before an append until the reader had it."""
    time.sleep(PAUSE)
    start = time.monotonic_ns()
    session.append(ours.payload(said))
    return (int(heard.readline()) - start) / 1e9


def _busy(pid: int, for_seconds: float) -> float | None:
    """The share of a processor that a process takes; None where /proc does not tell."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return None
    before = _ticks(stat)
    time.sleep(for_seconds)
    return (_ticks(stat) - before) / os.sysconf("SC_CLK_TCK") / for_seconds


def _ticks(stat: Path) -> int:
    user, system = stat.read_text().rpartition(")")[2].split()[11:13]
    return int(user) + int(system)


def main() -> None:
    """The reader: until it is killed."""
    with holdfast.open(sys.argv[1]) as store:
        for _ in store.session("tailed").tail(after=0):
            print(time.monotonic_ns(), flush=True)


if __name__ == "__main__":
    main()
