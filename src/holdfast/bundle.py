"""Whole sessions as data: a stream of JSON lines, and the replay that makes a session from its head and entries.

A bundle holds for each session a line for its head, one for each entry with its bytes as they are stored, one for each
chunk of a large value before the entry that needs it, and one that ends it. Each line starts with the checksum of the
rest, so a line that was changed on the way is refused.

Invariant of the replay: the copy's log is a beginning of the original's, always, and its head is as a replay left it,
which a tag of it tells. So an interrupted copy is resumed by the same call, a finished one is left as it is, and one
that went its own way is a Conflict.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec

from holdfast import codec
from holdfast.errors import Conflict, Corrupt, HoldfastError, Invalid, ReadOnly, Unavailable, Uncertain
from holdfast.info import created_at, session_ref
from holdfast.plan import MAX_TAGS, Commit, Entry, Head, Range, Refused, plan
from holdfast.session import refusal

if TYPE_CHECKING:
    from holdfast.store import Store

VERSION = 1
"""Version of the bundle's lines, in each head's `holdfast`."""
PAGE = 500
"""Entries read at a time."""
BATCH = 1000
"""Entries committed together."""
BATCH_BYTES = 4 * 1024 * 1024
"""Bytes of bodies above which a commit is made before it has `BATCH` entries."""
COPIED = "copied"
"""Tag of a copy's head: the digest of that head as the last replay left it. Never copied itself."""
STORE_ERRORS = (Unavailable, Uncertain, ReadOnly)
"""What is wrong with a store, not with one session: the next session would fare no better."""

_MARK = b'{"crc":"'
_NONE = msgspec.Raw()  # one and the same object, by which msgspec knows what to leave out


class Copied(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one session: its events, how many of them were new here, or the error that stopped it."""

    session: str
    events: int = 0
    new: int = 0
    error: HoldfastError | None = None


class Line(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Any line of a bundle. A body that can't stand in a line as it is stands in base64."""

    fault: str = ""
    holdfast: int = 0
    session: str = ""
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


_decoder = msgspec.json.Decoder(Line)
_encoder = msgspec.json.Encoder()


def write_bundle(store: Store, sessions: Iterable[str]) -> Iterator[bytes]:
    """The lines of a bundle of these sessions, as they are now.

    What is damaged goes along with its bytes and what is wrong with it; a replay will refuse it.

    Raises:
        NotFound, Deleted: a session is not there.
        Corrupt: a session's head can't be read.
    """
    sent: set[str] = set()
    for id in sessions:
        head = store.head(id)
        first = Line(
            holdfast=VERSION, session=id, base=head.base, trim=head.trim, last=head.last, at=head.at,
            tags=dict(sorted(_own_tags(head).items())), counts=dict(sorted(head.counts.items())),
        )  # fmt: skip
        yield _sealed(first, head.body)
        events = 0
        for entry in _stored(store, head):
            for digest in _digests(store, entry):
                if digest not in sent:
                    sent.add(digest)
                    yield _blob_line(store, digest)
            line = Line(seq=entry.seq, id=entry.id, at=entry.at, hidden=entry.void, fault=entry.fault)
            yield _sealed(line, entry.body)
            events += 1
        yield _sealed(Line(end=id, events=events), b"")


def _stored(store: Store, head: Head) -> Iterator[Entry]:
    after = max(head.base, head.trim)
    while entries := store.backend.read(head.ref, after=after, upto=head.last, limit=PAGE, voided=True):
        yield from entries
        after = entries[-1].seq


def _digests(store: Store, entry: Entry) -> list[str]:
    """The blobs that an entry needs; none if it can't be decoded."""
    if entry.fault or b'"large"' not in entry.body:
        return []
    try:
        found = codec.larges(codec.decode(entry.body, store.large))
        return [digest for value in found if value.ref for digest in store.large.digests(value.ref)]
    except Corrupt:
        return []


def _blob_line(store: Store, digest: str) -> bytes:
    try:
        data = store.backend.blobs.get(digest)
    except Corrupt as error:
        return _sealed(Line(blob=digest, fault=error.message), b"")
    if data is None:
        return _sealed(Line(blob=digest, fault="it is missing"), b"")
    return _sealed(Line(blob=digest, data=base64.b64encode(data).decode()), b"")


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


def read_bundle(store: Store, lines: Iterable[bytes]) -> Iterator[Copied]:
    """Replay a bundle's sessions into a store, and say of each what became of it; one that fails stops no other.

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
        id = reader.head.ref.id
        try:
            yield replay(store, reader.head, reader.entries())
        except STORE_ERRORS:
            raise
        except HoldfastError as error:
            yield Copied(session=id, error=error)


class _Reader:
    """The lines of a bundle, session by session."""

    def __init__(self, store: Store, lines: Iterable[bytes]) -> None:
        self._store = store
        self._lines = iter(lines)
        self._number = 0
        self._held: Line | None = None
        self._inside = False
        self.head = Head(session_ref(""))

    def _next(self) -> Line | None:
        if self._held is not None:
            line, self._held = self._held, None
            return line
        text = next(self._lines, None)
        if text is None:
            return None
        self._number += 1
        return self._opened(text.rstrip(b"\r\n"))

    def _opened(self, text: bytes) -> Line:
        rest = b"{" + text[18:]
        sum = text[len(_MARK) : 16]
        if not text.startswith(_MARK) or text[16:18] != b'",' or sum != b"%08x" % zlib.crc32(rest):
            if self._number == 1 and not text.startswith(_MARK):
                raise Invalid("this is no bundle of holdfast; its first line has no checksum")
            raise Corrupt(f"line {self._number} of the bundle is damaged or was changed", line=self._number)
        try:
            return _decoder.decode(rest)
        except msgspec.MsgspecError as error:
            raise Corrupt(f"line {self._number} of the bundle can't be read: {error}", line=self._number) from None

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
            if line.holdfast:
                break
            self._inside = not line.end
            if not told:
                raise Corrupt(f"the head of a session is missing before line {self._number} of the bundle")
        if line.holdfast != VERSION:
            raise Invalid(f"the bundle is of version {line.holdfast}; this program reads version {VERSION}")
        self.head = Head(
            session_ref(line.session), last=line.last, base=line.base, trim=line.trim, at=line.at,
            tags=line.tags, counts=line.counts, body=_body(line),
        )  # fmt: skip
        return True

    def entries(self) -> Iterator[Entry]:
        """The session's entries, each after the blobs it needs were stored."""
        count = 0
        while line := self._next():
            if line.holdfast:
                self._held = line
                break
            if line.end:
                self._inside = False
                if line.events != count or line.end != self.head.ref.id:
                    raise Corrupt(f"{count} of {line.events} events of session {line.end!r} are in the bundle")
                return
            if line.fault:
                what = f"event {line.seq}" if line.seq else f"blob {line.blob}"
                raise Corrupt(f"{what} of session {self.head.ref.id!r} was damaged when it was written: {line.fault}")
            if line.blob:
                self._put(line)
            else:
                count += 1
                yield Entry(line.id, line.at, _body(line), line.seq, line.hidden)
        raise Corrupt(f"the bundle ends in the middle of session {self.head.ref.id!r}, after {count} events")

    def _put(self, line: Line) -> None:
        data = _bytes(line.data)
        if hashlib.sha256(data).hexdigest() != line.blob:
            raise Corrupt(f"blob {line.blob} in line {self._number} of the bundle has other bytes", line=self._number)
        self._store.backend.blobs.put(line.blob, data)


def _body(line: Line) -> bytes:
    return _bytes(line.body64) if line.body64 else bytes(line.body)


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Corrupt(f"the bundle holds bytes that are no base64: {error}") from None


def copy_session(source: Store, target: Store, id: str) -> Copied:
    """Make or complete a copy of a session in another store, equal in ids, numbers, times, fields and large values.

    Raises:
        NotFound, Deleted: the source has no such session, or the target had one that was deleted.
        Conflict: the target's session is not a copy of this one, or was changed after it was copied.
        Corrupt: something of it is damaged; `check` names it. What comes before it was copied.
    """
    head = source.head(id)
    return replay(target, head, _carried(source, target, head))


def _carried(source: Store, target: Store, head: Head) -> Iterator[Entry]:
    """A session's entries, each after the blobs it needs were copied."""
    for entry in _stored(source, head):
        if entry.fault:
            raise Corrupt(f"event {entry.seq} of session {head.ref.id!r} is damaged: {entry.fault}", seq=entry.seq)
        for digest in _digests(source, entry):
            data = source.backend.blobs.get(digest)
            if data is None:
                raise Corrupt(f"event {entry.seq} of session {head.ref.id!r} lacks its blob {digest}", seq=entry.seq)
            target.backend.blobs.put(digest, data)
        yield entry


def replay(store: Store, head: Head, entries: Iterator[Entry]) -> Copied:
    """Make a session with this head and these entries, or complete one that has a beginning of them.

    Raises:
        Conflict: there is one with other entries, or one that was changed later.
        Deleted: there was one.
        Corrupt: an entry is missing.
    """
    start = max(head.base, head.trim)
    there = _target(store, head, start)
    here = _stored(store, msgspec.structs.replace(there, base=start, trim=0))
    known = there.last
    ranges: list[Range] = []
    batch: list[Entry] = []
    size = 0
    expected = start
    for entry in entries:
        expected += 1
        if entry.seq != expected:
            raise Corrupt(f"event {expected} of session {head.ref.id!r} is missing", session=head.ref.id, seq=expected)
        if entry.seq <= known:
            ranges += _difference(head, next(here, None), entry)
            continue
        batch.append(entry)
        size += len(entry.body)
        if len(batch) == BATCH or size >= BATCH_BYTES:
            there, batch, size = _append(store, there, batch), [], 0
    if batch:
        there = _append(store, there, batch)
    if there.last != head.last:
        raise Corrupt(f"events {expected + 1} to {head.last} of session {head.ref.id!r} are missing")
    _finish(store, there, head, ranges)
    return Copied(session=head.ref.id, events=head.last - start, new=head.last - known)


def _target(store: Store, head: Head, start: int) -> Head:
    """The head to replay onto, created if it is not there."""
    there = store.backend.get([head.ref])[0]
    if there is None:
        # What was trimmed can't come along: the copy's log begins behind it, with the same numbers.
        # Whose it is stands there from the first: an interrupted copy must not be open to everybody.
        tags = {name: head.tags[name] for name in ("created", "user") if name in head.tags}
        return _changed(store, None, Commit(ref=head.ref, at=created_at(head), if_rev=0, base=start, tags=tags))
    if there.dead:
        raise refusal(Refused("deleted", there), Commit(ref=head.ref))
    if there.tags.get("user") != head.tags.get("user"):
        raise _diverged(head, "it belongs to another user")
    if there.base > start or there.last > head.last or there.at > head.at:
        raise _diverged(head, f"it is at event {there.last} and was active later than what is to be copied")
    # Unchanged since a replay left it, equal already, or what the session to be copied was once copied from.
    if _digest(there) not in (there.tags.get(COPIED), _digest(head), head.tags.get(COPIED)):
        raise _diverged(head, "what is said about it there was changed, or never came from here")
    return there


def _own_tags(head: Head) -> dict[str, str]:
    """The head's tags without the one that a replay put there."""
    return {name: value for name, value in head.tags.items() if name != COPIED}


def _digest(head: Head) -> str:
    """What tells a head from any other one, whatever its log."""
    counts = sorted((name, count) for name, count in head.counts.items() if count)
    told = msgspec.json.encode([sorted(_own_tags(head).items()), counts, head.at, head.body])
    return hashlib.sha256(told).hexdigest()


def _difference(head: Head, old: Entry | None, new: Entry) -> list[Range]:
    """What is to be hidden or shown so that an entry that is there is as it should be."""
    if old is None or (old.seq, old.id, old.at, old.body) != (new.seq, new.id, new.at, new.body):
        raise _diverged(head, f"event {new.seq} is another one here")
    return [Range(new.seq, new.seq, new.void)] if old.void != new.void else []


def _diverged(head: Head, why: str) -> Conflict:
    return Conflict(
        f"session {head.ref.id!r} is in the target store and went its own way: {why}; nothing was overwritten",
        session=head.ref.id,
    )


def _append(store: Store, there: Head, batch: list[Entry]) -> Head:
    return _committed(store, Commit(ref=there.ref, if_rev=there.rev, append=batch))


def _finish(store: Store, there: Head, head: Head, ranges: list[Range]) -> None:
    """Make the head equal, in one commit; none if it is."""
    wanted, found = _own_tags(head), _own_tags(there)
    tags: dict[str, str | None] = {name: None for name in found if name not in wanted}
    tags |= {name: value for name, value in wanted.items() if found.get(name) != value}
    while len(tags) >= MAX_TAGS:
        part = {name: tags.pop(name) for name in list(tags)[: MAX_TAGS - 1]}
        there = _changed(store, there, Commit(ref=head.ref, if_rev=there.rev, tags=part))
    names = {*head.counts, *there.counts}
    add = {n: more for n in names if (more := head.counts.get(n, 0) - there.counts.get(n, 0))}
    body = head.body if head.body != there.body else None
    trim = head.trim if head.trim > max(there.trim, there.base) else None
    if tags or add or body is not None or trim is not None or ranges or there.at < head.at:
        commit = Commit(
            ref=head.ref, at=head.at, if_rev=there.rev, tags=tags, add=add or None, body=body, void=ranges, trim=trim
        )
        _changed(store, there, commit)


def _changed(store: Store, there: Head | None, commit: Commit) -> Head:
    """Commit a change of the head together with the digest of what it makes of it."""
    planned = plan(there, (), commit)
    if isinstance(planned, Refused):
        raise refusal(planned, commit)
    tags = {**(commit.tags or {}), COPIED: _digest(planned.head)}
    return _committed(store, msgspec.structs.replace(commit, tags=tags))


def _committed(store: Store, commit: Commit) -> Head:
    result = store.batcher.commit(commit)
    if isinstance(result, Refused):
        raise refusal(result, commit)
    return result
