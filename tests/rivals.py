"""Two stores that see one another's turns, on clocks and machines that a test sets."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Iterator

from holdfast import Store
from holdfast.turns.keeping import Turns
from holdfast.turns.places import Place, Process

DAY = 86_400_000_000
PATIENCE = 30


class FakePlace(Place):
    """A place whose clocks stand still until they are set, in microseconds, and whose processes end when it is said."""

    def __init__(self, name: str, wall: int = 1_800_000_000_000_000, monotonic: int = 5_000_000) -> None:
        self.called, self.wall_at, self.monotonic_at = name, wall, monotonic
        self.born = 1
        self.ended: set[Process] = set()

    def wall(self) -> int:
        return self.wall_at

    def monotonic(self) -> int:
        return self.monotonic_at

    def name(self) -> str:
        return self.called

    def process(self) -> Process:
        return Process(self.called, 100, self.born)

    def gone(self, process: Process) -> bool:
        return process in self.ended

    def pass_seconds(self, seconds: float) -> None:
        self.wall_at += int(seconds * 1e6)
        self.monotonic_at += int(seconds * 1e6)


class Unwatched(Turns):
    """Turns whose heartbeats are sent by `beat` only: where clocks jump, a thread beside would send them sometimes."""

    def _run(self) -> None:
        return


@contextlib.contextmanager
def placed(store: Store, place: Place) -> Iterator[Store]:
    """The same store as seen from another place, as another process there would have it open."""
    other = copy.copy(store)
    other.turns = Unwatched(other.batcher, other.large, place)
    try:
        yield other
    finally:
        other.turns.close()


def wait_for(store: Store, condition: Callable[[], bool]) -> None:
    """Return when the condition holds, looking whenever somebody commits."""
    woken = threading.Event()
    stop = store.backend.listen(woken.set)
    try:
        while not condition():
            assert woken.wait(PATIENCE), "nobody commits any more"
            woken.clear()
    finally:
        stop()
