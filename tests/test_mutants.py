"""The suite itself is tested: it must catch every backend that was broken on purpose.

A mutant that survives names a promise which nothing checks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

import test_contract
from holdfast.backend import Backend, TextOf
from holdfast.testing import BackendContract, BackendMachine, failures
from mutants import Mutant, finding, keeping, mutants_of, writing
from mutants.engines import ENGINES, Break

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


def run_machine(kind: type[Mutant], examples: int = 2000) -> None:
    machine = type("MutantMachine", (BackendMachine,), {"make": opened(kind)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            print_blob=False,
            report_multiple_bugs=False,
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


# --- The engines themselves ---


OPENED = {
    "sqlite": test_contract.TestSQLite,
    "apsw": test_contract.TestSQLiteByApsw,  # its library leaves freed bytes as they are
    "files": test_contract.TestFiles,
}


@pytest.mark.parametrize(("broken", "engine", "example"), ENGINES, ids=lambda value: getattr(value, "__name__", value))
def test_the_examples_catch_an_engine_that_is_broken(
    broken: Break, engine: str, example: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not broken passes in tests/test_contract.py."""
    monkeypatch.setattr("holdfast.testing.subject.PATIENCE", 0.5)
    broken(monkeypatch)
    caught = next(failures(OPENED[engine]), None)
    assert caught is not None, f"{engine} passes every example of the contract though it {broken.__name__}"
    assert caught[0] == example, caught  # by what it is about, not because the fault broke all and everything
