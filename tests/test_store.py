"""What a user of a store relies on, on every backend: sessions are found, appended to, listed, searched, followed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
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
    KeyReused,
    NotFound,
    Other,
    OtherPart,
    Session,
    Stale,
    Store,
    ToolCall,
    ToolResult,
    assistant,
    custom,
    note,
    reasoning,
    step,
    system,
    tool_call,
    tool_result,
    usage,
    user,
)
from holdfast.backend import Backend
from holdfast.plan import Commit, Entry

DAY = 86_400_000_000


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.005)


def texts(session: Session, **options: Any) -> list[str]:
    return [e.payload.text for e in session.events(types="message", **options)]


def ids(page: holdfast.store.Page[Any]) -> list[str]:
    return [item.id for item in page]


def put_raw(store: Store, session: Session, *bodies: bytes) -> None:
    """Append stored bytes as another version of the program would have written them."""
    backend: Backend = store.backend
    backend.commit([Commit(ref=session._head.ref, at=1, append=[Entry("", 1, body) for body in bodies])])


# --- Getting and creating ---


def test_two_hundred_callers_get_one_session_and_lose_nothing(store: Store) -> None:
    barrier = threading.Barrier(20)

    def call(number: int) -> int:
        if number < 20:
            barrier.wait()
        return store.session("shared", user="ann", title=f"by {number}").append(user(f"m{number}")).first

    with ThreadPoolExecutor(20) as pool:
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


# --- Appending ---


def test_an_append_is_numbered_and_acknowledged(store: Store) -> None:
    session = store.create("s")
    receipt = session.append(user("one"), assistant("two"))
    assert (receipt.session, receipt.first, receipt.last, receipt.repeated) == ("s", 1, 2, False)
    assert receipt.durability == ("memory" if store.url.startswith("memory") else "disk")
    assert session.append(user("three")).first == session.last == 3
    assert [e.seq for e in session.events()] == [1, 2, 3]


def test_the_same_key_stores_once_and_answers_the_same(store: Store) -> None:
    session = store.create("s")
    first = session.append(user("one"), user("two"), key="k")
    session.append(user("between"))
    again = session.append(user("one"), user("two"), key="k")
    assert (again.first, again.last, again.repeated) == (first.first, first.last, True)
    assert session.append(user("one"), user("two"), key="k", expect=0).repeated
    assert texts(session) == ["one", "two", "between"]
    assert session.info().counts.messages == 3


def test_the_same_ids_store_once(store: Store) -> None:
    session = store.create("s")
    batch = [Event(payload=user(t), id=t) for t in ("a", "b")]
    assert session.append(*batch).last == 2
    again = session.append(*batch)
    assert (again.first, again.last, again.repeated) == (1, 2, True)


def test_a_batch_with_some_ids_is_known_again(store: Store) -> None:
    session = store.create("s")
    session.append(note("before"))
    batch = [user("one"), Event(payload=user("two"), id="two"), user("three")]
    session.append(*batch)
    session.append(note("after"))
    again = session.append(*batch)
    assert (again.first, again.last, again.repeated) == (2, 4, True)
    with pytest.raises(KeyReused):
        session.append(user("else"), Event(payload=user("two"), id="two"), user("three"))
    assert session.info().last == 5


@pytest.mark.parametrize(
    "other",
    [
        [user("else"), user("two")],
        [user("one"), user("else")],
        [user("one")],
        [user("one"), user("two"), user("three")],
        [user("two"), user("one")],
    ],
    ids=["first differs", "second differs", "shorter", "longer", "turned round"],
)
def test_a_key_with_other_content_is_refused(store: Store, other: list[Any]) -> None:
    session = store.create("s")
    session.append(user("one"), user("two"), key="k")
    with pytest.raises(KeyReused) as error:
        session.append(*other, key="k")
    assert (error.value.session, error.value.key, error.value.seq) == ("s", "k", 1)
    assert texts(session) == ["one", "two"]


def test_keys_of_different_sessions_are_different(store: Store) -> None:
    assert not store.create("a").append(user("one"), key="k").repeated
    assert not store.create("b").append(user("two"), key="k").repeated


def test_of_many_retries_at_once_one_stores(store: Store) -> None:
    session = store.create("s")
    with ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(lambda _: session.append(user("x"), key="k"), range(40)))
    assert {(r.first, r.last) for r in receipts} == {(1, 1)}
    assert sum(not r.repeated for r in receipts) == 1
    assert session.info().counts.messages == 1


def test_an_expected_position_is_held_to(store: Store) -> None:
    session = store.create("s")
    session.append(user("one"), expect=0)
    session.append(user("two"), expect=1)
    with pytest.raises(Stale) as error:
        session.append(user("late"), expect=1)
    assert error.value.last == 2
    assert texts(session) == ["one", "two"]
    assert session.info().counts.messages == 2


def test_what_an_append_finds_missing_it_does_not_create(store: Store) -> None:
    other = holdfast.open("memory://")
    with other:
        ghost = Session(store, other.create("ghost")._head)
        with pytest.raises(NotFound):
            ghost.append(user("x"))
        with pytest.raises(NotFound):
            list(ghost.events())
    assert not store.exists("ghost")


# --- Counters and title ---


def test_the_append_itself_counts(store: Store) -> None:
    session = store.create("s")
    rev = session.info().rev
    session.append(
        system("be kind"),
        user("hi"),
        assistant("let me look", tool_call("c1", "ls"), tool_call("c2", "cat")),
        tool_result("c1", "ok"),
        tool_result("c2", "no", is_error=True),
        step("ls", duration=5),
        step("cat", is_error=True),
        usage("m1", 10, 5, cost=1_000),
        usage("m2", 1, 2, cost=holdfast.usd("0.25")),
        note("not counted"),
    )
    info = session.info()
    counts = info.counts
    assert (counts.messages, counts.tool_calls, counts.steps, counts.errors) == (5, 2, 2, 2)
    assert (counts.input_tokens, counts.output_tokens, counts.cost) == (11, 7, 251_000)
    assert info.models == ("m1", "m2")
    assert info.rev == rev + 1, "one append is one write"
    assert store.check().ok


def test_the_title_is_the_first_thing_the_user_said(store: Store) -> None:
    session = store.create("s")
    session.append(assistant("Hello, I am here"))
    assert session.info().title is None
    session.append(user("\n  Where   is my\torder?\nIt is late."), user("second"))
    assert session.info().title == "Where is my order?"
    session.append(user("third"))
    assert session.info().title == "Where is my order?"
    session.update(title="Mine")
    session.append(user("fourth"))
    assert session.info().title == "Mine"


def test_a_long_title_is_cut(store: Store) -> None:
    session = store.create("s")
    session.append(user("word " * 100))
    title = session.info().title
    assert title is not None
    assert len(title) <= 60
    assert title.endswith("…")


# --- Updating ---


def test_updates_of_many_writers_all_hold(store: Store) -> None:
    store.create("s")

    def write(number: int) -> None:
        session = store.session("s")
        session.update(metadata={f"k{number}": number})
        session.update(labels=[f"l{number}"])
        session.append(user("x"))
        session.update(config={f"c{number}": number})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(24)))
    info = store.session("s").info()
    assert info.metadata == {f"k{n}": n for n in range(24)}
    assert info.config == {f"c{n}": n for n in range(24)}
    assert set(info.labels) == {f"l{n}" for n in range(24)}
    assert info.counts.messages == 24


def test_an_update_sets_and_removes(store: Store) -> None:
    session = store.create("s", labels=["a", "b"], metadata={"x": 1, "y": {"z": 2}}, agent="coder")
    info = session.update(
        name="n", title="t", agent=None, labels={"a": False, "c": True}, metadata={"x": None, "w": 3}, config={"m": 1}
    )
    assert info == session.info()
    assert (info.name, info.title, info.agent, info.labels) == ("n", "t", None, ("b", "c"))
    assert (info.metadata, info.config) == ({"y": {"z": 2}, "w": 3}, {"m": 1})
    with pytest.raises(Invalid, match="state"):
        session.update(state="running")


# --- Taking back ---


def test_the_last_message_is_taken_back_and_not_erased(store: Store) -> None:
    session = store.create("s")
    session.append(user("one"), assistant("two"), usage("m", 10), note("n"))
    taken = session.remove_last()
    assert taken is not None
    assert taken.seq == 2
    assert [m.text for m in session.messages()] == ["one"]
    assert session.info().counts.messages == 1
    assert session.info().counts.input_tokens == 10
    assert [e.seq for e in session.events(hidden=True)] == [1, 2, 3, 4]
    assert [e.hidden for e in session.events(hidden=True)] == [False, True, False, False]
    assert store.search("two").items == []
    taken = session.remove_last()
    assert taken is not None
    assert taken.seq == 1
    assert session.remove_last() is None
    assert session.append(user("again")).first == 5
    assert store.check().ok


def test_many_removals_at_once_take_each_message_once(store: Store) -> None:
    session = store.create("s")
    session.append(*(user(str(n)) for n in range(20)))
    with ThreadPoolExecutor(4) as pool:
        taken = [e.seq for e in pool.map(lambda _: store.session("s").remove_last(), range(12)) if e is not None]
    assert sorted(taken) == list(range(9, 21))
    assert session.info().counts.messages == 8
    assert store.check().ok


# --- Reading ---


def test_events_are_read_in_every_direction(store: Store) -> None:
    session = store.create("s")
    session.append(*(user(f"m{n}") if n % 3 else note(f"n{n}") for n in range(1, 1301)))

    def seqs(**options: Any) -> list[int]:
        return [e.seq for e in session.events(**options)]

    every = list(range(1, 1301))
    assert seqs() == every
    assert seqs(reverse=True) == every[::-1]
    assert seqs(after=10, before=14) == [11, 12, 13]
    assert seqs(after=10, before=14, reverse=True) == [13, 12, 11]
    assert seqs(last=3) == [1298, 1299, 1300]
    assert seqs(last=3, reverse=True) == [1300, 1299, 1298]
    assert seqs(last=2, types="note") == [1296, 1299]
    assert seqs(last=600, types="message") == [n for n in every if n % 3][-600:]
    assert seqs(types={"note", "usage"}) == every[2::3]
    assert seqs(last=1, before=500, types=["note"]) == [498]
    assert seqs(last=0) == []
    assert seqs(before=1) == []
    assert seqs(after=1300) == []
    assert [m.text for m in session.messages(last=2)] == ["m1298", "m1300"]


def test_every_noun_comes_back_as_it_was_given(store: Store) -> None:
    given = [
        user("Hi", name="ann", metadata={"a": [1, 2.5, None, True, "é\0\n", {"b": {}}]}),
        assistant("Let me look", reasoning("hm"), tool_call("c1", "lookup", {"order": 7, "big": 2**70})),
        tool_result("c1", {"status": "sent"}, duration=12, name="lookup"),
        step("ls", {"path": "."}, "a\nb", call_id="c1", duration=3, exit_code=0, artifacts=["holdfast:x"]),
        usage("m", 1, 2, provider="p", response_id="r", cache_read_tokens=1, reasoning_tokens=1, cost=3),
        note("remember"),
        custom("x.deploy", {"sha": "abc", "n": [1]}),
        holdfast.Report(subject="s", status="passed", checks=({"name": "c"},), residual_risks=("r",)),
        holdfast.Tasks(tasks=({"id": 1},)),
        holdfast.State(state="running", turn="t"),
        holdfast.Summary(content="so far", start=1, end=3),
        holdfast.Artifact(name="a.txt", sha256="0" * 64, size=3),
        user(holdfast.Blob(content="AAAA", mime_type="image/png"), holdfast.File(file_id="f"), holdfast.Uri(uri="u:x")),
        holdfast.message("developer", "a role of one's own"),
    ]
    session = store.create("s")
    session.append(*given)
    events = list(session.events())
    assert [e.payload for e in events] == given
    for event in events:
        assert json.loads(event.raw)["v"] == 1
        assert json.loads(event.raw)["type"] == event.type


def test_heads_carry_the_format_version_too(store: Store) -> None:
    session = store.create("s", metadata={"a": 1})
    assert json.loads(session._head.body)["v"] == 1
    session.update(config={"b": 2})
    assert json.loads(store.head("s").body)["v"] == 1


def test_times_and_ids_of_ones_own_are_kept(store: Store) -> None:
    session = store.create("s")
    session.append(Event(payload=user("old"), at=-5, id="mine"), Event(payload=user("new"), at=7))
    old, new = session.events()
    assert (old.at, old.id, new.at, new.id) == (-5, "mine", 7, None)
    session.append(Event(payload=user("before 1970"), at=-(10**15)))
    assert [e.at for e in session.events()] == [-5, 7, -(10**15)]


# --- What this version does not know ---

UNKNOWN = [
    b'{"v":1,"type":"hologram","angle":1.50,"big":1180591620717411303424}',
    b'{"v":1,"type":"message","role":"assistant","parts":[{"type":"smell","of":"roses"},{"type":"text","content":"hi"}]}',
    b'{"v":1,"type":"message","role":"oracle","parts":[],"mood":"dark"}',
    b'{"v":1,"type":"step","name":"ls","colour":"red","exit_code":0}',
    b'{ "v": 2, "type" : "note", "text":"from later", "extra":{"a":[1.0,1e2,-0]} }',
    b'{"v":1,"type":"usage","model":"m","input_tokens":"many"}',
    b'{"v":1,"type":"message","parts":"odd"}',
    b'{"v":1,"type":"x.mine","data":{"\\ud800":"\\u0000"},"other":true}',
    b'{"v":1,"type":"text","content":"a part is no event"}',
    b'{"type":7}',
]


def test_what_is_unknown_is_read(store: Store) -> None:
    session = store.create("s")
    put_raw(store, session, *UNKNOWN)
    payloads = [e.payload for e in session.events()]
    assert payloads[0] == Other(data={"v": 1, "type": "hologram", "angle": 1.5, "big": 2**70})
    assert payloads[0].type == "hologram"
    assert payloads[1].parts == (OtherPart(data={"type": "smell", "of": "roses"}), holdfast.text("hi"))
    assert payloads[2].role == "oracle"
    assert [type(p).__name__ for p in payloads] == [
        "Other", "Message", "Message", "Step", "Note", "Other", "Other", "Custom", "Other", "Other",
    ]  # fmt: skip
    assert [e.raw for e in session.events()] == UNKNOWN
    assert store.check(session="s").findings == ()


def test_what_is_unknown_survives_being_appended_again_and_copied(store: Store) -> None:
    session = store.create("s")
    put_raw(store, session, *UNKNOWN)
    copy = store.create("copy")
    copy.append(*session.events(types=None))
    copy.append(*copy.events())
    assert [e.raw for e in copy.events()] == UNKNOWN * 2
    with holdfast.open("memory://") as elsewhere:
        moved = elsewhere.create("moved")
        moved.append(*session.events())
        assert [e.raw for e in moved.events()] == UNKNOWN


def test_an_unknown_part_is_handed_on_in_a_new_message(store: Store) -> None:
    session = store.create("s")
    part = OtherPart(data={"type": "smell", "of": "roses", "n": 2**70})
    session.append(user("smell this", part))
    assert [m.parts for m in session.messages()] == [(holdfast.text("smell this"), part)]


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


# --- Following ---


def test_a_follower_sees_every_event_once_in_order(store: Store) -> None:
    session = store.create("s")
    session.append(user("0"))
    seen: list[int] = []
    stop = threading.Event()

    def follow() -> None:
        for event in store.session("s").tail(after=0, stop=stop):
            seen.append(event.seq)
            if len(seen) == 101:
                return

    with ThreadPoolExecutor(3) as pool:
        following = pool.submit(follow)
        writing = [
            pool.submit(lambda: [store.session("s").append(user("x"), user("y")) for _ in range(25)]) for _ in range(2)
        ]
        for done in writing:
            done.result()
        following.result(timeout=20)
    assert seen == list(range(1, 102))


def test_a_tail_begins_with_the_newest(store: Store) -> None:
    session = store.create("s")
    session.append(*(user(str(n)) for n in range(30)))
    assert [e.seq for e in session.tail(follow=False)] == list(range(21, 31))
    assert [e.seq for e in session.tail(last=2, follow=False)] == [29, 30]
    assert [e.seq for e in session.tail(after=28, follow=False)] == [29, 30]
    assert list(session.tail(last=0, follow=False)) == []


def test_following_ends_with_the_session(store: Store) -> None:
    session = store.create("s")
    session.append(user("one"))
    seen: list[int] = []

    def follow() -> None:
        seen.extend(event.seq for event in session.tail())

    follower = threading.Thread(target=follow)
    follower.start()
    eventually(lambda: seen == [1])
    store.delete("s")
    follower.join(20)
    assert not follower.is_alive()


def test_following_ends_when_told(store: Store) -> None:
    session = store.create("s")
    stop = threading.Event()
    follower = threading.Thread(target=lambda: list(session.tail(stop=stop)))
    follower.start()
    stop.set()
    follower.join(20)
    assert not follower.is_alive()


def test_a_watcher_is_told_of_every_session_that_changes(store: Store) -> None:
    store.create("old")
    since = holdfast.info.now()
    newest: dict[str, int] = {}
    stop = threading.Event()

    def watch() -> None:
        for change in store.watch(since=since, stop=stop):
            newest[change.session] = change.last

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(20):
        store.session(f"s{number % 4}").append(user("x"))
    eventually(lambda: newest == {f"s{n}": 5 for n in range(4)})
    store.session("old").append(user("x"))
    eventually(lambda: newest.get("old") == 1)
    stop.set()
    store.session("s0").append(user("x"))
    watcher.join(20)
    assert not watcher.is_alive()


# --- Lasting, closing ---


def test_everything_is_there_when_the_store_is_opened_again(url: str) -> None:
    if url.startswith("memory"):
        return
    with holdfast.open(url) as store:
        session = store.create("a/b", user="ann", labels=["x"], metadata={"k": "v"})
        session.append(user("one", holdfast.text("L" * 100_000)), tool_result("c", {"r": 1}), key="k")
        session.append(user("gone"))
        session.remove_last()
        info, events = session.info(), [(e.seq, e.at, e.id, e.raw, e.hidden) for e in session.events(hidden=True)]
    with holdfast.open(url) as store:
        session = store.session("a/b", user="ann")
        assert session.info() == info
        assert [(e.seq, e.at, e.id, e.raw, e.hidden) for e in session.events(hidden=True)] == events
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
