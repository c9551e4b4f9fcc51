"""History that is changed without being rewritten: events are hidden from the view and stay in the log.

Each change is one commit: it hides or shows ranges, sets the counters right and appends an `Edit` that says so, whom
tails and watchers meet like any event. Invariant: the edits that were not undone are a stack, linked by `below`, whose
top the head's tag `edit` leads to; their ranges do not overlap. So an undo shows exactly what its removal hid.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeAlias

from holdfast import codec
from holdfast.errors import Invalid, Stale
from holdfast.heads.info import EDIT, Tally, now
from holdfast.history.ancestry import edit_at, newest_edit, own_ranges, segments, top_of
from holdfast.model import Edit, Event, Message, Step
from holdfast.plan import Commit, Entry, Head, Refused
from holdfast.refusals import refusal
from holdfast.storage import Storage

if TYPE_CHECKING:
    from holdfast.session import Session

Fence: TypeAlias = Mapping[str, str | None] | None
"""Tags that the head must carry: a turn's token."""
TRIES = 200
"""How often a change of history starts over when others append meanwhile."""
POLITE = 20
"""Tries after which the process's other threads have to wait: one that appends all the time would win each race."""


class Taken:
    """Events that are taken back: as ranges of seqs, and what they had added to the counters."""

    def __init__(self, after: int) -> None:
        self.position = after
        self.ranges: list[tuple[int, int]] = []
        self.counts: dict[str, int] = {}

    def add(self, events: Iterable[Event], upto: int) -> None:
        """Take these visible events, too, behind which nothing else is up to there."""
        for event in events:
            if isinstance(event.payload, Edit):
                continue  # a tail that did not see it yet would never know
            first = self.ranges.pop()[0] if self.ranges and self.ranges[-1][1] == event.seq - 1 else event.seq
            self.ranges.append((first, event.seq))
            if isinstance(event.payload, Message | Step):  # usage stays counted: it was spent
                for name, count in Tally([event.payload]).add.items():
                    self.counts[name] = self.counts.get(name, 0) - count
        self.position = max(self.position, upto)


def remove_last(store: Storage, session: Session, fence: Fence) -> Event | None:
    """See `Session.remove_last`."""
    for number in range(TRIES):
        with _race(store, number):
            head = store.head(session.id)
            event = next(session.events(before=head.last + 1, types="message", last=1), None)
            if event is None:
                return None
            taken = Taken(event.seq - 1)
            taken.add([event], event.seq)
            if _committed(store, head, removal(store, head, "remove_last", taken), fence):
                return event
    raise _restless(session.id)


def rewind(store: Storage, session: Session, fence: Fence, to: int, action: str = "rewind") -> Edit | None:
    """See `Session.rewind`."""
    if to < 0:
        raise Invalid(f"to is a seq, 0 or more, not {to}", to=to)
    taken, seen = Taken(to), ""
    for number in range(TRIES):
        with _race(store, number):
            head = store.head(session.id)
            if to > head.last:
                raise Invalid(
                    f"session {session.id!r} has no event {to}; it is at {head.last}", session=session.id, to=to
                )
            if head.tags.get(EDIT, "") != seen:
                taken, seen = Taken(to), head.tags.get(EDIT, "")
            # What was read in an earlier try is as it was: only an edit hides or shows.
            taken.add(session.events(after=taken.position, before=head.last + 1, damaged="keep"), head.last)
            if not taken.ranges:
                return None
            edit = removal(store, head, action, taken)
            if _committed(store, head, edit, fence):
                return edit
    raise _restless(session.id)


def undo(store: Storage, session: Session, fence: Fence) -> Edit | None:
    """See `Session.undo`."""
    for number in range(TRIES):
        with _race(store, number):
            head = store.head(session.id)
            lineage, newest = segments(store, head), newest_edit(head)
            top = top_of(store, lineage, newest)
            if not top:
                return None
            removal = edit_at(store, lineage, top)
            edit = Edit(
                action="undo",
                ranges=removal.ranges,
                counts=_negative(removal.counts),
                previous=newest,
                below=removal.below,
                undoes=top,
            )
            if _committed(store, head, edit, fence):
                return edit
    raise _restless(session.id)


def _race(store: Storage, number: int) -> AbstractContextManager[None]:
    """Around a try: the first ones run against all others, later ones against other processes alone."""
    return store.batcher.alone() if number >= POLITE else contextlib.nullcontext()


def newest_removal(store: Storage, head: Head) -> Edit | None:
    """What an undo would undo; None if there is nothing."""
    lineage = segments(store, head)
    top = top_of(store, lineage, newest_edit(head))
    return edit_at(store, lineage, top) if top else None


def removal(store: Storage, head: Head, action: str, taken: Taken) -> Edit:
    """The edit that hides what was taken back."""
    newest = newest_edit(head)
    below = top_of(store, segments(store, head), newest) if newest else 0
    return Edit(action=action, ranges=tuple(taken.ranges), counts=taken.counts, previous=newest, below=below)


def _negative(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: -count for name, count in counts.items()}


def edit_commit(head: Head, edit: Edit, body: bytes, at: int, fence: Fence) -> Commit:
    """The commit that makes an edit of a log as it stands."""
    return Commit(
        ref=head.ref,
        at=at,
        if_rev=head.rev,
        if_tags=fence,
        append=[Entry("", at, body)],
        void=own_ranges(head, edit.ranges, hide=edit.action != "undo"),
        add=edit.counts or None,
        tags={EDIT: str(head.last + 1)},
    )


def _committed(store: Storage, head: Head, edit: Edit, fence: Fence) -> bool:
    """Make an edit; False if the session was changed meanwhile."""
    commit = edit_commit(head, edit, codec.encode(edit, store.large), now(), fence)
    result = store.batcher.commit(commit)
    if isinstance(result, Refused) and result.why != "rev":
        raise refusal(result, commit)
    return isinstance(result, Head)


def _restless(id: str) -> Stale:
    return Stale(f"session {id!r} changed {TRIES} times during one change of its history; try again", session=id)
