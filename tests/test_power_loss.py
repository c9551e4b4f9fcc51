"""Lost power: what was acknowledged with durability=disk is on the disk, in every state that POSIX allows it to be in.

A writer's calls are recorded (faults.recorder), and from them the disks are made that a power cut may leave
(faults.images). Chosen over a FUSE file system, a block device that forgets, or strace, because it needs neither root
nor another program, so it runs wherever the tests run. It is seen to see everything: a full replay gives the files that
are there, and a store that syncs too little fails.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

import holdfast
from faults import BACKENDS, url_of
from faults.images import MODELS, Image, image, on_disk
from faults.recorder import Op, recording
from faults.work import Ack, Judge
from holdfast.errors import HoldfastError

STEPS = 120
STATES, LONG = 40, 2_000
MODES = ("steps", "tasks")
MEMORY = "/dev/shm"


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory where there is such a place: the calls are the same, and a sync costs nothing."""
    with tempfile.TemporaryDirectory(dir=MEMORY if os.path.isdir(MEMORY) else None) as folder:
        yield Path(folder)


def recorded(backend: str, memory: Path, mode: str, *, fail: int = 0, **params: str) -> list[Op]:
    """The calls of a writer that did all its steps."""
    place = memory / f"place{fail}"
    ops, _ = recording(url_of(backend, place, **params), place, STEPS, mode, f"fail={fail}" if fail else "")
    whole = Image()
    for op in ops:
        whole.apply(op)
    assert whole.files() == on_disk(place), "the recording missed something"
    return ops


def moments(ops: Sequence[Op], count: int, rnd: random.Random) -> list[int]:
    """When the power goes: every other time right behind an acknowledgement."""
    acks = [at for at, op in enumerate(ops) if op.kind == "ack"] or [0]
    return [rnd.choice(acks) + 1 if turn % 2 else rnd.randint(0, len(ops)) for turn in range(count)]


def wrong_after(
    backend: str, ops: Sequence[Op], at: int, model: str, place: Path, mode: str, *, lossy: bool = False
) -> list[str]:
    """What is wrong with a store whose power went at that moment."""
    judge = Judge(0, appends=mode == "tasks")
    judge.acks = {op.data[0]: Ack(*op.data) for op in ops[:at] if op.kind == "ack"}
    judge.tried = STEPS
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    image(ops[:at], model, random.Random(at)).write(place)
    try:
        with holdfast.open(url_of(backend, place, durability="process")) as store:  # to judge needs no sync
            wrong = judge.wrong(store, lossy=lossy)
            session = store.create()
            if session.append(holdfast.note("it goes on")).last != 1:
                wrong.append("it does not go on")
            return wrong
    except HoldfastError as error:
        return [f"{type(error).__name__}: {error}"]


def wrong_states(
    backend: str, ops: Sequence[Op], count: int, place: Path, mode: str, models: Iterable[str] = MODELS, **options: bool
) -> list[str]:
    """Power cuts at many moments; a line for each that left something wrong."""
    found: list[str] = []
    for model in models:
        for at in moments(ops, count, random.Random(model)):
            wrong = wrong_after(backend, ops, at, model, place, mode, **options)
            if wrong:
                found.append(f"{model} {at}: {wrong[0]}")
    return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_was_acknowledged_survives_lost_power(backend: str, mode: str, memory: Path, long: bool) -> None:
    ops = recorded(backend, memory, mode)
    assert wrong_states(backend, ops, LONG if long else STATES, memory / "disk", mode) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_with_durability_process_lost_power_leaves_a_whole_store(backend: str, memory: Path, long: bool) -> None:
    ops = recorded(backend, memory, "steps", durability="process")
    states = LONG if long else STATES
    # Lines of a log that reached the disk in another order than they were written in are told as damage, not repaired.
    models = MODELS if backend == "sqlite" else ("strict", "prefix")
    assert wrong_states(backend, ops, states, memory / "disk", "steps", models, lossy=True) == []
    # Judged as if it had promised more, it must fail: so the test above can.
    assert len(wrong_states(backend, ops, states, memory / "disk", "steps", ["strict"])) > states // 2


@pytest.mark.parametrize("missing", ["file", "folder"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_store_that_syncs_too_little_is_found_out(backend: str, missing: str, memory: Path) -> None:
    ops = recorded(backend, memory, "steps")
    folders = {0} | {op.other for op in ops if op.kind == "create" and op.size}
    fewer = [op for op in ops if op.kind != "sync" or (op.node in folders) != (missing == "folder")]
    assert len(fewer) < len(ops)
    assert wrong_states(backend, fewer, STATES, memory / "disk", "steps", ["strict"]) != []


def syncs_of(ops: Sequence[Op], each: int | None) -> list[int]:
    """The numbers of the syncs; only so many `each` for those of a file, of a folder, in a session's creation, …"""
    names = {0: "folder"}
    found: dict[str, list[int]] = {}
    for op in ops:
        if op.kind == "create":
            kind = re.sub(r"[0-9a-f]{2,}|\d+", "#", op.name.rpartition(".")[2])  # all logs, all blobs: one kind
            names[op.other] = f"{names[op.node]}/{kind}{op.size}"
        elif op.kind == "sync":
            found.setdefault(names[op.node], []).append(sum(map(len, found.values())) + 1)
    rnd = random.Random(0)
    return sorted(
        n for syncs in found.values() for n in (syncs if each is None else rnd.sample(syncs, min(each, len(syncs))))
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_failed_sync_acknowledges_nothing_that_is_not_on_the_disk(backend: str, memory: Path, long: bool) -> None:
    """The system forgets what it could not write, and a later sync of the same file says nothing of it."""
    for fail in syncs_of(recorded(backend, memory, "steps"), None if long else 1):
        ops = recorded(backend, memory, "steps", fail=fail)
        failed = [at for at, op in enumerate(ops) if op.kind == "failed"]
        assert len(failed) == 1, f"sync {fail} did not fail"
        soon = [at + 1 for at, op in enumerate(ops) if op.kind == "ack" and at > failed[0]][:3]
        for at in (*soon, len(ops)):
            for model in ("strict", "mixed"):
                wrong = wrong_after(backend, ops, at, model, memory / "disk", "steps")
                assert wrong == [], f"sync {fail}, {model} {at}"
        shutil.rmtree(memory / f"place{fail}")
