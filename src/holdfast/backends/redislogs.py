"""Reading a log: entries by their numbers or ids, each call in one state of the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from holdfast import forks
from holdfast.backends.rediscalls import Call
from holdfast.backends.rediskeys import Layout
from holdfast.backends.redisnodes import Servers
from holdfast.backends.redisrecords import Bounds, bounds_in, entry_of, head_of, spans_in
from holdfast.backends.rediswriter import script
from holdfast.backends.spans import Spans, holds, reach
from holdfast.errors import Corrupt
from holdfast.plan import Entry, Ref

EXACT = 2**53
"""Numbers up to which Lua counts exactly. No log has so many entries."""
REMEMBERED = 4096
"""Logs that do not begin at 0 whose base a process keeps in memory."""


class Part(NamedTuple):
    """A part of a log in one state: its records from the place `first` on."""

    bounds: Bounds
    hidden: Spans
    first: int
    records: Sequence[bytes | None]
    fault: str = ""
    """Why it can't be told what is hidden."""


class Logs:
    """The logs of a store."""

    def __init__(self, servers: Servers, layout: Layout, unpack: Callable[[bytes], bytes]) -> None:
        self._servers = servers
        self._layout = layout
        self._unpack = unpack
        self._entries = script("entries")
        self._named = script("named")
        self._bases: dict[Ref, int] = {}
        forks.watch(self)

    def before_fork(self) -> None:
        """See `forks`."""

    def after_fork(self, *, child: bool) -> None:
        """See `forks`: what is remembered is as true in the child."""

    def read(
        self, ref: Ref, after: int, upto: int | None, limit: int | None, *, reverse: bool, voided: bool
    ) -> list[Entry]:
        """See `Backend.read`."""
        if limit == 0 or (upto is not None and upto <= after):
            return []
        span: tuple[int, int] | None = None
        while True:
            base = self._bases.get(ref, 0)
            first, last = after + 1 - base, EXACT if upto is None else upto - base
            most = -1 if span or limit is None else limit
            low, high = span or (first, last)
            part = self.part(ref, low, high, most, reverse=reverse)
            if part is None:
                return []
            if part.bounds.base != base:
                span = None
                continue
            first, last = max(first, part.bounds.trim + 1), min(last, part.bounds.last)
            if first > last:
                return []
            if limit is not None:
                hidden = () if voided or part.fault else part.hidden
                first, last = reach(hidden, first, last, limit, reverse=reverse)
            if part.first <= first and last < part.first + len(part.records):
                return self._told(ref, part, first, last, reverse=reverse, voided=voided)
            span = first, last

    def _told(self, ref: Ref, part: Part, first: int, last: int, *, reverse: bool, voided: bool) -> list[Entry]:
        found: list[Entry] = []
        for place in range(last, first - 1, -1) if reverse else range(first, last + 1):
            hidden = bool(part.hidden) and holds(part.hidden, place)
            if voided or not hidden:
                found.append(self.entry(ref, part, place, part.records[place - part.first], hidden=hidden))
        return found

    def entry(self, ref: Ref, part: Part, place: int, record: bytes | None, *, hidden: bool) -> Entry:
        """An entry of a part."""
        entry = entry_of(ref, part.bounds.base + place, record, hidden, self._unpack)
        if part.fault and not entry.fault:
            return Entry(entry.id, entry.at, entry.body, entry.seq, entry.void, part.fault)
        return entry

    def plain(self, ref: Ref, bounds: Bounds, place: int, record: bytes | None) -> Entry:
        """An entry, whether it is hidden or not."""
        return entry_of(ref, bounds.base + place, record, False, self._unpack)

    def part(self, ref: Ref, first: int, last: int, most: int = -1, *, reverse: bool = False) -> Part | None:
        """The records at some places, or of other bounds than were thought; None if there is no log."""
        call = self.part_call(ref, first, last, most, reverse=reverse)
        return self.part_in(ref, self._servers.ask([call])[0])

    def learn(self, ref: Ref, bounds: Bounds) -> None:
        """Remember where a log begins, from which its places count."""
        if len(self._bases) > REMEMBERED:
            self._bases.clear()
        if bounds.base or ref in self._bases:
            self._bases[ref] = bounds.base

    def part_call(self, ref: Ref, first: int, last: int, most: int = -1, *, reverse: bool = False) -> Call:
        """The call that asks for a part."""
        arguments = [
            self._bases.get(ref, 0), max(first, -EXACT), min(last, EXACT), min(most, EXACT), b"1" if reverse else b"0",
        ]  # fmt: skip
        return self._entries.call(self._layout.shard_of(ref), [self._layout.keys(ref).log], arguments)

    def part_in(self, ref: Ref, answer: list[Any]) -> Part | None:
        """The part in an answer."""
        if not answer or answer[0] is None:
            return None
        try:
            bounds = bounds_in(ref, answer[0])
        except Corrupt:
            return self._scanned(ref)
        self.learn(ref, bounds)
        hidden, fault = self._hidden(ref, answer[1])
        first = int(answer[2]) if len(answer) > 2 else 1
        return Part(bounds, hidden, first, answer[3:], fault)

    def _hidden(self, ref: Ref, record: bytes | None) -> tuple[Spans, str]:
        try:
            return spans_in(ref, record), ""
        except Corrupt as error:
            return (), error.message

    def _scanned(self, ref: Ref) -> Part | None:
        """The whole log, whose bounds are damaged, from all that is there."""
        shard, keys = self._layout.shard_of(ref), self._layout.keys(ref)
        flat, record = self._servers.ask([Call(shard, ("HGETALL", keys.log)), Call(shard, ("GET", keys.head))])
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        places = sorted(int(field) for field in fields if field.isdigit())
        try:
            base = head_of(ref, record or b"").base
        except Corrupt:
            base = 0
        self._bases[ref] = base
        if not places:
            return None
        hidden, fault = self._hidden(ref, fields.get(b"v"))
        records = [fields.get(b"%d" % place) for place in range(places[0], places[-1] + 1)]
        return Part(Bounds(places[0] - 1, places[-1], base), hidden, places[0], records, fault)

    def named(
        self,
        ref: Ref,
        ids: Sequence[str],
        after: int,
        upto: int | None,
        limit: int | None,
        *,
        reverse: bool,
        voided: bool,
    ) -> list[Entry]:
        """Those entries that carry one of the ids."""
        fields = [f"i{id}" for id in dict.fromkeys(ids) if id]
        if not fields:
            return []
        call = self._named.call(self._layout.shard_of(ref), [self._layout.keys(ref).log], fields)
        bounds, hidden, *flat = self._servers.ask([call])[0]
        if bounds is None:
            return []
        part = self.part_in(ref, [bounds, hidden])
        if part is None:
            return []
        found: list[Entry] = []
        for field, record in zip(flat[::2], flat[1::2], strict=True):
            place = int(field)
            seq = part.bounds.base + place
            is_hidden = holds(part.hidden, place)
            if place > part.bounds.trim and after < seq and (upto is None or seq <= upto) and (voided or not is_hidden):
                found.append(self.entry(ref, part, place, record, hidden=is_hidden))
        found.sort(key=lambda entry: entry.seq, reverse=reverse)
        return found[:limit]

    def records(self, wanted: Mapping[Ref, Sequence[int]]) -> dict[Ref, dict[int, tuple[Entry, bytes | None]]]:
        """Entries at places of several logs, with the records they are made of."""
        refs = list(wanted)
        calls = [
            Call(self._layout.shard_of(ref), ("HMGET", self._layout.keys(ref).log, b"m", b"v", *wanted[ref]))
            for ref in refs
        ]
        found: dict[Ref, dict[int, tuple[Entry, bytes | None]]] = {}
        for ref, (bounds, hidden, *records) in zip(refs, self._servers.ask(calls), strict=True):
            part = self.part_in(ref, [bounds, hidden])
            places = zip(wanted[ref], records, strict=True)
            found[ref] = {} if part is None else {
                place: (self.entry(ref, part, place, record, hidden=holds(part.hidden, place)), record)
                for place, record in places
                if place > part.bounds.trim
            }  # fmt: skip
        return found
