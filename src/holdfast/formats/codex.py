"""Rollouts of Codex CLI: `~/.codex/sessions/YYYY/MM/DD/rollout-<time>-<id>.jsonl`, one JSON object a line.

How its lines map:
- One file is one session, named by its first `session_meta`. `forked_from_id`, or the thread that spawned a subagent,
  is its parent; copied `session_meta`s behind the first change nothing.
- `response_item`s are the conversation. Most `event_msg`s that speak (`user_message`, `agent_message`,
  `agent_reasoning`, the same in `item_completed`) say it again; they are messages only where no item says it (see
  `voices`). What says it again is kept as `x.codex.<type>`, marked `echo`; its words, which the message has, are in
  the source.
- Calls of any kind are messages with a `tool_call`, outputs messages of role `tool`. Duration and failure are what the
  program measured (`exec_command_end`, the head or metadata of the output), else the time since the call.
- A `token_count` becomes the usage of the last response, counted once: a repeated one has the same running totals, and
  a fork copies those of its parent, so the totals name the response. `input_tokens` holds the cached ones already, and
  `output_tokens` the reasoning. The model is that of the newest `turn_context`.
- What the program tells the model in the user's name (`<environment_context>`, AGENTS.md, …) is marked `meta`.
- Old files, without envelope or with other names for the same, are read too.
- `compacted` is a `summary` event; what is no part of the conversation is `x.codex.<type>`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from holdfast.formats.transcript import (
    CHOSEN,
    WORDS,
    Calls,
    Draft,
    Facts,
    Line,
    Origin,
    kept,
    listing,
    mapping,
    micros,
    newer_half,
    parse,
    string,
    tokens,
    word,
)
from holdfast.formats.voices import Conversation, Heard, speech_of
from holdfast.model import (
    AnyPart,
    AnyPayload,
    Blob,
    Message,
    OtherPart,
    Reasoning,
    Summary,
    Text,
    ToolCall,
    ToolResult,
    Uri,
    Usage,
)

PROGRAM = "codex"
NAME = "codex"

_CALLS = """
function_call custom_tool_call local_shell_call web_search_call tool_search_call image_generation_call tool_call
"""
CALLS = frozenset(_CALLS.split())
"""Types of items by which the model asks for a tool."""
_OUTPUTS = """
function_call_output custom_tool_call_output local_shell_call_output tool_search_output tool_result function_result
"""
OUTPUTS = frozenset(_OUTPUTS.split())
"""Types of items that hold what a tool answered."""
QUIET = frozenset(("token_count", "agent_reasoning_section_break"))
"""Types of `event_msg`s that may stand between one that speaks and the item that says the same."""
_WORDS = frozenset(("message", "text", "images", "item", "content", "summary"))
"""The fields of what speaks that hold its words."""
_ASIDE = """
session_meta turn_context world_state inter_agent_communication_metadata state compacted compaction ghost_snapshot
agent_message agent_reasoning agent_reasoning_raw_content agent_reasoning_section_break collab_agent_interaction_end
collab_agent_spawn_end collab_close_end collab_waiting_end context_compacted dynamic_tool_call_request
dynamic_tool_call_response entered_review_mode error exec_command_end exited_review_mode guardian_assessment
image_generation_end item_completed mcp_tool_call_end patch_apply_end stream_error sub_agent_activity task_complete
task_started thread_goal_updated thread_name_updated thread_rolled_back thread_settings_applied token_count
turn_aborted undo_completed user_message view_image_tool_call warning web_search_end
"""
ASIDE = frozenset(_ASIDE.split())
"""Types that are known and are no part of the conversation."""
RECENT = 20_000
"""Responses back to which a repeated count is known."""
_ROLES = {"developer": "system"}
_NOT_SAID = re.compile(
    r"\s*(<(environment_context|user_instructions|permissions|turn_aborted|skill|collaboration_mode|personality"
    r"|subagent_notification|user_shell_command|apps_instructions|INSTRUCTIONS|model_switch|hook_prompt)"
    r"|# AGENTS\.md instructions)"
)
"""How text begins that stands in a user message and that no user wrote."""
_EXIT = re.compile(r"(?:Exit code:|Process exited with code) (-?\d{1,9})$", re.MULTILINE)
_WALL = re.compile(r"Wall time: (\d{1,9}(?:\.\d{1,9})?) seconds?$", re.MULTILINE)
_OUTPUT_HEAD = 400
"""Characters at the head of an output in which the program says how the command went."""
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,")
_ROLLOUT = re.compile(r"rollout-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d-([0-9a-f-]{36})", re.IGNORECASE)


def is_record(record: Mapping[str, Any]) -> bool:
    """Whether a JSON object is a line of such a rollout."""
    kind = string(record.get("type"))
    if "payload" in record:
        return kind is not None and isinstance(record["payload"], dict)
    if "sessionId" in record or "uuid" in record:
        return False
    if "record_type" in record or ("id" in record and "timestamp" in record and "instructions" in record):
        return True
    if kind in CALLS or kind in OUTPUTS or kind == "reasoning":
        return True
    return isinstance(record.get("role"), str) and (kind == "message" or "created_at" in record)


def origin_of(path: str, head: Sequence[Mapping[str, Any]]) -> Origin:
    """Whom a file belongs to, by its first `session_meta`, else by its name."""
    stem = os.path.basename(path).removesuffix(".jsonl")
    meta = next((mapping(record["payload"]) for record in head if record.get("type") == "session_meta"), None)
    if meta is None and head and "type" not in head[0] and "record_type" not in head[0]:
        meta = dict(head[0])  # before there were envelopes, the first line was the bare meta
    meta = meta or {}
    named = _ROLLOUT.fullmatch(stem)
    spawned = mapping(mapping(mapping(meta.get("source")).get("subagent")).get("thread_spawn"))
    spawner = string(meta.get("parent_thread_id")) or string(spawned.get("parent_thread_id"))
    told = {**spawned, **meta}
    about = {"agent_name": told.get("agent_nickname"), "agent_type": told.get("agent_role")}
    return Origin(
        id=string(meta.get("id")) or (named[1] if named else stem),
        parent=spawner or string(meta.get("forked_from_id")),
        subagent=bool(spawner or mapping(meta.get("source")).get("subagent")),
        about={key: value for key, value in about.items() if isinstance(value, str)},
    )


class CodexReader:
    """Reads one file; see the module for what becomes of its lines."""

    def __init__(self, origin: Origin) -> None:
        self.facts = Facts(origin.parent)
        self.facts.note(**origin.about)
        self.unknown: dict[str, int] = {}
        self._calls = Calls()
        self._failed: set[str] = set()
        self._conversation = Conversation(self._said)
        self._model = ""
        self._provider = "openai"
        self._totals: Tokens | None = None
        self._counted: dict[int, None] = {}

    def take(self, line: Line) -> list[Draft]:
        """What a line becomes."""
        record = line.value
        kind = string(record.get("type")) or string(record.get("record_type"))
        item = mapping(record.get("payload")) if "payload" in record else record
        if kind == "event_msg":
            kind = string(item.get("type"))
            if (speech := speech_of(kind, item)) is not None:
                return self._conversation.hear(Heard(speech, item, line))
            return self._conversation.add(self._event(kind, item, line), line, waits=kind in QUIET)
        if kind == "response_item":
            kind = string(item.get("type")) or ("message" if "role" in item else None)
        elif kind is None:
            kind = "message" if "role" in item else "session_meta" if "id" in item else None
        waits = kind in ("message", "reasoning")
        return self._conversation.add(Draft(self._item(kind, item, line), line.at), line, waits=waits)

    def flush(self) -> list[Draft]:
        """What was said in events whose items did not come."""
        return self._conversation.end()

    def _said(self, heard: Heard, anew: bool) -> Draft:
        """An event that speaks: a message if no item says the same."""
        speech, line = heard.speech, heard.line
        if not anew:
            rest = {key: value for key, value in heard.event.items() if key not in _WORDS}
            return Draft(kept(NAME, heard.event.get("type"), rest, line.source, echo=True), line.at)
        if speech.speaker == "reasoning":
            return Draft(_thought(speech.words, line), line.at)
        content = [{"type": "text", "text": text} for text in speech.words]
        content += [{"type": "input_image", "image_url": url} for url in speech.pictures]
        said = {"role": speech.speaker, "content": content, "phase": speech.phase}
        return Draft(self._message(said, line), line.at)

    def _item(self, kind: str | None, item: dict[str, Any], line: Line) -> AnyPayload:
        if kind in ("message", "reasoning") and self._is_echo(kind, item):
            rest = {key: value for key, value in item.items() if key not in _WORDS}
            return kept(NAME, kind, rest, line.source, echo=True)
        if kind == "message":
            return self._message(item, line)
        if kind == "agent_message":
            return self._message({**item, "role": "agent"}, line)
        if kind == "reasoning":
            return _thought(_thoughts(item), line)
        if kind in CALLS:
            return self._call(kind or "", item, line)
        if kind in OUTPUTS:
            return self._output(item, line)
        if kind == "compacted" and (words := string(item.get("message"))):
            return Summary(content=words, source=line.source)
        if kind == "session_meta":
            self._meta(item)
        elif kind == "turn_context":
            self._model = word(item.get("model")) or self._model
            self.facts.note_first(cwd=item.get("cwd"))
        elif kind not in ASIDE:
            self._miss(kind)
        return kept(NAME, kind, line.value, line.source)

    def _is_echo(self, kind: str, item: dict[str, Any]) -> bool:
        """Whether an item says again what events said before."""
        if kind == "reasoning":
            return not self._conversation.is_anew("reasoning", _thoughts(item))
        speaker, said = item.get("role"), item.get("content", item.get("message"))
        if speaker != "user" and speaker != "assistant":
            return False
        words = [said] if isinstance(said, str) else [str(mapping(part).get("text") or "") for part in listing(said)]
        return not self._conversation.is_anew(speaker, [text for text in words if text])

    def _miss(self, kind: str | None) -> None:
        name = kind or "untyped"
        self.unknown[name] = self.unknown.get(name, 0) + 1

    def _meta(self, meta: dict[str, Any]) -> None:
        """Only the first counts: those behind it were copied from where the session was forked."""
        git = mapping(meta.get("git"))
        self._provider = word(meta.get("model_provider")) or self._provider
        self.facts.note_first(
            cwd=meta.get("cwd"),
            version=meta.get("cli_version"),
            originator=meta.get("originator"),
            git_branch=git.get("branch"),
            git_commit=git.get("commit_hash"),
            git_url=git.get("repository_url"),
        )

    def _message(self, item: dict[str, Any], line: Line) -> Message:
        said = item.get("content", item.get("message"))
        parts = (Text(content=said),) if isinstance(said, str) else tuple(_part(part) for part in listing(said))
        role = string(item.get("role")) or "unknown"
        role = _ROLES.get(role, role)
        metadata: dict[str, Any] = {}
        if role == "user":
            own = [
                t for part in parts if isinstance(part, Text) and (t := str(part.content)) and not _NOT_SAID.match(t)
            ]
            if own:
                self.facts.name(own[0], WORDS)
            elif any(isinstance(part, Text) for part in parts):
                metadata["meta"] = True
        if role == "assistant":
            self._model = word(item.get("model")) or self._model
        if phase := string(item.get("phase")):
            metadata["phase"] = phase
        name = string(item.get("author"))
        return Message(role=role, name=name, parts=parts, metadata=metadata or None, source=line.source)

    def _call(self, kind: str, item: dict[str, Any], line: Line) -> Message:
        id = string(item.get("call_id")) or string(item.get("id"))
        name = string(item.get("name")) or string(mapping(item.get("function")).get("name"))
        if name is None:
            name = kind.removesuffix("_call")
        arguments = item.get("arguments", item.get("input", item.get("action")))
        if isinstance(arguments, str) and arguments[:1] in ("{", "["):
            value, _ = parse(arguments.encode("utf-8", "surrogatepass"))
            arguments = arguments if value is None else value
        self._calls.began(id, name, line.at)
        call = ToolCall(id=id, name=name, arguments=arguments)
        return Message(role="assistant", parts=(call,), source=line.source)

    def _output(self, item: dict[str, Any], line: Line) -> Message:
        id = string(item.get("call_id"))
        output = item.get("output", item.get("result", item.get("tools")))
        outcome = outcome_of(output)
        name, duration = self._calls.ended(id, line.at, outcome.duration)
        result = ToolResult(
            id=id,
            response=outcome.response,
            name=name or string(item.get("name")),
            is_error=outcome.failed or (id in self._failed),
            duration=duration,
        )
        return Message(role="tool", parts=(result, *outcome.pictures), source=line.source)

    def _event(self, kind: str | None, event: dict[str, Any], line: Line) -> Draft:
        if kind == "token_count":
            return self._usage(event, line)
        if kind in ("exec_command_end", "mcp_tool_call_end", "patch_apply_end"):
            self._measure(event)
        elif kind == "thread_name_updated":
            self.facts.name(event.get("thread_name"), CHOSEN)
        elif kind not in ASIDE:
            self._miss(kind)
        return Draft(kept(NAME, kind, line.value, line.source), line.at)

    def _measure(self, event: dict[str, Any]) -> None:
        """How a call went, told before its output."""
        id, took = string(event.get("call_id")), mapping(event.get("duration"))
        if id is None:
            return
        seconds, nanos = micros(took.get("secs"), 1_000_000), micros(took.get("nanos"), 1)
        if seconds is not None and nanos is not None:
            self._calls.measured[id] = seconds + nanos // 1000
        result = event.get("result")
        told = mapping(mapping(result).get("Ok")).get("isError") is True or "Err" in mapping(result)
        if told or event.get("exit_code") not in (None, 0) or event.get("success") is False:
            self._failed.add(id)

    def _usage(self, event: dict[str, Any], line: Line) -> Draft:
        info = mapping(event.get("info"))
        totals, last = tokens_of(info.get("total_token_usage")), tokens_of(info.get("last_token_usage"))
        plain = kept(NAME, "token_count", line.value, line.source)
        before, self._totals = self._totals, totals or self._totals
        used = last or (totals and totals.beyond(before))
        if used is None or not (used.input or used.output) or (totals and hash(totals) in self._counted):
            return Draft(plain, line.at)
        if totals is not None:
            self._counted[hash(totals)] = None
            if len(self._counted) > 2 * RECENT:
                self._counted = newer_half(self._counted)
        usage = Usage(
            model=word(info.get("model")) or self._model,
            provider=self._provider,
            input_tokens=used.input,
            output_tokens=used.output,
            cache_read_tokens=used.read,
            cache_write_tokens=used.written,
            reasoning_tokens=used.reasoning,
            source=line.source,
        )
        return Draft(usage, line.at, response=totals.key(used) if totals else "", instead=plain)


def _thoughts(item: dict[str, Any]) -> list[str]:
    blocks = [*listing(item.get("summary")), *listing(item.get("content"))]
    return [text for block in blocks if (text := string(mapping(block).get("text")))]


def _thought(words: Sequence[str], line: Line) -> Message:
    return Message(role="assistant", parts=(Reasoning(content="\n\n".join(words)),), source=line.source)


class Tokens(msgspec.Struct, frozen=True):
    """Counts of tokens, of one response or of all up to now."""

    input: int
    output: int
    read: int
    written: int
    reasoning: int

    def beyond(self, before: Tokens | None) -> Tokens:
        """What came since; where the totals began anew, all of it."""
        if before is None or self.input < before.input or self.output < before.output:
            return self
        pairs = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(before), strict=True)
        return Tokens(*(max(a - b, 0) for a, b in pairs))

    def key(self, last: Tokens) -> str:
        """A name for the response after which these were the totals."""
        return "/".join(".".join(map(str, msgspec.structs.astuple(each))) for each in (self, last))


def tokens_of(value: object) -> Tokens | None:
    """The counts of a usage object; None if it is none."""
    usage = mapping(value)
    if not usage:
        return None
    return Tokens(
        input=tokens(usage.get("input_tokens")),
        output=tokens(usage.get("output_tokens")),
        read=tokens(usage.get("cached_input_tokens", usage.get("cache_read_input_tokens"))),
        written=tokens(usage.get("cache_write_input_tokens")),
        reasoning=tokens(usage.get("reasoning_output_tokens")),
    )


class Outcome(msgspec.Struct):
    """What an output says: the response, its pictures, and how the call went."""

    response: Any
    failed: bool = False
    duration: int | None = None
    pictures: tuple[AnyPart, ...] = ()


def outcome_of(output: Any) -> Outcome:
    """An output in any of the shapes it had over time."""
    if isinstance(output, str):
        return _outcome_of_text(output)
    if blocks := listing(output):
        parts = [_part(part) for part in blocks]
        pictures = tuple(part for part in parts if not isinstance(part, Text))
        if any(isinstance(part, OtherPart) for part in pictures):
            return Outcome(output)
        told = _outcome_of_text("\n".join(str(part.content) for part in parts if isinstance(part, Text)))
        return Outcome(told.response, told.failed, told.duration, pictures)
    held = mapping(output)
    if isinstance(held.get("content"), str) and set(held) <= {"content", "success"}:
        return Outcome(held["content"], failed=held.get("success") is False)
    code = held.get("exitCode", held.get("exit_code"))
    return Outcome(output, failed=held.get("success") is False or code not in (None, 0))


def _outcome_of_text(output: str) -> Outcome:
    if output.startswith('{"output":'):
        held = mapping(parse(output.encode("utf-8", "surrogatepass"))[0])
        if isinstance(held.get("output"), str):
            about = mapping(held.get("metadata"))
            failed = about.get("exit_code") not in (None, 0)
            return Outcome(held["output"], failed, micros(about.get("duration_seconds"), 1_000_000))
    head = output[:_OUTPUT_HEAD].partition("Output:")[0]
    code, wall = _EXIT.search(head), _WALL.search(head)
    return Outcome(output, bool(code and int(code[1])), micros(float(wall[1]), 1_000_000) if wall else None)


def _part(part: Any) -> AnyPart:
    """A content block as a part; one of a type that is not known keeps all its fields."""
    block = mapping(part)
    kind = block.get("type")
    if kind in ("input_text", "output_text", "text", "summary_text") and isinstance(block.get("text"), str):
        return Text(content=block["text"])
    if kind == "input_image" and isinstance(url := block.get("image_url"), str):
        if data := _DATA_URL.match(url):
            return Blob(content=url[data.end() :], mime_type=data[1], modality="image")
        return Uri(uri=url, modality="image")
    if isinstance(part, dict) and isinstance(kind, str):
        return OtherPart(data=block)
    return OtherPart(data={"type": "untyped", "value": part})
