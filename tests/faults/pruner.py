"""Prunes and purges to be killed: `python -m faults.pruner URL WHAT`, where WHAT says what it does for ever.

`fill` creates and forks sessions and appends to them; `prune` moves half of them to the trash, and tells the id of each
that it was told is there, `purge` deletes what is there, telling the same; `restore` brings back what it finds there.
It prints "open" first.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys

from holdfast import Conflict, NotFound, Policy, Store, open as open_store, user


def tell(*words: str) -> None:
    os.write(1, (" ".join(words) + "\n").encode())


def fill(store: Store) -> None:
    for n in itertools.count():
        with contextlib.suppress(NotFound):  # it was put away amid this
            session = store.session(f"f{os.getpid()}-{n % 20}-{n // 200}")
            receipt = session.append(user(f"said {n}"))
            if n % 3 == 0:
                child = session.fork()
                child.append(user("own"))
            tell(session.id, str(receipt.last))


def prune(store: Store) -> None:
    while True:
        plan = store.prune(Policy(max_sessions=10, batch=7))
        done = plan.apply()
        for id in done.moved:
            tell(id)


def purge(store: Store) -> None:
    while True:
        for id in store.trash.purge(older_than=0).purged:
            tell(id)


def restore(store: Store) -> None:
    while True:
        for one in store.trash.list(limit=20):
            with contextlib.suppress(Conflict, NotFound):  # another one did, or it was purged
                tell(store.trash.restore(one.session.id).id)


if __name__ == "__main__":
    with open_store(sys.argv[1]) as opened:
        os.write(1, b"open\n")
        {"fill": fill, "prune": prune, "purge": purge, "restore": restore}[sys.argv[2]](opened)
