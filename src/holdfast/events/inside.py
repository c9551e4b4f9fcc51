"""An append inside a transaction that is the caller's own: both are stored, or neither.

Only an engine that shares its transactions can do it, which is PostgreSQL. Nothing is remembered of it until the store
reads it, as the caller may yet roll it back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from holdfast.errors import Invalid, TooLarge
from holdfast.events.keys import check_key
from holdfast.events.receipts import Receipt, again, ids_of
from holdfast.history import ancestry
from holdfast.log import Appendable, Log
from holdfast.plan import Commit, Head, Refused
from holdfast.refusals import refusal
from holdfast.storage import Storage

UNCOMMITTED = "memory"
"""The durability of an append whose transaction is not committed."""


def append_inside(
    store: Storage, connection: object, id: str, events: Sequence[Appendable], key: str | None, expect: int | None
) -> Receipt:
    """See `Store.commit_in`."""
    commit_in = getattr(store.backend, "commit_in", None)
    if commit_in is None:
        raise Invalid("only the whole store of a postgresql: URL can be written inside a transaction of yours")
    check_key(key)
    log = Log(store, store.head(id))
    commit = _prepared(store, log, events, key, expect)
    if log.asks_first(commit) and ancestry.with_ids(store, store.head(id), ids_of(commit)):
        result: Head | Refused = Refused("known", store.head(id))
    else:
        inside = cast("Callable[[object, Sequence[Commit]], Sequence[Head | Refused]]", commit_in)
        result = inside(connection, [commit])[0]
    if isinstance(result, Head):
        return Receipt(id, result.last - len(commit.append) + 1, result.last, UNCOMMITTED)
    if result.why != "known":
        raise refusal(result, commit)
    told = again(store, store.head(id), commit, key)
    if isinstance(told, Receipt):
        return told
    raise Invalid(
        f"an event of this append is in session {id!r} already, or was appended in the same transaction; leave it out",
        session=id,
    )


def _prepared(store: Storage, log: Log, events: Sequence[Appendable], key: str | None, expect: int | None) -> Commit:
    with store.large.hold:
        commit = log.prepare(events, key, expect)
        if store.large.hold.used:
            raise TooLarge("a value of more than 64 KiB can't be part of your transaction; append it by itself")
    return commit
