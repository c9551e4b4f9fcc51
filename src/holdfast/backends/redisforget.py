"""Removing what logs have forgotten: a commit that trims says up to where, and the entries go after it, some at a time.

A server serves nobody else while a script runs, and a million entries take it many seconds. Nobody is told what lies
below a log's bounds, so the removal may be done at any time, by anybody: logs that have some left stand in a list.
"""

from __future__ import annotations

from holdfast.backends import rediskeys
from holdfast.backends.rediscalls import Call
from holdfast.backends.rediskeys import Layout
from holdfast.backends.redisnodes import Servers
from holdfast.backends.rediswriter import script
from holdfast.errors import HoldfastError
from holdfast.plan import Ref

PORTION = 500
"""Entries that one script removes: about 10 ms."""


class Forgetting:
    """What the logs of a store have to remove."""

    def __init__(self, servers: Servers, layout: Layout) -> None:
        self._servers = servers
        self._layout = layout
        self._forget = script("forget")

    def one(self, ref: Ref) -> None:
        """Remove what a log has forgotten.

        Raises:
            Unavailable, Uncertain: not all is removed; the log still stands in the list.
        """
        shard = self._layout.shard_of(ref)
        keys = [self._layout.keys(ref).log, self._layout.forgetting(shard)]
        call = self._forget.call(shard, keys, [PORTION, rediskeys.member(ref)], writes=True)
        more = 1
        while more:
            more = self._servers.run([call])[0]
            if isinstance(more, HoldfastError):
                raise more

    def all(self) -> None:
        """Remove what every log has forgotten; raises like `one`."""
        shards = range(self._layout.shards)
        for members in self._servers.ask([Call(s, ("SMEMBERS", self._layout.forgetting(s))) for s in shards]):
            for member in members:
                self.one(rediskeys.named_by(member))
