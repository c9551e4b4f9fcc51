"""Import of the documents beside the sessions of a source that is read as a whole.

What was taken, and at which revision it stood then, is noted in a document of its own, `<program>-imports/<name>.json`.
So what a person changed or deleted here stays, and what the source changed since, and nobody changed here, follows it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Any

from holdfast.documents.documents import Documents
from holdfast.formats.transcript import mapping
from holdfast.formats.whole import ToldDocument
from holdfast.heads.info import clean
from holdfast.importing.reports import FileReport, Unreadable, told_in
from holdfast.store import Store

NOTED = 200
"""Documents after which it is noted what was taken: what a killed import did not note is compared again."""


def take_documents(
    store: Store, path: str, program: str, told: Iterator[ToldDocument], user: str | None
) -> Iterator[FileReport]:
    """Import every document of a source; a report of each.

    Raises:
        Unavailable, Uncertain, ReadOnly: the store can't take them now; call again to go on.
    """
    owner = store if user is None or store.user == user else store.for_user(user)
    taking = _Taking(owner.documents, path, program)
    for count, one in enumerate(told, 1):
        yield taking.take(one)
        if count % NOTED == 0:
            taking.note()
    taking.note()


class _Taking:
    """The documents of one source on their way into the store."""

    def __init__(self, documents: Documents, path: str, program: str) -> None:
        self._documents = documents
        self._program = program
        real = os.path.realpath(path)
        self._id = f"{program}-imports/{hashlib.sha256(os.fsencode(real)).hexdigest()[:12]}.json"
        found = documents.get(self._id)
        self._before = mapping(None if found is None else found.content)
        self._noted: dict[str, Any] = dict(mapping(self._before.get("documents")))
        self._path = clean(real)

    def note(self) -> None:
        """Store what was taken, if that says more than before."""
        noted = {"path": self._path, "documents": self._noted}
        if self._noted and noted != self._before:
            self._documents.put(self._id, noted)
            self._before = {**noted, "documents": dict(self._noted)}

    def take(self, told: ToldDocument) -> FileReport:
        """Store one document, if it is new or nobody changed it here."""
        report = FileReport(path=told.path, program=self._program, document=told.id, size=len(told.source))
        if told.id is None:
            report.error = told.reason
            return report
        if told.reason:
            report.unreadable_lines, report.unreadable = 1, [Unreadable(1, told.reason)]
            report.notes = [f"{self._program} could not read it, and it is kept: {told.reason}"]
        with told_in(report):
            self._take(told.id, told.source, report)
        return report

    def _take(self, id: str, source: bytes, report: FileReport) -> None:
        digest, noted = hashlib.sha256(source).hexdigest(), self._noted.get(id)
        info = self._documents.info(id)
        if info is None and noted is not None:
            report.skipped = "its document was deleted here"
            return
        if info is not None:
            if noted is not None and noted[0] == digest:
                report.known = 1
                return
            if noted is None or noted[1] != info.rev:
                here = self._documents.get(id)
                if here is None or here.source != source:
                    report.skipped = "its document was changed here"
                    return
                self._noted[id] = [digest, here.rev]
                report.known = 1
                return
        made = self._documents.write(id, source, rev=0 if info is None else info.rev)
        self._noted[id] = [digest, made.rev]
        report.events, report.bytes = 1, len(source)
