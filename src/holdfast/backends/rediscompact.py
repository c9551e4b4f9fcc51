"""Having the servers write their files anew: an append-only file tells also of what was deleted since."""

from __future__ import annotations

import time
from typing import cast

from holdfast.backends.redisanswers import Failed, Lost
from holdfast.backends.redislinks import Address, Links, Unreachable
from holdfast.backends.redisnodes import Servers
from holdfast.errors import Unavailable

PATIENCE = 3600.0
"""Seconds that a server may take."""
LOOK = 0.05


def compact(servers: Servers, links: Links) -> None:
    """Rewrite the files of every master and replica, one after the other.

    Raises:
        Unavailable: a server did not.
    """
    for address in [*servers.masters(), *servers.replicas()]:
        try:
            _rewrite(links, address)
        except (Lost, Unreachable, Failed) as error:
            raise Unavailable(f"the server {address} did not write its files anew: {error}; try again") from error


def _rewrite(links: Links, address: Address) -> None:
    with links.take(address) as link:
        link.send([("CONFIG", "GET", "save")])
        saves = link.try_answer()
    if _facts(links, address).get("aof_enabled") == "1":
        _do(links, address, "BGREWRITEAOF", "aof_rewrite_in_progress", "aof_last_bgrewrite_status")
    if isinstance(saves, list) and saves[1]:
        _do(links, address, "BGSAVE", "rdb_bgsave_in_progress", "rdb_last_bgsave_status")


def _do(links: Links, address: Address, command: str, running: str, status: str) -> None:
    """Start a rewrite that begins now, and wait for its end."""
    _wait(links, address)
    with links.take(address) as link:
        link.send([(command,)])
        link.answer()
    facts = _wait(links, address)
    if facts.get(status) != "ok":
        raise Failed(f"{command} ended with {status} {facts.get(status)} ({running})")


def _wait(links: Links, address: Address) -> dict[str, str]:
    deadline = time.monotonic() + PATIENCE
    while True:
        facts = _facts(links, address)
        busy = ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress")
        if all(facts.get(name, "0") == "0" for name in busy):
            return facts
        if time.monotonic() > deadline:
            raise Failed("it takes too long")
        time.sleep(LOOK)


def _facts(links: Links, address: Address) -> dict[str, str]:
    with links.take(address) as link:
        link.send([("INFO", "persistence")])
        lines = (line.partition(":") for line in cast("bytes", link.answer()).decode().splitlines())
        return {name: value for name, colon, value in lines if colon}
