"""Who waits for commits: a thread that subscribes to the store's channel, for as long as somebody listens.

What is told there is a hint. Whatever was told while the connection was away is made up for by waking everybody when
it is back.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from holdfast import forks
from holdfast.backends.listening import wake_all
from holdfast.backends.redisanswers import Failed, Lost
from holdfast.backends.redislinks import Address, Link, Links, Unreachable
from holdfast.backends.redisnodes import Servers
from holdfast.errors import HoldfastError

PING = 20.0
"""Seconds of silence after which the connection is tried."""
RETRY = 0.25
"""Seconds before a lost connection is made again."""
AWAY = 1.0
"""Seconds of silence after which a master that could not be subscribed to is tried again, and the others with it."""
TOLD = 256
"""Messages that are remembered, to pass over what another master tells again."""


class Listening:
    """The listeners of one store."""

    def __init__(self, servers: Servers, links: Links, channel: bytes) -> None:
        self._servers = servers
        self._links = links
        self._channel = channel
        self._wakes: list[Callable[[], None]] = []
        self._start()
        forks.watch(self)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._bell: tuple[int, int] | None = None
        self._left: list[tuple[int, int]] = []
        """Bells that were rung from within a wake: their thread still looks at them."""

    def before_fork(self) -> None:
        """See `forks`."""

    def after_fork(self, *, child: bool) -> None:
        """See `forks`: the thread stays with the parent; the next listener starts another."""
        if child:
            for bell in [*self._left, *([self._bell] if self._bell else [])]:
                _close(bell)
            self._start()

    def add(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Listen; what is returned stops it."""
        with self._lock:
            self._wakes.append(wake)
            if self._thread is None:
                self._bell = os.pipe()
                self._thread = threading.Thread(
                    target=self._listen, args=(self._bell,), name="holdfast-listen", daemon=True
                )
                self._thread.start()

        def stop() -> None:
            with self._lock:
                if wake in self._wakes:
                    self._wakes.remove(wake)
                ended = self._end() if not self._wakes else None
            self._join(ended)

        return stop

    def wake(self) -> None:
        """Somebody committed."""
        wake_all(self._wakes)

    def close(self) -> None:
        """End the thread."""
        with self._lock:
            self._wakes.clear()
            ended = self._end()
        self._join(ended)

    def _end(self) -> tuple[threading.Thread, tuple[int, int]] | None:
        """Ring the bell; the caller has the lock."""
        thread, bell = self._thread, self._bell
        self._thread = self._bell = None
        if thread is None or bell is None:
            return None
        os.write(bell[1], b"x")
        return thread, bell

    def _join(self, ended: tuple[threading.Thread, tuple[int, int]] | None) -> None:
        if ended is None:
            return
        thread, bell = ended
        if thread is threading.current_thread():
            self._left.append(bell)
            return
        thread.join()
        _close(bell)

    def _listen(self, bell: tuple[int, int]) -> None:
        try:
            self._tell(bell[0])
        finally:
            if bell in self._left:
                self._left.remove(bell)
                _close(bell)

    def _tell(self, bell: int) -> None:
        while True:
            with contextlib.suppress(Lost, Unreachable, Failed, HoldfastError):  # whoever asks the store is told why
                for _ in self._messages(self._servers.masters(), bell):
                    self.wake()
                return
            if _rings(bell, RETRY):
                return
            self._servers.refresh()

    def _messages(self, masters: Sequence[Address], bell: int) -> Iterator[None]:
        """Something for each message, and once when the channel is subscribed to; the end is the bell's.

        Each master of a cluster passes what is told at it on to the others, but may take tens of milliseconds for it
        (Nagle's algorithm on the connections between them). So all of them are listened to, and what comes again is
        passed over.
        """
        links: list[Link] = []
        try:
            for master in masters:
                with contextlib.suppress(Lost, Unreachable, Failed, HoldfastError):
                    links.append(self._subscribed(master))
            if not links:
                raise Lost("no master lets us subscribe")
            yield
            told: deque[bytes] = deque(maxlen=TOLD)
            while True:
                ready = [link for link in links if link.readable()]
                if not ready:
                    files = _ready(
                        [bell, *(link.fileno() for link in links)], PING if len(links) == len(masters) else AWAY
                    )
                    if bell in files:
                        return
                    if not files and len(links) < len(masters):
                        raise Lost("a master was away; it may be back, or replaced")
                    if not files:
                        for link in links:
                            _try(link, bell)
                for link in ready:
                    answer = link.answer()
                    if answer[0] == b"message" and answer[2] not in told:
                        told.append(answer[2])
                        yield
        finally:
            for link in links:
                link.drop()

    def _subscribed(self, master: Address) -> Link:
        link = self._links.take(master)
        try:
            link.send([("SUBSCRIBE", self._channel)])
            link.answer()
        except BaseException:
            link.drop()
            raise
        return link


def _try(link: Link, bell: int) -> None:
    """Find out whether the server is still there."""
    link.send([("PING",)])
    if not _ready([link.fileno(), bell], PING):
        raise Lost("the server is silent")


def _rings(bell: int, seconds: float) -> bool:
    return bool(_ready([bell], seconds))


def _ready(files: Sequence[int], seconds: float) -> list[int]:
    """Those of some open files that have something to tell; `select` knows none above 1023."""
    poll = select.poll()
    for file in files:
        poll.register(file, select.POLLIN)
    return [file for file, _ in poll.poll(seconds * 1000)]


def _close(bell: tuple[int, int]) -> None:
    for end in bell:
        os.close(end)
