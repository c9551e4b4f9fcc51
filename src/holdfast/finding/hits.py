"""What a search found, one event at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from holdfast.model import Event

if TYPE_CHECKING:
    from holdfast.search import Snippet


class SearchHit:
    """An event that matches: `session` and `seq` tell where it is, `score` how well it matches within one search.

    Its text around the words that hit is cut when it is first looked at: `snippet`, and `highlights` in it.
    """

    def __init__(self, session: str, event: Event, score: float, cut: Callable[[], Snippet]) -> None:
        self.session = session
        self.seq = event.seq
        self.score = score
        self.event = event
        self._cut = cut

    @cached_property
    def _piece(self) -> Snippet:
        return self._cut()

    @property
    def snippet(self) -> str:
        """The text around the words that hit, on one line."""
        return self._piece.text

    @property
    def highlights(self) -> tuple[tuple[int, int], ...]:
        """Where in `snippet` the words that hit are: (start, end) in characters."""
        return self._piece.highlights

    def __repr__(self) -> str:
        return f"<SearchHit {self.session}@{self.seq}: {self.snippet!r}>"
