"""What a3s-code 2.0.0 takes of its files, and why it refuses the rest: required fields, types, enums, nulls.

A rule gives the value as the program would write it: serde takes a struct as an array of its fields too, and a word as
`{"word": null}`. Fields that are not known are taken, as there. Each rule raises `Refusal` with the path of what is
wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias, cast

from holdfast.formats import rustjson


class Refusal(ValueError):
    """The program refuses this, and why."""


Rule: TypeAlias = Callable[[Any, str], Any]


def _typed(kind: str, is_one: Callable[[Any], bool]) -> Rule:
    def rule(value: Any, path: str) -> Any:
        if not is_one(value):
            raise Refusal(f"{path or 'it'} is {_named(value)}, not {kind}")
        return value

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

    def each(value: Any, path: str) -> Any:
        if not isinstance(value, list):
            raise Refusal(f"{path or 'it'} is {_named(value)}, not an array")
        return [rule(item, f"{path}[{index}]") for index, item in enumerate(cast("list[Any]", value))]

    return each


def one_of(*names: str) -> Rule:
    """One of some words."""

    def rule(value: Any, path: str) -> Any:
        word = value
        if isinstance(value, dict) and list(cast("dict[str, Any]", value).values()) == [None]:
            (word,) = cast("dict[str, Any]", value) if not rustjson.repeated(cast("Any", value)) else (None,)
        if not isinstance(word, str) or word not in names:
            raise Refusal(f"{path} is {value!r:.60}, not one of {', '.join(names)}")
        return word

    return rule


def by_name(names: Rule, rule: Rule) -> Rule:
    """An object whose keys and values follow rules."""

    def each(value: Any, path: str) -> Any:
        items = _object(value, path).items()
        return {names(name, f"the key of {path}"): rule(item, f"{path}.{name}") for name, item in items}

    return each


def _object(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refusal(f"{path or 'it'} is {_named(value)}, not an object")
    return cast("dict[str, Any]", value)


def struct(
    required: Mapping[str, Rule],
    rest: Mapping[str, Rule] | None = None,
    alias: Mapping[str, str] | None = None,
    *,
    order: Sequence[str] | None = None,
    optional_end: Collection[str] | None = None,
) -> Rule:
    """An object with fields that must be there, and others that may, or an array of them.

    Args:
        required: Those that must be there, and their rules.
        rest: Those that may.
        alias: Second names of fields.
        order: The fields as they stand in an array, if not those that must be there and then the rest.
        optional_end: Those of the rest that an array may end before, if not all of them.
    """
    known = {**required, **(rest or {})}
    places = known if order is None else order
    second, short = alias or {}, known.keys() - required.keys() if optional_end is None else optional_end

    def take(value: Any, path: str) -> Any:
        start = f"{path}." if path else ""
        items = _placed(cast("list[Any]", value), path) if isinstance(value, list) else _object(value, path)
        if twice := [name for name in rustjson.repeated(items) if name in known or name in second]:
            raise Refusal(f"{start}{twice[0]} is there twice")
        for old, name in second.items():
            if old in items and name in items:
                raise Refusal(f"{start}{name} and {start}{old} are both there")
        told = {second.get(name, name): name for name in items}
        for name in required:
            if name not in told:
                raise Refusal(f"{start}{name} is missing")
        made = dict(items)
        for name, rule in known.items():
            if (field := told.get(name)) is not None:
                made[field] = rule(items[field], start + field)
        return made

    def _placed(values: list[Any], path: str) -> dict[str, Any]:
        if len(values) > len(places):
            raise Refusal(f"{path or 'it'} is an array of {len(values)}, for {len(places)} fields")
        if left := [name for name in list(places)[len(values) :] if name not in short]:
            raise Refusal(f"{path or 'it'} is an array that ends before its {left[0]}")
        return dict(zip(places, values, strict=False))

    return take


def anything(value: Any, _path: str) -> Any:
    """Any value."""
    return value


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
    """An object that says by `type` which rule it follows, or an array that begins with it."""

    def rule(value: Any, path: str) -> Any:
        rest = value
        if isinstance(value, list) and value:
            kind, *rest = cast("list[Any]", value)
        else:
            kind = _object(value, path).get("type")
            if "type" in rustjson.repeated(cast("Any", value)):
                raise Refusal(f"{path}.type is there twice")
        if not isinstance(kind, str) or kind not in kinds:
            raise Refusal(f"{path} has the type {kind!r:.60}, not one of {', '.join(kinds)}")
        made = kinds[kind](rest, path)
        return made if rest is value else {"type": kind, **made}

    return rule


_source = struct({"type": one_of("base64"), "media_type": text, "data": text})
_shown = tagged({"text": struct({"text": text}), "image": struct({"source": _source})})


def _answer(value: Any, path: str) -> Any:
    return value if isinstance(value, str) else many(_shown)(value, path)


block = tagged(
    {
        "text": struct({"text": text}),
        "image": struct({"source": _source}),
        "tool_use": struct({"id": text, "name": text, "input": anything}),
        "tool_result": struct({"tool_use_id": text, "content": _answer}, {"is_error": optional(flag)}),
    }
)
message = struct({"role": text, "content": many(block)}, {"reasoning_content": optional(text)})


def _rule_of_tools(value: Any, path: str) -> Any:
    return value if isinstance(value, str) else struct({"rule": text})(_object(value, path), path)


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
        "laneHandlers": by_name(_lane, _handler),
        "enableDlq": flag,
        "dlqMaxSize": optional(size),
        **dict.fromkeys(("enableMetrics", "enableAlerts"), flag),
        "defaultTimeoutMs": optional(size),
        "storagePath": optional(text),
        **dict.fromkeys(("retryPolicy", "rateLimit", "priorityBoost"), anything),
        "pressureThreshold": optional(size),
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
_config = struct(
    {name: CONFIG[name] for name in NEEDED}, CONFIG, order=list(CONFIG), optional_end=("planning_mode", "goal_tracking")
)


def LLM(value: Any, path: str) -> Any:  # noqa: N802  # it is a rule like the others
    """The config of a model; a key that an array says to be none is none that would have to be left out."""
    made = _llm(value, path)
    is_none = isinstance(value, list) and made["api_key"] is None
    return {name: item for name, item in made.items() if name != "api_key" or not is_none}


_llm = struct(
    {"provider": text, "model": text}, {"api_key": optional(text), "base_url": optional(text)}, optional_end=()
)
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
    order=("model", "provider", "prompt_tokens", "completion_tokens", "total_tokens", "cost_usd", "timestamp",
           "session_id"),
)  # fmt: skip
_TASK: Mapping[str, Rule] = {
    "id": text,
    "content": text,
    "status": one_of("pending", "in_progress", "completed", "failed", "skipped", "cancelled"),
}
_TASK_REST: Mapping[str, Rule] = {
    "priority": one_of("high", "medium", "low"),
    "tool": optional(text),
    "dependencies": _texts,
    "success_criteria": optional(text),
}
task = struct(_TASK, _TASK_REST)
TOP = (
    "id", "config", "state", "messages", "context_usage", "total_usage", "total_cost", "model_name", "cost_records",
    "tool_names", "thinking_enabled", "thinking_budget", "created_at", "updated_at", "llm_config", "tasks", "parent_id",
)  # fmt: skip
"""The fields of a session file, in the order in which they are written."""
_SESSION: Mapping[str, Rule] = {
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
}
_SESSION_REST: Mapping[str, Rule] = {
    "total_cost": number,
    "model_name": optional(text),
    "cost_records": many(_cost),
    "thinking_budget": optional(size),
    "llm_config": optional(LLM),
    "parent_id": optional(text),
}


def _session(task: Rule) -> Rule:
    rest = {**_SESSION_REST, "tasks": many(task)}
    return struct(_SESSION, rest, {"todos": "tasks"}, order=TOP, optional_end=())


session = _session(task)
_described = struct(_TASK, _TASK_REST, {"description": "content"})


def _task_v1(value: Any, path: str) -> Any:
    return {"content" if name == "description" else name: item for name, item in _described(value, path).items()}


session_v1 = _session(_task_v1)
"""The session of a snapshot of the newer form, whose tasks may have a `description` for their `content`."""
artifact = struct(
    {
        **dict.fromkeys(("artifact_id", "artifact_uri", "tool_name", "content"), text),
        "original_bytes": size,
        "shown_bytes": size,
    }
)
artifacts = struct({"artifacts": many(artifact)})
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
    """The value of a whole file, as the rule gives it.

    Raises:
        Refusal: the program would refuse it.
    """
    try:
        value = rustjson.parse(data)
    except rustjson.NotRust as error:
        raise Refusal(str(error)) from None
    return rule(value, "")
