"""The connections of one process to one PostgreSQL server, and what its errors mean.

A connection is lent for one operation and needs nothing that was left by the one before: no session lock, no setting,
and a statement that was prepared may be gone. So a pooler that gives each transaction another server's session may
stand between. Nobody pings: an idle connection that the server has closed has something to read, which is seen without
asking the server.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

import psycopg
from psycopg import generators, pq
from psycopg.rows import tuple_row

from holdfast import forks
from holdfast.backends.pgarrays import adapter_map
from holdfast.backends.pgprepared import Prepared
from holdfast.errors import Corrupt, HoldfastError, Invalid, ReadOnly, Unavailable, Uncertain
from holdfast.urls import Location

MAX_CONNECTIONS = 12
"""Connections that one store has at the most, beside those that hold a lock or listen."""
MAX_AGE = 600.0
"""Seconds after which a connection is made anew: its server may keep plans for tables that were small then."""
_FATAL = ("FATAL", "PANIC")
_RELAYED = "XX000"
"""The SQLSTATE that a distributed database may give any error of another of its servers."""
CLASH = "23505"
"""SQLSTATE of a row that is there already: another writer's, or damage where no other can be."""
_AGAIN = ("40001", "40P01", "HF409", CLASH)
"""SQLSTATEs of a transaction that did nothing, and may come to something if it is begun anew."""

_HINT = "look at host, port, user and database of the URL, or try again when the server is there"
_FEWER = "try again, or let a pooler share the connections"
_TLS = "look at sslmode, sslrootcert, sslcert and sslkey, and at the server's own certificate"
_HINTS = {
    "pg_hba.conf": "let this user in there, or name another",
    "password": "say the right one in the URL, PGPASSWORD or ~/.pgpass",
    "too many": _FEWER,
    "slots are reserved": _FEWER,
    "no more connections": _FEWER,
    "permission denied": "GRANT CONNECT on it to this user, or name another",
    "to log in": "let it (ALTER ROLE ... LOGIN), or name another user in the URL",
    "not currently accepting": "let it (ALTER DATABASE ... ALLOW_CONNECTIONS true), or name another behind the host",
    'database "': "make it, with ENCODING 'UTF8', or name another behind the host",
    'role "': "make it, or name another user in the URL",
    "certificate": _TLS,
    "private key": _TLS,
    "sslmode": _TLS,
    "not support SSL": "leave sslmode= away, or have the server speak TLS",
    "resolve host": "write postgresql://user@host:port/database",
}
"""What to do about a server that can't be connected to, by the first of these words in what libpq says of it."""

_EACH = re.compile(r"^- host: .*?, port: .*?, hostaddr: .*?: (.+)$", re.MULTILINE)
"""What psycopg says of each host, or address of one, where there are several."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection. `warned` is what the server warned of since it was last cleared, `made` when it was made."""

    warned: str = ""
    made: float
    prepared: Prepared

    def call(self, sql: bytes, values: Sequence[bytes], types: Sequence[int]) -> None:
        """Execute one statement that returns nothing of use, on packed values, by `prepared` if it is.

        A cursor finds out anew what each value is and how it goes over the wire, which takes longer than sending it.
        """
        if self.prepared.call(sql, values):
            return
        pgconn = self.pgconn
        formats = [pq.Format.BINARY] * len(values)
        pgconn.send_query_params(sql, list(values), list(types), formats, pq.Format.BINARY)  # lists: psycopg 3.2
        for result in self.wait(generators.execute(pgconn)):
            if result.status == pq.ExecStatus.FATAL_ERROR:
                raise psycopg.errors.error_from_result(result)

    def is_over(self) -> bool:
        """Whether it is old, or the server has closed it, or said something that nobody asked for."""
        return self.closed or time.monotonic() - self.made > MAX_AGE or self.prepared.told()


class Server:
    """The connections to the server that a URL names."""

    def __init__(self, where: Location, timeout: float) -> None:
        self.shown = where.url.partition("?")[0]
        self.timeout = timeout
        self._given = _given(where, timeout)
        self._adapters = _Context()
        self._closed = False
        self._prepares = True
        self.duty: Callable[[Connection], None] | None = None
        """Refuses a server that can't keep what the store promises; asked of each new connection."""
        self._start()
        forks.watch(self)

    def _start(self) -> None:
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._lent = 0
        self._free = threading.Condition()
        self._mine = threading.local()
        """How many connections a thread has (`count`)."""

    def connect(self) -> Connection:
        """A connection of its own, which the caller closes.

        Raises:
            Unavailable: the server can't be reached, or refuses, or is refused.
        """
        try:
            db = Connection.connect(**self._given, autocommit=True, prepare_threshold=None, context=self._adapters)
            try:
                if self.duty is not None:
                    self.duty(db)
            except BaseException:
                db.close()
                raise
        except psycopg.Error as error:
            raise self._refused(error) from error

        def warn(told: psycopg.errors.Diagnostic) -> None:
            if told.severity_nonlocalized == "WARNING":
                db.warned = told.message_primary or "a warning"

        db.add_notice_handler(warn)
        db.made, db.prepared = time.monotonic(), Prepared(db)
        self._open.add(db)
        return db

    @contextlib.contextmanager
    def lend(self) -> Generator[Connection]:
        """A connection for one operation, outside of any transaction.

        Raises:
            Unavailable: the store was closed, the server can't be reached, or all connections are in use.
        """
        db = self._take()
        try:
            yield db
        except BaseException:
            self._end_transaction(db)
            raise
        finally:
            self._give_back(db)

    def _take(self) -> Connection:
        mine = getattr(self._mine, "count", 0)
        with self._free:
            # Who has one and needs another (a search that reads a large value) does not wait: it would be for those who
            # may be waiting just so.
            if (
                not mine
                and self._lent >= MAX_CONNECTIONS
                and not self._free.wait_for(lambda: self._closed or self._lent < MAX_CONNECTIONS, self.timeout)
            ):
                raise Unavailable(f"all {MAX_CONNECTIONS} connections to {self.shown} are in use; try again")
            if self._closed:
                raise Unavailable(f"the store {self.shown} was closed")
            self._lent += 1
            self._mine.count = mine + 1
            while self._idle:
                db = self._idle.pop()
                if not db.is_over():
                    db.warned = ""
                    return db
                self.drop(db)
        try:
            return self.connect()
        except BaseException:
            with self._free:
                self._lent -= 1
                self._mine.count = mine
                self._free.notify()
            raise

    def _end_transaction(self, db: Connection) -> None:
        status = db.info.transaction_status
        if db.closed or status == pq.TransactionStatus.IDLE:
            return
        if status == pq.TransactionStatus.ACTIVE:
            db.close()  # interrupted amid an answer: the server undoes what was not committed
            return
        try:
            db.rollback()
        except psycopg.Error:
            db.close()

    def _give_back(self, db: Connection) -> None:
        with self._free:
            if db not in self._open:
                return  # of before a fork
            self._lent -= 1
            self._mine.count = max(getattr(self._mine, "count", 0) - 1, 0)  # another thread may have borrowed it
            full = self._lent >= MAX_CONNECTIONS
            if full or self._closed or db.closed or db.pgconn.transaction_status != pq.TransactionStatus.IDLE:
                self.drop(db)
            else:
                self._idle.append(db)
            self._free.notify()

    def drop(self, db: Connection) -> None:
        """Close a connection for good."""
        self._open.discard(db)
        db.close()

    @contextlib.contextmanager
    def guarded(self) -> Generator[Connection]:
        """`lend`, with the library's errors as ours."""
        try:
            with self.lend() as db:
                yield db
        except psycopg.Error as error:
            raise self.explain(error) from error

    def one(self, db: Connection, sql: str, values: Any = ()) -> tuple[Any, ...]:
        """The only row of a query."""
        return db.execute(sql.encode(), values, binary=True).fetchall()[0]

    def read(self, sql: str, values: Any = ()) -> list[tuple[Any, ...]]:
        """The rows of a query. As reading changes nothing, it is tried once more on another connection."""
        try:
            with self.lend() as db:
                return db.execute(sql.encode(), values, binary=True).fetchall()
        except psycopg.Error as error:
            if not is_lost(error):
                raise self.explain(error) from error
        with self.guarded() as db:
            return db.execute(sql.encode(), values, binary=True).fetchall()

    def often(self, sql: str, values: Sequence[str | int]) -> list[tuple[Any, ...]]:
        """`read` of what is asked again and again: prepared, where that can be. Its text must not be one of many."""
        if self._prepares:
            db = self._take()
            try:
                rows = db.prepared.read(sql, values)
                self._prepares = db.prepared.works
            except psycopg.Error:
                rows = None  # it is asked again, and the error told by that
            except BaseException:
                self._end_transaction(db)
                raise
            finally:
                self._give_back(db)
            if rows is not None:
                return rows
        return self.read(sql, values)

    @contextlib.contextmanager
    def snapshot(self) -> Generator[Connection]:
        """A transaction that reads one state, whatever others write meanwhile."""
        with self.guarded() as db:
            db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield db
            db.execute("COMMIT")

    def explain(self, error: psycopg.Error) -> HoldfastError:
        """An error of the library as one of ours, of an operation that did nothing."""
        state = error.sqlstate or ""
        told = str(error).strip().splitlines()
        said = f"{self.shown}: {told[0] if told else type(error).__name__}"
        if state in ("25006", "42501"):
            why = "the server is a replica, or this user may only read here"
            lacks = "this user lacks a right: GRANT it, or open the store as another user"
            return ReadOnly(f"{said}; {why if state == '25006' else lacks}", sqlstate=state)
        if state == "55P03":
            return Unavailable(
                f"{said}: a transaction that others began, or this program (commit_in), holds what was to be changed; "
                "end it, and try again",
                sqlstate=state,
            )
        if state == CLASH:
            where = error.diag.message_detail or told[0]
            return Corrupt(
                f"{self.shown}: a row stands where only damage can have put it ({where}): the head of a session and "
                "its events disagree; nothing was stored, and `holdfast check` names what is damaged",
                sqlstate=state,
            )
        if state in ("XX001", "XX002"):
            return Corrupt(f"{said}; the server's own files are damaged", sqlstate=state)
        if state in ("22021", "22P05", "0A000", "42601", "42883", "42P01", "42703", "3F000"):
            return Invalid(f"{said}; this is no store that this version can use", sqlstate=state)
        return Unavailable(f"{said}; try again", sqlstate=state)

    def _refused(self, error: psycopg.Error) -> HoldfastError:
        """An error of connecting. libpq tells of it in words alone, which a server may have translated."""
        if error.sqlstate:
            return self.explain(error)
        told = str(error).strip()
        each = dict.fromkeys(_EACH.findall(told))  # of several hosts one may be the right one, and say why not now
        said = "; ".join(each) or next(iter(told.splitlines()), type(error).__name__)
        hint = next((hint for sign, hint in _HINTS.items() if sign in said), _HINT)
        return Unavailable(f"{self.shown}: {said}; {hint}", sqlstate="")

    def lost(self, error: psycopg.Error) -> HoldfastError:
        """The same of a commit that was sent: if the server did not answer, it can't be told what became of it."""
        if is_lost(error):
            said = str(error).strip().partition("\n")[0]
            return Uncertain(
                f"{self.shown}: the answer to a commit was lost ({said}); repeat with the same key", url=self.shown
            )
        return self.explain(error)

    def close(self) -> None:
        """Close what is idle; who has a connection gives it back to be closed."""
        with self._free:
            self._closed = True
            while self._idle:
                self.drop(self._idle.pop())
            self._free.notify_all()

    def before_fork(self) -> None:
        """See `forks`."""

    def after_fork(self, *, child: bool) -> None:
        """See `forks`: the connections are the parent's, who goes on with them; the child only lets go of them."""
        if not child:
            return
        for db in self._open:
            if not db.closed:
                os.close(db.fileno())
        self._start()


class _Context:
    """What psycopg asks for adapters."""

    connection = None

    def __init__(self) -> None:
        self.adapters = adapter_map()


def _given(where: Location, timeout: float) -> dict[str, Any]:
    """How libpq is told where to go; what the URL does not say comes from its own environment and files."""
    given: dict[str, Any] = {name: where.params[name] for name in where.params if name.startswith("ssl")}
    if where.hosts:
        given["host"] = ",".join(host for host, _ in where.hosts)
        given["port"] = ",".join(str(port or "") for _, port in where.hosts)
    if len(where.hosts) > 1:
        given["target_session_attrs"] = "read-write"  # the one that is the primary now
    named = {"dbname": where.path, "user": where.user, "password": where.password}
    given |= {name: value for name, value in named.items() if value}
    return given | {
        "client_encoding": "UTF8",
        "application_name": "holdfast",
        "connect_timeout": max(2, int(timeout)),
        # A host that is gone is noticed within half a minute, also by who waits for its answer.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    }


def cursor(db: psycopg.Connection[Any]) -> psycopg.Cursor[tuple[Any, ...]]:
    """A cursor whose rows are tuples of binary values, whatever its connection was told to make."""
    made = psycopg.Cursor(db, row_factory=tuple_row)
    made.format = pq.Format.BINARY
    return made


def is_lost(error: psycopg.Error) -> bool:
    """Whether the connection ended before the server said what became of the operation."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate.startswith("08") or error.diag.severity_nonlocalized in _FATAL


def may_be_tried_again(error: psycopg.Error) -> bool:
    """Whether the transaction met another one, and did nothing."""
    return error.sqlstate in _AGAIN


def did_nothing(error: psycopg.Error) -> bool:
    """The same, where what the transaction met may be told by another server's words."""
    return may_be_tried_again(error) or (error.sqlstate == _RELAYED and not is_lost(error))
