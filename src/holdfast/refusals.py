"""What a refused commit of a session means: the error that says so."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.errors import (
    Conflict,
    Deleted,
    Exists,
    HoldfastError,
    Invalid,
    LeaseLost,
    NotFound,
    Stale,
    TooLarge,
    Trashed,
)
from holdfast.plan import MAX_HEAD_TAGS, Commit, Head, Refused


def refusal(refused: Refused, commit: Commit) -> HoldfastError:
    """The error that says why a commit was not made."""
    head, id = refused.head, commit.ref.id
    facts: dict[str, object] = {"session": id, "rev": head.rev if head else None, "last": head.last if head else None}
    if refused.why == "missing":
        return NotFound(f"there is no session {id!r}; create it first", **facts)
    if refused.why == "deleted":
        return Deleted(f"session {id!r} was deleted; only creating it as a new session starts it over", **facts)
    if refused.why == "trashed":
        return Trashed(f"session {id!r} is in the trash; restore it from there first (store.trash.restore)", **facts)
    turn = (commit.if_tags or {}).get("turn")
    if turn is not None and head is not None and head.tags.get("turn") != turn:
        # Told before any other reason: whoever was overtaken must stop, whatever else it was wrong about.
        return LeaseLost(
            f"turn {turn!r} of session {id!r} is over or was taken over: {_not_as_expected(head, commit)}; "
            "nothing of this write was stored, so stop, or begin a new turn",
            **facts,
            turn=head.tags.get("turn"),
        )
    if refused.why == "last":
        return Stale(
            f"session {id!r} is at event {facts['last']}, not {commit.if_last}; read what is new and decide again",
            **facts,
        )
    if refused.why == "rev":
        if commit.if_rev == 0:
            return Exists(f"session {id!r} is there already; use that one, or another id", **facts)
        return Stale(f"session {id!r} was changed meanwhile (revision {facts['rev']}); look at it and repeat", **facts)
    if refused.why == "tags":
        return Stale(f"session {id!r} is no longer as expected: {_not_as_expected(head, commit)}", **facts)
    if refused.why == "range":
        return Invalid(f"session {id!r} has no such events to hide or forget; it is at {facts['last']}", **facts)
    if refused.why == "full":
        return TooLarge(
            f"session {id!r} would have more than {MAX_HEAD_TAGS:,} fields, labels and models; take some away first",
            **facts,
            limit=MAX_HEAD_TAGS,
        )
    return Conflict(f"session {id!r} holds an event with that id already", **facts)


def _not_as_expected(head: Head | None, commit: Commit) -> str:
    tags: Mapping[str, str] = head.tags if head else {}
    wrong = [name for name, value in (commit.if_tags or {}).items() if tags.get(name) != value]
    return ", ".join(f"its {name} is {tags[name]!r}" if name in tags else f"it has no {name}" for name in wrong)
