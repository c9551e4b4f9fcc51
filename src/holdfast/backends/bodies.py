"""Where a row's body is: in the row itself, or elsewhere with the row saying where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from holdfast.backends.engine import Connection
from holdfast.plan import Commit, Entry, Head, Ref


class Bodies(Protocol):
    """What keeps the bodies of entries. All but `unpack` are called by one writer at a time."""

    def pack(self, commit: Commit) -> Sequence[bytes]:
        """Make a commit's bodies ready, before the transaction."""
        ...

    def unpack(self, packed: bytes) -> bytes:
        """The body that a row speaks of.

        Raises:
            Corrupt: it is damaged.
        """
        ...

    def meet(self, db: Connection, ref: Ref) -> bool:
        """A head is about to be changed: bring its rows in step with what is kept elsewhere. Whether they changed."""
        ...

    def mend(self, db: Connection, ref: Ref) -> bool:
        """The row of a head is damaged: write it anew from what is kept elsewhere. False if nothing is."""
        ...

    def place(
        self, n: int, commit: Commit, before: Head | None, head: Head, entries: Sequence[Entry], packed: Sequence[bytes]
    ) -> Sequence[bytes]:
        """What the rows of a commit's entries hold; `n` is the head's row number."""
        ...

    def removed(self, db: Connection, n: int, head: Head, runs: bytes) -> None:
        """Rows of a head were removed: it was trimmed or deleted. `runs` lead to those that are left."""
        ...

    def settle(self, db: Connection) -> None:
        """Make durable what is kept elsewhere, just before the transaction is committed."""
        ...

    def undo(self) -> None:
        """Take back what was done since the last commit.

        Raises:
            Uncertain: that failed.
        """
        ...

    def distrust(self) -> None:
        """Another process has written: forget what was remembered."""
        ...

    def done(self) -> None:
        """The transaction was committed."""
        ...
