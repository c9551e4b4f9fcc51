"""`export` in the forms of other programs, by the name of the form: what writes it, and how much it can't say."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from holdfast.cli.writing import written
from holdfast.paths import as_path

if TYPE_CHECKING:
    from holdfast.formats import oxios_out, zeroclaw_out
    from holdfast.store import Store

Writer = Callable[["Store", Sequence[str], str, bool], "zeroclaw_out.Written | oxios_out.Written"]
Beside = Callable[["Store", Sequence[str], str, bool], list[str]]


def _zeroclaw(store: Store, ids: Sequence[str], output: str, force: bool) -> zeroclaw_out.Written:
    """A folder of JSONL files. Whether two would have one name is known before the first is written."""
    from holdfast.formats.zeroclaw_out import Written, file_names, jsonl_lines

    names, done = file_names(store, ids), Written()
    folder = as_path(output)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for id, name in names.items():
        with written(os.path.join(folder, name), force) as file:
            for line in jsonl_lines(store, id, done):
                file.write(line)
    return done


def _zeroclaw_sqlite(store: Store, ids: Sequence[str], output: str, force: bool) -> zeroclaw_out.Written:
    """A database, made elsewhere, so that nothing of SQLite's stays beside it."""
    from holdfast.formats.zeroclaw_out import write_database

    with written(output, force) as file, tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        path = os.path.join(folder, "sessions.db")
        done = write_database(store, ids, path)
        with open(path, "rb") as made:
            shutil.copyfileobj(made, file)
    return done


def _oxios(store: Store, ids: Sequence[str], output: str, force: bool) -> oxios_out.Written:
    """A folder with a file for each session. Whether two would have one name is known before the first is written."""
    from holdfast.formats.oxios_out import Written, file_names, session_bytes

    names, done = file_names(store, ids), Written()
    for id, name in names.items():
        _put(output, name, session_bytes(store, id, done), force)
    return done


def _oxios_documents(store: Store, ids: Sequence[str], output: str, force: bool) -> list[str]:
    """The documents in the same folder; the ids of those that are not written."""
    from holdfast.formats.oxios_out import documents, file_names

    missing: list[str] = []
    for name, data in documents(store, missing, set(file_names(store, ids).values())):
        _put(output, name, data, force)
    return missing


def _put(folder: str, name: str, data: bytes, force: bool) -> None:
    path = os.path.join(as_path(folder), *name.split("/"))
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with written(path, force) as file:
        file.write(data)


FOREIGN: Mapping[str, Writer] = {"zeroclaw": _zeroclaw, "zeroclaw-sqlite": _zeroclaw_sqlite, "oxios": _oxios}
"""The forms; each needs a path to write to."""
BESIDE: Mapping[str, Beside] = {"oxios": _oxios_documents}
"""What writes the documents beside all sessions, of the forms that have a place for them, and says which it can't."""
