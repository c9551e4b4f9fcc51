"""What `check` says: nothing false of a store that is written to meanwhile; whatever its rows do not agree in."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import check, note, user
from holdfast.plan import Entry, Ref


def amid_reads(store: holdfast.Store, monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> None:
    """Let something happen to the store just before each page of a log is read; it is told how many were."""
    read = store.backend.read
    pages = 0

    def acting(ref: Ref, **how: Any) -> list[Entry]:
        nonlocal pages
        if how.get("limit") == check.PAGE:
            pages += 1
            act(pages)
        return read(ref, **how)

    monkeypatch.setattr(check, "PAGE", 2)
    monkeypatch.setattr(store.backend, "read", acting)


def fill(store: holdfast.Store, id: str) -> None:
    store.session(id).append(*(user(f"question {number}") for number in range(6)))


@pytest.mark.parametrize("page", [1, 2, 4])
def test_a_session_that_is_deleted_meanwhile_is_not_damaged(
    store: holdfast.Store, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    fill(store, "s")
    amid_reads(store, monkeypatch, lambda n: store.delete("s") if n == page else None)
    report = store.check()
    assert report.findings == ()
    assert report.sessions == (1 if page == 4 else 0)  # behind the last event it is gone, and nothing seemed wrong


def test_a_session_that_is_changed_meanwhile_is_not_damaged(
    store: holdfast.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, "s")
    session = store.session("s")

    def change(page: int) -> None:
        if page == 1:
            session.remove_last()

    amid_reads(store, monkeypatch, change)
    report = store.check()
    assert (report.findings, report.sessions) == ((), 1)


def test_a_session_that_is_started_anew_meanwhile_is_not_damaged(
    store: holdfast.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, "s")

    def anew(page: int) -> None:
        if page == 2:
            store.delete("s")
            store.create("s").append(note("again"))

    amid_reads(store, monkeypatch, anew)
    report = store.check()
    assert (report.findings, report.sessions, report.events) == ((), 1, 1)


def test_a_session_that_never_stands_still_is_not_damaged(
    store: holdfast.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, "s")
    session = store.session("s")

    def change(page: int) -> None:
        session.append(user(f"more {page}"))
        session.remove_last()

    amid_reads(store, monkeypatch, change)
    assert store.check().findings == ()


def test_a_session_that_becomes_active_meanwhile_is_checked(
    store: holdfast.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"s{number}" for number in range(9)]
    for id in ids:
        fill(store, id)
    resting = set(ids)
    monkeypatch.setattr(check, "PAGE", 2)
    read = store.backend.read

    def acting(ref: Ref, **how: Any) -> list[Entry]:
        resting.discard(ref.id)
        for id in (min(resting, default=None), max(resting, default=None)):  # those that any order leaves for the end
            if id is not None:
                store.session(id).append(user("awake"))
        return read(ref, **how)

    monkeypatch.setattr(store.backend, "read", acting)
    report = store.check()
    assert (report.findings, report.sessions) == ((), 9)


WRONG = {
    "UPDATE tag SET value = 'other' WHERE name = 'name'": ("s", "do not agree with its tags"),
    "DELETE FROM tag WHERE name = 'name'": ("s", "do not agree with its tags"),
    "INSERT INTO tag SELECT 'label:x', '', n FROM head WHERE kind = 'session'": ("s", "do not agree with its tags"),
    "INSERT INTO tag VALUES ('name', 'n', 99)": (None, "row 99, which is not there"),
    "UPDATE head SET slot = slot - 1": ("s", "list by time"),
    "UPDATE head SET body = x'00'": ("s", "checksum does not match"),
    "UPDATE entry SET head = 99 WHERE seq = 2": (None, "belongs to no session"),
    "DELETE FROM fts_docsize WHERE id = 3": ("s", "search misses 1 of its events, the first is 3"),
    "INSERT INTO fts_docsize VALUES (99, x'01')": (None, "holds 1 events that it should not"),
    "UPDATE meta SET value = 99 WHERE name = 'fts_mark'": (None, "up to row 99 of 6"),
}


@pytest.mark.parametrize("backend", ["file", "sqlite"])
@pytest.mark.parametrize("sql", WRONG)
def test_rows_that_do_not_agree_are_named(tmp_path: Path, backend: str, sql: str) -> None:
    path, url = {
        "file": (tmp_path / "store" / "index.db", f"file://{tmp_path}/store"),
        "sqlite": (tmp_path / "store.db", f"sqlite://{tmp_path}/store.db"),
    }[backend]
    with holdfast.open(url) as store:
        store.session("s", name="n", labels=["kept"])
        fill(store, "s")
        assert len(store.search("question")) == 6
        assert store.check().findings == ()
    with closing(sqlite3.connect(path)) as db, db:
        assert db.execute(sql).rowcount > 0
    with holdfast.open(url) as store:
        session, what = WRONG[sql]
        assert [f for f in store.check().findings if f.session == session and what in f.what]


@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_what_was_trimmed_hidden_or_deleted_leaves_nothing_that_disagrees(tmp_path: Path, backend: str) -> None:
    with holdfast.open(f"{backend}://{tmp_path}/store.db") as store:
        for id in ("a", "b", "c"):
            store.session(id, labels=[id])
            fill(store, id)
        assert len(store.search("question", session="c")) == 6
        store.session("b").remove_last()
        store.session("b").update(labels=["other"])
        store.delete("c")
        assert store.check().findings == ()
        store.session("d").append(note("question"))
        assert store.check().findings == ()
        store.index()
        assert store.check().findings == ()
