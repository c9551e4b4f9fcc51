"""How heads and entries stand in PostgreSQL's rows: columns, and a checksum over each record that both ends compute."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from struct import Struct, error
from typing import Any, TypeAlias
from zlib import crc32

import msgspec

from holdfast.backend import Heads
from holdfast.errors import Corrupt
from holdfast.plan import TRASHED, Entry, Head, Ref

Row: TypeAlias = Sequence[Any]

HEAD = "kind, id, rev, last, base, trim, at, standing, tags, counts, body, crc"
"""Columns of a head, in the order in which `head_of` takes them."""
LISTED = "id, rev, last, base, trim, at, tags, counts, body, crc"
"""The same of heads of one kind that stand in one place, as `heads_of` takes them: a list is quicker for it."""
ENTRY = "seq, key, at, hidden, crc, body"
"""Columns of an entry, whose head is known."""
LIVING, DEAD, IN_TRASH = 0, 1, 2
"""Where a head stands, in its column `standing`."""
HIDDEN = 0x55
"""What says in `hidden` that an entry is: no single flipped bit makes it of 0, or 0 of it."""

KNOWN = 1024
"""Rows of heads that are remembered with what they say."""
SMALL = 2048
"""Bytes of tags and body up to which a row is remembered: so they take a few MB at the most."""

_HIDDEN = (0, HIDDEN)
_numbers = Struct("<qqB").pack
_head_numbers = Struct("<qqqqqB").pack
encode = msgspec.json.Encoder().encode
_tags = msgspec.json.Decoder(dict[str, str]).decode
_counts = msgspec.json.Decoder(dict[str, int]).decode


def standing(head: Head) -> int:
    """Where a head stands."""
    return DEAD if head.dead else IN_TRASH if TRASHED in head.tags else LIVING


def head_crc(head: Head, tags: bytes, counts: bytes) -> int:
    """The checksum over all that a row of `HEAD` says; `tags` and `counts` are encoded."""
    numbers = _head_numbers(head.rev, head.last, head.base, head.trim, head.at, head.dead)
    return _head_crc(*head.ref, numbers, tags, counts, head.body)


def _head_crc(kind: str, id: str, numbers: bytes, tags: bytes, counts: bytes, body: bytes) -> int:
    return crc32(b"\0".join((kind.encode(), id.encode(), numbers, tags, counts, body)))


def head_of(row: Row) -> Head:
    """A row of `HEAD` as a head.

    Raises:
        Corrupt: its checksum does not match.
    """
    kind, id, rev, last, base, trim, at, stands, tags, counts, body, crc = row
    head = _head(kind, stands, id, rev, last, base, trim, at, tags, counts, body, crc)
    if head is not None:
        return head
    raise Corrupt(
        f"the head of {kind} {id!r} is damaged: its checksum does not match; its bytes are kept, "
        "its events can still be read (get(id, damaged='keep'), session show), and a delete removes it",
        id=id,
    )


def heads_of(kind: str, stands: int, rows: Iterable[Row]) -> Heads:
    """Rows of `LISTED` as heads, without those whose checksum does not match."""
    heads, damaged = list[Head](), list[Ref]()
    for row in rows:
        small = len(row[6]) + len(row[8]) < SMALL
        head = _known_head(kind, stands, *row) if small else _head(kind, stands, *row)
        if head is not None:
            heads.append(head)
        else:
            damaged.append(Ref(kind, row[0]))
    return Heads(heads, damaged)


def _head(
    kind: str,
    stands: int,
    id: str,
    rev: int,
    last: int,
    base: int,
    trim: int,
    at: int,
    tags: bytes,
    counts: bytes,
    body: bytes,
    crc: int,
) -> Head | None:
    """A head, all in one call, as a list makes many; None if it is damaged."""
    dead = stands == DEAD
    try:
        numbers = _head_numbers(rev, last, base, trim, at, dead)
    except error:
        return None  # a number that no head has
    if crc != crc32(b"\0".join((kind.encode(), id.encode(), numbers, tags, counts, body))):
        return None
    told = _tags(tags)
    if not dead and stands != (IN_TRASH if TRASHED in told else LIVING):
        return None  # which the checksum does not tell
    return Head(Ref(kind, id), rev, last, base, trim, at, told, _counts(counts), body, dead)


_known_head = lru_cache(KNOWN)(_head)
"""A list is mostly of the same rows as the one before. What differs in a bit is another row."""


def entry_crc(ref: Ref, seq: int, key: str | None, at: int, hidden: int, packed: bytes) -> int:
    """The checksum over all that a row of `ENTRY` says, and whose it is."""
    start = crc32(_numbers(seq, at, hidden & 0xFF), _begun(*ref))
    return crc32(packed, crc32(key.encode(), start) if key else start)


@lru_cache(4096)  # a log's entries come one after the other
def _begun(kind: str, id: str) -> int:
    return crc32(f"{kind}\0{id}".encode())


def are_sound(ref: Ref, rows: Iterable[Row]) -> bool:
    """Whether all rows of `ENTRY` match their checksums: `is_sound`, written out for pages of many."""
    begun = _begun(*ref)
    for seq, key, at, hidden, crc, packed in rows:
        start = crc32(_numbers(seq, at, hidden & 0xFF), begun)
        if crc != crc32(packed, crc32(key.encode(), start) if key else start) or hidden not in _HIDDEN:
            return False
    return True


def is_sound(ref: Ref, row: Row) -> bool:
    """Whether a row of `ENTRY` matches its checksum."""
    seq, key, at, hidden, crc, packed = row
    return hidden in _HIDDEN and crc == entry_crc(ref, seq, key, at, hidden, packed)


def packed_entry(ref: Ref, row: Row) -> Entry:
    """A row of `ENTRY` as an entry whose body is as it stands in the row."""
    seq, key, at, hidden, crc, packed = row
    sound = hidden in _HIDDEN and crc == entry_crc(ref, seq, key, at, hidden, packed)
    return Entry(key or "", at, packed, seq, hidden == HIDDEN, "" if sound else "its checksum does not match")


def entry_values(ref: Ref, entry: Entry, packed: bytes) -> tuple[int, int, int, int]:
    """The numbers of an entry's row: seq, at, hidden, crc."""
    hidden = HIDDEN if entry.void else 0
    return entry.seq, entry.at, hidden, entry_crc(ref, entry.seq, entry.id, entry.at, hidden, packed)


def tag_filter(tags: Mapping[str, str | None], schema: str) -> tuple[str, list[Any]]:
    """Conditions on the head `h` that it carries these tags (None: lacks them), and their values."""
    # OFFSET 0: looked up head by head, as a list ends after a page; a join would first read all that carry the tag.
    where, values = "", list[Any]()
    for name, value in tags.items():
        there = f"EXISTS (SELECT 1 FROM {schema}.tag t WHERE t.kind = h.kind AND t.id = h.id AND t.name = %s"
        if value is None:
            where += f" AND NOT {there} OFFSET 0)"
            values.append(name)
        else:
            where += f" AND {there} AND t.value = %s OFFSET 0)"
            values += [name, value]
    return where, values
