"""What is said about a session, changed in one commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from holdfast import names
from holdfast.errors import Invalid, Stale
from holdfast.info import body_of, encode_body, now, tags_of
from holdfast.plan import Commit, Head
from holdfast.refusals import refusal

if TYPE_CHECKING:
    from holdfast.store import Store

RETRIES = 200
"""How often an update starts over when others change the session at the same time."""
UPDATABLE = ("name", "title", "agent", "parent", "project")


def update(
    store: Store,
    head: Head,
    fence: Mapping[str, str | None] | None,
    *,
    labels: Sequence[str] | Mapping[str, bool] | None = None,
    metadata: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
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
        raise _restless(head)

    if "name" not in fields:
        return apply({})
    for _ in range(RETRIES):
        seen = store.head(head.ref.id)
        user, old, new = seen.tags.get("user"), seen.tags.get("name"), fields["name"] or None
        try:
            with names.held(store, user, new if new != old else None, head.ref.id):
                changed = apply({"name": old})
        except Stale:
            if store.head(head.ref.id).tags.get("name") == old:
                raise
            continue  # another name was given to it meanwhile, which is the one to release
        if old != new:
            names.release(store, user, old, head.ref.id)
        return changed
    raise _restless(head)


def _restless(head: Head) -> Stale:
    id = head.ref.id
    return Stale(f"session {id!r} changed {RETRIES} times during one update; try again", session=id)


def prepare_update(
    store: Store,
    head: Head,
    fence: Mapping[str, str | None] | None,
    *,
    labels: Sequence[str] | Mapping[str, bool] | None = None,
    metadata: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
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
    for name, patch in (("metadata", metadata), ("config", config)):
        if patch is not None:
            merged = {**body.get(name, {}), **patch}
            body[name] = {key: value for key, value in merged.items() if value is not None}
    body.pop("v", None)
    return Commit(ref=head.ref, at=now(), tags=tags, body=encode_body(body), if_rev=head.rev, if_tags=fence)
