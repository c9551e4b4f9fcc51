"""Bodies as they stand packed: what a copy hands from one store to the other, and compares, without packing anew.

Stores of several engines pack alike, with the dictionary that is shipped. So what the one packed the other can keep,
and what it keeps can be held against it byte for byte: equal packed bytes are equal bodies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from holdfast.errors import Corrupt
from holdfast.plan import Entry, Head, Ref

PAGE = 500
"""Entries read at a time."""


class PackedBody(bytes):
    """A body that tells how it stands packed with the shipped dictionary: a backend that packs so keeps that."""

    packed: bytes


class Span(NamedTuple):
    """Entries of one log with `after < seq <= upto`."""

    ref: Ref
    after: int
    upto: int


@runtime_checkable
class Packing(Protocol):
    """What a backend offers beside the seam if it keeps bodies packed, and keeps a `PackedBody` as it says it is."""

    def packed(self, spans: Sequence[Span]) -> list[list[Entry]]:
        """The entries of each span in order of seq, voided ones too, each with its body packed as it stands.

        One that does not match its checksum comes with its `fault` said. Each span is of one state.
        """
        ...

    def unpacked(self, packed: bytes) -> bytes:
        """The body; a `PackedBody` if every store that packs alike can keep what was unpacked.

        Raises:
            Corrupt: it can't be unpacked.
        """
        ...


def packed_entries(entries: Sequence[Entry]) -> list[Entry] | None:
    """The entries as `Packing.packed` finds them where they were kept as they are; None if one was packed anew."""
    made: list[Entry] = []
    for entry in entries:
        body = entry.body
        if type(body) is not PackedBody:
            return None
        made.append(Entry(entry.id, entry.at, body.packed, entry.seq, entry.void))
    return made


def handed_on(backend: Packing, head: Head, after: int) -> Iterator[Entry]:
    """The entries of a log of its own behind a seq, voided ones too, up to its head's last; with a `PackedBody` each
    where that can be.
    """
    after = max(after, head.base, head.trim)
    while after < head.last:
        (page,) = backend.packed([Span(head.ref, after, min(after + PAGE, head.last))])
        if not page:
            return
        for entry in page:
            if entry.fault:
                yield entry
                continue
            try:
                yield Entry(entry.id, entry.at, backend.unpacked(entry.body), entry.seq, entry.void)
            except Corrupt as error:
                yield Entry(entry.id, entry.at, entry.body, entry.seq, entry.void, error.message)
        after = page[-1].seq
