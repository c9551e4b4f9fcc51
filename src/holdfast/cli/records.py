"""Records as lines of JSON: how `append --jsonl` takes them, and how `--json --full` gives them, whole.

A record that refers to a large value speaks of the blobs of its own store. So none that is given may refer to one: it
would be stored as the preview alone, or read what is another's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from holdfast import codec
from holdfast.errors import Corrupt, Invalid, TooLarge
from holdfast.events.unknown import unknown_in
from holdfast.large import LargeValues
from holdfast.model import Event, Large, Other
from holdfast.plan import MAX_ENTRIES

if TYPE_CHECKING:
    from holdfast.log import Appendable


def payloads(lines: Iterable[bytes]) -> Iterator[Appendable]:
    """What the lines say, to be appended.

    Raises:
        Invalid: one of them is no record; the message tells its number.
        TooLarge: they are more than one append takes; no further line is read.
    """
    count = 0
    for number, line in enumerate(lines, 1):
        if line.strip():
            if (count := count + 1) > MAX_ENTRIES:
                raise TooLarge(f"there are more than {MAX_ENTRIES:,} records, the limit of one append; split them")
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise Invalid(f"line {number} is not UTF-8 (byte {error.start:,})") from None
            yield _payload(text, number)


def _payload(line: str, number: int) -> Appendable:
    try:
        plain = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"line {number} is no JSON: {error}", line=number) from None
    if not isinstance(plain, dict):
        raise Invalid(f'line {number} is no JSON object such as {{"type": "note", "text": "…"}}', line=number)
    fields: dict[str, Any] = {"v": 1, **plain}
    if any(owner.get("large") for owner in _owners(fields)):
        raise Invalid(
            f"line {number} has but the beginning of a value, whose whole is in the store that the record comes from "
            "(its field 'large'); take the record with --full, or copy the session",
            line=number,
        )
    raw = codec.encode_json(fields)
    payload = codec.decode(raw, LargeValues())
    # A record with its format version comes out of a store, perhaps a newer one's; without, it is somebody's slip.
    if isinstance(payload, Other) and "v" not in plain:
        kind = fields.get("type")
        raise Invalid(f"line {number}: {kind!r} is no type of event, or lacks a field it must have; "
                      "a type of your own is x.<name>", line=number)  # fmt: skip
    # Fields this version does not know are kept by keeping the bytes; without any, large values can move out.
    return Event(payload=payload, raw=raw) if isinstance(payload, Other) or unknown_in(payload, fields) else payload


def _owners(fields: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The objects of a record that may own a large value: itself, its source, its parts."""
    yield fields
    parts: Any = fields.get("parts")
    inside: list[Any] = [fields.get("source"), *(parts if isinstance(parts, list) else ())]
    yield from (owner for owner in inside if isinstance(owner, dict))


def whole(event: Event) -> bytes:
    """The bytes of an event that was read, with its large values in their places.

    Bytes have no form in JSON, and damaged ones none at all: these stay as references.
    """
    fields, payload = codec.decode_json(event.raw), event.payload
    owners: list[tuple[Any, Any]] = [(payload, fields), (payload.source, fields.get("source"))]
    owners += zip(getattr(payload, "parts", ()), fields.get("parts", ()), strict=False)
    for owner, plain in owners:
        for name in () if owner is None else owner.LARGE_FIELDS:
            value = getattr(owner, name)
            if not isinstance(value, Large) or value.form == "bytes":
                continue
            try:
                plain[name] = value.value()
            except Corrupt:
                continue  # `check` names it, and whoever appends the record elsewhere is told
            del plain["large"][name]
            if not plain["large"]:
                del plain["large"]
    return codec.encode_json(fields)
