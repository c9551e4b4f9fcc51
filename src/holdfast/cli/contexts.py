"""`holdfast session` context, compact, validate and repair: what goes to the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from holdfast.cli.app import INTEGRITY, App, Command, pass_app
from holdfast.cli.asking import DRY_RUN
from holdfast.cli.history import gist
from holdfast.cli.reading import words_of_stdin
from holdfast.cli.refs import REF, named, whole
from holdfast.errors import Invalid
from holdfast.formats.words import plural, safe_line

if TYPE_CHECKING:
    from holdfast.context.context import Context
    from holdfast.context.pairs import Problem
    from holdfast.formats.shapes import Shaped
    from holdfast.model import Message

FORMS = ("openai", "responses", "anthropic", "otel")


@click.command(
    cls=Command,
    examples="""
    holdfast session context support-42
    holdfast session context support-42 -f anthropic --max-tokens 8000
    holdfast --json session context @last -f openai | jq .usage
    """,
)
@click.argument("ref", type=REF, metavar="REF")
@click.option("-f", "--format", "form", type=click.Choice(FORMS), help="Print what a provider's client takes, as JSON.")
@click.option("--max-tokens", type=click.IntRange(1), help="Room for all of it; else as the config says, else 200,000.")
@click.option("--keep", type=click.IntRange(0), default=1, show_default=True, help="The newest so many go anyhow.")
@pass_app
def context(app: App, ref: str, form: str | None, **how: Any) -> None:
    """What would go to the model: system prompt, summary and the newest messages that there is room for.

    Nothing is sent or changed. With --json, messages are as OpenTelemetry has them unless -f says otherwise.
    """
    with app.store() as store:
        made = whole(store, ref).context(**how)
        shaped = _shaped(form or "otel", made.messages) if form or app.json else None
    if app.json and shaped is not None:
        app.data(_context_shape(made, form or "otel", shaped))
        return
    if shaped is not None:
        system = getattr(shaped, "system", None)
        app.data(list(shaped) if system is None else {"system": system, "messages": list(shaped)})
    else:
        for seq, message in zip(made.seqs, made.messages, strict=True):
            app.line(gist(seq, message))
    _tell(app, made, shaped)


def _shaped(form: str, messages: Sequence[Message]) -> Shaped:
    from holdfast.formats import anthropic, openai, otel

    make = {
        "openai": openai.to_chat,
        "responses": openai.to_responses,
        "anthropic": anthropic.to_messages,
        "otel": otel.to_messages,
    }
    return make[form](messages)


def _context_shape(made: Context, form: str, shaped: Shaped) -> dict[str, Any]:
    from msgspec import to_builtins

    return {
        "format": form,
        "system": getattr(shaped, "system", None),
        "messages": list(shaped),
        "seqs": list(made.seqs),
        "usage": to_builtins(made.usage),
        "full": made.full,
        "cut": made.cut,
        "summary": made.summary,
        "last": made.last,
        "problems": to_builtins(made.problems),
        "lost": [lost._asdict() for lost in shaped.lost],
    }


def _tell(app: App, made: Context, shaped: Shaped | None) -> None:
    used = made.usage
    cut = "; older messages had no room" if made.cut else ""
    app.say(f"{used.used_tokens:,} of {used.max_tokens:,} tokens, {plural(used.turns, 'message')}{cut}")
    for problem in made.problems:
        app.say(f"@{problem.seq} {problem.kind}: {problem.what}")
    for lost in shaped.lost if shaped is not None else ():
        app.say(f"message {lost.message}: {lost.what}: {lost.how}")


@click.command(
    cls=Command,
    examples="""
    holdfast session compact support-42@40 'Order 7 was asked for; it was shipped.'
    summarize < chat.txt | holdfast session compact support-42 - --upto 40 --seen 44
    """,
)
@click.argument("ref", type=REF, metavar="REF[@SEQ]")
@click.argument("summary", required=False)
@click.option("--upto", type=click.IntRange(1), metavar="SEQ", help="The last event that it stands for.")
@click.option("--seen", type=click.IntRange(1), metavar="SEQ", help="The newest event when the words were made.")
@DRY_RUN
@pass_app
def compact(app: App, ref: str, summary: str | None, upto: int | None, seen: int | None, dry_run: bool) -> None:
    """Let SUMMARY, or stdin, stand for all events up to one in what goes to the model. They stay in the log.

    Refused (exit code 4) if what it stands for was taken back or shown again since, or stands for less than a summary
    that is there.
    """
    from holdfast.model import Summary

    if summary is None and not dry_run:
        raise click.UsageError("say the SUMMARY, or - to read it from stdin")
    with app.store() as store:
        found, seq = named(store, ref)
        if (seq is None) == (upto is None):
            raise click.UsageError("say once up to which event it stands: REF@SEQ, or --upto SEQ")
        upto = seq if upto is None else upto
        if upto is None or upto > found.last:
            raise Invalid(f"session {found.id!r} has no event {upto}; it is at {found.last}", upto=upto)
        event = None
        if not dry_run:
            words = words_of_stdin() if summary == "-" else summary or ""
            event = found.compact(words, upto, seen=seen)
    start = event.payload.start if event is not None and isinstance(event.payload, Summary) else None
    if app.json:
        seq = None if event is None else event.seq
        app.data({"session": found.id, "seq": seq, "start": start, "end": upto, "dry_run": dry_run})
    elif event is None:
        app.say(f"would stand for the events of {found.id} up to {upto}")
    else:
        app.line(safe_line(f"{found.id}@{event.seq}"))


@click.command(
    cls=Command,
    examples="""
    holdfast session validate support-42
    holdfast --json session validate @last | jq -r '.items[].kind'
    """,
)
@click.argument("ref", type=REF, metavar="REF")
@pass_app
def validate(app: App, ref: str) -> None:
    """What is wrong with a session's tool calls and their results (exit code 5).

    What goes to the model is set right all the same.
    """
    with app.store() as store:
        found = whole(store, ref).validate()
    if app.json:
        from msgspec import to_builtins

        from holdfast.cli.shapes import dumps

        app.items(dumps(to_builtins(problem)) for problem in found)
    else:
        _lines(app, found)
        if not found:
            app.say("nothing is wrong with its tool calls")
    if found:
        raise click.exceptions.Exit(INTEGRITY)


@click.command(
    cls=Command,
    examples="""
    holdfast session repair support-42 --dry-run
    holdfast session repair support-42
    """,
)
@click.argument("ref", type=REF, metavar="REF")
@DRY_RUN
@pass_app
def repair(app: App, ref: str, dry_run: bool) -> None:
    """Append a result for each tool call that has none; nothing is hidden or changed.

    What an append can't mend is told. Refused while a turn runs (exit code 4).
    """
    from holdfast.context.repair import mend

    with app.store() as store:
        found = whole(store, ref)
        done = mend(store, found, None, dry_run=True) if dry_run else found.repair()
    calls = [result.id for answer in done.answers for result in answer.tool_results]
    if app.json:
        from msgspec import to_builtins

        left = to_builtins(done.left)
        app.data({"session": found.id, "answers": calls, "first": done.first, "left": left, "dry_run": dry_run})
        return
    for id in calls:
        app.line(safe_line(f"{'would be answered' if dry_run else 'answered'}: {id}"))
    _lines(app, done.left)
    if not calls and not done.left:
        app.say("nothing is wrong with its tool calls")


def _lines(app: App, problems: Sequence[Problem]) -> None:
    for problem in problems:
        app.line(safe_line(f"@{problem.seq} {problem.kind}: {problem.what}"))
