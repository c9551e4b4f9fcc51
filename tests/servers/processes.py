"""A server as a process of the tests: an unprivileged user's, on a free port, ended with the tests.

A watchdog ends what is left when the tests are killed, so no server outlives them.
"""

from __future__ import annotations

import atexit
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PATIENCE = 60.0
"""Seconds within which a server must answer, or end."""
USERS = ("postgres", "redis", "nobody")
"""Who runs servers when the tests run as root: the first that is there."""
IN_MEMORY = Path("/dev/shm")
ROOM = 2 << 30
"""Bytes that must be free in memory to put the servers' folders there."""

_any = random.SystemRandom()  # not what a property's examples seed
_watchdog: subprocess.Popen[str] | None = None


def free_port(below: int = 32_000, *, beside: int = 0) -> int:
    """A port of the loopback that nobody uses now, below those that the system gives to who connects.

    Args:
        below: It is less than this.
        beside: That many above it another one is free.
    """
    while True:
        port = _any.randrange(12_000, below)
        if is_free(port) and is_free(port + beside):
            return port


def is_free(port: int) -> bool:
    """Whether a server could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def unprivileged() -> str | None:
    """The user who runs servers; None if we are no root, and run them ourselves."""
    if os.geteuid():
        return None
    names = {user.pw_name for user in pwd.getpwall()}
    return next(name for name in USERS if name in names)


def folder(name: str) -> Path:
    """A new folder that belongs to who runs servers, and is removed in the end. In memory, where there is room."""
    roomy = IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free > ROOM
    made = Path(tempfile.mkdtemp(prefix=f"holdfast-{name}-", dir=IN_MEMORY if roomy else None))
    _watch(f"folder {made}")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    give(made)
    return made


def give(path: Path) -> None:
    """Make a path the property of who runs servers."""
    if user := unprivileged():
        shutil.chown(path, user)


def _watch(line: str) -> None:
    global _watchdog  # one for the whole test process
    if _watchdog is None:
        program = str(Path(__file__).with_name("watchdog.py"))
        _watchdog = subprocess.Popen(
            [sys.executable, program], stdin=subprocess.PIPE, text=True, start_new_session=True, cwd="/"
        )
        atexit.register(_watchdog.wait)
        assert _watchdog.stdin is not None
        atexit.register(_watchdog.stdin.close)
    assert _watchdog.stdin is not None
    _watchdog.stdin.write(line + "\n")
    _watchdog.stdin.flush()


def run(command: Sequence[str], **env: str) -> str:
    """Run a program as who runs servers, to its end; what it printed."""
    user = unprivileged()
    done = subprocess.run(
        command, user=user, group=_group(user), extra_groups=[] if user else None, env={**os.environ, **env},
        cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stdout}"
    return done.stdout


def run_here(command: Sequence[str]) -> str:
    """Run a program as we are; what it printed, whether it failed or not."""
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=PATIENCE).stdout


def _group(user: str | None) -> int | None:
    return pwd.getpwnam(user).pw_gid if user else None


def is_alive(pid: int) -> bool:
    """Whether a process runs, and has not only ended unseen."""
    return run_here(["ps", "-o", "stat=", "-p", str(pid)]).strip()[:1] not in ("", "Z")


class Process:
    """A running server. `end_with` is the signal that makes it end at once, which the watchdog uses, too."""

    def __init__(
        self, command: Sequence[str], log: Path, *, end_with: int = signal.SIGTERM, as_us: bool = False
    ) -> None:
        """Start it; `as_us` when it is no server that refuses root, and its program is one that only we can read."""
        self._log = log
        self._end_with = end_with
        user = None if as_us else unprivileged()
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                command, user=user, group=_group(user), extra_groups=[] if user else None, cwd="/",
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        _watch(f"+ {self.pid} {int(end_with)}")
        atexit.register(self.stop)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def wait_until(self, answers: Callable[[], bool]) -> None:
        """Wait till it answers; it fails with the server's own words if it ends before, or takes too long."""
        deadline = time.monotonic() + PATIENCE
        while not answers():
            ended = self._process.poll()
            if ended is not None or time.monotonic() > deadline:
                what = f"ended with {ended}" if ended is not None else f"did not answer within {PATIENCE} s"
                raise AssertionError(f"the server {what}:\n{self._log.read_text('utf-8', 'replace')[-4000:]}")
            time.sleep(0.01)

    def wait_for(self, holds: Callable[[], bool]) -> None:
        """Wait till something holds of what it left behind."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, f"what process {self.pid} started does not end"
            time.sleep(0.002)

    def children(self) -> list[int]:
        """The processes that it started."""
        listed = run_here(["ps", "-o", "pid=", "--ppid", str(self.pid)])
        return [int(pid) for pid in listed.split()]

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal (kill -9), and wait for its end."""
        if self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(PATIENCE)
        _watch(f"- {self.pid}")
        atexit.unregister(self.stop)

    def stop(self) -> None:
        """End it."""
        self.kill(self._end_with)
