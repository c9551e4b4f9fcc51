"""The default backend: one SQLite file in WAL mode, synchronous FULL unless `durability=process`."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from holdfast.backend import Blobs, Problem, TextOf
from holdfast.backends.blobplace import DATABASE, begin_blobs, open_blobs
from holdfast.backends.engine import Connection, Engine
from holdfast.backends.gate import Gate
from holdfast.backends.packing import CURRENT, DAMAGED, Packer, dictionary
from holdfast.backends.rowbackend import Guarded, RowBackend, packed_entry
from holdfast.backends.rowblobs import RowBlobs
from holdfast.backends.rows import are_sound, entry_crc, head_row
from holdfast.backends.runs import Page, log_rows
from holdfast.backends.sqlitefile import SQLiteFile
from holdfast.errors import HoldfastError, Invalid, Uncertain
from holdfast.packed import Span
from holdfast.plan import Commit, Entry, Head, Ref
from holdfast.urls import Location

FEW = 64
"""Entries that are read at once, up to which they are remembered: the newest of a log are read again and again, and
most of them are the same as the time before. What differs in a bit is another row."""
KNOWN = 512
"""Entries that are remembered with the rows that say them, by the row number of the head and their seq."""
SMALL = 8192
"""Bytes of a body up to which its entry is remembered: so they take a few MB at the most."""


class SQLiteBackend(RowBackend):
    """A store in one SQLite file, bodies packed in their rows."""

    def __init__(self, where: Location, text_of: TextOf) -> None:
        durability = where.params.get("durability", "disk")
        engine = Engine(where.params.get("engine", "stdlib"))
        timeout = parse_timeout(where.params.get("timeout", "30"))
        wanted, folder = where.params.get("blobs"), os.path.realpath(where.path) + "-blobs"
        begin = functools.partial(begin_blobs, wanted, folder)
        file = SQLiteFile(where.path, engine, durable=durability == "disk", timeout=timeout, begin=begin)
        try:
            with Guarded(engine, file.path):
                packer = _packer(file)
            # Synced whatever the durability: a checkpoint syncs events, and none must outlive its large values.
            blobs = _blobs(file, wanted, folder)
        except BaseException:
            file.close()
            raise
        facts = {"engine": "sqlite", "durability": durability, "path": file.path}
        super().__init__(file, PackedBodies(packer), blobs, text_of, facts)
        self._packer = packer
        self._known: dict[tuple[int, int], tuple[Any, Entry]] = {}
        self.unpacked = packer.unpacked

    def _entries(self, n: int, page: Page) -> list[Entry]:
        first, rows = page
        unpackers = self._packer.unpackers()
        with contextlib.suppress(*DAMAGED):
            if len(rows) <= FEW:
                return self._remembered(n, page, unpackers)
            if are_sound(n, first, rows):
                return [
                    Entry(id or "", at, unpackers[packed[0]](packed[1:]), seq, void != 0)
                    for seq, (id, at, void, _, packed) in enumerate(rows, first)
                ]
        return super()._entries(n, page)  # one by one, so that each tells what is wrong with it

    def _remembered(self, n: int, page: Page, unpackers: Mapping[int, Callable[[bytes], bytes]]) -> list[Entry]:
        known, entries = self._known, list[Entry]()
        for seq, row in enumerate(page.rows, page.first):
            kept = known.get((n, seq))
            if kept is not None and kept[0] == row:
                entries.append(kept[1])
                continue
            id, at, void, crc, packed = row
            if crc != entry_crc(n, seq, id, at, void, packed):
                return super()._entries(n, page)
            entry = Entry(id or "", at, unpackers[packed[0]](packed[1:]), seq, void != 0)
            entries.append(entry)
            if len(entry.body) <= SMALL:
                if len(known) >= KNOWN:
                    known.clear()
                known[n, seq] = (row, entry)
        return entries

    def packed(self, spans: Sequence[Span]) -> list[list[Entry]]:
        """See `Packing.packed`."""
        found: list[list[Entry]] = []
        with self._guarded(), self._file.snapshot() as db:
            for ref, after, upto in spans:
                row = head_row(db, ref)
                rows = [] if row is None else log_rows(db, row, after, upto, None, False, True)
                found.append(list(map(packed_entry, rows)))
        return found

    def verify(self) -> list[Problem]:
        """As for any rows; and the copy of the dictionary that bodies are packed with."""
        problems = super().verify()
        try:
            with self._file.reader() as db:
                row = db.execute("SELECT data FROM dictionary WHERE id = ?", (CURRENT,)).fetchone()
        except self._engine.errors:
            row = None
        if row is None or row[0] != dictionary():
            problems.append(
                Problem(None, None, f"the copy of dictionary {CURRENT} is damaged; the shipped one is used")
            )
        return problems

    def _failed_commit(self, error: Exception) -> HoldfastError:
        """A failed sync: the commit is written, and the next open after a crash may find it."""
        told = self._engine.explain(error, self.path)
        if self._engine.is_sync_error(error):
            return Uncertain(
                f"{told.message}; whether it was stored is not known: repeat with the same key", path=self.path
            )
        return told

    def backup(self, path: str) -> None:
        """Copy the file, as it is at one moment, into a new one; blobs stay where they are. Writers go on meanwhile."""
        with self._guarded(), self._file.reader() as db:
            try:
                self._engine.backup(db, path)
            except self._engine.errors as error:
                if self._engine.is_full(error):  # of the two files only the new one is written
                    raise self._engine.explain(error, path) from error
                raise

    def info(self) -> Mapping[str, str]:
        """Facts for a person."""
        size = sum(os.path.getsize(p) for s in ("", "-wal") if os.path.exists(p := self.path + s))
        return {**super().info(), "bytes": str(size)}


def _blobs(file: SQLiteFile, wanted: str | None, folder: str) -> Blobs:
    """This store's large values; a file that holds them knows it, wherever it is moved to."""
    if RowBlobs.are_in(file):
        if wanted not in (None, DATABASE):
            raise Invalid(f"{file.path} keeps its large values in itself; leave blobs= away", path=file.path)
        return RowBlobs(file, Gate(folder))
    blobs = open_blobs(wanted, folder)
    if blobs is None:
        RowBlobs.begin(file)
        return RowBlobs(file, Gate(folder))
    return blobs


def _packer(file: SQLiteFile) -> Packer:
    with file.reader() as db:
        found = db.execute("SELECT id, data FROM dictionary").fetchall()
    if not found:
        with file.transaction() as db:
            db.execute("INSERT OR IGNORE INTO dictionary VALUES (?, ?)", (CURRENT, dictionary()))
    # The copy in the file has no checksum, and a flipped bit in it would show in bodies; ours is the same to the byte.
    kept = {n: data for n, data in found if 0 < n < 256 and isinstance(data, bytes)}
    return Packer({**kept, CURRENT: dictionary()})


class PackedBodies:
    """Bodies in their rows, packed. See `Bodies` for what the methods promise; nothing is kept elsewhere."""

    def __init__(self, packer: Packer) -> None:
        self._packer = packer
        self.unpack = packer.unpack

    def pack(self, commit: Commit) -> Sequence[bytes]:
        """Pack a commit's bodies."""
        appended = commit.append
        if len(appended) == 1:
            return (self._packer.pack(appended[0].body),)
        return self._packer.pack_all([entry.body for entry in appended])

    def meet(self, db: Connection, ref: Ref) -> bool:  # noqa: ARG002
        """Nothing to bring in step."""
        return False

    def mend(self, db: Connection, ref: Ref) -> bool:  # noqa: ARG002
        """The rows are all there is."""
        return False

    def place(
        self,
        n: int,  # noqa: ARG002  # the protocol's
        commit: Commit,  # noqa: ARG002
        before: Head | None,  # noqa: ARG002
        head: Head,  # noqa: ARG002
        entries: Sequence[Entry],  # noqa: ARG002
        packed: Sequence[bytes],
    ) -> Sequence[bytes]:
        """The rows hold the packed bodies themselves."""
        return packed

    def removed(self, db: Connection, n: int, head: Head, runs: bytes) -> None:
        """They went with their rows."""

    def settle(self, db: Connection) -> None:
        """The transaction makes them durable."""

    def undo(self) -> None:
        """The transaction takes them back."""

    def distrust(self) -> None:
        """Nothing is remembered."""

    def done(self) -> None:
        """Nothing is left to do."""


def parse_timeout(text: str) -> float:
    """The URL parameter `timeout`, in seconds."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 < seconds < 86_400:
        raise Invalid(f"timeout={text!r} is no number of seconds from 0 to 86,400", timeout=text)
    return seconds
