"""Copies of documents: one is made with the head and the blobs of another, or brought up to date.

As with sessions, a tag tells the head as the last copy left it; what was changed since is a Conflict and stays.
"""

from __future__ import annotations

import msgspec

from holdfast.copies import COPIED, Copied, changed, check_owner, head_digest, own_tags
from holdfast.documents.docheads import digests, document_info, id_of, owner_of
from holdfast.errors import Conflict, Corrupt
from holdfast.plan import Commit, Head, Ref, Refused
from holdfast.refusals import called, insisted, refusal
from holdfast.storage import Storage


def copy_document(source: Storage, target: Storage, ref: Ref) -> Copied:
    """Make a copy of a document in another store, equal in content, times and owner, or bring one up to date.

    Raises:
        NotFound, Deleted: the source has no such document, or the target had one that was deleted.
        Conflict: the target's document is not a copy of this one, or was changed after it was copied.
        Corrupt: something of it is damaged; `check` names it.
    """
    head = source.backend.get([ref])[0]
    if head is None or head.dead:
        raise refusal(Refused("deleted" if head else "missing", head), Commit(ref=ref))
    with target.large.hold:
        for digest in digests(source, head):
            data = source.backend.blobs.get(digest)
            if data is None:
                raise Corrupt(f"{called(ref)} lacks its blob {digest}", document=id_of(ref))
            target.large.put_blob(digest, data)
        return replay_document(target, head)


def replay_document(store: Storage, head: Head) -> Copied:
    """Make a document with this head, or bring a copy of it up to date; its blobs are there.

    Raises:
        Conflict: there is another one, or one that was changed later.
        Deleted: there was one.
        Denied: the store is open for another user.
        Corrupt: the head says what none can say.
    """
    document_info(head)
    check_owner(store, head)
    return insisted(lambda: _replay_document(store, head))


def _replay_document(store: Storage, head: Head) -> Copied:
    ref, there = head.ref, store.backend.get([head.ref])[0]
    if there is not None and there.dead and there.at >= head.at:  # what was put later begins anew
        raise refusal(Refused("deleted", there), Commit(ref=ref))
    told = Copied(document=id_of(ref), user=owner_of(ref))
    wanted, found = own_tags(head), {} if there is None else own_tags(there)
    if there is not None and not there.dead:
        if (wanted, head.body, head.at) == (found, there.body, there.at):
            return told
        if there.at > head.at or head_digest(there) not in (there.tags.get(COPIED), head.tags.get(COPIED)):
            raise Conflict(
                f"{called(ref)} is in the target store and is another one there; nothing was overwritten",
                document=told.document,
            )
    tags: dict[str, str | None] = {**dict.fromkeys(found), **wanted}
    changed(store, there, Commit(ref=ref, at=head.at, if_rev=there.rev if there else 0, tags=tags, body=head.body))
    return msgspec.structs.replace(told, new=1)
