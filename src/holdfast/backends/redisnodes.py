"""The servers of a store: connections to them, which shard is where, and what becomes of calls whose server fails.

Every call may be made again: reads change nothing, and a commit knows itself by its stamp. So a call whose answer was
lost, or that meets a server that starts, moves a slot or was just replaced, is repeated until the patience ends. Only
then it is told as `Unavailable`, if it was never sent, or as `Uncertain`, if it may have been carried out.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from holdfast import forks
from holdfast.backends.redisanswers import Failed, Lost
from holdfast.backends.rediscalls import Call
from holdfast.backends.redisduty import Later
from holdfast.backends.redisgroups import answers as answers_of, framed, grouped
from holdfast.backends.redislinks import Address, Link, Links, Unreachable
from holdfast.errors import Corrupt, HoldfastError, Unavailable, Uncertain

SLOTS = 16384
REDIRECTIONS = 5
"""How often a call follows a server's word to another one at once; then it waits before each."""
WRITTEN = 1
"""What a script answers that wrote."""
_PAUSE = 0.05
"""Seconds before a call is repeated the first time; then twice as long, up to half a second."""
_AGAIN = re.compile(r"\b(TRYAGAIN|CLUSTERDOWN|LOADING|MASTERDOWN|BUSY|READONLY|FAILOVER|UNKILLABLE)\b")
_REFUSED = re.compile(r"\b(OOM|MISCONF|NOREPLICAS|NOAUTH|NOPERM|WRONGPASS|NOSCRIPT|MOVED|ASK|CROSSSLOT)\b")
"""Answers that say that nothing was done, and repeating does not help."""


Outcome = Any
"""What a server answered, or a `HoldfastError`."""


class Servers:
    """The server of a store, or the masters of its cluster."""

    def __init__(self, links: Links, patience: float) -> None:
        self._links = links
        self._patience = patience
        self._slots: dict[int, int] = {}
        self._start()
        self.cluster = self._find_out()
        forks.watch(self)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._masters: list[Address] = []
        self._map: list[tuple[int, int, Address]] = []

    def before_fork(self) -> None:
        """See `forks`."""

    def after_fork(self, *, child: bool) -> None:
        """See `forks`: connections stay with the parent; where the servers are is known to both."""
        if child:
            self._lock = threading.Lock()

    def place(self, slots: Mapping[int, int]) -> None:
        """Say in which slot each shard is."""
        self._slots = dict(slots)

    @property
    def waits(self) -> bool:
        """Whether something is waited for behind each write."""
        return self._links.duty.waits

    def masters(self) -> list[Address]:
        """Where the masters are."""
        with self._lock:
            return list(self._masters)

    def run(self, calls: Sequence[Call]) -> list[Outcome]:
        """Make calls, each until it is answered or the patience ends; what each came to."""
        outcomes: list[Outcome] = [None] * len(calls)
        waiting = dict(enumerate(calls))
        run = _Run(outcomes, waiting, time.monotonic() + self._patience)
        if len(calls) == 1:
            self._try(run, calls[0])
        else:
            self._attempt(run)
        while waiting and run.pause():
            if run.lost:
                self.refresh()
                run.lost = False
            self._attempt(run)
        for number in waiting:
            outcomes[number] = run.failure(number)
        return outcomes

    def ask(self, calls: Sequence[Call]) -> list[Any]:
        """The answers to calls that change nothing.

        Raises:
            Unavailable: one was not answered.
        """
        outcomes = self.run(calls)
        for outcome in outcomes:
            if isinstance(outcome, HoldfastError):
                raise outcome
        return outcomes

    def each(self, command: tuple[Any, ...]) -> list[Any]:
        """The answers of all masters to a command that changes no data."""
        answers: list[Any] = []
        for address in self.masters():
            try:
                with self._links.take(address) as link:
                    link.send([command])
                    answers.append(link.answer())
            except (Lost, Unreachable, Failed) as error:
                raise Unavailable(f"the server {address} did not answer {command[0]!r}: {error}") from error
        return answers

    def _try(self, run: _Run, call: Call) -> None:
        """Make one call that stands alone, as most do, without what several need."""
        link = self._taken(run, (0,), self._server(call.shard))
        if link is None:
            return
        try:
            waits = call.writes and link.wait
            link.send((call.command, link.wait) if waits else (call.command,))
            answer = link.try_answer()
            if waits:
                answer = self._waited(answer, link.try_answer())
        except Lost as error:
            run.lose((0,), error, sent=True)
            link.drop()
            return
        except BaseException:
            link.drop()
            raise
        link.give_back()
        self._note(run, 0, answer, link.address)

    def _taken(self, run: _Run, numbers: Sequence[int], address: Address) -> Link | None:
        """A connection for calls; if there is none, what that means for them is noted."""
        try:
            return self._links.take(address)
        except (Unreachable, Later) as error:
            run.lose(numbers, error, sent=False)
        except HoldfastError as error:  # it is not a server that may keep the store
            for number in numbers:
                run.settle((number,), run.answered(number, error))
        return None

    def _waited(self, answer: Outcome, waited: Any) -> Outcome:
        """What a write came to, once it was waited for; it was made unless it was refused."""
        refused = isinstance(answer, (Failed, list, bytes))
        return answer if refused else self._links.duty.judge(waited, answer)  # pyright: ignore[reportUnknownVariableType]  # as Redis answers

    def _attempt(self, run: _Run) -> None:
        """Send what waits, each call to its server; then take the answers."""
        by_server: dict[Address, list[int]] = defaultdict(list)
        for number, call in run.waiting.items():
            by_server[run.asked.pop(number, None) or self._server(call.shard)].append(number)
        sent: list[tuple[Link, list[list[int]]]] = []
        first, run.first = run.first, False
        try:
            for address, numbers in by_server.items():
                link = self._taken(run, numbers, address)
                if link is None:
                    continue
                groups = grouped(numbers, run.waiting, cluster=self.cluster) if first else [[n] for n in numbers]
                sent.append((link, groups))
                try:
                    link.send(self._commands(run, groups, link))
                except Lost as error:
                    run.lose(numbers, error, sent=True)
                    sent.pop()
                    link.drop()
            while sent:
                link, groups = sent.pop()
                self._take_answers(run, link, groups)
        finally:
            for link, _ in sent:  # interrupted: what comes on it now would be taken for other answers
                link.drop()

    def _commands(self, run: _Run, groups: Sequence[Sequence[int]], link: Link) -> list[tuple[Any, ...]]:
        """What is sent for calls; last, if one of them writes, what waits until that is durable."""
        commands: list[tuple[Any, ...]] = []
        for group in groups:
            if group[0] in run.asking:
                commands.append(("ASKING",))
            called = [run.waiting[number].command for number in group]
            commands += framed(called) if len(group) > 1 else called
        if link.wait and any(run.waiting[n].writes for group in groups for n in group):
            commands.append(link.wait)
        return commands

    def _take_answers(self, run: _Run, link: Link, groups: Sequence[Sequence[int]]) -> None:
        answers: dict[int, Any] = {}
        numbers = [number for group in groups for number in group]
        try:
            for group in groups:
                if len(group) > 1:
                    answers.update(zip(group, answers_of(link, len(group)), strict=True))
                    continue
                if group[0] in run.asking:
                    run.asking.discard(group[0])
                    link.answer()
                answers[group[0]] = link.try_answer()
            writes = [n for n in numbers if run.waiting[n].writes]
            if writes and link.wait:
                waited = link.try_answer()
                for n in writes:
                    answers[n] = self._waited(answers[n], waited)
        except (Lost, Failed) as error:
            run.lose(numbers, error, sent=True)
            link.drop()
            return
        except BaseException:
            link.drop()
            raise
        link.give_back()
        for number, answer in answers.items():
            self._note(run, number, answer, link.address)

    def _note(self, run: _Run, number: int, outcome: Any, address: Address) -> None:
        """What an answer means for its call."""
        if not isinstance(outcome, Failed):
            run.settle((number,), run.answered(number, outcome) if isinstance(outcome, list) else outcome)
            return
        call, text = run.waiting[number], str(outcome)
        word, _, rest = text.partition(" ")
        if word == "NOSCRIPT" or "NOSCRIPT" in text:
            run.waiting[number] = call.with_source()
            run.at_once = True
        elif word == "MOVED":
            self._learn(int(rest.split(" ")[0]), Address.parse(rest.split(" ")[1], address))
            run.sent_on(number, f"{address} says {text}")
            run.lost = True
        elif word == "ASK":
            run.asked[number] = Address.parse(rest.split(" ")[1], address)
            run.asking.add(number)
            run.sent_on(number, f"{address} says {text}")
        elif _AGAIN.search(text):
            run.lose([number], outcome, sent=False)
            if "READONLY" in text:  # it was the master when it was connected to
                self._links.forget(address)
        elif "WRONGTYPE" in text:  # the scripts touch every list and log before they write a head
            why = (
                f"{address} has a value of another type where the store keeps its own ({text}); holdfast check names it"
            )
            run.settle([number], run.answered(number, Corrupt(why)))
        elif call.writes and (not _REFUSED.search(text) or ("NOPERM" in text and "script" in text)):
            run.settle([number], Uncertain(f"the server {address} failed amid a write ({text}); repeat with the key"))
        else:
            error = Unavailable(f"the server {address} refuses: {text}; nothing was stored")
            run.settle([number], run.answered(number, error))

    def _server(self, shard: int) -> Address:
        with self._lock:
            if not self.cluster:
                return self._masters[0]
            slot = self._slots[shard]
            for first, last, address in self._map:
                if first <= slot <= last:
                    return address
            return self._masters[0]  # it tells who has the slot, or that nobody has

    def by_server(self, shards: Iterable[int]) -> list[list[int]]:
        """Shards, those of one server together."""
        found: dict[Address, list[int]] = defaultdict(list)
        for shard in shards:
            found[self._server(shard)].append(shard)
        return list(found.values())

    def _learn(self, slot: int, address: Address) -> None:
        with self._lock:
            self._map.insert(0, (slot, slot, address))

    def _find_out(self) -> bool:
        """Whether the first server that answers is one of a cluster, and who the others are."""
        errors: list[str] = []
        masters: list[Address] = []
        refused: Unavailable | None = None
        for seed in self._links.seeds:
            try:
                with self._links.take(seed) as link:
                    link.send([("INFO", "cluster")])
                    self.cluster = b"cluster_enabled:1" in cast("bytes", link.answer())
                    if self.cluster:
                        link.send([("CLUSTER", "SLOTS")])
                        self._adopt(link.answer(), seed)
                        return True
                    masters.append(seed)
            except (Lost, Unreachable, Failed) as error:
                errors.append(f"{seed}: {error}")
            except Unavailable as error:  # a replica, or one that may not keep the store: another one may
                refused = refused or error
        if len(masters) > 1:  # one was replaced and came back: what is written there is lost when that is noticed
            raise Unavailable(
                f"the Redis servers {' and '.join(map(str, masters))} are each a master of its own; name the one that "
                "has the store, and make the others its replicas"
            )
        if masters:
            self._masters = masters
            return False
        raise refused or Unavailable(f"no Redis server can be reached ({'; '.join(errors)})")

    def refresh(self) -> None:
        """Ask any server of the cluster where the slots are now, or look which of several servers is the master; if
        none can be asked, all stays."""
        if not self.cluster:
            if len(self._links.seeds) > 1:
                with contextlib.suppress(HoldfastError):
                    self._find_out()
            return
        for address in dict.fromkeys([*self.masters(), *self._links.seeds, *self._replicas]):
            try:
                with self._links.take(address, checked=False) as link:
                    link.send([("CLUSTER", "SLOTS")])
                    self._adopt(link.answer(), address)
                    return
            except (Lost, Unreachable, Failed, HoldfastError):  # whoever asks the store is told why
                continue

    def _adopt(self, answer: Any, told_by: Address) -> None:
        found: list[tuple[int, int, Address]] = []
        others: list[Address] = []
        for first, last, master, *replicas in answer:
            found.append((first, last, Address.of(master, told_by)))
            others += [Address.of(replica, told_by) for replica in replicas]
        with self._lock:
            self._map = sorted(found)
            self._masters = list(dict.fromkeys(address for _, _, address in found)) or [told_by]
            self._replicas = list(dict.fromkeys(others))

    def replicas(self) -> list[Address]:
        """Where the replicas of a cluster are."""
        with self._lock:
            return list(self._replicas)

    _replicas: Sequence[Address] = ()


class _Run:
    """Calls under way."""

    def __init__(self, outcomes: list[Outcome], waiting: dict[int, Call], deadline: float) -> None:
        self.outcomes = outcomes
        self.waiting = waiting
        self.asked: dict[int, Address] = {}
        self.asking: set[int] = set()
        self.lost = False
        self.at_once = False
        self.first = True
        self._deadline = deadline
        self._pause = _PAUSE
        self._why: dict[int, Exception | str] = {}
        self._redirected: dict[int, int] = defaultdict(int)
        self._sent: set[int] = set()

    def settle(self, numbers: Iterable[int], outcome: Outcome) -> None:
        """These calls came to an end."""
        for number in numbers:
            self.outcomes[number] = outcome
            self.waiting.pop(number)

    def lose(self, numbers: Iterable[int], error: Exception, *, sent: bool) -> None:
        """These calls must be repeated; if they were sent, they may have been carried out."""
        self.lost = True
        for number in numbers:
            self._why[number] = error
            if sent and self.waiting[number].writes:
                self._sent.add(number)

    def sent_on(self, number: int, why: str) -> None:
        """A server named another one for a call. That one is asked at once, unless they send it on and on."""
        self._why[number] = f"it was sent from one server to another, {why}"
        self._redirected[number] += 1
        self.at_once = self.at_once or self._redirected[number] <= REDIRECTIONS

    def answered(self, number: int, outcome: Outcome) -> Outcome:
        """What the answer to a call means that was not made now: it may have been when it was sent before."""
        if number not in self._sent:
            return outcome
        return Uncertain(
            "the answer of the Redis server was lost, and somebody else wrote meanwhile or it takes no more; "
            "repeat the same call with the same key"
        )

    def pause(self) -> bool:
        """Wait a little before what waits is repeated; False if the patience is at its end."""
        if self.at_once:
            self.at_once = False
            return time.monotonic() < self._deadline
        left = self._deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(self._pause, left))
        self._pause = min(self._pause * 2, 0.5)
        return True

    def failure(self, number: int) -> HoldfastError:
        """What it means that a call was never answered."""
        why = self._why.get(number, "it was not answered in time")
        if number in self._sent:
            return Uncertain(f"the answer of the Redis server was lost ({why}); repeat the same call with the same key")
        return Unavailable(f"the Redis server can't do it now ({why}); nothing was stored; try again")


def slot_of(key: bytes) -> int:
    """The slot of a cluster that a key is in."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    crc = 0
    for byte in key:
        crc ^= byte << 8
        for _ in range(8):
            crc = ((crc << 1) ^ 0x1021) & 0xFFFF if crc & 0x8000 else (crc << 1) & 0xFFFF
    return crc % SLOTS
