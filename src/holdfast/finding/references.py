"""What a person calls a session: its id, its name, the start of its id, or the last one."""

from __future__ import annotations

from holdfast.backend import Heads
from holdfast.errors import Deleted, Invalid, NotFound
from holdfast.heads.info import SESSION, session_ref
from holdfast.plan import Head, check_id
from holdfast.storage import Storage


def resolved(store: Storage, reference: str) -> Head:
    """The head of the session that is meant; see `Store.resolve`."""
    if reference == "@last":
        newest = store.backend.find(SESSION, {}, limit=1)
        if newest.damaged:
            return store.head(newest.damaged[0].id)
        if not newest:
            raise NotFound("the store holds no session yet")
        return newest[0]
    check_id(reference, "session id")
    head = store.backend.get([session_ref(reference)])[0]
    if head is not None and not head.dead and not head.trashed:
        return head
    found = store.backend.find(SESSION, {"name": reference}, limit=3)
    if not found and not found.damaged:
        found = _starting_with(store, reference)
    ids = [head.ref.id for head in found] + [ref.id for ref in found.damaged]
    if len(ids) == 1:
        return found[0] if found else store.head(ids[0])
    if ids:
        some = ", ".join(map(repr, ids))
        raise Invalid(f"{reference!r} could be {some}; write more of the id", matches=ids)
    if head is not None:
        store.head(reference)  # says so if it is in the trash
        raise Deleted(f"session {reference!r} was deleted", session=reference)
    raise NotFound(f"there is no session with the id, name or start of an id {reference!r}", session=reference)


def _starting_with(store: Storage, prefix: str) -> Heads:
    if store.user is not None:
        return _own_starting_with(store, prefix)
    # There is none with just this id, and behind it follow those that start with it.
    heads = store.backend.scan(SESSION, prefix, 3)
    return Heads(
        [head for head in heads if head.ref.id.startswith(prefix)],
        [ref for ref in heads.damaged if ref.id.startswith(prefix)],
    )


def _own_starting_with(store: Storage, prefix: str) -> Heads:
    """The same among one user's sessions, which are found by their owner: by id, all users' would be looked at."""
    found = Heads()
    after = None
    while len(found) < 3 and (heads := store.backend.find(SESSION, {}, after=after, limit=1000)):
        found.extend(head for head in heads if head.ref.id.startswith(prefix))
        after = (heads[-1].at, heads[-1].ref.id)
    return found
