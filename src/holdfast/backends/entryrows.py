"""What commits and logs alike do to the rows of entries: the one rule for new ones, and the one for changed ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.backends.engine import Connection
from holdfast.backends.rows import Numbers, blob, entry_crc, is_sound
from holdfast.backends.runs import OpenRuns, pages
from holdfast.plan import Entry


def numbered(db: Connection, numbers: Numbers, runs: OpenRuns, n: int, entries: Sequence[Entry]) -> int:
    """Give new entries of the head in row `n` their rows, to which its runs then lead; the number of the first."""
    first = numbers.newest + 1
    if entries:
        numbers.newest += len(entries)
        runs.add(db, n, entries[0].seq, first)
    return first


def new_rows(first: int, n: int, entries: Sequence[Entry], packed: Sequence[bytes]) -> list[tuple[Any, ...]]:
    """What `insert_entries` takes for new entries of the head in row `n`, from the row `first` on."""
    rows: list[tuple[Any, ...]] = []
    for e, body in zip(entries, packed, strict=True):
        at, seq, id, void = e.at, e.seq, e.id, 1 if e.void else 0
        told = (first, n, seq, at, void, entry_crc(n, seq, id, at, void, body), blob(body))
        rows.append((*told, id) if id else told)
        first += 1
    return rows


def hide(db: Connection, n: int, runs: bytes, first: int, last: int, void: bool) -> None:
    """Hide entries, or show them again."""
    for rows in pages(db, n, runs, first, last):
        changed = [(void, resealed(row, int(void), row[7]), row[0]) for row in rows if row[5] != void]
        db.executemany("UPDATE entry SET void = ?, crc = ? WHERE n = ?", changed)


def resealed(row: Any, void: int, packed: bytes) -> int:
    """The checksum of a row that is to say something else.

    A row that is damaged stays so: its checksum must go on not to match.
    """
    _, n, seq, id, at, _, crc, _ = row
    return entry_crc(n, seq, id, at, void, packed) if is_sound(row) else crc
