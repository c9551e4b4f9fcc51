"""The results: kept as JSON by case, and from those the table in docs/BENCHMARKS.md.

The table is made by the benchmark alone. What a person has to say about it stands below a mark in the same file, and
stays when the table is made anew.
"""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks import peers
from benchmarks.rows import Row

MARK = "<!-- Above this line the benchmark writes; below it people do. -->"
HEADER = """# Benchmarks

Made by `python -m benchmarks --write`; do not edit the table. Every ratio is of two figures of one run, on the same
messages (median 600 bytes, a tail to 100 KB) and the same disk, the contestants taking turns. *p50* is the median over
all turns of each turn's median. Figures change from machine to machine; the ratios are what counts.
"""


class Result(msgspec.Struct):
    """What one case found, when and where. `load` is the load average before it: above 1, others were at work too."""

    date: str
    machine: str
    load: float
    seconds: float
    rows: list[Row]


def machine(folder: Path) -> str:
    """What kind of machine this is."""
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {platform.system()}, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}, {file_system(folder)}"
    )


def file_system(folder: Path) -> str:
    """The type of the file system a folder is on, where /proc tells."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "file system unknown"
    best = ("", "file system unknown")
    for line in mounts.read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if (str(folder.resolve()) + "/").startswith(mount.rstrip("/") + "/") and len(mount) >= len(best[0]):
            best = (mount, kind)
    return best[1]


def versions() -> str:
    """What was measured."""
    names = ["holdfast", "msgspec", "zstandard", *peers.PACKAGES]
    found = {name: peers.version(name) for name in names}
    return ", ".join(f"{name} {version}" for name, version in found.items() if version)


def load_average() -> float:
    """Of the last minute; -1 where it can't be told."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else -1


def result(rows: list[Row], load: float, seconds: float, folder: Path, *, quick: bool) -> Result:
    """A case's rows, with when and where."""
    where = f"{machine(folder)}; {versions()}{'; a quick run: sizes are a hundredth' if quick else ''}"
    return Result(datetime.now(UTC).strftime("%Y-%m-%d"), where, load, seconds, rows)


def load(path: Path) -> dict[str, Result]:
    """The results kept so far."""
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Result]) if path.exists() else {}


def save(folder: Path, results: Mapping[str, Result], order: list[str]) -> None:
    """Write the JSON and the table; cases that were not run now keep what they were."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = load(folder / "benchmarks.json") | dict(results)
    kept = {name: kept[name] for name in order if name in kept}
    (folder / "benchmarks.json").write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")
    page = folder / "BENCHMARKS.md"
    before = page.read_text("utf-8") if page.exists() else ""
    said = before.partition(MARK)[2]
    page.write_text(f"{HEADER}\n{document(kept)}\n{MARK}{said or chr(10)}", encoding="utf-8")


def document(results: Mapping[str, Result]) -> str:
    """The table of all cases, with a summary and where they were measured."""
    rows = [row for found in results.values() for row in found.rows]
    goals = [row for row in rows if row.reached is not None]
    lines = [f"{sum(bool(row.reached) for row in goals)} of {len(goals)} goals reached.", ""]
    for place in dict.fromkeys((found.date, found.machine) for found in results.values()):
        here = {name: found for name, found in results.items() if (found.date, found.machine) == place}
        loads = [found.load for found in here.values()]
        busy = f"load average before a case from {min(loads)} to {max(loads)}"
        lines += [f"- {place[0]}: {place[1]}; {busy} ({', '.join(here)})"]
    lines += ["", *table(rows)]
    return "\n".join(lines) + "\n"


def table(rows: list[Row]) -> list[str]:
    """Rows as Markdown."""
    lines = ["| measure | holdfast | against | ratio | goal | reached |", "|---|---|---|---|---|---|"]
    for row in rows:
        what = f"{row.what} ({row.note})" if row.note else row.what
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        reached = "" if row.reached is None else "yes" if row.reached else "**no**"
        lines.append(f"| {what} | {row.ours} | {row.other} | {ratio} | {row.goal} | {reached} |")
    return lines
