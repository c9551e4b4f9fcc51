"""A proxy before a server that cuts connections: before a request, in its middle, or when its answer comes."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Self


class Cutter:
    """Listens on a port of its own for one server on the loopback. `word` is what the request to cut contains."""

    def __init__(self, port: int, word: bytes) -> None:
        self._server = port
        self._word = word
        self._armed: str | None = None
        self.cuts = 0
        self.meanwhile: Callable[[], object] = lambda: None
        """What is done before a connection is cut behind a request that was carried out."""
        self._muted: set[socket.socket] = set()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._run(self._accept)

    def arm(self, when: str) -> None:
        """Cut the next request `before` it is sent on, `amid` it, or `after` it was carried out."""
        self._armed = when

    def refuse(self) -> None:
        """Take no connection from now on."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.refuse()
        for end in self._sockets:
            _cut(end)
        for thread in self._threads:
            thread.join()

    def _run(self, target: object, *given: object) -> None:
        thread = threading.Thread(target=target, args=given, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server))
                self._sockets += (client, server)
                self._run(self._pass_on, client, server)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        answers = threading.Thread(target=self._answer, args=(client, server), daemon=True)
        answers.start()
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                if self._armed is None or self._word not in data:
                    server.sendall(data)
                    continue
                when, self._armed = self._armed, None
                self.cuts += 1
                if when == "after":
                    self._muted.add(server)  # whatever comes back now is lost
                    server.sendall(data)
                    break
                if when == "amid":
                    server.sendall(data[: len(data) // 2])
                break
        if server not in self._muted:
            _cut(client)
            _cut(server)
        answers.join()

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                if server in self._muted:
                    self.meanwhile()
                    break
                client.sendall(data)
        _cut(client)
        _cut(server)


def _cut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
