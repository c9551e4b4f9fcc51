"""What is said about a session, changed in one commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from holdfast.errors import Invalid, Stale
from holdfast.heads import names
from holdfast.heads.info import body_of, encode_body, now, tags_of
from holdfast.heads.settings import SessionConfig, without, without_secrets
from holdfast.plan import Commit, Head
from holdfast.refusals import refusal
from holdfast.storage import Storage

T = TypeVar("T")
RETRIES = 200
"""How often an update starts over when others change the session at the same time."""
UPDATABLE = ("name", "title", "agent", "parent", "project")


def update(
    store: Storage,
    head: Head,
    fence: Mapping[str, str | None] | None,
    *,
    labels: Sequence[str] | Mapping[str, bool] | None = None,
    metadata: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | SessionConfig | None = None,
    **fields: str | None,
) -> Head:
    """The head after an update; see `Session.update`."""

    def apply(more: Mapping[str, str | None]) -> Head:
        expected = {**(fence or {}), **more} or None
        for _ in range(RETRIES):
            commit = prepare_update(store, head, expected, labels=labels, metadata=metadata, config=config, **fields)
            result = store.batcher.commit(commit)
            if isinstance(result, Head):
                return result
            if result.why != "rev":
                raise refusal(result, commit)
        raise restless(head.ref.id)

    return named(store, head.ref.id, fields, apply)


def named(
    store: Storage, id: str, fields: Mapping[str, str | None], apply: Callable[[Mapping[str, str | None]], T]
) -> T:
    """Make a change of fields, the name among them if it is there, which is claimed before and released behind it.

    Args:
        apply: Makes the change if the session carries the tags it is given.
    """
    if "name" not in fields:
        return apply({})
    for _ in range(RETRIES):
        seen = store.head(id)
        user, old, new = seen.tags.get("user"), seen.tags.get("name"), fields["name"] or None
        try:
            with names.held(store, user, new if new != old else None, id):
                changed = apply({"name": old})
        except Stale:
            if store.head(id).tags.get("name") == old:
                raise
            continue  # another name was given to it meanwhile, which is the one to release
        if old != new:
            names.release(store, user, old, id)
        return changed
    raise restless(id)


def restless(id: str) -> Stale:
    """The error for a session that others change without a pause."""
    return Stale(f"session {id!r} changed {RETRIES} times during one update; try again", session=id)


def prepare_update(
    store: Storage,
    head: Head,
    fence: Mapping[str, str | None] | None,
    *,
    labels: Sequence[str] | Mapping[str, bool] | None = None,
    metadata: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | SessionConfig | None = None,
    **fields: str | None,
) -> Commit:
    """The commit that an update makes. Only metadata and config, which are merged, need the current head."""
    for name in fields:
        if name not in UPDATABLE:
            raise Invalid(f"a session has no field {name!r} to update; there are {', '.join(UPDATABLE)}", field=name)
    if isinstance(labels, str):
        raise Invalid("labels is a list of labels, not one string", labels=labels)
    tags = tags_of(labels=labels or (), **fields)
    if metadata is None and config is None:
        return Commit(ref=head.ref, at=now(), tags=tags, if_tags=fence)
    head = store.head(head.ref.id)
    body = body_of(head)
    secrets = store.secrets
    if isinstance(config, SessionConfig):
        body["config"] = without_secrets(config.onto(body.get("config", {})), secrets)
    for name, patch in (("metadata", metadata), ("config", config)):
        if patch is not None and not isinstance(patch, SessionConfig):
            safe = without_secrets(patch, secrets) if name == "config" else without(patch, secrets)
            merged = {**body.get(name, {}), **safe}
            body[name] = {key: value for key, value in merged.items() if value is not None}
    body.pop("v", None)
    return Commit(ref=head.ref, at=now(), tags=tags, body=encode_body(body), if_rev=head.rev, if_tags=fence)


def together(append: Commit, update: Commit) -> Commit:
    """One commit that does what two would: an append, and an update of the same session."""
    return msgspec.structs.replace(
        append,
        tags={**(append.tags or {}), **(update.tags or {})},
        body=update.body,
        if_rev=update.if_rev,
        if_tags=update.if_tags,
    )


def raced(error: Stale, commit: Commit) -> bool:
    """Whether a commit was refused only because somebody changed the session since it was looked at."""
    rev, last = error.facts.get("rev"), error.facts.get("last")
    expected = commit.if_last is None or commit.if_last == last
    return commit.if_rev is not None and rev is not None and commit.if_rev != rev and expected
