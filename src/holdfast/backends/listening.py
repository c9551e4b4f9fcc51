"""Who waits for commits: woken at once by this process's own, and by a look every few milliseconds for others'.

The looking thread lives only while somebody listens, and what it looks at costs microseconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from holdfast import forks

INTERVAL = 0.035
"""Seconds between two looks at what other processes did. Waking is what costs: with 0.02, 1.2 % of a core."""


def wake_all(wakes: Iterable[Callable[[], None]]) -> None:
    """Wake who listens. One that raises fails neither the commit, which is made, nor the others: it is logged."""
    for wake in list(wakes):
        try:
            wake()
        except Exception:
            import logging  # takes longer than a short command has, and is hardly ever needed

            logging.getLogger("holdfast").exception("a listener failed; it is called again at the next commit")


class Listening:
    """The listeners of one backend. `version` tells something that changes with every commit of any process."""

    def __init__(self, version: Callable[[], object]) -> None:
        self._version = version
        self._wakes: list[Callable[[], None]] = []
        self._start()
        forks.watch(self)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def before_fork(self) -> None:
        """See `forks`."""

    def after_fork(self, *, child: bool) -> None:
        """See `forks`: the looking thread stays with the parent; the next listener starts another."""
        if child:
            self._start()

    def add(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Listen; what is returned stops it."""
        with self._lock:
            self._wakes.append(wake)
            if self._thread is None:
                self._stop = threading.Event()
                self._thread = threading.Thread(
                    target=self._look, args=(self._stop,), name="holdfast-listen", daemon=True
                )
                self._thread.start()

        def stop() -> None:
            thread = None
            with self._lock:
                if wake in self._wakes:
                    self._wakes.remove(wake)
                if not self._wakes:
                    thread, self._thread = self._thread, None
                    self._stop.set()
            if thread is not None and thread is not threading.current_thread():
                thread.join()

        return stop

    def wake(self) -> None:
        """Somebody committed."""
        if self._wakes:
            wake_all(self._wakes)

    def _look(self, stop: threading.Event) -> None:
        seen = self._now()
        while not stop.wait(INTERVAL):
            now = self._now()
            if now != seen:
                seen = now
                self.wake()

    def _now(self) -> object:
        """What the version is; something new each time it can't be told: whoever is woken meets the reason and says it.

        A look that fails is not the last: a full disk, or a file that is away for a moment, comes back.
        """
        try:
            return self._version()
        except Exception:  # noqa: BLE001  # of whatever kind the engine's library raises, none may end the looking
            return object()

    def close(self) -> None:
        """End the looking thread."""
        with self._lock:
            self._wakes.clear()
            thread, self._thread = self._thread, None
            self._stop.set()
        if thread is not None:
            thread.join()
