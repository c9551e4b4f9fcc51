"""How long the command takes to start, against Python doing nothing, and to list 10,000 sessions."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

from benchmarks import ours
from benchmarks.bench import Bench
from benchmarks.measure import interleaved, timed
from benchmarks.rows import Row, at_most, not_run, seconds

LIMIT = 0.25


def run(bench: Bench) -> Iterator[Row]:
    """Whole processes, in turns."""
    command = ours.command()
    if command is None:
        yield not_run("holdfast --version", "there is no command here")
        return
    (size,) = bench.sizes([10_000])
    url = ours.url(bench.listed(size)[0])
    samples = interleaved(
        {
            "version": timed(lambda: _run([*command, "--version"])),
            "list": timed(lambda: _run([*command, "session", "list"], url)),
            "json": timed(lambda: _run([*command, "session", "list", "--json"], url)),
            "python": timed(lambda: _run([sys.executable, "-c", "pass"])),
        },
        bench.scaled(21, 2),
    )
    bare = samples["python"].p50
    yield at_most("holdfast --version", samples["version"].p50, bare, 6, "python -c pass")
    for name, what in (("list", "session list"), ("json", "session list --json")):
        took = samples[name].p50
        what = f"holdfast {what} over 10,000 sessions"
        yield Row(what, seconds(took), f"python -c pass {seconds(bare)}", took / bare, "≤ 250 ms", took <= LIMIT)


def _run(command: list[str], url: str = "memory://") -> None:
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "HOLDFAST_URL": url})
