"""What changes in a store, seen by looking at the sessions that were active last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import msgspec

from holdfast.backend import Backend
from holdfast.clock import now
from holdfast.info import SESSION
from holdfast.plan import Head


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A session was active: its newest event, its revision, and when."""

    session: str
    last: int
    rev: int
    at: int


class Watcher:
    """What changed since the last look: the newest sessions, compared by revision with those already told.

    It goes by last activity: what is recorded as having happened in the past (an import of old transcripts) and what is
    deleted is not told.
    """

    SEEN = 10_000
    OVERLAP = 60_000_000
    """Microseconds by which the clocks of writers may differ."""

    def __init__(self, backend: Backend, since: int) -> None:
        self._backend = backend
        self._since = since
        self._seen: OrderedDict[str, int] = OrderedDict()
        for head in self._active(since - self.OVERLAP):
            if head.at <= since:
                self._seen[head.ref.id] = head.rev

    def _active(self, since: int) -> Iterator[Head]:
        after: tuple[int, str] | None = None
        while heads := self._backend.find(SESSION, {}, after=after, limit=100):
            for head in heads:
                if head.at < since:
                    return
                yield head
            after = (heads[-1].at, heads[-1].ref.id)

    def changes(self) -> list[Change]:
        """The sessions that changed, oldest activity first."""
        fresh = [h for h in self._active(self._since - self.OVERLAP) if self._seen.get(h.ref.id) != h.rev]
        fresh.reverse()
        for head in fresh:
            self._seen[head.ref.id] = head.rev
            self._seen.move_to_end(head.ref.id)
            # An event may be dated ahead; what happens meanwhile at the real time must still be seen.
            self._since = max(self._since, min(head.at, now()))
        while len(self._seen) > self.SEEN:
            self._seen.popitem(last=False)
        return [Change(session=h.ref.id, last=h.last, rev=h.rev, at=h.at) for h in fresh]
