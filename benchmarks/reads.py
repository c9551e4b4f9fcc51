"""Loading a session whole, and its last messages, against reading the rows and decoding their JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle

from benchmarks import ours, peers
from benchmarks.bench import Bench
from benchmarks.floor import Bare
from benchmarks.measure import interleaved, repeated, timed
from benchmarks.rows import Row, at_most, not_run, times

LAST = 50


def load(bench: Bench) -> Iterator[Row]:
    """10,000 messages."""
    (size,) = bench.sizes([10_000])
    mine, bare = bench.filled(size)
    what = "load 10,000 messages"
    table = Bare(bare)
    with ours.store(mine) as store:
        session = store.session("s")
        samples = interleaved(
            {
                "messages": timed(session.messages),
                "events": timed(lambda: list(session.events())),
                "bare": timed(lambda: table.load("s")),
            },
            bench.scaled(15, 2),
        )
    table.close()
    yield at_most(what, samples["messages"].p50, samples["bare"].p50, 1.5, "bare rows + JSON")
    yield at_most(what + " as events", samples["events"].p50, samples["bare"].p50, None, "bare rows + JSON")
    yield from _peers(bench, what, size, None, samples["messages"].p50)


def last(bench: Bench) -> Iterator[Row]:
    """The last 50 of 10,000 and of 100,000."""
    names = (10_000, 100_000)
    mine: list[float] = []
    ratios: list[float] = []
    for name, size in zip(names, bench.sizes(names), strict=True):
        path, bare = bench.filled(size)
        table = Bare(bare)
        with ours.store(path) as store:
            session = store.session("s")
            samples = interleaved(
                {
                    "holdfast": repeated(lambda session=session: session.messages(last=LAST), 10),
                    "bare": repeated(lambda table=table: table.newest("s", LAST), 10),
                    "page": repeated(
                        _pages(size, lambda at, session=session: list(session.events(after=at, before=at + LAST + 1))),
                        10,
                    ),
                    "bare page": repeated(_pages(size, lambda at, table=table: table.page("s", at, LAST)), 10),
                },
                bench.scaled(30, 2),
            )
        table.close()
        mine.append(samples["holdfast"].p50)
        ratios.append(mine[-1] / samples["bare"].p50)
        what = f"last {LAST} of {name:,} messages"
        yield at_most(what, mine[-1], samples["bare"].p50, 3, "bare rows + JSON")
        what = f"{LAST} of {name:,} events, at another place each time"
        yield at_most(what, samples["page"].p50, samples["bare page"].p50, None, "bare rows + JSON")
    # Some of the last messages are long: what grows with the session is told by the same messages read bare.
    what = f"last {LAST} of 100,000 ÷ of 10,000, each against the bare read of the same"
    yield at_most(what, ratios[1], ratios[0], 1.2, "of 10,000", times)
    yield from _peers(bench, f"last {LAST} of 10,000 messages", bench.sizes(names)[0], LAST, mine[0])


def _pages(size: int, read: Callable[[int], object]) -> Callable[[], object]:
    """Reads behind one place after the other, so that what was read is not what is read next."""
    places = cycle(range(0, max(size - LAST, 1), LAST))
    return lambda: read(next(places))


def _peers(bench: Bench, what: str, size: int, last: int | None, mine: float) -> Iterator[Row]:
    found, missing = peers.installed(bench.path)
    for peer in found:
        if peer.name == "google-adk":
            size = min(size, 500)  # it takes milliseconds for each append
        loop = peers.Loop()
        loop.run(_fill(peer, bench, size))
        sample = interleaved({"peer": timed(lambda p=peer, o=loop: o.run(p.load("s", last)))}, bench.scaled(7, 1))
        loop.run(peer.close())
        loop.close()
        name = peer.name if size != 500 else f"{peer.name} with 500 messages"
        yield at_most(what, mine, sample["peer"].p50, None, name)
    for why in missing:
        yield not_run(what, why)


async def _fill(peer: peers.Peer, bench: Bench, size: int) -> None:
    if isinstance(peer, peers.OpenAIAgents):
        await peer.extend("s", bench.corpus.said(size))
    else:
        await peers.burst(peer, "s", bench.corpus.said(size))
