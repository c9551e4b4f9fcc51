"""What to send to the model, of the last 8,000 tokens, and forks: the same in a long session as in a short one."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import holdfast
from benchmarks import ours
from benchmarks.bench import Bench
from benchmarks.measure import Burst, interleaved, repeated
from benchmarks.rows import Row, at_most, times
from holdfast import Session

ROOM = 8000
EXTRA = 1.5
TURN = 6
"""Messages that are appended together."""


def context(bench: Bench) -> Iterator[Row]:
    """In sessions of 1,000 and of 100,000 messages, against reading and decoding those messages alone."""
    names = (1_000, 100_000)
    ratios: list[float] = []
    for name, size in zip(names, bench.sizes(names), strict=True):
        path, _ = bench.filled(size)
        with ours.store(path) as store:
            session = store.session("s")
            made = session.context(ROOM)
            sent = len(made.messages)
            samples = interleaved(
                {
                    "context": repeated(lambda session=session: session.context(ROOM), 10),
                    "messages": repeated(lambda session=session, sent=sent: session.messages(last=sent), 10),
                },
                bench.scaled(30, 2),
            )
        mine, read = samples["context"].p50, samples["messages"].p50
        ratios.append(mine / read)
        what = f"context of the last {ROOM:,} tokens of {name:,} messages"
        yield at_most(what, mine, read, None, f"its {sent} messages alone")
    what = f"context of the last {ROOM:,} tokens of 100,000 messages ÷ of 1,000, each against its messages alone"
    yield at_most(what, ratios[1], ratios[0], EXTRA, "of 1,000", times)


def fork(bench: Bench) -> Iterator[Row]:
    """A fork of a session of 100,000 messages ÷ of 10, at its end and around its middle, on each engine."""
    few, many = bench.sizes([10, 100_000])
    for engine in ("sqlite", "files", "memory"):
        with _recorded(bench, engine, few) as short, _recorded(bench, engine, many) as long:
            for where in ("at the end", "in the middle"):
                # Both stores get as many forks, and the disk says the same to both.
                samples = interleaved(
                    {"of 10": _forks(short, where), "of 100,000": _forks(long, where)},
                    bench.scaled(30, 2),
                    settle=engine != "memory",
                )
                what = f"fork {where} of a session of 100,000 messages ÷ of 10, {engine}"
                yield at_most(what, samples["of 100,000"].p50, samples["of 10"].p50, EXTRA, "of 10")


@contextlib.contextmanager
def _recorded(bench: Bench, engine: str, count: int) -> Iterator[Session]:
    """A session of so many messages, which were appended some at a time, as turns do; synced from now on."""
    url = {"sqlite": ours.url(bench.path("f.db"), "%"), "files": f"file://{bench.path('f').as_posix()}?durability=%"}
    where = url.get(engine, "memory://")
    with holdfast.open(where.replace("%", "process")) as store:
        session = store.session("s")
        for said in bench.corpus.batches(count):
            for start in range(0, len(said), TURN):
                ours.extend(session, said[start : start + TURN])
        if engine == "memory":
            yield session
            return
    with holdfast.open(where.replace("%", "disk")) as store:
        yield store.session("s")


def _forks(session: Session, where: str) -> Burst:
    """Forks in a row; those in the middle at places that are in no step with anything."""
    last = session.last
    middle = itertools.cycle([last // 2 + place * last // 10_000 for place in range(-199, 200, 19)])
    return repeated(lambda: session.fork(at=None if where == "at the end" else next(middle)), 20)
