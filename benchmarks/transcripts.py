"""Transcripts as Claude Code and Codex CLI write them, made up from the corpus: the same lines, fields and doubling."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.corpus import Corpus

LINES = 400
"""Records of one file, about."""
_START = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Writer:
    """Makes transcript files below a home folder until they take so many bytes."""

    def __init__(self, home: Path, corpus: Corpus | None = None) -> None:
        self._home = home
        self._corpus = corpus or Corpus(11)
        self._numbers = itertools.count(1)

    def write(self, size: int) -> int:
        """Write files of `size` bytes in all, at least; their bytes. Three of four are Claude Code's."""
        done = 0
        for path, records in self.files():
            path.parent.mkdir(parents=True, exist_ok=True)
            data = b"".join(msgspec.json.encode(record) + b"\n" for record in records)
            path.write_bytes(data)
            done += len(data)
            if done >= size:
                break
        return done

    def files(self) -> Iterator[tuple[Path, Iterator[dict[str, Any]]]]:
        """Files without an end: where each belongs, and its records."""
        for number in itertools.count():
            yield self._codex(number) if number % 4 == 3 else self._claude(number)

    def _id(self) -> str:
        return str(uuid.UUID(int=0x1A2B << 112 | next(self._numbers), version=4))

    def _at(self, step: int) -> str:
        return (_START + timedelta(seconds=7 * step)).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def _prose(self) -> str:
        return self._corpus.cut(self._corpus.prose, self._corpus.size())

    def _code(self) -> str:
        return self._corpus.cut(self._corpus.code, self._corpus.size())

    def _claude(self, number: int) -> tuple[Path, Iterator[dict[str, Any]]]:
        session = self._id()
        project = f"-home-ada-project-{number % 10}"
        return self._home / ".claude" / "projects" / project / f"{session}.jsonl", self._claude_records(session, number)

    def _claude_records(self, session: str, number: int) -> Iterator[dict[str, Any]]:
        parent: str | None = None
        common = {
            "isSidechain": False, "userType": "external", "cwd": f"/home/ada/project-{number % 10}",
            "sessionId": session, "version": "2.0.14", "gitBranch": "main",
        }  # fmt: skip
        for step in range(LINES // 4):
            call = f"toolu_{self._id()}"
            for kind, body in self._claude_turn(step, call):
                id = self._id()
                yield {
                    "parentUuid": parent, **common, "type": kind, **body, "uuid": id, "timestamp": self._at(step),
                }  # fmt: skip
                parent = id

    def _claude_turn(self, step: int, call: str) -> Iterator[tuple[str, dict[str, Any]]]:
        answer, request = f"msg_{self._id()}", f"req_{self._id()}"
        usage = {
            "input_tokens": 4, "cache_creation_input_tokens": 1200 + step, "cache_read_input_tokens": 18_000 + step,
            "cache_creation": {"ephemeral_5m_input_tokens": 1200, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 210 + step, "service_tier": "standard",
        }  # fmt: skip
        if step % 5 == 0:
            yield "user", {"message": {"role": "user", "content": self._prose()}}
        command = self._code()[:200]
        for part in (
            {"type": "text", "text": self._prose()},
            {"type": "tool_use", "id": call, "name": "Bash", "input": {"command": command, "description": "Look"}},
        ):
            message = {
                "id": answer, "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "content": [part],
                "stop_reason": "tool_use", "stop_sequence": None, "usage": usage,
            }  # fmt: skip
            yield "assistant", {"message": message, "requestId": request}
        output = self._code()
        result = {"tool_use_id": call, "type": "tool_result", "content": output, "is_error": False}
        shown = {"stdout": output, "stderr": "", "interrupted": False, "isImage": False}
        yield "user", {"message": {"role": "user", "content": [result]}, "toolUseResult": shown}

    def _codex(self, number: int) -> tuple[Path, Iterator[dict[str, Any]]]:
        session = self._id()
        folder = self._home / ".codex" / "sessions" / "2026" / "01" / f"{number % 28 + 1:02}"
        path = folder / f"rollout-2026-01-31T12-00-00-{session}.jsonl"
        return path, self._codex_records(session, number)

    def _codex_records(self, session: str, number: int) -> Iterator[dict[str, Any]]:
        meta = {
            "id": session, "timestamp": self._at(0), "cwd": f"/home/ada/project-{number % 10}",
            "originator": "codex_cli_rs", "cli_version": "0.106.0", "source": "cli", "model_provider": "openai",
        }  # fmt: skip
        yield {"timestamp": self._at(0), "type": "session_meta", "payload": meta}
        yield {
            "timestamp": self._at(0), "type": "turn_context",
            "payload": {"cwd": meta["cwd"], "approval_policy": "never", "model": "gpt-5.2", "effort": "high"},
        }  # fmt: skip
        for step in range(LINES // 6):
            for kind, payload in self._codex_turn(step):
                yield {"timestamp": self._at(step), "type": kind, "payload": payload}

    def _codex_turn(self, step: int) -> Iterator[tuple[str, dict[str, Any]]]:
        said, call = self._prose(), f"call_{self._id()}"
        if step % 5 == 0:
            asked = self._prose()
            yield "response_item", _codex_message("user", "input_text", asked)
            yield "event_msg", {"type": "user_message", "message": asked, "images": []}
        yield "event_msg", {"type": "agent_message", "message": said}
        yield "response_item", _codex_message("assistant", "output_text", said)
        arguments = msgspec.json.encode({"command": ["bash", "-lc", self._code()[:200]]}).decode()
        yield "response_item", {"type": "function_call", "name": "shell", "arguments": arguments, "call_id": call}
        output = msgspec.json.encode({"output": self._code(), "metadata": {"exit_code": 0, "duration_seconds": 0.1}})
        yield "response_item", {"type": "function_call_output", "call_id": call, "output": output.decode()}
        used = {
            "input_tokens": 12_000 + step, "cached_input_tokens": 10_000, "output_tokens": 180,
            "reasoning_output_tokens": 60, "total_tokens": 12_180 + step,
        }  # fmt: skip
        info = {"total_token_usage": used, "last_token_usage": used, "model_context_window": 258_400}
        yield "event_msg", {"type": "token_count", "info": info}


def _codex_message(role: str, part: str, text: str) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": [{"type": part, "text": text}]}
