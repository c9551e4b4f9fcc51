"""Options of the test run: `--long` for the full length of fault, fuzz and model runs."""

from __future__ import annotations

import faulthandler
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

import holdfast
from holdfast.backend import Backend
from holdfast.backends import open_backend
from holdfast.testing.subject import text_of

if TYPE_CHECKING:
    from psycopg import Connection

    from servers.s3 import ObjectStorage

EXAMPLES = 80
"""Examples of each property in a normal run."""
LONG = 5_000
"""Examples of each property with `--long`."""


ON_SERVERS = {
    f"test_{noun}"
    for noun in (
        "aio", "artifacts", "check", "documents", "follow", "forks", "history", "large", "recovery", "retention",
        "session", "states", "store", "sweeping", "trash", "turns", "turns_aio", "usage",
    )
}  # fmt: skip
"""The modules whose tests of `url` and `store` run on servers, too."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run fault, fuzz and model tests at their full length")


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile(
        "holdfast",
        max_examples=LONG if config.getoption("--long") else EXAMPLES,
        deadline=None,
        print_blob=True,
        # An example may open a store on disk, and the machine is shared: slow is not wrong.
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("holdfast")


def pytest_report_header() -> list[str]:
    """What this machine has for the tests of full disks, and of several hosts: root only can make a tmpfs and hosts."""
    from faults.small_disk import DISKS
    from servers import hosts

    why = hosts.missing()
    return [
        f"full disks: {', '.join(DISKS)}" + ("" if "tmpfs" in DISKS else " (no tmpfs: it may not be mounted here)"),
        "hosts: "
        + (f"only this one ({why}); writers of the soak are plain processes" if why else "network namespaces"),
    ]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.config.getoption("--long"):
        faulthandler.cancel_dump_traceback_later()  # a long run is no hang, however long it takes


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """No test leaves a store open: its threads would go on under the tests behind it."""
    before = set(threading.enumerate())
    yield
    left = [it.name for it in threading.enumerate() if it not in before and it.name.startswith("holdfast-")]
    assert not left, f"a store of this test was not closed: {left} still run"


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether the full length was asked for."""
    return bool(request.config.getoption("--long"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The fixture `url` on each backend; on servers, in the modules whose tests are worth the time."""
    given = {name for mark in metafunc.definition.iter_markers("parametrize") for name in _names(mark.args[0])}
    if "url" in metafunc.fixturenames and "url" not in given:
        backends: list[object] = ["memory", "file", "sqlite"]
        if metafunc.module.__name__ in ON_SERVERS:
            backends.append(pytest.param("postgres", marks=pytest.mark.server))
        metafunc.parametrize("url", backends, indirect=True)


def _names(given: str | Sequence[str]) -> Sequence[str]:
    return [name.strip() for name in given.split(",")] if isinstance(given, str) else given


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store may be opened, for each backend."""
    if request.param == "postgres":
        from servers import postgres

        return postgres.url()
    places = {"memory": "memory://", "file": f"file://{tmp_path}/store", "sqlite": f"sqlite://{tmp_path}/store.db"}
    return places[request.param]


@pytest.fixture
def store(url: str) -> Iterator[holdfast.Store]:
    """An empty store, on each backend."""
    with holdfast.open(url) as opened:
        yield opened


@pytest.fixture
def at() -> str:
    """The URL of a new store on PostgreSQL."""
    from servers import postgres

    return postgres.url()


@pytest.fixture
def backend(at: str) -> Iterator[Backend]:
    """That store's backend."""
    made = open_backend(at, text_of)
    yield made
    made.close()


@pytest.fixture
def db(at: str) -> Iterator[Connection]:
    """A connection of somebody else, whose statements find that store's tables."""
    import psycopg

    from servers.postgres import schema_of

    with psycopg.connect(at.partition("?")[0], autocommit=True, options=f"-c search_path={schema_of(at)}") as other:
        yield other


@pytest.fixture
def object_storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStorage]:
    """Object storage, and the environment that leads to it."""
    from servers.s3 import KEYS, storage

    found = storage()
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": found.endpoint}.items():
        monkeypatch.setenv(name, value)
    yield found
    if not found.answers():
        found.start()
