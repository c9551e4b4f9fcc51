"""Real faults for the persistent backends: killed writers, lost power, full disks, several processes, flipped bits.

Programs of this package run as children (`python -m faults.writer …`); the oracles judge what is found afterwards.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
BACKENDS = ("sqlite", "files")
"""The persistent backends, by the name that `url_of` takes."""


def url_of(backend: str, place: Path, **params: str) -> str:
    """The URL of a store of that backend in a folder."""
    url = f"sqlite://{place}/store.db" if backend == "sqlite" else f"file://{place}/store"
    return url + ("?" + "&".join(f"{name}={value}" for name, value in params.items()) if params else "")


def start(program: str, *arguments: object, **options: object) -> subprocess.Popen[bytes]:
    """Start a program of this package; its standard output is a pipe."""
    return subprocess.Popen(command(program, *arguments), stdout=subprocess.PIPE, env=environment(), **options)  # type: ignore[call-overload]  # pipes and files only


def command(program: str, *arguments: object) -> list[str]:
    """What starts a program of this package."""
    return [sys.executable, "-m", f"faults.{program}", *map(str, arguments)]


def environment() -> dict[str, str]:
    """The environment that such a program needs."""
    return {**os.environ, "PYTHONPATH": str(TESTS)}
