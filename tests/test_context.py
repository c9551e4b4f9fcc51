"""What a session sends to its model: what is in it, what it costs to read, and that a model takes it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import holdfast
from holdfast import (
    Context,
    Corrupt,
    Invalid,
    Message,
    Session,
    Step,
    Store,
    assistant,
    message,
    note,
    step,
    system,
    tool_call,
    tool_result,
    user,
)
from holdfast.context.context import SUMMARY
from holdfast.context.pairs import INTERRUPTED
from holdfast.context.tokens import estimate, of_text
from holdfast.model import Event, Large, Summary


def told(context: Context) -> list[str]:
    """Who says what: results by their id."""
    return [f"{m.role} {m.text or ' '.join(str(r.id) for r in m.tool_results)}".strip() for m in context.messages]


def kinds(context: Context) -> list[tuple[str, int]]:
    return [(problem.kind, problem.seq) for problem in context.problems]


def one_each(_: Message) -> int:
    return 1


class Counting:
    """How many entries the backend of a store hands out."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read = 0
        real: Callable[..., list[Any]] = store.backend.read

        def read(*args: Any, **options: Any) -> list[Any]:
            found = real(*args, **options)
            self.read += len(found)
            return found

        monkeypatch.setattr(store.backend, "read", read)


def test_a_small_session_goes_as_a_whole(store: Store) -> None:
    session = store.create("s")
    session.append(system("Be brief."), note("x"), user("Hi"), assistant("Hello"))
    context = session.context()
    assert list(context.messages) == session.messages()
    assert context.seqs == (1, 3, 4)
    assert (context.cut, context.full, context.summary, context.last) == (False, False, 0, 4)
    assert context.problems == ()
    usage = context.usage
    assert usage.used_tokens == sum(map(estimate, context.messages))
    assert (usage.max_tokens, usage.turns) == (200_000, 2)
    assert usage.percent == usage.used_tokens / 200_000


def test_an_empty_session_has_an_empty_context(store: Store) -> None:
    context = store.create("s").context(0 + 1)
    assert (context.messages, context.usage.used_tokens, context.full, context.cut) == ((), 0, False, False)


def test_what_there_is_no_room_for_is_cut_off_and_the_system_prompt_stays(store: Store) -> None:
    session = store.create("s")
    session.append(system("Be brief."), *(user(str(n)) for n in range(10)))
    context = session.context(4, count=one_each)
    assert told(context) == ["system Be brief.", "user 7", "user 8", "user 9"]
    assert (context.cut, context.full, context.usage.percent) == (True, True, 1.0)
    assert told(session.context(11, count=one_each))[1] == "user 0"
    assert not session.context(11, count=one_each).cut
    assert told(session.context(1, keep=2, count=one_each)) == ["system Be brief.", "user 8", "user 9"]
    assert session.context(1, keep=2, count=one_each).usage.percent == 3.0


@pytest.mark.parametrize(("used", "full"), [(7, False), (8, True), (9, True)])
def test_it_is_time_to_compact_from_the_threshold_on(store: Store, used: int, full: bool) -> None:
    session = store.create("s")
    session.append(*(user(str(n)) for n in range(used)))
    assert session.context(10, count=one_each).full is full
    assert session.context(10, count=one_each, threshold=0.7).full


def test_the_config_gives_the_prompt_the_room_and_the_threshold(store: Store) -> None:
    session = store.create("s", config={"system_prompt": "Be kind.", "max_context_length": 10})
    session.append(system("Be brief."), *(user(str(n)) for n in range(20)))
    context = session.context(count=one_each)
    assert told(context)[:3] == ["system Be kind.", "system Be brief.", "user 12"]
    assert context.seqs[:3] == (0, 1, 14)
    assert context.usage.max_tokens == 10
    session.update(config={"auto_compact_threshold": 0.25, "system_prompt": "Be brief."})
    assert told(session.context(80, count=one_each))[:2] == ["system Be brief.", "user 0"]
    assert session.context(80, count=one_each).full
    assert not session.context(100, count=one_each).full


@pytest.mark.parametrize(
    ("options", "config"),
    [
        ({"max_tokens": 0}, {}),
        ({"max_tokens": -5}, {}),
        ({"max_tokens": 2**63}, {}),
        ({"max_tokens": float("nan")}, {}),
        ({"keep": -1}, {}),
        ({"threshold": float("nan")}, {}),
        ({"threshold": 1.01}, {}),
        ({}, {"max_context_length": "many"}),
        ({}, {"auto_compact_threshold": True}),
        ({}, {"system_prompt": 7}),
        ({"count": lambda _: -1}, {}),
        ({"count": lambda _: 1.5}, {}),
    ],
)
def test_what_is_out_of_range_is_refused(store: Store, options: dict[str, Any], config: dict[str, Any]) -> None:
    session = store.create("s", config=config)
    session.append(user("Hi"))
    with pytest.raises(Invalid):
        session.context(**options)


def test_a_call_is_never_parted_from_its_results(store: Store) -> None:
    session = store.create("s")
    session.append(user("go"), assistant("a", tool_call("c1", "t"), tool_call("c2", "t")))
    session.append(tool_result("c1", 1), tool_result("c2", 2), assistant("b"), user("more"))
    for room in range(1, 8):
        context = session.context(room, count=one_each)
        ids = [call.id for m in context.messages for call in m.tool_calls]
        results = [result.id for m in context.messages for result in m.tool_results]
        assert ids == results
        assert context.usage.used_tokens <= room
    assert told(session.context(4, count=one_each)) == ["assistant b", "user more"]
    assert kinds(session.context(4, count=one_each)) == [("cut", 3), ("cut", 4)]
    assert session.context(5, count=one_each).messages[0].text == "a"


def test_what_is_kept_brings_the_call_of_its_result(store: Store) -> None:
    session = store.create("s")
    session.append(user("go"), assistant("a", tool_call("c1", "t"), tool_call("c2", "t")))
    session.append(tool_result("c1", 1), tool_result("c2", 2))
    context = session.context(1, keep=1, count=one_each)
    assert told(context) == ["assistant a", "tool c1", "tool c2"]
    session.append(tool_result("ghost", 1))
    context = session.context(1, keep=1, count=one_each)  # there is no such call: nothing more is kept for it
    assert told(context) == []
    assert kinds(context) == [("cut", 5)]


def test_only_what_is_needed_is_read(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with holdfast.open(url) as store:
        session = store.create("s", config={"system_prompt": "Be brief."})
        for start in range(0, 100_000, 5000):
            said = [
                user(f"question {n} " * 10) if n % 2 else assistant("answer " * 10) for n in range(start, start + 5000)
            ]
            session.append(*said)
        counting = Counting(store, monkeypatch)
        context = session.context(8000)
        assert 7900 < context.usage.used_tokens <= 8000
        sent = len(context.messages)
        assert sent < counting.read < 3 * sent + 200
        summary = session.compact("long ago", upto=90_000)
        counting.read = 0
        context = session.context(2000)
        assert (context.summary, context.cut) == (summary.seq, True)
        assert counting.read < 200
        session.rewind(to=99_000)
        session.append(user("on we go"))
        counting.read = 0
        context = session.context(2000)
        assert context.summary == 0  # it was written behind what is left, and was taken back
        assert counting.read < 1000
        fork = session.fork(at=50_000)
        counting.read = 0
        assert fork.context(2000).last == 50_000
        assert counting.read < 1000


def test_a_summary_stands_for_what_is_before_it(store: Store) -> None:
    session = store.create("s")
    session.append(system("Be brief."), *(user(str(n)) for n in range(10)))
    event = session.compact("ten numbers", upto=8)
    assert (event.seq, event.type) == (12, "summary")
    assert (event.payload.start, event.payload.end) == (1, 8)
    assert next(session.events(last=1)) == event
    context = session.context()
    assert told(context) == ["system Be brief.", f"user {SUMMARY}ten numbers", "user 7", "user 8", "user 9"]
    assert context.seqs == (1, 0, 9, 10, 11)
    assert context.summary == 12
    assert len(session.messages()) == 11  # the originals stay
    session.append(user("10"))
    session.compact("eleven numbers", upto=12)
    assert told(session.context()) == ["system Be brief.", f"user {SUMMARY}eleven numbers", "user 10"]
    assert told(session.context(1, keep=0, count=one_each)) == ["system Be brief.", f"user {SUMMARY}eleven numbers"]
    assert store.check().ok


def test_compacting_up_to_where_the_context_says_keeps_the_newest(store: Store) -> None:
    session = store.create("s")
    session.append(
        system("x"), user("1"), assistant("", tool_call("c", "t")), tool_result("c"), assistant("2"), user("3")
    )
    context = session.context()
    assert [context.before(keep) for keep in range(7)] == [6, 5, 4, 2, 2, 0, 0]
    session.compact("so far", upto=context.before(2), seen=context.last)
    assert told(session.context())[-2:] == ["assistant 2", "user 3"]
    assert kinds(session.context()) == []


def test_a_summary_that_was_taken_back_does_not_count_until_it_is_shown_again(store: Store) -> None:
    session = store.create("s")
    session.append(*(user(str(n)) for n in range(4)))
    first = session.compact("four", upto=3)
    session.append(user("4"))
    second = session.compact("five", upto=6)
    assert session.context().summary == second.seq
    session.rewind(to=6)
    assert session.context().summary == first.seq
    assert told(session.context())[1:] == ["user 3", "user 4"]
    session.undo()
    assert session.context().summary == second.seq
    session.clear()
    assert session.context().messages == ()
    third = session.append(user("new")).first
    assert session.context().seqs == (third,)
    session.undo()
    assert session.context().summary == second.seq
    session.rewind(to=2)
    assert session.context().summary == 0
    fourth = session.compact("two", upto=2)
    assert (session.context().summary, fourth.payload.previous) == (fourth.seq, second.seq)
    session.rewind(to=fourth.seq - 1)
    session.undo()
    session.undo()
    assert session.context().summary == fourth.seq  # the newest counts, also if an older one stands for more


def test_a_summary_does_not_count_once_what_it_stands_for_is_otherwise(store: Store) -> None:
    session = store.create("s")
    session.append(*(user(str(n)) for n in range(4)))
    summary = session.compact("up to 3", upto=4)
    session.remove_last()  # hides 3, which the summary tells of
    assert told(session.context()) == ["user 0", "user 1", "user 2"]
    session.undo()
    assert session.context().summary == summary.seq
    session.rewind(to=1)
    session.append(user("other"))
    session.compact("0 and other", upto=session.last)
    session.undo()  # 1 to 3, and the first summary, are there again
    context = session.context()
    assert context.summary == summary.seq
    assert told(context)[1:] == ["user other"]


def test_compactions_that_are_behind_are_refused(store: Store) -> None:
    session = store.create("s")
    session.append(*(user(str(n)) for n in range(10)))
    for upto in (0, -1, 11, 2**63):
        with pytest.raises(Invalid, match="can't be compacted"):
            session.compact("x", upto=upto)
    with pytest.raises(Invalid, match="seen"):
        session.compact("x", upto=3, seen=99)
    with pytest.raises(Invalid, match="empty"):
        session.compact("", upto=3)
    session.compact("eight", upto=8)
    with pytest.raises(holdfast.Conflict, match="event 11") as caught:
        session.compact("five", upto=5)
    assert caught.value.seq == 11
    session.compact("eight, better", upto=8)
    assert session.context().summary == 12
    context = session.context()
    session.rewind(to=9)
    rev = session.info().rev
    with pytest.raises(holdfast.Stale, match="taken back"):
        session.compact("ten", upto=10, seen=context.last)
    assert session.info().rev == rev
    session.delete()
    with pytest.raises(holdfast.Deleted):
        session.compact("x", upto=1)


def test_a_turn_compacts_and_one_that_was_overtaken_does_not(store: Store) -> None:
    session = store.create("s")
    with session.turn() as turn:
        turn.append(user("1"))
        turn.compact("one", upto=turn.last)
        lost = store.get("s").turn()
    assert session.context().summary == 3
    assert lost.token == ""
    with pytest.raises(holdfast.LeaseLost):
        turn.compact("late", upto=2)
    with pytest.raises(holdfast.LeaseLost):
        turn.append(assistant("", tool_call("c", "t")))


def test_forks_read_the_summaries_up_to_where_they_begin(store: Store) -> None:
    session = store.create("s")
    session.append(*(user(str(n)) for n in range(4)))
    session.compact("two", upto=2)  # 5
    session.append(user("4"), user("5"))
    session.compact("six", upto=7)  # 8
    assert [session.fork(at=at).context().summary for at in (8, 7, 5, 4, 1, 0)] == [8, 5, 5, 0, 0, 0]
    inside = session.fork(at=6)  # in the middle of what the second stands for
    assert told(inside.context())[1:] == ["user 2", "user 3", "user 4"]
    assert inside.context().summary == 5
    session.clear()
    assert inside.context().summary == 5
    event = inside.compact("more", upto=6)
    assert (event.payload.previous, event.payload.start) == (5, 1)
    assert told(inside.context()) == [f"user {SUMMARY}more"]
    inside.rewind(to=3)
    assert told(inside.context()) == ["user 0", "user 1", "user 2"]
    grandchild = inside.fork(at=6)
    assert grandchild.context().summary == 5
    assert session.fork(at=3).context().summary == 0
    assert store.check().ok


def without_note(store: Store, session: Session) -> None:
    """As a version that did not note summaries left it."""
    from holdfast.plan import Commit

    store.backend.commit([Commit(ref=store.head(session.id).ref, tags={"summary": None})])


def test_summaries_that_nobody_noted_are_found(store: Store) -> None:
    session = store.create("s")
    session.append(*(user(str(n)) for n in range(3)), Summary(content="three"), user("3"))
    assert store.head("s").tags.get("summary") is None
    context = session.context()
    assert (context.summary, told(context)[1:]) == (4, ["user 3"])
    second = session.compact("four", upto=5)
    assert (second.payload.previous, store.head("s").tags["summary"]) == (4, "6")
    session.rewind(to=5)
    assert session.context().summary == 4
    session.rewind(to=3)
    assert session.context().summary == 0
    old = store.create("old")
    old.append(*(user(str(n)) for n in range(1000)))
    old.compact("half", upto=500)
    without_note(store, old)
    context = old.context(100, count=one_each)
    assert (context.summary, len(context.messages), context.cut) == (1001, 100, True)


def test_a_copy_reads_the_same_context(store: Store, tmp_path: Any) -> None:
    from holdfast.copies import copy_session

    session = store.create("s")
    session.append(*(user(str(n)) for n in range(4)))
    session.compact("two", upto=2)
    fork = session.fork(at=5)
    with holdfast.open(f"sqlite://{tmp_path}/other.db") as other:
        copy_session(store, other, fork.id)
        copied = other.get(fork.id)
        assert copied is not None
        assert copied.context() == fork.context()
        assert other.head(fork.id).tags["summary"] == "5"


def test_what_a_model_would_refuse_is_set_right_and_said(store: Store) -> None:
    session = store.create("s")
    session.append(
        user("go"),
        assistant("", tool_call("a", "t"), tool_call("b", "t")),
        user("wait"),
        tool_result("b", 2),
        tool_result("ghost", 0),
        tool_result("b", 3),
        assistant("", tool_call("b", "t")),
        step("t", output="done", call_id="b"),
    )
    context = session.context()
    assert told(context) == ["user go", "assistant", "tool b", "tool a", "user wait", "assistant", "tool b_2"]
    assert context.seqs == (1, 2, 4, 0, 3, 7, 0)
    answers = [result for m in context.messages for result in m.tool_results]
    assert [(r.response, r.is_error) for r in answers] == [(2, False), (INTERRUPTED, True), ("done", False)]
    assert kinds(context) == [
        ("dangling", 2), ("late", 4), ("orphan", 5), ("duplicate", 6), ("repeated_id", 7), ("dangling", 7),
    ]  # fmt: skip
    assert [(p.kind, p.seq) for p in session.validate()] == kinds(context)


def test_repair_answers_each_call_once_and_changes_nothing_else(store: Store) -> None:
    session = store.create("s")
    session.append(tool_result("e", "early"), assistant("", tool_call("e", "t"), tool_call("d", "t")), user("next"))
    before = list(session.events())
    done = session.repair()
    assert [m.tool_results[0].response for m in done.answers] == ["early", INTERRUPTED]
    assert (done.first, [p.kind for p in done.left]) == (4, ["orphan", "late", "late"])
    assert list(session.events())[:3] == before
    assert [p.kind for p in session.validate()] == ["orphan", "late", "late"]
    again = session.repair()
    assert (again.answers, again.first) == ((), 0)
    assert session.info().last == 5
    assert told(session.context()) == ["assistant", "tool e", "tool d", "user next"]


def test_repair_leaves_a_turn_that_runs_alone(store: Store) -> None:
    session = store.create("s")
    with session.turn() as turn:
        turn.append(assistant("", tool_call("c", "t")))
        with pytest.raises(holdfast.LeaseHeld):
            session.repair()
        assert [p.kind for p in turn.validate()] == ["dangling"]
        assert len(turn.repair().answers) == 1
    assert session.validate() == []
    with pytest.raises(holdfast.LeaseLost):
        turn.append(assistant("", tool_call("d", "t")))


def test_roles_that_can_not_call_or_answer(store: Store) -> None:
    session = store.create("s")
    session.append(
        message("critic", "hm", tool_call("c", "t")),
        Message(role="tool", parts=(holdfast.text("words"),)),
        Message(role="user", parts=(holdfast.ToolResult(id="c", response=1), holdfast.text("and"))),
        Message(role="assistant"),
        assistant("", holdfast.ToolCall(name="t"), holdfast.ToolCall(name="t")),
        holdfast.tool_result("", "first"),
    )
    context = session.context()
    assert told(context) == [
        "critic hm", "assistant", "tool c", "user words", "user and", "assistant", "tool call_5_1", "tool call_5_2",
    ]  # fmt: skip
    assert context.messages[1].name == "critic"
    assert {p.kind for p in context.problems} == {"speaker", "empty", "no_id", "late", "dangling"}


def test_damage_is_told_or_left_out(store: Store) -> None:
    from holdfast.plan import Commit, Entry

    session = store.create("s")
    session.append(user("a"))
    store.backend.commit([Commit(ref=store.head("s").ref, append=[Entry("", 1, b"{not json")])])
    session.append(user("b"))
    with pytest.raises(Corrupt):
        session.context()
    assert told(session.context(damaged="keep")) == ["user a", "user b"]


def test_an_append_between_reading_and_compacting_stays_behind_the_summary(store: Store) -> None:
    session = store.create("s")
    session.append(*(user(str(n)) for n in range(5)))
    context = session.context()
    other = store.get("s")
    assert other is not None
    other.append(user("meanwhile"))
    session.compact("five", upto=context.last)
    assert told(session.context())[1:] == ["user meanwhile"]


def test_many_compact_and_append_at_once(store: Store) -> None:
    from concurrent.futures import ThreadPoolExecutor

    session = store.create("s")
    session.append(*(user(str(n)) for n in range(5)))

    def work(number: int) -> None:
        mine = store.get("s")
        assert mine is not None
        for _ in range(5):
            mine.append(user(f"of {number}"))
            context = mine.context()
            try:
                mine.compact(f"up to {context.last}", upto=context.last)
            except holdfast.Conflict:  # a newer one stands for more
                continue

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    events = list(session.events(types="summary"))
    ends = [event.payload.end for event in events]
    assert ends == sorted(ends)
    assert [event.payload.previous for event in events] == [0, *(event.seq for event in events[:-1])]
    context = session.context()
    assert context.summary == events[-1].seq
    assert len(context.messages) == 1 + len(list(session.events(after=ends[-1], types="message")))


def test_large_values_are_counted_without_loading_and_a_large_summary_is_stored_once(store: Store) -> None:
    import io

    session = store.create("s")
    words = "many words " * 20_000
    session.append(user("see"), tool_result("c", words))
    session.append(assistant("", tool_call("c2", "t", {"text": words})))
    shown = session.messages()
    assert isinstance(shown[1].tool_results[0].response, Large)
    assert abs(estimate(shown[1]) - of_text(words)) < 0.02 * of_text(words)
    assert estimate(shown[2]) > 50_000
    session.compact(Large.from_stream(io.BytesIO(words.encode())), upto=3)
    (summary,) = session.context(1_000_000).messages
    assert summary.text == SUMMARY + words


def test_the_estimate_is_as_stated() -> None:
    assert of_text("") == 0
    assert of_text("a" * 400) == 100
    assert of_text("你好世界") == 4
    assert of_text("привет, мир") == 6
    assert estimate(user(holdfast.Blob(content="A" * 90_000, mime_type="image/png"))) == 1604
    assert estimate(user(holdfast.Uri(uri="https://x"))) == 1604
    assert estimate(user(holdfast.Blob(content="A" * 4000, mime_type="application/pdf"))) == 1004
    assert estimate(assistant("", tool_call("c", "look", {"a": 1}))) == 4 + 8 + 1 + 2


def test_steps_alone_are_no_messages(store: Store) -> None:
    session = store.create("s")
    session.append(Step(name="t", call_id="x"), Step(name="t"))
    assert session.context().messages == ()
    session.append(user("Hi"))
    assert not session.context().cut
    assert session.context(2, keep=0).cut
    assert session.validate() == []


def test_it_is_the_same_with_asyncio() -> None:
    async def use() -> None:
        async with holdfast.aopen("memory://") as store:
            session = await store.create("s")
            await session.append(user("a"), assistant("", tool_call("c", "t")))
            assert [p.kind for p in await session.validate()] == ["dangling"]
            assert len((await session.repair()).answers) == 1
            context = await session.context()
            event = await session.compact("a call", upto=context.last)
            assert isinstance(event, Event)
            assert (await session.context(count=one_each)).usage.used_tokens == 1

    asyncio.run(use())


RIVAL = """
import sys, holdfast
from holdfast import user
with holdfast.open(sys.argv[1]) as store:
    session = store.get("s")
    for number in range(20):
        session.append(user(f"{sys.argv[2]} {number}"))
        context = session.context()
        try:
            session.compact(f"up to {context.last}", upto=context.last)
        except holdfast.Conflict:
            pass
"""


@pytest.mark.parametrize("scheme", ["file://{}/store", "sqlite://{}/store.db"])
def test_processes_compact_and_append_at_once(scheme: str, tmp_path: Any) -> None:
    url = scheme.format(tmp_path)
    with holdfast.open(url) as store:
        session = store.create("s")
        session.append(user("first"))
        rivals = [subprocess.Popen([sys.executable, "-c", RIVAL, url, str(n)]) for n in range(2)]
        assert [rival.wait(timeout=120) for rival in rivals] == [0, 0]
        events = list(session.events(types="summary"))
        ends = [event.payload.end for event in events]
        assert ends == sorted(ends)
        assert [event.payload.previous for event in events] == [0, *(event.seq for event in events[:-1])]
        assert len(list(session.events(types="message"))) == 41
        context = session.context()
        assert context.summary == events[-1].seq
        assert len(context.messages) == 1 + len(list(session.events(after=ends[-1], types="message")))
        assert store.check().ok
