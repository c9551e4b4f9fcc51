"""The logs of a `files` store as places of bodies: rows say in which line of which file a body stands.

A commit's line is written behind the good end of its log, once for all commits of a batch, and synced before the rows
are committed; so rows never speak of a line that is not there. What fails is cut back. A log is rewritten only when
entries are forgotten, beside its place, and moved there.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from struct import Struct, error as struct_error

from holdfast.backends.disk import FILE_MODE, make_dir, sync_dir, unavailable, write_all
from holdfast.backends.engine import Connection
from holdfast.backends.jsonl import VERSION, Line, checksum, file_name, line_of, logged, opened, seal, whole_head
from holdfast.backends.rows import ENTRY, entry_crc
from holdfast.errors import Corrupt
from holdfast.plan import Commit, Entry, Head, Ref

OPEN = 128
"""Logs that are kept open for writing, and by each thread for reading."""
ENTRIES = 100
"""Entries in one line of a rewritten log."""

_place = Struct("<qqIIi")
"""Head's row number, offset, length and checksum of the line, the entry's position in it (-1: not known)."""


class Log:
    """One log as the writer holds it. `end` is where the next line goes; up to `start` the last commit had written."""

    def __init__(self, path: str, fd: int, size: int, *, created: bool) -> None:
        self.path = path
        self.fd = fd
        self.start = self.end = size
        self.created = created
        self.pending: list[bytes] = []
        self.fresh: str | None = None

    def add(self, line: bytes) -> int:
        """Put a line behind the others; where it starts."""
        offset = self.end
        self.pending.append(line)
        self.end += len(line)
        return offset

    def line_at(self, place: bytes) -> bytes:
        """The line at a place, without its newline. It may stand in a file that no name leads to any more."""
        _, offset, length, _, _ = _unpacked(place)
        return os.pread(self.fd, length, offset)

    def body_at(self, place: bytes) -> bytes:
        """The body at a place.

        Raises:
            Corrupt: the line is damaged.
        """
        data = self.line_at(place)
        _, offset, _, crc, position = _unpacked(place)
        line = opened(data)
        if checksum(data) != crc or not 0 <= position < len(line.append):
            raise Corrupt(f"the line at byte {offset} does not hold the entry", offset=offset)
        return line.append[position].bytes()

    def write(self) -> None:
        """Hand what is pending to the system."""
        if self.pending:
            data = b"".join(self.pending)
            os.lseek(self.fd, self.end - len(data), os.SEEK_SET)
            self.pending.clear()
            write_all(self.fd, data)


class LogBodies:
    """Bodies in logs. See `Bodies` for what the methods promise."""

    def __init__(
        self,
        root: str,
        durable: bool,
        adopt: Callable[[Connection, str, int], bool],
        name_of: Callable[[int], str | None],
    ) -> None:
        self.root = root
        self._durable = durable
        self._adopt = adopt
        self._name_of = name_of
        self._logs: OrderedDict[Ref, Log] = OrderedDict()
        self._rows: dict[int, Ref] = {}
        self._touched: dict[Ref, Log] = {}
        self._paths: dict[int, str] = {}
        self._reading = _Reading()

    def path_of(self, ref: Ref) -> str:
        """The file of a head's log."""
        return os.path.join(self.root, "logs", file_name(ref.kind), file_name(ref.id) + ".jsonl")

    def pack(self, commit: Commit) -> Sequence[bytes]:
        """Bodies go into the line as they are."""
        return [entry.body for entry in commit.append]

    def meet(self, db: Connection, ref: Ref) -> bool:
        """Take in what a writer that died left behind the good end."""
        log = self._touched.get(ref) or self._logs.get(ref)
        if log is not None:
            if ref in self._touched or os.fstat(log.fd).st_size == log.end:
                return False
            self._close(ref)
        return self._adopt(db, self.path_of(ref), _size(self.path_of(ref)))

    def place(
        self,
        n: int,
        commit: Commit,
        before: Head | None,
        head: Head,
        entries: Sequence[Entry],
        packed: Sequence[bytes],  # noqa: ARG002  # the protocol's: the entries carry the same
    ) -> Sequence[bytes]:
        """Write the commit's line; the rows say where each body stands in it."""
        line = line_of(before, head, commit, entries)
        log = self._log(n, head.ref)
        offset = log.add(line)
        return places(n, offset, line, len(entries))

    def _log(self, n: int, ref: Ref) -> Log:
        log = self._touched.get(ref) or self._logs.get(ref)
        if log is None:
            log = self._open(self.path_of(ref))
        self._touched[ref] = log
        self._rows[n] = ref
        self._paths[n] = log.path
        return log

    def _open(self, path: str) -> Log:
        flags = os.O_RDWR | getattr(os, "O_CLOEXEC", 0)
        try:
            try:
                fd, created = os.open(path, flags), False
            except FileNotFoundError:
                make_dir(os.path.dirname(path), self._durable)
                fd, created = os.open(path, flags | os.O_CREAT | os.O_EXCL, FILE_MODE), True
            return Log(path, fd, os.fstat(fd).st_size, created=created)
        except OSError as error:
            raise unavailable(error, f"{path} can't be opened; nothing was stored") from error

    def removed(self, db: Connection, n: int, head: Head) -> None:
        """Write the log anew, without what was forgotten."""
        log = self._log(n, head.ref)
        fresh = log.path + ".new"
        try:
            log.write()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh)  # of another change in this batch, which is being read from, or of a killed process
            fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), FILE_MODE)
        except OSError as error:
            raise unavailable(error, f"{fresh} can't be written; nothing was changed") from error
        anew = Log(log.path, fd, 0, created=log.created)
        anew.fresh = fresh
        anew.start = log.start
        anew.add(whole_head(head))
        rows = db.execute(f"SELECT n, {ENTRY} FROM entry WHERE head = ? ORDER BY seq", (n,)).fetchall()  # noqa: S608  # columns
        for start in range(0, len(rows), ENTRIES):
            self._rewrite(db, n, log, anew, rows[start : start + ENTRIES])
        os.close(log.fd)
        self._touched[head.ref] = anew

    def _rewrite(
        self,
        db: Connection,
        n: int,
        log: Log,
        anew: Log,
        rows: Sequence[tuple[int, int, int, str, int, int, int, bytes]],
    ) -> None:
        sound: list[tuple[int, Entry]] = []
        moved: list[tuple[bytes, int, int]] = []
        for row, head, seq, id, at, void, _, place in rows:
            try:
                sound.append((row, Entry(id or "", at, log.body_at(place), seq, bool(void))))
            except Corrupt:
                # Kept as it is, byte for byte, and reported wherever it stands.
                damaged = log.line_at(place) + b"\n"
                _, _, length, crc, position = _place.unpack(place)
                where = _place.pack(n, anew.add(damaged), length, crc, position)
                moved.append((where, entry_crc(head, seq, id, at, void, where), row))
        if sound:
            line = seal(Line(v=VERSION, append=tuple(logged(entry) for _, entry in sound)))
            for (row, e), where in zip(sound, places(n, anew.add(line), line, len(sound)), strict=True):
                moved.append((where, entry_crc(n, e.seq, e.id or None, e.at, int(e.void), where), row))
        db.executemany("UPDATE entry SET body = ?, crc = ? WHERE n = ?", moved)

    def settle(self, db: Connection) -> None:
        """Write and sync every log that was touched, then note how far it goes."""
        folders: set[str] = set()
        sizes: list[tuple[int, str, int]] = []
        rows = {ref: n for n, ref in self._rows.items() if ref in self._touched}
        try:
            for ref, log in self._touched.items():
                log.write()
                if self._durable:
                    os.fdatasync(log.fd) if hasattr(os, "fdatasync") else os.fsync(log.fd)
                if log.fresh is not None:
                    self._swap(log, log.fresh)
                if log.created or log.fresh is not None:
                    folders.add(os.path.dirname(log.path))
                sizes.append((rows[ref], os.path.relpath(log.path, self.root), log.end))
            if self._durable:
                for folder in folders:
                    sync_dir(folder)
        except OSError as error:
            raise unavailable(error, f"the log {error.filename or ''} was not written; nothing was stored") from error
        db.executemany("INSERT OR REPLACE INTO log (head, name, size) VALUES (?, ?, ?)", sizes)

    def _swap(self, log: Log, fresh: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(log.path + ".old")
        if not log.created:
            os.link(log.path, log.path + ".old")
        os.replace(fresh, log.path)

    def undo(self) -> None:
        """Cut back, so that a retry does not find half of what failed."""
        for ref, log in self._touched.items():
            with contextlib.suppress(OSError):
                if log.fresh is not None:
                    self._unswap(log, log.fresh)
                elif log.created:
                    os.unlink(log.path)
                else:
                    self._cut(log.fd, log.start)
            with contextlib.suppress(OSError):
                os.close(log.fd)
            self._logs.pop(ref, None)
        self._touched.clear()
        self._rows.clear()

    def _unswap(self, log: Log, fresh: str) -> None:
        """Put the old log back, without the lines that were written to it before it was written anew."""
        if os.path.exists(log.path + ".old"):
            os.replace(log.path + ".old", log.path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh)
        if log.created:
            os.unlink(log.path)
        else:
            fd = os.open(log.path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
            try:
                self._cut(fd, log.start)
            finally:
                os.close(fd)

    def _cut(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)
        if self._durable:
            os.fsync(fd)

    def done(self) -> None:
        """Keep the logs open for the next commit."""
        for ref, log in self._touched.items():
            if log.fresh is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(log.path + ".old")
            log.start, log.created, log.fresh = log.end, False, None
            self._logs[ref] = log
            self._logs.move_to_end(ref)
        self._touched.clear()
        self._rows.clear()
        while len(self._logs) > OPEN:
            os.close(self._logs.popitem(last=False)[1].fd)

    def distrust(self) -> None:
        """Another process may have replaced logs: open them again."""
        while self._logs:
            os.close(self._logs.popitem()[1].fd)
        self._paths.clear()

    def _close(self, ref: Ref) -> None:
        log = self._logs.pop(ref, None)
        if log is not None:
            os.close(log.fd)

    def unpack(self, packed: bytes) -> bytes:
        """The body of the entry that stands at a place.

        Raises:
            Corrupt: the line there is damaged.
        """
        n, offset, _, crc, position = _unpacked(packed)
        line = self._reading.lines.get((n, offset, crc))
        if line is None:
            try:
                line = self._opened(n, offset, crc, self._line_at(packed))
            except Corrupt:
                self._reading.close()  # the log may have been written anew since this thread opened it
                line = self._opened(n, offset, crc, self._line_at(packed))
            self._reading.keep((n, offset, crc), line)
        if not 0 <= position < len(line.append):
            raise Corrupt(f"the line at byte {offset} does not hold the entry", offset=offset)
        return line.append[position].bytes()

    def _opened(self, n: int, offset: int, crc: int, data: bytes) -> Line:
        try:
            line = opened(data)
        except Corrupt as error:
            why = error.message
        else:
            if checksum(data) == crc:
                return line
            why = "its checksum is another one"
        name = os.path.basename(self._path(n) or "?")
        raise Corrupt(f"the line at byte {offset} of {name} is damaged: {why}", offset=offset)

    def _line_at(self, packed: bytes) -> bytes:
        n, offset, length, _, _ = _unpacked(packed)
        path = self._path(n)
        try:
            fd = self._reading.fd(path) if path is not None else -1
            return os.pread(fd, length, offset) if fd >= 0 else b""
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise unavailable(error, f"{path} can't be read") from error

    def _path(self, n: int) -> str | None:
        """The file of the log of a head's row."""
        path = self._paths.get(n)
        if path is None and (name := self._name_of(n)) is not None:
            path = self._paths[n] = os.path.join(self.root, name)
        return path

    def refresh(self) -> None:
        """Open logs again for reading in this thread: they may have been replaced."""
        self._reading.close()

    def close(self) -> None:
        """Close every file."""
        self.distrust()
        self._reading.close()


class _Reading(threading.local):
    """What one thread has open, and the lines it read last."""

    def __init__(self) -> None:
        self._fds: OrderedDict[str, int] = OrderedDict()
        self.lines: OrderedDict[tuple[int, int, int], Line] = OrderedDict()

    def fd(self, path: str) -> int:
        """The file, open for reading."""
        fd = self._fds.get(path)
        if fd is None:
            fd = self._fds[path] = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            while len(self._fds) > OPEN:
                os.close(self._fds.popitem(last=False)[1])
        return fd

    def keep(self, place: tuple[int, int, int], line: Line) -> None:
        """Remember a line: its other entries are usually asked for next."""
        self.lines[place] = line
        if len(self.lines) > 4:
            self.lines.popitem(last=False)

    def close(self) -> None:
        """Close and forget."""
        while self._fds:
            os.close(self._fds.popitem()[1])
        self.lines.clear()

    def __del__(self) -> None:
        self.close()  # a thread ended


def places(n: int, offset: int, line: bytes, entries: int) -> list[bytes]:
    """Where the entries of a line stand. `line` carries its newline."""
    crc = checksum(line) or 0
    return [_place.pack(n, offset, len(line) - 1, crc, position) for position in range(entries)]


def lost_place(n: int, offset: int, length: int) -> bytes:
    """The place of an entry that a damaged line seems to have held."""
    return _place.pack(n, offset, length, 0, -1)


def _unpacked(packed: bytes) -> tuple[int, int, int, int, int]:
    try:
        return _place.unpack(packed)
    except struct_error:
        raise Corrupt("the index does not say where the entry stands") from None


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return -1
    except OSError as error:
        raise unavailable(error, f"{path} can't be looked at") from error
