"""The tables of docs/ORIGINS.md: every defect has its row, and every row a test that is there or a reason."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
HEAD = "| id | there | here | shown by |"
DEFECTS = {"O": 33, "A": 22, "Z": 20}
"""How many defects of each of the programs are known: oxios, a3s-code, zeroclaw."""


class Row(NamedTuple):
    """A defect: what happens there, what happens here, and what shows it."""

    id: str
    there: str
    here: str
    shown: str


def rows_of(text: str) -> Iterator[Row]:
    """The rows of all tables with the head that such a table has."""
    lines = iter(text.splitlines())
    for line in lines:
        if line != HEAD:
            continue
        next(lines)
        for row in lines:
            if not row.startswith("|"):
                break
            cells = [cell.strip() for cell in row.strip("|").split(" | ")]
            assert len(cells) == len(Row._fields), row
            yield Row(*cells)


def wrong(row: Row, root: Path = ROOT) -> str | None:
    """Why a row shows nothing; None if it does."""
    if not row.there or not row.here:
        return "it says nothing"
    if row.shown.startswith("reason: "):
        return None if len(row.shown) > len("reason: ") + 10 else "it gives no reason"
    named = re.findall(r"`([^`]*)`", row.shown)
    if not named or re.sub(r"`[^`]*`|[\s,]", "", row.shown):
        return "it names no test and gives no reason"
    for test in named:
        path, _, name = test.partition("::")
        if not (root / path).is_file() or not path.startswith("tests/test_") or name not in named_in(root / path):
            return f"there is no test {test}"
    return None


def named_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {node.name for node in found if node.name.startswith("test_")}


ROWS = list(rows_of((ROOT / "docs" / "ORIGINS.md").read_text(encoding="utf-8")))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_every_row_names_a_test_or_a_reason(row: Row) -> None:
    assert wrong(row) is None


def test_no_defect_of_a_program_is_left_out() -> None:
    ids = [row.id for row in ROWS]
    for letter in {id[0] for id in ids}:
        assert [id for id in ids if id[0] == letter] == [f"{letter}{n}" for n in range(1, DEFECTS[letter] + 1)]


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        ("`tests/test_origins.py::test_that_is_not_there`", "there is no test"),
        ("`tests/test_nowhere.py::test_x`", "there is no test"),
        ("`tests/test_origins.py`", "there is no test"),
        ("`src/holdfast/store.py::open`", "there is no test"),
        ("somewhere", "it names no test"),
        ("reason: so", "it gives no reason"),
        ("", "it names no test"),
    ],
)
def test_the_reader_of_tables_finds_what_is_wrong(shown: str, why: str) -> None:
    (row,) = rows_of(f"{HEAD}\n|---|---|---|---|\n| Z1 | a | b | {shown} |\n\n| Z2 | no | such | table |")
    assert str(wrong(row)).startswith(why)
