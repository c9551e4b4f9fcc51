"""How a session comes to be: one commit on a head that is not there, so that of many who ask at once one creates it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from holdfast.errors import Exists, Invalid
from holdfast.finding.references import called
from holdfast.heads import names
from holdfast.heads.info import STATES, SUMMARY, check_user, encode_body, new_id, now, session_ref, tags_of
from holdfast.heads.settings import SessionConfig, without, without_secrets
from holdfast.model import to_micros
from holdfast.plan import Commit, Head, Refused, check_id
from holdfast.refusals import denied, present, refusal
from holdfast.storage import Storage

PAUSE, LONGEST = 0.001, 0.1
"""Seconds after which a name is looked at again that another session is getting: at first, and in the end."""
PATIENCE = 10.0
"""Seconds for which one waits for that."""


def get_or_create(
    store: Storage,
    id: str | None,
    created: datetime | int | None,
    labels: Iterable[str],
    metadata: Mapping[str, Any] | None,
    config: Mapping[str, Any] | SessionConfig | None,
    **texts: str | None,
) -> Head:
    """The head of the session with this id, or else this name, created if it is not there; see `Store.session`."""
    user = texts["user"] = check_user(texts["user"]) or store.user
    if id is None and texts["name"]:
        labels = labels if isinstance(labels, str) else tuple(labels)  # it may take several tries
        return _named(
            store, texts["name"], user, lambda: create(store, None, created, labels, metadata, config, **texts)
        )
    if id is not None:
        check_id(id, "session id")
        head = store.backend.get([session_ref(id)])[0]
        if head is not None:
            return _own(head, user)
    metadata, config = _safe(store, metadata, config)
    commit = _creation(new_id() if id is None else id, 0, created, labels, metadata, config, texts)
    with names.held(store, user, texts["name"], commit.ref.id):
        result = store.batcher.commit(commit)
        if isinstance(result, Head):
            return result
        if result.head is None:
            raise refusal(result, commit)
        return _own(result.head, user)


def _named(store: Storage, name: str, user: str | None, make: Callable[[], Head]) -> Head:
    """The head of the session with this name. Of many who ask at once one creates it: who claims the name."""
    pause, until = PAUSE, time.monotonic() + PATIENCE
    while True:
        head = called(store, name, user=user) or called(store, name, user=user, trashed=True)
        if head is not None:
            return _own(head, user)
        try:
            return make()
        except Exists:
            # Somebody has it now, or is about to; that takes a commit, or was interrupted.
            if time.monotonic() >= until:
                raise
            time.sleep(pause)
            pause = min(2 * pause, LONGEST)


def _safe(
    store: Storage, metadata: Mapping[str, Any] | None, config: Mapping[str, Any] | SessionConfig | None
) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """Metadata and config without what is secret."""
    if isinstance(config, SessionConfig):
        config = config.onto({})
    return (
        None if metadata is None else without(metadata, store.secrets),
        None if config is None else without_secrets(config, store.secrets),
    )


def _own(head: Head, user: str | None) -> Head:
    present(head, head.ref)
    if user is not None and head.tags.get("user") != user:
        raise denied(head.ref)
    return head


def create(
    store: Storage,
    id: str | None,
    created: datetime | int | None,
    labels: Iterable[str],
    metadata: Mapping[str, Any] | None,
    config: Mapping[str, Any] | SessionConfig | None,
    **texts: str | None,
) -> Head:
    """The head of a new session; see `Store.create`."""
    texts["user"] = check_user(texts["user"]) or store.user
    metadata, config = _safe(store, metadata, config)
    commit = _creation(new_id() if id is None else id, 0, created, labels, metadata, config, texts)
    with names.held(store, texts["user"], texts["name"], commit.ref.id):
        return _create(store, commit)


def _create(store: Storage, commit: Commit) -> Head:
    while True:
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
        commit = msgspec.structs.replace(commit, if_rev=result.head.rev)


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
    tags = {**tags_of(labels=labels, **texts), "created": str(at), SUMMARY: "0"}
    return Commit(ref=session_ref(id), at=at, if_rev=rev, tags=tags, body=encode_body(body))
