"""a3s-code's records as events, and events as its records.

A record whose event says all of it is not kept twice: only one that the event alone would not give back to the byte
stands in the event's `source`. So what came from there goes back as it was, and what was made here goes as 2.0.0
would have written it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec

from holdfast.clock import from_micros
from holdfast.formats import rustjson
from holdfast.formats.transcript import listing, mapping, micros, tokens, word
from holdfast.model import (
    AnyPart,
    AnyPayload,
    Artifact,
    Blob,
    Event,
    Message,
    Reasoning,
    Report,
    Source,
    Step,
    Tasks,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    usd,
)
from holdfast.parts import Large, LargeRef, OtherPart

Json = dict[str, Any]

MESSAGE, COST, TRACE, REPORT = "a3s#messages", "a3s#cost_records", "a3s#traces", "a3s#verification"
"""The `file` of the source of a record that its event alone would not give back."""
MAX_NAME = 1024
TRACE_SCHEMA, REPORT_SCHEMA = "a3s.trace_event.v1", "a3s.verification_report.v1"


def loaded(value: Any) -> Any:
    """A value that may be a large one, in memory."""
    return value.value() if isinstance(value, Large) else value


def _told(payload: Any, record: Json, kind: str, back: Callable[[Any], Json]) -> Any:
    """The payload, with the record beside it if it would not come back from it as it is."""
    raw = rustjson.compact(record)
    if rustjson.compact(back(payload)) == raw:
        return payload
    return msgspec.structs.replace(payload, source=Source(file=kind, raw=raw))


def _kept(payload: Any, kind: str) -> Json | None:
    source: Source | None = payload.source
    if source is None or source.file != kind:
        return None
    return mapping(rustjson.parse(str(source.raw).encode()))


def message_of(record: Json) -> Message:
    """A message's event. One of nothing but results has the role `tool` here, and `user` there."""
    parts: list[AnyPart] = [_part(block) for block in listing(record.get("content"))]
    if isinstance(thought := record.get("reasoning_content"), str):
        parts.insert(0, Reasoning(content=thought))
    role = record["role"]
    if role == "user" and parts and all(isinstance(part, ToolResult) for part in parts):
        role = "tool"
    return cast("Message", _told(Message(role=role, parts=tuple(parts)), record, MESSAGE, _message))


def _part(block: Any) -> AnyPart:
    said = mapping(block)
    kind = said.get("type")
    if kind == "text" and isinstance(said.get("text"), str):
        return Text(content=said["text"])
    if kind == "tool_use" and isinstance(said.get("id"), str):
        return ToolCall(id=said["id"], name=str(said.get("name", "")), arguments=said.get("input"))
    if kind == "tool_result" and isinstance(said.get("tool_use_id"), str):
        return ToolResult(id=said["tool_use_id"], response=said.get("content"), is_error=said.get("is_error") is True)
    source = mapping(said.get("source"))
    if kind == "image" and isinstance(source.get("data"), str) and isinstance(source.get("media_type"), str):
        return Blob(content=source["data"], mime_type=source["media_type"], modality="image")
    return OtherPart(data=said)


def message_record(message: Message) -> Json:
    """The record of a message: as it came, or as it would be written."""
    return _kept(message, MESSAGE) or _message(message)


def _message(message: Message) -> Json:
    thoughts = [str(part.content) for part in message.parts if isinstance(part, Reasoning)]
    blocks = [_block(part) for part in message.parts if not isinstance(part, Reasoning)]
    record: Json = {"role": "user" if message.role == "tool" else message.role, "content": blocks}
    if thoughts:
        record["reasoning_content"] = "\n".join(thoughts)
    return record


def _block(part: AnyPart) -> Json:
    if isinstance(part, Text):
        return {"type": "text", "text": str(part.content)}
    if isinstance(part, ToolCall):
        return {"type": "tool_use", "id": part.id or "", "name": part.name, "input": loaded(part.arguments)}
    if isinstance(part, ToolResult):
        content = loaded(part.response)
        if not isinstance(content, str) and not _is_shown(content):
            content = "" if content is None else rustjson.compact(content)
        return {"type": "tool_result", "tool_use_id": part.id or "", "content": content, "is_error": part.is_error}
    if isinstance(part, Blob) and part.mime_type and part.mime_type.startswith("image/"):
        source = {"type": "base64", "media_type": part.mime_type, "data": str(part.content)}
        return {"type": "image", "source": source}
    if isinstance(part, OtherPart):
        # A block of a later version; 2.0.0 itself would refuse the whole session for it.
        return part.data
    return {"type": "text", "text": rustjson.compact(msgspec.to_builtins(part))}


def _is_shown(content: Any) -> bool:
    """Whether a tool's answer is a list of the blocks that may stand in one."""
    blocks = listing(content)
    return bool(blocks) and all(mapping(block).get("type") in ("text", "image") for block in blocks)


def usage_of(record: Json) -> Usage:
    """A cost record's event. The program writes no response id: it is counted by being stored once."""
    cost = record.get("cost_usd")
    fair = isinstance(cost, int | float) and abs(cost) < 1e9
    payload = Usage(
        model=word(record.get("model")) or "",
        provider=word(record.get("provider")),
        input_tokens=tokens(record.get("prompt_tokens")),
        output_tokens=tokens(record.get("completion_tokens")),
        cache_read_tokens=None,
        cache_write_tokens=None,
        total_tokens=tokens(record.get("total_tokens")),
        cost=usd(cast("float", cost)) if fair else None,
    )
    return msgspec.structs.replace(payload, source=Source(file=COST, raw=rustjson.compact(record)))


def cost_at(record: Json) -> int | None:
    """When a call was made, in microseconds."""
    told = record.get("timestamp")
    return rustjson.micros_of(told) if isinstance(told, str) else None


def cost_record(event: Event, usage: Usage) -> Json:
    """The cost record of a usage event."""
    if (kept := _kept(usage, COST)) is not None:
        return kept
    total = usage.input_tokens + usage.output_tokens if usage.total_tokens is None else usage.total_tokens
    cost = usage.cost if usage.cost is not None else usage.cost_computed
    return {
        "model": usage.model,
        "provider": usage.provider or "",
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": total,
        "cost_usd": None if cost is None else cost / 1_000_000,
        "timestamp": from_micros(event.at).isoformat().replace("+00:00", "Z"),
        "session_id": None,
    }


def step_of(record: Json) -> Step:
    """A trace event's step."""
    details = record.get("details")
    keys = [key for key in listing(record.get("metadata_keys")) if isinstance(key, str)]
    about = {key: mapping(details).get(key) for key in keys}
    payload = Step(
        name=str(record["name"]),
        kind=str(record["kind"]),
        is_error=record.get("success") is False,
        exit_code=record.get("exit_code"),
        duration=micros(record.get("duration_ms"), 1000),
        output_bytes=tokens(record.get("output_bytes")),
        artifacts=tuple(uri for uri in listing(record.get("artifact_uris")) if isinstance(uri, str)),
        metadata=about or None,
    )
    return cast("Step", _told(payload, record, TRACE, _trace))


def trace_record(step: Step) -> Json:
    """The trace event of a step."""
    return _kept(step, TRACE) or _trace(step)


def _trace(step: Step) -> Json:
    size = step.output_bytes
    if size is None:
        size = len(str(step.output or "").encode("utf-8", "replace"))
    code = step.exit_code if step.exit_code is not None else int(step.is_error)
    record: Json = {
        "schema": TRACE_SCHEMA,
        "kind": step.kind if step.kind in ("tool_execution", "program_execution") else "tool_execution",
        "name": step.name,
        "success": not step.is_error,
        "exit_code": min(max(code, -(2**31)), 2**31 - 1),
        "duration_ms": max(step.duration or 0, 0) // 1000,
        "output_bytes": size,
    }
    if step.metadata:
        record["metadata_keys"] = list(step.metadata_keys)
    if step.artifacts:
        record["artifact_uris"] = sorted(set(step.artifacts))
    return record


def report_of(record: Json) -> Report:
    """A verification report's event."""
    payload = Report(
        subject=record["subject"],
        status=record["status"],
        checks=tuple(mapping(check) for check in listing(record.get("checks"))),
        residual_risks=tuple(risk for risk in listing(record.get("residual_risks")) if isinstance(risk, str)),
    )
    return cast("Report", _told(payload, record, REPORT, _report))


def report_record(report: Report) -> Json:
    """The verification report of an event."""
    return _kept(report, REPORT) or _report(report)


_CHECK: Mapping[str, Any] = {"id": "", "kind": "", "description": "", "status": "needs_review", "required": True}


def _report(report: Report) -> Json:
    checks = [check if check.keys() >= _CHECK.keys() else {**_CHECK, **check} for check in report.checks]
    record: Json = {"schema": REPORT_SCHEMA, "subject": report.subject, "status": report.status, "checks": checks}
    if report.residual_risks:
        record["residual_risks"] = list(report.residual_risks)
    return record


def tasks_of(records: Sequence[Json]) -> Tasks:
    """The event of a list of tasks."""
    return Tasks(tasks=tuple(records))


def task_records(payload: Tasks) -> list[Json]:
    """The tasks of an event, with what 2.0.0 needs."""
    found: list[Json] = []
    for task in payload.tasks:
        record = dict(task)
        if "content" not in record:
            record["content"] = record.get("description", "")
        record.setdefault("id", "")
        record.setdefault("status", "pending")
        found.append(record)
    return found


def artifact_of(record: Json, ref: LargeRef) -> Artifact:
    """An artifact's event; `ref` leads to its content. It is known by its artifact_id and its URI."""
    name = record["artifact_id"]
    if not name or len(name.encode()) > MAX_NAME or "\0" in name:
        name = "~" + hashlib.sha256(name.encode()).hexdigest()
    about = {field: None if field == "content" else value for field, value in record.items()}
    shown = record.get("shown_bytes")
    return Artifact(
        name=name,
        sha256=ref.sha256,
        size=ref.size,
        media_type="text/plain",
        tool=record["tool_name"],
        uri=record["artifact_uri"],
        shown=shown if isinstance(shown, int) and shown < 2**63 else None,
        metadata={"a3s": about},
        large={"content": ref},
    )


def artifact_record(artifact: Artifact, content: str) -> Json:
    """The record of an artifact whose content is this text."""
    told = mapping(mapping(artifact.metadata).get("a3s"))
    if told and "content" in told:
        return {field: content if field == "content" else value for field, value in told.items()}
    return {
        "artifact_id": artifact.name,
        "artifact_uri": artifact.uri or f"a3s://artifact/{artifact.name}",
        "tool_name": artifact.tool or "",
        "content": content,
        "original_bytes": artifact.size,
        "shown_bytes": artifact.size if artifact.shown is None else artifact.shown,
    }


def payload_of(record: Json, kind: str) -> AnyPayload:
    """The event of a record of one of the kinds that are lists."""
    made: Mapping[str, Callable[[Json], AnyPayload]] = {
        MESSAGE: message_of,
        COST: usage_of,
        TRACE: step_of,
        REPORT: report_of,
    }
    return made[kind](record)
