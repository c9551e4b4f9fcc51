"""Artifacts of a session: what is put comes back, whatever else happens to the session."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from pathlib import Path

import pytest

import holdfast
from holdfast import Artifact, Corrupt, Event, Invalid, Large, LeaseLost, NotFound, Store, TooLarge, note, user
from holdfast.backend import CHUNK

BIG = os.urandom(2_500_000)  # of three chunks


def names(session: holdfast.Session) -> list[str]:
    return [artifact.name for artifact in session.artifacts.list()]


def test_what_was_put_comes_back(store: Store) -> None:
    artifacts = store.session("s").artifacts
    made = artifacts.put(
        "report.pdf", b"%PDF", media_type="application/pdf", tool="write", uri="a3s://tool-output/write/ab",
        shown=2, metadata={"pages": 1},
    )  # fmt: skip
    assert (made.name, made.size, made.sha256) == ("report.pdf", 4, hashlib.sha256(b"%PDF").hexdigest())
    assert (made.media_type, made.tool, made.uri, made.shown) == (
        "application/pdf", "write", "a3s://tool-output/write/ab", 2,
    )  # fmt: skip
    assert made.metadata == {"pages": 1}
    assert [a.sha256 for a in artifacts.list()] == [a.sha256 for a in artifacts.list(tool="write")] == [made.sha256]
    assert artifacts.list(tool="read") == []
    assert artifacts.get("report.pdf") == artifacts.get("a3s://tool-output/write/ab") == b"%PDF"
    assert artifacts.put("a b/ü.txt", "x").uri == "a3s://artifact/a%20b%2F%C3%BC.txt/2d711642b726b044"
    assert artifacts.get("nothing") is None
    assert artifacts.stat("nothing") is None
    with pytest.raises(NotFound, match="no artifact 'nothing'"):
        artifacts.read("nothing")


@pytest.mark.parametrize("data", [b"", b"\0", BIG], ids=["empty", "one byte", "three chunks"])
def test_bytes_of_any_length_go_through_streams(store: Store, data: bytes) -> None:
    artifacts = store.session("s").artifacts
    made = artifacts.put("x", io.BytesIO(data))
    assert made.size == len(data)
    pieces = list(artifacts.read("x"))
    assert b"".join(pieces) == data
    assert all(len(piece) <= CHUNK for piece in pieces)
    assert isinstance(made.content, Large)
    with made.content.open() as stream:
        assert stream.read() == data
    assert store.check().ok


def test_a_name_stands_for_what_was_put_last(store: Store) -> None:
    session = store.session("s")
    session.artifacts.put("a", "one")
    session.artifacts.put("b", "two")
    assert session.artifacts.put("b", "two").size == 3  # again: nothing is stored
    assert session.info().last == 2
    session.artifacts.put("a", "three")
    assert names(session) == ["b", "a"]
    assert session.artifacts.get("a") == b"three"
    assert session.artifacts.delete("a")
    assert not session.artifacts.delete("a")
    assert (names(session), session.artifacts.get("a")) == (["b"], None)
    session.artifacts.put("a", "three")
    assert names(session) == ["b", "a"]
    assert store.check().ok


def test_equal_bytes_are_stored_once(store: Store) -> None:
    for id in ("s", "t"):
        store.session(id).artifacts.put("big", BIG)
    assert len(store.backend.blobs.scan()) == 4  # three chunks and their list


def test_a_fork_sees_the_artifacts_of_then(store: Store) -> None:
    session = store.session("s")
    session.artifacts.put("a", "one")
    session.append(user("Hi"))
    fork = session.fork()
    session.artifacts.put("b", "two")
    session.artifacts.delete("a")
    early = session.fork(at=2)
    assert (names(session), names(fork), names(early)) == (["b"], ["a"], ["a"])
    fork.artifacts.put("c", "three")
    assert fork.fork().artifacts.get("a") == b"one"
    assert (names(session), names(fork)) == (["b"], ["a", "c"])


def test_what_is_taken_back_is_taken_back_with_its_artifacts(store: Store) -> None:
    session = store.session("s")
    session.artifacts.put("a", "one")
    fork = session.fork()
    session.artifacts.put("a", "two")
    session.rewind(to=1)
    assert session.artifacts.get("a") == b"one"
    session.undo()
    assert session.artifacts.get("a") == b"two"
    session.clear()
    fork.clear()
    assert names(session) == names(fork) == []
    fork.undo()
    assert names(fork) == ["a"]
    session.artifacts.put("b", "three")
    assert names(session) == ["b"]


def test_limits_refuse_and_take_nothing_away(store: Store) -> None:
    session = store.session("s", config={"max_artifacts": 2, "max_artifact_bytes": 10})
    session.artifacts.put("a", "12345")
    session.artifacts.put("b", "12345")
    with pytest.raises(TooLarge, match="3 artifacts, the limit is 2") as refused:
        session.artifacts.put("c", "")
    assert refused.value.limit == 2
    with pytest.raises(TooLarge, match="11 bytes, the limit is 10"):
        session.artifacts.put("b", "123456")
    with pytest.raises(TooLarge, match="limit is 10"):
        session.artifacts.put("b", io.BytesIO(BIG))
    assert (names(session), session.artifacts.get("b")) == (["a", "b"], b"12345")
    session.artifacts.put("b", "1234")
    session.artifacts.put("c", "1", max_artifacts=3)
    session.artifacts.delete("a")
    session.update(config={"max_artifacts": None})
    for limit in (-1, "2", 2.5):
        with pytest.raises(Invalid, match="whole number"):
            session.artifacts.put("d", "", max_artifacts=limit)  # type: ignore[arg-type]
    for name in ("", "a\0b", "\ud800", "x" * 1025):
        with pytest.raises(Invalid):
            session.artifacts.put(name, "")


def test_limits_hold_for_writers_at_once(store: Store) -> None:
    session = store.session("s")
    failed: list[str] = []

    def put(name: str) -> None:
        try:
            session.artifacts.put(name, name, max_artifacts=3)
        except TooLarge:
            failed.append(name)

    threads = [threading.Thread(target=put, args=(f"n{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names(session)) == 3
    assert sorted([*failed, *names(session)]) == [f"n{n}" for n in range(8)]


def test_listing_reads_no_more_than_the_artifacts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    session = store.session("s")
    session.artifacts.put("a", "one")
    session.append(*map(user, map(str, range(2000))))
    session.artifacts.put("b", "two")
    asked: list[int] = []
    read = store.backend.read

    def counting(*args: object, **kwargs: object) -> object:
        found = read(*args, **kwargs)  # type: ignore[arg-type]
        asked.append(len(found))
        return found

    monkeypatch.setattr(store.backend, "read", counting)
    fresh = store.get("s")
    assert fresh is not None
    assert names(fresh) == ["a", "b"]
    assert asked == [2]


def test_artifacts_appended_as_events_are_found(store: Store) -> None:
    session = store.session("s")
    made = session.artifacts.put("a", "one")
    event = next(session.events(types="artifact"))
    session.append(note("n"), holdfast.Artifact(name="b", sha256="0" * 64, size=1))
    other = store.session("t")
    other.artifacts.put("z", "zero")
    assert other.append(event).first == 2
    assert names(other) == ["z", "a"]
    assert other.artifacts.get("a") == b"one"
    keyed = store.session("u")
    keyed.append(Event(payload=made), key="k")
    assert keyed.append(Event(payload=made), key="k").repeated
    keyed.append(Event(payload=Artifact(name="c"), id="mine"))
    keyed.artifacts.put("d", "four")
    assert names(keyed) == ["a", "c", "d"]
    with pytest.raises(Corrupt, match="never stored here"):
        keyed.artifacts.get("c")


def test_a_damaged_blob_is_told(tmp_path: Path) -> None:
    with holdfast.open(f"file://{tmp_path}/store") as store:
        made = store.session("s").artifacts.put("a", "one")
        place = tmp_path / "store" / "blobs" / made.sha256[:2] / made.sha256[2:]
        place.write_bytes(b"\0two")
        with pytest.raises(Corrupt):
            store.session("s").artifacts.get("a")
        assert not store.check().ok


@pytest.mark.parametrize(
    ("url", "folder"), [("file://{}/store", "store/blobs"), ("sqlite://{}/store.db", "store.db-blobs")]
)
def test_bytes_lie_compressed_on_the_disk(tmp_path: Path, url: str, folder: str) -> None:
    short = b"apple " * 10_000
    log = b"".join(b"%d: compiled module %d of 90000\n" % (n, n) for n in range(90_000))
    assert len(log) > 2 * CHUNK
    blobs = tmp_path / folder

    def taken() -> int:
        return sum(path.stat().st_size for path in blobs.rglob("*") if path.is_file())

    with holdfast.open(url.format(tmp_path)) as store:
        artifacts = store.session("s").artifacts
        made = artifacts.put("short", short)
        assert (blobs / made.sha256[:2] / made.sha256[2:]).stat().st_size < len(short) / 100
        artifacts.put("log", log)
        assert taken() < len(log) / 4
        before = taken()
        artifacts.put("random", BIG)  # can't be made smaller, and is not made larger
        assert len(BIG) <= taken() - before < len(BIG) + 1000
    with holdfast.open(url.format(tmp_path)) as store:
        artifacts = store.session("s").artifacts
        assert [artifacts.get(name) for name in ("short", "log", "random")] == [short, log, BIG]
        assert b"".join(artifacts.read("log")) == log


def test_a_turn_that_was_overtaken_puts_nothing(store: Store) -> None:
    session = store.session("s")
    with session.turn() as turn:
        turn.artifacts.put("a", "one")
    with pytest.raises(LeaseLost):
        turn.artifacts.put("b", "two")
    with pytest.raises(LeaseLost):
        turn.artifacts.delete("a")
    assert names(session) == ["a"]


def test_copies_take_artifacts_along(store: Store, tmp_path: Path) -> None:
    from holdfast.bundle import read_bundle, write_bundle
    from holdfast.copies import copy_session

    store.session("s").artifacts.put("big", BIG)
    with holdfast.open(f"file://{tmp_path}/copy") as copy, holdfast.open("memory://") as other:
        copy_session(store, copy, "s")
        assert copy.session("s").artifacts.get("big") == BIG
        assert all(c.error is None for c in read_bundle(other, write_bundle(store, ["s"])))
        assert other.session("s").artifacts.get("big") == BIG


def test_what_others_do_is_seen(store: Store) -> None:
    """Also by an object that looked before: what it remembers is worth what the head says of it."""
    mine, theirs = store.session("s"), store.get("s")
    assert theirs is not None
    mine.artifacts.put("a", "one")
    assert names(theirs) == ["a"]
    mine.artifacts.put("b", "two")
    mine.artifacts.put("a", "three")
    assert (names(theirs), theirs.artifacts.get("a")) == (["b", "a"], b"three")
    theirs.artifacts.delete("b")
    mine.rewind(to=2)
    assert (names(theirs), names(mine)) == (["a", "b"], ["a", "b"])
    mine.undo()
    assert names(theirs) == ["a"]
    fork = mine.fork()
    assert names(fork) == ["a"]
    store.delete(fork.id)
    store.delete("s")
    anew = store.create("s")
    for name in ("x", "y", "z", "v", "w"):
        anew.artifacts.put(name, name)
    assert names(theirs) == ["x", "y", "z", "v", "w"]


def test_a_put_reads_what_came_since(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    session = store.session("s")
    for n in range(5):
        session.artifacts.put(f"n{n}", str(n))
    asked: list[int] = []
    read = store.backend.read

    def counting(*args: object, **kwargs: object) -> object:
        found = read(*args, **kwargs)  # type: ignore[arg-type]
        asked.append(len(found))
        return found

    monkeypatch.setattr(store.backend, "read", counting)
    session.artifacts.put("n5", "5")
    session.artifacts.put("n6", "6")
    assert asked == [1, 1]
