"""Whole lives of sessions to be killed: `python -m faults.agent URL WHAT NAME`, which goes on for ever.

- WHAT `work`: agents work in turns on sessions of this NAME's: messages, steps with large outputs, artifacts, usage,
  compactions, removals and their undoing, forks, names;
- WHAT `tend`: prunes to the trash, undoes some of it, purges, and sweeps what nobody needs, in everybody's sessions.

It prints "open", and then a line for each thing that was acknowledged: `said SESSION SEQ WORDS`, `kept SESSION FILE
SHA256`, `spent SESSION RESPONSE`, `forked SESSION CHILD`, `named SESSION NAME`, `purged SESSION`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import sys

from holdfast import Conflict, NotFound, Policy, Session, Store, Turn, open as open_store, step, usage, user

SESSIONS = 4
LARGE = 70_000
"""Characters of an output that moves out of the event."""


def tell(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def content(n: int) -> bytes:
    """Bytes of an artifact: few, so that sessions share them, and some of several chunks."""
    return random.Random(n % 5).randbytes(1_100_000 if n % 5 == 0 else 300)


def output(n: int) -> str:
    """A large output, of which there are few, too."""
    return f"{n % 3}" * LARGE


def work(store: Store, name: str) -> None:
    rnd = random.Random(os.getpid())
    for n in itertools.count():
        # Its session was put away, or its turn was taken over: nothing of that was told.
        with contextlib.suppress(NotFound, Conflict):
            session = store.session(f"{name}-{n % SESSIONS}-{n // 40}")
            with session.turn() as turn:
                run(turn, name, n, rnd)
            if n % 3 == 0:
                branch(session, n)


def run(turn: Turn, name: str, n: int, rnd: random.Random) -> None:
    """One turn of an agent."""
    words = f"w{os.getpid()}x{n}"
    tell("said", turn.id, turn.append(user(words)).last, words)
    if rnd.random() < 0.5:
        said = turn.append(step("build", output=output(n)), usage("m", n, response_id=words))
        tell("said", turn.id, said.first, "step")
        tell("spent", turn.id, words)
    if rnd.random() < 0.5:
        made = turn.artifacts.put(f"f{n}", content(n))
        tell("kept", turn.id, f"f{n}", made.sha256)
    if rnd.random() < 0.3:
        turn.remove_last()
        turn.undo()
    if rnd.random() < 0.3:
        turn.compact(f"so far {n}", turn.info().last)
    if rnd.random() < 0.3:
        with contextlib.suppress(Conflict):  # another one's
            turn.update(name=f"{name}-name-{n % 3}")
            tell("named", turn.id, f"{name}-name-{n % 3}")


def branch(session: Session, n: int) -> None:
    """A fork, with bytes that its parent has and some of its own."""
    child = session.fork()
    tell("forked", session.id, child.id)
    made = child.artifacts.put("own", content(n))
    tell("kept", child.id, "own", made.sha256)
    words = f"c{os.getpid()}x{n}"
    tell("said", child.id, child.append(user(words)).last, words)


def tend(store: Store, name: str) -> None:
    rnd = random.Random(name)
    while True:
        done = store.prune(Policy(max_sessions=12, keep_named=rnd.random() < 0.5, batch=5)).apply()
        if done.prune is not None and rnd.random() < 0.4:
            store.trash.undo(done.prune)
        if rnd.random() < 0.4:
            for id in store.trash.purge(older_than=0).purged:
                tell("purged", id)
        report = store.check(sweep=True)
        assert report.ok, report.findings
        tell("checked")


if __name__ == "__main__":
    with open_store(sys.argv[1]) as opened:
        os.write(1, b"open\n")
        {"work": work, "tend": tend}[sys.argv[2]](opened, sys.argv[3])
