"""Pruning: a plan that changes nothing, and its application, which looks at each session again before it moves it.

Invariant: a session is moved only as the plan saw it. Its commit states the revision that was planned, so whoever
touched it since, in any process, has it spared. What is reported as moved was moved.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from holdfast.errors import Corrupt, HoldfastError, ReadOnly, Unavailable, Uncertain
from holdfast.finding.listing import all_heads
from holdfast.heads.info import BYTES, new_id, now, session_ref
from holdfast.history.ancestry import FORKED
from holdfast.plan import Commit, Head, Refused
from holdfast.refusals import refusal
from holdfast.retention import prunes
from holdfast.retention.archives import write_archive
from holdfast.retention.policies import Candidate, Chosen, Policy, Spared, choose, in_batches
from holdfast.retention.putting import PRUNED, away, check_free, forked, forking, running
from holdfast.storage import Storage

PAGE = 1000
UNKNOWN = -1
"""Bytes of a session whose head does not say how many it has."""
STORE_ERRORS = (Unavailable, ReadOnly)
"""What is wrong with the store, not with one session: the next one would fare no better."""


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What an application really did: `moved` are the sessions that are in the trash now, and `bytes` is theirs.

    `skipped` were left as they are, mostly as somebody touched them since the plan; `failed` could not be moved.
    `prune` names it for an undo; None if nothing was tried: there was nothing to move, or the cooldown goes on for
    `wait` seconds. `archive` is the file that was written before. `stopped` says why it was not carried to its end, ""
    if it was.
    """

    prune: str | None = None
    moved: tuple[str, ...] = ()
    bytes: int = 0
    skipped: tuple[Spared, ...] = ()
    failed: tuple[Spared, ...] = ()
    archive: str | None = None
    wait: float = 0
    stopped: str = ""


class PrunePlan:
    """What a prune would do: `chosen` would go to the trash, `spared` is beyond a limit and stays, each with why.

    `at` is when it was made, in microseconds since 1970 UTC; `sessions` is how many were looked at, `matched` how many
    of them the policy is about, and `bytes` what the chosen take, in the sense of `Chosen.bytes`. `damaged` has the ids
    of those whose heads can't be trusted: no prune touches them.
    """

    def __init__(
        self,
        store: Storage,
        policy: Policy,
        at: int,
        counted: tuple[int, int],
        chosen: Sequence[Chosen],
        spared: Sequence[Spared],
        damaged: Sequence[str],
    ) -> None:
        self._store = store
        self.policy = policy
        self.at = at
        self.sessions, self.matched = counted
        self.chosen = tuple(chosen)
        self.spared = tuple(spared)
        self.damaged = tuple(damaged)
        self.bytes = sum(one.bytes for one in chosen)

    def __repr__(self) -> str:
        return f"<PrunePlan: {len(self.chosen):,} of {self.sessions:,} sessions, {len(self.spared):,} spared>"

    def apply(self, *, archive: str | os.PathLike[str] | None = None) -> Pruned:
        """Move what was chosen to the trash, as far as nobody touched it since; each session by a commit of its own.

        One that fails stops no other, and is named. If the store itself fails, the rest is named as not tried. The same
        plan may be applied again: what was moved is skipped.

        Args:
            archive: A new file. Everything is written there first, as a bundle, synced and read back. What is not whole
                in it is not moved.

        Raises:
            Conflict: another process prunes with a cooldown now.
            Exists: there is a file for the archive already.
            Unavailable, Corrupt: the archive, or the note of this prune, could not be written; nothing was moved.
        """
        if not self.chosen:
            return Pruned()
        id = new_id()
        if not self.policy.cooldown:
            return _apply(self, self._store, id, archive)
        wait = prunes.claim(self._store, id, self.policy.cooldown)
        if wait:
            return Pruned(wait=wait)
        succeeded = False
        try:
            done = _apply(self, self._store, id, archive)
            succeeded = not (done.failed or done.stopped)
            return done
        finally:
            prunes.release(self._store, id, succeeded=succeeded)


def plan_prune(store: Storage, policy: Policy) -> PrunePlan:
    """See `Store.prune`."""
    at, tags = now(), policy.tags()
    found: list[Candidate] = []
    parents: dict[str, str] = {}
    damaged: dict[str, None] = {}
    sessions = matched = 0
    for heads in all_heads(store.backend):
        sessions += len(heads)
        damaged.update((ref.id, None) for ref in heads.damaged)
        for head in heads:
            if FORKED in head.tags:
                parents[head.tags[FORKED]] = head.ref.id
            if all(head.tags.get(name) == value for name, value in tags.items()):
                matched += 1
                if policy.may_take(head.at, at):
                    found.append(_candidate(store, policy, head))
    chosen, spared = choose(policy, (_unless_forked(one, parents) for one in found), at)
    chosen = [one if one.bytes >= 0 else _measured(store, one) for one in chosen]
    return PrunePlan(store, policy, at, (sessions, matched), chosen, spared, list(damaged))


def plan_of(store: Storage, sessions: Sequence[str], why: str) -> PrunePlan:
    """A plan that takes these sessions, whatever their names and labels; applied, it is a prune like any other.

    Raises:
        LeaseHeld, Conflict: one is running, or a fork reads its events, or is about to.
        NotFound, Deleted, Trashed: one is not there.
    """
    at = now()
    chosen: list[Chosen] = []
    for id in dict.fromkeys(sessions):
        head = store.head(id)
        check_free(store, head)
        size = size_of(store, head)
        chosen.append(Chosen(session=id, why=why, bytes=size, rev=head.rev, updated_at=head.at))
    return PrunePlan(store, Policy(), at, (len(chosen), len(chosen)), chosen, (), ())


def _candidate(store: Storage, policy: Policy, head: Head) -> Candidate:
    spared = running(head) or forking(store, head) or policy.spares(head.tags)
    size = head.counts.get(BYTES, UNKNOWN)
    if size == UNKNOWN and policy.max_bytes is not None:
        size = size_of(store, head)
    return Candidate(head.at, head.ref.id, head.rev, size, spared)


def _unless_forked(one: Candidate, parents: Mapping[str, str]) -> Candidate:
    if one.spared or one.id not in parents:
        return one
    return msgspec.structs.replace(one, spared=f"its fork {parents[one.id]!r} reads its events")


def _measured(store: Storage, one: Chosen) -> Chosen:
    head = store.backend.get([session_ref(one.session)])[0]
    return msgspec.structs.replace(one, bytes=0 if head is None else size_of(store, head))


def size_of(store: Storage, head: Head) -> int:
    """Bytes of the bodies of a session's own events: as its head says, or, of one written by 0.1, by reading them."""
    if BYTES in head.counts:
        return head.counts[BYTES]
    total, after = 0, max(head.base, head.trim)
    while after < head.last:
        entries = store.backend.read(head.ref, after=after, upto=head.last, limit=PAGE, voided=True)
        if not entries:
            break
        total += sum(len(entry.body) for entry in entries)
        after = entries[-1].seq
    return total


def _apply(plan: PrunePlan, store: Storage, id: str, archive: str | os.PathLike[str] | None) -> Pruned:
    path = None if archive is None else os.fspath(archive)
    lost: Mapping[str, str] = {}
    if path is not None:
        lost = write_archive(store, path, [one.session for one in plan.chosen])
    prunes.begin(store, id, plan.policy, path)
    moved: list[Chosen] = []
    skipped: list[Spared] = []
    failed = [Spared(session=s, why=f"it is not whole in the archive: {why}") for s, why in lost.items()]
    stopped = ""
    todo = [one for one in plan.chosen if one.session not in lost]
    try:
        for batch in in_batches(todo, plan.policy.batch):
            before = len(moved), len(skipped), len(failed)
            _move(store, id, batch, moved, skipped, failed)
            _note(store, id, moved[before[0] :], len(skipped) - before[1], len(failed) - before[2])
        prunes.note(store, id, {"failed": len(lost)} if lost else {}, done=True)
    except STORE_ERRORS as error:
        stopped = error.message
        told = {one.session for one in (*moved, *skipped, *failed)}
        rest = [one.session for one in todo if one.session not in told]
        failed += [Spared(session=s, why=f"it was not moved, as the store failed: {stopped}") for s in rest]
    return Pruned(
        prune=id,
        moved=tuple(one.session for one in moved),
        bytes=sum(one.bytes for one in moved),
        skipped=tuple(skipped),
        failed=tuple(failed),
        archive=path,
        stopped=stopped,
    )


def _note(store: Storage, id: str, moved: Sequence[Chosen], skipped: int, failed: int) -> None:
    add = {"moved": len(moved), "bytes": sum(one.bytes for one in moved), "skipped": skipped, "failed": failed}
    prunes.note(store, id, {name: count for name, count in add.items() if count})


def _move(
    store: Storage, id: str, batch: Sequence[Chosen], moved: list[Chosen], skipped: list[Spared], failed: list[Spared]
) -> None:
    """Move one batch, and tell of each of its sessions what became of it."""
    ready: list[tuple[Chosen, Commit]] = []
    for one in batch:
        try:
            head = store.backend.get([session_ref(one.session)])[0]
            if why := _changed(store, one, head):
                skipped.append(Spared(session=one.session, why=why))
            elif head is not None:
                ready.append((one, away(head, now(), one.why, id, store.large)))
        except Corrupt as error:
            failed.append(Spared(session=one.session, why=error.message))
    results = store.batcher.commit_all([commit for _, commit in ready])
    unavailable: HoldfastError | None = None
    for (one, commit), result in zip(ready, results, strict=True):
        if isinstance(result, STORE_ERRORS):
            unavailable = result
        elif isinstance(result, Head) or (isinstance(result, Uncertain) and _is_moved(store, id, one.session)):
            moved.append(one)
        elif isinstance(result, Refused) and result.why in ("rev", "deleted", "trashed", "missing"):
            why = "it was touched since" if result.why == "rev" else refusal(result, commit).message
            skipped.append(Spared(session=one.session, why=why))
        else:
            error = refusal(result, commit) if isinstance(result, Refused) else result
            failed.append(Spared(session=one.session, why=error.message))
    if unavailable is not None:
        raise unavailable


def _changed(store: Storage, one: Chosen, head: Head | None) -> str:
    """Why a session is not moved any more; "" if it is as the plan saw it."""
    if head is None or head.dead:
        return "it was deleted since"
    if head.trashed:
        return "it is in the trash already"
    if head.rev != one.rev:
        return running(head) or "it was touched since"
    # Its head was looked at before: a fork that is made from now on changes it, which fails the move.
    return forking(store, head) or forked(store, one.session)


def _is_moved(store: Storage, id: str, session: str) -> bool:
    """Whether a move whose answer was lost was made."""
    head = store.backend.get([session_ref(session)])[0]
    return head is not None and head.tags.get(PRUNED) == id


def trashed_heads(store: Storage) -> Iterator[tuple[Head | None, str]]:
    """All sessions in the trash and their ids; no head where it can't be trusted."""
    met: set[str] = set()
    for heads in all_heads(store.backend, trashed=True):
        yield from ((None, ref.id) for ref in heads.damaged if ref.id not in met)
        met.update(ref.id for ref in heads.damaged)
        yield from ((head, head.ref.id) for head in heads)
