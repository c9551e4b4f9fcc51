"""Options of the test run: `--long` for the full length of fault, fuzz and model runs."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run fault, fuzz and model tests at their full length")


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether the full length was asked for."""
    return bool(request.config.getoption("--long"))
