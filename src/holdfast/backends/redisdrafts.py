"""What commits of one session come to on what is stored, as the arguments of `commit.lua`. Pure: it sends nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from holdfast.backends import rediskeys, spans
from holdfast.backends.rediskeys import AT, Layout, Place
from holdfast.backends.redisrecords import STAMP, bounds_of, bounds_record, entry_record, head_record, spans_record
from holdfast.backends.spans import Spans
from holdfast.plan import Commit, Entry, Head, Ref, Refused, plan

ANEW = b"anew"
"""What says in the place of what is forgotten that all is."""


class Stored(NamedTuple):
    """A session as it is in Redis, by the stamp of its head; hidden entries by their places.

    `found_at` are the places of a damaged head, which it can't tell by itself; `head` is then what remains of it.
    """

    stamp: bytes
    head: Head | None
    hidden: Spans
    found_at: tuple[Place, ...] | None = None


class Draft(NamedTuple):
    """What to send, if anything is to be written, and what each commit came to if that is done."""

    results: list[Head | Refused]
    arguments: list[Any] | None
    after: Stored

    wide: bool = False
    """Whether it touches more than each commit does: other lists than that by time."""

    @property
    def creates(self) -> bool:
        """Whether it makes a head where there never was one."""
        return bool(self.arguments) and not self.arguments[0]

    @property
    def forgets(self) -> bool:
        """Whether entries are to be removed behind it."""
        return bool(self.arguments) and self.arguments[2] not in (b"", ANEW)


class Drafting:
    """Commits of one session, planned one after the other."""

    def __init__(self, ref: Ref, stored: Stored, known: Mapping[str, int]) -> None:
        self._ref = ref
        self._stored = stored
        self._known = known
        self._head = stored.head
        self._hidden = stored.hidden
        self._there = dict(known)
        self._asked: dict[str, None] = {}
        self._new: list[tuple[Entry, bytes]] = []
        self._anew = False
        self._changed = False

    def add(self, commit: Commit, packed: Sequence[bytes]) -> Head | Refused:
        """Plan one more."""
        ids = [entry.id for entry in commit.append if entry.id]
        self._asked.update(dict.fromkeys(i for i in ids if i not in self._known))
        planned = plan(self._head, {i for i in ids if i in self._there}, commit)
        if isinstance(planned, Refused):
            return planned
        before, head = self._head, planned.head
        self._head = head
        self._changed = True
        if head.dead:
            self._forget_all()
            return head
        if before is None or before.dead:
            self._forget_all()
        for entry, bytes in zip(planned.entries, packed, strict=True):
            self._new.append((entry, bytes))
            if entry.id:
                self._there[entry.id] = entry.seq
            if entry.void:
                self._hide(entry.seq, entry.seq, hide=True)
        for span in commit.void:
            self._hide(span.first, span.last, hide=span.hide)
        if commit.trim is not None:
            self._trim(head)
        return head

    def _hide(self, first: int, last: int, *, hide: bool) -> None:
        base = self._head.base if self._head else 0
        self._hidden = spans.marked(self._hidden, first - base, last - base, take=hide)

    def _trim(self, head: Head) -> None:
        self._there = {id: seq for id, seq in self._there.items() if seq > head.trim}
        self._new = [(entry, packed) for entry, packed in self._new if entry.seq > head.trim]
        if self._hidden:
            self._hidden = spans.marked(self._hidden, 0, head.trim - head.base, take=False)

    def _forget_all(self) -> None:
        self._anew = True
        self._hidden = ()
        self._there.clear()
        self._new.clear()

    def made(self, layout: Layout, results: list[Head | Refused]) -> Draft:
        """What to send, and what is stored once that ran."""
        head = self._head
        if not self._changed or head is None:
            return Draft(results, None, self._stored)
        record = head_record(head)
        fields = self._fields(head)
        leave, take = rediskeys.moved(self._stored.head, head)
        if self._stored.found_at is not None:
            take = list(rediskeys.places(head))
            leave = [place for place in self._stored.found_at if place not in take]
        arguments = [
            self._stored.stamp, record, ANEW if self._anew else self._forgotten(head),
            rediskeys.member(self._ref), layout.channel, len(self._asked), len(fields), 2 * len(leave), 2 * len(take),
            *(f"i{id}" for id in self._asked), *fields,
        ]  # fmt: skip
        wide = not self._stored.stamp
        for place in (*leave, *take):
            arguments += place
            wide = wide or place[0] != AT
        if not self._stored.stamp:
            arguments += (self._ref.kind, layout.id)
        return Draft(results, arguments, Stored(record[:STAMP], head, self._hidden), wide)

    def _forgotten(self, head: Head) -> int | bytes:
        """Behind which place stored entries are to be forgotten."""
        before = self._stored.head
        if before is None or head.trim == before.trim:
            return b""
        was, now = bounds_of(before), bounds_of(head)
        return was.trim if min(now.trim, was.last) > was.trim else b""

    def _fields(self, head: Head) -> list[Any]:
        """Fields and values of the log to write."""
        if head.dead:
            return []
        before = self._stored.head
        base = head.base
        fields: list[Any] = []
        for entry, packed in self._new:
            place = entry.seq - base
            fields += (place, entry_record(self._ref, entry, packed))
            if entry.id:
                fields += (f"i{entry.id}", place)
        if self._anew or before is None or (before.last, before.trim, before.base) != (head.last, head.trim, base):
            fields += (b"m", bounds_record(self._ref, bounds_of(head)))
        if self._anew or self._hidden != self._stored.hidden:
            fields += (b"v", spans_record(self._ref, self._hidden))
        return fields


def draft(
    ref: Ref,
    layout: Layout,
    stored: Stored,
    known: Mapping[str, int],
    commits: Iterable[tuple[Commit, Sequence[bytes]]],
) -> Draft:
    """What commits of a session come to.

    Args:
        ref: The session.
        layout: The store's keys.
        stored: What is there.
        known: The ids of new entries that the log is known to hold, with their numbers.
        commits: The commits in order, with their packed bodies.
    """
    drafting = Drafting(ref, stored, known)
    return drafting.made(layout, [drafting.add(commit, packed) for commit, packed in commits])


def look(ids: Iterable[str]) -> list[Any]:
    """The arguments that only look: what is there, and which of the ids the log holds."""
    fields = [f"i{id}" for id in ids]
    return [b"", b"", b"", b"", b"", len(fields), 0, 0, 0, *fields]


def touch(stored: Stored) -> list[Any]:
    """The arguments that write what is there once more, so that its durability can be waited for."""
    arguments = look(())
    arguments[1] = stored.stamp
    return arguments
