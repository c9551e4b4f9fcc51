"""How space is given back: tables are written anew, as free space inside of them keeps the bytes that stood there."""

from __future__ import annotations

from holdfast.backends.pgserver import Server
from holdfast.errors import Unavailable

_HOLDERS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
    "AND backend_xmin IS NOT NULL AND age(backend_xmin) > age((%s::bigint %% 4294967296)::text::xid)"
)
"""How many sessions of this database see a state from before a transaction."""
TABLES = ("entry", "words", "head", "tag", "blob", "meta")


def compact(server: Server, schema: str) -> None:
    """Write all tables and indexes anew.

    Raises:
        Unavailable: another transaction may still look at what is gone, so the server keeps it; or it skipped a table.
    """
    with server.guarded() as db:
        (before,) = server.one(db, "SELECT pg_current_xact_id()::text::bigint")
        for table in TABLES:
            db.execute(f"VACUUM (FULL, ANALYZE) {schema}.{table}".encode())
            if db.warned:  # where it may not, it warns, and goes on
                raise Unavailable(f"{server.shown}: only the owner of the tables can compact them ({db.warned})")
        (holders,) = server.one(db, _HOLDERS, (before,))
    if holders:
        raise Unavailable(
            f"{server.shown}: {holders} transactions began before this and are still open, so the server keeps what "
            "was deleted for them; nothing was lost, try again when they have ended"
        )
