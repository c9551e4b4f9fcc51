"""`import` and `export`: sessions from and to files."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from holdfast.cli.app import INTEGRITY, PARTIAL, App, Command, pass_app
from holdfast.cli.asking import DRY_RUN, noted
from holdfast.cli.foreign import BESIDE, FOREIGN
from holdfast.cli.refs import REF, left_out, whole
from holdfast.cli.shapes import dumps
from holdfast.cli.writing import written
from holdfast.errors import HoldfastError
from holdfast.formats.words import plural, safe_line
from holdfast.paths import as_path, is_stream

if TYPE_CHECKING:
    from holdfast.importer import FileReport, Progress
    from holdfast.importing.sources import SourceFile
    from holdfast.store import Store


@click.command(
    cls=Command,
    examples="""
    holdfast export support-42 > support-42.jsonl
    holdfast export -f html -o support-42.html support-42
    holdfast export --all -o backup.jsonl.zst   # packed by zstd
    holdfast export -f zeroclaw-sqlite -o sessions.db zeroclaw:7f3a
    holdfast export -f a3s -o sessions --all
    """,
)
@click.argument("refs", type=REF, metavar="[REF]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every session of the store.")
@click.option(
    "-f", "--format", "form", type=click.Choice(["jsonl", "md", "html", *FOREIGN]), help="Else by the name of -o."
)
@click.option(
    "-o", "--output", metavar="FILE", help="Write here, 0600, beside and renamed, packed as ….zst; - is stdout."
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.option(
    "--include-hidden", is_flag=True, help="md, html: with events that were taken back. jsonl always has all."
)
@pass_app
def export(
    app: App,
    refs: tuple[str, ...],
    everything: bool,
    form: str | None,
    output: str | None,
    force: bool,
    include_hidden: bool,
) -> None:
    """Write sessions as a bundle that `import` reads back exactly (jsonl), as documents to read (md, html), or as the
    files of another program: of zeroclaw a folder of JSONL (zeroclaw) or a database (zeroclaw-sqlite), of oxios a
    folder of its state (oxios), of a3s-code a folder of sessions (a3s).

    With --all, a bundle and a folder of oxios also have the documents beside the sessions.
    """
    if bool(refs) == everything:
        raise click.UsageError("name the sessions to export, or say --all")
    form = form or _form_of(output or "")
    if form in FOREIGN and output in (None, "-"):
        raise click.UsageError(f"-f {form} needs -o, the file or folder to write")
    if app.json and form != "jsonl" and output in (None, "-"):
        raise click.UsageError("with --json, md and html need -o FILE")
    with app.store() as store:
        missing: list[str] = []
        ids = _ids(store, missing, form) if everything else dict.fromkeys(whole(store, ref).id for ref in refs)
        ids = _Counted(ids)
        gone: list[str] | None = [] if everything else None
        unsaid, unfit = {}, list[str]()
        if form in FOREIGN:
            done = FOREIGN[form](store, list(ids), output or "", force)
            damaged, unsaid = done.damaged, {"unsaid": done.left_out}
            if everything and form in BESIDE:
                unfit = BESIDE[form](store, list(ids), output or "", force)
        else:
            with written(output, force) as plain, _packed(plain, output) as file:
                beside = missing if everything else None
                damaged = _write(store, ids, form, include_hidden, file, gone, beside)
        sessions = ids.count - len(gone or ())
    if output not in (None, "-"):
        left = {"left_out": [*missing, *unfit], **unsaid}
        told = {"file": output, "format": form, "sessions": sessions, "damaged": damaged, **left}
        app.data(told) if app.json else app.say(f"{plural(sessions, 'session')} written to {output}")
    if unsaid.get("unsaid"):
        app.say(f"{plural(unsaid['unsaid'], 'event')} left out: the form {form} has no place for them")
    if damaged:
        app.say(f"{plural(damaged, 'event')} of them damaged; `holdfast check` names them")
    for warning in [*map(left_out, missing), *map(_unfit, unfit)]:
        app.warn(warning)
    if damaged or missing or unfit:
        raise click.exceptions.Exit(INTEGRITY)


@contextlib.contextmanager
def _packed(file: BinaryIO, output: str | None) -> Generator[BinaryIO]:
    """The file itself, or what packs into it if its name says so."""
    if not (output or "").endswith(".zst"):
        yield file
        return
    from holdfast.moving.bundlefiles import packing

    with packing(file) as packed:
        yield packed


def _unfit(id: str) -> str:
    return f"left out: the document {id!r} can't be read, or can be no file there"


def _form_of(output: str) -> str:
    named = os.path.splitext(output.removesuffix(".zst"))[1]
    return {".md": "md", ".markdown": "md", ".html": "html", ".htm": "html"}.get(named, "jsonl")


class _Counted:
    """Ids, and how many there were when they were last gone through; of all sessions they are not kept."""

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids = ids
        self.count = 0

    def __iter__(self) -> Iterator[str]:
        self.count = 0
        for id in self._ids:
            self.count += 1
            yield id


def _ids(store: Store, missing: list[str], form: str) -> Iterable[str]:
    """The ids of all sessions; those that can't be read are named in `missing` instead.

    Of a bundle they are told as they are met, so that it takes no memory how many there are. What a person reads
    begins with the newest.
    """
    met = _all(store, missing)
    return (id for _, id in met) if form == "jsonl" else [id for _, id in sorted(met, reverse=True)]


def _all(store: Store, missing: list[str]) -> Iterator[tuple[int, str]]:
    from holdfast.finding.listing import all_heads

    damaged: set[str] = set()
    for heads in all_heads(store.backend):
        yield from ((head.at, head.ref.id) for head in heads)
        for id in {ref.id for ref in heads.damaged} - damaged:
            damaged.add(id)
            if _is_readable(store, id):
                yield 0, id
            else:
                missing.append(id)


def _is_readable(store: Store, id: str) -> bool:
    """Whether all that is damaged about a session is its place in lists."""
    try:
        return store.exists(id)
    except HoldfastError:
        return False


def _write(
    store: Store,
    ids: Iterable[str],
    form: str,
    include_hidden: bool,
    file: BinaryIO,
    gone: list[str] | None,
    missing: list[str] | None,
) -> int:
    """Write the sessions; how many damaged events and blobs there were. See `_write_bundle` for the rest."""
    if form == "jsonl":
        return _write_bundle(store, ids, file, gone, missing)
    return _write_documents(store, ids, form, include_hidden, file, gone)


def _write_bundle(
    store: Store, ids: Iterable[str], file: BinaryIO, gone: list[str] | None, missing: list[str] | None
) -> int:
    """Write the sessions; how many damaged events and blobs there were. See `write_bundle` for `gone`.

    With a list `missing`, also the documents beside the sessions; what of them can't be read is named in it.
    """
    from holdfast.bundle import ended, tells_damage, write_bundle, write_documents

    damaged = 0
    beside = () if missing is None else write_documents(store, damaged=missing)
    for line in ended(chain(write_bundle(store, ids, gone=gone), beside)):
        damaged += tells_damage(line)
        file.write(line)
    return damaged


def _write_documents(
    store: Store, ids: Iterable[str], form: str, include_hidden: bool, file: BinaryIO, gone: list[str] | None
) -> int:
    from holdfast.formats.calls import Outcomes
    from holdfast.formats.html import end_html, start_html, write_html
    from holdfast.formats.markdown import write_markdown
    from holdfast.model import Damaged

    write = write_html if form == "html" else write_markdown
    damaged, begun = 0, False
    for id in ids:
        session = store.get(id)
        if session is None:
            if gone is None:
                store.head(id)  # says that it is not there
            else:
                gone.append(id)
            continue
        info, outcomes = session.info(), Outcomes()
        for event in session.events(include_hidden=include_hidden, damaged="keep"):
            outcomes.take(event)
            damaged += isinstance(event.payload, Damaged)
        if form == "html" and not begun:
            _put(file, start_html(info.title or id))
        if form == "md" and begun:
            _put(file, ["\n"])
        _put(file, write(info, session.events(include_hidden=include_hidden, damaged="keep"), outcomes))
        begun = True
    if form == "html":
        _put(file, end_html() if begun else [*start_html("holdfast"), *end_html()])
    return damaged


def _put(file: BinaryIO, texts: Iterable[str]) -> None:
    for text in texts:
        file.write(text.encode("utf-8", "replace"))


@click.command(
    "import",
    cls=Command,
    examples="""
    holdfast import                      # transcripts in their usual places
    holdfast import ~/old/projects more.jsonl
    holdfast import backup.jsonl         # what `holdfast export` wrote
    holdfast import shop/.a3s/tui/sessions   # a whole folder, as of oxios
    holdfast import ~/old/projects --dry-run
    """,
)
@click.argument("paths", metavar="[PATH]...", nargs=-1)
@click.option("--user", help="Whose sessions the imported transcripts are to be.")
@DRY_RUN
@pass_app
def import_(app: App, paths: tuple[str, ...], user: str | None, dry_run: bool) -> None:
    """Take in sessions of Claude Code, Codex CLI, zeroclaw, oxios and a3s-code, and bundles, each time what is new.

    Files and folders; - is a bundle on stdin. The sources are only read. A file that can't be taken stops no other: it
    is named, and the exit code is 8.
    """
    paths = tuple(map(as_path, paths))
    bundles = [path for path in paths if path == "-" or _is_bundle(path)]
    others = [path for path in paths if path not in bundles]
    if user is not None and bundles:
        raise click.UsageError(f"--user is for transcripts; {bundles[0]} is a bundle, whose sessions keep their users")
    with app.store(create=True, dry_run=dry_run) as store:
        reports: list[FileReport] = []
        for path in bundles:
            reports += _import_bundle(store, path)
        if others or not paths:
            reports += _import_files(app, store, others or None, user)
    _tell_imported(app, reports, _NOTHING if paths else _NONE, dry_run=dry_run)
    if any(report.error for report in reports):
        raise click.exceptions.Exit(PARTIAL)


def _is_bundle(path: str) -> bool:
    from holdfast.bundle import is_bundle
    from holdfast.errors import Corrupt
    from holdfast.moving.bundlefiles import is_packed, lines_of

    if is_stream(os.path.expanduser(path)):
        return True  # can be read only once, so it is for whoever takes it in to find out
    try:
        with open(os.path.expanduser(path), "rb") as file:
            return is_bundle(next(lines_of(file), b"") if is_packed(file.peek(4)) else file.readline(100))
    except Corrupt:
        return True  # nothing else is packed
    except OSError:
        return False  # a folder, or not there: the importer says which


def _import_bundle(store: Store, path: str) -> Iterator[FileReport]:
    """A report of each session in the bundle, and one of what makes the rest of the file unreadable."""
    from holdfast.bundle import read_bundle
    from holdfast.copies import STORE_ERRORS
    from holdfast.importer import FileReport
    from holdfast.moving.bundlefiles import lines_of

    try:
        with contextlib.nullcontext(sys.stdin.buffer) if path == "-" else open(os.path.expanduser(path), "rb") as file:
            for one in read_bundle(store, lines_of(file)):
                error = None if one.error is None else one.error.message
                known = one.events - one.new
                yield FileReport(
                    path=path, program="holdfast", session=one.session, document=one.document or None,
                    events=one.new, known=max(known, 0), error=error,
                )  # fmt: skip
    except STORE_ERRORS:
        raise
    except HoldfastError as error:
        yield FileReport(path=path, program="holdfast", error=error.message)
    except OSError as error:
        yield FileReport(path=path, program="holdfast", error=error.strerror or str(error))


def _import_files(app: App, store: Store, paths: list[str] | None, user: str | None) -> list[FileReport]:
    from holdfast.importer import import_files
    from holdfast.importing.sources import find_sources

    files = find_sources(paths)
    with _progress(app, files) as progress:
        return import_files(store, files, user=user, progress=progress).files


@contextlib.contextmanager
def _progress(app: App, files: Sequence[SourceFile]) -> Generator[Any]:
    """A bar over the bytes, on a terminal only."""
    total = sum(file.size for file in files if file.program is not None)
    if app.quiet or not sys.stderr.isatty() or not total:
        yield None
        return
    with click.progressbar(length=total, label="importing", file=sys.stderr) as bar:

        def show(progress: Progress) -> None:
            bar.update(max(progress.done - bar.pos, 0))

        yield show


_WHAT = "transcripts of Claude Code, Codex CLI and zeroclaw, folders of oxios and a3s-code, and bundles"
_NONE = f"no transcripts in the usual places; name what to import: {_WHAT}"
_NOTHING = (
    f"nothing was in there; what can be imported: {_WHAT}; a folder is looked through for *.jsonl and sessions.db"
)


def _tell_imported(app: App, reports: Sequence[FileReport], none: str, *, dry_run: bool) -> None:
    events, failed = sum(r.events for r in reports), [r for r in reports if r.error]
    if app.json:
        from msgspec import to_builtins

        app.items(
            (dumps(to_builtins(r)) for r in reports),
            events=events,
            failed=len(failed),
            **noted(dry_run),
        )
        return
    for report in reports:
        if report.events or report.unreadable_lines:
            kept = f"{report.document}  {'new' if report.events else 'known'}"
            what = kept if report.document else f"{report.session}  {_taken(report)}"
            app.line(safe_line(f"{what}  {report.path}"))
    for report in reports:
        if report.skipped:
            app.say(f"{report.path}: skipped, {report.skipped}")
        if report.left:
            app.say(f"{report.path}: its last {plural(report.left, 'byte')} are no whole line yet, and were left")
        for note in report.notes:
            app.say(f"{report.session or report.path}: {note}")
    for report in failed:
        app.say(f"{report.path}: {report.error}")
    if not reports:
        app.say(none)
        return
    files, taken = {report.path for report in reports}, {report.path for report in reports if report.events}
    told = f"{plural(events, 'new event')} from {len(taken)} of {plural(len(files), 'file')}, {len(failed)} failed"
    app.say(f"a dry run, nothing was stored: {told}" if dry_run else told)


def _taken(report: FileReport) -> str:
    said = [plural(report.events, "new event")]
    if report.known:
        said.append(f"{report.known:,} known")
    if report.unknown:
        said.append(f"{sum(report.unknown.values()):,} of unknown types ({', '.join(report.unknown)})")
    if report.unreadable_lines:
        said.append(plural(report.unreadable_lines, "unreadable line"))
    return ", ".join(said)
