"""Summaries: which one counts, and how one is added that stands for a range of the log.

A summary counts if it is in view and what it stands for is as it was when it was written: a removal or an undo behind
it that touches its range takes that away, until it is undone. The newest that counts is found by the head's tag
`summary` and from there by each one's `previous`; only where nobody noted them is the log searched, from its end.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from holdfast.errors import Conflict, Invalid, Stale
from holdfast.heads.info import SUMMARY, number_in
from holdfast.history.ancestry import Segment, edit_at, first_of, newest_edit, read, segments
from holdfast.log import Log, OnDamage
from holdfast.model import Event, Large, Summary
from holdfast.plan import Head
from holdfast.refusals import refusal
from holdfast.storage import Storage

TRIES = 200
"""How often a change starts over when others append meanwhile."""
PAGE = 32
"""Entries of the first read of a walk; each next one is twice as large, up to `LARGEST`."""
LARGEST = 512


def walk(
    store: Storage,
    log: Log,
    head: Head,
    *,
    after: int = 0,
    upto: int | None = None,
    reverse: bool = False,
    include_hidden: bool = False,
    damaged: OnDamage = "raise",
) -> Iterator[Event]:
    """Events with `after < seq <= upto`, no further than the head knows, and few more read than are asked for."""
    upto = head.last if upto is None else min(upto, head.last)
    size = PAGE
    while after < upto:
        entries = read(store, head, after=after, upto=upto, limit=size, reverse=reverse, voided=include_hidden)
        for entry in entries:
            yield log.decode(entry, damaged)
        if len(entries) < size:
            return
        after, upto = (after, entries[-1].seq - 1) if reverse else (entries[-1].seq, upto)
        size = min(size * 2, LARGEST)


def noted(head: Head) -> int | None:
    """The seq of the newest summary of a log; 0 if there is none, None if nobody noted it."""
    return number_in(head, SUMMARY) if SUMMARY in head.tags else None


def all_newest_first(store: Storage, log: Log, head: Head, damaged: OnDamage) -> Iterator[Event]:
    """The summaries of a log, newest first, also those that were taken back."""
    seq, upto = noted(head), head.last
    while seq != 0:
        found = _at(store, log, head, seq, damaged) if seq else _searched(store, log, head, upto, damaged)
        if found is None:
            if seq is None:
                return
            upto, seq = seq - 1, None  # what should stand there can't be read: look for another
            continue
        yield found
        upto = found.seq - 1
        seq = found.payload.previous if isinstance(found.payload, Summary) else None


def _at(store: Storage, log: Log, head: Head, seq: int, damaged: OnDamage) -> Event | None:
    found = next(walk(store, log, head, after=seq - 1, upto=seq, include_hidden=True, damaged=damaged), None)
    return found if found is not None and isinstance(found.payload, Summary) else None


def _searched(store: Storage, log: Log, head: Head, upto: int, damaged: OnDamage) -> Event | None:
    events = walk(store, log, head, upto=upto, reverse=True, include_hidden=True, damaged=damaged)
    return next((event for event in events if isinstance(event.payload, Summary)), None)


def newest(store: Storage, log: Log, head: Head, damaged: OnDamage = "raise") -> Event | None:
    """The summary that counts, its range told in full; None if there is none."""
    lineage: list[Segment] | None = None
    for event in all_newest_first(store, log, head, damaged):
        summary = event.payload
        if event.hidden or not isinstance(summary, Summary):
            continue
        summary = msgspec.structs.replace(
            summary, start=summary.start or 1, end=min(summary.end or event.seq - 1, event.seq - 1)
        )
        if newest_edit(head) > event.seq:
            lineage = lineage or segments(store, head)
            if changed_since(store, lineage, newest_edit(head), event.seq, summary.end):
                continue
        return msgspec.structs.replace(event, payload=summary)
    return None


def changed_since(store: Storage, lineage: list[Segment], edit: int, seen: int, upto: int) -> bool:
    """Whether what events up to `upto` show is otherwise than when `seen` was the newest; `edit` is the newest edit."""
    undone: set[int] = set()
    while edit > seen:
        told = edit_at(store, lineage, edit)
        if told.action == "undo":
            undone.add(told.undoes)
            touches = told.undoes <= seen  # one that came later cancels out
        else:
            touches = edit not in undone
        if touches and any(first <= upto for first, _ in told.ranges):
            return True
        edit = told.previous
    return False


def compact(store: Storage, log: Log, summary: str | Large, upto: int, seen: int | None) -> Event:
    """See `Session.compact`."""
    seen = upto if seen is None else seen
    summary = _stored(store, summary)
    for _ in range(TRIES):
        head = store.head(log.id)
        lineage = segments(store, head)
        _check_range(lineage, head, upto, seen)
        if changed_since(store, lineage, newest_edit(head), seen, upto):
            raise Stale(
                f"events of session {log.id!r} up to {upto} were taken back or shown again since event {seen}; "
                "make the summary anew of what is there now",
                session=log.id,
                last=head.last,
            )
        before = newest(store, log, head)
        start = first_of(lineage) + 1
        if before is not None and isinstance(before.payload, Summary):
            start = min(start, before.payload.start)
            if before.payload.end > upto:
                raise Conflict(
                    f"a newer summary of session {log.id!r}, event {before.seq}, stands for events up to "
                    f"{before.payload.end} already; go on from that one",
                    session=log.id,
                    seq=before.seq,
                )
        previous = next((event.seq for event in all_newest_first(store, log, head, "raise")), 0)
        payload = Summary(content=summary, start=start, end=upto, previous=previous)
        commit = log.prepare([payload], None, head.last)
        tags = {**(commit.tags or {}), SUMMARY: str(head.last + 1)}
        result = store.batcher.commit(msgspec.structs.replace(commit, tags=tags, if_rev=head.rev))
        if isinstance(result, Head):
            return log.decode(msgspec.structs.replace(commit.append[0], seq=head.last + 1), "raise")
        if result.why not in ("rev", "last"):
            raise refusal(result, commit)
    raise Stale(f"session {log.id!r} changed {TRIES} times during one compaction; try again", session=log.id)


def _stored(store: Storage, summary: str | Large) -> str | Large:
    """The words of a summary such that they can be read more than once.

    Raises:
        Invalid: there are none.
    """
    if not summary:
        raise Invalid("the summary is empty; give it words")
    if isinstance(summary, str) or summary.ref is not None:
        return summary
    with summary.open() as stream:
        ref = store.large.put(stream, summary.form)
    return msgspec.structs.replace(summary, opener=store.large.opener(ref), size=ref.size, ref=ref)


def _check_range(lineage: list[Segment], head: Head, upto: int, seen: int) -> None:
    first = first_of(lineage) + 1
    if not first <= upto <= head.last:
        raise Invalid(
            f"session {head.ref.id!r} can't be compacted up to {upto}; it holds the events {first} to {head.last}",
            session=head.ref.id,
            upto=upto,
            last=head.last,
        )
    if seen > head.last:
        raise Invalid(f"seen is the seq of an event that is there, not {seen}", seen=seen, last=head.last)
