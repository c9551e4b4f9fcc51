"""One log of a `files` store, as its writer holds it and as readers do; and the places of entries in it."""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from struct import Struct, error as struct_error
from typing import NamedTuple

from holdfast.backends.disk import FILE_MODE, make_dir, read_at, sync, sync_dir, unavailable, write_at
from holdfast.backends.jsonl import Line, checksum, opened
from holdfast.errors import Corrupt

READING = 2
"""Logs that a thread keeps open for reading; the next call often reads the same."""
_BEGIN = 18
"""Bytes of a line that hold its checksum."""


class Place(NamedTuple):
    """Where an entry stands: the row number of its head, offset, length and checksum of its line without the newline,
    its position in the line; -1 where that is not known, because the line is damaged.
    """

    n: int
    offset: int
    length: int
    crc: int
    position: int

    def pack(self) -> bytes:
        """Its bytes, as they stand in a row."""
        return _place.pack(*self)

    def entry_body(self, data: bytes) -> bytes:
        """The body that stands here, from the bytes of the line."""
        return body_in(self.line(data), self)

    def line(self, data: bytes) -> Line:
        """The line that stands here, from its bytes.

        Raises:
            Corrupt: they are not those that the place speaks of.
        """
        line = opened(data)
        if checksum(data) != self.crc:
            raise Corrupt("it is another line")
        return line


_place = Struct("<qqIIi")


def unpacked(packed: bytes) -> Place:
    """A place from its bytes."""
    try:
        return Place(*_place.unpack(packed))
    except struct_error:
        raise Corrupt("the index does not say where the entry stands") from None


def places(n: int, offset: int, line: bytes, entries: int) -> list[bytes]:
    """Where the entries of a line stand. `line` carries its newline."""
    crc = checksum(line) or 0
    return [_place.pack(n, offset, len(line) - 1, crc, position) for position in range(entries)]


def body_in(line: Line, place: Place) -> bytes:
    """The body of the entry at a place in its line."""
    if not 0 <= place.position < len(line.append):
        raise Corrupt("the line does not hold the entry")
    return line.append[place.position].bytes()


def first_checksum(fd: int) -> int:
    """The checksum that a log's first line states: a log that was written anew has another one. -1 if it has none."""
    crc = checksum(read_at(fd, _BEGIN, 0))
    return -1 if crc is None else crc


def torn_names(path: str) -> Iterator[str]:
    """The names beside a log that are taken by what was set aside of it, as far as they are numbered without a gap."""
    number = 1
    while os.path.lexists(beside := f"{path}.torn.{number}"):
        yield beside
        number += 1


def remove_files(paths: Iterable[str]) -> OSError | None:
    """Remove files, each whatever becomes of the others; what kept the first from it that is still there.

    A folder is none of ours and stays.
    """
    failed: OSError | None = None
    for path in paths:
        try:
            if not os.path.isdir(path) or os.path.islink(path):
                os.unlink(path)
        except OSError as error:
            failed = failed or error
    return failed


class Log:
    """One log as the writer holds it. `end` is where the next line goes; up to `start` the last commit had written.

    A log that is being written anew is a file beside its place (`fresh`) until it is `moved` there; `origin` is the one
    that it replaces. `ended` says that the session was deleted, so that what was torn off the log goes too.
    """

    def __init__(self, path: str, *, durable: bool, origin: Log | None = None) -> None:
        self.path = path
        self.ended = False
        self.fresh = path + ".new" if origin is not None else None
        self.origin = origin
        self.moved = False
        self._durable = durable
        self._pending: list[bytes] = []
        flags = os.O_RDWR | getattr(os, "O_CLOEXEC", 0)
        try:
            if self.fresh is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.fresh)  # of an earlier change in this batch, or of a killed process
                self.fd = os.open(self.fresh, flags | os.O_CREAT | os.O_EXCL, FILE_MODE)
            else:
                make_dir(os.path.dirname(path))
                self.fd = os.open(path, flags | os.O_CREAT, FILE_MODE)
            status = os.fstat(self.fd)
            self.first = first_checksum(self.fd) if status.st_size else -1
        except OSError as error:
            raise unavailable(error, f"{path} can't be opened; nothing was stored") from error
        self.inode = status.st_ino
        self.start = self.end = status.st_size
        # An empty one may be another's that was killed: its name is not known to be on the disk either.
        self.created = origin.created if origin is not None else self.end == 0

    def is_at_its_place(self) -> bool:
        """Whether the file is still what the path leads to, and nobody has written to it since."""
        try:
            status = os.stat(self.path)
        except OSError:
            return False
        return status.st_size == self.end and status.st_ino == self.inode

    def add(self, line: bytes) -> int:
        """Put a line behind the others; where it starts."""
        offset = self.end
        if offset == 0:
            self.first = checksum(line) or 0
        self._pending.append(line)
        self.end += len(line)
        return offset

    def pending(self) -> int:
        """Bytes that are not written yet."""
        return sum(map(len, self._pending))

    def write(self) -> None:
        """Hand what is pending to the system, in one call."""
        if self._pending:
            data = b"".join(self._pending)
            self._pending.clear()
            write_at(self.fd, data, self.end - len(data))

    def sync(self) -> None:
        """Write, and make durable what was written."""
        self.write()
        if self._durable:
            sync(self.fd)

    def line(self, place: Place) -> bytes:
        """The bytes of a line. The file may have no name any more."""
        return read_at(self.fd, place.length, place.offset)

    def move(self) -> None:
        """Put the fresh file in its place. What it replaces keeps a name until the rows are committed."""
        if self.fresh is None:
            return
        old = self.path + ".old"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(old)
        os.link(self.path, old)
        os.replace(self.fresh, self.path)
        self.moved = True

    def undo(self) -> None:
        """Make the file what it was, durably, and close it."""
        try:
            if self.origin is not None:
                try:
                    self._move_back()
                except BaseException:
                    self.origin.close()
                    raise
                self.origin.undo()
            elif self.created:
                os.unlink(self.path)
            else:
                os.ftruncate(self.fd, self.start)
                if self._durable:
                    os.fsync(self.fd)
            if self._durable and (self.origin is not None or self.created):
                sync_dir(os.path.dirname(self.path))
        finally:
            self.close()

    def _move_back(self) -> None:
        if self.moved:
            os.replace(self.path + ".old", self.path)
        elif self.fresh is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.fresh)

    def done(self) -> None:
        """The rows were committed, and so is all that is here; what raises now is what removes the remains.

        Raises:
            OSError: what the log replaced, or what was torn off it, could not be removed for good.
        """
        origin, ended = self.origin, self.ended
        self.start, self.created, self.origin, self.fresh, self.moved = self.end, False, None, None, False
        self.ended = False
        if origin is None:
            return
        origin.close()
        failed = remove_files([self.path + ".old", *(torn_names(self.path) if ended else ())])
        if self._durable:
            sync_dir(os.path.dirname(self.path))
        if failed is not None:
            raise failed

    def close(self) -> None:
        """Close the file, once: its number may be that of another file from then on.

        What had to be on the disk was synced before, so a close that fails loses nothing; the number is free even then.
        """
        fd, self.fd = self.fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)


class Reading:
    """What one thread has open, and the lines it read last. Dropped with the thread, it closes what it holds."""

    def __init__(self) -> None:
        self._fds: OrderedDict[str, int] = OrderedDict()
        self._lines: OrderedDict[tuple[int, int, int], Line] = OrderedDict()

    def bytes_at(self, path: str, place: Place) -> bytes:
        """The bytes that stand at a place in a file; less where it is shorter, none where there is no file."""
        fd = self._fds.get(path)
        if fd is None:
            try:
                fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            except FileNotFoundError:
                return b""
            self._fds[path] = fd
            while len(self._fds) > READING:
                os.close(self._fds.popitem(last=False)[1])
        return read_at(fd, place.length, place.offset)

    def remembered(self, place: Place) -> Line | None:
        """A line that was read just now: its other entries are usually asked for next."""
        return self._lines.get((place.n, place.offset, place.crc))

    def remember(self, place: Place, line: Line) -> None:
        """Keep a line for a while."""
        self._lines[(place.n, place.offset, place.crc)] = line
        if len(self._lines) > 4:
            self._lines.popitem(last=False)

    def forget(self, path: str) -> None:
        """Open a file again next time: the one that is open may have been replaced."""
        fd = self._fds.pop(path, None)
        if fd is not None:
            os.close(fd)

    def __del__(self) -> None:
        while self._fds:
            os.close(self._fds.popitem()[1])
