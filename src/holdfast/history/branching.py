"""Forks of a session: sessions of their own whose logs begin with another one's, without a copy of it.

Invariant: a session that a living fork reads through is not deleted. A commit changes one head only, so a fork first
pins its parent (a tag that names the child, and a mark that is new each time), then creates the child, then takes the
pin away; so does one that comes back from the trash. A delete looks for children and pins, and is refused if that mark
is another one by then. A pin whose child is not there belongs to a fork that is under way or was interrupted: the
delete takes the child's id away from it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Generator, Iterator, Mapping

import msgspec

from holdfast.errors import Conflict, Corrupt, Denied, Exists, Invalid, Stale, Unavailable, Uncertain
from holdfast.finding.references import one
from holdfast.heads import names
from holdfast.heads.info import (
    CALL_TIMEOUT,
    EDIT,
    SESSION,
    SUMMARY,
    SessionInfo,
    body_of,
    created_at,
    encode_body,
    info_of,
    new_id,
    now,
    said_by_appends,
    session_ref,
    tags_of,
)
from holdfast.history.ancestry import FORKED, first_of, segments
from holdfast.history.checkpoints import forget
from holdfast.history.counting import standing_at
from holdfast.plan import MAX_TAGS, Commit, Head, Refused, check_id, plan
from holdfast.refusals import refusal
from holdfast.storage import Storage

MARK = "forking"
"""Tag of a session that was forked: another value with each pin, by which a delete knows that it missed one."""
PIN = "fork:"
"""Begins the tags of a session that name the forks of it that are under way."""
KEPT = ("user", "title", "agent", "project")
"""What a fork takes over from its parent, besides metadata and config."""
TRIES = 200
PAGE = 1000


class Branch(msgspec.Struct, frozen=True, kw_only=True):
    """A session in the tree of its forks. `at` is the seq up to which it is its parent's; 0 for the first.

    `damaged` has the ids of forks that were left out, with theirs, because their heads can't be trusted.
    """

    session: SessionInfo
    at: int = 0
    forks: tuple[Branch, ...] = ()
    damaged: tuple[str, ...] = ()


def fork(
    store: Storage,
    parent: str,
    at: int | None,
    name: str | None,
    id: str | None,
    fence: Mapping[str, str | None] | None = None,
) -> Head:
    """See `Session.fork`; only if the parent's head carries the tags of `fence`."""
    child = new_id() if id is None else id
    check_id(child, "session id")
    head = store.head(parent)
    at = head.last if at is None else at
    # All of this follows from the events up to `at`, which nobody can change any more.
    commit = _creation(store, head, child, at, name)
    with names.held(store, head.tags.get("user"), name, child):
        return _fork(store, head, commit, fence)


def _fork(store: Storage, head: Head, commit: Commit, fence: Mapping[str, str | None] | None) -> Head:
    parent, child, at = head.ref.id, commit.ref.id, commit.base
    with pinned(store, head, child, fence):
        made = store.batcher.commit(commit)
    if isinstance(made, Head):
        return made
    if made.head is None or made.head.dead or made.head.trashed:
        raise refusal(made, commit)
    if made.head.tags.get(FORKED) == parent and made.head.base == at:
        return made.head  # an earlier call made it, whose answer was lost
    raise Exists(f"session {child!r} is there already; choose another id for the fork", session=child)


@contextlib.contextmanager
def pinned(store: Storage, parent: Head, child: str, fence: Mapping[str, str | None] | None = None) -> Generator[None]:
    """Keep a session from being put away or deleted while a fork of it comes to be, or back from the trash.

    Pins that were left behind, of forks that are there or can't come to be any more, go with this one.
    """
    pin = Commit(
        ref=parent.ref,
        if_tags={"created": parent.tags.get("created"), **(fence or {})},
        tags={_pin(child): child, MARK: new_id()},
    )
    held = store.batcher.commit(pin)
    if isinstance(held, Refused):
        raise refusal(held, pin)
    yield
    under_way = pending(store, held)
    over = [tag for tag in pins(held) if tag not in under_way]
    unpin = Commit(ref=parent.ref, tags=dict.fromkeys([_pin(child), *over]))
    try:
        unpinned = store.batcher.commit(unpin)
    except (Unavailable, Uncertain):
        return  # what was to be done is done; a pin that is left behind is as one of a fork that was interrupted
    if isinstance(unpinned, Refused):
        raise refusal(unpinned, unpin)


def _pin(child: str) -> str:
    return PIN + hashlib.sha256(child.encode()).hexdigest()[:32]  # an id may be as long as a tag's name


def pins(head: Head) -> dict[str, str]:
    """The forks of a session that are under way or were interrupted: the ids of the children, by tag."""
    return {tag: child for tag, child in head.tags.items() if tag.startswith(PIN)}


def pending(store: Storage, head: Head) -> dict[str, str]:
    """The pins of a session that may yet become living forks: those of ids that are free, or in the trash."""
    found: dict[str, str] = {}
    for tag, child in pins(head).items():
        try:
            there = store.backend.get([session_ref(child)])[0]
        except Denied:
            continue  # the id is another user's: nothing will come of that fork
        if there is None or there.trashed:
            found[tag] = child
    return found


def _creation(store: Storage, head: Head, child: str, at: int, name: str | None) -> Commit:
    lineage = segments(store, head)
    first = first_of(lineage)
    if not first <= at <= head.last:
        raise Invalid(
            f"session {head.ref.id!r} can't be forked at {at}; it holds the events {first + 1} to {head.last}",
            session=head.ref.id,
            at=at,
            last=head.last,
        )
    stood = standing_at(store, head, at)
    time = now()
    tags: dict[str, str | None] = {name: head.tags[name] for name in KEPT if name in head.tags}
    tags |= tags_of(name=name, parent=head.ref.id, state="idle")
    tags |= {FORKED: head.ref.id, "created": str(time), EDIT: str(stood.edit) if stood.edit else None}
    tags[SUMMARY] = None if stood.summary is None else str(stood.summary)
    tags[CALL_TIMEOUT] = head.tags.get(CALL_TIMEOUT)
    models = [tag for tag in head.tags if said_by_appends(tag) and tag not in tags][:MAX_TAGS]
    return Commit(
        ref=session_ref(child),
        at=time,
        if_rev=0,
        base=at,
        tags=tags,
        defaults=dict.fromkeys(models, "1"),
        add=stood.counts or None,
        body=encode_body(body_of(head)),  # with what this version does not know
    )


def children(store: Storage, id: str, *, trashed: bool = False) -> Iterator[tuple[Head | None, str]]:
    """The living forks of a session and their ids, or those in the trash; no head where it can't be trusted."""
    after: tuple[int, str] | None = None
    while True:
        heads = store.backend.find(SESSION, {FORKED: id}, after=after, limit=PAGE, trashed=trashed)
        yield from ((None, ref.id) for ref in heads.damaged)
        yield from ((head, head.ref.id) for head in heads)
        if len(heads) < PAGE:
            return
        after = (heads[-1].at, heads[-1].ref.id)


def delete(
    store: Storage,
    id: str,
    fence: Mapping[str, str | None] | None = None,
    rev: int | None = None,
    at: int | None = None,
) -> None:
    """See `Store.delete`; only if the head carries the tags of `fence`, and only if it is still at `rev`.

    `at` is when it was deleted, now if not given.
    """
    check_id(id, "session id")
    for _ in range(TRIES):
        try:
            head = store.backend.get([session_ref(id)])[0]
        except Corrupt:
            head = None  # nobody can pin it: a fork needs a head that can be trusted
        if head is not None:
            _check_deletable(head, fence, rev)  # before it takes anything from forks that are under way
        _check_unforked(store, id)
        if head is not None:
            for child in pins(head).values():
                _take_id(store, child, head)
        mark = {MARK: head.tags.get(MARK)} if head is not None and not head.dead else {}
        tags = {**mark, **(fence or {})} or None
        commit = Commit(ref=session_ref(id), at=now() if at is None else at, delete=True, if_rev=rev, if_tags=tags)
        result = store.batcher.commit(commit)
        if isinstance(result, Head):
            if head is not None:
                names.release(store, head.tags.get("user"), head.tags.get("name"), id)
            forget(store, id, head)
            return
        if result.why != "tags" or _lost(result.head, fence):
            raise refusal(result, commit)
    raise Stale(f"session {id!r} was forked {TRIES} times during one delete; try again", session=id)


def delete_one(store: Storage, id: str | None, name: str | None) -> None:
    """Delete the session with this id, or that has this name when it is deleted; see `Store.delete`."""
    if id is not None and name is None:
        return delete(store, id)
    for _ in range(TRIES):
        head = one(store, id, name)
        try:
            return delete(store, head.ref.id, {"name": name})
        except Stale:
            there = store.peek(head.ref.id)
            if there is not None and there.tags.get("name") == name:
                raise
    raise Stale(f"the name {name!r} changed hands {TRIES} times during one delete; try again", name=name)


def _check_deletable(head: Head, fence: Mapping[str, str | None] | None, rev: int | None) -> None:
    commit = Commit(ref=head.ref, delete=True, if_rev=rev, if_tags=fence)
    refused = plan(head, (), commit)
    if isinstance(refused, Refused):
        raise refusal(refused, commit)


def _lost(head: Head | None, fence: Mapping[str, str | None] | None) -> bool:
    return head is not None and any(head.tags.get(name) != value for name, value in (fence or {}).items())


def _check_unforked(store: Storage, id: str) -> None:
    child = any_fork(store, id)
    if child is not None:
        raise Conflict(
            f"session {id!r} can't be deleted while its fork {child!r} reads its events; "
            "delete that one first, or purge it if it is in the trash",
            session=id,
            fork=child,
        )


def any_fork(store: Storage, id: str) -> str | None:
    """The id of a session that reads events through this one, be it in the trash; None if there is none."""
    for trashed in (False, True):
        for _, child in children(store, id, trashed=trashed):
            return child
    return None


def _take_id(store: Storage, child: str, parent: Head) -> None:
    """See to it that a fork which is under way, or was interrupted, can't create its child any more."""
    store.batcher.commit(Commit(ref=session_ref(child), at=now(), if_rev=0, delete=True))
    _check_unforked(store, parent.ref.id)


def tree(store: Storage, id: str | None, name: str | None) -> Branch:
    """See `Store.tree`."""
    root = segments(store, one(store, id, name))[-1].head
    order, below, damaged = [root], dict[str, list[Head]](), dict[str, list[str]]()
    for head in order:  # it grows meanwhile
        for child, name in children(store, head.ref.id):
            if child is None:
                damaged.setdefault(head.ref.id, []).append(name)
            else:
                below.setdefault(head.ref.id, []).append(child)
                order.append(child)
    made: dict[str, Branch] = {}
    for head in reversed(order):
        forks = sorted(below.get(head.ref.id, ()), key=lambda child: (child.base, created_at(child), child.ref.id))
        made[head.ref.id] = Branch(
            session=info_of(head),
            at=head.base if FORKED in head.tags else 0,
            forks=tuple(made[child.ref.id] for child in forks),
            damaged=tuple(damaged.get(head.ref.id, ())),
        )
    return made[root.ref.id]
