"""Which events may be large, told quickly: storing those writes blobs, which takes too long for an event loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from holdfast.codec import LARGE, is_large
from holdfast.log import Appendable
from holdfast.model import AnyPayload, Event, Large, Message
from holdfast.parts import AnyPart, Text


def may_write_blobs(events: Sequence[Appendable]) -> bool:
    """Whether storing the events may write blobs, which must not be done on the event loop."""
    for event in events:
        payload = event if type(event) is Message else event.payload if isinstance(event, Event) else event
        if type(payload) is Message and payload.source is None:
            for part in payload.parts:
                if not _is_short(part) and _may_be_large(part):
                    return True
        elif payload.source is not None or _may_be_large(payload):
            return True
        if event is not payload and isinstance(event, Event) and event.raw:
            return True
    return False


def _is_short(part: AnyPart) -> bool:
    """Whether a part is a text that surely stays in its event: as most are, it is looked at first."""
    return type(part) is Text and isinstance(part.content, str) and len(part.content) * 4 <= LARGE


def _may_be_large(owner: AnyPayload | AnyPart) -> bool:
    for field in owner.LARGE_FIELDS:
        value = getattr(owner, field)
        if isinstance(value, str):
            if is_large(value):
                return True
        elif isinstance(value, Large) or (isinstance(value, dict | list) and not _is_small(cast("Any", value))):
            return True
    return False


def _is_small(value: Any) -> bool:
    """Whether a JSON value surely stays small; how long it gets is only known once it is encoded."""
    try:
        return len(repr(value)) * 2 <= LARGE
    except RecursionError:
        return False
