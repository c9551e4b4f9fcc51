"""zeroclaw's files as its versions write them, made anew: JSONL, and databases of each generation."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

GENERATIONS = ("first", "names", "states", "head")
"""The schemas that a database may have, the oldest first."""
AT = "2026-11-21T02:23:58.81341668{}+00:00"
"""Times with nanoseconds, one behind the other."""

_MESSAGES = """
CREATE TABLE sessions (id INTEGER PRIMARY KEY AUTOINCREMENT, session_key TEXT NOT NULL, role TEXT NOT NULL,
    content TEXT NOT NULL, created_at TEXT NOT NULL);
CREATE INDEX idx_sessions_key ON sessions(session_key);
CREATE INDEX idx_sessions_key_id ON sessions(session_key, id);
CREATE TABLE session_metadata (session_key TEXT PRIMARY KEY, created_at TEXT NOT NULL, last_activity TEXT NOT NULL,
    message_count INTEGER NOT NULL DEFAULT 0);
CREATE VIRTUAL TABLE sessions_fts USING fts5(session_key, content, content=sessions, content_rowid=id);
CREATE TRIGGER sessions_ai AFTER INSERT ON sessions BEGIN
    INSERT INTO sessions_fts(rowid, session_key, content) VALUES (new.id, new.session_key, new.content);
END;
"""
_LATER = {
    "names": ["ALTER TABLE session_metadata ADD COLUMN name TEXT"],
    "states": [
        "ALTER TABLE session_metadata ADD COLUMN state TEXT NOT NULL DEFAULT 'idle'",
        "ALTER TABLE session_metadata ADD COLUMN turn_id TEXT",
        "ALTER TABLE session_metadata ADD COLUMN turn_started_at TEXT",
    ],
    "head": [
        *(
            f"ALTER TABLE session_metadata ADD COLUMN {name} TEXT"
            for name in ("agent_alias", "channel_id", "room_id", "sender_id")
        ),
        "CREATE TABLE jsonl_import_receipts (source_name TEXT PRIMARY KEY, session_key TEXT NOT NULL,"
        " source_hash TEXT NOT NULL, source_len INTEGER NOT NULL, imported_at TEXT NOT NULL)",
    ],
}


def line(role: str, content: str) -> bytes:
    """A line of JSONL as the program writes it."""
    text = json.dumps({"role": role, "content": content}, ensure_ascii=False, separators=(",", ":"))
    return text.encode() + b"\n"


def connect(path: Path, generation: str = "states") -> sqlite3.Connection:
    """A database of a generation, open as the program has it open."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    if is_new:
        connection.executescript(_MESSAGES)
        for name in GENERATIONS[1 : GENERATIONS.index(generation) + 1]:
            for statement in _LATER[name]:
                connection.execute(statement)
    return connection


def say(connection: sqlite3.Connection, key: str, role: str, content: str, at: str) -> None:
    """What the program does for a message: two statements."""
    connection.execute(
        "INSERT INTO sessions (session_key, role, content, created_at) VALUES (?, ?, ?, ?)", (key, role, content, at)
    )
    connection.execute(
        "INSERT INTO session_metadata (session_key, created_at, last_activity, message_count) VALUES (?, ?, ?, 1)"
        " ON CONFLICT(session_key) DO UPDATE SET last_activity = excluded.last_activity,"
        " message_count = message_count + 1",
        (key, at, at),
    )


def fill(path: Path, generation: str = "states") -> Path:
    """A database with a few sessions of all kinds that its generation can tell."""
    with closing(connect(path, generation)) as made:
        say(made, "gw_1", "user", "How do I parse JSON in Rust?", AT.format(1))
        say(made, "slack/thread:1/user", "user", 'é\0\u2028🦀 "q" \\', AT.format(2))
        say(made, "gw_1", "assistant", "Use serde_json.", AT.format(3))
        say(made, "slack_thread_1_user", "tool", "", "2026-11-21T04:23:59+02:00")
        say(made, "", "user", "the empty key", "2026-11-21T02:23:59.5+00:00")
        say(made, "a\nb" * 200, "narrator", "a long key with control characters", AT.format(4))
        made.execute("UPDATE session_metadata SET message_count = 9 WHERE session_key = ''")
        made.execute(
            "INSERT INTO session_metadata (session_key, created_at, last_activity) VALUES ('empty', ?, ?)",
            (AT.format(5), AT.format(5)),
        )
        if generation != "first":
            made.execute("UPDATE session_metadata SET name = 'My Session' WHERE session_key = 'gw_1'")
        if generation in ("states", "head"):
            made.execute(
                "UPDATE session_metadata SET state = 'running', turn_id = 'turn-9', turn_started_at = ?"
                " WHERE session_key = 'slack_thread_1_user'",
                (AT.format(6),),
            )
            made.execute("UPDATE session_metadata SET state = 'error', turn_id = 't-2' WHERE session_key = ''")
            made.execute("UPDATE session_metadata SET state = 'dreaming' WHERE session_key = 'slack/thread:1/user'")
        if generation == "head":
            made.execute("UPDATE session_metadata SET agent_alias = 'ada', room_id = 'r1' WHERE session_key = 'gw_1'")
            made.execute(
                "INSERT INTO jsonl_import_receipts VALUES ('gw_1.jsonl', 'gw_1', ?, 70, ?)", ("ab" * 32, AT.format(7))
            )
        made.execute(
            "INSERT INTO sessions (session_key, role, content, created_at) VALUES ('lost', 'user', 'x', ?)",
            (AT.format(8),),
        )
    return path


def rows(path: Path, table: str, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """All rows of a table; of some columns only."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.text_factory = bytes
        found = connection.execute(f"SELECT * FROM {table} ORDER BY 1")
        names = [column[0] for column in found.description]
        return [
            {name: value for name, value in zip(names, row, strict=True) if columns is None or name in columns}
            for row in found
        ]
