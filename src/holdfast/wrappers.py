"""Wrappers around a backend: the same seam, with one more rule that nothing above it can forget.

`ForUser` is a store as one user sees it. Invariant: a head is hers if its tag `user` names her; no call reads, finds or
changes any other one. What a commit changes is decided inside it, as it expects that tag; what a read answers, by the
numbers that her head had before, which are never used again. Blobs are shared by everybody and named by their bytes, so
to know a digest must not be to have the bytes: a view gives only blobs that were put through it, or that a record of
hers which was read through it needs; and it stores no record that needs any other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

import msgspec

from holdfast import codec
from holdfast.backend import Backend, Blobs, Heads, Hit, Problem
from holdfast.documents.docheads import DOC, large_of, owner_of
from holdfast.errors import Corrupt, Denied
from holdfast.heads.names import NAME, claim_ref
from holdfast.large import LargeValues
from holdfast.plan import Commit, Entry, Head, Ref, Refused
from holdfast.refusals import called, denied
from holdfast.search import Node

PAGE = 1000
PAGES = 10
"""Pages of tombstones, all users', that a view looks through for hers."""
USER = "user"
"""Tag of a head: whose it is."""
TOLD = ("engine", "library", "durability")
"""The facts about a store that say nothing of what others keep in it."""


class UserBlobs:
    """The blobs that one view may read: those it put, and those that records of its user need."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._large = LargeValues()
        self._large.blobs = blobs
        self._known: set[str] = set()

    def put(self, digest: str, data: bytes) -> None:
        """Store the bytes; whoever has them may have them."""
        self._blobs.put(digest, data)
        self._known.add(digest)

    def get(self, digest: str) -> bytes | None:
        """The bytes; None if they are not there, or nothing of this user needs them."""
        return self._blobs.get(digest) if digest in self._known else None

    def delete(self, digest: str) -> bool:
        """Refused: others may need it, too.

        Raises:
            Denied: always.
        """
        raise Denied("blobs are shared by all users; only the store itself can remove them", digest=digest)

    def scan(self, after: str = "", limit: int = 1000) -> list[str]:
        """The digests that this view knows of and that are there."""
        found: list[str] = []
        while len(found) < limit and (page := self._blobs.scan(after, PAGE)):
            found += [digest for digest in page if digest in self._known]
            after = page[-1]
        return found[:limit]

    def shared(self) -> AbstractContextManager[None]:
        """See `Blobs.shared`."""
        return self._blobs.shared()

    def exclusive(self) -> AbstractContextManager[None]:
        """Refused, as is deleting.

        Raises:
            Denied: always.
        """
        raise Denied("blobs are shared by all users; only the whole store can be swept")

    def learn(self, ref: Ref, bodies: Iterable[bytes]) -> None:
        """These records are hers: she may read what they need."""
        for body in bodies:
            for digest in self._needed(ref, body):
                self._known.add(digest)

    def unknown(self, ref: Ref, bodies: Iterable[bytes]) -> str | None:
        """A digest that one of the bodies needs and this view has not; None if there is none."""
        for body in bodies:
            for digest in self._needed(ref, body):
                if digest not in self._known:
                    return digest
        return None

    def _needed(self, ref: Ref, body: bytes) -> Iterable[str]:
        # A letter of the key may be escaped, so an escape is looked into as well.
        if b'"large"' not in body and b"\\u00" not in body:
            return
        try:
            if ref.kind == DOC:
                refs = [large] if (large := large_of(body)) is not None else []
            else:
                values = codec.larges(codec.decode(body, self._large))
                refs = [value.ref for value in values if value.ref is not None]
        except Corrupt:
            return  # nothing can be opened by it, either
        for needed in refs:
            yield needed.sha256 if needed.manifest is None else needed.manifest.partition(":")[0]
            if needed.manifest is not None:
                try:
                    yield from self._large.digests(needed)
                except Corrupt:
                    continue  # opening it will say so


class ForUser:
    """A backend as one user sees it. See `Backend` for what the methods promise."""

    def __init__(self, inner: Backend, user: str, commit: Callable[[Commit], Head | Refused]) -> None:
        self._inner = inner
        self.user = user
        self._commit_one = commit
        self._blobs = UserBlobs(inner.blobs)
        self.blobs: Blobs = self._blobs
        self._seen: dict[Ref, None] = {}
        """Heads of hers that this view met: it tells of their deletion, as a tombstone does not say whose it was."""

    def _is_hers(self, head: Head) -> bool:
        return head.tags.get(USER) == self.user

    def _met(self, heads: Iterable[Head]) -> None:
        for head in heads:
            self._seen[head.ref] = None
            if head.body:
                self._blobs.learn(head.ref, (head.body,))

    def commit(self, batch: Sequence[Commit]) -> list[Head | Refused]:
        """Make commits, each only on a head of hers, or one that it creates.

        Raises:
            Denied: a commit would give a head to another user, or needs a blob that this view can't have. Nothing of
                the whole batch was stored.
        """
        guarded = [self._guarded(commit) for commit in batch]
        # One by one they meet those of other users in the store's own batches.
        results = [self._commit_one(guarded[0])] if len(guarded) == 1 else self._inner.commit(guarded)
        return [self._told(result) for result in results]

    def _guarded(self, commit: Commit) -> Commit:
        tags = commit.tags or {}
        if USER in tags and tags[USER] not in (None, self.user):
            raise Denied(f"this store is open for the user {self.user!r} alone", session=commit.ref.id)
        bodies = [entry.body for entry in commit.append]
        missing = self._blobs.unknown(commit.ref, bodies if commit.body is None else [*bodies, commit.body])
        if missing is not None:
            raise Denied(
                f"what is to be stored names the bytes {missing} without giving them; put the value itself",
                session=commit.ref.id,
                digest=missing,
            )
        if commit.delete:
            if commit.if_rev == 0:
                return commit  # a tombstone where nothing ever was
            self._check_readable(commit.ref)  # only deleting takes a head that is damaged
        if commit.if_rev is not None and (commit.if_rev == 0 or self._is_tombstone(commit)):
            if not self._may_create(commit.ref, tags):
                raise denied(commit.ref)
            return msgspec.structs.replace(commit, tags={**tags, USER: self.user})
        if USER in tags:
            tags = {name: value for name, value in tags.items() if name != USER}
            commit = msgspec.structs.replace(commit, tags=tags)
        return msgspec.structs.replace(commit, if_tags={**(commit.if_tags or {}), USER: self.user})

    def _may_create(self, ref: Ref, tags: Mapping[str, str | None]) -> bool:
        """Whether an id may be hers, of those that say whose they are."""
        if ref.kind == DOC:
            return owner_of(ref) == self.user
        return ref.kind != NAME or ref == claim_ref(self.user, tags.get("name") or "")

    def _is_tombstone(self, commit: Commit) -> bool:
        """Whether a commit starts a deleted head anew: its revision, which is used once, was that of a tombstone."""
        if commit.delete:
            return False
        try:
            head = self._inner.get([commit.ref])[0]
        except Corrupt:
            return False
        return head is not None and head.dead and head.rev == commit.if_rev

    def _told(self, result: Head | Refused) -> Head | Refused:
        head = result if isinstance(result, Head) else result.head
        if head is None or head.dead:
            return result
        if not self._is_hers(head):
            return Refused("denied", None)
        self._met((head,))
        return result

    def get(self, refs: Sequence[Ref]) -> list[Head | None]:
        """The heads.

        Raises:
            Denied: one is another user's.
        """
        heads = self._inner.get(refs)
        for head in heads:
            if head is not None and not head.dead:
                if not self._is_hers(head):
                    raise denied(head.ref)
                self._met((head,))
        return heads

    def _check_readable(self, ref: Ref) -> Head | None:
        """A head, which is hers if it lives.

        Raises:
            Denied: it is not, or can't be told to be.
        """
        try:
            return self.get([ref])[0]
        except Corrupt:
            raise Denied(f"whose {called(ref)} is can't be told, as its head is damaged", session=ref.id) from None

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
        """Entries of a log of hers.

        Raises:
            Denied: it is another user's, or its head is damaged, so that nobody can tell whose it is.
        """
        head = self._check_readable(ref)
        if head is None or head.dead:
            return []
        # Up to there the log is the one that was hers: were it deleted now, and the id taken, numbers would go on.
        upto = head.last if upto is None else min(upto, head.last)
        entries = self._inner.read(ref, after=after, upto=upto, ids=ids, limit=limit, reverse=reverse, voided=voided)
        self._blobs.learn(ref, (entry.body for entry in entries))
        return entries

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
        """Heads of hers. Damaged ones are left out and not named, as nobody can tell whose they are."""
        if dead:
            return self._gone(kind, after, limit)
        if tags.get(USER, self.user) != self.user:
            return Heads()
        heads = self._inner.find(kind, {**tags, USER: self.user}, after=after, limit=limit, trashed=trashed)
        self._met(heads)
        return Heads(heads)

    def _gone(self, kind: str, after: tuple[int, str] | None, limit: int) -> Heads:
        """Tombstones of heads that this view has met, as far as they stand among the newest of all."""
        found: list[Head] = []
        for _ in range(PAGES):
            heads = self._inner.find(kind, {}, after=after, limit=PAGE, dead=True)
            found += [head for head in heads if head.ref in self._seen]
            if len(found) >= limit or len(heads) < PAGE:
                break
            after = (heads[-1].at, heads[-1].ref.id)
        return Heads(found[:limit])

    def scan(self, kind: str, after: str = "", limit: int = 1000, *, trashed: bool = False) -> Heads:
        """Heads of hers by id; it passes over all others', so it takes as long as the store is large."""
        found: list[Head] = []
        while len(found) < limit:
            heads = self._inner.scan(kind, after, PAGE, trashed=trashed)
            found += [head for head in heads if self._is_hers(head)]
            if len(heads) < PAGE:
                break
            after = heads[-1].ref.id
        found = found[:limit]
        self._met(found)
        return Heads(found)

    def kinds(self) -> list[str]:
        """The kinds of which the store has heads."""
        return self._inner.kinds()

    def compact(self) -> None:
        """Refused: it is the whole store's files that are written anew.

        Raises:
            Denied: always.
        """
        raise Denied(f"this store is open for the user {self.user!r} alone; only the whole store can be compacted")

    def search(
        self,
        kind: str,
        query: Node,
        *,
        id: str | None = None,
        tags: Mapping[str, str | None] | None = None,
        newest: bool = False,
        offset: int = 0,
        limit: int = 100,
    ) -> list[Hit]:
        """Entries of hers that match."""
        if (tags or {}).get(USER, self.user) != self.user:
            return []
        own = {**(tags or {}), USER: self.user}
        hits = self._inner.search(kind, query, id=id, tags=own, newest=newest, offset=offset, limit=limit)
        for hit in hits:
            self._blobs.learn(hit.ref, (hit.entry.body,))
        return hits

    def index(self) -> int:
        """Bring the index up to date. How much that was would tell of others: 0."""
        self._inner.index()
        return 0

    def changed(self, since: str | None = None) -> tuple[str, list[Ref]]:
        """Where the store stands, and which heads of hers changed."""
        position, refs = self._inner.changed(since)
        own: list[Ref] = []
        for ref in refs:
            with contextlib.suppress(Corrupt):  # nobody can tell whose it is
                head = self._inner.get([ref])[0]
                if head is not None and (ref in self._seen if head.dead else self._is_hers(head)):
                    own.append(ref)
        return position, own

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` after any commit; whose it was is not told."""
        return self._inner.listen(wake)

    def verify(self) -> list[Problem]:
        """What is damaged of hers, as far as her heads can be read."""
        own: list[Problem] = []
        for problem in self._inner.verify():
            if problem.ref is not None:
                with contextlib.suppress(Corrupt):  # nobody can tell whose it is
                    head = self._inner.get([problem.ref])[0]
                    if head is not None and not head.dead and self._is_hers(head):
                        own.append(problem)
        return own

    def info(self) -> Mapping[str, str]:
        """Facts for a person, without those that tell of others."""
        return {name: fact for name, fact in self._inner.info().items() if name in TOLD}

    def close(self) -> None:
        """The backend stays open: it is the store's."""
