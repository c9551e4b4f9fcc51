"""Which sessions a list shows: page by page, by tags that an engine finds and by what only looking at a head tells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice, takewhile

from holdfast.backend import Backend, Heads
from holdfast.errors import Corrupt
from holdfast.finding.pages import Page, cursor_of
from holdfast.heads.info import SESSION, SessionInfo, created_at, info_of
from holdfast.plan import Head


def list_sessions(
    backend: Backend,
    tags: Mapping[str, str | None],
    *,
    start: int | None,
    end: int | None,
    text: str | None,
    after: tuple[int, str] | None,
    limit: int,
) -> Page[SessionInfo]:
    """A page of the sessions that carry the tags; see `Store.sessions` for the rest. Times are microseconds UTC."""
    needle = text.casefold() if text else None
    all_wanted = needle is None and end is None
    size = limit + 1 if all_wanted else max(limit, 1000)
    found: list[Head] = []
    damaged: list[str] = []
    while True:
        heads = backend.find(SESSION, tags, after=after, limit=size)
        damaged += [ref.id for ref in heads.damaged]
        recent = heads if start is None else list(takewhile(lambda head: head.at >= start, heads))
        wanted = recent if all_wanted else (head for head in recent if _is_wanted(head, end, needle, damaged))
        found += islice(wanted, limit + 1 - len(found))
        if len(found) > limit:
            last = found[limit - 1]
            return _page(found[:limit], cursor_of([last.at, last.ref.id]), damaged)
        if len(recent) < size:
            return _page(found, None, damaged)
        after = heads[-1].at, heads[-1].ref.id


def all_heads(backend: Backend, *, trashed: bool = False) -> Iterator[Heads]:
    """All sessions by id, or all in the trash, some at a time: who becomes active meanwhile is met, too, and once.

    A damaged one between two pages may be named by both.
    """
    after = ""
    while heads := backend.scan(SESSION, after, trashed=trashed):
        yield heads
        after = heads[-1].ref.id
    if heads.damaged:
        yield heads


def _page(heads: Iterable[Head], cursor: str | None, damaged: list[str]) -> Page[SessionInfo]:
    infos: list[SessionInfo] = []
    for head in heads:
        try:
            infos.append(info_of(head))
        except Corrupt:
            damaged.append(head.ref.id)
    return Page(infos, cursor, damaged)


def _is_wanted(head: Head, end: int | None, needle: str | None, damaged: list[str]) -> bool:
    try:
        return (end is None or created_at(head) <= end) and _mentions(head, needle)
    except Corrupt:
        damaged.append(head.ref.id)
        return False


def _mentions(head: Head, needle: str | None) -> bool:
    if needle is None:
        return True
    return any(needle in head.tags.get(tag, "").casefold() for tag in ("name", "title"))
