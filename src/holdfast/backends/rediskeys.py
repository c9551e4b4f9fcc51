"""Where things are kept: the keys of a store, and the places by which heads are found.

A session belongs to one of the store's shards, by a hash of its kind and id. All keys of a shard carry its number in
braces, so that they are in one slot of a cluster, whatever stands in an id: a session and the lists it is found by
change together, atomically. A list of the whole store is merged from those of its shards.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from holdfast.plan import Head, Ref

LIVING, TRASHED, DEAD = b"l", b"t", b"d"
"""How a place begins, by the standing of its head."""

AT, ID, TAG = 4, 5, 6
"""The lists that have places, by the number of their keys in `Keys`."""
LISTS = (AT, ID, TAG)
EACH = 4
"""The keys of `Keys` that every commit touches."""

META = -1
"""The shard that the facts of a store are in."""

Place = tuple[int, bytes]
"""A list and the member of it by which a head is found."""


REMEMBERED = 1024
"""Heads whose keys a process keeps in memory."""


class Keys(NamedTuple):
    """All keys that a commit touches, in the order of `commit.lua`."""

    head: bytes
    log: bytes
    changed: bytes
    at: bytes
    id: bytes
    tag: bytes
    kinds: bytes


class Layout:
    """The names of the keys of one store, under its prefix."""

    def __init__(self, prefix: str, shards: int, id: str = "") -> None:
        self.prefix = prefix.encode()
        self.shards = shards
        self.id = id
        self.meta = self.prefix + b":store"
        self.channel = self.prefix + b":changes"
        self.shard_of = lru_cache(REMEMBERED)(self._shard_of)
        """The shard that a head belongs to."""
        self.keys = lru_cache(REMEMBERED)(self._keys)
        """The keys of a head and of its shard's lists."""

    def _shard_of(self, ref: Ref) -> int:
        if self.shards == 1:
            return 0
        digest = blake2b(f"{ref.kind}\0{ref.id}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.shards

    def tag(self, shard: int) -> bytes:
        """How every key of a shard begins."""
        return b"%b:{%d}:" % (self.prefix, shard)

    def _keys(self, ref: Ref) -> Keys:
        start = self.tag(self.shard_of(ref))
        kind = quoted(ref.kind)
        name = kind + b":" + ref.id.encode()
        return Keys(
            start + b"head:" + name,
            start + b"log:" + name,
            start + b"changed",
            start + b"at:" + kind,
            start + b"id:" + kind,
            start + b"tag:" + kind,
            start + b"kinds",
        )

    def list(self, shard: int, which: int, kind: str) -> bytes:
        """The key of a list of one shard."""
        return self.tag(shard) + {AT: b"at:", ID: b"id:", TAG: b"tag:"}[which] + quoted(kind)

    def owner(self, shard: int) -> bytes:
        """The key of the id of the store that a shard belongs to."""
        return self.tag(shard) + b"store"

    def forgetting(self, shard: int) -> bytes:
        """The key of the logs of one shard that have forgotten entries to remove."""
        return self.tag(shard) + b"forgetting"

    def changed(self, shard: int) -> bytes:
        """The key of the list by change of one shard."""
        return self.tag(shard) + b"changed"

    def kinds(self, shard: int) -> bytes:
        """The key of the kinds of one shard."""
        return self.tag(shard) + b"kinds"

    def pattern(self, shard: int) -> bytes:
        """What every key of a shard matches, for SCAN."""
        return b"".join(b"\\" + bytes([c]) if c in b"*?[]\\^-" else bytes([c]) for c in self.tag(shard)) + b"*"


def quoted(kind: str) -> bytes:
    """A kind without colons, so that the first one ends it."""
    return kind.replace("%", "%25").replace(":", "%3A").encode()


def ref_in(name: bytes) -> Ref | None:
    """The head that the end of a key names, if it names one."""
    kind, colon, id = name.partition(b":")
    try:
        return Ref(kind.decode().replace("%3A", ":").replace("%25", "%"), id.decode()) if colon else None
    except UnicodeDecodeError:
        return None


def member(ref: Ref) -> bytes:
    """The place of a head in the list by change."""
    return f"{ref.kind}\0{ref.id}".encode()


def named_by(place: bytes) -> Ref:
    """The head that a place in the list by change names."""
    kind, _, id = place.decode("utf-8", "replace").partition("\0")
    return Ref(kind, id)


def standing(head: Head) -> bytes:
    """How the places of a head begin."""
    return DEAD if head.dead else TRASHED if head.trashed else LIVING


def at_place(stands: bytes, at: int, id: str) -> bytes:
    """The place of a head in the list by time."""
    return stands + at.to_bytes(8, "big") + id.encode()


def tag_place(name: str, value: str, id: str) -> bytes:
    """The place of a head in the list by tag."""
    return f"{name}\0{value}\0{id}".encode()


def places(head: Head) -> Iterator[Place]:
    """All places by which a head is found."""
    stands, id = standing(head), head.ref.id
    yield AT, at_place(stands, head.at, id)
    yield ID, stands + id.encode()
    for name, value in head.tags.items():
        yield TAG, tag_place(name, value, id)


def moved(before: Head | None, after: Head) -> tuple[list[Place], list[Place]]:
    """The places that a head leaves and takes when it changes."""
    if before is not None and before.tags is after.tags and before.dead == after.dead:
        if before.at == after.at:
            return [], []
        stands, id = standing(after), after.ref.id
        return [(AT, at_place(stands, before.at, id))], [(AT, at_place(stands, after.at, id))]
    old = {} if before is None else dict.fromkeys(places(before))
    new = dict.fromkeys(places(after))
    return [p for p in old if p not in new], [p for p in new if p not in old]
