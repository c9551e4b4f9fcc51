"""Deletions that a copy takes over: what is gone in the source goes in the target, if it is there as it was copied.

Invariant: nothing goes that anybody changed in the target since, or that is newer than what was deleted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from holdfast.copies import COPIED, STORE_ERRORS, Copied, head_digest
from holdfast.documents.docheads import DOC, doc_ref, id_of, owner_of
from holdfast.errors import Conflict, Corrupt, HoldfastError
from holdfast.heads.info import SESSION, session_ref
from holdfast.history import branching
from holdfast.plan import TRASHED, Commit, Head, Ref, Refused
from holdfast.refusals import called, insisted, refusal
from holdfast.storage import Storage

PAGE = 1000


def all_deletions(source: Storage, target: Storage) -> Iterator[Copied]:
    """Take over all deletions of the source that the target does not know; one that can't be stops no other."""
    for kind in (SESSION, DOC):
        after: tuple[int, str] | None = None
        while tombs := source.backend.find(kind, {}, after=after, limit=PAGE, dead=True):
            for ref in _alive(target, [tomb.ref for tomb in tombs]):
                yield from deletion(source, target, ref)
            after = (tombs[-1].at, tombs[-1].ref.id)


def ref_of(one: Copied) -> Ref:
    """The session or document of which it is told what became of it."""
    return doc_ref(one.user, one.document) if one.document else session_ref(one.session)


def living(store: Storage, ref: Ref) -> bool:
    """Whether there is a session or document, and not in the trash."""
    head = store.backend.get([ref])[0]
    return head is not None and not head.dead and not head.trashed


def _alive(target: Storage, refs: Sequence[Ref]) -> list[Ref]:
    """Those that are there, or may be."""
    try:
        return [head.ref for head in target.backend.get(refs) if head is not None and not head.dead]
    except Corrupt:  # one of them; each alone says which
        return list(refs)


def deletion(source: Storage, target: Storage, ref: Ref) -> Iterator[Copied]:
    """Take over the deletion of a session or document, and say so; nothing if there is none to take over."""
    session, document, user = (ref.id, "", None) if ref.kind == SESSION else ("", id_of(ref), owner_of(ref))
    try:
        deleted = insisted(lambda: _taken_over(source, target, ref))
    except STORE_ERRORS:
        raise
    except HoldfastError as error:
        yield Copied(session=session, document=document, user=user, error=error)
    else:
        if deleted:
            yield Copied(session=session, document=document, user=user, deleted=True)


def _taken_over(source: Storage, target: Storage, ref: Ref) -> bool:
    """Delete what the source deleted; False if there is nothing to do."""
    tomb, there = source.backend.get([ref])[0], target.backend.get([ref])[0]
    if tomb is None or there is None or there.dead or not tomb.dead:
        return False
    if head_digest(there) != there.tags.get(COPIED) or there.last > tomb.last or there.at > tomb.at:
        raise Conflict(
            f"{called(ref)} was deleted in the source and is another one in the target store; it stays there",
            session=ref.id if ref.kind == SESSION else "",
            document="" if ref.kind == SESSION else id_of(ref),
        )
    _delete(target, there, tomb.at)
    return True


def _delete(store: Storage, head: Head, at: int) -> None:
    """Delete what is still as it was seen, at the time at which the source did."""
    if head.ref.kind == SESSION:
        fence = {TRASHED: head.tags[TRASHED]} if head.trashed else None
        branching.delete(store, head.ref.id, fence, head.rev, at)
        return
    commit = Commit(ref=head.ref, at=at, if_rev=head.rev, delete=True)
    result = store.batcher.commit(commit)
    if isinstance(result, Refused):
        raise refusal(result, commit)
