"""A store in which everything can be tried: what is there is read through, and what is changed stays in memory.

So a dry run is the run itself, with its refusals and its counts, and nothing of it is ever stored. A session whose log
would change is held in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from holdfast import search
from holdfast.backend import Backend, Blobs, Heads, Hit, Problem, TextOf
from holdfast.backends.memory import MemoryBackend, MemoryBlobs
from holdfast.errors import Corrupt
from holdfast.plan import Commit, Entry, Head, Ref, Refused


class ReadThroughBlobs(MemoryBlobs):
    """The blobs of another store, and those that were put since."""

    def __init__(self, inner: Backend) -> None:
        super().__init__()
        self._inner = inner.blobs

    def get(self, digest: str) -> bytes | None:
        """The bytes; None if they are in neither."""
        found = super().get(digest)
        return self._inner.get(digest) if found is None else found


class Rehearsal(MemoryBackend):
    """A backend over another one, of which it changes nothing. See `Backend` for what the methods promise.

    A search finds what is stored, and not what was tried.
    """

    def __init__(self, inner: Backend, text_of: TextOf) -> None:
        super().__init__(text_of)
        self.blobs: Blobs = ReadThroughBlobs(inner)
        self._inner = inner

    def _commit(self, commit: Commit) -> Head | Refused:
        ref = commit.ref
        try:
            self._take(ref, log=bool(commit.append or commit.void or commit.trim is not None))
        except Corrupt:
            if not commit.delete:
                raise
            self._heads[ref] = Head(ref, rev=1, dead=True)  # damaged, and so it can only be deleted
            return self._heads[ref]
        result = super()._commit(commit)
        if isinstance(result, Head) and result.dead:
            self._logs[ref] = []
        return result

    def _take(self, ref: Ref, *, log: bool) -> None:
        """Hold a head in memory, and its log if that is to change."""
        if ref not in self._heads:
            head = self._inner.get([ref])[0]
            if head is None:
                self._logs[ref], self._ids[ref] = [], {}
                return
            self._heads[ref] = head
        if log and ref not in self._logs:
            # No further than the head knows: a writer may have gone on since.
            self._logs[ref] = self._inner.read(ref, upto=self._heads[ref].last, voided=True)
            self._ids[ref] = {entry.id: entry.seq for entry in self._logs[ref] if entry.id}

    def get(self, refs: Sequence[Ref]) -> list[Head | None]:
        """The heads."""
        with self._lock:
            held = {ref: self._heads[ref] for ref in refs if ref in self._heads}
        rest = [ref for ref in refs if ref not in held]
        found = dict(zip(rest, self._inner.get(rest), strict=True)) if rest else {}
        return [held[ref] if ref in held else found[ref] for ref in refs]

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
        read = super().read if ref in self._logs else self._inner.read
        return read(ref, after=after, upto=upto, ids=ids, limit=limit, reverse=reverse, voided=voided)

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
        mine = super().find(kind, tags, after=after, limit=limit, dead=dead, trashed=trashed)
        more = limit + len(self._heads)  # some of them are not as they were
        theirs = self._inner.find(kind, tags, after=after, limit=more, dead=dead, trashed=trashed)
        found = [*mine, *self._unchanged(theirs)]
        return Heads(sorted(found, key=lambda h: (h.at, h.ref.id), reverse=True)[:limit], theirs.damaged)

    def scan(self, kind: str, after: str = "", limit: int = 1000, *, trashed: bool = False) -> Heads:
        """Living heads by id."""
        mine = super().scan(kind, after, limit, trashed=trashed)
        theirs = self._inner.scan(kind, after, limit + len(self._heads), trashed=trashed)
        return Heads(sorted([*mine, *self._unchanged(theirs)], key=lambda h: h.ref.id)[:limit], theirs.damaged)

    def _unchanged(self, heads: Heads) -> list[Head]:
        return [head for head in heads if head.ref not in self._heads]

    def kinds(self) -> list[str]:
        """The kinds of heads."""
        return sorted({*super().kinds(), *self._inner.kinds()})

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
        """Entries that match, of those that are stored."""
        return self._inner.search(kind, query, id=id, tags=tags, newest=newest, offset=offset, limit=limit)

    def verify(self) -> list[Problem]:
        """What is damaged of that which is stored."""
        return self._inner.verify()

    def info(self) -> Mapping[str, str]:
        """Facts about what is stored."""
        return self._inner.info()
