"""Ends the servers of a test run that was killed: a process that reads what there is to end until its pipe breaks.

Lines on stdin: `+ PID SIGNAL` (to be ended), `- PID` (was ended), `folder PATH` (to be removed in the end).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys


def main() -> None:
    """Read to the end, then end and remove what is left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole terminal; the tests end by themselves
    running: dict[int, int] = {}
    folders: list[str] = []
    for line in sys.stdin:
        what, _, rest = line.rstrip("\n").partition(" ")
        if what == "folder":
            folders.append(rest)
        elif what == "+":
            pid, number = map(int, rest.split())
            running[pid] = number
        else:
            running.pop(int(rest), None)
    for pid, number in running.items():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
