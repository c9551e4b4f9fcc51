"""Real faults for the persistent backends: killed writers, lost power, full disks, several processes, flipped bits.

Programs of this package run as children (`python -m faults.writer …`); the oracles judge what is found afterwards.
"""

from __future__ import annotations

import contextlib
import os
import signal
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


def start(program: str, *arguments: object, stdin: int | None = None) -> subprocess.Popen[bytes]:
    """Start a program of this package; its standard output is a pipe."""
    return subprocess.Popen(command(program, *arguments), stdin=stdin, stdout=subprocess.PIPE, env=environment())


def output(program: str, *arguments: object, timeout: float = 120) -> bytes:
    """What a program of this package prints. It and its children are ended when it takes too long."""
    with subprocess.Popen(
        command(program, *arguments), stdout=subprocess.PIPE, env=environment(), start_new_session=True
    ) as running:
        try:
            told, _ = running.communicate(timeout=timeout)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == 0, f"{program} {arguments} ended with {running.returncode}"
    return told


def command(program: str, *arguments: object) -> list[str]:
    """What starts a program of this package."""
    return [sys.executable, "-m", f"faults.{program}", *map(str, arguments)]


def environment() -> dict[str, str]:
    """The environment that such a program needs."""
    return {**os.environ, "PYTHONPATH": str(TESTS)}
