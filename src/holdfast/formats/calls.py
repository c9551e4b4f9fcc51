"""What the readable views of a session share: calls paired with their outcomes, and values and totals as words."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from holdfast import model
from holdfast.formats.words import money, plural
from holdfast.heads.info import SessionInfo
from holdfast.model import Event, Large


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


def usage_words(usage: model.Usage) -> str:
    """One model call as a line."""
    said = [usage.model or "a model", f"{usage.input_tokens:,} tokens in", f"{usage.output_tokens:,} out"]
    if usage.cache_read_tokens:
        said.append(f"{usage.cache_read_tokens:,} from the cache")
    if usage.cost is not None:
        said.append(money(usage.cost))
    return " · ".join(said)


def fields(value: Any) -> dict[str, Any]:
    """The fields of a struct that say something, large values by their beginning."""
    plain = {name: getattr(value, name) for name in value.__struct_fields__}
    skipped = ("large", "source")
    return {n: v for n, v in plain.items() if n not in skipped and v is not None and v != () and v != ""}


def value_text(value: Any) -> str | Large:
    """A JSON value as text: strings as they are."""
    if isinstance(value, str | Large):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)
