"""The schema on a server: numbered scripts, applied in order under a lock, all that are missing in one transaction.

Whoever opens at the same time waits, and finds nothing left to do; what is interrupted leaves nothing. A store that a
newer holdfast wrote is refused, never guessed at.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from importlib.resources import files
from typing import NamedTuple

import psycopg
from psycopg.sql import Identifier

from holdfast.backends.packing import CURRENT, dictionary
from holdfast.backends.pgserver import Connection, Server
from holdfast.errors import Invalid, ReadOnly
from holdfast.urls import Location

_WORDS = 2
"""The script that makes the table of words."""
OLDEST = 140_000
"""The oldest server: PostgreSQL 14."""
_FUNCTION = re.compile(r"^CREATE FUNCTION .+?^\$\$;$", re.DOTALL | re.MULTILINE)


def scripts(*, words: bool = True) -> list[tuple[int, str]]:
    """The shipped scripts, by number; without `words`, those that need no full text of the server."""
    folder = files("holdfast.backends").joinpath("sql")
    found: dict[int, str] = {}
    for variant in ("postgres",) if words else ("postgres", "postgres_plain"):
        for file in folder.joinpath(variant).iterdir():
            if file.name.endswith(".sql"):
                found[int(file.name[:4])] = file.read_text("utf-8")
    return sorted(found.items())


def quoted(schema: str) -> str:
    """The name of a schema as it stands in SQL."""
    return Identifier(schema).as_string()


def lock_number(schema: str, what: str) -> int:
    """The number of an advisory lock of a store."""
    digest = hashlib.blake2b(f"holdfast {what} {schema}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


class _There(NamedTuple):
    """The number of the last script that was applied, 0 for none; and whether there is an index of words.

    `renamed`: its functions name another schema, whose tables they would write to.
    """

    version: int
    words: bool
    renamed: bool = False


def migrate(
    server: Server, where: Location, schema: str, begin: Callable[[Connection], None], *, words: bool | None = None
) -> bool:
    """Bring a schema up to date; make it if it is not there, with what `begin` does in the same transaction.

    Args:
        words: Whether it is to have an index of words. None: as it is; a new one has it.

    Returns:
        Whether it has an index of words.

    Raises:
        NotFound: it is not there, and not to be made.
        Invalid: a newer holdfast's, another program's, a server that is too old or not in UTF-8; or it has an index of
            words and is to have none.
        ReadOnly: this user may not make it, or mend it.
    """
    newest = scripts()[-1][0]
    with server.guarded() as db:
        _check_server(db, server.shown)
        there = _look(db, schema, newest, words, server.shown)
        if there.version == newest and (there.words or not words) and not there.renamed:
            return there.words
        if not there.version and not where.create:
            raise where.absent()
        db.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        db.execute("SELECT pg_advisory_xact_lock(%s)", (lock_number(schema, "schema"),))
        there = _look(db, schema, newest, words, server.shown)
        if there.version < newest:
            _apply(db, schema, there)
        if words and not there.words:
            _add_words(db, schema)
        if there.renamed:
            _name_anew(db, schema)
        if not there.version:
            begin(db)
        db.execute("COMMIT")
        return there.words or bool(words)


def _check_server(db: Connection, shown: str) -> None:
    row = db.execute("SELECT current_setting('server_version_num'), current_setting('server_encoding')").fetchone()
    version, encoding = row or ("0", "")
    if int(version) < OLDEST:
        raise Invalid(f"{shown} is PostgreSQL {int(version) // 10_000}; holdfast needs 14 or newer", version=version)
    if encoding != "UTF8":
        raise Invalid(f"the database at {shown} is in {encoding}; make one with ENCODING 'UTF8'", encoding=encoding)


def _look(db: Connection, schema: str, newest: int, words: bool | None, shown: str) -> _There:
    """What is there; of what is to be made, whether it is to have an index of words."""
    made = db.execute(
        "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = %s AND c.relkind = 'r' ORDER BY c.relname <> 'meta' LIMIT 1",
        (schema,),
    ).fetchone()
    if made is None:
        return _There(0, words is not False)
    found = None
    if made[0] == "meta":
        sql = (
            "SELECT value, (SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = 'words'), "
            "(SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace "
            "WHERE n.nspname = %s AND p.proname = 'write' AND strpos(p.prosrc, %s) = 0) "
            f"FROM {quoted(schema)}.meta WHERE name = 'schema'"
        )
        name = quoted(schema)
        found = db.execute(sql.encode(), (f"{name}.words", schema, f" {name}.head ")).fetchone()
    if found is None:
        raise Invalid(
            f"the schema {schema!r} at {shown} holds tables of another program; choose another: ?schema=name",
            schema=schema,
        )
    version = int(found[0])
    there = _There(version, found[1] == 1 if version >= _WORDS else words is not False, found[2] > 0)
    if there.version > newest:
        raise Invalid(
            f"the store at {shown} was written by a newer holdfast (schema {found[0]}, this one knows {newest}); "
            "upgrade holdfast",
            version=found[0],
        )
    if there.words and words is False:
        raise Invalid(
            f"the store at {shown} has an index of words; leave words=off out, or copy it to a store that has none",
            words="off",
        )
    return there


def _add_words(db: Connection, schema: str) -> None:
    """Put the index of words, still empty, in the place of the table that has none."""
    db.execute(f"DROP TABLE {quoted(schema)}.words".encode())
    for script, plain in zip(scripts(), scripts(words=False), strict=True):
        if script != plain:
            db.execute(script[1].replace("{schema}", quoted(schema)).encode())


def _name_anew(db: Connection, schema: str) -> None:
    """Have the functions of a schema that got another name, or was restored under one, write to its own tables."""
    try:
        for _, script in scripts():
            for function in _FUNCTION.findall(script):
                anew = function.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1)
                db.execute(anew.replace("{schema}", quoted(schema)).encode())
    except psycopg.errors.InsufficientPrivilege as error:
        raise ReadOnly(
            f"the schema {schema!r} had another name, and its functions still write to that; its owner must open the "
            "store once, which mends it",
            schema=schema,
        ) from error


def _apply(db: Connection, schema: str, there: _There) -> None:
    """Apply the scripts that are missing, in the caller's transaction."""
    name = quoted(schema)
    if not there.version and not db.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)).fetchone():
        # Not asked of who may not make one, and has got one from somebody who may.
        db.execute(f"CREATE SCHEMA IF NOT EXISTS {name}".encode())
    for number, script in scripts(words=there.words):
        if number > there.version:
            db.execute(script.replace("{schema}", name).encode())
            db.execute(
                f"INSERT INTO {name}.meta VALUES ('schema', '{number}') "  # quoted
                "ON CONFLICT (name) DO UPDATE SET value = excluded.value".encode()
            )
    db.execute(
        f"INSERT INTO {name}.dictionary VALUES (%s, %s) ON CONFLICT DO NOTHING".encode(),  # quoted
        (CURRENT, dictionary()),
    )
