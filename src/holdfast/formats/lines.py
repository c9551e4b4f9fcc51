"""The lines of a file that belongs to another program: exactly its bytes, each once, and never a write to it.

A line keeps its end (`\\n`, `\\r\\n` or nothing), so that the lines joined are the file. No more than `LINE_LIMIT`
bytes of one are held in memory; of a longer line only where it stands is told, and it is read again as a stream.
"""

from __future__ import annotations

import base64
import codecs
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO

import msgspec

from holdfast.errors import Invalid
from holdfast.model import Large, Source

DIGEST = 12
"""Bytes of what names a line."""
LINE_LIMIT = 32 * 1024 * 1024
"""Bytes of a line that is parsed; a longer one is kept whole and unread."""
_HASHED = 1 << 20
_CHUNK = 3 * 256 * 1024  # a multiple of three, so that pieces in base64 join


def digest_of(raw: bytes) -> bytes:
    """What names a line by its bytes."""
    return hashlib.blake2b(raw, digest_size=DIGEST).digest()


class Names:
    """How often each name came up to now, in few bytes a name: files have millions of lines."""

    def __init__(self) -> None:
        self._seen: dict[int, bytearray] = {}
        self._again: dict[bytes, int] = {}

    def count(self, name: bytes) -> int:
        """Take note of a digest; how often it came, this time included."""
        # A few thousand heaps of the first eight bytes, less what the heap's number tells.
        heap, tail = name[0] << 4 | name[1] >> 4, name[1:8]
        tails = self._seen.get(heap)
        if tails is None:
            self._seen[heap] = bytearray(tail)
            return 1
        at = tails.find(tail)
        while at >= 0 and at % 7:
            at = tails.find(tail, at + 1)
        if at < 0:
            tails += tail
            return 1
        self._again[name] = times = self._again.get(name, 1) + 1
        return times


class Piece(msgspec.Struct, frozen=True):
    """A line, or what was added to it: `number` counts lines from 1, `start` and `end` are offsets.

    `raw` is None where it is over the limit; its `digest` was made on the way then. `utf8` tells whether it is text.
    """

    number: int
    start: int
    end: int
    raw: bytes | None
    whole: bool
    digest: bytes = b""
    utf8: bool = True


def open_source(path: str) -> BinaryIO:
    """A regular file, opened for reading only.

    Raises:
        Invalid: it is a folder, pipe or device.
        OSError: it can't be opened.
    """
    # A pipe would block the open until someone writes.
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Invalid(f"{path} is no regular file", path=path)
    return open(fd, "rb", buffering=1 << 20)


class Lines:
    """The lines of an open file in order. `offset` and `sha256` speak of what was accepted so far."""

    def __init__(self, file: BinaryIO, *, cut: int = 0) -> None:
        """`cut` is an offset at which an earlier reading ended, within a line perhaps: no piece crosses it."""
        self._file = file
        self._cut = cut
        self._whole = hashlib.sha256()
        self._ahead = self._whole
        self._accepted: list[bytes] = []
        self._size = 0
        self.offset = 0
        self.number = 1

    def __iter__(self) -> Iterator[Piece]:
        while True:
            size = LINE_LIMIT if self.offset >= self._cut else min(LINE_LIMIT, self._cut - self.offset)
            raw = self._file.readline(size)
            if not raw:
                return
            if len(raw) == LINE_LIMIT and raw[-1] != 10:
                yield self._giant(raw)
            else:
                yield Piece(self.number, self.offset, self.offset + len(raw), raw, raw[-1] == 10)

    def _giant(self, raw: bytes) -> Piece:
        self._ahead = self._hashed().copy()
        line = hashlib.blake2b(digest_size=DIGEST)
        decoder = codecs.getincrementaldecoder("utf-8")()
        start = end = self.offset
        utf8 = True
        last = 0
        while raw:
            self._ahead.update(raw)
            line.update(raw)
            end += len(raw)
            last = raw[-1]
            utf8 = utf8 and _goes_on(decoder, raw)
            if last == 10 or end == self._cut:
                break
            raw = self._file.readline(_CHUNK if end >= self._cut else min(_CHUNK, self._cut - end))
        utf8 = utf8 and not decoder.getstate()[0]
        return Piece(self.number, start, end, None, last == 10, line.digest(), utf8)

    def accept(self, piece: Piece) -> None:
        """The piece was taken: go on behind it."""
        if piece.raw is None:
            self._whole = self._ahead
        else:
            self._accepted.append(piece.raw)
            self._size += len(piece.raw)
            if self._size > _HASHED:
                self._hashed()
        self.offset = piece.end
        if piece.whole:
            self.number += 1

    @property
    def sha256(self) -> str:
        """Of all bytes that were accepted."""
        return self._hashed().hexdigest()

    def _hashed(self) -> Any:
        """The hash of all bytes that were accepted: many lines at once, as each call lets another thread go first."""
        if self._accepted:
            self._whole.update(b"".join(self._accepted))
            self._accepted.clear()
            self._size = 0
        return self._whole

    def source(self, piece: Piece, name: str) -> Source:
        """A piece over the limit, as a stream that is read when the event is stored."""
        fd = self._file.fileno()
        stream = Large(opener=lambda: _Section(fd, piece.start, piece.end, plain=piece.utf8), form="text")
        return Source(file=name, line=piece.number, raw=stream, encoding=None if piece.utf8 else "base64")


def _goes_on(decoder: codecs.IncrementalDecoder, raw: bytes) -> bool:
    try:
        decoder.decode(raw)
    except UnicodeDecodeError:
        return False
    return True


class _Section(io.RawIOBase):
    """Some bytes of an open file as a stream, in base64 if they are not `plain`."""

    def __init__(self, fd: int, start: int, end: int, *, plain: bool) -> None:
        self._fd = fd
        self._at = start
        self._end = end
        self._plain = plain
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed's Buffer has no slicing
        if not self._left:
            data = os.pread(self._fd, min(_CHUNK, self._end - self._at), self._at)
            self._at += len(data)
            self._left = data if self._plain else base64.b64encode(data)
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size
