"""Counting: how a session stood at an event, from the nearest checkpoint and the events between.

What is hidden now was counted when it came, and an edit that came later took it off again. So which of the events were
counted follows from the edits, and they are found as each names the one before it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from holdfast import codec
from holdfast.errors import Corrupt, Stale
from holdfast.heads.info import Tally
from holdfast.history import standings
from holdfast.history.ancestry import Segment, edit_at, newest_edit, segments, top_of
from holdfast.history.checkpoints import believed, near, note_passed
from holdfast.history.standings import Standing, mark_of, standing_of
from holdfast.model import AnyPayload, Edit, Message, Step, Summary
from holdfast.plan import MAX_COUNT, Entry, Head
from holdfast.storage import Storage

TRIES = 200
"""How often a count starts over when others hide and show the same events meanwhile."""
PAGE = 500
"""Entries read at a time."""


def standing_at(store: Storage, head: Head, at: int) -> Standing:
    """How a session stood when `at` was its newest event, which lies in what it holds.

    Raises:
        Corrupt: an event that would have to be counted can't be trusted.
    """
    return standing_of(head) if at == head.last else _standing_in(store, segments(store, head), at)


def _standing_in(store: Storage, lineage: Sequence[Segment], at: int) -> Standing:
    while at <= lineage[0].after and len(lineage) > 1:
        lineage = lineage[1:]  # it is its parent's
    lineage = [lineage[0]._replace(upto=MAX_COUNT), *lineage[1:]]  # who knows more than its fork does
    owner = lineage[0].head
    noted = sorted(near(store, owner, at), key=lambda one: one.seq)
    below = believed(store, owner, [one for one in reversed(noted) if lineage[0].after <= one.seq <= at])
    above = believed(store, owner, [one for one in noted if one.seq >= at]) or standing_of(owner)
    if below is None and len(lineage) == 1 and not lineage[0].after:
        below = Standing(seq=0, counts={}, summary=0)
    # Where it begins, a fork's counters are those of its parent; those of a log that was trimmed, nobody knows.
    lowest = below.seq if below else owner.base if len(lineage) > 1 and owner.base >= owner.trim else -MAX_COUNT
    ways = [(above.seq - at, True), (at - lowest, False)]
    failed: Corrupt | None = None
    for distance, is_back in sorted(way for way in ways if way[0] < MAX_COUNT):
        try:
            start = above if is_back else below or _standing_in(store, lineage[1:], lowest)
            if not distance:
                return start
            return _Stretch(store, lineage, below, above).counted(start, at)
        except Corrupt as error:
            failed = failed or error
    raise failed or Corrupt(f"session {owner.ref.id!r} can't be counted", session=owner.ref.id)


class Known(NamedTuple):
    """What is known of a stretch of a log beside its events: which of them are edits that its session made, and what
    is hidden by edits at all; None if that makes no difference. An `Edit` that somebody copied there is none.
    """

    edits: Mapping[int, Edit]
    hidden: Collection[int] | None = None

    def counts(self, entry: Entry, payload: AnyPayload) -> bool:
        """Whether an event was counted when it came: one that no edit hides, and is hidden, was not."""
        if not entry.void or self.hidden is None or not isinstance(payload, Message | Step):
            return True
        return entry.seq in self.hidden


class Passed:
    """What the events between two seqs add to how a session stood."""

    def __init__(self, known: Known, counts: Mapping[str, int] | None = None) -> None:
        self._known = known
        self.counts: dict[str, int] = dict(counts or {})
        self.edits: tuple[int, int] | None = None  # the one before the first, and the newest
        # Whether a summary is among them. Which one was the newest, only the head knew: one copied from elsewhere names
        # seqs of another log.
        self.summarised = False
        self.doubtful = False  # whether one is hidden, and no edit that is known tells of it
        self.mark = 0  # that of the last

    def copy(self) -> Passed:
        """The same, that stays as it is."""
        copy = Passed(self._known, self.counts)
        copy.edits, copy.summarised, copy.doubtful = self.edits, self.summarised, self.doubtful
        copy.mark = self.mark
        return copy

    def take(self, entry: Entry, payload: AnyPayload) -> None:
        """Pass one more event."""
        self.mark = mark_of(entry)
        if (edit := self._known.edits.get(entry.seq)) is not None:
            _add(self.counts, edit.counts)
            self.edits = (self.edits[0] if self.edits else edit.previous), entry.seq
        elif isinstance(payload, Summary):
            self.summarised = True
        self.doubtful = self.doubtful or (
            entry.void and isinstance(payload, Message | Step) and not self._told(entry.seq)
        )
        if self._known.counts(entry, payload):
            _add(self.counts, Tally([payload], titled=True).add)

    def _told(self, seq: int) -> bool:
        if self._known.hidden is not None:
            return True
        return any(first <= seq <= last for edit in self._known.edits.values() for first, last in edit.ranges)

    def onto(self, start: Standing, seq: int) -> Standing:
        """How it stood behind these events, `seq` being the last, if it stood so before them."""
        return Standing(
            seq=seq,
            mark=self.mark,
            counts=_summed(start.counts, self.counts, 1),
            edit=self.edits[1] if self.edits else start.edit,
            summary=None if self.summarised else start.summary,
        )

    def off(self, end: Standing, seq: int) -> Standing:
        """How it stood before these events, behind `seq`, if it stood so after them."""
        return Standing(
            seq=seq,
            counts=_summed(end.counts, self.counts, -1),
            edit=self.edits[0] if self.edits else end.edit,
            summary=None if self.summarised else end.summary,
        )


def _add(counts: dict[str, int], more: Mapping[str, int]) -> None:
    for name, count in more.items():
        counts[name] = counts.get(name, 0) + count


def _summed(counts: Mapping[str, int], more: Mapping[str, int], sign: int) -> dict[str, int]:
    summed = {name: counts.get(name, 0) + sign * more.get(name, 0) for name in {**counts, **more}}
    return {name: min(max(count, -MAX_COUNT), MAX_COUNT) for name, count in summed.items() if count}


class _Stretch(NamedTuple):
    """A part of a session's own log between two standings that are known, of which the lower may not be."""

    store: Storage
    lineage: Sequence[Segment]
    below: Standing | None
    above: Standing

    def counted(self, start: Standing, at: int) -> Standing:
        """How the session stood at `at`, counted from where it is known; what was passed on the way is noted."""
        first, last = min(start.seq, at), max(start.seq, at)
        known = Known(edits_behind(self.store, self.lineage, self.above.edit, first))
        parts = self._passed(first, last, known)
        if parts[-1][1].doubtful and not self._all_counted():
            parts = self._passed_but_uncounted(first, last, known)
        whole = parts[-1][1]
        found = whole.off(start, at) if start.seq > at else whole.onto(start, at)
        beginning = found if start.seq > at else start
        note_passed(self.store, self.lineage[0].head, [part.onto(beginning, seq) for seq, part in parts[:-1]])
        return found

    def _all_counted(self) -> bool:
        """Whether nothing in it was hidden without an edit, as version 0.1 did: then the sums of all, the hidden ones
        too, agree. So the edits that were made later need not be read.
        """
        below, above = self.below, self.above
        if below is None or below.seq < self.lineage[0].after or above.seq - below.seq > 3 * standings.EVERY:
            return False
        known = Known(edits_behind(self.store, self.lineage, above.edit, below.seq))
        try:
            summed = self._passed(below.seq, above.seq, known)[-1][1].onto(below, above.seq)
        except Corrupt:
            return False  # what is damaged may lie where nobody has to count
        return all(summed.counts.get(name, 0) == above.counts.get(name, 0) for name in ("messages", "steps"))

    def _passed_but_uncounted(self, first: int, last: int, known: Known) -> list[tuple[int, Passed]]:
        """The same without what was hidden without an edit, which takes all edits that were made later."""
        id = self.lineage[0].head.ref.id
        for _ in range(TRIES):
            lineage = segments(self.store, self.store.head(id, trashed=True))
            parts = self._passed(first, last, Known(known.edits, hidden_behind(self.store, lineage, first)))
            if newest_edit(self.store.head(id, trashed=True)) == newest_edit(lineage[0].head):
                return parts
        raise Stale(f"session {id!r} was changed {TRIES} times during one read; try again", session=id)

    def _passed(self, after: int, upto: int, known: Known) -> list[tuple[int, Passed]]:
        """What the events up to each place of a checkpoint add, and in the end all of them."""
        store, owner = self.store, self.lineage[0].head
        found: list[tuple[int, Passed]] = []
        passed = Passed(known)
        position = after
        while position < upto:
            entries = store.backend.read(owner.ref, after=position, upto=upto, limit=PAGE, voided=True)
            for entry in entries:
                if entry.fault or entry.seq != position + 1:
                    raise _damaged(owner, position + 1)
                position = entry.seq
                passed.take(entry, codec.decode(entry.body, store.large))
                if position % standings.EVERY == 0 and position < upto:
                    found.append((position, passed.copy()))
            if not entries:
                store.head(owner.ref.id, trashed=True)  # if it was deleted meanwhile, that is what is wrong
                raise _damaged(owner, position + 1)
        return [*found, (upto, passed)]


def _damaged(owner: Head, seq: int) -> Corrupt:
    return Corrupt(
        f"event {seq} of session {owner.ref.id!r} is damaged, so what it began with can't be counted; "
        "fork at the newest event",
        session=owner.ref.id,
        seq=seq,
    )


def edits_behind(store: Storage, lineage: Sequence[Segment], newest: int, after: int) -> dict[int, Edit]:
    """The edits behind a seq, of which the newest is known; each names the one before it."""
    found: dict[int, Edit] = {}
    while newest > after:
        found[newest] = edit_at(store, lineage, newest)
        newest = found[newest].previous
    return found


def hidden_behind(store: Storage, lineage: Sequence[Segment], after: int) -> set[int]:
    """The seqs behind one that the edits hide which were not undone."""
    found: set[int] = set()
    top = top_of(store, lineage, newest_edit(lineage[0].head))
    while top > after:
        edit = edit_at(store, lineage, top)
        for first, last in edit.ranges:
            found.update(range(max(first, after + 1), last + 1))
        top = edit.below
    return found
