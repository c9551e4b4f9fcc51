"""What the transcripts of all programs share: a source line, the events it becomes, what a file says of its session.

A reader takes the lines of one file in order and answers each with drafts of events. Its state is a function of the
lines it was given and of nothing else, so a file that grew can be read again from its start and goes on where it was.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Sequence
from itertools import islice
from typing import Any, NoReturn, Protocol, TypeVar, cast

import msgspec

from holdfast.clock import to_micros
from holdfast.errors import HoldfastError
from holdfast.events.keys import id_of as id_of
from holdfast.formats.lines import DIGEST
from holdfast.heads.info import clean, title_of
from holdfast.model import AnyPayload, Custom, Message, Source, Text

BOM = b"\xef\xbb\xbf"
COMMAND, WORDS, FOREIGN, SUMMARY, GENERATED, CHOSEN = range(1, 7)
"""How much a title weighs: a command, the user's first words, a summary that stands in another session's file, one in
its own, one the program made, one the user chose."""
MAX_TOKENS = 2**40
"""A count of tokens above this is damage, not a count."""

_decode = msgspec.json.Decoder().decode
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_URLSAFE = bytes.maketrans(b"+/", b"-_")
_NOT_A_NAME = re.compile(r"[^A-Za-z0-9_.-]+")


class Line(msgspec.Struct, frozen=True):
    """A source line that was read: its JSON value, its own time in microseconds or None, its bytes as `source`, and
    the `id` of its event.
    """

    value: dict[str, Any]
    source: Source
    at: int | None
    id: str = ""


class Draft(msgspec.Struct, frozen=True):
    """An event to store. `at` None means the time of the event before it; `id` is told where it is of an earlier line.

    `response` names the model response whose usage this counts; where that was counted before, in this session or in
    the one its history was copied from, `instead` is stored, or nothing.
    """

    payload: AnyPayload
    at: int | None = None
    response: str = ""
    instead: AnyPayload | None = None
    id: str = ""


class Facts:
    """What a file says of its session; `metadata` goes into the session's under the same names.

    `titles` are those of messages that are not in the file, by the messages' names.
    """

    def __init__(self, parent: str | None = None) -> None:
        self.parent = parent
        self.title = ""
        self.weight = 0
        self.metadata: dict[str, str] = {}
        self.titles: dict[str, str] = {}

    def copy(self) -> Facts:
        """The facts as they are now."""
        facts = Facts(self.parent)
        facts.title, facts.weight = self.title, self.weight
        facts.metadata, facts.titles = dict(self.metadata), dict(self.titles)
        return facts

    def name(self, title: object, weight: int) -> None:
        """A title: the heaviest wins; of commands and words the first, of the others the newest."""
        if not isinstance(title, str) or weight < self.weight or weight == self.weight <= WORDS:
            return
        if line := as_title(title):
            self.title, self.weight = line, weight

    def note(self, **said: object) -> None:
        """Keep what is a string and not empty; a later word replaces an earlier one."""
        for key, value in said.items():
            if isinstance(value, str) and value:
                self.metadata[key] = clean(value)[:1024]

    def note_first(self, **said: object) -> None:
        """Like `note`, but the first word stays."""
        self.note(**{key: value for key, value in said.items() if key not in self.metadata})


class Reader(Protocol):
    """Turns the lines of one file into drafts of events."""

    facts: Facts
    unknown: dict[str, int]
    """Lines by their type, of those types that this version does not know."""

    def take(self, line: Line) -> list[Draft]:
        """What a line becomes; the first draft carries its source."""
        ...

    def flush(self) -> list[Draft]:
        """What was held back until more is known; called at the end of the file."""
        ...


class Origin(msgspec.Struct, frozen=True):
    """Who a file belongs to, as far as its first lines and its path tell. Ids are the program's own.

    `root` names the first message: files with the same one share their history. `subagent` tells a helper's session;
    `copies`, that the file may begin with its parent's lines; `about`, what is said of it elsewhere.
    """

    id: str
    parent: str | None = None
    root: str | None = None
    subagent: bool = False
    copies: bool = True
    about: dict[str, str] = {}


def parse(raw: bytes) -> tuple[Any, str]:
    """The JSON value of a line and "", or None and why there is none."""
    data = raw[3:] if raw.startswith(BOM) else raw
    try:
        return _decode(data), ""
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass  # msgspec takes no lone surrogate and no number beyond a float; only the first is JSON that can be kept
    try:
        return json.loads(data.decode(), parse_constant=_no_number, parse_float=_finite), ""
    except UnicodeDecodeError as error:
        return None, f"not UTF-8 at byte {error.start}"
    except RecursionError:
        return None, "its JSON nests too deep"
    except ValueError as error:
        return None, f"no JSON: {error}"


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")


def _finite(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{digits} is outside the range of a float")
    return value


def source_of(raw: bytes, number: int, file: str) -> Source:
    """A line byte for byte: as text, or in base64 where it is not UTF-8."""
    try:
        return Source(file=file, line=number, raw=raw.decode())
    except UnicodeDecodeError:
        return Source(file=file, line=number, raw=base64.b64encode(raw).decode(), encoding="base64")


def kept(program: str, kind: object, data: Any, source: Source, **metadata: Any) -> Custom:
    """A line that is no part of the conversation, under its own type: `x.<program>.<kind>`."""
    name = _NOT_A_NAME.sub("_", kind)[:64] if isinstance(kind, str) and kind else "untyped"
    return Custom(type=f"x.{program}.{name}", data=data, source=source, metadata=metadata or None)


def time_of(value: object) -> int | None:
    """A time in microseconds since 1970 UTC, from RFC 3339 text or milliseconds; None if it tells none."""
    if isinstance(value, str):
        try:
            at = to_micros(value)
        except (ValueError, OverflowError, HoldfastError):
            return None
    elif isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e14:
        at = int(value * 1000)
    else:
        return None
    return at if at > 0 else None


def as_title(text: str) -> str:
    """The first line of a text, cut to a title's length."""
    return title_of(Message(role="user", parts=(Text(content=text),)))


def name_of(name: str) -> bytes:
    """What names a line to which its program gave a name, in the form of its digest."""
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=DIGEST).digest()


def event_id(digest: bytes, times: int = 1) -> str:
    """The id of the first event of a line. `times` counts the lines of one name in the file, up to this one."""
    name = binascii.b2a_base64(digest, newline=False).translate(_URLSAFE).decode()
    return name if times == 1 else f"{name}#{times}"


def mapping(value: object) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def listing(value: object) -> list[Any]:
    """The value if it is an array, else an empty one."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def newer_half(found: dict[_Key, _Value]) -> dict[_Key, _Value]:
    """Without the half that came first. To take away single ones would cost more the more were taken before."""
    return dict(islice(found.items(), len(found) // 2, None))


def string(value: object) -> str | None:
    """The value if it is a string that says something."""
    return value if isinstance(value, str) and value else None


def word(value: object) -> str | None:
    """The value if it is a string that can be a tag: printable, and cut to 128 characters."""
    if not isinstance(value, str):
        return None
    text = value[:128]
    if not text.isprintable():
        text = "".join(c for c in text if c.isprintable())
    return text.strip() or None


def tokens(value: object) -> int:
    """A count of tokens; what can't be one is 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TOKENS else 0


def micros(amount: object, unit: int) -> int | None:
    """A duration in microseconds, from a number of units of so many microseconds."""
    if isinstance(amount, int | float) and not isinstance(amount, bool) and 0 <= amount < 1e12:
        return int(amount * unit)
    return None


class Calls:
    """The tool calls that wait for their result: when they began and what they are."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[str, int | None]] = {}
        self.measured: dict[str, int] = {}

    def began(self, id: str | None, name: str, at: int | None) -> None:
        """A call was made."""
        if id:
            self._open[id] = (name, at)

    def ended(self, id: str | None, at: int | None, measured: int | None) -> tuple[str | None, int | None]:
        """The call's name and its duration: as measured, else from the time of the call to that of the result."""
        name, began = self._open.pop(id or "", (None, None))
        measured = self.measured.pop(id or "", None) if measured is None else measured
        if measured is None and began is not None and at is not None and at >= began:
            measured = at - began
        return name, measured


def texts(parts: Sequence[Any], *kinds: str) -> str:
    """The words of content blocks of these types, joined by newlines."""
    found = [string(mapping(part).get("text")) for part in parts if mapping(part).get("type") in kinds]
    return "\n".join(text for text in found if text)
