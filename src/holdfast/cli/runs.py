"""`holdfast stuck`, `session state` and `session recover`: who runs a session, and what if it stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from holdfast.cli.app import PARTIAL, App, Command, pass_app
from holdfast.cli.quantities import DURATION
from holdfast.cli.refs import REF, whole
from holdfast.formats.words import plural, safe_line

if TYPE_CHECKING:
    from holdfast.turns.leases import Lease
    from holdfast.turns.recovery import Recovery

_OLDER = click.option(
    "--older-than",
    type=DURATION,
    metavar="DURATION",
    help="Also runs without a lease that were silent for so long: 90, 15min, 12h.",
)
_WAIT = click.option(
    "--wait",
    type=DURATION,
    default=0,
    metavar="DURATION",
    help="Stay and watch the heartbeats of other machines' turns.",
)


@click.command(
    cls=Command,
    examples="""
    holdfast stuck
    holdfast stuck --wait 90
    holdfast --json stuck --older-than 1h | jq -r '.items[].session'
    """,
)
@_OLDER
@_WAIT
@pass_app
def stuck(app: App, older_than: float | None, wait: float) -> None:
    """The runs that stopped without an end, the oldest first. Nothing is changed."""
    with app.store() as store:
        found = store.stuck(older_than=older_than, wait=wait)
    if app.json:
        from holdfast.cli.shapes import dumps

        app.items(dumps(_lease_shape(lease)) for lease in found)
        return
    if not found:
        app.say("no run is stuck")
        return
    from holdfast.cli.terminal import ago, table
    from holdfast.clock import now

    at = now()
    rows = [(x.session, ago(x.since, at), x.standing, x.owner or "", x.turn or "") for x in found]
    app.lines(table(("ID", "SINCE", "STANDING", "OWNER", "TURN"), rows, grow=3))
    app.say("`holdfast session recover` closes them")


@click.command(
    cls=Command,
    examples="""
    holdfast session state support-42
    holdfast session state support-42 paused --reason 'waits for Ada'
    holdfast session state nightly running --turn run-1
    """,
)
@click.argument("ref", type=REF, metavar="REF")
@click.argument("state", required=False)
@click.option("--reason", help="Why, for the event of the change.")
@click.option("--turn", help="The name of the run that begins with `running`, or ends.")
@click.option("--dry-run", is_flag=True, help="Only say whether it could be changed now.")
@pass_app
def state(app: App, ref: str, state: str | None, reason: str | None, turn: str | None, dry_run: bool) -> None:
    """Show the state of a session and who runs it, or change it where no turn does (exit code 4 if one does)."""
    from holdfast.heads.states import look

    with app.store() as store:
        found = whole(store, ref)
        if state is not None and dry_run:
            _, changes = look(store, found.id, state, turn)
            app.say(f"would be {state}" if changes else f"is {state} already")
        show = state is None or dry_run
        info = found.info() if show else found.set_state(str(state), reason=reason, turn=turn)
        lease, _ = store.turns.sightings.look(store.head(found.id))
    if app.json:
        app.data({"session": info.id, "state": info.state, "lease": None if lease is None else _lease_shape(lease)})
        return
    run = "" if lease is None else f"  turn {lease.turn or '?'} of {lease.owner or 'nobody named'}: {lease.standing}"
    app.line(safe_line(info.state + run))


@click.command(
    cls=Command,
    examples="""
    holdfast session recover --dry-run
    holdfast session recover support-42
    holdfast session recover --older-than 1h
    """,
)
@click.argument("refs", type=REF, metavar="[REF]...", nargs=-1)
@_OLDER
@_WAIT
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@pass_app
def recover(app: App, refs: tuple[str, ...], older_than: float | None, wait: float, dry_run: bool) -> None:
    """Close the runs that stopped, all or those named, and answer the tool calls that they left open.

    A session that is not stuck, or was changed meanwhile, is spared (exit code 8).
    """
    with app.store() as store:
        ids = dict.fromkeys(whole(store, ref).id for ref in refs)
        done = store.recover(*ids, older_than=older_than, wait=wait, dry_run=dry_run)
    if app.json:
        from holdfast.cli.shapes import dumps

        app.items(dumps(_recovery_shape(each)) for each in done)
    elif not done:
        app.say("no run is stuck")
    else:
        for each in done:
            app.line(safe_line(f"{each.session}: {_said(each, dry_run=dry_run)}"))
    if not dry_run and not all(each.applied for each in done):
        raise click.exceptions.Exit(PARTIAL)


@click.command(
    cls=Command,
    examples="""
    holdfast session resume support-42
    holdfast session resume support-42 --answer
    """,
)
@click.argument("ref", type=REF, metavar="REF")
@click.option("--answer", is_flag=True, help="Answer the open calls: with what was executed, or as interrupted.")
@click.option("--dry-run", is_flag=True, help="Only say what would be answered, as without --answer.")
@pass_app
def resume(app: App, ref: str, answer: bool, dry_run: bool) -> None:
    """Where to go on in a session that nobody runs: what the user said last, and the calls made since.

    Nothing is changed without --answer, which a turn that goes on does by itself.
    """
    from holdfast.turns.recovery import left_open

    with app.store() as store:
        found = whole(store, ref)
        last = found.info().last
        plan = left_open(found, None)
        if answer and not dry_run and plan.answers:
            with found.turn(reason="answers what was left open") as turn:
                plan = turn.resume()
    if app.json:
        app.data({**_recovery_shape(plan), "at": last})
        return
    app.line(safe_line(f"user: {plan.last_user.text if plan.last_user else '-'}"))
    for item in plan.finished:
        app.line(safe_line(f"finished: {item.call.name} {item.call.id or ''}{' failed' * item.result.is_error}"))
    for call in plan.open:
        app.line(safe_line(f"{'interrupted' if plan.applied else 'open'}: {call.name} {call.id or ''}"))


def _said(each: Recovery, *, dry_run: bool) -> str:
    if not each.applied and (not dry_run or each.lease is None or each.lease.standing == "held"):
        return f"spared: {each.why}"
    calls = f"{plural(len(each.finished), 'finished call')}, {plural(len(each.open), 'interrupted call')}"
    return f"{'would be closed' if dry_run else 'closed'}: {each.why}; {calls}"


def _lease_shape(lease: Lease) -> dict[str, Any]:
    from holdfast.cli.shapes import time_of

    return {
        "session": lease.session,
        "turn": lease.turn,
        "owner": lease.owner,
        "standing": lease.standing,
        "since": time_of(lease.since),
        "ttl": lease.ttl,
        "beat_at": None if lease.beat_at is None else time_of(lease.beat_at),
        "expires_at": None if lease.expires_at is None else time_of(lease.expires_at),
    }


def _recovery_shape(each: Recovery) -> dict[str, Any]:
    return {
        "session": each.session,
        "applied": each.applied,
        "why": each.why,
        "lease": None if each.lease is None else _lease_shape(each.lease),
        "last_user": None if each.last_user is None else each.last_user.text,
        "open": [{"id": call.id, "name": call.name} for call in each.open],
        "finished": [{"id": f.call.id, "name": f.call.name, "is_error": f.result.is_error} for f in each.finished],
        "answers": len(each.answers),
    }
