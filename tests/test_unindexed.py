"""A search waits for no writer: what the index has not taken in, and can't now, is read and matched as it is."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

import holdfast
from faults import BACKENDS, url_of
from faults.holder import Holder
from holdfast import Store, search, user
from holdfast.backend import Backend, Hit, TextOf
from holdfast.backends import open_backend, rowbackend
from holdfast.backends.files import FilesBackend
from holdfast.backends.rowbackend import RowBackend
from holdfast.backends.sqlite import SQLiteBackend
from holdfast.errors import HoldfastError, Unavailable
from holdfast.plan import Commit, Entry, Head, Range, Ref, Refused
from holdfast.testing import BackendContract, BackendMachine, text_of
from holdfast.urls import parse_url

SOON = 10.0
"""Seconds that are far less than a wait for the lock, and far more than the work takes on a busy machine."""


def database(store: Store) -> str:
    """The file whose writers take turns."""
    path = store.backend.info()["path"]
    return f"{path}/index.db" if store.backend.info()["engine"] == "files" else path


@contextmanager
def held(path: str) -> Generator[None]:
    """The lock of all writers in other hands: it goes with its open file, so this process can stand for another."""
    fd = os.open(f"{path}-lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def hits(store: Store, query: str, **options: Any) -> list[tuple[str, int]]:
    return [(hit.session, hit.seq) for hit in store.search(query, **options)]


# --- A writer that stands still ---


@pytest.mark.parametrize("indexed", ["never", "half", "all"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_search_waits_for_no_stopped_writer(backend: str, indexed: str, tmp_path: Path) -> None:
    url = url_of(backend, tmp_path)
    with holdfast.open(url) as store, Holder(url, "theirs", "apple of theirs") as holder:
        session = store.session("mine")
        session.append(user("apple one"), user("pear"))
        if indexed != "never":
            store.index()
        session.append(user("apple two"), user("apple hidden"))
        session.remove_last()
        store.session("gone").append(user("apple gone"))
        store.delete("gone")
        if indexed == "all":
            store.index()
        holder.hold()
        began = time.monotonic()
        assert sorted(hits(store, "apple")) == [("mine", 1), ("mine", 3)]
        assert hits(store, "apple", newest=True) == [("mine", 3), ("mine", 1)]
        assert hits(store, "pear OR theirs") == [("mine", 2)]
        assert store.search("two").items[0].snippet == "apple two"
        assert time.monotonic() - began < SOON
        last = holder.finish()
        assert sorted(hits(store, "apple")) == [("mine", 1), ("mine", 3), ("theirs", last)]
        assert store.check().findings == ()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_search_waits_for_no_other_thread_that_writes(backend: str, tmp_path: Path) -> None:
    with holdfast.open(url_of(backend, tmp_path)) as store:
        store.session("s").append(user("apple"))
        amid, searched = threading.Event(), threading.Event()

        def write() -> None:
            assert isinstance(store.backend, RowBackend)
            with store.backend._file.transaction():
                amid.set()
                assert searched.wait(60)

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            assert amid.wait(60)
            began = time.monotonic()
            assert hits(store, "apple") == [("s", 1)]
            assert time.monotonic() - began < SOON
            searched.set()
            writing.result()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_search_waits_for_no_other_program_that_writes(backend: str, tmp_path: Path) -> None:
    with holdfast.open(url_of(backend, tmp_path)) as store:
        store.session("s").append(user("apple"))
        with closing(sqlite3.connect(database(store), isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")  # it knows nothing of our lock
            began = time.monotonic()
            assert hits(store, "apple") == [("s", 1)]
            assert time.monotonic() - began < SOON
            db.execute("ROLLBACK")
        store.session("s").append(user("apple too"))
        assert store.index() == 2
        assert sorted(hits(store, "apple")) == [("s", 1), ("s", 2)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_search_needs_nothing_that_it_would_have_to_write(backend: str, tmp_path: Path) -> None:
    with holdfast.open(url_of(backend, tmp_path)) as store:
        store.session("s").append(user("apple"))
        path = database(store)
    os.unlink(f"{path}-lock")
    os.mkdir(f"{path}-lock")  # nobody can write now, whatever the user's rights
    with holdfast.open(url_of(backend, tmp_path)) as store:
        assert hits(store, "apple") == [("s", 1)]
        with pytest.raises(HoldfastError):
            store.index()
    os.rmdir(f"{path}-lock")
    with holdfast.open(url_of(backend, tmp_path)) as store:
        assert store.index() == 1


def test_to_index_waits_for_the_writer_as_long_as_was_asked_for(tmp_path: Path) -> None:
    with holdfast.open(f"sqlite://{tmp_path}/store.db?timeout=1") as store:
        store.session("s").append(user("apple"))
        with held(database(store)), pytest.raises(Unavailable, match="locked for 1 s"):
            store.index()
        assert store.index() == 1


# --- Which, and in which order ---


class Held:
    """Searches while the lock is in other hands. At each third commit the index is brought up to date."""

    _commits = 0

    def commit(self, batch: Sequence[Commit]) -> list[Head | Refused]:
        results: list[Head | Refused] = super().commit(batch)  # type: ignore[misc]  # a mixin
        self._commits += 1
        if self._commits % 3 == 0:
            super().index()  # type: ignore[misc]
        return results

    def search(self, kind: str, query: search.Node, **options: Any) -> list[Hit]:
        with held(self._file.path):  # type: ignore[attr-defined]
            return super().search(kind, query, **options)  # type: ignore[misc]


class HeldFiles(Held, FilesBackend):
    pass


class HeldSQLite(Held, SQLiteBackend):
    pass


def held_at(place: Path, text_of: TextOf, backend: str) -> Backend:
    where = parse_url(url_of(backend, place, durability="process"))
    return HeldSQLite(where, text_of) if backend == "sqlite" else HeldFiles(where, text_of)


@pytest.fixture(autouse=True, scope="module")
def impatient() -> Generator[None]:
    """Thousands of searches meet a lock that they can't have: let them not wait a moment for it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rowbackend, "PATIENCE", 0.0)
        yield


class TestFilesBesideAWriter(BackendContract):
    def make(self, place: Path, text_of: TextOf) -> Backend:
        return held_at(place, text_of, "files")


class TestSQLiteBesideAWriter(BackendContract):
    def make(self, place: Path, text_of: TextOf) -> Backend:
        return held_at(place, text_of, "sqlite")


class FilesMachine(BackendMachine):
    def make(self, place: Path, text_of: TextOf) -> Backend:
        return held_at(place, text_of, "files")


class SQLiteMachine(BackendMachine):
    def make(self, place: Path, text_of: TextOf) -> Backend:
        return held_at(place, text_of, "sqlite")


TestFilesMachine = FilesMachine.TestCase
TestSQLiteMachine = SQLiteMachine.TestCase
for _machine in (TestFilesMachine, TestSQLiteMachine):  # the same histories as of the backends themselves, but fewer
    _machine.settings = settings(max_examples=settings.default.max_examples // 5)

WORDS = ("apple", "apple apple", "apple pie", "pear", "pear apple tart", "日本")
QUERIES = ("apple", "app*", "apple -pear", "pear OR pie", '"apple pie"')
entries = st.lists(st.builds(Entry, st.just(""), st.integers(0, 3), st.sampled_from(WORDS).map(str.encode)), max_size=8)


@pytest.mark.parametrize("backend", BACKENDS)
@given(
    indexed=entries,
    fresh=st.lists(st.tuples(st.sampled_from("ab"), entries), max_size=3),
    hide=st.booleans(),
    query=st.sampled_from(QUERIES),
    size=st.integers(1, 5),
)
def test_pages_beside_a_writer_are_those_of_one_list_and_the_newest_come_in_their_order(
    backend: str, indexed: list[Entry], fresh: list[tuple[str, list[Entry]]], hide: bool, query: str, size: int
) -> None:
    node = search.parse(query)
    assert node is not None
    with tempfile.TemporaryDirectory(dir=BackendMachine.workspace) as place:
        made = open_backend(url_of(backend, Path(place), durability="process"), text_of)
        model = open_backend("memory://", text_of)
        with closing(made), closing(model):
            for each in (made, model):
                each.commit([Commit(ref=Ref("session", id), if_rev=0, append=indexed) for id in "ab"])
                each.index()
                each.commit([Commit(ref=Ref("session", id), append=more) for id, more in fresh])
                if hide and indexed:
                    each.commit([Commit(ref=Ref("session", "a"), void=[Range(1, 1)])])
            assert isinstance(made, RowBackend)
            with held(made._file.path):
                for newest in (False, True):
                    expected = model.search("session", node, newest=newest, limit=1000)
                    whole = made.search("session", node, newest=newest, limit=1000)
                    assert {(h.ref, h.entry.seq) for h in whole} == {(h.ref, h.entry.seq) for h in expected}
                    assert len(whole) == len(expected)
                    scores = [h.score for h in whole]
                    if newest:
                        assert [(h.entry.at, h.entry.seq) for h in whole] == [
                            (h.entry.at, h.entry.seq) for h in expected
                        ]
                    else:
                        assert scores == sorted(scores, reverse=True)
                    paged: list[Hit] = []
                    while page := made.search("session", node, newest=newest, offset=len(paged), limit=size):
                        paged += page
                    assert paged == whole


def test_a_long_tail_is_never_held_as_a_whole(tmp_path: Path) -> None:
    made = open_backend(f"sqlite://{tmp_path}/store.db?durability=process", text_of)
    with closing(made):
        assert isinstance(made, RowBackend)
        body = b"apple " + b"x" * 1000
        made.commit([Commit(ref=Ref("session", "s"), if_rev=0)])
        node = search.parse("apple")
        assert node is not None
        for _ in range(8):  # below what starts the thread that indexes
            made.commit([Commit(ref=Ref("session", "s"), append=[Entry("", n, body) for n in range(1000)])])
        with held(made._file.path):
            tracemalloc.start()
            found = made.search("session", node, newest=True, limit=10)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert [hit.entry.at for hit in found] == [999] * 8 + [998] * 2
        assert peak < 1_000_000, peak


def test_a_close_waits_for_no_stopped_writer_that_the_index_waits_for(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/store.db"
    with holdfast.open(url) as store, Holder(url, "theirs", "apple") as holder:
        store.session("ours").append(user("pear"))
        holder.hold()
        background = store.backend._background  # type: ignore[attr-defined]  # as after a long recording
        background._thread = threading.Thread(target=background._work)
        background._thread.start()
        began = time.monotonic()
        store.close()
        assert time.monotonic() - began < SOON
        holder.finish()
