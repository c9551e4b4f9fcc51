"""A TCP proxy between clients and a server on the loopback that cuts connections where a test says."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from typing import Literal, Self

When = Literal["before", "amid", "after", "answered"]
"""Cut before a request goes on to the server, when half of it went, right after it went, or when it was answered."""


class Proxy:
    """Forwards a port of its own to the server's, on both ways, until `cut` takes effect.

    A request is whatever comes from a client at once; only those that contain `word` count.
    """

    def __init__(self, port: int, word: bytes = b"") -> None:
        self.target = port
        self._word = word
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._lock = threading.Lock()
        self._left = -1
        self._when: When = "before"
        self._open: set[socket.socket] = set()
        self.requests = 0
        self.turns = 0
        """How often a client spoke after the server had, or first: its round trips."""
        self.cuts = 0
        self.meanwhile: Callable[[], object] = lambda: None
        """What is done before a connection is cut whose request was answered."""
        self._threads = [threading.Thread(target=self._accept, name="proxy", daemon=True)]
        self._threads[0].start()

    def cut(self, requests: int, when: When) -> None:
        """Let so many requests pass, and cut at the next one."""
        with self._lock:
            self._left, self._when = requests, when

    def heal(self) -> None:
        """Cut nothing any more."""
        with self._lock:
            self._left = -1

    def sever(self) -> None:
        """End all connections that are open now; new ones are taken."""
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def refuse(self) -> None:
        """Take no connection from now on."""
        with contextlib.suppress(OSError):  # it was done already
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.target))
                except OSError:
                    client.close()
                    continue
                for each in (client, server):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open |= {client, server}
                thread = threading.Thread(target=self._forward, args=(client, server), name="proxy", daemon=True)
                self._threads.append(thread)
                thread.start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError), client, server:
            deaf, heard = False, True
            while True:
                ready, _, _ = select.select([client, server], [], [])
                for source in ready:
                    data = source.recv(1 << 20)
                    if not data:
                        return
                    if source is server:
                        if deaf:  # whatever it says now is lost
                            self.meanwhile()
                            return
                        heard = True
                        client.sendall(data)
                        continue
                    with self._lock:
                        self.turns += heard
                    heard = False
                    when = self._cut_now() if self._word in data else None
                    if when == "before":
                        return
                    server.sendall(data[: len(data) // 2] if when == "amid" else data)
                    if when in ("amid", "after"):
                        return
                    deaf = deaf or when == "answered"

    def _cut_now(self) -> When | None:
        """How to cut at this request; None for not at all."""
        with self._lock:
            self.requests += 1
            if self._left:
                self._left -= self._left > 0
                return None
            self._left = -1
            self.cuts += 1
            return self._when

    def close(self) -> None:
        """End all."""
        self.refuse()
        self.sever()
        for thread in self._threads:
            thread.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
