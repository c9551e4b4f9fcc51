"""Standings: what a session's counters and tags were when a certain event was its newest, noted every so many events.

They stand in the log of a head of their own, one for each session, and an entry's id is the checkpoint's number, so
that none is searched for. They travel with what is written next (`Batcher.later`).
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Sequence
from functools import lru_cache

import msgspec

from holdfast.errors import Conflict, Corrupt
from holdfast.heads.info import BYTES, COPYING, EDIT, SESSION, SUMMARY, number_in
from holdfast.plan import Commit, Entry, Head, Ref

CHECKPOINT = "checkpoint"
"""The kind of head whose log holds a session's checkpoints; its tags say which session's and whose that is."""
EVERY = 32
"""Events between two checkpoints. A fork reads half of it at the most, an append notes one in so many."""
NOTED = 1000
"""Checkpoints noted by one commit."""

_encode = msgspec.json.Encoder().encode


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a session stood when the event `seq` was its newest: its counters but the bytes, and the seqs of the newest
    edit and summary up to there. 0 is none; a `summary` of None was noted by nobody. `mark` is that of the event; see
    `mark_of`.
    """

    seq: int
    counts: dict[str, int]
    edit: int = 0
    summary: int | None = None
    mark: int = 0


def mark_of(entry: Entry) -> int:
    """What tells an event from another one with its seq. After a power failure a store that does not wait for the disk
    may know a checkpoint whose event was lost, and a new event gets its seq.
    """
    return zlib.crc32(entry.body, entry.at & 0xFFFFFFFF)


def standing_of(head: Head, mark: int = 0) -> Standing:
    """How a session stands now; `mark` is that of its newest event.

    Raises:
        Conflict: a copy of it is under way, or was interrupted, so its head does not say.
    """
    if COPYING in head.tags:
        raise Conflict(
            f"session {head.ref.id!r} is a copy that is not finished; repeat the copy, then fork it",
            session=head.ref.id,
        )
    return Standing(
        seq=head.last,
        counts={name: count for name, count in head.counts.items() if count and name != BYTES},
        edit=number_in(head, EDIT),
        summary=number_in(head, SUMMARY) if SUMMARY in head.tags else None,
        mark=mark,
    )


def checkpoint_ref(head: Head) -> Ref:
    """The head of a session's checkpoints. One that was deleted and created anew has another base, and others."""
    return _checkpoint_ref(head.ref.id, head.base)


@lru_cache(1024)  # it is asked for with every so many events of the same sessions
def _checkpoint_ref(id: str, base: int) -> Ref:
    import hashlib  # loads OpenSSL, which most programs can do without

    return Ref(CHECKPOINT, hashlib.sha256(json.dumps([id, base]).encode()).hexdigest())


def crossed(commit: Commit, head: Head) -> Sequence[Commit]:
    """What to note behind a commit that made this head of a session; mostly nothing. See `Batcher`."""
    if head.last // EVERY == (head.last - len(commit.append)) // EVERY or head.ref.kind != SESSION:
        return ()
    if COPYING in head.tags:
        return ()
    with contextlib.suppress(Corrupt):  # a tag that says no number: whoever reads it says so
        return noting(head, [standing_of(head, mark_of(commit.append[-1]))])
    return ()


def noting(head: Head, stood: Sequence[Standing]) -> Sequence[Commit]:
    """The commits that note how a session stood. One of them is refused: the head is there already, or was deleted."""
    ref = checkpoint_ref(head)
    tags: dict[str, str | None] = {"session": head.ref.id, "user": head.tags.get("user")}
    made = [Commit(ref=ref, if_rev=0, tags=tags)]
    entries = [Entry(str(one.seq // EVERY), 0, _encode(one)) for one in stood]
    return made + [Commit(ref=ref, append=entries[start : start + NOTED]) for start in range(0, len(entries), NOTED)]
