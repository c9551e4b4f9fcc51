"""What an append is answered with, the first time and again."""

from __future__ import annotations

import msgspec

from holdfast.errors import KeyReused
from holdfast.events.keys import ARTIFACT, key_at
from holdfast.events.naming import by_nature, marked, renamed
from holdfast.history import ancestry
from holdfast.plan import Commit, Entry, Head
from holdfast.storage import Storage


class Receipt(msgspec.Struct, frozen=True):
    """What an append stored: the numbers of its first and last event, and how safe they are.

    `repeated` says that an earlier call with the same key had stored them already.
    """

    session: str
    first: int
    last: int
    durability: str
    repeated: bool = False


def ids_of(commit: Commit) -> list[str]:
    """The ids that a commit's entries are known by."""
    return [entry.id for entry in commit.append if entry.id]


def again(store: Storage, head: Head, commit: Commit, key: str | None) -> Receipt | Commit:
    """What to make of a batch of which the log holds an id: the receipt of the same batch, stored before; or the batch
    to store instead, where no more than the ids are taken that its events have by nature.

    Raises:
        KeyReused: the key was used, and what is stored is not what was sent.
    """
    ids = ids_of(commit)
    given = [entry.id for entry in commit.append if entry.id and not by_nature(entry)]
    beyond = [key_at(key, len(commit.append))] if key else []
    known = ancestry.with_ids(store, head, [*given, *beyond]) or ancestry.with_ids(store, head, ids)
    stored = known
    if stored and len(given) < len(commit.append) and stored[0].id in ids:
        # The others are told by where they stand: beside those of the batch that have a caller's id.
        before = stored[0].seq - [entry.id for entry in commit.append].index(stored[0].id) - 1
        count = len(commit.append)
        stored = ancestry.read(store, head, after=max(before, 0), upto=before + count, limit=count, voided=True)
    if len(stored) == len(commit.append) and all(map(_is_same, stored, commit.append)):
        return Receipt(head.ref.id, stored[0].seq, stored[-1].seq, store.durability, repeated=True)
    if known and (known[0].id in given or known[0].id in beyond):
        raise KeyReused(
            f"the key {ids[0]!r} was used in session {head.ref.id!r} for other content (event {known[0].seq}); "
            "use a new key",
            session=head.ref.id,
            key=ids[0],
            seq=known[0].seq,
        )
    return renamed(store, store.head(head.ref.id), commit, known)


def _is_same(stored: Entry, sent: Entry) -> bool:
    """Whether an entry is stored as it was sent, maybe with another number, or as usage that was counted before."""
    if stored.id == sent.id:
        return stored.body == sent.body
    if sent.id.startswith(ARTIFACT):
        return stored.id.startswith(ARTIFACT) and stored.body == sent.body
    return not stored.id and by_nature(sent) and stored.body == marked(sent.body)
