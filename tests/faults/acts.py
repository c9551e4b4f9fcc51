"""The record of a writer: each act before it is done, and what came of it, a line of JSON each, never buffered.

So whatever moment a writer is killed at, it is known what it may have done and what it was told.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

SLOTS = 10
"""Keys of the metadata that each writer keeps in a session."""
DOCUMENTS = ("counts/one.json", "counts/two.json")


class Act(msgspec.Struct, omit_defaults=True):
    """What a writer is about to do. Each of `words` begins one event."""

    n: int
    op: str
    session: str = ""
    words: list[str] = []
    large: bool = False


class Outcome(msgspec.Struct, omit_defaults=True):
    """What came of act `n`, or of a part of it.

    `how`: done (its events are `first` to `last`), refused (nothing was stored), unknown, error (`what` should never
    have been raised); of turns: begun (`what` is the token), part (word number `last` is event `first`), lost (from
    word number `last` on); of sessions that the act made: deleting, deleted.
    """

    n: int
    how: str
    first: int = 0
    last: int = 0
    what: str = ""


class Line(msgspec.Struct, omit_defaults=True):
    """A line of a record."""

    act: Act | None = None
    outcome: Outcome | None = None


class Done(msgspec.Struct):
    """An act, and all that came of it."""

    who: str
    act: Act
    outcomes: list[Outcome] = []

    def told(self, *hows: str) -> Outcome | None:
        """The first outcome that is one of these."""
        return next((outcome for outcome in self.outcomes if outcome.how in hows), None)


class Record:
    """The record that a writer goes on with. `unended` is the act that an earlier life of it was not told the end of;
    `seen` where in each session the newest of its events stands that it was told of.
    """

    def __init__(self, path: Path, who: str) -> None:
        self.n = 0
        self.unended: Act | None = None
        self.seen: dict[str, tuple[str, int]] = {}
        for done in read(path, who):
            self.n = done.act.n
            self.unended = None if done.outcomes else done.act
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._shorten(path)

    def _shorten(self, path: Path) -> None:
        """Leave no half line, which the kill of a writer may in principle have left."""
        data = path.read_bytes()
        if not data.endswith(b"\n"):
            os.truncate(path, data.rfind(b"\n") + 1)

    def next(self) -> int:
        """The number of a new act."""
        self.n += 1
        return self.n

    def begin(self, act: Act) -> None:
        """Say what is about to be done."""
        self._say(Line(act=act))

    def end(self, act: Act, how: str, first: int = 0, last: int = 0, what: str = "") -> None:
        """Say what came of it."""
        if how == "done" and first:
            self.seen[act.session] = act.words[0], first
        self._say(Line(outcome=Outcome(act.n, how, first, last, what)))

    def _say(self, line: Line) -> None:
        os.write(self._file, msgspec.json.encode(line) + b"\n")


def read(path: Path, who: str) -> Iterator[Done]:
    """What a writer did, in order."""
    done: Done | None = None
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    for line in lines:
        if not line.endswith(b"\n"):
            break
        told = msgspec.json.decode(line, type=Line)
        if told.act is not None:
            if done is not None:
                yield done
            done = Done(who, told.act, [])
        elif told.outcome is not None:
            assert done is not None
            done.outcomes.append(told.outcome)
    if done is not None:
        yield done
