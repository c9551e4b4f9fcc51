"""What an append is answered with, the first time and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from holdfast import ancestry
from holdfast.errors import KeyReused
from holdfast.keys import key_at
from holdfast.plan import Commit, Head

if TYPE_CHECKING:
    from holdfast.store import Store


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


def repeated(store: Store, head: Head, commit: Commit, key: str | None) -> Receipt:
    """The receipt of a batch of which the log holds an id: the same batch again, or a key used twice.

    Raises:
        KeyReused: what is stored is not what was sent.
    """
    ids = ids_of(commit)
    beyond = [key_at(key, len(commit.append))] if key else []
    stored = ancestry.with_ids(store, head, [*ids, *beyond])
    if stored and len(ids) < len(commit.append):
        # Events without an id are told by where they stand: beside those of the batch that have one.
        before = stored[0].seq - [entry.id for entry in commit.append].index(stored[0].id) - 1
        count = len(commit.append)
        stored = ancestry.read(store, head, after=before, upto=before + count, limit=count, voided=True)
    same = len(stored) == len(commit.append) and all(
        a.id == b.id and a.body == b.body for a, b in zip(stored, commit.append, strict=True)
    )
    if not same:
        at = stored[0].seq if stored else 0
        raise KeyReused(
            f"the key {ids[0]!r} was used in session {head.ref.id!r} for other content (event {at}); use a new key",
            session=head.ref.id,
            key=ids[0],
            seq=at,
        )
    return Receipt(head.ref.id, stored[0].seq, stored[-1].seq, store.durability, repeated=True)
