"""Agents at work and who tends the store, several processes at once, killed at any moment, again and again.

What must be true after each kill: `check` finds nothing wrong; each event that was acknowledged is there, unless its
session was purged; whatever bytes an event needs are there; a name is one session's at most, and can be taken by
another one when that is gone; what was interrupted is ended by the next run.
"""

from __future__ import annotations

import contextlib
import random
import signal
import time
from pathlib import Path

import pytest

import holdfast
from faults import BACKENDS, start, url_of
from faults.agent import LARGE
from holdfast import Artifact, Conflict, Deleted, Event, Large, Policy, Session, Step, Store, user

ROUNDS, LONG = 3, 30


class Told:
    """What the programs were told to be stored."""

    def __init__(self) -> None:
        self.lines: list[list[str]] = []
        self.purged: set[str] = set()

    def take(self, output: bytes) -> None:
        for line in output.splitlines(keepends=True):
            if line.endswith(b"\n"):  # else it was cut off amid a word
                what, *words = line.decode().split()
                if what == "purged":
                    self.purged.add(words[0])
                elif words:
                    self.lines.append([what, *words])


def killed_round(url: str, rnd: random.Random, told: Told) -> None:
    """Two agents and one who tends, killed one after the other after a while."""
    kinds = ["work", "work", "tend"]
    programs = [start("agent", url, kind, f"{kind}{n}") for n, kind in enumerate(kinds)]
    try:
        for program in programs:
            assert program.stdout is not None
            for _ in range(1 + rnd.randint(2, 25 if program is programs[0] else 4)):
                line = program.stdout.readline()
                assert line, "it failed"
                told.take(line)
            time.sleep(rnd.uniform(0, 0.02))  # the moment of a kill, not a wait for anything
        rnd.shuffle(programs)
    finally:
        for program in programs:
            program.send_signal(signal.SIGKILL)
    for program in programs:
        assert program.stdout is not None
        told.take(program.stdout.read())
        assert program.wait() == -signal.SIGKILL, "it failed before"
        program.stdout.close()


def found(store: Store, id: str) -> Session | None:
    return store.get(id) or store.trash.get(id)


def sound(store: Store, told: Told) -> None:
    report = store.check()
    assert report.ok, report.findings
    logs: dict[str, dict[int, Event]] = {}
    for what, id, *words in told.lines:
        session = found(store, id)
        if session is None:
            # A purge that was killed before it could tell leaves a tombstone, as any does.
            head = store.peek(id)
            assert head is not None
            assert head.dead
            continue
        assert id not in told.purged
        if id not in logs:
            logs[id] = {event.seq: event for event in session.events(include_hidden=True)}
        if what == "said":
            event = logs[id][int(words[0])]
            assert isinstance(event.payload, Step) if words[1] == "step" else event.payload == user(words[1])
        elif what == "kept":  # in an earlier round, maybe: what is so already is not said again
            artifacts = [e.payload for e in logs[id].values() if isinstance(e.payload, Artifact)]
            assert [words[0], words[1]] in [[a.name, a.sha256] for a in artifacts]
        elif what == "spent":
            counted = [e for e in logs[id].values() if e.id == f"u:{words[0]}"]
            assert len(counted) == 1
    every_byte_is_there(store)
    names_are_free_or_carried(store, told)


def living_and_trashed(store: Store) -> list[str]:
    return [i.id for i in store.sessions(limit=10_000)] + [t.session.id for t in store.trash.list(limit=10_000)]


def every_byte_is_there(store: Store) -> None:
    for id in living_and_trashed(store):
        session = found(store, id)
        assert session is not None
        for event in session.events(include_hidden=True):
            if isinstance(event.payload, Artifact) and isinstance(event.payload.content, Large):
                with event.payload.content.open() as stream:
                    assert len(stream.read()) == event.payload.size
            if isinstance(event.payload, Step):
                assert len(str(event.payload.output)) == LARGE


def names_are_free_or_carried(store: Store, told: Told) -> None:
    carried: dict[str, str] = {}
    for id in living_and_trashed(store):
        name = store.head(id, trashed=True).tags.get("name")
        if name is not None:
            assert carried.setdefault(name, id) == id
    other = store.create()
    for name in {words[1] for what, *words in told.lines if what == "named"}:
        if name in carried:
            with pytest.raises(Conflict):
                other.update(name=name)
        else:
            other.update(name=name)
    other.delete()


def end_forks(store: Store) -> int:
    """End forks that were begun and not ended: their parents' deletion takes their ids. How many parents went."""
    store.trash.purge(older_than=0)  # forks that were ended, and put away, hold their parents too
    ended = 0
    for finding in store.check().unfinished:
        # A living fork goes first, in another round; what is gone already left checkpoints, which are the sweep's.
        with contextlib.suppress(Conflict, Deleted):
            store.delete(finding.session or "")
            ended += 1
    return ended


@pytest.mark.timeout(1800)  # `--long` takes minutes
@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_agents_and_tenders_lose_nothing_that_was_acknowledged(backend: str, tmp_path: Path, long: bool) -> None:
    url, rnd, told = url_of(backend, tmp_path, durability="process"), random.Random(backend), Told()
    for _ in range(LONG if long else ROUNDS):
        killed_round(url, rnd, told)
        with holdfast.open(url) as store:
            sound(store, told)
    assert told.lines
    with holdfast.open(url) as store:
        # What was interrupted is ended: runs are closed, all can be put away and purged, and no byte is left.
        store.recover()
        assert store.running() == []
        while store.sessions(limit=1).items:
            done = store.prune(Policy(max_age=0, keep_named=False)).apply()
            assert done.failed == ()
            if not done.moved:
                assert end_forks(store)
        purged = store.trash.purge(older_than=0)
        assert (purged.spared, purged.failed, purged.left) == ((), (), "")
        assert store.check(sweep=True).ok
        assert store.backend.blobs.scan() == []
        for name in {words[1] for what, *words in told.lines if what == "named"}:
            store.create(name=name)
