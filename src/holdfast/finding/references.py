"""What a person calls a session: its id, its name, the start of its id, or the last one."""

from __future__ import annotations

from holdfast.backend import Heads
from holdfast.errors import Corrupt, Deleted, Invalid, NotFound
from holdfast.heads.info import SESSION, session_ref
from holdfast.plan import MAX_ID, Head, check_id, check_text
from holdfast.salvage import logged_head
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


def called(store: Storage, name: str, *, user: str | None = None, trashed: bool = False) -> Head | None:
    """The head of the session with this name, of this user if one is given; with `trashed`, of those in the trash.

    Raises:
        Invalid: sessions of several users are called so; the message names some. Or no session can be called so.
        Corrupt: its head can't be trusted; `id` on the error names it.
    """
    check_text(name, "name", 4 * MAX_ID)
    tags = {"name": name} if user is None else {"name": name, "user": user}
    found = store.backend.find(SESSION, tags, limit=3, trashed=trashed) if name else Heads()
    ids = [head.ref.id for head in found] + [ref.id for ref in found.damaged]
    if len(ids) > 1:
        some = ", ".join(map(repr, ids))
        raise Invalid(f"several sessions are called {name!r}: {some}; use the id, or one user's store", matches=ids)
    if ids and not found:
        return store.head(ids[0], trashed=True)
    return found[0] if found else None


def got(store: Storage, id: str | None, name: str | None, *, keep: bool, trashed: bool = False) -> Head | None:
    """The head of the session with this id, whatever became of it, or with this name; None if there is none.

    With `keep`, also one that can't be trusted. See `Store.get`.
    """
    try:
        return store.peek(_only(id)) if name is None else called(store, _no_id(id, name), trashed=trashed)
    except Corrupt as error:
        if not keep:
            raise
        return logged_head(store.backend, session_ref(str(error.id) if id is None else id))


def one(store: Storage, id: str | None, name: str | None, *, trashed: bool = False) -> Head:
    """The head of the session with this id or name; with `trashed`, also of one in the trash.

    Raises:
        NotFound, Deleted, Trashed: there is none.
        Invalid: neither is given, or both; or several sessions are called so.
    """
    if name is None:
        return store.head(_only(id), trashed=trashed)
    for away in (trashed, not trashed):
        head = called(store, _no_id(id, name), trashed=away)
        if head is not None:
            return head if trashed or not away else store.head(head.ref.id)  # which says that it is in the trash
    raise NotFound(f"there is no session called {name!r}", name=name)


def given(store: Storage, id: str | None, name: str | None, *, trashed: bool = False) -> str | None:
    """The id of the session that is meant, which was given by id or by name; None if none is.

    Raises:
        NotFound, Trashed: there is none with the name; none that is not in the trash.
        Invalid: both are given, or the id can't be one; or several sessions are called so.
    """
    if name is not None:
        return one(store, id, name, trashed=trashed).ref.id
    if id is not None:
        check_id(id, "session id")
    return id


def _only(id: str | None) -> str:
    if id is None:
        raise Invalid("say which session: give its id, or name=")
    return id


def _no_id(id: str | None, name: str) -> str:
    if id is not None:
        raise Invalid(f"give the id {id!r} or the name {name!r}, not both", id=id, name=name)
    return name


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
