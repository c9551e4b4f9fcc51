"""The ids of a batch's events: from the caller's key, or from what an event is.

A usage event is known by the response that it counts, an artifact event by its number in the session; so a response is
counted once, and artifacts are found without the log. A key names the first event that has no such id.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from holdfast import codec
from holdfast.errors import Invalid
from holdfast.events.keys import ARTIFACT, USAGE, artifact_id, key_at, usage_id
from holdfast.heads.info import Tally
from holdfast.model import AnyPayload, Artifact, Event, Usage
from holdfast.plan import Commit, Entry, Head
from holdfast.storage import Storage


def named(
    head: Head, events: Sequence[AnyPayload | Event], payloads: list[AnyPayload], key: str | None
) -> list[str] | None:
    """The ids of a batch's events, "" for none; None if that is so of all. Of two payloads of one response, the second
    is marked as counted before.
    """
    if _KINDS.isdisjoint(map(type, payloads)):
        return [key_at(key, index) for index in range(len(events))] if key else None
    ids = [key_at(key, index) for index in range(len(events))]
    number = head.counts.get("artifacts", 0)
    free: list[int] = []
    for index, (event, payload) in enumerate(zip(events, payloads, strict=True)):
        if isinstance(event, Event) and event.id and not (event.raw and isinstance(payload, Artifact)):
            free.append(index)  # its own id names it
        elif isinstance(payload, Usage) and payload.response_id and not (payload.repeated or payload.grown):
            id = usage_id(payload.response_id)
            if id in ids:
                payloads[index], id = msgspec.structs.replace(payload, repeated=True), ""
            ids[index] = id
        elif isinstance(payload, Artifact):
            number += 1
            ids[index] = artifact_id(number)
        else:
            free.append(index)
    if key and 0 not in free:
        first = free[0] if free else next((i for i, p in enumerate(payloads) if isinstance(p, Artifact)), None)
        if first is None:
            raise Invalid(
                "a usage event with a response id is known by it, so that it is counted once; leave the key out, "
                "or append it together with the events of its turn",
                key=key,
            )
        ids[first] = key
    return ids


_KINDS = frozenset[type]({Usage, Artifact})


def by_nature(entry: Entry) -> bool:
    """Whether an entry's id comes from what it is."""
    return entry.id.startswith(ARTIFACT) or (entry.id.startswith(USAGE) and b'"usage"' in entry.body)


def renamed(store: Storage, head: Head, commit: Commit, known: Sequence[Entry]) -> Commit:
    """A batch of which the log holds ids that events have by nature, as it can be stored: artifacts with new numbers,
    and usage that was counted before as such, which counts no more.
    """
    taken = {entry.id: entry for entry in known}
    number = head.counts.get("artifacts", 0)
    append: list[Entry] = []
    add = dict(commit.add or {})
    for entry in commit.append:
        new = entry
        if entry.id.startswith(ARTIFACT):
            number += 1
            new = msgspec.structs.replace(entry, id=artifact_id(number))
        elif entry.id in taken and by_nature(entry):
            payload = codec.decode(entry.body, store.large)
            new = msgspec.structs.replace(entry, id="")
            if isinstance(payload, Usage) and not payload.repeated and by_nature(taken[entry.id]):
                new = msgspec.structs.replace(new, body=marked(entry.body))
                for name, count in Tally([payload]).add.items():
                    add[name] = add.get(name, 0) - count
        append.append(new)
    return msgspec.structs.replace(commit, append=append, add=add)


def marked(body: bytes) -> bytes:
    """A usage event's bytes with the word that it was counted before; all else of it as it is."""
    return codec.encode_json({**codec.decode_json(body), "repeated": True})
