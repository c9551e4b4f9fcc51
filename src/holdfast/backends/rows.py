"""How heads and entries stand in SQLite's rows: values, checksums, and the statements that write and find them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from struct import Struct, error
from typing import Any
from zlib import crc32

import msgspec

from holdfast.backends.engine import Connection
from holdfast.errors import Corrupt
from holdfast.plan import TRASHED, Head, Ref

HEAD = "n, kind, id, rev, last, base, trim, at, dead, tags, counts, body, runs, crc"
"""Columns of a head, in the order in which `head_of` takes them."""
ENTRY = "n, head, seq, id, at, void, crc, body"
"""Columns of an entry; `head` is the row of its head, and its body is packed."""
MISPLACED = -1
"""Stands for the checksum of a row that is found where it should not be; none is negative."""
LED = f"id, at, void, iif(head IS ? AND seq IS n - ? AND void <= ?, crc, {MISPLACED}), body"
"""The same without what a row must say that a run leads to, which are parameters instead, as is whether it may be
hidden: quicker to fetch.
"""
KNOWN = 1024
"""Rows of lists that are remembered with what they say."""
SMALL = 2048
"""Bytes of tags and body up to which a row is remembered: so they take a few MB at the most."""
FEW = 1000
"""Heads that carry a tag, up to which a filtered list is gathered and sorted instead of walked by time."""

_numbers = Struct("<qqqB").pack  # `?` would take NULL, "" and 2 for a yes or a no
_head_numbers = Struct("<qqqqqB").pack
encode = msgspec.json.Encoder().encode
_tags = msgspec.json.Decoder(dict[str, str]).decode
_counts = msgspec.json.Decoder(dict[str, int]).decode

UPDATE_HEAD = (
    "UPDATE head SET rev = ?, last = ?, base = ?, trim = ?, at = ?, slot = ?, dead = ?, tags = ?, counts = ?, "
    "body = ?, crc = ?, runs = ? WHERE n = ?"
)
GROW_HEAD = "UPDATE head SET rev = ?, last = ?, at = ?, counts = ?, crc = ?, runs = ? WHERE n = ?"
SLOT = 14
"""Bits of microseconds that make a slot of the index by time: 16 ms."""
LIVING, DEAD, IN_TRASH = 0, 1, 2
"""Where a head stands, in its column `dead`: each has an index by time of its own, and costs the others nothing."""
# A head in a wrong place would lead the next page astray; in a list it is as good as damaged.
_IN_PLACE = f"h.slot IS h.at >> {SLOT}"
FOUND = ", ".join(
    f"iif({_IN_PLACE}, h.crc, {MISPLACED})" if name == "crc" else f"h.{name}" for name in HEAD.split(", ")
)
"""`HEAD` of what `find_sql` finds, as `head_of` takes it."""
LISTED = (
    "h.id, h.rev, h.last, h.base, h.trim, h.at, h.tags, h.counts, h.body, h.runs, "
    f"iif({_IN_PLACE} AND h.kind IS ? AND h.dead IS ?, h.crc, {MISPLACED})"
)
"""The same without what all rows of a list must have, its kind and where they stand, which are parameters instead:
as `heads_of` takes them, and quicker to fetch.
"""


def only_grew(head: Head, saved: Head) -> bool:
    """Whether a change adds entries and leaves alone every column that an index looks at, and what seldom changes."""
    return (
        head.last > saved.last
        and head.tags is saved.tags
        and head.body is saved.body
        and head.at >> SLOT == saved.at >> SLOT
        and head.trim == saved.trim
        and head.base == saved.base
        and head.dead == saved.dead
    )


def head_values(head: Head, tags: bytes, runs: bytes) -> tuple[Any, ...]:
    """The columns of `UPDATE_HEAD` but the row number; `tags` are the encoded ones, `runs` see `OpenRuns`."""
    rev, last, at, counts, crc, led, _ = grown_values(head, tags, runs, 0)
    slot, standing = at >> SLOT, _standing(head)
    return rev, last, head.base, head.trim, at, slot, standing, blob(tags), counts, blob(head.body), crc, led


def grown_values(head: Head, tags: bytes, runs: bytes, n: int) -> tuple[Any, ...]:
    """The values of `GROW_HEAD`; `n` is the row number."""
    rev, last, at = head.rev, head.last, head.at
    counts = encode(head.counts)
    kind, id = head.ref
    numbers = _head_numbers(rev, last, head.base, head.trim, at, head.dead)
    crc = _head_crc(kind, id, numbers, tags, counts, head.body, runs)
    return rev, last, at, blob(counts), crc, blob(runs), n


def _standing(head: Head) -> int:
    return DEAD if head.dead else IN_TRASH if TRASHED in head.tags else LIVING


def _head_crc(kind: str, id: str, numbers: bytes, tags: bytes, counts: bytes, body: bytes, runs: bytes) -> int:
    # Runs came later: a head without any has the checksum that it always had.
    return crc32(runs, crc32(b"\0".join((kind.encode(), id.encode(), numbers, tags, counts, body))))


def head_of(row: Any) -> Head:
    """A row of `HEAD` as a head.

    Raises:
        Corrupt: its checksum does not match.
    """
    _, kind, id, rev, last, base, trim, at, dead, tags, counts, body, runs, crc = row
    try:
        numbers = _head_numbers(rev, last, base, trim, at, dead == DEAD)
        sound = crc == _head_crc(kind, id, numbers, tags, counts, body, runs)
    except (TypeError, AttributeError, UnicodeError, error):
        sound = False  # a flipped bit may change a column's type
    if sound:
        head = Head(Ref(kind, id), rev, last, base, trim, at, _tags(tags), _counts(counts), body, dead == DEAD)
        if dead == _standing(head):  # which the checksum does not tell
            return head
    raise Corrupt(
        f"the head of {as_text(kind)} {as_text(id)!r} is damaged: its checksum does not match; its bytes are kept, "
        "its events can still be read (get(id, damaged='keep'), session show), and a delete removes it",
        id=as_text(id),
    )


def heads_of(kind: str, standing: int, rows: Sequence[Any]) -> list[Head] | None:
    """Rows of `LISTED` as heads; None if one of them is damaged: all of its columns tell then what is left of it."""
    try:
        # What is large is not remembered.
        return [(_known_head if len(row[6]) + len(row[8]) < SMALL else _head)(kind, standing, row) for row in rows]
    except (Corrupt, TypeError):
        return None


def _head(kind: str, standing: int, row: Any) -> Head:
    id, rev, last, base, trim, at, tags, counts, body, runs, crc = row
    return head_of((0, kind, id, rev, last, base, trim, at, standing, tags, counts, body, runs, crc))


_known_head = lru_cache(KNOWN)(_head)
"""A list is mostly of the same rows as the one before. What differs in a bit is another row."""


def entry_crc(head: int, seq: int, id: str | None, at: int, void: int, packed: bytes) -> int:
    """The checksum over all that a row of `ENTRY` says."""
    try:
        start = crc32(_numbers(head, seq, at, void))
        return crc32(packed, crc32(id.encode(), start) if id else start)
    except (TypeError, AttributeError, UnicodeError, error):
        return -1  # a flipped bit may change a column's type; no checksum is negative


def are_sound(head: int, first: int, rows: Iterable[Any]) -> bool:
    """Whether all rows of `LED`, of the entries from `first` on, match their checksums: `entry_crc`, written out."""
    seq = first
    try:
        for id, at, void, crc, packed in rows:
            start = crc32(_numbers(head, seq, at, void))
            if crc != crc32(packed, crc32(id.encode(), start) if id else start):
                return False
            seq += 1
    except (TypeError, AttributeError, UnicodeError, error):
        return False
    return True


def is_sound(row: Any) -> bool:
    """Whether a row of `ENTRY` matches its checksum. One that says it is hidden, and is not sound, is not left out."""
    _, head, seq, id, at, void, crc, packed = row
    return crc == entry_crc(head, seq, id, at, void, packed)


def insert_head(db: Connection, head: Head, runs: bytes = b"") -> int:
    """Write a new head; its row number."""
    db.execute(
        "INSERT INTO head (rev, last, base, trim, at, slot, dead, tags, counts, body, crc, runs, kind, id) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*head_values(head, encode(head.tags), runs), *head.ref),
    )
    return db.execute("SELECT last_insert_rowid()").fetchone()[0]


_INSERT_ENTRY = {
    7: "INSERT INTO entry (n, head, seq, at, void, crc, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
    8: "INSERT INTO entry (n, head, seq, at, void, crc, body, id) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
}
"""By the number of values: most entries have no id."""

blob = bytearray
"""Makes bytes what is bound to a statement at once. Of bytes, None and truth values Python's sqlite3 asks each time
whether somebody wants them adapted, which takes longer than to copy what an entry mostly holds."""


def insert_entries(db: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Write new entries."""
    if len(rows) == 1:
        db.execute(_INSERT_ENTRY[len(rows[0])], rows[0])
    else:
        for values, alike in groupby(rows, len):
            db.executemany(_INSERT_ENTRY[values], alike)


def head_row(db: Connection, ref: Ref) -> Any:
    """The row of a head, by `HEAD`; None if there is none."""
    return db.execute(f"SELECT {HEAD} FROM head WHERE kind = ? AND id = ?", ref).fetchone()  # noqa: S608  # columns


def newest_row(db: Connection) -> int:
    """The number of the newest row; 0 if there is none."""
    return db.execute("SELECT max(n) FROM entry").fetchone()[0] or 0


class Numbers:
    """The numbers that new rows of entries get: each one more than the newest."""

    __slots__ = ("newest",)

    def __init__(self, newest: int) -> None:
        self.newest = newest


def write_tags(db: Connection, n: int, old: Mapping[str, str], new: Mapping[str, str]) -> None:
    """Write what differs between two sets of tags of a head."""
    gone = [(name, value, n) for name, value in old.items() if new.get(name) != value]
    come = [(name, value, n) for name, value in new.items() if old.get(name) != value]
    if gone:
        db.executemany("DELETE FROM tag WHERE name = ? AND value = ? AND head = ?", gone)
    if come:
        db.executemany("INSERT INTO tag VALUES (?, ?, ?)", come)


def as_text(value: Any) -> str:
    """A column that should hold text, whatever a flipped bit made of it."""
    return value if isinstance(value, str) else "" if value is None else repr(value)


def as_number(value: Any) -> int:
    """A column that should hold a number, whatever a flipped bit made of it."""
    return value if isinstance(value, int) else 0


def as_bytes(value: Any) -> bytes:
    """A column that should hold bytes, whatever a flipped bit made of it."""
    return value if isinstance(value, bytes) else repr(value).encode()


def tag_filter(tags: Mapping[str, str | None]) -> tuple[str, list[Any]]:
    """Conditions on the head `h` that it carries these tags (None: lacks them), and their values."""
    where, values = "", list[Any]()
    for name, value in tags.items():
        if value is None:
            where += " AND NOT EXISTS (SELECT 1 FROM tag t WHERE t.head = h.n AND t.name = ?)"
            values.append(name)
        else:
            where += " AND EXISTS (SELECT 1 FROM tag t WHERE t.name = ? AND t.value = ? AND t.head = h.n)"
            values += [name, value]
    return where, values


def find_sql(
    db: Connection, kind: str, tags: Mapping[str, str | None], after: tuple[int, str] | None, standing: int
) -> tuple[str, list[Any]]:
    """Gather the heads of a rare tag, or walk all by time and filter: whichever looks at fewer rows.

    What follows the columns `FOUND` or `LISTED`, and its values.
    """
    source, values = "head h", list[Any]()
    rarest = _rarest(db, tags)
    if rarest is not None:
        source = "tag x CROSS JOIN head h ON h.n = x.head"
        tags = {name: value for name, value in tags.items() if name != rarest[0]}
    where, more = tag_filter(tags)
    sql = f"FROM {source} WHERE h.kind = ? AND h.dead = {standing}"
    values.append(kind)
    if rarest is not None:
        sql += " AND x.name = ? AND x.value = ?"
        values += [rarest[0], rarest[1]]
    values += more
    if after is not None:
        # What is in a slot below comes later whatever time it says, so that what is damaged is met, too.
        where += " AND h.slot <= ? AND (h.slot < ? OR h.at < ? OR (h.at = ? AND h.id < ?))"
        values += [after[0] >> SLOT, after[0] >> SLOT, after[0], after[0], after[1]]
    return f"{sql}{where} ORDER BY h.slot DESC, h.at DESC, h.id DESC", values


def _rarest(db: Connection, tags: Mapping[str, str | None]) -> tuple[str, str] | None:
    """The tag that the fewest heads carry, if they are few."""
    best: tuple[int, tuple[str, str]] | None = None
    for name, value in tags.items():
        if value is None:
            continue
        sql = "SELECT count(*) FROM (SELECT 1 FROM tag WHERE name = ? AND value = ? LIMIT ?)"
        count = db.execute(sql, (name, value, FEW + 1)).fetchone()[0]
        if count <= FEW and (best is None or count < best[0]):
            best = (count, (name, value))
    return best[1] if best else None
