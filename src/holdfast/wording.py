"""The words of a stored event: what search looks at, and what a snippet is cut from."""

from __future__ import annotations

from typing import Any, cast

from holdfast import codec, model
from holdfast.codec import LargeStore
from holdfast.errors import Corrupt
from holdfast.model import Custom, Large, Message, Other, OtherPart

INDEXED = 64 * 1024
"""Characters of one value that search looks at."""


class Words:
    """What search looks at in a body: the strings a person would call its text, one a line, not yet normalised.

    `whole` is False if a large value could not be read: then the preview stands for it.
    """

    def __init__(self, body: bytes, large: LargeStore) -> None:
        self.whole = True
        self._found: list[str] = []
        try:
            self._take(codec.decode(body, large))
        except Corrupt:
            self.whole = False

    @property
    def text(self) -> str:
        """The words."""
        return "\n".join(self._found)

    def _take(self, payload: model.AnyPayload) -> None:
        if isinstance(payload, Message):
            for part in payload.parts:
                self._take_part(part)
        elif isinstance(payload, Custom | Other):
            self._strings(payload.data)
        else:
            for field in _WORD_FIELDS.get(payload.type, ()):
                self._strings(getattr(payload, field))

    def _take_part(self, part: model.AnyPart) -> None:
        if isinstance(part, model.Text | model.Reasoning):
            self._strings(part.content)
        elif isinstance(part, model.ToolCall):
            self._found.append(part.name)
            self._strings(part.arguments)
        elif isinstance(part, model.ToolResult):
            self._strings(part.response)
        elif isinstance(part, OtherPart):
            self._strings(part.data)

    def _strings(self, value: Any) -> None:
        if isinstance(value, str):
            self._found.append(value[:INDEXED])
        elif isinstance(value, Large):
            self._found.append(self._beginning(value))
        elif isinstance(value, dict):
            for item in cast("dict[str, Any]", value).values():
                self._strings(item)
        elif isinstance(value, list | tuple):
            for item in cast("list[Any]", value):
                self._strings(item)

    def _beginning(self, value: Large) -> str:
        if value.form == "bytes":
            return ""
        try:
            with value.open() as stream:
                return stream.read(INDEXED).decode("utf-8", "replace")
        except Corrupt:
            self.whole = False  # a check names it; it must not stop the index
            return value.preview


_WORD_FIELDS = {
    "step": ("name", "arguments", "output", "error"),
    "report": ("subject", "checks", "residual_risks"),
    "tasks": ("tasks",),
    "state": ("reason",),
    "summary": ("content",),
    "artifact": ("name", "uri"),
    "note": ("text",),
}


def searched(body: bytes, large: LargeStore) -> str:
    """What search looks at in a stored body, normalised; see `backend.TextOf`.

    Raises:
        Corrupt: it can't be read whole; `text` on the error is what can.
    """
    from holdfast import search  # most programs neither search nor need to wait for it to be loaded

    words = Words(body, large)
    text = search.normalise(words.text)
    if not words.whole:
        raise Corrupt("an event can't be read whole", text=text)
    return text
