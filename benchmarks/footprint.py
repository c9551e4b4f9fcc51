"""What a store takes for each session and each event, by backend: bytes on disk or in memory, and bytes written.

Sessions are made first, then each gets 20 of the benchmark's messages, then all are indexed for search; what the store
weighs is compared before and after each. `docs/SCALING.md` reckons with these.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import holdfast
from benchmarks import ours
from benchmarks.bench import Bench
from benchmarks.floor import encode
from benchmarks.onservers import NotHereError
from benchmarks.rows import Row, at_most, not_run
from holdfast import Store

EVENTS = 20
"""Events of a session."""
APPENDS = 500
"""Single appends whose writes are counted."""
Weigh = Callable[[], dict[str, float]]
"""Bytes of the parts of a store."""


def run(bench: Bench) -> Iterator[Row]:
    """All backends that are here."""
    for name, measure in (("SQLite", _sqlite), ("PostgreSQL", _postgres), ("Redis", _redis)):
        try:
            yield from measure(bench)
        except NotHereError as error:
            yield not_run(f"{name}: bytes a session and an event", str(error))


def _grown(bench: Bench, name: str, store: Store, weigh: Weigh, *, indexes: bool = True) -> Iterator[Row]:
    """Fill a store step by step, and say what each step weighs."""
    count = bench.scaled(1000, 20)
    empty = weigh()
    sessions = [
        store.create(f"0198c0de-0000-7000-8000-{n:012d}", title=bench.corpus.one().text[:40], agent="support")
        for n in range(count)
    ]
    with_sessions = weigh()
    plain = 0
    for session in sessions:
        said = bench.corpus.said(EVENTS)
        ours.extend(session, said)
        plain += sum(len(encode(one)) for one in said)
    with_events = weigh()
    events = count * EVENTS
    yield _taken(f"{name}: bytes a session without events", with_sessions, empty, count)
    taken = _taken(f"{name}: bytes an event", with_events, with_sessions, events)
    yield taken._replace(other=f"plain JSON {plain / events:,.0f} B")
    if indexes:
        store.index()
        yield _taken(f"{name}: bytes an event, for search", weigh(), with_events, events)


def _taken(what: str, after: dict[str, float], before: dict[str, float], count: int) -> Row:
    parts = {part: (size - before.get(part, 0)) / count for part, size in after.items()}
    told = ", ".join(f"{part} {size:,.0f}" for part, size in parts.items() if round(size))
    return Row(what, f"{sum(parts.values()):,.0f} B", "–", note=told if len(parts) > 1 else "")


def _sqlite(bench: Bench) -> Iterator[Row]:
    path = bench.path("holdfast.db")

    def weigh() -> dict[str, float]:
        pages, size = (db.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "page_size"))
        return {"file": pages * size}

    with (
        ours.no_background(),
        ours.store(path, "process") as store,
        contextlib.closing(sqlite3.connect(path)) as db,
    ):
        yield from _grown(bench, "SQLite", store, weigh)


def _postgres(bench: Bench) -> Iterator[Row]:
    import psycopg

    server = bench.servers.postgres
    tables = ("head", "tag", "entry", "words")
    with (
        psycopg.connect(server.conninfo(), autocommit=True) as db,
        holdfast.open(server.url("footprint")) as store,
    ):

        def weigh() -> dict[str, float]:
            db.execute("VACUUM ANALYZE")
            return {table: _number(db, "pg_total_relation_size(%s)", f"footprint.{table}") for table in tables}

        yield from _grown(bench, "PostgreSQL", store, weigh)
        db.execute("CHECKPOINT")  # what comes after one is larger: whole pages are logged at their first change
        session = store.session("written")
        before = _number(db, "pg_current_wal_lsn() - %s::pg_lsn", "0/0")
        for said in bench.corpus.said(APPENDS):
            session.append(ours.payload(said))
        logged = (_number(db, "pg_current_wal_lsn() - %s::pg_lsn", "0/0") - before) / APPENDS
        yield Row("PostgreSQL: bytes of write-ahead log for one append", f"{logged:,.0f} B", "–")
        pids = [row[0] for row in db.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'holdfast'")]
    private = [_private(pid) for pid in pids]
    if private:
        yield Row("PostgreSQL: memory of a connection", f"{max(private) / 2**20:.1f} MiB", "–", note="its own, at most")


def _number(db: Any, what: str, value: str) -> float:
    return float(db.execute(f"SELECT {what}", (value,)).fetchone()[0])


def _private(pid: int) -> int:
    """Bytes of memory that no other process shares."""
    try:
        told = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return 1024 * sum(int(size) for size in re.findall(r"^Private_\w+: +(\d+) kB", told, re.MULTILINE))


def _redis(bench: Bench) -> Iterator[Row]:
    server = bench.servers.unsynced_redis
    with server.client() as client, holdfast.open(server.url(durability="process", prefix="f", blobs="redis")) as store:

        def weigh() -> dict[str, float]:
            found = Counter[str]()
            for key in client.scan_iter("f:*", 1000):
                what = key.decode().split(":")[2] if key.count(b":") > 1 else "store"
                used = client.memory_usage(key, samples=0)
                found[what if what in ("head", "log", "blob") else "lists"] += used or 0
            found["server"] = client.info("memory")["used_memory"] - found.total()
            return dict(found)

        yield from _grown(bench, "Redis", store, weigh, indexes=False)
    server = bench.servers.redis
    with server.client() as client, holdfast.open(server.url(blobs="redis")) as store:
        session = store.session("written")
        before = client.info("persistence")["aof_current_size"]
        said = bench.corpus.said(APPENDS)
        for one in said:
            session.append(ours.payload(one))
        logged = (client.info("persistence")["aof_current_size"] - before) / APPENDS
        plain = sum(len(encode(one)) for one in said) / APPENDS
        yield at_most("Redis: bytes of append-only file for one append", logged, plain, None, "plain JSON", _bytes)


def _bytes(value: float) -> str:
    return f"{value:,.0f} B"
