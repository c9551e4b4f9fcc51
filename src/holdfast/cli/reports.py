"""`holdfast report`: what was verified in a session, and what it came to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from holdfast.cli.app import App, Group, pass_app
from holdfast.cli.asking import DRY_RUN
from holdfast.cli.reading import opened
from holdfast.cli.refs import REF, named, whole
from holdfast.cli.terminal import Span
from holdfast.errors import Invalid, NotFound
from holdfast.formats.words import plural, safe_line

if TYPE_CHECKING:
    from holdfast.model import Event
    from holdfast.session import Session

_STYLES = {"passed": "green", "failed": "red", "needs_review": "yellow"}


@click.group(
    cls=Group,
    examples="""
    holdfast report add support-42 'the fix' --check tests=passed --optional lint=failed
    holdfast report list support-42
    holdfast report show support-42
    """,
)
def report() -> None:
    """Add, list and show verification reports."""


@report.command(
    examples="""
    holdfast report add support-42 'the fix' --check tests=passed --check lint=passed
    holdfast report add support-42 'the fix' --checks checks.json --risk 'not tried on Windows'
    """
)
@click.argument("ref", type=REF, metavar="REF")
@click.argument("subject")
@click.option("--check", "required", multiple=True, metavar="ID=STATUS", help="A check that counts; may be repeated.")
@click.option("--optional", multiple=True, metavar="ID=STATUS", help="A check that need not be done.")
@click.option("--checks", "file", metavar="FILE", help="A JSON list of whole checks; - is stdin.")
@click.option("--risk", "risks", multiple=True, help="A risk that remains; may be repeated.")
@click.option("--status", help="Instead of what follows from the checks: passed, failed, needs_review, skipped.")
@click.option("--key", help="Makes the call repeatable: the same key stores once.")
@DRY_RUN
@pass_app
def add(app: App, ref: str, subject: str, file: str | None, key: str | None, dry_run: bool, **said: Any) -> None:
    """Store what was verified; prints the name of its event and what it came to.

    A check's status is passed, failed, needs_review or skipped.
    """
    from holdfast.events.reporting import report as made_of

    checks = [_check(text, required=True) for text in said["required"]]
    checks += [_check(text, required=False) for text in said["optional"]]
    checks += [] if file is None else _checks(file)
    made = made_of(subject, checks, residual_risks=said["risks"], status=said["status"])
    with app.store() as store:
        found = whole(store, ref)
        seq = None if dry_run else found.append(made, key=key).last
    if app.json:
        told = {"session": found.id, "seq": seq, "subject": subject, "status": made.status, "dry_run": dry_run}
        app.data(told)
    elif seq is None:
        app.say(f"would be {made.status}, {plural(len(made.checks), 'check')}")
    else:
        app.line(safe_line(f"{found.id}@{seq}  {made.status}"))


def _check(text: str, *, required: bool) -> dict[str, Any]:
    id, _, status = text.rpartition("=")
    if not id:
        raise click.BadParameter(f"{text!r} is not ID=STATUS, such as tests=passed")
    return {"id": id, "status": status, "required": required}


def _checks(file: str) -> list[dict[str, Any]]:
    with opened(file, "the FILE") as stream:
        try:
            told = json.loads(stream.read())
        except (ValueError, RecursionError) as error:
            raise Invalid(f"{file} is no JSON: {error}") from None
    if not isinstance(told, list) or not all(isinstance(one, dict) for one in told):  # pyright: ignore[reportUnknownVariableType]  # it is JSON
        raise Invalid(f'{file} is no JSON list of checks such as [{{"id": "tests", "status": "passed"}}]')
    return told  # pyright: ignore[reportUnknownVariableType]  # looked at above


@report.command(
    "list",
    examples="""
    holdfast report list support-42
    holdfast --json report list @last | jq -r '.items[-1].status'
    """,
)
@click.argument("ref", type=REF, metavar="REF")
@pass_app
def list_(app: App, ref: str) -> None:
    """The reports of a session, oldest first."""
    with app.store() as store:
        found = whole(store, ref)
        there = _reports(found)
    if app.json:
        from holdfast.cli.shapes import dumps

        app.items(dumps(_shape(found, event)) for event in there)
        return
    if not there:
        app.say("it has no reports")
        return
    from holdfast.cli.terminal import local, table

    shapes = [_shape(found, event) for event in there]
    rows = [
        (f"@{told['seq']}", local(event.at), told["status"], str(len(told["checks"])), told["subject"])
        for told, event in zip(shapes, there, strict=True)
    ]
    app.lines(table(("SEQ", "AT", "STATUS", "CHECKS", "SUBJECT"), rows, right=(3,), grow=4))


@report.command(
    examples="""
    holdfast report show support-42
    holdfast report show support-42@12
    """
)
@click.argument("ref", type=REF, metavar="REF[@SEQ]")
@pass_app
def show(app: App, ref: str) -> None:
    """The newest report of a session, or that at an event."""
    with app.store() as store:
        found, seq = named(store, ref)
        event = next((one for one in reversed(_reports(found)) if seq in (None, one.seq)), None)
    if event is None:
        where = f"session {found.id!r} has no report"
        raise NotFound(where if seq is None else f"event {seq} of session {found.id!r} is no report", session=found.id)
    told = _shape(found, event)
    if app.json:
        app.data(told)
        return
    app.line(
        Span(safe_line(told["status"]), _STYLES.get(told["status"], "")), "  ", Span(safe_line(told["subject"]), "bold")
    )
    for check in told["checks"]:
        status = str(check.get("status", ""))
        more = str(check.get("description") or "") + ("" if check.get("required", True) else "  (optional)")
        line = f"  {check.get('id', '')}  {more}".rstrip()
        app.line("  ", Span(safe_line(f"{status:12}"), _STYLES.get(status, "")), safe_line(line))
        uris = check.get("evidence_uris")
        for uri in uris if isinstance(uris, list) else ():  # pyright: ignore[reportUnknownVariableType]  # somebody's JSON
            app.line(safe_line(f"                see {uri}"))
    for risk in told["residual_risks"]:
        app.line(safe_line(f"  risk: {risk}"))


def _reports(found: Session) -> list[Event]:
    from holdfast.events.reporting import counted_events

    return counted_events(found, "report", "reports")


def _shape(found: Session, event: Event) -> dict[str, Any]:
    from holdfast.cli.shapes import time_of
    from holdfast.model import Report

    told = event.payload if isinstance(event.payload, Report) else Report()
    return {
        "session": found.id,
        "seq": event.seq,
        "at": time_of(event.at),
        "subject": told.subject,
        "status": told.status,
        "checks": list(told.checks),
        "residual_risks": list(told.residual_risks),
    }
