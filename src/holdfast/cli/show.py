"""A session as a person reads it: a header, then its events, tool calls paired with how they went.

What this version does not know is shown as what it is, and what is damaged is shown as damaged; nothing is left out in
silence. All stored text passes through `safe` or `safe_line`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from holdfast import model
from holdfast.cli.terminal import Line, Span, duration, local, money, plural, safe, safe_line
from holdfast.errors import Corrupt
from holdfast.info import SessionInfo
from holdfast.model import Event, Large

LINES = 12
"""Lines of one text that are shown unless all is asked for."""
ROLES = {"user": "bold green", "assistant": "bold cyan", "system": "bold magenta", "tool": "bold yellow"}
INDENT = "    "


class Outcome(NamedTuple):
    """How a tool call went. `micros` is its duration, None if it was not recorded."""

    name: str | None
    is_error: bool
    micros: int | None


class Outcomes:
    """The results of a log's tool calls by call id, and the names of the calls: what pairs the two."""

    def __init__(self) -> None:
        self._results: dict[str, Outcome] = {}
        self._names: dict[str, str] = {}
        self._asked: dict[str, int] = {}
        self._answered: set[str] = set()

    def take(self, event: Event) -> None:
        """Learn from an event."""
        payload = event.payload
        if isinstance(payload, model.Message):
            for call in payload.tool_calls:
                if call.id:
                    self._names[call.id] = call.name
                    self._asked[call.id] = event.at
            for result in payload.tool_results:
                if result.id:
                    self._answered.add(result.id)
                    micros = result.duration if result.duration is not None else self._elapsed(result.id, event.at)
                    self._add(result.id, Outcome(result.name, result.is_error, micros))
        elif isinstance(payload, model.Step) and payload.call_id:
            self._add(payload.call_id, Outcome(payload.name, payload.is_error, payload.duration))

    def _elapsed(self, id: str, at: int) -> int | None:
        return at - self._asked[id] if self._asked.get(id, at) < at else None

    def _add(self, id: str, outcome: Outcome) -> None:
        before = self._results.get(id)
        if before is not None:
            micros = before.micros if before.micros is not None else outcome.micros
            outcome = Outcome(before.name or outcome.name, before.is_error or outcome.is_error, micros)
        self._results[id] = outcome

    def of(self, id: str | None) -> Outcome | None:
        """How a call went; None while it is open."""
        return self._results.get(id) if id else None

    def told(self, id: str | None) -> tuple[bool, bool]:
        """Whether a message tells the arguments of a call, and whether one tells its answer."""
        return id in self._names, id in self._answered

    def name(self, id: str | None) -> str:
        """The tool that was called."""
        outcome = self.of(id)
        return (outcome.name if outcome else None) or self._names.get(id or "") or "tool"


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


def totals(info: SessionInfo) -> list[str]:
    """A session's counters as words; what is zero is not mentioned."""
    counts = info.counts
    said = [plural(info.last, "event"), plural(counts.messages, "message")]
    if counts.tool_calls:
        said.append(plural(counts.tool_calls, "tool call"))
    if counts.steps:
        said.append(plural(counts.steps, "step"))
    if counts.errors:
        said.append(plural(counts.errors, "error"))
    if counts.input_tokens or counts.output_tokens:
        said.append(f"{counts.input_tokens:,} tokens in, {counts.output_tokens:,} out")
    if counts.cost:
        said.append(money(counts.cost))
    return [*said, *info.models]


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
    for text in body(payload, outcomes, full=full):
        yield [Span(INDENT), *text]


def body(payload: model.AnyPayload, outcomes: Outcomes, *, full: bool) -> Iterator[Line]:
    """What a payload says, without indentation."""
    if isinstance(payload, model.Message):
        for part in payload.parts:
            yield from _part(part, outcomes, full)
    elif isinstance(payload, model.Step):
        yield from _step(payload, outcomes, full)
    elif isinstance(payload, model.Usage):
        yield [Span(safe_line(_usage(payload)), "dim")]
    elif isinstance(payload, model.Note):
        yield from _text(payload.text, "italic", full)
    elif isinstance(payload, model.Summary):
        yield [Span(f"stands for events {payload.start} to {payload.end}", "dim")]
        yield from _text(payload.content, "", full)
    elif isinstance(payload, model.Damaged):
        yield [Span(safe_line(f"damaged: {payload.reason}; {len(payload.data):,} bytes are kept"), "red")]
    elif isinstance(payload, model.Custom):
        yield from _text(_value(payload.data), "", full)
    elif isinstance(payload, model.Other):
        yield [Span("of a type or shape that this version does not know:", "dim")]
        yield from _text(_value(payload.data), "", full)
    else:
        yield from _text(_value(_fields(payload)), "", full)


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
        for line in _text(_value(part.response), "red" if part.is_error else "", full):
            yield [Span("  "), *line]
    elif isinstance(part, model.OtherPart):
        yield [Span(f"a part of type {safe_line(part.type)!r}:", "dim")]
        yield from _text(_value(part.data), "", full)
    else:
        told = {name: value for name, value in _fields(part).items() if name != "content"}
        yield [Span(safe_line(f"[{part.__struct_config__.tag} {_value(told)}]"), "dim")]


def _call(call: model.ToolCall, outcomes: Outcomes, full: bool) -> Iterator[Line]:
    outcome = outcomes.of(call.id)
    if outcome is None:
        state = Span("  … open", "yellow")
    else:
        took = f" {duration(outcome.micros)}" if outcome.micros is not None else ""
        state = Span(f"  ✗{took}", "red") if outcome.is_error else Span(f"  ✓{took}", "green")
    yield [Span("→ ", "bold"), Span(safe_line(call.name), "bold"), state]
    if call.arguments is not None:
        for line in _text(_value(call.arguments), "dim", full):
            yield [Span("  "), *line]


def _step(step: model.Step, outcomes: Outcomes, full: bool) -> Iterator[Line]:
    asked, answered = (False, False) if full else outcomes.told(step.call_id)
    took = f"  {duration(step.duration)}" if step.duration is not None else ""
    code = f"  exit code {step.exit_code}" if step.exit_code else ""
    sign = Span("✗ ", "bold red") if step.is_error else Span("✓ ", "bold green")
    yield [sign, Span(safe_line(step.name), "bold"), Span(took + code, "dim")]
    if step.arguments is not None and not asked:
        yield from _text(_value(step.arguments), "dim", full)
    if step.output is not None and not answered:
        yield from _text(step.output, "", full)
    if step.error:
        yield from _text(step.error, "red", full)
    for uri in step.artifacts:
        yield [Span(safe_line(f"artifact {uri}"), "dim")]


def _usage(usage: model.Usage) -> str:
    said = [usage.model or "a model", f"{usage.input_tokens:,} tokens in", f"{usage.output_tokens:,} out"]
    if usage.cache_read_tokens:
        said.append(f"{usage.cache_read_tokens:,} from the cache")
    if usage.cost is not None:
        said.append(money(usage.cost))
    return " · ".join(said)


def _fields(value: Any) -> dict[str, Any]:
    """The fields of a struct that say something, large values by their beginning."""
    plain = {name: getattr(value, name) for name in value.__struct_fields__}
    skipped = ("large", "source")
    return {n: v for n, v in plain.items() if n not in skipped and v is not None and v != () and v != ""}


def _value(value: Any) -> str | Large:
    """A JSON value as text: strings as they are."""
    if isinstance(value, str | Large):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)


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
