"""The reading half of bundles: the sessions and documents in a stream of lines, one after the other.

A line that is damaged costs the session that it belongs to, and no other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from holdfast.copies import Copied, replay
from holdfast.documents import docheads
from holdfast.documents.doccopies import replay_document
from holdfast.errors import Corrupt, Invalid
from holdfast.heads.info import session_ref
from holdfast.moving.bundlelines import (
    VERSION,
    VERSION_OF_CLOSING,
    VERSION_OF_DOCUMENTS,
    Line,
    body_in,
    bytes_in,
    opened,
)
from holdfast.moving.digests import Tally
from holdfast.plan import Entry, Head
from holdfast.refusals import called
from holdfast.storage import Storage


class BundleReader:
    """The lines of a bundle, session by session. Without a store, chunks are only held against their digests."""

    def __init__(self, store: Storage | None, lines: Iterable[bytes]) -> None:
        self._store = store
        self._lines = iter(lines)
        self.number = 0
        self._held: Line | None = None
        self._inside = False
        self._part = [0, 0, 0]  # lines, sessions and documents of this bundle, of several one behind the other
        self._ends = False
        self._is_told = False
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
        return opened(text.rstrip(b"\r\n"), self.number)

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
                self._check_end()
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
        if line.ends and not self._ends:  # a bundle without an end may stand before one that has it
            self._ends, self._is_told, self._part = True, False, [1, 0, 0]
        self._part[2 if line.document else 1] += 1
        ref = docheads.doc_ref(line.tags.get("user"), line.document) if line.document else session_ref(line.session)
        self.head = Head(
            ref, last=line.last, base=line.base, trim=line.trim, at=line.at,
            tags=line.tags, counts=line.counts, body=body_in(line),
        )  # fmt: skip
        return True

    def _check_end(self) -> None:
        ends, self._ends = self._ends, False
        if ends and not self._is_told:
            raise Corrupt(
                f"the bundle is cut off: it ends after line {self.number:,}, and its last line is missing",
                line=self.number,
            )

    def _close(self, line: Line) -> None:
        self._ends = False
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
                entry = Entry(line.id, line.at, body_in(line), line.seq, line.hidden)
                tally.take(entry)
                yield entry
        self._is_told = self._held is None
        raise Corrupt(f"the bundle ends in the middle of {called(self.head.ref)}, after {count} events")

    def _put(self, line: Line) -> None:
        data = bytes_in(line.data)
        if hashlib.sha256(data).hexdigest() != line.blob:
            raise Corrupt(f"blob {line.blob} in line {self.number} of the bundle has other bytes", line=self.number)
        if self._store is not None:
            self._store.large.put_blob(line.blob, data)
