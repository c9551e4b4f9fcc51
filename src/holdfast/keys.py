"""Idempotency keys: one for a whole batch, from which each of its events gets an id."""

from __future__ import annotations

from holdfast.errors import Invalid


def key_at(key: str | None, index: int) -> str:
    """The id of the event at `index` in a batch with a key."""
    if not key:
        return ""
    return key if index == 0 else f"{key}{JOINT}{index}"


JOINT = "\u241f"
"""Joins a batch's key and an event's place in it to the event's id; so no key of a caller's may hold it."""


def check_key(key: object) -> None:
    """Refuse a key that can't be told from those of other places."""
    if key is None:
        return
    if not isinstance(key, str):
        raise Invalid(f"the key must be text, not {type(key).__name__}", key=key)
    if JOINT in key:
        raise Invalid(f"the key {key[:80]!r} holds {JOINT!r}, which joins keys to places; leave it out", key=key)
