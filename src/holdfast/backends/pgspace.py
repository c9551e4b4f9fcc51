"""How space is given back: tables are written anew, as free space inside of them keeps the bytes that stood there."""

from __future__ import annotations

import time

from holdfast.backends.pgserver import Connection, Server
from holdfast.errors import Unavailable

_OLD = "age({0}) > age((%(before)s::bigint %% 4294967296)::text::xid)"
_HOLDERS = (
    "SELECT 'process ' || pid || coalesce(' (' || nullif(application_name, '') || ')', '') FROM pg_stat_activity "
    "WHERE (datname = current_database() OR backend_type = 'walsender') AND pid <> pg_backend_pid() "
    f"AND {_OLD.format('backend_xmin')} UNION ALL "
    "SELECT 'the prepared transaction ' || quote_literal(gid) FROM pg_prepared_xacts "
    f"WHERE database = current_database() AND {_OLD.format('transaction')} UNION ALL "
    "SELECT 'the replication slot ' || quote_literal(slot_name) FROM pg_replication_slots "
    f"WHERE {_OLD.format('xmin')}"
)
"""Who sees, or keeps for somebody else, a state from before a transaction: sessions of this database and senders to
replicas, transactions that were prepared and neither committed nor rolled back, and slots that a replica left."""
NAMED = 5
"""How many of them are named."""
WAIT = 2.0
"""Seconds that they are waited for: most read a little, or are the server's own, which looks how large tables are."""
TABLES = ("entry", "words", "head", "tag", "blob", "meta")


def compact(server: Server, schema: str) -> None:
    """Write all tables and indexes anew.

    Raises:
        Unavailable: another transaction may still look at what is gone, so the server keeps it; or it skipped a table.
    """
    with server.guarded() as db:
        (before,) = server.one(db, "SELECT pg_current_xact_id()::text::bigint")
        until = time.monotonic() + WAIT
        while (holders := _holders(db, before)) and time.monotonic() < until:
            time.sleep(0.02)
        for table in TABLES:
            db.execute(f"VACUUM (FULL, ANALYZE) {schema}.{table}".encode())
            if db.warned:  # where it may not, it warns, and goes on
                raise Unavailable(f"{server.shown}: only the owner of the tables can compact them ({db.warned})")
    if holders:
        more = f" and {len(holders) - NAMED} more" if len(holders) > NAMED else ""
        raise Unavailable(
            f"{server.shown}: the server keeps what was deleted for transactions that began before this and are still "
            f"open: {', '.join(holders[:NAMED])}{more}; nothing was lost, try again when they have ended",
            holders=tuple(holders),
        )


def _holders(db: Connection, before: int) -> list[str]:
    return [name for (name,) in db.execute(_HOLDERS.encode(), {"before": before}).fetchall()]
