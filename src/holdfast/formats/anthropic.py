"""Messages in the shape of Anthropic's Messages API.

https://platform.claude.com/docs/en/api/messages. What it has no place for is told in `lost`: names, a system message in
the middle (it goes into the system prompt), reasoning without a seal, a response that is neither text nor blocks (it
goes as JSON), how long a result took, and empty texts, which it refuses.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, cast

from holdfast.context.tokens import is_image
from holdfast.errors import Invalid
from holdfast.formats.shapes import (
    CHAT_ONLY,
    RESPONSES_ONLY,
    Json,
    Losses,
    Lost,
    Shaped,
    kept,
    loaded,
    modality_of,
    objects,
    other,
    rejoined,
    told_beside,
    told_response,
    unsaid,
)
from holdfast.model import AnyPart, Blob, File, Message, OtherPart, Reasoning, Text, ToolCall, ToolResult, Uri

SHAPE = "anthropic"
OPENING = "(The conversation goes on.)"
"""What the user is made to say where another speaks first, as the user must."""
_ID = re.compile(r"[a-zA-Z0-9_-]+")
_RESULT_BLOCKS = frozenset(("text", "image", "document", "search_result"))
_PAIRED = frozenset(("tool_use", "tool_result"))
"""Blocks that are parts of ours, or else lack what pairs them."""
_SYSTEM = ("system", "developer")


class Request(Shaped):
    """The messages; `system` are the blocks of the system prompt, [] for none."""

    def __init__(self, items: Iterable[Json], system: list[Json], lost: Sequence[Lost]) -> None:
        super().__init__(items, lost)
        self.system = system


def to_messages(messages: Sequence[Message]) -> Request:
    """For `messages.create(system=request.system, messages=request)`.

    What one side says in a row becomes one message, as the API itself does; all results of a message's calls stand at
    the beginning of the next.
    """
    lost = Losses()
    system: list[Json] = []
    spoken: list[Json] = []
    for item in rejoined(SHAPE, messages, _build, lost):
        if item["role"] == "system":
            if spoken:
                lost("place of a system message", "sent in the system prompt")
            system += _blocks_of(item["content"])
        elif spoken and spoken[-1]["role"] == item["role"]:
            spoken[-1] = {
                **spoken[-1],
                **item,
                "content": _blocks_of(spoken[-1]["content"]) + _blocks_of(item["content"]),
            }
        else:
            spoken.append(item)
    if spoken and spoken[0]["role"] != "user":
        spoken.insert(0, {"role": "user", "content": OPENING})
    return Request(spoken, system, lost.found)


def from_messages(messages: Sequence[Json], system: str | Sequence[Json] | None = None) -> list[Message]:
    """The messages of a request, or of a response (`[response]`). Results become messages of the role `tool`.

    Raises:
        Invalid: it is no list of messages.
    """
    given = objects(messages, SHAPE)
    if given and given[0] == {"role": "user", "content": OPENING}:
        given = given[1:]
    if system:
        given.insert(0, {"role": "system", "content": system if isinstance(system, str) else list(system)})
    made: list[Message] = []
    for raw in given:
        made += kept(SHAPE, [raw], _messages(raw), _build)
    return made


def _blocks_of(content: Any) -> list[Json]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _build(messages: Sequence[Message], lost: Losses, _own: bool) -> list[Json]:
    """One item of what stands together; without its parts' order where results must come first."""
    made: list[Json] = []
    for message in messages:
        told_beside(message, lost)
        role = _role(message, lost)
        blocks = [block for part in message.parts for block in _blocks(part, role, lost)]
        first = [block for block in blocks if block["type"] == "tool_result"]
        if first and blocks[: len(first)] != first:
            lost("order", "results are sent before the words")
        blocks = first + [block for block in blocks if block["type"] != "tool_result"]
        if not blocks:
            lost("the message", "it holds nothing that could be sent")
        elif made and made[-1]["role"] == role:
            made[-1]["content"] = _blocks_of(made[-1]["content"]) + blocks
        else:
            plain = len(blocks) == 1 and blocks[0]["type"] == "text" and len(blocks[0]) == 2
            made.append({"role": role, "content": blocks[0]["text"] if plain else blocks})
    return made


def _role(message: Message, lost: Losses) -> str:
    if message.role in ("system", "user", "assistant"):
        return message.role
    if message.role == "tool" and all(isinstance(part, ToolResult) for part in message.parts):
        return "user"
    role = "system" if message.role in _SYSTEM else "assistant" if message.tool_calls else "user"
    lost(f"role {message.role!r}", f"sent as {role}")
    return role


def _blocks(part: AnyPart, role: str, lost: Losses) -> list[Json]:
    if isinstance(part, Text):
        if (text := str(part.content)).strip():
            return [{"type": "text", "text": text}]
        lost("an empty text")
        return []
    if isinstance(part, OtherPart):
        if role != "system" and part.type not in CHAT_ONLY | RESPONSES_ONLY | _PAIRED:
            return [part.data]
    elif role == "assistant":
        if isinstance(part, ToolCall):
            unsaid(part, ("timeout",), lost)
            return [{"type": "tool_use", "id": _id(part.id, lost), "name": part.name, "input": _input(part, lost)}]
        if isinstance(part, Reasoning) and part.signature:
            return [{"type": "thinking", "thinking": str(part.content), "signature": part.signature}]
    elif role == "user":
        if isinstance(part, ToolResult):
            return [_result(part, lost)]
        if block := _media(part, lost):
            return [block]
    lost(f"a part of type {_type(part)}")
    return []


def _type(part: AnyPart) -> str:
    return part.type if isinstance(part, OtherPart) else str(part.__struct_config__.tag)


def _id(id: str | None, lost: Losses) -> str:
    """An id of letters, digits, `_` and `-`, which is all that is taken; of another one a digest."""
    if id and _ID.fullmatch(id):
        return id
    lost(f"id {id!r}", "sent as its digest")
    return "id_" + hashlib.sha256((id or "").encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _input(call: ToolCall, lost: Losses) -> Json:
    arguments = loaded(call.arguments)
    if isinstance(arguments, dict):
        return cast("Json", arguments)
    lost("arguments", "sent as an object, as they were none")
    return {} if arguments is None else {"arguments": arguments}


def _result(result: ToolResult, lost: Losses) -> Json:
    unsaid(result, ("duration", "name"), lost)
    made: Json = {"type": "tool_result", "tool_use_id": _id(result.id, lost)}
    if result.response is not None:
        made["content"] = told_response(result.response, _RESULT_BLOCKS, lost)
    if result.is_error:
        made["is_error"] = True
    return made


def _media(part: AnyPart, lost: Losses) -> Json | None:
    if isinstance(part, Uri):
        unsaid(part, ("mime_type",), lost)
        if not is_image(part):
            unsaid(part, ("modality",), lost)
        return _source(is_image(part), {"type": "url", "url": part.uri})
    if isinstance(part, File):
        unsaid(part, ("mime_type",), lost)
        if not is_image(part):
            unsaid(part, ("modality",), lost)
        return _source(is_image(part), {"type": "file", "file_id": part.file_id})
    if not isinstance(part, Blob) or not part.mime_type:
        return None
    if part.modality not in (None, modality_of(part.mime_type)):
        lost("modality of a blob")
    if not is_image(part) and part.mime_type != "application/pdf":
        return None
    return _source(is_image(part), {"type": "base64", "media_type": part.mime_type, "data": str(part.content)})


def _source(image: bool, source: Json) -> Json:
    return {"type": "image" if image else "document", "source": source}


def _messages(raw: Json) -> list[Message]:
    role, content = raw.get("role"), raw.get("content")
    if not isinstance(role, str) or not isinstance(content, str | list):
        raise Invalid(f"a message of the shape {SHAPE} has a role and content, not {sorted(raw)}", shape=SHAPE)
    if isinstance(content, str):
        return [Message(role=role, parts=(Text(content=content),))]
    parts = [_part(block) for block in cast("list[Any]", content)]
    results = [part for part in parts if isinstance(part, ToolResult)]
    if role != "user" or not results:
        return [Message(role=role, parts=tuple(parts))]
    others = tuple(part for part in parts if not isinstance(part, ToolResult))
    told = Message(role="tool", parts=tuple(results))
    return [told, Message(role="user", parts=others)] if others else [told]


def _part(block: Any) -> AnyPart:
    said = cast("Json", block) if isinstance(block, dict) else {}
    kind = said.get("type")
    if kind == "text" and isinstance(text := said.get("text"), str):
        return Text(content=text)
    if kind == "thinking" and isinstance(text := said.get("thinking"), str):
        seal = said.get("signature")
        return Reasoning(content=text, signature=seal if isinstance(seal, str) else None)
    if kind == "tool_use" and isinstance(id := said.get("id"), str):
        name = said.get("name")
        return ToolCall(id=id, name=name if isinstance(name, str) else "", arguments=said.get("input"))
    if kind == "tool_result" and isinstance(id := said.get("tool_use_id"), str):
        return ToolResult(id=id, response=said.get("content"), is_error=said.get("is_error") is True)
    if kind in ("image", "document") and isinstance(source := said.get("source"), dict):
        return _of_source(cast("Json", source), image=kind == "image") or other(block, SHAPE)
    return other(block, SHAPE)


def _of_source(source: Json, *, image: bool) -> AnyPart | None:
    modality = "image" if image else None
    kind, data, media = source.get("type"), source.get("data"), source.get("media_type")
    if kind == "base64" and isinstance(data, str) and isinstance(media, str):
        fits = modality_of(media) == "image" if image else media == "application/pdf"
        return Blob(content=data, mime_type=media, modality=modality) if fits else None
    if kind == "url" and isinstance(url := source.get("url"), str):
        return Uri(uri=url, modality=modality)
    if kind == "file" and isinstance(id := source.get("file_id"), str):
        return File(file_id=id, modality=modality)
    return None
