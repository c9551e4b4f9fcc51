"""Blobs as rows of the store's own SQLite file: one file to carry about, and one that grows with every large value."""

from __future__ import annotations

from contextlib import AbstractContextManager

from holdfast.backends.blobs import check_digest, is_sound, packed, unpacked
from holdfast.backends.gate import Gate
from holdfast.backends.rowbackend import Guarded
from holdfast.backends.sqlitefile import SQLiteFile
from holdfast.errors import Corrupt

CREATE = "CREATE TABLE IF NOT EXISTS blob (digest TEXT PRIMARY KEY, data BLOB NOT NULL)"


class RowBlobs:
    """The table `blob`, which is there only in stores that keep their blobs in it."""

    def __init__(self, file: SQLiteFile, gate: Gate) -> None:
        self._file = file
        self._gate = gate
        self._guarded = Guarded(file.engine, file.path)

    @staticmethod
    def are_in(file: SQLiteFile) -> bool:
        """Whether this is where the file's store keeps its blobs."""
        with Guarded(file.engine, file.path), file.reader() as db:
            return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'blob'").fetchone() is not None

    @staticmethod
    def begin(file: SQLiteFile) -> None:
        """Make this the place of the blobs."""
        with Guarded(file.engine, file.path), file.transaction() as db:
            db.execute(CREATE)

    def put(self, digest: str, data: bytes) -> None:
        """Store the bytes, in a transaction of their own.

        Raises:
            Unavailable: the disk refuses; nothing is left behind.
        """
        if is_sound(self, digest):
            return
        content = packed(data)
        with self._guarded, self._file.transaction() as db:
            db.execute("INSERT OR REPLACE INTO blob VALUES (?, ?)", (digest, content))

    def get(self, digest: str) -> bytes | None:
        """The bytes, or None.

        Raises:
            Corrupt: the row is damaged.
        """
        check_digest(digest)
        with self._guarded, self._file.reader() as db:
            row = db.execute("SELECT data FROM blob WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            return None
        if not isinstance(row[0], bytes):
            raise Corrupt(f"blob {digest} holds no bytes", digest=digest)
        return unpacked(digest, row[0])

    def delete(self, digest: str) -> bool:
        """Remove the bytes."""
        check_digest(digest)
        with self._guarded, self._file.transaction() as db:
            found = db.execute("SELECT 1 FROM blob WHERE digest = ?", (digest,)).fetchone()
            db.execute("DELETE FROM blob WHERE digest = ?", (digest,))
        return found is not None

    def scan(self, after: str = "", limit: int = 1000) -> list[str]:
        """Digests above `after`, in order."""
        with self._guarded, self._file.reader() as db:
            sql = "SELECT digest FROM blob WHERE digest > ? ORDER BY digest LIMIT ?"
            found = [str(row[0]) for row in db.execute(sql, (after, limit)).fetchall()]
            return [digest for digest in found if digest > after]  # a damaged index may lead back

    def shared(self) -> AbstractContextManager[None]:
        """Keep deleters out."""
        return self._gate.shared()

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep everybody else out."""
        return self._gate.exclusive()
