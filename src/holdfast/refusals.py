"""What a refused commit of a session means: the error that says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from holdfast.errors import (
    Conflict,
    Deleted,
    Denied,
    Exists,
    HoldfastError,
    Invalid,
    LeaseLost,
    NotFound,
    Stale,
    TooLarge,
    Trashed,
)
from holdfast.plan import MAX_HEAD_TAGS, Commit, Head, Ref, Refused

TRIES = 20
"""How often somebody else may come first."""
T = TypeVar("T")


def refusal(refused: Refused, commit: Commit) -> HoldfastError:
    """The error that says why a commit was not made."""
    head, id, who = refused.head, commit.ref.id, called(commit.ref)
    facts: dict[str, object] = {"session": id, "rev": head.rev if head else None, "last": head.last if head else None}
    if refused.why == "missing":
        return NotFound(f"there is no {who}; create it first", **facts)
    if refused.why == "deleted":
        return Deleted(f"{who} was deleted; only creating it anew starts it over", **facts)
    if refused.why == "denied":
        return denied(commit.ref)
    if refused.why == "trashed":
        return Trashed(f"{who} is in the trash; restore it from there first", **facts)
    turn = (commit.if_tags or {}).get("turn")
    if turn is not None and head is not None and head.tags.get("turn") != turn:
        # Told before any other reason: whoever was overtaken must stop, whatever else it was wrong about.
        return LeaseLost(
            f"turn {turn!r} of {who} is over or was taken over: {_not_as_expected(head, commit)}; "
            "nothing of this write was stored, so stop, or begin a new turn",
            **facts,
            turn=head.tags.get("turn"),
        )
    if refused.why == "last":
        return Stale(
            f"{who} is at event {facts['last']}, not {commit.if_last}; read what is new and decide again",
            **facts,
        )
    if refused.why == "rev":
        if commit.if_rev == 0:
            return Exists(f"{who} is there already; use that one, or another id", **facts)
        return Stale(f"{who} was changed meanwhile (revision {facts['rev']}); look at it and repeat", **facts)
    if refused.why == "tags":
        return Stale(f"{who} is no longer as expected: {_not_as_expected(head, commit)}", **facts)
    if refused.why == "range":
        return Invalid(f"{who} has no such events to hide or forget; it is at {facts['last']}", **facts)
    if refused.why == "full":
        return TooLarge(
            f"{who} would have more than {MAX_HEAD_TAGS:,} fields, labels and models; take some away first",
            **facts,
            limit=MAX_HEAD_TAGS,
        )
    return Conflict(f"{who} holds an event with that id already", **facts)


def present(head: Head | None, ref: Ref, *, trashed: bool = False) -> Head:
    """A head that is there; with `trashed`, also if it is in the trash.

    Raises:
        NotFound, Deleted, Trashed: it is not.
    """
    if head is None or head.dead:
        raise refusal(Refused("deleted" if head else "missing", head), Commit(ref=ref))
    if head.trashed and not trashed:
        raise refusal(Refused("trashed", head), Commit(ref=ref))
    return head


def called(ref: Ref) -> str:
    """A head by its noun and id, in a sentence."""
    return f"document {ref.id.partition(':')[2]!r}" if ref.kind == "doc" else f"{ref.kind} {ref.id!r}"


def denied(ref: Ref) -> Denied:
    """The error for what belongs to another user."""
    return Denied(f"{called(ref)} belongs to another user; use an id of your own", session=ref.id)


def _not_as_expected(head: Head | None, commit: Commit) -> str:
    tags: Mapping[str, str] = head.tags if head else {}
    wrong = [name for name, value in (commit.if_tags or {}).items() if tags.get(name) != value]
    return ", ".join(f"its {name} is {tags[name]!r}" if name in tags else f"it has no {name}" for name in wrong)


def insisted(action: Callable[[], T]) -> T:
    """Do what looks anew each time, again while somebody else comes first; refused twice alike, it is to be so."""
    facts: object = None
    left = TRIES
    while True:
        try:
            return action()
        except (Stale, Exists, Trashed) as error:
            left -= 1
            if not left or facts == (facts := error.facts):
                raise
