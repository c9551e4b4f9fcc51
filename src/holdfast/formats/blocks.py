"""An event as blocks, for documents that a person reads: what Markdown and HTML both show, before either's marks.

Nothing is left out: what this version does not know is shown as what it is, and damage as damage.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from holdfast import model
from holdfast.clock import rfc3339
from holdfast.errors import Corrupt
from holdfast.events.unknown import unknown_of
from holdfast.formats.calls import Outcomes, fields, usage_words, value_text
from holdfast.formats.words import duration, safe
from holdfast.model import AnyPayload, Event, Large

PIECE = 1 << 20
"""Characters of one line that are handed on at a time."""


class Block(NamedTuple):
    """A piece of an event: words, thoughts, code as it is, or a fact about the event."""

    kind: Literal["words", "thoughts", "code", "fact"]
    title: str = ""
    content: str | Large = ""
    bad: bool = False


def role_of(event: Event) -> str:
    """Who speaks, or which type of event it is."""
    return event.payload.role if isinstance(event.payload, model.Message) else event.type


def when(at: int) -> str:
    """RFC 3339 to the second; the bare microseconds where no calendar reaches."""
    try:
        return rfc3339(at)[:19] + "Z"
    except (OverflowError, ValueError):
        return f"{at} µs"


def blocks(event: Event, outcomes: Outcomes) -> Iterator[Block]:
    """What an event says."""
    unknown = unknown_of(event)
    if isinstance(event.payload, model.Message):
        for index, part in enumerate(event.payload.parts):
            yield _part(part, outcomes)
            yield from _other(unknown.parts[index : index + 1])
    else:
        yield from _payload(event.payload, outcomes)
    yield from _other([unknown.fields])


def _other(unknown: Sequence[Mapping[str, Any]]) -> Iterator[Block]:
    """Fields that this version does not know, if there are any."""
    yield from (Block("code", "other", value_text(fields)) for fields in unknown if fields)


def _payload(payload: AnyPayload, outcomes: Outcomes) -> Iterator[Block]:
    if isinstance(payload, model.Step):
        yield from _step(payload, outcomes)
    elif isinstance(payload, model.Usage):
        yield Block("fact", usage_words(payload))
    elif isinstance(payload, model.Note):
        yield Block("words", content=payload.text)
    elif isinstance(payload, model.Summary):
        yield Block("words", f"stands for events {payload.start} to {payload.end}", payload.content)
    elif isinstance(payload, model.Damaged):
        yield Block("fact", f"damaged: {payload.reason}; {len(payload.data):,} bytes are kept", bad=True)
    elif isinstance(payload, model.Custom):
        yield Block("code", content=value_text(payload.data))
    elif isinstance(payload, model.Other):
        yield Block("code", "of a type or shape that this version does not know", value_text(payload.data))
    else:
        yield Block("code", content=value_text(fields(payload)))


def _part(part: model.AnyPart, outcomes: Outcomes) -> Block:
    if isinstance(part, model.Text):
        return Block("words", content=part.content)
    if isinstance(part, model.Reasoning):
        return Block("thoughts", "reasoning", part.content)
    if isinstance(part, model.ToolCall):
        done = outcomes.of(part.id)
        state = "… open" if done is None else _how(done.is_error, done.micros)
        bad = done is not None and done.is_error
        return Block("code", f"→ {part.name}  {state}", value_text(part.arguments), bad)
    if isinstance(part, model.ToolResult):
        took = outcomes.of(part.id)
        state = _how(part.is_error, took.micros if took else None)
        return Block(
            "code", f"{part.name or outcomes.name(part.id)}  {state}", value_text(part.response), part.is_error
        )
    if isinstance(part, model.OtherPart):
        return Block("code", f"a part of type {part.type}", value_text(part.data))
    told = {name: value for name, value in fields(part).items() if name != "content"}
    return Block("fact", f"{part.__struct_config__.tag} {value_text(told)}")


def _step(step: model.Step, outcomes: Outcomes) -> Iterator[Block]:
    asked, answered = outcomes.told(step.call_id)
    code = f", exit code {step.exit_code}" if step.exit_code else ""
    yield Block("fact", f"{step.name}  {_how(step.is_error, step.duration)}{code}", bad=step.is_error)
    if step.arguments is not None and not asked:
        yield Block("code", "arguments", value_text(step.arguments))
    if step.output is not None and not answered:
        yield Block("code", "output", step.output, step.is_error)
    if step.error:
        yield Block("code", "error", step.error, bad=True)
    for uri in step.artifacts:
        yield Block("fact", f"artifact {uri}")


def _how(is_error: bool, micros: int | None) -> str:
    took = f" {duration(micros)}" if micros is not None else ""
    return f"{'✗' if is_error else '✓'}{took}"


def lines_of(content: str | Large) -> Iterator[str]:
    """The lines of a text, made safe; a large one is streamed, and a line of it that is very long comes in pieces."""
    if isinstance(content, str):
        if content:
            yield from safe(content).removesuffix("\n").split("\n")
        return
    if content.form == "bytes":
        yield f"[{content.size:,} bytes]"
        return
    try:
        with content.open() as stream, io.TextIOWrapper(stream, "utf-8", "replace", newline="\n") as text:
            while line := text.readline(PIECE):
                yield safe(line.removesuffix("\n"))
    except Corrupt as error:
        yield safe(f"[damaged: {error.message}]")
