"""A writer to be killed: `python -m faults.writer URL SEED START STOP MODE`.

It prints "open" before it opens the store and then a line `n first last` for each acknowledged step, each with one
write to the pipe, so that what the reader has got was acknowledged before the kill. MODE is `steps` (one after the
other), `threads` or `tasks` (appends only, from several at once, which meet in group commits).
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable

from faults.work import BASE, Ack, events, perform, step
from holdfast import AsyncStore, Store, aopen, open as open_store
from holdfast.errors import HoldfastError

TASKS = 16
THREADS = 4

Report = Callable[[Ack], None]


def in_steps(store: Store, seed: int, numbers: range, report: Report) -> None:
    """One step after the other. One that fails is tried once more, as a client does that uses keys."""
    for n in numbers:
        for last_try in (False, True):
            try:
                report(perform(store, seed, step(seed, n)))
                break
            except HoldfastError:
                if last_try:
                    raise


def in_threads(store: Store, seed: int, numbers: range, report: Report) -> None:
    """Appends from several threads at once."""
    left = iter(numbers)
    turn = threading.Lock()

    def work() -> None:
        while True:
            with turn:
                n = next(left, None)
            if n is None:
                return
            report(perform(store, seed, step(seed, n, appends=True)))

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def in_tasks(url: str, seed: int, numbers: range, report: Report) -> None:
    """Appends from several tasks at once."""
    left = iter(numbers)

    async def work(store: AsyncStore) -> None:
        for n in left:
            what = step(seed, n, appends=True)
            session = await store.session(what.session)
            receipt = await session.append(*events(seed, what), key=f"key-{n}")
            report(Ack(n, receipt.first, receipt.last))

    async with aopen(url) as store:
        await asyncio.gather(*(work(store) for _ in range(TASKS)))


def run(url: str, seed: int, numbers: range, mode: str, report: Report) -> None:
    """Open the store, do the steps, close it."""
    if mode == "tasks":
        asyncio.run(in_tasks(url, seed, numbers, report))
        return
    with opened(url) as store:
        {"steps": in_steps, "threads": in_threads}[mode](store, seed, numbers, report)


def opened(url: str) -> Store:
    """The store with its sessions; once more if that failed, as for a step."""
    try:
        return with_sessions(open_store(url))
    except HoldfastError:
        return with_sessions(open_store(url))


def with_sessions(store: Store) -> Store:
    """Make sure of the sessions that are always there."""
    try:
        for id in BASE:
            store.session(id)
    except HoldfastError:
        store.close()
        raise
    return store


def tell(ack: Ack) -> None:
    """One line, one write."""
    os.write(sys.stdout.fileno(), f"{ack.n} {ack.first} {ack.last}\n".encode())


def main(arguments: list[str]) -> None:
    """The program."""
    url, seed, first, stop, mode = arguments
    os.write(sys.stdout.fileno(), b"open\n")
    run(url, int(seed), range(int(first), int(stop)), mode, tell)


if __name__ == "__main__":
    main(sys.argv[1:])
