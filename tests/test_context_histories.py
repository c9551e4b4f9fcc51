"""Random histories of tool calls, with rewinds, summaries and repairs: strict providers take each context."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st

import holdfast
import strict
from holdfast import (
    Message,
    Problem,
    Session,
    Text,
    ToolCall,
    ToolResult,
    assistant,
    message,
    note,
    step,
    system,
    tool_call,
    user,
)
from holdfast.formats import anthropic, openai, otel
from holdfast.turns.recovery import left_open

IDS = st.sampled_from(["a", "b", "c", "a.b", "", None, "a_2"])
WORDS = st.sampled_from(["", " ", "hello", "some more words to say", "你好"])
CALL = st.builds(
    lambda id, args: ToolCall(id=id, name="tool", arguments=args),
    IDS,
    st.sampled_from([None, {}, {"n": 1}, "{bad", [1]]),
)
RESULT = st.builds(
    lambda id, response, bad: ToolResult(id=id, response=response, is_error=bad),
    IDS,
    st.sampled_from([None, "done", {"a": [1]}, "", 7]),
    st.booleans(),
)
PARTS = st.lists(st.one_of(CALL, RESULT, st.builds(lambda w: Text(content=w), WORDS)), max_size=4).map(tuple)

ROLES = st.sampled_from(["user", "assistant", "tool", "system", "critic"])
SAID = st.one_of(
    st.builds(user, WORDS),
    st.builds(assistant, WORDS),
    st.builds(system, WORDS),
    st.builds(lambda calls: Message(role="assistant", parts=tuple(calls)), st.lists(CALL, min_size=1, max_size=3)),
    st.builds(lambda results: Message(role="tool", parts=tuple(results)), st.lists(RESULT, min_size=1, max_size=3)),
    st.builds(lambda role, parts: message(role, *parts), ROLES, PARTS),
    st.builds(lambda id, bad: step("tool", output="did it", call_id=id, is_error=bad), IDS, st.booleans()),
    st.just(note("between")),
)  # fmt: skip
NUMBER = st.floats(0, 1)
DONE = st.one_of(
    SAID,
    SAID,
    SAID,
    st.tuples(st.just("rewind"), NUMBER),
    st.tuples(st.sampled_from(["undo", "remove_last", "recover", "repair", "fork"]), NUMBER),
    st.tuples(st.just("compact"), NUMBER),
)


def do(session: Session, action: str, where: float) -> Session:
    last = session.info().last
    if action == "rewind":
        session.rewind(to=int(last * where))
    elif action == "undo":
        session.undo()
    elif action == "remove_last":
        session.remove_last()
    elif action == "repair":
        session.repair()
        assert "dangling" not in {problem.kind for problem in session.validate()}
    elif action == "recover":
        if answers := left_open(session, None).answers:
            session.append(*answers)
    elif action == "fork":
        return session.fork(at=int(last * where) if where > 0.5 else last)
    elif last:
        with contextlib.suppress(holdfast.Conflict):  # a newer one stands for more
            session.compact("what was", upto=max(1, int(last * where)), seen=last)
    return session


def check(session: Session, room: int, keep: int) -> None:
    context = session.context(room, keep=keep)
    assert len(context.seqs) == len(context.messages)
    strict.chat(strict.plain(openai.to_chat(context.messages)))
    strict.responses(strict.plain(openai.to_responses(context.messages)))
    request = anthropic.to_messages(context.messages)
    strict.anthropic(strict.plain(request), strict.plain(request.system))
    strict.plain(otel.to_messages(context.messages))
    upto = context.before(keep)
    if upto and not context.cut:
        fork = session.fork()
        event = fork.compact("what was", upto=upto, seen=context.last)
        rest = fork.context()
        assert rest.summary == event.seq
        assert len([seq for seq in rest.seqs if seq > upto]) >= min(
            keep, len([seq for seq in context.seqs if seq > upto])
        )
        assert loose(rest.problems) <= loose(context.problems)  # no call was parted from its results


def loose(problems: Sequence[Problem]) -> int:
    return sum(problem.kind in ("orphan", "duplicate", "cut") for problem in problems)


@settings(max_examples=500)
@given(st.lists(DONE, max_size=25), st.sampled_from([1, 20, 60, 200, 10_000]), st.integers(0, 4))
@example([assistant("", tool_call("a", "t")), ("rewind", 0.0), user("x"), ("undo", 0.0)], 10_000, 1)
def test_a_context_is_taken_by_strict_providers(done: list[Any], room: int, keep: int) -> None:
    with holdfast.open("memory://") as store:
        session = store.create("s")
        for one in done:
            if isinstance(one, tuple):
                session = do(session, *one)
            else:
                session.append(one)
        check(session, room, keep)
        check(session, 10_000, 1)
        session.repair()
        check(session, room, keep)
        assert not {"dangling", "early"} & {problem.kind for problem in session.validate()}
        assert store.check().ok


CALLED = {"id": "a", "type": "function", "function": {"name": "", "arguments": ""}}


@pytest.mark.parametrize(
    ("items", "rule"),
    [
        ([{"role": "tool", "tool_call_id": "a", "content": ""}], "answers a call"),
        ([{"role": "assistant", "tool_calls": [CALLED]}], "without"),
    ],
)
def test_the_strict_providers_do_refuse(items: list[Any], rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        strict.chat(items)
    with pytest.raises(AssertionError):
        strict.anthropic([{"role": "assistant", "content": "x"}], [])
    with pytest.raises(AssertionError):
        strict.anthropic([{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a"}]}], [])
    with pytest.raises(AssertionError):
        strict.responses([{"type": "function_call", "call_id": "a", "name": "", "arguments": ""}])
