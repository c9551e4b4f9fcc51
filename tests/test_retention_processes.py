"""Prunes and purges beside writers in other processes, and killed at any moment: nothing that is needed is lost."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import holdfast
from faults import BACKENDS, start, url_of
from holdfast import Policy, Store, user

ROUNDS, LONG = 4, 60


def read_line(program: subprocess.Popen[bytes]) -> bytes:
    assert program.stdout is not None
    return program.stdout.readline()


@contextlib.contextmanager
def running(url: str, *kinds: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Programs that go on until the end of the block, and are killed there."""
    with contextlib.ExitStack() as stack:
        programs = [stack.enter_context(start("pruner", url, kind)) for kind in kinds]
        try:
            for program in programs:
                assert read_line(program) == b"open\n"
            yield programs
        finally:
            for program in programs:
                program.send_signal(signal.SIGKILL)


def sound(store: Store) -> None:
    report = store.check()
    assert report.ok, report.findings
    for info in store.sessions(limit=10_000):  # a fork whose parent was purged could not be read
        assert [event.seq for event in store.session(info.id).events(include_hidden=True)] == list(
            range(1, info.last + 1)
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_who_appends_and_forks_beside_prunes_and_purges_loses_nothing(backend: str, tmp_path: Path, long: bool) -> None:
    url = url_of(backend, tmp_path, durability="process")
    acknowledged: dict[str, int] = {}
    with running(url, "fill", "prune", "purge", "restore") as (filler, *others):
        for _ in range(4000 if long else 400):
            id, last = read_line(filler).split()
            acknowledged[id.decode()] = int(last)
        for program in others:
            assert program.poll() is None, "it failed"
    with holdfast.open(url) as store:
        sound(store)
        for id, last in acknowledged.items():
            head = store.peek(id)
            assert head is not None
            assert head.last >= last, "what was acknowledged is neither there nor deleted by a purge that saw it"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["prune", "purge"])
def test_what_is_killed_amid_its_work_leaves_a_sound_store_and_a_second_run_ends_it(
    backend: str, kind: str, tmp_path: Path, long: bool
) -> None:
    url, rnd = url_of(backend, tmp_path, durability="process"), random.Random(backend + kind)
    for round in range(LONG if long else ROUNDS):
        with holdfast.open(url) as store:
            for number in range(60):
                store.session(f"r{round}-{number}").append(user(f"walrus {number}"))
            store.session(f"r{round}-0").fork(id=f"r{round}-child")
            if kind == "purge":
                store.prune(Policy(max_sessions=10, batch=7)).apply()
        with start("pruner", url, kind) as program:
            told = [read_line(program) for _ in range(1 + rnd.randint(0, 8))]
            time.sleep(rnd.uniform(0, 0.02))  # the moment of the kill, not a wait for anything
            program.send_signal(signal.SIGKILL)
        with holdfast.open(url) as store:
            sound(store)
            for line in told[1:]:
                head = store.peek(line.decode().strip())
                assert head is not None
                assert head.trashed if kind == "prune" else head.dead
    with holdfast.open(url) as store:
        store.prune(Policy(max_age=0)).apply()
        store.prune(Policy(max_age=0)).apply()  # parents, whose forks are gone now
        assert store.sessions().items == []
        done = store.trash.purge(older_than=0)
        assert (done.failed, done.spared, done.left) == ((), (), "")
        assert store.check() == holdfast.CheckReport(sessions=0, events=0, findings=())
        found = subprocess.run(["grep", "-rlaF", "walrus", str(tmp_path)], capture_output=True, check=False)
        assert found.stdout == b""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_prune_that_was_killed_can_be_undone(backend: str, tmp_path: Path) -> None:
    url = url_of(backend, tmp_path, durability="process")
    with holdfast.open(url) as store:
        for number in range(200):
            store.session(f"s{number}").append(user("one"))
    with start("pruner", url, "prune") as program:
        read_line(program)
        with holdfast.open(url) as store:
            while not store.trash.list(limit=1).items:
                assert program.poll() is None
            program.send_signal(signal.SIGKILL)
    with holdfast.open(url) as store:
        prune = store.prunes()[-1]
        assert store.trash.undo(prune.id).failed == ()
        assert store.trash.list(prune=prune.id).items == []
        assert len(store.sessions(limit=1000)) + len(store.trash.list(limit=1000)) == 200
        sound(store)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_killed_prune_uses_no_cooldown_up_and_keeps_nobody_off(backend: str, tmp_path: Path) -> None:
    url = url_of(backend, tmp_path, durability="process")
    policy = Policy(max_age=0, cooldown=3600, batch=1)
    program = (
        "import sys, os, holdfast\n"
        "store = holdfast.open(sys.argv[1])\n"
        "plan = store.prune(holdfast.Policy(max_age=0, cooldown=3600, batch=1))\n"
        "real = store.batcher.commit_all\n"
        "store.batcher.commit_all = lambda commits: (real(commits), os.kill(os.getpid(), 9))\n"
        "plan.apply()\n"
    )
    with holdfast.open(url) as store:
        store.session("a").append(user("one"))
        store.session("b").append(user("two"))
        assert subprocess.run([sys.executable, "-c", program, url], check=False).returncode == -signal.SIGKILL
        assert [one.session.id for one in store.trash.list()] == ["a"]
        assert store.prune(policy).apply().moved == ("b",)
        assert store.prune(policy).apply() == holdfast.Pruned()
        store.session("c").append(user("three"))
        assert store.prune(policy).apply().wait > 0
