"""What the model providers refuse, written down from their documentation alone: strict about each rule.

Each function raises AssertionError with the rule that is broken. Nothing of holdfast is used.
"""

from __future__ import annotations

import json
import re
from typing import Any

Json = dict[str, Any]


def chat(messages: list[Json]) -> None:
    """OpenAI chat completions: an assistant's tool_calls are followed by a tool message for each, and nothing else."""
    seen: set[str] = set()
    waiting: set[str] = set()
    for item in messages:
        role, content = item["role"], item.get("content")
        assert role in ("system", "developer", "user", "assistant", "tool"), f"role {role}"
        if role == "tool":
            assert item["tool_call_id"] in waiting, "a tool message answers a call of the assistant before it"
            waiting.remove(item["tool_call_id"])
            assert isinstance(content, str) or all(block["type"] == "text" for block in content)
            continue
        assert not waiting, f"calls without a tool message: {waiting}"
        if role == "assistant":
            assert content or content == "" or item.get("tool_calls"), "an assistant says or calls something"
            if isinstance(content, list):
                assert {block["type"] for block in content} <= {"text", "refusal"}
            for call in item.get("tool_calls", ()):
                assert call["type"] == "function"
                assert isinstance(call["id"], str)
                assert call["id"], "a call has an id"
                assert call["id"] not in seen, "ids are used once"
                assert isinstance(call["function"]["name"], str)
                assert isinstance(call["function"]["arguments"], str)
                seen.add(call["id"])
                waiting.add(call["id"])
            assert item.get("tool_calls", True), "tool_calls is not empty"
        else:
            assert isinstance(content, str) or content, "content is text or a list that is not empty"
            assert "tool_calls" not in item
            if role != "user" and isinstance(content, list):
                assert {block["type"] for block in content} == {"text"}
    assert not waiting, f"calls without a tool message: {waiting}"


def responses(items: list[Json]) -> None:
    """OpenAI responses: each function_call has one output, behind it, before anybody else speaks."""
    called: set[str] = set()
    waiting: set[str] = set()
    for item in items:
        kind = item["type"]
        if kind == "function_call":
            assert item["call_id"], "a call has an id"
            assert item["call_id"] not in called, "ids are used once"
            assert isinstance(item["name"], str)
            assert isinstance(item["arguments"], str)
            called.add(item["call_id"])
            waiting.add(item["call_id"])
        elif kind == "function_call_output":
            assert item["call_id"] in waiting, "an output answers an open call"
            waiting.remove(item["call_id"])
            assert isinstance(item["output"], str) or item["output"]
        elif kind == "message":
            assert item["role"] in ("system", "developer", "user", "assistant")
            if item["role"] != "assistant":
                assert not waiting, f"calls without an output: {waiting}"
            assert item["content"], "content is not empty"
            text = "output_text" if item["role"] == "assistant" else "input_text"
            for block in item["content"]:
                assert block["type"] in (text, "refusal", "input_image", "input_file")
        else:
            assert kind == "reasoning", f"item {kind}"
            assert item["id"]
    assert not waiting, f"calls without an output: {waiting}"


def anthropic(messages: list[Json], system: list[Json]) -> None:
    """Anthropic: turns alternate from the user on; each tool_use is answered at the start of the next message."""
    for block in system:
        assert block["type"] == "text"
        assert block["text"].strip(), "text is not blank"
    called: set[str] = set()
    waiting: list[str] = []
    for place, item in enumerate(messages):
        assert item["role"] == ("user", "assistant")[place % 2], "turns alternate, the user begins"
        content = item["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        assert blocks, "content is not empty"
        answered: list[str] = []
        said = False
        for block in blocks:
            if block["type"] == "tool_result":
                assert item["role"] == "user"
                assert not said, "results stand first"
                answered.append(block["tool_use_id"])
                assert isinstance(block.get("content", ""), str | list)
            else:
                said = True
            if block["type"] == "text":
                assert block["text"].strip(), "text is not blank"
            if block["type"] == "thinking":
                assert block["signature"], "thinking is signed"
        assert sorted(answered) == sorted(waiting), "each call is answered once, in the next message"
        waiting = []
        for block in blocks:
            if block["type"] == "tool_use":
                assert item["role"] == "assistant"
                assert re.fullmatch(r"[a-zA-Z0-9_-]+", block["id"]), "ids are of letters, digits, _ and -"
                assert block["id"] not in called, "ids are used once"
                assert isinstance(block["input"], dict)
                called.add(block["id"])
                waiting.append(block["id"])
    assert not waiting, "each call is answered"


def plain(value: Any) -> Any:
    """That it is JSON, and what comes out of it."""
    return json.loads(json.dumps(value))
