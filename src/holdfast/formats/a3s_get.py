"""What a session says, as a3s-code's records: of one that came from there and of any other."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from holdfast.formats import a3s_rules as rules, rustjson
from holdfast.formats.a3s import PROGRAM, STATES, id_in
from holdfast.formats.a3s_events import (
    COST,
    MESSAGE,
    REPORT,
    TRACE,
    Json,
    artifact_record,
    cost_record,
    message_record,
    report_record,
    task_records,
    trace_record,
)
from holdfast.formats.transcript import mapping
from holdfast.heads.info import SessionInfo
from holdfast.log import OnDamage
from holdfast.model import Artifact, Custom, Damaged, Edit, Event, Message, Report, Source, State, Step, Tasks, Usage
from holdfast.session import Session

FILE = "x.a3s.file"
"""The type of an event that keeps a file as it is."""
KINDS = (MESSAGE, COST, TRACE, REPORT)
_NATIVE = {"idle": "Active", "running": "Active", "paused": "Paused", "completed": "Completed", "error": "Error"}
_PARTS = ("messages", "cost_records", "tasks", "todos", "config")
"""The fields of a session file that do not stand in the head's metadata."""


class Held(msgspec.Struct):
    """A record that a session holds, and the event that says it."""

    record: Json
    event: Event


class Kept(msgspec.Struct):
    """A file that a session keeps as it is, by its newest version; `reason` says why it could not be read."""

    data: bytes
    event: Event
    reason: str = ""


class Stored(msgspec.Struct):
    """All that a session holds of what a3s-code knows. `left_out` counts the events that it has no place for;
    `hidden_costs` are the calls that were counted and taken back.
    """

    lists: dict[str, list[Held]]
    tasks: list[Json] | None = None
    files: dict[str, Kept] = {}
    hidden_costs: list[str] = []
    left_out: int = 0
    damaged: int = 0


def look(session: Session, damaged: OnDamage = "raise") -> Stored:
    """Read a session's log.

    Raises:
        Corrupt: an event is damaged, and `damaged` is `raise`.
        NotFound, Deleted: it is not there.
    """
    found = Stored({kind: [] for kind in KINDS})
    for event in session.events(include_hidden=True, damaged=damaged):
        if event.hidden:
            if isinstance(event.payload, Usage) and not event.payload.repeated:
                found.hidden_costs.append(key_of(cost_record(event, event.payload)))
        elif (told := _record(event)) is not None:
            found.lists[told[0]].append(Held(told[1], event))
        else:
            _take(found, event)
    return found


def key_of(value: Any) -> str:
    """What two records that say the same have in common, however their fields are ordered."""
    return rustjson.compact(_sorted(value))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        items = cast("Json", value)
        return {name: _sorted(items[name]) for name in sorted(items) if not _is_unsaid(name, items[name])}
    return [_sorted(item) for item in cast("list[Any]", value)] if isinstance(value, list) else value


def _is_unsaid(name: str, value: Any) -> bool:
    """Whether a field says nothing: some are written as null or not at all, with the same meaning."""
    return value is None and name in ("is_error", "reasoning_content")


def _record(event: Event) -> tuple[str, Json] | None:
    payload = event.payload
    if isinstance(payload, Message):
        return MESSAGE, message_record(payload)
    if isinstance(payload, Step):
        return TRACE, trace_record(payload)
    if isinstance(payload, Report):
        return REPORT, report_record(payload)
    if isinstance(payload, Usage):
        told = payload.source is not None and payload.source.file == COST
        return (COST, cost_record(event, payload)) if told or not (payload.repeated or payload.grown) else None
    source = payload.source
    if isinstance(payload, Custom) and source is not None and source.file in KINDS:
        return source.file, mapping(rustjson.parse(str(source.raw).encode()))
    return None


def _take(found: Stored, event: Event) -> None:
    payload = event.payload
    if isinstance(payload, Tasks):
        found.tasks = task_records(payload)
    elif isinstance(payload, Custom) and payload.type == FILE and payload.source is not None:
        about = mapping(payload.data)
        path = str(about.get("path"))
        found.files.pop(path, None)
        if not about.get("gone"):
            found.files[path] = Kept(raw_of(payload.source), event, str(about.get("reason") or ""))
    elif isinstance(payload, Damaged):
        found.damaged += 1
    elif not isinstance(payload, Artifact | State | Edit):
        found.left_out += 1


def raw_of(source: Source) -> bytes:
    """The bytes that a source keeps."""
    raw = str(source.raw)
    return base64.b64decode(raw) if source.encoding == "base64" else raw.encode()


def about_of(info: SessionInfo) -> Json:
    """What was noted of a session when it came from there, or was saved there."""
    return mapping(info.metadata.get(PROGRAM))


def split(session: Json) -> tuple[Json, Json]:
    """A session file's fields, as they stand in the head: metadata, with null in the place of the rest; and config."""
    document = {name: None if name in _PARTS else value for name, value in session.items()}
    return document, dict(mapping(session.get("config")))


def session_record(info: SessionInfo, stored: Stored) -> Json:
    """The session file of a session."""
    about = about_of(info)
    document = mapping(about.get("document"))
    made = _document(info, document, about)
    told: Json = {
        "config": _config(info, bool(document), bool(about.get("own_llm"))),
        "messages": [held.record for held in stored.lists[MESSAGE]],
        "cost_records": [held.record for held in stored.lists[COST]],
        "todos" if "todos" in made else "tasks": stored.tasks or [],
    }
    for name, value in told.items():
        if name in made or value or not document:
            made[name] = value
    if document and rules.fits(rules.session, made):
        return marked(made)
    return marked(_completed(info, made))


def _document(info: SessionInfo, document: Json, about: Json) -> Json:
    """A session's own fields: as they were saved, where nothing was changed since."""
    made = dict(document)
    made["id"] = id_in(info.id, info.metadata)
    state = document.get("state")
    if not isinstance(state, str) or STATES.get(state) != info.state:
        made["state"] = _NATIVE.get(info.state, "Unknown")
    if not document or info.updated_at > about.get("at", 0):
        made["updated_at"] = info.updated_at // 1_000_000
    counted = mapping(about.get("counted"))
    usage = mapping(document.get("total_usage"))
    more = {
        "prompt_tokens": info.counts.input_tokens - counted.get("input_tokens", 0),
        "completion_tokens": info.counts.output_tokens - counted.get("output_tokens", 0),
    }
    if usage and any(count > 0 for count in more.values()):  # used since, by who writes here
        total = sum(more.values())
        made["total_usage"] = {**usage, **{name: usage.get(name, 0) + count for name, count in more.items()}}
        made["total_usage"]["total_tokens"] = usage.get("total_tokens", 0) + total
        cost = info.counts.cost - counted.get("cost", 0)
        if cost > 0:
            made["total_cost"] = made.get("total_cost", 0.0) + cost / 1_000_000
    llm = mapping(info.config.get("llm"))
    if about.get("llm") and llm != mapping(about.get("llm")) and rules.fits(rules.LLM, llm):
        made["llm_config"] = llm
    return made


def _config(info: SessionInfo, came: bool, own_llm: bool) -> Json:
    """A session's config. What 2.0.0 would refuse of it, or lacks, is as it is by default there."""
    config = {name: value for name, value in info.config.items() if own_llm or name != "llm"}
    fit = all(rules.fits(rule, config[name]) for name, rule in rules.CONFIG.items() if name in config)
    if came and fit and config.keys() >= set(rules.NEEDED):
        return config
    defaults: Mapping[str, Any] = {
        "name": info.name or info.title or "",
        "workspace": "",
        "system_prompt": None,
        "max_context_length": 200_000,
        "auto_compact": False,
        "auto_compact_threshold": 0.8,
        "storage_type": "file",
        "planning_mode": "Auto",
        "goal_tracking": False,
    }
    made: Json = {}
    for name, rule in rules.CONFIG.items():
        if name in config and rules.fits(rule, config[name]):
            made[name] = config[name]
        elif name in defaults:
            made[name] = defaults[name]
    return {**made, **{name: value for name, value in config.items() if name not in rules.CONFIG}}


def _completed(info: SessionInfo, made: Json) -> Json:
    """A session file with all that 2.0.0 needs, in its order; what is not known there comes last."""
    counts = info.counts
    defaults: Json = {
        "context_usage": {"used_tokens": 0, "max_tokens": 200_000, "percent": 0.0, "turns": 0},
        "total_usage": {
            "prompt_tokens": max(counts.input_tokens, 0),
            "completion_tokens": max(counts.output_tokens, 0),
            "total_tokens": max(counts.input_tokens + counts.output_tokens, 0),
            "cache_read_tokens": counts.cache_read_tokens or None,
            "cache_write_tokens": counts.cache_write_tokens or None,
        },
        "total_cost": (counts.cost + counts.cost_computed) / 1_000_000,
        "tool_names": [],
        "thinking_enabled": False,
        "thinking_budget": None,
        "created_at": info.created_at // 1_000_000,
        "updated_at": info.updated_at // 1_000_000,
    }
    if info.models:
        defaults["model_name"] = info.models[0]
    if rules.fits(rules.LLM, llm := mapping(info.config.get("llm"))):
        defaults["llm_config"] = {"provider": llm["provider"], "model": llm["model"], "base_url": llm.get("base_url")}
    if info.parent:
        defaults["parent_id"] = info.parent.partition("/")[2] or info.parent
    full = {**defaults, **made}
    full["tasks"] = [task for task in full.get("tasks", []) if rules.fits(rules.task, task)]
    ordered = {name: full[name] for name in rules.TOP if name in full}
    return {**ordered, **{name: value for name, value in full.items() if name not in ordered}}


def marked(session: Json) -> Json:
    """A session file whose numbers of 32 bits are known to be such, as which they are written."""
    made = dict(session)
    for name, field in (("config", "auto_compact_threshold"), ("context_usage", "percent")):
        inner = mapping(made.get(name))
        value = inner.get(field)
        if isinstance(value, float):
            made[name] = {**inner, field: rustjson.F32(value)}
    return made


def artifact_records(session: Session) -> list[Json]:
    """A session's artifacts, with their contents.

    Raises:
        Corrupt: they are not what was put.
    """
    found: list[Json] = []
    for artifact in session.artifacts.list():
        content = session.artifacts.get(artifact.name)
        found.append(artifact_record(artifact, (content or b"").decode("utf-8", "replace")))
    return found
