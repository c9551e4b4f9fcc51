"""Agents that are killed at any moment of their turns: what they were told is there, and the next one can go on."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

import holdfast
from faults import BACKENDS, start, url_of
from holdfast import Store
from test_recovery import valid

ROUNDS, LONG = 6, 200


def killed(url: str, acks: int, wait: float) -> dict[str, int]:
    """Start an agent, kill it after so many answers and a moment; how far it was told that each session is."""
    with start("worker", url) as agent:
        assert agent.stdout is not None
        lines = [agent.stdout.readline() for _ in range(acks + 1)]
        time.sleep(wait)  # the moment of the kill, not a wait for anything
        agent.send_signal(signal.SIGKILL)
        lines += agent.stdout.read().splitlines(keepends=True)
    assert agent.returncode == -signal.SIGKILL
    told = [line.decode().split() for line in lines[1:] if line.endswith(b"\n")]
    return {session: int(seq) for session, seq in told}


def look(store: Store, told: dict[str, int]) -> int:
    """All that was acknowledged is there, and every turn that was under way is stuck; how many are."""
    report = store.check()
    assert report.ok, report.findings
    for session, seq in told.items():
        assert store.session(session).info().last >= seq
    running = {info.id for info in store.sessions(state="running")}
    stuck = store.stuck()
    assert {lease.session for lease in stuck} == running
    assert {lease.standing for lease in stuck} <= {"gone"}
    return len(stuck)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("way", ["recover", "take over"])
def test_an_agent_that_is_killed_inside_a_turn_loses_nothing_and_blocks_nobody(
    backend: str, way: str, tmp_path: Path, long: bool
) -> None:
    url, rnd = url_of(backend, tmp_path), random.Random(f"{backend} {way}")
    stuck = 0
    for _ in range(LONG if long else ROUNDS):
        told = killed(url, rnd.randint(1, 25), rnd.uniform(0, 0.003))
        with holdfast.open(url) as store:
            found = look(store, told)
            stuck += found
            if way == "take over":
                continue  # by the next agent, which resumes
            assert found <= 1  # the agent runs one session at a time
            for done in store.recover():
                assert done.applied
                assert store.session(done.session).info().state == "error"
            assert store.running() == []
            for info in store.sessions():
                assert valid(store.session(info.id).messages())
    assert stuck > 0
    with holdfast.open(url) as store:
        for info in store.sessions():
            with store.session(info.id).turn() as turn:
                turn.resume()
            assert valid(store.session(info.id).messages())
