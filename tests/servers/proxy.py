"""A TCP proxy between a client and a server that cuts connections where a test says."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from typing import Literal

When = Literal["before", "after", "answered"]
"""Cut before a request goes on to the server, right after it went, or when the server has answered it."""


class Proxy:
    """Forwards a port of the loopback to another, on both ways, until `cut` takes effect."""

    def __init__(self, port: int) -> None:
        self.target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._lock = threading.Lock()
        self._left = -1
        self._when: When = "before"
        self._open: set[socket.socket] = set()
        self.cuts = 0
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
            deaf = False
            while True:
                ready, _, _ = select.select([client, server], [], [])
                for source in ready:
                    data = source.recv(1 << 20)
                    if not data or (source is server and deaf):
                        return  # whatever the server says now is lost
                    if source is server:
                        client.sendall(data)
                        continue
                    when = self._cut_now()
                    if when == "before":
                        return
                    server.sendall(data)
                    if when == "after":
                        return
                    deaf = deaf or when == "answered"

    def _cut_now(self) -> When | None:
        """How to cut at this request; None for not at all."""
        with self._lock:
            if self._left:
                self._left -= self._left > 0
                return None
            self._left = -1
            self.cuts += 1
            return self._when

    def close(self) -> None:
        """End all."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
