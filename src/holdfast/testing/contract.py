"""The contract of a backend: a pytest class with an example for each promise, to be inherited."""

from __future__ import annotations

import inspect
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from holdfast.testing.heads import HeadContract
from holdfast.testing.listing import FindContract
from holdfast.testing.logs import LogContract
from holdfast.testing.mishaps import MishapContract
from holdfast.testing.searching import SearchContract
from holdfast.testing.sharing import SharingContract
from holdfast.testing.subject import text_of


class BackendContract(HeadContract, LogContract, FindContract, SearchContract, SharingContract, MishapContract):
    """Inherit from it in a class named `Test…`, and say in `make` how your backend is opened."""


def examples(contract: type[BackendContract]) -> list[str]:
    """The names of a contract's examples."""
    return sorted(name for name in dir(contract) if name.startswith("test_"))


def failures(contract: type[BackendContract]) -> Iterator[tuple[str, Exception]]:
    """Run a contract without pytest; the examples that fail, one after the other, with their errors."""
    for name in examples(contract):
        error = _run(contract(), name)
        if error is not None:
            yield name, error


def _run(contract: BackendContract, name: str) -> Exception | None:
    place = Path(tempfile.mkdtemp(prefix="holdfast-"))
    try:
        backend = contract.make(place, text_of)
        given = {"backend": backend, "place": place}
        example = getattr(contract, name)
        try:
            example(**{fixture: given[fixture] for fixture in inspect.signature(example).parameters})
        finally:
            backend.close()
    except Exception as error:  # noqa: BLE001  # whatever a broken backend does is what was asked for
        return error
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return None
