"""One of several writers at random work on shared sessions: `python -m faults.soaker URL WHO RECORD STOP`.

Before each act it writes down what it is about to do, and afterwards what came of it, in the file RECORD (faults.acts);
killed and started again, it first repeats what it was not told the end of. It goes on until there is a file STOP.
Sometimes it stops itself (SIGSTOP) amid a turn; who started it must let it go on.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import holdfast
from faults.acts import DOCUMENTS, SLOTS, Act, Record
from faults.work import text_of
from holdfast import Event, Message, Session, Store, Turn, user
from holdfast.errors import Conflict, Deleted, Exists, HoldfastError, LeaseHeld, LeaseLost, Trashed

LOGS, EDITED, TURNED, AWAY = ("log/0", "log/1"), "edited", "turned", "away"
SHARED = (*LOGS, EDITED, TURNED, AWAY)
NAMES = tuple(f"name {n}" for n in range(4))
TTL = 0.4
"""Seconds of a turn's lease."""
LARGE = 100_000
"""Characters of a text that becomes a large value."""
CHANCES = {
    "append": 40, "turn": 15, "update": 8, "count": 6, "rename": 4, "rewind": 3, "undo": 3, "fork": 4, "short": 4,
    "away": 2, "back": 3, "search": 4, "list": 3, "read": 6, "check": 0.05,
}  # fmt: skip


class Soaker:
    """One writer: what it does, and its record."""

    def __init__(self, store: Store, who: str, record: Record) -> None:
        self._store = store
        self._who = who
        self._record = record
        self._rnd = random.Random(f"{who}/{record.n}")
        self._ways: dict[str, Callable[[Act], None]] = {name: getattr(self, f"_{name}") for name in CHANCES}

    def go_on(self) -> None:
        """Repeat what this writer's life before this one did last, if it may be."""
        act = self._record.unended
        if act is not None and act.op in ("append", "update"):
            self._perform(act)

    def act(self) -> None:
        """Do something."""
        op = self._rnd.choices(list(CHANCES), list(CHANCES.values()))[0]
        act = getattr(self, f"_plan_{op}", self._plan)(op)
        self._record.begin(act)
        self._perform(act)

    def _perform(self, act: Act) -> None:
        try:
            self._ways[act.op](act)
        except (HoldfastError, AssertionError) as error:
            self._record.end(act, "error", what=f"{type(error).__name__}: {error}")

    # --- What is to be done ---

    def _plan(self, op: str, session: str = "") -> Act:
        return Act(n=self._record.next(), op=op, session=session or self._rnd.choice(LOGS))

    def _words(self, act: Act, count: int) -> Act:
        act.words = [f"w{self._who}x{act.n}x{index}" for index in range(count)]
        act.large = self._rnd.random() < 0.02
        return act

    def _plan_append(self, op: str) -> Act:
        return self._words(self._plan(op, self._rnd.choice(SHARED)), self._rnd.choice((1, 1, 2, 5)))

    def _plan_turn(self, op: str) -> Act:
        return self._words(self._plan(op, TURNED), self._rnd.choice((1, 2, 4)))

    def _plan_update(self, op: str) -> Act:
        return self._plan(op, self._rnd.choice((*LOGS, EDITED, TURNED)))

    def _plan_read(self, op: str) -> Act:
        return self._plan(op, self._rnd.choice((*LOGS, EDITED, TURNED)))

    def _plan_rename(self, op: str) -> Act:
        return self._plan(op, self._rnd.choice((*LOGS, EDITED, TURNED)))

    def _plan_search(self, op: str) -> Act:
        return self._words(self._plan(op), 1)

    def _plan_fork(self, op: str) -> Act:
        return self._words(self._plan(op, self._rnd.choice((*LOGS, EDITED))), 1)

    def _plan_short(self, op: str) -> Act:
        return self._words(self._plan(op), 1)

    # --- Doing it ---

    def _payloads(self, act: Act) -> list[Message]:
        return [user(word + (" " + "filler " * (LARGE // 7) if act.large else "")) for word in act.words]

    def _append(self, act: Act) -> None:
        """Append, and every other time once more, as if the answer had been lost."""
        key, repeats = f"{self._who} {act.n}", self._record.unended is act
        try:
            receipt = self._store.session(act.session).append(*self._payloads(act), key=key)
        except Trashed:
            assert act.session == AWAY
            self._record.end(act, "unknown" if repeats else "refused")
            return
        self._record.end(act, "done", receipt.first, receipt.last)
        if act.n % 2:
            with contextlib.suppress(*(Trashed,) * (act.session == AWAY)):
                again = self._store.session(act.session).append(*self._payloads(act), key=key)
                assert (again.first, again.last, again.repeated) == (receipt.first, receipt.last, True), again

    def _turn(self, act: Act) -> None:
        """Append in a turn, one by one; sometimes stand still until it may be lost."""
        still = self._rnd.randrange(len(act.words)) if self._rnd.random() < 0.3 else -1
        at = 0
        try:
            with self._store.session(act.session).turn(
                ttl=TTL, owner=self._who, wait=self._rnd.choice((0.0, 0.8))
            ) as turn:
                self._record.end(act, "begun", what=turn.token)
                for at, payload in enumerate(self._payloads(act)):
                    if at == still:
                        stand_still(self._store)
                    receipt = turn.append(payload)
                    self._record.end(act, "part", receipt.first, at)
                self._end_otherwise(turn)
                at = len(act.words)
        except LeaseHeld:
            self._record.end(act, "refused")
        except LeaseLost:
            self._record.end(act, "lost", last=at)

    def _end_otherwise(self, turn: Turn) -> None:
        if self._rnd.random() < 0.2:
            turn.complete()

    def _update(self, act: Act) -> None:
        info = self._store.session(act.session).update(metadata={f"{self._who} {act.n % SLOTS}": act.n})
        assert info.metadata[f"{self._who} {act.n % SLOTS}"] == act.n, info.metadata
        self._record.end(act, "done")

    def _count(self, act: Act) -> None:
        """Add one to a document that all count in."""
        documents, id = self._store.documents, DOCUMENTS[act.n % len(DOCUMENTS)]
        there = documents.get(id)
        counted: dict[str, int] = there.content if there else {}
        try:
            documents.put(id, {**counted, self._who: counted.get(self._who, 0) + 1}, rev=there.rev if there else 0)
        except Conflict:
            self._record.end(act, "refused", what=id)
        else:
            self._record.end(act, "done", what=id)

    def _rename(self, act: Act) -> None:
        name = self._rnd.choice(NAMES)
        try:
            self._store.session(act.session).update(name=name)
        except Exists:
            self._record.end(act, "refused")
        else:
            self._record.end(act, "done")

    def _rewind(self, act: Act) -> None:
        session = self._store.session(EDITED)
        if act.n % 2:
            session.remove_last()
        else:
            session.rewind(to=max(session.info().last - self._rnd.randrange(8), 0))
        self._record.end(act, "done")

    def _undo(self, act: Act) -> None:
        self._store.session(EDITED).undo()
        self._record.end(act, "done")

    def _fork(self, act: Act) -> None:
        """A fork is its parent's beginning; most are deleted, so that not all pins stay."""
        parent = self._store.session(act.session)
        fork = parent.fork(id=f"fork {self._who} {act.n}")
        base = fork.info().last
        fork.append(*self._payloads(act))
        mine = [(event.seq, event.id) for event in fork.events(last=5, include_hidden=True) if event.seq <= base]
        theirs = {event.seq: event.id for event in parent.events(after=base - 10, include_hidden=True)}
        assert all(theirs[seq] == id for seq, id in mine), f"{mine} is not of {theirs}"
        if act.n % 10:
            self._record.end(act, "deleting")
            fork.delete()
            self._record.end(act, "deleted")
        else:
            self._record.end(act, "done")

    def _short(self, act: Act) -> None:
        """A session's whole life; nothing brings it back."""
        session = self._store.create(f"short {self._who} {act.n}")
        session.append(*self._payloads(act))
        self._record.end(act, "deleting")
        session.delete()
        self._record.end(act, "deleted")
        try:
            session.append(user("late"))
        except Deleted:
            return
        raise AssertionError("a late append was taken")

    def _away(self, act: Act) -> None:
        try:
            self._store.trash.put(AWAY)
        except Trashed:
            self._record.end(act, "refused")
        else:
            self._record.end(act, "done")

    def _back(self, act: Act) -> None:
        try:
            self._store.trash.restore(AWAY)
        except Conflict:
            self._record.end(act, "refused")
        else:
            self._record.end(act, "done")

    def _search(self, act: Act) -> None:
        """What was acknowledged is found at once."""
        receipt = self._store.session(act.session).append(*self._payloads(act))
        self._record.end(act, "done", receipt.first, receipt.last)
        for session in (act.session, None):
            hits = [(hit.session, hit.event.seq) for hit in self._store.search(act.words[0], session=session)]
            assert (act.session, receipt.first) in hits, f"{act.words[0]} is found at {hits}"

    def _list(self, act: Act) -> None:
        ids = [info.id for info in self._store.sessions(limit=10_000)]
        assert len(set(ids)) == len(ids), "a session is listed twice"
        assert not (lacking := {*SHARED} - {AWAY} - set(ids)), f"{lacking} not among {len(ids)} sessions"
        self._record.end(act, "done")

    def _read(self, act: Act) -> None:
        """The end of a log has no gap, and what this writer was told last is in it."""
        session, known = self._store.session(act.session), self._record.seen.get(act.session)
        events = list(session.events(last=30, include_hidden=True))
        assert [event.seq for event in events] == list(range(events[0].seq, events[-1].seq + 1)) if events else True
        if known is not None:
            word, seq = known
            found = [text_of(event).split()[0] for event in self._at(session, seq)]
            assert found == [word], f"{word} was acknowledged as {seq}, where {found} is"
        self._record.end(act, "done")

    def _at(self, session: Session, seq: int) -> list[Event]:
        return list(session.events(after=seq - 1, before=seq + 1, include_hidden=True))

    def _check(self, act: Act) -> None:
        report = self._store.check(sweep=True)
        assert report.ok, report.findings
        self._record.end(act, "done")


def stand_still(store: Store) -> None:
    """Stop between two commits: amid one, every other process would wait for this one's locks."""
    with store.batcher._lock:
        os.kill(os.getpid(), signal.SIGSTOP)


def main(arguments: list[str]) -> None:
    """The program."""
    url, who, record, stop = arguments
    with holdfast.open(url) as store:
        writer = Soaker(store, who, Record(Path(record), who))
        writer.go_on()
        while not os.path.exists(stop):
            writer.act()


if __name__ == "__main__":
    main(sys.argv[1:])
