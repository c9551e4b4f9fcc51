"""The suite itself is tested: it must catch every backend that was broken on purpose.

A mutant that survives names a promise which nothing checks.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

import holdfast
from holdfast import user
from holdfast.backend import Backend, TextOf
from holdfast.backends.filelogs import LogBodies
from holdfast.testing import BackendContract, BackendMachine, failures
from mutants import Mutant, finding, keeping, mutants_of, writing

MUTANTS = [kind for family in (writing, keeping, finding) for kind in mutants_of(family)]

# --- The proof ---


def opened(kind: type[Mutant]) -> Callable[[Any, Path, TextOf], Backend]:
    """A `make` under which all that is opened in one folder is one store, as with a file."""
    stores: dict[Path, Backend] = {}
    guard = threading.Lock()

    def make(self: Any, place: Path, text_of: TextOf) -> Backend:
        with guard:
            return stores.setdefault(place, kind(text_of))

    return make


def contract_of(kind: type[Mutant]) -> type[BackendContract]:
    return type("MutantContract", (BackendContract,), {"make": opened(kind)})


def run_machine(kind: type[Mutant], examples: int = 400) -> None:
    machine = type("MutantMachine", (BackendMachine,), {"make": opened(kind)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            print_blob=False,
            deadline=None,
        ),
    )


def test_what_is_not_broken_passes() -> None:
    assert list(failures(contract_of(Mutant))) == []
    run_machine(Mutant, 100)


@pytest.mark.parametrize("kind", MUTANTS, ids=lambda kind: kind.__name__)
def test_the_examples_catch_what_is_broken(kind: type[Mutant], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.testing.subject.PATIENCE", 0.5)
    caught = next(failures(contract_of(kind)), None)
    assert caught is not None, f"{kind.__name__} passes every example of the contract"


@pytest.mark.parametrize("kind", [kind for kind in MUTANTS if kind.machine], ids=lambda kind: kind.__name__)
def test_the_machine_catches_what_is_broken(kind: type[Mutant]) -> None:
    with pytest.raises((AssertionError, LookupError, ExceptionGroup)):
        run_machine(kind)


# --- Torn lines: only a store of log files has them ---


def tear_a_line(place: Path) -> None:
    """A crash in the middle of a write; what came before and comes after must be whole, also for whoever reads logs."""
    url = f"file://{place}/store?durability=process"
    with holdfast.open(url) as store:
        store.create("s").append(user("one"), user("two"))
    (log,) = (place / "store").glob("logs/**/*.jsonl")
    with log.open("ab") as file:
        file.write(b'{"v":1,"append":[{"torn')
    with holdfast.open(url) as store:
        assert store.session("s").append(user("three")).first == 3
    for line in log.read_bytes().splitlines():
        json.loads(line)
    for index in (place / "store").glob("index.db*"):
        index.unlink()  # it can be rebuilt from the logs
    with holdfast.open(url) as store:
        assert [m.text for m in store.session("s").messages()] == ["one", "two", "three"]
        assert store.check().ok


def test_a_torn_line_is_set_aside(tmp_path: Path) -> None:
    tear_a_line(tmp_path)


def test_a_glued_line_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LogBodies, "meet", lambda self, db, ref: False)
    with pytest.raises(json.JSONDecodeError):
        tear_a_line(tmp_path)
