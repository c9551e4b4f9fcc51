"""Connections to Redis servers: opened when needed, kept for the next call, checked before they are trusted.

Each new connection is held against the store's duty (`redisduty`) before anything is written through it: a server that
was restarted with other settings, or replaced by another one, must keep what the first one promised.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections import defaultdict, deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import redis.connection
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from redis.retry import Retry

from holdfast import forks
from holdfast.backends.redisanswers import Answers, Failed, Lost
from holdfast.backends.redisduty import Duty
from holdfast.errors import Unavailable

IDLE = 16
"""Connections to one server that are kept while nobody uses them."""


class Unreachable(Exception):
    """No connection could be made: nothing was sent."""


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @classmethod
    def of(cls, node: Sequence[Any], told_by: Address) -> Address:
        """The address in an answer to CLUSTER SLOTS; a server that does not know its own host is where it was asked."""
        host = node[0].decode() if node[0] else ""
        return cls(told_by.host if host in ("", "?") else host, node[1])

    @classmethod
    def parse(cls, text: str, told_by: Address) -> Address:
        """The address in a redirection."""
        host, _, port = text.rpartition(":")
        return cls(host.strip("[]") or told_by.host, int(port))


class Link:
    """One connection, in the hands of one thread."""

    def __init__(self, connection: Any, address: Address, home: Links | None) -> None:
        self.address = address
        self._connection = connection
        self._home = home
        self._sock: socket.socket = connection._sock  # there is no other way to its socket
        self._answers = Answers(self._sock)
        self._poll = select.poll()
        self._poll.register(self._sock, select.POLLIN | select.POLLHUP | select.POLLERR)
        self.wait: tuple[Any, ...] = ()
        """What is sent behind a write, to wait until that is as durable as promised; empty if nothing is."""

    def send(self, commands: Sequence[tuple[Any, ...]]) -> None:
        """Send commands.

        Raises:
            Lost: the connection broke; the server may have got some of them.
        """
        try:
            self._sock.sendall(_packed(commands))
        except OSError as error:
            raise Lost(str(error)) from error

    def answer(self) -> Any:
        """The next answer.

        Raises:
            Failed: it is an error.
            Lost: there is none.
        """
        answer = self._answers.next()
        if isinstance(answer, Failed):
            raise answer
        return answer

    def try_answer(self) -> Any:
        """The next answer; an error of the server is one, too.

        Raises:
            Lost: there is none.
        """
        return self._answers.next()

    def usable(self) -> bool:
        """Whether nothing happened on it while it was idle: the server did not close it."""
        return not self.readable()

    def fileno(self) -> int:
        """The socket, to wait on."""
        return self._sock.fileno()

    def readable(self) -> bool:
        """Whether there is something to read: an answer, or the end."""
        return self._answers.waiting() or bool(self._poll.poll(0))

    def drop(self) -> None:
        """Close it."""
        with contextlib.suppress(RedisError, OSError):
            self._connection.disconnect()

    def once(self) -> None:
        """Do not keep it behind the call it was made for."""
        self._home = None

    def give_back(self) -> None:
        """Keep it for the next call, if it may be used for any."""
        if self._home is None:
            self.drop()
        else:
            self._home.keep(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or kind is Failed:
            self.give_back()
        else:
            self.drop()


class Links:
    """The connections of one store."""

    def __init__(
        self, seeds: Sequence[Address], options: dict[str, Any], *, tls: bool, timeout: float, duty: Duty
    ) -> None:
        self.seeds = tuple(seeds)
        self.duty = duty
        self._class = redis.connection.SSLConnection if tls else redis.connection.Connection
        self._options: dict[str, Any] = {
            **options,
            "protocol": 2,
            "socket_timeout": timeout,
            "socket_connect_timeout": min(timeout, 5.0),
            "socket_keepalive": True,
            # A command that is sent twice behind our back would be taken for another writer's.
            "retry": Retry(NoBackoff(), 0),
            "client_name": "holdfast",
        }
        self._start()
        forks.watch(self)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[Address, deque[Link]] = defaultdict(deque)
        self._closed = False

    def before_fork(self) -> None:
        """See `forks`."""

    def after_fork(self, *, child: bool) -> None:
        """See `forks`: two processes must not talk on one connection; the child makes its own."""
        if child:
            self._start()

    def take(self, address: Address, *, checked: bool = True) -> Link:
        """A connection to a server.

        Args:
            checked: Whether it must be a server that may keep the store.

        Raises:
            Unreachable: there is none to be had.
            Unavailable: the server may not keep the store, or the store was closed.
        """
        while True:
            with self._lock:
                if self._closed:
                    raise Unavailable("the store was closed")
                idle = self._idle[address]
                link = idle.pop() if idle and checked else None
            if link is None:
                return self._make(address, checked=checked)
            if link.usable():
                return link
            link.drop()

    def _make(self, address: Address, *, checked: bool) -> Link:
        connection: Any = self._class(host=address.host, port=address.port, **self._options)
        _connect(connection, address)
        link = Link(connection, address, self if checked else None)
        try:
            if checked:
                link.send(self.duty.questions)
                wait = self.duty.check(address, [link.try_answer() for _ in self.duty.questions])
                if wait is None:  # once it is a master, it must be held to more than now
                    link.once()
                elif wait:
                    _try_wait(link, wait[0], len(wait) - 1)
                    link.wait = wait
        except Lost as error:
            link.drop()
            raise Unreachable(str(error)) from error
        except BaseException:
            link.drop()
            raise
        return link

    def keep(self, link: Link) -> None:
        """Keep a connection for the next call."""
        with self._lock:
            idle = self._idle[link.address]
            if not self._closed and len(idle) < IDLE:
                idle.append(link)
                return
        link.drop()

    def forget(self, address: Address) -> None:
        """Keep no connection to a server that is not what it was when they were made."""
        with self._lock:
            links = self._idle.pop(address, ())
        for link in links:
            link.drop()

    def close(self) -> None:
        """Close what is kept."""
        with self._lock:
            self._closed = True
            links = [link for idle in self._idle.values() for link in idle]
            self._idle.clear()
        for link in links:
            link.drop()


def _connect(connection: Any, address: Address) -> None:
    """Connect and log in.

    Raises:
        Unavailable: the server refuses, and will do so again.
        Unreachable: it can't be had now.
    """
    try:
        connection.connect()
    except AuthenticationError as error:
        raise Unavailable(f"the Redis server {address} does not let us in: {error}") from error
    except NoPermissionError as error:
        raise Unavailable(
            f"the Redis server {address} gives this user too few rights: {error}; docs/REDIS.md lists what a user needs"
        ) from error
    except (RedisError, OSError, ValueError, RecursionError) as error:  # the last two: what answers is no Redis
        if "DB index" in str(error):
            raise Unavailable(
                f"the Redis server {address} has no such database ({error}); name another behind the host, /0 on a "
                "cluster"
            ) from error
        raise Unreachable(str(error)) from error
    except BaseException:
        connection.disconnect()
        raise


def _try_wait(link: Link, command: str, arguments: int) -> None:
    """Refuse a user who may not wait: what he writes would be stored, and nobody could tell whether it is durable.

    Raises:
        Unavailable: he may not.
    """
    link.send([(command, *[0] * arguments)])  # for nothing, so that it answers at once
    answer = link.try_answer()
    if isinstance(answer, Failed):
        raise Unavailable(f"the Redis user of this URL may not run {command} ({answer}); allow it")


def _packed(commands: Sequence[tuple[Any, ...]]) -> bytes:
    """Commands as they are sent; a fifth of the time that redis-py takes, on the path of every append."""
    packed: list[bytes] = []
    for command in commands:
        parts: list[Any] = [len(command)]
        for given in command:
            if type(given) is not bytes:
                given = given.encode() if type(given) is str else b"%d" % given
            parts.append(len(given))
            parts.append(given)
        packed.append((b"*%d\r\n" + b"$%d\r\n%b\r\n" * len(command)) % tuple(parts))
    return packed[0] if len(packed) == 1 else b"".join(packed)
