"""`watch`: the sessions that change, as it happens."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from holdfast.cli.app import App, Command, pass_app
from holdfast.cli.terminal import Line, Span, local
from holdfast.errors import HoldfastError
from holdfast.formats.words import safe_line

if TYPE_CHECKING:
    from holdfast.finding.watch import Change


@click.command(
    cls=Command,
    examples="""
    holdfast watch
    holdfast watch --since 2026-01-31T12:00:00Z
    holdfast --json watch --after "$POSITION" | jq -r .session
    """,
)
@click.option("--after", metavar="POSITION", help="Go on behind the change that came with this position.")
@click.option("--since", metavar="TIME", help="Begin with the sessions that were active after this time.")
@pass_app
def watch(app: App, after: str | None, since: str | None) -> None:
    """The sessions that change, from any process, until Ctrl-C or an error; then where to go on is said on stderr.

    What changes meanwhile is not lost for who goes on --after that position, whenever that is.
    """
    with app.store() as store:
        position = store.position() if after is None and since is None else after
        changes = store.watch(after=position, since=since)
        try:
            for change in changes:
                if app.json:
                    from holdfast.cli.shapes import change_shape

                    app.data(change_shape(change))
                else:
                    app.lines([_line(change)])
                sys.stdout.flush()
                position = change.position
        except (KeyboardInterrupt, HoldfastError):
            if position is not None:
                app.say(f"more: --after {position}")
            raise


def _line(change: Change) -> Line:
    what = "deleted" if change.deleted else "in the trash" if change.trashed else f"event {change.last}"
    return [Span(safe_line(change.session), "bold"), Span(f"  {what}  {local(change.at)}", "dim")]
