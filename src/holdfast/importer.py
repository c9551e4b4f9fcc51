"""Import of other programs' transcripts: a file becomes events of its session, each line once, however often it runs.

Every source line is kept byte for byte in the `source` of one event. How far a file was taken is stored with the
events (see `intake`): an import that was killed goes on where it was, and a file that did not change since costs one
look. A file that grew is read from its start, to know its calls and responses again, but stored only from where it
ended. Where the bytes before that are not those that were taken, the file was rewritten: then every event is looked up
by its id, which is made of the line's own name or else its bytes, and only what is new is stored. Usage is counted
once: not again for a response that a copied history brings along (see `formats` and `lineage`). While one batch is
being written, the next is read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, BinaryIO, cast

import msgspec

from holdfast.clock import now
from holdfast.errors import Stale
from holdfast.formats.a3s_in import take_folder
from holdfast.formats.lines import LINE_LIMIT, Lines, Names, Piece, digest_of, open_source
from holdfast.formats.transcript import Draft, Line, event_id, kept, name_of, source_of, time_of
from holdfast.heads.info import check_user
from holdfast.importing.intake import Cursor, Intake, Row, StartOver
from holdfast.importing.lineage import in_order
from holdfast.importing.reports import TOLD, FileReport, Unreadable, told_in
from holdfast.importing.sources import FOLDER, SourceFile, find_sources
from holdfast.importing.titles import spread, told
from holdfast.importing.wholes import take_whole
from holdfast.model import Source
from holdfast.store import Store

BATCH_BYTES = 4 * 1024 * 1024
"""Bytes of source lines in one commit, about."""
BATCH_EVENTS = 1000
"""Events in one commit, about."""
QUIET = 3_600_000_000
"""Microseconds without a change after which half a line at the end of a file is taken for all there will be."""
RETRIES = 20
"""How often one file is begun again, because it was rewritten or another import took it meanwhile."""


class ImportReport(msgspec.Struct, frozen=True):
    """What an import took, file by file."""

    files: list[FileReport]

    @property
    def events(self) -> int:
        """Events that were stored now."""
        return sum(file.events for file in self.files)

    @property
    def failed(self) -> list[FileReport]:
        """The files that could not be taken, or not to their end."""
        return [file for file in self.files if file.error is not None]


class Progress(msgspec.Struct, frozen=True):
    """How far an import is: bytes `done` of `total`, in the file at `path`, number `index` of `files`."""

    path: str
    index: int
    files: int
    done: int
    total: int


def import_files(
    store: Store,
    files: Sequence[SourceFile] | None = None,
    *,
    user: str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> ImportReport:
    """Import transcripts; what was imported before is not stored again.

    Args:
        store: Where to.
        files: What `find_sources` found; by default, all in the usual places.
        user: Whose sessions they are to be; an empty one is `Invalid`.
        progress: Called after every commit and every file.

    Raises:
        Unavailable, Uncertain, ReadOnly: the store can't take them now; call again to go on. Whatever is wrong with a
            file is in its report instead, and stops no other.
    """
    user = check_user(user) or store.user
    found = find_sources() if files is None else files
    reports = [_passed(f) for f in found if f.program is None]
    chosen = in_order(store, [f for f in found if f.program is not None and f.whole is None])
    wholes = [f for f in found if f.whole is not None]
    titles, show = told(store, user), progress or _unseen
    total, done, count = sum(f.size for f in [*chosen, *wholes]), 0, len(chosen) + len(wholes)
    last: _FileImport | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="holdfast-import") as writer:
        try:
            for index, file in enumerate(chosen):

                def tick(offset: int, file: SourceFile = file, index: int = index, before: int = done) -> None:
                    show(Progress(file.path, index + 1, count, min(before + offset, total), total))

                last = _FileImport(file, Intake(store, file, user, titles), tick, writer, last)
                reports.append(last.report)
                last.run()
                tick(file.size)
                done += file.size
            if last is not None:
                last.finish()
        finally:
            if last is not None:
                last.close()
    for index, file in enumerate(wholes, len(chosen) + 1):
        reports += (take_folder if file.whole == FOLDER else take_whole)(store, file, user)
        done += file.size
        show(Progress(file.path, index, count, done, total))
    spread(store)
    return ImportReport(reports)


def _passed(file: SourceFile) -> FileReport:
    """The report of a file that is none to import."""
    return FileReport(path=file.path, size=file.size, error=file.error, skipped=None if file.error else "it is empty")


def _unseen(progress: Progress) -> None:
    """Shows nothing."""


class _FileImport:
    """One file on its way into its session: the reading half.

    The last of it is written while the next file is read; `before` is the file before it. Nothing of a file is written
    before all of the one before it is, so that an import which ends early leaves no gap.
    """

    def __init__(
        self,
        file: SourceFile,
        intake: Intake,
        tick: Callable[[int], None],
        writer: ThreadPoolExecutor,
        before: _FileImport | None,
    ) -> None:
        self.report = FileReport(path=file.path, program=file.program, session=file.session, size=file.size)
        self._path = file.path
        self._name = os.path.basename(intake.key)
        self._program = intake.program
        self._origin = intake.origin
        self._intake = intake
        self._tick = tick
        self._writer = writer
        self._before = before
        self._file: BinaryIO | None = None
        self._writing: Future[tuple[int, int]] | None = None
        self._tries = 0

    def run(self) -> None:
        """Read what is new. The last of it may still be written then: see `finish`."""
        if self._before is not None and self._before.report.session == self.report.session:
            self._finish_before()
        try:
            with told_in(self.report):
                self._take()
            self._finish_before()
        except BaseException:  # an interrupt, too, must not leave the file open
            self.close()
            raise

    def finish(self) -> None:
        """Wait until all is stored."""
        try:
            with told_in(self.report):
                while self._writing is not None and self._file is not None:
                    try:
                        self._settle()
                    except StartOver as again:
                        self._read(self._file, self._again(again))
        finally:
            self.close()

    def close(self) -> None:
        """Close the file, behind what is being written, which may read it."""
        if self._writing is not None:
            wait([self._writing])
        if self._file is not None:
            self._file.close()

    def _finish_before(self) -> None:
        if self._before is not None:
            self._before.finish()
            self._before = None

    def _take(self) -> None:
        self._intake.load()
        if self._intake.head is not None and self._intake.head.dead:
            self.report.skipped = "its session was deleted here"
            return
        if self._intake.head is not None and self._intake.head.trashed:
            self.report.skipped = "its session is in the trash here"
            return
        self._file = open_source(self._path)
        self._status = os.fstat(self._file.fileno())
        self.report.size = self._status.st_size
        cursor = self._intake.cursor(self._status.st_size)
        if cursor is not None and self._is_unchanged(cursor):
            self.report.known = cursor.events
        else:
            self._read(self._file, cursor)

    def _read(self, file: BinaryIO, cursor: Cursor | None) -> None:
        while True:
            file.seek(0)
            try:
                return self._drive(Lines(file, cut=cursor.bytes if cursor else 0), cursor)
            except StartOver as again:
                cursor = self._again(again)

    def _again(self, again: StartOver) -> Cursor | None:
        self._tries += 1
        if self._tries > RETRIES:
            raise Stale(f"{self._path} or its session changed {RETRIES} times during one import; try again")
        self._intake.load()
        return again.cursor

    def _is_unchanged(self, cursor: Cursor) -> bool:
        same = (cursor.size, cursor.mtime) == (self._status.st_size, self._status.st_mtime_ns)
        return same and cursor.end and (cursor.bytes == cursor.size or not self._is_quiet())

    def _is_quiet(self) -> bool:
        return now() - self._status.st_mtime_ns // 1000 > QUIET

    def _drive(self, lines: Lines, cursor: Cursor | None) -> None:
        """Read all lines, and store what is behind the cursor."""
        self._begin(lines, cursor)
        ahead, taken = cursor, 0
        for piece in lines:
            if ahead is not None and lines.offset >= ahead.bytes:
                self._verify(ahead)
                ahead = None
            id, drafts = self._drafts(piece, stored=ahead is not None)
            if drafts is None:
                self.report.left = piece.end - piece.start
                break
            lines.accept(piece)
            self._gather(id, drafts, stored=ahead is not None)
            taken = taken + piece.end - piece.start if ahead is None else 0
            if taken >= BATCH_BYTES or len(self._rows) >= BATCH_EVENTS:
                self._put(end=False)
                taken = 0
        if ahead is not None:
            self._verify(ahead)
        self._gather("", self._reader.flush(), stored=False)
        self._put(end=True)
        self.report.unknown = dict(self._reader.unknown)

    def _begin(self, lines: Lines, cursor: Cursor | None) -> None:
        report = self.report
        report.events, report.known, report.bytes, report.left = 0, cursor.events if cursor else 0, 0, 0
        report.unreadable, report.unreadable_lines = [], 0
        self._intake.begin(cursor)
        origin = self._origin
        if origin.parent is None and (told := self._intake.parent) is not None:
            origin = msgspec.structs.replace(origin, parent=told)
        self._lines = lines
        self._start = cursor.bytes if cursor else 0
        self._reader = self._program.reader(origin)
        self._at: int | None = None
        self._waiting: list[tuple[str, Draft]] = []
        self._rows: list[Row] = []
        self._names = Names()

    def _verify(self, cursor: Cursor) -> None:
        """Behind the lines that were taken: are these the same bytes?"""
        if self._lines.offset != cursor.bytes or self._lines.sha256 != cursor.sha256:
            raise StartOver(None)
        if cursor.end:
            self._reader.flush()  # what it gives was stored with the end of the file as it was
        self._reader.unknown.clear()

    def _drafts(self, piece: Piece, *, stored: bool) -> tuple[str, list[Draft] | None]:
        """The id of a line's event, and what the line becomes; None if its end is still to come."""
        waits = not piece.whole and not stored and not self._is_quiet()
        raw = piece.raw
        if raw is None:
            return ("", None) if waits else (self._line_id(piece.digest), self._oversize(piece, stored))
        value, reason = (None, "") if raw.isspace() else self._program.read(raw)
        if not isinstance(value, dict):
            if waits:
                return "", None
            return self._line_id(digest_of(raw)), self._no_record(piece, raw, value, reason, stored)
        record = cast("dict[str, Any]", value)
        name = record.get(self._program.named)
        id = self._line_id(name_of(name) if isinstance(name, str) and name else digest_of(raw))
        at = time_of(record.get("timestamp")) or time_of(record.get("created_at"))
        return id, self._reader.take(Line(record, source_of(raw, piece.number, self._name), at, id))

    def _oversize(self, piece: Piece, stored: bool) -> list[Draft]:
        reason = f"a line of {piece.end - piece.start:,} bytes, over the limit of {LINE_LIMIT:,}"
        return self._unread(piece, "oversize", self._lines.source(piece, self._name), reason, stored)

    def _no_record(self, piece: Piece, raw: bytes, value: Any, reason: str, stored: bool) -> list[Draft]:
        source = source_of(raw, piece.number, self._name)
        if reason:
            return self._unread(piece, "unreadable", source, reason, stored)
        if raw.isspace():
            return [Draft(kept(self._program.event, "blank", None, source))]
        unknown = self._reader.unknown
        unknown["untyped"] = unknown.get("untyped", 0) + 1
        return [Draft(kept(self._program.event, None, value, source))]

    def _unread(self, piece: Piece, kind: str, source: Source, reason: str, stored: bool) -> list[Draft]:
        if not stored:
            self._miss(piece.number, reason)
        return [Draft(kept(self._program.event, kind, None, source))]

    def _miss(self, line: int, reason: str) -> None:
        self.report.unreadable_lines += 1
        if len(self.report.unreadable) < TOLD:
            self.report.unreadable.append(Unreadable(line, reason))

    def _gather(self, id: str, drafts: Sequence[Draft], *, stored: bool) -> None:
        """Give drafts their ids and times. Lines before the first time wait for it."""
        for index, draft in enumerate(drafts):
            if draft.at is not None:
                self._at = draft.at
            if stored:
                continue
            own = draft.id or (f"{id}.{index}" if index else id)
            if self._at is not None and not self._waiting:
                self._rows.append(Row(own, self._at, draft))
            else:
                self._waiting.append((own, draft))
        if self._waiting and self._at is not None:
            at = self._at
            self._rows += [Row(id, at if draft.at is None else draft.at, draft) for id, draft in self._waiting]
            self._waiting.clear()

    def _line_id(self, name: bytes) -> str:
        """An id that the line has wherever it stands: made of its name, and counted where the file repeats that."""
        return event_id(name, self._names.count(name))

    def _put(self, *, end: bool) -> None:
        if self._waiting and (end or len(self._waiting) >= BATCH_EVENTS):
            self._at = self._at or self._status.st_mtime_ns // 1000
            self._gather("", (), stored=False)
        cursor = Cursor(
            bytes=self._lines.offset,
            sha256=self._lines.sha256,
            events=0,
            end=end,
            size=self._status.st_size,
            mtime=self._status.st_mtime_ns,
        )
        self._finish_before()
        self._settle()
        self._writing = self._writer.submit(self._intake.put, self._rows, self._reader.facts.copy(), cursor)
        self._rows = []
        self.report.bytes = self._lines.offset - self._start
        self._tick(self._lines.offset)

    def _settle(self) -> None:
        """Wait for what is being written, and take it into the report."""
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        taken, known = writing.result()
        self.report.events += taken
        self.report.known += known
        for source, reason in self._intake.unfit:
            self._miss(source.line, reason)
        self._intake.unfit.clear()


__all__ = ["FileReport", "ImportReport", "Progress", "SourceFile", "Unreadable", "find_sources", "import_files"]
