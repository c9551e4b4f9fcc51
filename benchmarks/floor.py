"""The plain floor: the least that keeps messages in SQLite, as someone would write it in an afternoon.

One table, one index, prepared statements (Python's sqlite3 keeps them), JSON by msgspec, the same durability as ours.
It has no heads, counters, titles, checksums, compression or keys: what holdfast takes more than this is their price.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.corpus import Said

_SCHEMA = """
CREATE TABLE IF NOT EXISTS message (
    n INTEGER PRIMARY KEY, session TEXT NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS message_seq ON message (session, seq);
"""
_INSERT = "INSERT INTO message (session, seq, at, body) VALUES (?, ?, ?, ?)"


class Line(msgspec.Struct):
    """A message as plain JSON has it."""

    role: str
    content: str


_encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder().decode


def encode(said: Said) -> bytes:
    """The JSON of a message."""
    return _encode(Line(said.role, said.text))


class Bare:
    """Messages in a bare table."""

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self.path = path
        self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        self.db.executescript(_SCHEMA)
        self._last: dict[str, int] = {}

    def _next(self, session: str) -> int:
        if session not in self._last:
            found = self.db.execute("SELECT max(seq) FROM message WHERE session = ?", (session,)).fetchone()[0]
            self._last[session] = found or 0
        self._last[session] += 1
        return self._last[session]

    def append(self, session: str, said: Said) -> None:
        """Insert and commit."""
        self.db.execute("BEGIN IMMEDIATE")
        self.db.execute(_INSERT, (session, self._next(session), time.time_ns() // 1000, encode(said)))
        self.db.execute("COMMIT")

    def extend(self, session: str, said: Sequence[Said]) -> None:
        """Insert many and commit."""
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany(_INSERT, [(session, self._next(session), 0, encode(s)) for s in said])
        self.db.execute("COMMIT")

    def load(self, session: str) -> list[object]:
        """Every message, decoded."""
        rows = self.db.execute("SELECT seq, at, body FROM message WHERE session = ? ORDER BY seq", (session,))
        return [decode(body) for _, _, body in rows.fetchall()]

    def newest(self, session: str, count: int) -> list[object]:
        """The last messages, decoded."""
        sql = "SELECT seq, at, body FROM message WHERE session = ? ORDER BY seq DESC LIMIT ?"
        return [decode(body) for _, _, body in self.db.execute(sql, (session, count)).fetchall()][::-1]

    def page(self, session: str, after: int, count: int) -> list[object]:
        """The messages behind one, decoded."""
        sql = "SELECT seq, at, body FROM message WHERE session = ? AND seq > ? ORDER BY seq LIMIT ?"
        return [decode(body) for _, _, body in self.db.execute(sql, (session, after, count)).fetchall()]

    def close(self) -> None:
        """Close the file."""
        self.db.close()


class Log:
    """Messages as lines of a file that stays open: what the disk itself takes."""

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._durable = durable

    def append(self, said: Said) -> None:
        """Write, and sync where it is to be durable."""
        os.write(self._fd, encode(said) + b"\n")
        if self._durable:
            os.fdatasync(self._fd)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
