"""PgBouncer in transaction mode before a PostgreSQL of the tests: Debian's package, which the test command installs."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal

import psycopg

from servers.postgres import Postgres
from servers.processes import Process, folder, free_port, give

NOT_RUN = "not run here: PgBouncer is not installed, and only root can install it from Debian's packages"


def program() -> str | None:
    """PgBouncer, if it is there."""
    return shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")


def may_be_installed() -> bool:
    """Whether the test command can bring it."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


class PgBouncer:
    """A pooler that gives each transaction any of two sessions of the server."""

    def __init__(self, server: Postgres) -> None:
        found = program()
        assert found is not None, "PgBouncer is not installed: run scripts/test.py, or apt-get install pgbouncer"
        self.port = free_port()
        place = folder("pgbouncer")
        settings = place / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\ntest = host=127.0.0.1 port={server.port} user=holdfast\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nauth_type = any\n"
            "unix_socket_dir =\npool_mode = transaction\ndefault_pool_size = 8\nmax_client_conn = 200\n"
        )
        give(settings)
        self._process = Process([found, str(settings)], place / "log", end_with=signal.SIGINT)
        self._process.wait_until(self._answers)

    def _answers(self) -> bool:
        conninfo = f"host=127.0.0.1 port={self.port} user=holdfast dbname=test connect_timeout=5"
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(conninfo):
            return True
        return False

    def stop(self) -> None:
        """End it."""
        self._process.stop()
