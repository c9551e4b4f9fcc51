"""Search in a fork: each session of its lineage is searched for what the fork shows of it, and the hits are merged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING

from holdfast.ancestry import FORKED, Segment, differing, segments
from holdfast.backend import Hit
from holdfast.info import SESSION
from holdfast.plan import Head
from holdfast.search import Node

if TYPE_CHECKING:
    from holdfast.store import Store

PAGE = 200


def find(
    store: Store, id: str | None, node: Node, tags: Mapping[str, str | None], *, newest: bool, offset: int, limit: int
) -> list[Hit]:
    """Hits in all sessions or in one, best or newest first; in a fork, also in what it reads through its parents.

    A hit in what a fork reads through a parent is told as the parent's, where it is. What the parent hid since is not
    found, though the fork shows it.
    """
    backend = store.backend
    head = None if id is None else store.peek(id)
    if head is None or FORKED not in head.tags:
        return backend.search(SESSION, node, id=id, tags=tags, newest=newest, offset=offset, limit=limit)
    if any(head.tags.get(name) != value for name, value in tags.items()):
        return []
    found: list[Hit] = []
    for hits in _each(store, head, node, newest):
        found += islice(hits, offset + limit)
    found.sort(key=lambda hit: (-hit.entry.at, -hit.entry.seq) if newest else (-hit.score, hit.entry.seq))
    return found[offset : offset + limit]


def _each(store: Store, head: Head, node: Node, newest: bool) -> Iterator[Iterator[Hit]]:
    lineage = segments(store, head)
    for index in range(len(lineage)):
        yield _seen(store, lineage, index, node, newest)


def _seen(store: Store, lineage: list[Segment], index: int, node: Node, newest: bool) -> Iterator[Hit]:
    """The hits in one session's own log that the first one of the lineage shows."""
    ref, after, upto = lineage[index].head.ref, lineage[index].after, lineage[index].upto
    differs = differing(store, lineage, index) if index else None
    offset = 0
    while hits := store.backend.search(SESSION, node, id=ref.id, newest=newest, offset=offset, limit=PAGE):
        for hit in hits:
            if after < hit.entry.seq <= upto and not (differs and differs.of(hit.entry).void):
                yield hit
        offset += len(hits)
