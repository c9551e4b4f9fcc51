"""`holdfast prune`: what a policy would put into the trash, doing it, and undoing it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from holdfast.cli.app import PARTIAL, UNAVAILABLE, App, Group, pass_app
from holdfast.cli.asking import DRY_RUN, YES, sure
from holdfast.cli.quantities import DURATION, SIZE
from holdfast.formats.words import plural, safe_line
from holdfast.paths import as_path

if TYPE_CHECKING:
    from holdfast.retention.policies import Policy, Spared
    from holdfast.retention.retention import Pruned, PrunePlan
    from holdfast.store import Store


@click.group(
    cls=Group,
    examples="""
    holdfast prune plan --max-age 90d
    holdfast prune apply --max-age 90d --keep-label billing --archive old.jsonl
    holdfast prune undo 0193a7c2…
    """,
)
def prune() -> None:
    """Plan what goes to the trash, do it, see what was done, and undo it. Nothing is ever pruned by itself."""


def _policy(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that make a policy."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS = (
    click.option(
        "--max-age", type=DURATION, metavar="DURATION", help="Takes what was not active for longer: 90d, 12h."
    ),
    click.option("--max-sessions", type=click.IntRange(0), metavar="N", help="The newest so many stay."),
    click.option("--max-bytes", type=SIZE, metavar="SIZE", help="The newest stay that fit into it: 10MB, 1GiB."),
    click.option("--user", help="Only this user's."),
    click.option("--agent", help="Only those of this agent."),
    click.option("--project", help="Only those of this project."),
    click.option("--state", help="Only those in this state."),
    click.option("--label", help="Only those with this label."),
    click.option("--keep-label", "keep_labels", multiple=True, help="Spare those with this label; may be repeated."),
    click.option("--keep-named/--take-named", default=True, help="Spare those with a name, or not.", show_default=True),
    click.option("--keep-starred/--take-starred", default=True, help="Spare the starred, or not.", show_default=True),
)


def _made(policy: dict[str, Any]) -> Policy:
    from holdfast.retention.policies import Policy

    if all(policy[limit] is None for limit in ("max_age", "max_sessions", "max_bytes")):
        raise click.UsageError("without a limit nothing goes; say --max-age, --max-sessions or --max-bytes")
    return Policy(**policy)


@prune.command(
    examples="""
    holdfast prune plan --max-age 90d
    holdfast prune plan --max-bytes 1GiB --user ada --keep-label billing
    holdfast --json prune plan --max-sessions 1000 | jq -r '.items[].session'
    """
)
@_policy
@pass_app
def plan(app: App, **policy: Any) -> None:
    """What would go to the trash and why, how many bytes that are, and what is spared. Nothing is changed."""
    with app.store() as store:
        _tell_plan(app, store.prune(_made(policy)))


def _tell_plan(app: App, made: PrunePlan) -> None:
    for id in made.damaged:
        app.warn(f"left alone: the head of session {id!r} is damaged; `holdfast check {id}` says more")
    if app.json:
        from msgspec import to_builtins

        from holdfast.cli.shapes import dumps, time_of

        chosen = (dumps({**to_builtins(one), "updated_at": time_of(one.updated_at)}) for one in made.chosen)
        app.items(
            chosen,
            spared=to_builtins(made.spared),
            damaged=list(made.damaged),
            bytes=made.bytes,
            sessions=made.sessions,
            matched=made.matched,
            at=time_of(made.at),
        )
        return
    from holdfast.cli.terminal import table

    rows = [(one.session, f"{one.bytes:,}", one.why) for one in made.chosen]
    rows += [(one.session, "spared", one.why) for one in made.spared]
    if rows:
        app.lines(table(("ID", "BYTES", "WHY"), rows, right=(1,), grow=2))
    told = f"{len(made.chosen):,} of {plural(made.sessions, 'session')} would go, {plural(made.bytes, 'byte')}"
    app.say(f"{told}; {len(made.spared):,} spared")


@prune.command(
    examples="""
    holdfast prune apply --max-age 90d
    holdfast prune apply --max-age 90d --archive old.jsonl --yes
    holdfast prune apply --max-sessions 1000 --cooldown 1h --yes
    """
)
@_policy
@click.option("--archive", metavar="FILE", help="First write all of it to this new file, a bundle, and read it back.")
@click.option("--batch", type=click.IntRange(1), default=100, show_default=True, help="Sessions in one transaction.")
@click.option(
    "--cooldown", type=DURATION, default=0, metavar="DURATION", help="Do nothing so long after one that went well."
)
@YES
@DRY_RUN
@pass_app
def apply(app: App, archive: str | None, yes: bool, dry_run: bool, **policy: Any) -> None:
    """Put what a policy takes into the trash. What was touched since the plan is left as it is (exit code 8).

    `prune undo` brings it back. Nothing is moved that is not whole in the archive.
    """
    with app.store() as store:
        made = store.prune(_made(policy))
        if dry_run:
            _tell_plan(app, made)
            return
        if made.chosen:
            question = f"Put {plural(len(made.chosen), 'session')} ({plural(made.bytes, 'byte')}) into the trash?"
            sure(app, question, yes=yes, what="sessions would go to the trash", done="moved")
        done = made.apply(archive=None if archive is None else as_path(archive))
    tell_pruned(app, done)


def tell_pruned(app: App, done: Pruned, *, dry_run: bool = False) -> None:
    """Say what a prune came to, and end with its exit code."""
    if app.json:
        from msgspec import to_builtins

        app.data({**to_builtins(done), "dry_run": dry_run})
    else:
        for id in done.moved:
            app.line(safe_line(id))
        tell_left(app, done.skipped, "skipped")
        tell_left(app, done.failed, "failed")
        if done.wait:
            app.say(f"nothing was done: the cooldown goes on for {done.wait:,.0f} seconds")
        else:
            undo = f"; `holdfast prune undo {done.prune}` brings them back" if done.moved else ""
            app.say(f"{plural(len(done.moved), 'session')} moved to the trash, {plural(done.bytes, 'byte')}{undo}")
    if done.stopped and not done.moved:
        raise click.exceptions.Exit(UNAVAILABLE)
    if done.skipped or done.failed or done.stopped:
        raise click.exceptions.Exit(PARTIAL)


def tell_left(app: App, left: Iterable[Spared], what: str) -> None:
    """Name what was not done, and why: also with `-q`, as the exit code rests on it."""
    for one in left:
        app.warn(safe_line(f"{one.session}: {what}: {one.why}"))


@prune.command(
    examples="""
    holdfast prune history
    holdfast --json prune history --limit 1 | jq -r '.items[0].id'
    """
)
@click.option("-n", "--limit", type=click.IntRange(1), default=50, show_default=True, help="How many at the most.")
@pass_app
def history(app: App, limit: int) -> None:
    """The newest prunes: when, by what policy, what came of them, and whether they were undone."""
    with app.store() as store:
        done = store.prunes(limit=limit)
    if app.json:
        from msgspec import to_builtins

        from holdfast.cli.shapes import dumps, time_of

        times = [(one.at, one.undone_at) for one in done]
        app.items(
            dumps({**to_builtins(one), "at": time_of(at), "undone_at": None if undone is None else time_of(undone)})
            for one, (at, undone) in zip(done, times, strict=True)
        )
        return
    if not done:
        app.say("nothing was pruned yet")
        return
    from holdfast.cli.terminal import ago, table
    from holdfast.clock import now

    at = now()
    titles = ("ID", "WHEN", "STATE", "MOVED", "SKIPPED", "FAILED", "BYTES", "ARCHIVE")
    rows = [
        (
            one.id,
            ago(one.at, at),
            one.state,
            *(f"{n:,}" for n in (one.moved, one.skipped, one.failed, one.bytes)),
            one.archive or "",
        )
        for one in done
    ]
    app.lines(table(titles, rows, right=(3, 4, 5, 6), grow=7))


@prune.command(
    examples="""
    holdfast prune undo 0193a7c2-5b1e-7d3a-9c44-6f2e8b1d0a57
    holdfast prune undo --dry-run 0193a7c2-5b1e-7d3a-9c44-6f2e8b1d0a57
    """
)
@click.argument("prune", metavar="ID")
@DRY_RUN
@pass_app
def undo(app: App, prune: str, dry_run: bool) -> None:
    """Restore what a prune put into the trash and is still there; `prune history` has the ids."""
    from holdfast.retention.trash import Restored

    with app.store() as store:
        done = Restored(restored=tuple(_moved(store, prune))) if dry_run else store.trash.undo(prune)
    if app.json:
        from msgspec import to_builtins

        app.data({"prune": prune, **to_builtins(done), "dry_run": dry_run})
    else:
        for id in done.restored:
            app.line(safe_line(id))
        tell_left(app, done.failed, "failed")
        app.say(f"{plural(len(done.restored), 'session')} {'would be ' * dry_run}restored")
    if done.failed:
        raise click.exceptions.Exit(PARTIAL)


def _moved(store: Store, prune: str) -> list[str]:
    """The sessions that are in the trash by a prune."""
    from holdfast.retention.prunes import prune as known

    known(store, prune)  # says that there is none
    found: list[str] = []
    cursor = None
    while True:
        page = store.trash.list(prune=prune, limit=1000, cursor=cursor)
        found += [one.session.id for one in page]
        if (cursor := page.cursor) is None:
            return found
