"""`init`, `info`, `check` and `version`: the store itself."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

import click

from holdfast import __version__
from holdfast.cli.app import INTEGRITY, App, Command, pass_app
from holdfast.cli.refs import REF, whole
from holdfast.cli.terminal import Span
from holdfast.formats.words import plural, safe_line

if TYPE_CHECKING:
    from holdfast.check import Finding


@click.command(
    cls=Command,
    examples="""
    holdfast init
    holdfast init --store sqlite:///var/lib/agents/sessions.db
    """,
)
@pass_app
def init(app: App) -> None:
    """Create the store, if it is not there yet, and print its URL."""
    from holdfast.backend import parse_url
    from holdfast.urls import default_url

    where = parse_url(app.url or default_url())
    created = where.scheme != "memory" and not os.path.exists(where.path)
    with app.store(create=True) as store:
        url = store.url
    if app.json:
        app.data({"url": url, "created": created})
        return
    app.line(safe_line(url))
    app.say("created" if created else "it was there already; nothing was changed")


@click.command(cls=Command, examples="holdfast info\nholdfast --json info --store agents.db")
@pass_app
def info(app: App) -> None:
    """Where the store is, which engine keeps it, and how safe a write is."""
    with app.store() as store:
        facts = dict(store.backend.info())
        url = store.url
    if app.json:
        app.data({"url": url, "backend": facts})
        return
    width = max(map(len, ["url", *facts]))
    for name, value in (("url", url), *facts.items()):
        app.line(Span(name.ljust(width), "bold"), "  ", safe_line(value))


@click.command(cls=Command, examples="holdfast check\nholdfast check support-42")
@click.argument("ref", type=REF, metavar="REF", required=False)
@pass_app
def check(app: App, ref: str | None) -> None:
    """Read everything, or one session, and name whatever is damaged (exit code 5). Nothing is changed."""
    with app.store() as store:
        report = store.check(session=None if ref is None else whole(store, ref, damaged="keep").id)
    if app.json:
        from holdfast.cli.shapes import check_shape

        app.data(check_shape(report))
    else:
        for finding in report.findings:
            app.line(Span(safe_line(_where(finding)), "bold"), "  ", Span(safe_line(finding.what), "red"))
        for finding in report.unfinished:
            app.line(Span(safe_line(str(finding.session)), "bold"), "  ", Span(safe_line(finding.what), "dim"))
        found = f"{len(report.findings)} found" if report.findings else "all sound"
        read = [plural(report.sessions, "session"), plural(report.events, "event")]
        read += [plural(report.documents, "document")] if report.documents else []
        app.line(f"{', '.join(read)}: {found}")
    if not report.ok:
        raise click.exceptions.Exit(INTEGRITY)


def _where(finding: Finding) -> str:
    """What a finding is about."""
    if finding.document is not None:
        return f"document {finding.document}" + (f" of {finding.user}" if finding.user else "")
    at = "" if finding.seq is None else f"@{finding.seq}"
    return "the store" if finding.session is None else f"{finding.session}{at}"


@click.command(cls=Command, examples="holdfast version\nholdfast --version")
@pass_app
def version(app: App) -> None:
    """The versions of holdfast, Python and the SQLite that a store would use."""
    import sqlite3

    told = {"holdfast": __version__, "python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    if app.json:
        app.data(told)
        return
    for name, value in told.items():
        app.line(f"{name} {value}")
