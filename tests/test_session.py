"""What a user of a session relies on, on every backend: nothing appended is lost, doubled, turned round or changed."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import holdfast
from holdfast import (
    Event,
    Invalid,
    KeyReused,
    NotFound,
    Other,
    OtherPart,
    Session,
    Stale,
    Store,
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


def texts(session: Session, **options: Any) -> list[str]:
    return [e.payload.text for e in session.events(types="message", **options)]


def put_raw(store: Store, session: Session, *bodies: bytes) -> None:
    """Append stored bytes as another version of the program would have written them."""
    backend: Backend = store.backend
    backend.commit([Commit(ref=session._head.ref, at=1, append=[Entry("", 1, body) for body in bodies])])


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
    assert [e.seq for e in session.events(include_hidden=True)] == [1, 2, 3, 4, 5]
    assert [e.seq for e in session.events(include_hidden=True) if e.hidden] == [2]
    assert next(session.events(last=1)).type == "edit"
    assert store.search("two").items == []
    taken = session.remove_last()
    assert taken is not None
    assert taken.seq == 1
    assert session.remove_last() is None
    assert session.append(user("again")).first == 7
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


def test_fields_of_the_head_that_this_version_does_not_know_survive_updates(store: Store) -> None:
    session = store.session("s", metadata={"a": 1})
    head = store.head("s")
    body = b'{"v":1,"metadata":{"a":1},"config":{"k":{"deep":1}},"later":{"x":[1,2]},"more":18446744073709551616}'
    store.batcher.commit(Commit(ref=head.ref, if_rev=head.rev, body=body, tags={"later": "tag"}, add={"later": 3}))
    session.update(metadata={"b": 2}, config={"c": 3}, title="T", labels=["x"])
    session.append(user("Hi"))
    store.session("s").update(title="U")
    head = store.head("s")
    told = json.loads(head.body)
    assert (told["later"], told["more"]) == ({"x": [1, 2]}, 18446744073709551616)
    assert told["metadata"] == {"a": 1, "b": 2}
    assert told["config"] == {"k": {"deep": 1}, "c": 3}
    assert (head.tags["later"], head.counts["later"]) == ("tag", 3)
