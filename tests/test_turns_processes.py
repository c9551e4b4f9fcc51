"""Turns of real processes: stopped, killed, forked, and with clocks that are wrong."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import holdfast
from faults import BACKENDS, start, url_of
from holdfast import LeaseHeld, Message, State, Store, user
from rivals import wait_for

DAY = 86_400


@contextlib.contextmanager
def holding(url: str, mode: str, ttl: float, jump: float = 0) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the turn of `s`."""
    process = start("turner", url, mode, ttl, jump, stdin=subprocess.PIPE)
    try:
        assert heard(process) == "held"
        yield process
    finally:
        process.kill()
        process.communicate()


def heard(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def go_on(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"go\n")
    process.stdin.flush()


@pytest.fixture(params=BACKENDS)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with holdfast.open(url_of(request.param, tmp_path)) as store:
        store.session("s")
        yield store


def log(store: Store) -> list[str]:
    found = []
    for event in store.session("s").events():
        payload = event.payload
        found.append(payload.state if isinstance(payload, State) else payload.text)  # type: ignore[union-attr]
    return found


def test_a_holder_that_was_stopped_and_overtaken_stores_nothing(shared: Store) -> None:
    with holding(shared.url, "stop", ttl=0.5) as zombie:
        _, status = os.waitpid(zombie.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        with shared.session("s").turn(wait=60) as turn:
            assert turn.took_over is not None
            assert turn.took_over.standing == "expired"
            turn.append(user("mine"))
            os.kill(zombie.pid, signal.SIGCONT)
            assert [heard(zombie), heard(zombie)] == ["LeaseLost", "LeaseLost at the end"]
            assert shared.session("s").info().state == "running"
            turn.append(user("mine still"))
    assert log(shared) == ["running", "in time", "error", "running", "mine", "mine still", "idle"]
    assert shared.check().ok


@pytest.mark.parametrize("jump", [1000 * DAY, -1000 * DAY])
def test_a_clock_that_is_wrong_hands_no_live_lease_away(shared: Store, jump: float) -> None:
    ttl = 1.0
    with holding(shared.url, "wait", ttl, jump) as holder:
        began = time.monotonic()
        beats = set()

        def lived() -> bool:
            beats.add(shared.head("s").tags["lease_beat"])
            with pytest.raises(LeaseHeld), shared.session("s").turn():
                raise AssertionError
            return len(beats) >= 5 and time.monotonic() - began > 1.5 * ttl

        wait_for(shared, lived)
        go_on(holder)
        assert [heard(holder), heard(holder)] == ["stored", "ended"]


def test_a_holder_that_was_killed_is_overtaken_at_once(shared: Store) -> None:
    with holding(shared.url, "wait", ttl=DAY) as holder:
        with pytest.raises(LeaseHeld), shared.session("s").turn():
            raise AssertionError
        holder.kill()
        holder.wait()
        with shared.session("s").turn() as turn:
            assert turn.took_over is not None
            assert (turn.took_over.owner, turn.took_over.standing) == ("wait", "gone")
    reasons = [e.payload.reason for e in shared.session("s").events(types="state")]  # type: ignore[union-attr]
    assert "interrupted: its process has ended" in reasons


def test_a_holder_that_is_dead_and_not_yet_buried_is_overtaken_at_once(shared: Store) -> None:
    with holding(shared.url, "wait", ttl=DAY) as holder:
        holder.kill()
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
        with shared.session("s").turn() as turn:
            assert turn.took_over is not None


def test_a_forked_child_writes_as_its_parents_turn_and_does_not_end_it(shared: Store) -> None:
    with holding(shared.url, "fork", ttl=0.5) as holder:
        first = shared.head("s").tags["lease_beat"]
        wait_for(shared, lambda: shared.head("s").rev > 8 and shared.head("s").tags["lease_beat"] != first)
        with pytest.raises(LeaseHeld), shared.session("s").turn():
            raise AssertionError
        go_on(holder)
        assert [heard(holder), heard(holder)] == ["stored", "ended"]
    said = [e.payload.text for e in shared.session("s").events() if isinstance(e.payload, Message)]
    assert said == ["in time", "of the child", "late"]


def test_a_turn_under_way_outlives_the_store_of_its_process(shared: Store) -> None:
    """A store that is closed inside a turn gives the lease up only by its end."""
    with holdfast.open(shared.url) as store:
        store.session("s").turn(ttl=0.3).take()
    with shared.session("s").turn(wait=60) as turn:
        assert turn.took_over is not None
        assert turn.took_over.standing == "expired"
