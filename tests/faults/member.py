"""One of several processes at work on a store: `python -m faults.member URL WHO COUNT MODE`.

It opens the store, prints "ready", waits for a line on its standard input, so that all begin together, works, and
prints the history of its calls (faults.history) as JSON. Any error ends it with a traceback. MODE is `threads` (also
searches, lists, creates and deletes), `tasks` (asyncio), `callers` (COUNT get-or-creates of one session at once) or
`updates` (each thread sets keys and labels of its own, and one field that only its process sets, between appends).
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec

import holdfast
from faults.history import Call
from faults.work import text_of
from holdfast import AsyncSession, AsyncStore, Store
from holdfast.errors import Deleted

SESSIONS = ("one", "one", "one", "many/1", "many/2", "Many/2")
"""Most of them meet in one session."""
THREADS = 3
TASKS = 8
FIELDS = ("name", "title", "agent", "project")
"""Of a session; process `p1` updates the second one."""


class Member:
    """What one thread or task does, and its history."""

    def __init__(self, who: str, count: int) -> None:
        self.who = who
        self.count = count
        self.calls: list[Call] = []
        self._rnd = random.Random(who)

    def values(self, n: int) -> list[str]:
        """New texts; each holds a word of its own."""
        return [f"word{self.who}x{n}x{index} said by {self.who}" for index in range(self._rnd.choice((1, 1, 2, 5)))]

    def choose(self) -> tuple[str, str]:
        kind = self._rnd.choices(("append", "read", "search", "list", "short"), (80, 8, 3, 3, 3))[0]
        return kind, self._rnd.choice(SESSIONS)

    def note(self, kind: str, session: str, start: int, values: list[str], first: int = 0, last: int = 0) -> None:
        self.calls.append(Call("append" if kind == "append" else "read", session, start, now(), values, first, last))

    def work(self, store: Store) -> None:
        """The calls of a thread."""
        for n in range(self.count):
            kind, id = self.choose()
            if kind == "append":
                self.append(store, id, n)
            elif kind == "read":
                start = now()
                self.note(kind, id, start, [text_of(event) for event in store.session(id).events()])
            elif kind == "search":
                self.search(store, n)
            elif kind == "list":
                assert {info.id for info in store.sessions(limit=1000)} >= set(SESSIONS)
            else:
                self.short(store, f"short {self.who} {n}")

    def append(self, store: Store, id: str, n: int) -> None:
        values, session, start = self.values(n), store.session(id), now()
        receipt = session.append(*map(holdfast.user, values), key=f"{self.who} {n}")
        self.note("append", id, start, values, receipt.first, receipt.last)

    def search(self, store: Store, n: int) -> None:
        """What was acknowledged is found at once."""
        self.append(store, "one", n)
        for value in self.calls[-1].values:
            hits = store.search(value.split()[0], session="one")
            assert [text_of(hit.event) for hit in hits] == [value]

    def short(self, store: Store, id: str) -> None:
        """A session's whole life; nothing brings it back."""
        session = store.create(id)
        session.append(holdfast.note("short"))
        store.delete(id)
        assert not store.exists(id)
        try:
            session.append(holdfast.note("late"))
        except Deleted:
            return
        raise AssertionError(f"a late append brought {id} back")

    async def work_async(self, store: AsyncStore) -> None:
        """The calls of a task."""
        for n in range(self.count):
            kind, id = self.choose()
            session: AsyncSession = await store.session(id)
            start = now()
            if kind == "read":
                self.note(kind, id, start, [text_of(event) async for event in session.events()])
            else:
                values = self.values(n)
                receipt = await session.append(*map(holdfast.user, values), key=f"{self.who} {n}")
                self.note("append", id, start, values, receipt.first, receipt.last)

    def call(self, store: Store) -> None:
        """Get or create what everybody else does too, and say so."""
        start = now()
        receipt = store.session("everybody's").append(holdfast.user(self.who))
        self.note("append", "everybody's", start, [self.who], receipt.first, receipt.last)

    def update(self, store: Store) -> None:
        """Change the session in every way, beside an append; each answer holds all that this thread was told before."""
        session, field = store.session("updated"), FIELDS[int(self.who[1])]
        for n in range(1, self.count + 1):
            session.update(**{field: f"{self.who} {n}"})
            session.update(config={self.who: n}, labels=[f"{self.who}/{n}"])
            start = now()
            receipt = session.append(holdfast.user(f"{self.who} {n}"), key=f"{self.who} {n}")
            self.note("append", "updated", start, [f"{self.who} {n}"], receipt.first, receipt.last)
            info = session.update(metadata={f"{self.who} {n}": n})
            own = [f"{self.who} {i}" for i in range(1, n + 1)]
            assert info.metadata.keys() >= set(own), info.metadata
            assert info.config[self.who] == n, info.config
            assert {f"{self.who}/{i}" for i in range(1, n + 1)} <= set(info.labels), info.labels


def now() -> int:
    return time.monotonic_ns()


def begin_together() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def in_threads(url: str, members: list[Member], work: Callable[[Member, Store], None]) -> None:
    """Each in a thread of one store."""
    with holdfast.open(url) as store, ThreadPoolExecutor(len(members)) as threads:
        begin_together()
        for done in [threads.submit(work, member, store) for member in members]:
            done.result()


async def in_tasks(url: str, members: list[Member]) -> None:
    """Each as a task of one store."""
    async with holdfast.aopen(url) as store:
        begin_together()
        await asyncio.gather(*(member.work_async(store) for member in members))


def main(arguments: list[str]) -> None:
    """The program."""
    url, who, count, mode = arguments
    many = {"threads": THREADS, "tasks": TASKS, "callers": int(count), "updates": THREADS}[mode]
    members = [Member(f"{who}{chr(ord('a') + index % 26)}{index}", int(count) // many) for index in range(many)]
    if mode == "tasks":
        asyncio.run(in_tasks(url, members))
    else:
        in_threads(url, members, {"threads": Member.work, "callers": Member.call, "updates": Member.update}[mode])
    print(msgspec.json.encode([call for member in members for call in member.calls]).decode())


if __name__ == "__main__":
    main(sys.argv[1:])
