"""Import of transcripts, end to end: megabytes a second, and the memory it peaks at for a little and for a lot.

The command is what is run, as a process of its own, on a home folder full of made-up transcripts. The floor reads the
same lines, decodes their JSON and inserts them as they are, 500 a transaction.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks import ours
from benchmarks.bench import Bench
from benchmarks.corpus import Said
from benchmarks.floor import Bare, decode
from benchmarks.rows import Row, at_most, not_run
from benchmarks.transcripts import Writer

MB = 1_000_000
GOAL = 25
"""Megabytes a second."""


_WEIGH = """
import os, sys, time
start = time.perf_counter()
silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=silent)
_, status, usage = os.wait4(child, 0)
print(time.perf_counter() - start, usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""Runs a command and tells its seconds and its peak memory. A process of its own, as a child is taken to have needed at
least what its parent held when it forked."""


class Imported(NamedTuple):
    """What one import came to."""

    rate: float
    peak: int


def run(bench: Bench) -> Iterator[Row]:
    """A little, then four times as much."""
    what = "import of transcripts"
    command = [*(ours.command() or ("false",)), "import"]
    if not hasattr(os, "wait4") or subprocess.run([*command, "--help"], capture_output=True).returncode:
        yield not_run(what, "there is no command to import with, or no wait4 to weigh it")
        return
    small, large = (_import(bench, command, size * MB) for size in (bench.scaled(24, 1), bench.scaled(96, 2)))
    bare = _bare(bench, bench.scaled(24, 1) * MB)
    against = f"bare read + JSON + insert {bare:,.1f} MB/s"
    speed = min(small.rate, large.rate)
    yield Row(what, f"{speed:,.1f} MB/s", against, speed / bare, f"≥ {GOAL} MB/s", speed >= GOAL)
    yield at_most("peak memory of an import of 96 MB ÷ of 24 MB", large.peak, small.peak, 1.2, "of 24 MB", mebibytes)


def _import(bench: Bench, command: list[str], size: int) -> Imported:
    home = bench.path("home")
    size = Writer(home).write(size)
    url = ours.url(bench.path("holdfast.db"))
    places = ("CLAUDE_CONFIG_DIR", "CODEX_HOME", "XDG_DATA_HOME")
    kept = {name: value for name, value in os.environ.items() if name not in places}
    took, peak = weighed(command, {**kept, "HOME": str(home), "HOLDFAST_URL": url})
    _assert_imported(url, home)
    return Imported(size / MB / took, peak)


def weighed(command: list[str], env: dict[str, str]) -> tuple[float, int]:
    """Run a command: the seconds it took, and the bytes of memory it peaked at."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", _WEIGH, *command],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    took, peak = map(float, done.stdout.split())
    return took, int(peak * (1 if sys.platform == "darwin" else 1024))


def _assert_imported(url: str, home: Path) -> None:
    import holdfast

    files = len(list(home.rglob("*.jsonl")))
    with holdfast.open(url) as store:
        assert len(store.sessions(limit=10_000)) == files


def _bare(bench: Bench, size: int) -> float:
    home = bench.path("home")
    size = Writer(home).write(size)
    table = Bare(bench.path("bare.db"))
    start = time.perf_counter()
    for path in home.rglob("*.jsonl"):
        with path.open("rb") as file:
            lines = [Said(str(decode(line)["type"]), line.decode()) for line in file]
        for first in range(0, len(lines), 500):
            table.extend(path.name, lines[first : first + 500])
    took = time.perf_counter() - start
    table.close()
    return size / MB / took


def mebibytes(value: float) -> str:
    """Bytes as a person writes them."""
    return f"{value / 1024 / 1024:,.0f} MiB"
