"""One folder of readable logs: a line for each commit, in a file for each session. All else can be built from them.

    holdfast.json             the version of the layout
    logs/session/<name>.jsonl
    blobs/                    large values
    index.db                  rows for the logs: heads, lists, words. Delete it, and the next open builds it again.
    writers                   who has the store open; says "dirty" from the first write until the last one closes

The rows are those of the SQLite backend, with the place of a body instead of the body. They are not synced: after a
crash of the machine `writers` still says dirty, nobody holds it, and every log is compared with its rows before the
store is used.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence

from holdfast import forks
from holdfast.backend import Location, Problem, TextOf
from holdfast.backends.blobs import DirectoryBlobs
from holdfast.backends.disk import FILE_MODE, make_dir, share_lock, sync_dir, try_lock, unavailable, unlock, write_all
from holdfast.backends.engine import Connection, Engine
from holdfast.backends.filelogs import LogBodies
from holdfast.backends.jsonl import opened, same_head
from holdfast.backends.replay import Replay, all_logs, forget_rows, head_after, lines, ref_in
from holdfast.backends.rowbackend import Guarded, RowBackend
from holdfast.backends.sqlite import parse_timeout
from holdfast.backends.sqlitefile import SQLiteFile
from holdfast.errors import Corrupt, Invalid
from holdfast.plan import Commit, Entry, Head, Ref, Refused

LAYOUT = 1
"""Version of the layout; a newer one is refused."""

_LOG_TABLE = (
    "CREATE TABLE IF NOT EXISTS log (head INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, size INTEGER NOT NULL)"
)


class FilesBackend(RowBackend):
    """A store in a folder of logs. See `Backend` for what the methods promise."""

    def __init__(self, where: Location, text_of: TextOf) -> None:
        durability = where.params.get("durability", "disk")
        self._durable = durability == "disk"
        self.root = os.path.abspath(where.path)
        self._dirty = False
        try:
            self._prepare()
            self._writers = self._open_writers()
        except OSError as error:
            raise unavailable(error, f"{self.root} can't be opened") from error
        try:
            file = self._open_index()
        except BaseException:
            os.close(self._writers)
            raise
        self._logs = LogBodies(self.root, self._durable, self._adopt, self._name_of)
        blobs = DirectoryBlobs(os.path.join(self.root, "blobs"))
        facts = {"engine": "files", "durability": durability, "path": self.root}
        super().__init__(file, self._logs, blobs, text_of, facts)
        self.path = self.root
        forks.watch(self)

    def before_fork(self) -> None:
        """See `forks`."""

    def after_fork(self, *, child: bool) -> None:
        """See `forks`: a lock that a child shares with its parent would be its to change. It takes one of its own."""
        if child and self._writers >= 0:
            inherited = self._writers
            self._writers = self._open_writers()
            share_lock(self._writers)
            os.close(inherited)
            self._dirty = False  # the parent may have closed, and vouched, before this one came so far

    def _open_writers(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        return os.open(os.path.join(self.root, "writers"), flags, FILE_MODE)

    def _prepare(self) -> None:
        """The folder, and the version of its layout."""
        make_dir(os.path.join(self.root, "logs"))
        path = os.path.join(self.root, "holdfast.json")
        if not os.path.exists(path):
            beside = f"{path}.{os.getpid()}.tmp"
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
            try:
                write_all(fd, json.dumps({"layout": LAYOUT}).encode())
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(beside, path)
            sync_dir(self.root)
        try:
            with open(path, encoding="utf-8") as file:
                found = int(json.load(file)["layout"])
        except (ValueError, KeyError, TypeError):
            raise Corrupt(f'{path} does not say the layout\'s version; it should be {{"layout": {LAYOUT}}}') from None
        if found > LAYOUT:
            raise Invalid(
                f"{self.root} was written by a newer holdfast (layout {found}, this one knows {LAYOUT}); upgrade",
                layout=found,
            )

    def _open_index(self) -> SQLiteFile:
        """The index, compared with the logs if nobody can vouch for it, built anew if it is not usable."""
        path = os.path.join(self.root, "index.db")
        alone = try_lock(self._writers)
        try:
            unsure = alone and (os.fstat(self._writers).st_size > 0 or not os.path.exists(path))
            try:
                file = self._index(path)
                if unsure:
                    self._sweep(file)
            except Corrupt:
                if not alone:
                    raise
                for suffix in ("", "-wal", "-shm"):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(path + suffix)
                file = self._index(path)
                self._sweep(file)
            if alone and unsure:
                os.ftruncate(self._writers, 0)
        finally:
            if alone:
                unlock(self._writers)
        share_lock(self._writers)
        return file

    def _index(self, path: str) -> SQLiteFile:
        engine = Engine("stdlib")
        file = SQLiteFile(path, engine, durable=False, timeout=parse_timeout("30"))
        try:
            with Guarded(engine, path), file.transaction() as db:
                db.execute(_LOG_TABLE)
        except BaseException:
            file.close()
            raise
        return file

    def _sweep(self, file: SQLiteFile) -> None:
        """Compare every log with its rows, by size and last line, and take in what differs."""
        with Guarded(file.engine, file.path), file.transaction() as db:
            known = dict(db.execute("SELECT name, head FROM log").fetchall())
            for name in all_logs(self.root):
                known.pop(name, None)
                path = os.path.join(self.root, name)
                self._adopt(db, path, os.stat(path).st_size, unsure=True)
            for n in known.values():
                forget_rows(db, n)

    def _adopt(self, db: Connection, path: str, size: int, *, unsure: bool = False) -> bool:
        """Bring the rows of one log in step with it. Whether they changed."""
        name = os.path.relpath(path, self.root)
        replay = Replay(db, path, name)
        if size < 0:
            return False
        if size == replay.covered and not (unsure and size and not _ends_well(path, size)):
            return False
        try:
            if size < replay.covered or (size == replay.covered and unsure):
                replay.start_over()
            replay.run(self._durable)
        except OSError as error:
            raise unavailable(error, f"{path} can't be read; nothing was stored") from error
        return True

    def _name_of(self, n: int) -> str | None:
        with self._guarded(), self._file.reader() as db:
            row = db.execute("SELECT name FROM log WHERE head = ?", (n,)).fetchone()
        return None if row is None else row[0]

    def commit(self, batch: Sequence[Commit]) -> list[Head | Refused]:
        """Make commits in order."""
        if not self._dirty:
            self._mark_dirty()
        return super().commit(batch)

    def _mark_dirty(self) -> None:
        """From now on the rows may be ahead of what is on the disk; say so durably, once."""
        try:
            os.pwrite(self._writers, b"dirty\n", 0)
            if self._durable:
                os.fsync(self._writers)
                sync_dir(self.root)
        except OSError as error:
            raise unavailable(error, "nothing was stored") from error
        self._dirty = True

    def read(
        self,
        ref: Ref,
        *,
        after: int = 0,
        upto: int | None = None,
        ids: Sequence[str] | None = None,
        limit: int | None = None,
        reverse: bool = False,
        voided: bool = False,
    ) -> list[Entry]:
        """Entries of one log. A line that is not as the rows say is looked up again: the log may just be a new one."""
        entries = super().read(ref, after=after, upto=upto, ids=ids, limit=limit, reverse=reverse, voided=voided)
        if any(entry.fault for entry in entries):
            self._logs.refresh()
            entries = super().read(ref, after=after, upto=upto, ids=ids, limit=limit, reverse=reverse, voided=voided)
        return entries

    def verify(self) -> list[Problem]:
        """Read every line of every log, then the rows, and hold them against each other."""
        self._logs.refresh()
        problems: list[Problem] = []
        for name in all_logs(self.root):
            problems += self._verify_log(name)
        told = {(p.ref, p.seq) for p in problems}
        return problems + [p for p in super().verify() if (p.ref, p.seq) not in told or p.seq is not None]

    def _verify_log(self, name: str) -> list[Problem]:
        path = os.path.join(self.root, name)
        found = list(lines(path))
        ref = ref_in(found[0]) if found else None
        problems = [
            Problem(ref, None, f"the line at byte {f.offset} of {name} is damaged: its checksum does not match")
            for f in found
            if f.line is None
        ]
        head = head_after(found)
        if ref is not None and head is not None and not problems:
            known = self.get([ref])[0]
            if known is None or not same_head(known, head):
                problems.append(
                    Problem(ref, None, f"the index does not agree with {name}; delete index.db to build it again")
                )
        return problems

    def close(self) -> None:
        """Close the files; the last one to close says that the rows can be believed."""
        if self._writers < 0:
            return
        super().close()
        self._logs.close()
        with contextlib.suppress(OSError):
            if try_lock(self._writers):
                self._vouch()
        os.close(self._writers)
        self._writers = -1

    def _vouch(self) -> None:
        """Nobody else has the store open: sync the index, then take the mark away."""
        if self._durable:
            fd = os.open(os.path.join(self.root, "index.db"), os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        os.ftruncate(self._writers, 0)

    def info(self) -> Mapping[str, str]:
        """Facts for a person."""
        return {**super().info(), "logs": os.path.join(self.root, "logs")}


def _ends_well(path: str, size: int) -> bool:
    """Whether the last line of a log is whole; looked at without reading the rest."""
    with open(path, "rb") as file:
        step = 65_536
        while True:
            start = max(size - step, 0)
            file.seek(start)
            tail = file.read()
            cut = tail[:-1].rfind(b"\n")
            if cut >= 0 or start == 0:
                return tail.endswith(b"\n") and _whole(tail[cut + 1 :])
            step *= 8


def _whole(data: bytes) -> bool:
    try:
        opened(data[:-1])
    except Corrupt:
        return False
    return True
