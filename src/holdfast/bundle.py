"""Whole sessions as data: a stream of JSON lines, and what reads it back.

A bundle holds for each session a line for its head, one for each entry with its bytes as they are stored, one for each
chunk of a large value before the entry that needs it, and one that ends it; for each document one for its head, then
the chunks that it needs, then one that ends it. Each line starts with the checksum of the rest, so a line that was
changed on the way is refused.

What becomes of a session or document that is there already is said in `copies`.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from holdfast.copies import STORE_ERRORS, Copied, needed, own_tags, replay, replay_document
from holdfast.documents import docheads
from holdfast.documents.docheads import DOC
from holdfast.errors import Corrupt, HoldfastError, Invalid, NotFound
from holdfast.heads.info import EDIT, SESSION, session_ref
from holdfast.history.ancestry import stored, whole
from holdfast.moving.digests import Tally, session_digest
from holdfast.plan import Entry, Head
from holdfast.refusals import called
from holdfast.storage import Storage

VERSION = 1
"""Version of the bundle's lines, in each session's head's `holdfast`."""
VERSION_OF_DOCUMENTS = 2
"""The same in a document's head, so that a program that knows none refuses it."""
VERSION_OF_CLOSING = 3
"""The same in the last line of a bundle that tells how much is in it, so that one cut off between two is known."""

_MARK = b'{"crc":"'
_NONE = msgspec.Raw()  # one and the same object, by which msgspec knows what to leave out


class Line(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Any line of a bundle. A body that can't stand in a line as it is stands in base64."""

    fault: str = ""
    holdfast: int = 0
    session: str = ""
    document: str = ""
    base: int = 0
    trim: int = 0
    last: int = 0
    seq: int = 0
    id: str = ""
    at: int = 0
    hidden: bool = False
    tags: dict[str, str] = {}
    counts: dict[str, int] = {}
    body: msgspec.Raw = _NONE
    body64: str = ""
    blob: str = ""
    data: str = ""
    end: str = ""
    events: int = 0
    digest: str = ""
    lines: int = 0
    sessions: int = 0
    documents: int = 0


_decoder = msgspec.json.Decoder(Line)
_encoder = msgspec.json.Encoder()


def write_bundle(
    store: Storage, sessions: Iterable[str], *, gone: list[str] | None = None, trashed: bool = False
) -> Iterator[bytes]:
    """The lines of a bundle of these sessions, as they are now; with `trashed`, also of those in the trash.

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
    yield _sealed(first, head.body)
    tally, events = Tally(), 0
    for entry in stored(store, head):
        try:
            blobs, fault = needed(store, head, entry), ""
        except Corrupt as error:
            blobs, fault = [], entry.fault or error.message
        for digest in blobs:
            if digest not in sent:
                sent.add(digest)
                yield _blob_line(store, digest)
        tally.take(entry)
        yield _sealed(Line(seq=entry.seq, id=entry.id, at=entry.at, hidden=entry.void, fault=fault), entry.body)
        events += 1
    told = msgspec.structs.replace(seen, tags=own_tags(head))
    yield _sealed(Line(end=head.ref.id, events=events, digest=tally.of(told)), b"")


def closing(lines: int, sessions: int, documents: int) -> bytes:
    """The last line of a bundle: how many lines are before it, and of how many sessions and documents."""
    return _sealed(Line(holdfast=VERSION_OF_CLOSING, lines=lines, sessions=sessions, documents=documents), b"")


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
        yield _sealed(first, head.body)
        for digest in needed:
            yield _blob_line(store, digest)
        yield _sealed(Line(end=ref.id), b"")


def _blob_line(store: Storage, digest: str) -> bytes:
    try:
        data, fault = store.backend.blobs.get(digest), "it is missing"
    except Corrupt as error:
        data, fault = None, error.message
    line = Line(blob=digest, fault=fault) if data is None else Line(blob=digest, data=base64.b64encode(data).decode())
    return _sealed(line, b"")


def _sealed(line: Line, body: bytes) -> bytes:
    """A line with its body, its checksum and its newline."""
    if body:
        line.body = msgspec.Raw(body)
        text = _encoder.encode(line)
        if b"\n" in body or not _comes_back(text, body):
            line.body, line.body64 = _NONE, base64.b64encode(body).decode()
            text = _encoder.encode(line)
    else:
        text = _encoder.encode(line)
    return b'%s%08x",%s\n' % (_MARK, zlib.crc32(text), text[1:])


def _comes_back(text: bytes, body: bytes) -> bool:
    try:
        text.decode()
        return bytes(_decoder.decode(text).body) == body
    except (UnicodeDecodeError, msgspec.MsgspecError, RecursionError):
        return False


def is_bundle(line: bytes) -> bool:
    """Whether a file that begins with this line is a bundle."""
    return line.startswith(_MARK) and line[16:].startswith(b'","holdfast":')


def tells_damage(line: bytes) -> bool:
    """Whether a line stands for an entry or a chunk that could not be read."""
    return line[16:].startswith(b'","fault":')


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
    reader = _Reader(store, lines)
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
    reader = _Reader(None, lines)
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
    reader = _Reader(None, lines)
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


class _Reader:
    """The lines of a bundle, session by session. Without a store, chunks are only held against their digests."""

    def __init__(self, store: Storage | None, lines: Iterable[bytes]) -> None:
        self._store = store
        self._lines = iter(lines)
        self.number = 0
        self._held: Line | None = None
        self._inside = False
        self._part = [0, 0, 0]  # lines, sessions and documents of this bundle, of several one behind the other
        self.closed = False
        self.digest = ""
        self.head = Head(session_ref(""))

    def _next(self) -> Line | None:
        if self._held is not None:
            line, self._held = self._held, None
            return line
        text = next(self._lines, None)
        if text is None:
            return None
        self.number += 1
        self._part[0] += 1
        return self._opened(text.rstrip(b"\r\n"))

    def _opened(self, text: bytes) -> Line:
        rest = b"{" + text[18:]
        sum = text[len(_MARK) : 16]
        if not text.startswith(_MARK) or text[16:18] != b'",' or sum != b"%08x" % zlib.crc32(rest):
            if self.number == 1 and not text.startswith(_MARK):
                raise Invalid("this is no bundle of holdfast; its first line has no checksum")
            raise Corrupt(f"line {self.number} of the bundle is damaged or was changed", line=self.number)
        try:
            return _decoder.decode(rest)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Corrupt(f"line {self.number} of the bundle can't be read: {error}", line=self.number) from None

    def find_head(self) -> bool:
        """Go on to the next session; False at the end.

        Raises:
            Corrupt: a head is damaged or missing. Lines of a session that failed already are passed over in silence.
        """
        while True:
            told, self._inside = self._inside, True
            try:
                line = self._next()
            except Corrupt:
                if told:
                    continue
                raise
            if line is None:
                return False
            if line.holdfast == VERSION_OF_CLOSING and not (line.session or line.document):
                self._inside = False
                self._close(line)
                continue
            if line.holdfast:
                break
            self._inside = not line.end
            if not told:
                raise Corrupt(f"the head of a session is missing before line {self.number} of the bundle")
        if line.holdfast != (VERSION_OF_DOCUMENTS if line.document else VERSION):
            raise Invalid(
                f"the bundle is of version {line.holdfast}; "
                f"this program reads {VERSION}, {VERSION_OF_DOCUMENTS} of documents, {VERSION_OF_CLOSING} of the end; "
                "read it with a newer one"
            )
        self.closed, self.digest = False, ""
        self._part[2 if line.document else 1] += 1
        ref = docheads.doc_ref(line.tags.get("user"), line.document) if line.document else session_ref(line.session)
        self.head = Head(
            ref, last=line.last, base=line.base, trim=line.trim, at=line.at,
            tags=line.tags, counts=line.counts, body=_body(line),
        )  # fmt: skip
        return True

    def _close(self, line: Line) -> None:
        (lines, sessions, documents), self._part = self._part, [0, 0, 0]
        if (lines - 1, sessions, documents) != (line.lines, line.sessions, line.documents):
            raise Corrupt(
                f"the bundle should hold {line.sessions:,} sessions and {line.documents:,} documents in {line.lines:,} "
                f"lines, and has {sessions:,} and {documents:,} in {lines - 1:,} before line {self.number}",
                line=self.number,
            )
        self.closed = True

    def replay(self, store: Storage) -> Copied:
        """Replay the session or document whose head was found last."""
        if self.head.ref.kind == docheads.DOC:
            with store.large.hold:
                return self._replay_document(store)
        return replay(store, self.head, self.entries())

    def _replay_document(self, store: Storage) -> Copied:
        for _ in self.entries():
            raise Corrupt(f"{called(self.head.ref)} has events in the bundle, and no document has any")
        docheads.kind_of(docheads.id_of(self.head.ref))
        for digest in docheads.digests(store, self.head):
            if store.backend.blobs.get(digest) is None:
                raise Corrupt(f"blob {digest} of {called(self.head.ref)} is missing in the bundle", digest=digest)
        return replay_document(store, self.head)

    def entries(self) -> Iterator[Entry]:
        """The session's entries, each after the blobs it needs were stored."""
        count, tally, self.digest = 0, Tally(), ""
        while line := self._next():
            if line.holdfast:
                self._held = line
                break
            if line.end:
                self._inside = False
                if line.events != count or line.end != self.head.ref.id:
                    raise Corrupt(f"{count} of {line.events} events of {called(self.head.ref)} are in the bundle")
                if line.digest and line.digest != tally.of(self.head):
                    raise Corrupt(f"{called(self.head.ref)} is not what its digest in line {self.number} says")
                self.digest = line.digest
                return
            if line.fault:
                what = f"{f'event {line.seq}' if line.seq else f'blob {line.blob}'} of {called(self.head.ref)}"
                raise Corrupt(f"{what} was damaged when it was written: {line.fault}")
            if line.blob:
                self._put(line)
            else:
                count += 1
                entry = Entry(line.id, line.at, _body(line), line.seq, line.hidden)
                tally.take(entry)
                yield entry
        raise Corrupt(f"the bundle ends in the middle of {called(self.head.ref)}, after {count} events")

    def _put(self, line: Line) -> None:
        data = _bytes(line.data)
        if hashlib.sha256(data).hexdigest() != line.blob:
            raise Corrupt(f"blob {line.blob} in line {self.number} of the bundle has other bytes", line=self.number)
        if self._store is not None:
            self._store.large.put_blob(line.blob, data)


def _body(line: Line) -> bytes:
    return _bytes(line.body64) if line.body64 else bytes(line.body)


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Corrupt(f"the bundle holds bytes that are no base64: {error}") from None
