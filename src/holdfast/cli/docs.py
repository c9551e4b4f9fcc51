"""`holdfast doc`: JSON and Markdown beside the sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import click

from holdfast.cli.app import App, Group, pass_app
from holdfast.cli.asking import DRY_RUN, YES, some, sure
from holdfast.cli.reading import opened
from holdfast.cli.writing import put_out, written
from holdfast.errors import NotFound, Stale
from holdfast.formats.words import plural, safe_line

if TYPE_CHECKING:
    from holdfast.documents.docheads import DocumentInfo
    from holdfast.store import Store

CHUNK = 1_048_576
_REV = click.option(
    "--rev", type=click.IntRange(0), help="Only if this is its revision now; 0: only if it is not there."
)


@click.group(
    cls=Group,
    examples="""
    holdfast doc put notes/order-7.md notes.md
    holdfast doc get notes/order-7.md
    holdfast doc list notes
    """,
)
def doc() -> None:
    """Get, put, list and delete documents: category/name.json and category/name.md."""


@doc.command(
    examples="""
    holdfast doc get notes/order-7.md
    holdfast doc get cron/jobs.json -o jobs.json
    """
)
@click.argument("id")
@click.option("-o", "--output", metavar="FILE", help="Write here, 0600, beside and renamed; - is stdout.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@pass_app
def get(app: App, id: str, output: str | None, force: bool) -> None:
    """The source of a document, byte for byte, to stdout or a file."""
    with app.store() as store:
        info = _there(store, id)
        if output not in (None, "-"):
            with store.documents.open(id) as stream, written(output, force) as file:
                while data := stream.read(CHUNK):
                    file.write(data)
        elif app.json:
            found = store.documents.get(id)
            if found is None:  # it was deleted meanwhile
                raise NotFound(f"there is no document {id!r}", document=id)
            app.data({**_shape(found), "source": found.text})
            return
        else:
            with store.documents.open(id) as stream:
                put_out(app, iter(lambda: stream.read(CHUNK), b""))
            return
    if app.json:
        app.data({"file": output, **_shape(info)})
    else:
        app.say(f"{plural(info.size, 'byte')} written to {output}")


@doc.command(
    examples="""
    holdfast doc put notes/order-7.md notes.md
    echo '{"every": 60}' | holdfast doc put cron/jobs.json - --rev 3
    """
)
@click.argument("id")
@click.argument("file", required=False)
@_REV
@DRY_RUN
@pass_app
def put(app: App, id: str, file: str | None, rev: int | None, dry_run: bool) -> None:
    """Create or replace a document by FILE or stdin, byte for byte; prints its id and new revision.

    With --rev, of two who replace it at once one is told so (exit code 4).
    """
    with app.store() as store, opened(file, "the FILE") as stream:
        if dry_run:
            now, size = _checked(store, id, rev), _size(id, stream)
        else:
            made = store.documents.write(id, stream, rev=rev)
            now, size = made.rev, made.size
    if app.json:
        app.data({"id": id, "rev": now, "size": size, "dry_run": dry_run})
    elif dry_run:
        app.say(f"would put {plural(size, 'byte')} as {id}, " + (f"over revision {now}" if now else "which is new"))
    else:
        app.line(safe_line(f"{id}  revision {now}"))


def _checked(store: Store, id: str, rev: int | None) -> int:
    """The revision that is there, 0 for none; refused as a put would be."""
    info = store.documents.info(id)
    now = info.rev if info else 0
    if rev is not None and rev != now:
        if info is None:
            _there(store, id)
        raise Stale(f"document {id!r} is at revision {now}, not {rev}; read it again and decide anew", document=id)
    return now


def _size(id: str, stream: BinaryIO) -> int:
    """The length of a source that could be put."""
    from holdfast.documents.docheads import Checked, check_json, kind_of

    if kind_of(id) == "json":
        data = stream.read()
        check_json(id, data)
        return len(data)
    words = Checked(id, b"", stream)
    return sum(map(len, iter(lambda: words.read(CHUNK), b"")))


@doc.command(
    "list",
    examples="""
    holdfast doc list
    holdfast --json doc list agents --limit 1000 | jq -r '.items[].id'
    """,
)
@click.argument("category", required=False)
@click.option("-n", "--limit", default=50, show_default=True, help="How many at the most.")
@click.option("--cursor", help="Go on where the list before ended.")
@pass_app
def list_(app: App, category: str | None, limit: int, cursor: str | None) -> None:
    """Documents, the one that was changed last first, all or of one category."""
    with app.store() as store:
        page = store.documents.list(category, limit=limit, cursor=cursor)
    for id in page.damaged:
        app.warn(f"left out: document {id!r} is damaged; `holdfast check` says more")
    if app.json:
        from holdfast.cli.shapes import dumps

        app.items((dumps(_shape(info)) for info in page), page.cursor, damaged=list(page.damaged))
        return
    if not page.items:
        app.say("no document matches")
        return
    from holdfast.cli.terminal import ago, table
    from holdfast.clock import now

    at = now()
    rows = [(info.id, str(info.rev), f"{info.size:,}", ago(info.updated_at, at)) for info in page]
    app.lines(table(("ID", "REV", "BYTES", "CHANGED"), rows, right=(1, 2), grow=0))
    if page.cursor:
        app.say(f"more: --cursor {page.cursor}")


@doc.command(
    examples="""
    holdfast doc delete notes/order-7.md
    holdfast doc delete cron/jobs.json --rev 4 --yes
    """
)
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@_REV
@YES
@DRY_RUN
@pass_app
def delete(app: App, ids: tuple[str, ...], rev: int | None, yes: bool, dry_run: bool) -> None:
    """Delete documents for good; --rev is for one."""
    names = list(dict.fromkeys(ids))
    if rev is not None and len(names) > 1:
        raise click.UsageError("--rev is the revision of one document; name one")
    with app.store() as store:
        for id in names:
            _there(store, id)
            _checked(store, id, rev)
        if not dry_run:
            what = "deleting can't be undone"
            sure(app, f"Delete {some(names)} for good?", yes=yes, what=what, done="deleted")
            names = [id for id in names if store.documents.delete(id, rev=rev)]
    if app.json:
        app.data({"deleted": names, "dry_run": dry_run})
    else:
        for id in names:
            app.line(safe_line(id))


def _there(store: Store, id: str) -> DocumentInfo:
    info = store.documents.info(id)
    if info is None:
        raise NotFound(f"there is no document {id!r}", document=id)
    return info


def _shape(info: DocumentInfo) -> dict[str, Any]:
    from holdfast.cli.shapes import time_of

    return {
        "id": info.id,
        "user": info.user,
        "kind": info.kind,
        "category": info.category,
        "rev": info.rev,
        "size": info.size,
        "as_given": info.as_given,
        "created_at": time_of(info.created_at),
        "updated_at": time_of(info.updated_at),
    }
