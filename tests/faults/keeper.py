"""A process that keeps or sweeps blobs: `python -m faults.keeper URL MODE NUMBER`.

- MODE `write`: 60 times, keeps large values and artifacts, some of which it shares with others, reads them back, and
  deletes some of the sessions again; then it says `done`;
- MODE `sweep`: sweeps until it is killed;
- MODE `hold-shared`, `hold-exclusive`: takes that lock, says `held`, and waits for its end.
"""

from __future__ import annotations

import random
import signal
import sys

import holdfast
from holdfast import Store, step
from holdfast.artifacts.sweeping import sweep

ROUNDS = 60
CONTENTS = [random.Random(n).randbytes(1_200_000 if n == 0 else 2_000) for n in range(4)]


def write(store: Store, number: int) -> None:
    """Keep and forget."""
    for n in range(ROUNDS):
        session = store.session(f"w{number}-{n // 5}")
        content = CONTENTS[n % len(CONTENTS)]
        session.artifacts.put(f"a{n}", content)
        session.append(step("build", output=f"{n % 3}" * 70_000))
        assert session.artifacts.get(f"a{n}") == content
        assert str(next(session.events(types="step", last=1)).payload.output) == f"{n % 3}" * 70_000  # type: ignore[union-attr]
        if n % 10 == 9:
            store.delete(session.id)


def main(arguments: list[str]) -> None:
    """The program."""
    url, mode, number = arguments
    with holdfast.open(url) as store:
        if mode == "write":
            write(store, int(number))
            print("done", flush=True)
        elif mode == "sweep":
            while True:
                sweep(store)
        else:
            blobs = store.backend.blobs
            with blobs.shared() if mode == "hold-shared" else blobs.exclusive():
                print("held", flush=True)
                signal.pause()


if __name__ == "__main__":
    main(sys.argv[1:])
