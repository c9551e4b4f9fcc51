"""Several copies into one store at the same time, and copies that find what a killed one had begun: each ends right."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

import holdfast
from holdfast import Conflict, CopyReport, Corrupt, Deleted, Session, Store, Trashed, copies, user
from holdfast.copies import BATCH, replay
from holdfast.documents.doccopies import copy_document
from holdfast.documents.docheads import all_documents
from holdfast.history.ancestry import stored, whole
from holdfast.moving.copying import Copier, copy_store
from holdfast.moving.digests import session_digest
from holdfast.plan import Commit, Entry, Head, Ref, Refused
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


def four_times_at_once(action: Callable[[], None]) -> None:
    """Do it in four threads; what it raises in one of them comes out."""
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(action) for _ in range(4)]:
            done.result()


@pytest.mark.parametrize("backend", ["memory", "file", "sqlite"])
def test_copies_at_the_same_time_all_succeed(source: Store, tmp_path: Path, backend: str) -> None:
    places = {"memory": "memory://", "file": f"file://{tmp_path}/target", "sqlite": f"sqlite://{tmp_path}/target.db"}
    with holdfast.open(places[backend]) as target:
        failed: list[object] = []
        four_times_at_once(lambda: failed.extend(copy_store(source, target).failed))
        assert failed == []
        assert digests(target) == digests(source)
        assert target.check().ok


def test_copies_of_a_document_at_the_same_time_all_succeed(source: Store) -> None:
    for n in range(20):
        source.documents.put(f"many/{n}.md", f"# {n}")
    refs = [ref for ref, _ in all_documents(source)]
    with holdfast.open("memory://") as target:

        def copy() -> None:
            for ref in refs:
                copy_document(source, target, ref)

        four_times_at_once(copy)
        assert len(target.documents.list(limit=100).items) == len(refs)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A source. Its session `long` is copied by five commits: the first, three of its events, the last."""
    monkeypatch.setattr(copies, "BATCH", 10)
    with holdfast.open("memory://") as opened:
        opened.session("long", title="T").append(*[user(f"{n}") for n in range(25)])
        opened.session("long").fork(at=7, id="fork").append(user("on its own"))
        opened.session("other").append(user("x"))
        for id in "xy":
            opened.documents.put(f"notes/{id}.md", "# First")
        yield opened


def append(source: Store) -> None:
    source.session("long").append(user("more"))


def rename(source: Store) -> None:
    source.session("long").update(title="another", labels=["new"])


def hide(source: Store) -> None:
    source.session("long").remove_last()


def begin_anew(source: Store) -> None:
    source.delete("fork")
    source.delete("long")
    source.create("long", title="anew").append(user("of the new life"))


def empty_anew(source: Store) -> None:
    source.delete("fork")
    source.delete("long")
    source.create("long", title="anew")


@contextlib.contextmanager
def amid_commit(store: Store, number: int, action: Callable[[], object]) -> Iterator[None]:
    """Before the commit with this number, counted from 1, something else happens."""
    sound, count = store.batcher.commit, 0

    def commit(one: Commit, **how: Any) -> Head | Refused:
        nonlocal count
        count += 1
        if count == number:
            action()
        return sound(one, **how)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store.batcher, "commit", commit)
        yield


@pytest.mark.parametrize("change", [append, rename, hide, begin_anew, empty_anew])
@pytest.mark.parametrize("number", [2, 3, 4, 5])
def test_a_copy_that_began_earlier_takes_back_nothing_that_a_later_one_brought(
    few: Store, change: Callable[[Store], None], number: int
) -> None:
    with holdfast.open("memory://") as target:
        later: list[CopyReport] = []

        def changed() -> None:
            change(few)
            later.append(copy_store(few, target))

        with amid_commit(target, number, changed):
            earlier = copy_store(few, target, sessions=["long"])
        assert [*later[0].failed, *earlier.failed] == []
        assert digests(target) == digests(few)
        assert target.check().ok


@pytest.mark.parametrize("number", [1, 2])
def test_a_document_that_a_later_copy_brought_stays(few: Store, number: int) -> None:
    with holdfast.open("memory://") as target:

        def changed() -> None:
            for id in "xy":
                few.documents.put(f"notes/{id}.md", "# Later")
            assert copy_store(few, target).failed == ()

        copier = Copier(few, target)
        with amid_commit(target, number, changed):
            copied = [copier.document(ref) for ref, _ in all_documents(few)]
        assert [one.error for one in copied] == [None, None]
        assert [document.text for id in "xy" if (document := target.documents.get(f"notes/{id}.md"))] == ["# Later"] * 2


@pytest.mark.parametrize("way", ["deleted", "trashed"])
def test_what_is_gone_meanwhile_is_no_failure(few: Store, way: str) -> None:
    with holdfast.open("memory://") as target:
        assert copy_store(few, target).failed == ()
        few.session("long").append(user("more"))

        def go() -> None:
            if way == "trashed":
                few.trash.put("other")
                return
            few.delete("other")
            few.documents.delete("notes/x.md")

        with amid_commit(target, 1, go):
            report = copy_store(few, target)
        assert report.failed == ()
        assert [one.error for one in Copier(few, target).named(["other"])] != [None]


@pytest.mark.parametrize("number", [3, 4, 5])
@pytest.mark.parametrize(
    "write",
    [
        lambda session: session.update(title="mine"),
        lambda session: session.update(metadata={"mine": 1}),
        lambda session: session.append(user("mine")),
        lambda session: session.remove_last(),
        lambda session: session.turn().__enter__(),
        lambda session: session.delete(),
    ],
)
def test_what_somebody_did_amid_a_copy_stays(few: Store, number: int, write: Callable[[Session], object]) -> None:
    with holdfast.open("memory://") as target:
        done: list[Head | None] = []

        def meanwhile() -> None:
            write(target.session("long"))
            done.append(target.peek("long"))

        with amid_commit(target, number, meanwhile):
            report = copy_store(few, target, sessions=["long"])
        assert len(report.failed) == 1
        assert isinstance(report.failed[0].error, Conflict | Deleted)
        assert target.peek("long") == done[0]


@pytest.mark.parametrize("lost", [0, 5])
def test_a_target_that_lost_what_it_had_is_given_it_again(
    few: Store, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    """As a server may that is killed and keeps not all that it acknowledged, while a copy follows."""
    with holdfast.open("memory://") as target, holdfast.open("memory://") as earlier:
        few.create("grown").append(*[user(f"{n}") for n in range(lost or 5)])
        if lost:
            assert copy_store(few, earlier).failed == ()
        few.session("grown").append(*[user(f"more {n}") for n in range(5)])
        copier = Copier(few, target, remember=10)
        assert copier.session("grown").error is None
        few.session("grown").append(user("new"))
        monkeypatch.setattr(copier, "_target", earlier)
        copied = copier.session("grown")
        assert copied.error is None
        assert session_digest(earlier, earlier.head("grown")) == session_digest(few, few.head("grown"))


@pytest.mark.parametrize("number", [2, 3, 4, 5])
def test_another_restore_brings_a_session_into_the_trash_first(few: Store, number: int, tmp_path: Path) -> None:
    few.delete("fork")
    few.trash.put("long")
    few.backup(str(tmp_path / "b.zst"))
    with holdfast.open("memory://") as target:

        def other() -> None:
            assert target.restore(str(tmp_path / "b.zst"), merge=True).failed == ()

        with amid_commit(target, number, other):
            assert target.restore(str(tmp_path / "b.zst"), merge=True).failed == ()
        assert session_digest(target, target.head("long", trashed=True)) == session_digest(
            few, few.head("long", trashed=True)
        )
        assert target.check().ok


def test_what_somebody_trashed_in_the_target_is_asked_for_a_few_times_only(few: Store) -> None:
    """Nobody brings it back while the copy insists, and there may be very many of them on a server far away."""
    with holdfast.open("memory://") as target:
        assert copy_store(few, target).failed == ()
        target.trash.put("other")
        asked = 0

        def get(refs: Sequence[Ref]) -> list[Head | None]:
            nonlocal asked
            asked += 1
            return sound(refs)

        sound = target.backend.get
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(target.backend, "get", get)
            report = copy_store(few, target, sessions=["other"])
        assert [type(one.error) for one in report.failed] == [Trashed]
        assert asked <= 5


def test_a_damaged_session_that_is_written_to_is_not_read_again_and_again(few: Store) -> None:
    """However long it is; and a copy that follows comes to it at each change."""
    with holdfast.open("memory://") as target, pytest.MonkeyPatch.context() as patched:
        copier, looks = Copier(few, target), 0

        def read(*arguments: Any, **how: Any) -> list[Entry]:
            nonlocal looks
            looks += 1
            append(few)
            return [msgspec.structs.replace(entry, fault="a bit flipped") for entry in sound(*arguments, **how)]

        sound = few.backend.read
        patched.setattr(few.backend, "read", read)
        assert isinstance(copier.session("long").error, Corrupt)
        assert looks <= 2
