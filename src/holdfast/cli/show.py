"""A session as a person reads it: a header, then its events, tool calls paired with how they went.

What this version does not know is shown as what it is, and what is damaged is shown as damaged; nothing is left out in
silence. All stored text passes through `safe` or `safe_line`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from holdfast import model
from holdfast.cli.terminal import Line, Span, local
from holdfast.errors import Corrupt
from holdfast.events.unknown import unknown_of
from holdfast.formats.calls import Outcomes, fields, totals, usage_words, value_text
from holdfast.formats.words import duration, safe, safe_line
from holdfast.heads.info import SessionInfo
from holdfast.model import Event, Large

LINES = 12
"""Lines of one text that are shown unless all is asked for."""
ROLES = {"user": "bold green", "assistant": "bold cyan", "system": "bold magenta", "tool": "bold yellow"}
INDENT = "    "


def header(info: SessionInfo) -> Iterator[Line]:
    """What is known of a session without opening its log."""
    yield [Span(safe_line(info.title or info.name or info.id), "bold")]
    facts = [info.id, f"name {info.name}" if info.name else "", f"user {info.user}" if info.user else ""]
    facts += [f"agent {info.agent}" if info.agent else "", f"project {info.project}" if info.project else ""]
    facts += [f"parent {info.parent}" if info.parent else "", info.state, *(f"#{label}" for label in info.labels)]
    yield [Span(safe_line("  " + " · ".join(fact for fact in facts if fact)), "dim")]
    yield [Span(safe_line("  " + " · ".join(totals(info))), "dim")]
    took = duration(max(info.updated_at - info.created_at, 0))
    yield [Span(f"  {local(info.created_at, '%Y-%m-%d %H:%M:%S %Z')}, over {took}", "dim")]


def events(found: Iterable[Event], outcomes: Outcomes, *, full: bool) -> Iterator[Line]:
    """The events, a blank line before each."""
    for event in found:
        yield []
        yield from one(event, outcomes, full=full)


def one(event: Event, outcomes: Outcomes, *, full: bool) -> Iterator[Line]:
    """One event: a line that says which and when, then what it says."""
    payload = event.payload
    role = payload.role if isinstance(payload, model.Message) else event.type
    style = ROLES.get(role, "bold")
    if isinstance(payload, model.Damaged):
        style = "bold red"
    line = [Span(safe_line(role), style), Span(f"  #{event.seq}  {local(event.at)}", "dim")]
    if isinstance(payload, model.Message) and payload.name:
        line.insert(1, Span(f" ({safe_line(payload.name)})", style))
    if event.hidden:
        line.append(Span("  hidden", "red"))
    yield line
    for text in body(event, outcomes, full=full):
        yield [Span(INDENT), *text]


def body(event: Event, outcomes: Outcomes, *, full: bool) -> Iterator[Line]:
    """What an event says, without indentation."""
    unknown = unknown_of(event)
    if isinstance(event.payload, model.Message):
        for index, part in enumerate(event.payload.parts):
            yield from _part(part, outcomes, full)
            yield from _other(unknown.parts[index : index + 1], full)
    else:
        yield from _payload(event.payload, outcomes, full)
    yield from _other([unknown.fields], full)


def _other(unknown: Sequence[Mapping[str, Any]], full: bool) -> Iterator[Line]:
    """Fields that this version does not know, if there are any."""
    for beyond in unknown:
        if beyond:
            yield from _text(f"other: {value_text(beyond)}", "dim", full)


def _payload(payload: model.AnyPayload, outcomes: Outcomes, full: bool) -> Iterator[Line]:
    if isinstance(payload, model.Step):
        yield from _step(payload, outcomes, full)
    elif isinstance(payload, model.Usage):
        yield [Span(safe_line(usage_words(payload)), "dim")]
    elif isinstance(payload, model.Note):
        yield from _text(payload.text, "italic", full)
    elif isinstance(payload, model.Summary):
        yield [Span(f"stands for events {payload.start} to {payload.end}", "dim")]
        yield from _text(payload.content, "", full)
    elif isinstance(payload, model.Damaged):
        yield [Span(safe_line(f"damaged: {payload.reason}; {len(payload.data):,} bytes are kept"), "red")]
    elif isinstance(payload, model.Custom):
        yield from _text(value_text(payload.data), "", full)
    elif isinstance(payload, model.Other):
        yield [Span("of a type or shape that this version does not know:", "dim")]
        yield from _text(value_text(payload.data), "", full)
    else:
        yield from _text(value_text(fields(payload)), "", full)


def _part(part: model.AnyPart, outcomes: Outcomes, full: bool) -> Iterator[Line]:
    if isinstance(part, model.Text):
        yield from _text(part.content, "", full)
    elif isinstance(part, model.Reasoning):
        yield from _text(part.content, "dim italic", full)
    elif isinstance(part, model.ToolCall):
        yield from _call(part, outcomes, full)
    elif isinstance(part, model.ToolResult):
        sign = Span("✗ ", "bold red") if part.is_error else Span("✓ ", "bold green")
        took = outcomes.of(part.id)
        after = f"  {duration(took.micros)}" if took and took.micros is not None else ""
        name = part.name or outcomes.name(part.id)
        yield [sign, Span(safe_line(name), "bold"), Span(after, "dim")]
        for line in _text(value_text(part.response), "red" if part.is_error else "", full):
            yield [Span("  "), *line]
    elif isinstance(part, model.OtherPart):
        yield [Span(f"a part of type {safe_line(part.type)!r}:", "dim")]
        yield from _text(value_text(part.data), "", full)
    else:
        told = {name: value for name, value in fields(part).items() if name != "content"}
        yield [Span(safe_line(f"[{part.__struct_config__.tag} {value_text(told)}]"), "dim")]


def _call(call: model.ToolCall, outcomes: Outcomes, full: bool) -> Iterator[Line]:
    outcome = outcomes.of(call.id)
    if outcome is None:
        state = Span("  … open", "yellow")
    else:
        took = f" {duration(outcome.micros)}" if outcome.micros is not None else ""
        state = Span(f"  ✗{took}", "red") if outcome.is_error else Span(f"  ✓{took}", "green")
    yield [Span("→ ", "bold"), Span(safe_line(call.name), "bold"), state]
    if call.arguments is not None:
        for line in _text(value_text(call.arguments), "dim", full):
            yield [Span("  "), *line]


def _step(step: model.Step, outcomes: Outcomes, full: bool) -> Iterator[Line]:
    asked, answered = (False, False) if full else outcomes.told(step.call_id)
    took = f"  {duration(step.duration)}" if step.duration is not None else ""
    code = f"  exit code {step.exit_code}" if step.exit_code else ""
    sign = Span("✗ ", "bold red") if step.is_error else Span("✓ ", "bold green")
    yield [sign, Span(safe_line(step.name), "bold"), Span(took + code, "dim")]
    if step.arguments is not None and not asked:
        yield from _text(value_text(step.arguments), "dim", full)
    if step.output is not None and not answered:
        yield from _text(step.output, "", full)
    if step.error:
        yield from _text(step.error, "red", full)
    for uri in step.artifacts:
        yield [Span(safe_line(f"artifact {uri}"), "dim")]


def _text(content: str | Large, style: str, full: bool) -> Iterator[Line]:
    if isinstance(content, Large):
        yield from _large(content, style, full)
        return
    lines = safe(content).rstrip("\n").split("\n") if content else []
    shown = lines if full or len(lines) <= LINES + 1 else lines[:LINES]
    for line in shown:
        if full or len(line) <= 2000:
            yield [Span(line, style)]
        else:
            yield [Span(line[:2000], style), Span(f" … {len(line) - 2000:,} more characters, --full", "dim")]
    if len(shown) < len(lines):
        yield [Span(f"… {len(lines) - len(shown):,} more lines, --full", "dim")]


def _large(value: Large, style: str, full: bool) -> Iterator[Line]:
    """A value that is too large to stand in the event: its beginning, or line by line, never as a whole in memory."""
    if not full:
        yield from _text(value.preview, style, full)
        yield [Span(f"… {value.size:,} bytes in all, --full", "dim")]
        return
    if value.form == "bytes":
        yield [Span(f"[{value.size:,} bytes]", "dim")]
        return
    try:
        with value.open() as stream:
            while data := stream.readline(1 << 20):
                yield [Span(safe(data.decode("utf-8", "replace")).rstrip("\n"), style)]
    except Corrupt as error:
        yield [Span(safe_line(f"damaged: {error.message}"), "red")]
