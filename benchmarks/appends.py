"""One writer, one message at a time: at both durabilities against the floor and the peers, and in long sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import ours, peers
from benchmarks.bench import Bench
from benchmarks.corpus import Said
from benchmarks.floor import Bare, Log
from benchmarks.measure import Burst, Sample, interleaved, repeated, timed
from benchmarks.rows import Row, at_most, not_run
from holdfast import Session

BURST = 20
FILLED = 5000
"""Messages in a database before the contest: more than SQLite's log holds before it begins anew."""


class Contest:
    """Contestants that append the same kind of messages, and what has to be closed when they are done."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._closing: list[Callable[[], object]] = []
        self.bursts: dict[str, Burst] = {}

    def add(self, name: str, append: Callable[[Said], object], close: Callable[[], object] | None = None) -> None:
        """A contestant that appends one message by one call."""
        if close is not None:
            self._closing.append(close)
        corpus = self._bench.corpus

        def burst() -> list[float]:
            return [timed(lambda one=one: append(one))()[0] for one in corpus.said(BURST)]

        self.bursts[name] = burst

    def add_peer(self, peer: Any, filled: int = FILLED, count: int = BURST) -> None:
        """A peer, which is asynchronous: its burst runs inside its own event loop. It begins with `filled` messages."""
        loop = peers.Loop()
        loop.run(peer.open())

        def close() -> None:
            loop.run(peer.close())
            loop.close()

        self._closing.append(close)
        if filled and hasattr(peer, "extend"):
            loop.run(peer.extend("s", self._bench.corpus.said(filled)))
        self.bursts[peer.name] = lambda: loop.run(peers.burst(peer, "s", self._bench.corpus.said(count)))

    def run(self, rounds: int) -> dict[str, Sample]:
        """Let them take turns, then close them."""
        try:
            return interleaved(self.bursts, rounds, settle=True)
        finally:
            for close in self._closing:
                close()


def disk(bench: Bench) -> Iterator[Row]:
    """Every append synced to the disk."""
    rounds = bench.scaled(40, 3)
    what = "append one message, durability disk"
    found, missing = peers.installed(bench.path)
    contest = _contest(bench, "disk")
    for peer in found:
        contest.add_peer(peer)
    yield from rows_of(what, contest.run(rounds), "bare sqlite3", 1.5, ahead=True)
    yield from rows_of(what, _files(bench, "disk").run(rounds), "bare sqlite3", 1.5, ahead=True)
    for why in missing:
        yield not_run(what, why)


def process(bench: Bench) -> Iterator[Row]:
    """Safe against a crash of the process, synced now and then."""
    what = "append one message, durability process"
    for contest in (_contest(bench, "process"), _files(bench, "process")):
        yield from rows_of(what, contest.run(bench.scaled(40, 3)), "bare sqlite3", 3, ahead=False)


def _contest(bench: Bench, durability: str) -> Contest:
    """Ours and the floor, each with its write-ahead log at full length: it is reused from then on, as in daily life."""
    durable = durability == "disk"
    contest = Contest(bench)
    _add_ours(contest, bench, durability)
    bare = Bare(bench.path("bare.db"), durable=durable)
    bare.extend("s", bench.corpus.said(FILLED))
    contest.add("bare sqlite3", lambda said: bare.append("s", said), bare.close)
    return contest


def _add_ours(contest: Contest, bench: Bench, durability: str) -> None:
    store = ours.store(bench.path("holdfast.db"), durability)
    session = store.session("s")
    ours.extend(session, bench.corpus.said(FILLED))
    contest.add("holdfast", lambda said: session.append(ours.payload(said)), store.close)


def _files(bench: Bench, durability: str) -> Contest:
    """Ours and those that write plain files: by themselves, because what they leave to write holds up others' syncs."""
    durable = durability == "disk"
    contest = Contest(bench)
    _add_ours(contest, bench, durability)
    log = Log(bench.path("bare.jsonl"), durable=durable)
    contest.add("bare write" + (" + fdatasync" if durable else ""), log.append, log.close)
    lines = peers.Lines(bench.path("lines.jsonl"), durable=durable)
    contest.add("JSONL append" + (" + fsync" if durable else ""), lines.append, lines.close)
    document = peers.Rewrite(bench.path("document.json"), durable=durable)
    held = [peers.item(one) for one in bench.corpus.said(100)]

    def rewrite(said: Said) -> None:
        held.append(peers.item(said))
        document.save(held)

    contest.add(
        "whole-file JSON rewrite of 100 to 900 messages" + (" + fsync" if durable else ""), rewrite, document.close
    )
    return contest


def rows_of(what: str, samples: dict[str, Sample], floor: str, limit: float, *, ahead: bool) -> Iterator[Row]:
    """Against the floor with its goal; against each peer with the goal to be ahead, where there is one.

    A synced line is no peer's way (programs that append lines do not sync them): it informs, like a bare write.
    """
    mine = samples.pop("holdfast")
    for name, other in samples.items():
        goal = limit if name == floor else 1 if ahead and not name.startswith(("bare", "JSONL")) else None
        yield at_most(f"{what}, p50", mine.p50, other.p50, goal, name)
    if floor in samples:
        yield at_most(f"{what}, p99", mine.p99, samples[floor].p99, None, floor)


def growth(bench: Bench) -> Iterator[Row]:
    """The same append in a session of 10, of 10,000 and of 100,000 messages."""
    sizes = (10, 10_000, 100_000)
    for durability in ("disk", "process"):
        paths = [bench.filled(size)[0] for size in bench.sizes(sizes)]
        samples = _at_sizes(bench, paths, durability)
        for size, sample in zip(sizes[1:], samples[1:], strict=True):
            what = f"append at {size:,} messages ÷ at 10, durability {durability}, p50"
            yield at_most(what, sample.p50, samples[0].p50, 1.2, "at 10")


def _at_sizes(bench: Bench, paths: list[Path], durability: str) -> list[Sample]:
    stores = [ours.store(path, durability) for path in paths]
    try:
        bursts = {str(n): _appender(bench, s.session("s")) for n, s in enumerate(stores)}
        samples = interleaved(bursts, bench.scaled(60, 3))
    finally:
        for store in stores:
            store.close()
    return list(samples.values())


def _appender(bench: Bench, session: Session) -> Burst:
    def burst() -> list[float]:
        said = iter(bench.corpus.said(10))
        return repeated(lambda: session.append(ours.payload(next(said))), 10)()

    return burst
