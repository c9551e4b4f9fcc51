"""From logs to rows: how the index of a `files` store catches up with its logs, or is built anew from them.

The logs are the truth. A whole line is taken in. A bad line before a whole one is damaged: it keeps its place, and the
entries it held are listed as lost. What is bad behind the last whole line is damaged too where it was acknowledged:
where the rows that covered it can be believed, where the log's own head counts it, or, if there is nothing to tell by,
where it has its newline and still says its number. Anything else was never acknowledged: it is torn, and set aside.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from holdfast.backends.changes import stamp
from holdfast.backends.disk import FILE_MODE, read_at, sync_dir, unavailable, write_all, write_at
from holdfast.backends.engine import Connection
from holdfast.backends.entryrows import hide, new_rows, numbered
from holdfast.backends.jsonl import VERSION, Line, Told, log_name, opened, told
from holdfast.backends.logfile import Place, first_checksum, places, torn_names
from holdfast.backends.rows import (
    HEAD,
    UPDATE_HEAD,
    Numbers,
    encode,
    head_of,
    head_values,
    insert_entries,
    insert_head,
    write_tags,
)
from holdfast.backends.runs import OpenRuns, forget, forget_all, pages, remove_rows
from holdfast.backends.writers import Trust
from holdfast.errors import Corrupt
from holdfast.plan import MAX_SAVED, Entry, Head, Ref

LONGEST = 256 * 1024 * 1024
"""Bytes that are looked at as one line; no line is longer."""
LOG_TABLE = (
    "CREATE TABLE IF NOT EXISTS log (head INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, "
    "first INTEGER NOT NULL)"
)
"""How far the rows go with each log, and the checksum of its first line when they were written."""


class WrongLog(Corrupt):
    """A log is not the one that its name stands for, or it can't be told whose it is."""


class Found(NamedTuple):
    """A line of a log: where it starts, its bytes with the newline, and what it says; None if it is damaged."""

    offset: int
    data: bytes
    line: Line | None


class Bad(NamedTuple):
    """A line that can't be read: where it stands, whether it has its newline, and what it seems to say."""

    offset: int
    length: int
    ended: bool
    told: Told


def lines(path: str, start: int = 0, end: int | None = None) -> Iterator[Found]:
    """The lines of a log from one offset to another; the last may lack its newline."""
    with open(path, "rb") as file:
        file.seek(start)
        offset = start
        while data := file.readline(LONGEST if end is None else min(LONGEST, end - offset)):
            try:
                line = opened(data[:-1]) if data.endswith(b"\n") else None
            except Corrupt:
                line = None
            yield Found(offset, data, line)
            offset += len(data)


def fits(line: Line, head: Head | None, following: int) -> bool:
    """Whether a line can come next; a copy of an earlier one can't. `following` is the next entry's seq."""
    if line.append and line.append[0].seq < following:
        return False
    return line.rev is None or head is None or line.rev > head.rev


class Replay:
    """Brings the rows of one log in step with it, in the caller's transaction.

    Nothing is changed in the log before `settle`, which must come before the rows are committed.
    """

    def __init__(self, db: Connection, root: str, name: str, trust: Trust, numbers: Numbers) -> None:
        self._db = db
        self._numbers = numbers
        self._runs = OpenRuns()
        self.path = os.path.join(root, name)
        self._name = name
        self._trust = trust
        row = db.execute("SELECT head, size, first FROM log WHERE name = ?", (name,)).fetchone()
        self._n: int | None = row[0] if row else None
        self._covered, self._first = row[1:] if row else (0, -1)
        self._ref: Ref | None = None
        self._head: Head | None = None
        self._next = 1
        self._cut: int | None = None
        self._changed = False
        self._unfinished = False

    def run(self, *, anew: bool = False) -> bool:
        """Bring the rows in step, or write them anew. Whether they changed.

        Raises:
            Corrupt: the log is another session's.
            Unavailable: it can't be read.
        """
        try:
            return self._run(anew)
        except OSError as error:
            raise unavailable(error, f"{self.path} can't be read; nothing was stored") from error

    def _run(self, anew: bool) -> bool:
        try:
            fd = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except FileNotFoundError:
            if self._n is not None:
                forget_rows(self._db, self._n)
            return self._n is not None
        try:
            size, first = os.fstat(fd).st_size, first_checksum(fd)
            ended = self._covered == 0 or read_at(fd, 1, self._covered - 1) == b"\n"
        finally:
            os.close(fd)
        if self._n is not None:
            if anew or self._is_another(size, first, ended):
                self._start_over()
            elif size == self._covered:
                self._unfinished = not ended
                return False
            else:
                self._go_on()
        if size:
            self._take_all(size, first)
        return self._changed

    def _is_another(self, size: int, first: int, ended: bool) -> bool:
        """Whether the log can't be the one that the rows were written by."""
        if size < self._covered or (size > self._covered and not ended):
            return True
        if first != self._first:
            found = next(lines(self.path), None)
            if found is not None and found.line is not None:  # otherwise it is damaged, and the rows know more
                return True
        return size == self._covered and self._trust is Trust.LOGS and not ends_well(self.path, size)

    def _go_on(self) -> None:
        """Begin behind the covered part; at the log's beginning, if the head that the rows hold can't be believed."""
        row = self._db.execute(f"SELECT {HEAD} FROM head WHERE n = ?", (self._n,)).fetchone()  # noqa: S608  # columns
        with contextlib.suppress(Corrupt):
            self._head = None if row is None else head_of(row)
        if row is None or self._head is None:
            self._start_over()
        else:
            self._runs = OpenRuns(row[-2])
            self._next = self._head.last + 1

    def _start_over(self) -> None:
        """Forget the rows: the log is not what it was."""
        if self._n is not None:
            row = self._db.execute("SELECT kind, id FROM head WHERE n = ?", (self._n,)).fetchone()
            self._ref = Ref(*row) if row else None
            forget_rows(self._db, self._n)
        if self._trust is Trust.ROWS:
            self._trust = Trust.LOOKS
        self._n, self._covered, self._changed = None, 0, True

    def _take_all(self, size: int, first: int) -> None:
        """Take in what is behind the covered part."""
        end = self._covered
        bad: list[Bad] = []
        for found in lines(self.path, self._covered, size):
            line = found.line
            if line is None or not fits(line, self._head, self._next):
                bad.append(Bad(found.offset, len(found.data), found.data.endswith(b"\n"), told(found.data)))
                continue
            if self._head is None:
                self._begin(line, bad)
            if line.kind is None:
                self._lose(bad, line.append[0].seq - 1 if line.append else line.last)
            bad.clear()
            self._take(found, line)
            end = found.offset + len(found.data)
        end = self._keep(bad, end)
        self._cut = end if end < size else None
        if self._n is not None and (end > self._covered or self._changed):
            self._changed = True
            self._save()
            stamp(self._db, self._n)
            self._db.execute(
                "INSERT OR REPLACE INTO log (head, name, size, first) VALUES (?, ?, ?, ?)",
                (self._n, self._name, end, first),
            )

    def _begin(self, line: Line | None, bad: Sequence[Bad]) -> None:
        """Tell whose log this is: by its first line; if that is damaged, by what it seems to say and the log's name."""
        if line is not None and line.kind is not None and line.id is not None:
            ref = Ref(line.kind, line.id)
            if log_name(ref) != self._name:
                raise WrongLog(f"{self._name} holds the log of {ref.kind} {ref.id!r}; move it away", log=self._name)
            self._head = Head(ref)
            return
        folder, file = os.path.split(self._name)
        plain = Ref(os.path.basename(folder), file.removesuffix(".jsonl"))
        for ref in (self._ref, bad[0].told.ref if bad else None, plain):
            if ref is not None and log_name(ref) == self._name:
                self._head = Head(ref)
                return
        raise WrongLog(f"the first line of {self._name} is damaged, and nothing else says whose it is", log=self._name)

    def _keep(self, bad: list[Bad], end: int) -> int:
        """Take in, as damaged, what is bad behind the last whole line and was acknowledged; where that ends."""
        kept: list[Bad] = []
        if bad and self._head is None and self._trust is Trust.LOOKS and bad[0].ended and bad[0].told.last is not None:
            self._begin(None, bad)
        head = self._head
        if head is None:
            return end
        last = head.last
        for found in bad:
            seen = found.told.last if found.ended and self._trust is Trust.LOOKS else None
            if seen is not None and last <= seen <= last + MAX_SAVED:
                last = seen
            elif self._next > head.last:
                break
            kept.append(found)
            end = found.offset + found.length
        if kept:
            self._lose(kept, last)
            self._change(Line(v=VERSION, rev=max(head.rev + 1, 1), last=last).changed(head))
            self._unfinished = not kept[-1].ended
        return end

    def _lose(self, bad: Sequence[Bad], upto: int | None) -> None:
        """List the entries that damaged lines held, as far as what follows tells: their numbers."""
        if not bad or upto is None or self._head is None:
            return
        if self._n is None:
            self._change(self._head)
        self._next = max(self._next, upto + 1 - MAX_SAVED * len(bad))
        for number, damaged in enumerate(bad):
            seen = damaged.told.last
            to = upto if number == len(bad) - 1 else -1 if seen is None or seen > upto else seen
            place = Place(self._n or 0, damaged.offset, damaged.length - damaged.ended, 0, -1).pack()
            lost = [Entry("", self._head.at, b"", seq) for seq in range(self._next, to + 1)]
            self._insert(lost, [place] * len(lost))
            self._next += len(lost)

    def _take(self, found: Found, line: Line) -> None:
        before = self._head or Head(Ref("", ""))
        head = line.changed(self._head)
        self._change(head)
        n = self._n or 0
        if line.dead or line.trim:
            self._forget(n, before, head)
        if line.kind is not None or line.dead is not None or line.trim:
            self._next = max(self._next, head.base + 1, head.trim + 1)
        entries = [logged.to_entry() for logged in line.append]
        self._insert(entries, places(n, found.offset, found.data, len(entries)))
        if entries:
            self._next = entries[-1].seq + 1
        elif head.dead:
            self._next = head.last + 1
        for span in line.ranges():
            hide(self._db, n, self._runs.data, span.first, span.last, span.hide)

    def _insert(self, entries: Sequence[Entry], where: Sequence[bytes]) -> None:
        n = self._n or 0
        first = numbered(self._db, self._numbers, self._runs, n, entries)
        insert_entries(self._db, new_rows(first, n, entries, where))

    def _change(self, head: Head) -> None:
        before, self._head = self._head, head
        if self._n is None:
            known = self._db.execute("SELECT n FROM head WHERE kind = ? AND id = ?", head.ref).fetchone()
            if known is not None:
                forget_rows(self._db, known[0])
            self._n = insert_head(self._db, head)
            write_tags(self._db, self._n, {}, head.tags)
        else:
            write_tags(self._db, self._n, before.tags if before else {}, head.tags)
            self._save()

    def _save(self) -> None:
        if self._head is not None:
            values = head_values(self._head, encode(self._head.tags), self._runs.data)
            self._db.execute(UPDATE_HEAD, (*values, self._n))

    def _forget(self, n: int, before: Head, head: Head) -> None:
        """Remove what was deleted or forgotten from the index, whose words are then read anew."""
        last = min(self._next - 1, before.last if head.dead else head.trim)
        for rows in pages(self._db, n, self._runs.data, max(before.base, before.trim) + 1, last):
            remove_rows(self._db, rows)
            self._db.execute("DELETE FROM meta WHERE name = 'fts_norm'")
        if head.dead:
            forget_all(self._db, n)
            self._runs = OpenRuns()
        else:
            forget(self._db, n, head.trim)

    def is_settled(self) -> bool:
        """Whether there is nothing to do on the disk."""
        return not self._changed and self._cut is None and not self._unfinished

    def settle(self) -> None:
        """Set aside what is torn. The caller must sync the log and its folder before the rows are committed.

        Raises:
            Unavailable: the disk refuses.
        """
        try:
            if self._cut is not None:
                set_aside(self.path, self._cut)
            if self._unfinished:
                self._finish()
        except OSError as error:
            raise unavailable(error, f"{self.path} can't be written; nothing was stored") from error

    def _finish(self) -> None:
        """A damaged last line lost its newline: give it one, so that the next line stands by itself."""
        fd = os.open(self.path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
        try:
            size = os.fstat(fd).st_size
            write_at(fd, b"\n", size)
        finally:
            os.close(fd)
        self._db.execute("UPDATE log SET size = ? WHERE head = ?", (size + 1, self._n))


def forget_rows(db: Connection, n: int) -> None:
    """Remove a head and all that belongs to it from the index, whose words are then read anew."""
    row = db.execute(f"SELECT {HEAD} FROM head WHERE n = ?", (n,)).fetchone()  # noqa: S608  # columns
    try:
        head = head_of(row) if row is not None else Head(Ref("", ""))
        for rows in pages(db, n, row[-2] if row else b"", max(head.base, head.trim) + 1, head.last):
            remove_rows(db, rows)
    except Corrupt:
        db.execute("DELETE FROM entry WHERE head = ?", (n,))
    for table, column in (("run", "head"), ("tag", "head"), ("log", "head"), ("head", "n")):
        db.execute(f"DELETE FROM {table} WHERE {column} = ?", (n,))  # noqa: S608  # the names above
    db.execute("DELETE FROM meta WHERE name = 'fts_norm'")


def set_aside(path: str, end: int) -> None:
    """Move what is behind `end` into a file of its own, byte for byte, and cut the log there."""
    with open(path, "rb") as file:
        file.seek(end)
        torn = file.read()
    beside = f"{path}.torn.{1 + sum(1 for _ in torn_names(path))}"
    flags = getattr(os, "O_CLOEXEC", 0)
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, FILE_MODE)
    try:
        write_all(fd, torn)
        os.fsync(fd)
    finally:
        os.close(fd)
    sync_dir(os.path.dirname(path))
    fd = os.open(path, os.O_RDWR | flags)
    try:
        os.ftruncate(fd, end)
        os.fsync(fd)
    finally:
        os.close(fd)


def all_files(root: str, ending: str) -> Iterator[str]:
    """The names, below the root, of all files among the logs with an ending; a folder is none of ours."""
    base = os.path.join(root, "logs")
    for kind in sorted(os.listdir(base)) if os.path.isdir(base) else ():
        with os.scandir(os.path.join(base, kind)) as found:
            for entry in found:
                if entry.name.endswith(ending) and not entry.is_dir(follow_symlinks=False):
                    yield os.path.join("logs", kind, entry.name)


def ends_well(path: str, size: int) -> bool:
    """Whether the last line of a log is whole; looked at without reading the rest."""
    with open(path, "rb") as file:
        step = 65_536
        while True:
            start = max(size - step, 0)
            file.seek(start)
            tail = file.read(size - start)
            cut = tail[:-1].rfind(b"\n")
            if cut >= 0 or start == 0:
                return tail.endswith(b"\n") and _is_whole(tail[cut + 1 : -1])
            step *= 8


def _is_whole(data: bytes) -> bool:
    try:
        opened(data)
    except Corrupt:
        return False
    return True
