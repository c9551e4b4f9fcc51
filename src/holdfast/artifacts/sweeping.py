"""Sweeping: deleting the blobs that nothing refers to. Only who asks for it gets it.

A reference is the digest that an object of any stored body names as its `sha256`, and what its `manifest` lists; so
events and heads of any kind and version count, hidden ones too. Invariant: a blob goes only while nobody can be about
to refer to it (`Blobs.exclusive`), and only if everything that might refer to it was read. The long look is taken
before writers are kept out; then only what changed since is looked at again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from holdfast.backend import Heads
from holdfast.errors import Corrupt
from holdfast.history import checkpoints
from holdfast.parts import LargeRef
from holdfast.plan import Ref
from holdfast.storage import Storage

PAGE = 1000
_SHA256 = re.compile(rb'"sha256"\s*:\s*"([0-9a-f]{64})"')
_REFERENCE = re.compile(
    rb'"sha256":"[0-9a-f]{64}","size":\d+,(?:"form":"\w+",)?"manifest":"([0-9a-f]{64}(?::\d+:[0-9a-f:]+)?)"'
)
"""A large value of several chunks, as it is written here."""
_MANIFEST = re.compile(rb'"manifest"\s*:\s*"([0-9a-f]{64}(?::\d+:[0-9a-f:]+)?)"')


class Swept(msgspec.Struct, frozen=True, kw_only=True):
    """What a sweep did: the `digests` of the blobs it deleted, or would have, and the bytes that they held.

    `blobs` are those that it met. `unread` says what could not be read and might refer to any of them; then it deleted
    nothing.
    """

    blobs: int = 0
    digests: tuple[str, ...] = ()
    bytes: int = 0
    unread: tuple[str, ...] = ()
    dry_run: bool = False

    @property
    def deleted(self) -> int:
        """How many blobs it deleted, or would have."""
        return len(self.digests)


def sweep(store: Storage, *, dry_run: bool = False) -> Swept:
    """Delete the blobs that no event and no head refers to; with `dry_run`, only say which. So go the checkpoints that
    sessions left which are gone.

    Writers of large values wait while it deletes, not while it looks at the whole store.

    Raises:
        Unavailable: writers held the blobs all the time.
    """
    if not dry_run:
        checkpoints.sweep(store)
    known = set(_blobs(store))  # what comes later is somebody's who is about to refer to it
    look = _Look(store, known)
    look.at_all()
    if look.unread:
        return Swept(blobs=len(known), unread=tuple(look.unread), dry_run=dry_run)
    with store.backend.blobs.exclusive():
        look.at_what_is_new()
        if look.unread:
            return Swept(blobs=len(known), unread=tuple(look.unread), dry_run=dry_run)
        digests = sorted(look.unused)
        size = 0
        for digest in digests:
            size += _size(store, digest)
            if not dry_run:
                store.backend.blobs.delete(digest)
    return Swept(blobs=len(known), digests=tuple(digests), bytes=size, dry_run=dry_run)


def _size(store: Storage, digest: str) -> int:
    try:
        return len(store.backend.blobs.get(digest) or b"")
    except Corrupt:
        return 0  # nobody needs it, so nobody needs to know


def _blobs(store: Storage) -> Iterator[str]:
    after = ""
    while found := store.backend.blobs.scan(after, PAGE):
        yield from found
        after = found[-1]


class _Look:
    """A look for references, that strikes what it finds off a set of blobs."""

    def __init__(self, store: Storage, unused: set[str]) -> None:
        self._store = store
        self._seen: dict[Ref, int] = {}  # how far each log was read
        self._manifests: set[str] = set()
        self._began, _ = store.backend.changed()
        self.unused = unused
        self.unread: list[str] = []

    def at_all(self) -> None:
        """Look at every head and its log."""
        for heads in self._pages():
            for head in heads:
                self._at_body(head.body, head.ref, None)
                self._at_log(head.ref)

    def at_what_is_new(self) -> None:
        """Look at every head once more, and at the logs that grew."""
        for heads in self._pages():
            for head in heads:
                self._at_body(head.body, head.ref, None)
                if head.last > self._seen.get(head.ref, 0):
                    self._at_log(head.ref)
        # One that went into the trash or out of it may have been where no page was taken just then.
        moved = self._store.backend.changed(self._began)[1]
        for head in self._store.backend.get([ref for ref in moved if ref not in self._seen]):
            if head is not None:
                self._at_body(head.body, head.ref, None)
                self._at_log(head.ref)

    def _pages(self) -> Iterator[Heads]:
        for kind in self._store.backend.kinds():
            for trashed in (False, True):
                yield from self._pages_of(kind, trashed=trashed)

    def _pages_of(self, kind: str, *, trashed: bool) -> Iterator[Heads]:
        after = ""
        while True:
            heads = self._store.backend.scan(kind, after, PAGE, trashed=trashed)
            for ref in heads.damaged:
                self._miss(f"the head of {ref.kind} {ref.id!r} can't be read")
            yield heads
            if len(heads) < PAGE:
                return
            after = heads[-1].ref.id

    def _at_log(self, ref: Ref) -> None:
        after = self._seen.get(ref, 0)
        while entries := self._store.backend.read(ref, after=after, limit=PAGE, voided=True):
            for entry in entries:
                if entry.fault:
                    self._miss(f"event {entry.seq} of {ref.kind} {ref.id!r} is damaged: {entry.fault}")
                self._at_body(entry.body, ref, entry.seq)
            after = self._seen[ref] = entries[-1].seq

    def _at_body(self, body: bytes, ref: Ref, seq: int | None) -> None:
        if b'"sha256"' in body:
            self.unused.difference_update(digest.decode() for digest in _SHA256.findall(body))
        if b'"manifest"' not in body:
            return
        surely = set(_REFERENCE.findall(body))
        for manifest in _MANIFEST.findall(body):
            if manifest in self._manifests:
                continue
            try:
                ref_to = LargeRef(sha256="", size=0, manifest=manifest.decode())
                self.unused.difference_update(self._store.large.digests(ref_to))
                self._manifests.add(manifest)
            except Corrupt as error:
                if manifest in surely:  # else it is a word of somebody's own
                    where = f"{ref.kind} {ref.id!r}" if seq is None else f"event {seq} of {ref.kind} {ref.id!r}"
                    self._miss(f"a large value of {where} can't be read: {error}")

    def _miss(self, what: str) -> None:
        if what not in self.unread:
            self.unread.append(what)
