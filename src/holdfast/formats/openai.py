"""Messages in OpenAI's two shapes: those of chat completions, and the items of the responses API.

https://platform.openai.com/docs/api-reference. What neither holds is told in `lost`: that a result was an error, how
long it took, a response that is no text (it goes as JSON), and reasoning but for what came from the responses API.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from holdfast.context.tokens import is_image
from holdfast.errors import Invalid
from holdfast.formats.shapes import (
    ANTHROPIC_ONLY,
    CHAT_ONLY,
    RESPONSES_ONLY,
    Json,
    Losses,
    Shaped,
    arguments_in,
    arguments_out,
    data_url,
    kept,
    modality_of,
    objects,
    of_data_url,
    other,
    rejoined,
    told_beside,
    told_id,
    told_response,
    unsaid,
)
from holdfast.model import AnyPart, Blob, File, Message, OtherPart, Reasoning, Text, ToolCall, ToolResult, Uri

CHAT = "openai.chat"
RESPONSES = "openai.responses"
ROLES = ("system", "developer", "user", "assistant")
_AUDIO = {"audio/wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}
_CHAT_BLOCKS = frozenset(("text",))
_OUTPUT_BLOCKS = frozenset(("input_text", "input_image", "input_file"))


def to_chat(messages: Sequence[Message]) -> Shaped:
    """Messages for `chat.completions.create(messages=…)`. Each result becomes a message of its own."""
    lost = Losses()
    return Shaped(rejoined(CHAT, messages, _chat, lost), lost.found)


def from_chat(messages: Sequence[Json]) -> list[Message]:
    """The messages of a chat: one for each.

    Raises:
        Invalid: it is no list of messages.
    """
    made: list[Message] = []
    for raw in objects(messages, CHAT):
        made += kept(CHAT, [raw], [_chat_message(raw)], _chat)
    return made


def _chat(messages: Sequence[Message], lost: Losses, _own: bool) -> list[Json]:
    return [item for message in messages for item in _chat_items(message, lost)]


def _chat_items(message: Message, lost: Losses) -> list[Json]:
    made: list[Json] = []
    for result in message.tool_results:
        unsaid(result, ("is_error", "duration", "name"), lost)
        response = told_response(result.response, _CHAT_BLOCKS, lost)
        made.append({"role": "tool", "tool_call_id": told_id(result, lost), "content": response})
    said = [part for part in message.parts if not isinstance(part, ToolResult)]
    if made and not said:
        told_beside(message, lost)
        return made
    calls = [_chat_call(part, lost) for part in said if isinstance(part, ToolCall)]
    role = _role(message, bool(calls), lost)
    blocks = [block for part in said if not isinstance(part, ToolCall) for block in _chat_blocks(part, role, lost)]
    if not blocks and not calls:
        lost("the message", "it holds nothing that could be sent")
        return made
    if calls and any(isinstance(part, ToolCall) for part in said[: -len(calls)]):
        lost("order", "calls are sent behind the words")
    plain = len(blocks) == 1 and blocks[0].keys() == {"type", "text"} and blocks[0]["type"] == "text"
    item: Json = {"role": role, "content": blocks[0]["text"] if plain else blocks or None}
    if name := message.name or (message.role if message.role not in (*ROLES, "tool") else None):
        item["name"] = name
    if calls:
        item["tool_calls"] = calls
    if message.finish_reason:
        lost("finish_reason")
    return [*made, item]


def _role(message: Message, calls: bool, lost: Losses) -> str:
    """Who speaks, in the words of OpenAI."""
    if message.role in ROLES and (message.role == "assistant" or not calls):
        return message.role
    role = "assistant" if calls else "user"
    lost(f"role {message.role!r}", f"sent as {role}")
    return role


def _chat_call(call: ToolCall, lost: Losses) -> Json:
    unsaid(call, ("timeout",), lost)
    function = {"name": call.name, "arguments": arguments_out(call.arguments, lost)}
    return {"id": told_id(call, lost), "type": "function", "function": function}


def _chat_blocks(part: AnyPart, role: str, lost: Losses) -> list[Json]:
    if isinstance(part, Text):
        return [{"type": "text", "text": str(part.content)}]
    if isinstance(part, OtherPart):
        if part.type not in RESPONSES_ONLY | ANTHROPIC_ONLY and (role == "user") != (part.type == "refusal"):
            return [part.data]
    elif role == "user" and (block := _chat_media(part, lost)):
        return [block]
    lost(f"a part of type {_type(part)}")
    return []


def _type(part: AnyPart) -> str:
    return part.type if isinstance(part, OtherPart) else str(part.__struct_config__.tag)


def _chat_media(part: AnyPart, lost: Losses) -> Json | None:
    if isinstance(part, Uri) and is_image(part):
        unsaid(part, ("mime_type",), lost)
        return {"type": "image_url", "image_url": {"url": part.uri}}
    if isinstance(part, File):
        unsaid(part, ("mime_type", "modality"), lost)
        return {"type": "file", "file": {"file_id": part.file_id}}
    if not isinstance(part, Blob) or not part.mime_type:
        return None
    if part.modality not in (None, modality_of(part.mime_type)):
        lost("modality of a blob")
    if is_image(part):
        return {"type": "image_url", "image_url": {"url": data_url(part)}}
    if form := _AUDIO.get(part.mime_type):
        return {"type": "input_audio", "input_audio": {"data": str(part.content), "format": form}}
    return {"type": "file", "file": {"file_data": data_url(part)}}


def _chat_message(raw: Json) -> Message:
    role, content = raw.get("role"), raw.get("content")
    if not isinstance(role, str):
        raise Invalid(f"a message of the shape {CHAT} has a role, not {sorted(raw)}", shape=CHAT)
    if role == "tool":
        id = raw.get("tool_call_id")
        return Message(role="tool", parts=(ToolResult(id=id if isinstance(id, str) else None, response=content),))
    parts: list[AnyPart] = []
    if isinstance(content, str):
        parts.append(Text(content=content))
    elif isinstance(content, list):
        parts += [_chat_part(block) for block in cast("list[Any]", content)]
    calls = raw.get("tool_calls")
    for call in objects(calls, CHAT) if calls else ():
        parts.append(_called(call.get("id"), call.get("function") or call.get("custom")))
    name = raw.get("name")
    return Message(role=role, parts=tuple(parts), name=name if isinstance(name, str) else None)


def _called(id: Any, function: Any) -> ToolCall:
    said = cast("Json", function) if isinstance(function, dict) else {}
    name = said.get("name")
    return ToolCall(
        id=id if isinstance(id, str) else None,
        name=name if isinstance(name, str) else "",
        arguments=arguments_in(said.get("arguments", said.get("input"))),
    )


def _chat_part(block: Any) -> AnyPart:
    said = cast("Json", block) if isinstance(block, dict) else {}
    kind = said.get("type")
    inner: Any = said.get(kind) if isinstance(kind, str) else None
    if kind == "text" and isinstance(inner, str):
        return Text(content=inner)
    held = cast("Json", inner) if isinstance(inner, dict) else {}
    if kind == "image_url" and isinstance(url := held.get("url"), str):
        return _blob(url) or Uri(uri=url, modality="image")
    if kind == "input_audio" and isinstance(data := held.get("data"), str) and held.get("format") in _AUDIO.values():
        mime = "audio/wav" if held["format"] == "wav" else "audio/mpeg"
        return Blob(content=data, mime_type=mime, modality="audio")
    if kind == "file":
        id = held.get("file_id")
        return File(file_id=id) if isinstance(id, str) else _blob(held.get("file_data")) or File()
    return other(block, CHAT)


def _blob(url: Any) -> Blob | None:
    found = of_data_url(url)
    return Blob(content=found[1], mime_type=found[0], modality=modality_of(found[0])) if found else None


def to_responses(messages: Sequence[Message]) -> Shaped:
    """Items for `responses.create(input=…)`. Reasoning goes only where it came from this shape: it is sealed."""
    lost = Losses()
    return Shaped(rejoined(RESPONSES, messages, _responses, lost), lost.found)


def from_responses(items: Sequence[Json]) -> list[Message]:
    """The messages of items of input or output: what the assistant says and calls in a row is one.

    Raises:
        Invalid: it is no list of items.
    """
    made: list[Message] = []
    run: list[Json] = []
    for raw in [*objects(items, RESPONSES), None]:
        if raw is not None and _by_assistant(raw):
            run.append(raw)
            continue
        if run:
            parts = tuple(part for item in run for part in _assistant_parts(item))
            sealed = any(isinstance(part, Reasoning) for part in parts)
            made += kept(RESPONSES, run, [Message(role="assistant", parts=parts)], _responses, always=sealed)
            run = []
        if raw is not None:
            made += kept(RESPONSES, [raw], [_item_message(raw)], _responses)
    return made


def _by_assistant(raw: Json) -> bool:
    kind = raw.get("type", "message")
    return raw.get("role") == "assistant" if kind == "message" else kind != "function_call_output"


def _responses(messages: Sequence[Message], lost: Losses, own: bool) -> list[Json]:
    return [item for message in messages for item in _items(message, lost, own)]


def _items(message: Message, lost: Losses, own: bool) -> list[Json]:
    made: list[Json] = []
    told_beside(message, lost)
    only_results = all(isinstance(part, ToolResult) for part in message.parts)
    role = "tool" if only_results else _role(message, bool(message.tool_calls), lost)
    for part in message.parts:
        if isinstance(part, ToolResult):
            unsaid(part, ("is_error", "duration", "name"), lost)
            output = told_response(part.response, _OUTPUT_BLOCKS, lost)
            made.append({"type": "function_call_output", "call_id": told_id(part, lost), "output": output})
            continue
        if isinstance(part, ToolCall):
            unsaid(part, ("timeout",), lost)
            arguments = arguments_out(part.arguments, lost)
            id = told_id(part, lost)
            made.append({"type": "function_call", "call_id": id, "name": part.name, "arguments": arguments})
            continue
        block = _content(part, role, lost, own)
        if block is None:
            continue
        if block["type"] not in ("output_text", "refusal") and role == "assistant":
            made.append(block)
        elif made and made[-1].get("type") == "message":
            made[-1]["content"].append(block)
        else:
            made.append({"type": "message", "role": role, "content": [block]})
    if not made:
        lost("the message", "it holds nothing that could be sent")
    return made


def _content(part: AnyPart, role: str, lost: Losses, own: bool) -> Json | None:
    """A content of a message, or for what the assistant did an item of its own."""
    if isinstance(part, Text):
        return {"type": "output_text" if role == "assistant" else "input_text", "text": str(part.content)}
    if isinstance(part, OtherPart):
        if part.type not in CHAT_ONLY | ANTHROPIC_ONLY:
            return part.data
    elif isinstance(part, Reasoning):
        if own:
            return {"type": "reasoning", "summary": [{"type": "summary_text", "text": str(part.content)}]}
    elif role == "user" and (block := _media(part, lost)):
        return block
    lost(f"a part of type {_type(part)}")
    return None


def _media(part: AnyPart, lost: Losses) -> Json | None:
    if isinstance(part, Uri):
        unsaid(part, ("mime_type",), lost)
        if is_image(part):
            return {"type": "input_image", "detail": "auto", "image_url": part.uri}
        unsaid(part, ("modality",), lost)
        return {"type": "input_file", "file_url": part.uri}
    if isinstance(part, File):
        unsaid(part, ("mime_type",), lost)
        if is_image(part):
            return {"type": "input_image", "detail": "auto", "file_id": part.file_id}
        unsaid(part, ("modality",), lost)
        return {"type": "input_file", "file_id": part.file_id}
    if not isinstance(part, Blob) or not part.mime_type:
        return None
    if part.modality not in (None, modality_of(part.mime_type)):
        lost("modality of a blob")
    if is_image(part):
        return {"type": "input_image", "detail": "auto", "image_url": data_url(part)}
    return {"type": "input_file", "filename": "file", "file_data": data_url(part)}


def _item_message(raw: Json) -> Message:
    if raw.get("type") == "function_call_output":
        id = raw.get("call_id")
        result = ToolResult(id=id if isinstance(id, str) else None, response=raw.get("output"))
        return Message(role="tool", parts=(result,))
    role, content = raw.get("role"), raw.get("content")
    if not isinstance(role, str):
        raise Invalid(f"an item of the shape {RESPONSES} has a type or a role, not {sorted(raw)}", shape=RESPONSES)
    return Message(role=role, parts=tuple(_contents(content)))


def _contents(content: Any) -> list[AnyPart]:
    if isinstance(content, str):
        return [Text(content=content)]
    return [_input_part(block) for block in cast("list[Any]", content)] if isinstance(content, list) else []


def _input_part(block: Any) -> AnyPart:
    said = cast("Json", block) if isinstance(block, dict) else {}
    kind, id = said.get("type"), said.get("file_id")
    if kind in ("input_text", "output_text") and isinstance(words := said.get("text"), str):
        return Text(content=words)
    if kind == "input_image":
        if isinstance(url := said.get("image_url"), str):
            return _blob(url) or Uri(uri=url, modality="image")
        if isinstance(id, str):
            return File(file_id=id, modality="image")
    if kind == "input_file":
        if isinstance(id, str):
            return File(file_id=id)
        if isinstance(url := said.get("file_url"), str):
            return Uri(uri=url)
        if blob := _blob(said.get("file_data")):
            return blob
    return other(block, RESPONSES)


def _assistant_parts(raw: Json) -> list[AnyPart]:
    kind = raw.get("type", "message")
    if kind == "message":
        return _contents(raw.get("content"))
    if kind == "function_call":
        return [_called(raw.get("call_id"), raw)]
    if kind == "reasoning":
        summary = raw.get("summary")
        texts = [said.get("text") for said in objects(summary, RESPONSES)] if summary else []
        return [Reasoning(content="\n\n".join(text for text in texts if isinstance(text, str)))]
    return [other(raw, RESPONSES)]
