"""A fork's log: its parent's up to where it was forked, with equal seqs, then its own; and so on for the parent's.

Invariant: what a session shows follows from its log alone, its parents' part included. Each `Edit` names the one below
it, so the edits of a log are a stack that never changes but at its top. What is hidden in a parent's log is what *its*
stack says; a fork whose stack is another one works out the difference from where the two part, and reads only as many
edits as were made behind that place. So parent and fork hide and show without a word to each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from holdfast import codec
from holdfast.errors import Corrupt, NotFound, Stale
from holdfast.heads.info import EDIT, UNSPLIT, number_in, session_ref
from holdfast.model import Edit
from holdfast.plan import MAX_COUNT, Entry, Head, Range
from holdfast.storage import Storage

FORKED = "forked"
"""Tag of a fork's head: the id of the session whose log it goes on from; its head's `base` says from where."""
TRIES = 200
"""How often a read starts over when others hide and show the same events meanwhile."""
PAGE = 500
"""Entries read at a time."""


class Segment(NamedTuple):
    """The part of one session's own log that a lineage reads: `after < seq <= upto`."""

    head: Head
    after: int
    upto: int


def segments(store: Storage, head: Head) -> list[Segment]:
    """The parts of a session's log, its own first, then its parent's, up to the first ancestor.

    Raises:
        Corrupt: a parent is gone or can't be trusted.
    """
    found = [Segment(head, max(head.base, head.trim), MAX_COUNT)]
    while (id := found[-1].head.tags.get(FORKED)) is not None:
        child = found[-1]
        parent = store.backend.get([session_ref(id)])[0]
        if parent is None or parent.dead:
            store.head(head.ref.id, trashed=True)  # both were deleted meanwhile, it may be
            raise Corrupt(
                f"session {id!r} is gone, which {child.head.ref.id!r} was forked from at event {child.head.base}; "
                "what was appended to the fork can still be read from there",
                session=child.head.ref.id,
                parent=id,
            )
        found.append(Segment(parent, max(parent.base, parent.trim), min(child.upto, child.head.base)))
    return found


def first_of(lineage: Sequence[Segment]) -> int:
    """The seq behind which a lineage begins."""
    return min(lineage[-1].after, lineage[-1].upto)


def newest_edit(head: Head) -> int:
    """The seq of the newest edit of a log; 0 for none."""
    return number_in(head, EDIT)


def edit_at(store: Storage, lineage: Sequence[Segment], seq: int) -> Edit:
    """The edit with this seq.

    Raises:
        Corrupt: it can't be trusted, or is none.
    """
    for head, after, upto in lineage:
        if after < seq <= upto:
            for entry in store.backend.read(head.ref, after=seq - 1, upto=seq, voided=True):
                payload = None if entry.fault else codec.decode(entry.body, store.large)
                if isinstance(payload, Edit):
                    return payload
    id = lineage[0].head.ref.id
    store.head(id, trashed=True)  # if it was deleted meanwhile, that is what is wrong
    raise Corrupt(
        f"event {seq} of session {id!r} should say what was hidden, and can't be read; check the session",
        session=id,
        seq=seq,
    )


def top_of(store: Storage, lineage: Sequence[Segment], newest: int) -> int:
    """The seq of the newest edit that was not undone, when the edit `newest` was the last; 0 for none."""
    if not newest:
        return 0
    edit = edit_at(store, lineage, newest)
    return edit.below if edit.action == "undo" else newest


class Differing(NamedTuple):
    """How a fork's view of an ancestor's entries differs from what is hidden there."""

    hide: Sequence[tuple[int, int]] = ()
    show: Sequence[tuple[int, int]] = ()

    def of(self, entry: Entry) -> Entry:
        """The entry as the fork sees it."""
        void = (entry.void and not _within(entry.seq, self.show)) or _within(entry.seq, self.hide)
        return entry if void == entry.void else msgspec.structs.replace(entry, void=void)


def _within(seq: int, ranges: Sequence[tuple[int, int]]) -> bool:
    return any(first <= seq <= last for first, last in ranges)


def differing(store: Storage, lineage: Sequence[Segment], index: int) -> Differing | None:
    """What to hide and show of the entries of one ancestor; None if all is as it is there."""
    own, theirs = newest_edit(lineage[0].head), newest_edit(lineage[index].head)
    shared = lineage[index].upto
    if own == theirs <= shared:  # behind what they share, the same seq is another edit
        return None
    above = segments(store, lineage[index].head)  # it sees more of its own log and of its parents' than the fork does
    mine, yours = top_of(store, lineage, own), top_of(store, above, theirs)
    hide: list[tuple[int, int]] = []
    show: list[tuple[int, int]] = []
    while mine != yours or mine > shared:
        if mine > shared or (yours <= shared and mine > yours):
            edit = edit_at(store, lineage, mine)
            hide += edit.ranges
            mine = edit.below
        else:
            edit = edit_at(store, above, yours)
            show += edit.ranges
            yours = edit.below
    clipped = [r for r in hide if r[0] <= shared], [r for r in show if r[0] <= shared]
    return Differing(*clipped) if any(clipped) else None


def read(
    store: Storage, head: Head, *, after: int, upto: int | None, limit: int, reverse: bool = False, voided: bool = False
) -> list[Entry]:
    """Entries of a session's log, its parents' included, with `after < seq <= upto`; as many as `limit` if there are.

    Raises:
        NotFound, Deleted: a fork is not there any more.
        Corrupt: the head of a fork or of its parents can't be trusted.
        Stale: others hid and showed events of it without a pause.
    """
    if FORKED not in head.tags or after >= head.base:
        return store.backend.read(head.ref, after=after, upto=upto, limit=limit, reverse=reverse, voided=voided)
    for _ in range(TRIES):
        lineage = segments(store, store.head(head.ref.id, trashed=True))
        found: list[Entry] = []
        for index in range(len(lineage)) if reverse else reversed(range(len(lineage))):
            lowest, highest = (
                max(after, lineage[index].after),
                min(MAX_COUNT if upto is None else upto, lineage[index].upto),
            )
            if lowest < highest and len(found) < limit:
                part = Part(store, lineage[index].head, _seen(store, lineage, index))
                found += part.read(lowest, highest, limit - len(found), reverse, voided)
        # The heads were read before the entries: what was hidden in between would be told wrongly.
        now = store.backend.get([part.head.ref for part in lineage])
        if all(
            new is not None and newest_edit(new) == newest_edit(old.head) for new, old in zip(now, lineage, strict=True)
        ):
            return found
    raise Stale(f"session {head.ref.id!r} was changed {TRIES} times during one read; try again", session=head.ref.id)


def _seen(store: Storage, lineage: Sequence[Segment], index: int) -> Differing | None:
    try:
        return differing(store, lineage, index) if index else None
    except (Corrupt, NotFound):
        store.head(
            lineage[0].head.ref.id, trashed=True
        )  # the fork, and then its parent, may have been deleted meanwhile
        raise


class Part(NamedTuple):
    """One session's own log as another one sees it."""

    store: Storage
    head: Head
    differing: Differing | None

    def read(self, after: int, upto: int, limit: int, reverse: bool, voided: bool) -> list[Entry]:
        """Entries with `after < seq <= upto`, as many as `limit` if there are."""
        backend, ref = self.store.backend, self.head.ref
        if self.differing is None:
            return backend.read(ref, after=after, upto=upto, limit=limit, reverse=reverse, voided=voided)
        found: list[Entry] = []
        while len(found) < limit:
            entries = backend.read(ref, after=after, upto=upto, limit=limit, reverse=reverse, voided=True)
            found += [entry for entry in map(self.differing.of, entries) if voided or not entry.void]
            if len(entries) < limit:
                break
            after, upto = (after, entries[-1].seq - 1) if reverse else (entries[-1].seq, upto)
        return found[:limit]


def whole(store: Storage, head: Head) -> Head:
    """The head that a session would have if its log, which may go on from its parents', were all its own."""
    if FORKED not in head.tags:
        return head
    tags = {name: value for name, value in head.tags.items() if name != FORKED}
    if head.counts.get("tokens") or head.counts.get("calls"):
        tags[UNSPLIT] = "1"  # what it began with is older than it is
    return msgspec.structs.replace(head, base=first_of(segments(store, head)), trim=0, tags=tags)


def stored(store: Storage, head: Head, after: int = 0) -> Iterator[Entry]:
    """A session's entries behind a seq, its parents' included and those that were taken back, up to its head's last."""
    if FORKED not in head.tags:
        after = max(after, head.base, head.trim)
    while after < head.last and (entries := read(store, head, after=after, upto=head.last, limit=PAGE, voided=True)):
        yield from entries
        after = entries[-1].seq


def seen_with_ids(store: Storage, head: Head, ids: Sequence[str]) -> list[Entry]:
    """As `with_ids`, each entry hidden or not as the session sees it."""
    if FORKED not in head.tags:
        return store.backend.read(head.ref, ids=ids, voided=True)
    lineage = segments(store, head)
    found: list[Entry] = []
    for index, part in reversed(list(enumerate(lineage))):
        entries = store.backend.read(part.head.ref, after=part.after, upto=part.upto, ids=ids, voided=True)
        view = _seen(store, lineage, index) if entries else None
        found += entries if view is None else map(view.of, entries)
    return found


def with_ids(store: Storage, head: Head, ids: Sequence[str]) -> list[Entry]:
    """The entries that carry one of the ids, in a session's log and its parents', in order."""
    if FORKED not in head.tags:
        return store.backend.read(head.ref, ids=ids, voided=True)
    found: list[Entry] = []
    for part in reversed(segments(store, head)):
        found += store.backend.read(part.head.ref, after=part.after, upto=part.upto, ids=ids, voided=True)
    return found


def own_ranges(head: Head, ranges: Sequence[tuple[int, int]], *, hide: bool) -> list[Range]:
    """Those of the ranges that lie in a session's own log: only there it hides and shows by itself."""
    lowest = max(head.base, head.trim) + 1
    return [Range(max(first, lowest), last, hide) for first, last in ranges if last >= lowest]
