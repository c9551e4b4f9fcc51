"""Where the large values of a store on PostgreSQL are: in rows by their digest, if it was not begun with another place.

The lock between who puts and who deletes is an advisory lock of a transaction, wherever they are, as all machines share
the server: it ends with its holder however that ends, and a pooler keeps a transaction on one session. Its holder has a
connection of its own, as it uses others meanwhile.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from contextlib import AbstractContextManager

import msgspec
import psycopg

from holdfast.backend import BLOB_PATIENCE, Blobs
from holdfast.backends.blobplace import DATABASE, Note, begun, check_same, note_in, placed
from holdfast.backends.blobs import check_digest, packed, unpacked
from holdfast.backends.pgmigrate import lock_number
from holdfast.backends.pgserver import Connection, Server, is_lost
from holdfast.errors import HoldfastError, Unavailable, Uncertain

NOTE = "blobs"
"""The row of `meta` that says where the blobs are."""


def begin_blobs(db: Connection, schema: str, url: str | None, lock: Lock) -> None:
    """Note where the blobs of a store will be, in the transaction that makes it; see `blobplace.begun`."""
    if url and url != DATABASE:
        note = msgspec.json.encode(begun(url, lambda _: lock)).decode()
        db.execute(f"INSERT INTO {schema}.meta VALUES (%s, %s)".encode(), (NOTE, note))


def open_blobs(own: PostgresBlobs, url: str | None, lock: Lock) -> Blobs:
    """The blobs of a store that was begun.

    Raises:
        Invalid: the URL is not where this store's blobs are.
        Corrupt: the note can't be read.
    """
    note = own.noted() or Note(DATABASE, "")
    check_same(url, note, DATABASE)
    return own if note.blobs == DATABASE else placed(note.blobs, note.owner, lambda _: lock)


class Lock:
    """The lock of a store's blobs."""

    def __init__(self, server: Server, name: str) -> None:
        self._server = server
        self._number = lock_number(name, "blobs")
        self._mine = threading.local()

    @property
    def alone(self) -> Connection | None:
        """The connection by which this thread keeps everybody else out; None if it does not."""
        return getattr(self._mine, "alone", None)

    @contextlib.contextmanager
    def shared(self) -> Generator[None]:
        """Keep deleters out."""
        with self._held("pg_advisory_xact_lock_shared"):
            yield

    @contextlib.contextmanager
    def exclusive(self) -> Generator[None]:
        """Keep everybody else out."""
        with self._held("pg_advisory_xact_lock") as self._mine.alone:
            try:
                yield
            finally:
                self._mine.alone = None

    def confirm(self) -> None:
        """See `BlobLock`."""
        if (alone := self.alone) is not None:
            try:
                alone.execute("SELECT 1")
            except psycopg.Error as error:
                raise self.lost(error) from error

    def lost(self, error: psycopg.Error) -> HoldfastError:
        """What an error of the connection that keeps everybody else out means."""
        if not is_lost(error):
            return self._server.explain(error)
        return Unavailable(f"the lock of the blobs at {self._server.shown} was lost while some were deleted; try again")

    @contextlib.contextmanager
    def _held(self, function: str) -> Generator[Connection]:
        db = self._server.connect()
        try:
            self._lock(db, function)
            yield db
            try:
                db.execute("COMMIT")
            except psycopg.Error as error:
                # Somebody may have deleted what this one put: the same again puts it again.
                raise Uncertain(
                    f"the lock of the blobs at {self._server.shown} was lost; repeat with the same key"
                ) from error
        finally:
            self._server.drop(db)

    def _lock(self, db: Connection, function: str) -> None:
        try:
            db.execute("BEGIN")
            db.execute(f"SET LOCAL lock_timeout = '{BLOB_PATIENCE}s'".encode())
            # Whoever holds it may be at work for long, and says nothing meanwhile.
            db.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            db.execute(f"SELECT {function}(%s)".encode(), (self._number,))
        except psycopg.errors.LockNotAvailable as error:
            raise Unavailable(f"the store's blobs were in use for {BLOB_PATIENCE} s; try again") from error
        except psycopg.Error as error:
            raise self._server.explain(error) from error


class PostgresBlobs:
    """The table `blob` of a schema."""

    def __init__(self, server: Server, schema: str, lock: Lock, durability: str) -> None:
        self._server = server
        self._schema = schema
        self._table = f"{schema}.blob"
        self._lock = lock
        self._durability = durability

    def noted(self) -> Note | None:
        """What the store says of another place."""
        rows = self._server.read(f"SELECT value FROM {self._schema}.meta WHERE name = %s", (NOTE,))  # quoted
        return note_in(rows[0][0].encode(), f"the row {NOTE!r} of meta at {self._server.shown}") if rows else None

    def put(self, digest: str, data: bytes) -> None:
        """Store the bytes.

        Raises:
            Unavailable: the server refuses.
            Uncertain: its answer was lost; a second call does no harm.
        """
        check_digest(digest)
        content = packed(data)
        sql = (
            f"INSERT INTO {self._table} AS there SELECT %b, %b FROM set_config('synchronous_commit', %s, true) "
            "ON CONFLICT (digest) DO UPDATE SET data = excluded.data WHERE there.data <> excluded.data"
        )
        with self._server.lend() as db:
            try:
                db.execute(sql.encode(), (digest, content, self._durability))
            except psycopg.Error as error:
                raise self._server.lost(error) from error

    def get(self, digest: str) -> bytes | None:
        """The bytes, or None.

        Raises:
            Corrupt: the row is damaged.
        """
        check_digest(digest)
        rows = self._server.read(f"SELECT data FROM {self._table} WHERE digest = %s", (digest,))
        return unpacked(digest, rows[0][0]) if rows else None

    def delete(self, digest: str) -> bool:
        """Remove the bytes; if this thread keeps everybody else out, at the end of that.

        Raises:
            Unavailable: the lock was lost meanwhile, so somebody may have begun to need them; nothing was removed.
        """
        check_digest(digest)
        sql = f"DELETE FROM {self._table} WHERE digest = %s".encode()
        if (alone := self._lock.alone) is not None:
            try:
                # In the transaction that holds the lock, as nothing else can tell that it is not lost just then.
                return alone.execute(sql, (digest,)).rowcount > 0
            except psycopg.Error as error:
                raise self._lock.lost(error) from error
        with self._server.lend() as db:
            try:
                return db.execute(sql, (digest,)).rowcount > 0
            except psycopg.Error as error:
                raise self._server.lost(error) from error

    def scan(self, after: str = "", limit: int = 1000) -> list[str]:
        """Digests above `after`, in order."""
        sql = f"SELECT digest FROM {self._table} WHERE digest > %s ORDER BY digest LIMIT %s"  # quoted
        return [row[0] for row in self._server.read(sql, (after, limit))]

    def shared(self) -> AbstractContextManager[None]:
        """Keep deleters out."""
        return self._lock.shared()

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep everybody else out."""
        return self._lock.exclusive()
