"""A full disk: a clear error, nothing acknowledged is lost, all can be read, and it goes on when there is room."""

from __future__ import annotations

import contextlib
import os
import random
import re
import resource
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import holdfast
from faults import BACKENDS, url_of
from faults.small_disk import DISKS
from faults.work import Judge, perform, text_of
from holdfast import Store
from holdfast.errors import Unavailable
from shell import Shell

BEFORE, FAILURES, MOST = 40, 15, 3_000
"""Steps before the disk is filled; failures after which it counts as full; steps until then at the most."""


SAYS = re.compile("disk is full.*make room|file may not grow|check the disk, its free space")
"""What an error must tell: what is wrong and what to do."""


def until_full(store: Store, judge: Judge) -> list[int]:
    """Work until it fails again and again; the steps that failed."""
    failed: list[int] = []
    for n in range(BEFORE, MOST):
        try:
            judge.acks[n] = perform(store, judge.seed, judge.step(n))
        except Unavailable as error:
            assert_tells(error, store.url.partition("://")[2])
            failed.append(n)
            if len(failed) == FAILURES:
                judge.tried = n + 1
                return failed
    raise AssertionError("the disk never got full")


def assert_tells(error: Unavailable, where: str = "") -> None:
    assert where in error.message, error.message
    assert SAYS.search(error.message), error.message


def steps_in(store: Store) -> set[int]:
    """The steps of which a session holds something."""
    found: set[int] = set()
    for info in store.sessions(limit=10_000):
        found |= {int(text_of(event).split()[1]) for event in store.session(info.id).events(include_hidden=True)}
    return found


@pytest.mark.parametrize("disk", DISKS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_full_disk_loses_nothing_acknowledged(backend: str, disk: str, tmp_path: Path) -> None:
    judge = Judge(0)
    with DISKS[disk](tmp_path) as small:
        url = url_of(backend, small.place)
        with holdfast.open(url) as store:
            for n in range(BEFORE):
                judge.acks[n] = perform(store, judge.seed, judge.step(n))
            small.fill()
            failed = until_full(store, judge)
            with pytest.raises(Unavailable, match=SAYS):
                store.session("first").append(holdfast.user("small"), *map(holdfast.user, pieces() * 5))
            # Full as it is, everything can be read, and nothing of what failed is there.
            assert judge.wrong(store) == []
            assert steps_in(store).isdisjoint(failed)
            small.free()
            for n in failed:
                if judge.step(n).kind == "append":
                    judge.acks[n] = perform(store, judge.seed, judge.step(n))
            after = store.create("after")
            assert after.append(holdfast.user(large_text())).last == 1
            assert [text_of(event) for event in after.events()] == [large_text()]
            after.delete()
            assert judge.wrong(store) == []
        with holdfast.open(url) as store:
            assert judge.wrong(store) == []


@pytest.mark.parametrize("disk", DISKS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_search_on_a_full_disk_finds_or_says_why_not(backend: str, disk: str, tmp_path: Path) -> None:
    with DISKS[disk](tmp_path) as small, holdfast.open(url_of(backend, small.place)) as store:
        session = store.session("first")
        session.append(holdfast.user("early words"))
        assert len(store.search("early")) == 1
        small.fill()
        judge = Judge(0)
        until_full(store, judge)
        try:
            assert len(store.search("early", session="first")) == 1
        except Unavailable as error:
            assert_tells(error)
        small.free()
        assert len(store.search("early", session="first")) == 1
        assert len(store.search("step", limit=1000)) == events_of_steps(store)


@contextlib.contextmanager
def nearly_full(place: Path) -> Iterator[Path]:
    """A folder with less space than a store needs to open: on a real small disk where one may be mounted."""
    if "tmpfs" in DISKS:
        with DISKS["tmpfs"](place) as small:
            small.fill()
            yield small.place
    else:  # no user but root can make a disk full for this test alone, so the system's answer is made up
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=50, f_frsize=4096))
            yield place


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_store_is_not_opened_on_a_disk_that_is_nearly_full(backend: str, tmp_path: Path) -> None:
    """SQLite maps memory that lies on the disk: without room there the process would die of SIGBUS."""
    with nearly_full(tmp_path) as place:
        with pytest.raises(Unavailable, match=r"less than 4 MiB are free.*make room"):
            holdfast.open(url_of(backend, place))
        assert not list(place.rglob("*.db*"))


@pytest.mark.parametrize("size", [0, 1, 4096, 20_000, 40_000, 60_000])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_store_whose_making_fails_says_why_and_is_made_by_the_next_open(
    backend: str, size: int, tmp_path: Path
) -> None:
    with DISKS["limited"](tmp_path):
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
        with pytest.raises(Unavailable) as failed:
            holdfast.open(url_of(backend, tmp_path))
    assert_tells(failed.value)
    with holdfast.open(url_of(backend, tmp_path)) as store:
        store.session("s").append(holdfast.user("x"))
        assert store.check().ok


@pytest.mark.parametrize("disk", DISKS)
def test_a_backup_and_an_export_name_the_file_that_has_no_room(disk: str, tmp_path: Path) -> None:
    """And not the store, whose disk has."""
    url, shell = url_of("sqlite", tmp_path), Shell(tmp_path)
    with holdfast.open(url) as store:
        store.session("s").append(*map(holdfast.user, pieces()))
    with DISKS[disk](tmp_path / "small") as small:
        small.place.mkdir(exist_ok=True)
        (small.place / "some").write_bytes(b"x")
        small.fill()
        for command in (["backup"], ["export", "--all", "-o"]):
            file = small.place / f"{command[0]}.jsonl"
            told = shell(*command, str(file), "--store", url)
            assert told.code == (6 if command[0] == "backup" else 1)
            assert str(file) in told.err
            if disk == "tmpfs":  # of an I/O error, SQLite does not tell in which of two files
                assert tmp_path.name + "/store" not in told.err
        assert [path.name for path in small.place.iterdir() if path.suffix == ".jsonl"] == []
        small.free()
        shell.ok("backup", str(small.place / "backup.jsonl"), "--store", url)


def events_of_steps(store: Store) -> int:
    """How many events of steps are to be seen."""
    logs = (store.session(info.id).events() for info in store.sessions(limit=1000))
    return sum(text_of(event).startswith("step") for log in logs for event in log)


def large_text() -> str:
    """What goes to the blob store and can't be made small: more than any disk here has left."""
    return random.Random(0).randbytes(500_000).hex()


def pieces() -> list[str]:
    """That in parts that stay with their events; five times that is more than a WAL takes that was begun anew."""
    whole = large_text()
    return [whole[n : n + 50_000] for n in range(0, len(whole), 50_000)]
