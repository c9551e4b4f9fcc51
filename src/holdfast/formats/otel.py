"""Messages as OpenTelemetry's GenAI conventions have them (`gen_ai.input.messages`, `gen_ai.output.messages`).

https://github.com/open-telemetry/semantic-conventions-genai, model/gen-ai/gen-ai-output-messages.json. Our parts are of
this schema, which also allows further fields, so it holds all that a message says but its metadata.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from holdfast.errors import Invalid
from holdfast.formats.shapes import OWN, Json, Losses, Shaped, kept, loaded, modality_of, objects, other, rejoined
from holdfast.model import AnyPart, Blob, File, KnownPart, Message, OtherPart, ToolCall, ToolResult, Uri

SHAPE = "otel"


def to_messages(messages: Sequence[Message]) -> Shaped:
    """Messages in the schema of OpenTelemetry. Large values are loaded; a modality that must be told is worked out."""
    lost = Losses()
    return Shaped(rejoined(SHAPE, messages, _build, lost), lost.found)


def from_messages(messages: Sequence[Json]) -> list[Message]:
    """Messages of input or output of a model, as spans and events carry them.

    Raises:
        Invalid: it is no list of messages.
    """
    made: list[Message] = []
    for raw in objects(messages, SHAPE):
        role, parts = raw.get("role"), raw.get("parts")
        if not isinstance(role, str) or not isinstance(parts, list):
            raise Invalid(f"a message of the shape {SHAPE} has a role and parts, not {sorted(raw)}", shape=SHAPE)
        said = {key: raw[key] for key in ("name", "finish_reason") if isinstance(raw.get(key), str)}
        found = Message(role=role, parts=tuple(_part(part) for part in cast("list[Any]", parts)), **said)
        made += kept(SHAPE, [raw], [found], _build)
    return made


def _build(messages: Sequence[Message], _lost: Losses, _own: bool) -> list[Json]:
    return [_message(message) for message in messages]


def _message(message: Message) -> Json:
    made: Json = {"role": message.role, "parts": [_out(part) for part in message.parts]}
    if message.name is not None:
        made["name"] = message.name
    if message.finish_reason is not None:
        made["finish_reason"] = message.finish_reason
    return made


def _out(part: AnyPart) -> Json:
    if isinstance(part, OtherPart):
        return part.data
    values = {name: loaded(getattr(part, name)) for name in part.LARGE_FIELDS}
    made: Json = msgspec.to_builtins(msgspec.structs.replace(part, large=None, **values))
    if isinstance(part, Blob | File | Uri):
        made.setdefault("modality", modality_of(part.mime_type or "") or "document")
        made.setdefault(*_REQUIRED[type(part)])
    elif isinstance(part, ToolCall):
        made.setdefault("name", "")
    elif isinstance(part, ToolResult):
        made.setdefault("response", None)
    return made


_REQUIRED: dict[type, tuple[str, str]] = {Blob: ("content", ""), File: ("file_id", ""), Uri: ("uri", "")}


def _part(raw: Any) -> AnyPart:
    if isinstance(raw, dict) and cast("Json", raw).get("type") in OWN and "large" not in raw:
        try:
            return msgspec.convert(raw, cast("Any", KnownPart))
        except msgspec.ValidationError as error:
            raise Invalid(f"a part of the shape {SHAPE} is not as it should be: {error}", shape=SHAPE) from None
    if isinstance(raw, dict) and "large" in raw:
        raw = {key: value for key, value in cast("Json", raw).items() if key != "large"}  # it is kept as the rest
        return _part(raw)
    return other(raw, SHAPE)
