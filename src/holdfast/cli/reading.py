"""What a command reads from stdin or a file: as a stream, so that it may be of any size."""

from __future__ import annotations

import codecs
import contextlib
import io
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, BinaryIO

import click

from holdfast.errors import Invalid
from holdfast.paths import as_path

if TYPE_CHECKING:
    from holdfast.model import Large

SMALL = 65_536
"""Bytes up to which a text stays in its event, and so in memory."""


@contextlib.contextmanager
def opened(file: str | None, what: str) -> Generator[BinaryIO]:
    """A file to read; stdin for `-`, and for none if nobody types there."""
    if file is not None and file != "-":
        with open(as_path(file), "rb") as stream:
            yield stream
        return
    if file is None and sys.stdin.isatty():
        raise click.UsageError(f"say {what}, or - to read it from stdin")
    yield sys.stdin.buffer


def words_of_stdin() -> str | Large:
    """The text on stdin without the newline at its end; a long one as a stream that is read once, when it is stored.

    Raises:
        Invalid: it is no UTF-8; of a long one told when it is read, and then nothing is stored.
    """
    first = b""
    enough = SMALL + 2  # one byte more, and one for the newline
    while len(first) < enough and (more := sys.stdin.buffer.read(enough - len(first))):
        first += more
    words = Words(first, sys.stdin.buffer)
    if len(first) < enough:
        return words.read().decode()  # it has ended
    from holdfast.model import Large

    return Large.from_stream(words)  # pyright: ignore[reportArgumentType]  # it reads as a BinaryIO does


class Words(io.RawIOBase):
    """A stream of UTF-8 of which the first part was read already, without one newline at its very end."""

    def __init__(self, first: bytes, stream: BinaryIO) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._read = 0
        self._ended = False
        self._ahead = self._checked(first)

    def read(self, size: int = -1) -> bytes:
        """So many bytes, fewer only at the end.

        Raises:
            Invalid: they are no UTF-8.
        """
        # One byte more than asked for: it tells whether a newline is the last.
        while not self._ended and (size < 0 or len(self._ahead) <= size):
            data = self._stream.read(-1 if size < 0 else size + 1 - len(self._ahead))
            self._ahead += self._checked(data)
            if not data:
                self._ended = True
                self._ahead = self._ahead.removesuffix(b"\n")
        size = len(self._ahead) if size < 0 else size
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        return data

    def _checked(self, data: bytes) -> bytes:
        pending = len(self._decoder.getstate()[0])
        try:
            self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise Invalid(f"stdin is not UTF-8 (byte {self._read - pending + error.start:,})") from None
        self._read += len(data)
        return data
