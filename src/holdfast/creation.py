"""How a session comes to be: one commit on a head that is not there, so that of many who ask at once one creates it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from holdfast.errors import Denied, Exists, Invalid
from holdfast.info import STATES, encode_body, new_id, now, session_ref, tags_of
from holdfast.model import to_micros
from holdfast.plan import Commit, Head, Refused, check_id
from holdfast.refusals import refusal

if TYPE_CHECKING:
    from holdfast.store import Store


def get_or_create(
    store: Store,
    id: str | None,
    created: datetime | int | None,
    labels: Iterable[str],
    metadata: Mapping[str, Any] | None,
    config: Mapping[str, Any] | None,
    **texts: str | None,
) -> Head:
    """The head of the session with this id, created if it is not there; see `Store.session`."""
    user = texts["user"]
    if id is not None:
        check_id(id, "session id")
        head = store.backend.get([session_ref(id)])[0]
        if head is not None:
            return _own(head, user)
    commit = _creation(new_id() if id is None else id, 0, created, labels, metadata, config, texts)
    result = store.batcher.commit(commit)
    if isinstance(result, Head):
        return result
    if result.head is None:
        raise refusal(result, commit)
    return _own(result.head, user)


def _own(head: Head, user: str | None) -> Head:
    if head.dead:
        raise refusal(Refused("deleted", head), Commit(ref=head.ref))
    if head.trashed:
        raise refusal(Refused("trashed", head), Commit(ref=head.ref))
    if user is not None and head.tags.get("user") != user:
        raise Denied(f"session {head.ref.id!r} belongs to another user; use an id of your own")
    return head


def create(
    store: Store,
    id: str | None,
    created: datetime | int | None,
    labels: Iterable[str],
    metadata: Mapping[str, Any] | None,
    config: Mapping[str, Any] | None,
    **texts: str | None,
) -> Head:
    """The head of a new session; see `Store.create`."""
    rev = 0
    while True:
        commit = _creation(new_id() if id is None else id, rev, created, labels, metadata, config, texts)
        result = store.batcher.commit(commit)
        if isinstance(result, Head):
            return result
        if result.head is None:
            raise refusal(result, commit)
        if result.head.trashed:
            raise refusal(Refused("trashed", result.head), commit)
        if not result.head.dead:
            raise Exists(
                f"session {commit.ref.id!r} is there already; use that one, or another id",
                session=commit.ref.id,
                rev=result.head.rev,
                last=result.head.last,
            )
        rev = result.head.rev


def _creation(
    id: str,
    rev: int,
    created: datetime | int | None,
    labels: Iterable[str],
    metadata: Mapping[str, Any] | None,
    config: Mapping[str, Any] | None,
    texts: Mapping[str, str | None],
) -> Commit:
    if texts["state"] not in STATES:
        raise Invalid(f"state {texts['state']!r} is not one of {', '.join(STATES)}", state=texts["state"])
    if isinstance(labels, str):
        raise Invalid("labels is a list of labels, not one string", labels=labels)
    at = now() if created is None else to_micros(created)
    body = {name: dict(value) for name, value in (("metadata", metadata), ("config", config)) if value}
    tags = tags_of(labels=labels, **texts)
    return Commit(ref=session_ref(id), at=at, if_rev=rev, tags={**tags, "created": str(at)}, body=encode_body(body))
