"""What a server must do for the store: keep all, and keep it as durably as was promised. Checked on every connection.

`disk` is what `appendfsync always` does, or what `WAITAOF` waits for where the server knows it; `process` takes any
server that evicts nothing. With replicas, every commit waits until so many of them have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from holdfast.backends.redisanswers import Failed
from holdfast.errors import Unavailable, Uncertain

OLDEST = (6, 2)
WAITAOF = (7, 2)


class Later(Unavailable):
    """A server that may soon be the right one: it starts, is busy, or is still a replica."""


_SAY = "or open the store with ?durability=process, which survives the death of this process alone"


class Duty:
    """What the servers of one store must promise, and what to wait for after a write."""

    questions: Sequence[tuple[Any, ...]] = (
        ("INFO",),
        ("CONFIG", "GET", "appendfsync"),
        ("CONFIG", "GET", "no-appendfsync-on-rewrite"),
    )

    def __init__(self, durability: str, replicas: int, timeout: float) -> None:
        self.durability = durability
        self.replicas = replicas
        self._milliseconds = max(int(timeout * 500), 1)  # it must answer before its connection is given up
        self.waits = False
        """Whether a write is, on any server, not yet as durable as promised when its answer comes."""
        self._facts: dict[object, dict[str, str]] = {}

    @property
    def promised(self) -> str:
        """The class of durability of an acknowledgement."""
        return self.durability

    def facts(self, address: object) -> dict[str, str]:
        """What a server said of itself when it was connected to last."""
        return self._facts.get(address, {})

    def judge(self, waited: Any, written: Any) -> Any:
        """What a write came to, from what the wait behind it said."""
        fsynced, replicas = waited if isinstance(waited, list) else (1, waited)  # pyright: ignore[reportUnknownVariableType]  # as Redis answers
        if isinstance(replicas, int) and replicas >= self.replicas and fsynced:
            return written
        return Uncertain(
            f"it was written, but after {self._milliseconds} ms only {replicas} of {self.replicas} replicas had it"
            if isinstance(replicas, int) and fsynced
            else f"it was written, but whether it is on disk is not known ({waited}); repeat with the same key"
        )

    def check(self, address: object, answers: Sequence[Any]) -> tuple[Any, ...] | None:
        """Refuse a server that does not do its duty.

        Returns:
            The command that waits until a write is as durable as promised, empty if its answer comes no sooner; None
            for a replica in a cluster, which is held to nothing before it is a master.

        Raises:
            Later: it starts, is at somebody's script that does not end, or is a replica.
            Unavailable: the sentence names the setting to change.
        """
        info, always, rewrite = answers
        if isinstance(info, Failed) and str(info).startswith("BUSY"):
            raise Later(f"the Redis server {address} answers nobody now: {info}")
        if not isinstance(info, bytes):
            raise Unavailable(f"the Redis server {address} does not tell what it is: {info}; allow INFO")
        facts = _facts(info)
        facts["appendfsync"] = _setting(always)
        facts["no-appendfsync-on-rewrite"] = _setting(rewrite)
        if facts.get("loading") == "1":  # until then it says that it has no append-only file
            raise Later(f"LOADING: the Redis server {address} starts and reads its files; try again in a while")
        self._facts[address] = facts
        version = _version(facts)
        if version < OLDEST:
            raise Unavailable(
                f"{address} is Redis {facts.get('redis_version')}; holdfast needs 6.2 or newer, or Valkey"
            )
        if facts.get("maxmemory_policy", "noeviction") != "noeviction":
            raise Unavailable(
                f"the Redis server {address} may evict data (maxmemory-policy {facts['maxmemory_policy']}); "
                "set it with CONFIG SET maxmemory-policy noeviction, and in its configuration file"
            )
        if facts.get("role") == "slave":
            if facts.get("cluster_enabled") == "1":
                return None  # it redirects to its master, which is asked by itself
            raise Later(
                f"the Redis server {address} is a replica; open the store at its master "
                f"{facts.get('master_host')}:{facts.get('master_port')}"
            )
        wait: tuple[Any, ...] = ("WAIT", self.replicas, self._milliseconds) if self.replicas else ()
        if self.durability != "process" and self._behind(address, facts, version):
            wait = ("WAITAOF", 1, self.replicas, self._milliseconds)
        self.waits = self.waits or bool(wait)
        return wait

    def _behind(self, address: object, facts: dict[str, str], version: tuple[int, int]) -> bool:
        """Whether a server syncs behind its answers, and lets that be waited for; refused if it does neither."""
        fsync = facts["appendfsync"]
        if facts.get("aof_enabled") != "1":
            raise Unavailable(
                f"the Redis server {address} keeps no append-only file, so an acknowledged write may be lost; "
                f"set appendonly yes and appendfsync always, {_SAY}"
            )
        if facts.get("aof_last_write_status", "ok") != "ok":
            raise Unavailable(f"the Redis server {address} could not write its append-only file; look at its log")
        rewrites = facts["no-appendfsync-on-rewrite"] == "yes"
        if fsync == "always" and not rewrites:
            return False
        if version >= WAITAOF and fsync in ("always", "everysec"):
            return True
        if not fsync:
            raise Unavailable(
                f"the Redis server {address} does not tell when it syncs its append-only file (CONFIG GET is not "
                f"allowed); allow it, {_SAY}"
            )
        if rewrites:
            raise Unavailable(
                f"the Redis server {address} does not sync its append-only file while it is rewritten; "
                f"set no-appendfsync-on-rewrite no, {_SAY}"
            )
        raise Unavailable(
            f"the Redis server {address} syncs its append-only file behind its answers (appendfsync {fsync}), so "
            f"an acknowledged write may be lost; set appendfsync always, or take Redis 7.2 or Valkey, {_SAY}"
        )


def _facts(info: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in info.decode("utf-8", "replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


def _setting(answer: Any) -> str:
    """The value in an answer to CONFIG GET; "" if it is not told."""
    told = cast("list[object]", answer) if isinstance(answer, list) else []
    return told[1].decode() if len(told) == 2 and isinstance(told[1], bytes) else ""


def _version(facts: dict[str, str]) -> tuple[int, int]:
    parts = facts.get("redis_version", "0.0").split(".")
    try:
        return int(parts[0]), int(parts[1])
    except (ValueError, IndexError):
        return 0, 0
