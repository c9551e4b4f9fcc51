"""The parts of a message, after OpenTelemetry's GenAI conventions, and the values that are too large to stand in one.

See https://opentelemetry.io/docs/specs/semconv/gen-ai/ for the schema. A part of a type that is not known here comes as
`OtherPart`, with all its fields.
"""

from __future__ import annotations

import json
from typing import Any, BinaryIO, ClassVar, TypeAlias

import msgspec

from holdfast.errors import Invalid


class LargeRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the whole of a value that moved to the blob store is: kept beside its preview, under `large`.

    `sha256` names all its bytes; `form` tells how they make the value (text, json or bytes). Up to one chunk the blob
    has that digest itself; above, `manifest` names the value that lists the chunks' digests.
    """

    sha256: str
    size: int
    form: str = "text"
    manifest: str | None = None


class Large(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """A value of more than 64 KiB: `str(x)` or `x.value()` loads it, `x.open()` streams its bytes.

    Stands wherever a part or payload may hold a string or JSON value. Make one from a stream with
    `Large.from_stream(file)` to append an output of any size in bounded memory. `size` is in bytes, -1 when not yet
    known; `preview` is how a text begins.
    """

    opener: Any
    form: str = "text"
    size: int = -1
    preview: str = ""
    ref: LargeRef | None = None

    @classmethod
    def from_stream(cls, stream: BinaryIO, *, form: str = "text") -> Large:
        """Wrap an open binary stream (text must be UTF-8). It is read once, at append, chunk by chunk."""
        return cls(opener=lambda: stream, form=form)

    def open(self) -> BinaryIO:
        """A binary stream over the whole value; close it when done."""
        return self.opener()

    def value(self) -> Any:
        """The whole value in memory: str, decoded JSON or bytes, as it was given.

        Raises:
            Corrupt: the stored bytes are damaged or missing.
        """
        with self.open() as stream:
            data = stream.read()
        if self.form == "bytes":
            return data
        if self.form == "json":
            return json.loads(data)
        return data.decode("utf-8", "surrogatepass")

    def __str__(self) -> str:
        value = self.value()
        if isinstance(value, str):
            return value
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        return json.dumps(value, ensure_ascii=False)


MAX_TIMEOUT = 366 * 86_400
"""Seconds that a tool call may be given."""


class Part(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="type"):
    """One piece of a message."""

    large: dict[str, LargeRef] | None = None
    LARGE_FIELDS: ClassVar[tuple[str, ...]] = ("content",)


class Text(Part, frozen=True, tag="text"):
    """Words."""

    content: str | Large


class Reasoning(Part, frozen=True, tag="reasoning"):
    """What the model thought before it spoke; `signature` is the provider's seal over it."""

    content: str | Large
    signature: str | None = None


class ToolCall(Part, frozen=True, tag="tool_call"):
    """The model asks for a tool; `id` pairs it with its response.

    `timeout` is how long the session may be silent before the call counts as stuck, in microseconds.
    """

    id: str | None = None
    name: str = ""
    arguments: Any = None
    timeout: int | None = None
    LARGE_FIELDS: ClassVar[tuple[str, ...]] = ("arguments",)


class ToolResult(Part, frozen=True, tag="tool_call_response"):
    """What the tool answered. `duration` is in microseconds, where it is known."""

    id: str | None = None
    response: Any = None
    name: str | None = None
    is_error: bool = False
    duration: int | None = None
    LARGE_FIELDS: ClassVar[tuple[str, ...]] = ("response",)


class Blob(Part, frozen=True, tag="blob"):
    """Bytes inside the message, base64 in `content`."""

    content: str | Large = ""
    mime_type: str | None = None
    modality: str | None = None


class File(Part, frozen=True, tag="file"):
    """A file the provider holds under `file_id`."""

    file_id: str = ""
    mime_type: str | None = None
    modality: str | None = None
    LARGE_FIELDS: ClassVar[tuple[str, ...]] = ()


class Uri(Part, frozen=True, tag="uri"):
    """Something that lives at a URI."""

    uri: str = ""
    mime_type: str | None = None
    modality: str | None = None
    LARGE_FIELDS: ClassVar[tuple[str, ...]] = ()


class OtherPart(msgspec.Struct, frozen=True, tag_field="type", tag="~"):
    """A part of a type this version does not know, with all its fields. (`~` is no part's type: it never is stored.)"""

    data: dict[str, Any]
    large: ClassVar[None] = None
    LARGE_FIELDS: ClassVar[tuple[str, ...]] = ()

    @property
    def type(self) -> str:
        """The part's own name for its type."""
        return str(self.data.get("type", ""))


KnownPart: TypeAlias = Text | Reasoning | ToolCall | ToolResult | Blob | File | Uri
AnyPart: TypeAlias = KnownPart | OtherPart


def text(content: str | Large) -> Text:
    """A text part."""
    return Text(content=content)


def reasoning(content: str | Large) -> Reasoning:
    """A reasoning part."""
    return Reasoning(content=content)


def tool_call(id: str, name: str, arguments: Any = None, *, timeout: float | None = None) -> ToolCall:
    """A part that asks for a tool: `assistant("Let me look", tool_call("c1", "lookup", {"order": 7}))`.

    Args:
        timeout: Seconds of silence after which `Store.stuck` names the session if the call is still open.

    Raises:
        Invalid: `timeout` is negative or no number of seconds that can be counted.
    """
    if timeout is not None and not 0 <= timeout <= MAX_TIMEOUT:  # neither is NaN
        raise Invalid(f"timeout is 0 to {MAX_TIMEOUT:,} seconds, not {timeout}", timeout=timeout)
    return ToolCall(
        id=id, name=name, arguments=arguments, timeout=None if timeout is None else int(timeout * 1_000_000)
    )
