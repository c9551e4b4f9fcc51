"""Where the entries of a log stand: in runs of rows that follow each other.

A run says that the entry `seq` is in row `n`, the next in the next row, up to where the log's next run begins. The
newest runs of a log stand in its head, which every append writes anyway; when there are `OPEN` of them they move into
the table `run` together. So an append writes no page of an index. A run only leads to rows: whoever reads them looks
whether they are the ones, and where they are not, all rows are looked through.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from struct import Struct
from typing import Any, NamedTuple

from holdfast.backends.engine import Connection
from holdfast.backends.rows import ENTRY, LED, MISPLACED, entry_crc, head_of, is_sound
from holdfast.errors import Corrupt

OPEN = 16
"""Runs that a head holds at the most."""
LONG = 8
"""Rows of a run from which on they are fetched by themselves; those of shorter runs are fetched together."""
TOGETHER = 64
"""Rows of short runs that one statement fetches."""
GONE = -1
"""The checksum of a row that is not there; none is negative."""
ALL = 2**62
"""Above every seq."""
PAGE = 1000
"""Rows that are changed or removed at a time."""
WINDOW = 10_000
"""Entries that are looked at together to find some that are not hidden."""

_pair = Struct("<qq")
_LEADING = (
    "SELECT seq, n FROM run WHERE head = ?1 AND seq <= ?3 "
    "AND seq >= coalesce((SELECT max(seq) FROM run WHERE head = ?1 AND seq <= ?2), 0) ORDER BY seq"
)
_SPAN = f"SELECT {ENTRY} FROM entry WHERE n BETWEEN ? AND ? ORDER BY n"  # noqa: S608  # columns
_LED = f"SELECT {LED} FROM entry WHERE n BETWEEN ? AND ? ORDER BY n"  # noqa: S608  # columns
_SIZES = (4, 8, 16, 32, TOGETHER)
_SOME = {
    size: f"SELECT {ENTRY} FROM entry WHERE n IN ({','.join('?' * size)}) ORDER BY n"  # noqa: S608  # columns
    for size in _SIZES
}
_BY_SEQ = f"SELECT {ENTRY} FROM entry WHERE head = ? AND seq BETWEEN ? AND ? ORDER BY seq"  # noqa: S608  # columns


class Run(NamedTuple):
    """The entry `seq` is in row `n`, the next in the next, and so on."""

    seq: int
    n: int


class OpenRuns:
    """The newest runs of one log while it is written; `data` is how they stand in its head."""

    __slots__ = ("_shift", "data")

    def __init__(self, data: bytes = b"") -> None:
        self.data = data
        self._shift: int | None = None
        if data:
            seq, n = _pair.unpack_from(data, len(data) - _pair.size)
            self._shift = n - seq

    def add(self, db: Connection, head: int, seq: int, n: int) -> None:
        """The entries from `seq` on were given the rows from `n` on."""
        if n - seq == self._shift:
            return
        if len(self.data) >= OPEN * _pair.size:
            self.close(db, head)
        self.data += _pair.pack(seq, n)
        self._shift = n - seq

    def close(self, db: Connection, head: int) -> None:
        """Move them into the table."""
        db.executemany("INSERT INTO run VALUES (?, ?, ?)", [(head, *run) for run in unpacked(self.data)])
        self.data = b""


def unpacked(data: bytes) -> list[Run]:
    """The runs that stand in a head."""
    return [Run(*pair) for pair in _pair.iter_unpack(data)]


def forget(db: Connection, head: int, upto: int) -> None:
    """Entries up to a seq are gone: remove from the table the runs that held nothing else."""
    sql = "DELETE FROM run WHERE head = ?1 AND seq < (SELECT max(seq) FROM run WHERE head = ?1 AND seq <= ?2 + 1)"
    db.execute(sql, (head, upto))


def forget_all(db: Connection, head: int) -> None:
    """A log is gone: remove its runs from the table."""
    db.execute("DELETE FROM run WHERE head = ?", (head,))


def fetch(db: Connection, head: int, data: bytes, first: int, last: int) -> Sequence[Any]:
    """The rows of the entries from `first` to `last`, which are there, by their seq.

    Args:
        db: A connection that sees one state of the file.
        head: The row number of the log's head.
        data: The open runs that stand in it.

    Returns:
        A row of `ENTRY` for each seq. One that is damaged comes as it is, but for its head and seq; one that is nowhere
        to be found has the checksum `GONE`.
    """
    if first > last:
        return ()
    runs = leading(db, head, data, first, last)
    rows = _rows(db, runs, last)
    seq = first
    for row in rows:
        if row[2] != seq or row[1] != head:
            break
        seq += 1
    # In a damaged file there may be more rows of a number than one.
    whole = seq == last + 1 and len(rows) == seq - first
    return rows if whole else _looked_for(db, head, runs, first, last)


def pages(db: Connection, n: int, data: bytes, first: int, last: int) -> Iterator[Sequence[Any]]:
    """The rows of `fetch`, some at a time, without those that are nowhere to be found."""
    for start in range(first, last + 1, PAGE):
        yield [row for row in fetch(db, n, data, start, min(start + PAGE - 1, last)) if row[6] != GONE]


def scanned(db: Connection, head: int) -> Iterator[Sequence[Any]]:
    """Every row that says it is of this head, some at a time: where nothing can be relied on to lead to them."""
    numbers = [n for (n,) in db.execute("SELECT n FROM entry WHERE head = ?", (head,)).fetchall()]
    for start in range(0, len(numbers), TOGETHER):
        yield _some(db, numbers[start : start + TOGETHER])


def remove_rows(db: Connection, rows: Sequence[Any]) -> None:
    """Remove rows of entries."""
    db.executemany("DELETE FROM entry WHERE n = ?", [row[:1] for row in rows])


class Page(NamedTuple):
    """Rows of `LED`, of the entries from `first` on."""

    first: int
    rows: Sequence[Any]


def led(db: Connection, row: Any, after: int, upto: int, limit: int, reverse: bool, voided: bool) -> Page | None:
    """A page of a log as `log_rows` finds it, where long runs lead to all of it and nothing is left out.

    None where it is not so: then it has to be looked for. What is damaged in its place comes as it is.
    """
    n, data = row[0], row[-2]
    try:
        head = head_of(row)
    except Corrupt:
        return None
    first, last = max(after, head.base, head.trim) + 1, min(upto, head.last)
    if reverse:
        first = max(first, last - limit + 1)
    else:
        last = min(last, first + limit - 1)
    if first > last:
        return Page(first, ())
    rows: list[Any] = []
    for run, behind in pairwise([*leading(db, n, data, first, last), Run(last + 1, 0)]):
        count = behind.seq - run.seq
        if count < LONG and count <= last - first:
            return None
        some = db.execute(_LED, (n, run.n - run.seq, int(voided), run.n, run.n + count - 1)).fetchall()
        if len(some) != count or MISPLACED in [row[3] for row in some]:
            return None
        rows += some
    return Page(first, rows) if len(rows) == last - first + 1 else None


def log_rows(
    db: Connection, row: Any, after: int, upto: int, limit: int | None, reverse: bool, voided: bool
) -> list[Any]:
    """Rows of a log's entries; see `Backend.read`. `row` is that of its head, by `HEAD`."""
    n, data = row[0], row[-2]
    try:
        head = head_of(row)
    except Corrupt:
        return _unled(db, n, after, upto, limit, reverse, voided)
    first, last = max(after, head.base, head.trim) + 1, min(upto, head.last)
    found: list[Any] = []
    size = WINDOW if limit is None else limit
    while first <= last and (limit is None or len(found) < limit):
        start, end = (max(first, last - size + 1), last) if reverse else (first, min(last, first + size - 1))
        rows = fetch(db, n, data, start, end)
        rows = [r for r in (rows[::-1] if reverse else rows) if voided or not (r[5] and is_sound(r))]
        found += rows
        first, last = (first, start - 1) if reverse else (end + 1, last)
        size = min(size * 2, WINDOW)  # where all are hidden, many are looked through to find one that is not
    return found if limit is None else found[:limit]


def _unled(db: Connection, n: int, after: int, upto: int, limit: int | None, reverse: bool, voided: bool) -> list[Any]:
    """The same where the head can't be relied on to lead anywhere: all rows are looked through, and few are read."""
    order = "DESC" if reverse else "ASC"
    sql = (
        "SELECT n FROM entry WHERE head = ? AND seq > ? AND seq <= ? AND (void = 0 OR ?) "  # noqa: S608  # a direction
        f"ORDER BY seq {order} LIMIT ?"
    )
    found = db.execute(sql, (n, after, upto, voided, -1 if limit is None else limit)).fetchall()
    numbers = [number for (number,) in found]
    rows = [row for i in range(0, len(numbers), TOGETHER) for row in _some(db, sorted(numbers[i : i + TOGETHER]))]
    return sorted(rows, key=lambda row: row[2], reverse=reverse)


def leading(db: Connection, head: int, data: bytes, first: int, last: int) -> list[Run]:
    """The runs of the entries from `first` to `last`, cut to begin with it."""
    if data:
        seq, n = _pair.unpack_from(data, len(data) - _pair.size)
        if seq <= first <= last:
            return [Run(first, n + first - seq)]
    runs = unpacked(data)
    if not runs or runs[0].seq > first:
        runs[:0] = [Run(*row) for row in db.execute(_LEADING, (head, first, last)).fetchall() if _is_run(row)]
    while len(runs) > 1 and runs[1].seq <= first:
        del runs[0]
    if runs and runs[0].seq < first:
        runs[0] = Run(first, runs[0].n + first - runs[0].seq)
    while runs and runs[-1].seq > last:
        del runs[-1]
    return runs


def _is_run(row: Any) -> bool:
    """Whether a row of the table can be one: it has no checksum, and a flipped bit may change a column's type."""
    return all(type(value) is int and 0 < value < ALL for value in row)


def _rows(db: Connection, runs: Sequence[Run], last: int) -> list[Any]:
    """The rows that the runs lead to, in order."""
    rows: list[Any] = []
    few: list[int] = []
    for run, after in pairwise([*runs, Run(last + 1, 0)]):
        count = after.seq - run.seq
        if count >= LONG or len(few) + count > TOGETHER:
            rows += _some(db, few)
            few.clear()
        if count >= LONG:
            rows += db.execute(_SPAN, (run.n, run.n + count - 1)).fetchall()
        else:
            few += range(run.n, run.n + count)
    return rows + _some(db, few) if few else rows


def _some(db: Connection, few: Sequence[int]) -> list[Any]:
    """Rows by their numbers, 64 at the most."""
    if len(few) <= 1:
        return [row for n in few for row in db.execute(_SPAN, (n, n)).fetchall()]
    size = next(size for size in _SIZES if size >= len(few))
    return db.execute(_SOME[size], [*few, *[None] * (size - len(few))]).fetchall()


def _looked_for(db: Connection, head: int, runs: Sequence[Run], first: int, last: int) -> Sequence[Any]:
    """The rows one by one: those that are damaged in their place, and those that the runs do not lead to."""
    found: dict[int, Any] = {}
    for run, after in pairwise([*runs, Run(last + 1, 0)]):
        for row in db.execute(_SPAN, (run.n, run.n + after.seq - run.seq - 1)).fetchall():
            seq = run.seq + row[0] - run.n
            if (row[1], row[2]) == (head, seq) or row[6] != entry_crc(row[1], row[2], row[3], row[4], row[5], row[7]):
                found[seq] = (row[0], head, seq, *row[3:])
    if len(found) <= last - first:
        found = {row[2]: row for row in db.execute(_BY_SEQ, (head, first, last)).fetchall()} | found
    return [found.get(seq) or (0, head, seq, None, 0, 0, GONE, b"") for seq in range(first, last + 1)]
