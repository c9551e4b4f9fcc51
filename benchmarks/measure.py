"""How things are timed: contestants take turns in short bursts, and a figure is the median of the bursts' medians.

So a machine that is slow for a while is slow for all, and one bad burst moves nothing.
"""

from __future__ import annotations

import gc
import os
import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

Burst = Callable[[], list[float]]
"""One turn of a contestant: the seconds that each of its operations took."""


class Sample(NamedTuple):
    """What a contestant's turns came to, in seconds. `rate`: operations a second, the median over its turns."""

    p50: float
    p99: float
    mean: float
    count: int
    rate: float


def interleaved(
    contestants: Mapping[str, Burst], rounds: int, *, warm: int = 1, settle: bool = False
) -> dict[str, Sample]:
    """Let the contestants take turns, in another order each round; the first `warm` rounds do not count.

    With `settle` each turn begins with nothing left to write: a sync of one file may wait for what others wrote.
    """
    bursts: dict[str, list[list[float]]] = {name: [] for name in contestants}
    order = list(contestants)
    shuffle = random.Random(1).shuffle
    for round_ in range(rounds + warm):
        shuffle(order)
        gc.collect()
        for name in order:
            if settle and hasattr(os, "sync"):
                os.sync()
            times = contestants[name]()
            if round_ >= warm:
                bursts[name].append(times)
    return {name: sample(bursts[name]) for name in contestants}


def sample(bursts: list[list[float]]) -> Sample:
    """Bursts of one contestant as one figure."""
    every = sorted(t for burst in bursts for t in burst)
    return Sample(
        p50=statistics.median(statistics.median(burst) for burst in bursts),
        p99=every[min(len(every) - 1, len(every) * 99 // 100)],
        mean=statistics.median(statistics.fmean(burst) for burst in bursts),
        count=len(every),
        rate=statistics.median(len(burst) / sum(burst) for burst in bursts),
    )


def timed(call: Callable[[], object]) -> Burst:
    """A burst of one call."""

    def burst() -> list[float]:
        start = time.perf_counter()
        call()
        return [time.perf_counter() - start]

    return burst


def repeated(call: Callable[[], object], times: int) -> Burst:
    """A burst of several calls, each timed."""

    def burst() -> list[float]:
        found: list[float] = []
        for _ in range(times):
            start = time.perf_counter()
            call()
            found.append(time.perf_counter() - start)
        return found

    return burst
