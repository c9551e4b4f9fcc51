"""The logs of a `files` store as places of bodies: rows say in which line of which file a body stands.

A commit's line is written behind the good end of its log, once for all commits of a batch, and synced before the rows
are committed; so rows never speak of a line that is not there. What fails is cut back. A log is rewritten only when
entries are forgotten, beside its place, and moved there; until the rows are committed the old one keeps a name, where
readers find what the rows still speak of.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from holdfast.backends.disk import sync_dir, unavailable
from holdfast.backends.engine import Connection
from holdfast.backends.entryrows import resealed
from holdfast.backends.jsonl import VERSION, Line, line_of, log_name, logged, seal, whole_head
from holdfast.backends.logfile import Log, Place, Reading, body_in, places, unpacked
from holdfast.backends.rows import entry_crc, is_sound
from holdfast.backends.runs import pages
from holdfast.errors import Corrupt, Uncertain
from holdfast.plan import Commit, Entry, Head, Ref

OPEN = 128
"""Logs that are kept open for writing."""
ENTRIES, BYTES = 100, 1024 * 1024
"""Entries, and bytes of their bodies, in one line of a rewritten log."""
PATHS = 10_000
"""Paths of logs that are remembered."""


class _Here(threading.local):
    """What each thread reads with."""

    def __init__(self) -> None:
        self.reading = Reading()


class LogBodies:
    """Bodies in logs. See `Bodies` for what the methods promise.

    Args:
        root: The store's folder.
        durable: Whether a log is synced before its rows are committed.
        adopt: Brings the rows of the log at a path in step with it, in the caller's transaction, or writes them anew.
            Whether they changed.
        name_of: The name of the log of a head's row, below the root.
    """

    def __init__(
        self,
        root: str,
        durable: bool,
        adopt: Callable[[Connection, str, bool], bool],
        name_of: Callable[[int], str | None],
    ) -> None:
        self.root = root
        self.unsynced: set[str] = set()
        self.leftovers = False
        self._durable = durable
        self._adopt = adopt
        self._name_of = name_of
        self._logs: OrderedDict[Ref, Log] = OrderedDict()
        self._touched: dict[Ref, tuple[int, Log]] = {}
        self._paths: dict[int, str] = {}
        self._here = _Here()

    def path_of(self, ref: Ref) -> str:
        """The file of a head's log."""
        return os.path.join(self.root, log_name(ref))

    def pack(self, commit: Commit) -> Sequence[bytes]:
        """Bodies go into the line as they are."""
        return [entry.body for entry in commit.append]

    def meet(self, db: Connection, ref: Ref) -> bool:
        """Take in what a writer that died left behind the good end."""
        if ref in self._touched:
            return False
        log = self._logs.get(ref)
        if log is not None:
            if log.is_at_its_place():
                return False
            self._logs.pop(ref).close()
        return self._adopt(db, log_name(ref), False)

    def mend(self, db: Connection, ref: Ref) -> bool:
        """Take in all of the log."""
        log = self._logs.pop(ref, None)
        if log is not None:
            log.close()
        return self._adopt(db, log_name(ref), True)

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
        offset = self._log(n, head.ref).add(line)
        return places(n, offset, line, len(entries))

    def _log(self, n: int, ref: Ref) -> Log:
        touched = self._touched.get(ref)
        if touched is not None:
            return touched[1]
        log = self._logs.get(ref) or Log(self.path_of(ref), durable=self._durable)
        self._touched[ref] = (n, log)
        self._remember_path(n, log.path)
        return log

    def removed(self, db: Connection, n: int, head: Head, runs: bytes) -> None:
        """Write the log anew, without what was forgotten."""
        log = self._log(n, head.ref)
        try:
            log.write()
            anew = Log(log.path, durable=self._durable, origin=log.origin or log)
            anew.ended = log.ended or head.dead
            self._touched[head.ref] = (n, anew)
            try:
                anew.add(whole_head(head))
                left = pages(db, n, runs, max(head.base, head.trim) + 1, head.last)
                self._rewrite(db, n, itertools.chain.from_iterable(left), log, anew)
            finally:
                if log.origin is not None:
                    log.close()  # itself written anew by this batch, and replaced before anybody saw it
        except OSError as error:
            raise unavailable(error, f"{log.path} can't be written anew; nothing was changed") from error

    def _rewrite(self, db: Connection, n: int, rows: Iterable[Any], log: Log, anew: Log) -> None:
        """Copy the entries that are left, a hundred in a line; a damaged line as it is, byte for byte."""
        run: list[tuple[Any, Entry]] = []
        size = 0
        damaged: dict[int, int] = {}
        for row in rows:
            place = unpacked(row[7])
            data = log.line(place)
            try:
                entry = _entry_of(row, place, data)
            except Corrupt:
                self._copy_run(db, n, run, anew)
                if place.offset not in damaged:
                    damaged[place.offset] = anew.add(data + b"\n")
                moved = place._replace(n=n, offset=damaged[place.offset]).pack()
                crc = resealed(row, row[5], moved)
                db.execute("UPDATE entry SET body = ?, crc = ? WHERE n = ?", (moved, crc, row[0]))
                continue
            if run and (len(run) == ENTRIES or size + len(entry.body) > BYTES):
                self._copy_run(db, n, run, anew)
                size = 0
            run.append((row, entry))
            size += len(entry.body)
        self._copy_run(db, n, run, anew)

    def _copy_run(self, db: Connection, n: int, run: list[tuple[Any, Entry]], anew: Log) -> None:
        if not run:
            return
        line = seal(Line(v=VERSION, append=tuple(logged(entry) for _, entry in run)))
        moved = [
            (where, resealed(row, row[5], where), row[0])
            for (row, _), where in zip(run, places(n, anew.add(line), line, len(run)), strict=True)
        ]
        db.executemany("UPDATE entry SET body = ?, crc = ? WHERE n = ?", moved)
        run.clear()
        if anew.pending() > 8 * BYTES:
            anew.write()

    def settle(self, db: Connection) -> None:
        """Write and sync every log that was touched, then note how far it goes."""
        folders: set[str] = set()
        try:
            for _, log in self._touched.values():
                log.sync()
                log.move()
                if log.created or log.moved:
                    folders.add(os.path.dirname(log.path))
            if self._durable:
                for folder in folders:
                    sync_dir(folder)
        except OSError as error:
            where = error.filename or self.root  # a write knows only the number of its file
            raise unavailable(error, f"nothing was stored in {where}") from error
        if not self._durable:
            self.unsynced.update(log.path for _, log in self._touched.values())
        grown: list[tuple[int, int]] = []
        new: list[tuple[int, str, int, int]] = []
        for n, log in self._touched.values():
            if log.start and not log.moved:
                grown.append((log.end, n))
            else:
                new.append((n, os.path.relpath(log.path, self.root), log.end, log.first))
        db.executemany("UPDATE log SET size = ? WHERE head = ?", grown)
        db.executemany("INSERT OR REPLACE INTO log (head, name, size, first) VALUES (?, ?, ?, ?)", new)

    def undo(self) -> None:
        """Cut back, so that a retry does not find half of what failed.

        Raises:
            Uncertain: a log could not be cut back, so what failed may yet be found there.
        """
        failed: OSError | None = None
        for ref, (_, log) in self._touched.items():
            self._logs.pop(ref, None)
            try:
                log.undo()
            except OSError as error:
                failed = error
        self._touched.clear()
        if failed is not None:
            why = unavailable(failed, "a write failed, and what it left in the log could not be cut off").message
            raise Uncertain(f"{why}; then repeat it with the same key", errno=failed.errno)

    def done(self) -> None:
        """Keep the logs open for the next commit."""
        for ref, (_, log) in self._touched.items():
            self._logs[ref] = log
            self._logs.move_to_end(ref)
            try:
                log.done()
            except OSError:
                # The commit is made all the same. What is left of a file that was replaced is removed by a `compact`,
                # or by the next one who opens the store: it is not closed as one that needs no look.
                self.leftovers = True
                self._logs.pop(ref).close()
        self._touched.clear()
        while len(self._logs) > OPEN:
            self._logs.popitem(last=False)[1].close()

    def distrust(self) -> None:
        """Another process may have replaced logs: open them again."""
        while self._logs:
            self._logs.popitem()[1].close()
        self._paths.clear()

    def unpack(self, packed: bytes) -> bytes:
        """The body of the entry that stands at a place.

        Raises:
            Corrupt: the line there is damaged.
        """
        place = unpacked(packed)
        reading = self._here.reading
        line = reading.remembered(place)
        if line is None:
            line = self._line(reading, place)
            reading.remember(place, line)
        try:
            return body_in(line, place)
        except Corrupt as error:
            raise Corrupt(f"{error.message} (at byte {place.offset})", offset=place.offset) from None

    def _line(self, reading: Reading, place: Place) -> Line:
        """The line at a place: in the log, or in one that just took its place or is about to."""
        path = self._path(place.n)
        why = "the index does not say in which log"
        if path is not None:
            try:
                why = ""
                for file in (path, path, path + ".old", path + ".new"):
                    try:
                        return place.line(reading.bytes_at(file, place))
                    except Corrupt as error:
                        why = why or error.message
                        reading.forget(file)
            except OSError as error:
                raise unavailable(error, f"{path} can't be read") from error
        name = os.path.basename(path or "?")
        raise Corrupt(f"the line at byte {place.offset} of {name} is damaged: {why}", offset=place.offset)

    def damaged(self, packed: bytes) -> bytes:
        """The bytes of the line at a place, whatever became of them."""
        try:
            place = unpacked(packed)
        except Corrupt:
            return packed
        path = self._path(place.n)
        try:
            return self._here.reading.bytes_at(path, place) if path is not None else b""
        except OSError as error:
            raise unavailable(error, f"{path} can't be read") from error

    def _path(self, n: int) -> str | None:
        """The file of the log of a head's row."""
        path = self._paths.get(n)
        if path is None and (name := self._name_of(n)) is not None:
            path = os.path.join(self.root, name)
            self._remember_path(n, path)
        return path

    def _remember_path(self, n: int, path: str) -> None:
        if len(self._paths) >= PATHS:
            self._paths.clear()
        self._paths[n] = path

    def refresh(self) -> None:
        """Open logs again for reading, in every thread: they may have been replaced."""
        self._here = _Here()
        self._paths.clear()

    def close(self) -> None:
        """Close every file."""
        self.distrust()
        self.refresh()


def _entry_of(row: Any, place: Place, data: bytes) -> Entry:
    """The entry of a row, to be written anew; `data` is the line at its place.

    What a damaged row says does not go into the log. The line knows the entry by its number; whether it was hidden
    since, the checksum tells, which was made while the row was sound.

    Raises:
        Corrupt: the line is damaged, or does not hold the entry.
    """
    _, n, seq, id, at, void, crc, packed = row
    if is_sound(row):
        return Entry(id or "", at, place.entry_body(data), seq, bool(void))
    for found in place.line(data).append:
        if found.seq == seq:
            entry = found.to_entry()
            seals = {entry_crc(n, seq, entry.id, entry.at, hidden, packed): bool(hidden) for hidden in (0, 1)}
            return Entry(entry.id, entry.at, entry.body, seq, seals.get(crc, bool(void)))
    raise Corrupt("the line does not hold the entry")
