"""What the shapes of model providers have in common: messages go into one and come back, and nothing is lost unsaid.

A provider's message becomes a `Message` with the parts it has a word for. What it says beyond that is kept as the
*rest*: the difference between it and what the parts alone would give, in the message's metadata under the shape's name.
Going out, the rest is put back, if the parts are still what they were. So what came from a shape returns to it equal.
The other way round, what a shape has no place for is told in `lost`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import msgspec

from holdfast.errors import Invalid
from holdfast.model import AnyPart, Blob, Large, Message, OtherPart, Part, ToolCall, ToolResult

Json: TypeAlias = dict[str, Any]


class Lost(NamedTuple):
    """What a shape has no place for: of which message (counted from 0), what, and what became of it."""

    message: int
    what: str
    how: str = "left out"


class Shaped(list[Json]):
    """Messages or items as a provider takes them: a list of dicts. `lost` says what they could not hold."""

    def __init__(self, items: Iterable[Json] = (), lost: Sequence[Lost] = ()) -> None:
        super().__init__(items)
        self.lost = tuple(lost)


class Losses:
    """Gathers what is lost of the message that is at hand."""

    def __init__(self) -> None:
        self.found: list[Lost] = []
        self.at = 0

    def __call__(self, what: str, how: str = "left out") -> None:
        """Note something."""
        self.found.append(Lost(self.at, what, how))


Build: TypeAlias = Callable[[Sequence[Message], Losses, bool], list[Json]]
"""Makes the items of messages; the last argument says whether they came from this shape."""


def rejoined(shape: str, messages: Sequence[Message], build: Build, lost: Losses) -> list[Json]:
    """The items of messages, the rest of those that came from this shape put back."""
    made: list[Json] = []
    place = 0
    while place < len(messages):
        lost.at = place
        rest = _rest(shape, messages[place])
        if rest is None:
            made += build(messages[place : place + 1], lost, False)
            place += 1
            continue
        unsaid = Losses()
        group = messages[place : place + rest["messages"]]
        items = build(group, unsaid, True)
        whole = _whole(items, rest)
        if whole is not None:
            made += whole
            place += len(group)
            continue
        lost(f"metadata[{shape!r}]", "left out: the message was changed since it came from there")
        made += build(messages[place : place + 1], lost, False)
        place += 1
    return made


def _whole(items: list[Json], rest: Json) -> list[Json] | None:
    """Items with their rest; None if it is not theirs, or was never made here."""
    if digest(items) != rest["of"]:
        return None
    try:
        return objects(patched(items, rest["rest"]), "")
    except (Invalid, LookupError, TypeError, ValueError, AttributeError):  # metadata is anybody's to write
        return None


def kept(
    shape: str, raw: Sequence[Json], messages: list[Message], build: Build, *, always: bool = False
) -> list[Message]:
    """The messages that were made of some items, with the rest of them in the metadata of the first."""
    items = build(messages, Losses(), True)
    rest = difference(items, list(raw))
    if not messages:
        raise Invalid(f"these say nothing that a message could hold: {json.dumps(list(raw), default=str)[:80]}")
    if rest is None and not always:
        return messages
    note = {"messages": len(messages), "of": digest(items), "rest": rest}
    metadata = {**(messages[0].metadata or {}), shape: note}
    return [msgspec.structs.replace(messages[0], metadata=metadata), *messages[1:]]


def _rest(shape: str, message: Message) -> Json | None:
    note: object = (message.metadata or {}).get(shape)
    if not isinstance(note, dict):
        return None
    rest = cast("Json", note)
    count, of = rest.get("messages"), rest.get("of")
    return rest if isinstance(count, int) and count > 0 and isinstance(of, str) and "rest" in rest else None


def digest(items: object) -> str:
    """Tells whether items are what they were."""
    return hashlib.sha256(json.dumps(items, sort_keys=True).encode()).hexdigest()[:32]


def difference(made: Any, raw: Any) -> Json | None:
    """What turns one JSON value into another; None if nothing must.

    `is`: it is another value. In an object `set` and `drop` name fields that are to be set or not to be there, and `in`
    has the differences of others; so it has of the places of an array, by their number.
    """
    if type(made) is type(raw) and made == raw and _same_types(made, raw):
        return None
    if isinstance(made, dict) and isinstance(raw, dict):
        old, new = cast("Json", made), cast("Json", raw)
        inner = {key: d for key in old if key in new and (d := difference(old[key], new[key])) is not None}
        change: Json = {}
        if fields := {key: value for key, value in new.items() if key not in old}:
            change["set"] = fields
        if gone := [key for key in old if key not in new]:
            change["drop"] = gone
        if inner:
            change["in"] = inner
        return change
    before, after = _values(made), _values(raw)
    if before is not None and after is not None and len(before) == len(after):
        pairs = zip(before, after, strict=True)
        places = {str(n): d for n, (old, new) in enumerate(pairs) if (d := difference(old, new)) is not None}
        return {"in": places}
    return {"is": raw}


def _values(value: Any) -> list[Any] | None:
    return cast("list[Any]", value) if isinstance(value, list) else None


def _same_types(one: Any, other: Any) -> bool:
    """Whether values that are equal are the same JSON: 1, 1.0 and true are not."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def patched(made: Any, change: Any) -> Any:
    """A JSON value with a difference applied."""
    if change is None:
        return made
    if "is" in change:
        return change["is"]
    if isinstance(made, list):
        values = list(cast("list[Any]", made))
        for place, inner in change["in"].items():
            values[int(place)] = patched(values[int(place)], inner)
        return values
    fields = {key: value for key, value in made.items() if key not in change.get("drop", ())}
    for key, inner in change.get("in", {}).items():
        fields[key] = patched(fields[key], inner)
    return {**fields, **change.get("set", {})}


def words(value: Any) -> str:
    """A value as text: text as it is, anything else as JSON; a large one is loaded."""
    if isinstance(value, Large):
        value = value.value() if value.form == "json" else str(value)
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def loaded(value: Any) -> Any:
    """A value, in memory if it is large."""
    return value.value() if isinstance(value, Large) else value


def arguments_out(value: Any, lost: Losses) -> str:
    """Arguments as the JSON text that OpenAI's shapes have. Text that is no JSON is from a model: it goes as it is."""
    value = loaded(value)
    if value is None:
        lost("arguments", "sent as {}")
        return "{}"
    if isinstance(value, str) and not _is_json(value):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def arguments_in(text: Any) -> Any:
    """The value of arguments; text that is no JSON as it is."""
    return json.loads(text) if isinstance(text, str) and _is_json(text) else text


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError):
        return False
    return True


def _refused(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def told_response(value: Any, blocks: frozenset[str], lost: Losses) -> Any:
    """A tool's response as text, or as the blocks it was given in where those are the shape's own."""
    value = loaded(value)
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(_is_block(item, blocks) for item in cast("list[Any]", value)):
        return cast("list[Any]", value)
    if value is None:
        lost("response", "there is none; sent as an empty text")
        return ""
    lost("response", "sent as JSON text")
    return words(value)


def _is_block(item: Any, blocks: frozenset[str]) -> bool:
    return isinstance(item, dict) and cast("Json", item).get("type") in blocks


def unsaid(part: Part, fields: Iterable[str], lost: Losses) -> None:
    """Tell the fields of a part that say something and have no place."""
    for field in fields:
        if getattr(part, field) not in (None, False):
            lost(f"{field} of a {part.__struct_config__.tag}")


def told_id(part: ToolCall | ToolResult, lost: Losses) -> str:
    """The id that pairs a call and its result; "" for none."""
    if part.id is None:
        lost("id", "there is none; sent empty")
    return part.id or ""


def told_beside(message: Message, lost: Losses, *, name: bool = False) -> None:
    """Tell what a message says beside its parts."""
    if message.name and not name:
        lost("name")
    if message.finish_reason:
        lost("finish_reason")


_DATA_URL = re.compile(r"data:([^;,]+);base64,(.*)", re.DOTALL)


def data_url(part: Blob) -> str:
    """A blob as a URL that holds it."""
    return f"data:{part.mime_type};base64,{part.content}"


def of_data_url(url: Any) -> tuple[str, str] | None:
    """The media type and the base64 of such a URL; None if it is none."""
    found = _DATA_URL.fullmatch(url) if isinstance(url, str) else None
    return (found[1], found[2]) if found else None


def modality_of(mime_type: str) -> str | None:
    """image, audio or video, where a media type says so."""
    kind = mime_type.partition("/")[0]
    return kind if kind in ("image", "audio", "video") else None


OWN = frozenset(("text", "reasoning", "tool_call", "tool_call_response", "blob", "file", "uri", "~"))
"""Types that mean a part of ours: a block of a shape that is called so and is another thing has no place."""


def other(block: Any, shape: str) -> AnyPart:
    """A block of a type that has no part, with all its fields.

    Raises:
        Invalid: it is no block.
    """
    kind = cast("Json", block).get("type") if isinstance(block, dict) else None
    if not isinstance(kind, str) or not kind or kind in OWN:
        raise Invalid(f"this is no content of the shape {shape}: {json.dumps(block, default=str)[:80]}", shape=shape)
    return OtherPart(data=cast("Json", block))


def objects(raw: object, shape: str) -> list[Json]:
    """The items of a shape's list.

    Raises:
        Invalid: it is no list of objects.
    """
    items: list[Any] = list(cast("Sequence[Any]", raw)) if isinstance(raw, list | tuple) else [None]
    if all(isinstance(item, dict) for item in items):
        return items
    kind = type(cast("object", raw)).__name__
    raise Invalid(f"the shape {shape} is a list of objects, not {kind}", shape=shape)


CHAT_ONLY = frozenset(("image_url", "input_audio"))
RESPONSES_ONLY = frozenset(
    {
        "input_text",
        "input_image",
        "input_file",
        "output_text",
        "function_call",
        "function_call_output",
        "compaction",
        "item_reference",
        "web_search_call",
        "file_search_call",
        "computer_call",
        "computer_call_output",
        "code_interpreter_call",
        "image_generation_call",
        "local_shell_call",
        "local_shell_call_output",
        "mcp_call",
        "mcp_list_tools",
        "mcp_approval_request",
        "mcp_approval_response",
        "custom_tool_call",
        "custom_tool_call_output",
    }
)
ANTHROPIC_ONLY = frozenset(
    {
        "thinking",
        "redacted_thinking",
        "tool_use",
        "tool_result",
        "image",
        "document",
        "search_result",
        "mcp_tool_use",
        "server_tool_use",
        "web_search_tool_result",
        "web_fetch_tool_result",
        "code_execution_tool_result",
        "container_upload",
        "mcp_tool_result",
        "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result",
    }
)
"""Types of blocks that only one shape knows; any other passes through."""
