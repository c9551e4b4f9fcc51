"""A backup: a whole store in one file, a packed bundle, that restores on any backend.

It is taken of a running store. Where the engine can copy itself as of one moment (SQLite), all of it is of that moment;
elsewhere each session is of one moment, and one after the other. The file is there under its name only once it was
read back to its last line; and a restore reads all of it before it writes anything.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from itertools import chain
from typing import Any, BinaryIO, cast
from urllib.parse import quote

import msgspec

from holdfast.bundle import Contents, contents, ended, read_bundle, write_bundle, write_documents
from holdfast.errors import Corrupt, Exists, Invalid, NotFound, Unavailable
from holdfast.finding.listing import everywhere
from holdfast.moving.bundlefiles import lines_of, packing
from holdfast.moving.copying import CopyReport
from holdfast.paths import appear, as_path, is_stream
from holdfast.storage import Storage


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a store was backed up to: how many sessions (those in the trash, too) and documents are in it.

    `size` is in bytes. `one_moment` says that all of it is as it was at one moment, not only each session. `damaged`
    names what could not be read whole, by session, and why: a restore leaves it out, if it is told to.
    """

    path: str
    sessions: int = 0
    documents: int = 0
    size: int = 0
    one_moment: bool = False
    damaged: dict[str, str] = {}


def write_backup(store: Storage, path: str, *, replace: bool = False, dry_run: bool = False) -> Backup:
    """Write a store into a new file, 0600, and read it back; see `Store.backup`.

    With `dry_run`, everything is read and packed, and what came of it is told; nothing is written.

    Raises:
        Exists: there is a file at the path, and it is not to be replaced.
        Invalid: a pipe or device is there.
        Unavailable: the disk refuses; no file is left.
        Corrupt: what was read back is not what was written; no file is left.
    """
    path = as_path(os.path.abspath(path))
    taken = Exists(f"{path} is there already; name another file, or say that it is to be replaced", path=path)
    if not replace and os.path.lexists(path):
        raise taken
    if is_stream(path):
        raise Invalid(f"{path} is a pipe or device, which no backup replaces; name a file", path=path)
    if dry_run:
        return _rehearsed(store, path)
    try:
        with _folder_beside(path) as folder, contextlib.ExitStack() as held:
            held.enter_context(store.backend.blobs.shared())  # nothing that the copy needs is swept meanwhile
            still = held.enter_context(_at_one_moment(store, folder, path))
            beside = os.path.join(folder, "backup")
            damaged: dict[str, str] = {}
            with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                with packing(file) as packed:
                    for line in _written(still or store, damaged):
                        packed.write(line)
                file.flush()
                os.fsync(file.fileno())
            found = read_backup(beside, path)
            if replace:
                os.replace(beside, path)
            else:
                appear(beside, path)
            _sync(os.path.dirname(path))
            size = os.path.getsize(path)
    except FileExistsError:
        raise taken from None
    except OSError as error:
        raise Unavailable(f"the backup {path} can't be written: {error.strerror or error}", path=path) from error
    return Backup(
        path=path, sessions=found.sessions, documents=found.documents, size=size, one_moment=still is not None,
        damaged={**damaged, **found.faults},
    )  # fmt: skip


def _rehearsed(store: Storage, path: str) -> Backup:
    """What a backup would be, of each session as it is when it is read."""
    damaged: dict[str, str] = {}
    weighed = _Weighed()
    with packing(cast("BinaryIO", weighed)) as packed:

        def passed() -> Iterator[bytes]:
            for line in _written(store, damaged):
                packed.write(line)
                yield line

        found = contents(passed())
    return Backup(
        path=path, sessions=found.sessions, documents=found.documents, size=weighed.size,
        one_moment=hasattr(store.backend, "backup"), damaged={**damaged, **found.faults},
    )  # fmt: skip


class _Weighed:
    """A file that only counts its bytes."""

    size = 0

    def write(self, data: bytes) -> int:
        self.size += len(data)
        return len(data)


def read_backup(path: str, named: str | None = None) -> Contents:
    """Read a backup to its last line, and store nothing: what is in it.

    Raises:
        NotFound: there is no such file.
        Corrupt: it was cut off or damaged; the message says where.
        Invalid: it is no bundle, or one of a newer version.
    """
    named = named or path
    with _opened(path) as file:
        try:
            found = contents(lines_of(file))
        except Corrupt as error:
            raise Corrupt(
                f"{named}: {error.message}; nothing was restored", **{**error.facts, "path": named}
            ) from error
    if "" in found.faults:
        raise Corrupt(f"{named}: {found.faults['']}; nothing was restored", path=named)
    if not found.closed:
        why = "".join(f" ({what})" for what in list(found.faults.values())[-1:])
        raise Corrupt(
            f"{named} is cut off: it ends after line {found.lines:,}, and the last line of a backup is missing{why}; "
            "nothing was restored",
            path=named,
            line=found.lines,
        )
    return found


def restore_backup(
    store: Storage, path: str, *, merge: bool = False, partial: bool = False, dry_run: bool = False
) -> CopyReport:
    """Bring what is in a backup, or any bundle that tells its end, into a store; see `Store.restore`.

    Raises:
        Invalid: the store is not empty, and `merge` was not said; or the file is no bundle, or a newer version's.
        NotFound: there is no such file.
        Corrupt: the file is cut off or damaged, or sessions in it are and `partial` was not said. Nothing was restored.
    """
    path = as_path(path)
    found = read_backup(path)
    if found.faults and not partial:
        id, why = next(iter(found.faults.items()))
        raise Corrupt(
            f"{path}: {len(found.faults)} in it can't be restored whole ({id!r}: {why}); nothing was restored; "
            "--partial (partial=True) restores the others",
            path=path,
        )
    if not merge and store.backend.kinds():
        raise Invalid(
            f"the store {store.url} is not empty; restore into a new one, or say --merge (merge=True) to add to it",
            url=store.url,
        )
    if dry_run:
        return CopyReport(sessions=found.sessions, documents=found.documents)
    report = CopyReport()
    with _opened(path) as file:
        for one in read_bundle(store, lines_of(file), verify=True):
            report = report.plus(one)
    return report


def _written(store: Storage, damaged: dict[str, str]) -> Iterator[bytes]:
    """All lines of a backup."""
    unreadable: list[str] = []
    yield from ended(chain(_lines(store, damaged), write_documents(store, damaged=unreadable)))
    damaged.update(dict.fromkeys(unreadable, "the document is damaged; `check` says how"))


def _lines(store: Storage, damaged: dict[str, str]) -> Iterator[bytes]:
    for ids, unreadable in everywhere(store.backend):
        damaged.update(dict.fromkeys(unreadable, "its head is damaged; `check` says how"))
        # Some are deleted meanwhile: that is how the store is now.
        yield from write_bundle(store, ids, gone=[], trashed=True)


@contextlib.contextmanager
def _opened(path: str) -> Generator[BinaryIO]:
    place = os.path.expanduser(path)
    if is_stream(place):
        raise Invalid(f"{path} can be read only once, and a restore reads it twice; make a file of it first", path=path)
    try:
        with open(place, "rb") as file:
            yield file
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}", path=path) from None
    except OSError as error:
        raise Unavailable(f"{path} can't be read: {error.strerror or error}", path=path) from error


@contextlib.contextmanager
def _folder_beside(path: str) -> Generator[str]:
    """A private folder on the same file system, gone with the block."""
    folder = tempfile.mkdtemp(prefix=f".{os.path.basename(path)[:100]}.", dir=os.path.dirname(path))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def _at_one_moment(store: Storage, folder: str, path: str) -> Generator[Storage | None]:
    """A store that is what this one is at this moment, and changes no more; None if the engine can make none."""
    backup: Any = getattr(store.backend, "backup", None)
    if backup is None:
        yield None
        return
    place = os.path.join(folder, "store.db")
    os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        backup(place)
        still = Storage(f"sqlite://{quote(os.fsencode(place))}?durability=process")
    except Unavailable as error:
        raise Unavailable(f"the backup {path} can't be written: {error.message}", path=path) from error
    try:
        still.backend.blobs = still.large.blobs = store.backend.blobs
        yield still
    finally:
        still.turns.close()
        still.batcher.close()
        still.backend.close()


def _sync(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
