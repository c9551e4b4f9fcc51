"""What servers answer, taken from a connection as it comes: version 2 of Redis's protocol.

redis-py makes the connections; its own reader costs a commit as much as the server takes for the half of it, tells an
error as one of many classes without the word that the server began it with, and reads on when it must not.
"""

from __future__ import annotations

import socket
from typing import Any

CHUNK = 65536
"""Bytes that are asked for at a time."""


class Lost(Exception):
    """The connection broke with calls on it: they may have been carried out."""


class Failed(Exception):
    """The server answered with an error, in these words."""


class Answers:
    """The answers on one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._data = b""
        self._at = 0

    def waiting(self) -> bool:
        """Whether a part of an answer was read already."""
        return self._at < len(self._data)

    def next(self) -> Any:
        """The next answer: a number, bytes, a list, None, or `Failed`, also within a list.

        Raises:
            Lost: there is none, or what came is no answer.
        """
        try:
            return self._next()
        except OSError as error:
            raise Lost(str(error)) from error
        except (ValueError, RecursionError) as error:
            raise Lost(f"what came is no answer of a Redis server ({error})") from error

    def _next(self) -> Any:
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return self._bytes(int(rest))
        if kind == b"*":
            count = int(rest)
            return None if count < 0 else [self._next() for _ in range(count)]
        if kind == b"+":
            return rest
        if kind == b"-":
            return Failed(rest.decode("utf-8", "replace"))
        raise ValueError(repr(line[:40]))

    def _line(self) -> bytes:
        while (end := self._data.find(b"\r\n", self._at)) < 0:
            self._more()
        line = self._data[self._at : end]
        self._at = end + 2
        return line

    def _bytes(self, size: int) -> bytes | None:
        if size < 0:
            return None
        end = self._at + size
        if end + 2 > len(self._data):
            parts = [self._data[self._at :]]
            missing = end + 2 - len(self._data)
            self._data, self._at = b"", 0
            while missing > 0:
                parts.append(self._received())
                missing -= len(parts[-1])
            self._data = b"".join(parts)
            end = size
        found = self._data[self._at : end]
        self._at = end + 2
        return found

    def _more(self) -> None:
        received = self._received()
        self._data = self._data[self._at :] + received if self._at < len(self._data) else received
        self._at = 0

    def _received(self) -> bytes:
        received = self._sock.recv(CHUNK)
        if not received:
            raise Lost("the server closed the connection")
        return received
