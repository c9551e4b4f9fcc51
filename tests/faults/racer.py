"""One side of a race: `python -m faults.racer URL WHAT COUNT`.

It prints "open", waits for a line, and does WHAT to the sessions 0 … COUNT - 1 of the store, one after the other; so
another one that does something else to the same sessions meets it at many places. For each it prints what came of it:
`done`, or the name of the error. Of session n, `p<n>` is the parent and `c<n>` its fork.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping

from holdfast import HoldfastError, Policy, Session, Store, open as open_store, step, usage, user

LARGE = 1_100_000
"""Bytes of an artifact of two chunks."""


def there(store: Store, id: str) -> Session:
    """The session as a writer holds it, wherever it is."""
    found = store.get(id) or store.trash.get(id)
    assert found is not None
    return found


def prune(store: Store, n: int) -> None:
    """Move what is not spared, which is `p<n>` if it is the only one with this label."""
    done = store.prune(Policy(max_age=0, label=f"l{n}")).apply()
    if not done.moved:
        raise HoldfastError("spared")


def purge(store: Store, id: str) -> None:
    if not store.trash.purge(id).purged:
        raise HoldfastError("spared")


def keep(store: Store, n: int) -> None:
    """Write large values into a fork, which nothing else refers to."""
    child = there(store, f"p{n}").fork(id=f"c{n}")
    child.artifacts.put("own", n.to_bytes(4) * (LARGE // 4))
    child.append(step("build", output=f"{n:05}" * 20_000))


def sweep(store: Store, n: int) -> None:
    report = store.check(sweep=True)
    assert report.ok, report.findings
    assert report.swept is not None
    assert report.swept.unread == ()


DEEDS: Mapping[str, Callable[[Store, int], object]] = {
    "append": lambda store, n: APPENDERS[n].append(user("late")),
    "artifact": lambda store, n: APPENDERS[n].artifacts.put("late", "late"),
    "fork": lambda store, n: APPENDERS[n].fork(id=f"c{n}"),
    "put": lambda store, n: store.trash.put(f"p{n}"),
    "delete": lambda store, n: store.delete(f"p{n}"),
    "prune": prune,
    "purge": lambda store, n: purge(store, f"p{n}"),
    "restore": lambda store, n: store.trash.restore(f"p{n}"),
    "restore fork": lambda store, n: store.trash.restore(f"c{n}"),
    "keep": keep,
    "limited": lambda store, n: APPENDERS[0].artifacts.put(f"{os.getpid()}-{n}", "bytes", max_artifacts=LIMIT),
    "spend": lambda store, n: APPENDERS[0].append(usage("m", 1, response_id=f"r{n}")),
    "rename": lambda store, n: APPENDERS[n].update(name=f"x{n}"),
    "create": lambda store, n: store.create(f"other{n}", name=f"x{n}"),
    "sweep": sweep,
}
LIMIT = 12
"""Artifacts that a session may have for whom this limits."""
APPENDERS: dict[int, Session] = {}


def main(url: str, what: str, count: int) -> None:
    with open_store(url) as store:
        APPENDERS.update({n: there(store, f"p{n}") for n in range(count)})
        os.write(1, b"open\n")
        sys.stdin.readline()
        for n in range(count):
            try:
                DEEDS[what](store, n)
                told = "done"
            except HoldfastError as error:
                told = type(error).__name__
            os.write(1, f"{told}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
