"""The benchmark runs and its table tells the truth: no limit on time is kept here, only that it does not rot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_a_case_runs_and_writes_its_table(tmp_path: Path) -> None:
    page = tmp_path / "BENCHMARKS.md"
    mark = "<!-- Above this line the benchmark writes; below it people do. -->"
    page.write_text(f"An earlier table\n{mark}\n\nSaid by a person.\n")
    command = [sys.executable, "-m", "benchmarks", "size", "load", "--quick", "--write", "--docs", str(tmp_path)]
    done = subprocess.run([*command, "--dir", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    kept = json.loads((tmp_path / "benchmarks.json").read_text())
    assert list(kept) == ["load", "size"]
    assert [row for row in kept["size"]["rows"] if row[3] is not None]
    text = page.read_text("utf-8")
    assert "| bytes a message, without the search index |" in text
    assert "quick run" in text
    assert text.endswith("Said by a person.\n")
    assert "An earlier table" not in text
    assert not list(tmp_path.glob("holdfast-bench-*"))


def test_the_cases_of_turns_contexts_forks_and_prunes_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "turn", "context", "fork", "prune", "--quick", "--write"]
    done = subprocess.run(
        [*command, "--docs", str(tmp_path), "--dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    kept = json.loads((tmp_path / "benchmarks.json").read_text())
    assert set(kept) == {"turn", "context", "fork", "prune"}
    assert all(row[3] is not None for case in kept.values() for row in case["rows"])


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import rows

    return rows


def test_a_goal_is_reached_up_to_its_limit_and_not_beyond(rows) -> None:
    assert rows.at_most("x", 1.5, 1.0, 1.5, "bare").reached is True
    assert rows.at_most("x", 1.6, 1.0, 1.5, "bare").reached is False
    assert rows.at_least("x", 8.0, 1.0, 8, "peer").reached is True
    assert rows.at_least("x", 7.9, 1.0, 8, "peer").reached is False
    assert rows.at_most("x", 1.0, 1.0, None, "peer").reached is None
    assert rows.not_run("x", "missing").reached is None


def test_the_same_seed_makes_the_same_messages_of_the_stated_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.corpus import LARGEST, Corpus

    said = Corpus(3).said(2000)
    assert said == Corpus(3).said(2000)
    assert said != Corpus(4).said(2000)
    sizes = sorted(len(one.text) for one in said)
    assert 500 < sizes[1000] < 700
    assert 5_000 < sizes[-1] <= LARGEST
    assert {one.role for one in said} == {"user", "assistant", "tool"}
