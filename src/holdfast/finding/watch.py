"""What changes in a store: events by the backend's own count, what else changes and what is deleted by its time."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator

import msgspec

from holdfast.backend import Backend
from holdfast.clock import now
from holdfast.errors import Corrupt
from holdfast.heads.info import SESSION
from holdfast.log import POLL
from holdfast.plan import Head


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A session changed: its newest event, its revision, when it was active last, and where it stands now.

    `deleted` says that it is gone for good, `trashed` that it is in the trash.
    """

    session: str
    last: int
    rev: int
    at: int
    deleted: bool = False
    trashed: bool = False


class Watcher:
    """What changed since the last look. Each revision of a session is told once.

    Events are told whatever times they carry, as those of an import are of long ago. A change without events, and a
    deletion, carries the time at which it was made, and is found by it.
    """

    SEEN = 10_000
    OVERLAP = 60_000_000
    """Microseconds by which the clocks of writers may differ."""

    def __init__(self, backend: Backend, since: int) -> None:
        self._backend = backend
        self._since = since
        self._seen: OrderedDict[str, int] = OrderedDict()
        self._position, _ = backend.changed()
        for head in self._recent(since - self.OVERLAP):
            if head.at <= since:
                self._seen[head.ref.id] = head.rev
        for ref in backend.changed(self._position)[1]:
            self._seen.pop(ref.id, None)  # it changed while this was being found out, and is yet to be told

    def _recent(self, since: int) -> Iterator[Head]:
        for dead in (False, True):
            after: tuple[int, str] | None = None
            while heads := self._backend.find(SESSION, {}, after=after, limit=100, dead=dead):
                yield from (head for head in heads if head.at >= since)
                if heads[-1].at < since:
                    break
                after = (heads[-1].at, heads[-1].ref.id)

    def _grown(self) -> list[Head]:
        self._position, refs = self._backend.changed(self._position)
        heads: list[Head | None] = []
        for ref in refs:
            with contextlib.suppress(Corrupt):  # it hides no other; `check` names it
                heads += self._backend.get([ref])
        return [head for head in heads if head is not None and head.ref.kind == SESSION]

    def changes(self) -> list[Change]:
        """The sessions that changed, oldest activity first."""
        heads = {head.ref.id: head for head in self._grown()}
        heads |= {head.ref.id: head for head in self._recent(self._since - self.OVERLAP)}
        fresh = [head for head in heads.values() if self._seen.get(head.ref.id) != head.rev]
        fresh.sort(key=lambda head: (head.at, head.ref.id))
        for head in fresh:
            self._seen[head.ref.id] = head.rev
            self._seen.move_to_end(head.ref.id)
            # An event may be dated ahead; what happens meanwhile at the real time must still be seen.
            self._since = max(self._since, min(head.at, now()))
        while len(self._seen) > self.SEEN:
            self._seen.popitem(last=False)
        return [
            Change(session=h.ref.id, last=h.last, rev=h.rev, at=h.at, deleted=h.dead, trashed=h.trashed) for h in fresh
        ]


def watched(backend: Backend, since: int, stop: threading.Event | None) -> Iterator[Change]:
    """The changes since a time, in microseconds UTC, as they happen; see `Store.watch`."""
    watcher = Watcher(backend, since)
    woken = threading.Event()
    quit_listening = backend.listen(woken.set)
    try:
        while stop is None or not stop.is_set():
            woken.clear()
            yield from watcher.changes()
            woken.wait(POLL)
    finally:
        quit_listening()
