"""Heads and entries as the bytes that Redis keeps, each under a checksum that covers whose it is.

A head begins with its stamp: eight bytes that no other commit has, its revision, its checksum. Whoever planned on a
head knows by the stamp that it is still the same. A log says between which numbers it runs (`Bounds`) and which of its
entries are hidden (`spans`), so that entries can be read without the head, and in one state. Places in a log count from
its base, so that they stay small enough for Lua's numbers.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple
from zlib import crc32

import msgspec

from holdfast.backends.spans import Spans
from holdfast.errors import Corrupt
from holdfast.plan import Entry, Head, Ref

STAMP = 20
"""Bytes of a head's stamp."""

_STAMP = struct.Struct(">8sQI")
_ENTRY = struct.Struct(">IqH")
_CRC = struct.Struct(">I")


class _Body(msgspec.Struct, frozen=True, array_like=True):
    """What of a head is not in its name and stamp."""

    base: int
    last: int
    trim: int
    at: int
    dead: bool
    tags: Mapping[str, str]
    counts: Mapping[str, int]
    body: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Body).decode
_decode_spans = msgspec.msgpack.Decoder(list[int]).decode


@lru_cache(1024)  # one commit asks for it three times
def _of(ref: Ref) -> int:
    """What the checksums of all records of a head begin with."""
    return crc32(f"{ref.kind}\0{ref.id}\0".encode())


def head_record(head: Head) -> bytes:
    """A head as bytes, under a new stamp."""
    payload = _encode(_Body(head.base, head.last, head.trim, head.at, head.dead, head.tags, head.counts, head.body))
    unique = os.urandom(8)
    return _STAMP.pack(unique, head.rev, _head_crc(head.ref, unique, head.rev, payload)) + payload


def head_of(ref: Ref, record: bytes) -> Head:
    """The head in a record.

    Raises:
        Corrupt: it is damaged, or another's.
    """
    try:
        unique, rev, crc = _STAMP.unpack_from(record)
        payload = record[STAMP:]
        if crc == _head_crc(ref, unique, rev, payload):
            it = _decode(payload)
            return Head(ref, rev, it.last, it.base, it.trim, it.at, it.tags, it.counts, it.body, it.dead)
    except (struct.error, msgspec.MsgspecError):
        pass
    raise Corrupt(f"the head of {ref.kind} {ref.id!r} is damaged: its checksum does not match", ref=ref)


def _head_crc(ref: Ref, unique: bytes, rev: int, payload: bytes) -> int:
    return crc32(payload, crc32(unique + rev.to_bytes(8, "big"), _of(ref)))


def entry_record(ref: Ref, entry: Entry, packed: bytes) -> bytes:
    """An entry as bytes; its body is packed."""
    id = entry.id.encode()
    rest = _ENTRY.pack(0, entry.at, len(id))[4:] + id + packed
    return _CRC.pack(_entry_crc(ref, entry.seq, rest)) + rest


def entry_of(ref: Ref, seq: int, record: bytes | None, hidden: bool, unpack: Callable[[bytes], bytes]) -> Entry:
    """The entry in a record; `fault` says why it can't be trusted."""
    if record is None:
        return Entry("", 0, b"", seq, hidden, "it is gone")
    try:
        crc, at, size = _ENTRY.unpack_from(record)
        start = _ENTRY.size + size
        id, packed = record[_ENTRY.size : start], record[start:]
        if crc != _entry_crc(ref, seq, record[4:]) or len(id) != size:
            return Entry(id.decode("utf-8", "replace"), at, packed, seq, hidden, "its checksum does not match")
        return Entry(id.decode(), at, unpack(packed), seq, hidden)
    except struct.error:
        return Entry("", 0, record, seq, hidden, "it is cut off")
    except Corrupt as error:
        return Entry("", 0, record, seq, hidden, error.message)


def id_in(record: bytes) -> str:
    """The id in a sound record of an entry."""
    return record[_ENTRY.size : _ENTRY.size + _ENTRY.unpack_from(record)[2]].decode()


def _entry_crc(ref: Ref, seq: int, rest: bytes) -> int:
    return crc32(rest, crc32(seq.to_bytes(8, "big"), _of(ref)))


class Bounds(NamedTuple):
    """Between which places a log runs, counted from its base: those above `trim`, up to `last`."""

    trim: int
    last: int
    base: int


def bounds_of(head: Head) -> Bounds:
    """Where the log of a head runs."""
    return Bounds(max(head.trim - head.base, 0), head.last - head.base, head.base)


def bounds_record(ref: Ref, bounds: Bounds) -> bytes:
    """Bounds as text that a script reads, with their checksum."""
    text = b"%d %d %d " % bounds
    return text + b"%d" % crc32(text, _of(ref))


def bounds_in(ref: Ref, record: bytes) -> Bounds:
    """The bounds in a record.

    Raises:
        Corrupt: it is damaged.
    """
    text, _, crc = record.rpartition(b" ")
    text += b" "
    try:
        if int(crc) == crc32(text, _of(ref)):
            return Bounds(*map(int, text.split()))
    except (ValueError, TypeError):
        pass
    raise Corrupt(f"the bounds of the log of {ref.kind} {ref.id!r} are damaged", ref=ref)


def spans_record(ref: Ref, spans: Spans) -> bytes:
    """Hidden places as bytes, with their checksum; none for none."""
    if not spans:
        return b""
    packed = _encode([number for span in spans for number in span])
    return _CRC.pack(crc32(packed, _of(ref))) + packed


def spans_in(ref: Ref, record: bytes | None) -> Spans:
    """The hidden places in a record.

    Raises:
        Corrupt: it is damaged.
    """
    if not record:
        return ()
    try:
        if _CRC.unpack_from(record)[0] == crc32(record[4:], _of(ref)):
            flat: Sequence[Any] = _decode_spans(record[4:])
            return tuple(zip(flat[::2], flat[1::2], strict=True))
    except (struct.error, msgspec.MsgspecError, ValueError):
        pass
    raise Corrupt(f"what is hidden in the log of {ref.kind} {ref.id!r} is damaged", ref=ref)
