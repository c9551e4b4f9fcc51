"""Copies and backups between all kinds of stores, those on servers too: while others write, and killed amid it.

What a copy does and says is told in `test_copying`, `test_copying_deletions` and `test_backups`.
"""

from __future__ import annotations

import contextlib
import io
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest

import holdfast
from holdfast import Large, Store, note, user
from holdfast.moving.copying import copy_store
from servers import postgres, redis
from shell import Shell
from test_copying import WRITER, digests
from test_follow import eventually

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("redis-cluster")]

KINDS = ("memory", "file", "sqlite", "postgres", "redis", "cluster")
PERSISTENT = KINDS[1:]


def url_of(kind: str, place: Path, name: str) -> str:
    """The URL of a store of a kind that nobody else uses."""
    blobs = f"file://{place}/{name}-blobs"
    match kind:
        case "memory":
            return "memory://"
        case "file":
            return f"file://{place}/{name}"
        case "sqlite":
            return f"sqlite://{place}/{name}.db"
        case "postgres":
            return postgres.url()
        case "redis":
            return redis.url(blobs=blobs)
        case _:
            return redis.shared_cluster().url(durability="process", blobs=blobs, shards="4")


def fill(store: Store) -> None:
    """A session of every kind, a document, and one in the trash."""
    first = store.session("first", user="ada", name="the first", labels=["x"], metadata={"n": 1.5})
    first.append(*[user(f"message {n}") for n in range(40)], key="all")
    first.append(holdfast.assistant("é \ud800\0"), note({"x": [1, None, 2**70]}))
    first.remove_last()
    first.fork(at=20, id="a/fork").append(note("on its own"))
    store.session("empty", title="T")
    store.session("large").append(note(Large.from_stream(io.BytesIO(b"large\n" * 50_000))))
    store.session("turned").append(user("x"))
    with store.session("turned").turn() as turn:
        turn.append(user("in a turn"))
    store.session("away").append(user("away"))
    store.trash.put("away")
    store.session("gone").delete()
    store.documents.put("notes/x.md", "# X")


def documents(store: Store) -> dict[str, str]:
    found = {info.id: store.documents.get(info.id) for info in store.documents.list(limit=100)}
    return {id: document.text for id, document in found.items() if document is not None}


@pytest.mark.parametrize("source", KINDS)
def test_a_store_of_any_kind_is_copied_to_any_other(source: str, tmp_path: Path) -> None:
    with holdfast.open(url_of(source, tmp_path, "source")) as store:
        fill(store)
        for kind in KINDS:
            with holdfast.open(url_of(kind, tmp_path, f"to-{kind}")) as target:
                report = copy_store(store, target)
                assert (report.sessions, report.documents, report.failed) == (5, 1, ()), kind
                assert digests(target) == digests(store), kind
                assert documents(target) == documents(store) == {"notes/x.md": "# X"}
                assert target.check().ok, kind
                assert [hit.session for hit in target.search("own").items] == ["a/fork"]
                again = copy_store(store, target)
                assert (again.new, again.failed) == (0, ()), kind


@pytest.mark.parametrize("source", KINDS)
def test_a_backup_of_any_kind_restores_on_any_other(source: str, tmp_path: Path, long: bool) -> None:
    """On one other kind each, in a normal run."""
    with holdfast.open(url_of(source, tmp_path, "source")) as store:
        fill(store)
        done = store.backup(str(tmp_path / "b.jsonl.zst"))
        assert (done.sessions, done.documents, done.damaged) == (6, 1, {})
        for kind in KINDS if long else [KINDS[KINDS.index(source) - 1]]:
            with holdfast.open(url_of(kind, tmp_path, f"to-{kind}")) as target:
                report = target.restore(done.path)
                assert (report.sessions, report.documents, report.failed) == (6, 1, ()), kind
                assert digests(target) == digests(store), kind
                assert documents(target) == documents(store)
                assert target.head("away", trashed=True).trashed
                assert target.check().ok, kind


def pairs(*, long: bool) -> list[tuple[str, str]]:
    """From where to where; the last ones take their time, and are for a long run."""
    every = [("sqlite", "postgres"), ("postgres", "redis"), ("redis", "file"), ("cluster", "file"), ("file", "cluster")]
    return every if long else every[:2]


def copied(store: Store) -> int:
    """How much a copy has brought so far."""
    return sum(info.last for info in store.sessions(limit=200))


@contextlib.contextmanager
def written_to(url: str) -> Generator[subprocess.Popen[bytes]]:
    """While the block lasts, another process writes; the block begins when it has begun."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert writer.stdout is not None
    try:
        while int(writer.stdout.readline().replace(b"ready", b"0")) < 100:
            pass
        yield writer
    finally:
        writer.kill()
        writer.communicate()


def test_a_copy_that_follows_over_servers_ends_equal(tmp_path: Path, long: bool) -> None:
    for source, target in pairs(long=long):
        (tmp_path / source).mkdir()
        followed(source, target, tmp_path / source)


def followed(source: str, target: str, tmp_path: Path) -> None:
    """The writer is killed amid a copy that follows, and the last pass takes what is left, in seconds."""
    shell = Shell(tmp_path)
    here, there = url_of(source, tmp_path, "source"), url_of(target, tmp_path, "target")
    with holdfast.open(here) as store, holdfast.open(there) as copy:
        with written_to(here):
            following = shell.start("copy", here, there, "--follow")
            eventually(lambda: copied(copy) >= 100)
            now = copied(copy)
            eventually(lambda: copied(copy) >= now + 60)  # while it is written to
        following.send_signal(signal.SIGINT)
        begun = time.monotonic()
        _, talk = following.communicate(timeout=60)
        assert (following.returncode, b"the last pass copied" in talk) == (0, True), talk
        assert time.monotonic() - begun < 20
        assert digests(copy) == digests(store)
        assert documents(copy) == documents(store)
        assert copy_store(store, copy).new == 0


@pytest.mark.parametrize("kind", PERSISTENT)
def test_a_backup_of_a_store_that_is_written_to_is_whole(kind: str, tmp_path: Path, long: bool) -> None:
    """Each session is as it was at one moment of the backup, and no older than its begin."""
    url = url_of(kind, tmp_path, "source")
    with holdfast.open(url) as store:
        with written_to(url):
            for n in range(10 if long else 1):
                before = {info.id: info.last for info in store.sessions(limit=100)}
                done = store.backup(str(tmp_path / f"{n}.zst"))
                after = {info.id: info.last for info in store.sessions(limit=100)}
                assert done.one_moment == (kind == "sqlite")
                with holdfast.open("memory://") as target:
                    assert target.restore(done.path).failed == ()
                    there = {info.id: info.last for info in target.sessions(limit=100)}
                    assert set(before) <= set(there) <= set(after)
                    assert all(before.get(id, 0) <= last <= after[id] for id, last in there.items())
                    for id, last in there.items():
                        ours = [(e.seq, e.id, e.payload) for e in target.session(id).events(include_hidden=True)]
                        theirs = [(e.seq, e.id, e.payload) for e in store.session(id).events(include_hidden=True)]
                        assert ours == theirs[:last]
        assert store.check().ok
