"""Commits for one server as they are sent: several go in one transaction (MULTI … EXEC), so that it syncs once.

A server takes 16 KB from a connection at a time, and with `appendfsync always` it syncs before it takes more. So 64
commits sent one behind the other waited for ten syncs; a transaction is held until its end is there, and carried out at
once. Each script in it is still judged by itself. What can't be sent so, or failed once, is sent as single calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.backends.redisanswers import Failed
from holdfast.backends.rediscalls import Call
from holdfast.backends.redislinks import Link

MOST = 64
"""Commits that one transaction takes: the server serves nobody else meanwhile."""


def grouped(numbers: Sequence[int], calls: Mapping[int, Call], *, cluster: bool) -> list[list[int]]:
    """Calls by number, in the groups that are sent together: scripts that write, on a cluster those of one shard."""
    groups: list[list[int]] = []
    filling: dict[int, list[int]] = {}
    for number in numbers:
        call = calls[number]
        if not (call.writes and call.source):
            groups.append([number])
            continue
        place = call.shard if cluster else 0
        group = filling.get(place)
        if group is None or len(group) == MOST:
            group = filling[place] = []
            groups.append(group)
        group.append(number)
    return groups


def framed(commands: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Commands as one transaction."""
    return [("MULTI",), *commands, ("EXEC",)]


def answers(link: Link, count: int) -> list[Any]:
    """The answers to the commands of a transaction.

    Raises:
        Lost: the connection ended before all were there.
    """
    begun = link.try_answer()
    queued = [link.try_answer() for _ in range(count)]
    done = link.try_answer()
    if isinstance(begun, Failed):
        return queued  # this user may make no transactions, so the server made each by itself
    if isinstance(done, Failed):
        refused = any(isinstance(answer, Failed) for answer in queued)
        again = Failed("TRYAGAIN another commit of the transaction was refused, so none was made") if refused else done
        return [answer if isinstance(answer, Failed) else again for answer in queued]
    return done
