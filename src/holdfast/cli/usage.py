"""`holdfast usage`: what model calls took, by day, session, model, agent, user or project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from holdfast.cli.app import INTEGRITY, App, Command, Group, pass_app
from holdfast.cli.terminal import Span
from holdfast.formats.words import money

if TYPE_CHECKING:
    from holdfast.events.totals import UsageReport, UsageTotal


@click.group(
    cls=Group,
    examples="""
    holdfast usage daily --since 2026-01-01T00:00:00Z
    holdfast usage model --user ada
    holdfast --json usage session | jq '.total.cost'
    """,
)
def usage() -> None:
    """Tokens and money by day, session, model, agent, user or project; each response counts once."""


def _command(name: str, by: str, told: str, example: str) -> None:
    @click.command(name, cls=Command, examples=f"holdfast usage {name}\nholdfast usage {name} {example}", help=told)
    @click.option("--since", metavar="TIME", help="Only calls from this RFC 3339 time on.")
    @click.option("--until", metavar="TIME", help="Only calls before this RFC 3339 time.")
    @click.option("--user", help="Only this user's sessions.")
    @click.option("--agent", help="Only sessions of this agent.")
    @click.option("--model", help="Only sessions that used this model.")
    @click.option("--project", help="Only sessions of this project.")
    @pass_app
    def command(app: App, **how: Any) -> None:
        with app.store() as store:
            report = store.usage(by, **how)
        _tell(app, report, by)

    usage.add_command(command)


_TOLD = """What model calls took by {}.

    COST is what was recorded, COMPUTED what a list of prices came to: a call may have either or both, so they are not
    to be added. {}"""

_command("daily", "day", _TOLD.format("day", "Days are those of UTC."), "--since 2026-01-01T00:00:00Z")
for _by in ("session", "model", "agent", "user", "project"):
    _command(_by, _by, _TOLD.format(_by, ""), "--since 2026-01-01T00:00:00Z --until 2026-02-01T00:00:00Z")


def _tell(app: App, report: UsageReport, by: str) -> None:
    if app.json:
        from holdfast.cli.shapes import dumps

        totals = (dumps(_shape(total)) for total in report.totals)
        app.items(totals, by=by, total=_shape(report.total), damaged=list(report.damaged))
    elif report.totals:
        from holdfast.cli.terminal import table

        titles = (by.upper(), "CALLS", "INPUT", "OUTPUT", "CACHE READ", "CACHE WRITE", "COST", "COMPUTED")
        rows = [_row(total, total.key or "-") for total in report.totals]
        lines = table(titles, [*rows, _row(report.total, "total")], right=range(1, 8), grow=0)
        app.lines([*lines[:-1], [Span(span.text, "bold") for span in lines[-1]]])
    else:
        app.say("no usage was recorded")
    for id in report.damaged:
        app.warn(f"not counted: session {id!r} is damaged; `holdfast check {id}` says more")
    if report.damaged:
        raise click.exceptions.Exit(INTEGRITY)


def _row(total: UsageTotal, name: str) -> tuple[str, ...]:
    counts = (total.calls, total.input_tokens, total.output_tokens, total.cache_read_tokens, total.cache_write_tokens)
    costs = [money(cost) if cost else "" for cost in (total.cost, total.cost_computed)]
    return (name, *(f"{count:,}" for count in counts), *costs)


def _shape(total: UsageTotal) -> dict[str, Any]:
    from msgspec import to_builtins

    return to_builtins(total)
