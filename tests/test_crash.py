"""A writer that is killed at any moment: what it acknowledged is there, once; no batch is half; the store goes on.

A kill leaves what the system was given, so this finds torn writes, lost locks and half batches, not a missing fsync:
that is what tests/test_power_loss.py is for.
"""

from __future__ import annotations

import math
import os
import random
import selectors
import shutil
import signal
import time
from pathlib import Path

import pytest

import holdfast
from faults import BACKENDS, start, url_of
from faults.recorder import recording
from faults.work import Ack, Judge, events
from faults.writer import TASKS

ROUNDS, LONG = 30, 1_000
MODES = ("steps", "tasks", "threads")
STORE_LIFE = 5
"""Rounds after which a new store begins, so that its check stays quick."""
ENDLESS = 10**9
SWEPT, KILLS, SPARED = 26, 15, 20
"""Steps of the writer that is killed behind each of its calls; how many of the calls in a normal run; and how many of
the last are spared, since not every run makes exactly as many."""


def killed_writer(url: str, judge: Judge, mode: str, rnd: random.Random) -> None:
    """Start a writer, kill it at a random moment, and tell the judge."""
    writer = start("writer", url, judge.seed, judge.tried, ENDLESS, mode)
    acks = rnd.choice((0, 1, rnd.randint(2, 60)))
    assert writer.stdout is not None
    with writer, selectors.DefaultSelector() as ready:
        ready.register(writer.stdout, selectors.EVENT_READ)
        told = b""
        while told.count(b"\n") < acks + 1:
            assert ready.select(60), f"the writer told nothing for a minute after {told[-100:]!r}"
            chunk = os.read(writer.stdout.fileno(), 65_536)
            assert chunk, f"the writer ended by itself ({writer.wait()}) after {told[-100:]!r}"
            told += chunk
        time.sleep(rnd.uniform(0, 0.2 if acks == 0 else 0.005))  # any moment, also in the middle of opening
        writer.send_signal(signal.SIGKILL)
        told += writer.stdout.read()
    assert writer.returncode == -signal.SIGKILL
    hear(judge, told.split(b"\n")[1:-1])
    # Each of its threads or tasks may have begun one step more.
    judge.tried = max([judge.tried, *judge.acks]) + (2 if mode == "steps" else TASKS + 1)


def hear(judge: Judge, lines: list[bytes]) -> None:
    """Tell the judge what was acknowledged."""
    for line in lines:
        ack = Ack(*map(int, line.split()))
        judge.acks[ack.n] = ack


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_killed_writer_loses_nothing_acknowledged(backend: str, mode: str, tmp_path: Path, long: bool) -> None:
    rounds = math.ceil((LONG if long else ROUNDS) / len(MODES))
    rnd = random.Random(f"{backend} {mode}")
    judge, place, acknowledged = Judge(0), tmp_path, 0
    for number in range(rounds):
        if number % STORE_LIFE == 0:
            place = tmp_path / str(number)
            place.mkdir()
            acknowledged += len(judge.acks)
            judge = Judge(number, appends=mode != "steps")
        url = url_of(backend, place)
        killed_writer(url, judge, mode, rnd)
        with holdfast.open(url) as store:
            assert judge.wrong(store) == [], f"round {number}, {place}"
            session = store.create(f"after {number}")
            assert session.append(holdfast.note("it goes on")).first == session.info().last
            session.delete()
    assert acknowledged + len(judge.acks) > rounds


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_writer_killed_behind_any_call_loses_nothing(backend: str, tmp_path: Path, long: bool) -> None:
    """Not at a random moment but between any two calls that change the disk, one after the other."""
    calls, _ = recording(url_of(backend, tmp_path / "whole"), tmp_path / "whole", SWEPT)
    every = range(1, len(calls) - SPARED)
    numbers = every if long else random.Random(0).sample(every, KILLS)
    for number in numbers:
        place = tmp_path / str(number)
        url = url_of(backend, place)
        _, told = recording(url, place, SWEPT, fault=f"kill={number}")
        judge = Judge(0)
        hear(judge, told.splitlines())
        judge.tried = max(judge.acks, default=-1) + 2
        with holdfast.open(url) as store:
            assert judge.wrong(store) == [], f"killed behind call {number}, {calls[number - 1]}"
            assert store.create("after").append(holdfast.note("it goes on")).last == 1
        shutil.rmtree(place)


def test_the_judge_of_steps_finds_what_is_wrong() -> None:
    judge = Judge(0, appends=True)
    judge.tried = 10
    what = next(judge.step(n) for n in range(10) if judge.step(n).many > 1 and judge.step(n).size < 1_000)
    whole = events(0, what)
    for held, acks, wrong in (
        (whole, [Ack(what.n, 1, len(whole))], False),
        (whole, [], False),  # the answer was lost, the step was not
        ([], [Ack(what.n, 1, len(whole))], True),  # lost
        (whole[:-1], [], True),  # half a batch
        (whole[::-1], [], True),  # in another order
        ([*whole, *whole], [], True),  # twice
        ([holdfast.user("step 11 event 0 of 1 made up")], [], True),  # from nobody
        (whole, [Ack(what.n, 2, len(whole) + 1)], True),  # acknowledged with other numbers
    ):
        judge.acks = {ack.n: ack for ack in acks}
        with holdfast.open("memory://") as store:
            session = store.session(what.session)
            if held:
                session.append(*held)
            assert bool(judge.wrong(store)) == wrong, (held, acks)
