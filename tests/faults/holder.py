"""A writer that stops in the middle of its commit, with every lock in its hands: `python -m faults.holder URL ID TEXT`.

It says `ready` when the store is open, goes on at a line of its standard input, says `amid` when its rows are written
and not committed, and stops itself (SIGSTOP). Continued, it ends its append and says the number of its event.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import holdfast
from faults import start
from holdfast.backends.engine import Connection
from holdfast.backends.sqlitefile import SQLiteFile


def stop_amid(real: Callable[..., None]) -> Callable[..., None]:
    """An `end` of a transaction that stops this process first, once it is asked to."""

    def end(self: SQLiteFile, db: Connection, *, commit: bool) -> None:
        print("amid", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
        real(self, db, commit=commit)

    return end


def main(arguments: list[str]) -> None:
    """The program."""
    url, id, text = arguments
    with holdfast.open(url) as store:
        session = store.session(id)
        session.append(holdfast.user("the first write of this process"))
        print("ready", flush=True)
        sys.stdin.readline()
        real = SQLiteFile.end
        SQLiteFile.end = stop_amid(real)  # type: ignore[method-assign]  # a real commit, stopped where it hurts
        receipt = session.append(holdfast.user(text))
        SQLiteFile.end = real  # type: ignore[method-assign]
        print(receipt.last, flush=True)


class Holder:
    """Such a writer, as its parent holds it. A context manager, which ends it."""

    def __init__(self, url: str, id: str, text: str) -> None:
        self._process = start("holder", url, id, text, stdin=subprocess.PIPE)

    def __enter__(self) -> Holder:
        self._expect(b"ready\n")
        return self

    def _expect(self, line: bytes) -> None:
        assert self._process.stdout is not None
        told = self._process.stdout.readline()
        assert told == line, told

    def hold(self) -> None:
        """Let it write; when this returns, it stands still amid its commit."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()
        self._expect(b"amid\n")
        _, status = os.waitpid(self._process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)

    def finish(self) -> int:
        """Let it go on; the number of the event that it was acknowledged."""
        os.kill(self._process.pid, signal.SIGCONT)
        out, _ = self._process.communicate(timeout=60)
        assert self._process.returncode == 0
        return int(out)

    def kill(self) -> None:
        """End it where it stands."""
        self._process.kill()
        self._process.wait(60)

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()


if __name__ == "__main__":
    main(sys.argv[1:])
