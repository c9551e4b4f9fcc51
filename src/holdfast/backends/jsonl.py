"""One line of a session's log: a commit as JSON that a person can read, with a checksum first.

    {"crc":"5f0c1a2b","v":1,"rev":3,"last":4,"at":"2026-11-21T07:00:00.000000Z","counts":{…},"append":[{"seq":4,…}]}

The checksum is the CRC-32 of all that follows its comma. A line says what its commit changed of the head, each time in
full, so that a damaged line in the middle costs what only it said and nothing else. A body that is JSON stands as it
is, to the byte; any other bytes stand in base64.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

import msgspec

from holdfast.clock import rfc3339, to_micros
from holdfast.errors import Corrupt, Invalid
from holdfast.plan import Commit, Entry, Head, Range, Ref

VERSION = 1
"""Version of the line format; a line of a newer one is not guessed at."""

_START = b'{"crc":"'
_CRC_END = len(_START) + 8
_PLAIN = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_RESERVED = re.compile(r"con|prn|aux|nul|com\d|lpt\d")
_encoder = msgspec.json.Encoder()

NOTHING = msgspec.Raw(b"")
"""Where a line says no body."""


class LoggedEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """An entry in a line. `body` is JSON as it is, `base64` any other bytes."""

    seq: int
    at: str | int
    id: str = ""
    void: bool = False
    body: msgspec.Raw = NOTHING
    base64: str | None = None

    def to_entry(self) -> Entry:
        """The entry."""
        return Entry(self.id, _micros(self.at), self.bytes(), self.seq, self.void)

    def bytes(self) -> bytes:
        """Its body, to the byte."""
        return _body(self, b"")


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line without its checksum. What is None was not changed; `kind` and `id` stand in a log's first line."""

    v: int
    kind: str | None = None
    id: str | None = None
    rev: int | None = None
    last: int | None = None
    base: int | None = None
    trim: int | None = None
    at: str | int | None = None
    dead: bool | None = None
    tags: dict[str, str] | None = None
    counts: dict[str, int] | None = None
    body: msgspec.Raw = NOTHING
    base64: str | None = None
    void: tuple[tuple[int, int, bool], ...] = ()
    append: tuple[LoggedEntry, ...] = ()

    def changed(self, head: Head | None) -> Head:
        """The head after this line."""
        known = head or Head(Ref(self.kind or "", self.id or ""))
        return Head(
            known.ref,
            known.rev if self.rev is None else self.rev,
            known.last if self.last is None else self.last,
            known.base if self.base is None else self.base,
            known.trim if self.trim is None else self.trim,
            known.at if self.at is None else _micros(self.at),
            known.tags if self.tags is None else self.tags,
            known.counts if self.counts is None else self.counts,
            _body(self, known.body),
            known.dead if self.dead is None else self.dead,
        )

    def ranges(self) -> list[Range]:
        """The ranges to hide or show again."""
        return [Range(*r) for r in self.void]


_decoder = msgspec.json.Decoder(Line)
_text = msgspec.json.Decoder(str).decode


def line_of(before: Head | None, head: Head, commit: Commit, entries: Sequence[Entry]) -> bytes:
    """The line of a commit, with its newline."""
    fresh = before is None
    old = before or Head(head.ref)
    plain, coded = _stood(head.body)
    return seal(
        Line(
            v=VERSION,
            kind=head.ref.kind if fresh else None,
            id=head.ref.id if fresh else None,
            rev=head.rev,
            last=head.last,
            base=head.base if head.base != old.base else None,
            trim=head.trim if head.trim != old.trim else None,
            at=_time(head.at) if head.at != old.at else None,
            dead=head.dead if head.dead != old.dead else None,
            tags=dict(head.tags) if head.tags is not old.tags else None,
            counts=dict(head.counts) if head.counts is not old.counts else None,
            body=plain if head.body is not old.body else NOTHING,
            base64=coded if head.body is not old.body else None,
            void=tuple((r.first, r.last, r.hide) for r in commit.void),
            append=tuple(logged(e) for e in entries),
        )
    )


def whole_head(head: Head) -> bytes:
    """A line that says all of a head: how a rewritten log begins."""
    plain, coded = _stood(head.body)
    return seal(
        Line(
            v=VERSION,
            kind=head.ref.kind,
            id=head.ref.id,
            rev=head.rev,
            last=head.last,
            base=head.base,
            trim=head.trim,
            at=_time(head.at),
            dead=head.dead,
            tags=dict(head.tags),
            counts=dict(head.counts),
            body=plain,
            base64=coded,
        )
    )


def seal(line: Line) -> bytes:
    """A line's bytes: the checksum, the JSON, a newline."""
    rest = _encoder.encode(line)[1:]
    return b'%s%08x",%s\n' % (_START, crc32(rest), rest)


def opened(data: bytes) -> Line:
    """A line from its bytes, without the newline.

    Raises:
        Corrupt: the checksum does not match, or it says what no line says.
        Invalid: a newer holdfast wrote it.
    """
    crc = checksum(data)
    rest = data[_CRC_END + 2 :]
    if crc is None or crc32(rest) != crc:
        raise Corrupt("its checksum does not match")
    try:
        line = _decoder.decode(b"{" + rest)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise Corrupt(f"it is no line of a log: {error}") from None
    if line.v > VERSION:
        raise Invalid(f"a line was written by a newer holdfast (format {line.v}, this one knows {VERSION}); upgrade")
    return line


def checksum(data: bytes) -> int | None:
    """The checksum that a line states, None if it states none."""
    if data[: len(_START)] != _START or data[_CRC_END : _CRC_END + 2] != b'",':
        return None
    try:
        return int(data[len(_START) : _CRC_END], 16)
    except ValueError:
        return None


class Told(NamedTuple):
    """What a damaged line seems to say; None where even that can't be told."""

    ref: Ref | None
    last: int | None


def told(data: bytes) -> Told:
    """What can be made out at the beginning of a damaged line. None of it is sure."""
    begin = data[:8192]
    numbers = re.findall(rb'"last":(\d{1,18}),', begin)[:1] or re.findall(rb'[{]"seq":(\d{1,18}),"at":', data)
    named = re.search(rb'"kind":("(?:[^"\\]|\\.)*"),"id":("(?:[^"\\]|\\.)*")', begin)
    ref = None
    if named is not None:
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            ref = Ref(_text(named[1]), _text(named[2]))
    return Told(ref, int(numbers[-1]) if numbers else None)


def logged(entry: Entry) -> LoggedEntry:
    """An entry as it stands in a line."""
    plain, coded = _stood(entry.body)
    return LoggedEntry(entry.seq, _time(entry.at), entry.id, entry.void, plain, coded)


def _stood(body: bytes) -> tuple[msgspec.Raw, str | None]:
    """How bytes stand in a line: as the JSON they are, or in base64."""
    if _is_exact_json(body):
        return msgspec.Raw(body), None
    return NOTHING, base64.b64encode(body).decode()


def _body(line: Line | LoggedEntry, unchanged: bytes) -> bytes:
    if line.base64 is not None:
        return base64.b64decode(line.base64)
    return bytes(line.body) or unchanged


def _is_exact_json(body: bytes) -> bool:
    """Whether the bytes come back to the byte when they stand in a line: JSON in UTF-8 on one line."""
    if body[:1] not in (b"{", b"[") or b"\n" in body or b"\r" in body:
        return False
    try:
        if not body.isascii():
            body.decode()
        return bytes(msgspec.json.decode(body, type=msgspec.Raw)) == body
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


def _time(at: int) -> str | int:
    try:
        return rfc3339(at)
    except (ValueError, OverflowError, OSError):
        return at  # outside the years that text can say


def _micros(at: str | int) -> int:
    return at if isinstance(at, int) else to_micros(at)


def file_name(id: str) -> str:
    """A name for an id that no other id shares, on any file system: one that folds case, normalises Unicode, reserves
    names or limits their length. A short plain id is its own name.
    """
    if _PLAIN.fullmatch(id) and not _RESERVED.fullmatch(id):
        return id
    slug = re.sub(r"[^a-z0-9]+", "-", id[:64].lower()).strip("-")[:32]
    return f"{slug}~{hashlib.sha256(id.encode()).hexdigest()[:32]}"


def log_name(ref: Ref) -> str:
    """The name of a head's log, below the store's folder."""
    return os.path.join("logs", file_name(ref.kind), file_name(ref.id) + ".jsonl")


def same_head(a: Head, b: Head) -> bool:
    """Whether two heads say the same."""
    return (
        (a.ref, a.rev, a.last, a.base, a.trim, a.at, a.dead, a.body)
        == (b.ref, b.rev, b.last, b.base, b.trim, b.at, b.dead, b.body)
        and dict(a.tags) == dict(b.tags)
        and dict(a.counts) == dict(b.counts)
    )
