"""Transcripts of Claude Code: `~/.claude/projects/<project>/<session>.jsonl`, one JSON object a line, linked by uuid.

How its lines map:
- One file is one session, named by the file where that is a UUID, else by the first `sessionId` in it. A subagent's
  file (`<session>/subagents/agent-*.jsonl`, formerly `agent-*.jsonl` beside) is a session of its own, whose parent is
  the main one. Sidechain lines inside a main file (old versions) stay in it, marked `sidechain` in their metadata.
- A resumed or forked file begins with a copy of another session's lines. They are imported where they stand; the
  parent is told by `forkedFrom`, by the first message that both files share, or by the foreign `sessionId`s.
- The lines of one response share `message.id`, and each repeats the usage, which may still grow. It is counted once,
  when another response begins or the file ends; where it grows after that, one more event counts the difference.
  `input_tokens` is the sum of the program's `input_tokens`, `cache_creation_input_tokens`, `cache_read_input_tokens`.
- Each line of a response is a message of its own (its `response_id` and `uuid` are in the metadata). Results of tools
  have the role `tool`; their duration is what the program measured, else the time since the call.
- A summary of what was compacted is a `summary` event; what is no part of the conversation is `x.claude_code.<type>`.
- A `summary` line is the title of the session that holds the message `leafUuid`, often another one (see `titles`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from holdfast.errors import HoldfastError
from holdfast.formats.lines import open_source
from holdfast.formats.responses import Responses
from holdfast.formats.transcript import (
    CHOSEN,
    COMMAND,
    GENERATED,
    SUMMARY,
    WORDS,
    Calls,
    Draft,
    Facts,
    Line,
    Origin,
    as_title,
    kept,
    listing,
    mapping,
    micros,
    newer_half,
    string,
    texts,
)
from holdfast.model import (
    AnyPart,
    AnyPayload,
    Blob,
    File,
    Message,
    OtherPart,
    Reasoning,
    Summary,
    Text,
    ToolCall,
    ToolResult,
    Uri,
)

PROGRAM = "claude-code"
NAME = "claude_code"

_ASIDE = """
agent-name ai-title attachment bridge-session custom-title file-history-snapshot frame-link last-prompt mode
permission-mode pr-link progress queue-operation relocated result started summary system tag worktree-state
"""
ASIDE = frozenset(_ASIDE.split())
"""Types of lines that are known and are no part of the conversation."""
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_NOT_SAID = re.compile(
    r"\s*(<(command-|local-command|system-reminder|task-notification|bash-|ide_|user-prompt-submit-hook|user-memory)"
    r"|Caveat: The messages below|\[Request interrupted|This session is being continued)"
)
"""How text begins that stands in a user message and that no user wrote."""
_COMMAND = re.compile(r"<command-name>\s*(/?[^<]{1,200}?)\s*</command-name>")
RECENT = 10_000
"""Messages back to which a summary may point within its file."""
TITLES = 1000
"""Titles of other sessions' messages that are followed from one file; more are only kept."""


def is_record(record: Mapping[str, Any]) -> bool:
    """Whether a JSON object is a line of such a transcript."""
    kind = record.get("type")
    if not isinstance(kind, str) or "payload" in record:
        return False
    if kind in ("user", "assistant"):
        return isinstance(record.get("message"), dict) and ("sessionId" in record or "uuid" in record)
    return "sessionId" in record or ("leafUuid" in record) or (kind == "file-history-snapshot" and "snapshot" in record)


def origin_of(path: str, head: Sequence[Mapping[str, Any]]) -> Origin:
    """Whom a file belongs to, by its path and its first lines."""
    folder, name = os.path.split(os.path.abspath(path))
    stem = name.removesuffix(".jsonl")
    named = next((id for record in head if (id := string(record.get("sessionId")))), None)
    if stem.startswith("agent-"):
        parent = _main_of(folder) or (named if named != stem else None)
        id = f"{parent}/{stem}" if parent else stem
        return Origin(
            id=id, parent=parent, subagent=True, copies=False, about=_about(path.removesuffix(".jsonl") + ".meta.json")
        )
    id = stem if _UUID.fullmatch(stem) else named or stem
    return Origin(id=id, parent=_forked_from(head), root=root_of(head))


def _about(path: str) -> dict[str, str]:
    """What stands beside a subagent's file about it."""
    try:
        with open_source(path) as file:
            record = mapping(msgspec.json.decode(file.read(1 << 16)))
    except (OSError, HoldfastError, msgspec.MsgspecError):
        return {}
    named = {"agent_type": record.get("agentType"), "agent_description": record.get("description")}
    return {key: value for key, value in named.items() if isinstance(value, str)}


def _main_of(folder: str) -> str | None:
    """The session in whose folder of subagents a file lies."""
    parts = folder.split(os.sep)
    return parts[parts.index("subagents") - 1] if "subagents" in parts[1:] else None


def _forked_from(head: Sequence[Mapping[str, Any]]) -> str | None:
    return next((id for record in head if (id := string(mapping(record.get("forkedFrom")).get("sessionId")))), None)


def root_of(head: Sequence[Mapping[str, Any]]) -> str | None:
    """What names the first message."""
    for record in head:
        if record.get("type") in ("user", "assistant") and (uuid := string(record.get("uuid"))):
            return f"{uuid} {record.get('timestamp')}"  # a copy keeps both
    return None


class ClaudeCodeReader:
    """Reads one file; see the module for what becomes of its lines."""

    def __init__(self, origin: Origin) -> None:
        self.facts = Facts(origin.parent)
        self.facts.note(**origin.about)
        self.unknown: dict[str, int] = {}
        self._origin = origin
        self._copying = origin.parent is None  # until a line of its own comes, where nothing else told the parent
        self._calls = Calls()
        self._noted: tuple[object, object] = (None, None)
        self._recent: dict[str, None] = {}
        self._responses = Responses()

    def take(self, line: Line) -> list[Draft]:
        """What a line becomes."""
        record = line.value
        kind = string(record.get("type"))
        self._learn(record)
        if kind in ("user", "assistant"):
            said = self._user(record, line) if kind == "user" else self._assistant(record, line)
            counted = self._responses.take(record, line.at) if kind == "assistant" else []
            return [Draft(said, line.at), *counted]
        payload = self._aside(record, line)
        return [Draft(payload, line.at)]

    def flush(self) -> list[Draft]:
        """The usage of the response that is open at the end of the file."""
        return self._responses.close()

    def _learn(self, record: dict[str, Any]) -> None:
        facts = self.facts
        said = (record.get("gitBranch"), record.get("version"))
        if said != self._noted:
            self._noted = said
            facts.note(git_branch=said[0], version=said[1])
        if "cwd" not in facts.metadata:
            facts.note(cwd=record.get("cwd") or record.get("project"))
        if self._origin.subagent:
            facts.note_first(agent_id=record.get("agentId"))
        elif self._copying and record.get("type") in ("user", "assistant") and (of := string(record.get("sessionId"))):
            self._copying = of != self._origin.id
            if self._copying:
                facts.parent = of
        uuid = string(record.get("uuid"))
        if uuid is None:
            return
        self._recent[uuid] = None
        if len(self._recent) > 2 * RECENT:
            self._recent = newer_half(self._recent)
        if facts.titles and (title := facts.titles.pop(uuid, None)):
            facts.name(title, SUMMARY)

    def _aside(self, record: dict[str, Any], line: Line) -> AnyPayload:
        kind = string(record.get("type"))
        if kind == "tool_use":  # versions before 2 wrote calls and results as lines of their own
            call = self._call({**record, "id": record.get("id") or record.get("tool_use_id")}, line.at)
            return Message(role="assistant", parts=(call,), metadata=_links(record), source=line.source)
        if kind == "tool_result":
            response = record.get("output", record.get("content"))
            result = self._result({**record, "content": response}, {}, line.at)
            return Message(role="tool", parts=result, metadata=_links(record), source=line.source)
        if kind == "attachment" and (queued := self._queued(record, line)) is not None:
            return queued
        if kind == "custom-title":
            self.facts.name(record.get("customTitle"), CHOSEN)
        elif kind == "ai-title":
            self.facts.name(record.get("aiTitle"), GENERATED)
        elif kind == "summary":
            self._summary(record)
        elif kind not in ASIDE:
            name = kind or "untyped"
            self.unknown[name] = self.unknown.get(name, 0) + 1
        return kept(NAME, kind, record, line.source)

    def _summary(self, record: dict[str, Any]) -> None:
        """A summary names the message it ends at, which may be in another session's file."""
        leaf, words = string(record.get("leafUuid")), string(record.get("summary"))
        if leaf in self._recent:
            self.facts.name(words, SUMMARY)
        elif leaf and (title := as_title(words or "")) and len(self.facts.titles) < TITLES:
            self.facts.titles[leaf] = title

    def _queued(self, record: dict[str, Any], line: Line) -> Message | None:
        """What the user wrote while the agent was at work."""
        attachment = mapping(record.get("attachment"))
        if attachment.get("type") != "queued_command" or attachment.get("commandMode") not in (None, "prompt"):
            return None
        return self._said(attachment.get("prompt"), {**_links(record), "queued": True}, line, record)

    def _user(self, record: dict[str, Any], line: Line) -> AnyPayload:
        message = mapping(record.get("message"))
        content = message.get("content")
        links = _links(record)
        if record.get("isCompactSummary") is True:
            words = content if isinstance(content, str) else texts(listing(content), "text")
            return Summary(content=words, metadata=links, source=line.source)
        if any(str(mapping(part).get("type")).endswith("tool_result") for part in listing(content)):
            outcome = record.get("toolUseResult")
            results = [p for part in listing(content) for p in self._result_or_part(part, mapping(outcome), line.at)]
            return Message(role="tool", parts=tuple(results), metadata=links, source=line.source)
        return self._said(content, links, line, record)

    def _said(self, content: object, links: dict[str, Any], line: Line, record: dict[str, Any]) -> Message:
        parts = _parts(content)
        words = [str(part.content) for part in parts if isinstance(part, Text)]
        own = [text for text in words if text.strip() and not _NOT_SAID.match(text)]
        if record.get("isMeta") is True or (words and not own):
            links["meta"] = True
            if not record.get("isMeta") and (command := _COMMAND.search(words[0])):
                self.facts.name(command[1], COMMAND)
        elif own and not (record.get("isSidechain") is True and not self._origin.subagent):
            self.facts.name(own[0], WORDS)
        return Message(role="user", parts=parts, metadata=links, source=line.source)

    def _assistant(self, record: dict[str, Any], line: Line) -> Message:
        message = mapping(record.get("message"))
        links = _links(record)
        for key, value in (("model", message.get("model")), ("response_id", message.get("id"))):
            if word := string(value):
                links[key] = word
        if record.get("isApiErrorMessage") is True:
            links["api_error"] = True
        content = message.get("content")
        parts = (
            [Text(content=content)] if isinstance(content, str) else [self._part(p, line.at) for p in listing(content)]
        )
        return Message(
            role="assistant",
            parts=tuple(parts),
            finish_reason=string(message.get("stop_reason")),
            metadata=links,
            source=line.source,
        )

    def _part(self, part: Any, at: int | None) -> AnyPart:
        return self._call(part, at) if _is_call(part) else _part(part)

    def _call(self, part: dict[str, Any], at: int | None) -> ToolCall:
        id, name = string(part.get("id")), string(part.get("name")) or ""
        self._calls.began(id, name, at)
        return ToolCall(id=id, name=name, arguments=part.get("input"))

    def _result_or_part(self, part: Any, outcome: dict[str, Any], at: int | None) -> Sequence[AnyPart]:
        if str(mapping(part).get("type")).endswith("tool_result"):
            return self._result(part, outcome, at)
        return (_part(part),)

    def _result(self, part: dict[str, Any], outcome: dict[str, Any], at: int | None) -> tuple[AnyPart, ...]:
        """A result: its words as the response, its pictures as parts behind it."""
        id, content = string(part.get("tool_use_id")), part.get("content")
        measured = micros(outcome.get("durationMs", outcome.get("totalDurationMs")), 1000)
        if measured is None:
            measured = micros(outcome.get("durationSeconds"), 1_000_000)
        name, duration = self._calls.ended(id, at, measured)
        pictures: list[AnyPart] = []
        if blocks := listing(content):
            pictures = [_part(block) for block in blocks if mapping(block).get("type") == "image"]
            if len(pictures) + sum(mapping(block).get("type") == "text" for block in blocks) == len(blocks):
                content = texts(blocks, "text")
        result = ToolResult(
            id=id,
            response=content,
            name=name or string(part.get("name")),
            is_error=part.get("is_error") is True or outcome.get("is_error") is True,
            duration=duration,
        )
        return (result, *pictures)


def _links(record: dict[str, Any]) -> dict[str, Any]:
    """Where a message hangs in the program's own tree."""
    links: dict[str, Any] = {}
    for name, key in (("uuid", "uuid"), ("parent_uuid", "parentUuid")):
        if isinstance(value := record.get(key), str):
            links[name] = value
    if record.get("isSidechain") is True:
        links["sidechain"] = True
    return links


def _is_call(part: Any) -> bool:
    kind = mapping(part).get("type")
    return isinstance(kind, str) and kind.endswith("tool_use")


def _parts(content: object) -> tuple[AnyPart, ...]:
    if isinstance(content, str):
        return (Text(content=content),)
    return tuple(_part(part) for part in listing(content))


def _part(part: Any) -> AnyPart:
    """A content block as a part; one of a type that is not known keeps all its fields."""
    block = mapping(part)
    kind = block.get("type")
    if kind == "text" and isinstance(block.get("text"), str):
        return Text(content=block["text"])
    if kind == "thinking" and isinstance(block.get("thinking"), str):
        return Reasoning(content=block["thinking"], signature=string(block.get("signature")))
    if kind == "redacted_thinking":
        return Reasoning(content="", signature=string(block.get("data")))
    if kind in ("image", "document") and (held := _held(kind, mapping(block.get("source")))) is not None:
        return held
    if isinstance(part, dict) and isinstance(kind, str):
        return OtherPart(data=block)
    return OtherPart(data={"type": "untyped", "value": part})


def _held(modality: str, source: dict[str, Any]) -> AnyPart | None:
    kind, media = source.get("type"), string(source.get("media_type"))
    if kind == "base64" and isinstance(source.get("data"), str):
        return Blob(content=source["data"], mime_type=media, modality=modality)
    if kind == "url" and isinstance(source.get("url"), str):
        return Uri(uri=source["url"], mime_type=media, modality=modality)
    if kind == "file" and isinstance(source.get("file_id"), str):
        return File(file_id=source["file_id"], mime_type=media, modality=modality)
    return None


def order(files: Mapping[str, Sequence[tuple[str, int | None]]]) -> list[tuple[str, str | None]]:
    """Files that share their first message, originals first, each with the one its history was copied from.

    Args:
        files: For each file, the uuids of its lines and their times.

    A copy is told by its first line that the others lack: the later it was written, the later the copy was made.
    """
    holders: dict[str, int] = {}
    for marks in files.values():
        for uuid in {uuid for uuid, _ in marks}:
            holders[uuid] = holders.get(uuid, 0) + 1

    def began(name: str) -> tuple[int, int, str]:
        own = [at for uuid, at in files[name] if holders[uuid] == 1 and at is not None]
        return (min(own) if own else 0, len(files[name]), name)

    found: list[tuple[str, str | None]] = []
    for name in sorted(files, key=began):
        uuids = {uuid for uuid, _ in files[name]}
        shared = [(sum(uuid in uuids for uuid, _ in files[other]), index) for index, (other, _) in enumerate(found)]
        best = max(shared, default=(0, 0))
        found.append((name, found[best[1]][0] if best[0] else None))
    return found
