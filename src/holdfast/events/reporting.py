"""Verification reports: what was checked, and what all of it came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast.errors import Invalid
from holdfast.model import Event, Report

if TYPE_CHECKING:
    from holdfast.log import Log

STATUSES = ("passed", "failed", "needs_review", "skipped")
"""What a check, and a whole report, can come to."""


class Check(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One check of a report. `status` is passed, failed, needs_review or skipped."""

    id: str = ""
    kind: str = ""
    description: str = ""
    status: str = "needs_review"
    required: bool = True
    suggested_tools: tuple[str, ...] = ()
    evidence_uris: tuple[str, ...] = ()
    residual_risk: str | None = None


def report(
    subject: str,
    checks: Sequence[Check | Mapping[str, Any]] = (),
    *,
    residual_risks: Sequence[str] = (),
    status: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Report:
    """A verification. Its status follows from the checks, by `status_of`, unless it is given.

    Checks may be given as mappings; fields that are not known here are kept.

    Raises:
        Invalid: a status is none, a check lacks its id, or two have the same.
    """
    told = tuple(_told(check) for check in checks)
    ids = [check["id"] for check in told]
    if twice := next((id for n, id in enumerate(ids) if id in ids[:n]), None):
        raise Invalid(f"two checks of the report have the id {twice!r}", id=twice)
    found = status_of(told, residual_risks) if status is None else _status(status)
    return Report(
        subject=subject,
        status=found,
        checks=told,
        residual_risks=tuple(residual_risks),
        metadata=None if metadata is None else dict(metadata),
    )


def status_of(checks: Sequence[Mapping[str, Any]], residual_risks: Sequence[str] = ()) -> str:
    """What checks come to: failed, if any failed; else needs_review, if a required one needs it or was skipped, or a
    risk remains; skipped, if there is no check; else passed.
    """
    if any(check.get("status") == "failed" for check in checks):
        return "failed"
    if residual_risks or any(
        check.get("required", True) and check.get("status") in ("needs_review", "skipped") for check in checks
    ):
        return "needs_review"
    return "passed" if checks else "skipped"


def checks_of(report: Report) -> tuple[Check, ...]:
    """A stored report's checks, typed; fields that are not known here are in `report.checks`.

    Raises:
        Invalid: one is no check: another program wrote it.
    """
    try:
        return tuple(msgspec.convert(check, Check) for check in report.checks)
    except msgspec.ValidationError as error:
        raise Invalid(f"the report on {report.subject!r} holds what is no check: {error}") from None


def plain(value: msgspec.Struct) -> dict[str, Any]:
    """A struct as it comes back from JSON."""
    return msgspec.json.decode(msgspec.json.encode(value))


def _told(check: Check | Mapping[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = plain(check) if isinstance(check, Check) else dict(check)
    if not isinstance(told.get("id"), str) or not told["id"]:
        raise Invalid("a check needs an id, by which it is told from the others", check=told)
    # What the overall status rests on is said, not left to what a reader takes for the default.
    return {**told, "status": _status(told.get("status", "needs_review")), "required": told.get("required", True)}


def _status(status: object) -> str:
    if status not in STATUSES:
        raise Invalid(f"status {status!r:.40} is not one of {', '.join(STATUSES)}", status=status)
    return str(status)


def counted_events(session: Log, kind: str, counter: str) -> list[Event]:
    """A session's events of a type that is counted, oldest first: the log is read back to the first of them only."""
    left = session.counted(counter)
    found: list[Event] = []
    if left:
        for event in session.events(types=kind, reverse=True, include_hidden=True):
            if not event.hidden:
                found.append(event)
            left -= 1
            if left == 0:
                break
    return found[::-1]


def newest_event(session: Log, kind: str, counter: str) -> Event | None:
    """The newest visible event of a type that is counted; a session that never had one is not read."""
    left = session.counted(counter)
    if left:
        for event in session.events(types=kind, reverse=True, include_hidden=True):
            if not event.hidden:
                return event
            left -= 1
            if left == 0:
                break
    return None
