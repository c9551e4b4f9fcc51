"""`append`, `tail` and `search`: the events of sessions."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from holdfast.cli.app import App, Command, pass_app
from holdfast.cli.asking import DRY_RUN, noted
from holdfast.cli.reading import words_of_stdin
from holdfast.cli.refs import REF, named, to_create, whole
from holdfast.cli.terminal import Line, Span, local
from holdfast.errors import Invalid
from holdfast.formats.words import safe_line
from holdfast.heads.info import check_user

if TYPE_CHECKING:
    from holdfast.finding.hits import SearchHit
    from holdfast.log import Appendable
    from holdfast.model import AnyPayload, Event
    from holdfast.session import Session
    from holdfast.store import Store


@click.command(
    cls=Command,
    examples="""
    holdfast append support-42 'Where is order 7?' --create
    git log -1 | holdfast append support-42 - --role tool
    echo '{"type":"note","text":"checked"}' | holdfast append support-42 --jsonl --key check-1
    holdfast append support-42 'Where is order 7?' --expect 12 --dry-run
    """,
)
@click.argument("ref", type=REF, metavar="REF")
@click.argument("text", required=False)
@click.option("--role", default="user", show_default=True, help="Who said it: user, assistant, system, tool, ….")
@click.option("--jsonl", is_flag=True, help="Read payloads from stdin, a JSON object a line; all are stored or none.")
@click.option("--key", help="Idempotency key: the same call again stores nothing and answers the same.")
@click.option("--expect", type=click.IntRange(0), metavar="SEQ", help="Only if this is the newest event; 0: none yet.")
@click.option("--create", is_flag=True, help="Create the session if it is not there; REF is then its id.")
@click.option("--user", help="Only if the session is this user's; with --create a new one will be.")
@DRY_RUN
@pass_app
def append(
    app: App,
    ref: str,
    text: str | None,
    role: str,
    jsonl: bool,
    create: bool,
    user: str | None,
    dry_run: bool,
    **how: Any,
) -> None:
    """Store events at the end of a session; print the name of the newest, or with --json the receipt.

    TEXT is one message; without it, or with -, stdin is. A session is never created by accident: see --create.
    """
    events = list(_given(text)) if jsonl else [_message(role, text)]
    with app.store(create=create, dry_run=dry_run) as store:
        session = _or_new(store, ref, user) if create else whole(store, ref)
        if user is not None:
            session = store.session(session.id, user=user)  # refuses another user's
        receipt = session.append(*events, **how)
    if app.json:
        from holdfast.cli.shapes import receipt_shape

        app.data({**receipt_shape(receipt), **noted(dry_run)})
        return
    told = f"{receipt.session}@{receipt.last}"
    app.say(f"{told} would be the newest") if dry_run else app.line(told)
    if receipt.repeated:
        app.say("stored before, by the same key")


def _message(role: str, text: str | None) -> AnyPayload:
    from holdfast.model import Text, message

    if text is None or text == "-":
        if text is None and sys.stdin.isatty():
            raise click.UsageError("say the TEXT, or - to read it from stdin")
        said = words_of_stdin()
        if said == "":
            raise Invalid("stdin is empty; to store a message without words, give '' as TEXT")
        return message(role, said if isinstance(said, str) else Text(content=said))
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise Invalid("TEXT is not UTF-8")
    return message(role, text)


def _given(text: str | None) -> Iterator[Appendable]:
    from holdfast.cli.records import payloads

    if text not in (None, "-"):
        raise click.UsageError("--jsonl reads stdin; leave TEXT out")
    return payloads(sys.stdin.buffer)


def _or_new(store: Store, ref: str, user: str | None) -> Session:
    """The session with exactly this id or name, else a new one: the start of an id must not catch a longer one."""
    to_create(ref)
    check_user(user)
    found = store.get(ref)
    if found is None and (page := store.sessions(name=ref, limit=2)).items:
        if len(page) > 1:
            raise Invalid(f"several sessions are named {ref!r}; use an id", matches=[i.id for i in page])
        found = store.get(page[0].id)
    return found or store.session(ref, user=user)


@click.command(
    cls=Command,
    examples="""
    holdfast tail support-42
    holdfast tail -f @last
    holdfast --json tail -f support-42 --after 120 | jq -r .type
    """,
)
@click.argument("ref", type=REF, metavar="REF")
@click.option("-f", "--follow", is_flag=True, help="Go on: print each event as it comes, from any process.")
@click.option("-n", "--last", type=click.IntRange(0), default=10, show_default=True, help="The newest so many events.")
@click.option("--after", type=click.IntRange(0), metavar="SEQ", help="Start behind this event instead.")
@click.option("--full", is_flag=True, help="All of every output, however long.")
@pass_app
def tail(app: App, ref: str, follow: bool, last: int, after: int | None, full: bool) -> None:
    """The newest events of a session (of REF@seq: those behind it); with -f until Ctrl-C or its deletion."""
    with app.store() as store:
        session, seq = named(store, ref)
        events = session.tail(after=seq if after is None else after, last=last, follow=follow)
        _print_events(app, session, events, full)


def _print_events(app: App, session: Session, events: Iterator[Event], full: bool) -> None:
    from holdfast.cli import show
    from holdfast.cli.shapes import event_text
    from holdfast.formats.calls import Outcomes

    outcomes = Outcomes()
    for event in events:
        if app.json:
            app.text(event_text(session.id, event, full=full))
        else:
            outcomes.take(event)
            app.lines(show.one(event, outcomes, full=full))
        sys.stdout.flush()  # a follower wants each event when it comes, through a pipe too


@click.command(
    cls=Command,
    examples="""
    holdfast search 'refund order'
    holdfast search '"order 7" invoic* -draft' --user ada
    holdfast search timeout --session @last --newest
    """,
)
@click.argument("query")
@click.option("--session", "ref", type=REF, metavar="REF", help="Only in this session.")
@click.option("--user", help="Only in this user's sessions.")
@click.option("--state", help="Only in sessions in this state.")
@click.option("--label", help="Only in sessions with this label.")
@click.option("--agent", help="Only in sessions of this agent.")
@click.option("--model", help="Only in sessions that used this model.")
@click.option("--project", help="Only in sessions of this project.")
@click.option("--newest", is_flag=True, help="The newest first instead of the best.")
@click.option("-n", "--limit", default=20, show_default=True, help="How many at the most.")
@click.option("--cursor", help="Go on where the search before ended.")
@pass_app
def search(app: App, query: str, ref: str | None, **how: Any) -> None:
    """Events whose text matches, the best first.

    A query is words (all must be there), "phrases", prefix*, -without, and OR between alternatives.
    """
    with app.store() as store:
        id = None if ref is None else whole(store, ref).id
        page = store.search(query, session=id, **how)
    if app.json:
        from holdfast.cli.shapes import hit_text

        app.items(map(hit_text, page), page.cursor)
        return
    for hit in page:
        app.lines(_hit(hit))
    if not page.items:
        app.say("no event matches")
    if page.cursor:
        app.say(f"more: --cursor {page.cursor}")


def _hit(hit: SearchHit) -> Iterator[Line]:
    role = getattr(hit.event.payload, "role", hit.event.type)
    said = f"  {safe_line(str(role))}  {local(hit.event.at)}"
    yield [Span(safe_line(f"{hit.session}@{hit.seq}"), "bold"), Span(said, "dim")]
    line: Line = [Span("    ")]
    done = 0
    for start, end in hit.highlights:
        line += [Span(safe_line(hit.snippet[done:start])), Span(safe_line(hit.snippet[start:end]), "bold yellow")]
        done = end
    yield [*line, Span(safe_line(hit.snippet[done:]))]
