"""Whole sessions as data: a stream of JSON lines, and what reads it back.

A bundle holds for each session a line for its head, one for each entry with its bytes as they are stored, one for each
chunk of a large value before the entry that needs it, and one that ends it; for each document one for its head, then
the chunks that it needs, then one that ends it. Each line starts with the checksum of the rest, so a line that was
changed on the way is refused.

What becomes of a session or document that is there already is said in `copies`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from holdfast.copies import STORE_ERRORS, Copied, needed, own_tags
from holdfast.documents import docheads
from holdfast.documents.docheads import DOC
from holdfast.errors import Corrupt, HoldfastError, NotFound
from holdfast.heads.info import EDIT, SESSION
from holdfast.history.ancestry import stored, whole
from holdfast.moving.bundlelines import (
    VERSION,
    VERSION_OF_DOCUMENTS,
    Line,
    ended as ended,
    is_bundle as is_bundle,
    sealed,
    tells_damage as tells_damage,
)
from holdfast.moving.bundlereader import BundleReader
from holdfast.moving.digests import Tally, session_digest
from holdfast.plan import Head
from holdfast.refusals import called
from holdfast.storage import Storage

REMEMBERED = 10_000
"""Chunks of large values of which it is remembered that they are in the bundle; one may stand there again."""


def write_bundle(
    store: Storage, sessions: Iterable[str], *, gone: list[str] | None = None, trashed: bool = False
) -> Iterator[bytes]:
    """The lines of a bundle of these sessions, as they are now; with `trashed`, also of those in the trash.

    `ended` makes a whole bundle of these lines and others.

    What is damaged goes along with its bytes and what is wrong with it; a replay will refuse it. With a list `gone`,
    the sessions that are not there any more are left out and named in it.

    Raises:
        NotFound, Deleted: a session is not there, and there is no list `gone`.
        Corrupt: a session's head can't be read.
    """
    sent: set[str] = set()
    for id in sessions:
        try:
            head = store.head(id, trashed=trashed)
        except NotFound:
            if gone is None:
                raise
            gone.append(id)
            continue
        yield from _session_lines(store, head, sent)
        # What was hidden meanwhile shows in what was written, and is said by events behind it: then once more.
        while (now := store.peek(id)) is not None and not now.dead and now.tags.get(EDIT) != head.tags.get(EDIT):
            head = now
            yield from _session_lines(store, head, sent)


def _session_lines(store: Storage, head: Head, sent: set[str]) -> Iterator[bytes]:
    seen = whole(store, head)
    first = Line(
        holdfast=VERSION, session=head.ref.id, base=seen.base, trim=seen.trim, last=head.last, at=head.at,
        tags=dict(sorted(own_tags(head).items())), counts=dict(sorted(head.counts.items())),
    )  # fmt: skip
    yield sealed(first, head.body)
    tally, events = Tally(), 0
    for entry in stored(store, head):
        try:
            blobs, fault = needed(store, head, entry), ""
        except Corrupt as error:
            blobs, fault = [], entry.fault or error.message
        for digest in blobs:
            if digest not in sent:
                if len(sent) == REMEMBERED:
                    sent.clear()
                sent.add(digest)
                yield _blob_line(store, digest)
        tally.take(entry)
        yield sealed(Line(seq=entry.seq, id=entry.id, at=entry.at, hidden=entry.void, fault=fault), entry.body)
        events += 1
    told = msgspec.structs.replace(seen, tags=own_tags(head))
    yield sealed(Line(end=head.ref.id, events=events, digest=tally.of(told)), b"")


def write_documents(store: Storage, *, damaged: list[str] | None = None) -> Iterator[bytes]:
    """The lines of a bundle of all documents that the store shows.

    With a list `damaged`, those whose heads, or lists of chunks, can't be read are left out and named in it.

    Raises:
        Corrupt: there is such a document, and no list `damaged`.
    """
    for ref, head in docheads.all_documents(store):
        try:
            needed = None if head is None else docheads.digests(store, head)
        except Corrupt:
            needed = None
        if head is None or needed is None:
            if damaged is None:
                raise Corrupt(f"{called(ref)} is damaged; `check` says how", document=docheads.id_of(ref))
            damaged.append(docheads.id_of(ref))
            continue
        first = Line(
            holdfast=VERSION_OF_DOCUMENTS, document=docheads.id_of(ref), at=head.at,
            tags=dict(sorted(own_tags(head).items())),
        )  # fmt: skip
        yield sealed(first, head.body)
        for digest in needed:
            yield _blob_line(store, digest)
        yield sealed(Line(end=ref.id), b"")


def _blob_line(store: Storage, digest: str) -> bytes:
    try:
        data, fault = store.backend.blobs.get(digest), "it is missing"
    except Corrupt as error:
        data, fault = None, error.message
    line = Line(blob=digest, fault=fault) if data is None else Line(blob=digest, data=base64.b64encode(data).decode())
    return sealed(line, b"")


def read_bundle(store: Storage, lines: Iterable[bytes], *, verify: bool = False) -> Iterator[Copied]:
    """Replay a bundle's sessions into a store, and say of each what became of it; one that fails stops no other.

    Args:
        store: Where they go.
        lines: The bundle.
        verify: Whether to read each session back from the store, and hold it against the digest in the bundle.

    Raises:
        Invalid: the lines are no bundle, or one of another version.
        Unavailable, Uncertain, ReadOnly: the store can't take them now; the same call goes on where it ended.
    """
    reader = BundleReader(store, lines)
    while True:
        try:
            if not reader.find_head():
                return
        except Corrupt as error:
            yield Copied(session="", error=error)  # which session it was can't be told
            continue
        try:
            copied = reader.replay(store)
            if verify and reader.digest:
                _read_back(store, reader.head, reader.digest)
            yield copied
        except STORE_ERRORS:
            raise
        except HoldfastError as error:
            ref = reader.head.ref
            if ref.kind == docheads.DOC:
                yield Copied(document=docheads.id_of(ref), user=docheads.owner_of(ref), error=error)
            else:
                yield Copied(session=ref.id, error=error)


def _read_back(store: Storage, head: Head, digest: str) -> None:
    id = head.ref.id
    if session_digest(store, store.head(id, trashed=True)) != digest:
        raise Corrupt(f"session {id!r} reads back otherwise than the bundle says; check the store", session=id)


class Contents(NamedTuple):
    """What is in a bundle, as reading it to its end tells.

    `faults` names what is wrong by session, or by "" where that can't be told. `closed` says that the last line is
    there, which says how much there is to be.
    """

    sessions: int
    documents: int
    lines: int
    faults: Mapping[str, str]
    closed: bool


def contents(lines: Iterable[bytes]) -> Contents:
    """Read a bundle to its end, and store nothing.

    Raises:
        Invalid: it is no bundle, or one of a newer version.
    """
    reader = BundleReader(None, lines)
    counted = {DOC: 0, SESSION: 0}
    faults: dict[str, str] = {}
    while True:
        try:
            if not reader.find_head():
                return Contents(counted[SESSION], counted[DOC], reader.number, faults, reader.closed)
        except Corrupt as error:
            faults.setdefault("", error.message)
            continue
        try:
            for _ in reader.entries():
                pass
        except Corrupt as error:
            faults.setdefault(reader.head.ref.id, error.message)
        else:
            counted[reader.head.ref.kind] += 1


def verify_bundle(lines: Iterable[bytes]) -> tuple[set[str], dict[str, str]]:
    """Read a bundle to its end and store nothing: the sessions that are whole in it, and what is wrong with the others.

    What can't be told to belong to a session stands under "".
    """
    reader = BundleReader(None, lines)
    whole: set[str] = set()
    faults: dict[str, str] = {}
    while True:
        try:
            if not reader.find_head():
                return whole, faults
        except Corrupt as error:
            faults[""] = error.message
            continue
        try:
            for _ in reader.entries():
                pass
        except Corrupt as error:
            faults[reader.head.ref.id] = error.message
        else:
            whole.add(reader.head.ref.id)
