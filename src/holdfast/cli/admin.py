"""`init`, `info`, `check`, `compact` and `version`: the store itself."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import click

from holdfast import __version__, errors
from holdfast.cli.app import INTEGRITY, App, Command, pass_app
from holdfast.cli.asking import DRY_RUN, noted
from holdfast.cli.refs import REF, whole
from holdfast.cli.replicas import replica_shape, state_of
from holdfast.cli.terminal import Span
from holdfast.formats.words import plural, safe_line

if TYPE_CHECKING:
    from holdfast.artifacts.sweeping import Swept
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
    from holdfast.opening import existing
    from holdfast.urls import default_url

    created = False
    try:
        existing(app.url or default_url()).close()
    except errors.NotFound:
        created = True
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
        replicas = store.replicas()
        url = store.url
    if app.json:
        app.data({"url": url, "backend": facts, "replicas": [replica_shape(replica) for replica in replicas]})
        return
    told = [("url", url), *facts.items(), *((f"replica {r.address}", state_of(r)) for r in replicas)]
    width = max(len(name) for name, _ in told)
    for name, value in told:
        app.line(Span(name.ljust(width), "bold"), "  ", safe_line(value))


@click.command(cls=Command, examples="holdfast check\nholdfast check support-42\nholdfast check --sweep --dry-run")
@click.argument("ref", type=REF, metavar="REF", required=False)
@click.option("--sweep", "sweeps", is_flag=True, help="Then delete large values and artifacts that nothing refers to.")
@click.option("--dry-run", is_flag=True, help="Only say what --sweep would delete.")
@click.option("--repair", "repairs", is_flag=True, help="First make the lists of sessions again (Redis).")
@pass_app
def check(app: App, ref: str | None, sweeps: bool, dry_run: bool, repairs: bool) -> None:
    """Read everything, or one session, and name whatever is damaged (exit code 5).

    Nothing is changed without --sweep, which deletes nothing either if there is anything that can't be read, and
    --repair, which makes the lists of a store on Redis say again what is there.
    """
    if dry_run and not sweeps:
        raise click.UsageError("a check changes nothing; --dry-run is for --sweep")
    if sweeps and ref is not None:
        raise click.UsageError("a sweep is of the whole store; leave REF out")
    from msgspec.structs import replace

    from holdfast.artifacts.sweeping import sweep

    with app.store() as store:
        id = None if ref is None else whole(store, ref, damaged="keep").id
        report = store.check(session=id, repair=repairs)
        swept = sweep(store, dry_run=dry_run) if sweeps else None
    report = replace(report, swept=swept)
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
        if report.repaired is not None:
            app.line(f"{plural(report.repaired, 'place')} in the lists made right")
        _tell_swept(app, report.swept)
    if not report.ok or (report.swept is not None and report.swept.unread):
        raise click.exceptions.Exit(INTEGRITY)


def _tell_swept(app: App, swept: Swept | None) -> None:
    if swept is None:
        return
    blobs = f"{swept.deleted:,} of {plural(swept.blobs, 'blob')} {'would be ' * swept.dry_run}deleted"
    app.line(f"{blobs}, {plural(swept.bytes, 'byte')}")
    for what in swept.unread:
        app.warn(f"nothing was deleted: {what}, and might refer to any of them")


def _where(finding: Finding) -> str:
    """What a finding is about."""
    if finding.document is not None:
        return f"document {finding.document}" + (f" of {finding.user}" if finding.user else "")
    at = "" if finding.seq is None else f"@{finding.seq}"
    return "the store" if finding.session is None else f"{finding.session}{at}"


@click.command(cls=Command, examples="holdfast compact\nholdfast compact --store sqlite:agents.db --dry-run")
@DRY_RUN
@pass_app
def compact(app: App, dry_run: bool) -> None:
    """Give the space of what was deleted back, and leave no byte of it in the store's files.

    It takes as long as copying the store, and the free space of a copy. `trash purge` does it by itself.
    """
    with app.store() as store:
        before = store.backend.info().get("bytes")
        if not dry_run:
            store.compact()
        after, url = None if dry_run else store.backend.info().get("bytes"), store.url
    if app.json:
        sizes = {"before": before and int(before), "after": after and int(after)}
        app.data({"url": url, **sizes, **noted(dry_run)})
        return
    if dry_run:
        app.say(f"{url} would be compacted: {plural(int(before or 0), 'byte')} now")
        return
    told = f": {int(before):,} bytes before, {int(after):,} now" if before and after else ""
    app.line(safe_line(f"{url}{told}"))


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
