"""`holdfast session` fork, tree, diff, rewind and undo: a history that is changed without being rewritten."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

import click

from holdfast.cli.app import App, Command, pass_app
from holdfast.cli.refs import REF, named, whole
from holdfast.errors import Invalid
from holdfast.formats.words import plural, safe_line

if TYPE_CHECKING:
    from holdfast.history.branching import Branch
    from holdfast.model import Edit, Event, Message
    from holdfast.session import Session

WORDS = 100
"""Characters of an event on one line."""

_DRY_RUN = click.option("--dry-run", is_flag=True, help="Only say what would be done.")


@click.command(
    cls=Command,
    examples="""
    holdfast session fork support-42
    holdfast session fork support-42@7 --name 'another try'
    """,
)
@click.argument("ref", type=REF, metavar="REF[@SEQ]")
@click.option("--name", help="A name for the fork.")
@click.option("--id", help="An id for the fork; else a new one is made.")
@_DRY_RUN
@pass_app
def fork(app: App, ref: str, name: str | None, id: str | None, dry_run: bool) -> None:
    """Begin a session that goes on from another one, now or as it was at an event, and print its id."""
    with app.store() as store:
        parent, at = named(store, ref)
        at = parent.info().last if at is None else at
        made = None if dry_run else parent.fork(at=at, name=name, id=id)
        child = made.id if made is not None else id
    if app.json:
        app.data({"session": child, "parent": parent.id, "at": at, "dry_run": dry_run})
    elif dry_run:
        app.say(f"would go on from {parent.id}@{at}")
    else:
        app.line(safe_line(child or ""))


@click.command(
    cls=Command,
    examples="""
    holdfast session tree support-42
    holdfast --json session tree @last | jq '.forks[].session.id'
    """,
)
@click.argument("ref", type=REF, metavar="REF")
@pass_app
def tree(app: App, ref: str) -> None:
    """The forks of a session, of its ancestors and of its descendants, as a tree."""
    with app.store() as store:
        here = whole(store, ref).id
        root = store.tree(here)
    if app.json:
        app.data(_branch_shape(root))
    else:
        for line in _branch_lines(root, here):
            app.line(line)


def _branch_shape(branch: Branch) -> dict[str, Any]:
    from holdfast.cli.shapes import session_shape

    return {
        "session": session_shape(branch.session),
        "at": branch.at,
        "forks": [_branch_shape(each) for each in branch.forks],
        "damaged": list(branch.damaged),
    }


def _branch_lines(root: Branch, here: str) -> Iterator[str]:
    todo = [(root, 0)]
    while todo:
        branch, depth = todo.pop()
        info = branch.session
        place = f"@{branch.at} → " if depth else ""
        mark = "  ← this one" if info.id == here else ""
        title = f"  {info.title}" if info.title else ""
        yield safe_line(f"{'  ' * depth}{place}{info.id}  {plural(info.last, 'event')}{title}{mark}")
        for id in branch.damaged:
            yield safe_line(f"{'  ' * (depth + 1)}{id}  its head is damaged")
        todo += [(each, depth + 1) for each in reversed(branch.forks)]


@click.command(
    cls=Command,
    examples="""
    holdfast session diff support-42 another-try
    """,
)
@click.argument("a", type=REF, metavar="REF")
@click.argument("b", type=REF, metavar="REF")
@pass_app
def diff(app: App, a: str, b: str) -> None:
    """Where two sessions part, and what each shows from there on: - the first, + the second."""
    with app.store() as store:
        first, second = whole(store, a), whole(store, b)
        common, left, right = _parted(first, second)
        if app.json:
            from holdfast.cli.shapes import event_text

            texts = (
                f'{{"side": "{side}", "event": {event_text(session.id, event)}}}'
                for side, session, events in (("a", first, left), ("b", second, right))
                for event in events
            )
            app.items(texts, a=first.id, b=second.id, common=common)
            return
        app.say(f"equal up to event {common}" if common else "they have no event in common")
        for sign, events in (("-", left), ("+", right)):
            for event in events:
                app.line(f"{sign} {_gist(event)}")


def _parted(first: Session, second: Session) -> tuple[int, Iterable[Event], Iterable[Event]]:
    """The seq of the last event that both begin with, and what each shows behind it."""
    left, right = (session.events(damaged="keep") for session in (first, second))
    common = 0
    for one, other in zip_longest(left, right):
        if one is None or other is None or (one.seq, one.at, one.raw) != (other.seq, other.at, other.raw):
            return common, chain([one] if one else [], left), chain([other] if other else [], right)
        common = one.seq
    return common, (), ()


def _gist(event: Event) -> str:
    """An event on one line."""
    from holdfast.model import Message

    payload = event.payload
    return gist(event.seq, payload) if isinstance(payload, Message) else safe_line(f"@{event.seq} {event.type}")


def gist(seq: int, message: Message) -> str:
    """A message on one line; `seq` is 0 where it stands in no log."""
    from holdfast.model import Large, Text

    said = [part.content for part in message.parts if isinstance(part, Text)]
    words = [content.preview if isinstance(content, Large) else content for content in said]
    calls = [f"calls {call.name}" for call in message.tool_calls] + ["answers" for _ in message.tool_results]
    text = " ".join([*words, *calls])
    text = text if len(text) <= WORDS else text[: WORDS - 1] + "…"
    return safe_line(f"{f'@{seq}' if seq else '-'} {message.role}: {text}")


@click.command(
    cls=Command,
    examples="""
    holdfast session rewind support-42@7
    holdfast session rewind support-42 --to 0
    """,
)
@click.argument("ref", type=REF, metavar="REF[@SEQ]")
@click.option("--to", type=click.IntRange(0), metavar="SEQ", help="The event that is to be the newest; 0 for none.")
@_DRY_RUN
@pass_app
def rewind(app: App, ref: str, to: int | None, dry_run: bool) -> None:
    """Take back all events behind one. They are hidden, not erased: `session undo` shows them again."""
    with app.store() as store:
        found, seq = named(store, ref)
        upto = seq if to is None else to
        if upto is None or (seq is not None and to is not None):
            raise click.UsageError("say once behind which event to take back: REF@SEQ, or --to SEQ")
        if dry_run:
            if upto > found.last:
                raise Invalid(f"session {found.id!r} has no event {upto}; it is at {found.last}", to=upto)
            count = sum(1 for event in found.events(after=upto, damaged="keep") if event.type != "edit")
            _tell(app, found, "rewind", count, dry_run=True)
        else:
            _tell_edit(app, found, found.rewind(upto), "rewind")


@click.command(
    cls=Command,
    examples="""
    holdfast session undo support-42
    """,
)
@click.argument("ref", type=REF, metavar="REF")
@_DRY_RUN
@pass_app
def undo(app: App, ref: str, dry_run: bool) -> None:
    """Show again what the newest removal hid that was not undone yet."""
    with app.store() as store:
        found = whole(store, ref)
        if dry_run:
            from holdfast.history.history import newest_removal

            removal = newest_removal(store, store.head(found.id))
            _tell(app, found, "undo", _size(removal), dry_run=True)
        else:
            _tell_edit(app, found, found.undo(), "undo")


def _size(edit: Edit | None) -> int:
    return sum(last - first + 1 for first, last in edit.ranges) if edit else 0


def _tell_edit(app: App, found: Session, edit: Edit | None, action: str) -> None:
    _tell(app, found, action, _size(edit), dry_run=False)


def _tell(app: App, found: Session, action: str, count: int, *, dry_run: bool) -> None:
    if app.json:
        app.data({"session": found.id, "action": action, "events": count, "dry_run": dry_run})
        return
    done = {"rewind": "hidden", "undo": "shown again"}[action]
    app.line(safe_line(f"{found.id}: {plural(count, 'event')} {'would be ' if dry_run else ''}{done}"))
