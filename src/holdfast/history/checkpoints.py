"""Checkpoints: the notes of how a session stood, stored, looked up and deleted.

A fork at any event begins with what was counted up to there. That follows from the events alone, so it could always be
worked out by reading; a checkpoint nearby makes it a matter of few of them. Invariant: checkpoints are derived. Whoever
needs one that is missing or damaged reads events instead (`counting`) and notes what it passed, and nothing but the
cost of a fork depends on them. What is noted, and when, stands in `standings`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from holdfast.errors import Corrupt, Denied, HoldfastError
from holdfast.heads.info import session_ref
from holdfast.history import standings
from holdfast.history.standings import CHECKPOINT, Standing, checkpoint_ref, mark_of, noting
from holdfast.plan import MAX_ENTRIES, Commit, Entry, Head, Range, Ref
from holdfast.storage import Storage

PAGE = 500
"""Heads read at a time."""


def forget(store: Storage, id: str, head: Head | None) -> None:
    """Delete the checkpoints of a session that was deleted, and see to it that no late writer notes another.

    It never fails: a sweep deletes what is left.

    Args:
        store: Where it was.
        id: The session's.
        head: Its head as it was; None if that could not be trusted.
    """
    with contextlib.suppress(HoldfastError):  # what it follows was done, and must not look as if it were not
        if head is None:
            refs = [found.ref for found in store.backend.find(CHECKPOINT, {"session": id})]
            store.batcher.commit_all([Commit(ref=ref, delete=True) for ref in refs])
        elif head.last // standings.EVERY != head.base // standings.EVERY:  # else it never had any
            # Of the two, one finds something to do: a head, or that there is none.
            ref = checkpoint_ref(head)
            store.batcher.commit_all([Commit(ref=ref, delete=True), Commit(ref=ref, if_rev=0, delete=True)])


def sweep(store: Storage) -> None:
    """Delete the checkpoints whose sessions are gone: a process ended between the one and the other."""
    store.batcher.commit_all([Commit(ref=ref, delete=True) for ref, _ in left_over(store)])


def left_over(store: Storage) -> Iterator[tuple[Ref, str]]:
    """The heads of checkpoints whose sessions are gone, and those sessions' ids."""
    after = ""
    while heads := store.backend.scan(CHECKPOINT, after, PAGE):
        for head in heads:
            id = head.tags.get("session", "")
            with contextlib.suppress(Corrupt):  # it is there, and damaged
                session = store.backend.get([session_ref(id)])[0] if id else None
                if session is None or session.dead or checkpoint_ref(session) != head.ref:
                    yield head.ref, id
        after = heads[-1].ref.id


def hide(store: Storage, id: str, seq: int) -> None:
    """Take a checkpoint of a session away that says something wrong; nobody notes it again."""
    ref = checkpoint_ref(store.head(id, trashed=True))
    found = [entry.seq for entry in store.backend.read(ref) if (one := _told(entry)) is not None and one.seq == seq]
    store.batcher.commit(Commit(ref=ref, void=[Range(place, place) for place in found]))


def near(store: Storage, owner: Head, at: int) -> list[Standing]:
    """The checkpoints next to an event; in logs with large batches, those next to its batch."""
    number = at // standings.EVERY
    for reach in (2, MAX_ENTRIES // standings.EVERY + 2):
        found = list(noted(store, owner, range(max(0, number + 1 - reach), number + reach)))
        if found:
            return found
        if owner.last // standings.EVERY == owner.base // standings.EVERY:
            break  # it never had any
    return []


def noted(store: Storage, owner: Head, numbers: Iterable[int] | None) -> Iterator[Standing]:
    """The checkpoints with these numbers, or all, that can be trusted; those of events that the head knows."""
    ids = None if numbers is None else [str(number) for number in numbers]
    try:
        entries = store.backend.read(checkpoint_ref(owner), ids=ids)
    except (Corrupt, Denied):
        return
    yield from (one for one in map(_told, entries) if one is not None and one.seq <= owner.last)


def believed(store: Storage, owner: Head, noted: Iterable[Standing]) -> Standing | None:
    """The first of some checkpoints that tells of the event which has its seq now."""
    for one in noted:
        entries = store.backend.read(owner.ref, after=one.seq - 1, upto=one.seq, voided=True)
        # Where it was forgotten or damaged nothing speaks against it.
        if all(entry.fault or mark_of(entry) == one.mark for entry in entries):
            return one
    return None


def _told(entry: Entry) -> Standing | None:
    """What a checkpoint says; None if that can't be trusted."""
    try:
        return None if entry.fault else msgspec.json.decode(entry.body, type=Standing)
    except msgspec.MsgspecError:
        return None


def note_passed(store: Storage, owner: Head, passed: Sequence[Standing]) -> None:
    """Note what was passed and nobody noted, so that it is paid once."""
    if not passed:
        return
    every = standings.EVERY
    known = {one.seq // every for one in noted(store, owner, [one.seq // every for one in passed])}
    missing = [one for one in passed if one.seq // every not in known]
    if missing:
        store.batcher.later(noting(owner, missing))
