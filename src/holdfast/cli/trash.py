"""`holdfast trash`, and `session archive`: sessions that are put away, and brought back or purged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from holdfast.cli.app import PARTIAL, App, Command, Group, pass_app
from holdfast.cli.asking import DRY_RUN, YES, some, sure
from holdfast.cli.prunes import tell_left, tell_pruned
from holdfast.cli.quantities import DURATION
from holdfast.cli.refs import REF, in_trash, whole
from holdfast.errors import HoldfastError
from holdfast.formats.words import plural, safe_line
from holdfast.paths import as_path

if TYPE_CHECKING:
    from holdfast.retention.policies import Spared
    from holdfast.retention.trash import Purged, TrashedSession
    from holdfast.store import Store


@click.group(
    cls=Group,
    examples="""
    holdfast trash list
    holdfast trash restore support-42
    holdfast trash purge --older-than 30d
    """,
)
def trash() -> None:
    """List, put, restore and purge sessions that were put away."""


@trash.command(
    "list",
    examples="""
    holdfast trash list
    holdfast --json trash list --limit 1000 | jq -r '.items[].session.id'
    """,
)
@click.option("--user", help="Only this user's.")
@click.option("--prune", metavar="ID", help="Only those that this prune put there.")
@click.option("-n", "--limit", default=50, show_default=True, help="How many at the most.")
@click.option("--cursor", help="Go on where the list before ended.")
@pass_app
def list_(app: App, **filters: Any) -> None:
    """The sessions in the trash, those that were active last first."""
    with app.store() as store:
        page = store.trash.list(**filters)
    for id in page.damaged:
        app.warn(f"left out: the head of session {id!r} is damaged; it can be purged by its id")
    if app.json:
        from holdfast.cli.shapes import dumps

        app.items((dumps(_shape(one)) for one in page), page.cursor, damaged=list(page.damaged))
        return
    if not page.items:
        app.say("nothing is in the trash")
        return
    from holdfast.cli.terminal import ago, table
    from holdfast.clock import now

    at = now()
    rows = [
        (
            one.session.id,
            ago(one.trashed_at, at),
            f"{one.bytes:,}",
            one.session.title or one.session.name or "",
            one.why,
        )
        for one in page
    ]
    app.lines(table(("ID", "SINCE", "BYTES", "TITLE", "WHY"), rows, right=(2,), grow=3))
    if page.cursor:
        app.say(f"more: --cursor {page.cursor}")


def _shape(one: TrashedSession) -> dict[str, Any]:
    from holdfast.cli.shapes import session_shape, time_of

    times = {"trashed_at": time_of(one.trashed_at)}
    return {"session": session_shape(one.session), **times, "why": one.why, "prune": one.prune, "bytes": one.bytes}


@trash.command(
    examples="""
    holdfast trash put support-42
    holdfast trash put support-42 support-43 --why 'Ada asked for it'
    """
)
@click.argument("refs", type=REF, metavar="REF...", nargs=-1, required=True)
@click.option("--why", default="by hand", show_default=True, help="The reason, for the list.")
@DRY_RUN
@pass_app
def put(app: App, refs: tuple[str, ...], why: str, dry_run: bool) -> None:
    """Move sessions to the trash, whatever their names and labels; not one that runs or that a fork reads through."""
    from holdfast.retention.putting import check_free

    with app.store() as store:
        ids = list(dict.fromkeys(whole(store, ref).id for ref in refs))

        def move(id: str) -> None:
            if dry_run:
                check_free(store, store.head(id))
            else:
                store.trash.put(id, why=why)

        done, failed = _each(ids, move)
    _tell(app, "trashed", done, failed, dry_run=dry_run)


@trash.command(
    examples="""
    holdfast trash restore support-42
    holdfast trash restore support-42 support-43
    """
)
@click.argument("refs", metavar="REF...", nargs=-1, required=True)
@DRY_RUN
@pass_app
def restore(app: App, refs: tuple[str, ...], dry_run: bool) -> None:
    """Bring sessions back as they were, and with a fork the parents that it reads through."""
    from holdfast.errors import Conflict

    with app.store() as store:
        ids = list(dict.fromkeys(in_trash(store, ref) for ref in refs))

        def back(id: str) -> None:
            if not dry_run:
                store.trash.restore(id)
            elif store.trash.get(id) is None:
                raise Conflict(f"session {id!r} is not in the trash", session=id)

        done, failed = _each(ids, back)
    _tell(app, "restored", done, failed, dry_run=dry_run)


def _each(ids: Sequence[str], act: Callable[[str], None]) -> tuple[list[str], list[Spared]]:
    """Do it for each, so that none hides another: those that were done, and the others. Of one, the error is raised."""
    from holdfast.retention.policies import Spared

    done: list[str] = []
    failed: list[Spared] = []
    for id in ids:
        try:
            act(id)
            done.append(id)
        except HoldfastError as error:
            if len(ids) == 1:
                raise
            failed.append(Spared(session=id, why=error.message))
    return done, failed


def _tell(app: App, what: str, done: Sequence[str], failed: Iterable[Spared], *, dry_run: bool) -> None:
    failed = list(failed)
    if app.json:
        from msgspec import to_builtins

        app.data({what: list(done), "failed": to_builtins(failed), "dry_run": dry_run})
    else:
        for id in done:
            app.line(safe_line(id))
        tell_left(app, failed, "failed")
    if failed:
        raise click.exceptions.Exit(PARTIAL)


@trash.command(
    examples="""
    holdfast trash purge support-42
    holdfast trash purge --older-than 30d --dry-run
    holdfast trash purge --older-than 30d --yes
    """
)
@click.argument("refs", metavar="[REF]...", nargs=-1)
@click.option(
    "--older-than", type=DURATION, metavar="DURATION", help="Those that are there for longer: 30d, 12h; 0: all."
)
@YES
@DRY_RUN
@pass_app
def purge(app: App, refs: tuple[str, ...], older_than: float | None, yes: bool, dry_run: bool) -> None:
    """Delete what is in the trash for good: no byte of it is left in the store's files, and nothing brings it back.

    What a fork reads through stays until that one is gone (exit code 8).
    """
    if not refs and older_than is None:
        raise click.UsageError("say which sessions to purge, or --older-than; --older-than 0 purges all")
    with app.store() as store:
        ids = list(dict.fromkeys(in_trash(store, ref) for ref in refs))
        planned = None if yes and not dry_run else _to_purge(store, ids, older_than)
        if planned is None:
            done = store.trash.purge(*ids, older_than=older_than)
        elif dry_run or not planned.purged:
            done = planned
        else:
            names = list(planned.purged)
            question = f"Purge {plural(len(names), 'session')} for good: {some(names)}?"
            sure(app, question, yes=yes, what="purging can't be undone", done="purged")
            # A person said yes to these, not to what got old enough meanwhile.
            done = _with(planned, store.trash.purge(*names, older_than=older_than))
    _tell_purged(app, done, dry_run=dry_run)


def _to_purge(store: Store, ids: Sequence[str], older_than: float | None) -> Purged:
    """What a purge would come to now."""
    from holdfast.clock import now
    from holdfast.history.branching import children
    from holdfast.retention.policies import Spared, micros
    from holdfast.retention.retention import trashed_heads
    from holdfast.retention.trash import Purged, trashed_at

    before = None if older_than is None else now() - micros(older_than)
    there = {id: head for head, id in trashed_heads(store) if not ids or id in ids}
    failed = [Spared(session=id, why="it is not in the trash") for id in ids if id not in there]
    found = {id for id, head in there.items() if head is None or before is None or trashed_at(head.tags) < before}
    spared: list[Spared] = []
    more = True
    while more:  # a fork that stays keeps its parent, which keeps its own
        more = False
        for id in sorted(found):
            forks = (child for trashed in (False, True) for _, child in children(store, id, trashed=trashed))
            fork = next((child for child in forks if child not in found), None)
            if fork is not None:
                found.remove(id)
                spared.append(Spared(session=id, why=f"its fork {fork!r} reads its events"))
                more = True
    return Purged(purged=tuple(id for id in there if id in found), spared=tuple(spared), failed=tuple(failed))


def _with(planned: Purged, done: Purged) -> Purged:
    """What was done, and what was not even planned."""
    from msgspec.structs import replace

    return replace(done, spared=planned.spared + done.spared, failed=planned.failed + done.failed)


def _tell_purged(app: App, done: Purged, *, dry_run: bool) -> None:
    if app.json:
        from msgspec import to_builtins

        app.data({**to_builtins(done), "dry_run": dry_run})
    else:
        for id in done.purged:
            app.line(safe_line(id))
        tell_left(app, done.spared, "spared")
        tell_left(app, done.failed, "failed")
        if done.left:
            app.warn(f"bytes may be left in the store's files: {done.left}; `holdfast compact` tries it again")
        app.say(f"{plural(len(done.purged), 'session')} {'would be ' * dry_run}purged")
    if done.spared or done.failed or done.left:
        raise click.exceptions.Exit(PARTIAL)


@click.command(
    cls=Command,
    examples="""
    holdfast session archive support-42
    holdfast session archive support-42 support-43 -o old.jsonl
    """,
)
@click.argument("refs", type=REF, metavar="REF...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="FILE", help="The new file; else archive-<time>.jsonl here.")
@click.option("--why", default="archived", show_default=True, help="The reason, for the list of the trash.")
@DRY_RUN
@pass_app
def archive(app: App, refs: tuple[str, ...], output: str | None, why: str, dry_run: bool) -> None:
    """Write sessions to a new bundle, read it back, then move them to the trash.

    What is not whole in the file, or was touched meanwhile, is not moved (exit code 8). `import` reads the bundle, and
    `prune undo` or `trash restore` brings them back without it.
    """
    from holdfast.retention.retention import Pruned, plan_of

    if output == "-":
        raise click.UsageError("what is archived is read back before it goes, so -o is a file")
    path = _new_name() if output is None else output
    with app.store() as store:
        made = plan_of(store, [whole(store, ref).id for ref in refs], why)
        if dry_run:
            done = Pruned(moved=tuple(one.session for one in made.chosen), bytes=made.bytes, archive=path)
        else:
            done = made.apply(archive=as_path(path))
    if not app.json:
        app.say(f"{plural(len(made.chosen), 'session')} {'would be ' * dry_run}written to {path}")
    if app.json or not dry_run:
        tell_pruned(app, done, dry_run=dry_run)


def _new_name() -> str:
    """A file name that tells when it was made."""
    from holdfast.clock import from_micros, now

    return f"archive-{from_micros(now()).strftime('%Y%m%dT%H%M%S.%fZ')}.jsonl"
