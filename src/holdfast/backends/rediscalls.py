"""What is asked of a server of Redis: a command for the server of a shard, or a script there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple


class Call(NamedTuple):
    """A command for the server of a shard. `writes` says whether it may change something.

    `source` is the text of the script that a call by digest needs.
    """

    shard: int
    command: tuple[Any, ...]
    writes: bool = False
    source: bytes = b""

    def with_source(self) -> Call:
        """The same call for a server that does not have the script yet."""
        return self._replace(command=("EVAL", self.source, *self.command[2:]))


class Script(NamedTuple):
    """A script by its digest and text."""

    digest: str
    source: bytes

    def call(self, shard: int, keys: Sequence[bytes], arguments: Iterable[Any], *, writes: bool = False) -> Call:
        """The call that runs it."""
        return Call(shard, ("EVALSHA", self.digest, len(keys), *keys, *arguments), writes, self.source)
