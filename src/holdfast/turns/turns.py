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
from typing import Any, Self

import msgspec

from holdfast.errors import HoldfastError, Invalid, LeaseHeld
from holdfast.events.redact import told
from holdfast.events.steps import OpenStep
from holdfast.heads.info import new_id
from holdfast.large import LargeValues
from holdfast.log import POLL
from holdfast.plan import Head, check_text
from holdfast.session import Session
from holdfast.storage import Storage
from holdfast.turns import recovery
from holdfast.turns.leases import Lease, held
from holdfast.turns.recovery import Recovery

MAX_TTL = 366 * 86_400
"""Seconds that a lease may last without a heartbeat."""
MIN_TTL = 0.05
"""Seconds that it must last, so that a heartbeat can come in time."""
NOT_BEGUN: Mapping[str, str | None] = {"turn": ""}
"""The fence of a turn that holds nothing: no head carries this token."""


class Turn(Session):
    """A turn of a session: use it as a context manager, from any thread; see `Session.turn`.

    It has all of the session's methods. What it writes is stored only while it holds the lease. In a forked child it
    still writes as its parent's turn, and neither keeps it alive nor ends it.
    """

    def __init__(
        self, store: Storage, head: Head, *, ttl: float, owner: str | None, reason: str | None, wait: float
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


def _micros(ttl: float) -> int:
    if not MIN_TTL <= ttl <= MAX_TTL:  # neither is NaN
        raise Invalid(f"ttl is {MIN_TTL} to {MAX_TTL:,} seconds, not {ttl}", ttl=ttl)
    return int(ttl * 1_000_000)
