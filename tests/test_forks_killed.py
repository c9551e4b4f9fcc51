"""Forks whose process is killed at any moment, also while another one deletes: what is left is sound, and no orphan."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

import holdfast
from faults import BACKENDS, start, url_of

ROUNDS, LONG = 5, 100


def killed(url: str, *arguments: str, acks: int, wait: float) -> list[list[str]]:
    """Start a program, kill it after so many answers and a moment, and give what it had told."""
    with start("brancher", url, *arguments) as program:
        assert program.stdout is not None
        told = [program.stdout.readline() for _ in range(acks + 1)]
        time.sleep(wait)  # the moment of the kill, not a wait for anything
        program.send_signal(signal.SIGKILL)
        told += program.stdout.read().splitlines(keepends=True)
    assert program.returncode == -signal.SIGKILL
    return [line.decode().split() for line in told[1:] if line.endswith(b"\n")]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_killed_fork_leaves_a_sound_store_and_can_be_made_again(backend: str, tmp_path: Path, long: bool) -> None:
    url, rnd = url_of(backend, tmp_path, durability="process"), random.Random(backend)
    acknowledged: list[list[str]] = []
    for _ in range(LONG if long else ROUNDS):
        acknowledged += killed(url, acks=rnd.randint(1, 12), wait=rnd.uniform(0, 0.01))
    with holdfast.open(url) as store:
        report = store.check()
        assert report.ok, report.findings
        for parent, child in acknowledged:
            assert child in {branch.session.id for branch in store.tree(parent).forks}
            own = [e.payload for e in store.session(child).events(include_hidden=True, types="message", last=1)]
            assert own == [holdfast.user("own")]
        for finding in report.unfinished:
            store.session(finding.session).fork()
        for info in store.sessions(limit=10_000):  # forks first, whose activity is later than their parents'
            if info.parent is not None:
                store.delete(info.id)
        for info in store.sessions(limit=10_000):
            store.delete(info.id)
        assert store.check().unfinished == ()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_process_that_deletes_leaves_no_orphan_of_one_that_forks(backend: str, tmp_path: Path, long: bool) -> None:
    url, rnd = url_of(backend, tmp_path, durability="process"), random.Random(backend)
    deleted = 0
    for _ in range(LONG if long else ROUNDS):
        with start("brancher", url, "delete") as other:
            try:
                killed(url, acks=rnd.randint(5, 15), wait=rnd.uniform(0, 0.01))
            finally:
                other.send_signal(signal.SIGKILL)
            assert other.stdout is not None
            deleted += other.stdout.read().count(b"\n") - 1
    assert deleted > 0
    with holdfast.open(url) as store:
        report = store.check()
        assert report.ok, report.findings
