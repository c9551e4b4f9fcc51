"""Sweeps delete what nothing refers to, nothing else, and nothing that somebody is about to refer to."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

import holdfast
from faults import BACKENDS, start, url_of
from holdfast import Corrupt, Large, Store, assistant, step, tool_call, user
from holdfast.artifacts.sweeping import sweep
from holdfast.codec import encode_json
from holdfast.plan import Commit, Ref

BIG = os.urandom(2_500_000)  # of three chunks


def damage(backend: str, place: Path) -> None:
    """Damage the first event of a closed store."""
    if backend == "sqlite":
        with contextlib.closing(sqlite3.connect(place / "store.db", isolation_level=None)) as db:
            db.execute("UPDATE entry SET body = zeroblob(20) WHERE seq = 1")
        return
    for log in (place / "store").rglob("*"):
        if log.is_file() and b"first words" in log.read_bytes():
            log.write_bytes(log.read_bytes().replace(b"first words", b"worst words"))


def digests(store: Store) -> set[str]:
    return set(store.backend.blobs.scan(limit=10_000))


def test_what_nothing_refers_to_goes(store: Store) -> None:
    store.session("s").artifacts.put("big", BIG)
    store.session("s").append(step("build", output="x" * 100_000))
    kept = digests(store)
    store.session("t").artifacts.put("only", b"only here")
    only = hashlib.sha256(b"only here").hexdigest()
    assert (sweep(store).digests, digests(store)) == ((), kept | {only})
    store.delete("t")
    would = sweep(store, dry_run=True)
    assert (would.digests, would.deleted, would.bytes, would.dry_run) == ((only,), 1, 9, True)
    assert only in digests(store)
    assert store.check().swept is None
    swept = store.check(sweep=True).swept
    assert swept is not None
    assert (swept.digests, swept.bytes, swept.unread) == ((only,), 9, ())
    assert digests(store) == kept
    store.delete("s")
    assert sweep(store).deleted == len(kept)
    assert digests(store) == set()
    assert store.check().ok


def test_a_sweep_is_of_a_whole_store(store: Store) -> None:
    store.session("s")
    with pytest.raises(holdfast.Invalid, match="whole store"):
        store.check(session="s", sweep=True)


def test_what_is_hidden_or_deleted_as_an_artifact_stays(store: Store) -> None:
    session = store.session("s")
    session.artifacts.put("a", "one")
    session.append(user("y" * 100_000))
    session.artifacts.delete("a")
    session.clear()
    assert sweep(store).deleted == 0
    session.undo()
    session.rewind(to=2)
    assert session.artifacts.get("a") == b"one"


def test_heads_of_any_kind_refer(store: Store) -> None:
    ref = store.large.put(BIG, "text")
    loose = store.large.put(b"loose", "text")
    store.backend.commit([Commit(ref=Ref("doc", "notes/x"), if_rev=0, body=encode_json({"large": {"content": ref}}))])
    assert sweep(store).digests == (loose.sha256,)


def test_a_word_that_looks_like_a_list_of_chunks_is_none(store: Store) -> None:
    store.session("s").append(step("pull", {"manifest": "0" * 64, "sha256": "1" * 64}))
    loose = store.large.put(b"loose", "text")
    assert sweep(store).digests == (loose.sha256,)


def test_what_cannot_be_read_keeps_everything(tmp_path: Path) -> None:
    with holdfast.open(f"file://{tmp_path}/store") as store:
        made = store.session("s").artifacts.put("big", BIG)
        ref = made.content.ref  # type: ignore[union-attr]
        assert ref is not None
        store.large.put(b"loose", "text")
        listing = tmp_path / "store" / "blobs" / str(ref.manifest)[:2] / str(ref.manifest)[2:]
        listing.unlink()
        swept = sweep(store)
        assert (swept.deleted, swept.blobs) == (0, 4)  # three chunks and one that is loose
        assert len(swept.unread) == 1
        assert "session 's'" in swept.unread[0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_damaged_session_keeps_everything(backend: str, tmp_path: Path) -> None:
    url = url_of(backend, tmp_path)
    with holdfast.open(url) as store:
        store.session("s").append(user("first words"), user("second words"))
        store.large.put(b"loose", "text")
    damage(backend, tmp_path)
    with holdfast.open(url) as store:
        swept = sweep(store)
        assert swept.deleted == 0
        assert swept.unread


def test_what_is_put_waits_for_its_commit(store: Store) -> None:
    """A sweep that begins between the put and the commit of a writer waits for it."""
    store.large.put(b"loose", "text")
    session = store.session("s")
    swept: list[Any] = []
    sweeper = threading.Thread(target=lambda: swept.append(sweep(store)))

    class Slow(io.BytesIO):
        begun = False

        def read(self, size: int | None = -1) -> bytes:
            if not self.begun:
                self.begun = True
            else:
                if sweeper.ident is None:
                    sweeper.start()
                sweeper.join(0.2)  # it can't get on: what it would have deleted is here
                assert sweeper.is_alive()
            return super().read(size)

    session.append(step("build", output=Large.from_stream(Slow(BIG), form="bytes")))
    sweeper.join(30)
    assert [s.digests for s in swept] == [(hashlib.sha256(b"loose").hexdigest(),)]
    output = next(session.events(types="step")).payload.output  # type: ignore[union-attr]
    assert output.value() == BIG


def test_a_writer_that_fails_lets_sweeps_in(store: Store) -> None:
    session = store.session("s")
    store.delete("s")
    with pytest.raises(holdfast.Deleted):
        session.append(step("build", output="x" * 100_000))
    assert sweep(store).deleted == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_writers_and_sweepers_of_several_processes(backend: str, tmp_path: Path) -> None:
    url = url_of(backend, tmp_path)
    with holdfast.open(url) as store:
        store.session("kept")
        writers = [start("keeper", url, "write", n) for n in range(2)]
        sweeper = start("keeper", url, "sweep", 0)
        try:
            told = [writer.communicate(timeout=120)[0] for writer in writers]
        finally:
            for process in (*writers, sweeper):
                process.kill()
                process.communicate()
        assert told == [b"done\n"] * len(writers)
        sweep(store)
        report = store.check()
        assert report.ok, report.findings
        assert report.sessions > 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_killed_writer_or_sweeper_locks_nobody_out(backend: str, tmp_path: Path) -> None:
    url = url_of(backend, tmp_path)
    with holdfast.open(url) as store:
        store.session("kept").artifacts.put("a", BIG)
        for mode in ("hold-shared", "hold-exclusive"):
            process = start("keeper", url, mode, 0)
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            process.kill()
            process.communicate()
            store.session("kept").artifacts.put(mode, mode)
            assert sweep(store).unread == ()
        writer = start("keeper", url, "write", 0)
        sweep(store)
        writer.kill()
        writer.communicate()
        sweep(store)
        assert store.session("kept").artifacts.get("a") == BIG
        assert store.check().ok


def test_what_killed_writers_left_beside_a_blob_goes(tmp_path: Path) -> None:
    with holdfast.open(f"file://{tmp_path}/store") as store:
        made = store.session("s").artifacts.put("a", "one")
        folder = tmp_path / "store" / "blobs" / made.sha256[:2]
        (folder / f"{made.sha256[2:]}.77.1.tmp").write_bytes(b"\0hal")
        assert sweep(store).deleted == 0
        assert [path.name for path in folder.iterdir()] == [made.sha256[2:]]


def test_recovered_answers_keep_their_large_values(store: Store) -> None:
    session = store.session("s")
    session.set_state("running", turn="A")
    session.append(assistant(tool_call("c", "build")))
    session.append(step("build", output="z" * 100_000, call_id="c"))
    (done,) = store.recover(older_than=0)
    assert done.applied
    assert sweep(store).deleted == 0
    assert store.check().ok


def test_missing_bytes_are_told(store: Store) -> None:
    made = store.session("s").artifacts.put("a", "one")
    store.backend.blobs.delete(made.sha256)
    with pytest.raises(Corrupt, match="missing"):
        store.session("s").artifacts.get("a")


def test_threads_that_write_and_sweep_at_once(store: Store) -> None:
    failed: list[BaseException] = []
    done = threading.Event()

    def guarded(work: Any, *arguments: int) -> None:
        try:
            work(*arguments)
        except BaseException as error:  # told by the assertion below
            failed.append(error)

    def sweeps() -> None:
        while not done.is_set():
            sweep(store)

    def writes(number: int) -> None:
        for n in range(20):
            session = store.session(f"w{number}-{n // 5}")
            session.artifacts.put(f"a{n}", bytes([n % 3]) * 1000)
            session.append(step("build", output=str(n % 3) * 70_000))
            assert session.artifacts.get(f"a{n}") == bytes([n % 3]) * 1000
            if n % 10 == 9:
                store.delete(session.id)

    sweeper = threading.Thread(target=guarded, args=(sweeps,))
    writers = [threading.Thread(target=guarded, args=(writes, n)) for n in range(3)]
    for thread in (sweeper, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    sweeper.join()
    assert failed == []
    assert store.check(sweep=True).ok
    assert store.check().ok


def test_a_child_that_was_born_while_a_writer_held_the_blobs_keeps_no_sweep_out(tmp_path: Path) -> None:
    with holdfast.open(f"sqlite://{tmp_path}/store.db") as store:
        store.session("s").append(user("x" * 100_000))
        ending, end = os.pipe()
        with store.large.hold:
            store.large.put(b"nobody refers to this", "bytes")
            child = os.fork()
            if child == 0:
                os.read(ending, 1)  # as long as it lives, it has all files open that were open here
                os._exit(0)
        assert sweep(store).deleted == 1
        os.write(end, b".")
        os.waitpid(child, 0)
