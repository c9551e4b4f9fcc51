"""Into the trash and out of it: what may go there, and the one commit that moves a session.

Invariant: no living session reads through one in the trash, but for the moment in which both change. A move is made
by the revision that was looked at. A fork pins its parent before it creates its child, which gives the parent another
revision; so a fork under way is seen as a pin, one that was made as a child, and one in between fails the move. So it
is with a fork that comes back from the trash.
"""

from __future__ import annotations

from holdfast import codec
from holdfast.errors import Conflict
from holdfast.history.branching import children, pending
from holdfast.model import Edit
from holdfast.plan import TRASHED, Commit, Entry, Head
from holdfast.storage import Storage
from holdfast.turns.leases import held, mark_of

WHY = "trash_why"
"""Tag of a session in the trash: why it is there."""
PRUNED = "pruned"
"""Tag of a session in the trash: the prune that put it there."""


def running(head: Head) -> str:
    """Why a session can't be put away while somebody runs it; "" if nobody does."""
    if head.tags.get("turn") is not None:
        return "a turn holds it"
    return "it is running" if head.tags.get("state") == "running" else ""


def forking(store: Storage, head: Head) -> str:
    """Why a session can't be put away while a fork of it is under way; "" if none is."""
    child = next(iter(pending(store, head).values()), None)
    return "" if child is None else f"its fork {child!r} is under way or was interrupted"


def forked(store: Storage, id: str) -> str:
    """Why a session can't be put away while a fork reads through it; "" if none does. Its head was looked at before."""
    child = next((child for _, child in children(store, id)), None)
    return "" if child is None else f"its fork {child!r} reads its events"


def check_free(store: Storage, head: Head) -> None:
    """Refuse to put a session away that somebody needs.

    Raises:
        LeaseHeld: a turn holds it.
        Conflict: it is running, or a fork reads through it or is about to; `fork` on the error names a fork.
    """
    id = head.ref.id
    if mark_of(head) is not None:
        lease, left = store.turns.sightings.look(head)
        if lease is not None and lease.turn is not None:
            raise held(lease, left)
    if why := running(head) or forking(store, head) or forked(store, id):
        raise Conflict(f"session {id!r} can't be put into the trash: {why}", session=id)


def away(head: Head, at: int, why: str, prune: str | None, large: codec.LargeStore) -> Commit:
    """The commit that puts a session into the trash as it was seen. Its last activity stays what it was."""
    return Commit(
        ref=head.ref,
        if_rev=head.rev,
        tags={TRASHED: str(at), WHY: why, PRUNED: prune},
        append=[Entry("", at, codec.encode(Edit(action="trash"), large))],
    )


def back(head: Head, at: int, large: codec.LargeStore) -> Commit:
    """The commit that brings a session back that is in the trash as it was seen."""
    return Commit(
        ref=head.ref,
        if_rev=head.rev,
        if_tags={TRASHED: head.tags.get(TRASHED)},
        tags={TRASHED: None, WHY: None, PRUNED: None},
        append=[Entry("", at, codec.encode(Edit(action="restore"), large))],
    )
