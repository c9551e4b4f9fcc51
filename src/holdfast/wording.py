"""The words of a stored event: what search looks at, and what a snippet is cut from."""

from __future__ import annotations

from typing import Any, cast

from holdfast import codec, model
from holdfast.codec import LargeStore
from holdfast.errors import Corrupt
from holdfast.model import Custom, Large, Message, Other, OtherPart

INDEXED = 64 * 1024
"""Characters of one value that search looks at."""


def words(body: bytes, large: LargeStore) -> str:
    """What search looks at in a body: the strings a person would call its text, one a line, not yet normalised."""
    try:
        payload = codec.decode(body, large)
    except Corrupt:
        return ""
    found: list[str] = []
    if isinstance(payload, Message):
        for part in payload.parts:
            if isinstance(part, model.Text | model.Reasoning):
                found.append(_head_of(part.content))
            elif isinstance(part, model.ToolCall):
                found.append(part.name)
                _strings(part.arguments, found)
            elif isinstance(part, model.ToolResult):
                _strings(part.response, found)
            elif isinstance(part, OtherPart):
                _strings(part.data, found)
    elif isinstance(payload, Custom | Other):
        _strings(payload.data, found)
    else:
        for field in _WORD_FIELDS.get(payload.type, ()):
            _strings(getattr(payload, field), found)
    return "\n".join(found)


_WORD_FIELDS = {
    "step": ("name", "arguments", "output", "error"),
    "report": ("subject", "checks", "residual_risks"),
    "tasks": ("tasks",),
    "state": ("reason",),
    "summary": ("content",),
    "artifact": ("name", "uri"),
    "note": ("text",),
}


def _strings(value: Any, found: list[str]) -> None:
    if isinstance(value, str | Large):
        found.append(_head_of(value))
    elif isinstance(value, dict):
        for item in cast("dict[str, Any]", value).values():
            _strings(item, found)
    elif isinstance(value, list | tuple):
        for item in cast("list[Any]", value):
            _strings(item, found)


def _head_of(value: str | Large) -> str:
    if isinstance(value, str):
        return value[:INDEXED]
    if value.form == "bytes":
        return ""
    try:
        with value.open() as stream:
            return stream.read(INDEXED).decode("utf-8", "replace")
    except Corrupt:
        return value.preview  # a damaged blob is named by a check, and must not stop the index
