"""The contract suite on every backend of this package, and the machine on those that are not its own reference."""

from __future__ import annotations

from pathlib import Path

from holdfast.backend import Backend, TextOf
from holdfast.backends import open_backend
from holdfast.testing import BackendContract, BackendMachine, failures


class TestMemory(BackendContract):
    persistent = False

    def make(self, place: Path, text_of: TextOf) -> Backend:
        return open_backend("memory://", text_of)


class TestFiles(BackendContract):
    def make(self, place: Path, text_of: TextOf) -> Backend:
        return open_backend(f"file://{place}/store", text_of)

    def tear(self, place: Path) -> None:
        for log in (place / "store").glob("logs/**/*.jsonl"):
            with log.open("ab") as file:
                file.write(b'{"v":1,"append":[{"torn')

    def derived(self, place: Path) -> list[Path]:
        return list((place / "store").glob("index.db*"))


class TestSQLite(BackendContract):
    def make(self, place: Path, text_of: TextOf) -> Backend:
        return open_backend(f"sqlite://{place}/store.db", text_of)


class TestSQLiteByApsw(BackendContract):
    def make(self, place: Path, text_of: TextOf) -> Backend:
        return open_backend(f"sqlite://{place}/store.db?engine=apsw", text_of)


class FilesMachine(BackendMachine):
    def make(self, place: Path, text_of: TextOf) -> Backend:
        return open_backend(f"file://{place}/store?durability=process", text_of)


class SQLiteMachine(BackendMachine):
    def make(self, place: Path, text_of: TextOf) -> Backend:
        return open_backend(f"sqlite://{place}/store.db?durability=process", text_of)


TestFilesMachine = FilesMachine.TestCase
TestSQLiteMachine = SQLiteMachine.TestCase


def test_the_contract_runs_without_pytest_too() -> None:
    assert list(failures(TestMemory)) == []
