"""The JSON that `--json` prints. These shapes are stable: keys may be added, never renamed or removed.

An event's `payload` is spliced in as it is stored, so that what this version does not know, and integers of any size,
come out exactly.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from holdfast.cli.terminal import safe_json

if TYPE_CHECKING:
    from holdfast.artifacts.sweeping import Swept
    from holdfast.check import CheckReport
    from holdfast.copies import Copied
    from holdfast.errors import HoldfastError
    from holdfast.events.receipts import Receipt
    from holdfast.finding.hits import SearchHit
    from holdfast.finding.watch import Change
    from holdfast.heads.info import SessionInfo
    from holdfast.model import Event


def dumps(value: Any) -> str:
    """A value as one line of JSON."""
    return safe_json(json.dumps(value, ensure_ascii=False))


def time_of(at: int) -> str | int:
    """RFC 3339; the bare microseconds where no calendar reaches."""
    from holdfast.clock import rfc3339

    try:
        return rfc3339(at)
    except (OverflowError, ValueError):
        return at


def session_shape(info: SessionInfo) -> dict[str, Any]:
    """A session's head."""
    from msgspec import to_builtins

    times = {"created_at": time_of(info.created_at), "updated_at": time_of(info.updated_at)}
    return {**to_builtins(info), **times}


def copied_shape(one: Copied) -> dict[str, Any]:
    """What became of a session or document that was copied."""
    return {
        "session": one.session or None,
        "document": one.document or None,
        "user": one.user,
        "events": one.events,
        "new": one.new,
        "deleted": one.deleted,
        "error": one.error and error_shape(one.error),
    }


def event_text(session: str, event: Event, *, full: bool = False) -> str:
    """An event as one line of JSON; with `full`, large values stand whole in it."""
    from holdfast.model import Damaged

    damaged = event.payload.reason if isinstance(event.payload, Damaged) else None
    head = {
        "session": session,
        "seq": event.seq,
        "id": event.id,
        "at": time_of(event.at),
        "type": event.type,
        "hidden": event.hidden,
        "damaged": damaged,
    }
    raw = event.raw
    if full and b'"large"' in raw and damaged is None:
        from holdfast.cli.records import whole

        raw = whole(event)
    payload = "null" if damaged is not None else raw.decode("utf-8", "surrogatepass").replace("\n", " ")
    return safe_json(f'{json.dumps(head, ensure_ascii=False)[:-1]}, "payload": {payload}}}')


def hit_text(hit: SearchHit) -> str:
    """A hit of a search as JSON."""
    head = {
        "session": hit.session,
        "seq": hit.seq,
        "score": hit.score,
        "snippet": hit.snippet,
        "highlights": [list(pair) for pair in hit.highlights],
    }
    return f'{dumps(head)[:-1]}, "event": {event_text(hit.session, hit.event)}}}'


def change_shape(change: Change) -> dict[str, Any]:
    """A change that a watch tells."""
    from msgspec import to_builtins

    return {**to_builtins(change), "at": time_of(change.at)}


def receipt_shape(receipt: Receipt) -> dict[str, Any]:
    """What an append stored."""
    from msgspec import to_builtins

    return {**to_builtins(receipt), "repeated": receipt.repeated}


def check_shape(report: CheckReport) -> dict[str, Any]:
    """What a check read and found."""
    findings, unfinished = (
        [{"what": f.what, "session": f.session, "seq": f.seq, "document": f.document, "user": f.user} for f in found]
        for found in (report.findings, report.unfinished)
    )
    return {
        "ok": report.ok,
        "sessions": report.sessions,
        "events": report.events,
        "documents": report.documents,
        "findings": findings,
        "unfinished": unfinished,
        "swept": None if report.swept is None else _swept_shape(report.swept),
        "repaired": report.repaired,
    }


def _swept_shape(swept: Swept) -> dict[str, Any]:
    return {
        "blobs": swept.blobs,
        "deleted": swept.deleted,
        "bytes": swept.bytes,
        "unread": list(swept.unread),
        "dry_run": swept.dry_run,
    }


def error_shape(error: HoldfastError) -> dict[str, Any]:
    """An error with those of its facts that JSON can hold."""
    plain: dict[str, Any] = {
        name: fact
        for name, fact in error.facts.items()
        if isinstance(fact, str | int | bool | None) or (isinstance(fact, list) and name == "matches")
    }
    return {**plain, "type": type(error).__name__, "message": error.message}
