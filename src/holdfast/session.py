"""A session: one conversation of one agent. Its log is in `log`; here is what is done with the whole of it.

Each method is a way in: what it does stands in the module of its noun (`updates`, `history`, `branching`, `turns`,
`states`). Every write carries the session's fence, so that a turn, which is a session, is refused once overtaken. What
only some programs do is imported when it is done, so that the others start quickly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from holdfast.errors import Stale
from holdfast.events.receipts import Receipt
from holdfast.heads.info import SessionInfo, info_of
from holdfast.heads.updates import RETRIES, named, prepare_update, raced, restless, together, update
from holdfast.log import Appendable, Log, OnDamage
from holdfast.model import Edit, Event, Large, Report, Tasks
from holdfast.plan import MAX_SAVED

if TYPE_CHECKING:
    from holdfast.artifacts.artifacts import Artifacts
    from holdfast.context.context import Context
    from holdfast.context.pairs import Problem
    from holdfast.context.repair import Repair
    from holdfast.context.tokens import Counter
    from holdfast.events.tasklists import Task
    from holdfast.heads.settings import SessionConfig
    from holdfast.turns.turns import Turn


class Session(Log):
    """One session of an open store. Cheap to hold; may be used from any thread."""

    def update(
        self,
        *,
        labels: Sequence[str] | Mapping[str, bool] | None = None,
        metadata: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | SessionConfig | None = None,
        **fields: str | None,
    ) -> SessionInfo:
        """Change what is said about the session; concurrent updates of different fields all hold.

        Args:
            labels: Labels to add, or a mapping of label to whether it should be there.
            metadata, config: Keys to set; a value of None removes the key. A `SessionConfig` is laid over what is
                there, so that what it does not know stays. Secrets of a config are not written; see `SessionConfig`.
            **fields: `name`, `title`, `agent`, `parent`, `project`; None removes it. Of a user's sessions no two have
                the same name.

        Raises:
            Exists: another session of the user has the name.
            Stale: others changed it without a pause; nothing was changed.
            LeaseLost: this is a turn that was overtaken.
            Invalid, TooLarge: a field can't be stored.
            NotFound, Deleted: the session is not there.
        """
        self._head = update(
            self._store, self._head, self._fence, labels=labels, metadata=metadata, config=config, **fields
        )
        return info_of(self._head)

    @cached_property
    def artifacts(self) -> Artifacts:
        """The named bytes that the session's tools made: put, get, list, stat and delete them there."""
        from holdfast.artifacts.artifacts import Artifacts

        return Artifacts(self._store, self, lambda: self._fence)

    def save(
        self,
        *events: Appendable,
        key: str | None = None,
        expect: int | None = None,
        labels: Sequence[str] | Mapping[str, bool] | None = None,
        metadata: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | SessionConfig | None = None,
        **fields: str | None,
    ) -> Receipt:
        """Append events and change what is said about the session, all in one step or nothing of it.

        A second call with the same key does neither again. See `append` and `update` for arguments and errors; one save
        takes up to 100,000 events.
        """

        def apply(more: Mapping[str, str | None]) -> Receipt:
            expected = {**(self._fence or {}), **more} or None
            for _ in range(RETRIES):
                # The update first: when it looks at the head, what the append says of it goes by the same look.
                change = prepare_update(
                    self._store, self._head, expected, labels=labels, metadata=metadata, config=config, **fields
                )
                commit = together(self.prepare(events, key, expect), change)
                try:
                    return self.stored(commit, key, entries=MAX_SAVED)
                except Stale as error:
                    if not raced(error, commit):
                        raise
            raise restless(self.id)

        with self._store.large.hold:
            return named(self._store, self.id, fields, apply)

    def tasks(self) -> list[Task]:
        """The list of tasks as it stands now: that of the newest `tasks` event; empty if there is none.

        The log is read back to that event; a session that never had one is not read.

        Raises:
            Invalid: it holds what is no task.
        """
        from holdfast.events.reporting import newest_event
        from holdfast.events.tasklists import tasks_of

        event = newest_event(self, "tasks", "task_lists")
        return tasks_of(event.payload) if event is not None and isinstance(event.payload, Tasks) else []

    def reports(self) -> list[Report]:
        """The verification reports, oldest first. The log is read back to the first of them only."""
        from holdfast.events.reporting import counted_events

        found = [event.payload for event in counted_events(self, "report", "reports")]
        return [payload for payload in found if isinstance(payload, Report)]

    def remove_last(self) -> Event | None:
        """Take the newest message back: it is hidden, not erased. None if there is none left.

        Usage stays counted: what the message cost was spent. An `Edit` event tells of it, and `undo` shows it again.
        """
        from holdfast.history import history

        return history.remove_last(self._store, self, self._fence)

    def rewind(self, to: int) -> Edit | None:
        """Take back all events behind the seq `to`, in one step: they are hidden, not erased.

        Usage stays counted. What was appended before the answer is taken back too.

        Returns:
            The event that tells of it, which is appended in the same step; None if there was nothing to hide.

        Raises:
            Invalid: there is no event `to`.
            Stale: others appended without a pause; nothing was hidden.
            NotFound, Deleted: the session is not there.
        """
        from holdfast.history import history

        return history.rewind(self._store, self, self._fence, to)

    def clear(self) -> Edit | None:
        """Take back all events; `rewind` to the very beginning."""
        from holdfast.history import history

        return history.rewind(self._store, self, self._fence, 0, "clear")

    def undo(self) -> Edit | None:
        """Show again what the newest removal hid that was not undone yet; the next call undoes the one before.

        Returns:
            The event that tells of it; None if there is nothing to undo.

        Raises:
            Stale: others appended without a pause; nothing was shown.
            NotFound, Deleted: the session is not there.
        """
        from holdfast.history import history

        return history.undo(self._store, self, self._fence)

    def context(
        self,
        max_tokens: int | None = None,
        *,
        keep: int = 1,
        threshold: float | None = None,
        count: Counter | None = None,
        damaged: OnDamage = "raise",
    ) -> Context:
        """What to send to the model: the system prompt, the summary that counts, and the newest messages.

        It is always valid for a model: each tool call stands with its results, answered if need be, and what was moved,
        answered or left out is said in its `problems`. The log is read from its end, as far as there is room.

        Args:
            max_tokens: Room for all of it; `max_context_length` of the session's config if not given, else 200,000.
            keep: The newest so many messages are in it also if they take more than there is.
            threshold: The share of the room from which on it is `full`; `auto_compact_threshold` of the config if not
                given, else 0.80.
            count: Says how many tokens a message takes; `tokens.estimate` if not given.
            damaged: `raise` stops at an event that can't be trusted; `keep` leaves it out.

        Raises:
            Invalid: an argument, or what the config says, is out of range.
            Corrupt: an event is damaged; the error names it.
            Stale: history was changed without a pause.
            NotFound, Deleted: the session is not there.
        """
        from holdfast.context.context import build
        from holdfast.context.tokens import estimate

        return build(self._store, self, max_tokens, keep, threshold, count or estimate, damaged)

    def compact(self, summary: str | Large, upto: int, *, seen: int | None = None) -> Event:
        """Let a summary stand for all events up to the seq `upto`, in contexts: it is appended, and they stay.

        Args:
            summary: The words, which stand for an earlier summary, too.
            upto: Such as the context's `last` that the words were made of, or what its `before(keep)` says.
            seen: What was the newest event when the words were made; `upto` if not given.

        Returns:
            The event with the `Summary`.

        Raises:
            Stale: what it stands for was taken back or shown again since; nothing was stored.
            Conflict: a newer summary stands for more than that.
            Invalid: there is no event `upto`, or the summary is empty.
            NotFound, Deleted: the session is not there.
        """
        from holdfast.context import summaries

        with self._store.large.hold:
            return summaries.compact(self._store, self, summary, upto, seen)

    def validate(self) -> list[Problem]:
        """What is wrong with the tool calls in view and their results: [] if nothing. Reads the whole log."""
        from holdfast.context.repair import validate

        return validate(self)

    def repair(self) -> Repair:
        """Append a result for each tool call that has none, in one commit; nothing is hidden or changed.

        Raises:
            LeaseHeld: a turn runs, whose calls may be under way; it repairs by itself.
            Stale: others appended without a pause; nothing was stored.
            NotFound, Deleted: the session is not there.
        """
        from holdfast.context.repair import mend

        with self._store.large.hold:
            return mend(self._store, self, self._fence)

    def fork(self, at: int | None = None, *, name: str | None = None, id: str | None = None) -> Session:
        """A new session that goes on from this one as it was when `at` was its newest event; now if not given.

        Nothing is copied, however long the log is: the fork reads the events up to `at` through this session, with
        the same seqs, and appends its own behind them. What either hides or appends later the other does not see. The
        same call with the same `id` and `at` again gives the same fork.

        Args:
            at: A seq, 0 for an empty beginning. What it begins with is counted from the nearest checkpoint; where there
                is none, as in copies and old stores, the first fork reads events and notes what it passes.
            name, id: Of the fork; user, title, agent, project, metadata and config are this session's.

        Raises:
            Invalid: there is no event `at`, or the id can't be one.
            Exists: another session has the id, or the name.
            Deleted: a session with that id was deleted.
            NotFound, Deleted: this session is not there.
        """
        from holdfast.history import branching

        return Session(self._store, branching.fork(self._store, self.id, at, name, id, self._fence))

    def turn(self, *, ttl: float = 60, owner: str | None = None, reason: str | None = None, wait: float = 0) -> Turn:
        """A run of the agent in this session, which nobody else runs meanwhile: `with session.turn() as turn:`.

        Entering takes the lease and makes the session `running`; leaving makes it `idle`, or `completed` or `paused`
        if the turn was told so, or `error` if the block raised. Write through the turn: once it was overtaken, it
        stores nothing any more.

        Args:
            ttl: Seconds without a heartbeat after which others may take over. One is sent every third of it.
            owner: Who holds it, for people; the machine's name and the process's number if not given.
            reason: Why it runs, for the `state` event.
            wait: Seconds to wait for a turn that is held; 0 tells at once.

        Raises:
            LeaseHeld: when entered: another turn holds the session; the error names it and when it expires.
            LeaseLost: when writing or leaving: it was overtaken.
            Invalid: `ttl` or `wait` is out of range.
            NotFound, Deleted: the session is not there.
        """
        from holdfast.turns.turns import Turn

        return Turn(self._store, self._head, ttl=ttl, owner=owner, reason=reason, wait=wait)

    def set_state(self, state: str, *, reason: str | None = None, turn: str | None = None) -> SessionInfo:
        """Change the state of a session that no turn holds; the change is an event in the same commit.

        For programs that mark their runs by themselves: `turn` names the run that begins with `running`, and only
        with the same name can it end. Such a run has no lease. A state that is there already is no change.

        Raises:
            Conflict: the state can't follow the one that is there.
            LeaseHeld: a turn holds the session, or another run does.
            LeaseLost: the run that `turn` names is over; or this is a turn that is.
        """
        from holdfast.heads.states import change

        self._head, info = change(self._store, self.id, state, reason, turn, self._fence)
        return info

    def delete(self) -> None:
        """Delete the session for good; see `Store.delete`."""
        from holdfast.history import branching

        branching.delete(self._store, self.id, self._fence)
