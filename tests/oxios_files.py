"""oxios's folders as its versions write them, made anew: before 1.0, 1.0.0, 1.3.0, and of August 2026."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VERSIONS = ("before-1.0", "1.0.0", "1.3.0", "head")
AT = "2026-06-14T01:02:0{}Z"


def written(value: Any) -> bytes:
    """A document as serde_json writes it, of values for which Python writes the same."""
    return json.dumps(value, indent=2, ensure_ascii=False).encode()


def document(version: str = "1.3.0", id: str = "s-1", **fields: Any) -> dict[str, Any]:
    """A session with all that its version has."""
    response: dict[str, Any] = {
        "content": "two files",
        "session_id": id,
        "seed_id": "seed",
        "phase_reached": None,
        "evaluation_passed": True,
        "timestamp": AT.format("5.123456789"),
    }
    if version == "head":
        del response["seed_id"]
    if version in ("1.3.0", "head"):
        response["trajectory_range"] = {"start": 0, "end": 1}
    made: dict[str, Any] = {
        "id": id,
        "user_id": "alice",
        "user_messages": [
            {"content": "List the files\nplease 🦀 \x7f\u2028\x01", "timestamp": AT.format("3")},
            {"content": "and again", "timestamp": AT.format("6.500")},
        ],
        "agent_responses": [response],
    }
    if version in ("1.3.0", "head"):
        made["trajectory_steps"] = [
            {
                "tool_name": "bash",
                "tool_args": {"z": 18446744073709551615, "a": [None, True, 1.0, -3, 0.5, "x"], "é": {}},
                "output_summary": "a\nb",
                "duration_ms": 12,
                "is_error": False,
                "tool_call_id": "",
                "timestamp": AT.format("4.250"),
            }
        ]
    if version == "head":
        made["reasoning_records"] = [{"content": "hm", "source": "model", "timestamp": AT.format("4")}]
        made["parent_session_id"] = "s-0"
        made["project_id"] = "p-9"
    else:
        made["active_seed_id"] = "seed"
    made["active_persona_id"] = "persona"
    made |= {"created_at": AT.format("3.1234567"[:5]), "updated_at": AT.format("6.500000001")}
    made["metadata"] = {"title": "My title", "project_ids": "p-1,p-2", "n": {"deep": [1, {"x": None}]}}
    return {**made, **fields}


AGENT = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"


def fill(base: Path, version: str = "1.3.0") -> Path:
    """A folder with sessions and documents of all kinds; some are corrupt, some unfinished."""
    sessions, agents = base / "sessions", base / "agents"
    for folder in (sessions, agents, base / "cron" / "jobs", base / "notes"):
        folder.mkdir(parents=True, exist_ok=True)
    (sessions / "s-1.json").write_bytes(written(document(version)))
    (sessions / "dots.in.id.json").write_bytes(written(document(version, "dots.in.id", user_messages=[])))
    (sessions / "a..b.json").write_bytes(written(document(version, "someone-else")))
    (sessions / "s-1.md").write_bytes(b"# twin")
    (sessions / "by-hand.json").write_bytes(json.dumps(document(version, "by-hand", extra=[1.5e300])).encode())
    (sessions / "corrupt.json").write_bytes(b"not valid json {{{")
    (sessions / "binary.json").write_bytes(b"\xff\xfe")
    (sessions / "s-1.4711.0f0e.tmp").write_bytes(b'{"id": "s-1", ')
    # serde_json writes this number otherwise than Python does, and a uuid may be written without hyphens
    record = written({"id": AGENT, "name": "agent", "status": "Completed", "created_at": AT.format(0), "cost_usd": 1})
    (agents / f"{AGENT}.json").write_bytes(record.replace(b'"cost_usd": 1', b'"cost_usd": 0.0000123'))
    (base / "cron" / "jobs" / "nightly.json").write_bytes(b'{ "every":1e16 }\n')
    (base / "notes" / "n.md").write_bytes(b"Zeile\r\n")
    (base / "notes" / "n.json").write_bytes(b"[]")
    (base / "notes" / "latin.md").write_bytes(b"caf\xe9")
    (base / "top.md").write_bytes(b"")
    return base


def contents(base: Path) -> dict[str, bytes]:
    """All files of a folder, by their paths in it, but the unfinished."""
    files = [path for path in base.rglob("*") if path.is_file() and path.suffix != ".tmp"]
    return {str(path.relative_to(base)): path.read_bytes() for path in files}
