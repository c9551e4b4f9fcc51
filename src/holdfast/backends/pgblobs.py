"""Blobs as rows, under their digest, compressed with zstd where that makes them smaller.

The lock between who puts and who deletes is an advisory lock of a transaction: it ends with its holder however that
ends, and a pooler keeps a transaction on one session. Its holder has a connection of its own, as it uses others
meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Generator

import psycopg
import zstandard

from holdfast.backend import BLOB_PATIENCE, CHUNK
from holdfast.backends.pgmigrate import lock_number
from holdfast.backends.pgserver import Connection, Server
from holdfast.errors import Corrupt, Invalid, Unavailable, Uncertain

_RAW = b"\x00"
_ZSTD = b"\x01"
_HEX = frozenset("0123456789abcdef")


class PostgresBlobs:
    """The table `blob` of a schema."""

    def __init__(self, server: Server, schema: str, name: str, durability: str) -> None:
        self._server = server
        self._table = f"{schema}.blob"
        self._number = lock_number(name, "blobs")
        self._durability = durability

    def put(self, digest: str, data: bytes) -> None:
        """Store the bytes.

        Raises:
            Unavailable: the server refuses.
            Uncertain: its answer was lost; a second call does no harm.
        """
        _check(digest)
        packed = zstandard.ZstdCompressor(level=3).compress(data)
        content = _ZSTD + packed if len(packed) < len(data) else _RAW + data
        sql = (
            f"INSERT INTO {self._table} SELECT %b, %b FROM set_config('synchronous_commit', %s, true) "
            "ON CONFLICT DO NOTHING"
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
        _check(digest)
        rows = self._server.read(f"SELECT data FROM {self._table} WHERE digest = %s", (digest,))
        if not rows:
            return None
        content: bytes = rows[0][0]
        try:
            data = _unpacked(content[1:]) if content[:1] == _ZSTD else content[1:]
        except zstandard.ZstdError as error:
            raise Corrupt(f"blob {digest} can't be unpacked: {error}", digest=digest) from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise Corrupt(f"blob {digest} does not hold the bytes of that digest", digest=digest)
        return data

    def delete(self, digest: str) -> bool:
        """Remove the bytes."""
        _check(digest)
        with self._server.lend() as db:
            try:
                return db.execute(f"DELETE FROM {self._table} WHERE digest = %s".encode(), (digest,)).rowcount > 0
            except psycopg.Error as error:
                raise self._server.lost(error) from error

    def scan(self, after: str = "", limit: int = 1000) -> list[str]:
        """Digests above `after`, in order."""
        sql = f"SELECT digest FROM {self._table} WHERE digest > %s ORDER BY digest LIMIT %s"  # quoted
        return [row[0] for row in self._server.read(sql, (after, limit))]

    @contextlib.contextmanager
    def shared(self) -> Generator[None]:
        """Keep deleters out."""
        with self._held("pg_advisory_xact_lock_shared"):
            yield

    @contextlib.contextmanager
    def exclusive(self) -> Generator[None]:
        """Keep everybody else out."""
        with self._held("pg_advisory_xact_lock"):
            yield

    @contextlib.contextmanager
    def _held(self, function: str) -> Generator[None]:
        db = self._server.connect()
        try:
            self._lock(db, function)
            yield
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


def _check(digest: str) -> None:
    if len(digest) != 64 or not _HEX.issuperset(digest):
        raise Invalid(f"{digest[:80]!r} is no SHA-256 in lower-case hex", digest=digest)


def _unpacked(packed: bytes) -> bytes:
    # The size is part of what may be damaged: it must not be believed before memory is asked for.
    if zstandard.get_frame_parameters(packed).content_size > CHUNK:
        raise zstandard.ZstdError("it claims to be larger than a blob can be")
    return zstandard.decompress(packed)
