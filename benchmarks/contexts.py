"""What to send to the model, of the last 8,000 tokens, and forks: the same in a long session as in a short one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from benchmarks import ours
from benchmarks.bench import Bench
from benchmarks.measure import interleaved, repeated
from benchmarks.rows import Row, at_most, times

ROOM = 8000
EXTRA = 1.5


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
    """A fork of a session of 100,000 messages ÷ of 10."""
    # Copies, as other cases measure what was filled.
    small, large = (shutil.copy(bench.filled(size)[0], bench.path("forked.db")) for size in bench.sizes([10, 100_000]))
    with ours.store(small) as few, ours.store(large) as many:
        short, long = few.session("s"), many.session("s")
        # Both stores get as many forks, and the disk says the same to both.
        samples = interleaved(
            {"of 10": repeated(short.fork, 20), "of 100,000": repeated(long.fork, 20)}, bench.scaled(30, 2), settle=True
        )
    what = "fork of a session of 100,000 messages ÷ of 10"
    yield at_most(what, samples["of 100,000"].p50, samples["of 10"].p50, EXTRA, "of 10")
