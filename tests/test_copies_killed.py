"""A copy that is killed anywhere, again and again while its source grows, goes on: in the end all is there once."""

from __future__ import annotations

import contextlib
import random
import subprocess
import time
from pathlib import Path

import pytest

import holdfast
from holdfast import Store, user
from holdfast.moving.copying import copy_store
from shell import Shell
from test_copying import digests
from test_moving_servers import copied, fill, url_of

ROUNDS, LONG = 8, 72
"""Kills of copies from one kind of store to another: 32 in a normal run, 504 in a long one."""
GROWN = 15
"""Sessions that grow before each copy."""
EMBEDDED = [("sqlite", "sqlite"), ("sqlite", "file")]
SERVERS = [("sqlite", "postgres"), ("postgres", "redis")]
MORE = [("redis", "file"), ("cluster", "file"), ("file", "cluster")]
"""For a long run."""


@pytest.mark.parametrize(("source", "target"), EMBEDDED)
def test_a_copy_that_is_killed_anywhere_goes_on(source: str, target: str, tmp_path: Path, long: bool) -> None:
    killed_anywhere(source, target, tmp_path, LONG if long else ROUNDS)


@pytest.mark.server
@pytest.mark.xdist_group("redis-cluster")
def test_a_copy_over_servers_that_is_killed_anywhere_goes_on(tmp_path: Path, long: bool) -> None:
    for source, target in SERVERS + (MORE if long else []):
        place = tmp_path / f"{source}-{target}"
        place.mkdir()
        killed_anywhere(source, target, place, LONG if long else ROUNDS)


def killed_anywhere(source: str, target: str, place: Path, rounds: int) -> None:
    """Each round brings a part of what is missing; none is killed before it has brought something."""
    shell, rnd = Shell(place), random.Random(f"{source} {target}")
    here, there = url_of(source, place, "source"), url_of(target, place, "target")
    with holdfast.open(here) as store, holdfast.open(there) as copy:
        fill(store)
        kills = 0
        for number in range(rounds):
            grow(store, rnd, number)
            kills += is_killed(shell, here, there, copy, rnd.uniform(0.0, 0.03))
        assert kills > rounds // 4
        wanted = digests(store)
        assert copy_store(store, copy).failed == ()
        assert digests(copy) == wanted
        assert copy_store(store, copy).new == 0
        assert copy.check().ok
        for id in wanted:
            seqs = [entry.seq for entry in copy.backend.read(copy.head(id).ref, voided=True)]
            assert seqs == list(range(1, copy.head(id).last + 1)), id


def grow(store: Store, rnd: random.Random, number: int) -> None:
    """New events in sessions at random, some of which are new."""
    for n in rnd.sample(range(3 * GROWN), GROWN):
        store.session(f"more-{n}").append(*[user(f"{number} {m}") for m in range(120)])


def is_killed(shell: Shell, here: str, there: str, copy: Store, seconds: float) -> bool:
    """Kill a copy so long after it has brought something; whether it was not at its end."""
    before = copied(copy)
    with shell.start("copy", here, there, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        while running.poll() is None and copied(copy) == before:
            time.sleep(0.002)
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(seconds)
        killed = running.poll() is None
        running.kill()
    return killed
