"""Fields of a stored event that this version does not know, beside those that it does: a newer one's, or a caller's.

They live in the event's bytes alone. Who shows an event to a person says them, too, as nothing is left out in silence.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, cast

from holdfast import codec
from holdfast.errors import Corrupt
from holdfast.model import AnyPayload, Damaged, Event, Message, Other, OtherPart

_OF_EVENT, _OF_PART = {"type", "v"}, {"type"}
"""What stands in an event and in a part beside their fields."""


class Unknown(NamedTuple):
    """The unknown fields of an event, and of each of its parts in their order. Those of its source stand under it."""

    fields: Mapping[str, Any]
    parts: tuple[Mapping[str, Any], ...]

    def __bool__(self) -> bool:
        return bool(self.fields) or any(self.parts)


def unknown_of(event: Event) -> Unknown:
    """Those of an event that was read."""
    if not event.raw or isinstance(event.payload, Other | Damaged):  # they are shown as they are, with all fields
        return Unknown({}, ())
    try:
        return unknown_in(event.payload, codec.decode_json(event.raw))
    except Corrupt as error:  # what is known could be read, as decoding it passes over the rest
        return Unknown({"unreadable": error.message}, ())


def unknown_in(payload: AnyPayload, plain: Mapping[str, Any]) -> Unknown:
    """Those in a record of which `payload` is what this version makes."""
    fields = _beyond(payload, plain, _OF_EVENT)
    if payload.source is not None and (beyond := _beyond(payload.source, plain["source"], ())):
        fields["source"] = beyond
    if not isinstance(payload, Message):
        return Unknown(fields, ())
    parts = zip(payload.parts, plain.get("parts", ()), strict=True)
    return Unknown(
        fields, tuple({} if isinstance(part, OtherPart) else _beyond(part, said, _OF_PART) for part, said in parts)
    )


def _beyond(known: Any, plain: Mapping[str, Any], beside: Collection[str]) -> dict[str, Any]:
    names = cast("tuple[str, ...]", known.__struct_fields__)
    return {name: value for name, value in plain.items() if name not in names and name not in beside}
