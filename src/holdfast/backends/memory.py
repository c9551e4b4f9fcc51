"""The reference: a store in this process's memory, the shortest that is right.

Every other backend is held against it. One lock, two dictionaries; nothing survives the process.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Generator, Mapping, Sequence

import msgspec

from holdfast import search
from holdfast.backend import BLOB_PATIENCE, Blobs, Heads, Hit, Problem, TextOf, readable
from holdfast.backends import positions
from holdfast.backends.listening import wake_all
from holdfast.errors import Unavailable
from holdfast.plan import TRASHED, Commit, Entry, Head, Ref, Refused, plan


class MemoryBlobs:
    """Blobs in a dictionary."""

    def __init__(self) -> None:
        self._data: dict[str, bytes] = {}
        self._changed = threading.Condition()
        self._sharing = 0
        self._alone = False

    def put(self, digest: str, data: bytes) -> None:
        """Store the bytes."""
        self._data.setdefault(digest, bytes(data))

    def get(self, digest: str) -> bytes | None:
        """The bytes, or None."""
        return self._data.get(digest)

    def delete(self, digest: str) -> bool:
        """Remove the bytes."""
        return self._data.pop(digest, None) is not None

    def scan(self, after: str = "", limit: int = 1000) -> list[str]:
        """Digests above `after`."""
        return sorted(d for d in list(self._data) if d > after)[:limit]

    @contextlib.contextmanager
    def shared(self) -> Generator[None]:
        """Keep deleters out."""
        with self._changed:
            self._wait_until(lambda: not self._alone)
            self._sharing += 1
        try:
            yield
        finally:
            with self._changed:
                self._sharing -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def exclusive(self) -> Generator[None]:
        """Keep everybody else out."""
        with self._changed:
            self._wait_until(lambda: not self._alone)
            self._alone = True  # from here on nobody new comes in
        try:
            with self._changed:
                self._wait_until(lambda: not self._sharing)
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()

    def _wait_until(self, free: Callable[[], bool]) -> None:
        if not self._changed.wait_for(free, BLOB_PATIENCE):
            raise Unavailable(f"the store's blobs were in use for {BLOB_PATIENCE} s; try again")


class MemoryBackend:
    """Heads and logs in dictionaries. See `Backend` for what the methods promise."""

    def __init__(self, text_of: TextOf) -> None:
        self.blobs: Blobs = MemoryBlobs()
        self._text_of = text_of
        self._id = os.urandom(8).hex()
        self._lock = threading.RLock()
        self._heads: dict[Ref, Head] = {}
        self._logs: dict[Ref, list[Entry]] = {}
        self._ids: dict[Ref, dict[str, int]] = {}
        self._numbers = itertools.count(1)
        self._changes: dict[Ref, int] = {}
        self._wakes: list[Callable[[], None]] = []

    def commit(self, batch: Sequence[Commit]) -> list[Head | Refused]:
        """Make commits in order."""
        with self._lock:
            results = [self._commit(commit) for commit in batch]
            wakes = list(self._wakes)
        wake_all(wakes)
        return results

    def _commit(self, commit: Commit) -> Head | Refused:
        ref = commit.ref
        known = self._ids.get(ref, {})
        planned = plan(self._heads.get(ref), {e.id for e in commit.append if e.id in known}, commit)
        if isinstance(planned, Refused):
            return planned
        head = self._heads[ref] = planned.head
        self._changes[ref] = next(self._numbers)
        if head.dead:
            self._logs.pop(ref, None)
            self._ids.pop(ref, None)
            return head
        if not (commit.append or commit.void or commit.trim is not None):
            return head  # its log, which may be long, is as it was
        log, ids = self._logs.setdefault(ref, []), self._ids.setdefault(ref, {})
        log += planned.entries
        ids.update((entry.id, entry.seq) for entry in planned.entries if entry.id)
        for r in commit.void:
            start = r.first - log[0].seq  # what is hidden is there, without a gap
            for n in range(start, start + r.last - r.first + 1):
                log[n] = msgspec.structs.replace(log[n], void=r.hide)
        if commit.trim is not None and log:
            cut = max(0, head.trim - log[0].seq + 1)
            for entry in log[:cut]:
                ids.pop(entry.id, None)
            del log[:cut]
        return head

    def get(self, refs: Sequence[Ref]) -> list[Head | None]:
        """The heads."""
        with self._lock:
            return [self._heads.get(ref) for ref in refs]

    def read(
        self,
        ref: Ref,
        *,
        after: int = 0,
        upto: int | None = None,
        ids: Sequence[str] | None = None,
        limit: int | None = None,
        reverse: bool = False,
        voided: bool = False,
    ) -> list[Entry]:
        """Entries of one log."""
        with self._lock:
            found = self._between(ref, after, upto, ids)
        if not voided:
            found = [entry for entry in found if not entry.void]
        if reverse:
            found.reverse()
        return found[:limit]

    def _between(self, ref: Ref, after: int, upto: int | None, ids: Sequence[str] | None) -> list[Entry]:
        """Entries with `after < seq <= upto`, which stand in their order without a gap; of those with ids, these."""
        log = self._logs.get(ref)
        if not log:
            return []
        first = log[0].seq
        if ids is None:
            return log[max(0, after + 1 - first) : None if upto is None else max(0, upto + 1 - first)]
        known = self._ids.get(ref, {})
        seqs = sorted({known[id] for id in ids if id in known})
        return [log[seq - first] for seq in seqs if after < seq and (upto is None or seq <= upto)]

    def find(
        self,
        kind: str,
        tags: Mapping[str, str | None],
        *,
        after: tuple[int, str] | None = None,
        limit: int = 100,
        dead: bool = False,
        trashed: bool = False,
    ) -> Heads:
        """Living heads, or tombstones, newest first."""
        with self._lock:
            heads = list(self._heads.values())
        found = [
            h
            for h in heads
            if h.ref.kind == kind and h.dead == dead and (TRASHED in h.tags) == trashed and _carries(h, tags)
        ]
        found.sort(key=lambda h: (h.at, h.ref.id), reverse=True)
        return Heads([h for h in found if after is None or (h.at, h.ref.id) < after][:limit])

    def scan(self, kind: str, after: str = "", limit: int = 1000, *, trashed: bool = False) -> Heads:
        """Living heads by id."""
        with self._lock:
            heads = list(self._heads.values())
        found = [h for h in heads if h.ref.kind == kind and not h.dead and h.trashed == trashed and h.ref.id > after]
        return Heads(sorted(found, key=lambda h: h.ref.id)[:limit])

    def kinds(self) -> list[str]:
        """The kinds of heads."""
        with self._lock:
            return sorted({ref.kind for ref in self._heads})

    def search(
        self,
        kind: str,
        query: search.Node,
        *,
        id: str | None = None,
        tags: Mapping[str, str | None] | None = None,
        newest: bool = False,
        offset: int = 0,
        limit: int = 100,
    ) -> list[Hit]:
        """Entries that match, by reading them all."""
        with self._lock:
            logs = [(h, [*self._logs.get(h.ref, ())]) for h in self._heads.values() if h.ref.kind == kind]
        hits: list[Hit] = []
        for head, log in logs:
            if head.trashed or (id is not None and head.ref.id != id) or not _carries(head, tags or {}):
                continue
            for entry in log:
                text = "" if entry.void else readable(self._text_of, entry.body)
                if text and search.matches(query, text):
                    hits.append(Hit(head.ref, entry, search.score(query, text)))
        hits.sort(key=lambda h: (h.entry.at, h.entry.seq) if newest else (h.score, h.entry.at), reverse=True)
        return hits[offset : offset + limit]

    def index(self) -> int:
        """There is no index to bring up to date."""
        return 0

    def changed(self, since: str | None = None) -> tuple[str, list[Ref]]:
        """The heads that changed, by the number of their last change."""
        known = None if since is None else positions.read(since, self._id, int)
        with self._lock:
            changes = sorted(self._changes.items(), key=lambda change: change[1])
        newest = changes[-1][1] if changes else 0
        return positions.written(self._id, newest), [
            ref for ref, number in changes if known is not None and number > known
        ]

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` after each commit."""
        with self._lock:
            self._wakes.append(wake)

        def stop() -> None:
            with self._lock:
                if wake in self._wakes:
                    self._wakes.remove(wake)

        return stop

    def compact(self) -> None:
        """What was deleted is gone."""

    def verify(self) -> list[Problem]:
        """Memory does not rot."""
        return []

    def info(self) -> Mapping[str, str]:
        """Facts for a person."""
        return {"engine": "memory", "durability": "memory", "sessions": str(len(self._heads))}

    def close(self) -> None:
        """Nothing to give back."""


def _carries(head: Head, tags: Mapping[str, str | None]) -> bool:
    return all(head.tags.get(name) == value for name, value in tags.items())
