"""Search over 200,000 messages against bare FTS5, and what an index costs those who append.

Bare FTS5 is a table of messages with a contentless index beside it: MATCH, best 20 by rank, their rows and JSON. It
makes no snippets, keeps no identifiers split, and folds no accents but its own; ours does, and pays for it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from benchmarks import ours
from benchmarks.bench import Bench
from benchmarks.corpus import Said
from benchmarks.floor import Bare, decode
from benchmarks.measure import Sample, interleaved, sample, timed
from benchmarks.rows import Row, at_most
from holdfast import Session, Store

LIMIT = 20
RARE = "zygomorphic"
"""A word that the corpus lacks; it is put into one message of 20,000."""
QUERIES = {"rare word": RARE, "common word": "return", "phrase": '"the default"'}
_FTS = "CREATE VIRTUAL TABLE fts USING fts5(text, content='')"
_FIND = (
    "SELECT m.session, m.seq, m.body, fts.rank FROM fts JOIN message m ON m.n = fts.rowid "
    "WHERE fts MATCH ? ORDER BY fts.rank LIMIT ?"
)


class BareSearch(Bare):
    """A bare table with an FTS5 index."""

    def index(self) -> int:
        """Take in what is not indexed, a thousand rows a transaction."""
        self.db.execute(_FTS)
        done = 0
        while rows := self.db.execute(
            "SELECT n, body FROM message WHERE n > ? ORDER BY n LIMIT 1000", (done,)
        ).fetchall():
            self.db.execute("BEGIN IMMEDIATE")
            words = [(n, decode(body)["content"]) for n, body in rows]
            self.db.executemany("INSERT INTO fts (rowid, text) VALUES (?, ?)", words)
            self.db.execute("COMMIT")
            done = rows[-1][0]
        return done

    def find(self, query: str) -> list[object]:
        """The best, decoded."""
        return [decode(row[2]) for row in self.db.execute(_FIND, (query, LIMIT)).fetchall()]


def run(bench: Bench) -> Iterator[Row]:
    """Build both indexes, then ask both in turns."""
    count = bench.scaled(200_000, 2_000)
    table = BareSearch(bench.path("bare.db"), durable=False)
    with ours.no_background(), ours.store(bench.path("holdfast.db"), "process") as store:
        _fill(bench, store, table, count)
        start = time.perf_counter()
        assert store.index() == count
        middle = time.perf_counter()
        table.index()
        end = time.perf_counter()
        yield at_most(
            "index, for each message", (middle - start) / count, (end - middle) / count, None, "bare FTS5",
            note=f"{count:,} messages in batches",
        )  # fmt: skip
        for name, query in QUERIES.items():
            samples = interleaved(
                {
                    "holdfast": timed(lambda q=query: store.search(q, limit=LIMIT)),
                    "bare": timed(lambda q=query: table.find(q)),
                },
                bench.scaled(11, 2),
            )
            what = f"search {200_000:,} messages, {name}"
            yield at_most(what, samples["holdfast"].p50, samples["bare"].p50, 2, "bare FTS5")
    table.close()


def _fill(bench: Bench, store: Store, table: Bare, count: int) -> None:
    for number, said in enumerate(bench.corpus.batches(count, 1000)):
        if number % 20 == 0:
            said[0] = Said(said[0].role, f"{said[0].text} {RARE}")
        session = store.session(f"s{number}")
        ours.extend(session, said)
        table.extend(f"s{number}", said)


def appends(bench: Bench) -> Iterator[Row]:
    """Appends with an index that is fed beside a recording, by a search now and then, by one every 200 ms, or never."""
    count = bench.scaled(2_000, 400)
    for durability in ("disk", "process"):
        what = f"append with the index on ÷ off, durability {durability}"
        with _pair(bench, durability) as (plain, indexed):
            off, on = _beside_background(bench, plain, indexed, bench.scaled(20_000, 1_000))
        note = f"p50 {on.p50 / off.p50:.2f}; fed by a thread beside a recording of 20,000"
        yield at_most(what + ": mean of the call", on.mean, off.mean, 1.3, "off", note=note)
        with ours.no_background(), _pair(bench, durability) as (plain, indexed):
            off, on, indexing = _in_turns(bench, plain, indexed, count)
        yield at_most(what + ": mean of the call, a search after every 200", on.mean, off.mean, 1.3, "off")
        yield at_most(what + ": the same + its share of the search", on.mean + indexing, off.mean, 1.3, "off")
        with ours.no_background(), _pair(bench, durability) as (plain, indexed):
            off, on = _beside_searches(bench, plain, indexed, count)
        note = f"p99 {on.p99 * 1e3:.1f} ms, off {off.p99 * 1e3:.1f} ms"
        yield at_most(what + ": while a thread searches every 200 ms", on.mean, off.mean, None, "off", note=note)


@contextlib.contextmanager
def _pair(bench: Bench, durability: str) -> Iterator[tuple[Store, Store]]:
    """Two stores, of which the second has an index; the logs of both have their full length."""
    with (
        ours.store(bench.path("plain.db"), durability) as plain,
        ours.store(bench.path("indexed.db"), durability) as indexed,
    ):
        for store in (plain, indexed):
            ours.extend(store.session("s"), bench.corpus.said(4_000))
        indexed.index()
        yield plain, indexed


def _beside_background(bench: Bench, plain: Store, indexed: Store, count: int) -> tuple[Sample, Sample]:
    """Bursts of 500 in turns; only the second store feeds its index."""
    sessions = plain.session("s"), indexed.session("s")
    offs: list[list[float]] = []
    ons: list[list[float]] = []
    for _ in range(count // 500):
        said = bench.corpus.said(500)
        with ours.no_background():
            offs.append(_appends(sessions[0], said))
        ons.append(_appends(sessions[1], said))
    return sample(offs), sample(ons)


def _in_turns(bench: Bench, plain: Store, indexed: Store, count: int) -> tuple[Sample, Sample, float]:
    """Bursts of 200: off, on; the seconds of the search behind each burst are counted by themselves."""
    offs: list[list[float]] = []
    ons: list[list[float]] = []
    indexing = 0.0
    sessions = plain.session("s"), indexed.session("s")
    for turn in range(max(2, count // 200)):
        said = bench.corpus.said(200)
        offs.append(_appends(sessions[0], said))
        ons.append(_appends(sessions[1], said))
        start = time.perf_counter()
        indexed.search(RARE)
        indexing += time.perf_counter() - start if turn else 0
    return sample(offs[1:]), sample(ons[1:]), indexing / (200 * (len(ons) - 1))


def _beside_searches(bench: Bench, plain: Store, indexed: Store, count: int) -> tuple[Sample, Sample]:
    said = bench.corpus.said(count)
    sessions = plain.session("s"), indexed.session("s")
    off = _appends(sessions[0], said)
    with _Repeating(lambda: indexed.search(RARE), 0.2):
        on = _appends(sessions[1], said)
    return sample([off]), sample([on])


def _appends(session: Session, said: Sequence[Said]) -> list[float]:
    return [timed(lambda one=one: session.append(ours.payload(one)))()[0] for one in said]


class _Repeating:
    """A thread that makes a call again and again, with a pause."""

    def __init__(self, call: Callable[[], object], pause: float) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(call, pause))

    def _run(self, call: Callable[[], object], pause: float) -> None:
        while not self._stop.wait(pause):
            call()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
