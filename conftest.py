"""No test is left out silently: a skip fails the run, unless the one who runs the tests asked for it by an option."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator

import pytest

ASKED = "left out as asked by"
NOT_RUN = "not run here:"
"""What a test says for whose server the machine has no package, and whoever runs the tests may not install one."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-servers", action="store_true", help="leave out the tests that need a database server")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "server: needs a database server; --no-servers leaves it out")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("server") and item.config.getoption("--no-servers"):
        pytest.skip(f"{ASKED} --no-servers")


def _may_be(reason: str) -> bool:
    return ASKED in reason or NOT_RUN in reason


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and not _may_be(str(report.longrepr)):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped and nobody asked for it: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} was skipped and nobody asked for it: {report.longrepr}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the files whose tests were not run; pytest's own summary only counts them."""
    skipped = terminalreporter.stats.get("skipped", [])
    whole = Counter((report.nodeid.partition("::")[0], report.longrepr[2]) for report in skipped)
    if whole:
        terminalreporter.section("not run")
    for (file, reason), count in sorted(whole.items()):
        terminalreporter.write_line(f"{file}: {count} tests: {reason.removeprefix('Skipped: ')}")
