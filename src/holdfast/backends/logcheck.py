"""What is wrong with a log of a `files` store: every line is read, one at a time, and held against the rows."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from holdfast.backend import Problem
from holdfast.backends.disk import unavailable
from holdfast.backends.jsonl import log_name, same_head
from holdfast.backends.logfile import first_checksum, unpacked
from holdfast.backends.replay import fits, lines
from holdfast.backends.rows import HEAD, head_of
from holdfast.backends.sqlitefile import SQLiteFile
from holdfast.errors import Corrupt, Invalid
from holdfast.plan import Head, Ref

TRIES = 3
"""How often a log is looked at that others change meanwhile."""
_SQL = (
    f"SELECT l.size, l.first, {', '.join('h.' + c for c in HEAD.split(', '))} FROM log l JOIN head h ON h.n = l.head "  # noqa: S608  # columns
)


def log_problems(file: SQLiteFile, root: str, name: str) -> list[Problem]:
    """What is wrong with one log. Damaged lines whose entries the rows know are left to those who read the rows."""
    problems: list[Problem] = []
    for _ in range(TRIES):
        row = _row(file, name)
        try:
            problems = _compared(file, root, name, row) if row is not None else _unknown(root, name)
        except FileNotFoundError:
            problems = []  # it was removed, or its rows will be found to speak of nothing
        except Invalid as error:
            return [Problem(None, None, f"{name}: {error.message}")]
        if not problems:
            break
    return problems


def _row(file: SQLiteFile, name: str) -> Any:
    with file.reader() as db:
        return db.execute(f"{_SQL} WHERE l.name = ?", (name,)).fetchone()


def _compared(file: SQLiteFile, root: str, name: str, row: Any) -> list[Problem]:
    size, first, n = row[:3]
    try:
        known = head_of(row[2:])
    except Corrupt:
        return []  # who reads the rows tells
    path = _written_with(os.path.join(root, name), first)
    head, damaged = _folded(path, size)
    problems = [
        Problem(known.ref, None, f"the line at byte {offset} of {name} is damaged: its checksum does not match")
        for offset in _unknown_to_rows(file, n, damaged)
    ]
    ends = os.stat(path).st_size
    if ends < size:
        problems.append(Problem(known.ref, None, f"{name} ends at byte {ends}; the index knows of {size} bytes"))
    elif not damaged and (head is None or not same_head(known, head)):
        what = f"the index does not agree with {name}; close the store and delete index.db to build it again"
        problems.append(Problem(known.ref, None, what))
    return problems


def _folded(path: str, size: int) -> tuple[Head | None, list[int]]:
    """The head that a log tells up to a size, and the offsets of damaged lines."""
    head: Head | None = None
    following = 1
    damaged: list[int] = []
    for offset, _, line in lines(path, 0, size):
        if line is None or not fits(line, head, following):
            damaged.append(offset)
            continue
        head = line.changed(head)
        following = line.append[-1].seq + 1 if line.append else following
    return head, damaged


def head_in_log(file: SQLiteFile, root: str, n: int) -> Head | None:
    """The head that the log of a row tells, read all; None if any of it is damaged or not there."""
    with file.reader() as db:
        found = db.execute("SELECT name, size, first FROM log WHERE head = ?", (n,)).fetchone()
    if found is None:
        return None
    name, size, first = found
    path = os.path.join(root, name)
    try:
        head, damaged = _folded(_written_with(path, first), size)
        return head if not damaged and os.stat(path).st_size >= size else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unavailable(error, f"{path} can't be read") from error


def _written_with(path: str, first: int) -> str:
    """The log, or the one that it is just replacing: whichever begins as it did when the rows were written."""
    for place in (path, path + ".old"):
        with contextlib.suppress(FileNotFoundError), open(place, "rb") as file:
            if first_checksum(file.fileno()) == first:
                return place
    return path


def _unknown_to_rows(file: SQLiteFile, n: int, damaged: list[int]) -> list[int]:
    """Those of the damaged lines, by their offsets, of which no entry's row speaks."""
    if not damaged:
        return []
    with file.reader() as db:
        rows = db.execute("SELECT body FROM entry WHERE head = ?", (n,)).fetchall()
    told: set[int] = set()
    for (packed,) in rows:
        try:
            told.add(unpacked(packed).offset)
        except Corrupt:
            continue  # who reads the rows tells
    return [offset for offset in damaged if offset not in told]


def _unknown(root: str, name: str) -> list[Problem]:
    """A log without rows: not acknowledged yet, unless it is another's."""
    found = next(lines(os.path.join(root, name)), None)
    if found is None or (found.line is None and not found.data.endswith(b"\n")):
        return []
    line = found.line
    if line is None or line.kind is None or line.id is None:
        return [Problem(None, None, f"the line at byte 0 of {name} is damaged, and nothing else says whose log it is")]
    ref = Ref(line.kind, line.id)
    if log_name(ref) == name:
        return []
    return [Problem(None, None, f"{name} holds the log of {ref.kind} {ref.id!r} and is not used; move it away")]
