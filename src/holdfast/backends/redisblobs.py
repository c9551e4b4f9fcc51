"""Where the large values of a store on Redis are: in a folder or object storage, in Redis only if that is asked for.

Without a word of either, a large value is refused: memory that is replicated and written to a log is no place for
files, and nobody should find them there by accident.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import uuid
from collections.abc import Generator
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import urlsplit

import msgspec

from holdfast.backend import BLOB_PATIENCE, Blobs
from holdfast.backends.blobplace import Note, begun, check_same, note_in, placed
from holdfast.backends.blobs import DirectoryBlobs
from holdfast.backends.rediscalls import Call
from holdfast.backends.rediskeys import META, Layout
from holdfast.backends.redisnodes import Servers
from holdfast.backends.rediswriter import script
from holdfast.errors import Corrupt, HoldfastError, Invalid, Unavailable, Uncertain
from holdfast.shown import shown_place
from holdfast.urls import parse_url

NOTE = "blobs"
"""The field of a store's facts that says where in object storage its blobs are."""
LEASE = 60
"""Seconds after which a lock whose holder is silent is over."""
BEAT = 10.0
"""Seconds between two signs of life of a holder."""
LOOK = 0.05
_LOST = "the lock of the store's blobs was lost while some were deleted; try again"
SKEW = 20
"""Seconds by which the clocks of a cluster's masters may differ."""


def blobs_of(where: str, servers: Servers, layout: Layout) -> tuple[Blobs, Note | None]:
    """The blobs of a store, and its note of where in object storage they are.

    The URL's parameter `blobs` names them. Object storage is noted by who names it first, for all who open the store
    after that; a folder may be at another path on each machine, so each says it.

    Raises:
        Invalid: it is no place, not this store's, or not where this store's blobs are.
        Corrupt: the note can't be read.
        Unavailable: the place can't be had.
    """
    lock = Lock(servers, layout)
    note = _noted(servers, layout)
    if note is None and urlsplit(where).scheme == "s3":
        note = _begun(where, servers, layout, lock)
    if note is not None:
        check_same(where or None, note, where)
        return placed(note.blobs, note.owner, lambda _: lock), note
    if not where:
        return NoBlobs(), None
    if where == "redis":
        return RedisBlobs(servers, layout, lock), None
    if urlsplit(where).scheme != "file" or not os.path.isabs(parse_url(where).path):
        raise Invalid(
            f"blobs={shown_place(where)!r} is neither a folder (file:///folder), nor s3://bucket/prefix, nor redis",
            parameter="blobs",
        )
    return DirectoryBlobs(parse_url(where).path), None


def noting(layout: Layout, note: Note) -> tuple[Any, ...]:
    """The command that notes where the blobs are, unless that is noted."""
    return ("HSETNX", layout.meta, NOTE, msgspec.json.encode(note))


def _noted(servers: Servers, layout: Layout) -> Note | None:
    content = servers.ask([Call(META, ("HGET", layout.meta, NOTE))])[0]
    return None if content is None else note_in(content, f"the field {NOTE!r} of the key {layout.meta.decode()!r}")


def _begun(where: str, servers: Servers, layout: Layout, lock: Lock) -> Note:
    """Make object storage the place of a store that has no large value yet, as far as can be told."""
    with lock.exclusive():
        note = _noted(servers, layout)
        if note is not None:
            return note
        if RedisBlobs(servers, layout, lock).scan(limit=1):
            raise Invalid(
                "this store has its large values in Redis; leave blobs=redis, or copy it to a new store", blobs="redis"
            )
        note = begun(where, lambda _: lock)
        outcome = servers.run([Call(META, noting(layout, note), writes=True)])[0]
        if isinstance(outcome, HoldfastError):
            raise outcome
        return note


class NoBlobs:
    """Refuses every value."""

    def put(self, digest: str, data: bytes) -> None:  # noqa: ARG002  # the protocol's
        """Refuse it."""
        raise Invalid(
            "large values and artifacts are kept beside the events, and this store has no place for them; open it "
            "with ?blobs=file:///folder (one that all its machines share), ?blobs=s3://bucket/prefix, or ?blobs=redis",
            digest=digest,
        )

    def get(self, digest: str) -> bytes | None:  # noqa: ARG002  # the protocol's
        """There is none."""
        return None

    def delete(self, digest: str) -> bool:  # noqa: ARG002
        """There is none."""
        return False

    def scan(self, after: str = "", limit: int = 1000) -> list[str]:  # noqa: ARG002
        """There are none."""
        return []

    def shared(self) -> contextlib.AbstractContextManager[None]:
        """Nobody is to be kept out."""
        return contextlib.nullcontext()

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        """Nobody is to be kept out."""
        return contextlib.nullcontext()


class _Hold:
    """Who holds the lock, or waits for it: up to which second by the server's clock, and how it was lost, if it was."""

    def __init__(self, mode: str) -> None:
        self.token = f"{mode}{uuid.uuid4().hex}"
        self.until = 0
        self.lost: list[str] = []


class Lock:
    """The lock of a store's blobs, wherever they are: all its machines share the server."""

    def __init__(self, servers: Servers, layout: Layout) -> None:
        self._servers = servers
        self._layout = layout
        self._lock = script("lock")
        self._mine = threading.local()

    @property
    def alone_until(self) -> int | None:
        """The second, by the server's clock, up to which this thread alone has it; None if it has not."""
        alone: _Hold | None = getattr(self._mine, "alone", None)
        return None if alone is None else alone.until

    @contextlib.contextmanager
    def shared(self) -> Generator[None]:
        """Keep deleters out."""
        with self._held(_Hold("s")):
            yield

    @contextlib.contextmanager
    def exclusive(self) -> Generator[None]:
        """Keep everybody else out."""
        with self._held(alone := _Hold("x")):
            self._mine.alone = alone
            try:
                yield
            finally:
                self._mine.alone = None

    def confirm(self) -> None:
        """See `BlobLock`."""
        alone: _Hold | None = getattr(self._mine, "alone", None)
        if alone is not None and not self._ask("keep", alone):
            raise Unavailable(_LOST)

    @contextlib.contextmanager
    def _held(self, hold: _Hold) -> Generator[None]:
        """Hold the lock, and say so again and again; it is over a minute after the holder falls silent."""
        stop = threading.Event()
        tries = int(BLOB_PATIENCE / LOOK)
        try:
            while not self._ask("take", hold):
                tries -= 1
                if tries < 0:
                    raise Unavailable(f"the store's blobs were in use for {BLOB_PATIENCE} s; try again")
                stop.wait(LOOK)
            thread = threading.Thread(target=self._beat, args=(hold, stop), name="holdfast-blobs", daemon=True)
            thread.start()
            try:
                yield
            finally:
                stop.set()
                thread.join()
        finally:
            with contextlib.suppress(HoldfastError):  # it ends by itself, and what was done under it was done
                if not self._ask("give", hold):  # the process may have stood still, without a chance to keep it
                    hold.lost.append("it was taken for over")
        if hold.lost:  # what was done under it was done
            raise Uncertain(
                f"the lock of the store's blobs was lost ({hold.lost[0]}), so a value may have been swept; repeat the "
                "same call with the same key"
            )

    def _beat(self, hold: _Hold, stop: threading.Event) -> None:
        while not stop.wait(BEAT):
            try:
                if not self._ask("keep", hold):
                    hold.lost.append("it was taken for over")
            except HoldfastError as error:
                hold.lost.append(error.message)

    def _ask(self, what: str, hold: _Hold) -> int:
        key = self._layout.tag(0) + b"blob-lock"
        until: int = self._servers.ask([self._lock.call(0, [key], [what, hold.token, LEASE])])[0]
        if until and what != "give":
            hold.until = until
        return until


class RedisBlobs:
    """Blobs in keys of their own, spread over the shards."""

    def __init__(self, servers: Servers, layout: Layout, lock: Lock) -> None:
        self._servers = servers
        self._layout = layout
        self._lock = lock
        self._unblob = script("unblob")

    def put(self, digest: str, data: bytes) -> None:
        """Store the bytes, and only then name them."""
        shard, key = self._place(digest)
        for command in (("SET", key, data), ("ZADD", self._list(shard), 0, digest)):
            outcome = self._servers.run([Call(shard, command, writes=True)])[0]
            if isinstance(outcome, HoldfastError):
                raise outcome

    def get(self, digest: str) -> bytes | None:
        """The bytes, or None."""
        shard, key = self._place(digest)
        data: bytes | None = self._servers.ask([Call(shard, ("GET", key))])[0]
        if data is not None and hashlib.sha256(data).hexdigest() != digest:
            raise Corrupt(f"blob {digest} does not hold the bytes of that digest", digest=digest)
        return data

    def delete(self, digest: str) -> bool:
        """Remove the bytes.

        Raises:
            Unavailable: the lock was lost meanwhile, so somebody may have begun to need them; nothing was removed.
        """
        shard, key = self._place(digest)
        until = self._lock.alone_until
        late = 2**53 if until is None else until - min(SKEW, LEASE // 3)
        removed = self._servers.ask([self._unblob.call(shard, [self._list(shard), key], [digest, late])])[0]
        if removed < 0:
            raise Unavailable(_LOST)
        return bool(removed)

    def scan(self, after: str = "", limit: int = 1000) -> list[str]:
        """Digests above `after`, in order."""
        low = f"({after}" if after else "-"
        shards = range(self._layout.shards)
        calls = [Call(s, ("ZRANGEBYLEX", self._list(s), low, "+", "LIMIT", 0, limit)) for s in shards]
        return sorted(digest.decode() for page in self._servers.ask(calls) for digest in page)[:limit]

    def shared(self) -> AbstractContextManager[None]:
        """Keep deleters out."""
        return self._lock.shared()

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep everybody else out."""
        return self._lock.exclusive()

    def _place(self, digest: str) -> tuple[int, bytes]:
        if len(digest) != 64 or digest.strip("0123456789abcdef"):
            raise Invalid(f"{digest[:80]!r} is no SHA-256 in lower-case hex", digest=digest)
        shard = int(digest[:8], 16) % self._layout.shards
        return shard, self._layout.tag(shard) + b"blob:" + digest.encode()

    def _list(self, shard: int) -> bytes:
        return self._layout.tag(shard) + b"blobs"
