"""From logs to rows: how the index of a `files` store catches up with its logs, or is built anew from them.

The logs are the truth. A line that is whole is taken in; what follows the last whole line, and was never acknowledged,
is set aside byte for byte; a damaged line before others keeps its place, and the entries it held are listed as lost.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from holdfast.backends.disk import FILE_MODE, sync_dir, write_all
from holdfast.backends.engine import Connection
from holdfast.backends.filelogs import lost_place, places
from holdfast.backends.jsonl import VERSION, Line, last_told, opened
from holdfast.backends.rows import (
    HEAD,
    UPDATE_HEAD,
    encode,
    entry_values,
    head_of,
    head_values,
    insert_entries,
    insert_head,
    write_tags,
)
from holdfast.errors import Corrupt
from holdfast.plan import Entry, Head, Ref


class Found(NamedTuple):
    """A line of a log: where it starts, its bytes with the newline, and what it says; None if it is damaged."""

    offset: int
    data: bytes
    line: Line | None


def lines(path: str, start: int = 0) -> Iterator[Found]:
    """The lines of a log from an offset on; the last may lack its newline."""
    with open(path, "rb") as file:
        file.seek(start)
        offset = start
        for data in file:
            try:
                line = opened(data[:-1]) if data.endswith(b"\n") else None
            except Corrupt:
                line = None
            yield Found(offset, data, line)
            offset += len(data)


class Replay:
    """Takes the lines of one log into the rows, in the caller's transaction."""

    def __init__(self, db: Connection, path: str, name: str) -> None:
        self._db = db
        self._path = path
        self._name = name
        row = db.execute("SELECT head, size FROM log WHERE name = ?", (name,)).fetchone()
        self._n: int | None = row[0] if row else None
        self.covered: int = row[1] if row else 0
        self._head = self._load() if row else None

    def _load(self) -> Head | None:
        row = self._db.execute(f"SELECT {HEAD} FROM head WHERE n = ?", (self._n,)).fetchone()  # noqa: S608  # columns
        return head_of(row) if row else None

    def start_over(self) -> None:
        """Forget the rows: the log is not what it was."""
        if self._n is not None:
            forget_rows(self._db, self._n)
        self._n, self._head, self.covered = None, None, 0

    def run(self, durable: bool) -> int:
        """Take in what is behind the covered part; where the good part of the log ends.

        What is behind the last whole line is set aside and cut off.
        """
        end = self.covered
        doubtful: list[Found] = []
        for found in lines(self._path, self.covered):
            if found.line is None:
                doubtful.append(found)
                continue
            for damaged in doubtful:
                self._lose(damaged, found.line)
            doubtful.clear()
            self._take(found, found.line)
            end = found.offset + len(found.data)
        end = self._keep_acknowledged(doubtful, end)
        if doubtful:
            set_aside(self._path, end, durable)
        if self._n is not None:
            self._db.execute(
                "INSERT OR REPLACE INTO log (head, name, size) VALUES (?, ?, ?)", (self._n, self._name, end)
            )
        return end

    def _keep_acknowledged(self, doubtful: list[Found], end: int) -> int:
        """A last line that is complete and still tells its number was written whole: it is damaged, not torn."""
        while doubtful and self._head is not None:
            told = last_told(doubtful[0].data) if doubtful[0].data.endswith(b"\n") else None
            if told is None or not self._head.last < told <= self._head.last + 10_000:
                break
            found = doubtful.pop(0)
            self._lose(found, Line(v=VERSION, last=told))
            self._change(self._head, Line(v=VERSION, rev=self._head.rev + 1, last=told).changed(self._head))
            end = found.offset + len(found.data)
        return end

    def _take(self, found: Found, line: Line) -> None:
        head = line.changed(self._head)
        if head.dead and self._n is not None:
            self._db.execute("DELETE FROM entry WHERE head = ?", (self._n,))
        self._change(self._head, head)
        n = self._n or 0
        entries = [logged.to_entry() for logged in line.append]
        where = places(n, found.offset, found.data, len(entries))
        insert_entries(self._db, [entry_values(n, e, place) for e, place in zip(entries, where, strict=True)])
        for span in line.ranges():
            self._hide(n, span.first, span.last, span.hide)
        if line.trim:
            self._db.execute("DELETE FROM entry WHERE head = ? AND seq <= ?", (n, line.trim))

    def _change(self, before: Head | None, head: Head) -> None:
        if self._n is None:
            known = self._db.execute("SELECT n FROM head WHERE kind = ? AND id = ?", head.ref).fetchone()
            if known is not None:
                forget_rows(self._db, known[0])
            self._n = insert_head(self._db, head)
            write_tags(self._db, self._n, {}, head.tags)
        else:
            write_tags(self._db, self._n, before.tags if before else {}, head.tags)
            self._db.execute(UPDATE_HEAD, (*head_values(head, encode(head.tags)), self._n))
        self._head = head

    def _hide(self, n: int, first: int, last: int, hide: bool) -> None:
        sql = "SELECT n, seq, id, at, body FROM entry WHERE head = ? AND seq BETWEEN ? AND ?"
        for row, seq, id, at, place in self._db.execute(sql, (n, first, last)).fetchall():
            crc = entry_values(n, Entry(id or "", at, b"", seq, hide), place)[5]
            self._db.execute("UPDATE entry SET void = ?, crc = ? WHERE n = ?", (hide, crc, row))

    def _lose(self, damaged: Found, following: Line) -> None:
        """The entries that a damaged line held, as far as what follows tells: their numbers."""
        if self._head is None or self._n is None:
            return
        first = self._head.last + 1
        upto = following.append[0].seq - 1 if following.append else (following.last or 0)
        place = lost_place(self._n, damaged.offset, len(damaged.data) - 1)
        lost = [Entry("", self._head.at, b"", seq) for seq in range(first, upto + 1)]
        insert_entries(self._db, [entry_values(self._n, entry, place) for entry in lost])
        if lost:
            self._change(self._head, Line(v=VERSION, last=upto).changed(self._head))


def forget_rows(db: Connection, n: int) -> None:
    """Remove a head and all that belongs to it from the index, whose words are then read anew."""
    for table, column in (("entry", "head"), ("tag", "head"), ("log", "head"), ("head", "n")):
        db.execute(f"DELETE FROM {table} WHERE {column} = ?", (n,))  # noqa: S608  # the names above
    db.execute("DELETE FROM meta WHERE name = 'fts_norm'")


def set_aside(path: str, end: int, durable: bool) -> None:
    """Move what is behind `end` into a file of its own, byte for byte, and cut the log there."""
    with open(path, "rb") as file:
        file.seek(end)
        torn = file.read()
    number = 1
    while os.path.exists(beside := f"{path}.torn.{number}"):
        number += 1
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    try:
        write_all(fd, torn)
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    if durable:
        sync_dir(os.path.dirname(path))
    fd = os.open(path, os.O_RDWR)
    try:
        os.ftruncate(fd, end)
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)


def all_logs(root: str) -> Iterator[str]:
    """The names of all logs, below the root."""
    base = os.path.join(root, "logs")
    for kind in sorted(os.listdir(base)) if os.path.isdir(base) else ():
        for entry in os.scandir(os.path.join(base, kind)):
            if entry.name.endswith(".jsonl"):
                yield os.path.join("logs", kind, entry.name)


def head_after(found: Sequence[Found]) -> Head | None:
    """The head that the whole lines of a log come to."""
    head: Head | None = None
    for _, _, line in found:
        if line is not None:
            head = line.changed(head)
    return head


def ref_in(found: Found) -> Ref | None:
    """The name of the head that a log's first line gives."""
    line = found.line
    return None if line is None or line.kind is None or line.id is None else Ref(line.kind, line.id)
