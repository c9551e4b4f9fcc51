"""A copy that follows its source forgets what the source forgets, and nothing that was changed since it was copied."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import holdfast
from holdfast import Conflict, Store, user
from holdfast.copies import Copied
from holdfast.moving.copying import CopyReport, copy_store
from holdfast.moving.following import follow_store
from shell import Shell
from test_copying import digests
from test_follow import eventually


@pytest.fixture
def target(store: Store, tmp_path: Path) -> Iterator[Store]:
    """An empty store, on another backend than `store` is."""
    places = {"memory": f"file://{tmp_path}/target", "file": f"sqlite://{tmp_path}/target.db", "sqlite": "memory://"}
    with holdfast.open(places[store.url.partition(":")[0]]) as opened:
        yield opened


@contextmanager
def followed(store: Store, target: Store) -> Generator[list[Copied]]:
    """What a copy that follows tells, once it is in step, to its end."""
    told: list[Copied] = []
    stop, in_step = threading.Event(), threading.Event()

    def behind(how: object) -> None:
        in_step.set()

    following = threading.Thread(
        target=lambda: follow_store(store, target, stop=stop, told=told.append, behind=behind), daemon=True
    )
    following.start()
    try:
        assert in_step.wait(20)
        yield told
    finally:
        stop.set()
        following.join(20)
        assert not following.is_alive()


def last_pass(store: Store, target: Store) -> CopyReport:
    """All that a copy that follows does when it is told to end before it begins."""
    stop, told = threading.Event(), list[Copied]()
    stop.set()
    follow_store(store, target, stop=stop, told=told.append)
    report = CopyReport()
    for one in {one.session or one.document: one for one in told}.values():
        report = report.plus(one)
    return report


def fill(store: Store) -> None:
    for id in ("stays", "goes", "empty"):
        store.session(id, name=f"the one that {id}", user="ada")
    store.session("goes").append(user("one"), user("two"))
    store.documents.put("notes/goes.md", "# X")
    store.documents.put("notes/stays.md", "# Y")


def delete(store: Store) -> None:
    store.delete("goes")
    store.delete("empty")
    store.documents.delete("notes/goes.md")


def agree(store: Store, target: Store) -> bool:
    documents = [[info.id for info in one.documents.list(limit=100)] for one in (store, target)]
    trash = [[t.session.id for t in one.trash.list()] for one in (store, target)]
    return digests(store) == digests(target) and documents[0] == documents[1] and trash[0] == trash[1]


def test_what_is_deleted_while_it_is_followed_is_deleted_in_the_copy(store: Store, target: Store) -> None:
    fill(store)
    with followed(store, target) as told:
        eventually(lambda: len(digests(target)) == 3)
        delete(store)
        eventually(lambda: agree(store, target))
        gone = {"goes", "empty", "notes/goes.md"}
        eventually(lambda: {one.session or one.document for one in told if one.deleted} == gone)
    assert set(digests(target)) == {"stays"}
    with pytest.raises(holdfast.Deleted):
        target.session("goes")
    assert target.session("new", name="the one that goes", user="ada").id == "new"  # its name is free
    assert target.check().ok


def test_what_was_deleted_while_nobody_followed_is_found_by_the_next_who_does(store: Store, target: Store) -> None:
    fill(store)
    copy_store(store, target)
    delete(store)
    assert copy_store(store, target).deleted == 0  # which one copy alone leaves there
    assert len(digests(target)) == 3
    report = last_pass(store, target)
    assert (report.failed, report.deleted, agree(store, target)) == ((), 3, True)
    assert last_pass(store, target).deleted == 0


def test_what_begins_anew_after_it_was_deleted_is_followed(store: Store, target: Store) -> None:
    fill(store)
    with followed(store, target) as told:
        eventually(lambda: agree(store, target))
        for _ in range(3):
            delete(store)
            for id in ("goes", "empty"):
                store.create(id).append(user("anew"))
            store.documents.put("notes/goes.md", "# Anew")
            eventually(lambda: agree(store, target))
        assert [one.error for one in told if one.error] == []
    assert [event.seq for event in target.session("goes").events()] == [5]
    assert target.check().ok


@pytest.mark.parametrize(("between", "came"), [("not copied", 1), ("deletion copied", 1), ("deletion copied", 0)])
def test_a_new_life_is_numbered_as_in_the_source_whatever_of_the_old_one_came_over(
    store: Store, target: Store, between: str, came: int
) -> None:
    session = store.create("s")
    if came:
        session.append(user("one"))
    copy_store(store, target)
    session.append(*[user(f"never copied {n}") for n in range(1501 - came)])
    session.delete()
    if between == "deletion copied":
        assert last_pass(store, target).deleted == 1
    store.create("s").append(user("anew"))
    report = copy_store(store, target)
    assert report.failed == ()
    assert digests(target) == digests(store)
    assert [(event.seq, event.payload.text) for event in target.session("s").events()] == [(1502, "anew")]  # type: ignore[union-attr]
    store.session("s").append(user("more"))
    assert copy_store(store, target).new == 1
    assert digests(target) == digests(store)
    assert target.check().ok


def test_a_new_life_that_was_interrupted_goes_on(store: Store, target: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    session = store.create("s")
    session.append(*[user(str(n)) for n in range(10)])
    copy_store(store, target)
    session.append(*[user("never copied") for _ in range(2500)])
    session.delete()
    store.create("s").append(user("anew"))
    sound, left = target.batcher.commit, [0]

    def commit(*args: object, **kwargs: object) -> object:
        if left[0] == 0:
            raise holdfast.Unavailable("the power is away")
        left[0] -= 1
        return sound(*args, **kwargs)  # type: ignore[arg-type]

    for steps in range(8):
        left[0] = 1 if steps < 7 else 1000
        with monkeypatch.context() as patched:
            patched.setattr(target.batcher, "commit", commit)
            try:
                report = copy_store(store, target)
            except holdfast.Unavailable:
                assert left[0] == 0
            else:
                assert report.failed == ()
    assert digests(target) == digests(store)


def test_what_was_changed_since_it_was_copied_is_not_deleted(store: Store, target: Store) -> None:
    fill(store)
    copy_store(store, target)
    target.session("goes").append(user("said here"))
    target.documents.put("notes/goes.md", "# Changed here")
    target.session("only here")
    delete(store)
    report = last_pass(store, target)
    assert {one.session or one.document for one in report.failed} == {"goes", "notes/goes.md"}
    assert all(isinstance(one.error, Conflict) for one in report.failed)
    assert set(digests(target)) == {"stays", "goes", "only here"}
    assert target.documents.get("notes/goes.md") is not None


def test_what_a_fork_in_the_copy_reads_is_not_deleted(store: Store, target: Store) -> None:
    fill(store)
    copy_store(store, target)
    target.session("goes").fork(id="fork")
    delete(store)
    report = last_pass(store, target)
    assert [(one.session, type(one.error)) for one in report.failed] == [("goes", Conflict)]
    assert {"goes", "fork"} <= set(digests(target))


def test_the_trash_is_followed_into_it_and_out_of_it(store: Store, target: Store) -> None:
    fill(store)
    with followed(store, target) as told:
        eventually(lambda: agree(store, target))
        for change in (store.trash.put, store.trash.restore, store.trash.put):
            change("goes")
            eventually(lambda: agree(store, target))
        there = target.trash.get("goes")
        assert there is not None
        assert len(list(there.events())) == 5
        store.trash.restore("goes").append(user("back"))
        eventually(lambda: agree(store, target))
        store.trash.put("goes")
        eventually(lambda: agree(store, target))
        store.trash.purge("goes")
        eventually(lambda: agree(store, target))
        assert [one.error for one in told if one.error] == []
    with pytest.raises(holdfast.Deleted) as caught:
        target.session("goes")
    assert type(caught.value) is holdfast.Deleted


def test_what_the_owner_of_the_copy_put_into_the_trash_stays_there(store: Store, target: Store) -> None:
    fill(store)
    copy_store(store, target)
    target.trash.put("goes")
    store.session("goes").append(user("more"))
    report = last_pass(store, target)
    assert [(one.session, type(one.error)) for one in report.failed] == [("goes", holdfast.Trashed)]
    assert target.trash.get("goes") is not None


def test_the_command_says_what_it_deleted(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    with holdfast.open(shell.url) as store:
        fill(store)
    for how, said in (("--json", True), ("", False)):
        following = shell.start("copy", shell.url, f"file:to{how}", "--follow", *filter(None, [how]))
        assert following.stdout is not None
        lines: list[str] = []

        def came(wanted: Callable[[str], bool], lines: list[str] = lines, following=following) -> bool:
            for line in following.stdout:
                lines.append(line.decode())
                if wanted(lines[-1]):
                    return True
            return False

        assert came(lambda line: "stays.md" in line)
        with holdfast.open(shell.url) as store:
            store.session(f"late{how}").append(user("x"))
        assert came(lambda line, how=how: f"late{how}" in line)
        with holdfast.open(shell.url) as store:
            store.delete(f"late{how}")
        assert came(lambda line: "delete" in line and ("true" in line or "late" in line))
        if said:
            assert json.loads(lines[-1]) == {
                "session": f"late{how}", "document": None, "user": None, "events": 0, "new": 0, "deleted": True,
                "error": None,
            }  # fmt: skip
        else:
            assert lines[-1] == "late: deleted\n"
        following.send_signal(signal.SIGINT)
        _, talk = following.communicate(timeout=60)
        assert following.returncode == 0, talk
