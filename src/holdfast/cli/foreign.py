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
    from holdfast.formats.zeroclaw_out import Written
    from holdfast.store import Store

Writer = Callable[["Store", Sequence[str], str, bool], "Written"]


def _zeroclaw(store: Store, ids: Sequence[str], output: str, force: bool) -> Written:
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


def _zeroclaw_sqlite(store: Store, ids: Sequence[str], output: str, force: bool) -> Written:
    """A database, made elsewhere, so that nothing of SQLite's stays beside it."""
    from holdfast.formats.zeroclaw_out import write_database

    with written(output, force) as file, tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        path = os.path.join(folder, "sessions.db")
        done = write_database(store, ids, path)
        with open(path, "rb") as made:
            shutil.copyfileobj(made, file)
    return done


def _a3s(store: Store, ids: Sequence[str], output: str, force: bool) -> Written:
    """A folder of a3s-code's. Whether two sessions would share a file is known before the first is written."""
    from holdfast.formats.a3s_out import file_names, files_of
    from holdfast.formats.zeroclaw_out import Written

    names, done = file_names(store, ids), Written()
    folder = as_path(output)
    for id, name in names.items():
        for path, data in files_of(store, id, name, done):
            place = os.path.join(folder, path)
            os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
            with written(place, force) as file:
                file.write(data)
    return done


FOREIGN: Mapping[str, Writer] = {"a3s": _a3s, "zeroclaw": _zeroclaw, "zeroclaw-sqlite": _zeroclaw_sqlite}
"""The forms; each needs a path to write to."""
