"""Bundles as files: lines as they are, or in a zstd stream, which is told by its first bytes and not by its name."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Generator, Iterator
from typing import BinaryIO, cast

import zstandard

from holdfast.errors import Corrupt

MAGIC = b"\x28\xb5\x2f\xfd"
"""The first bytes of a zstd frame."""
MAX_LINE = 64 * 1024 * 1024
"""Bytes of a line at the most; the largest body there can be takes a fourth of that, in base64."""
MAX_WINDOW = 128 * 1024 * 1024
"""Bytes of memory that a zstd stream may ask for."""
LEVEL = 3
PIECE = 2048
"""Packed bytes that are unpacked at a time: they come to 64 MiB at the most."""


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a bundle, compressed or not.

    Raises:
        Corrupt: it can't be unpacked any further, or has a line longer than any can be; the message says where.
    """
    buffered = cast("io.BufferedReader", file)  # as `open` and stdin give it
    source: BinaryIO = buffered
    if is_packed(buffered.peek(len(MAGIC))):
        source = io.BufferedReader(_Unpacked(buffered), 1024 * 1024)
    number = 0
    while True:
        try:
            line = source.readline(MAX_LINE)
        except zstandard.ZstdError as error:
            raise Corrupt(f"the bundle can't be unpacked behind line {number:,}: {error}", line=number) from error
        if not line:
            return
        number += 1
        if len(line) == MAX_LINE:
            raise Corrupt(f"line {number:,} of the bundle is longer than any can be", line=number)
        yield line


class _Unpacked(io.RawIOBase):
    """What is in a zstd stream of any number of frames; unlike the library's own reader it tells if one is cut off."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._packed = b""
        self._content = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed's Buffer has no slicing
        while not self._content:
            packed = self._packed or self._source.read(PIECE)
            if not packed:
                if self._frame is not None:
                    raise zstandard.ZstdError("it is cut off")
                return 0
            self._frame = self._frame or self._decompressor.decompressobj()
            self._content = memoryview(self._frame.decompress(packed))
            self._packed = self._frame.unused_data
            if self._frame.eof:
                self._frame = None
        size = min(len(buffer), len(self._content))
        buffer[:size] = self._content[:size]
        self._content = self._content[size:]
        return size


@contextlib.contextmanager
def packing(file: BinaryIO) -> Generator[BinaryIO]:
    """A stream whose bytes come out of `file` as one zstd frame with a checksum, ended with the block."""
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
    with compressor.stream_writer(file, closefd=False) as packed:
        yield cast("BinaryIO", packed)


def is_packed(first: bytes) -> bool:
    """Whether a file that begins with these bytes is a zstd stream."""
    return first.startswith(MAGIC)
