"""Search in a fork: each session of its lineage is searched for what the fork shows of it, and the hits are merged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from holdfast.backend import Hit, readable
from holdfast.errors import Invalid
from holdfast.finding.hits import SearchHit
from holdfast.finding.pages import Page, cursor_of, offset_of
from holdfast.heads.info import SESSION
from holdfast.history.ancestry import FORKED, Differing, Segment, differing, segments
from holdfast.log import Log
from holdfast.plan import Head
from holdfast.search import Node, QueryError, matches, parse, score, snippet
from holdfast.storage import Storage
from holdfast.wording import Words

PAGE = 200


def parsed(query: str) -> Node | None:
    """The query's tree.

    Raises:
        Invalid: it is too long or has too many terms.
    """
    try:
        return parse(query)
    except QueryError as error:
        raise Invalid(str(error), query=query[:100]) from None


def page(
    store: Storage,
    query: str,
    id: str | None,
    tags: Mapping[str, str | None],
    *,
    newest: bool,
    limit: int,
    cursor: str | None,
    width: int,
) -> Page[SearchHit]:
    """See `Store.search`."""
    node = parsed(query)
    if node is None:
        return Page([], None)
    offset = offset_of(cursor)
    hits = find(store, id, node, tags, newest=newest, offset=offset, limit=limit + 1)
    items = [_told(store, hit, node, width) for hit in hits[:limit]]
    return Page(items, cursor_of([offset + limit]) if len(hits) > limit else None)


def _told(store: Storage, hit: Hit, node: Node, width: int) -> SearchHit:
    event = Log(store, Head(hit.ref)).decode(hit.entry, "keep")
    words = Words(hit.entry.body, store.large)
    return SearchHit(hit.ref.id, event, hit.score, lambda: snippet(words.text, node, width))


def find(
    store: Storage, id: str | None, node: Node, tags: Mapping[str, str | None], *, newest: bool, offset: int, limit: int
) -> list[Hit]:
    """Hits in all sessions or in one, best or newest first; in a fork, also in what it reads through its parents.

    A hit in what a fork reads through a parent is told as the parent's, where it is. No index knows what the parent hid
    since, so those events are read.
    """
    backend = store.backend
    head = None if id is None else store.peek(id)
    if head is None or head.trashed or FORKED not in head.tags:
        return backend.search(SESSION, node, id=id, tags=tags, newest=newest, offset=offset, limit=limit)
    if any(head.tags.get(name) != value for name, value in tags.items()):
        return []
    found: list[Hit] = []
    lineage = segments(store, head)
    for index, segment in enumerate(lineage):
        differs = differing(store, lineage, index) if index else None
        found += islice(_known(store, segment, differs, node, newest), offset + limit)
        if differs is not None:
            found += _shown(store, segment, differs, node)
    found.sort(key=lambda hit: (-hit.entry.at, -hit.entry.seq) if newest else (-hit.score, hit.entry.seq))
    return found[offset : offset + limit]


def _known(store: Storage, segment: Segment, differs: Differing | None, node: Node, newest: bool) -> Iterator[Hit]:
    """The hits in one session's own log, as far as a fork shows them."""
    ref, after, upto = segment.head.ref, segment.after, segment.upto
    offset = 0
    while hits := store.backend.search(SESSION, node, id=ref.id, newest=newest, offset=offset, limit=PAGE):
        for hit in hits:
            if after < hit.entry.seq <= upto and not (differs and differs.of(hit.entry).void):
                yield hit
        offset += len(hits)


def _shown(store: Storage, segment: Segment, differs: Differing, node: Node) -> Iterator[Hit]:
    """The hits among what a session hid, and a fork of it shows."""
    ref, after, upto = segment.head.ref, segment.after, segment.upto
    for first, last in differs.show:
        at, end = max(first - 1, after), min(last, upto)
        while at < end and (entries := store.backend.read(ref, after=at, upto=end, limit=PAGE, voided=True)):
            at = entries[-1].seq
            for entry in entries:
                text = readable(store.text_of, entry.body)
                if entry.void and not differs.of(entry).void and text and matches(node, text):
                    yield Hit(ref, differs.of(entry), score(node, text))
