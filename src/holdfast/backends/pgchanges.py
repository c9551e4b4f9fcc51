"""What a batch of commits comes to, head by head, before a row is written: `plan` decides, this remembers.

Commits to one head follow each other, so each is planned on what the one before left, entries that are not written yet
included. In the end each head is written once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from holdfast.backends.pgarrays import BYTEA, BYTEAS, INT8S, TEXT, TEXTS, byteas, int8s, texts
from holdfast.backends.pgrows import encode, entry_values, head_crc, standing
from holdfast.plan import Commit, Entry, Head, Range, Ref, Refused, plan

WRITE = (TEXT, TEXTS, TEXTS, INT8S, BYTEAS, BYTEAS, BYTEAS, INT8S, TEXTS, BYTEAS, INT8S, TEXTS, TEXTS)
"""What the arguments of the function `write` are."""
GROW = (TEXT, TEXT, TEXT, INT8S, BYTEA, INT8S, TEXTS, BYTEAS)
"""What those of `grow` are."""


class Known:
    """A head as it stands in its row; `tags` are encoded. `damaged` says that the row holds something else."""

    __slots__ = ("crc", "damaged", "head", "rev", "tags")

    def __init__(self, head: Head, tags: bytes, rev: int, crc: int, *, damaged: bool = False) -> None:
        self.head = head
        self.tags = tags
        self.rev = rev
        self.crc = crc
        self.damaged = damaged


class Change:
    """What becomes of one head and its log.

    Args:
        known: The head as it is stored; None if there is none.
        keys: Where the ids of the batch's entries stand in its log.
    """

    def __init__(self, known: Known | None, keys: dict[str, int]) -> None:
        self.known = known
        self.head = known.head if known else None
        self.keys = keys
        self.entries: list[tuple[Entry, bytes]] = []
        self.hides: list[Range] = []
        self.cut = 0
        """Stored entries up to this seq go."""
        self.changed = False

    def apply(self, commit: Commit, packed: Sequence[bytes]) -> Head | Refused:
        """Plan one commit on what the ones before it left, and remember what it writes."""
        before = self.head
        there = [entry.id for entry in commit.append if entry.id and entry.id in self.keys]
        planned = plan(before, there, commit)
        if isinstance(planned, Refused):
            return planned
        self.head, entries = planned
        self.changed = True
        for span in commit.void:
            self._hide(span)
        if entries:
            self.entries += zip(entries, packed, strict=True)
            self.keys.update((entry.id, entry.seq) for entry in entries if entry.id)
        if before is not None and (commit.delete or commit.trim is not None):
            self._cut(before.last if commit.delete else self.head.trim)
        return self.head

    def _hide(self, span: Range) -> None:
        self.hides.append(span)
        for n, (entry, packed) in enumerate(self.entries):
            if span.first <= entry.seq <= span.last:
                self.entries[n] = Entry(entry.id, entry.at, entry.body, entry.seq, span.hide), packed

    def _cut(self, upto: int) -> None:
        self.cut = max(self.cut, upto)
        self.entries = [(entry, packed) for entry, packed in self.entries if entry.seq > upto]
        self.keys = {key: seq for key, seq in self.keys.items() if seq > upto}

    @property
    def reworks(self) -> bool:
        """Whether it changes entries that are stored already."""
        return bool(self.hides or self.cut or (self.known and self.known.damaged))


class Written:
    """The arguments of the function `write`, gathered from changes; and the heads as they then stand."""

    def __init__(self, changes: Iterable[Change]) -> None:
        self.known: dict[Ref, Known] = {}
        self._refs: list[Ref] = []
        self._heads: list[int] = []
        self._columns: list[tuple[bytes | None, bytes | None, bytes | None]] = []
        self._entries: list[int] = []
        self._keys: list[str] = []
        self._bodies: list[bytes] = []
        self._tags: list[tuple[int, str, str | None]] = []
        self._only_grew = False
        for change in changes:
            self._add(change)

    def _add(self, change: Change) -> None:
        head, known = change.head, change.known
        if head is None:
            return  # nothing was there, and nothing came
        before = known.head if known else None
        same = before is not None and not (known and known.damaged)
        tags = known.tags if known and same and before and head.tags is before.tags else encode(head.tags)
        counts = encode(head.counts)
        crc = head_crc(head, tags, counts)
        kept = before if same else None
        self._only_grew = kept is not None and (kept.base, kept.trim, kept.dead) == (head.base, head.trim, head.dead)
        self._refs.append(head.ref)
        number = len(self._refs)
        self._heads += (known.rev, known.crc) if known else (-1, 0)
        self._heads += (head.rev, head.last, head.base, head.trim, head.at, standing(head), crc, change.changed)
        self._columns.append(
            (
                None if kept and known and tags is known.tags else tags,
                counts,
                None if kept and head.body is kept.body else head.body,
            )
        )
        for entry, packed in change.entries:
            self._entries += (number, *entry_values(head.ref, entry, packed))
            self._keys.append(entry.id)
            self._bodies.append(packed)
        if kept is None or head.tags is not kept.tags:
            old: Mapping[str, str] = kept.tags if kept else {}
            self._tags += [(number, name, None) for name in old if name not in head.tags]
            self._tags += [(number, name, value) for name, value in head.tags.items() if old.get(name) != value]
        self.known[head.ref] = Known(head, tags, head.rev, crc)

    def grown(self, durability: bytes) -> tuple[bytes, ...] | None:
        """What `grow` is called with; None if more changes than one log, and its head's numbers and counts."""
        if len(self._refs) != 1 or self._tags or not self._keys or self._heads[0] < 0:
            return None
        tags, counts, body = self._columns[0]
        if tags is not None or body is not None or not self._only_grew or counts is None:
            return None
        kind, id = self._refs[0]
        return (
            durability, kind.encode(), id.encode(), int8s(self._heads), counts,
            int8s(self._entries), texts(self._keys), byteas(self._bodies),
        )  # fmt: skip

    def arguments(self, durability: bytes) -> tuple[bytes, ...]:
        """What `write` is called with."""
        tags, counts, bodies = zip(*self._columns, strict=True)
        numbers, names, values = zip(*self._tags, strict=True) if self._tags else ((), (), ())
        return (
            durability, texts([ref.kind for ref in self._refs]), texts([ref.id for ref in self._refs]),
            int8s(self._heads), byteas(tags), byteas(counts), byteas(bodies),
            int8s(self._entries), texts(self._keys), byteas(self._bodies),
            int8s(numbers), texts(names), texts(values),
        )  # fmt: skip
