"""A store for reading alone: from a replica that is fresh enough while there is one, else from the store itself.

Invariant: what one reader reads never goes back in time. It begins at a replica or at the store, and goes from the one
to the other at the most once: when the replica falls behind the bound, or can't be read. So a log of which the one told
the beginning and the other the end has no gap. Whatever must be exact (a commit and what it expects, who watches) is
never a replica's matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NoReturn, Protocol, TypeVar, runtime_checkable

import msgspec

from holdfast.backend import Backend, Blobs, Heads, Hit, Problem
from holdfast.errors import Corrupt, ReadOnly, Unavailable
from holdfast.plan import Commit, Entry, Head, Ref, Refused
from holdfast.search import Node

T = TypeVar("T")


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """A replica of a store, and how far it is behind: it has all that was acknowledged so many seconds ago.

    `behind` is in seconds and `bytes` in bytes of the server's log that it has not replayed; None if that can't be
    told. `why` says why it is not read from; "" if it is.
    """

    address: str
    behind: float | None
    bytes: int | None
    why: str = ""


class Source(Protocol):
    """A replica that was fresh enough when it was given."""

    backend: Backend

    def fresh(self) -> bool:
        """Whether it still is within the bound."""
        ...

    def behind(self) -> float:
        """Seconds: it has all that was acknowledged so long ago. Infinite if that can't be told."""
        ...

    def lost(self, why: str) -> None:
        """It could not be read."""
        ...


@runtime_checkable
class Replicated(Protocol):
    """A backend that knows replicas of itself."""

    def replica(self, *, own: bool) -> Source | None:
        """A replica within the bound, with `own` one that has all that this process acknowledged; None if none is."""
        ...

    def replicas(self) -> list[Replica]:
        """All of them, looked at now."""
        ...


class Reading:
    """A backend that can't be written. See `Backend` for what the methods promise."""

    def __init__(self, inner: Backend, source: Source | None) -> None:
        self.inner = inner
        self._source = source
        self.blobs: Blobs = ReadingBlobs(self)

    def ask(self, call: Callable[[Backend], T]) -> T:
        """What is read, from where this reader reads now."""
        source = self._source
        if source is not None:
            if source.fresh():
                try:
                    return call(source.backend)
                except (Unavailable, Corrupt) as error:  # if the store itself is damaged, it says so again
                    source.lost(error.message)
            self._source = None
        return call(self.inner)

    def behind(self) -> float:
        """Seconds: what this reader reads has all that was acknowledged so long ago; 0.0 from the store itself."""
        source = self._source
        if source is None:
            return 0.0
        behind = source.behind()
        if source.fresh():
            return behind
        self._source = None
        return 0.0

    def replicas(self) -> list[Replica]:
        """See `Replicated`."""
        return self.inner.replicas() if isinstance(self.inner, Replicated) else []

    def replica(self, *, own: bool) -> Source | None:
        """See `Replicated`."""
        return self.inner.replica(own=own) if isinstance(self.inner, Replicated) else None

    def commit(self, batch: Sequence[Commit]) -> list[Head | Refused]:  # noqa: ARG002  # the protocol's
        """Refused, as is all that writes.

        Raises:
            ReadOnly: always.
        """
        refuse()

    def index(self) -> int:
        """Refused.

        Raises:
            ReadOnly: always.
        """
        refuse()

    def compact(self) -> None:
        """Refused.

        Raises:
            ReadOnly: always.
        """
        refuse()

    def get(self, refs: Sequence[Ref]) -> list[Head | None]:
        """The heads."""
        return self.ask(lambda backend: backend.get(refs))

    def read(
        self,
        ref: Ref,
        *,
        after: int = 0,
        upto: int | None = None,
        ids: Sequence[str] | None = None,
        limit: int | None = None,
        reverse: bool = False,
        voided: bool = False,
    ) -> list[Entry]:
        """Entries of one log."""
        return self.ask(
            lambda backend: backend.read(
                ref, after=after, upto=upto, ids=ids, limit=limit, reverse=reverse, voided=voided
            )
        )

    def find(
        self,
        kind: str,
        tags: Mapping[str, str | None],
        *,
        after: tuple[int, str] | None = None,
        limit: int = 100,
        dead: bool = False,
        trashed: bool = False,
    ) -> Heads:
        """Living heads, or tombstones, newest first."""
        return self.ask(lambda backend: backend.find(kind, tags, after=after, limit=limit, dead=dead, trashed=trashed))

    def scan(self, kind: str, after: str = "", limit: int = 1000, *, trashed: bool = False) -> Heads:
        """Living heads by id."""
        return self.ask(lambda backend: backend.scan(kind, after, limit, trashed=trashed))

    def kinds(self) -> list[str]:
        """The kinds of heads."""
        return self.ask(lambda backend: backend.kinds())

    def search(
        self,
        kind: str,
        query: Node,
        *,
        id: str | None = None,
        tags: Mapping[str, str | None] | None = None,
        newest: bool = False,
        offset: int = 0,
        limit: int = 100,
    ) -> list[Hit]:
        """Entries that match."""
        return self.ask(
            lambda backend: backend.search(kind, query, id=id, tags=tags, newest=newest, offset=offset, limit=limit)
        )

    def changed(self, since: str | None = None) -> tuple[str, list[Ref]]:
        """Where the store itself stands: who watches reads there from now on, to find what was told."""
        self._source = None
        return self.inner.changed(since)

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` after commits to the store itself: who follows reads there from now on."""
        self._source = None
        return self.inner.listen(wake)

    def verify(self) -> list[Problem]:
        """What is damaged where this reader reads."""
        return self.ask(lambda backend: backend.verify())

    def info(self) -> Mapping[str, str]:
        """Facts for a person of where this reader reads."""
        return self.ask(lambda backend: backend.info())

    def close(self) -> None:
        """The backend stays open: it is the store's."""


class ReadingBlobs:
    """The blobs where a reader reads."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def put(self, digest: str, data: bytes) -> None:  # noqa: ARG002  # the protocol's
        """Refused.

        Raises:
            ReadOnly: always.
        """
        refuse()

    def get(self, digest: str) -> bytes | None:
        """The bytes, or None."""
        return self._reading.ask(lambda backend: backend.blobs.get(digest))

    def delete(self, digest: str) -> bool:  # noqa: ARG002
        """Refused.

        Raises:
            ReadOnly: always.
        """
        refuse()

    def scan(self, after: str = "", limit: int = 1000) -> list[str]:
        """The digests that are there."""
        return self._reading.ask(lambda backend: backend.blobs.scan(after, limit))

    def shared(self) -> AbstractContextManager[None]:
        """Refused: it is for who puts some.

        Raises:
            ReadOnly: always.
        """
        refuse()

    def exclusive(self) -> AbstractContextManager[None]:
        """Refused.

        Raises:
            ReadOnly: always.
        """
        refuse()


def refuse() -> NoReturn:
    """Refuse to write."""
    raise ReadOnly("this store is open for reading alone; write to the one whose reader it is")


def reader(inner: Backend, *, own: bool) -> Reading:
    """A backend that only reads, from a replica if the backend knows one that is fresh enough."""
    inner = inner.inner if isinstance(inner, Reading) else inner
    return Reading(inner, inner.replica(own=own) if isinstance(inner, Replicated) else None)
