"""`copy`, `backup` and `restore`: whole stores, to other stores and to one file and back."""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Sequence
from types import FrameType
from typing import TYPE_CHECKING

import click
import msgspec

from holdfast.cli.app import INTEGRITY, PARTIAL, App, Command, exit_code, pass_app, tried
from holdfast.cli.asking import DRY_RUN, noted
from holdfast.cli.refs import whole
from holdfast.cli.shapes import copied_shape, dumps
from holdfast.errors import Corrupt, HoldfastError
from holdfast.formats.words import plural, safe_line

if TYPE_CHECKING:
    from holdfast.copies import Copied
    from holdfast.moving.copying import Copier
    from holdfast.moving.following import Behind
    from holdfast.store import Store


@click.command(
    cls=Command,
    examples="""
    holdfast copy sqlite:agents.db file:agents-folder
    holdfast copy sqlite:a.db sqlite:b.db --session support-42
    holdfast copy sqlite:a.db sqlite:b.db --dry-run
    holdfast copy sqlite:agents.db file:agents-folder --follow   # until Ctrl-C, then the last of it
    """,
)
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--session", "refs", multiple=True, metavar="REF", help="Only this session; may be repeated.")
@click.option("--follow", is_flag=True, help="Go on copying what changes until Ctrl-C; then what is left.")
@DRY_RUN
@pass_app
def copy(app: App, source: str, target: str, refs: tuple[str, ...], follow: bool, dry_run: bool) -> None:
    """Copy sessions and documents from one store to another, exactly; again copies what is new.

    Each session is read back and compared on both sides. A session or document that went its own way in
    the target is a conflict and stays as it is. TO is created if it is not there.
    """
    from holdfast.moving.copying import Copier
    from holdfast.opening import existing
    from holdfast.store import Store

    if follow and (refs or dry_run):
        raise click.UsageError("--follow copies everything, and until told to stop; leave --session and --dry-run away")
    with existing(source) as here, tried(target) if dry_run else Store(target) as there:  # "" is no default
        ours, theirs = app.view(here), app.view(there)
        if follow:
            _follow(app, ours, theirs)
            return
        ids = [whole(ours, ref, damaged="keep").id for ref in refs] if refs else None
        with _Told(app) as told:
            _copy(app, Copier(ours, theirs), ours, ids, told, dry_run=dry_run)
    told.fail(alone=told.count == 1)


def _copy(app: App, copier: Copier, here: Store, ids: Sequence[str] | None, told: _Told, *, dry_run: bool) -> None:
    from holdfast.copies import STORE_ERRORS

    try:
        with _bar(app, here, ids) as step:
            for one in copier.all() if ids is None else copier.named(ids):
                told.take(one)
                step(one)
    except (*STORE_ERRORS, KeyboardInterrupt):
        told.tell(dry_run=dry_run)  # what was copied before is, and stays
        raise
    told.tell(dry_run=dry_run)


class _Told:
    """What became of each session, until it is told at the end, beneath a bar. Of many it lies in a file."""

    MEMORY = 1024 * 1024
    """Bytes of lines that are kept in memory."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._kept = tempfile.SpooledTemporaryFile(  # noqa: SIM115  # closed by `__exit__`
            self.MEMORY, "w+", encoding="utf-8", errors="surrogatepass"
        )
        self.count = self._sessions = self._documents = self._failed = 0
        self._error: HoldfastError | None = None
        self._damaged = False

    def __enter__(self) -> _Told:
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.close()

    def take(self, one: Copied) -> None:
        """One more was copied, or could not be."""
        self.count += 1
        if one.error is not None:
            self._failed += 1
            self._error = self._error or one.error
            self._damaged |= _is_damage(one.error)
        else:
            self._sessions += not one.document
            self._documents += bool(one.document)
        if self._app.json:
            self._kept.write(dumps(copied_shape(one)) + "\n")
        elif (line := _line_of(one)) is not None:
            self._kept.write(dumps([one.error is None, line]) + "\n")

    def tell(self, *, dry_run: bool) -> None:
        """Say all of it."""
        self._kept.seek(0)
        if self._app.json:
            self._app.items((line[:-1] for line in self._kept), **noted(dry_run))
            return
        for line in self._kept:
            went, text = msgspec.json.decode(line, type=tuple[bool, str])
            self._app.line(text) if went else self._app.say(text)
        told = plural(self._sessions, "session")
        if self._documents:
            told += f" and {plural(self._documents, 'document')}"
        would_be, would_have = "would be " * dry_run, "would have " * dry_run
        self._app.say(f"{told} {would_be}equal in both stores, {self._failed} {would_have}failed")

    def fail(self, *, alone: bool) -> None:
        """End with the exit code for what could not be copied; what reads back otherwise is the worst."""
        if self._damaged:
            raise click.exceptions.Exit(INTEGRITY)
        if self._error is not None:
            raise click.exceptions.Exit(exit_code(self._error) if alone else PARTIAL)


def _is_damage(error: HoldfastError) -> bool:
    """Whether what was copied reads back otherwise."""
    return isinstance(error, Corrupt) and "where" in error.facts


@contextlib.contextmanager
def _bar(app: App, here: Store, ids: Sequence[str] | None) -> Generator[Callable[[Copied], None]]:
    """A bar over the events, on a terminal only."""
    if app.quiet or ids is not None or not sys.stderr.isatty():
        yield lambda _: None
        return
    from holdfast.finding.listing import all_heads

    total = sum(head.last - max(head.base, head.trim) for heads in all_heads(here.backend) for head in heads)
    with click.progressbar(length=total, label="copying", file=sys.stderr) as bar:
        yield lambda one: bar.update(one.events)


def _line_of(one: Copied) -> str | None:
    """What is said of one; None if there is nothing to say."""
    name = one.session or one.document
    if one.error is not None:
        return f"{name}: {one.error.message}"
    if one.deleted:
        return safe_line(f"{name}: deleted")
    if one.new:
        what = "new" if one.document else f"{plural(one.new, 'new event')} of {one.events:,}"
        return safe_line(f"{name}: {what}")
    return None


def _follow(app: App, here: Store, there: Store) -> None:
    """Copy, and go on until Ctrl-C; a second one ends at once."""
    from holdfast.moving.following import follow_store

    stop = threading.Event()

    def told(one: Copied) -> None:
        if one.error is not None or one.new or one.deleted:
            line = _line_of(one) or ""
            app.data(copied_shape(one)) if app.json else app.line(line) if one.error is None else app.say(line)
            sys.stdout.flush()

    def behind(how: Behind) -> None:
        if app.json:
            app.data({"behind": {"sessions": how.sessions, "seconds": round(how.seconds, 3)}})
            sys.stdout.flush()
        elif sys.stderr.isatty() or not how.sessions:
            app.say(f"{plural(how.sessions, 'session')} behind, {how.seconds:.1f} s" if how.sessions else "in step")

    with _until_ctrl_c(stop):
        report = follow_store(here, there, stop=stop, told=told, behind=behind)
    gone = f" and deleted {report.deleted:,}" if report.deleted else ""
    app.say(f"the last pass copied {plural(report.new, 'new event')}{gone}, {len(report.failed)} failed")
    if any(one.error is not None and _is_damage(one.error) for one in report.failed):
        raise click.exceptions.Exit(INTEGRITY)
    if report.failed:
        raise click.exceptions.Exit(PARTIAL)


@contextlib.contextmanager
def _until_ctrl_c(stop: threading.Event) -> Generator[None]:
    def hear(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # the signal module's
        stop.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@click.command(
    cls=Command,
    examples="""
    holdfast backup agents.jsonl.zst
    holdfast backup --force ~/backups/agents.jsonl.zst
    holdfast backup agents.jsonl.zst --dry-run   # only read the store to its end
    """,
)
@click.argument("file", metavar="FILE")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@DRY_RUN
@pass_app
def backup(app: App, file: str, force: bool, dry_run: bool) -> None:
    """Write the whole store into one new file while others write: a packed bundle, which restores on any backend."""
    with app.store() as store:
        done = store.backup(file, replace=force, dry_run=dry_run)
    if app.json:
        from msgspec import to_builtins

        app.data({**to_builtins(done), **noted(dry_run)})
    else:
        what = f"{plural(done.sessions, 'session')} and {plural(done.documents, 'document')}"
        size = plural(done.size, "byte")
        app.say(
            f"{what} would be in {done.path}, about {size}" if dry_run else f"{what} in {done.path}, {size}, read back"
        )
    for id, why in done.damaged.items():
        app.warn(f"not whole: {id}: {why}")
    if done.damaged:
        raise click.exceptions.Exit(INTEGRITY)


@click.command(
    cls=Command,
    examples="""
    holdfast restore agents.jsonl.zst --store sqlite:new.db
    holdfast restore agents.jsonl.zst --store file:folder --dry-run   # only read the file to its end
    """,
)
@click.argument("file", metavar="FILE")
@click.option("--merge", is_flag=True, help="The store may hold something; what differs in it stays as it is.")
@click.option("--partial", is_flag=True, help="Of a backup of a damaged store, restore what is whole.")
@DRY_RUN
@pass_app
def restore(app: App, file: str, merge: bool, partial: bool, dry_run: bool) -> None:
    """Bring back what `holdfast backup` wrote, into a new store.

    The file is read to its end before anything is written. What was restored is read back and held against digests.
    """
    from holdfast.moving.backups import read_backup

    read_backup(file)  # before a store is created for it
    with app.store(create=True, dry_run=dry_run) as store:
        done = store.restore(file, merge=merge, partial=partial, dry_run=dry_run)
    if app.json:
        failed = [copied_shape(one) for one in done.failed]
        app.data(
            {
                "sessions": done.sessions,
                "documents": done.documents,
                "new": done.new,
                "failed": failed,
                **noted(dry_run),
            }
        )
    else:
        for one in done.failed:
            app.say(f"{one.session or one.document}: {one.error and one.error.message}")
        what = f"{plural(done.sessions, 'session')} and {plural(done.documents, 'document')}"
        app.say(f"{what} {'to restore' if dry_run else 'restored'}, {len(done.failed)} failed")
    if done.failed:
        raise click.exceptions.Exit(PARTIAL)
