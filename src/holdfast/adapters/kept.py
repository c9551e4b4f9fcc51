"""The sessions that one program keeps in a store, under ids that begin alike."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.errors import Corrupt
from holdfast.heads.info import SessionInfo
from holdfast.store import Store

PAGE = 1000


def kept_sessions(store: Store, program: str, start: str) -> Iterator[SessionInfo]:
    """A program's sessions whose ids begin so, those that were active last first. No log is read.

    Raises:
        Corrupt: one of them is damaged; the error names it.
    """
    cursor: str | None = None
    while True:
        page = store.sessions(agent=program, limit=PAGE, cursor=cursor)
        if damaged := [id for id in page.damaged if id.startswith(start)]:
            raise Corrupt(f"session {damaged[0]!r} is damaged; run check, and delete it", session=damaged[0])
        yield from (info for info in page if info.id.startswith(start))
        cursor = page.cursor
        if cursor is None:
            return
