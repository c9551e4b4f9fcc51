"""A lease: who holds a session's turn, as tags of the session's head, and when it is free for another.

`turn` is the fencing token, `lease_owner` a name for people, `lease_ttl` microseconds, `lease_process` where the holder
runs, and `lease_beat` what each heartbeat changes: the holder's wall clock, for people, and its monotonic clock, for
who runs at the same place. From anywhere else a lease is free once its heartbeat was seen to stand still for the ttl.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

import msgspec

from holdfast.clock import rfc3339
from holdfast.errors import LeaseHeld
from holdfast.plan import Head
from holdfast.turns.places import Place, Process

Standing = Literal["held", "expired", "gone", "unleased", "overdue"]


class Beat(NamedTuple):
    """A heartbeat by the holder's two clocks, in microseconds."""

    wall: int
    monotonic: int


class Lease(msgspec.Struct, frozen=True):
    """Who runs a session. Times are microseconds since 1970 UTC, `ttl` is in microseconds.

    `since` and `beat_at`, the last heartbeat, are as the holder's clock told them. A run that was only marked as such,
    without a turn, has no `ttl`. `standing`: held; expired, as its heartbeat stood still for the ttl; gone, as its
    process has ended; unleased, as nobody sends heartbeats for it; overdue, as a tool call is open for longer than its
    timeout, and nothing was heard meanwhile.
    """

    session: str
    turn: str | None
    owner: str | None = None
    since: int = 0
    ttl: int | None = None
    beat_at: int | None = None
    standing: Standing = "held"

    @property
    def expires_at(self) -> int | None:
        """When it expires by the holder's clock, unless a heartbeat comes before."""
        return None if self.ttl is None or self.beat_at is None else self.beat_at + self.ttl

    @property
    def free(self) -> bool:
        """Whether another may take over."""
        return self.standing in ("expired", "gone")


class Mark(NamedTuple):
    """What the tags of a head say of a lease, apart from what it means here and now."""

    turn: str | None
    owner: str | None
    since: int
    ttl: int | None
    process: Process | None
    beat: Beat | None
    fence: Mapping[str, str | None]


NO_LEASE: Mapping[str, None] = dict.fromkeys(("turn", "lease_owner", "lease_ttl", "lease_process", "lease_beat"))
"""What ends a lease, as a patch of tags."""


def lease_tags(turn: str, owner: str, ttl: int, process: Process, beat: Beat) -> dict[str, str | None]:
    """What begins a lease, as a patch of tags."""
    return {
        "turn": turn,
        "lease_owner": owner,
        "lease_ttl": str(ttl),
        "lease_process": " ".join(map(str, process[::-1])),
        "lease_beat": beat_tag(beat),
    }


def beat_tag(beat: Beat) -> str:
    """A heartbeat as a tag."""
    return f"{beat.wall} {beat.monotonic}"


def mark_of(head: Head) -> Mark | None:
    """The lease or the marked run that a head speaks of; None if nobody runs it."""
    say = head.tags.get
    turn, beat, ttl = say("turn"), say("lease_beat"), say("lease_ttl")
    if turn is None and say("state") != "running":
        return None
    born, _, rest = (say("lease_process") or "").partition(" ")
    pid, _, place = rest.partition(" ")
    wall, _, monotonic = (beat or "").partition(" ")
    owner, fence = say("lease_owner"), {"turn": turn, "lease_beat": beat, "state": say("state")}
    try:
        return Mark(
            turn,
            owner,
            int(say("state_at") or head.at),
            int(ttl) if ttl else None,
            Process(place, int(pid), int(born)) if place else None,
            Beat(int(wall), int(monotonic)) if beat else None,
            fence,
        )
    except ValueError:
        # A program of another hand wrote these tags. It is a run of which no more is known: nobody overtakes it.
        return Mark(turn, owner, head.at, None, None, None, fence)


class Sightings:
    """What this store saw of leases, by its own monotonic clock. Safe in threads."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[str | None, Beat | None, int]] = {}

    def look(self, head: Head) -> tuple[Lease | None, int | None]:
        """The lease of a head as it stands, and the microseconds until it is free if no heartbeat comes, 0 if it is.

        None instead of a number: nobody sends heartbeats, so it never comes free by itself.
        """
        mark = mark_of(head)
        if mark is None:
            self.forget(head.ref.id)
            return None, 0
        standing, left = self._stand(head.ref.id, mark)
        wall = mark.beat.wall if mark.beat else None
        return Lease(head.ref.id, mark.turn, mark.owner, mark.since, mark.ttl, wall, standing), left

    def _stand(self, session: str, mark: Mark) -> tuple[Standing, int | None]:
        if mark.ttl is None or mark.beat is None:
            return "unleased", None
        clock = self.place.monotonic()
        here = mark.process is not None and mark.process.place == self.place.name() and mark.beat.monotonic <= clock
        if here and mark.process is not None:
            if self.place.gone(mark.process):
                return "gone", 0
            since = mark.beat.monotonic
        else:
            since = self._first_seen(session, mark, clock)
        left = mark.ttl - (clock - since)
        return ("held", left) if left > 0 else ("expired", 0)

    def _first_seen(self, session: str, mark: Mark, clock: int) -> int:
        with self._lock:
            turn, beat, since = self._seen.get(session, (None, None, clock))
            if (turn, beat) != (mark.turn, mark.beat):
                since = clock
                self._seen[session] = (mark.turn, mark.beat, since)
            return since

    def forget(self, session: str) -> None:
        """A session that nobody runs any more."""
        with self._lock:
            self._seen.pop(session, None)

    def keep(self, sessions: Collection[str]) -> None:
        """Forget all others."""
        with self._lock:
            self._seen = {id: seen for id, seen in self._seen.items() if id in sessions}

    def after_fork(self) -> None:
        """In the child of a fork, whose lock another thread may have held."""
        self._lock = threading.Lock()


def held(lease: Lease, left: int | None) -> LeaseHeld:
    """The error that names the holder."""
    who = f"turn {lease.turn!r}" + (f" of {lease.owner}" if lease.owner else "")
    if lease.expires_at is None or left is None:
        when = "it has no lease that could expire: end it by its name, or recover the session"
    else:
        when = (
            f"unless it sends a heartbeat, it expires at {rfc3339(lease.expires_at)} by its own clock; "
            f"wait {left / 1e6:.1f} s, or try later"
        )
    return LeaseHeld(
        f"session {lease.session!r} is held by {who}; {when}",
        session=lease.session,
        turn=lease.turn,
        owner=lease.owner,
        expires_at=lease.expires_at,
        left=left,
    )
