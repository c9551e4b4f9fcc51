"""Rows that a flipped bit made odd: of another type, no text, out of range. They hide no other and can go."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import Store, user
from holdfast.bundle import read_bundle, write_bundle
from holdfast.errors import Corrupt, Unavailable
from holdfast.plan import Commit, Head

ODD = {
    "a run to no row": "UPDATE run SET n = NULL WHERE head = 2 AND seq = 3",
    "a run to half a row": "UPDATE run SET n = 2.5 WHERE head = 2 AND seq = 3",
    "a run to a word": "UPDATE run SET n = 'x' WHERE head = 2 AND seq = 3",
    "a run to the last row": "UPDATE run SET n = 9223372036854775807 WHERE head = 2 AND seq = 3",
    "a run to the next row": "UPDATE run SET n = n + 1 WHERE head = 2 AND seq = 3",
    "a run that begins late": "UPDATE run SET seq = 2000000000 WHERE head = 2 AND seq = 3",
    "an id that is no text": "UPDATE head SET id = CAST(x'ff' AS TEXT) WHERE n = 2",
    "a key that is no text": "UPDATE entry SET id = CAST(x'ff41' AS TEXT) WHERE n = 2",
    "a key that is a number": "UPDATE entry SET id = 7 WHERE n = 2",
    "a body that is a number": "UPDATE entry SET body = 5 WHERE n = 2",
    "another body": "UPDATE entry SET body = x'007b7d' WHERE n = 2",
    "another checksum": "UPDATE entry SET crc = crc + 1 WHERE n = 2",
    "a checksum that none is": "UPDATE entry SET crc = -1 WHERE n = 2",
    "a body that is not there": "UPDATE entry SET body = NULL WHERE n = 2",
    "a seq that is not there": "UPDATE entry SET seq = NULL WHERE n = 2",
    "a time that is a word": "UPDATE entry SET at = 'q' WHERE n = 2",
    "a mark of hidden that is nothing": "UPDATE entry SET void = NULL WHERE n = 2",
    "a mark of hidden that is empty": "UPDATE entry SET void = x'' WHERE n = 2",
    "a mark of hidden that was none": "UPDATE entry SET void = 1 WHERE n = 2",
    "a mark of hidden that is another number": "UPDATE entry SET void = 2 WHERE n = 2",
    "a mark of deleted that is nothing": "UPDATE head SET dead = NULL WHERE n = 2",
    "a mark of deleted that is empty": "UPDATE head SET dead = '' WHERE n = 2",
    "another head": "UPDATE entry SET head = 'q' WHERE n = 2",
    "tags that are a number": "UPDATE head SET tags = 5 WHERE n = 2",
    "open runs that are a number": "UPDATE head SET runs = 5 WHERE n = 2",
    "open runs that are cut": "UPDATE head SET runs = x'01' WHERE n = 2",
}
"""What a flipped bit may make of a row, as a statement that does the same."""
EACH = 20


def fill(store: Store) -> None:
    """Three sessions that take turns, so that the second's runs are many; its id is that of the head in row 2."""
    sessions = [store.session(id) for id in ("a", "b", "c")]
    for number in range(EACH):
        for session in sessions:
            session.append(user(f"word{number} of {session.id}"), key=f"k{number}")


def make(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA writable_schema = 1")
        db.execute(
            "UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '') WHERE name IN ('entry', 'head', 'run')"
        )
    with closing(sqlite3.connect(path)) as db, db:
        assert db.execute(statement).rowcount == 1


def told(call: Callable[[], Any]) -> Any:
    """What a call answers, or that it says that it can't be read."""
    try:
        return call()
    except Corrupt:
        return "corrupt"


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_row_hides_nothing_else(odd: str, tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/store.db"
    with holdfast.open(url) as store:
        fill(store)
    make(tmp_path / "store.db", ODD[odd])
    with holdfast.open(url) as store:
        for id in ("a", "c"):
            session = store.get(id)
            assert session is not None
            assert [m.text for m in session.messages()] == [f"word{n} of {id}" for n in range(EACH)]
        assert {"a", "c"} <= {info.id for info in store.sessions()}
        assert {hit.session for hit in store.search("word7")} >= {"a", "c"}
        assert not store.check().ok
        session = store.get("b", damaged="keep")
        read = [event.seq for event in session.events(damaged="keep")] if session else []
        assert read in ([], list(range(1, EACH + 1)))
        if odd.startswith("a mark of hidden"):
            assert read
            with pytest.raises(Corrupt):
                store.session("b").messages()
        if odd.startswith("an id"):  # its index was changed with it: there is none of this name
            assert store.get("b") is None
            return
        assert told(lambda: store.session("b").append(user("more")).last) in (EACH + 1, "corrupt")
        store.delete("b")
        assert store.search("word7").items
        assert not [hit for hit in store.search("word7") if hit.session == "b"]
        with pytest.raises(holdfast.Deleted):
            store.session("b")


@pytest.mark.parametrize("odd", [name for name, statement in ODD.items() if statement.startswith("UPDATE entry")])
def test_an_odd_row_is_named_where_one_run_leads_to_all_rows(odd: str, tmp_path: Path) -> None:
    with holdfast.open(f"sqlite://{tmp_path}/store.db") as store:
        session = store.create("a")
        session.append(*(user(f"word{n}") for n in range(100)))
        assert [m.text for m in session.messages(last=40)] == [f"word{n}" for n in range(60, 100)]
        make(tmp_path / "store.db", ODD[odd].replace("n = 2", "n = 70"))
        found = [] if odd in ("a seq that is not there", "another head") else [70]  # it is found where it should be
        for last in (None, 40):  # those were read before
            if found:
                with pytest.raises(Corrupt, match="event 70 "):
                    session.messages(last=last)
            else:
                assert [m.text for m in session.messages(last=last)][-31] == "word69"
            read = list(session.events(last=last, damaged="keep"))
            assert [event.seq for event in read] == list(range(1 if last is None else 61, 101))
            assert [event.seq for event in read if event.type == "damaged"] == found
        assert not store.check().ok


def test_what_was_read_before_is_read_as_it_is_now(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/store.db"
    with holdfast.open(url) as store, holdfast.open(url) as other:
        session = store.create("a")
        for n in range(700):  # more than are remembered
            session.append(user(f"word{n}"))
            assert [m.text for m in session.messages(last=3)] == [f"word{i}" for i in range(max(0, n - 2), n + 1)]
        other.session("a").remove_last()
        assert [m.text for m in session.messages(last=2)] == ["word697", "word698"]
        assert [(e.seq, e.hidden) for e in session.events(last=3, include_hidden=True)] == [
            (699, False), (700, True), (701, False)
        ]  # fmt: skip
        other.session("a").undo()
        assert [m.text for m in session.messages(last=2)] == ["word698", "word699"]
        other.delete("a")
        with pytest.raises(holdfast.Deleted):
            session.messages(last=2)


def test_words_of_a_value_that_was_damaged_since_go_with_its_event(tmp_path: Path) -> None:
    """The row's number comes again, and with it must not come the words that the index held for it."""
    url = f"sqlite://{tmp_path}/store.db"
    with holdfast.open(url) as store:
        store.session("other").append(user("first"))
        store.session("large").append(user("P " * 1024 + "needle " * 15_000))
        assert len(store.search("needle")) == 1
        for path in (tmp_path / "store.db-blobs").rglob("*"):
            if path.is_file() and path.stat().st_size:
                data = bytearray(path.read_bytes())
                data[len(data) // 2] ^= 1
                path.write_bytes(data)
        store.delete("large")
    with holdfast.open(url) as store:
        store.session("new").append(user("innocent words"))
        assert store.search("needle").items == []
        assert len(store.search("innocent")) == 1


def test_appends_of_tasks_are_told_when_no_thread_can_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's limit of processes can't be set for one thread: so starting one is refused as it would be."""
    real = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("holdfast-commit"):
            raise RuntimeError("can't start new thread")
        real(thread)

    async def main() -> None:
        async with holdfast.aopen(f"sqlite://{tmp_path}/store.db") as store:
            session = await store.session("s")
            with monkeypatch.context() as patched:
                patched.setattr(threading.Thread, "start", refuse)
                for _ in range(2):
                    with pytest.raises(Unavailable, match="no thread could be started"):
                        await asyncio.wait_for(session.append(user("a")), 30)
            assert (await asyncio.wait_for(session.append(user("b")), 30)).last == 1

    asyncio.run(main())


# --- Heads that are whole, and say what none can say: written by another hand, or brought by a bundle ---


SAYS = {
    "a time of creation that is a word": ({"created": "yesterday"}, b"{}"),
    "an edit that is a word": ({"edit": "x"}, b"{}"),
    "a body that is a list": ({}, b"[1, 2, 3, 4, 5]"),
    "a body that is no JSON": ({}, b"{{{{{{{{{{{"),
}


def say(store: Store, tags: dict[str, str], body: bytes) -> None:
    """Sessions a, odd and z, of which the middle one says this."""
    for id in ("a", "odd", "z"):
        store.session(id).append(user(f"word of {id}"))
    head = store.head("odd")
    assert isinstance(store.batcher.commit(Commit(ref=head.ref, if_rev=head.rev, tags=tags, body=body)), Head)


@pytest.mark.parametrize(("tags", "body"), SAYS.values(), ids=SAYS)
def test_a_head_that_says_what_none_can_say_is_named_and_hides_no_other(
    store: Store, tags: dict[str, str], body: bytes
) -> None:
    say(store, tags, body)
    if "edit" not in tags:
        page = store.sessions()
        assert ([info.id for info in page], list(page.damaged)) == (["z", "a"], ["odd"])
    if "created" in tags:
        page = store.sessions(until="2100-01-01T00:00:00Z")
        assert ([info.id for info in page], list(page.damaged)) == (["z", "a"], ["odd"])
    assert {finding.session for finding in store.check().findings} == {"odd"}
    assert [m.text for m in store.session("odd").messages()] == ["word of odd"]
    store.delete("odd")
    assert store.check().findings == ()


@pytest.mark.parametrize(("tags", "body"), SAYS.values(), ids=SAYS)
def test_a_bundle_with_such_a_head_brings_its_other_sessions(tags: dict[str, str], body: bytes, tmp_path: Path) -> None:
    with holdfast.open("memory://") as store, holdfast.open(f"sqlite:{tmp_path / 'x.db'}") as target:
        say(store, tags, body)
        told = {c.session: c.error for c in read_bundle(target, list(write_bundle(store, ["a", "odd", "z"])))}
        assert (told["a"], told["z"]) == (None, None)
        assert isinstance(told["odd"], Corrupt)
        assert not target.exists("odd")


def test_a_lease_that_says_what_none_can_say_is_a_run_without_one(store: Store) -> None:
    odd = {"state": "running", "turn": "t", "lease_beat": "x y", "lease_ttl": "long", "lease_process": "1 2 here"}
    say(store, odd, b"{}")
    with store.session("a").turn():
        assert {lease.session: lease.standing for lease in store.running()} == {"a": "held", "odd": "unleased"}
        (recovered,) = store.recover(older_than=0)
    assert (recovered.session, recovered.applied) == ("odd", True)
