"""What is said about a session, changed in one commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from holdfast.errors import Invalid
from holdfast.info import body_of, encode_body, now, tags_of
from holdfast.plan import Commit, Head

if TYPE_CHECKING:
    from holdfast.store import Store

UPDATABLE = ("name", "title", "agent", "parent", "project")


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
