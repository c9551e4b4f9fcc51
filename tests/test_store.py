"""What a user of a store relies on, on every backend: sessions are found, created, deleted, listed and searched."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import (
    Deleted,
    Denied,
    Event,
    Exists,
    Invalid,
    NotFound,
    ReadOnly,
    Session,
    Store,
    ToolCall,
    ToolResult,
    Unavailable,
    assistant,
    custom,
    note,
    step,
    tool_call,
    tool_result,
    usage,
    user,
)

DAY = 86_400_000_000


def texts(session: Session, **options: Any) -> list[str]:
    return [e.payload.text for e in session.events(types="message", **options)]


def ids(page: holdfast.store.Page[Any]) -> list[str]:
    return [item.id for item in page]


# --- Getting and creating ---


def test_two_hundred_callers_get_one_session_and_lose_nothing(store: Store) -> None:
    barrier = threading.Barrier(200)

    def call(number: int) -> int:
        barrier.wait()  # all of them at once
        return store.session("shared", user="ann", title=f"by {number}").append(user(f"m{number}")).first

    with ThreadPoolExecutor(200) as pool:
        seqs = list(pool.map(call, range(200)))
    assert sorted(seqs) == list(range(1, 201))
    session = store.session("shared", user="ann")
    assert sorted(texts(session)) == sorted(f"m{n}" for n in range(200))
    assert session.info().counts.messages == 200
    assert len(store.sessions()) == 1


def test_a_session_of_another_user_is_denied(store: Store) -> None:
    store.session("mine", user="ann")
    with pytest.raises(Denied):
        store.session("mine", user="bob")
    with pytest.raises(PermissionError):
        store.session("mine", user="Ann")
    assert store.session("mine", user="ann").info().user == "ann"
    store.session("nobody's")
    with pytest.raises(Denied):
        store.session("nobody's", user="bob")


def test_a_session_that_is_there_keeps_its_own_fields(store: Store) -> None:
    store.session("s", title="first", labels=["a"], metadata={"x": 1})
    info = store.session("s", title="second", labels=["b"], metadata={"x": 2}).info()
    assert (info.title, info.labels, info.metadata) == ("first", ("a",), {"x": 1})


def test_a_session_is_described_as_it_was_created(store: Store) -> None:
    when = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    session = store.create(
        "s", user="ann", name="daily", title="T", agent="coder", parent="p", project="web", state="paused",
        labels=["b", "a"], metadata={"k": [1, None, "é"]}, config={"model": "m"}, created_at=when,
    )  # fmt: skip
    info = session.info()
    assert (info.id, info.user, info.name, info.title, info.agent) == ("s", "ann", "daily", "T", "coder")
    assert (info.parent, info.project, info.state, info.labels) == ("p", "web", "paused", ("a", "b"))
    assert (info.metadata, info.config) == ({"k": [1, None, "é"]}, {"model": "m"})
    assert info.created_at == info.updated_at == int(when.timestamp()) * 1_000_000 + 6
    assert (info.last, info.rev) == (0, 1)


def test_ids_made_by_the_store_are_new_and_rise(store: Store) -> None:
    made = [store.session().id for _ in range(50)]
    assert len(set(made)) == 50
    assert made == sorted(made)
    assert store.create().id > made[-1]


def test_creating_what_is_there_is_refused(store: Store) -> None:
    store.create("s").append(user("kept"))
    with pytest.raises(Exists) as error:
        store.create("s")
    assert error.value.session == "s"
    assert texts(store.session("s")) == ["kept"]


def test_what_is_not_there_is_none_or_not_found(store: Store) -> None:
    assert store.get("nobody") is None
    assert not store.exists("nobody")
    with pytest.raises(NotFound):
        store.delete("nobody")
    assert store.sessions().items == []
    store.create("s")
    assert store.exists("s")
    found = store.get("s")
    assert found is not None
    assert found.id == "s"


# --- Deleting ---


def test_a_deleted_session_is_gone_and_a_late_append_does_not_bring_it_back(store: Store) -> None:
    late = store.create("s", user="ann", title="apple")
    late.append(user("apple"))
    assert len(store.search("apple")) == 1
    store.delete("s")
    assert store.get("s") is None
    assert not store.exists("s")
    assert store.sessions().items == []
    assert store.search("apple").items == []
    for call in (
        lambda: late.append(user("late")),
        lambda: late.append(user("late"), expect=1),
        lambda: late.append(user("late"), key="k"),
        lambda: list(late.events()),
        late.info,
        late.messages,
        late.remove_last,
        late.delete,
        lambda: late.update(title="t"),
        lambda: late.update(metadata={"a": 1}),
        lambda: store.session("s"),
        lambda: store.delete("s"),
    ):
        with pytest.raises(Deleted):
            call()
    assert not store.exists("s")


def test_a_deleted_session_may_be_created_anew_and_its_numbers_go_on(store: Store) -> None:
    store.create("s", user="ann").append(user("one"), user("two"))
    store.delete("s")
    again = store.create("s", user="bob")
    assert again.append(user("three")).first == 3
    assert texts(again) == ["three"]
    assert again.info().counts.messages == 1
    assert again.info().user == "bob"
    assert store.check().ok


# --- Listing ---


@pytest.fixture
def listed(store: Store) -> Store:
    for number, fields in enumerate(
        [
            {"user": "ann", "name": "Alpha", "labels": ["x"], "agent": "coder"},
            {"user": "bob", "title": "The ALPHABET", "state": "running", "labels": ["x", "y"], "project": "web"},
            {"user": "ann", "title": "beta", "parent": "s0", "state": "error"},
            {"title": "gamma"},
        ]
    ):
        session = store.create(f"s{number}", created_at=number * DAY, **fields)  # type: ignore[arg-type]
        session.append(Event(payload=usage(f"model-{number % 2}"), at=number * DAY + DAY // 2))
    return store


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, "s3 s2 s1 s0"),
        ({"user": "ann"}, "s2 s0"),
        ({"user": "nobody"}, ""),
        ({"state": "running"}, "s1"),
        ({"state": "idle"}, "s3 s0"),
        ({"label": "x"}, "s1 s0"),
        ({"label": "y"}, "s1"),
        ({"label": "X"}, ""),
        ({"agent": "coder"}, "s0"),
        ({"model": "model-1"}, "s3 s1"),
        ({"project": "web"}, "s1"),
        ({"parent": "s0"}, "s2"),
        ({"name": "Alpha"}, "s0"),
        ({"text": "alpha"}, "s1 s0"),
        ({"text": "BET"}, "s2 s1"),
        ({"text": "alpha", "user": "ann"}, "s0"),
        ({"user": "ann", "label": "x", "agent": "coder"}, "s0"),
        ({"limit": 2}, "s3 s2"),
    ],
)
def test_a_list_is_filtered(listed: Store, filters: dict[str, Any], expected: str) -> None:
    assert ids(listed.sessions(**filters)) == expected.split()


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (0, 10 * DAY, "s3 s2 s1 s0"),
        (DAY, None, "s3 s2 s1"),
        (DAY + DAY // 2, None, "s3 s2 s1"),  # the last moment of s1
        (DAY + DAY // 2 + 1, None, "s3 s2"),
        (None, DAY, "s1 s0"),  # the first moment of s1
        (None, DAY - 1, "s0"),
        (DAY + 1, DAY + 2, "s1"),  # inside s1: it overlaps, though it neither begins nor ends there
        (DAY + DAY // 2 + 1, 2 * DAY - 1, ""),  # between s1 and s2
        (datetime(1970, 1, 3, tzinfo=UTC), "1970-01-03T06:00:00Z", "s2"),
    ],
)
def test_a_list_is_cut_by_overlap_in_time(listed: Store, since: Any, until: Any, expected: str) -> None:
    assert ids(listed.sessions(since=since, until=until)) == expected.split()


def test_pages_have_no_gaps_and_no_doubles_under_equal_times(store: Store) -> None:
    expected = []
    for number in range(25):
        id, at = f"s{(number * 7) % 25:02}", 1000 + number // 10
        store.create(id, created_at=at, labels=["odd"] if number % 2 else [], title=f"t{number % 3}")
        expected.append((at, id))
    expected.sort(reverse=True)
    for filters in ({}, {"label": "odd"}, {"text": "T1"}, {"until": 1001}, {"since": 1001}):
        whole = ids(store.sessions(limit=100, **filters))
        for limit in (1, 3, 7, 10, 24, 25):
            found: list[str] = []
            cursor = None
            while True:
                page = store.sessions(limit=limit, cursor=cursor, **filters)
                assert 0 < len(page) <= limit
                found += ids(page)
                if (cursor := page.cursor) is None:
                    break
            assert found == whole, (filters, limit)
    assert ids(store.sessions(limit=100)) == [id for _, id in expected]


def test_the_last_active_comes_first(store: Store) -> None:
    for id in "abc":
        store.create(id)
    store.session("a").append(note("x"))
    assert ids(store.sessions()) == ["a", "c", "b"]


# --- Searching ---


def test_hits_have_snippets_with_highlights(store: Store) -> None:
    session = store.create("s", user="ann")
    session.append(user("before " * 60 + "the Needle is here " + "after " * 60), step("grep", output="no needles"))
    store.create("t", user="bob").append(user("needle"))
    (hit,) = store.search("needle", user="ann")
    assert (hit.session, hit.seq, hit.event.type) == ("s", 1, "message")
    assert hit.score > 0
    assert len(hit.snippet) <= 160
    assert [hit.snippet[a:b] for a, b in hit.highlights] == ["Needle"]
    assert {(h.session, h.seq) for h in store.search("needle*")} == {("s", 1), ("s", 2), ("t", 1)}
    assert [h.session for h in store.search("needle", session="t")] == ["t"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, "s0 s1 s2 s3"),
        ({"session": "s1"}, "s1"),
        ({"session": "S1"}, ""),
        ({"user": "ann"}, "s0 s2"),
        ({"user": "nobody"}, ""),
        ({"state": "running"}, "s1"),
        ({"state": "idle"}, "s0 s3"),
        ({"label": "x"}, "s0 s1"),
        ({"label": "X"}, ""),
        ({"agent": "coder"}, "s0"),
        ({"model": "model-1"}, "s1 s3"),
        ({"project": "web"}, "s1"),
        ({"user": "ann", "label": "x", "agent": "coder"}, "s0"),
        ({"session": "s1", "user": "ann"}, ""),
    ],
)
def test_a_search_is_filtered(listed: Store, filters: dict[str, Any], expected: str) -> None:
    for number in range(4):
        listed.session(f"s{number}").append(user("the same words"))
    for newest in (False, True):
        assert sorted(h.session for h in listed.search("words", newest=newest, **filters)) == expected.split()


def test_search_pages_have_no_gaps_and_no_doubles(store: Store) -> None:
    for id in "abc":
        store.create(id, labels=[id]).append(*(user("same words") for _ in range(9)))
    for newest in (False, True):
        for limit in (1, 5, 26, 27):
            found: list[tuple[str, int]] = []
            cursor = None
            while True:
                page = store.search("words", limit=limit, cursor=cursor, newest=newest)
                found += [(h.session, h.seq) for h in page]
                if (cursor := page.cursor) is None:
                    break
            assert sorted(found) == [(id, n) for id in "abc" for n in range(1, 10)]
    assert len(store.search("words", label="b")) == 9


def test_an_acknowledged_event_is_found_by_the_next_search(store: Store) -> None:
    session = store.create("s")
    for number in range(30):
        session.append(user(f"word{number}"))
        assert [h.seq for h in store.search(f"word{number}")] == [number + 1]


def test_tool_calls_and_results_are_searched(store: Store) -> None:
    store.create("s").append(
        assistant(tool_call("c", "fetch_page", {"url": "https://kelp.example/holdfast"})),
        tool_result("c", {"body": ["seaweed grips"]}),
        custom("x.y", {"k": "barnacle"}),
    )
    for number, query in enumerate(("kelp", "seaweed", "barnacle"), 1):
        assert [h.seq for h in store.search(query)] == [number]
    assert [h.seq for h in store.search("fetch_page")] == [1]


# --- Lasting, closing ---


@pytest.mark.parametrize("scheme", ["file", "sqlite"])
def test_a_place_that_can_not_hold_a_store_is_told(tmp_path: Path, scheme: str) -> None:
    taken = tmp_path / "taken"
    taken.write_text("no folder")
    for _ in range(2):  # the failure leaves nothing that is in the way
        with pytest.raises(Unavailable, match=r"taken.* can't be opened"):
            holdfast.open(f"{scheme}://{taken}/store")
    assert taken.read_text() == "no folder"
    taken.unlink()
    with holdfast.open(f"{scheme}://{taken}/store") as store:
        assert store.session("s").append(user("Hi")).last == 1


def test_a_medium_that_can_not_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"file://{tmp_path}/store"
    with holdfast.open(url) as store:
        store.session("s").append(user("Hi"))
    real = os.open

    def open_(path: Any, flags: int, *rest: Any, **how: Any) -> int:  # as the system does it on such a medium
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return real(path, flags, *rest, **how)

    monkeypatch.setattr(os, "open", open_)
    with pytest.raises(ReadOnly, match=r"store.* can't be opened: the file system is read-only.*copy the store"):
        holdfast.open(url)


def test_what_names_no_store_is_told(tmp_path: Path) -> None:
    for wrong in (tmp_path / "store.db", b"sqlite:store.db", 5):
        with pytest.raises(Invalid, match=r"a store is named by a URL such as sqlite:///"):
            holdfast.open(wrong)  # type: ignore[arg-type]  # what a caller gets wrong
    with pytest.raises(Invalid, match=r"the parameter 'durability' stands more than once in"):
        holdfast.open(f"sqlite://{tmp_path}/s.db?durability=disk&durability=process")
    assert list(tmp_path.iterdir()) == []


def test_everything_is_there_when_the_store_is_opened_again(url: str) -> None:
    if url.startswith("memory"):
        return
    with holdfast.open(url) as store:
        session = store.create("a/b", user="ann", labels=["x"], metadata={"k": "v"})
        session.append(user("one", holdfast.text("L" * 100_000)), tool_result("c", {"r": 1}), key="k")
        session.append(user("gone"))
        session.remove_last()
        info, events = (
            session.info(),
            [(e.seq, e.at, e.id, e.raw, e.hidden) for e in session.events(include_hidden=True)],
        )
    with holdfast.open(url) as store:
        session = store.session("a/b", user="ann")
        assert session.info() == info
        assert [(e.seq, e.at, e.id, e.raw, e.hidden) for e in session.events(include_hidden=True)] == events
        assert session.append(user("one", holdfast.text("L" * 100_000)), tool_result("c", {"r": 1}), key="k").repeated
        assert [h.seq for h in store.search("one")] == [1]
        assert store.check().ok


def test_closing_twice_does_nothing(url: str) -> None:
    store = holdfast.open(url)
    store.create("s").append(user("x"))
    store.close()
    store.close()


def test_the_parts_of_a_conversation_read_well(store: Store) -> None:
    session = store.create("s")
    session.append(
        user("Hi"), assistant("Let me look", tool_call("c1", "lookup", {"order": 7})), tool_result("c1", "sent")
    )
    asked, called, answered = session.messages()
    assert (asked.role, asked.text, called.text) == ("user", "Hi", "Let me look")
    assert called.tool_calls == (ToolCall(id="c1", name="lookup", arguments={"order": 7}),)
    assert answered.tool_results == (ToolResult(id="c1", response="sent"),)


def test_the_default_store_is_in_the_users_folder_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOLDFAST_URL", raising=False)
    home = tmp_path / "100%41 #1? é"
    monkeypatch.setattr("platformdirs.user_data_dir", lambda name: str(home))
    with holdfast.open() as store:
        store.session("s")
    assert (home / "holdfast.db").exists()
    monkeypatch.setenv("HOLDFAST_URL", "memory://")
    with holdfast.open() as store:
        assert store.url == "memory://"
