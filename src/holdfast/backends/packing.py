"""Bodies made small: zstd with a dictionary that knows what events look like.

A packed body's first byte is 0 for bytes as they are, or the number of the dictionary it needs. Short texts hardly
shrink by themselves; with the dictionary a message takes about a third (docs/BENCHMARKS.md has the figures).
"""

from __future__ import annotations

import pkgutil
import threading
from collections.abc import Callable, Mapping, Sequence

import zstandard

from holdfast.errors import Corrupt
from holdfast.packed import PackedBody

CURRENT = 1
"""The dictionary that new stores are given."""
LEVEL = -1
"""Takes less than half the time of level 3 to pack, and two thirds to unpack, for a quarter more bytes."""
DAMAGED = (zstandard.ZstdError, KeyError, IndexError, TypeError, MemoryError)
"""What unpacking raises of bytes that are damaged, or need a dictionary that the store lacks."""
_RAW = b"\x00"
_SMALL = 64
_MANY = 100
"""Bodies that are worth a start of threads."""
_SHARED = (_RAW[0], CURRENT)
"""First bytes of what every store can unpack."""


def dictionary(number: int = CURRENT) -> bytes:
    """The bytes of a shipped dictionary. A store keeps its own copy, so that it can always be read."""
    # Not by `importlib.resources`, which takes longer to load than a store to open. None is of loaders without data.
    return pkgutil.get_data("holdfast.backends", f"events.{number}.zdict") or b""


class Packer:
    """Packs and unpacks with a store's dictionaries. `pack` must not run in two threads at once, `unpack` may."""

    def __init__(self, dictionaries: dict[int, bytes]) -> None:
        self._dictionaries = {n: zstandard.ZstdCompressionDict(data) for n, data in dictionaries.items()}
        self._number = max(dictionaries)
        self._mark = bytes([self._number])
        current = self._dictionaries[self._number]
        current.precompute_compress(level=LEVEL)  # pyright: ignore[reportUnknownMemberType]  # untyped in its stub
        self._compressor = zstandard.ZstdCompressor(
            level=LEVEL, dict_data=current, write_checksum=False, write_dict_id=False
        )
        self._here = _Here(self._dictionaries)

    def pack(self, body: bytes) -> bytes:
        """The body, packed if that makes it smaller."""
        if type(body) is PackedBody:
            return body.packed
        if len(body) > _SMALL:
            packed = self._compressor.compress(body)
            if len(packed) < len(body):
                return self._mark + packed
        return _RAW + body

    def pack_all(self, bodies: Sequence[bytes]) -> list[bytes]:
        """Each body as `pack` makes it; many are packed on all processors, while other threads of Python go on."""
        if len(bodies) < _MANY or any(len(body) <= _SMALL or type(body) is PackedBody for body in bodies):
            return [self.pack(body) for body in bodies]
        frames = self._compressor.multi_compress_to_buffer(list(bodies), threads=-1)
        packed = [self._mark + frames[index].tobytes() for index in range(len(bodies))]
        return [small if len(small) <= len(body) else _RAW + body for small, body in zip(packed, bodies, strict=True)]

    def unpack(self, packed: bytes) -> bytes:
        """The body of packed bytes.

        Raises:
            Corrupt: they are damaged, or need a dictionary that the store lacks.
        """
        try:
            return self._here.unpackers[packed[0]](packed[1:])
        except DAMAGED as error:
            raise Corrupt(f"a body can't be unpacked: {error}") from None

    def unpackers(self) -> Mapping[int, Callable[[bytes], bytes]]:
        """What makes bodies of packed bytes, by the first of them, which the others follow; for this thread alone.

        `unpack` without its steps, for pages of many. One of `DAMAGED` is raised where `unpack` says Corrupt.
        """
        return self._here.unpackers

    def unpacked(self, packed: bytes) -> bytes:
        """See `Packing.unpacked`. What others may have made longer than it need be is packed anew."""
        body = self.unpack(packed)
        if packed[0] not in _SHARED or len(packed) > len(body) + 1:
            return body
        told = PackedBody(body)
        told.packed = packed
        return told


class _Here(threading.local):
    """What unpacks a body, by its first byte, for each thread: a decompressor must not be used by two at once."""

    def __init__(self, dictionaries: dict[int, zstandard.ZstdCompressionDict]) -> None:
        self.unpackers: dict[int, Callable[[bytes], bytes]] = {_RAW[0]: bytes}
        for number, dictionary in dictionaries.items():
            self.unpackers[number] = zstandard.ZstdDecompressor(dict_data=dictionary).decompress
