"""A simple model of sessions: what was done to each, from which all that it must show is worked out anew each time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from holdfast import Turn


@dataclass(frozen=True)
class Said:
    """A message."""

    words: str


@dataclass(frozen=True)
class Told:
    """An event that is no message."""


@dataclass(frozen=True)
class Kept:
    """Bytes that a name stands for; None takes the name away."""

    name: str
    content: bytes | None


@dataclass(frozen=True)
class Spent:
    """A model call; `counted` unless the log knew the response before."""

    response: str
    tokens: int
    counted: bool


@dataclass(frozen=True)
class Summed:
    """A summary of all up to the seq `end`."""

    words: str
    end: int


@dataclass(frozen=True)
class Hidden:
    """An edit that hid these seqs."""

    seqs: frozenset[int]


@dataclass(frozen=True)
class Undone:
    """An edit that undid the newest one that was not undone yet."""


@dataclass(frozen=True)
class Moved:
    """An edit that tells of a move into the trash or out of it."""


Done = Said | Told | Kept | Spent | Summed | Hidden | Undone | Moved


class Removal(NamedTuple):
    """An edit that hid something, and its seq."""

    seq: int
    hid: frozenset[int]


@dataclass
class Life:
    """A session of the model. `first` is the seq behind which its numbers begin, `base` where a fork's own do."""

    log: dict[int, Done] = field(default_factory=dict[int, Done])
    first: int = 0
    base: int | None = None
    parent: str | None = None
    turn: Turn | None = None
    state: str = "idle"
    name: str | None = None
    title: str | None = None
    labels: set[str] = field(default_factory=set[str])
    prune: str | None = None

    @property
    def last(self) -> int:
        return max(self.log, default=self.first)

    def add(self, done: Done) -> int:
        self.log[self.last + 1] = done
        if isinstance(done, Said) and self.title is None:
            self.title = done.words
        return self.last

    def upto(self, seq: int) -> dict[int, Done]:
        return {n: done for n, done in self.log.items() if n <= seq}

    def view(self) -> dict[int, Done]:
        """What is not hidden, but for edits."""
        hidden = {seq for removal in self.removals() for seq in removal.hid}
        return {n: d for n, d in self.log.items() if n not in hidden and not isinstance(d, Hidden | Undone | Moved)}

    def removals(self, upto: int | None = None) -> list[Removal]:
        """Those that were not undone when `upto` was the newest event: an undo would show the last."""
        stack: list[Removal] = []
        for seq, done in self.log.items():
            if upto is not None and seq > upto:
                break
            if isinstance(done, Hidden):
                stack.append(Removal(seq, done.seqs))
            elif isinstance(done, Undone):
                stack.pop()
        return stack

    def said(self) -> dict[int, str]:
        return {seq: done.words for seq, done in self.view().items() if isinstance(done, Said)}

    def words(self) -> list[str]:
        return list(self.said().values())

    def artifacts(self) -> dict[str, bytes]:
        """What each name stands for, in the order in which that was said."""
        found: dict[str, bytes] = {}
        for done in self.view().values():
            if isinstance(done, Kept):
                found.pop(done.name, None)
                if done.content is not None:
                    found[done.name] = done.content
        return found

    def spent(self, *, own: bool = False) -> tuple[int, int]:
        """Calls and tokens, what was taken back too; `own` without what a fork began with."""
        counted = [
            done.tokens
            for seq, done in self.log.items()
            if isinstance(done, Spent) and done.counted and not (own and seq <= (self.base or 0))
        ]
        return len(counted), sum(counted)

    def responses(self) -> dict[str, int]:
        """The responses that were counted, and their tokens."""
        return {done.response: done.tokens for done in self.log.values() if isinstance(done, Spent) and done.counted}

    def disturbed(self, seen: int, upto: int) -> bool:
        """Whether other removals touch what is up to a seq than when `seen` was the newest event."""
        before, now = self.removals(seen), self.removals()
        return any(min(r.hid) <= upto for r in {*before} ^ {*now})

    def summary(self) -> tuple[int, Summed] | None:
        """The newest one in view whose range is as it was when it was written."""
        for seq, done in reversed(self.view().items()):
            if isinstance(done, Summed) and not self.disturbed(seq, done.end):
                return seq, done
        return None

    def needs(self) -> Iterator[bytes]:
        """Every content that an event of it names, hidden or not."""
        return (done.content for done in self.log.values() if isinstance(done, Kept) and done.content is not None)
