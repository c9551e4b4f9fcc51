"""What the tests of the import share: where the sample transcripts lie, and how a session is read back."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from holdfast.importer import FileReport, ImportReport, import_files
from holdfast.importing.sources import find_sources
from holdfast.model import Event
from holdfast.store import Store

DATA = Path(__file__).parent / "data" / "transcripts"
CLAUDE = DATA / "claude-code" / "-home-ana-shop"
MAIN = "6f1c0a2e-1d3b-4c55-9e77-0000000000a1"
RESUMED = "6f1c0a2e-1d3b-4c55-9e77-0000000000b2"


def take(store: Store, *paths: Path) -> ImportReport:
    """Import these files and folders."""
    return import_files(store, find_sources(paths))


def take_one(store: Store, path: Path) -> FileReport:
    """Import one file; its report."""
    (report,) = take(store, path).files
    return report


def events(store: Store, id: str | None) -> list[Event]:
    session = store.get(id or "")
    assert session is not None
    return list(session.events())


def source_bytes(found: list[Event]) -> bytes:
    """The stored lines, joined in their order."""
    sources = [(e.payload.source.line, e.seq, e.payload.source) for e in found if e.payload.source is not None]
    raws = [(s.encoding, str(s.raw)) for _, _, s in sorted(sources, key=lambda x: x[:2])]
    return b"".join(base64.b64decode(raw) if encoding == "base64" else raw.encode() for encoding, raw in raws)


def said(text: str, number: int, session: str = "s-1", **more: Any) -> bytes:
    """A line in which the user says something."""
    record = {
        "type": "user",
        "sessionId": session,
        "uuid": f"{session}-{number}",
        "timestamp": f"2026-02-01T10:{number // 60 % 60:02}:{number % 60:02}.000Z",
        "message": {"role": "user", "content": text},
        **more,
    }
    return json.dumps(record).encode() + b"\n"


def answered(id: str, output: int, number: int, session: str = "s-1", text: str = "Yes") -> bytes:
    """A line of the model's response `id`."""
    record = {
        "type": "assistant",
        "sessionId": session,
        "uuid": f"{session}-{number}",
        "timestamp": f"2026-02-01T10:{number // 60 % 60:02}:{number % 60:02}.000Z",
        "message": {
            "id": id,
            "role": "assistant",
            "model": "claude-x",
            "content": [{"type": "text", "text": text}],
            "usage": {"input_tokens": 5, "output_tokens": output},
        },
    }
    return json.dumps(record).encode() + b"\n"
