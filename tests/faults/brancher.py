"""Forks to be killed: `python -m faults.brancher URL`, or `URL delete` for one that deletes what the other forks from.

It prints "open" and then a line `session fork` for each fork that was acknowledged, or `session` for each deletion.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys

from holdfast import Conflict, NotFound, Store, open as open_store, user

PARENTS = 8


def fork(store: Store) -> None:
    """Fork sessions for ever, and change the history of both."""
    for n in itertools.count():
        with contextlib.suppress(NotFound):  # the other program deleted one of them
            parent = store.session(f"p{os.getpid()}-{n % PARENTS}-{n // (PARENTS * 4)}")
            parent.append(user(f"one {n}"), user(f"two {n}"))
            child = parent.fork()
            child.append(user("own"))
            os.write(1, f"{parent.id} {child.id}\n".encode())
            parent.remove_last()
            child.rewind(to=child.last - 2)
            child.undo()


def delete(store: Store) -> None:
    """Delete all sessions that can be, for ever."""
    while True:
        for info in store.sessions(limit=50):
            try:
                store.delete(info.id)
            except (Conflict, NotFound):
                continue
            os.write(1, f"{info.id}\n".encode())


if __name__ == "__main__":
    with open_store(sys.argv[1]) as opened:
        os.write(1, b"open\n")
        (delete if sys.argv[2:] == ["delete"] else fork)(opened)
