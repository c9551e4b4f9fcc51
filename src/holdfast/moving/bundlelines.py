"""The lines of a bundle: what each may hold, its checksum in front, and bodies byte for byte.

See docs/FORMATS.md, "Bundles", for what lines there are and in which order.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Iterator

import msgspec

from holdfast.errors import Corrupt, Invalid

VERSION = 1
"""Version of the bundle's lines, in each session's head's `holdfast`."""
VERSION_OF_DOCUMENTS = 2
"""The same in a document's head, so that a program that knows none refuses it."""
VERSION_OF_CLOSING = 3
"""The same in the last line of a bundle that tells how much is in it, so that one cut off between two is known."""

_MARK = b'{"crc":"'
SESSION_MARK, DOCUMENT_MARK = (b'","holdfast":%d,' % version for version in (VERSION, VERSION_OF_DOCUMENTS))
"""How the first line of a session and of a document goes on behind its checksum."""
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
    ends: bool = False


_decoder = msgspec.json.Decoder(Line)
_encoder = msgspec.json.Encoder()


def sealed(line: Line, body: bytes) -> bytes:
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


def opened(text: bytes, number: int) -> Line:
    """A line without its newline, the one with this number of a bundle.

    Raises:
        Invalid: it is no line of any bundle, and the first.
        Corrupt: it is not as it was written.
    """
    rest = b"{" + text[18:]
    sum = text[len(_MARK) : 16]
    if not text.startswith(_MARK) or text[16:18] != b'",' or sum != b"%08x" % zlib.crc32(rest):
        if number == 1 and not text.startswith(_MARK):
            raise Invalid("this is no bundle of holdfast; its first line has no checksum")
        raise Corrupt(f"line {number} of the bundle is damaged or was changed", line=number)
    try:
        return _decoder.decode(rest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"line {number} of the bundle can't be read: {error}", line=number) from None


def ended(lines: Iterable[bytes]) -> Iterator[bytes]:
    """A bundle of these lines: its first says that a last one will follow, which tells how much there is to be.

    So a bundle that was cut off between two sessions is known, and one without an end, as versions before wrote it, is
    not taken for it.
    """
    count = {SESSION_MARK: 0, DOCUMENT_MARK: 0}
    number = 0
    for number, line in enumerate(lines, 1):
        for mark in count:
            count[mark] += line.startswith(mark, len(_MARK) + 8)
        yield line if number > 1 else _announcing(line)
    last = Line(holdfast=VERSION_OF_CLOSING, lines=number, sessions=count[SESSION_MARK], documents=count[DOCUMENT_MARK])
    yield sealed(last, b"")


def _announcing(first: bytes) -> bytes:
    line = opened(first.rstrip(b"\n"), 1)
    body = body_in(line)
    line.body, line.body64, line.ends = _NONE, "", True
    return sealed(line, body)


def is_bundle(line: bytes) -> bool:
    """Whether a file that begins with this line is a bundle."""
    return line.startswith(_MARK) and line[16:].startswith(b'","holdfast":')


def tells_damage(line: bytes) -> bool:
    """Whether a line stands for an entry or a chunk that could not be read."""
    return line[16:].startswith(b'","fault":')


def body_in(line: Line) -> bytes:
    """The body of a head or an entry, as it was stored."""
    return bytes_in(line.body64) if line.body64 else bytes(line.body)


def bytes_in(text: str) -> bytes:
    """What stands in base64.

    Raises:
        Corrupt: it is none.
    """
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Corrupt(f"the bundle holds bytes that are no base64: {error}") from None
