"""Options of the test run: `--long` for the full length of fault, fuzz and model runs."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

EXAMPLES = 200
"""Examples of each property in a normal run."""
LONG = 5_000
"""Examples of each property with `--long`."""


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


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether the full length was asked for."""
    return bool(request.config.getoption("--long"))
