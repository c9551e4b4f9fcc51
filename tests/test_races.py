"""Two processes do to the same session what does not go together, at the same time: one of them is told, none is lost.

Whichever comes first at each session, the other one's answer must be true of what is there afterwards.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

import holdfast
from faults import BACKENDS, start, url_of
from faults.racer import LARGE, LIMIT
from holdfast import Store, user

COUNT, LONG = 15, 300
REFUSALS = {"Trashed", "Deleted", "Conflict", "NotFound", "Stale", "HoldfastError", "Exists", "TooLarge"}


def prepared(store: Store, count: int, *, fork: bool = False, trash: bool = False) -> None:
    """Sessions to race for; with forks of them in the trash, or there themselves."""
    for n in range(count):
        session = store.session(f"p{n}", labels=[f"l{n}"], name=f"n{n}" if trash else None)
        session.append(user(f"one {n}"))
        session.artifacts.put("shared", "shared")
        if fork:
            session.fork(id=f"c{n}")
            store.trash.put(f"c{n}")
        if trash:
            store.trash.put(session.id)


def raced(url: str, count: int, *deeds: str) -> list[list[str]]:
    """What each of the deeds was told of each session."""
    programs = [start("racer", url, deed, count, stdin=subprocess.PIPE) for deed in deeds]
    try:
        for program in programs:
            assert program.stdout is not None
            assert program.stdout.readline() == b"open\n"
        for program in programs:
            assert program.stdin is not None
            program.stdin.write(b"go\n")
            program.stdin.flush()
        told = [program.communicate(timeout=300)[0].decode().split() for program in programs]
    finally:
        for program in programs:
            program.kill()
            program.communicate()
    assert [program.returncode for program in programs] == [0] * len(programs)
    assert [len(lines) for lines in told] == [count] * len(told)
    assert {line for lines in told for line in lines} <= {"done", *REFUSALS}
    return told


RACES: Mapping[tuple[str, str], Mapping[str, bool]] = {
    ("fork", "prune"): {},
    ("fork", "put"): {},
    ("fork", "delete"): {},
    ("append", "delete"): {},
    ("append", "put"): {},
    ("artifact", "delete"): {},
    ("append", "purge"): {"trash": True},
    ("restore", "purge"): {"trash": True},
    ("restore fork", "put"): {"fork": True},
    ("restore fork", "prune"): {"fork": True},
    ("restore fork", "delete"): {"fork": True},
    ("restore fork", "purge"): {"fork": True, "trash": True},
    ("restore", "restore fork"): {"fork": True, "trash": True},
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("race", RACES, ids=" versus ".join)
def test_what_does_not_go_together(backend: str, race: tuple[str, str], tmp_path: Path, long: bool) -> None:
    url, count = url_of(backend, tmp_path, durability="process"), LONG if long else COUNT
    with holdfast.open(url) as store:
        prepared(store, count, **RACES[race])
    told = raced(url, count, *race)
    with holdfast.open(url) as store:
        report = store.check(sweep=True)
        assert report.ok, report.findings
        assert report.unfinished == ()
        for n, answers in enumerate(zip(*told, strict=True)):
            judge(store, n, dict(zip(race, answers, strict=True)))


def judge(store: Store, n: int, told: Mapping[str, str]) -> None:
    """Whether what each was told is true."""
    parent, child = store.peek(f"p{n}"), store.peek(f"c{n}")
    assert parent is not None
    done = {deed for deed, answer in told.items() if answer == "done"}
    assert parent.dead == bool(done & {"delete", "purge"})
    if done & {"put", "prune"} and "restore fork" not in done:  # which brings its parent back with it
        assert parent.trashed
    if child is not None and not child.dead and not child.trashed:
        assert not parent.dead
        assert not parent.trashed, "a living fork reads through what is in the trash"
        assert [m.text for m in store.session(f"c{n}").messages()][:1] == [f"one {n}"]
        assert store.session(f"c{n}").artifacts.get("shared") == b"shared"
    if done & {"fork", "restore fork"}:
        assert child is not None
        assert not child.dead
        assert not child.trashed
    if not parent.dead:
        session = store.get(f"p{n}") or store.trash.get(f"p{n}")
        assert session is not None
        assert ("late" in [m.text for m in session.messages()]) == ("append" in done)
        assert (session.artifacts.get("late") is not None) == ("artifact" in done)
        assert session.artifacts.get("shared") == b"shared"
    if "restore" in told and "purge" in told:
        assert len(done) == 1
        if "purge" in done:  # its name is free
            assert store.create(name=f"n{n}").info().name == f"n{n}"
        else:
            assert store.resolve(f"n{n}").id == f"p{n}"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sweep_takes_nothing_that_a_fork_is_being_given(backend: str, tmp_path: Path, long: bool) -> None:
    url, count = url_of(backend, tmp_path, durability="process"), LONG // 4 if long else 10
    with holdfast.open(url) as store:
        prepared(store, count)
    told = raced(url, count, "keep", "sweep")
    assert told == [["done"] * count] * 2
    with holdfast.open(url) as store:
        assert store.check(sweep=True).ok
        for n in range(count):
            child = store.session(f"c{n}")
            assert child.artifacts.get("own") == n.to_bytes(4) * (LARGE // 4)
            assert child.artifacts.get("shared") == b"shared"
            output = next(child.events(types="step")).payload.output  # type: ignore[union-attr]
            assert str(output) == f"{n:05}" * 20_000


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_limit_of_artifacts_holds_however_many_put_some(backend: str, tmp_path: Path) -> None:
    url = url_of(backend, tmp_path, durability="process")
    with holdfast.open(url) as store:
        prepared(store, COUNT)  # with one each
    told = raced(url, COUNT, "limited", "limited")
    with holdfast.open(url) as store:
        assert sum(lines.count("done") for lines in told) == LIMIT - 1
        assert sum(lines.count("TooLarge") for lines in told) == 2 * COUNT - LIMIT + 1
        assert len(store.session("p0").artifacts.list()) == LIMIT
        assert store.check().ok


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_response_is_counted_once_though_two_tell_of_it_at_once(backend: str, tmp_path: Path) -> None:
    url = url_of(backend, tmp_path, durability="process")
    with holdfast.open(url) as store:
        prepared(store, COUNT)
    assert raced(url, COUNT, "spend", "spend") == [["done"] * COUNT] * 2
    with holdfast.open(url) as store:
        counts = store.session("p0").info().counts
        assert (counts.calls, counts.input_tokens) == (COUNT, COUNT)
        assert store.usage().total.calls == COUNT
        assert store.check().ok


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_name_is_given_to_one_of_two_who_ask_at_once(backend: str, tmp_path: Path) -> None:
    url = url_of(backend, tmp_path, durability="process")
    with holdfast.open(url) as store:
        prepared(store, COUNT)
    told = raced(url, COUNT, "rename", "create")
    with holdfast.open(url) as store:
        for n, answers in enumerate(zip(*told, strict=True)):
            assert sorted(answers) == ["Exists", "done"]
            named = f"p{n}" if answers[0] == "done" else f"other{n}"
            assert [info.id for info in store.sessions(name=f"x{n}")] == [named]
            assert store.exists(f"other{n}") == (answers[1] == "done")
