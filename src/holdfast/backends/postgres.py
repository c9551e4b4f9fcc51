"""A store in a schema of a PostgreSQL database, which many machines share."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast
from weakref import WeakSet

import psycopg

from holdfast import forks, search
from holdfast.backend import Blobs, Heads, Hit, Problem, TextOf
from holdfast.backends import positions
from holdfast.backends.packing import CURRENT, DAMAGED, Packer, dictionary
from holdfast.backends.pgarrays import int8s, texts
from holdfast.backends.pgblobs import Lock, PostgresBlobs, begin_blobs, open_blobs
from holdfast.backends.pgcheck import row_problems
from holdfast.backends.pgduty import check_duty, synchronous_of
from holdfast.backends.pgfind import find_rows
from holdfast.backends.pglisten import Hints, Listener
from holdfast.backends.pgmigrate import lock_number, migrate, quoted
from holdfast.backends.pgreplicas import Replicas
from holdfast.backends.pgrows import (
    DEAD,
    ENTRY,
    HEAD,
    HIDDEN,
    IN_TRASH,
    LISTED,
    LIVING,
    Row,
    are_sound,
    entry_crc,
    head_of,
    heads_of,
    packed_entry,
)
from holdfast.backends.pgsearch import Wanted, find
from holdfast.backends.pgserver import Server, cursor
from holdfast.backends.pgspace import compact
from holdfast.backends.pgwords import WordIndex
from holdfast.backends.pgwriter import Writer
from holdfast.errors import Corrupt, HoldfastError, Invalid, ReadOnly
from holdfast.packed import Span
from holdfast.plan import Commit, Entry, Head, Ref, Refused
from holdfast.reading import Replica, Source
from holdfast.urls import Location

MAX_SCHEMA = 63
"""Bytes that the name of a schema may take."""
_BEHIND = (
    "SELECT pg_is_in_recovery(), CASE WHEN NOT pg_is_in_recovery() OR pg_last_wal_receive_lsn() = "
    "pg_last_wal_replay_lsn() THEN 0 ELSE coalesce(extract(epoch FROM clock_timestamp() - "
    "pg_last_xact_replay_timestamp()), 0) END::float8"
)
"""Whether it is a replica, and how many seconds behind what it was sent; the primary may be ahead of that."""
_SEEN = (
    "CASE WHEN pg_is_in_recovery() THEN replace('x:x:', 'x', pg_snapshot_xmin(pg_current_snapshot())::text) "
    "ELSE pg_current_snapshot()::text END"
)
"""Which transactions can be seen for sure. A replica's snapshot names none that is open between its bounds."""
_STANDS = "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()::text ELSE pg_current_snapshot()::text END"
"""What is another whenever a transaction ended."""
_HISTORY = (
    "(SELECT system_identifier FROM pg_control_system()) || '/' || CASE WHEN pg_is_in_recovery() "
    "THEN (SELECT to_hex(timeline_id) FROM pg_control_checkpoint()) "
    "ELSE ltrim(lower(left(pg_walfile_name(pg_current_wal_lsn()), 8)), '0') END"
)
"""The server and its timeline, which is another one once a standby took over, or a backup was gone back to."""
_NO_SNAPSHOT = ("22P02", "22003")
_ALL = 2**62
"""Above every seq."""


class Moment(NamedTuple):
    """What a position holds: a server's history, and which transactions of it could be seen."""

    history: str
    snapshot: str


class PostgresBackend:
    """Heads and entries in rows, bodies packed. See `Backend` for what the methods promise."""

    def __init__(self, where: Location, text_of: TextOf) -> None:
        name = _schema(where)
        self._schema = schema = quoted(name)
        self._name = name
        hints = _is_on(where, "listen") is not False
        self._server = Server(where, _timeout(where))
        try:
            opened = partial(PostgresBackend, text_of=text_of)
            self._replicas = Replicas(where, self._server, opened) if "read_from" in where.params else None
            wanted, lock = where.params.get("blobs"), Lock(self._server, name)
            self._has_words = migrate(
                self._server,
                where,
                name,
                lambda db: begin_blobs(db, schema, wanted, lock),
                words=_is_on(where, "words"),
            )
            self._facts = check_duty(self._server, where)
            self._packer = self._make_packer()
            self.unpacked = self._packer.unpacked
            durability = synchronous_of(where, self._facts)
            self.blobs: Blobs = open_blobs(PostgresBlobs(self._server, schema, lock, durability), wanted, lock)
            self._id = str(self._server.read(f"SELECT value FROM {schema}.meta WHERE name = 'store'")[0][0])  # quoted
        except BaseException:
            self._server.close()
            raise
        self._pack_lock = threading.Lock()
        self._ours: WeakSet[psycopg.Connection[Any]] = WeakSet()
        """Connections of others that are known to lead to this store: a connection stays at its database."""
        self._writer = Writer(self._server, schema, durability)
        self._words = WordIndex(self._server, schema, self._packer.unpack, text_of)
        channel = f"holdfast_{lock_number(name, 'hints') & (2**63 - 1):x}"
        self._hints = Hints(self._server, channel) if hints else None
        self._listener = Listener(self._server, channel, self._version, hints=hints)
        forks.watch(self)

    def before_fork(self) -> None:
        """See `forks`."""

    def after_fork(self, *, child: bool) -> None:
        """See `forks`."""
        if child:
            self._pack_lock = threading.Lock()
            self._writer.after_fork()

    def _make_packer(self) -> Packer:
        found = self._server.read(f"SELECT number, data FROM {self._schema}.dictionary")  # quoted
        # The copy has no checksum, and a flipped bit in it would show in bodies; ours is the same to the byte.
        return Packer({**dict(found), CURRENT: dictionary()})

    def commit(self, batch: Sequence[Commit]) -> list[Head | Refused]:
        """Make commits in order, in one transaction."""
        if not batch:
            return []
        try:
            results = self._writer.commit(batch, self._packed(batch))
        finally:
            if self._replicas is not None:
                self._replicas.wrote()
        if self._hints is not None:
            self._hints.notice()
        self._listener.wake()
        return results

    def commit_in(self, connection: Any, batch: Sequence[Commit]) -> list[Head | Refused]:
        """Make commits in a transaction that is somebody else's, who commits it, or not.

        Raises:
            Invalid: the connection is no open psycopg one, not in a transaction, not in UTF-8, or another store's.
            Unavailable: others changed the same heads; the transaction has failed, and must be begun anew.
        """
        if not isinstance(connection, psycopg.Connection):
            raise Invalid("commit_in takes a psycopg.Connection that is open", connection=type(connection).__name__)
        if connection.closed or (connection.autocommit and connection.info.transaction_status != _IN_TRANSACTION):
            raise Invalid("commit_in needs a connection amid a transaction; begin one")
        if (encoding := connection.info.encoding) != "utf-8":
            # The server would take the bytes of ids and keys for those of other letters.
            raise Invalid("commit_in needs a connection with client_encoding=UTF8", encoding=encoding)
        db = cast("psycopg.Connection[Any]", connection)
        try:
            self._check_ours(db)
            return self._writer.within(db, batch, self._packed(batch))
        except psycopg.Error as error:
            raise self._server.explain(error) from error

    def _check_ours(self, db: psycopg.Connection[Any]) -> None:
        """Refuse a connection to another database, which may have a store in a schema of the same name."""
        if db not in self._ours:
            rows = cursor(db).execute(f"SELECT value FROM {self._schema}.meta WHERE name = 'store'".encode()).fetchall()
            if [str(row[0]) for row in rows] != [self._id]:
                raise Invalid("commit_in needs a connection to the database of this store; it goes to another store's")
            self._ours.add(db)

    def _packed(self, batch: Sequence[Commit]) -> list[list[bytes]]:
        with self._pack_lock:
            return [self._packer.pack_all([entry.body for entry in commit.append]) for commit in batch]

    def get(self, refs: Sequence[Ref]) -> list[Head | None]:
        """The heads."""
        if not refs:
            return []
        if len(refs) == 1:
            sql = f"SELECT {HEAD} FROM {self._schema}.head WHERE kind = %s AND id = %s"
            found = self._server.often(sql, refs[0])
        else:
            sql = f"SELECT {HEAD} FROM {self._schema}.head WHERE (kind, id) IN (SELECT * FROM unnest(%b, %b))"
            found = self._server.read(sql, (texts([ref.kind for ref in refs]), texts([ref.id for ref in refs])))
        heads = {head.ref: head for head in map(head_of, found)}
        return [heads.get(ref) for ref in refs]

    def read(
        self,
        ref: Ref,
        *,
        after: int = 0,
        upto: int | None = None,
        ids: Sequence[str] | None = None,
        limit: int | None = None,
        reverse: bool = False,
        voided: bool = False,
    ) -> list[Entry]:
        """Entries of one log."""
        values: list[Any] = [*ref, after, _ALL if upto is None else upto]
        where = "kind = %s AND id = %s AND seq > %s AND seq <= %s"
        if ids is not None:
            where += " AND key = ANY(%b)"
            values.append(texts([id for id in ids if id]))
        if not voided:
            where += f" AND hidden <> {HIDDEN}"
        sql = f"SELECT {ENTRY} FROM {self._schema}.entry WHERE {where} ORDER BY seq{' DESC' if reverse else ''}"
        if limit is not None:
            sql += " LIMIT %s"
            values.append(limit)
        read = self._server.often if ids is None else self._server.read
        rows = read(sql, values)
        if are_sound(ref, rows):
            unpackers = self._packer.unpackers()
            with contextlib.suppress(*DAMAGED):
                return [
                    Entry(key or "", at, unpackers[packed[0]](packed[1:]), seq, hidden != 0)
                    for seq, key, at, hidden, _, packed in rows
                ]
        return [self._entry(ref, row) for row in rows]

    def _entry(self, ref: Ref, row: Row) -> Entry:
        seq, key, at, hidden, crc, packed = row
        if hidden not in (0, HIDDEN) or crc != entry_crc(ref, seq, key, at, hidden, packed):
            return packed_entry(ref, row)
        try:
            return Entry(key or "", at, self._packer.unpack(packed), seq, hidden == HIDDEN)
        except Corrupt as error:
            return Entry(key or "", at, packed, seq, hidden == HIDDEN, error.message)

    def packed(self, spans: Sequence[Span]) -> list[list[Entry]]:
        """See `Packing.packed`; all spans in one statement."""
        # OFFSET 0: each span is looked up by itself, whatever the planner takes the table for.
        sql = (
            "SELECT w.i, e.* FROM unnest(%b, %b, %b, %b) WITH ORDINALITY AS w (kind, id, after, upto, i) "
            f"CROSS JOIN LATERAL (SELECT {ENTRY} FROM {self._schema}.entry x WHERE x.kind = w.kind AND x.id = w.id "
            "AND x.seq > w.after AND x.seq <= w.upto ORDER BY x.seq OFFSET 0) AS e"
        )
        refs = [span.ref for span in spans]
        names = texts([ref.kind for ref in refs]), texts([ref.id for ref in refs])
        bounds = int8s([span.after for span in spans]), int8s([span.upto for span in spans])
        found: list[list[Entry]] = [[] for _ in range(len(spans))]
        for row in self._server.read(sql, (*names, *bounds)):
            n: int = row[0] - 1
            found[n].append(packed_entry(refs[n], row[1:]))
        for entries in found:
            entries.sort(key=lambda entry: entry.seq)
        return found

    def find(
        self,
        kind: str,
        tags: Mapping[str, str | None],
        *,
        after: tuple[int, str] | None = None,
        limit: int = 100,
        dead: bool = False,
        trashed: bool = False,
    ) -> Heads:
        """Living heads, or tombstones, newest first."""
        stands = DEAD if dead else IN_TRASH if trashed else LIVING
        rows, bound = find_rows(self._server, self._schema, kind, tags, after, stands)
        return _sound(kind, stands, rows, limit, bound)

    def scan(self, kind: str, after: str = "", limit: int = 1000, *, trashed: bool = False) -> Heads:
        """Living heads by id."""
        stands = IN_TRASH if trashed else LIVING
        sql = (
            f"SELECT {LISTED} FROM {self._schema}.head WHERE kind = %s AND id > %s AND standing = {stands} "
            "ORDER BY id LIMIT %s"
        )

        def behind(bound: tuple[int, str], want: int) -> list[Row]:
            return [row for row in self._server.read(sql, (kind, bound[1], want)) if row[0] > bound[1]]

        return _sound(kind, stands, behind, limit, (0, after))

    def kinds(self) -> list[str]:
        """The kinds of heads, from one to the next by the index: there are few of many heads each."""
        found: list[str] = []
        sql = f"SELECT min(kind) FROM {self._schema}.head WHERE kind > %s"
        while True:
            last = found[-1] if found else ""
            (kind,) = self._server.read(sql, (last,))[0]
            if kind is None or kind <= last:  # a damaged index may lead back
                return found
            found.append(kind)

    def search(
        self,
        kind: str,
        query: search.Node,
        *,
        id: str | None = None,
        tags: Mapping[str, str | None] | None = None,
        newest: bool = False,
        offset: int = 0,
        limit: int = 100,
    ) -> list[Hit]:
        """Entries that match, after the index has taken in what it had not."""
        behind = not self._has_words
        try:
            self.index()
        except ReadOnly:
            behind = True  # the index can't be written here; it need not be, to find all
        wanted = Wanted(kind, query, id, tags or {}, newest, offset, limit)
        found = find(self._server, self._schema, self._words, wanted, behind=behind)
        return [Hit(Ref(m.kind, m.id), self._entry(Ref(m.kind, m.id), m.row), m.score) for m in found]

    def index(self) -> int:
        """Take in what is not indexed yet."""
        return self._words.catch_up() if self._has_words else 0

    def changed(self, since: str | None = None) -> tuple[str, list[Ref]]:
        """The heads that changed in transactions that could not be seen then, and can now."""
        known = None if since is None else positions.read(since, self._id, Moment)
        if known is None:
            history, snapshot = self._server.read(f"SELECT {_HISTORY}, {_SEEN}")[0]
            return positions.written(self._id, Moment(history, snapshot)), []
        # What the index is looked up by is one number, so that a planner can tell how few heads are above it.
        sql = (
            f"SELECT s.history, {_SEEN}, h.kind, h.id "
            f"FROM (SELECT {_HISTORY} AS history) AS s LEFT JOIN {self._schema}.head h "
            "ON h.grown >= %s AND NOT pg_visible_in_snapshot(h.grown::text::xid8, %s::pg_snapshot)"
        )
        oldest = known.snapshot.partition(":")[0]
        try:
            rows = self._server.read(sql, (int(oldest) if oldest.isdecimal() else 0, known.snapshot))
        except HoldfastError as error:
            if error.facts.get("sqlstate") in _NO_SNAPSHOT:
                raise positions.no_position(str(since)) from error
            raise
        if rows[0][0] != known.history:
            # Another history may have given the same numbers to other transactions.
            sql = (
                f"SELECT {_HISTORY}, {_SEEN}, h.kind, h.id FROM (SELECT) AS one LEFT JOIN {self._schema}.head h ON true"
            )
            rows = self._server.read(sql)
        now = positions.written(self._id, Moment(*rows[0][:2]))
        return now, [Ref(kind, id) for _, _, kind, id in rows if kind is not None]

    def _version(self) -> object:
        """Where the server stands."""
        return self._server.read(f"SELECT {_STANDS}")[0][0]

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` after each commit of this process, and soon after another's."""
        return self._listener.add(wake)

    def compact(self) -> None:
        """Write all tables anew: until then what was deleted stands in their free space."""
        compact(self._server, self._schema)

    def verify(self) -> list[Problem]:
        """Every record's checksum, and whether what they are found by agrees."""
        return list(row_problems(self._server, self._schema, self._entry))

    def info(self) -> Mapping[str, str]:
        """Facts for a person."""
        facts = {**self._facts, "schema": self._name, "words": "on" if self._has_words else "off"}
        recovering, behind = self._server.read(_BEHIND)[0]
        return {**facts, "role": "replica", "behind_seconds": f"{behind:.3f}"} if recovering else facts

    def replica(self, *, own: bool) -> Source | None:
        """A replica that reads may go to; see `reading.Replicated`."""
        return None if self._replicas is None else self._replicas.choose(own=own)

    def replicas(self) -> list[Replica]:
        """The replicas that the URL names, and how far each is behind."""
        return [] if self._replicas is None else self._replicas.told()

    def close(self) -> None:
        """Close the connections."""
        if self._replicas is not None:
            self._replicas.close()
        if self._hints is not None:
            self._hints.close()
        self._listener.close()
        self._server.close()


_IN_TRANSACTION = psycopg.pq.TransactionStatus.INTRANS


def _sound(
    kind: str,
    stands: int,
    rows_from: Callable[[tuple[int, str], int], Sequence[Row]],
    limit: int,
    bound: tuple[int, str],
) -> Heads:
    """Heads for a list, which must not end at one that is damaged: it is named, and asking for it says so."""
    sound, damaged = list[Head](), list[Ref]()
    while (want := limit - len(sound)) > 0:
        rows = rows_from(bound, want)
        found = heads_of(kind, stands, rows)
        sound += found
        damaged += found.damaged
        if len(rows) < want:
            break
        bound = rows[-1][5], rows[-1][0]
    return Heads(sound, damaged)


def _schema(where: Location) -> str:
    name = where.params.get("schema", "holdfast")
    cuts = "%" in name or "$$" in name  # a statement, where a value or the end of a function is marked so
    if not name or len(name.encode()) > MAX_SCHEMA or not name.isprintable() or name.startswith("pg_") or cuts:
        raise Invalid(
            f"schema={name!r} is no name of a schema: 1 to {MAX_SCHEMA} bytes, not pg_…, without % and $$", schema=name
        )
    return name


def _timeout(where: Location) -> float:
    text = where.params.get("timeout", "30")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 < seconds < 86_400:
        raise Invalid(f"timeout={text!r} is no number of seconds from 0 to 86,400", timeout=text)
    return seconds


def _is_on(where: Location, name: str) -> bool | None:
    """What a parameter that is on or off says; None where it is not given."""
    text = where.params.get(name)
    if text not in (None, "on", "off"):
        raise Invalid(f"{name}={text!r} is neither on nor off", **{name: text})
    return None if text is None else text == "on"
