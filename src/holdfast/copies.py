"""Copies: the replay that makes a session from its head and entries, or completes one that has a beginning of them.

Invariant: the copy's log is a beginning of the original's, always, and its head is as a replay left it, which a tag of
it tells. So an interrupted copy is resumed by the same call, a finished one is left as it is, and one that went its own
way is a Conflict.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from holdfast import codec
from holdfast.errors import Conflict, Corrupt, HoldfastError, ReadOnly, Stale, Trashed, Unavailable, Uncertain
from holdfast.heads.info import COPYING, EDIT, check_head, created_at, said_by_appends
from holdfast.history import branching
from holdfast.history.ancestry import FORKED, stored, whole
from holdfast.history.branching import MARK, pins
from holdfast.plan import MAX_HEAD_TAGS, MAX_TAGS, TRASHED, Commit, Entry, Head, Range, Ref, Refused, plan
from holdfast.refusals import denied, insisted, refusal
from holdfast.storage import Storage

BATCH = 1000
"""Entries committed together."""
BATCH_BYTES = 4 * 1024 * 1024
"""Bytes of bodies above which a commit is made before it has `BATCH` entries."""
COPIED = "copied"
"""Tag of a copy's head: the digest of that head as the last replay left it. Never copied itself."""
_GONE = b'{"type":"note"}'
"""Stands for an event that is gone, until it is forgotten."""
STORE_ERRORS = (Unavailable, Uncertain, ReadOnly)
"""What is wrong with a store, not with one session: the next session would fare no better."""


class Copied(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one session: its events, how many of them were new here, or the error that stopped it.

    Or of one document, of `user` or of nobody: then `new` is 1 if it was stored, 0 if it was there like this.
    `deleted` says that it was deleted, as it was in the source.
    """

    session: str = ""
    document: str = ""
    user: str | None = None
    events: int = 0
    new: int = 0
    deleted: bool = False
    error: HoldfastError | None = None


class Needed(NamedTuple):
    """A blob that an entry needs."""

    entry: Entry
    digest: str


def needed(store: Storage, head: Head, entry: Entry) -> list[str]:
    """The digests of the blobs that an entry needs.

    Raises:
        Corrupt: the entry, or a list of its chunks, is damaged.
    """
    if entry.fault:
        raise Corrupt(f"event {entry.seq} of session {head.ref.id!r} is damaged: {entry.fault}", seq=entry.seq)
    body = entry.body
    if b'"large"' not in body and (b"\\" not in body or b"\\u00" not in body):
        return []  # a letter of the key may be escaped
    try:
        values = codec.larges(codec.decode(entry.body, store.large))
    except Corrupt:
        return []  # its bytes are as they were written; what nobody can decode names no blob
    try:
        return [digest for value in values if value.ref for digest in store.large.digests(value.ref)]
    except Corrupt as error:
        raise Corrupt(f"event {entry.seq} of session {head.ref.id!r}: {error.message}", seq=entry.seq) from error


def blob(store: Storage, head: Head, entry: Entry, digest: str) -> bytes:
    """A blob that an entry needs.

    Raises:
        Corrupt: it is damaged or missing.
    """
    data = store.backend.blobs.get(digest)
    if data is None:
        raise Corrupt(f"event {entry.seq} of session {head.ref.id!r} lacks its blob {digest}", seq=entry.seq)
    return data


def copy_session(source: Storage, target: Storage, id: str) -> Copied:
    """Make or complete a copy of a session in another store, equal in ids, numbers, times, fields and large values.

    The copy of a fork is whole: what it reads through its parents is its own there. `moving.copying` copies many, and
    reads back what it copied.

    Raises:
        NotFound, Deleted: the source has no such session, or the target had one that was deleted.
        Conflict: the target's session is not a copy of this one, or was changed after it was copied.
        Corrupt: something of it is damaged; `check` names it. What comes before it was copied.
    """
    head = source.head(id)
    return replay(target, whole(source, head), carried(source, target, head, stored(source, head)))


def carried(
    source: Storage, target: Storage, head: Head, entries: Iterable[Entry], put: list[Needed] | None = None
) -> Iterator[Entry]:
    """A session's entries, each after the blobs it needs were copied, which are noted in `put`.

    Raises:
        Corrupt: one of them is damaged, or lacks a blob.
    """
    for entry in entries:
        for digest in needed(source, head, entry):
            target.large.put_blob(digest, blob(source, head, entry, digest))
            if put is not None:
                put.append(Needed(entry, digest))
        yield entry


def check_owner(store: Storage, head: Head) -> None:
    """Refuse what does not belong to the user that the store is open for.

    Raises:
        Denied: it belongs to another one, or to nobody.
    """
    if store.user is not None and head.tags.get("user") != store.user:
        raise denied(head.ref)


def replay(store: Storage, head: Head, entries: Iterator[Entry], *, after: int = 0) -> Copied:
    """Make a session with this head and these entries, or complete one that has a beginning of them.

    Args:
        after: The entries begin behind this one. The session has all up to it, and none of those was hidden since.

    Raises:
        Conflict: there is one with other entries, or one that was changed later.
        Stale: it does not have all up to `after` any more.
        Deleted: there was one.
        Denied: the store is open for another user.
        Corrupt: an entry is missing, or the head says what none can say.
    """
    check_head(head)
    check_owner(store, head)
    with store.large.hold:
        return _replay(store, head, entries, after)


def _replay(store: Storage, head: Head, entries: Iterator[Entry], after: int) -> Copied:
    start = max(head.base, head.trim)
    if (away := store.backend.get([head.ref])[0]) is not None and away.trashed and same_heads(away, head):
        for _ in entries:
            pass  # who gives them may want to have said all
        return Copied(session=head.ref.id, events=head.last - start)
    there = insisted(lambda: _target(store, head, start))
    if there.last < after:
        raise Stale(f"session {head.ref.id!r} was at event {after} and is at {there.last} there; copy it anew")
    after = max(start, after)
    here = stored(store, there, after=after)
    known = there.last
    ranges: list[Range] = []
    batch: list[Entry] = []
    size = 0
    expected = after
    for entry in entries:
        expected += 1
        if entry.seq != expected:
            raise Corrupt(f"event {expected} of session {head.ref.id!r} is missing", session=head.ref.id, seq=expected)
        if entry.seq <= there.last:
            ranges += _difference(head, next(here, None), entry, is_copy=COPIED in there.tags)
            continue
        batch.append(entry)
        size += len(entry.body)
        if len(batch) == BATCH or size >= BATCH_BYTES:
            there, batch, size = _appended(store, there, head, batch, ranges), [], 0
            here = stored(store, there, after=expected)
    if batch:
        there = _appended(store, there, head, batch, ranges)
    if there.last != head.last:
        raise Corrupt(f"events {expected + 1} to {head.last} of session {head.ref.id!r} are missing")
    _finished(store, there, head, ranges)
    return Copied(session=head.ref.id, events=head.last - start, new=head.last - known)


def _appended(store: Storage, there: Head, head: Head, batch: list[Entry], ranges: list[Range]) -> Head:
    """Append a batch, or what of it is not there: another copy may come first, also one that was killed amid it."""

    def append() -> Head:
        nonlocal there, batch
        try:
            return _append(store, there, batch) if batch else there
        except (Stale, Trashed):
            now = _copied_meanwhile(store, there, head)
            for entry, old in zip(batch, stored(store, now, after=there.last), strict=False):
                ranges.extend(_difference(head, old, entry, is_copy=True))
            there, batch = now, batch[now.last - there.last :]
            raise

    return insisted(append)


def _finished(store: Storage, there: Head, head: Head, ranges: list[Range]) -> None:
    """Make the head equal, or leave it as another copy that came first has made it."""

    def finish() -> None:
        nonlocal there
        try:
            _finish(store, there, head, ranges)
        except (Stale, Trashed):
            there = _copied_meanwhile(store, there, head)
            raise

    insisted(finish)


def _copied_meanwhile(store: Storage, there: Head, head: Head) -> Head:
    """The head there, as another copy of the same session left it.

    Raises:
        Conflict: something else changed it; or that copy is of a later state, or of what began anew under the id.
        Trashed: somebody put it into the trash.
    """
    now = store.backend.get([head.ref])[0]
    if now is not None and now.trashed and not same_heads(head, now):
        raise refusal(Refused("trashed", now), Commit(ref=head.ref))
    if now is None or now.dead or head_digest(now) not in (now.tags.get(COPIED), head_digest(head)):
        raise _diverged(head, "it was changed there during the copy")
    if (now.base, now.tags.get("created")) != (there.base, head.tags.get("created")):
        raise _diverged(head, "it was begun anew there during the copy")
    if now.last > head.last or now.at > head.at:
        raise _later(head, now)
    return now


def _target(store: Storage, head: Head, start: int) -> Head:
    """The head to replay onto, created if it is not there."""
    there = store.backend.get([head.ref])[0]
    # What was trimmed can't come along: the copy's log begins behind it, with the same numbers.
    # Whose it is stands there from the first: an interrupted copy must not be open to everybody.
    tags = {name: head.tags[name] for name in ("created", "user") if name in head.tags}
    begin = Commit(ref=head.ref, at=created_at(head), if_rev=0, tags=tags)
    if there is not None and not there.dead and _is_of_old(head, there):
        branching.delete(store, head.ref.id, rev=there.rev, at=there.at)
        there = store.backend.get([head.ref])[0]
    if there is None:
        return changed(store, None, msgspec.structs.replace(begin, base=start))
    if there.dead:
        if not _is_later(head, there):
            raise refusal(Refused("deleted", there), Commit(ref=head.ref))
        return _level(store, changed(store, there, msgspec.structs.replace(begin, if_rev=there.rev)), start)
    if there.trashed and not same_heads(head, there):
        there = _brought_back(store, there)
    if there.tags.get("user") != head.tags.get("user"):
        raise _diverged(head, "it belongs to another user")
    if whole(store, there).base > start or there.last > head.last or there.at > head.at:
        raise _later(head, there)
    # Unchanged since a replay left it, equal already, or what the session to be copied was once copied from.
    known = head_digest(there) in (there.tags.get(COPIED), head_digest(head), head.tags.get(COPIED))
    if not known and not _lags(there, head):
        raise _diverged(head, "what is said about it there was changed, or never came from here")
    return _level(store, there, start)


def _is_of_old(head: Head, there: Head) -> bool:
    """Whether a session is an untouched copy of one that the source has deleted since, before it began anew."""
    if there.trashed or there.tags.get("created") == head.tags.get("created"):
        return False
    return there.tags.get(COPIED) == head_digest(there) and _is_later(head, there)


def _is_later(head: Head, dead: Head) -> bool:
    """Whether a session was begun anew after the one was deleted that left a tombstone: its numbers go on behind that
    one's. Where that had none, the times tell.
    """
    return head.base >= dead.last and (dead.last > 0 or created_at(head) >= dead.at)


def _level(store: Storage, there: Head, start: int) -> Head:
    """Let a log that ends before `start` go on behind it, as what stood between is gone in the source."""
    if max(there.base, there.trim) >= start or there.last > start:
        return there
    while there.last < start:
        there = _append(store, there, [Entry("", there.at, _GONE)] * min(BATCH, start - there.last))
    return changed(store, there, Commit(ref=there.ref, if_rev=there.rev, trim=start))


def _brought_back(store: Storage, there: Head) -> Head:
    """Take a copy out of the trash that came there as one; the source may have it back."""
    if there.tags.get(COPIED) != head_digest(there):
        raise refusal(Refused("trashed", there), Commit(ref=there.ref))
    fence = {TRASHED: there.tags[TRASHED]}
    return changed(store, there, Commit(ref=there.ref, if_rev=there.rev, if_tags=fence, tags={TRASHED: None}))


def _lags(there: Head, head: Head) -> bool:
    """Whether a session that no tag tells to be a copy says all that the other one does, but for later events.

    So does a copy that was made before there was that tag. If its events are the same too, nothing that anybody said
    there can be lost when it goes on.
    """
    first, second = (
        {name: value for name, value in own_tags(h).items() if not said_by_appends(name)} for h in (there, head)
    )
    return COPIED not in there.tags and first == second and there.body == head.body


def own_tags(head: Head) -> dict[str, str]:
    """The head's tags without those that only mean something where it is: a copy's digest, and what ties forks."""
    tied = {COPIED, COPYING, FORKED, MARK, *pins(head)}
    return {name: value for name, value in head.tags.items() if name not in tied}


def head_digest(head: Head) -> str:
    """What tells a head from any other one, whatever its log."""
    counts = sorted((name, count) for name, count in head.counts.items() if count)
    told = msgspec.json.encode([sorted(own_tags(head).items()), counts, head.at, head.body])
    return hashlib.sha256(told).hexdigest()


def said(head: Head) -> tuple[object, ...]:
    """What a head says besides what comes with more events: somebody changed it if that is another one now."""
    tags = {name: value for name, value in own_tags(head).items() if name == EDIT or not said_by_appends(name)}
    return tags, head.body, max(head.base, head.trim)


def same_heads(head: Head, there: Head) -> bool:
    """Whether two heads say the same, of sessions whose logs are then equal, too, if one is a copy of the other."""
    return not there.dead and there.last == head.last and head_digest(there) == head_digest(head)


def unchanged(seen: Head, there: Head | None, digest: str) -> Head:
    """The head of a copy, which was just made equal to this one with this digest.

    Raises:
        Conflict: it was changed since.
    """
    if there is None or there.dead or there.last != seen.last or head_digest(there) != digest:
        raise Conflict(
            f"session {seen.ref.id!r} was changed in the target store while it was copied", session=seen.ref.id
        )
    return there


def revision(store: Storage, ref: Ref) -> int:
    """The revision of a head; 0 for none, or for one that can't be told."""
    try:
        head = store.backend.get([ref])[0]
    except Corrupt:
        return 0
    return 0 if head is None else head.rev


def _difference(head: Head, old: Entry | None, new: Entry, *, is_copy: bool) -> list[Range]:
    """What is to be hidden or shown so that an entry that is there is as it should be."""
    if old is not None and old.fault:
        raise Corrupt(
            f"event {old.seq} of session {head.ref.id!r} is damaged in the target store: {old.fault}",
            session=head.ref.id,
            seq=old.seq,
            where="target",
        )
    if old is None or (old.seq, old.id, old.at, old.body) != (new.seq, new.id, new.at, new.body):
        raise _diverged(head, f"event {new.seq} is another one here")
    if old.void and not new.void and not is_copy:
        raise _diverged(head, f"event {new.seq} was taken back there")
    return [Range(new.seq, new.seq, new.void)] if old.void != new.void else []


def _diverged(head: Head, why: str) -> Conflict:
    return Conflict(
        f"session {head.ref.id!r} is in the target store and went its own way: {why}; nothing was overwritten",
        session=head.ref.id,
    )


def _later(head: Head, there: Head) -> Conflict:
    return _diverged(head, f"it is at event {there.last} and was active later than what is to be copied")


def _append(store: Storage, there: Head, batch: list[Entry]) -> Head:
    full = len(there.tags) >= MAX_HEAD_TAGS  # there is no room to say it; forks meanwhile would count wrong
    tags = None if full or COPYING in there.tags else {COPYING: "1"}
    return _committed(store, Commit(ref=there.ref, if_rev=there.rev, append=batch, tags=tags))


def _finish(store: Storage, there: Head, head: Head, ranges: list[Range]) -> None:
    """Make the head equal, in one commit; none if it is."""
    if there.trashed:
        return  # another copy came first with the same, and nothing is changed in the trash
    wanted, found = own_tags(head), own_tags(there)
    # The counters come right in the first commit, so it is the first to say that the copy's log is there.
    tags: dict[str, str | None] = {COPYING: None} if COPYING in there.tags else {}
    tags |= {name: None for name in found if name not in wanted}
    tags |= {name: value for name, value in wanted.items() if found.get(name) != value and name != TRASHED}
    if TRASHED in wanted:
        tags[TRASHED] = wanted[TRASHED]  # the last: nothing is changed in the trash
    while len(tags) >= MAX_TAGS:
        part = {name: tags.pop(name) for name in list(tags)[: MAX_TAGS - 1]}
        add = _lacking(head, there)
        there = changed(store, there, Commit(ref=head.ref, if_rev=there.rev, tags=part, add=add or None))
    add = _lacking(head, there)
    body = head.body if head.body != there.body else None
    trim = head.trim if head.trim > max(there.trim, there.base) else None
    if tags or add or body is not None or trim is not None or ranges or there.at < head.at:
        commit = Commit(
            ref=head.ref, at=head.at, if_rev=there.rev, tags=tags, add=add or None, body=body, void=ranges, trim=trim
        )
        changed(store, there, commit)


def _lacking(head: Head, there: Head) -> dict[str, int]:
    """What the counters there lack."""
    names = {*head.counts, *there.counts}
    return {n: more for n in names if (more := head.counts.get(n, 0) - there.counts.get(n, 0))}


def changed(store: Storage, there: Head | None, commit: Commit) -> Head:
    """Commit a change of the head together with the digest of what it makes of it."""
    bare = msgspec.structs.replace(commit, tags={**(commit.tags or {}), COPIED: None})
    planned = plan(there, (), bare)
    if isinstance(planned, Refused):
        raise refusal(planned, commit)
    if len(planned.head.tags) == MAX_HEAD_TAGS:
        return _committed(store, bare)  # there is no room for one more: it lags behind, or is told as equal
    tags = {**(commit.tags or {}), COPIED: head_digest(planned.head)}
    return _committed(store, msgspec.structs.replace(commit, tags=tags))


def _committed(store: Storage, commit: Commit) -> Head:
    result = store.batcher.commit(commit, sums=False)  # its counters come in the end
    if isinstance(result, Refused):
        raise refusal(result, commit)
    return result
