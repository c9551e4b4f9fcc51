"""The plain floor on PostgreSQL: the same rows as ours, written and read with bare psycopg by someone in an afternoon.

A row for the event and one for its session, which says how far it is and when it was used last, with the index that a
list needs. Bodies are JSON by msgspec, uncompressed. It has no checksums, keys, tags or titles.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Any

import psycopg

from benchmarks.corpus import Said
from benchmarks.floor import decode, encode

_TABLES = """
DROP SCHEMA IF EXISTS bare CASCADE;
CREATE SCHEMA bare;
CREATE TABLE bare.event (session text, seq bigint, at bigint, body bytea, PRIMARY KEY (session, seq));
CREATE TABLE bare.session (id text PRIMARY KEY, title text, messages bigint, at bigint);
CREATE INDEX ON bare.session (at);
"""
_EVENT = "INSERT INTO bare.event VALUES (%s, %s, %s, %s)"
_SESSION = "UPDATE bare.session SET messages = %s, at = %s WHERE id = %s"
_LISTED = "SELECT id, title, messages, at FROM bare.session ORDER BY at DESC LIMIT %s"


class Bare:
    """Events in new bare tables. What is repeated is prepared, as psycopg does by itself; reads are no transactions."""

    def __init__(self, conninfo: str) -> None:
        self.db = psycopg.connect(conninfo)
        self.db.execute(_TABLES.encode())
        self.db.commit()
        self._reads = psycopg.connect(conninfo, autocommit=True)
        self._seqs: dict[str, int] = {}

    def begin(self, *sessions: str) -> None:
        """Make rows of sessions."""
        with self.db.cursor() as cursor:
            cursor.executemany("INSERT INTO bare.session VALUES (%s, '', 0, 0)", [(id,) for id in sessions])
        self.db.commit()

    def rows(self, id: str, said: Said) -> tuple[tuple[object, ...], tuple[object, ...]]:
        """What the next event of a session writes into its two tables."""
        seq = self._seqs[id] = self._seqs.get(id, 0) + 1
        at = time.time_ns() // 1000
        return (id, seq, at, encode(said)), (seq, at, id)

    def append(self, id: str, said: Said) -> None:
        """Insert, update and commit: a round trip each."""
        event, session = self.rows(id, said)
        self.db.execute(_EVENT, event)
        self.db.execute(_SESSION, session)
        self.db.commit()

    def pipelined(self, id: str, said: Said) -> None:
        """The same, sent together: one round trip."""
        event, session = self.rows(id, said)
        with self.db.pipeline():
            self.db.execute(_EVENT, event)
            self.db.execute(_SESSION, session)
            self.db.commit()

    def copy(self, id: str, said: Sequence[Said]) -> None:
        """Many at once, by COPY, and commit."""
        with self.db.cursor() as cursor, cursor.copy("COPY bare.event FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["text", "int8", "int8", "bytea"])
            session: tuple[object, ...] = ()
            for one in said:
                event, session = self.rows(id, one)
                copy.write_row(event)
        self.db.execute(_SESSION, session)
        self.db.commit()

    def load(self, id: str) -> list[object]:
        """Every event, decoded."""
        sql = "SELECT seq, at, body FROM bare.event WHERE session = %s ORDER BY seq"
        return self._decoded(sql, (id,))

    def newest(self, id: str, count: int) -> list[object]:
        """The last events, decoded."""
        sql = "SELECT seq, at, body FROM bare.event WHERE session = %s ORDER BY seq DESC LIMIT %s"
        return self._decoded(sql, (id, count))[::-1]

    def _decoded(self, sql: str, values: Sequence[object]) -> list[object]:
        rows = self._reads.execute(sql.encode(), values, binary=True).fetchall()
        return [decode(row[2]) for row in rows]

    def listed(self, sessions: Iterable[tuple[str, str, int, int]]) -> None:
        """Take in rows of sessions."""
        with self.db.cursor() as cursor, cursor.copy("COPY bare.session FROM STDIN") as copy:
            for row in sessions:
                copy.write_row(row)
        self.db.commit()

    def sessions(self, count: int) -> list[tuple[Any, ...]]:
        """The newest."""
        return self._reads.execute(_LISTED, (count,), binary=True).fetchall()

    def index(self) -> None:
        """The words of every event that is there, by a GIN index over `tsvector`."""
        self.db.execute(
            "CREATE TABLE bare.words AS SELECT session, seq, to_tsvector('simple', "
            "convert_from(body, 'UTF8')::jsonb ->> 'content') AS words FROM bare.event"
        )
        self.db.execute("ALTER TABLE bare.words ADD PRIMARY KEY (session, seq)")
        self.db.execute("CREATE INDEX ON bare.words USING gin (words)")
        self.db.commit()

    def find(self, query: str, count: int) -> list[object]:
        """The best that match, decoded."""
        sql = (
            "SELECT e.session, e.seq, e.body, ts_rank(w.words, q.q, 2) AS score FROM "
            "(SELECT phraseto_tsquery('simple', %s) AS q) AS q JOIN bare.words w ON w.words @@ q.q "
            "JOIN bare.event e ON e.session = w.session AND e.seq = w.seq ORDER BY score DESC LIMIT %s"
        )
        return self._decoded(sql, (query, count))

    def settle(self) -> None:
        """Have the planner know the tables, and the server write what waits."""
        self._reads.execute("VACUUM ANALYZE")
        self._reads.execute("CHECKPOINT")

    def close(self) -> None:
        """Close the connections."""
        self.db.close()
        self._reads.close()


class Pool:
    """Bare appends from many tasks over a few connections, a transaction each: what most programs do."""

    name = "bare psycopg, 10 connections"

    def __init__(self, bare: Bare, conninfo: str) -> None:
        self._bare = bare
        self._conninfo = conninfo
        self._idle: asyncio.Queue[psycopg.AsyncConnection[Any]] = asyncio.Queue()

    async def open(self) -> None:
        """Connect."""
        for _ in range(10):
            self._idle.put_nowait(await psycopg.AsyncConnection.connect(self._conninfo))

    async def append(self, id: str, said: Said) -> None:
        """Insert, update and commit."""
        db = await self._idle.get()
        try:
            event, session = self._bare.rows(id, said)
            await db.execute(_EVENT, event)
            await db.execute(_SESSION, session)
            await db.commit()
        finally:
            self._idle.put_nowait(db)

    async def close(self) -> None:
        """Close the connections."""
        while not self._idle.empty():
            await self._idle.get_nowait().close()
