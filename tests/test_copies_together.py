"""Several copies into one store at the same time, and copies that find what a killed one had begun: each ends right."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import holdfast
from holdfast import Conflict, Store, user
from holdfast.copies import BATCH, replay
from holdfast.documents.doccopies import copy_document
from holdfast.documents.docheads import all_documents
from holdfast.history.ancestry import stored, whole
from holdfast.moving.copying import copy_store
from holdfast.plan import Entry, Head
from test_copying import digests, fill


class Ended(Exception):
    """A copy that came first was ended amid it."""


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Store]:
    with holdfast.open(f"sqlite://{tmp_path}/source.db") as opened:
        fill(opened)
        yield opened


def entries_of(source: Store, head: Head, upto: int) -> Iterator[Entry]:
    """The entries of a copy that is ended there."""
    for entry in stored(source, head):
        yield entry
        if entry.seq == upto:
            raise Ended


@pytest.mark.parametrize("backend", ["memory", "file"])
@pytest.mark.parametrize("ended", [1, BATCH, BATCH + 500, 2501, 10_000])
@pytest.mark.parametrize("begun", [0, 1, BATCH + 1])
def test_another_copy_of_a_session_comes_first(
    source: Store, tmp_path: Path, backend: str, begun: int, ended: int
) -> None:
    """One begins when the other is at `begun`, and is ended at `ended`, if that is not behind its end."""
    places = {"memory": "memory://", "file": f"file://{tmp_path}/target", "sqlite": f"sqlite://{tmp_path}/target.db"}
    with holdfast.open(places[backend]) as target:
        head = whole(source, source.head("long"))

        def entries() -> Iterator[Entry]:
            for entry in stored(source, head):
                if entry.seq == max(begun, 1) and begun:
                    other()
                yield entry

        def other() -> None:
            with contextlib.suppress(Ended):
                replay(target, head, entries_of(source, head, ended))

        if not begun:
            other()
        copied = replay(target, head, entries())
        assert copied.events == 2501
        assert copy_store(source, target).failed == ()
        assert digests(target) == digests(source)
        assert target.check().ok


def test_what_somebody_wrote_during_a_copy_is_a_conflict(source: Store) -> None:
    with holdfast.open("memory://") as target:
        head = whole(source, source.head("long"))

        def entries(write: bool) -> Iterator[Entry]:
            for entry in stored(source, head):
                if write and entry.seq == BATCH + 1:
                    target.session("long").append(user("mine"))
                yield entry

        with pytest.raises(Conflict, match="went its own way: it was changed there during the copy"):
            replay(target, head, entries(write=True))
        with pytest.raises(Conflict, match="went its own way"):
            replay(target, head, entries(write=False))
        assert list(target.session("long").messages())[-1].text == "mine"


@pytest.mark.parametrize("backend", ["memory", "file", "sqlite"])
def test_copies_at_the_same_time_all_succeed(source: Store, tmp_path: Path, backend: str) -> None:
    places = {"memory": "memory://", "file": f"file://{tmp_path}/target", "sqlite": f"sqlite://{tmp_path}/target.db"}
    with holdfast.open(places[backend]) as target:
        failed: list[object] = []

        def copy() -> None:
            failed.extend(copy_store(source, target).failed)

        threads = [threading.Thread(target=copy) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert digests(target) == digests(source)
        assert target.check().ok


def test_copies_of_a_document_at_the_same_time_all_succeed(source: Store) -> None:
    for n in range(20):
        source.documents.put(f"many/{n}.md", f"# {n}")
    refs = [ref for ref, _ in all_documents(source)]
    with holdfast.open("memory://") as target:
        failed: list[BaseException] = []

        def copy() -> None:
            try:
                for ref in refs:
                    copy_document(source, target, ref)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=copy) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert len(target.documents.list(limit=100).items) == len(refs)
