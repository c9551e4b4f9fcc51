"""Idempotency keys: one for a whole batch, from which each of its events gets an id; and ids from what an event is."""

from __future__ import annotations

from holdfast.errors import HoldfastError, Invalid
from holdfast.plan import check_id


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


def id_of(value: str) -> str:
    """A program's own id, or a stand-in that every store can hold."""
    try:
        check_id(value + " " * 64, "id")  # room for what is put before it
    except HoldfastError:
        import hashlib  # loads OpenSSL, which most programs can do without

        return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return value


USAGE = "u:"
"""Begins the ids of usage events that count a response, also of imported ones."""


def usage_id(response: str) -> str:
    """The id of the usage event that counts this response: a log holds it once."""
    return USAGE + id_of(response)


ARTIFACT = f"a{JOINT}"
"""Begins the ids of artifact events; no key of a caller's does."""


def artifact_id(number: int) -> str:
    """The id of a session's artifact event with this number, from 1: by them they are found without the log."""
    return f"{ARTIFACT}{number}"
