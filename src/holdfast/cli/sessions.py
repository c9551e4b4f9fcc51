"""`holdfast session`: list, show, new, rename, label, delete; others are in the modules of their nouns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from holdfast.cli.app import INTEGRITY, App, Group, pass_app
from holdfast.cli.asking import DRY_RUN, YES, noted, some, sure
from holdfast.cli.refs import REF, left_out, named, parent_of, to_create, whole
from holdfast.cli.terminal import Line
from holdfast.errors import Corrupt

if TYPE_CHECKING:
    from holdfast.heads.info import SessionInfo
    from holdfast.model import Event
    from holdfast.session import Session


@click.group(
    cls=Group,
    lazy={
        **{name: f"runs:{name}" for name in ("state", "resume", "recover")},
        **{name: f"history:{name}" for name in ("fork", "tree", "diff", "rewind", "undo")},
        **{name: f"marks:{name}" for name in ("note", "star", "tasks")},
        **{name: f"contexts:{name}" for name in ("context", "compact", "validate", "repair")},
        "archive": "trash:archive",
    },
    examples="""
    holdfast session list --user ada --limit 20
    holdfast session show @last --last 10
    holdfast session rename 0193 'order 7'
    """,
)
def session() -> None:
    """List, show, create, rename, label, fork, rewind, recover, compact, archive and delete sessions."""


@session.command(
    "list",
    examples="""
    holdfast session list
    holdfast session list --label billing --since 2026-01-01T00:00:00Z
    holdfast --json session list --limit 1000 | jq -r '.items[].id'
    """,
)
@click.option("--user", help="Only this user's.")
@click.option("--state", help="Only those in this state: idle, running, paused, completed, error, unknown.")
@click.option("--label", help="Only those with this label.")
@click.option("--agent", help="Only those of this agent.")
@click.option("--model", help="Only those that used this model.")
@click.option("--project", help="Only those of this project.")
@click.option("--parent", type=REF, metavar="REF", help="Only the children of this session.")
@click.option("--name", help="Only those with this name.")
@click.option("--text", help="Only those whose name or title holds this.")
@click.option("--since", metavar="TIME", help="Only those active at or after this RFC 3339 time.")
@click.option("--until", metavar="TIME", help="Only those created at or before this RFC 3339 time.")
@click.option("-n", "--limit", default=50, show_default=True, help="How many at the most.")
@click.option("--cursor", help="Go on where the list before ended.")
@pass_app
def list_(app: App, **filters: Any) -> None:
    """Sessions, those that were active last first."""
    with app.store() as store:
        filters["parent"] = parent_of(store, filters["parent"])
        page = store.sessions(**filters)
    if app.json:
        from holdfast.cli.shapes import dumps, session_shape

        app.items((dumps(session_shape(info)) for info in page), page.cursor, damaged=list(page.damaged))
        _tell_damaged(app, page.damaged)
        return
    from holdfast.cli.terminal import ago, table
    from holdfast.clock import now

    _tell_damaged(app, page.damaged)
    if not page.items:
        app.say("no session matches")
        return
    at = now()
    rows = (
        (
            i.id,
            ago(i.updated_at, at),
            i.state,
            str(i.counts.messages),
            str(i.counts.errors or ""),
            i.title or i.name or "",
        )
        for i in page
    )
    app.lines(table(("ID", "ACTIVE", "STATE", "MESSAGES", "ERRORS", "TITLE"), rows, right=(3, 4), grow=5))
    if page.cursor:
        app.say(f"more: --cursor {page.cursor}")


def _tell_damaged(app: App, damaged: Sequence[str]) -> None:
    for id in damaged:
        app.warn(left_out(id))


@session.command(
    examples="""
    holdfast session show support-42
    holdfast session show @last --last 20 --types message
    holdfast session show support-42@7 --full
    """
)
@click.argument("ref", type=REF, metavar="REF")
@click.option("--last", type=click.IntRange(0), help="Only the newest so many events.")
@click.option("--after", type=click.IntRange(0), default=0, help="Only events after this seq.")
@click.option("--before", type=click.IntRange(1), help="Only events before this seq.")
@click.option("--types", metavar="TYPE,…", help="Only events of these types: message, step, usage, note, x.…")
@click.option("--include-hidden", is_flag=True, help="With events that were taken back.")
@click.option("--full", is_flag=True, help="All of every output, however long.")
@pass_app
def show(app: App, ref: str, last: int | None, after: int, before: int | None, types: str | None, **how: bool) -> None:
    """A session as a person reads it, or one event of it (REF@seq).

    Of one whose head is damaged its events are shown (exit code 5).
    """
    with app.store() as store:
        found, seq = named(store, ref, damaged="keep")
        whole = how["full"]
        if seq is not None:
            after, before, how["include_hidden"], how["full"] = seq - 1, seq + 1, True, True
        wanted = types.split(",") if types else None
        info = _info(found)

        def events(types: list[str] | None = wanted) -> Iterator[Event]:
            return found.events(
                after=after, before=before, last=last, types=types, include_hidden=how["include_hidden"], damaged="keep"
            )

        if app.json:
            from holdfast.cli.shapes import event_text, session_shape

            head = None if info is None else session_shape(info)
            app.items((event_text(found.id, event, full=whole) for event in events()), session=head)
        else:
            app.lines(_shown(info if seq is None else None, events, full=how["full"]), paged=True)
    if info is None:
        app.warn(f"its head is damaged, so only its log is shown; `holdfast session delete {found.id}` removes it")
        raise click.exceptions.Exit(INTEGRITY)


def _info(found: Session) -> SessionInfo | None:
    """What is known of a session; None if its head is damaged."""
    try:
        return found.info()
    except Corrupt:
        return None


def _shown(info: SessionInfo | None, events: Any, *, full: bool) -> Iterator[Line]:
    from holdfast.cli import show as view
    from holdfast.formats.calls import Outcomes

    if info is not None:
        yield from view.header(info)
    outcomes = Outcomes()
    for event in events(["message", "step"]):  # a call stands before its result, so all are read once to pair them
        outcomes.take(event)
    yield from view.events(events(), outcomes, full=full)


@session.command(
    examples="""
    holdfast session new
    holdfast session new support-42 --user ada --label billing
    holdfast session new support-42 --dry-run
    """
)
@click.argument("id", required=False)
@click.option("--user", help="Whom it belongs to.")
@click.option("--name", help="A short name to find it by.")
@click.option("--title", help="A title; without one the first user message gives it.")
@click.option("--agent", help="The agent that speaks in it.")
@click.option("--project", help="The project it belongs to.")
@click.option("--parent", type=REF, metavar="REF", help="The session it descends from.")
@click.option("--label", "labels", multiple=True, help="A label; may be repeated.")
@click.option("--metadata", metavar="JSON", help="A JSON object of your own.")
@DRY_RUN
@pass_app
def new(app: App, id: str | None, metadata: str | None, dry_run: bool, **fields: Any) -> None:
    """Create a session and print its id. One that is there already is a conflict (exit code 4)."""
    to_create(id or "")
    with app.store(create=True, dry_run=dry_run) as store:
        fields["parent"] = parent_of(store, fields["parent"])
        made = store.create(id, metadata=_json_object(metadata), **fields)
        _tell(app, made, "created" if id else "created, under a new id", dry_run=dry_run)


def _json_object(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"--metadata is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise click.BadParameter("--metadata takes a JSON object such as '{\"ticket\": 7}'")
    return value  # pyright: ignore[reportUnknownVariableType]  # a JSON object has str keys


def _tell(app: App, found: Session, done: str, *, dry_run: bool) -> None:
    """The session after a change: as JSON, or its id; or what would be done."""
    if app.json:
        from holdfast.cli.shapes import session_shape

        app.data({**session_shape(found.info()), **noted(dry_run)})
    elif dry_run:
        app.say(f"{'a session' if done.endswith('new id') else found.id} would be {done}")
    else:
        app.line(found.id)


@session.command(
    examples="""
    holdfast session rename 0193a7 order-7
    holdfast session rename order-7 --title 'Where is order 7?'
    holdfast session rename 0193a7 order-7 --dry-run
    """
)
@click.argument("ref", type=REF, metavar="REF")
@click.argument("name", required=False)
@click.option("--title", help="A new title.")
@DRY_RUN
@pass_app
def rename(app: App, ref: str, name: str | None, title: str | None, dry_run: bool) -> None:
    """Give a session a name, a title or both; "" removes one."""
    given: dict[str, Any] = {field: value for field, value in (("name", name), ("title", title)) if value is not None}
    if not given:
        raise click.UsageError("say the new NAME, or --title")
    with app.store(dry_run=dry_run) as store:
        found = whole(store, ref)
        found.update(**given)
        _tell(app, found, "renamed", dry_run=dry_run)


@session.command(
    examples="""
    holdfast session label order-7 billing urgent
    holdfast session label order-7 --remove urgent
    holdfast session label order-7 billing --dry-run
    """
)
@click.argument("ref", type=REF, metavar="REF")
@click.argument("labels", nargs=-1)
@click.option("-r", "--remove", multiple=True, metavar="LABEL", help="A label to take away; may be repeated.")
@DRY_RUN
@pass_app
def label(app: App, ref: str, labels: tuple[str, ...], remove: tuple[str, ...], dry_run: bool) -> None:
    """Add and take away labels."""
    if not labels and not remove:
        raise click.UsageError("say the labels to add, or --remove")
    with app.store(dry_run=dry_run) as store:
        found = whole(store, ref)
        found.update(labels={**dict.fromkeys(remove, False), **dict.fromkeys(labels, True)})
        _tell(app, found, "labelled", dry_run=dry_run)


@session.command(
    examples="""
    holdfast session delete support-42
    holdfast session delete --yes support-42 support-43
    holdfast session delete --dry-run support-42
    """
)
@click.argument("refs", type=REF, metavar="REF...", nargs=-1, required=True)
@YES
@DRY_RUN
@pass_app
def delete(app: App, refs: tuple[str, ...], yes: bool, dry_run: bool) -> None:
    """Delete sessions for good: their events are gone, and a late writer can't bring them back.

    Also such whose heads are damaged.
    """
    with app.store(dry_run=dry_run) as store:
        found = list({s.id: s for s in (whole(store, ref, damaged="keep") for ref in refs)}.values())
        from holdfast.formats.words import plural

        told = some([f"{one.id} ({plural(one.last, 'event')})" for one in found])
        sure(app, f"Delete {told} for good?", yes=yes or dry_run, what="deleting can't be undone", done="deleted")
        for one in found:
            one.delete()
            if dry_run and not app.json:
                app.say(f"{one.id} would be deleted ({plural(one.last, 'event')})")
            elif not app.json:
                app.line(one.id)
    if app.json:
        app.data({"deleted": [one.id for one in found], **noted(dry_run)})
