"""Where a store stands, as a text that is kept anywhere and understood by every opening of the same store."""

from __future__ import annotations

import base64
from typing import Any, TypeVar

import msgspec

from holdfast.errors import Invalid

T = TypeVar("T")


def written(store: str, facts: object) -> str:
    """The text of what a backend knows of a moment of the store with this id."""
    return base64.urlsafe_b64encode(msgspec.json.encode([store, facts])).decode().rstrip("=")


def read(position: str, store: str, type: type[T]) -> T:
    """What a text says of a moment of the store with this id.

    Raises:
        Invalid: it is of another store, or no position at all.
    """
    try:
        data = base64.b64decode(position + "=" * (-len(position) % 4), altchars=b"-_", validate=True)
        of, facts = msgspec.json.decode(data, type=tuple[str, Any])
        if of == store:
            return msgspec.convert(facts, type)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        raise no_position(position) from None
    raise Invalid("this position is one of another store; begin without one, or open the store that it is of")


def no_position(position: str) -> Invalid:
    """A text is no position of a store."""
    return Invalid(f"{position[:80]!r} is no position of a watch; pass one that a change came with", position=position)
