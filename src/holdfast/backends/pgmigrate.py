"""The schema on a server: numbered scripts, applied in order under a lock, all that are missing in one transaction.

Whoever opens at the same time waits, and finds nothing left to do; what is interrupted leaves nothing. A store that a
newer holdfast wrote is refused, never guessed at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.resources import files

from psycopg.sql import Identifier

from holdfast.backends.packing import CURRENT, dictionary
from holdfast.backends.pgserver import Connection, Server
from holdfast.errors import Invalid
from holdfast.urls import Location

OLDEST = 140_000
"""The oldest server: PostgreSQL 14."""


def scripts() -> list[tuple[int, str]]:
    """The shipped scripts, by number."""
    folder = files("holdfast.backends").joinpath("sql", "postgres")
    found = [(int(f.name[:4]), f.read_text("utf-8")) for f in folder.iterdir() if f.name.endswith(".sql")]
    return sorted(found)


def quoted(schema: str) -> str:
    """The name of a schema as it stands in SQL."""
    return Identifier(schema).as_string()


def lock_number(schema: str, what: str) -> int:
    """The number of an advisory lock of a store."""
    digest = hashlib.blake2b(f"holdfast {what} {schema}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def migrate(server: Server, where: Location, schema: str, begin: Callable[[Connection], None]) -> None:
    """Bring a schema up to date; make it if it is not there, with what `begin` does in the same transaction.

    Raises:
        NotFound: it is not there, and not to be made.
        Invalid: a newer holdfast's, another program's, or a server that is too old or not in UTF-8.
        ReadOnly: this user may not make it.
    """
    newest = scripts()[-1][0]
    with server.guarded() as db:
        _check_server(db, server.shown)
        found = _version(db, schema, newest, server.shown)
        if found == newest:
            return
        if not found and not where.create:
            raise where.absent()
        db.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        db.execute("SELECT pg_advisory_xact_lock(%s)", (lock_number(schema, "schema"),))
        found = _version(db, schema, newest, server.shown)
        _apply(db, schema, found)
        if not found:
            begin(db)
        db.execute("COMMIT")


def _check_server(db: Connection, shown: str) -> None:
    row = db.execute("SELECT current_setting('server_version_num'), current_setting('server_encoding')").fetchone()
    version, encoding = row or ("0", "")
    if int(version) < OLDEST:
        raise Invalid(f"{shown} is PostgreSQL {int(version) // 10_000}; holdfast needs 14 or newer", version=version)
    if encoding != "UTF8":
        raise Invalid(f"the database at {shown} is in {encoding}; make one with ENCODING 'UTF8'", encoding=encoding)


def _version(db: Connection, schema: str, newest: int, shown: str) -> int:
    """The number of the last script that was applied; 0 if the schema is not there, or is empty."""
    made = db.execute(
        "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = %s AND c.relkind = 'r' ORDER BY c.relname <> 'meta' LIMIT 1",
        (schema,),
    ).fetchone()
    if made is None:
        return 0
    found = None
    if made[0] == "meta":
        found = db.execute(f"SELECT value FROM {quoted(schema)}.meta WHERE name = 'schema'".encode()).fetchone()
    if found is None:
        raise Invalid(
            f"the schema {schema!r} at {shown} holds tables of another program; choose another: ?schema=name",
            schema=schema,
        )
    if int(found[0]) > newest:
        raise Invalid(
            f"the store at {shown} was written by a newer holdfast (schema {found[0]}, this one knows {newest}); "
            "upgrade holdfast",
            version=found[0],
        )
    return int(found[0])


def _apply(db: Connection, schema: str, found: int) -> None:
    """Apply the scripts above a number, in the caller's transaction."""
    name = quoted(schema)
    if not found and not db.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)).fetchone():
        # Not asked of who may not make one, and has got one from somebody who may.
        db.execute(f"CREATE SCHEMA IF NOT EXISTS {name}".encode())
    for number, script in scripts():
        if number > found:
            db.execute(script.replace("{schema}", name).encode())
            db.execute(
                f"INSERT INTO {name}.meta VALUES ('schema', '{number}') "  # quoted
                "ON CONFLICT (name) DO UPDATE SET value = excluded.value".encode()
            )
    db.execute(
        f"INSERT INTO {name}.dictionary VALUES (%s, %s) ON CONFLICT DO NOTHING".encode(),  # quoted
        (CURRENT, dictionary()),
    )
