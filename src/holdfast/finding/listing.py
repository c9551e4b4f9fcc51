"""Which sessions a list shows: page by page, by tags that an engine finds and by what only looking at a head tells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice, takewhile

from holdfast.backend import Backend, Heads
from holdfast.errors import Corrupt
from holdfast.finding.pages import Page, cursor_of
from holdfast.heads.info import SESSION, SessionInfo, created_at, info_of
from holdfast.plan import Head

PAGE = 1000
"""Heads that are looked at together."""


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
    size = limit + 1 if all_wanted else max(limit, PAGE)
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
    while heads := backend.scan(SESSION, after, PAGE, trashed=trashed):
        yield heads
        after = heads[-1].ref.id
    if heads.damaged:
        yield heads


def everywhere(backend: Backend) -> Iterator[tuple[list[str], list[str]]]:
    """The ids of all sessions, of those in the trash, too, some at a time, in order; and of those that are damaged.

    Each once, though it is put into the trash, or comes out of it, meanwhile. One that is deleted may be named. A
    damaged one between two pages may be named by both.
    """
    after: str | None = ""
    while after is not None:
        position, _ = backend.changed()
        pages = [backend.scan(SESSION, after, PAGE, trashed=trashed) for trashed in (False, True)]
        ids = {head.ref.id for page in pages for head in page}
        # One that was moved between the two looks may have been where none was taken just then.
        ids.update(ref.id for ref in backend.changed(position)[1] if ref.kind == SESSION and ref.id > after)
        upto = min((page[-1].ref.id for page in pages if len(page) == PAGE), default=None)
        damaged = [ref.id for page in pages for ref in page.damaged]
        yield sorted(ids if upto is None else (id for id in ids if id <= upto)), damaged
        after = upto


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
