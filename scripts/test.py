"""Run all tests on a machine that has Python 3.11 and nothing else.

    python3 scripts/test.py [--setup] [--long] [--no-servers] [pytest's own options]

Makes the virtual environment `.venv`, installs the project and what its tests need into it, and runs them. With
`--setup` it stops before the tests. What a test needs and does not find fails the run, unless it was left out by name:
`--no-servers` leaves out the tests that need a database server.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
OLDEST = (3, 11)
WORKERS = "3"
"""Test processes at a time: one more than the usual two processors, as tests of servers mostly wait. More would make
those that start processes of their own wait for each other."""

LONG_TEST = 3 * 3600
"""Seconds after which a test of a long run is taken to hang; pyproject.toml has the limit of a normal run."""


def main(arguments: list[str]) -> int:
    """Set up, then run pytest; its exit code."""
    if sys.version_info < OLDEST:
        print(f"holdfast needs Python {OLDEST[0]}.{OLDEST[1]} or newer; this is {sys.version.split()[0]}.")
        return 2
    python = environment()
    if "--no-servers" not in arguments:
        servers(python)
    if "--setup" in arguments:
        return 0
    parallel = [] if any(a.startswith("-n") for a in arguments) else ["-n", WORKERS, "--dist", "loadgroup"]
    patient = ["-o", f"faulthandler_timeout={LONG_TEST}", "-o", f"timeout={LONG_TEST}"] if "--long" in arguments else []
    return subprocess.run([python, "-m", "pytest", *parallel, *patient, *arguments], cwd=ROOT, check=False).returncode


def environment() -> str:
    """The Python of the virtual environment, which is brought up to date when pyproject.toml changed."""
    python = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    stamp = VENV / "installed"
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return str(python)
    if not python.exists():
        print("making .venv", flush=True)
        venv.create(VENV, with_pip=True)
    print("installing the project and what its tests need into .venv", flush=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    # The pip that comes with Python 3.11 knows no dependency groups.
    subprocess.run([*pip, "--upgrade", "pip>=25.1"], cwd=ROOT, check=True)
    subprocess.run([*pip, "--editable", ".", "--group", "dev"], cwd=ROOT, check=True)
    stamp.write_text(wanted)
    return str(python)


def servers(python: str) -> None:
    """Bring the database servers that the tests need and the machine lacks: from pip, or Debian's packages."""
    told = subprocess.run([python, "tests/servers"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    for line in told.splitlines():
        print(f"installing a server for the tests: {line}", flush=True)
        source, _, name = line.partition(" ")
        if source == "pip":
            pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
            subprocess.run([*pip, "--group", name], cwd=ROOT, check=True)
        else:
            quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # no service is started
            for command in (["update"], ["install", "--no-install-recommends", name]):
                done = subprocess.run(["apt-get", "-qq", *command], check=False, env=quiet, stdout=subprocess.DEVNULL)
            if done.returncode:
                print(f"{name} could not be installed (apt-get ended with {done.returncode}); its tests will fail")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
