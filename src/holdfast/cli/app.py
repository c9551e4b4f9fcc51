"""The group of commands: common options, the store they work on, and what an error means to a shell.

Data goes to stdout, talk to stderr. Every failure is one sentence and an exit code; `HOLDFAST_DEBUG=1` shows the
traceback behind it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from typing import TYPE_CHECKING, Any, TextIO

import click

from holdfast import __version__, errors
from holdfast.cli.shapes import dumps, error_shape
from holdfast.cli.terminal import Line, Span, styler
from holdfast.formats.words import safe
from holdfast.paths import as_text

if TYPE_CHECKING:
    from holdfast.store import Store

OK, FAILURE, USAGE, NOT_FOUND, CONFLICT, INTEGRITY, UNAVAILABLE, DENIED, PARTIAL, INTERRUPTED = (*range(9), 130)

_CODES: tuple[tuple[type[errors.HoldfastError], int], ...] = (
    (errors.NotFound, NOT_FOUND),
    (errors.Conflict, CONFLICT),
    (errors.Corrupt, INTEGRITY),
    (errors.Unavailable, UNAVAILABLE),
    (errors.Denied, DENIED),
    (errors.ReadOnly, DENIED),
    (errors.Invalid, USAGE),
)


class App:
    """What the common options say, and where output goes."""

    def __init__(
        self,
        url: str | None,
        json: bool,
        color: bool | None,
        quiet: bool,
        user: str | None = None,
        *,
        replica: bool = False,
    ) -> None:
        self.url = url
        self.user = user
        self.replica = replica
        self.json = json
        self.quiet = quiet
        no_color = color is False or bool(os.environ.get("NO_COLOR"))
        self.terminal = sys.stdout.isatty()
        self._colored = color is True or (self.terminal and not no_color and os.environ.get("TERM") != "dumb")

    @contextlib.contextmanager
    def store(self, *, create: bool = False, dry_run: bool = False) -> Generator[Store]:
        """The store that is meant, open. Only a command that writes something new creates one by opening it.

        In a dry run everything can be tried, and nothing is stored; nor is a store created.

        Raises:
            NotFound: there is none, and it is not to be created.
        """
        from holdfast.opening import open
        from holdfast.urls import default_url

        url = self.url or default_url()
        if create:
            opened = tried(url) if dry_run else open(url)
        else:
            opened = rehearsing(self._existing(url)) if dry_run else self._existing(url)
        with opened as store:
            yield self.view(store)

    def _existing(self, url: str) -> Store:
        """The store that is meant; the error of one that is not there says how to create it."""
        from holdfast.opening import existing
        from holdfast.shown import shown

        try:
            return existing(url)
        except errors.NotFound as error:
            option = f"--store {shlex.quote(shown(self.url))} " if self.url else ""
            raise errors.NotFound(f"{error.message}; `holdfast {option}init` creates one", **error.facts) from None

    def view(self, store: Store) -> Store:
        """The store as the user sees it for whom the command works; the whole store if it works for nobody.

        With `--replica` it is read from a replica, and can't be written.
        """
        if self.replica:
            store = store.reader()
        return store if self.user is None else store.for_user(self.user)

    def line(self, *spans: Span | str) -> None:
        """A line of data. What was stored must have gone through `safe` or `safe_line`."""
        self.lines([[s if isinstance(s, Span) else Span(s) for s in spans]])

    def lines(self, lines: Iterable[Line], *, paged: bool = False) -> None:
        """Lines of data; `paged` shows them in a pager if stdout is a terminal."""
        style = styler(self._colored)
        texts = ("".join(style(span) for span in line) + "\n" for line in lines)
        if paged and self.terminal:
            os.environ.setdefault("LESS", "-FRX")
            click.echo_via_pager(texts, color=self._colored)
            return
        for text in texts:
            sys.stdout.write(text)

    def data(self, value: Any) -> None:
        """A value as a line of JSON."""
        self.text(dumps(value))

    def text(self, text: str) -> None:
        """A line that is ready to be printed."""
        sys.stdout.write(text + "\n")

    def items(self, texts: Iterable[str], cursor: str | None = None, **more: Any) -> None:
        """A list as one JSON object, its items written as they come."""
        head = dumps(more)[1:-1]
        sys.stdout.write("{" + (head + ", " if head else "") + '"items": [')
        for index, text in enumerate(texts):
            sys.stdout.write(("\n" if index == 0 else ",\n") + text)
        sys.stdout.write(f'], "cursor": {dumps(cursor)}}}\n')

    def say(self, text: str) -> None:
        """Talk: a line on stderr, unless `-q`. Control characters are made safe."""
        if not self.quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Something is wrong, though the command goes on: a line on stderr, also with `-q`."""
        sys.stderr.write(safe(text) + "\n")


@contextlib.contextmanager
def rehearsing(real: Store) -> Generator[Store]:
    """A store in which a dry run may do everything, over one that is open, and closed with it."""
    from holdfast.backends import rehearsed
    from holdfast.store import Store

    with real, Store(real.url, backend=rehearsed(real.backend, real.text_of)) as store:
        yield store


def tried(url: str) -> AbstractContextManager[Store]:
    """The same over what is at a URL; a store that is not there yet is an empty one."""
    from holdfast.opening import existing, open

    try:
        return rehearsing(existing(url))
    except errors.NotFound:
        return rehearsing(open("memory://"))


def _set_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    app = ctx.find_object(App)  # none while a shell completes the line
    if value and app is not None:
        app.json = True


def _set_store(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    app = ctx.find_object(App)
    if value is not None and app is not None:
        app.url = value


def _common() -> list[click.Parameter]:
    """The options that may stand behind any command's name, too."""
    return [
        click.Option(["--json"], is_flag=True, expose_value=False, callback=_set_json, help="Print JSON."),
        click.Option(["--store"], metavar="URL", expose_value=False, callback=_set_store, hidden=True),
    ]


class Command(click.Command):
    """A command whose help begins with examples, and that takes `--json` and `--store` behind its name too."""

    def __init__(self, *args: Any, examples: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.params += _common()

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Examples, usage, then what it does and its options."""
        _format_examples(self.examples, formatter)
        super().format_help(ctx, formatter)


def _format_examples(examples: str, formatter: click.HelpFormatter) -> None:
    if examples:
        formatter.write("Examples:\n")
        for line in examples.strip().splitlines():
            formatter.write(f"  {line.strip()}\n")
        formatter.write_paragraph()


class Group(click.Group):
    """A group whose commands are imported when they are asked for: `name` is in `holdfast.cli.<module>`."""

    command_class = Command

    def __init__(self, *args: Any, lazy: dict[str, str] | None = None, examples: str = "", **kwargs: Any) -> None:
        super().__init__(*args, no_args_is_help=False, **kwargs)
        self.lazy = lazy or {}
        self.examples = examples
        if not self.params:  # the command itself has its own
            self.params += _common()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Without a command its help, as talk, and a usage error; in JSON the error alone."""
        app = ctx.find_object(App)
        if not args and not ctx.resilient_parsing and not (app and app.json):
            click.echo(ctx.get_help(), err=True)
            ctx.exit(USAGE)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # the name is click's
        """In the order they were named."""
        return [*self.commands, *self.lazy]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, its module imported now."""
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self.lazy[cmd_name].partition(":")
        return getattr(import_module(f"holdfast.cli.{module}"), attribute)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Examples, usage, then the commands."""
        _format_examples(self.examples, formatter)
        super().format_help(ctx, formatter)


LAZY = {
    "demo": "demo:demo",
    "init": "admin:init",
    "info": "admin:info",
    "doctor": "doctor:doctor",
    "version": "admin:version",
    "completion": "doctor:completion",
    "session": "sessions:session",
    "stuck": "runs:stuck",
    "artifact": "artifacts:artifact",
    "report": "reports:report",
    "usage": "usage:usage",
    "doc": "docs:doc",
    "prune": "prunes:prune",
    "trash": "trash:trash",
    "append": "events:append",
    "tail": "events:tail",
    "watch": "watching:watch",
    "search": "events:search",
    "import": "transfer:import_",
    "export": "transfer:export",
    "copy": "moving:copy",
    "backup": "moving:backup",
    "restore": "moving:restore",
    "check": "admin:check",
    "compact": "admin:compact",
}

EXAMPLES = """
holdfast session list                     # the sessions that were active last
holdfast session show @last               # the newest one, as a person reads it
holdfast append support-42 'Hi' --create  # add a message
holdfast search '"order 7" -refund'       # find it again
"""


@click.group(cls=Group, lazy=LAZY, examples=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--store", "url", metavar="URL", help="The store; else HOLDFAST_URL, else a file in your data directory.")
@click.option(
    "--user", metavar="USER", envvar="HOLDFAST_USER", help="Work for one user, who sees only hers; else HOLDFAST_USER."
)
@click.option("--replica", is_flag=True, help="Only read, from a replica that the store's URL names (read_from=).")
@click.option("--json", is_flag=True, help="Print JSON of a stable shape (docs/CLI.md).")
@click.option("--color/--no-color", default=None, help="Colours; without, only on a terminal and not with NO_COLOR.")
@click.option("-q", "--quiet", is_flag=True, help="No talk on stderr but errors.")
@click.version_option(__version__, message="holdfast %(version)s")
@click.pass_context
def holdfast(
    ctx: click.Context,
    url: str | None,
    user: str | None,
    replica: bool,
    json: bool,
    color: bool | None,
    quiet: bool,
) -> None:
    """Keep the sessions of AI agents: what was said, which tools ran, what it cost.

    A session is named by its id, the unique start of it, its name, or @last; name@seq is one of its events.
    """
    ctx.obj = App(url, json, color, quiet, user, replica=replica)


pass_app = click.make_pass_decorator(App)


def exit_code(error: errors.HoldfastError) -> int:
    """What an error means to a shell. `Uncertain` is a plain failure: it must not look like one that stored nothing."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILURE)


def run(args: Sequence[str]) -> int:
    """Run the command line; the exit code."""
    sys.stdout, sys.stderr = _utf8(sys.stdout), _utf8(sys.stderr)
    args = [as_text(arg) for arg in args]
    if instruction := os.environ.get("_HOLDFAST_COMPLETE"):
        from click.shell_completion import shell_complete

        return shell_complete(holdfast, {}, "holdfast", "_HOLDFAST_COMPLETE", instruction)
    try:
        code = _invoke(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has what it wanted. What is buffered can't be written any more, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    return code


def _utf8(stream: TextIO | None) -> TextIO:
    if stream is None:  # it was closed: nobody wants to read it
        return open(os.devnull, "w", encoding="utf-8")
    # A lone surrogate becomes `\udXXX`, which in JSON is the right escape for it.
    stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]  # text streams of a process have it
    return stream


def _invoke(args: Sequence[str]) -> int:
    as_json = "--json" in args[: args.index("--") if "--" in args else None]
    debug = bool(os.environ.get("HOLDFAST_DEBUG"))
    try:
        with holdfast.make_context("holdfast", list(args)) as ctx:
            holdfast.invoke(ctx)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        code = USAGE if isinstance(error, click.UsageError) else FAILURE
        hint = (
            f"; {error.ctx.command_path} --help says more" if isinstance(error, click.UsageError) and error.ctx else ""
        )
        message = error.format_message().rstrip(".") + hint
        return _fail({"type": type(error).__name__, "message": message}, code, as_json)
    except errors.HoldfastError as error:
        if debug:
            raise
        return _fail(_shape(error), exit_code(error), as_json)
    except (BrokenPipeError, click.Abort):
        raise
    except OSError as error:
        if debug:
            raise
        where = f" {error.filename!r}" if error.filename else ""
        return _fail({"type": type(error).__name__, "message": f"{error.strerror or error}{where}"}, FAILURE, as_json)
    except Exception as error:  # the last line before the shell: a sentence, and a way to see more
        if debug:
            raise
        message = f"unexpected {type(error).__name__}: {error}; HOLDFAST_DEBUG=1 shows where"
        return _fail({"type": type(error).__name__, "message": message}, FAILURE, as_json)
    return OK


def _shape(error: errors.HoldfastError) -> dict[str, Any]:
    """An error as JSON, whose sentence fits a shell."""
    shape = error_shape(error)
    if type(error) is errors.Deleted and error.message.startswith("session "):
        shape["message"] += f", as `holdfast session new {shlex.quote(str(error.session))}` does"
    return shape


def _fail(shape: dict[str, Any], code: int, as_json: bool) -> int:
    sys.stdout.flush()
    sys.stderr.write(dumps({"error": shape}) + "\n" if as_json else f"holdfast: {safe(shape['message'])}\n")
    return code
