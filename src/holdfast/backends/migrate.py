"""Numbered schema scripts, applied in order, each in one transaction with its number.

A script that was interrupted leaves nothing; a store that a newer holdfast wrote is refused, never guessed at.
"""

from __future__ import annotations

import contextlib

from holdfast.backends.engine import Connection
from holdfast.errors import Invalid, Unavailable

APPLICATION = 0x484F4C44
"""`PRAGMA application_id` of our files: "HOLD"."""
NEWEST = 5
"""The number of the last script for SQLite."""


def scripts(dialect: str) -> list[tuple[int, str]]:
    """The shipped scripts of a dialect, by number."""
    from importlib.resources import files  # takes 10 ms to load, and few programs make or convert a store

    folder = files("holdfast.backends").joinpath("sql", dialect)
    found = [(int(f.name[:4]), f.read_text("utf-8")) for f in folder.iterdir() if f.name.endswith(".sql")]
    return sorted(found)


def version(db: Connection) -> int:
    """The number of the last script that was applied; 0 for a new file."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def check_ours(db: Connection, path: str, newest: int) -> int:
    """The schema's number, if the file is ours and not newer than we are.

    Raises:
        Invalid: another program's database, or a newer holdfast's.
    """
    application = int(db.execute("PRAGMA application_id").fetchone()[0])
    found = version(db)
    if application != APPLICATION and db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
        raise Invalid(f"{path} is a SQLite database of another program; choose another file", path=path)
    if found > newest:
        raise Invalid(
            f"{path} was written by a newer holdfast (schema {found}, this one knows {newest}); upgrade holdfast",
            path=path,
            schema=found,
        )
    return found


def is_current(db: Connection, path: str) -> bool:
    """Whether there is nothing to do on a file, as far as reading tells.

    Raises:
        Invalid: another program's database, or a newer holdfast's.
    """
    db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()  # damage there is met here, and not by the first use
    return (
        check_ours(db, path, NEWEST) == NEWEST
        and db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        and db.execute("PRAGMA application_id").fetchone()[0] == APPLICATION
    )


def migrate(db: Connection, path: str) -> bool:
    """Apply what is missing; the caller holds the store's lock. True if the file was new.

    Raises:
        Invalid: another program's database, or a newer holdfast's.
        Unavailable: others have the file open, who would go on to write it by the rules of its old schema.
    """
    shipped = scripts("sqlite")
    found = check_ours(db, path, shipped[-1][0])
    todo = [(number, script) for number, script in shipped if number > found]
    if found and todo:
        _be_alone(db, path)
    for number, script in todo:
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements(script):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION}")
            db.execute(f"PRAGMA user_version = {number}")
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(Exception):  # SQLite itself has ended it if the disk is full
                db.execute("ROLLBACK")
            raise
    db.execute("PRAGMA journal_mode = WAL")
    return found == 0


def _be_alone(db: Connection, path: str) -> None:
    """Leave WAL mode, which SQLite does only for the one who alone has the file open."""
    try:
        mode = db.execute("PRAGMA journal_mode = DELETE").fetchone()[0]
    except Exception as error:
        if "locked" not in str(error):
            raise
        mode = "wal"
    if mode != "delete":
        raise Unavailable(
            f"{path} was written by an older holdfast and must be converted once, but another program has it open; "
            "close it there, then try again",
            path=path,
        )


def statements(script: str) -> list[str]:
    """A script's statements; it holds no `;` but those that end one."""
    lines = [line for line in script.splitlines() if not line.lstrip().startswith("--")]
    return [s.strip() for s in "\n".join(lines).split(";") if s.strip()]
