"""The servers that cases run on: private ones, started as the tests start theirs, with their files on the disk that is
measured (in memory a sync would cost nothing), and ended with the run.

`HOLDFAST_TEST_POSTGRES` and `HOLDFAST_TEST_REDIS` are not looked at: what somebody else's server does meanwhile, or
whether it syncs, can't be told.
"""

from __future__ import annotations

import contextlib
import os
import sys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

if TYPE_CHECKING:
    from servers.postgres import Postgres
    from servers.redis import Cluster, Redis


class NotHereError(Exception):
    """What a case needs is not on this machine; says what."""


class Servers:
    """The servers of one run, each started when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running = contextlib.ExitStack()

    def _files(self) -> None:
        """Have the servers' files made below our folder, which another user runs them in."""
        from servers import processes

        place = self._folder / "servers"
        place.mkdir(exist_ok=True)
        for passed in (self._folder, place):
            os.chmod(passed, 0o711)
        processes.IN_MEMORY = place
        processes.ROOM = 0

    @cached_property
    def postgres(self) -> Postgres:
        """A PostgreSQL with a database `test`, everything synced, and few checkpoints."""
        try:
            import psycopg  # noqa: F401  # asked for by the server's module

            from servers import postgres
        except ImportError as error:
            raise NotHereError(f"psycopg is not installed ({error})") from error
        if postgres.binaries() is None:
            raise NotHereError("there is no PostgreSQL on this machine")
        self._files()
        server = postgres.Postgres(shared_buffers="512MB", max_wal_size="2GB", maintenance_work_mem="256MB").start()
        self._running.callback(server.stop)
        server.create_database()
        return server

    @cached_property
    def redis(self) -> Redis:
        """A Redis or Valkey with `appendfsync always`."""
        return self._redis("always")

    @cached_property
    def unsynced_redis(self) -> Redis:
        """One that writes no file."""
        return self._redis("")

    @cached_property
    def cluster(self) -> Cluster:
        """Three masters and three replicas that write no file."""
        self._redis_is_here()
        from servers.redis import Cluster

        cluster = Cluster(appendonly="no").start()
        self._running.callback(cluster.stop)
        return cluster

    def _redis(self, sync: str) -> Redis:
        self._redis_is_here()
        from servers.redis import Redis

        server = Redis(**({"appendfsync": sync} if sync else {"appendonly": "no"})).start()
        self._running.callback(server.stop)
        return server

    def _redis_is_here(self) -> None:
        try:
            from servers import redis
        except ImportError as error:
            raise NotHereError(f"redis is not installed ({error})") from error
        if not redis.binaries():
            raise NotHereError("there is no Redis or Valkey on this machine")
        self._files()

    def close(self) -> None:
        """End all that were started."""
        self._running.close()
