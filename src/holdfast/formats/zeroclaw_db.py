"""zeroclaw's `sessions.db` as it is read, in each of its generations; what it holds stands in `zeroclaw`.

The program may be at work in the database. It is copied first, through SQLite where somebody has it open, and in a way
that writes nothing beside it, takes no lock that a writer waits for, and leaves its files as they are to the byte.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import quote

from holdfast.errors import Corrupt, HoldfastError, Invalid, Stale
from holdfast.formats import rustjson
from holdfast.formats.lines import digest_of
from holdfast.formats.transcript import event_id, kept, mapping
from holdfast.formats.whole import Item, Said, Told
from holdfast.formats.zeroclaw import NAME, fitted, name_of_key, place_of, said, workspace_of
from holdfast.heads.info import STATES, clean
from holdfast.model import Source
from holdfast.plan import check_id

MAGIC = b"SQLite format 3\0"
TABLES = frozenset(("sessions", "session_metadata"))
RECEIPTS = "jsonl_import_receipts"
TRIES = 5
"""How often a copy is begun again because the files changed under it."""

_Row = dict[str, Any]


def is_database(_path: str, head: bytes) -> bool:
    """Whether a file is a SQLite database; what is in it is seen when it is read."""
    return head.startswith(MAGIC)


@contextmanager
def database(path: str) -> Generator[Iterator[Told]]:
    """The sessions of a database, those that the program lists and those that it lost.

    Raises:
        Invalid: it is none of zeroclaw's.
        Corrupt: it can't be read.
        Stale: it changed without a pause while it was copied.
    """
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder, _faults(path):
        copy = os.path.join(folder, "copy.db")
        _copy(path, copy, folder)
        with closing(sqlite3.connect(copy)) as connection:
            connection.text_factory = _text
            connection.execute("PRAGMA trusted_schema = OFF")  # what is in there may have come from anywhere
            yield _Database(path, connection).sessions()


@contextmanager
def _faults(path: str) -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise Corrupt(f"{path} can't be read: {error}", path=path) from None


def _copy(path: str, copy: str, folder: str) -> None:
    """Copy the database as of one moment."""
    real = os.path.realpath(path)
    for _ in range(TRIES):
        before = _look(real)
        wal, shm, journal = before[1] is not None, before[2] is not None, before[3] is not None
        if wal and not shm:
            # Left by a program that ended in the midst. Nobody has it open: an open database has the third file.
            beside = os.path.join(folder, "files.db")
            for end in ("", "-wal"):
                shutil.copyfile(real + end, beside + end)
            source = f"file:{quote(beside)}"
        elif shm or journal:
            source = f"file:{quote(real)}?mode=ro&readonly_shm=1"
        else:
            source = f"file:{quote(real)}?mode=ro&immutable=1"  # without this SQLite would make files beside it
        with closing(sqlite3.connect(source, uri=True)) as here, closing(sqlite3.connect(copy)) as there:
            here.backup(there)
        if shm or _look(real) == before:
            return
    raise Stale(f"{path} changed {TRIES} times while it was copied; try again", path=path)


def _look(path: str) -> list[tuple[int, int] | None]:
    """Size and time of a database and the files beside it; None for one that is not there."""
    found: list[tuple[int, int] | None] = []
    for end in ("", "-wal", "-shm", "-journal"):
        try:
            status = os.stat(path + end)
        except FileNotFoundError:
            if not end:
                raise
            found.append(None)
        else:
            found.append((status.st_size, status.st_mtime_ns))
    return found


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def row_text(row: _Row) -> str:
    """A row as JSON that keeps each value exactly."""
    shown = {name: _shown(value) for name, value in row.items()}
    text = rustjson.compact(shown)
    return text if text.isascii() or not rustjson.has_halves(text) else json.dumps(shown, separators=(",", ":"))


def _shown(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return {"real": repr(value)} if isinstance(value, float) and not math.isfinite(value) else value


def row_value(shown: Any) -> Any:
    """What `row_text` wrote of a value, as SQLite holds it."""
    special = mapping(shown)
    if "base64" in special:
        return base64.b64decode(special["base64"])
    return float(special["real"]) if special else shown


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not rustjson.has_halves(value)


def bound(value: Any) -> tuple[str, Any]:
    """How a value is handed to SQLite: text that is none in UTF-8, as `_text` reads it, as its bytes."""
    if isinstance(value, str) and rustjson.has_halves(value):
        return "CAST(? AS TEXT)", value.encode("utf-8", "surrogateescape")
    return "?", value


def quoted(name: str) -> str:
    """A name as it stands in SQL."""
    return '"' + name.replace('"', '""') + '"'


class _Database:
    """A private copy of a database, as it is read."""

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self._path = path
        self._file = os.path.basename(path)
        self._place = place_of(path)
        self._connection = connection
        names = [str(name) for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        if "acp_sessions" in names:
            raise Invalid(f"{path} is a store of zeroclaw's ACP server, which this version can't read", path=path)
        columns = {name: self._columns(name) for name in names if not name.startswith(("sqlite_", "sessions_fts"))}
        if not {"session_key", "role", "content"} <= set(columns.get("sessions", ())):
            raise Invalid(f"{path} is no database of zeroclaw's: it has no table of messages", path=path)
        self._more = {name: c for name, c in columns.items() if name not in TABLES and "session_key" in c}
        self._left = sorted(set(columns) - TABLES - set(self._more))
        self._listed = "session_key" in columns.get("session_metadata", ())
        with connection:
            for number, name in enumerate(["sessions", *self._more]):
                if not self._is_indexed(name):
                    connection.execute(f"CREATE INDEX holdfast_{number} ON {quoted(name)} (session_key)")

    def _columns(self, table: str) -> list[str]:
        return [str(row[1]) for row in self._connection.execute(f"PRAGMA table_info({quoted(table)})")]

    def _is_indexed(self, table: str) -> bool:
        """Whether an index finds a key's rows: to make one would read pages of which one may be damaged."""
        names = [str(row[1]) for row in self._connection.execute(f"PRAGMA index_list({quoted(table)})")]
        firsts = [self._connection.execute(f"PRAGMA index_info({quoted(name)})").fetchone() for name in names]
        return any(first is not None and first[2] == "session_key" for first in firsts)

    def sessions(self) -> Iterator[Told]:
        """All of them, one after another."""
        listed = "SELECT session_key FROM session_metadata UNION SELECT session_key FROM sessions"
        keys = listed if self._listed else "SELECT DISTINCT session_key FROM sessions"
        for (key,) in self._connection.execute(keys).fetchall():
            yield self._told(key, key if isinstance(key, str) else f"{key!r}")

    def _told(self, held: Any, key: str) -> Told:
        def facts() -> Said:
            with _faults(self._path):
                return self._said(held, key)

        def items() -> Iterator[Item]:
            with _faults(self._path):
                yield from self._items(held)

        return Told(name_of_key(self._place, key), facts, items)

    def _rows(self, table: str, key: Any, order: str = "") -> Iterator[_Row]:
        # Its own names: a column of any generation, or of a later one, comes along.
        place, value = bound(key)
        query = f"SELECT * FROM {quoted(table)} WHERE session_key IS {place} {order}"  # noqa: S608  # the name is quoted
        found = self._connection.execute(query, (value,))
        names = [str(column[0]) for column in found.description]
        for row in found:
            yield dict(zip(names, row, strict=True))

    def _said(self, held: Any, key: str) -> Said:
        row = next(self._rows("session_metadata", held), None) if self._listed else None
        digest = hashlib.sha256(row_text(row or {}).encode())
        count = 0
        for item in self._items(held):
            count += not item.reason and item.payload.type == "message"
            digest.update(str(item.payload.source.raw).encode() if item.payload.source else b"")
        metadata: dict[str, Any] = {"zeroclaw_form": "sqlite", "cwd": workspace_of(os.path.dirname(self._path))}
        if fitted(key) != key:
            metadata["zeroclaw_key"] = key
        if row is None:
            notes = ["it has messages and no row in session_metadata, so the program does not list it"]
        else:
            metadata["zeroclaw_row"] = row_text(row)
            notes = _oddities(row, count)
        if self._left:
            notes.append(f"what its tables {', '.join(self._left)} hold was not read")
        row = row or {}
        return Said(
            digest=digest.hexdigest(),
            tags=_tags(row),
            metadata=metadata,
            created=_time(row.get("created_at")),
            active=_time(row.get("last_activity")),
            notes=tuple(notes),
        )

    def _items(self, held: Any) -> Iterator[Item]:
        for row in self._rows("sessions", held, "ORDER BY id"):
            number = row["id"] if isinstance(row.get("id"), int) else 0
            source = Source(file=self._file, line=number, raw=row_text(row))
            wrong = [name for name in ("role", "content") if not _is_text(row[name])]
            if wrong:
                payload = kept(NAME, "unreadable", None, source)
                yield Item(f"r{number}", _time(row.get("created_at")), payload, number, f"its {wrong[0]} is no text")
            else:
                yield Item(f"r{number}", _time(row.get("created_at")), said(row, source), number)
        for table in self._more:
            for row in self._rows(table, held, "ORDER BY 1"):
                text = row_text(row)
                source = Source(file=f"{self._file}/{table}", raw=text)
                at = _time(row.get("imported_at", row.get("created_at")))
                yield Item(f"t{event_id(digest_of(f'{table} {text}'.encode()))}", at, kept(NAME, table, None, source))


def _time(value: Any) -> int | None:
    return rustjson.micros_of(value) if isinstance(value, str) else None


def _tags(row: Mapping[str, Any]) -> dict[str, str | None]:
    """What a row of session_metadata says as tags of the session."""
    state, turn = row.get("state", "idle"), row.get("turn_id")
    known = state if state in STATES else "unknown"
    begun = _time(row.get("turn_started_at"))
    tags: dict[str, str | None] = {"state": known, "turn": None, "name": _name(row.get("name"))}
    if known == "running":
        tags["turn"] = turn if _is_id(turn) else None
        tags["state_at"] = None if begun is None else str(begun)
    return tags


def _name(value: Any) -> str | None:
    return clean(value)[:500] if isinstance(value, str) and value else None


def _is_id(value: Any) -> bool:
    try:
        check_id(value, "turn")
    except HoldfastError:
        return False
    return True


def _oddities(row: Mapping[str, Any], count: int) -> list[str]:
    notes: list[str] = []
    if row.get("message_count") != count:
        notes.append(f"its message_count says {row.get('message_count')}, and it has {count} messages")
    if (state := row.get("state", "idle")) not in STATES:
        notes.append(f"its state {state!r} is none that is known")
    times = {name: row.get(name) for name in ("created_at", "last_activity")}
    return notes + [f"its {name} {value!r} is no time" for name, value in times.items() if _time(value) is None]


def rows_of(texts: Sequence[str]) -> list[_Row]:
    """Rows that `row_text` wrote, with the values that SQLite held."""
    return [{name: row_value(value) for name, value in json.loads(text).items()} for text in texts]
