"""The audit of a session's checkpoints: what they say against what the events say."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.heads.info import COPYING, EDIT
from holdfast.history.ancestry import newest_edit, segments
from holdfast.history.checkpoints import noted
from holdfast.history.counting import Known, Passed, edits_behind, hidden_behind
from holdfast.history.standings import Standing, standing_of
from holdfast.model import AnyPayload
from holdfast.plan import Entry, Head
from holdfast.storage import Storage


class Audit:
    """Compares a session's checkpoints with its events, as `check` reads them, and with its head."""

    def __init__(self, store: Storage, head: Head, counters: Sequence[str]) -> None:
        self._head = head
        self._counters = counters
        self._kept = {one.seq: one for one in noted(store, head, None)}
        self._met: list[tuple[Standing, Passed]] = []
        self._after = max(head.base, head.trim)
        known = Known({})
        if self._kept and EDIT in head.tags:
            lineage = segments(store, head)
            known = Known(
                edits_behind(store, lineage, newest_edit(head), self._after), hidden_behind(store, lineage, self._after)
            )
        self._passed = Passed(known)

    def take(self, entry: Entry, payload: AnyPayload) -> None:
        """Pass the next event of the session's own log."""
        if self._kept:
            self._passed.take(entry, payload)
            if entry.seq in self._kept:
                self._met.append((self._kept[entry.seq], self._passed.copy()))

    def wrong(self) -> list[int]:
        """The seqs of checkpoints that do not say what follows from the head and the events behind them."""
        if COPYING in self._head.tags:
            return []  # what follows from it is known when the copy is finished
        beginning = self._passed.off(standing_of(self._head), self._after)
        return [one.seq for one, passed in self._met if self._differs(one, passed.onto(beginning, one.seq))]

    def _differs(self, one: Standing, other: Standing) -> bool:
        if one.mark != other.mark:
            return False  # of an event that was lost before another one took its seq: nobody believes it
        if any(one.counts.get(name, 0) != other.counts.get(name, 0) for name in self._counters):
            return True
        if one.edit != other.edit:
            return True
        return None not in (one.summary, other.summary) and one.summary != other.summary
