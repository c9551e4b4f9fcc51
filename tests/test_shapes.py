"""Messages in the shapes of model providers: what came from one returns equal, and nothing is lost unsaid."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given, strategies as st

import holdfast
import strict
from holdfast import (
    Blob,
    File,
    Invalid,
    Message,
    OtherPart,
    Reasoning,
    Store,
    Text,
    ToolCall,
    ToolResult,
    Uri,
    assistant,
    reasoning,
    system,
    tool_call,
    tool_result,
    user,
)
from holdfast.context.pairs import complete
from holdfast.formats import anthropic, openai, otel
from holdfast.formats.shapes import Shaped, difference, digest, patched

Json = dict[str, Any]


class Shape(NamedTuple):
    """A shape's two ways."""

    out: Callable[[Sequence[Message]], Shaped]
    back: Callable[[Shaped], list[Message]]


SHAPES = {
    "chat": Shape(openai.to_chat, openai.from_chat),
    "responses": Shape(openai.to_responses, openai.from_responses),
    "anthropic": Shape(
        anthropic.to_messages,
        lambda request: anthropic.from_messages(request, request.system),  # type: ignore[attr-defined]
    ),
    "otel": Shape(otel.to_messages, otel.from_messages),
}

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
WORD = st.text("abcdefg_-0123456789", min_size=1, max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
MIME = st.sampled_from(["image/png", "audio/wav", "application/pdf", "text/plain", "video/mp4", None])
MODALITY = st.sampled_from(["image", "audio", "video", None])
DATA = st.sampled_from(["aGk=", "AAAA", ""])
PART = st.one_of(
    st.builds(Text, content=TEXT),
    st.builds(Reasoning, content=TEXT, signature=st.none() | WORD),
    st.builds(ToolCall, id=st.none() | WORD | TEXT, name=WORD, arguments=JSON, timeout=st.sampled_from([None, 0, 5])),
    st.builds(
        ToolResult,
        id=st.none() | WORD | TEXT,
        response=JSON,
        name=st.none() | WORD,
        is_error=st.booleans(),
        duration=st.sampled_from([None, 7]),
    ),
    st.builds(Blob, content=DATA, mime_type=MIME, modality=MODALITY),
    st.builds(File, file_id=WORD, mime_type=MIME, modality=MODALITY),
    st.builds(Uri, uri=st.just("https://example.org/x"), mime_type=MIME, modality=MODALITY),
    st.builds(
        lambda kind, data: OtherPart(data={**data, "type": kind}),
        st.sampled_from(["x_new", "redacted_thinking", "image_url", "refusal", "web_search_call"]),
        st.dictionaries(WORD, JSON, max_size=2),
    ),
)
MESSAGE = st.builds(
    Message,
    role=st.sampled_from(["system", "developer", "user", "assistant", "tool", "critic"]),
    parts=st.lists(PART, max_size=4).map(tuple),
    name=st.none() | WORD,
    finish_reason=st.sampled_from([None, None, "stop"]),
)


def said(messages: Sequence[Message]) -> list[Any]:
    """Who says what, part by part, however it is cut into messages; a modality that is worked out is not told."""
    found: list[Any] = []
    for one in messages:
        for part in one.parts:
            who = "results" if isinstance(part, ToolResult) else (one.role, one.name)
            if isinstance(part, Blob | File | Uri):
                told = type(part).__name__, getattr(part, "content", ""), getattr(part, "uri", ""), part.mime_type
                found.append((who, told))
            else:
                found.append((who, part))
    return found


@pytest.mark.parametrize("name", SHAPES)
@given(messages=st.lists(MESSAGE, max_size=4))
def test_what_is_not_said_to_be_lost_comes_back(name: str, messages: list[Message]) -> None:
    shape = SHAPES[name]
    made = shape.out(messages)
    json.dumps(made, allow_nan=False)
    if not made.lost:
        assert same(said(shape.back(made)), said(messages))


SPOKEN = st.text("abc \n.é你", min_size=1, max_size=9).filter(str.strip)
ASKED = st.lists(st.tuples(WORD, st.dictionaries(TEXT, JSON, max_size=2), TEXT), max_size=3)
EXCHANGE = st.tuples(SPOKEN, SPOKEN, ASKED)


@pytest.mark.parametrize("name", SHAPES)
@given(exchanges=st.lists(EXCHANGE, max_size=3))
def test_a_usual_conversation_is_held_by_each_shape(name: str, exchanges: list[Any]) -> None:
    messages = [system("Be brief.")]
    for words, answer, calls in exchanges:
        asked = [tool_call(f"{id}_{len(messages)}_{n}", "t", args) for n, (id, args, _) in enumerate(calls)]
        messages += [user(words), assistant(answer, *asked)]
        messages += [tool_result(str(call.id), told) for call, (_, _, told) in zip(asked, calls, strict=True)]
        messages += [assistant("done")] if asked else []
    made = SHAPES[name].out(messages)
    assert made.lost == ()
    back = SHAPES[name].back(made)
    assert same(said(back), said(messages))
    assert name == "anthropic" or same(back, messages)


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types: True is not 1."""
    return repr(one) == repr(other)


@pytest.mark.parametrize("name", SHAPES)
@given(messages=st.lists(MESSAGE, max_size=4))
def test_what_came_from_a_shape_returns_to_it_equal(name: str, messages: list[Message]) -> None:
    shape = SHAPES[name]
    made = shape.out(messages)
    back = shape.back(made)
    again = shape.out(back)
    assert order_of_fields(again, made)
    assert order_of_fields(getattr(again, "system", []), getattr(made, "system", []))
    assert again.lost == () or name == "anthropic"


EXTRA = st.dictionaries(st.sampled_from(["id", "status", "cache_control", "x", "index"]), JSON, max_size=2)


def blocks(*kinds: tuple[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    one = [
        st.builds(lambda extra, kind, inner: {**extra, "type": kind, kind_of(kind): inner}, EXTRA, st.just(k), s)
        for k, s in kinds
    ]
    return st.lists(st.one_of(one), min_size=1, max_size=3)


def kind_of(kind: str) -> str:
    return {"input_text": "text", "output_text": "text", "input_image": "image_url", "input_file": "file_id"}.get(
        kind, kind
    )


URL = st.sampled_from(["https://example.org/a.png", "data:image/png;base64,aGk=", "data:,odd"])
CHAT_CONTENT = TEXT | blocks(
    ("text", TEXT),
    ("image_url", st.fixed_dictionaries({"url": URL}, optional={"detail": WORD})),
    ("input_audio", st.fixed_dictionaries({"data": DATA, "format": st.sampled_from(["wav", "mp3", "flac"])})),
    ("file", st.dictionaries(st.sampled_from(["file_id", "file_data", "filename"]), WORD | URL, max_size=3)),
    ("refusal", TEXT),
    ("x_new", JSON),
)
ARGUMENTS = JSON.map(json.dumps) | TEXT
FUNCTION = st.fixed_dictionaries({"name": WORD, "arguments": ARGUMENTS})
CHAT_CALL = st.one_of(
    st.builds(lambda id, f: {"id": id, "type": "function", "function": f}, WORD, FUNCTION),
    st.builds(lambda id, i: {"id": id, "type": "custom", "custom": {"name": "n", "input": i}}, WORD, TEXT),
)
CHAT_MESSAGE = st.one_of(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "developer"]), "content": CHAT_CONTENT}, optional={"name": WORD}
    ),
    st.fixed_dictionaries({"role": st.just("tool"), "tool_call_id": WORD, "content": TEXT | blocks(("text", TEXT))}),
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": st.none() | CHAT_CONTENT},
        optional={
            "tool_calls": st.lists(CHAT_CALL, max_size=2),
            "refusal": st.none() | TEXT,
            "function_call": FUNCTION,
            "reasoning_content": TEXT,
        },
    ),
)
ITEM = st.one_of(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "assistant", "system"]),
            "content": TEXT
            | blocks(("input_text", TEXT), ("output_text", TEXT), ("input_image", URL), ("input_file", WORD)),
        },
        optional={"type": st.just("message"), "id": WORD, "status": WORD},
    ),
    st.fixed_dictionaries(
        {"type": st.just("function_call"), "call_id": WORD, "name": WORD, "arguments": ARGUMENTS}, optional={"id": WORD}
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("function_call_output"),
            "call_id": WORD,
            "output": TEXT | blocks(("input_text", TEXT), ("input_image", URL)),
        },
        optional={"status": WORD},
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("reasoning"),
            "id": WORD,
            "summary": st.lists(st.fixed_dictionaries({"type": st.just("summary_text"), "text": TEXT}), max_size=2),
        },
        optional={"encrypted_content": st.none() | WORD},
    ),
    st.fixed_dictionaries({"type": st.sampled_from(["web_search_call", "item_reference", "x_new"]), "id": WORD}),
)
SOURCE = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("base64"), "media_type": st.sampled_from(["image/png", "application/pdf"]), "data": DATA}
    ),
    st.fixed_dictionaries({"type": st.just("url"), "url": URL}),
    st.fixed_dictionaries({"type": st.just("file"), "file_id": WORD}),
    st.fixed_dictionaries({"type": st.just("text"), "media_type": st.just("text/plain"), "data": TEXT}),
)
BLOCK = st.one_of(
    st.builds(lambda extra, text: {"type": "text", "text": text, **extra}, EXTRA, TEXT),
    st.builds(
        lambda kind, source, extra: {**extra, "type": kind, "source": source},
        st.sampled_from(["image", "document"]),
        SOURCE,
        EXTRA,
    ),
    st.fixed_dictionaries({"type": st.just("thinking"), "thinking": TEXT}, optional={"signature": TEXT}),
    st.fixed_dictionaries({"type": st.just("redacted_thinking"), "data": WORD}),
    st.fixed_dictionaries(
        {"type": st.just("tool_use"), "id": WORD, "name": WORD, "input": st.dictionaries(TEXT, JSON, max_size=2)},
        optional={"caller": JSON},
    ),
    st.fixed_dictionaries(
        {"type": st.just("tool_result"), "tool_use_id": WORD},
        optional={
            "content": TEXT | st.lists(st.builds(lambda t: {"type": "text", "text": t}, TEXT), max_size=2),
            "is_error": st.booleans(),
            "cache_control": JSON,
        },
    ),
    st.fixed_dictionaries({"type": st.just("x_new"), "x": JSON}),
)
TURN = TEXT.filter(str.strip) | st.lists(BLOCK, min_size=1, max_size=4)
OTEL_PART = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "content": TEXT}, optional={"x": JSON}),
    st.fixed_dictionaries({"type": st.just("reasoning"), "content": TEXT}),
    st.fixed_dictionaries(
        {"type": st.just("tool_call"), "name": WORD},
        optional={"id": st.none() | WORD, "arguments": JSON, "large": JSON},
    ),
    st.fixed_dictionaries({"type": st.just("tool_call_response"), "response": JSON}, optional={"id": st.none() | WORD}),
    st.fixed_dictionaries(
        {"type": st.just("blob"), "modality": WORD, "content": DATA},
        optional={"mime_type": st.none() | WORD, "transcript": TEXT},
    ),
    st.fixed_dictionaries({"type": st.just("file"), "modality": WORD, "file_id": WORD}),
    st.fixed_dictionaries({"type": st.just("uri"), "modality": WORD, "uri": WORD}),
    st.fixed_dictionaries({"type": st.sampled_from(["compaction", "server_tool_call", "x_new"]), "x": JSON}),
)


def returns(messages: list[Message]) -> list[Message]:
    """The messages, stored and read again."""
    with holdfast.open("memory://") as store:
        session = store.create("s")
        if messages:
            session.append(*messages)
        return session.messages()


@given(st.lists(CHAT_MESSAGE, max_size=4))
def test_chats_return_equal_also_by_way_of_a_store(raw: list[Json]) -> None:
    assert order_of_fields(openai.to_chat(returns(openai.from_chat(raw))), raw)


def order_of_fields(one: Any, other: Any) -> bool:
    """Equal as JSON, where the order of an object's fields says nothing."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@given(st.lists(ITEM, max_size=5))
def test_items_of_responses_return_equal(raw: list[Json]) -> None:
    assert order_of_fields(openai.to_responses(returns(openai.from_responses(raw))), raw)


@given(
    st.lists(TURN, max_size=4),
    st.none()
    | TEXT.filter(bool)
    | st.lists(st.builds(lambda t: {"type": "text", "text": t, "cache_control": {}}, TEXT), min_size=1, max_size=2),
)
def test_turns_of_anthropic_return_equal(turns: list[Any], prompt: Any) -> None:
    raw = [{"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(turns)]
    request = anthropic.to_messages(returns(anthropic.from_messages(raw, prompt)))
    assert order_of_fields(request, raw)
    told = [{"type": "text", "text": prompt}] if isinstance(prompt, str) else prompt or []
    assert order_of_fields(request.system, told)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"role": WORD, "parts": st.lists(OTEL_PART, max_size=3)},
            optional={"name": st.none() | WORD, "finish_reason": WORD, "x": JSON},
        ),
        max_size=3,
    )
)
def test_messages_of_opentelemetry_return_equal(raw: list[Json]) -> None:
    made = otel.to_messages(returns(otel.from_messages(raw)))
    assert order_of_fields(made, raw)
    assert made.lost == ()


@given(JSON, JSON)
def test_a_difference_turns_one_value_into_another(one: Any, other: Any) -> None:
    change = json.loads(json.dumps(difference(one, other)))
    assert order_of_fields(patched(one, change), other)
    assert difference(one, one) is None


@pytest.mark.parametrize(
    "junk",
    [
        7,
        None,
        "x",
        {},
        [7],
        [[]],
        [{}],
        [{"role": 7}],
        [{"role": "user", "content": [7], "parts": [7]}],
        [{"role": "user", "content": [{"type": "tool_call"}], "parts": [{"type": "text"}]}],
    ],
)
@pytest.mark.parametrize("back", [openai.from_chat, openai.from_responses, anthropic.from_messages, otel.from_messages])
def test_what_is_no_message_is_refused(back: Callable[[Any], Any], junk: Any) -> None:
    with pytest.raises(Invalid):
        back(junk)


CONVERSATION = [
    system("Be brief."),
    user("What is in it?", Blob(content="aGk=", mime_type="image/png", modality="image")),
    assistant(reasoning("An image."), "Let me look.", tool_call("c1", "look", {"at": 1}), tool_call("c2", "look", {})),
    Message(role="tool", parts=(ToolResult(id="c1", response="a cat"), ToolResult(id="c2", response="a dog"))),
    assistant("A cat and a dog."),
]


def test_a_conversation_in_each_shape() -> None:
    picture = "data:image/png;base64,aGk="
    look = [
        {"id": id, "type": "function", "function": {"name": "look", "arguments": a}}
        for id, a in (("c1", '{"at":1}'), ("c2", "{}"))
    ]
    chat = openai.to_chat(CONVERSATION)
    assert chat == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is in it?"},
                {"type": "image_url", "image_url": {"url": picture}},
            ],
        },
        {"role": "assistant", "content": "Let me look.", "tool_calls": look},
        {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
        {"role": "tool", "tool_call_id": "c2", "content": "a dog"},
        {"role": "assistant", "content": "A cat and a dog."},
    ]
    assert chat.lost == ((2, "a part of type reasoning", "left out"),)
    items = openai.to_responses(CONVERSATION)
    assert [item["type"] for item in items] == ["message"] * 3 + ["function_call"] * 2 + [
        "function_call_output"
    ] * 2 + ["message"]
    assert items[1]["content"][1] == {"type": "input_image", "detail": "auto", "image_url": picture}
    request = anthropic.to_messages(CONVERSATION)
    assert request.system == [{"type": "text", "text": "Be brief."}]
    assert [turn["role"] for turn in request] == ["user", "assistant", "user", "assistant"]
    assert request[2]["content"] == [
        {"type": "tool_result", "tool_use_id": "c1", "content": "a cat"},
        {"type": "tool_result", "tool_use_id": "c2", "content": "a dog"},
    ]
    assert otel.to_messages(CONVERSATION)[2]["parts"][0] == {"type": "reasoning", "content": "An image."}
    strict.chat(chat)
    strict.responses(items)
    strict.anthropic(request, request.system)


def test_what_is_sealed_returns_only_where_it_came_from() -> None:
    sealed = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "hm"}],
        "encrypted_content": "xyz",
    }
    bare = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
    (message,) = openai.from_responses([sealed])
    assert message.parts == (Reasoning(content="hm"),)
    assert openai.to_responses([message]) == [sealed]
    assert openai.to_responses(openai.from_responses([bare])) == [bare]
    assert anthropic.to_messages([message]) == []
    thinking = {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "redacted_thinking", "data": "d"},
        ],
    }
    (message,) = anthropic.from_messages([thinking])
    assert anthropic.to_messages([message])[1] == thinking
    made = openai.to_responses([message])
    assert made == []
    assert [lost.what for lost in made.lost] == [
        "a part of type reasoning",
        "a part of type redacted_thinking",
        "the message",
    ]


def test_a_message_that_was_changed_loses_its_rest_and_says_so() -> None:
    raw = {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "t", "arguments": "{ }"}}],
    }
    first, second = openai.from_chat([raw, raw])
    answered = complete([first, second])  # the second call gets an id of its own
    made = openai.to_chat(answered)
    assert made[0] == raw
    assert made[2]["tool_calls"][0]["id"] == "c_2"
    assert (2, "metadata['openai.chat']", "left out: the message was changed since it came from there") in made.lost
    strict.chat(made)


@pytest.mark.parametrize(
    "rest", [7, {"is": 7}, {"in": {"9": {"is": 1}}}, {"in": {"0": {"in": {"no": {}}}}}, {"is": [1]}]
)
def test_a_rest_that_is_none_of_ours_is_left_out(rest: Any) -> None:
    plain = openai.to_chat([user("Hi")])
    note = {"messages": 1, "of": digest(plain), "rest": rest}
    made = openai.to_chat([user("Hi", metadata={"openai.chat": note})])
    assert made == plain
    assert [lost.what for lost in made.lost] == ["metadata['openai.chat']"]


def test_large_values_are_loaded(store: Store) -> None:
    words = "many words " * 20_000
    session = store.create("s")
    session.append(
        user(words), assistant("", tool_call("c", "t", {"text": words})), tool_result("c", {"rows": [words]})
    )
    messages = session.messages()
    assert isinstance(messages[0].parts[0].content, holdfast.Large)  # type: ignore[union-attr]
    chat = openai.to_chat(messages)
    assert chat[0]["content"] == words
    assert json.loads(chat[1]["tool_calls"][0]["function"]["arguments"]) == {"text": words}
    assert json.loads(chat[2]["content"]) == {"rows": [words]}
    assert openai.to_responses(messages)[0]["content"][0]["text"] == words
    request = anthropic.to_messages(messages)
    assert request[1]["content"][0]["input"] == {"text": words}
    assert otel.to_messages(messages)[2]["parts"][0]["response"] == {"rows": [words]}
    picture = Blob(content="A" * 100_000, mime_type="image/png", modality="image")
    session.append(user(picture))
    assert anthropic.to_messages(session.messages(last=1))[0]["content"][0]["source"]["data"] == "A" * 100_000
    raw = [{"role": "user", "content": words, "x": 1}]
    session.append(*openai.from_chat(raw))
    assert openai.to_chat(session.messages(last=1)) == raw
