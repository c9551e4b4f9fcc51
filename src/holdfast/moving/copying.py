"""Copying a whole store into another one, and reading back on both sides what was copied.

Sessions that are new to the target and small go together, many in a transaction, each as one commit; all others by
`copies.replay`. So what was interrupted at any moment is a copy of some sessions, of some of them a beginning, and the
same call goes on. Two threads copy at a time, each some sessions: while one waits for a store, the other packs and
compares. Invariant: a session counts as copied only once what was read back from the target is what the source holds:
to the byte as it stands packed, where both pack alike and it was just sent, else by a digest of what either holds.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import NamedTuple

import msgspec

from holdfast.copies import (
    BATCH,
    BATCH_BYTES,
    COPIED,
    STORE_ERRORS,
    Copied,
    Needed,
    blob,
    carried,
    check_owner,
    head_digest,
    own_tags,
    replay,
    revision,
    said,
    same_heads,
    unchanged,
)
from holdfast.documents.doccopies import copy_document
from holdfast.documents.docheads import all_documents, id_of, owner_of
from holdfast.errors import Corrupt, HoldfastError, NotFound, Stale, Unavailable
from holdfast.finding.listing import all_heads
from holdfast.heads.info import check_head
from holdfast.history.ancestry import FORKED, newest_edit, stored, whole
from holdfast.moving.deletions import living, ref_of
from holdfast.moving.digests import Tally, sound
from holdfast.packed import Packing, Span, handed_on, packed_entries
from holdfast.plan import MAX_TAGS, Commit, Entry, Head, Ref
from holdfast.storage import Storage

GROUP = 50
"""Sessions that are looked at, and may be committed, together. More take more memory, and no less time."""
GROUP_EVENTS = 5 * BATCH
"""Events above which a group is committed before it has `GROUP` sessions."""
ABREAST = 2
"""Threads that copy sessions. More would only wait for each other: one process packs and compares for all of them."""
TRIES = 20
"""How often a session or document is copied anew because it was changed meanwhile."""


class CopyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a copy came to: the sessions and documents that are equal in both stores now, the events of those sessions,
    how many events and documents were new, how many sessions and documents were deleted because they were in the
    source, and what could not be copied, with the error that says why.
    """

    sessions: int = 0
    documents: int = 0
    events: int = 0
    new: int = 0
    deleted: int = 0
    failed: tuple[Copied, ...] = ()

    def plus(self, one: Copied) -> CopyReport:
        """The report when one more was copied, or could not be."""
        if one.error is not None:
            return msgspec.structs.replace(self, failed=(*self.failed, one))
        if one.deleted:
            return msgspec.structs.replace(self, deleted=self.deleted + 1)
        return msgspec.structs.replace(
            self,
            sessions=self.sessions + (not one.document),
            documents=self.documents + bool(one.document),
            events=self.events + one.events,
            new=self.new + one.new,
        )


class _Part(NamedTuple):
    """What a thread copied, and what ended it if it was not the end."""

    done: Sequence[Copied]
    error: BaseException | None = None

    def told(self) -> Iterator[Copied]:
        yield from self.done
        if self.error is not None:
            raise self.error


def _parts(heads: Sequence[Head]) -> Iterator[list[Head]]:
    """Sessions that one thread copies, and are told of together."""
    part, events = list[Head](), 0
    for head in heads:
        part.append(head)
        events += head.last - max(head.base, head.trim)
        if len(part) == GROUP or events >= GROUP_EVENTS:
            yield part
            part, events = [], 0
    if part:
        yield part


def copy_store(
    source: Storage,
    target: Storage,
    *,
    sessions: Sequence[str] | None = None,
    told: Callable[[Copied], None] | None = None,
) -> CopyReport:
    """Copy all sessions and documents from one store to another, exactly, and verify each session by its digest.

    Again it copies what is new, and whatever was interrupted goes on. What went its own way in the target is a
    Conflict and stays as it is. Tombstones, the trash, the history of prunes, checkpoints and leases stay behind.

    Args:
        source, target: Two open stores, of any kinds.
        sessions: Only these, and no documents.
        told: Is called with each session and document when it is done.

    Raises:
        Unavailable, Uncertain, ReadOnly: one of the stores can't go on; the same call goes on where it ended.
    """
    report = CopyReport()
    for one in Copier(source, target).all() if sessions is None else Copier(source, target).named(sessions):
        report = report.plus(one)
        if told is not None:
            told(one)
    return report


class _Known(NamedTuple):
    """How far a session was copied: its tally on either side, and what must be the same for them to go on."""

    ours: Tally
    theirs: Tally
    start: int
    edit: int


class _New(NamedTuple):
    """A session that is new to the target, the one commit that makes it, and the blobs that its entries need."""

    source: Head
    seen: Head
    start: int
    digest: str
    commit: Commit
    blobs: Sequence[Needed]


@contextlib.contextmanager
def _in_target() -> Generator[None]:
    """Say of damage that it is in the target."""
    try:
        yield
    except Corrupt as error:
        raise Corrupt(f"in the target store: {error.message}", **{**error.facts, "where": "target"}) from error


class Copier:
    """Copies sessions and documents from one store to another.

    Args:
        source, target: The stores.
        trashed: Whether sessions in the source's trash go along, into the target's.
        remember: Of how many sessions to remember how far they were read, so that only what is new is read next time.
    """

    def __init__(self, source: Storage, target: Storage, *, trashed: bool = False, remember: int = 0) -> None:
        self._source = source
        self._target = target
        self._trashed = trashed
        self._remember = remember
        here, there = source.backend, target.backend
        self._packs = (here, there) if isinstance(here, Packing) and isinstance(there, Packing) else None
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._lock = threading.Lock()
        self._ended = False

    def all(self, *, changed: bool = False) -> Generator[Copied]:
        """Copy everything. With `changed`, sessions whose heads say the same in both stores are passed over, unread.

        Who takes no deletions over is not told of what was deleted, or put into the trash, meanwhile.
        """
        for one in self._all(changed):
            if self._trashed or not isinstance(one.error, NotFound) or living(self._source, ref_of(one)):
                yield one

    def _all(self, changed: bool) -> Generator[Copied]:
        yield from self._sessions(trashed=False, changed=changed)
        if self._trashed:
            yield from self._sessions(trashed=True, changed=changed)
        for ref, _ in all_documents(self._source):
            yield self.document(ref)

    def named(self, ids: Sequence[str]) -> Iterator[Copied]:
        """Copy these sessions."""
        for id in ids:
            yield self.session(id)

    def document(self, ref: Ref) -> Copied:
        """Copy a document; again if that failed and it was changed meanwhile."""
        copied, seen = Copied(document=id_of(ref), user=owner_of(ref)), -1
        for _ in range(TRIES):
            try:
                return copy_document(self._source, self._target, ref)
            except STORE_ERRORS:
                raise
            except HoldfastError as error:
                copied = msgspec.structs.replace(copied, error=error)
            if seen == (seen := revision(self._source, ref)):
                break
        return copied

    def session(self, id: str) -> Copied:
        """Copy a session, or what is new of it, and compare the digests.

        Again if that failed and it was changed, or says something else now: another copy of that may have come first.
        """
        copied, new, edited = Copied(session=id), 0, False
        for _ in range(TRIES):
            head, edited = None, False
            try:
                head = self._source.head(id, trashed=self._trashed)
                copied = self._session(head)
                new += copied.new
                now = self._source.peek(id)
                # A copy shows what its head says; what was hidden since came along by chance, and is yet to be said.
                if now is None or now.dead or said(now) == said(head):
                    break
                edited = newest_edit(now) != newest_edit(head)
            except STORE_ERRORS:
                raise
            except HoldfastError as error:
                same = isinstance(error, Corrupt) and str(error) == str(copied.error)  # it is damaged, and stays so
                copied = Copied(session=id, error=error)
                if same or not (isinstance(error, Stale) or (head and revision(self._source, head.ref) != head.rev)):
                    break
        if not self._remember:
            self._known.pop(id, None)
        if edited:
            why = f"events of session {id!r} were hidden and shown during {TRIES} copies of it"
            return Copied(session=id, error=Stale(why, session=id))
        return copied if copied.error else msgspec.structs.replace(copied, new=new)

    def _session(self, head: Head) -> Copied:
        seen = whole(self._source, head)
        start = max(seen.base, seen.trim)
        known = self._known.pop(head.ref.id, None)
        if known is None or (known.start, known.edit) != (start, newest_edit(head)) or known.ours.seq > head.last:
            known = _Known(Tally(), Tally(), start, newest_edit(head))
        ours, theirs, after = known.ours.copy(), known.theirs.copy(), max(start, known.ours.seq)
        copied = replay(self._target, seen, self._tallied(head, ours, after), after=after)
        there = unchanged(seen, self._target.backend.get([head.ref])[0], head_digest(seen))
        self._read_back(there, theirs, after)
        self._compare(seen, ours, there, theirs)
        with self._lock:
            self._known[head.ref.id] = _Known(ours, theirs, start, known.edit)
            while len(self._known) > max(self._remember, ABREAST):
                self._known.popitem(last=False)
        return copied

    def _tallied(self, head: Head, tally: Tally, after: int) -> Iterator[Entry]:
        for entry in carried(self._source, self._target, head, self._stored(head, after)):
            tally.take(entry)
            yield entry

    def _stored(self, head: Head, after: int) -> Iterator[Entry]:
        """A session's entries in the source, with bodies as they stand packed if the target can keep them so."""
        if self._packs is None or FORKED in head.tags:
            entries = stored(self._source, head, after)
        else:
            entries = handed_on(self._packs[0], head, after)
        for entry in entries:
            if self._ended:
                raise Unavailable("the copy was ended; the same call goes on", session=head.ref.id)
            yield entry

    def _read_back(self, there: Head, tally: Tally, after: int) -> None:
        with _in_target():
            for entry in sound(self._target, there, after):
                tally.take(entry)

    def _compare(self, seen: Head, ours: Tally, there: Head, theirs: Tally) -> None:
        source, target = ours.of(seen), theirs.of(whole(self._target, there))  # it may be a fork there, too
        if source != target:
            raise Corrupt(
                f"session {seen.ref.id!r} is another one in the target store than what was copied: its digest is "
                f"{target[:16]}… there and {source[:16]}… in the source; check both stores",
                session=seen.ref.id,
                where="target",
                source=source,
                target=target,
            )

    def _sessions(self, *, trashed: bool, changed: bool) -> Iterator[Copied]:
        from concurrent.futures import Future, ThreadPoolExecutor  # slow to import, and few programs copy

        def copied(part: Sequence[Head]) -> _Part:
            done = list[Copied]()
            try:
                done.extend(self._group(part, changed=changed))
            except BaseException as error:  # noqa: BLE001  # raised by `told`, behind what was done before
                return _Part(done, error)
            return _Part(done)

        running: deque[Future[_Part]] = deque()
        try:
            with ThreadPoolExecutor(ABREAST, thread_name_prefix="holdfast-copy") as threads:
                try:
                    for page in all_heads(self._source.backend, trashed=trashed):
                        for part in _parts(page):
                            running.append(threads.submit(copied, part))
                            if len(running) > ABREAST:
                                yield from running.popleft().result().told()
                        for ref in page.damaged:
                            yield self.session(ref.id)
                    while running:
                        yield from running.popleft().result().told()
                finally:  # nobody waits any more for what still runs
                    self._ended = bool(running)
                    threads.shutdown(wait=False, cancel_futures=True)
        finally:
            self._ended = False

    def _group(self, heads: Sequence[Head], *, changed: bool) -> Iterator[Copied]:
        try:
            theres = self._target.backend.get([head.ref for head in heads])
        except Corrupt:  # one of them; each alone says which
            yield from self.named([head.ref.id for head in heads])
            return
        fresh = [head for head, there in zip(heads, theres, strict=True) if there is None]
        others = [(head, there) for head, there in zip(heads, theres, strict=True) if there is not None]
        while fresh:
            yield from self._together(fresh)
        for head, there in others:
            if not (changed and same_heads(whole(self._source, head), there)):
                yield self.session(head.ref.id)

    def _together(self, fresh: list[Head]) -> Iterator[Copied]:
        """Take from the sessions that are new, and make as many in one go as a transaction should hold."""
        group, done = list[_New](), list[Copied]()
        events = size = 0
        # The blobs must be held until the commit that needs them, so nothing is yielded in between.
        with self._target.large.hold:
            while fresh and events < GROUP_EVENTS and size < BATCH_BYTES:
                new = self._at_once(fresh.pop())
                if isinstance(new, Copied):
                    done.append(new)
                else:
                    group.append(new)
                    events += len(new.commit.append)
                    size += sum(len(entry.body) for entry in new.commit.append)
            made = self._target.batcher.commit_all([new.commit for new in group], sums=False)
        yield from done
        refs = [new.commit.ref for new in group]
        try:
            nows, theres = self._source.backend.get(refs), self._target.backend.get(refs)
        except Corrupt:  # one of them; each alone says which
            yield from self.named([ref.id for ref in refs])
            return
        equal = self._equal(group)
        for new, result, now, there in zip(group, made, nows, theres, strict=True):
            # Whatever was in the way, the long way says it, or goes on with what another copy began.
            id = new.commit.ref.id
            yield self._verified(new, now, there, id in equal) if isinstance(result, Head) else self.session(id)

    def _at_once(self, head: Head) -> _New | Copied:
        """How to make a session in one commit; or what became of it, as that was not to be."""
        id = head.ref.id
        try:
            seen = whole(self._source, head)
            start = max(seen.base, seen.trim)
            tags = own_tags(seen)
            if seen.last - start > GROUP_EVENTS or len(tags) >= MAX_TAGS or seen.counts.get("bytes", 0) > BATCH_BYTES:
                return self.session(id)
            check_head(seen)
            check_owner(self._target, seen)
            entries, blobs, size = list[Entry](), list[Needed](), 0
            for entry in carried(self._source, self._target, head, self._stored(head, start), blobs):
                entries.append(entry)
                size += len(entry.body)
                if size > 2 * BATCH_BYTES:
                    return self.session(id)
            if [entry.seq for entry in entries] != list(range(start + 1, seen.last + 1)):
                return self.session(id)
        except STORE_ERRORS:
            raise
        except HoldfastError as error:
            return Copied(session=id, error=error) if revision(self._source, head.ref) == head.rev else self.session(id)
        digest = head_digest(seen)
        commit = Commit(
            ref=head.ref, at=seen.at, if_rev=0, base=start, tags={**tags, COPIED: digest},
            add={name: count for name, count in seen.counts.items() if count} or None, body=seen.body, append=entries,
        )  # fmt: skip
        return _New(head, seen, start, digest, commit, blobs)

    def _equal(self, group: Sequence[_New]) -> set[str]:
        """Read a group's entries back as they stand packed: the sessions where they are to the byte what was sent."""
        if self._packs is None:
            return set()
        sent = [(new, entries) for new in group if (entries := packed_entries(new.commit.append)) is not None]
        found = self._packs[1].packed([Span(new.commit.ref, new.start, new.seen.last) for new, _ in sent])
        return {new.commit.ref.id for (new, entries), theirs in zip(sent, found, strict=True) if entries == theirs}

    def _verified(self, new: _New, now: Head | None, there: Head | None, equal: bool) -> Copied:
        """What became of a session that was made at once; `now` and `there` are what it is in both stores since.

        `equal` says that its entries were read back, and are what was sent.
        """
        id, count = new.commit.ref.id, len(new.commit.append)
        remembered = self._remember > len(self._known)
        try:
            if now is not None and not now.dead and said(now) != said(new.source):
                return self._grown(id, count)
            there = unchanged(new.seen, there, new.digest)
            ours = Tally()
            if remembered or not equal:
                for entry in new.commit.append:
                    ours.take(entry)
            theirs = ours.copy()
            if equal and max(there.base, there.trim) == new.start:
                with _in_target():
                    for entry, digest in new.blobs:
                        blob(self._target, there, entry, digest)
            else:
                theirs = Tally()
                self._read_back(there, theirs, 0)
                self._compare(new.seen, ours, there, theirs)
        except STORE_ERRORS:
            raise
        except HoldfastError as error:
            return Copied(session=id, error=error) if now and now.rev == new.source.rev else self._grown(id, count)
        if remembered:
            self._known[id] = _Known(ours, theirs, new.start, newest_edit(new.source))
        return Copied(session=id, events=count, new=count)

    def _grown(self, id: str, new: int) -> Copied:
        copied = self.session(id)
        return copied if copied.error else msgspec.structs.replace(copied, new=copied.new + new)
