"""The trash: sessions that are put away and can be restored until they are purged.

A session in it is left out of lists, searches and names, and refuses every write, whoever it is; its log can still be
read. Invariant: a purge deletes no session that any other one, living or in the trash, reads through.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import msgspec

from holdfast.artifacts.sweeping import Swept, sweep
from holdfast.errors import Conflict, Corrupt, HoldfastError, Invalid, NotFound, Stale, Trashed
from holdfast.finding.pages import Page, check_limit, cursor_of, position_of
from holdfast.finding.references import got, one
from holdfast.heads import names
from holdfast.heads.info import BYTES, SESSION, SessionInfo, filter_tags, info_of, now, session_ref
from holdfast.history.ancestry import FORKED
from holdfast.history.branching import any_fork, pinned
from holdfast.history.checkpoints import forget
from holdfast.plan import TRASHED, Commit, Head, Refused, check_id
from holdfast.refusals import refusal
from holdfast.retention import prunes
from holdfast.retention.policies import Spared, check_seconds, in_batches, micros
from holdfast.retention.putting import PRUNED, WHY, away, back, check_free
from holdfast.retention.retention import trashed_heads
from holdfast.session import Session
from holdfast.storage import Storage

TRIES = 200
BATCH = 100
"""Sessions that one transaction purges at the most."""


class TrashedSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session in the trash: since when, in microseconds since 1970 UTC, why, and by which prune, if one did it.

    `bytes` is that of `Chosen.bytes`; 0 if only reading its events could tell.
    """

    session: SessionInfo
    trashed_at: int
    why: str = ""
    prune: str | None = None
    bytes: int = 0


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What an undo really did: the sessions that are back, and those that could not be restored, each with why."""

    restored: tuple[str, ...] = ()
    failed: tuple[Spared, ...] = ()


class Purged(msgspec.Struct, frozen=True, kw_only=True):
    """What a purge really did: the sessions that are gone for good, those it spared, and those that failed.

    `blobs` is how many large values, or chunks of them, nobody needed any more. `left` says why bytes of them may still
    stand in the store's files, "" if none do: `Store.compact` and `Store.check(sweep=True)` try it again.
    """

    purged: tuple[str, ...] = ()
    spared: tuple[Spared, ...] = ()
    failed: tuple[Spared, ...] = ()
    blobs: int = 0
    left: str = ""


class Trash:
    """The trash of an open store. Cheap to hold; may be used from any thread."""

    def __init__(self, store: Storage) -> None:
        self._store = store

    def list(
        self, *, user: str | None = None, prune: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[TrashedSession]:
        """The sessions in the trash, those that were active last first; `damaged` names those that can't be trusted.

        Args:
            user, prune: Only this user's, only those that this prune put there.
            limit: Items on the page, up to 10,000.
            cursor: Where the page before ended.
        """
        check_limit(limit)
        tags = filter_tags(user=user)
        if prune is not None:
            check_id(prune, "prune")
            tags[PRUNED] = prune
        heads = self._store.backend.find(SESSION, tags, after=position_of(cursor), limit=limit + 1, trashed=True)
        found: list[TrashedSession] = []
        damaged = [ref.id for ref in heads.damaged]
        for head in heads[:limit]:
            try:
                found.append(_told(head))
            except Corrupt:
                damaged.append(head.ref.id)
        last = heads[limit - 1] if len(heads) > limit else None
        return Page(found, None if last is None else cursor_of([last.at, last.ref.id]), damaged)

    def get(self, id: str | None = None, *, name: str | None = None) -> Session | None:
        """The session with this id or name if it is in the trash, to be read: whatever would write to it is refused.

        Its events, artifacts, context, tasks and reports can be read; what is known of it, `list` tells.

        Raises:
            Invalid: neither is given, or both; or several sessions in the trash are called so.
        """
        head = got(self._store, id, name, keep=False, trashed=True)
        return Session(self._store, head) if head is not None and head.trashed else None

    def put(self, id: str | None = None, *, name: str | None = None, why: str = "by hand") -> None:
        """Move the session with this id or name to the trash, whatever its labels.

        Raises:
            LeaseHeld: a turn holds it.
            Conflict: it is running, or a fork reads its events, or is about to.
            Invalid, TooLarge: the reason can't be stored; or it can't be told which session is meant.
            NotFound, Deleted, Trashed: it is not there.
        """
        for _ in range(TRIES):
            head = one(self._store, id, name)
            check_free(self._store, head)
            commit = away(head, now(), why, None, self._store.large)
            result = self._store.batcher.commit(commit)
            if isinstance(result, Head):
                return
            if result.why != "rev":
                raise refusal(result, commit)
        raise Stale(f"session {id or name!r} changed {TRIES} times while it was to be put away; try again", session=id)

    def restore(self, id: str | None = None, *, name: str | None = None) -> Session:
        """Bring the session with this id or name back as it was, and the parents that it reads through, if they are in
        the trash, too.

        Raises:
            NotFound, Deleted: there is none, or it was purged.
            Conflict: it is not in the trash.
            Invalid: neither is given, or both; or several sessions in the trash are called so.
        """
        head = one(self._store, id, name, trashed=True)
        if not head.trashed:
            raise Conflict(f"session {head.ref.id!r} is not in the trash", session=head.ref.id)
        return Session(self._store, self._restored(head))

    def _restored(self, head: Head) -> Head:
        """Restore a session behind its ancestors; the head of it."""
        for _ in range(TRIES):
            lineage = [head]
            while lineage[-1].trashed and (parent := lineage[-1].tags.get(FORKED)) is not None:
                lineage.append(self._store.head(parent, trashed=True))
            try:
                return self._restored_in(lineage)
            except Trashed:  # one above it was put away again meanwhile
                head = self._store.head(head.ref.id, trashed=True)
        raise Stale(f"parents of session {head.ref.id!r} were put away {TRIES} times meanwhile; try again")

    def _restored_in(self, lineage: Sequence[Head]) -> Head:
        above: Head | None = None
        for head in reversed(lineage):
            if head.trashed:
                hold = contextlib.nullcontext() if above is None else pinned(self._store, above, head.ref.id)
                with hold:
                    above = self._brought_back(head)
            else:
                above = head
        return cast("Head", above)

    def _brought_back(self, head: Head) -> Head:
        commit = back(head, now(), self._store.large)
        result = self._store.batcher.commit(commit)
        if isinstance(result, Head):
            return result
        if result.why != "rev" or result.head is None or result.head.trashed:
            raise refusal(result, commit)
        return result.head  # another call restored it

    def undo(self, prune: str) -> Restored:
        """Restore all that a prune put into the trash and is still there; also of one that was interrupted.

        Raises:
            NotFound: there is no such prune.
        """
        prunes.prune(self._store, prune)
        restored: list[str] = []
        failed: list[Spared] = []
        after: tuple[int, str] | None = None
        while heads := self._store.backend.find(SESSION, {PRUNED: prune}, after=after, limit=1000, trashed=True):
            for head in heads:
                try:
                    self._restored(head)
                    restored.append(head.ref.id)
                except HoldfastError as error:
                    failed.append(Spared(session=head.ref.id, why=error.message))
            after = heads[-1].at, heads[-1].ref.id
        if not failed:
            prunes.note_undone(self._store, prune)
        return Restored(restored=tuple(restored), failed=tuple(failed))

    def purge(self, *sessions: str, older_than: float | None = None) -> Purged:
        """Delete sessions in the trash for good: no byte of them is left, and no late writer brings them back.

        A session that a fork reads through stays until that one is gone. In the end the space is given back, which
        takes as long as copying the store; see `Store.compact`.

        Args:
            *sessions: Only these; one that is not in the trash fails.
            older_than: Only those that are there for more than so many seconds; 0 for all.

        Raises:
            Invalid: neither is given, or `older_than` is negative or no number.
        """
        check_seconds(older_than, "older_than")
        if not sessions and older_than is None:
            raise Invalid("say which sessions to purge, or how old: older_than=0 purges all that is in the trash")
        for id in sessions:
            check_id(id, "session id")
        purge = _Purge(self._store)
        purge.take(sessions, older_than)
        purge.run()
        return purge.finish()


class _Purge:
    """One purge under way."""

    def __init__(self, store: Storage) -> None:
        self._store = store
        self._todo: dict[str, Commit] = {}
        self._tags: dict[str, Mapping[str, str]] = {}
        self._heads: dict[str, Head | None] = {}
        self._purged: list[str] = []
        self._spared: list[Spared] = []
        self._failed: list[Spared] = []

    def take(self, sessions: Sequence[str], older_than: float | None) -> None:
        """Look for what is to be purged."""
        before = None if older_than is None else now() - micros(older_than)
        for head, id in self._named(sessions) if sessions else trashed_heads(self._store):
            tags = self._tags_left(id) if head is None else head.tags
            if tags is None or (before is not None and trashed_at(tags) >= before):
                continue
            rev = None if head is None else head.rev
            self._tags[id], self._heads[id] = tags, head
            self._todo[id] = Commit(
                ref=session_ref(id), at=now(), if_rev=rev, if_tags={TRASHED: tags[TRASHED]}, delete=True
            )

    def _named(self, sessions: Sequence[str]) -> Iterator[tuple[Head | None, str]]:
        for id in dict.fromkeys(sessions):
            try:
                head = self._store.head(id, trashed=True)
            except NotFound as error:
                self._failed.append(Spared(session=id, why=error.message))
            except Corrupt:
                yield None, id
            else:
                if head.trashed:
                    yield head, id
                else:
                    self._failed.append(Spared(session=id, why="it is not in the trash; delete it, or put it there"))

    def _tags_left(self, id: str) -> dict[str, str] | None:
        """What is left of the tags of a damaged head: a refusal comes with it. None if it is not in the trash."""
        probe = Commit(ref=session_ref(id), if_tags={TRASHED: ""}, delete=True)
        result = self._store.batcher.commit(probe)
        left = result.head if isinstance(result, Refused) else None
        if left is None or not left.trashed:
            self._failed.append(Spared(session=id, why="its head is damaged, and does not say that it is in the trash"))
            return None
        return dict(left.tags)

    def run(self) -> None:
        """Delete, forks before their parents: as long as any of them can be."""
        held: dict[str, str] = {}
        left = 0
        while len(self._todo) != left:
            left = len(self._todo)
            held.clear()
            for batch in in_batches(list(self._todo), BATCH):
                ready = [id for id in batch if not self._is_held(id, held)]
                self._delete(ready)
        self._spared += [Spared(session=id, why=f"its fork {held[id]!r} reads its events") for id in self._todo]

    def _is_held(self, id: str, held: dict[str, str]) -> bool:
        # Nobody forks what is in the trash, so no fork comes after this look.
        fork = any_fork(self._store, id)
        if fork is not None:
            held[id] = fork
        return fork is not None

    def _delete(self, ids: Sequence[str]) -> None:
        commits = [self._todo.pop(id) for id in ids]
        for id, commit, result in zip(ids, commits, self._store.batcher.commit_all(commits), strict=True):
            if isinstance(result, Head):
                self._purged.append(id)
                names.release(self._store, self._tags[id].get("user"), self._tags[id].get("name"), id)
                forget(self._store, id, self._heads[id])
            elif isinstance(result, Refused) and result.why in ("rev", "tags", "deleted"):
                self._spared.append(Spared(session=id, why="it was restored or purged meanwhile"))
            else:
                error = refusal(result, commit) if isinstance(result, Refused) else result
                self._failed.append(Spared(session=id, why=error.message))

    def finish(self) -> Purged:
        """Give the space back, if there is any, and delete the large values that nothing else needs."""
        left: list[str] = []
        swept: Swept | None = None
        if self._purged:
            try:
                swept = sweep(self._store)
                left += swept.unread
            except HoldfastError as error:
                left.append(error.message)
            try:
                self._store.backend.compact()
            except HoldfastError as error:
                left.append(error.message)
        return Purged(
            purged=tuple(self._purged),
            spared=tuple(self._spared),
            failed=tuple(self._failed),
            blobs=swept.deleted if swept else 0,
            left="; ".join(dict.fromkeys(left)),
        )


def _told(head: Head) -> TrashedSession:
    return TrashedSession(
        session=info_of(head),
        trashed_at=trashed_at(head.tags),
        why=head.tags.get(WHY, ""),
        prune=head.tags.get(PRUNED),
        bytes=head.counts.get(BYTES, 0),
    )


def trashed_at(tags: Mapping[str, str]) -> int:
    """When a session was put away; 0 if its tag does not say a time."""
    told = tags.get(TRASHED, "")
    return int(told) if told.isdecimal() and told.isascii() else 0
