"""What a PostgreSQL server must do for the store: keep what it acknowledges as durably as was promised."""

from __future__ import annotations

from collections.abc import Mapping

import psycopg

from holdfast.backends.pgserver import Connection, Server
from holdfast.errors import Invalid, Unavailable
from holdfast.urls import Location


def check_duty(server: Server, where: Location) -> dict[str, str]:
    """What the server says of itself; and the class of durability, refused if the server can't keep it.

    Each connection that is made later is held to the same: another host may answer it, after a failover.
    """
    asked = where.params.get("durability")
    with server.guarded() as db:
        said = _settings(db)
    if (why := _short_of(asked, said)) is not None:
        raise Invalid(f"durability={asked}, but {server.shown} {why}", durability=asked)
    durability = "process" if said["fsync"] == "off" else asked or "disk"

    def duty(db: Connection) -> None:
        why = _short_of(durability, _settings(db))
        if why is not None:
            raise Unavailable(f"the store was opened with durability={durability}, but {server.shown} now {why}")

    if durability != "process":
        server.duty = duty
    library = f"psycopg {psycopg.__version__}, libpq {psycopg.pq.version_pretty(psycopg.pq.version())}"
    path = where.url.partition("?")[0]
    return {"engine": "postgresql", "durability": durability, "library": library, "path": path, **said}


def _settings(db: Connection) -> dict[str, str]:
    names = ("server_version", "fsync", "synchronous_commit", "synchronous_standby_names")
    values = db.execute(f"SELECT {', '.join(f'current_setting({name!r})' for name in names)}".encode()).fetchall()[0]
    return dict(zip(("server", *names[1:]), values, strict=True))


def _short_of(durability: str | None, said: Mapping[str, str]) -> str | None:
    """Why a server with these settings can't keep a class of durability."""
    if durability == "replicated" and not said["synchronous_standby_names"]:
        return "waits for no standby; set synchronous_standby_names there"
    if durability in ("disk", "replicated") and said["fsync"] == "off":
        return "has fsync=off; turn it on, or say durability=process"
    return None


def synchronous_of(where: Location, facts: Mapping[str, str]) -> str:
    """What `synchronous_commit` is for a commit."""
    if where.params.get("durability") == "process":
        return "off"
    return "remote_apply" if facts["synchronous_commit"] == "remote_apply" else "on"
