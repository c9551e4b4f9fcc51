"""What `check` says: nothing false of a store that is written to meanwhile, and whatever its rows are found by wrongly."""

from __future__ import annotations

from collections.abc import Callable
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
