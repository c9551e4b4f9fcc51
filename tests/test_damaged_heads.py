"""A session whose head is damaged: it is told, hides no other, is read as far as its log tells, and can be deleted."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec
import pytest

import holdfast
from faults import BACKENDS, url_of
from holdfast import Damaged, Store, note, user
from holdfast.clock import now
from holdfast.errors import Corrupt, Deleted, Invalid
from holdfast.plan import MAX_BASE, Commit, Entry, Head, Ref, Refused

HURT = Ref("session", "hurt")
FLIPS = {
    "rev": "rev = rev + 64",
    "last": "last = 1",
    "last is huge": "last = last + (1 << 62)",
    "base": "base = 4",
    "trim": "trim = 3",
    "at": "at = at + (1 << 40)",
    "at is text": "at = 'then'",
    "tags": "tags = x'7b7d'",
    "counts": "counts = NULL",
    "body": "body = x'00'",
    "runs": "runs = x'01'",
    "runs is a number": "runs = 5",
    "crc": "crc = crc + 1",
}
"""What a flipped bit may make of each column, by its name."""


def rows_of(backend: str, place: Path) -> Path:
    """The file that holds a closed store's rows."""
    return place / ("store.db" if backend == "sqlite" else "store/index.db")


def fill(store: Store) -> None:
    """Three sessions, the middle one to be damaged."""
    for id in ("before", "hurt", "behind"):
        session = store.session(id, user="ann", name=f"name of {id}", labels=["kept"])
        session.append(*(user(f"{id} {number}") for number in range(6)))
    assert len(store.search("hurt")) == 6


def damage(backend: str, place: Path, change: str, id: str = "hurt") -> None:
    """Change a column of a session's head, as a flipped bit would: past the checksum."""
    path = rows_of(backend, place)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA ignore_check_constraints = 1")
        db.execute("PRAGMA writable_schema = 1")
        db.execute("UPDATE sqlite_master SET sql = replace(sql, 'BLOB NOT NULL', 'BLOB') WHERE name = 'head'")
    with closing(sqlite3.connect(path)) as db, db:
        assert db.execute(f"UPDATE head SET {change} WHERE id = ?", (id,)).rowcount == 1


@pytest.fixture(params=FLIPS)
def hurt(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store in SQLite whose one head is damaged in one column."""
    with holdfast.open(url_of("sqlite", tmp_path)) as store:
        fill(store)
    damage("sqlite", tmp_path, FLIPS[request.param])
    with holdfast.open(url_of("sqlite", tmp_path)) as store:
        yield store


def test_a_list_tells_what_it_leaves_out(hurt: Store) -> None:
    page = hurt.sessions()
    assert [info.id for info in page] == ["behind", "before"]
    assert page.damaged == ("hurt",)
    assert hurt.sessions(user="ann", until=2**50).damaged == ("hurt",)
    assert hurt.sessions(name="name of before").damaged == ()
    with pytest.raises(Corrupt, match=r"head of session 'hurt' is damaged.*delete"):
        hurt.get("hurt")


@pytest.mark.parametrize("change", [*FLIPS.values(), "slot = slot + 1"], ids=[*FLIPS, "slot"])
def test_a_list_tells_it_of_what_it_showed_before(tmp_path: Path, change: str) -> None:
    with holdfast.open(url_of("sqlite", tmp_path)) as store:
        fill(store)
        shown = {info.id: info for info in store.sessions()}
        damage("sqlite", tmp_path, change)
        page = store.sessions()
        assert page.damaged == ("hurt",)
        assert {info.id: info for info in page} == {id: shown[id] for id in ("before", "behind")}


def test_what_a_caller_does_to_a_list_is_not_in_the_next(tmp_path: Path) -> None:
    with holdfast.open(url_of("sqlite", tmp_path)) as store:
        store.session("plain")
        store.session("told", metadata={"of": {"mine": 1}}, config={"model": "m"})
        shown = {info.id: msgspec.json.encode(info) for info in store.sessions()}
        for info in store.sessions():
            info.metadata["of"] = info.config["model"] = "another"
        assert {info.id: msgspec.json.encode(info) for info in store.sessions()} == shown


def test_a_check_names_it_and_reads_on(hurt: Store) -> None:
    report = hurt.check(session="hurt")
    assert [(f.session, f.seq) for f in report.findings] == [("hurt", None)]
    assert "checksum does not match" in report.findings[0].what
    assert (report.sessions, report.events) == (1, 6)
    whole = hurt.check()
    assert report.findings[0] in whole.findings
    assert {f.session for f in whole.findings} == {"hurt"}
    assert len(set(whole.findings)) == len(whole.findings)
    assert (whole.sessions, whole.events) == (3, 18)


def test_its_events_can_be_read_and_saved(hurt: Store) -> None:
    session = hurt.get("hurt", damaged="keep")
    assert session is not None
    events = list(session.events(damaged="keep"))
    assert [event.payload for event in events] == [user(f"hurt {number}") for number in range(6)]
    assert session.last == 6
    assert len(hurt.search("hurt")) == 6
    hurt.create("saved").append(*events)
    assert [event.raw for event in hurt.session("saved").events()] == [event.raw for event in events]
    with pytest.raises(Corrupt):
        session.info()


def test_nobody_writes_to_it(hurt: Store) -> None:
    session = hurt.get("hurt", damaged="keep")
    assert session is not None
    for write in (lambda: session.append(note("more")), lambda: hurt.create("hurt"), lambda: session.update(name="n")):
        with pytest.raises(Corrupt):
            write()
    assert hurt.session("before").append(note("more")).last == 7


def test_it_can_be_deleted_and_stays_so(hurt: Store, tmp_path: Path) -> None:
    hurt.delete("hurt")
    (head,) = hurt.backend.get([HURT])
    assert head is not None
    assert (head.dead, head.tags, head.body) == (True, {}, b"")
    assert 6 <= head.last <= MAX_BASE
    late = Commit(ref=HURT, append=[Entry("", 1, b"late")])
    for rev in (None, *range(100)):  # whatever revision a late writer was told, or could have been
        refused = hurt.backend.commit([Commit(ref=HURT, if_rev=rev, append=late.append)])[0]
        assert isinstance(refused, Refused)
        assert refused.why in ("deleted", "rev")
    assert hurt.get("hurt") is None
    assert hurt.sessions().damaged == ()
    assert hurt.search("hurt").items == []
    with pytest.raises(Deleted):
        hurt.delete("hurt")
    assert hurt.check().findings == ()
    with closing(sqlite3.connect(rows_of("sqlite", tmp_path))) as db:
        n = db.execute("SELECT n FROM head WHERE id = 'hurt'").fetchone()[0]
        assert db.execute("SELECT count(*) FROM tag WHERE head = ?", (n,)).fetchone()[0] == 0
        assert db.execute("SELECT count(*) FROM entry WHERE head = ?", (n,)).fetchone()[0] == 0
    assert hurt.create("hurt").append(user("again")).first == head.last + 1
    assert [hit.seq for hit in hurt.search("again")] == [head.last + 1]
    assert hurt.check().findings == ()


def test_a_deletion_that_is_refused_changes_nothing(hurt: Store) -> None:
    results = hurt.backend.commit([Commit(ref=HURT, if_rev=7, delete=True)])
    assert isinstance(results[0], Refused)
    results = hurt.backend.commit([Commit(ref=HURT, if_tags={"user": "bob"}, delete=True)])
    assert isinstance(results[0], Refused)
    assert hurt.sessions(user="ann").damaged == ("hurt",)
    assert len(hurt.backend.read(HURT)) == 6
    with pytest.raises(Corrupt):
        hurt.backend.commit([Commit(ref=HURT, append=[Entry("", 1, b"late")])])


def test_what_comes_behind_a_deletion_in_one_batch_meets_the_tombstone(hurt: Store) -> None:
    append = Commit(ref=HURT, append=[Entry("", 1, b"late")])
    dead, late, again = hurt.backend.commit([Commit(ref=HURT, delete=True), append, Commit(ref=HURT, delete=True)])
    assert isinstance(dead, Head)
    assert late == again == Refused("deleted", dead)


def test_references_do_not_pass_it_over(hurt: Store) -> None:
    for reference in ("hurt", "hur", "name of hurt"):
        with pytest.raises(Corrupt) as caught:
            hurt.resolve(reference)
        assert caught.value.id == "hurt"
    # Created ahead of time: what is damaged in a list's slot of 16 ms may be ahead of what is sound in it.
    hurt.session("hurdle", created_at=now() + 1_000_000)
    with pytest.raises(Invalid, match="'hurdle', 'hurt'"):
        hurt.resolve("hur")
    assert hurt.resolve("@last").id == "hurdle"


def test_the_newest_is_not_said_to_be_another(tmp_path: Path) -> None:
    with holdfast.open(url_of("sqlite", tmp_path)) as store:
        fill(store)
        store.session("hurt").append(note("the newest"))
    damage("sqlite", tmp_path, "body = x'00'")
    with holdfast.open(url_of("sqlite", tmp_path)) as store, pytest.raises(Corrupt, match="'hurt'"):
        store.resolve("@last")


def test_a_damaged_tombstone_is_told_and_mended_by_a_deletion(tmp_path: Path) -> None:
    with holdfast.open(url_of("sqlite", tmp_path)) as store:
        fill(store)
        store.delete("hurt")
    damage("sqlite", tmp_path, "body = x'00'")
    with holdfast.open(url_of("sqlite", tmp_path)) as store:
        assert [f.session for f in store.check(session="hurt").findings] == ["hurt"]
        store.delete("hurt")
        assert store.check().findings == ()
        assert store.create("hurt").append(note("again")).first == 7


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_pages_lead_past_damaged_ones_and_name_each(tmp_path: Path, limit: int) -> None:
    bad = {0, 3, 4, 5, 8, 11}
    with holdfast.open(url_of("sqlite", tmp_path)) as store:
        for number in range(12):
            store.session(f"s{number:02}", created_at=1_000_000 * (number // 2))
    for number in bad:
        change = list(FLIPS.values())[number % len(FLIPS)]
        damage("sqlite", tmp_path, change, f"s{number:02}")
    with holdfast.open(url_of("sqlite", tmp_path)) as store:
        found, damaged, cursor = list[str](), set[str](), None
        while True:
            page = store.sessions(limit=limit, cursor=cursor)
            found += [info.id for info in page]
            damaged |= set(page.damaged)
            assert len(page) == limit or page.cursor is None
            cursor = page.cursor
            if cursor is None:
                break
        assert found == [f"s{number:02}" for number in reversed(range(12)) if number not in bad]
        assert damaged == {f"s{number:02}" for number in bad}
        assert store.check().sessions == 12


@pytest.mark.parametrize("change", ["slot = slot - 1000", "slot = slot + 1000"])
def test_pages_come_to_an_end_when_a_place_in_the_list_is_wrong(tmp_path: Path, change: str) -> None:
    with holdfast.open(url_of("sqlite", tmp_path)) as store:
        for number in range(5):
            store.session(f"s{number}", created_at=1_000_000 * number)
    damage("sqlite", tmp_path, change, "s2")
    with holdfast.open(url_of("sqlite", tmp_path)) as store:
        told, cursor = list[str](), None
        for _ in range(6):
            page = store.sessions(limit=1, cursor=cursor)
            told += [*(info.id for info in page), *page.damaged]
            cursor = page.cursor
            if cursor is None:
                break
        assert cursor is None
        assert set(told) == {f"s{number}" for number in range(5)}
        assert {f.session for f in store.check().findings} == {"s2"}


def test_words_that_no_longer_match_are_taken_out_with_their_session(tmp_path: Path) -> None:
    """The index is told the words of what it forgets, and damaged events do not say theirs any more."""
    with holdfast.open(url_of("sqlite", tmp_path)) as store:
        fill(store)
        store.session("other").append(note("something else"))
        assert len(store.search("something")) == 1
    with closing(sqlite3.connect(rows_of("sqlite", tmp_path))) as db, db:
        body = "SELECT e.body FROM entry e JOIN head h ON h.n = e.head WHERE h.id = 'other'"
        hurt = "SELECT n FROM head WHERE id = 'hurt'"
        assert db.execute(f"UPDATE entry SET body = ({body}) WHERE head = ({hurt})").rowcount == 6
        db.execute("DELETE FROM entry WHERE head = (SELECT n FROM head WHERE id = 'behind')")
    with holdfast.open(url_of("sqlite", tmp_path)) as store:
        store.delete("hurt")
        store.delete("other")
        session = store.session("new")
        session.append(*(note("new") for _ in range(12)))  # in rows whose numbers were given before
        assert [hit.session for hit in store.search("hurt")] == []
        assert {hit.session for hit in store.search("new")} == {"new"}


@pytest.mark.parametrize("flip", FLIPS)
def test_in_a_folder_the_log_says_what_the_index_lost(tmp_path: Path, flip: str) -> None:
    with holdfast.open(url_of("files", tmp_path)) as store:
        fill(store)
        sound = store.session("hurt").info()
        listed = [info.id for info in store.sessions()]
    damage("files", tmp_path, FLIPS[flip])
    with holdfast.open(url_of("files", tmp_path)) as store:
        assert store.session("hurt").info() == sound
        page = store.sessions()
        if flip.startswith("at"):  # its place is lost, and only a place in the list is
            listed.remove("hurt")
        assert [info.id for info in page] == listed
        assert page.damaged == (("hurt",) if flip.startswith("at") else ())
        assert store.resolve("name of hurt").id == "hurt"
        assert len(list(store.session("hurt").events())) == 6
        for _ in range(2):  # a check changes nothing
            assert {f.session for f in store.check().findings} == {"hurt"}
        assert store.session("hurt").append(user("hurt again")).first == 7
        assert store.check().findings == ()
        assert [hit.session for hit in store.search("again")] == ["hurt"]
        assert store.sessions(name="name of hurt").items[0].rev == sound.rev + 1


@pytest.mark.parametrize("flip", FLIPS)
def test_in_a_folder_it_can_be_deleted(tmp_path: Path, flip: str) -> None:
    with holdfast.open(url_of("files", tmp_path)) as store:
        fill(store)
    damage("files", tmp_path, FLIPS[flip])
    with holdfast.open(url_of("files", tmp_path)) as store:
        session = store.session("hurt")
        store.delete("hurt")
        with pytest.raises(Deleted):
            session.append(note("late"))
        assert store.search("hurt").items == []
        assert store.check().findings == ()
    rows_of("files", tmp_path).unlink()
    with holdfast.open(url_of("files", tmp_path)) as store:
        assert store.get("hurt") is None
        assert store.create("hurt").append(note("again")).first == 7
        assert store.check().findings == ()


def test_in_a_folder_what_neither_index_nor_log_can_tell_is_told_and_can_be_deleted(tmp_path: Path) -> None:
    with holdfast.open(url_of("files", tmp_path)) as store:
        fill(store)
        store.session("hurt").append(note("one more"))
    damage("files", tmp_path, FLIPS["body"])
    (log,) = (tmp_path / "store").rglob("hurt.jsonl")
    data = log.read_bytes()
    log.write_bytes(data.replace(b"hurt 3", b"hurt 7"))
    with holdfast.open(url_of("files", tmp_path)) as store:
        assert store.sessions().damaged == ("hurt",)
        with pytest.raises(Corrupt):
            store.get("hurt")
        session = store.get("hurt", damaged="keep")
        assert session is not None
        payloads = [event.payload for event in session.events(damaged="keep")]
        assert payloads[6] == note("one more")
        assert all(isinstance(payload, Damaged) for payload in payloads[:6])
        assert store.check(session="hurt").findings[0].session == "hurt"
        assert b"hurt 7" in log.read_bytes()
        store.delete("hurt")
        assert store.check().findings == ()
        with pytest.raises(Deleted):
            session.append(note("late"))
        assert store.create("hurt").append(note("again")).first == 8


DYING = """
import os, signal, sys, holdfast
from holdfast.backends.sqlitefile import SQLiteFile

session = holdfast.open(sys.argv[1]).session("hurt")
SQLiteFile.end = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
session.append(holdfast.user("hurt by a kill"))
"""
"""Leaves a line in the log, and the rows as they were."""


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("flip", FLIPS)
def test_in_a_folder_it_is_mended_though_a_writer_was_killed(tmp_path: Path, flip: str, beside: bool) -> None:
    url = url_of("files", tmp_path)
    with holdfast.open(url) as store:
        fill(store)
    damage("files", tmp_path, FLIPS[flip])
    with ExitStack() as stack:
        if beside:
            store = stack.enter_context(holdfast.open(url))
        assert subprocess.run([sys.executable, "-c", DYING, url], check=False).returncode == -signal.SIGKILL
        if not beside:
            store = stack.enter_context(holdfast.open(url))
            assert store.session("hurt").last == 7
        assert store.session("hurt").append(user("hurt again")).first == 8
        said = [event.payload for event in store.session("hurt").events()]
        assert said == [*(user(f"hurt {number}") for number in range(6)), user("hurt by a kill"), user("hurt again")]
        assert store.check().findings == ()
        store.delete("hurt")
        assert store.check().findings == ()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_process_that_has_the_store_open_deletes_it_too(backend: str, tmp_path: Path) -> None:
    with holdfast.open(url_of(backend, tmp_path)) as store:
        fill(store)
        damage(backend, tmp_path, FLIPS["tags"])
        store.delete("hurt")
        assert store.check().findings == ()
        assert store.create("hurt").append(note("again")).first == 7
