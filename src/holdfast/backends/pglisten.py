"""Who waits for commits is woken by NOTIFY, which is a hint: readers look at the rows, and by themselves now and then.

A NOTIFY inside a commit would make all commits of the server wait for each other. So a thread sends it behind them,
for all commits of a few milliseconds at once. The listening thread connects again when its connection ends. Where
LISTEN does not work (behind a pooler, on a replica) it looks, every few milliseconds, whether transactions have ended,
and tries now and then whether LISTEN works by now.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable

import psycopg

from holdfast import forks
from holdfast.backends.listening import wake_all
from holdfast.backends.pgarrays import TEXT
from holdfast.backends.pgserver import Connection, Server
from holdfast.errors import HoldfastError

GATHER = 0.005
"""Seconds whose commits share one hint."""
AGAIN = 0.5
"""Seconds between two tries to connect; meanwhile listeners are woken that often."""
PROOF = 2.0
"""Seconds within which a listener must hear itself."""
LOOK = 0.02
"""Seconds between two looks where LISTEN does not work."""
AFRESH = 60.0
"""Seconds after which LISTEN is tried again: the server was only busy, or another pooler may let it by now."""


class Hints:
    """Tells listeners of all processes that this one committed."""

    def __init__(self, server: Server, channel: str) -> None:
        self._server = server
        self._channel = channel
        self._start()
        forks.watch(self)

    def _start(self) -> None:
        self._committed = threading.Event()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def before_fork(self) -> None:
        """See `forks`."""

    def after_fork(self, *, child: bool) -> None:
        """See `forks`: the thread stays with the parent."""
        if child:
            self._start()

    def notice(self) -> None:
        """Something was committed."""
        if self._committed.is_set():
            return
        self._committed.set()
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._stop.is_set():
                    self._thread = threading.Thread(target=self._work, name="holdfast-notify", daemon=True)
                    with contextlib.suppress(RuntimeError):  # no thread to be had: a hint may be lost
                        self._thread.start()

    def _work(self) -> None:
        while not self._stop.is_set():
            self._committed.wait()
            self._tell()
            self._stop.wait(GATHER)

    def _tell(self) -> None:
        if not self._committed.is_set():
            return
        self._committed.clear()
        # A hint may be lost; who writes is told by the write itself that the server is away.
        with contextlib.suppress(HoldfastError), self._server.guarded() as db:
            notify(db, self._channel)

    def close(self) -> None:
        """Send what was not sent yet, and end the thread."""
        self._stop.set()
        thread = self._thread
        if thread is not None:
            pending = self._committed.is_set()
            self._committed.set()
            if thread.is_alive():
                thread.join()
            if pending:
                self._tell()


def notify(db: Connection, channel: str) -> None:
    """Wake all who listen. Nothing is stored, so nobody need wait for the disk."""
    sql = b"SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, '')"
    db.call(sql, (channel.encode(),), (TEXT,))


class Listener:
    """The listeners of one backend, and the thread that wakes them. With `hints` off, it only looks."""

    def __init__(self, server: Server, channel: str, version: Callable[[], object], *, hints: bool) -> None:
        self._server = server
        self._channel = channel
        self._version = version
        self._hints = hints
        self._wakes: list[Callable[[], None]] = []
        self._start()
        forks.watch(self)

    def _start(self) -> None:
        # Amid `add` the garbage collector may end a forgotten reader, who stops to listen, in the same thread.
        self._lock = threading.RLock()
        self._thread: Waiting | None = None

    def before_fork(self) -> None:
        """See `forks`."""

    def after_fork(self, *, child: bool) -> None:
        """See `forks`: the thread stays with the parent; the next listener starts another."""
        if child:
            if self._thread is not None:
                self._thread.close()
            self._start()

    def add(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Listen; what is returned stops it."""
        with self._lock:
            self._wakes.append(wake)
            if self._thread is None:
                self._thread = Waiting(self._server, self._channel, self._version, self.wake, hints=self._hints)

        def stop() -> None:
            thread = None
            with self._lock:
                if wake in self._wakes:
                    self._wakes.remove(wake)
                if not self._wakes:
                    thread, self._thread = self._thread, None
            if thread is not None:
                thread.end()

        return stop

    def wake(self) -> None:
        """Somebody committed."""
        if self._wakes:
            wake_all(self._wakes)

    def close(self) -> None:
        """End the thread."""
        with self._lock:
            self._wakes.clear()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.end()


class Waiting:
    """The thread that waits for the server's hints."""

    def __init__(
        self, server: Server, channel: str, version: Callable[[], object], wake: Callable[[], None], *, hints: bool
    ) -> None:
        self._server = server
        self._channel = channel
        self._version = version
        self._wake = wake
        self._hints = hints
        self._ended = threading.Event()
        self._out, self._in = os.pipe()
        self._alone = False
        """Whether it ended by itself, and nobody waits for that."""
        self._thread = threading.Thread(target=self._work, name="holdfast-listen", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End it. It can't wait for itself, when a listener stops while it is woken."""
        self._ended.set()
        os.write(self._in, b".")
        if self._thread is threading.current_thread():
            self._alone = True
        else:
            self._thread.join()
            self.close()

    def close(self) -> None:
        """Close the pipe, which nobody uses any more."""
        os.close(self._out)
        os.close(self._in)

    def _work(self) -> None:
        try:
            while not self._ended.is_set():
                try:
                    if not (self._hints and self._listen()):
                        self._look(AFRESH if self._hints else None)
                except (HoldfastError, psycopg.Error):
                    self._wake()  # whoever is woken meets the reason, and says it
                    self._ended.wait(AGAIN)
        finally:
            if self._alone:
                self.close()

    def _listen(self) -> bool:
        """Wake at each hint until the end; False if LISTEN does not work here, as a listener does not hear itself."""
        db = self._server.connect()
        try:
            try:
                db.execute(f'LISTEN "{self._channel}"'.encode())
            except psycopg.errors.ReadOnlySqlTransaction:
                return False  # a replica tells nothing, as long as it is one
            with self._server.guarded() as other:
                notify(other, self._channel)
            if not self._look(PROOF, lambda seconds: self._heard(db, seconds)):
                return self._ended.is_set()
            while not self._ended.is_set():
                self._wake()
                self._heard(db, None)
            return True
        finally:
            self._server.drop(db)

    def _heard(self, db: Connection, seconds: float | None) -> bool:
        """Wait for a hint, or the end, or so many seconds; whether there was a hint."""
        waiting = select.poll()
        waiting.register(db.fileno(), select.POLLIN)
        waiting.register(self._out, select.POLLIN)
        deadline = None if seconds is None else time.monotonic() + seconds
        while not self._ended.is_set():
            left = None if deadline is None else max(0, deadline - time.monotonic()) * 1000
            if not waiting.poll(left):
                return False
            if self._ended.is_set():
                return False
            if list(db.notifies(timeout=0)):
                return True
        return False

    def _look(self, seconds: float | None, heard: Callable[[float], bool] | None = None) -> bool:
        """Wake whenever the server stands elsewhere than before, for so long or until the end; or until it is heard."""
        deadline = None if seconds is None else time.monotonic() + seconds
        seen = self._now()
        self._wake()  # for what was committed before this first look
        waited = heard or self._ended.wait
        while deadline is None or time.monotonic() < deadline:
            if waited(LOOK):
                return True
            if self._ended.is_set():
                return False
            now = self._now()
            if now != seen:
                seen = now
                self._wake()
        return False

    def _now(self) -> object:
        try:
            return self._version()
        except HoldfastError:
            return object()  # something new each time it can't be told: whoever is woken meets the reason
