"""What changes in a store, as the backend tells it: whatever clocks say, and from where an earlier watch ended."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import msgspec

from holdfast.backend import Backend
from holdfast.errors import Corrupt, Invalid
from holdfast.heads.info import SESSION
from holdfast.log import POLL
from holdfast.plan import FIRST_TIME, LAST_TIME, Head, Ref

TOGETHER = 500
"""Heads that are read at a time."""


class Change(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A session changed: its newest event, its revision, when it was active last, and where it stands now.

    `deleted` says that it is gone for good, `trashed` that it is in the trash. A watch `after` this `position` goes on
    behind the change; see `Store.watch`.
    """

    session: str
    last: int
    rev: int
    at: int
    deleted: bool = False
    trashed: bool = False
    position: str = ""


class Watcher:
    """What changed since the last look. Each revision of a session is told once.

    A position is the backend's. While those are still to be told that were active since some time, it says that, too.
    """

    SEEN = 10_000
    """Sessions whose last told revision is remembered, as a look may tell again of what one before has told."""

    def __init__(self, backend: Backend, *, since: int | None = None, after: str | None = None) -> None:
        self._backend = backend
        self._seen: OrderedDict[str, int] = OrderedDict()
        self._since = since
        if after is not None:
            if since is not None:
                raise Invalid("a watch begins since a time or after a position; leave one out")
            self._since, after = _parts(after)
        self._refs: list[Ref] = []
        self._place, self._refs = backend.changed(after)
        self._before = self._place if after is None else after

    @property
    def position(self) -> str:
        """Behind what was told."""
        return self._before if self._since is None else f"{self._before}~{self._since}"

    def changes(self) -> list[Change]:
        """The sessions that changed, oldest activity first; all but the last have the position of the look before."""
        if not self._refs:
            self._place, self._refs = self._backend.changed(self._before)
        before = self.position
        # Only what is told of a head is kept: whoever was away for long may have to be told of very many.
        fresh = {head.ref.id: _change(head, before) for head in self._heads(self._refs) if self._is_fresh(head)}
        if self._since is not None:
            active = _active(self._backend, self._since)
            fresh |= {head.ref.id: _change(head, before) for head in active if self._is_fresh(head)}
        self._before, self._refs, self._since = self._place, [], None
        told = sorted(fresh.values(), key=lambda change: (change.at, change.session))
        for change in told:
            self._seen[change.session] = change.rev
            self._seen.move_to_end(change.session)
            if len(self._seen) > self.SEEN:
                self._seen.popitem(last=False)
        if told:
            told[-1] = msgspec.structs.replace(told[-1], position=self.position)
        return told

    def _is_fresh(self, head: Head) -> bool:
        return self._seen.get(head.ref.id) != head.rev

    def _heads(self, refs: Sequence[Ref]) -> Iterator[Head]:
        """The heads of sessions; one that is damaged hides no other, and `check` names it."""
        refs = [ref for ref in refs if ref.kind == SESSION]
        for start in range(0, len(refs), TOGETHER):
            some = refs[start : start + TOGETHER]
            try:
                yield from filter(None, self._backend.get(some))
            except Corrupt:
                for ref in some:
                    with contextlib.suppress(Corrupt):
                        yield from filter(None, self._backend.get([ref]))


def _parts(position: str) -> tuple[int | None, str]:
    """Since when those are still to be told that were active, and the backend's position."""
    place, tilde, since = position.partition("~")
    if not tilde:
        return None, place
    try:
        at = int(since) if len(since) < 20 else FIRST_TIME - 1
    except ValueError:
        at = FIRST_TIME - 1
    if not FIRST_TIME <= at <= LAST_TIME:
        raise Invalid(f"{position[:80]!r} is no position of a watch; pass one that a change came with")
    return at, place


def _active(backend: Backend, since: int) -> Iterator[Head]:
    """The sessions that were active, deleted or put away after a time."""
    for dead, trashed in ((False, False), (True, False), (False, True)):
        after: tuple[int, str] | None = None
        while heads := backend.find(SESSION, {}, after=after, limit=100, dead=dead, trashed=trashed):
            yield from (head for head in heads if head.at > since)
            if heads[-1].at <= since:
                break
            after = (heads[-1].at, heads[-1].ref.id)


def _change(head: Head, position: str) -> Change:
    return Change(
        session=head.ref.id,
        last=head.last,
        rev=head.rev,
        at=head.at,
        deleted=head.dead,
        trashed=head.trashed,
        position=position,
    )


def watched(backend: Backend, watcher: Watcher, stop: threading.Event | None) -> Iterator[Change]:
    """What a watcher has to tell, as it happens; see `Store.watch`."""
    woken = threading.Event()
    quit_listening = backend.listen(woken.set)
    try:
        while stop is None or not stop.is_set():
            woken.clear()
            yield from watcher.changes()
            woken.wait(POLL)
    finally:
        quit_listening()
