"""References: how a person names a session or one of its events on the command line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import click

from holdfast.errors import Corrupt, HoldfastError, Invalid, NotFound

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from holdfast.log import OnDamage
    from holdfast.session import Session
    from holdfast.store import Store

_WITH_SEQ = re.compile(r"(.+)@(\d{1,18})", re.DOTALL)


class Named(NamedTuple):
    """What a reference names: a session, and one of its events if it ends in `@seq`."""

    session: Session
    seq: int | None


def named(store: Store, reference: str, *, damaged: OnDamage = "raise") -> Named:
    """The session, or event, that a reference names.

    Args:
        damaged: As for `Store.get`.

    Raises:
        NotFound: there is none.
        Invalid: several sessions could be meant; the message names them.
        Corrupt: its head can't be trusted.
    """
    try:
        return Named(_resolved(store, reference, damaged), None)
    except NotFound:
        match = _WITH_SEQ.fullmatch(reference)
        if match is None:
            raise
    session, seq = _resolved(store, match[1], damaged), int(match[2])
    if not 1 <= seq <= session.last:
        raise NotFound(f"session {session.id!r} has no event {seq}; its newest is {session.last}", session=session.id)
    return Named(session, seq)


def _resolved(store: Store, reference: str, damaged: OnDamage) -> Session:
    try:
        return store.resolve(reference)
    except Corrupt as error:
        id = error.facts.get("id")
        session = store.get(id, damaged=damaged) if isinstance(id, str) else None
        if session is None:
            raise
        return session


def whole(store: Store, reference: str, *, damaged: OnDamage = "raise") -> Session:
    """The session that a reference names, where an event would make no sense.

    Raises:
        NotFound, Invalid, Corrupt: as `named`, or it names an event.
    """
    session, seq = named(store, reference, damaged=damaged)
    if seq is not None:
        raise Invalid(f"{reference!r} names one event; name the whole session: {session.id}", session=session.id)
    return session


def in_trash(store: Store, reference: str) -> str:
    """The id of the session in the trash that a reference names: by id, by name, or by the unique start of its id.

    An id that is there, in the trash or not, is itself.

    Raises:
        NotFound: there is none.
        Invalid: several could be meant; the message names some.
    """
    try:
        head = store.peek(reference)
    except Corrupt:
        return reference
    if head is not None and not head.dead:
        return reference
    named: list[str] = []
    begun: list[str] = []
    cursor = None
    while True:
        page = store.trash.list(limit=1000, cursor=cursor)
        named += [one.session.id for one in page if one.session.name == reference]
        begun += [one.session.id for one in page if one.session.id.startswith(reference)]
        if (cursor := page.cursor) is None:
            break
    found = named or begun
    if not found:
        raise NotFound(f"no session {reference!r} is in the trash", session=reference)
    if len(found) > 1:
        some = ", ".join(found[:10]) + (", …" if len(found) > 10 else "")
        raise Invalid(f"{reference!r} may be one of several in the trash: {some}", matches=found[:10])
    return found[0]


def parent_of(store: Store, reference: str | None) -> str | None:
    """The id of the session that a parent's reference names; one that is not there may be a parent all the same."""
    if reference is None:
        return None
    try:
        return whole(store, reference).id
    except NotFound:
        return reference


def left_out(id: str) -> str:
    """What to tell of a session that a list can't show."""
    return f"left out: the head of session {id!r} is damaged; `holdfast check {id}` says more"


def to_create(id: str) -> None:
    """Refuse the id that no reference would lead to.

    Raises:
        Invalid: it is `@last`.
    """
    if id == "@last":
        raise Invalid("@last is the session that was active last; a session to create needs an id of its own")


class SessionRef(click.ParamType):  # pyright: ignore[reportMissingTypeArgument]  # older click's takes none
    """A reference as a parameter: kept as text, completed from the newest sessions of the store."""

    name = "ref"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002  # the name is click's
        incomplete: str,
    ) -> list[CompletionItem]:
        """Ids and names that start so. Whatever goes wrong, a shell gets no completions rather than an error."""
        from click.shell_completion import CompletionItem

        from holdfast.opening import existing
        from holdfast.urls import default_url

        common = ctx.find_root().params
        url, user = str(common.get("url") or default_url()), common.get("user")
        found = [CompletionItem("@last", help="the newest session")] if "@last".startswith(incomplete) else []
        try:
            with existing(url) as store:
                view = store.for_user(user) if user else store
                for info in view.sessions(limit=1000):
                    if info.id.startswith(incomplete):
                        found.append(CompletionItem(info.id, help=_one_line(info.title)))
                    if info.name and info.name.startswith(incomplete):
                        found.append(CompletionItem(info.name, help=_one_line(info.title)))
        except HoldfastError:
            return found
        return found[:100]


def _one_line(title: str | None) -> str:
    from holdfast.formats.words import safe_line

    return safe_line(title or "")


REF = SessionRef()
