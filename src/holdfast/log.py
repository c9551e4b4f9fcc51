"""The log of a session: appended to at its end, and read in order of seq.

Every append is one commit. It needs no read before it: the counters and the title travel in the same commit, and a
retry is recognised by its key. What is prepared and what an answer means is worked out here in plain functions, so that
the synchronous and the asynchronous session differ only in how they wait.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Literal, TypeAlias

from holdfast import codec
from holdfast.errors import Corrupt, Deleted, Invalid, TooLarge
from holdfast.events.keys import check_key
from holdfast.events.naming import named
from holdfast.events.receipts import Receipt, again, ids_of
from holdfast.events.redact import masked
from holdfast.heads.info import BYTES, UNSPLIT, SessionInfo, Tally, created_at, info_of, now
from holdfast.history import ancestry
from holdfast.model import AnyPayload, Damaged, Event, Message
from holdfast.plan import MAX_COUNT, MAX_ENTRIES, Commit, Entry, Head, Refused
from holdfast.refusals import refusal
from holdfast.storage import Storage

PAGE = 500
"""Events fetched at a time."""
TRIES = 200
"""How often an append starts over when others store artifacts at the same time."""
POLL = 1.0
"""Seconds after which a follower looks again although nobody woke it."""

Appendable: TypeAlias = AnyPayload | Event
OnDamage: TypeAlias = Literal["raise", "keep"]


class Log:
    """The log of one session of an open store, and what is known of its head."""

    def __init__(self, store: Storage, head: Head, fence: Mapping[str, str | None] | None = None) -> None:
        self._store = store
        self._head = head
        self._fence = fence  # the tags that every write expects: a turn's token
        self.id = head.ref.id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} at {self._head.last}>"

    @property
    def last(self) -> int:
        """The seq of the newest event that this object knows of; `info()` asks the store."""
        return self._head.last

    def info(self) -> SessionInfo:
        """The session's head as it is now.

        Raises:
            NotFound, Deleted: it is not there any more.
        """
        self._head = self._store.head(self.id)
        return info_of(self._head)

    def counted(self, counter: str) -> int:
        """One of the head's counters as it is now, in the trash, too."""
        self._head = self._store.head(self.id, trashed=True)
        return self._head.counts.get(counter, 0)

    def append(self, *events: Appendable, key: str | None = None, expect: int | None = None) -> Receipt:
        """Store events at the end of the log, all or none.

        Args:
            *events: Payloads such as `user("Hi")`, or `Event`s to give a time or an id of one's own.
            key: Idempotency key of the whole batch: a second call with it stores nothing and answers the same.
            expect: The seq that must be the newest; 0 for an empty log.

        Raises:
            Invalid, TooLarge: an event can't be stored.
            Stale: `expect` is not the newest seq; `last` on the error is.
            KeyReused: the key was used for other events.
            NotFound, Deleted: the session is not there.
        """
        with self._store.large.hold:
            return self.stored(self.prepare(events, key, expect), key)

    def stored(self, commit: Commit, key: str | None, *, entries: int = MAX_ENTRIES) -> Receipt:
        """What became of an append's commit, which is made now; `entries` is how many it may have."""
        if self.asks_first(commit) and ancestry.with_ids(self._store, self._head, ids_of(commit)):
            # Its parents' part of the log never changes: no commit need tell.
            return self.receipt(commit, Refused("known", self._head), key, entries=entries)
        return self.receipt(commit, self._store.batcher.commit(commit, entries=entries), key, entries=entries)

    def asks_first(self, commit: Commit) -> bool:
        """Whether an append must look whether the log that this one goes on from, which never changes, has its ids."""
        return ancestry.FORKED in self._head.tags and any(entry.id for entry in commit.append)

    def prepare(self, events: Sequence[Appendable], key: str | None, expect: int | None) -> Commit:
        """The commit that an append makes."""
        if not events:
            raise Invalid("append needs at least one event")
        if key is not None:
            check_key(key)
        if expect is not None and expect < 0:
            raise Invalid(f"expect is a seq, 0 or more, not {expect}", expect=expect)
        head, at = self._head, now()
        latest = 0  # an event may be older than 1970, a last activity not
        entries: list[Entry] = []
        # To tell that a struct is not of another kind takes long, so the kind that most are of is asked for first.
        payloads = [
            event if type(event) is Message else event.payload if isinstance(event, Event) else event
            for event in events
        ]
        ids = named(head, events, payloads, key) or repeat("")
        size = 0
        for event, payload, id in zip(events, payloads, ids):  # noqa: B905  # where there are no ids, "" has no end
            if event is not payload and isinstance(event, Event):
                entry = self._entry(event, payload, at, id)
            else:
                entry = Entry(id, at, self._body(payload))
            entries.append(entry)
            size += len(entry.body)
            if entry.at > latest:
                latest = entry.at
        tally = Tally(payloads, titled="title" in head.tags)
        tally.add[BYTES] = size
        if "calls" in tally.add and min(entry.at for entry in entries) < min(at, created_at(head)):
            tally.tags = {**(tally.tags or {}), UNSPLIT: "1"}
        return Commit(
            ref=head.ref,
            at=latest,
            if_last=expect,
            if_tags=self._fence,
            append=entries,
            add=tally.add,
            tags=tally.tags,
            defaults=tally.defaults,
        )

    def _entry(self, event: Event, payload: AnyPayload, at: int, id: str) -> Entry:
        id = id or event.id or ""
        if not event.raw:
            check_key(event.id)
            return Entry(id, event.at or at, self._body(payload))
        if isinstance(event.payload, Damaged):
            raise Invalid(f"event {event.seq} is damaged ({event.payload.reason}) and can't be appended", seq=event.seq)
        if len(event.raw) > codec.MAX_BODY:
            raise TooLarge(f"the event takes {len(event.raw):,} bytes, the limit is {codec.MAX_BODY:,}")
        # Read from a store: its bytes say more than the decoded view, so they go on as they are.
        for value in codec.larges(event.payload):
            with value.open() as stream:
                self._store.large.put(stream, value.form)
        return Entry(id, event.at or at, event.raw)

    def _body(self, payload: AnyPayload) -> bytes:
        secrets = self._store.secrets
        return codec.encode(masked(payload, secrets) if secrets else payload, self._store.large)

    def receipt(
        self, commit: Commit, result: Head | Refused, key: str | None, *, entries: int = MAX_ENTRIES
    ) -> Receipt:
        """What the answer to an append's commit means."""
        tries = 0
        while isinstance(result, Refused):
            if result.why != "known" or tries == TRIES:
                raise refusal(result, commit)
            tries += 1
            told = again(self._store, self._head, commit, key)
            if isinstance(told, Receipt):
                return told
            commit, result = told, self._store.batcher.commit(told, entries=entries)
        self._head = result
        count = len(commit.append)
        # Others may have appended behind us in the same transaction, but a result is the head as of this commit.
        return Receipt(self.id, result.last - count + 1, result.last, self._store.durability)

    def events(
        self,
        *,
        after: int = 0,
        before: int | None = None,
        last: int | None = None,
        types: Collection[str] | str | None = None,
        reverse: bool = False,
        include_hidden: bool = False,
        damaged: OnDamage = "raise",
    ) -> Iterator[Event]:
        """The events in order of seq, fetched page by page as they are asked for.

        Args:
            after, before: Only those with `after < seq < before`.
            last: Only the newest so many (of the types asked for).
            types: Only events of this type or these types.
            reverse: Newest first.
            include_hidden: With those that were taken back.
            damaged: `raise` stops at an event that can't be trusted; `keep` yields it with a `Damaged` payload.

        Raises:
            Corrupt: an event is damaged; the error names it.
            NotFound, Deleted: the session is not there.
        """
        _check_last(last)
        wanted = {types} if isinstance(types, str) else None if types is None else set(types)
        after = min(max(after, 0), MAX_COUNT)
        upto = None if before is None else min(max(before - 1, 0), MAX_COUNT)
        if last is not None:
            newest = self._newest(last, after, upto, wanted, include_hidden, damaged)
            return newest if reverse else iter(list(newest)[::-1])
        return self._all(after, upto, wanted, reverse, include_hidden, damaged)

    def _all(
        self,
        after: int,
        upto: int | None,
        wanted: set[str] | None,
        reverse: bool,
        include_hidden: bool,
        damaged: OnDamage,
    ) -> Iterator[Event]:
        for entries in self._pages(after, upto, PAGE, reverse, include_hidden, damaged):
            for entry in entries:
                event = self.decode(entry, damaged)
                if wanted is None or event.type in wanted:
                    yield event

    def _newest(
        self, count: int, after: int, upto: int | None, wanted: set[str] | None, include_hidden: bool, damaged: OnDamage
    ) -> Iterator[Event]:
        """The newest so many of the types that are wanted, newest first."""
        if count == 0:
            return
        # Of few events, usually most are of the types asked for: begin with as many, then take whole pages.
        for entries in self._pages(after, upto, min(count, PAGE), True, include_hidden, damaged):
            for entry in entries:
                event = self.decode(entry, damaged)
                if wanted is None or event.type in wanted:
                    yield event
                    count -= 1
                    if count == 0:
                        return

    def _pages(
        self, after: int, upto: int | None, limit: int, reverse: bool, include_hidden: bool, damaged: OnDamage
    ) -> Iterator[Sequence[Entry]]:
        """The log, some entries at a time; `limit` is the size of the first page."""
        first_page = True
        while True:
            entries = ancestry.read(
                self._store, self._head, after=after, upto=upto, limit=limit, reverse=reverse, voided=include_hidden
            )
            if len(entries) < limit and not (first_page and entries):
                self._check_there(damaged)
            first_page = False
            yield entries
            if len(entries) < limit:
                return
            after, upto = (after, entries[-1].seq - 1) if reverse else (entries[-1].seq, upto)
            limit = PAGE

    def _check_there(self, damaged: OnDamage) -> None:
        """The end of a log and the end of its session are not the same."""
        try:
            self._store.head(self.id, trashed=True)  # whose log can be read, as before it was put there
        except Corrupt:
            if damaged == "raise":
                raise

    def decode(self, entry: Entry, damaged: OnDamage) -> Event:
        """An entry as an event."""
        payload: AnyPayload
        try:
            payload = self._payload(entry)
        except Corrupt as error:
            if damaged == "raise":
                raise
            payload = Damaged(str(error.reason), entry.body)
        return Event(
            payload=payload, seq=entry.seq, at=entry.at, id=entry.id or None, hidden=entry.void, raw=entry.body
        )

    def _payload(self, entry: Entry) -> AnyPayload:
        if entry.fault:
            raise self._damaged(entry, entry.fault)
        try:
            return codec.decode(entry.body, self._store.large)
        except Corrupt as error:
            raise self._damaged(entry, error.message) from error

    def _damaged(self, entry: Entry, reason: str) -> Corrupt:
        return Corrupt(
            f"event {entry.seq} of session {self.id!r} is damaged: {reason}; "
            "its bytes are kept, and what follows can be read by keeping what is damaged",
            session=self.id,
            seq=entry.seq,
            reason=reason,
        )

    def messages(self, *, last: int | None = None) -> list[Message]:
        """The conversation: every message that was not taken back, or the newest so many.

        Raises:
            Corrupt: an event is damaged; the error names it.
            NotFound, Deleted: the session is not there.
        """
        _check_last(last)
        # Without an event around each payload: this is what a program does first when it resumes.
        found: list[Message] = []
        size = PAGE if last is None else min(last, PAGE)
        decode, large = codec.decode, self._store.large
        for entries in self._pages(0, None, size, last is not None, False, "raise") if last != 0 else ():
            for entry in entries:
                if entry.fault:
                    raise self._damaged(entry, entry.fault)
                try:
                    payload = decode(entry.body, large)
                except Corrupt as error:
                    raise self._damaged(entry, error.message) from error
                if type(payload) is Message:
                    found.append(payload)
                    if len(found) == last:
                        return found[::-1]
        return found if last is None else found[::-1]

    def tail(
        self, *, after: int | None = None, last: int = 10, follow: bool = True, stop: threading.Event | None = None
    ) -> Iterator[Event]:
        """The newest events, and with `follow` every later one as it comes, from any process.

        Args:
            after: Start behind this seq instead of at the newest `last`.
            follow: Go on waiting; ends when the session is deleted or `stop` is set.
        """
        position = self.before_last(last) if after is None else after
        woken = threading.Event()
        quit_listening = self._store.backend.listen(woken.set) if follow else None
        try:
            while True:
                woken.clear()
                for event in self.events(after=position, damaged="keep"):
                    position = event.seq
                    yield event
                if not follow or (stop is not None and stop.is_set()):
                    return
                woken.wait(POLL)
        except Deleted:
            return
        finally:
            if quit_listening is not None:
                quit_listening()

    def before_last(self, last: int) -> int:
        """The seq behind which the newest `last` events stand that were not taken back."""
        newest = list(self.events(last=last, damaged="keep"))
        return newest[0].seq - 1 if newest else self.info().last


def _check_last(last: int | None) -> None:
    if last is not None and last < 0:
        raise Invalid(f"last is a number of events, 0 or more, not {last}", last=last)
