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
    # As pip leaves a program: compiled. The round that does not count does it, here and not in the source's folders.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(bench.path("compiled"))
    (size,) = bench.sizes([10_000])
    env["HOLDFAST_URL"] = ours.url(bench.listed(size)[0])
    samples = interleaved(
        {
            "version": timed(lambda: _run([*command, "--version"], env)),
            "list": timed(lambda: _run([*command, "session", "list"], env)),
            "json": timed(lambda: _run([*command, "session", "list", "--json"], env)),
            "python": timed(lambda: _run([sys.executable, "-c", "pass"], env)),
        },
        bench.scaled(21, 2),
    )
    bare = samples["python"].p50
    yield at_most("holdfast --version", samples["version"].p50, bare, 6, "python -c pass")
    for name, what in (("list", "session list"), ("json", "session list --json")):
        took = samples[name].p50
        what = f"holdfast {what} over 10,000 sessions"
        yield Row(what, seconds(took), f"python -c pass {seconds(bare)}", took / bare, "≤ 250 ms", took <= LIMIT)


def _run(command: list[str], env: dict[str, str]) -> None:
    subprocess.run(command, check=True, capture_output=True, env=env)
