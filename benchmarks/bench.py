"""What every case works with: a folder, the messages, how much of them, and stores that were filled once."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from benchmarks import ours
from benchmarks.corpus import Corpus
from benchmarks.floor import Bare
from benchmarks.onservers import Servers
from holdfast import user

_LISTED = (
    "CREATE TABLE session (id TEXT PRIMARY KEY, title TEXT, messages INTEGER, at INTEGER); "
    "CREATE INDEX session_at ON session (at)"
)


class Bench:
    """One run of the benchmark."""

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self.folder = folder
        self.quick = quick
        self.corpus = Corpus()
        self.servers = Servers(folder)
        self._numbers = itertools.count(1)
        self._filled: dict[int, tuple[Path, Path]] = {}
        self._listed: dict[int, tuple[Path, Path]] = {}

    def scaled(self, full: int, quick: int) -> int:
        """A size: the full one, or the one of a quick run."""
        return quick if self.quick else full

    def path(self, name: str) -> Path:
        """A path that nobody has used yet."""
        folder = self.folder / f"{next(self._numbers):03}"
        folder.mkdir()
        return folder / name

    def sizes(self, sizes: Iterable[int]) -> list[int]:
        """Sizes of stores; a quick run takes a hundredth."""
        return [max(10, size // 100) if self.quick and size > 10 else size for size in sizes]

    def filled(self, count: int) -> tuple[Path, Path]:
        """A store of ours and a bare table, both with one session `s` of so many messages."""
        if count not in self._filled:
            mine, bare = self.path("holdfast.db"), self.path("bare.db")
            table = Bare(bare, durable=False)
            with ours.store(mine, "process") as store:
                session = store.session("s")
                for said in self.corpus.batches(count):
                    ours.extend(session, said)
                    table.extend("s", said)
            table.close()
            self._filled[count] = (mine, bare)
        return self._filled[count]

    def listed(self, count: int) -> tuple[Path, Path]:
        """A store of ours with so many sessions of one message, and a bare table that says the same of them."""
        if count not in self._listed:
            mine, bare = self.path("holdfast.db"), self.path("bare.db")
            rows: list[tuple[str, str, int, int]] = []
            with ours.store(mine, "process") as store:
                for n in range(count):
                    title = f"{n} {self.corpus.one().text[:40]}"
                    session = store.create(f"session-{n}", title=title)
                    session.append(user("Where is it?"))
                    rows.append((session.id, title, 1, n))
            with contextlib.closing(sqlite3.connect(bare)) as table, table:
                table.execute("PRAGMA journal_mode = WAL")
                table.executescript(_LISTED)
                table.executemany("INSERT INTO session VALUES (?, ?, ?, ?)", rows)
            self._listed[count] = (mine, bare)
        return self._listed[count]
