"""a3s-code's files as its versions write them, made anew."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def text(said: str) -> Json:
    return {"type": "text", "text": said}


def message(role: str, *blocks: Json, reasoning: str | None = None) -> Json:
    made: Json = {"role": role, "content": list(blocks)}
    return made if reasoning is None else {**made, "reasoning_content": reasoning}


TALK: list[Json] = [
    message("user", text("Run the tests, please.")),
    message(
        "assistant",
        text("Let me see."),
        {"type": "tool_use", "id": "call-1", "name": "bash", "input": {"command": "make test", "n": 1e-7}},
        reasoning="They asked for tests — café 🦀",
    ),
    message("user", {"type": "tool_result", "tool_use_id": "call-1", "content": "ok\n", "is_error": False}),
    message(
        "user",
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
        text("And this?"),
    ),
    message("assistant", text("A picture.")),
]
"""A conversation with a tool and an image."""


CONFIG: Json = {
    "name": "nightly", "workspace": "/w", "system_prompt": "Be brief.", "max_context_length": 100_000,
    "auto_compact": True, "auto_compact_threshold": 0.75, "storage_type": "custom",
    "queue_config": {
        "controlMaxConcurrency": 3, "queryMaxConcurrency": 5, "executeMaxConcurrency": 6, "generateMaxConcurrency": 7,
        "laneHandlers": {"Query": {"mode": "External", "timeout_ms": 5}}, "enableDlq": True, "dlqMaxSize": 9,
        "enableMetrics": True, "enableAlerts": False, "defaultTimeoutMs": 60_000, "storagePath": "/w/queue",
        "retryPolicy": {"strategy": "fixed", "maxRetries": 4, "initialDelayMs": 200, "fixedDelayMs": 50},
        "rateLimit": {"limitType": "per_second", "maxOperations": 11},
        "priorityBoost": {"strategy": "aggressive", "deadlineMs": 12}, "pressureThreshold": 13,
        "laneTimeouts": {"Execute": 14, "Generate": 15},
    },
    "confirmation_policy": {
        "enabled": True, "default_timeout_ms": 5, "timeout_action": "AutoApprove", "yolo_lanes": ["Query", "Execute"],
    },
    "permission_policy": {
        "deny": [{"rule": "Bash(rm:*)"}], "allow": [{"rule": "Read"}], "ask": [{"rule": "Write(**)"}],
        "default_decision": "deny", "enabled": False,
    },
    "parent_id": "the parent",
    "security_config": {
        "enabled": True, "classification_rules": [{"name": "card", "pattern": "[0-9]{16}", "level": "Sensitive"}],
        "redaction_strategy": "Hash", "network_whitelist": ["localhost"], "dangerous_commands": ["rm -rf"],
        "features": {
            "output_sanitizer": True, "taint_tracking": False, "tool_interceptor": True, "injection_defense": False,
        },
    },
    "planning_mode": "Enabled", "goal_tracking": True,
}  # fmt: skip
"""A config in which every field of every part says something."""


def session(id: str = "s-1", messages: list[Json] | None = None, **fields: Any) -> Json:
    """A session file's document, as 2.0.0 writes one."""
    config = {
        "name": "",
        "workspace": "/home/dev/project",
        "system_prompt": None,
        "max_context_length": 200000,
        "auto_compact": False,
        "auto_compact_threshold": 0.8,
        "storage_type": "file",
        "planning_mode": "Auto",
        "goal_tracking": False,
    }
    made: Json = {
        "id": id,
        "config": config,
        "state": "Active",
        "messages": TALK if messages is None else messages,
        "context_usage": {"used_tokens": 100, "max_tokens": 200000, "percent": 0.0005, "turns": 2},
        "total_usage": {
            "prompt_tokens": 50,
            "completion_tokens": 60,
            "total_tokens": 110,
            "cache_read_tokens": None,
            "cache_write_tokens": 7,
        },
        "total_cost": 0.0000123,
        "model_name": "m-1",
        "cost_records": [cost(1), cost(2)],
        "tool_names": ["task", "bash", "read"],
        "thinking_enabled": False,
        "thinking_budget": None,
        "created_at": 1795227194,
        "updated_at": 1795227200,
        "llm_config": {"provider": "anthropic", "model": "m-1", "base_url": None},
        "tasks": [{"id": "t1", "content": "Test", "status": "in_progress", "priority": "high", "dependencies": ["t0"]}],
    }
    for name, value in fields.items():
        if isinstance(value, dict) and isinstance(made.get(name), dict):
            made[name] = {**made[name], **value}
        else:
            made[name] = value
    return made


def cost(number: int) -> Json:
    return {
        "model": "m-1",
        "provider": "anthropic",
        "prompt_tokens": 20 * number,
        "completion_tokens": 30,
        "total_tokens": 20 * number + 30,
        "cost_usd": 0.0021,
        "timestamp": f"2026-11-21T02:23:5{number}.813416687Z",
        "session_id": None,
    }


def artifact(number: int = 1, content: str = "a long output\n") -> Json:
    return {
        "artifact_id": f"tool-output:bash:{number:016x}",
        "artifact_uri": f"a3s://tool-output/bash/{number:016x}",
        "tool_name": "bash",
        "content": content,
        "original_bytes": len(content.encode()),
        "shown_bytes": 4,
    }


def trace(name: str = "bash", **more: Any) -> Json:
    made: Json = {
        "schema": "a3s.trace_event.v1",
        "kind": "tool_execution",
        "name": name,
        "success": True,
        "exit_code": 0,
        "duration_ms": 6,
        "output_bytes": 12,
    }
    return {**made, **more}


def report(**more: Any) -> Json:
    check = {
        "id": "t:1",
        "kind": "test",
        "description": "Run make",
        "status": "failed",
        "required": True,
        "suggested_tools": ["bash"],
        "residual_risk": "it exited with code 1",
    }
    return {"schema": "a3s.verification_report.v1", "subject": "test", "status": "failed", "checks": [check], **more}


def pretty(value: Any) -> str:
    """As the program writes it; of its numbers, those that Python writes otherwise are told apart here by hand."""
    written = json.dumps(value, indent=2, ensure_ascii=False)
    return written.replace("1.23e-05", "0.0000123").replace("1e-07", "1e-7")


def put(folder: Path, path: str, data: str | bytes) -> None:
    """A file of the folder."""
    place = folder / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data.encode() if isinstance(data, str) else data)


def fill(
    folder: Path,
    document: Json,
    *,
    artifacts: list[Json] | None = None,
    traces: list[Json] | None = None,
    reports: list[Json] | None = None,
    stem: str | None = None,
) -> None:
    """A session as 2.0.0 saves it: four files, also of what is empty."""
    name = stem or document["id"].replace("/", "_").replace("\\", "_").replace("..", "_")
    put(folder, f"{name}.json", pretty(document))
    put(folder, f"artifacts/{name}/artifacts.json", pretty({"artifacts": artifacts or []}))
    put(folder, f"traces/{name}.json", pretty(traces or []))
    put(folder, f"verification/{name}.json", pretty(reports or []))


def encoded(id: str) -> str:
    return "id_" + base64.urlsafe_b64encode(id.encode()).decode().rstrip("=")


def fill_v1(folder: Path, document: Json, **parts: Any) -> None:
    """A session as later versions save it: one snapshot under a name that tells the id."""
    snapshot: Json = {
        "schema_version": 1,
        "session": document,
        "artifacts": [],
        "retained_artifact_uris": [],
        "trace_events": [],
        "run_records": [],
        "verification_reports": [],
        "subagent_tasks": [],
        **parts,
    }
    put(folder, f"v1/sessions/{encoded(document['id'])}.json", pretty(snapshot))


def tree(folder: Path) -> dict[str, bytes]:
    """All files of a folder, by their paths."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
