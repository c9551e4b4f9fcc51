"""Payloads to bytes and back: the one place where a value becomes what is stored.

A body is compact JSON with the format version first: `{"v":1,"type":"message",…}`. What JSON can't hold is refused
with its path (NaN, Infinity, a nesting beyond `MAX_DEPTH`); what encoders commonly spoil is kept exactly (integers of
any size, NUL, lone surrogates). A value of more than `LARGE` bytes moves to the blob store and leaves a preview and,
beside it under `large`, where the whole is. Decoding never fails on what it does not know, only on what is not JSON.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol, cast

import msgspec

from holdfast import model
from holdfast.errors import Corrupt, Invalid, TooLarge
from holdfast.model import AnyPayload, Custom, Large, LargeRef, Message, Other, OtherPart

LARGE = 64 * 1024
"""Bytes above which a value moves to the blob store."""
MAX_BODY = 4 * 1024 * 1024
"""Bytes that one event may take after its large values moved out."""
MAX_DEPTH = 100
"""How deep arrays and objects may nest in one event."""
PREVIEW = 1024
"""Characters of a large text that stay in the event."""
INDEXED = 64 * 1024
"""Characters of one value that search looks at."""

_PREFIX = b'{"v":%d,' % model.FORMAT
_OTHER_MARK = b'"type":"~"'
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(model.KnownPayload)
_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


class LargeStore(Protocol):
    """Where large values go: see `holdfast.large`."""

    def put(self, stream: BinaryIO | bytes, form: str) -> LargeRef:
        """Store all bytes of `stream`, durably."""
        ...

    def opener(self, ref: LargeRef) -> Callable[[], BinaryIO]:
        """What opens a stream over the stored bytes."""
        ...


def encode(payload: AnyPayload, large: LargeStore, *, parsed: bool = False) -> bytes:
    """The body to store for a payload. `parsed` tells that all its values were read from JSON, so that JSON holds them.

    Raises:
        Invalid: a value has no JSON form, or nests too deep; the message names its path.
        TooLarge: the body exceeds `MAX_BODY` although its large values moved out.
    """
    _check_kind(payload)
    try:
        body = _encoder.encode(payload)
    except (TypeError, ValueError, RecursionError, OverflowError):
        body = b""
    if not body or len(body) > LARGE or (b"~" in body and _OTHER_MARK in body):
        return _encode_with_care(payload, large)
    if (not parsed and b"null" in body) or body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        for owner in _owners(payload):
            _check_values(owner)
    return _PREFIX + body[1:]


def _check_values(owner: Any) -> None:
    """Refuse what JSON can't hold in the fields where a caller may put any value. Structs of ours come apart."""
    for field in owner.__struct_fields__:
        value = getattr(owner, field)
        if field not in _OURS and not isinstance(value, _SIMPLE):
            _check(value, f"$.{field}", 1)


_OURS = frozenset({"parts", "source", "large"})
_SIMPLE = (str, int, type(None))


_PAYLOADS = (model.Payload, Custom)
_PARTS = (model.Part, OtherPart)


def _check_kind(payload: Any) -> None:
    """Refuse what is no payload, or is made of what is no part: it would be stored and not be read again."""
    if not isinstance(payload, _PAYLOADS):
        if isinstance(payload, Other | model.Damaged):
            raise Invalid(f"an event of type {payload.type!r} can only be appended as the Event it was read as")
        raise Invalid(f"an event is made by user(…), note(…) or their like, not a {type(payload).__name__}")
    if isinstance(payload, Message):
        for part in cast("tuple[object, ...]", payload.parts):
            if not isinstance(part, _PARTS):
                raise Invalid(f"a part of a message is text, tool_call(…) or their like, not a {type(part).__name__}")
    elif isinstance(payload, Custom) and not payload.type.startswith("x."):
        raise Invalid(f"the type of a custom event is x.<name>, not {payload.type!r:.80}", type=payload.type)


def encode_json(value: Any) -> bytes:
    """Any JSON value as bytes, by the same rules as a payload; for heads and documents."""
    _check(value, "$", 0)
    return _dumps(value)


def decode_json(data: bytes) -> Any:
    """The value of `encode_json`'s bytes.

    Raises:
        Corrupt: the bytes are no JSON.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, RecursionError):
        pass  # msgspec takes no lone surrogate; the standard library does
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"stored bytes are no JSON: {error}", data=data) from None


def decode(body: bytes, large: LargeStore) -> AnyPayload:
    """The payload of a stored body; what is not known comes as `Other` or `OtherPart`, or stays in the bytes.

    Raises:
        Corrupt: the body is no JSON object.
    """
    try:
        payload: AnyPayload = _decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        payload = _decode_leniently(body)
    return _with_values(payload, large) if _refers(payload) else payload


def _refers(payload: AnyPayload) -> bool:
    """Whether some of the payload's values are in the blob store."""
    if payload.large is not None or (payload.source is not None and payload.source.large is not None):
        return True
    if isinstance(payload, Message):
        for part in payload.parts:
            if part.large is not None:
                return True
    return False


def larges(payload: AnyPayload) -> Iterator[Large]:
    """The large values of a payload that was read."""
    for owner in _owners(payload):
        for field in owner.LARGE_FIELDS:
            value = getattr(owner, field)
            if isinstance(value, Large):
                yield value


def words(body: bytes, large: LargeStore) -> str:
    """What search looks at in a body: the strings a person would call its text, one a line, not yet normalised."""
    try:
        payload = decode(body, large)
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


def _owners(payload: AnyPayload) -> Iterator[Any]:
    """The structs of a payload that may own a large value: itself, its source, its parts."""
    if isinstance(payload, Other | model.Damaged):
        return
    yield payload
    if payload.source is not None:
        yield payload.source
    if isinstance(payload, Message):
        for part in payload.parts:
            if not isinstance(part, OtherPart):
                yield part


def _encode_with_care(payload: Any, large: LargeStore) -> bytes:
    changes: dict[str, Any] = {}
    if payload.source is not None:
        changes["source"] = _move_out(payload.source, large)
    if isinstance(payload, Message):
        parts: list[Any] = [p.data if isinstance(p, OtherPart) else _move_out(p, large) for p in payload.parts]
        changes["parts"] = parts
    small = msgspec.structs.replace(_move_out(payload, large), **changes)
    plain = _plain(small)
    _check(plain, "$", 0)
    body = _PREFIX + _dumps(plain)[1:]
    if len(body) > MAX_BODY:
        raise TooLarge(
            f"the event takes {len(body):,} bytes, the limit is {MAX_BODY:,}; "
            "split it, or put what is large into one value",
            size=len(body),
            limit=MAX_BODY,
        )
    return body


def _plain(payload: Any) -> Any:
    try:
        return msgspec.to_builtins(payload)
    except RecursionError:
        raise TooLarge(f"the event nests deeper than {MAX_DEPTH} levels", limit=MAX_DEPTH) from None
    except TypeError as error:
        raise Invalid(f"the event holds a value that has no JSON form: {error}") from None


def _move_out(owner: Any, large: LargeStore) -> Any:
    """The struct with its large values replaced by previews and references."""
    changes: dict[str, Any] = {}
    refs: dict[str, LargeRef] = {}
    for field in owner.LARGE_FIELDS:
        moved = _moved(getattr(owner, field), large)
        if moved is not None:
            changes[field], refs[field] = moved
    if not changes:
        return owner
    return msgspec.structs.replace(owner, large=refs, **changes)


def _moved(value: Any, large: LargeStore) -> tuple[str, LargeRef] | None:
    if isinstance(value, Large):
        with value.open() as stream:
            ref = large.put(stream, value.form)
        return value.preview or _preview(ref, large), ref
    if isinstance(value, str):
        if len(value) * 4 <= LARGE:
            return None
        data = value.encode("utf-8", "surrogatepass")
        return (value[:PREVIEW], large.put(data, "text")) if len(data) > LARGE else None
    if isinstance(value, dict | list | tuple):
        plain = _plain(value)
        _check(plain, "$", 0)
        data = _dumps(plain)
        return ("", large.put(data, "json")) if len(data) > LARGE else None
    return None


def _preview(ref: LargeRef, large: LargeStore) -> str:
    if ref.form != "text":
        return ""
    with large.opener(ref)() as stream:
        return stream.read(PREVIEW).decode("utf-8", "ignore")


def _check(value: Any, path: str, depth: int) -> None:
    """Refuse what JSON can't hold, by its path."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Invalid(f"{path} is {value}, which JSON can't hold; use null or a string", path=path)
    elif isinstance(value, dict):
        _check_depth(path, depth)
        for key, item in cast("dict[Any, Any]", value).items():
            if isinstance(key, float):
                _check(key, f"{path} (a key)", depth)
            _check(item, f"{path}.{key}", depth + 1)
    elif isinstance(value, list | tuple):
        _check_depth(path, depth)
        for index, item in enumerate(cast("list[Any]", value)):
            _check(item, f"{path}[{index}]", depth + 1)
    elif isinstance(value, str) and not value.isascii() and _SURROGATE_PAIR.search(value):
        raise Invalid(f"{path} holds a character as two separate surrogates; join them, or store bytes", path=path)
    elif not isinstance(value, _SIMPLE):
        _check(_plain(value), path, depth)  # a struct, a dataclass, a set, a date: as the JSON that it becomes


def _check_depth(path: str, depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise TooLarge(f"{path[:80]}… nests deeper than {MAX_DEPTH} levels", path=path[:200], limit=MAX_DEPTH)


def _dumps(plain: Any) -> bytes:
    try:
        return _encoder.encode(plain)
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8; as an escape it survives.
        return json.dumps(plain, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")
    except (TypeError, ValueError, OverflowError) as error:
        raise Invalid(f"a value has no JSON form: {error}") from None


def _decode_leniently(body: bytes) -> AnyPayload:
    plain = decode_json(body)
    if not isinstance(plain, dict):
        raise Corrupt("the stored event is no JSON object", data=body)
    fields = cast("dict[str, Any]", plain)
    kind = fields.get("type")
    try:
        if isinstance(kind, str) and kind.startswith("x."):
            return msgspec.convert(fields, Custom)
        if kind == "message":
            parts = [_part(p) for p in fields.get("parts", ())]
            known = msgspec.convert({**fields, "parts": ()}, Message)
            return msgspec.structs.replace(known, parts=tuple(parts))
        return msgspec.convert(fields, cast("Any", model.KnownPayload))
    except (msgspec.ValidationError, TypeError):
        return Other(data=fields)


def _part(plain: Any) -> model.AnyPart:
    try:
        return msgspec.convert(plain, cast("Any", model.KnownPart))
    except msgspec.ValidationError:
        if not isinstance(plain, dict):
            raise
        return OtherPart(data=cast("dict[str, Any]", plain))


def _with_values(payload: Any, large: LargeStore) -> Any:
    changes: dict[str, Any] = {}
    if payload.source is not None:
        changes["source"] = _bound(payload.source, large)
    if isinstance(payload, Message):
        changes["parts"] = tuple(p if isinstance(p, OtherPart) else _bound(p, large) for p in payload.parts)
    return msgspec.structs.replace(_bound(payload, large), **changes)


def _bound(owner: Any, large: LargeStore) -> Any:
    """The struct with each reference turned into a `Large` that can be opened."""
    if not owner.large:
        return owner
    changes: dict[str, Any] = {}
    for field, ref in owner.large.items():
        if field in owner.LARGE_FIELDS:
            preview = getattr(owner, field)
            changes[field] = Large(
                opener=large.opener(ref),
                form=ref.form,
                size=ref.size,
                preview=preview if isinstance(preview, str) else "",
                ref=ref,
            )
    return msgspec.structs.replace(owner, large=None, **changes)
