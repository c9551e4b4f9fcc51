"""`holdfast artifact`: the named bytes that a session's tools made."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import click

from holdfast.cli.app import INTEGRITY, App, Group, pass_app
from holdfast.cli.asking import DRY_RUN
from holdfast.cli.quantities import SIZE
from holdfast.cli.reading import opened
from holdfast.cli.refs import REF, whole
from holdfast.cli.writing import put_out, written
from holdfast.errors import Corrupt, NotFound
from holdfast.formats.words import plural, safe_line

if TYPE_CHECKING:
    from holdfast.model import Artifact
    from holdfast.session import Session

CHUNK = 1_048_576


@click.group(
    cls=Group,
    examples="""
    holdfast artifact put support-42 report.pdf report.pdf --media-type application/pdf
    holdfast artifact list support-42
    holdfast artifact get support-42 report.pdf -o copy.pdf
    """,
)
def artifact() -> None:
    """Put, get, list, verify and delete the artifacts of a session."""


@artifact.command(
    examples="""
    holdfast artifact put support-42 report.pdf report.pdf --media-type application/pdf
    make 2>&1 | holdfast artifact put @last build.log - --tool make
    """
)
@click.argument("ref", type=REF, metavar="REF")
@click.argument("name")
@click.argument("file", required=False)
@click.option("--media-type", help="Such as text/plain.")
@click.option("--tool", help="The tool that made it.")
@click.option("--uri", help="A URI by which it is known elsewhere; else one is made of its name and digest.")
@click.option("--shown", type=click.IntRange(0), metavar="BYTES", help="How many bytes of it the model was shown.")
@click.option("--max-artifacts", type=click.IntRange(0), help="Refuse it if the session would have more.")
@click.option("--max-artifact-bytes", type=SIZE, metavar="SIZE", help="Refuse it if all would take more: 10MB.")
@DRY_RUN
@pass_app
def put(app: App, ref: str, name: str, file: str | None, dry_run: bool, **how: Any) -> None:
    """Keep the bytes of FILE, or of stdin, under NAME, which stood for other bytes before, maybe. Of any size."""
    from holdfast.artifacts.artifacts import uri_of
    from holdfast.model import Artifact

    with app.store() as store, opened(file, "the FILE") as stream:
        found = whole(store, ref)
        if dry_run:
            digest, size = hashlib.sha256(), 0
            while data := stream.read(CHUNK):
                digest.update(data)
                size += len(data)
            fields = {field: how[field] for field in ("media_type", "tool", "shown")}
            uri = how["uri"] or uri_of("artifact", name, digest.hexdigest())
            made = Artifact(name=name, sha256=digest.hexdigest(), size=size, uri=uri, **fields)
        else:
            made = found.artifacts.put(name, stream, **how)
    if app.json:
        app.data({**_shape(found, made), "dry_run": dry_run})
    elif dry_run:
        app.say(f"would keep {plural(made.size, 'byte')} as {name} in {found.id}")
    else:
        app.line(safe_line(made.uri or name))


@artifact.command(
    examples="""
    holdfast artifact get support-42 build.log | less
    holdfast artifact get support-42 report.pdf -o copy.pdf
    """
)
@click.argument("ref", type=REF, metavar="REF")
@click.argument("name")
@click.option("-o", "--output", metavar="FILE", help="Write here, 0600, beside and renamed; - is stdout.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@pass_app
def get(app: App, ref: str, name: str, output: str | None, force: bool) -> None:
    """The bytes of an artifact, by its name or URI, to stdout or a file; damage is told (exit code 5)."""
    to_stdout = output in (None, "-")
    if app.json and to_stdout:
        raise click.UsageError("with --json, the bytes need -o FILE")
    with app.store() as store:
        found = whole(store, ref)
        one = _there(found, name)
        if to_stdout:
            put_out(app, found.artifacts.read(name))
            return
        with written(output, force) as file:
            for chunk in found.artifacts.read(name):
                file.write(chunk)
    if app.json:
        app.data({"file": output, **_shape(found, one)})
    else:
        app.say(f"{plural(one.size, 'byte')} written to {output}")


@artifact.command(
    "list",
    examples="""
    holdfast artifact list support-42
    holdfast --json artifact list @last --tool make | jq -r '.items[].uri'
    """,
)
@click.argument("ref", type=REF, metavar="REF")
@click.option("--tool", help="Only those that this tool made.")
@pass_app
def list_(app: App, ref: str, tool: str | None) -> None:
    """The artifacts of a session, the newest of each name."""
    with app.store() as store:
        found = whole(store, ref)
        there = found.artifacts.list(tool=tool)
    if app.json:
        from holdfast.cli.shapes import dumps

        app.items(dumps(_shape(found, one)) for one in there)
        return
    if not there:
        app.say("it has no artifacts" if tool is None else "no artifact is of this tool")
        return
    from holdfast.cli.terminal import table

    rows = [(one.name, f"{one.size:,}", one.media_type or "", one.tool or "", one.sha256[:16]) for one in there]
    app.lines(table(("NAME", "BYTES", "TYPE", "TOOL", "SHA256"), rows, right=(1,), grow=0))


@artifact.command(
    examples="""
    holdfast artifact verify support-42
    holdfast artifact verify support-42 report.pdf
    """
)
@click.argument("ref", type=REF, metavar="REF")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@pass_app
def verify(app: App, ref: str, names: tuple[str, ...]) -> None:
    """Read artifacts back, all or those named, and compare them with their digests (exit code 5 if one is damaged)."""
    with app.store() as store:
        found = whole(store, ref)
        there = [_there(found, name) for name in names] if names else found.artifacts.list()
        told = [(one, _fault(found, one)) for one in {one.name: one for one in there}.values()]
    if app.json:
        from holdfast.cli.shapes import dumps

        app.items(dumps({**_shape(found, one), "ok": not fault, "error": fault}) for one, fault in told)
    else:
        for one, fault in told:
            app.line(safe_line(f"{one.name}: {fault or 'sound'}"))
        if not told:
            app.say("it has no artifacts")
    if any(fault for _, fault in told):
        raise click.exceptions.Exit(INTEGRITY)


@artifact.command(
    examples="""
    holdfast artifact delete support-42 build.log
    holdfast artifact delete support-42 a.txt b.txt --dry-run
    """
)
@click.argument("ref", type=REF, metavar="REF")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@DRY_RUN
@pass_app
def delete(app: App, ref: str, names: tuple[str, ...], dry_run: bool) -> None:
    """Take artifacts away, by name or URI. Bytes that nothing refers to any more go with `check --sweep`."""
    with app.store() as store:
        found = whole(store, ref)
        there = list(dict.fromkeys(_there(found, name).name for name in names))
        done = [name for name in there if dry_run or found.artifacts.delete(name)]
    if app.json:
        app.data({"session": found.id, "deleted": done, "dry_run": dry_run})
    else:
        for name in done:
            app.line(safe_line(name))


def _there(found: Session, name: str) -> Artifact:
    one = found.artifacts.stat(name)
    if one is None:
        raise NotFound(f"session {found.id!r} has no artifact {name!r}", session=found.id)
    return one


def _fault(found: Session, one: Artifact) -> str | None:
    """What is wrong with the bytes of an artifact; None if they are those that were put."""
    try:
        size = sum(len(chunk) for chunk in found.artifacts.read(one.name))
    except Corrupt as error:
        return error.message
    return None if size == one.size else f"it has {size:,} bytes, not {one.size:,}"


def _shape(found: Session, one: Artifact) -> dict[str, Any]:
    return {
        "session": found.id,
        "name": one.name,
        "sha256": one.sha256,
        "size": one.size,
        "media_type": one.media_type,
        "tool": one.tool,
        "uri": one.uri,
        "shown": one.shown,
    }
