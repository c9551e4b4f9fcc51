"""docs/SCALING.md says what was measured, and its sums come out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
WRITTEN = (DOCS / "SCALING.md").read_text("utf-8").replace("\N{MULTIPLICATION SIGN}", "*").replace("\N{EN DASH}", "-")
TEXT = re.sub(r"\s+", " ", WRITTEN)
YEAR = 365 * 86_400
EVENTS = 20
"""Of a session."""
COLUMNS = ("SQLite", "PostgreSQL", "Redis")


def figures(row: str) -> list[int]:
    """The first number in each cell of a row of the first table."""
    match = re.search(rf"\| {row} \|([^|]*)\|([^|]*)\|([^|]*)\|", TEXT)
    assert match is not None, row
    found = [re.search(r"\d[\d,]*", cell) for cell in match.groups()]
    return [int(number[0].replace(",", "")) if number else 0 for number in found]


SESSION, EVENT = figures("a session without events"), figures("an event")
WORDS, LOGGED = figures("the words of an event, once somebody searches"), figures("logged for one append")
BARE = [session + EVENTS * event for session, event in zip(SESSION, EVENT, strict=True)]
WHOLE = [bare + EVENTS * words for bare, words in zip(BARE, WORDS, strict=True)]
CONNECTION = 9.2


def measured(name: str) -> float:
    rows = json.loads((DOCS / "benchmarks.json").read_text("utf-8"))["footprint"]["rows"]
    return next(float(row[1].split()[0].replace(",", "")) for row in rows if row[0] == name)


@pytest.mark.parametrize("column", COLUMNS)
def test_what_a_session_takes_is_what_was_measured(column: str) -> None:
    n = COLUMNS.index(column)
    assert SESSION[n] == measured(f"{column}: bytes a session without events")
    assert EVENT[n] == measured(f"{column}: bytes an event")
    if column != "Redis":
        assert WORDS[n] == measured(f"{column}: bytes an event, for search")
    if column == "PostgreSQL":
        assert LOGGED[n] == measured("PostgreSQL: bytes of write-ahead log for one append")
        assert measured("PostgreSQL: memory of a connection") == CONNECTION
        assert f"{CONNECTION} MiB of the server" in TEXT
    if column == "Redis":
        assert LOGGED[n] == measured("Redis: bytes of append-only file for one append")


def test_the_sizes_of_stores_are_the_sums() -> None:
    summed = ", ".join(f"{s:,} + {EVENTS} * {e:,}" for s, e in zip(SESSION, EVENT, strict=True))
    assert f"| {summed} | " + " | ".join(f"{size / 1000:.1f} KB" for size in BARE) + " |" in TEXT
    words = ", ".join(f"{EVENTS} * {each:,}" for each in WORDS[:2])
    assert f"| with the words: {words} more | {WHOLE[0] / 1000:.1f} KB | {WHOLE[1] / 1000:.1f} KB | - |" in TEXT
    for name, sessions, digits, unit, power in (
        ("10 thousand", 10_000, 1, "GB", 9), ("10 million", 10**7, 0, "GB", 9), ("10 billion", 10**10, 0, "TB", 12),
    ):  # fmt: skip
        sizes = [WHOLE[0], WHOLE[1], BARE[2]]
        cells = " | ".join(f"{sessions * size / 10**power:.{digits}f} {unit}" for size in sizes)
        assert re.search(rf"\| {name} \| 200 \w+ \| [^|]+ \| {re.escape(cells)} \|", TEXT), cells


def test_rates_are_the_sums() -> None:
    per_second = 10**7 * EVENTS / YEAR
    assert (f"{per_second:.1f}/s, {10 * per_second:.0f}/s" in TEXT, f"{per_second:.1f}") == (True, "6.3")
    log = f"{LOGGED[1] / 1000:.1f}"
    for rate in (63, 246):
        assert f"{rate}/s * {log} KB = {rate * float(log) / 1000:.1f} MB/s" in TEXT
        assert f"{rate}/s * 6 = {round(rate * 6, -1 if rate < 100 else -2):,}" in TEXT
    assert f"6.3/s * {log} KB * 86,400 s = {6.3 * float(log) * 86_400 / 1e6:.1f} GB a day" in TEXT
    assert f"6,300/s * {log} KB * 86,400 s = {6300 * float(log) * 86_400 / 1e9:.1f} TB a day" in TEXT
    assert f"63,000/s ÷ 256 = {63_000 / 256:.0f}/s a server" in TEXT


def test_machines_are_the_sums() -> None:
    heads, tags = (int(n.replace(",", "")) for n in re.findall(r"its head ([\d,]+), five tags ([\d,]+)", TEXT)[0])
    assert f"10 million * {heads} bytes = {heads / 100:.1f} GB, the tags {tags / 100:.1f} GB" in TEXT
    assert f"{BARE[2] / 100:.0f} GB over six masters of 64 GB, each with {BARE[2] / 600:.0f} GB of data" in TEXT
    a_server = 1024 * 10**7 / 256
    assert f"256 servers of {a_server * BARE[1] / 1e12:.1f} TB ({a_server * WHOLE[1] / 1e12:.1f} TB with words)" in TEXT
    assert f"it is {-(-256 * 30 // 365)} servers" in TEXT
    assert f"8 * 13 * {CONNECTION} MiB = {round(8 * 13 * CONNECTION, -1):.0f} MiB" in TEXT
    assert f"100 * {CONNECTION} MiB = {100 * CONNECTION:.0f} MiB" in TEXT
