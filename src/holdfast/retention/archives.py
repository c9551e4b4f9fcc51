"""The file that a prune writes before it moves anything: a bundle, synced, and read back to the last line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from holdfast.bundle import ended, verify_bundle, write_bundle
from holdfast.errors import Corrupt, Exists, NotFound, Unavailable
from holdfast.paths import appear
from holdfast.storage import Storage


def write_archive(store: Storage, path: str, sessions: Sequence[str]) -> dict[str, str]:
    """Write sessions into a new file, sync it and its name, and read it back; what is wrong with those it lacks.

    A session that is damaged or gone is not in it as a whole, and is told so. The file is there under its name only
    once it was verified.

    Raises:
        Exists: there is a file at the path.
        Unavailable: the disk refuses; no file is left.
        Corrupt: what was read back is not what was written; no file is left.
    """
    beside = f"{path}.{os.getpid()}.tmp"
    lost: dict[str, str] = {}
    try:
        if os.path.lexists(path):
            raise Exists(f"{path} is there already; name a new file for the archive", path=path)
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.writelines(ended(_lines(store, sessions, lost)))
            file.flush()
            os.fsync(file.fileno())
        with open(beside, "rb") as file:
            verified, faults = verify_bundle(file)
        lost |= faults
        missing = [id for id in sessions if id not in verified and id not in lost]
        if missing or "" in faults:
            what = f"session {missing[0]!r} is not in it" if missing else faults[""]
            raise Corrupt(f"{path} was read back and is not what was written: {what}; nothing was moved", path=path)
        appear(beside, path)
        folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        raise Exists(f"{path} is there already; name a new file for the archive", path=path) from None
    except OSError as error:
        raise Unavailable(f"the archive {path} can't be written ({error}); nothing was moved", path=path) from error
    finally:
        if os.path.exists(beside):
            os.unlink(beside)
    return lost


def _lines(store: Storage, sessions: Sequence[str], lost: dict[str, str]) -> Iterator[bytes]:
    for id in sessions:
        try:
            yield from write_bundle(store, [id])
        except (NotFound, Corrupt) as error:  # it hides no other; what was begun of it is not whole
            lost[id] = error.message
