"""`holdfast session` note, star and tasks: what is said about a session, and what it has set out to do."""

from __future__ import annotations

import click

from holdfast.cli.app import App, Command, pass_app
from holdfast.cli.refs import REF, whole
from holdfast.formats.words import safe_line

STAR = "starred"
"""The label of a session that is to be kept."""

_DRY_RUN = click.option("--dry-run", is_flag=True, help="Only say what would be done.")


@click.command(
    cls=Command,
    examples="""
    holdfast session note support-42 'Ada called back'
    """,
)
@click.argument("ref", type=REF, metavar="REF")
@click.argument("text")
@click.option("--key", help="Makes the call repeatable: the same key stores once.")
@_DRY_RUN
@pass_app
def note(app: App, ref: str, text: str, key: str | None, dry_run: bool) -> None:
    """Add a remark that is no part of the conversation; prints the name of its event."""
    from holdfast.cli.shapes import receipt_shape
    from holdfast.model import note as remark

    with app.store() as store:
        found = whole(store, ref)
        receipt = None if dry_run else found.append(remark(text), key=key)
    if app.json:
        app.data({"session": found.id, "dry_run": True} if receipt is None else receipt_shape(receipt))
    elif receipt is None:
        app.say(f"would be noted in {found.id}")
    else:
        app.line(safe_line(f"{found.id}@{receipt.last}"))


@click.command(
    cls=Command,
    examples="""
    holdfast session star support-42
    holdfast session star support-42 --remove
    """,
)
@click.argument("refs", type=REF, metavar="REF...", nargs=-1, required=True)
@click.option("-r", "--remove", is_flag=True, help="Take the star away.")
@_DRY_RUN
@pass_app
def star(app: App, refs: tuple[str, ...], remove: bool, dry_run: bool) -> None:
    """Mark sessions as such to keep: a label, `starred`, that pruning spares."""
    with app.store() as store:
        ids = list(dict.fromkeys(whole(store, ref).id for ref in refs))
        for id in ids if not dry_run else ():
            store.session(id).update(labels={STAR: not remove})
    if app.json:
        app.data({"sessions": ids, "starred": not remove, "dry_run": dry_run})
    else:
        for id in ids:
            app.line(safe_line(id))


@click.command(
    cls=Command,
    examples="""
    holdfast session tasks support-42
    holdfast --json session tasks @last | jq -r '.items[] | select(.status != "completed").content'
    """,
)
@click.argument("ref", type=REF, metavar="REF")
@pass_app
def tasks(app: App, ref: str) -> None:
    """The list of tasks of a session as it stands now."""
    with app.store() as store:
        there = whole(store, ref).tasks()
    if app.json:
        from holdfast.cli.shapes import dumps

        app.items(dumps({name: getattr(one, name) for name in one.__struct_fields__}) for one in there)
        return
    if not there:
        app.say("it has no tasks")
        return
    from holdfast.cli.terminal import table

    rows = [(one.id, one.status, one.priority, ", ".join(one.dependencies), one.content) for one in there]
    app.lines(table(("ID", "STATUS", "PRIORITY", "AFTER", "TASK"), rows, grow=4))
