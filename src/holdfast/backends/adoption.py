"""Logs that are ahead of their rows, as a killed writer leaves them, are taken in: one, some, or all of a store.

Nobody was told of what is ahead, so it may be there or not. Whoever writes to a log takes it in first, and so does who
is about to delete what only it may refer to.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager

from holdfast.backends.disk import sync_dir, sync_files, unavailable
from holdfast.backends.engine import Connection
from holdfast.backends.gate import BlobLock
from holdfast.backends.replay import Replay, WrongLog, all_files, forget_rows
from holdfast.backends.rows import Numbers, newest_row
from holdfast.backends.writers import Trust


def replay_all(db: Connection, root: str, trust: Trust) -> None:
    """Compare every log with its rows, and take in what differs; nobody else has the store open."""
    gone = dict(db.execute("SELECT name, head FROM log").fetchall())
    todo: list[Replay] = []
    unsynced: list[str] = []
    numbers = Numbers(newest_row(db))
    for name in all_files(root, ".jsonl"):
        gone.pop(name, None)
        replay = Replay(db, root, name, trust, numbers)
        with contextlib.suppress(WrongLog):  # it hides no other; `verify` names it
            replay.run()
            if not replay.is_settled():
                todo.append(replay)
            if trust is Trust.LOGS or not replay.is_settled():
                unsynced.append(replay.path)
    for n in gone.values():
        forget_rows(db, n)
    # All logs were read before the first is touched: if one is refused, nothing was changed.
    for replay in todo:
        replay.settle()
    if unsynced:
        try:
            sync_files(unsynced)
            sync_log_folders(root)
        except OSError as error:
            raise unavailable(error, f"the logs of {root} can't be made durable") from error


def sync_log_folders(root: str) -> None:
    """Make durable which logs there are."""
    base = os.path.join(root, "logs")
    for kind in os.listdir(base):
        sync_dir(os.path.join(base, kind))


def adopt(db: Connection, root: str, name: str, numbers: Numbers, *, anew: bool = False) -> bool:
    """Bring the rows of one log in step with it: a writer may have been killed. Whether they changed.

    Rows that are damaged are written `anew`, as if the index had been deleted.
    """
    replay = Replay(db, root, name, Trust.ROWS, numbers)
    changed = replay.run(anew=anew)
    if not replay.is_settled():
        replay.settle()
        try:
            sync_files([replay.path])
            sync_dir(os.path.join(root, os.path.dirname(name)))
        except OSError as error:
            raise unavailable(error, f"{name} can't be made durable; nothing was stored") from error
    return changed


def ahead(db: Connection, root: str) -> list[str]:
    """The logs that say more than the rows: writers are at work, or were killed. One that says less is damaged."""
    known = dict(db.execute("SELECT name, size FROM log").fetchall())
    grown = (name for name in all_files(root, ".jsonl") if _size(os.path.join(root, name)) > known.get(name, 0))
    return list(dict.fromkeys([*replaced(root), *grown]))


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:  # just removed
        return 0
    except OSError as error:
        raise unavailable(error, f"{path} can't be read") from error


def replaced(root: str) -> list[str]:
    """The logs of which there is an old one yet that was replaced."""
    return [name.removesuffix(".old") for name in all_files(root, ".jsonl.old")]


class AdoptingLock:
    """The lock of a store's blobs, whose logs are taken in before any blob is deleted; see `BlobLock`."""

    def __init__(self, lock: BlobLock, adopt_ahead: Callable[[], None]) -> None:
        self._lock = lock
        self._adopt_ahead = adopt_ahead

    def shared(self) -> AbstractContextManager[None]:
        """Keep deleters out."""
        return self._lock.shared()

    @contextlib.contextmanager
    def exclusive(self) -> Generator[None]:
        """Keep everybody else out; the rows speak of all then that may refer to a blob."""
        with self._lock.exclusive():
            self._adopt_ahead()
            yield

    def confirm(self) -> None:
        """See `BlobLock`."""
        self._lock.confirm()
