"""How long an event takes from a writer to who follows in another process, and what it costs to wait for none.

The writer notes the time before each append; the reader, another process on this machine, the time when the event
reaches it, so the commit is part of the delay. The clock is the machine's monotonic one, which both share.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import holdfast
from benchmarks import ours
from benchmarks.bench import Bench
from benchmarks.measure import Sample, sample
from benchmarks.onservers import NotHereError
from benchmarks.rows import Row, not_run, seconds
from holdfast import Store, note

QUIET, SERVED = (0.025, 0.100), (0.005, 0.025)
"""Goals for p50 and p99: of stores that are files, and of servers."""
IDLE = 0.01
"""Share of one core that a reader may take who waits."""
READER = """
import json, sys, threading, time
import holdfast
url, idle = sys.argv[1], float(sys.argv[2])

def rest():
    time.sleep(0.5)  # what it took to begin
    before = time.process_time()
    time.sleep(idle)
    print(json.dumps({"idle": (time.process_time() - before) / idle}), flush=True)

with holdfast.open(url) as store:
    events = store.get("s").tail(after=0)
    next(events)
    threading.Thread(target=rest).start()
    for event in events:
        at = time.monotonic()
        print(json.dumps({"what": event.payload.text, "at": at}), flush=True)
"""


def run(bench: Bench) -> Iterator[Row]:
    """Each kind of store that several processes share."""
    kinds: dict[str, tuple[Callable[[], str], tuple[float, float]]] = {
        "SQLite": (lambda: ours.url(bench.path("holdfast.db")), QUIET),
        "files": (lambda: f"file://{bench.path('folder').as_posix()}", QUIET),
        "PostgreSQL": (lambda: bench.servers.postgres.url("delays"), SERVED),
        "Redis, AOF always": (lambda: bench.servers.redis.url(prefix="delays"), SERVED),
        "Redis Cluster": (lambda: bench.servers.cluster.url(durability="process"), SERVED),
    }
    for name, (url, goals) in kinds.items():
        try:
            yield from _measured(bench, name, url(), goals)
        except NotHereError as error:
            yield not_run(f"from an append to a tail in another process, {name}", str(error))


def _measured(bench: Bench, name: str, url: str, goals: tuple[float, float]) -> Iterator[Row]:
    with holdfast.open(url) as store:
        delays, appends, idle = between_processes(store, url, bench.scaled(500, 10), bench.scaled(4, 1))
    what = f"from an append to a tail in another process, {name}"
    for figure, mine, its, goal in (
        ("p50", delays.p50, appends.p50, goals[0]),
        ("p99", delays.p99, appends.p99, goals[1]),
    ):
        alone = f"the append alone {seconds(its)}"
        yield Row(f"{what}, {figure}", seconds(mine), alone, mine / its, f"≤ {seconds(goal)}", mine <= goal)
    yield Row(f"a tail that waits, {name}: share of a core", f"{idle:.2%}", "–", None, f"≤ {IDLE:.0%}", idle <= IDLE)


def between_processes(store: Store, url: str, count: int, idle: float) -> tuple[Sample, Sample, float]:
    """What so many appends took to arrive, and to return; and the reader's share of a core while none came."""
    session = store.session("s")
    session.append(note("begin"))
    command = [sys.executable, "-c", READER, url, str(idle)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        try:
            assert reader.stdout is not None
            rested = json.loads(reader.stdout.readline())["idle"]
            delays: list[float] = []
            appends: list[float] = []
            for number in range(count):
                time.sleep(0.004 + number % 23 / 1000)  # at another moment of whatever looks now and then
                began = time.monotonic()
                session.append(note(str(number)))
                appends.append(time.monotonic() - began)
                told = json.loads(reader.stdout.readline())
                assert told["what"] == str(number), told
                delays.append(told["at"] - began)
        finally:
            reader.kill()
    return sample([delays]), sample([appends]), rested
