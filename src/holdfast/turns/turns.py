"""Turns: one run of an agent inside a session, which nobody else may run at the same time.

A turn is a lease on the session's head, taken and given back in one commit each, and every write of a turn carries its
token: whoever was overtaken stores nothing any more. One thread of the store sends the heartbeats of all its turns. A
`Turn` is the session it runs, so all that a session can do is fenced the same way.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from holdfast import forks
from holdfast.errors import HoldfastError, Invalid, LeaseHeld
from holdfast.events.redact import told
from holdfast.events.steps import OpenStep
from holdfast.heads.info import new_id
from holdfast.heads.states import state_event
from holdfast.large import LargeValues
from holdfast.log import POLL
from holdfast.plan import Commit, Entry, Head, Ref, check_text
from holdfast.refusals import refusal
from holdfast.session import Session
from holdfast.turns import recovery
from holdfast.turns.leases import NO_LEASE, Beat, Lease, Sightings, beat_tag, held, lease_tags, mark_of
from holdfast.turns.places import Place
from holdfast.turns.recovery import Recovery

if TYPE_CHECKING:
    from holdfast.store import Store

MAX_TTL = 366 * 86_400
"""Seconds that a lease may last without a heartbeat."""
MIN_TTL = 0.05
"""Seconds that it must last, so that a heartbeat can come in time."""
BEATS = 3
"""Heartbeats in the time after which a lease expires."""
LINGER = 5.0
"""Seconds that the thread of heartbeats waits for the next turn, then it ends: each view of a user has its own."""
NOT_BEGUN: Mapping[str, str | None] = {"turn": ""}
"""The fence of a turn that holds nothing: no head carries this token."""


class Turn(Session):
    """A turn of a session: use it as a context manager, from any thread; see `Session.turn`.

    It has all of the session's methods. What it writes is stored only while it holds the lease. In a forked child it
    still writes as its parent's turn, and neither keeps it alive nor ends it.
    """

    def __init__(
        self, store: Store, head: Head, *, ttl: float, owner: str | None, reason: str | None, wait: float
    ) -> None:
        super().__init__(store, head, NOT_BEGUN)
        self._ttl = _micros(ttl)
        self._owner = owner or f"{os.uname().nodename}:{os.getpid()}"
        check_text(self._owner, "owner", 1024)
        if math.isnan(wait) or wait < 0:
            raise Invalid(f"wait is a number of seconds, 0 or more, not {wait}", wait=wait)
        self.wait = wait
        self._reason = reason
        self._ending: tuple[str, str | None] = ("idle", None)
        self._pid = 0
        self.token = ""
        self.took_over: Lease | None = None

    def __repr__(self) -> str:
        return f"<Turn {self.token or 'not begun'} of session {self.id}>"

    def __enter__(self) -> Self:
        try:
            return self.take()
        except LeaseHeld:
            if self.wait == 0:
                raise
        until = time.monotonic() + self.wait
        woken = threading.Event()
        quit_listening = self._store.backend.listen(woken.set)
        try:
            while (pause := self.take_or_pause(until)) is not None:
                woken.wait(pause)
                woken.clear()
        finally:
            quit_listening()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(error)

    def take(self) -> Self:
        """Take the lease now: what entering does, without waiting.

        Raises:
            LeaseHeld: another turn holds it.
            Invalid: this turn was begun before.
            NotFound, Deleted: the session is not there.
        """
        if self.token:
            raise Invalid(f"turn {self.token!r} was begun before; ask the session for a new one", turn=self.token)
        token = new_id()
        self._head, self.took_over = self._store.turns.begin(
            self._head.ref, token, self._ttl, self._owner, self._reason
        )
        self.token, self._pid, self._fence = token, os.getpid(), {"turn": token}
        return self

    def take_or_pause(self, until: float) -> float | None:
        """Take the lease if it is free; else the seconds after which to look again, or sooner when something changed.

        Raises:
            LeaseHeld: it is held, and `until`, a time of `time.monotonic`, is over.
        """
        # Looked at before it is asked for: a refused commit would make all writers of the store wait.
        lease, left = self._store.turns.sightings.look(self._store.head(self.id))
        if lease is None or lease.free or lease.turn is None:
            try:
                self.take()
            except LeaseHeld:
                if time.monotonic() >= until:
                    raise
                return MIN_TTL
            return None
        rest = until - time.monotonic()
        if rest <= 0:
            raise held(lease, left)
        return max(min(rest, POLL, POLL if left is None else left / 1e6), 0.001)

    def complete(self, reason: str | None = None) -> None:
        """Let the turn end in the state completed: the work is done."""
        self._ending = ("completed", reason)

    def pause(self, reason: str | None = None) -> None:
        """Let the turn end in the state paused: it waits for somebody."""
        self._ending = ("paused", reason)

    def end(self, error: BaseException | None = None) -> None:
        """End the turn: what leaving the `with` block does. An error of the block is recorded, without secrets.

        Raises:
            LeaseLost: it was overtaken. When the block raised, that goes on, with a note of this.
        """
        if self._pid != os.getpid():
            return  # not begun, or begun by the parent of this process, which ends it
        self._pid = 0
        state, reason = self._ending if error is None else ("error", told(error))
        try:
            self._head = self._store.turns.finish(self._head.ref, self.token, state, reason)
        except HoldfastError as failed:
            if error is None:
                raise
            error.add_note(f"the turn's end was not recorded: {failed}")

    def resume(self) -> Recovery:
        """Where to go on: answers the tool calls that the turn before this one left open, and says what is known.

        As `Store.recover` does, for the turn that took over or that follows a failed one: call it before the model.
        """
        last = self.info().last
        plan = recovery.left_open(self, self.took_over.turn if self.took_over else None)
        if plan.answers:
            self.append(*plan.answers, expect=last)
        return msgspec.structs.replace(plan, why="a new turn goes on", lease=self.took_over, applied=True)

    @property
    def large(self) -> LargeValues:
        """The store's large values."""
        return self._store.large

    @property
    def secrets(self) -> frozenset[str]:
        """The names under which nothing is written."""
        return self._store.secrets

    def step(
        self, name: str, arguments: Any = None, *, call_id: str | None = None, kind: str = "tool_execution"
    ) -> OpenStep:
        """The execution of a tool or program: use it as a context manager, which stores a `step` event at its end.

        ```python
        with turn.step("lookup", {"order": 7}, call_id="c1") as step:
            step.output = lookup(order=7)
        ```

        An exception is recorded, without secrets, and goes on. `exit_code`, `is_error`, `error`, `artifacts` and
        `metadata` can be set like `output`, which is text, a `Large`, or any JSON value. An output of more than 64 KiB
        is an artifact of the session, too. `kind` is tool_execution or program_execution.
        """
        return OpenStep(self, name, arguments, call_id, kind)


class _Kept(msgspec.Struct):
    """A lease that heartbeats keep alive; the next is due at `due` by the monotonic clock, in microseconds."""

    ref: Ref
    token: str
    ttl: int
    due: int


class Turns:
    """The turns of one store: begins and ends them, and keeps those of this process alive."""

    def __init__(self, store: Store, place: Place) -> None:
        self._store = store
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

    def turn(self, head: Head, *, ttl: float, owner: str | None, reason: str | None, wait: float) -> Turn:
        """A turn that is not begun yet."""
        return Turn(self._store, head, ttl=ttl, owner=owner, reason=reason, wait=wait)

    def begin(self, ref: Ref, token: str, ttl: int, owner: str, reason: str | None) -> tuple[Head, Lease | None]:
        """Take a session's lease, from nobody or from a holder that is surely over, which is told, too.

        Raises:
            LeaseHeld: somebody holds it.
        """
        fence: Mapping[str, str | None] = {"turn": None}
        over: Lease | None = None
        while True:
            commit = self._beginning(ref, token, ttl, owner, reason, fence, over)
            result = self._store.batcher.commit(commit)
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
            events.append(state_event(at, "error", over.turn, f"interrupted: {why}", self._store.large))
        events.append(state_event(at, "running", token, reason, self._store.large))
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
            append=[state_event(at, state, token, reason, self._store.large)],
        )
        result = self._store.batcher.commit(commit)
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
                lost = not isinstance(self._store.batcher.commit(commit), Head)
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


def _micros(ttl: float) -> int:
    if not MIN_TTL <= ttl <= MAX_TTL:  # neither is NaN
        raise Invalid(f"ttl is {MIN_TTL} to {MAX_TTL:,} seconds, not {ttl}", ttl=ttl)
    return int(ttl * 1_000_000)
