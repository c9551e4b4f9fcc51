"""A process that is killed, or stands still, between the steps of giving a session a name.

    python -m faults.namer URL STEP HOW ID NAME

STEP is the commit before which it happens: `give` is the one that writes the name into the session, `release` the one
that gives its old name free. HOW is `kill` or `stop`: to stand still until stdin ends.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

import holdfast
from holdfast.heads.names import NAME
from holdfast.plan import Commit, Head, Refused


def is_step(step: str, commit: Commit) -> bool:
    if step == "give":
        return commit.ref.kind == "session" and bool((commit.tags or {}).get("name"))
    return commit.ref.kind == NAME and commit.delete


def main(url: str, step: str, how: str, id: str, name: str) -> None:
    with holdfast.open(url) as store:
        inner = store.backend.commit

        def commit(batch: Sequence[Commit]) -> list[Head | Refused]:
            if any(is_step(step, each) for each in batch):
                if how == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                print("stands", flush=True)
                sys.stdin.read()
            return inner(batch)

        store.backend.commit = commit  # type: ignore[method-assign]  # the seam is where the fault is put
        try:
            session = store.get(id)
            session.update(name=name) if session else store.create(id, name=name)
            print("named", flush=True)
        except holdfast.HoldfastError as error:
            print(type(error).__name__, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
