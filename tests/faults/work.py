"""What a writer under fault does, and what must be found of it.

Step number n of a seed is a pure function, so the judge knows what was attempted without having been told. A step's
events name it (`n`, which of how many) and carry text that follows from both, so that nothing can pass for another.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from holdfast import Edit, Event, Message, Store, Text, user
from holdfast.errors import NotFound

BASE = ("first", "second/zwei", "Third")
"""Sessions that are there from the start."""
BLOCK = 12
"""Steps from the creation of one short session to that of the next; every third one is deleted at the end."""
SIZES = (10, 300, 3_000, 200_000)
"""Characters of an event's text; the last moves to the blob store."""


class Step(NamedTuple):
    """One thing that a writer does: append `many` events, update, take back (remove), create or delete."""

    n: int
    kind: str
    session: str
    many: int = 0
    size: int = 0


class Ack(NamedTuple):
    """An acknowledged step, and the seqs that the answer named (0 where there are none)."""

    n: int
    first: int = 0
    last: int = 0


def step(seed: int, n: int, *, appends: bool = False) -> Step:
    """Step number n. With `appends`, every step appends to a base session, so their order does not matter."""
    rnd = random.Random(f"{seed}/{n}")
    block, place = divmod(n, BLOCK)
    short = f"short-{block}"
    count, size = rnd.choice((1, 1, 1, 2, 4)), rnd.choices(SIZES, (6, 6, 3, 1))[0]
    if appends:
        return Step(n, "append", rnd.choice(BASE), count, size)
    if place == 0:
        return Step(n, "create", short)
    if place == BLOCK - 1 and block % 3 == 0:
        return Step(n, "delete", short)
    kind = rnd.choices(("append", "update", "remove"), (10, 1, 1))[0]
    return Step(n, kind, rnd.choice((*BASE, short)), count, size)


def words(seed: int, n: int, index: int, count: int, size: int) -> str:
    """The text of one event of a step."""
    rnd = random.Random(f"{seed}/{n}/{index}")
    text = f"step {n} event {index} of {count} " + rnd.randbytes(min(size, 2_000) // 2).hex()
    return (text * (size // len(text) + 1))[: max(size, len(text))]


def events(seed: int, what: Step) -> list[Message]:
    """The events that a step appends."""
    return [user(words(seed, what.n, index, what.many, what.size)) for index in range(what.many)]


def perform(store: Store, seed: int, what: Step) -> Ack:
    """Do a step; whatever it raises means that it was not acknowledged."""
    if what.kind == "create":
        store.session(what.session)  # get or create: the step may be a repetition
        return Ack(what.n)
    if what.kind == "delete":
        with contextlib.suppress(NotFound):  # a repetition, or its steps before this one were all cut off
            store.delete(what.session)
        return Ack(what.n)
    session = store.session(what.session)
    if what.kind == "append":
        receipt = session.append(*events(seed, what), key=f"key-{what.n}")
        return Ack(what.n, receipt.first, receipt.last)
    if what.kind == "update":
        session.update(name=f"name-{what.n}", metadata={"n": what.n})
        return Ack(what.n)
    removed = session.remove_last()
    return Ack(what.n, removed.seq, removed.seq) if removed else Ack(what.n)


def text_of(event: Event) -> str:
    """The text of an event that `events` made; what a change of the history was."""
    if isinstance(event.payload, Edit):
        return event.payload.action
    assert isinstance(event.payload, Message)
    part = event.payload.parts[0]
    assert isinstance(part, Text)
    return str(part.content)


class Judge:
    """What was acknowledged so far, and what a store must therefore hold.

    Args:
        seed, appends: As for `step`.
    """

    def __init__(self, seed: int, *, appends: bool = False) -> None:
        self.seed = seed
        self.appends = appends
        self.acks: dict[int, Ack] = {}
        self.tried = 0
        """All steps below this one may have been begun."""

    def step(self, n: int) -> Step:
        return step(self.seed, n, appends=self.appends)

    def wrong(self, store: Store, *, lossy: bool = False) -> list[str]:
        """Everything that is not as it must be. `lossy`: acknowledged steps may be missing, but nothing may be torn."""
        report = store.check()
        found = [f"check: {finding}" for finding in report.findings]
        page = store.sessions(limit=10_000)
        logs = {info.id: list(store.session(info.id).events(include_hidden=True)) for info in page}
        for id, log in logs.items():
            found += self._torn(id, log)
        if not lossy:
            found += self._lost(logs)
            found += [wrong for info in page for wrong in self._stale(info.id, info.metadata.get("n", -1))]
        return found

    def _torn(self, id: str, log: Sequence[Event]) -> Iterator[str]:
        """A log must be whole batches, each once, numbered without a gap."""
        if [event.seq for event in log] != list(range(1, len(log) + 1)):
            yield f"{id}: numbered {[event.seq for event in log]}"
        texts = [text_of(event) for event in log if not isinstance(event.payload, Edit)]  # a removal's own event
        seen: set[int] = set()
        at = 0
        while at < len(texts):
            n = int(texts[at].split()[1])
            what = self.step(n)
            expected = [words(self.seed, n, index, what.many, what.size) for index in range(what.many)]
            if what.kind != "append" or what.session != id:
                yield f"{id}: event {at + 1} is of step {n}, which was {what}"
                return
            if texts[at : at + what.many] != expected:
                yield f"{id}: step {n} is not whole at event {at + 1}"
                return
            if n in seen:
                yield f"{id}: step {n} is there twice"
            seen.add(n)
            at += what.many

    def _lost(self, logs: Mapping[str, Sequence[Event]]) -> Iterator[str]:
        """Every acknowledged step must be found."""
        gone = {self.step(n).session for n in self.acks if self.step(n).kind == "delete"}
        deleted = gone | {self.step(n).session for n in self._open() if self.step(n).kind == "delete"}
        yield from (f"{id}: deleted, and there again" for id in gone & logs.keys())
        for ack in self.acks.values():
            what = self.step(ack.n)
            if what.session in deleted:
                continue
            log = logs.get(what.session)
            if log is None:
                yield f"{what}: its session is not there"
            elif what.kind == "append":
                found = [text_of(event) for event in log[ack.first - 1 : ack.last]]
                if found != [words(self.seed, ack.n, i, what.many, what.size) for i in range(what.many)]:
                    yield f"{what}: acknowledged as {ack.first} to {ack.last} and not there; the log ends at {len(log)}"
            elif what.kind == "remove" and ack.last and not (len(log) >= ack.last and log[ack.last - 1].hidden):
                yield f"{what}: event {ack.last} was taken back and is seen again"

    def _stale(self, id: str, found: int) -> Iterator[str]:
        """The newest acknowledged update must be seen, or one that was cut off."""
        updates = [n for n in self.acks if self.step(n).kind == "update" and self.step(n).session == id]
        newest = max(updates, default=-1)
        cut = [n for n in self._open() if n > newest and self.step(n).kind == "update" and self.step(n).session == id]
        if found not in (newest, *cut):
            yield f"{id}: its metadata are those of step {found}, not of {newest}"

    def _open(self) -> list[int]:
        """Steps that may have been made without an answer."""
        return [n for n in range(self.tried) if n not in self.acks]
