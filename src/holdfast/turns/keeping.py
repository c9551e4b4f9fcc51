"""Turns as the store keeps them: taken and given back in one commit each, and kept alive by one thread in between."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import msgspec

from holdfast import codec, forks
from holdfast.batch import Batcher
from holdfast.errors import HoldfastError
from holdfast.large import LargeValues
from holdfast.model import State
from holdfast.plan import Commit, Entry, Head, Ref
from holdfast.refusals import refusal
from holdfast.turns.leases import NO_LEASE, Beat, Lease, Sightings, beat_tag, held, lease_tags, mark_of
from holdfast.turns.places import Place

BEATS = 3
"""Heartbeats in the time after which a lease expires."""
LINGER = 5.0
"""Seconds that the thread of heartbeats waits for the next turn, then it ends: each view of a user has its own."""


def state_event(at: int, state: str, turn: str | None, reason: str | None, large: codec.LargeStore) -> Entry:
    """The event of a change."""
    return Entry("", at, codec.encode(State(state=state, turn=turn, reason=reason), large))


class _Kept(msgspec.Struct):
    """A lease that heartbeats keep alive; the next is due at `due` by the monotonic clock, in microseconds."""

    ref: Ref
    token: str
    ttl: int
    due: int


class Turns:
    """The turns of one store: begins and ends them, and keeps those of this process alive."""

    def __init__(self, batcher: Batcher, large: LargeValues, place: Place) -> None:
        self._batcher = batcher
        self._large = large
        self.place = place
        self.sightings = Sightings(place)
        self._reset()
        forks.watch(self)

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._kept: dict[str, _Kept] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    def before_fork(self) -> None:
        """See `forks`."""

    def after_fork(self, *, child: bool) -> None:
        """See `forks`: the turns and the thread stay with the parent."""
        if child:
            self._reset()
            self.sightings.after_fork()

    def begin(self, ref: Ref, token: str, ttl: int, owner: str, reason: str | None) -> tuple[Head, Lease | None]:
        """Take a session's lease, from nobody or from a holder that is surely over, which is told, too.

        Raises:
            LeaseHeld: somebody holds it.
        """
        fence: Mapping[str, str | None] = {"turn": None}
        over: Lease | None = None
        while True:
            commit = self._beginning(ref, token, ttl, owner, reason, fence, over)
            result = self._batcher.commit(commit)
            if isinstance(result, Head):
                self.sightings.forget(ref.id)
                self._keep(_Kept(ref, token, ttl, self.place.monotonic() + ttl // BEATS))
                return result, over
            mark = None if result.head is None or result.head.dead else mark_of(result.head)
            if result.why != "tags" or result.head is None:
                raise refusal(result, Commit(ref=ref))
            over, left = self.sightings.look(result.head)
            if mark is None or mark.turn is None or over is None:
                fence, over = {"turn": None}, None  # it came free since
            elif over.free:
                fence = mark.fence
            else:
                raise held(over, left)

    def _beginning(
        self,
        ref: Ref,
        token: str,
        ttl: int,
        owner: str,
        reason: str | None,
        fence: Mapping[str, str | None],
        over: Lease | None,
    ) -> Commit:
        at = self.place.wall()
        lease = lease_tags(token, owner, ttl, self.place.process(), Beat(at, self.place.monotonic()))
        events: list[Entry] = []
        if over is not None:
            why = "its process has ended" if over.standing == "gone" else "its heartbeat stood still"
            events.append(state_event(at, "error", over.turn, f"interrupted: {why}", self._large))
        events.append(state_event(at, "running", token, reason, self._large))
        tags = {**lease, "state": "running", "state_at": str(at)}
        return Commit(ref=ref, at=at, if_tags=fence, tags=tags, append=events)

    def finish(self, ref: Ref, token: str, state: str, reason: str | None) -> Head:
        """Give a lease back.

        Raises:
            LeaseLost: another turn has it.
        """
        with self._changed:
            self._kept.pop(token, None)
        at = self.place.wall()
        commit = Commit(
            ref=ref,
            at=at,
            if_tags={"turn": token},
            tags={**NO_LEASE, "state": state, "state_at": str(at)},
            append=[state_event(at, state, token, reason, self._large)],
        )
        result = self._batcher.commit(commit)
        if isinstance(result, Head):
            return result
        raise refusal(result, commit)

    def _keep(self, kept: _Kept) -> None:
        with self._changed:
            self._kept[kept.token] = kept
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="holdfast-turns", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: self._kept or self._closed, LINGER):
                    self._thread = None  # the next turn starts another
                    return
                if self._closed:
                    return
                left = min(kept.due for kept in self._kept.values()) - self.place.monotonic()
                if left > 0:
                    self._changed.wait(left / 1e6)
                    continue
            self.beat()

    def beat(self) -> None:
        """Send the heartbeats that are due."""
        clock = self.place.monotonic()
        with self._changed:
            due = [kept for kept in self._kept.values() if kept.due <= clock]
        for kept in due:
            tag = beat_tag(Beat(self.place.wall(), self.place.monotonic()))
            commit = Commit(ref=kept.ref, if_tags={"turn": kept.token}, tags={"lease_beat": tag})
            try:
                lost = not isinstance(self._batcher.commit(commit), Head)
            except HoldfastError:
                # The engine can't now. The turn's own writes say so to who can act; here another try is all there is.
                kept.due = self.place.monotonic() + kept.ttl // (BEATS * BEATS)
                continue
            kept.due = self.place.monotonic() + kept.ttl // BEATS
            if lost:  # ended or overtaken: its next write is told
                with self._changed:
                    self._kept.pop(kept.token, None)

    def close(self) -> None:
        """Send no more heartbeats. Turns that are under way are given back by who began them, or expire."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
