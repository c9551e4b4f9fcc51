"""Group commit: writers that come at the same time share one transaction and one fsync.

There is no writer thread to hand over to. A caller queues its commit and then waits for the lock; whoever gets the lock
first writes all that is queued, so the others find theirs done. Alone, a caller pays for a lock and nothing more.
What callers on an event loop append is gathered until the loop has finished its turn, then queued in one piece, and one
thread drains the queue for all of them: begun any earlier, the thread and the loop would hinder each other, and the
first commit of a turn would be a transaction of its own.
What follows from a commit and may be lost (`derive`) waits for the next transaction, so it costs none of its own.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, cast

from holdfast import forks
from holdfast.backend import Backend
from holdfast.errors import HoldfastError, ReadOnly, Unavailable, Uncertain
from holdfast.plan import MAX_ENTRIES, Commit, Head, Refused, validate

if TYPE_CHECKING:  # both take tens of milliseconds to import, and not everybody needs them
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

MAX_COMMITS = 1024
"""Commits that share one transaction at the most, so that nobody waits long for the others."""
MAX_BYTES = 8 * 1024 * 1024
"""Bytes of bodies that share one transaction at the most."""

Result = Head | Refused
Derive = Callable[[Commit, Head], Sequence[Commit]]
"""What else is to be written once a commit made a head; mostly nothing."""


class _Slot:
    """One waiting commit and, in the end, its result or error."""

    __slots__ = ("commit", "error", "future", "result", "sums")

    def __init__(self, commit: Commit, future: asyncio.Future[Result] | None = None, *, sums: bool = True) -> None:
        self.commit = commit
        self.future = future
        self.sums = sums
        self.result: Result | None = None
        self.error: BaseException | None = None


class Batcher:
    """The one way into `Backend.commit` for all threads and event loops of a store."""

    def __init__(self, backend: Backend, derive: Derive) -> None:
        self._backend = backend
        self._derive = derive
        self._reset()
        forks.watch(self)

    def before_fork(self) -> None:
        """See `forks`."""

    def after_fork(self, *, child: bool) -> None:
        """See `forks`: the queue, the locks and the thread stay with the parent."""
        if child:
            self._reset()

    def _reset(self) -> None:
        self._queue: deque[_Slot] = deque()
        self._later: deque[Commit] = deque()
        self._lock = threading.Lock()
        self._alone: int | None = None
        self._closed = False
        self._draining = False
        self._turns: dict[asyncio.AbstractEventLoop, list[_Slot]] = {}
        self._turn_lock = threading.Lock()
        self._thread: ThreadPoolExecutor | None = None

    def commit(self, commit: Commit, *, entries: int = MAX_ENTRIES, sums: bool = True) -> Result:
        """Make one commit; durable on return.

        Args:
            commit: The change.
            entries: How many entries it may have; see `plan.validate`.
            sums: Whether its head's counters agree with its log; else nothing follows from it.

        Raises:
            Invalid, TooLarge: the commit can't be stored; see `plan.validate`.
            Unavailable, Uncertain: as the backend says.
        """
        validate(commit, entries)
        if self._alone is not None and self._alone == threading.get_ident():
            return self._commit_now(commit, sums=sums)
        if not self._queue and not self._later and self._lock.acquire(False):
            # Nobody else is here: no need to queue. Whoever comes meanwhile waits for the lock.
            try:
                return self._commit_now(commit, sums=sums)
            finally:
                self._lock.release()
        slot = _Slot(commit, sums=sums)
        self._queue.append(slot)
        with self._lock:
            while slot.result is None and slot.error is None:
                self._flush()
        if slot.error is not None:
            raise slot.error
        return cast("Result", slot.result)  # the loop above ends with one of the two

    def _commit_now(self, commit: Commit, *, sums: bool) -> Result:
        """Make a commit; the caller has the lock."""
        result = self._backend.commit((commit,))[0]
        if commit.append and sums and isinstance(result, Head):
            self._later.extend(self._derive(commit, result))
        return result

    @contextlib.contextmanager
    def alone(self) -> Generator[None]:
        """Let the other threads of the process wait: between what this one reads and commits, none of them commits.

        For who lost that race too often. Only `commit` may be called within, and nothing that waits for a writer.
        """
        with self._lock:
            self._alone = threading.get_ident()
            try:
                yield
            finally:
                self._alone = None

    def commit_all(self, commits: Sequence[Commit], *, sums: bool = True) -> list[Result | HoldfastError]:
        """Make commits, each on its own, in as few transactions as may be; for each its result, or what failed it.

        Args:
            commits: The changes.
            sums: As in `commit`, for all of them.

        Raises:
            Invalid, TooLarge: one of them can't be stored; none was made. See `plan.validate`.
        """
        for commit in commits:
            validate(commit)
        slots = [_Slot(commit, sums=sums) for commit in commits]
        with self._lock:
            for start in range(0, len(slots), MAX_COMMITS):
                self._write(slots[start : start + MAX_COMMITS])
        return [cast("Result | HoldfastError", slot.result or slot.error) for slot in slots]

    def later(self, commits: Sequence[Commit]) -> None:
        """Make commits together with whatever is written next; no failure of theirs is told, or hinders the others."""
        for commit in commits:
            validate(commit)
        self._later.extend(commits)

    def enqueue(self, commit: Commit, loop: asyncio.AbstractEventLoop) -> asyncio.Future[Result]:
        """Make one commit without blocking the event loop that calls. Cancelling the future does not undo it.

        Raises:
            Invalid, TooLarge: the commit can't be stored; see `plan.validate`.
            Unavailable: the store was closed.
        """
        validate(commit)
        future: asyncio.Future[Result] = loop.create_future()
        slot = _Slot(commit, future)
        with self._turn_lock:
            if self._closed:
                raise Unavailable("the store was closed")
            turn = self._turns.get(loop)
            if turn is None:
                turn = self._turns[loop] = []
                loop.call_soon(self._end_turn, loop)
            turn.append(slot)
        return future

    def _end_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._turn_lock:
            self._queue.extend(self._turns.pop(loop, ()))
            if not self._draining and self._queue:
                self._start_drain()

    def _start_drain(self) -> None:
        """Have what is queued written by the thread; the caller has the lock of turns."""
        try:
            if self._thread is None:
                from concurrent.futures import ThreadPoolExecutor

                self._thread = ThreadPoolExecutor(1, thread_name_prefix="holdfast-commit")
            self._thread.submit(self._drain)
            self._draining = True
        except RuntimeError as error:
            # There is no thread to be had, and nobody else to write what event loops have queued.
            self._thread = None
            slots = [self._queue.popleft() for _ in range(len(self._queue))]
            for slot in slots:
                slot.error = Unavailable(f"no thread could be started to write ({error}); try again")
            _wake(slots)

    def _drain(self) -> None:
        while True:
            while self._queue:
                with self._lock:
                    self._flush()
            # Under the lock, so that a turn that ends now sees that nobody drains any more, or is drained.
            with self._turn_lock:
                if not self._queue:
                    self._draining = False
                    return

    def _flush(self) -> None:
        """Write what is queued, as far as one transaction goes. Only the holder of the lock calls it."""
        slots: list[_Slot] = []
        size = 0
        while self._queue and len(slots) < MAX_COMMITS and size < MAX_BYTES:
            slot = self._queue.popleft()
            slots.append(slot)
            for entry in slot.commit.append:
                size += len(entry.body)
        if slots:
            try:
                self._write(slots)
            finally:
                for slot in slots:
                    if slot.result is None and slot.error is None:
                        slot.error = Uncertain("the writer of this batch was interrupted; repeat with the same key")
                _wake(slots)

    def _write(self, slots: Sequence[_Slot]) -> None:
        later = [self._later.popleft() for _ in range(len(self._later))]
        try:
            results = self._backend.commit([*(slot.commit for slot in slots), *later])
        except (Unavailable, Uncertain, ReadOnly) as error:
            for slot in slots:  # it is the same for all of them
                slot.error = error
        except HoldfastError as error:
            # Nothing was stored. One commit that the engine can't take must not fail its neighbours.
            if later:
                self._write(slots)
            elif len(slots) == 1:
                slots[0].error = error
            else:
                for slot in slots:
                    self._write([slot])
        except Exception as error:  # noqa: BLE001  # each caller gets it
            for slot in slots:
                slot.error = Uncertain(f"the engine failed unexpectedly ({error!r}); repeat with the same key")
                slot.error.__cause__ = error
        else:
            for slot, result in zip(slots, results[: len(slots)], strict=True):
                slot.result = result
                if slot.commit.append and slot.sums and isinstance(result, Head):
                    self._later.extend(self._derive(slot.commit, result))

    def close(self) -> None:
        """Finish what event loops have queued and end the thread."""
        with self._turn_lock:
            self._closed = True
            for turn in self._turns.values():
                self._queue.extend(turn)
            self._turns.clear()
            if self._queue and not self._draining:
                self._start_drain()
            thread = self._thread
        if thread is not None:
            thread.shutdown(wait=True)
        with self._lock:
            if self._later:
                with contextlib.suppress(HoldfastError):  # it may be lost
                    self._write(())


def _wake(slots: Sequence[_Slot]) -> None:
    """Tell the event loops, each once for all of its commits."""
    loops: dict[asyncio.AbstractEventLoop, list[_Slot]] = {}
    for slot in slots:
        if slot.future is not None:
            loops.setdefault(slot.future.get_loop(), []).append(slot)
    for loop, done in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(_resolve, done)


def _resolve(slots: Sequence[_Slot]) -> None:
    for slot in slots:
        future = slot.future
        if future is None or future.done():
            continue
        if slot.error is not None:
            future.set_exception(slot.error)
        elif slot.result is not None:
            future.set_result(slot.result)
