"""The nouns of a session as values: messages and their parts, steps, usage, notes, and the event that numbers them.

A payload is what a caller appends; the store numbers it and hands it back inside an `Event`. Messages follow the
parts schema of OpenTelemetry's GenAI conventions (https://opentelemetry.io/docs/specs/semconv/gen-ai/).
Values are frozen. What this version does not know (types, roles, parts, fields) is never lost: an `Event` keeps the
stored bytes, and those, not the decoded view, are what copy, export and a second append hand on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, TypeAlias

import msgspec

from holdfast.clock import from_micros, rfc3339 as rfc3339, to_micros as to_micros
from holdfast.errors import Invalid
from holdfast.parts import (
    AnyPart,
    Blob as Blob,
    File as File,
    KnownPart as KnownPart,
    Large,
    LargeRef,
    OtherPart as OtherPart,
    Part as Part,
    Reasoning as Reasoning,
    Text,
    ToolCall,
    ToolResult,
    Uri as Uri,
    reasoning as reasoning,
    text as text,
    tool_call as tool_call,
)

FORMAT = 1
"""Version of the stored record format; every record carries it as `v`."""


class Source(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The line of another program's file that an event was imported from, byte for byte in `raw`.

    `line` counts from 1. A line that is not UTF-8 stands in base64, and `encoding` says so.
    """

    file: str | None = None
    line: int = 0
    raw: str | Large = ""
    encoding: str | None = None
    large: dict[str, LargeRef] | None = None
    LARGE_FIELDS: ClassVar[tuple[str, ...]] = ("raw",)


class Payload(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="type"):
    """What an event says. `metadata` is the caller's own; `source` tells where an imported one came from."""

    metadata: dict[str, Any] | None = None
    source: Source | None = None
    large: dict[str, LargeRef] | None = None
    LARGE_FIELDS: ClassVar[tuple[str, ...]] = ()

    @property
    def type(self) -> str:
        """The event's type, as stored."""
        return str(self.__struct_config__.tag)


class Message(Payload, frozen=True, tag="message", gc=False):
    """Something said: `role` is system, user, assistant, tool or a word of the caller's own."""

    role: str
    parts: tuple[AnyPart, ...] = ()
    name: str | None = None
    finish_reason: str | None = None

    @property
    def text(self) -> str:
        """The words of its text parts, joined by newlines; a large one is loaded."""
        return "\n".join(str(p.content) for p in self.parts if isinstance(p, Text))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tools it asks for."""
        return tuple(p for p in self.parts if isinstance(p, ToolCall))

    @property
    def tool_results(self) -> tuple[ToolResult, ...]:
        """The answers of tools it carries."""
        return tuple(p for p in self.parts if isinstance(p, ToolResult))


class Step(Payload, frozen=True, tag="step"):
    """One execution of a tool or program, as it happened. `duration` is in microseconds.

    `summary` is how an output of more than 500 characters begins and ends, where its writer gave one. `kind` is
    tool_execution or program_execution, `output_bytes` the size of the whole output, `artifacts` are URIs.
    """

    name: str
    call_id: str | None = None
    arguments: Any = None
    output: str | Large | None = None
    summary: str | None = None
    duration: int | None = None
    is_error: bool = False
    error: str | None = None
    exit_code: int | None = None
    artifacts: tuple[str, ...] = ()
    kind: str | None = None
    output_bytes: int | None = None
    LARGE_FIELDS: ClassVar[tuple[str, ...]] = ("arguments", "output")

    @property
    def metadata_keys(self) -> tuple[str, ...]:
        """The keys of its metadata, sorted."""
        return tuple(sorted(self.metadata or ()))


class Usage(Payload, frozen=True, tag="usage"):
    """What one model call took. Money is in micro-dollars: `cost` as recorded, `cost_computed` from a price list.

    `input_tokens` counts all input, cached or not; the cache fields say how much of it was read or written there, and
    None that it is not known. `total_tokens` is what the provider called the total. The session counts each
    `response_id` once: `repeated` says that it had counted this one before, `grown` that this is only by how much the
    response took more than was told of it before.
    """

    model: str = ""
    provider: str | None = None
    response_id: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int | None = 0
    cache_write_tokens: int | None = 0
    reasoning_tokens: int = 0
    total_tokens: int | None = None
    cost: int | None = None
    cost_computed: int | None = None
    repeated: bool = False
    grown: bool = False


class Report(Payload, frozen=True, tag="report"):
    """A verification: its checks and what they came to."""

    subject: str = ""
    status: str = ""
    checks: tuple[dict[str, Any], ...] = ()
    residual_risks: tuple[str, ...] = ()


class Tasks(Payload, frozen=True, tag="tasks"):
    """The list of tasks as it stands now."""

    tasks: tuple[dict[str, Any], ...] = ()


class State(Payload, frozen=True, tag="state"):
    """The session changed its state."""

    state: str = ""
    turn: str | None = None
    reason: str | None = None


class Summary(Payload, frozen=True, tag="summary"):
    """A summary that stands for the events from `start` up to `end`, which stay in the log; 0 for all before it.

    `previous` is the seq of the summary before it, taken back or not; 0 says that there is none, None that nobody noted
    it.
    """

    content: str | Large = ""
    start: int = 0
    end: int = 0
    previous: int | None = None
    LARGE_FIELDS: ClassVar[tuple[str, ...]] = ("content",)


class Artifact(Payload, frozen=True, tag="artifact"):
    """Named bytes were kept, or with `deleted`, are not shown any more; see `Session.artifacts`. Sizes are in bytes.

    `content` leads to the bytes, `sha256` names them; `shown` is how many of them the model was shown.
    """

    name: str = ""
    sha256: str = ""
    size: int = 0
    media_type: str | None = None
    tool: str | None = None
    uri: str | None = None
    shown: int | None = None
    deleted: bool = False
    content: str | Large | None = None
    LARGE_FIELDS: ClassVar[tuple[str, ...]] = ("content",)


class Note(Payload, frozen=True, tag="note"):
    """A remark about the session, not part of the conversation."""

    text: str | Large = ""
    LARGE_FIELDS: ClassVar[tuple[str, ...]] = ("text",)


class Edit(Payload, frozen=True, tag="edit"):
    """What of the log is in view was changed; the session wrote it by itself, and it is never hidden.

    `action` is remove_last, rewind, clear or undo, or trash and restore, which put the whole session away and bring it
    back; `ranges` are the first and last seqs of what it hid, or showed again
    for an undo; `counts` is what that did to the session's counters. `previous` is the seq of the edit before it, and
    `below` of the one whose removal an undo finds once this one is undone (0: none); `undoes` is the one an undo undid.
    """

    action: str = ""
    ranges: tuple[tuple[int, int], ...] = ()
    counts: dict[str, int] = {}
    previous: int = 0
    below: int = 0
    undoes: int = 0


class Custom(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An event of the caller's own: its type is `x.<name>`, and `data` is any JSON value."""

    type: str
    data: Any = None
    metadata: dict[str, Any] | None = None
    source: Source | None = None
    large: dict[str, LargeRef] | None = None
    LARGE_FIELDS: ClassVar[tuple[str, ...]] = ("data",)


class Other(msgspec.Struct, frozen=True):
    """An event of a type, or of a shape, that this version does not know, with all its fields."""

    data: dict[str, Any]
    source: ClassVar[None] = None
    large: ClassVar[None] = None
    LARGE_FIELDS: ClassVar[tuple[str, ...]] = ()

    @property
    def type(self) -> str:
        """The event's own name for its type."""
        return str(self.data.get("type", ""))


class Damaged(msgspec.Struct, frozen=True):
    """An event whose stored bytes can't be trusted or decoded: what is wrong, and the bytes as they are."""

    reason: str
    data: bytes
    source: ClassVar[None] = None
    large: ClassVar[None] = None
    LARGE_FIELDS: ClassVar[tuple[str, ...]] = ()

    @property
    def type(self) -> str:
        """Always "damaged": what it was can't be told."""
        return "damaged"


KnownPayload: TypeAlias = Message | Step | Usage | Report | Tasks | State | Summary | Artifact | Note | Edit
AnyPayload: TypeAlias = KnownPayload | Custom | Other | Damaged


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One line of a session's log.

    `seq` is its number, from 1, without gaps; `at` its time in microseconds since 1970 UTC; `id` the idempotency key
    its writer gave, or None; `hidden` says that it was taken back. `raw` are the stored bytes, which carry what this
    version does not know. To append with a time or an id of one's own, pass `Event(payload=…, at=…, id=…)`.
    """

    payload: AnyPayload
    seq: int = 0
    at: int = 0
    id: str | None = None
    hidden: bool = False
    raw: bytes = b""

    @property
    def type(self) -> str:
        """The payload's type: message, step, usage, … or x.<name>."""
        return self.payload.type

    @property
    def time(self) -> datetime:
        """`at` as a datetime in UTC."""
        return from_micros(self.at)


def usd(amount: str | Decimal | float) -> int:
    """Dollars as integer micro-dollars, rounded half to even: `usd("0.0123")` is 12300."""
    return int((Decimal(str(amount)) * 1_000_000).to_integral_value())


Said: TypeAlias = str | Large | AnyPart


_TEXTS = (str, Large)  # made once: a union would be made with each message


def _parts(said: Sequence[Said]) -> tuple[AnyPart, ...]:
    return tuple([Text(content=x) if isinstance(x, _TEXTS) else x for x in said])


def message(role: str, *said: Said, name: str | None = None, metadata: dict[str, Any] | None = None) -> Message:
    """A message of any role; strings become text parts."""
    return Message(role=role, parts=_parts(said), name=name, metadata=metadata)


def user(*said: Said, name: str | None = None, metadata: dict[str, Any] | None = None) -> Message:
    """What the user said."""
    return message("user", *said, name=name, metadata=metadata)


def system(*said: Said, metadata: dict[str, Any] | None = None) -> Message:
    """What the model was told to be."""
    return message("system", *said, metadata=metadata)


def assistant(*said: Said, name: str | None = None, metadata: dict[str, Any] | None = None) -> Message:
    """What the model said: words, reasoning and tool calls."""
    return message("assistant", *said, name=name, metadata=metadata)


def tool_result(
    id: str,
    response: Any = None,
    *,
    is_error: bool = False,
    duration: int | None = None,
    name: str | None = None,
    metadata: dict[str, Any] | None = None,
) -> Message:
    """A tool's answer as a message of role `tool`. `duration` is in microseconds."""
    part = ToolResult(id=id, response=response, is_error=is_error, duration=duration, name=name)
    return Message(role="tool", parts=(part,), metadata=metadata)


def step(
    name: str,
    arguments: Any = None,
    output: str | Large | None = None,
    *,
    call_id: str | None = None,
    duration: int | None = None,
    is_error: bool = False,
    error: str | None = None,
    exit_code: int | None = None,
    artifacts: Sequence[str] = (),
    kind: str | None = None,
    output_bytes: int | None = None,
    metadata: dict[str, Any] | None = None,
) -> Step:
    """One execution of a tool or program. `duration` is in microseconds."""
    return Step(
        name=name,
        arguments=arguments,
        output=output,
        call_id=call_id,
        duration=duration,
        is_error=is_error,
        error=error,
        exit_code=exit_code,
        artifacts=tuple(artifacts),
        kind=kind,
        output_bytes=output_bytes,
        metadata=metadata,
    )


def usage(
    model: str,
    input_tokens: int = 0,
    output_tokens: int = 0,
    *,
    provider: str | None = None,
    response_id: str | None = None,
    cache_read_tokens: int | None = 0,
    cache_write_tokens: int | None = 0,
    reasoning_tokens: int = 0,
    total_tokens: int | None = None,
    cost: int | None = None,
    cost_computed: int | None = None,
    metadata: dict[str, Any] | None = None,
) -> Usage:
    """What one model call took. Costs are in micro-dollars; see `usd` and `Prices`."""
    return Usage(
        model=model,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        provider=provider,
        response_id=response_id,
        cache_read_tokens=cache_read_tokens,
        cache_write_tokens=cache_write_tokens,
        reasoning_tokens=reasoning_tokens,
        total_tokens=total_tokens,
        cost=cost,
        cost_computed=cost_computed,
        metadata=metadata,
    )


def note(text: str | Large, *, metadata: dict[str, Any] | None = None) -> Note:
    """A remark that is not part of the conversation."""
    return Note(text=text, metadata=metadata)


def custom(type: str, data: Any = None, *, metadata: Mapping[str, Any] | None = None) -> Custom:
    """An event of one's own, such as `custom("x.deploy", {"sha": "…"})`.

    Raises:
        Invalid: the type does not start with `x.` and a name.
    """
    if not type.startswith("x.") or len(type) < 3:
        raise Invalid(f"the type of a custom event is x.<name>, not {type!r}", type=type)
    return Custom(type=type, data=data, metadata=None if metadata is None else dict(metadata))
