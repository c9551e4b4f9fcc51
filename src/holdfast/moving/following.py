"""Keeping a copy in step with a store that goes on being written to, so that a switch takes seconds.

First everything is copied, then what changes, as it is told by a watch that began before; in the end all heads of the
two stores are compared, so that nothing depends on what a watch told.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TypeVar

import msgspec

from holdfast.clock import now
from holdfast.copies import Copied
from holdfast.documents.docheads import DOC
from holdfast.errors import NotFound
from holdfast.finding.watch import Change, Watcher
from holdfast.log import POLL
from holdfast.moving.copying import Copier, CopyReport
from holdfast.moving.deletions import all_deletions, deletion, ref_of
from holdfast.plan import Head, Ref
from holdfast.storage import Storage

T = TypeVar("T")
REMEMBERED = 10_000
"""Sessions of which it is remembered how far they were copied, so that only what is new is read."""
PAGE = 100


class Behind(msgspec.Struct, frozen=True, kw_only=True):
    """How far a copy is behind: the sessions that changed and are not copied yet, and how many seconds ago the first
    of them did. All zero: in step.
    """

    sessions: int = 0
    seconds: float = 0.0


def follow_store(
    source: Storage,
    target: Storage,
    *,
    stop: threading.Event,
    told: Callable[[Copied], None] | None = None,
    behind: Callable[[Behind], None] | None = None,
) -> CopyReport:
    """Copy a store as `copy_store` does, then go on copying what changes in it until told to stop.

    Then what is left is copied: of a source that nobody writes to any more, the copy is equal when this returns. The
    trash comes along, and what is deleted in the source is deleted in the target, unless it was changed there.

    Args:
        source, target: Two open stores, of any kinds.
        stop: When set, the last pass begins.
        told: Is called with each session and document when it was copied.
        behind: Is called when changes were found, and when they were copied.

    Returns:
        What the last pass found: the sessions and documents that it had to copy, and whatever failed in it.

    Raises:
        Unavailable, Uncertain, ReadOnly: one of the stores can't go on; the same call goes on where it ended.
    """
    copier = Copier(source, target, trashed=True, remember=REMEMBERED)
    watcher, documents = Watcher(source.backend), _Documents(source)
    _tell_all(told, _all(source, target, copier))
    woken = threading.Event()
    quit_listening = source.backend.listen(woken.set)
    try:
        in_step = False
        while not stop.is_set():
            woken.clear()
            sessions, changed = watcher.changes(), documents.changed()
            if sessions or changed or not in_step:
                _tell(behind, Behind(sessions=len(sessions), seconds=_since(sessions)))
                for one in _copied(copier, sessions, changed, stop):
                    _tell_all(told, _settled(source, target, one))
                in_step = not stop.is_set()
                if sessions and in_step:
                    _tell(behind, Behind())
            woken.wait(0 if stop.is_set() else POLL)
    finally:
        quit_listening()
    return _tell_all(told, _all(source, target, copier, changed=True))


def _all(source: Storage, target: Storage, copier: Copier, *, changed: bool = False) -> Generator[Copied]:
    """Everything: deletions first, whose names may be others' by now."""
    yield from all_deletions(source, target)
    for one in copier.all(changed=changed):
        yield from _settled(source, target, one)


def _settled(source: Storage, target: Storage, one: Copied) -> Generator[Copied]:
    """What became of a session or document; of one that is gone in the source by now, of its deletion."""
    if isinstance(one.error, NotFound):
        ref = ref_of(one)
        there = source.backend.get([ref])[0]
        if there is None or there.dead:
            yield from deletion(source, target, ref)
            return
    yield one


def _tell(to: Callable[[T], None] | None, what: T) -> None:
    if to is not None:
        to(what)


def _tell_all(told: Callable[[Copied], None] | None, copied: Generator[Copied]) -> CopyReport:
    report = CopyReport()
    with contextlib.closing(copied):  # if telling fails, nothing is copied any more when that comes out
        for one in copied:
            report = report.plus(one)
            _tell(told, one)
    return report


def _since(changes: Sequence[Change]) -> float:
    """Seconds since the first of the changes; 0 if there are none."""
    return max(now() - min(change.at for change in changes), 0) / 1e6 if changes else 0.0


def _copied(
    copier: Copier, changes: Sequence[Change], documents: Sequence[Ref], stop: threading.Event
) -> Iterator[Copied]:
    """Copy what changed, until told to stop: the last pass finds what is left."""
    for change in changes:
        if stop.is_set():
            return
        yield copier.session(change.session)
    for ref in documents:
        if stop.is_set():
            return
        yield copier.document(ref)


class _Documents:
    """The documents that changed, or were deleted, since the last look, found by their time."""

    OVERLAP = 60_000_000
    """Microseconds by which the clocks of writers may differ."""

    def __init__(self, source: Storage) -> None:
        self._source = source
        self._since = now()
        self._seen: dict[Ref, int] = {}

    def changed(self) -> list[Ref]:
        """Those that changed; each revision is told once."""
        found: list[Ref] = []
        seen: dict[Ref, int] = {}
        newest = self._since
        for head in (*self._recent(dead=True), *self._recent(dead=False)):
            seen[head.ref] = head.rev
            newest = max(newest, min(head.at, now()))
            if self._seen.get(head.ref) != head.rev:
                found.append(head.ref)
        self._seen, self._since = seen, newest
        return found

    def _recent(self, *, dead: bool) -> Iterator[Head]:
        after: tuple[int, str] | None = None
        while heads := self._source.backend.find(DOC, {}, after=after, limit=PAGE, dead=dead):
            recent = [head for head in heads if head.at >= self._since - self.OVERLAP]
            yield from recent
            if len(recent) < len(heads):
                return
            after = (heads[-1].at, heads[-1].ref.id)
