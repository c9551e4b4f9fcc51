"""What a server parses once for each connection: statements that are prepared under names made of their text.

A pooler may give each transaction another server's session, with what others prepared there. As the name tells the
text, whatever stands under it is the same statement, whoever prepared it. If a name is not there any more, or is there
already, a pooler that knows nothing of prepared statements stands between (PgBouncer before 1.21): no more is prepared.
"""

from __future__ import annotations

import re
import select
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from itertools import count
from typing import Any

import psycopg
from psycopg import generators, pq
from psycopg.adapt import Transformer

MOST = 64
"""Statements that a connection keeps prepared at the most."""
_BINARY = 1
_REFUSED = ("26000", "42P05")
"""SQLSTATEs of a name that is not there, and of one that is there already."""


class Prepared:
    """The prepared statements of one connection. It has to be outside of any transaction, and nobody else's."""

    def __init__(self, db: psycopg.Connection[Any]) -> None:
        self._db = db
        self._pg = db.pgconn
        self._rows = Transformer(db)
        self._ready = select.poll()
        self._ready.register(self._pg.socket, select.POLLIN)
        self._met: set[bytes] = set()
        self._names: set[bytes] = set()
        self.works = True
        """False once a pooler was met that can't have it."""

    def told(self) -> bool:
        """Whether the connection ended, or the server said something that nobody asked for."""
        return bool(self._ready.poll(0))

    def read(self, sql: str, values: Sequence[str | int]) -> list[tuple[Any, ...]] | None:
        """The rows of a query, whose values' types are told by where they stand; None if it was not answered.

        Whoever is told None asks without preparing, and learns why. What a connection is asked once is not prepared.
        """
        name, text = _statement(sql)
        if name not in self._names and not self._prepare(name, text):
            return None
        given = [str(value).encode() for value in values]
        if any(b"\0" in value for value in given):
            return None  # the value would end there
        self._pg.send_query_prepared(name, given, None, _BINARY)
        result = self._answer()
        if result is None or result.status != pq.ExecStatus.TUPLES_OK:
            self._refused(result)
            return None
        self._rows.set_pgresult(result)
        return self._rows.load_rows(0, result.ntuples, tuple)

    def prepare(self, sql: bytes, types: Sequence[int]) -> None:
        """Prepare what is about to be called, unless it is called for the first time.

        Raises:
            psycopg.Error: the connection ended.
        """
        name = _name(sql)
        if self.works and name not in self._names:
            self._prepare(name, sql, types)

    def call(self, sql: bytes, values: Sequence[bytes]) -> bool:
        """Execute what was prepared and returns nothing of use, on packed values.

        Returns:
            False if it was not prepared, and so was not executed.

        Raises:
            psycopg.Error: it failed, or the connection ended.
        """
        name = _name(sql)
        if name not in self._names:
            return False
        self._pg.send_query_prepared(name, list(values), [_BINARY] * len(values), _BINARY)  # a list: psycopg 3.2
        for result in self._db.wait(generators.execute(self._pg)):
            if result.status == pq.ExecStatus.FATAL_ERROR:
                self._refused(result)
                if not self.works:
                    return False  # there was nothing by that name, so nothing was done
                raise psycopg.errors.error_from_result(result)
        return True

    def _prepare(self, name: bytes, text: bytes, types: Sequence[int] | None = None) -> bool:
        if name not in self._met:
            if len(self._met) < MOST:
                self._met.add(name)
            return False
        self._pg.send_prepare(name, text, None if types is None else list(types))
        result = self._answer()
        if result is None or result.status != pq.ExecStatus.COMMAND_OK:
            self._refused(result)
            return False
        self._names.add(name)
        return True

    def _refused(self, result: pq.abc.PGresult | None) -> None:
        state = result.error_field(pq.DiagnosticField.SQLSTATE) if result is not None else None
        if state is not None and state.decode() in _REFUSED:
            self.works = False

    def _answer(self) -> pq.abc.PGresult | None:
        """Wait for the answer, in a way that a signal can end."""
        pg = self._pg
        while pg.flush():
            self._ready.poll(10)
        answer: pq.abc.PGresult | None = None
        while True:
            while pg.is_busy():
                self._ready.poll()
                pg.consume_input()
            result = pg.get_result()
            if result is None:
                return answer
            answer = result


@lru_cache(256)
def _statement(sql: str) -> tuple[bytes, bytes]:
    """A statement's name, and its text as the server takes it."""
    numbers = count(1)
    text = re.sub("%s", lambda _: f"${next(numbers)}", sql).encode()
    return _name(text), text


@lru_cache(256)
def _name(text: bytes) -> bytes:
    return f"holdfast_{sha256(text).hexdigest()[:32]}".encode()
