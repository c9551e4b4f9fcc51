"""Pages of a list, and the opaque cursors that lead from one to the next."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from holdfast.errors import Invalid
from holdfast.plan import LAST_TIME, MAX_COUNT

T = TypeVar("T")
MAX_LIMIT = 10_000
"""Items on one page at the most."""


class Page(Generic[T]):
    """Items, and the cursor of the page behind them: None at the end.

    `damaged` has the ids of sessions that were left out because their heads can't be trusted; where one page ends and
    the next begins, both may name the same.
    """

    def __init__(self, items: Sequence[T], cursor: str | None, damaged: Sequence[str] = ()) -> None:
        self.items = list(items)
        self.cursor = cursor
        self.damaged = tuple(damaged)

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> T:
        return self.items[index]

    def __repr__(self) -> str:
        left_out = f", {len(self.damaged)} damaged left out" if self.damaged else ""
        return f"<Page of {len(self.items)}{'' if self.cursor is None else ', more'}{left_out}>"


def check_limit(limit: int) -> None:
    """Refuse a page size that makes no page."""
    if not 1 <= limit <= MAX_LIMIT:
        raise Invalid(f"limit must be from 1 to {MAX_LIMIT:,}, not {limit}", limit=limit)


def cursor_of(position: list[Any]) -> str:
    """The opaque text of a position."""
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


def _uncursor(cursor: str, type: Any) -> Any:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=type)
    except (ValueError, msgspec.MsgspecError):
        raise Invalid(
            f"{cursor[:80]!r} is no cursor of this list; pass the one a page came with", cursor=cursor
        ) from None


_At = Annotated[int, msgspec.Meta(ge=0, le=LAST_TIME)]
_Offset = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]


def position_of(cursor: str | None) -> tuple[int, str] | None:
    """The (at, id) behind which a list goes on; None for its beginning."""
    return None if cursor is None else _uncursor(cursor, tuple[_At, str])


def offset_of(cursor: str | None) -> int:
    """How many hits a search passes over."""
    return 0 if cursor is None else _uncursor(cursor, tuple[_Offset])[0]
