"""What a3s-code 2.0.0 takes of its files, and why it refuses the rest: required fields, types, enums, nulls.

Fields that are not known are taken, as there. Each rule raises `Refusal` with the path of what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

from holdfast.formats import rustjson


class Refusal(ValueError):
    """The program refuses this, and why."""


Rule: TypeAlias = Callable[[Any, str], None]


def _typed(kind: str, is_one: Callable[[Any], bool]) -> Rule:
    def rule(value: Any, path: str) -> None:
        if not is_one(value):
            raise Refusal(f"{path or 'it'} is {_named(value)}, not {kind}")

    return rule


def _named(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else "a boolean"
    kinds = ((str, "a text"), (int | float, "a number"), (list, "an array"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "an object")


def _is_int(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value < high


def optional(rule: Rule) -> Rule:
    """What may be null."""
    return lambda value, path: None if value is None else rule(value, path)


def many(rule: Rule) -> Rule:
    """An array."""

    def each(value: Any, path: str) -> None:
        if not isinstance(value, list):
            raise Refusal(f"{path or 'it'} is {_named(value)}, not an array")
        for index, item in enumerate(cast("list[Any]", value)):
            rule(item, f"{path}[{index}]")

    return each


def one_of(*names: str) -> Rule:
    """One of some words."""

    def rule(value: Any, path: str) -> None:
        if value not in names or not isinstance(value, str):
            raise Refusal(f"{path} is {value!r:.60}, not one of {', '.join(names)}")

    return rule


def by_name(names: Rule, rule: Rule) -> Rule:
    """An object whose keys and values follow rules."""

    def each(value: Any, path: str) -> None:
        for name, item in _object(value, path).items():
            names(name, f"the key of {path}")
            rule(item, f"{path}.{name}")

    return each


def _object(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refusal(f"{path or 'it'} is {_named(value)}, not an object")
    return cast("dict[str, Any]", value)


def struct(
    required: Mapping[str, Rule], rest: Mapping[str, Rule] | None = None, alias: Mapping[str, str] | None = None
) -> Rule:
    """An object with fields that must be there, and others that may; `alias` are second names of fields."""
    known = {**required, **(rest or {})}

    def rule(value: Any, path: str) -> None:
        items = _object(value, path)
        start = f"{path}." if path else ""
        for old, name in (alias or {}).items():
            if old in items:
                if name in items:
                    raise Refusal(f"{start}{name} and {start}{old} are both there")
                known[name](items[old], start + old)
        for name in required:
            if name not in items:
                raise Refusal(f"{start}{name} is missing")
        for name, field in known.items():
            if name in items:
                field(items[name], start + name)

    return rule


def anything(_value: Any, _path: str) -> None:
    """Any value."""


text = _typed("a text", lambda value: isinstance(value, str))
flag = _typed("true or false", lambda value: isinstance(value, bool))
size = _typed("a whole number from 0", _is_int(0, 2**64))
u32 = _typed("a whole number below 2**32", _is_int(0, 2**32))
i32 = _typed("a whole number of 32 bits", _is_int(-(2**31), 2**31))
i64 = _typed("a whole number of 64 bits", _is_int(-(2**63), 2**63))
number = _typed("a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool))
time = _typed("a time", lambda value: isinstance(value, str) and rustjson.micros_of(value) is not None)
_texts = many(text)
_lane = one_of("Control", "Query", "Execute", "Generate")


def tagged(kinds: Mapping[str, Rule]) -> Rule:
    """An object that says by `type` which rule it follows."""

    def rule(value: Any, path: str) -> None:
        kind = _object(value, path).get("type")
        if not isinstance(kind, str) or kind not in kinds:
            raise Refusal(f"{path} has the type {kind!r:.60}, not one of {', '.join(kinds)}")
        kinds[kind](value, path)

    return rule


_source = struct({"type": one_of("base64"), "media_type": text, "data": text})
_shown = tagged({"text": struct({"text": text}), "image": struct({"source": _source})})


def _answer(value: Any, path: str) -> None:
    if not isinstance(value, str):
        many(_shown)(value, path)


block = tagged(
    {
        "text": struct({"text": text}),
        "image": struct({"source": _source}),
        "tool_use": struct({"id": text, "name": text, "input": anything}),
        "tool_result": struct({"tool_use_id": text, "content": _answer}, {"is_error": optional(flag)}),
    }
)
message = struct({"role": text, "content": many(block)}, {"reasoning_content": optional(text)})


def _rule_of_tools(value: Any, path: str) -> None:
    if not isinstance(value, str):
        struct({"rule": text})(value, path)


_permissions = struct(
    {},
    {
        "deny": many(_rule_of_tools),
        "allow": many(_rule_of_tools),
        "ask": many(_rule_of_tools),
        "default_decision": one_of("allow", "deny", "ask"),
        "enabled": flag,
    },
)
_confirmation = struct(
    {
        "enabled": flag,
        "default_timeout_ms": size,
        "timeout_action": one_of("Reject", "AutoApprove"),
        "yolo_lanes": many(_lane),
    }
)
_security = struct(
    {
        "enabled": flag,
        "classification_rules": many(anything),
        "redaction_strategy": one_of("Mask", "Remove", "Hash"),
        "network_whitelist": _texts,
        "dangerous_commands": _texts,
        "features": struct(
            dict.fromkeys(("output_sanitizer", "taint_tracking", "tool_interceptor", "injection_defense"), flag)
        ),
    }
)
_lanes = ("controlMaxConcurrency", "queryMaxConcurrency", "executeMaxConcurrency", "generateMaxConcurrency")
_handler = struct({"mode": one_of("Internal", "External", "Hybrid")}, {"timeout_ms": size})
_queue = struct(
    {},
    {
        **dict.fromkeys(_lanes, size),
        **dict.fromkeys(("enableDlq", "enableMetrics", "enableAlerts"), flag),
        **dict.fromkeys(("dlqMaxSize", "defaultTimeoutMs", "pressureThreshold"), optional(size)),
        "storagePath": optional(text),
        "laneHandlers": by_name(_lane, _handler),
        "laneTimeouts": optional(by_name(_lane, size)),
    },
)
CONFIG: Mapping[str, Rule] = {
    "name": text,
    "workspace": text,
    "system_prompt": optional(text),
    "max_context_length": u32,
    "auto_compact": flag,
    "auto_compact_threshold": number,
    "storage_type": one_of("memory", "file", "custom"),
    "queue_config": optional(_queue),
    "confirmation_policy": optional(_confirmation),
    "permission_policy": optional(_permissions),
    "parent_id": optional(text),
    "security_config": optional(_security),
    "planning_mode": one_of("Auto", "Enabled", "Disabled"),
    "goal_tracking": flag,
}
"""The fields of a session's config, in the order in which they are written."""
NEEDED = ("name", "workspace", "max_context_length", "auto_compact")
_config = struct({name: CONFIG[name] for name in NEEDED}, CONFIG)
LLM = struct({"provider": text, "model": text}, {"base_url": optional(text), "api_key": optional(text)})
_cost = struct(
    {
        "model": text,
        "provider": text,
        "prompt_tokens": size,
        "completion_tokens": size,
        "total_tokens": size,
        "timestamp": time,
    },
    {"cost_usd": optional(number), "session_id": optional(text)},
)
task = struct(
    {
        "id": text,
        "content": text,
        "status": one_of("pending", "in_progress", "completed", "failed", "skipped", "cancelled"),
    },
    {
        "priority": one_of("high", "medium", "low"),
        "tool": optional(text),
        "dependencies": _texts,
        "success_criteria": optional(text),
    },
)
session = struct(
    {
        "id": text,
        "config": _config,
        "state": one_of("Unknown", "Active", "Paused", "Completed", "Error"),
        "messages": many(message),
        "context_usage": struct({"used_tokens": size, "max_tokens": size, "percent": number, "turns": size}),
        "total_usage": struct(
            {"prompt_tokens": size, "completion_tokens": size, "total_tokens": size},
            {"cache_read_tokens": optional(size), "cache_write_tokens": optional(size)},
        ),
        "tool_names": _texts,
        "thinking_enabled": flag,
        "created_at": i64,
        "updated_at": i64,
    },
    {
        "total_cost": number,
        "model_name": optional(text),
        "cost_records": many(_cost),
        "thinking_budget": optional(size),
        "llm_config": optional(LLM),
        "tasks": many(task),
        "parent_id": optional(text),
    },
    {"todos": "tasks"},
)
artifacts = struct(
    {
        "artifacts": many(
            struct(
                {
                    **dict.fromkeys(("artifact_id", "artifact_uri", "tool_name", "content"), text),
                    "original_bytes": size,
                    "shown_bytes": size,
                }
            )
        )
    }
)
traces = many(
    struct(
        {
            "schema": text,
            "kind": one_of("tool_execution", "program_execution"),
            "name": text,
            "success": flag,
            "exit_code": i32,
            "duration_ms": size,
            "output_bytes": size,
        },
        {"metadata_keys": _texts, "artifact_uris": _texts, "details": anything},
    )
)
_status = one_of("passed", "failed", "needs_review", "skipped")
_check = struct(
    {"id": text, "kind": text, "description": text, "status": _status, "required": flag},
    {"suggested_tools": _texts, "evidence_uris": _texts, "residual_risk": optional(text)},
)
verification = many(
    struct({"schema": text, "subject": text, "status": _status, "checks": many(_check)}, {"residual_risks": _texts})
)


def fits(rule: Rule, value: Any) -> bool:
    """Whether the program would take a value."""
    try:
        rule(value, "")
    except Refusal:
        return False
    return True


def read(data: bytes, rule: Rule) -> Any:
    """The value of a whole file.

    Raises:
        Refusal: the program would refuse it.
    """
    try:
        value = rustjson.parse(data, once=TOP)
    except rustjson.NotRust as error:
        raise Refusal(str(error)) from None
    rule(value, "")
    return value


TOP = (
    "id", "config", "state", "messages", "context_usage", "total_usage", "total_cost", "model_name", "cost_records",
    "tool_names", "thinking_enabled", "thinking_budget", "created_at", "updated_at", "llm_config", "tasks", "parent_id",
)  # fmt: skip
"""The fields of a session file, in the order in which they are written."""
