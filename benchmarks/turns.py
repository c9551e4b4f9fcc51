"""A turn's beginning and end, against single appends of the same store: both are commits, two of them."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import ours
from benchmarks.bench import Bench
from benchmarks.measure import interleaved, repeated
from benchmarks.rows import Row, at_most
from holdfast import note

COMMITS = 4
"""What a turn may cost, in commits."""


def run(bench: Bench) -> Iterator[Row]:
    """Begin and end a turn in which nothing is done."""
    with ours.store(bench.path("turns.db")) as store:
        session, other = store.session("s"), store.session("t")

        def turn() -> None:
            with session.turn():
                pass

        samples = interleaved(
            {"turn": repeated(turn, 20), "append": repeated(lambda: other.append(note("one")), 20)},
            bench.scaled(30, 2),
            settle=True,
        )
    what = "begin and end a turn, on disk"
    yield at_most(what, samples["turn"].p50, samples["append"].p50, COMMITS, "one append")
