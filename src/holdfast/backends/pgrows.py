"""How heads and entries stand in PostgreSQL's rows: columns, and a checksum over each record that both ends compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from struct import Struct, error
from typing import Any, TypeAlias
from zlib import crc32

import msgspec

from holdfast.errors import Corrupt
from holdfast.plan import TRASHED, Entry, Head, Ref

Row: TypeAlias = Sequence[Any]

HEAD = "kind, id, rev, last, base, trim, at, standing, tags, counts, body, crc"
"""Columns of a head, in the order in which `head_of` takes them."""
ENTRY = "seq, key, at, hidden, crc, body"
"""Columns of an entry, whose head is known."""
LIVING, DEAD, IN_TRASH = 0, 1, 2
"""Where a head stands, in its column `standing`."""
HIDDEN = 0x55
"""What says in `hidden` that an entry is: no single flipped bit makes it of 0, or 0 of it."""

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
    try:
        numbers = _head_numbers(rev, last, base, trim, at, stands == DEAD)
        sound = crc == _head_crc(kind, id, numbers, tags, counts, body)
    except error:
        sound = False  # a number that no head has
    if sound:
        head = Head(Ref(kind, id), rev, last, base, trim, at, _tags(tags), _counts(counts), body, stands == DEAD)
        if stands == standing(head):  # which the checksum does not tell
            return head
    raise Corrupt(
        f"the head of {kind} {id!r} is damaged: its checksum does not match; its bytes are kept, "
        "its events can still be read (get(id, damaged='keep'), session show), and a delete removes it",
        id=id,
    )


def entry_crc(ref: Ref, seq: int, key: str | None, at: int, hidden: int, packed: bytes) -> int:
    """The checksum over all that a row of `ENTRY` says, and whose it is."""
    start = crc32(_numbers(seq, at, hidden & 0xFF), _begun(*ref))
    return crc32(packed, crc32(key.encode(), start) if key else start)


@lru_cache(4096)  # a log's entries come one after the other
def _begun(kind: str, id: str) -> int:
    return crc32(f"{kind}\0{id}".encode())


def is_sound(ref: Ref, row: Row) -> bool:
    """Whether a row of `ENTRY` matches its checksum."""
    seq, key, at, hidden, crc, packed = row
    return hidden in (0, HIDDEN) and crc == entry_crc(ref, seq, key, at, hidden, packed)


def entry_values(ref: Ref, entry: Entry, packed: bytes) -> tuple[int, int, int, int]:
    """The numbers of an entry's row: seq, at, hidden, crc."""
    hidden = HIDDEN if entry.void else 0
    return entry.seq, entry.at, hidden, entry_crc(ref, entry.seq, entry.id, entry.at, hidden, packed)


def tag_filter(tags: Mapping[str, str | None], schema: str) -> tuple[str, list[Any]]:
    """Conditions on the head `h` that it carries these tags (None: lacks them), and their values."""
    where, values = "", list[Any]()
    for name, value in tags.items():
        there = f"EXISTS (SELECT 1 FROM {schema}.tag t WHERE t.kind = h.kind AND t.id = h.id AND t.name = %s"
        if value is None:
            where += f" AND NOT {there})"
            values.append(name)
        else:
            where += f" AND {there} AND t.value = %s)"
            values += [name, value]
    return where, values
