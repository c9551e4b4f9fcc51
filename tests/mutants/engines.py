"""Faults in the engines themselves: the wiring around `plan`, which the reference in memory does not have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from holdfast.backends import files, matching, rowbackend, sqlitefile
from holdfast.backends.engine import Connection
from holdfast.backends.filelogs import LogBodies
from holdfast.backends.fts import WordIndex
from holdfast.backends.sqlitefile import SQLiteFile

Break = Callable[[pytest.MonkeyPatch], None]


def takes_no_lock(patch: pytest.MonkeyPatch) -> None:
    """Neither that of the lock file nor, before it reads, SQLite's."""

    def begin(self: SQLiteFile, patience: float | None = None) -> Connection:  # as the real one
        db = self.writer()
        db.execute("BEGIN")
        return db

    patch.setattr(SQLiteFile, "begin", begin)
    patch.setattr(sqlitefile, "unlock", lambda fd: None)


def never_catches_up(patch: pytest.MonkeyPatch) -> None:
    """A search looks at the index as it is, and never behind its mark."""
    real = WordIndex.catch_up

    def catch_up(self: WordIndex, pause: Any = None, patience: float | None = None) -> int:
        return 0 if patience == rowbackend.PATIENCE else real(self, pause, patience)

    patch.setattr(WordIndex, "catch_up", catch_up)
    patch.setattr(matching, "_fresh", lambda *_: ([], True))


def indexes_no_words(patch: pytest.MonkeyPatch) -> None:
    """The mark of the index moves on, and the words stay behind."""
    patch.setattr(WordIndex, "words", lambda self, body: "")


class _Any(str):
    """Equal to every stamp."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str)

    def __hash__(self) -> int:
        return 0


def believes_any_index(patch: pytest.MonkeyPatch) -> None:
    """Whatever stamp stands in it."""
    patch.setattr(files, "_stamp", lambda file: _Any())


def glues_torn_lines(patch: pytest.MonkeyPatch) -> None:
    """The next line goes behind what a crash left, whatever that is."""
    patch.setattr(LogBodies, "meet", lambda self, db, ref: False)


def forgets_only_rows(patch: pytest.MonkeyPatch) -> None:
    """What is deleted keeps its bytes in the file."""
    patch.setattr(SQLiteFile, "compact", lambda self: None)


def keeps_forgotten_words(patch: pytest.MonkeyPatch) -> None:
    """The index keeps what it was told to forget."""
    patch.setattr(WordIndex, "compact", lambda self: None)


ENGINES: list[tuple[Break, str, str]] = [
    (takes_no_lock, "sqlite", "test_two_openings_lose_nothing"),
    (takes_no_lock, "files", "test_two_openings_lose_nothing"),
    (never_catches_up, "sqlite", "test_a_hit_carries_the_entry_as_it_is_read"),
    (indexes_no_words, "sqlite", "test_a_hit_carries_the_entry_as_it_is_read"),
    (believes_any_index, "files", "test_an_index_that_is_old_is_not_believed"),
    (forgets_only_rows, "apsw", "test_nothing_is_left_of_what_was_deleted_once_it_is_compact"),
    (keeps_forgotten_words, "sqlite", "test_nothing_is_left_of_what_was_deleted_once_it_is_compact"),
    (keeps_forgotten_words, "files", "test_nothing_is_left_of_what_was_deleted_once_it_is_compact"),
    (glues_torn_lines, "files", "test_a_torn_write_is_in_nobodys_way"),
]
"""What is broken, in which of the engines, and the first example that notices."""
