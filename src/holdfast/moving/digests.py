"""A digest of one session, the same in every store that holds it: the proof that a copy equals its original.

It says all that a copy takes along: what the head says, and each entry, hidden ones too, byte for byte. An entry names
its large values by their SHA-256, so they are in it; whether they are there is found by reading them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec

from holdfast.copies import blob, head_digest, needed
from holdfast.history.ancestry import stored, whole
from holdfast.plan import Entry, Head
from holdfast.storage import Storage


class Tally:
    """The digest of a session's entries so far; it can be continued, so what grew needs not be read anew."""

    __slots__ = ("_hash", "seq")

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.seq = 0

    def take(self, entry: Entry) -> None:
        """One more entry."""
        id = entry.id.encode("utf-8", "surrogatepass")
        self._hash.update(b"%d %d %d %d %d\n" % (entry.seq, entry.at, entry.void, len(id), len(entry.body)))
        self._hash.update(id)
        self._hash.update(entry.body)
        self.seq = entry.seq

    def copy(self) -> Tally:
        """Another one that stands where this one does."""
        other = Tally()
        other._hash, other.seq = self._hash.copy(), self.seq
        return other

    def of(self, head: Head) -> str:
        """The digest of the session with these entries and this head, which is a `whole` one; 64 hex digits."""
        said = [*head.ref, max(head.base, head.trim), head.last, head_digest(head)]
        done = self._hash.copy()
        done.update(msgspec.json.encode(said))
        return done.hexdigest()


def session_digest(store: Storage, head: Head) -> str:
    """The digest of a session as its head says it is, computed by reading everything of it.

    Raises:
        Corrupt: something of it is damaged or missing; `seq` on the error says which event.
    """
    tally = Tally()
    for entry in sound(store, head):
        tally.take(entry)
    return tally.of(whole(store, head))


def sound(store: Storage, head: Head, after: int = 0) -> Iterator[Entry]:
    """A session's entries behind a seq, each with all of its large values read and held against their digests.

    Raises:
        Corrupt: one is damaged, or a large value is damaged or missing.
    """
    for entry in stored(store, head, after):
        for digest in needed(store, head, entry):
            blob(store, head, entry, digest)
        yield entry
