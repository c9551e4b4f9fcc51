"""Arrays as PostgreSQL takes them in binary, packed at once: much cheaper than one adapted value after the other."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct, pack

from psycopg import adapt, adapters
from psycopg.abc import Buffer
from psycopg.pq import Format

_INT8, TEXT, BYTEA = 20, 25, 17
INT8S, TEXTS, BYTEAS = 1016, 1009, 1001
_header = Struct("!iiIii").pack
_length = Struct("!i").pack
_NULL = _length(-1)
_EMPTY = Struct("!iiI").pack


class Int8s(bytes):
    """An array of bigint."""


class Texts(bytes):
    """An array of text."""


class Byteas(bytes):
    """An array of bytea."""


def int8s(values: Sequence[int]) -> Int8s:
    """An array of numbers."""
    if not values:
        return Int8s(_EMPTY(0, 0, _INT8))
    flat: list[int] = [8] * (2 * len(values))
    flat[1::2] = values
    return Int8s(_header(1, 0, _INT8, len(values), 1) + pack("!" + "iq" * len(values), *flat))


def texts(values: Sequence[str | None]) -> Texts:
    """An array of texts."""
    return Texts(_packed(TEXT, [None if text is None else text.encode() for text in values]))


def byteas(values: Sequence[bytes | None]) -> Byteas:
    """An array of bytes."""
    return Byteas(_packed(BYTEA, values))


def _packed(oid: int, values: Sequence[bytes | None]) -> bytes:
    if not values:
        return _EMPTY(0, 0, oid)
    parts = [b""] * (2 * len(values) + 1)
    parts[0] = _header(1, 1, oid, len(values), 1)
    parts[1::2] = [_NULL if value is None else _length(len(value)) for value in values]
    parts[2::2] = [value or b"" for value in values]
    return b"".join(parts)


class _AsItIs(adapt.Dumper):
    format = Format.BINARY

    def dump(self, obj: Buffer) -> Buffer:
        """The packed array is what is sent."""
        return obj


def adapter_map() -> adapt.AdaptersMap:
    """psycopg's adapters, and ours for these arrays."""
    known = adapt.AdaptersMap(adapters)
    register(known)
    return known


def register(known: adapt.AdaptersMap) -> None:
    """Teach somebody's adapters these arrays; nobody else has values of their classes."""
    for kind, oid in ((Int8s, INT8S), (Texts, TEXTS), (Byteas, BYTEAS)):
        known.register_dumper(kind, type(f"{kind.__name__}Dumper", (_AsItIs,), {"oid": oid}))
