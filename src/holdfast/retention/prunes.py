"""The history of prunes, and the cooldown between them. Both stand in the store, so that every process sees them.

A prune is a head of its own kind: its policy in the body, what came of it in counters. Which sessions it moved, their
own tags tell, so nothing has to be kept in step. The cooldown is one head: who prunes now, and when a prune succeeded
last. It is noted at the end of one that succeeded, so one that failed, or was killed, does not use it up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from holdfast.errors import Conflict, NotFound
from holdfast.heads.info import body_of, created_at, encode_body, now
from holdfast.plan import Commit, Head, Ref, Refused, check_id
from holdfast.refusals import refusal
from holdfast.retention.policies import Policy, micros
from holdfast.storage import Storage
from holdfast.turns.places import Process

PRUNE = "prune"
"""The kind of head that a prune is."""
COOLDOWN = "cooldown"
"""The kind of head that a cooldown is: one for the whole store, and one for each user's view of it."""
ELSEWHERE = 86_400_000_000
"""Microseconds after which a prune that another machine began, and did not end, is taken for interrupted."""
TRIES = 200


class Prune(msgspec.Struct, frozen=True, kw_only=True):
    """A prune that was applied. Times are microseconds since 1970 UTC.

    `state`: applying, also if it was interrupted; applied; or undone, at `undone_at`. `moved`, `skipped` and `failed`
    count sessions, as far as it got; `bytes` is that of those it moved. `archive` is the file they were written to
    before.
    """

    id: str
    at: int
    policy: dict[str, Any]
    state: str
    moved: int = 0
    skipped: int = 0
    failed: int = 0
    bytes: int = 0
    archive: str | None = None
    undone_at: int | None = None


def history(store: Storage, limit: int) -> list[Prune]:
    """See `Store.prunes`."""
    return [_prune_of(head) for head in store.backend.find(PRUNE, {}, limit=limit)]


def prune(store: Storage, id: str) -> Prune:
    """One prune.

    Raises:
        NotFound: there is none with this id.
    """
    check_id(id, "prune")
    head = store.backend.get([Ref(PRUNE, id)])[0]
    if head is None or head.dead:
        raise NotFound(f"there is no prune {id!r}; the history of prunes has their ids", prune=id)
    return _prune_of(head)


def _prune_of(head: Head) -> Prune:
    body, counts, undone = body_of(head), head.counts, head.tags.get("undone")
    return Prune(
        id=head.ref.id,
        at=created_at(head),
        policy=body.get("policy", {}),
        state=head.tags.get("state", "applying"),
        moved=counts.get("moved", 0),
        skipped=counts.get("skipped", 0),
        failed=counts.get("failed", 0),
        bytes=counts.get("bytes", 0),
        archive=body.get("archive"),
        undone_at=None if undone is None else int(undone),
    )


def begin(store: Storage, id: str, policy: Policy, archive: str | None) -> None:
    """Note that a prune begins."""
    at = now()
    told = {name: value for name, value in msgspec.structs.asdict(policy).items() if value is not None}
    body = encode_body({"policy": told, "archive": archive})
    tags: dict[str, str | None] = {"state": "applying", "created": str(at), "user": policy.user}
    _committed(store, Commit(ref=Ref(PRUNE, id), at=at, if_rev=0, tags=tags, body=body))


def note(store: Storage, id: str, add: dict[str, int], *, done: bool = False) -> None:
    """Note what came of a part of a prune, or that it is done."""
    _committed(store, Commit(ref=Ref(PRUNE, id), add=add, tags={"state": "applied"} if done else None))


def note_undone(store: Storage, id: str) -> None:
    """Note that all that was left of a prune in the trash was restored."""
    _committed(store, Commit(ref=Ref(PRUNE, id), tags={"state": "undone", "undone": str(now())}))


def _committed(store: Storage, commit: Commit) -> None:
    result = store.batcher.commit(commit)
    if isinstance(result, Refused):
        raise refusal(result, commit)


def _cooldown(store: Storage) -> Ref:
    whose = "" if store.user is None else hashlib.sha256(store.user.encode()).hexdigest()
    return Ref(COOLDOWN, f"prune{whose}")


def claim(store: Storage, id: str, cooldown: float) -> float:
    """Take the right to prune now: 0, or the seconds until the cooldown is over.

    A clock that was set back does not make it longer: a success in the future is none.

    Raises:
        Conflict: another process prunes with a cooldown now.
    """
    for _ in range(TRIES):
        ref = _cooldown(store)
        head = store.backend.get([ref])[0]
        tags: Mapping[str, str] = {} if head is None else head.tags
        passed = now() - int(tags.get("done", "0"))
        if 0 <= passed < micros(cooldown):
            return (micros(cooldown) - passed) / 1e6
        holder = tags.get("prune")
        if holder is not None and not _is_over(store, tags):
            raise Conflict(f"prune {holder!r} is under way; wait for its end", prune=holder)
        process = store.turns.place.process()
        mine = {"prune": id, "since": str(now()), "process": f"{process.born} {process.pid} {process.place}"}
        commit = Commit(ref=ref, at=now(), if_rev=0 if head is None else head.rev, tags=mine)
        if isinstance(store.batcher.commit(commit), Head):
            return 0
    raise Conflict(f"others began a prune {TRIES} times meanwhile; try again")


def _is_over(store: Storage, tags: Mapping[str, str]) -> bool:
    """Whether the prune that holds the cooldown was surely interrupted."""
    place = store.turns.place
    born, _, rest = tags.get("process", "").partition(" ")
    pid, _, where = rest.partition(" ")
    if where and where == place.name():
        return place.gone(Process(where, int(pid), int(born)))
    return not 0 <= now() - int(tags.get("since", "0")) < ELSEWHERE


def release(store: Storage, id: str, *, succeeded: bool) -> None:
    """Give the right back; what succeeded begins the cooldown."""
    tags: dict[str, str | None] = dict.fromkeys(("prune", "since", "process"))
    if succeeded:
        tags["done"] = str(now())
    # Refused if it was taken for interrupted, and another one has it now.
    store.batcher.commit(Commit(ref=_cooldown(store), if_tags={"prune": id}, tags=tags))
