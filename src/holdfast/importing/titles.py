"""Titles that stand in another session's file: whose they are, in whatever order the files come.

Claude Code writes the summary of a conversation into whichever file it begins next, and names the conversation by the
uuid of a message. Events are named by that uuid, so a log can be asked whether it holds the message. A session keeps
such titles in its metadata under `imported`, and its tag `summaries` says whether all sessions were asked for them:
`open` until then, `asked` from then on. Events that come later are compared when they are stored (see `intake`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from holdfast.errors import Corrupt, HoldfastError, ReadOnly, Unavailable, Uncertain
from holdfast.formats import claude_code
from holdfast.formats.transcript import FOREIGN, mapping
from holdfast.heads.info import SESSION, body_of, check_head, created_at, encode_body, session_ref
from holdfast.plan import Commit, Head, Ref
from holdfast.store import Store

TAG, OPEN, ASKED = "summaries", "open", "asked"
_PAGE = 100
_RETRIES = 20

_Titles = dict[str | None, dict[str, str]]
"""Titles by the ids of the events they name, for each user."""


def imported(head: Head | None) -> dict[str, Any]:
    """What earlier imports noted in a session."""
    if head is None or head.dead:
        return {}
    return mapping(mapping(body_of(head).get("metadata")).get("imported"))


def may_title(head: Head | None, weight: int) -> bool:
    """Whether a title of this weight may become a session's: the one it has weighs no more and came from an import."""
    noted = imported(head)
    held = head.tags.get("title") if head else None
    return held is None or (held == noted.get("title") and weight >= _weight(noted))


def _weight(noted: Mapping[str, Any]) -> int:
    weight = noted.get("weight")
    return weight if isinstance(weight, int) else 0


def told(store: Store, user: str | None) -> Mapping[str, str]:
    """The titles that a user's sessions hold for messages elsewhere, by the ids of these messages' events."""
    heads = [head for state in (OPEN, ASKED) for head in _found(store, {TAG: state})]
    return _titles(heads).get(user, {})


def _titles(heads: list[Head]) -> _Titles:
    """Of two titles for one message, that of the newer session is taken."""
    titles: _Titles = {}
    for head in sorted(filter(_is_sound, heads), key=lambda head: (created_at(head), head.ref.id)):
        named = titles.setdefault(head.tags.get("user"), {})
        named |= {id: t for id, t in mapping(imported(head).get("titles")).items() if isinstance(t, str)}
    return titles


def _is_sound(head: Head) -> bool:
    try:
        check_head(head)
    except Corrupt:
        return False  # which a check tells; the others' titles are given all the same
    return True


def _found(store: Store, tags: Mapping[str, str]) -> Iterator[Head]:
    after = None
    while page := store.backend.find(SESSION, tags, after=after, limit=_PAGE):
        yield from page
        after = (page[-1].at, page[-1].ref.id)


def spread(store: Store) -> None:
    """Give titles that no session was asked for yet to the sessions that hold their messages.

    Raises:
        Unavailable, Uncertain, ReadOnly: the store can't take them now; the next import goes on.
    """
    heads = list(_found(store, {TAG: OPEN}))
    if not heads:
        return
    fresh, every = _titles(heads), _titles([*heads, *_found(store, {TAG: ASKED})])
    for head in _found(store, {"agent": claude_code.PROGRAM}):
        user, parent = head.tags.get("user"), head.tags.get("parent") if "fork" in head.tags else None
        try:
            if newest(store, head.ref, parent, fresh.get(user, {})):
                _give(store, head.ref, newest(store, head.ref, parent, every[user]))
        except (Unavailable, Uncertain, ReadOnly):
            raise
        except HoldfastError:
            continue  # it is damaged, which a check tells; the others get theirs
    for head in heads:
        # One that was changed meanwhile stays open: it may hold more by now.
        store.batcher.commit(Commit(ref=head.ref, if_rev=head.rev, tags={TAG: ASKED}))


def newest(store: Store, ref: Ref, parent: str | None, titles: Mapping[str, str]) -> str:
    """The title of the last event of a log that has one of these; "" if none has.

    What it has in common with the session `parent` was copied from there, and names that one.
    """
    held = _holds(store, ref, list(titles))
    if held and parent is not None:
        copied = _holds(store, session_ref(parent), list(held))
        held = {id: seq for id, seq in held.items() if id not in copied}
    return titles[max(held, key=lambda id: held[id])] if held else ""


def _holds(store: Store, ref: Ref, ids: Sequence[str]) -> dict[str, int]:
    """Those of the ids that a log holds, and where."""
    return {entry.id: entry.seq for entry in store.backend.read(ref, ids=ids, voided=True)} if ids else {}


def _give(store: Store, ref: Ref, title: str) -> None:
    for _ in range(_RETRIES):
        head = store.backend.get([ref])[0]
        if (
            head is None
            or head.dead
            or head.trashed
            or not title
            or head.tags.get("title") == title
            or not may_title(head, FOREIGN)
        ):
            return
        body = body_of(head)
        body.pop("v", None)
        noted = {**imported(head), "title": title, "weight": FOREIGN}
        body["metadata"] = {**mapping(body.get("metadata")), "imported": noted}
        commit = Commit(ref=ref, if_rev=head.rev, tags={"title": title}, body=encode_body(body))
        if isinstance(store.batcher.commit(commit), Head):
            return
