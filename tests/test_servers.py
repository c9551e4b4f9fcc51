"""The servers of the tests outlive no test run, however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.testing.subject import eventually

pytestmark = pytest.mark.server

STARTS = """
import time
from servers.postgres import Postgres
server = Postgres().start()
print(server.data, flush=True)
time.sleep(600)
"""


def test_a_server_ends_with_tests_that_are_killed() -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    running = subprocess.Popen([sys.executable, "-c", STARTS], stdout=subprocess.PIPE, text=True, env=env)
    with running:
        assert running.stdout is not None
        data = Path(running.stdout.readline().strip())
        pid = int((data / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, 0)
        running.kill()
    assert eventually(lambda: not is_alive(pid))
    assert eventually(lambda: not data.exists())


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
