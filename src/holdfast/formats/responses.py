"""What the model responses of a Claude Code transcript took: each is counted once, however many lines repeat it."""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast.formats.transcript import Draft, mapping, micros, newer_half, string, tokens, word
from holdfast.model import Usage

RECENT = 10_000
"""Responses back to which one may go on; what is added to one before that is not counted."""


class Counted(msgspec.Struct, frozen=True):
    """What a response took so far."""

    input: int = 0
    output: int = 0
    read: int = 0
    written: int = 0
    cost: int = 0

    def beyond(self, before: Counted) -> Counted:
        """By how much this is more; a count never falls."""
        return Counted(*[max(a - b, 0) for a, b in zip(_numbers(self), _numbers(before), strict=True)])

    def highest(self, other: Counted) -> Counted:
        """The larger of each count."""
        return Counted(*map(max, _numbers(self), _numbers(other)))


def _numbers(counted: Counted) -> tuple[int, ...]:
    return (counted.input, counted.output, counted.read, counted.written, counted.cost)


class Responses:
    """Counts each model response once, although every line of it repeats its usage, which may still grow."""

    def __init__(self) -> None:
        self._open = ""
        self._model = ""
        self._id: str | None = None
        self._at: int | None = None
        self._usage: dict[str, Any] = {}
        self._counted = Counted()
        self._told: dict[str, Counted] = {}

    def take(self, record: dict[str, Any], at: int | None) -> list[Draft]:
        """The usage of the response before, if this line begins another."""
        message = mapping(record.get("message"))
        usage = mapping(message.get("usage"))
        if self._open and usage == self._usage and message.get("id") == self._open:
            return []
        model, counted = word(message.get("model")) or "", _counted(usage, record)
        if model == "<synthetic>" or not any(_numbers(counted)):
            return []  # nothing was asked of a model
        id = string(message.get("id")) or string(record.get("requestId"))
        key = id or string(record.get("uuid")) or f"at {at}"
        if key == self._open:
            self._counted = self._counted.highest(counted)
            ended: list[Draft] = []
        else:
            ended = self.close()
            self._counted = counted
        self._open, self._model, self._id, self._at, self._usage = key, model, id, at, usage
        return ended

    def close(self) -> list[Draft]:
        """The usage of the open response, or by how much it grew since it was told."""
        key, self._open = self._open, ""
        if not key:
            return []
        before = self._told.get(key)
        more = self._counted.beyond(before) if before else self._counted
        if not any(_numbers(more)):
            return []
        if len(self._told) > 2 * RECENT:
            self._told = newer_half(self._told)
        total = self._told[key] = self._counted.highest(before) if before else self._counted
        usage = Usage(
            model=self._model,
            provider="anthropic",
            response_id=self._id,
            input_tokens=more.input,
            output_tokens=more.output,
            cache_read_tokens=more.read,
            cache_write_tokens=more.written,
            cost=more.cost or None,
            grown=before is not None,
        )
        # Growth is named by what it came to: that is the same wherever earlier imports ended.
        name = key if before is None else f"{key}+{'.'.join(map(str, _numbers(total)))}"
        return [Draft(usage, self._at, response=name)]


def _counted(usage: dict[str, Any], record: dict[str, Any]) -> Counted:
    read, written = tokens(usage.get("cache_read_input_tokens")), tokens(usage.get("cache_creation_input_tokens"))
    return Counted(
        input=tokens(usage.get("input_tokens")) + read + written,
        output=tokens(usage.get("output_tokens")),
        read=read,
        written=written,
        cost=micros(record.get("costUSD"), 1_000_000) or 0,
    )
