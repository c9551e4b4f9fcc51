"""Names: what a user calls a session; of one user's sessions no two are called the same.

A commit changes one head only, so a name is claimed first, by a head of its own that two writers can't both create;
then it is given to the session, then the old one is released. Invariant: whoever gives a session a name holds its
claim, and a claim that nobody can be about to use gives way: its session does not carry the name, and who made it has
ended or had a minute for the step that was left. A session that carries a name without a claim, as those of an older
version and copies do, has it all the same.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator

from holdfast.clock import now
from holdfast.errors import Corrupt, Denied, Exists, HoldfastError, ReadOnly, Stale, Unavailable, Uncertain
from holdfast.heads.info import SESSION, session_ref
from holdfast.plan import MAX_ID, Commit, Head, Ref, check_text
from holdfast.refusals import refusal
from holdfast.storage import Storage
from holdfast.turns.places import Process

NAME = "name"
"""The kind of head that claims a name; its tags say whose it is and which session's."""
GRACE = 60_000_000
"""Microseconds after which a claim that its session does not carry gives way, though its maker may live."""
TRIES = 200


def claim_ref(user: str | None, name: str) -> Ref:
    """The head that claims a name for a session of this user."""
    import hashlib  # loads OpenSSL, which most programs can do without

    return Ref(NAME, hashlib.sha256(json.dumps([user, name]).encode()).hexdigest())


@contextlib.contextmanager
def held(store: Storage, user: str | None, name: str | None, session: str) -> Generator[None]:
    """Claim a name for a session while the block gives it to it; no name, no claim.

    Raises:
        Exists: another session of the user has the name, or is about to get it; `session` on the error is its id.
        Invalid, TooLarge: no session can be called so.
    """
    if not name:
        yield
        return
    _claim(store, user, name, session)
    try:
        yield
    except Uncertain:
        raise  # the session may have it; if not, the claim gives way
    except BaseException:  # whatever it was, the name was not given
        release(store, user, name, session)
        raise
    # What was written must not look as if it were not.
    with contextlib.suppress(Unavailable, Uncertain, ReadOnly, Corrupt):
        _confirm(store, user, name, session)


def _claim(store: Storage, user: str | None, name: str, session: str) -> None:
    check_text(name, "name", 4 * MAX_ID)
    ref = claim_ref(user, name)
    for _ in range(TRIES):
        there = store.backend.get([ref])[0]
        if there is not None and not there.dead and (holder := there.tags.get("session", "")) != session:
            if _carries(store, holder, user, name):
                raise _taken(name, holder)
            if _may_be_used(store, there):
                raise Exists(f"the name {name!r} is being given to session {holder!r}; try again", session=holder)
            if _was_given(store, holder, user, name):
                raise _taken(name, holder)
        tags = {"user": user, "name": name, "session": session, "process": _process(store)}
        commit = Commit(ref=ref, at=now(), if_rev=there.rev if there else 0, tags=tags)
        made = store.batcher.commit(commit)
        if isinstance(made, Head):
            break
        if made.why not in ("rev", "deleted"):
            raise refusal(made, commit)
    else:
        raise Stale(f"the name {name!r} changed hands {TRIES} times; try again", name=name)
    # Sessions may carry it without a claim.
    for trashed in (False, True):
        for head in store.backend.find(SESSION, {"name": name, "user": user}, limit=2, trashed=trashed):
            if head.ref.id != session:
                release(store, user, name, session)
                raise _taken(name, head.ref.id)


def _confirm(store: Storage, user: str | None, name: str, session: str) -> None:
    """See to it that a session and its claim belong together, now that the block is done.

    A claim that was taken away, as its session got the name more than a minute later, is made again, or the name is
    given up.
    """
    if not _carries(store, session, user, name):
        release(store, user, name, session)
        return
    there = store.backend.get([claim_ref(user, name)])[0]
    if there is not None and not there.dead and there.tags.get("session") == session:
        return
    try:
        _claim(store, user, name, session)
    except Exists:
        store.batcher.commit(Commit(ref=session_ref(session), if_tags={"name": name}, tags={"name": None}))
        raise


def _taken(name: str, holder: str) -> Exists:
    return Exists(f"session {holder!r} is called {name!r}; choose another name, or rename that one", session=holder)


def _carries(store: Storage, session: str, user: str | None, name: str) -> bool:
    """Whether a session has the name. One that can't be read may."""
    try:
        head = store.backend.get([session_ref(session)])[0]
    except Corrupt:
        return True
    except Denied:
        return False  # its id belongs to another user by now
    return head is not None and not head.dead and (head.tags.get("name"), head.tags.get("user")) == (name, user)


def _was_given(store: Storage, session: str, user: str | None, name: str) -> bool:
    """Whether a session has the name by the last word of its log, which may be ahead of what can be read: whoever wrote
    it was killed. A commit meets it, and this one is refused, as no name is empty.
    """
    probe = Commit(ref=session_ref(session), if_tags={"name": ""})
    with contextlib.suppress(Denied, Corrupt):
        store.batcher.commit(probe)
    return _carries(store, session, user, name)


def _process(store: Storage) -> str:
    process = store.turns.place.process()
    return f"{process.born} {process.pid} {process.place}"


def _may_be_used(store: Storage, claim: Head) -> bool:
    """Whether who made a claim may yet give the name to the session."""
    born, _, rest = claim.tags.get("process", "").partition(" ")
    pid, _, place = rest.partition(" ")
    here = store.turns.place
    if place and place == here.name() and here.gone(Process(place, int(pid), int(born))):
        return False
    return abs(now() - claim.at) <= GRACE


def release(store: Storage, user: str | None, name: str | None, session: str) -> None:
    """Give a name free that a session does not carry any more. It never fails: a claim that is left gives way."""
    if not name:
        return
    with contextlib.suppress(HoldfastError):  # what it follows was done, and must not look as if it were not
        there = store.backend.get([claim_ref(user, name)])[0]
        mine = there is not None and not there.dead and there.tags.get("session") == session
        if there is not None and mine and not _carries(store, session, user, name):
            store.batcher.commit(Commit(ref=there.ref, at=now(), if_rev=there.rev, delete=True))
