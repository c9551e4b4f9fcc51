"""Sessions as zeroclaw loads them: JSONL files and a `sessions.db` with the schema of its version 0.6.9.

What came from the program goes back as it was: a line to the byte, a row with its id, its times and its other columns.
What was appended here is a message like the program's own. Its form has no place for anything but the words of
messages, so the rest of a session is counted as left out.
"""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import count
from typing import Any, NamedTuple

import msgspec

from holdfast.errors import Conflict
from holdfast.formats import rustjson
from holdfast.formats.transcript import mapping
from holdfast.formats.written import Holders, Written
from holdfast.formats.zeroclaw import PROGRAM, key_of, safe
from holdfast.formats.zeroclaw_db import RECEIPTS, bound, quoted, rows_of
from holdfast.heads.info import SessionInfo
from holdfast.model import Custom, Damaged, Edit, Event, Message, Source, State, Text
from holdfast.parts import Reasoning, ToolCall, ToolResult
from holdfast.session import Session
from holdfast.store import Store

SCHEMA = """
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    session_key TEXT NOT NULL,
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    created_at TEXT NOT NULL
);
CREATE INDEX idx_sessions_key ON sessions(session_key);
CREATE INDEX idx_sessions_key_id ON sessions(session_key, id);
CREATE TABLE session_metadata (
    session_key TEXT PRIMARY KEY,
    created_at TEXT NOT NULL,
    last_activity TEXT NOT NULL,
    message_count INTEGER NOT NULL DEFAULT 0,
    name TEXT,
    state TEXT NOT NULL DEFAULT 'idle',
    turn_id TEXT,
    turn_started_at TEXT
);
CREATE VIRTUAL TABLE sessions_fts USING fts5(session_key, content, content=sessions, content_rowid=id);
CREATE TRIGGER sessions_ai AFTER INSERT ON sessions BEGIN
    INSERT INTO sessions_fts(rowid, session_key, content) VALUES (new.id, new.session_key, new.content);
END;
CREATE TRIGGER sessions_ad AFTER DELETE ON sessions BEGIN
    INSERT INTO sessions_fts(sessions_fts, rowid, session_key, content)
    VALUES ('delete', old.id, old.session_key, old.content);
END;
"""
_RECEIPTS = f"""
CREATE TABLE {RECEIPTS} (
    source_name TEXT PRIMARY KEY, session_key TEXT NOT NULL, source_hash TEXT NOT NULL, source_len INTEGER NOT NULL,
    imported_at TEXT NOT NULL
)
"""
_STATES = {"idle": "idle", "running": "running", "error": "error"}
"""The states that the program has; any other is idle there."""

_Row = dict[str, Any]


def words_of(message: Message) -> str:
    """A message as the one text that the program keeps of it."""
    found: list[str] = []
    for part in message.parts:
        if isinstance(part, Text | Reasoning):
            found.append(str(part.content))
        elif isinstance(part, ToolCall):
            found.append(rustjson.compact({"id": part.id, "name": part.name, "arguments": _plain(part.arguments)}))
        elif isinstance(part, ToolResult):
            response = _plain(part.response)
            found.append(response if isinstance(response, str) else rustjson.compact(response))
        else:
            found.append(rustjson.compact(msgspec.to_builtins(part)))
    return "\n".join(found)


def _plain(value: Any) -> Any:
    return value.value() if hasattr(value, "value") else value


def key_in(info: SessionInfo) -> str:
    """The key that a session has there: its own, or its id where it never was one of the program's."""
    return key_of(info.id, info.metadata) if info.id.startswith(f"{PROGRAM}:") and "/" in info.id else info.id


def file_names(store: Store, ids: Sequence[str]) -> dict[str, str]:
    """The name of each session's JSONL file, by the session's id.

    Raises:
        Conflict: two sessions would share a file, as the program names files so that different keys may.
        NotFound, Deleted: a session is not there.
    """
    names: dict[str, str] = {}
    holders = Holders()
    for id in ids:
        info = _session(store, id).info()
        key = key_in(info)
        name = (key if _form(info) == "jsonl" else safe(key)) + ".jsonl"
        holders.take(name, id)
        names[id] = name
    return names


def _session(store: Store, id: str) -> Session:
    return Session(store, store.head(id))


def _form(info: SessionInfo) -> str:
    """What the session came from; "" where it was made here, as a fork was, though it has its parent's metadata."""
    if info.metadata.get("source_session") != info.id.removeprefix(f"{PROGRAM}:"):
        return ""
    form = info.metadata.get("zeroclaw_form")
    return "jsonl" if form in ("jsonl", "archive") else str(form or "")


def jsonl_lines(store: Store, id: str, written: Written) -> Iterator[bytes]:
    """The lines of a session's file, as they came where they came from one."""
    session = _session(store, id)
    verbatim = _form(session.info()) == "jsonl"
    open_line = False
    written.sessions += 1
    for event in session.events(damaged="keep"):
        payload = event.payload
        if verbatim and isinstance(payload, Message | Custom) and payload.source is not None:
            line = _raw(payload.source)
            written.messages += isinstance(payload, Message)
        elif isinstance(payload, Message):
            line = (
                rustjson.compact({"role": payload.role, "content": words_of(payload)}).encode("utf-8", "replace")
                + b"\n"
            )
            written.messages += 1
        else:
            _leave(event, written)
            continue
        yield b"\n" + line if open_line else line  # or two lines would become one, which says nothing
        open_line = not line.endswith(b"\n")


def _raw(source: Source) -> bytes:
    raw = str(source.raw)
    return base64.b64decode(raw) if source.encoding == "base64" else raw.encode()


def _leave(event: Event, written: Written) -> None:
    if isinstance(event.payload, Damaged):
        written.damaged += 1
    elif not isinstance(
        event.payload, State | Edit
    ):  # these have done their work: the state is told, the view is as it is
        written.left_out += 1


class _Plan(NamedTuple):
    """What of a first look through the sessions must be known before a row is written."""

    next: Iterator[int]
    columns: Mapping[str, list[str]]
    receipts: bool


def write_database(store: Store, ids: Sequence[str], path: str) -> Written:
    """Write a database at a path where none is.

    Raises:
        NotFound, Deleted: a session is not there.
        Conflict: two sessions have the same key.
    """
    _check_keys(store, ids)
    plan = _planned(store, ids)
    written = Written()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(SCHEMA)
        for table, names in plan.columns.items():
            known = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            for name in names:
                if name not in known:
                    connection.execute(f"ALTER TABLE {table} ADD COLUMN {quoted(name)} TEXT")
        if plan.receipts:
            connection.execute(_RECEIPTS)
        used: set[int] = set()
        with connection:
            for id in ids:
                _write_session(connection, store, id, plan, used, written)
    return written


def _check_keys(store: Store, ids: Sequence[str]) -> None:
    holders: dict[str, str] = {}
    for id in ids:
        key = key_in(_session(store, id).info())
        if holders.setdefault(key, id) != id:
            raise Conflict(
                f"sessions {holders[key]!r} and {id!r} both have the key {key!r}; export them into different files",
                session=id,
                other=holders[key],
                key=key,
            )


def _planned(store: Store, ids: Sequence[str]) -> _Plan:
    highest, receipts = 0, False
    columns: dict[str, dict[str, None]] = {"sessions": {}, "session_metadata": {}}
    for id in ids:
        session = _session(store, id)
        info = session.info()
        columns["session_metadata"] |= dict.fromkeys(_told_row(info))
        for event in session.events(damaged="keep"):
            table, row = _stored_row(info, event) or ("", {})
            receipts = receipts or table == RECEIPTS
            if not table:
                columns["sessions"] |= dict.fromkeys(row)
                highest = max(highest, _id_of(row) or 0)
    return _Plan(count(highest + 1), {table: list(names) for table, names in columns.items()}, receipts)


def _stored_row(info: SessionInfo, event: Event) -> tuple[str, _Row] | None:
    """The row that an event came from, and its table, "" for that of messages; None if it came from none."""
    payload = event.payload
    if not isinstance(payload, Message | Custom) or payload.source is None or _form(info) != "sqlite":
        return None
    if not event.id or event.id[0] not in "rt":
        return None
    (row,) = rows_of([str(payload.source.raw)])
    return (payload.source.file or "").partition("/")[2], row


def _id_of(row: _Row) -> int | None:
    id = row.get("id")
    return id if isinstance(id, int) else None


def _told_row(info: SessionInfo) -> _Row:
    """The row of session_metadata that the session was imported with; {} if with none."""
    text = info.metadata.get("zeroclaw_row") if _form(info) == "sqlite" else None
    return rows_of([text])[0] if isinstance(text, str) else {}


def _write_session(
    connection: sqlite3.Connection, store: Store, id: str, plan: _Plan, used: set[int], written: Written
) -> None:
    session = _session(store, id)
    info = session.info()
    key = key_in(info)
    messages, last = 0, 0
    for event in session.events(damaged="keep"):
        stored = _stored_row(info, event)
        table: str = stored[0] if stored else ""
        row: _Row = stored[1] if stored else {}
        if not row and isinstance(event.payload, Message):
            row = {
                "role": event.payload.role,
                "content": words_of(event.payload),
                "created_at": rustjson.time_text(event.at),
            }
        if not row or table not in ("", RECEIPTS):
            _leave(event, written)
            continue
        if not table:
            wanted = _id_of(row)
            last = wanted if wanted and wanted > last and wanted not in used else next(plan.next)
            used.add(last)
            row["id"] = last
            messages += isinstance(event.payload, Message)
            row["session_key"] = row.get("session_key", key)
        _insert(connection, table or "sessions", row)
    _insert(connection, "session_metadata", _metadata_row(store, info, key, messages))
    written.sessions += 1
    written.messages += messages


def _metadata_row(store: Store, info: SessionInfo, key: str, messages: int) -> _Row:
    """The row of session_metadata: as it was imported where nothing changed since."""
    row = _told_row(info)
    noted = mapping(info.metadata.get("imported"))
    tags = mapping(noted.get("tags"))
    created, active = rustjson.time_text(info.created_at), rustjson.time_text(info.updated_at)
    made: _Row = {"session_key": key, "created_at": created, "last_activity": active, **row}
    if not row or info.last != noted.get("last"):
        made |= {"last_activity": active, "message_count": messages}
    if not row or info.name != tags.get("name"):
        made["name"] = info.name
    turn, begun = run_of(store, info.id)
    if not row or (info.state, store.head(info.id).tags.get("turn")) != (tags.get("state"), tags.get("turn")):
        made |= {
            "state": _STATES.get(info.state, "idle"),
            "turn_id": turn,
            "turn_started_at": None if begun is None else rustjson.time_text(begun),
        }
    return made


def run_of(store: Store, id: str) -> tuple[str | None, int | None]:
    """The run that a session is in, or that ended in its error: its name, and when it began in microseconds UTC."""
    head = store.head(id)
    state, turn, begun = (head.tags.get(name) for name in ("state", "turn", "state_at"))
    if state == "running":
        return turn, int(begun) if begun else None
    if state != "error":
        return None, None
    failed: str | None = None
    for event in Session(store, head).events(types="state", reverse=True, damaged="keep"):
        if isinstance(change := event.payload, State):
            if failed is None:
                failed = change.turn
            if failed is None or change.state == "running":
                return failed, event.at if change.state == "running" and change.turn == failed else None
    return failed, None


def _insert(connection: sqlite3.Connection, table: str, row: _Row) -> None:
    places, values = zip(*map(bound, row.values()), strict=True)
    names = ", ".join(map(quoted, row))
    query = f"INSERT INTO {table} ({names}) VALUES ({', '.join(places)})"  # noqa: S608  # names are quoted
    connection.execute(query, values)
