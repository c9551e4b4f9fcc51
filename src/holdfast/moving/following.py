"""Keeping a copy in step with a store that goes on being written to, so that a switch takes seconds.

First everything is copied, then what changes, as it is told by a watch that began before; in the end all heads of the
two stores are compared, so that nothing depends on what a watch told.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec

from holdfast.clock import now
from holdfast.copies import Copied
from holdfast.documents.docheads import DOC
from holdfast.finding.watch import Change, Watcher
from holdfast.log import POLL
from holdfast.moving.copying import Copier, CopyReport
from holdfast.plan import Ref
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

    Then what is left is copied: of a source that nobody writes to any more, the copy is equal when this returns. What
    is deleted, or put into the trash, after it was copied stays in the target as it was.

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
    copier = Copier(source, target, remember=REMEMBERED)
    watcher, documents = Watcher(source.backend), _Documents(source)
    for one in copier.all():
        _tell(told, one)
    woken = threading.Event()
    quit_listening = source.backend.listen(woken.set)
    try:
        in_step = False
        while not stop.is_set():
            woken.clear()
            living = [change for change in watcher.changes() if not (change.deleted or change.trashed)]
            changed = documents.changed()
            if living or changed or not in_step:
                _tell(behind, Behind(sessions=len(living), seconds=_since(living)))
                for one in _copied(copier, living, changed, stop):
                    _tell(told, one)
                in_step = not stop.is_set()
                if living and in_step:
                    _tell(behind, Behind())
            woken.wait(0 if stop.is_set() else POLL)
    finally:
        quit_listening()
    return _last_pass(copier, told)


def _last_pass(copier: Copier, told: Callable[[Copied], None] | None) -> CopyReport:
    report = CopyReport()
    for one in copier.all(changed=True):
        report = report.plus(one)
        _tell(told, one)
    return report


def _tell(to: Callable[[T], None] | None, what: T) -> None:
    if to is not None:
        to(what)


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
    """The documents that changed since the last look, found by their time."""

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
        after: tuple[int, str] | None = None
        newest = self._since
        while heads := self._source.backend.find(DOC, {}, after=after, limit=PAGE):
            recent = [head for head in heads if head.at >= self._since - self.OVERLAP]
            for head in recent:
                seen[head.ref] = head.rev
                newest = max(newest, min(head.at, now()))
                if self._seen.get(head.ref) != head.rev:
                    found.append(head.ref)
            if len(recent) < len(heads):
                break
            after = (heads[-1].at, heads[-1].ref.id)
        self._seen, self._since = seen, newest
        return found
