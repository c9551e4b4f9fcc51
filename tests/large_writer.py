"""A process that appends large values and is killed amid it."""

from __future__ import annotations

import signal
import subprocess
import sys

WRITER = """
import sys, holdfast
with holdfast.open(sys.argv[1]) as store:
    for number in range(1000):
        store.session("s").append(holdfast.user(str(number) * 300_000), key=str(number))
        print(number, flush=True)
"""


def killed_large_writer(url: str) -> None:
    """Append to the session `s` of a store until six events were acknowledged, and be killed amid the next."""
    with subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) == 5:
                writer.send_signal(signal.SIGKILL)
                break
