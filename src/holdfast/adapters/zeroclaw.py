"""zeroclaw's `SessionBackend` over a holdfast store: the trait of its version 0.6.9, with its names.

What the trait leaves to chance is settled: an error is raised and never looks like an empty session, keys are exact, a
change happens whole or not at all, and nothing is erased but by `delete_session` and `cleanup_stale`. docs/ORIGINS.md
tells, defect by defect, what is different.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime
from itertools import islice

import msgspec

from holdfast.adapters.kept import kept_sessions
from holdfast.clock import from_micros, now
from holdfast.errors import Conflict, Exists, Invalid, LeaseLost, NotFound
from holdfast.events.receipts import Receipt
from holdfast.formats.zeroclaw import PROGRAM, fitted, key_of, name_of_key
from holdfast.formats.zeroclaw_out import run_of, words_of
from holdfast.heads.info import SessionInfo, check_user
from holdfast.history import branching
from holdfast.model import Message, Text
from holdfast.plan import check_id
from holdfast.search import normalise
from holdfast.session import Session
from holdfast.store import Store
from holdfast.turns.leases import Lease
from holdfast.turns.recovery import Recovery

PAGE = 1000
SEARCHED = 50
"""Sessions that a search with a keyword answers with, at the most, where the query does not say."""
MAX_HOURS = 2**32 - 1


class ChatMessage(msgspec.Struct, frozen=True):
    """One message: the `role` is system, user, assistant, tool or any other word."""

    role: str
    content: str

    @classmethod
    def system(cls, content: str) -> ChatMessage:
        """What the model was told to be."""
        return cls("system", content)

    @classmethod
    def user(cls, content: str) -> ChatMessage:
        """What the user said."""
        return cls("user", content)

    @classmethod
    def assistant(cls, content: str) -> ChatMessage:
        """What the model said."""
        return cls("assistant", content)

    @classmethod
    def tool(cls, content: str) -> ChatMessage:
        """What a tool answered."""
        return cls("tool", content)


class SessionMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a session without its messages. Times are in UTC."""

    key: str
    name: str | None = None
    created_at: datetime
    last_activity: datetime
    message_count: int


class SessionQuery(msgspec.Struct, frozen=True):
    """What to look for: words, of which all must be there, and how many sessions at the most."""

    keyword: str | None = None
    limit: int | None = None


class SessionState(msgspec.Struct, frozen=True):
    """What a session is doing, in which turn, and since when that turn runs (or ran, if it ended in an error)."""

    state: str
    turn_id: str | None = None
    turn_started_at: datetime | None = None


class SessionBackend:
    """The sessions of one place in a store. Safe in threads; the store stays the caller's to close.

    Args:
        store: Where they are kept.
        place: What names this set of sessions; each has its own keys. `holdfast.formats.zeroclaw.place_of(path)` is the
            place of what was imported from there.
        user: Whose the sessions are that it creates.

    Every method raises what `Store` and `Session` raise, `Corrupt` for what can't be read among it, and `Invalid` for a
    place that can't be one.
    """

    def __init__(self, store: Store, place: str = "default", *, user: str | None = None) -> None:
        check_id(place, "place")
        if "/" in place:
            raise Invalid(f"the place {place!r} holds a slash, which ends it in the ids of its sessions", place=place)
        self.store = store
        self.place = place
        self._user = check_user(user)
        self._start = f"{PROGRAM}:{place}/"
        self._begun: dict[str, str] = {}  # the turns that were begun here, which end without being named
        self._lock = threading.Lock()

    def session_id(self, session_key: str) -> str:
        """The id of a key's session in the store."""
        return f"{PROGRAM}:{name_of_key(self.place, session_key)}"

    def session(self, session_key: str) -> Session | None:
        """The session itself, with all that holdfast keeps of it; None if it is not there."""
        return self.store.get(self.session_id(session_key))

    def load(self, session_key: str, *, last: int | None = None) -> list[ChatMessage]:
        """All messages of a session, or the newest so many; none if it is not there."""
        session = self.session(session_key)
        try:
            found = [] if session is None else session.messages(last=last)
        except NotFound:
            return []  # deleted meanwhile
        return [ChatMessage(message.role, words_of(message)) for message in found]

    def append(self, session_key: str, message: ChatMessage, *, key: str | None = None) -> Receipt:
        """Append a message; the session is created if it is not there. It is durable when this returns.

        Args:
            session_key: Whose it is.
            message: What was said.
            key: Idempotency key: a second call with it stores nothing.
        """
        said = Message(role=message.role, parts=(Text(content=message.content),))
        while True:
            try:
                return self._open(session_key).append(said, key=key)
            except NotFound:
                continue  # deleted between the two: then it is a new session

    def _open(self, session_key: str) -> Session:
        id = self.session_id(session_key)
        if (session := self.store.get(id)) is not None:
            return session
        metadata = {"zeroclaw_key": session_key} if fitted(session_key) != session_key else None
        try:
            return self.store.create(id, agent=PROGRAM, user=self._user, metadata=metadata)
        except Exists:
            return self._open(session_key)

    def remove_last(self, session_key: str) -> bool:
        """Take the last message back; whether there was one. It is hidden, and `session(…).undo()` shows it again."""
        session = self.session(session_key)
        return session is not None and session.remove_last() is not None

    def list_sessions(self, *, limit: int | None = None) -> list[str]:
        """The keys, those that were active last first; of all or of so many."""
        return [self._key(info) for info in islice(self._infos(), limit)]

    def list_sessions_with_metadata(self, *, limit: int | None = None) -> list[SessionMetadata]:
        """What is known of each session, those that were active last first; of all or of so many."""
        return [self._metadata(info) for info in islice(self._infos(), limit)]

    def _infos(self) -> Iterator[SessionInfo]:
        return kept_sessions(self.store, PROGRAM, self._start)

    def _key(self, info: SessionInfo) -> str:
        return key_of(info.id, info.metadata)

    def _metadata(self, info: SessionInfo) -> SessionMetadata:
        return SessionMetadata(
            key=self._key(info),
            name=info.name,
            created_at=from_micros(info.created_at),
            last_activity=from_micros(info.updated_at),
            message_count=info.counts.messages,
        )

    def compact(self, session_key: str) -> None:
        """Nothing to do: a log holds no half lines, and what is damaged in it is kept for who may mend it."""
        self.session_id(session_key)

    def cleanup_stale(self, ttl_hours: int) -> int:
        """Delete the sessions that were not active for so many hours; how many were deleted.

        Those that run, whose turn is held, or that a fork reads through are spared, and so is one that becomes active
        meanwhile.

        Raises:
            Invalid: the number is none from 0 to 2**32 - 1.
        """
        if not 0 <= ttl_hours <= MAX_HOURS:
            raise Invalid(f"ttl_hours is 0 to {MAX_HOURS:,}, not {ttl_hours}", ttl_hours=ttl_hours)
        cutoff = now() - ttl_hours * 3_600_000_000
        stale = [info.id for info in self._infos() if info.updated_at < cutoff]
        return sum(_deleted_if_stale(self.store, id, cutoff) for id in stale)

    def search(self, query: SessionQuery) -> list[SessionMetadata]:
        """The sessions with a message, or a key, in which all the words stand, the best match first; all without any.

        Raises:
            Invalid: the limit is negative, or the words are too many.
        """
        if query.limit is not None and query.limit < 0:
            raise Invalid(f"limit is a number of sessions, 0 or more, not {query.limit}", limit=query.limit)
        words = (query.keyword or "").split()
        if query.keyword is None:
            return self.list_sessions_with_metadata(limit=query.limit)
        limit = SEARCHED if query.limit is None else query.limit
        return list(islice(self._found(words), limit)) if words else []

    def _found(self, words: list[str]) -> Iterator[SessionMetadata]:
        seen: set[str] = set()
        # Each word stands for itself: what means something in the language of searches means nothing here.
        asked = " ".join('"' + word.replace('"', " ") + '"' for word in words)
        cursor: str | None = None
        while True:
            page = self.store.search(asked, agent=PROGRAM, limit=PAGE, cursor=cursor)
            for hit in page:
                if hit.session.startswith(self._start) and hit.session not in seen:
                    seen.add(hit.session)
                    if (session := self.store.get(hit.session)) is not None:
                        yield self._metadata(session.info())
            cursor = page.cursor
            if cursor is None:
                break
        wanted = normalise(" ".join(words)).split()
        for info in self._infos():
            if info.id not in seen and wanted and set(wanted) <= set(normalise(self._key(info)).split()):
                yield self._metadata(info)

    def delete_session(self, session_key: str) -> bool:
        """Delete a session with all its messages; whether there was one.

        Raises:
            Conflict: a fork reads its messages.
        """
        try:
            self.store.delete(self.session_id(session_key))
        except NotFound:
            return False
        return True

    def set_session_name(self, session_key: str, name: str) -> None:
        """Name a session; an empty name takes the name away.

        Raises:
            NotFound: there is no such session.
        """
        self._there(session_key).update(name=name or None)

    def get_session_name(self, session_key: str) -> str | None:
        """The name of a session; None if it has none or is not there."""
        session = self.session(session_key)
        return None if session is None else session.info().name

    def _there(self, session_key: str) -> Session:
        id = self.session_id(session_key)
        return Session(self.store, self.store.head(id))

    def set_session_state(self, session_key: str, state: str, turn_id: str | None = None) -> None:
        """Say what a session is doing: idle, running or error, or another state of holdfast.

        A turn that runs is ended by its own name. Without a name, the turn is meant that was begun through this object.

        Raises:
            NotFound: there is no such session.
            Invalid: no such state.
            LeaseHeld: another turn runs.
            LeaseLost: the turn that is named is over.
        """
        session = self._there(session_key)
        named = turn_id
        if state != "running" and turn_id is None:
            with self._lock:
                named = self._begun.get(session_key)
        try:
            session.set_state(state, turn=named)
        except LeaseLost:
            self._remember(session_key, None)
            raise
        self._remember(session_key, turn_id if state == "running" else None)

    def _remember(self, session_key: str, turn: str | None) -> None:
        with self._lock:
            if turn is None:
                self._begun.pop(session_key, None)
            else:
                self._begun[session_key] = turn

    def get_session_state(self, session_key: str) -> SessionState | None:
        """What a session is doing; None if it is not there."""
        session = self.session(session_key)
        if session is None:
            return None
        turn, begun = run_of(self.store, session.id)
        return SessionState(session.info().state, turn, None if begun is None else from_micros(begun))

    def list_running_sessions(self) -> list[SessionMetadata]:
        """The sessions that run, the latest begun first."""
        return self._of(self.store.running())

    def list_stuck_sessions(self, threshold_secs: int) -> list[SessionMetadata]:
        """The sessions that run and were silent for longer, or whose process has ended, the oldest first."""
        return self._of(self.store.stuck(older_than=threshold_secs))

    def recover_stuck_sessions(self, threshold_secs: int) -> list[Recovery]:
        """Close the runs that `list_stuck_sessions` finds; see `Store.recover`."""
        stuck = [lease.session for lease in self.store.stuck(older_than=threshold_secs)]
        mine = [id for id in stuck if id.startswith(self._start)]
        return self.store.recover(*mine, older_than=threshold_secs) if mine else []

    def _of(self, leases: list[Lease]) -> list[SessionMetadata]:
        mine = [self.store.get(lease.session) for lease in leases if lease.session.startswith(self._start)]
        return [self._metadata(session.info()) for session in mine if session is not None]


def _deleted_if_stale(store: Store, id: str, cutoff: int) -> bool:
    """Delete a session that is still stale, and that nobody runs or reads through; whether it was."""
    head = store.peek(id)
    if head is None or head.dead or head.at >= cutoff or head.tags.get("state") == "running" or "turn" in head.tags:
        return False
    try:
        branching.delete(store, id, rev=head.rev)
    except (Conflict, NotFound):
        return False
    return True
