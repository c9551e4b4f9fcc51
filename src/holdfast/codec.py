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
from typing import Any, BinaryIO, Protocol, cast, get_args

import msgspec

from holdfast import model
from holdfast.errors import Corrupt, Invalid, TooLarge
from holdfast.model import AnyPayload, Custom, Large, LargeRef, Message, Other, OtherPart, Text, ToolCall, ToolResult

LARGE = 64 * 1024
"""Bytes above which a value moves to the blob store."""
MAX_BODY = 4 * 1024 * 1024
"""Bytes that one event may take after its large values moved out."""
MAX_DEPTH = 100
"""How deep arrays and objects may nest in one event."""
PREVIEW = 1024
"""Characters of a large text that stay in the event."""

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
    plain = _check_kind(payload)
    try:
        body = _encoder.encode(payload)
    except (TypeError, ValueError, RecursionError, OverflowError):
        body = b""
    if not body or len(body) > LARGE or (not plain and b"~" in body and _OTHER_MARK in body):
        return _encode_with_care(payload, large)
    if not plain and (
        body.count(b"[") + body.count(b"{") > MAX_DEPTH
        or (not parsed and (b"null" in body or _holds_more_than_json(payload)))
    ):
        for owner in _owners(payload):
            _check_values(owner)
    return _PREFIX + body[1:]


def _holds_more_than_json(payload: Any) -> bool:
    """Whether a caller's value holds anything but what JSON has. Quick, as it is on the path of many appends."""
    found = [getattr(payload, field) for field in _free(payload)]
    if isinstance(payload, Message):
        for part in payload.parts:
            found += [getattr(part, field) for field in _free(part)]
    while found:
        value = found.pop()
        if isinstance(value, dict):
            for key, item in cast("dict[object, object]", value).items():
                if not isinstance(key, str):
                    return True
                found.append(item)
        elif isinstance(value, list | tuple):
            found.extend(cast("list[Any]", value))
        elif not isinstance(value, _JSON):
            return True
    return False


_JSON = (str, int, float, type(None))
_FLAT = frozenset({str, int, bool, type(None)})
_NAMES = {"metadata", "arguments", "response", "data", "checks", "tasks", "artifacts", "residual_risks"}
_FREE: dict[type, tuple[str, ...]] = {
    kind: tuple(field for field in kind.__struct_fields__ if field in _NAMES)
    for kind in (*get_args(model.KnownPayload), *get_args(model.KnownPart), Custom)
}
"""The fields of each struct that may hold more than a text or a number."""


def _free(owner: Any) -> tuple[str, ...]:
    fields = _FREE.get(owner.__class__)
    return owner.__struct_fields__ if fields is None else fields


def _check_values(owner: Any) -> None:
    """Refuse what JSON can't hold in the fields where a caller may put any value. Structs of ours come apart."""
    for field in owner.__struct_fields__:
        value = getattr(owner, field)
        if not isinstance(value, _SIMPLE) and field not in _OURS and not isinstance(value, Large):
            _check(value, f"$.{field}", 1)


_OURS = frozenset({"parts", "source", "large"})
_SIMPLE = (str, int, type(None))


_PAYLOADS = (model.Payload, Custom)
_PARTS = (model.Part, OtherPart)


def _check_kind(payload: Any) -> bool:
    """Refuse what is no payload, or is made of what is no part: it would be stored and not be read again.

    True where no value in it can be one that JSON can't hold: for a message of plain texts, calls with flat arguments
    and flat metadata.
    """
    if type(payload) is not Message and not isinstance(payload, _PAYLOADS):
        if isinstance(payload, Other | model.Damaged):
            raise Invalid(f"an event of type {payload.type!r} can only be appended as the Event it was read as")
        raise Invalid(f"an event is made by user(…), note(…) or their like, not a {type(payload).__name__}")
    if isinstance(payload, Message):
        plain = payload.metadata is None or _is_flat(payload.metadata)
        for part in cast("tuple[object, ...]", payload.parts):
            if type(part) is Text:
                continue
            if not isinstance(part, _PARTS):
                raise Invalid(f"a part of a message is text, tool_call(…) or their like, not a {type(part).__name__}")
            plain = plain and _is_plain(part)
        return plain
    if isinstance(payload, Custom) and not payload.type.startswith("x."):
        raise Invalid(f"the type of a custom event is x.<name>, not {payload.type!r:.80}", type=payload.type)
    return False


def _is_plain(part: object) -> bool:
    kind = type(part)
    if kind is ToolResult:
        return isinstance(cast("ToolResult", part).response, str)
    if kind is not ToolCall:
        return False
    call = cast("ToolCall", part)
    return call.timeout is None and _is_flat(call.arguments)


def _is_flat(value: object) -> bool:
    """Whether a value is a mapping of texts to texts, numbers and truths: nothing nests in it, nothing needs a look."""
    if type(value) is not dict:
        return False
    for key, item in cast("dict[object, object]", value).items():
        if type(key) is not str or type(item) not in _FLAT:
            return False
    return True


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
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
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
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        payload = _decode_leniently(body)
    # Whether some of its values are in the blob store. Written out, as every event that is read comes by here.
    if payload.large is not None or (payload.source is not None and payload.source.large is not None):
        return _with_values(payload, large)
    if type(payload) is Message:
        for part in payload.parts:
            if part.large is not None:
                return _with_values(payload, large)
    return payload


def larges(payload: AnyPayload) -> Iterator[Large]:
    """The large values of a payload that was read."""
    for owner in _owners(payload):
        for field in owner.LARGE_FIELDS:
            value = getattr(owner, field)
            if isinstance(value, Large):
                yield value


def _owners(payload: AnyPayload) -> Iterator[Any]:
    """The structs of a payload that may own a large value: itself, its source, its parts."""
    if isinstance(payload, Other | model.Damaged):
        return
    yield payload
    if payload.source is not None:
        yield payload.source
    if isinstance(payload, Message):
        yield from payload.parts


def _encode_with_care(payload: Any, large: LargeStore) -> bytes:
    for owner in _owners(payload):
        _check_values(owner)  # before sets become lists
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
        return value.preview or preview_of(ref, large), ref
    if isinstance(value, str):
        if not is_large(value):
            return None
        return value[:PREVIEW], large.put(value.encode("utf-8", "surrogatepass"), "text")
    if isinstance(value, dict | list | tuple):
        plain = _plain(value)
        _check(plain, "$", 0)
        data = _dumps(plain)
        return ("", large.put(data, "json")) if len(data) > LARGE else None
    return None


def is_large(text: str) -> bool:
    """Whether a text takes more than `LARGE` bytes."""
    if text.isascii() or len(text) > LARGE:
        return len(text) > LARGE
    return len(text) * 4 > LARGE and len(text.encode("utf-8", "surrogatepass")) > LARGE


def preview_of(ref: LargeRef, large: LargeStore) -> str:
    """How a large text begins; "" for what is no text."""
    if ref.form != "text":
        return ""
    with large.opener(ref)() as stream:
        return stream.read(4 * PREVIEW).decode("utf-8", "ignore")[:PREVIEW]


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
        _check_object(value, path, depth)


def _check_object(value: Any, path: str, depth: int) -> None:
    """Refuse a set, also one in the fields of a struct or dataclass; anything else is as the JSON that it becomes.

    A set comes in another order in another process, so a retry would be told as other content; and of things that can't
    be compared, no order is the right one.
    """
    if isinstance(value, set | frozenset):
        raise Invalid(f"{path} is a set, which has no order; make it a sorted list", path=path)
    fields = getattr(value, "__struct_fields__", None) or getattr(value, "__dataclass_fields__", None)
    if fields is None:
        _check(_plain(value), path, depth)
        return
    _check_depth(path, depth)
    for field in fields:
        _check(getattr(value, field, None), f"{path}.{field}", depth + 1)


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
