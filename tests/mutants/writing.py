"""Faults in what a commit does."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import msgspec

from holdfast.backend import TextOf
from holdfast.plan import Commit, Entry, Head, Ref, Refused
from mutants import Mutant, mutant

replace = msgspec.structs.replace


# --- Preconditions ---


@mutant
class ForgetsTheExpectedPosition(Mutant):
    def change(self, commit: Commit) -> Commit:
        return replace(commit, if_last=None)


@mutant
class ForgetsTheRevision(Mutant):
    def change(self, commit: Commit) -> Commit:
        return commit if commit.if_rev == 0 or self._heads.get(commit.ref) is None else replace(commit, if_rev=None)


@mutant
class ForgetsTheTags(Mutant):
    def change(self, commit: Commit) -> Commit:
        return replace(commit, if_tags=None)


@mutant
class TakesAnAbsentTagForAnyTag(Mutant):
    def change(self, commit: Commit) -> Commit:
        stated = {name: value for name, value in (commit.if_tags or {}).items() if value is not None}
        return replace(commit, if_tags=stated or None)


@mutant
class CreatesWhenAppending(Mutant):
    def change(self, commit: Commit) -> Commit:
        unasked = commit.if_rev is None and commit.append and self._heads.get(commit.ref) is None
        return replace(commit, if_rev=0) if unasked else commit


@mutant
class CreatesOverWhatIsThere(Mutant):
    def change(self, commit: Commit) -> Commit:
        head = self._heads.get(commit.ref)
        return replace(commit, if_rev=None) if commit.if_rev == 0 and head and not head.dead else commit


# --- Keys ---


@mutant
class TakesAReusedKey(Mutant):
    def change(self, commit: Commit) -> Commit:
        known = self._ids.get(commit.ref, set())
        return replace(commit, append=[replace(e, id="") if e.id in known else e for e in commit.append])


@mutant
class ForgetsTheKeysOfHiddenEntries(Mutant):
    def _commit(self, commit: Commit) -> Head | Refused:
        result = super()._commit(commit)
        if commit.ref in self._logs:
            self._ids[commit.ref] = {e.id: e.seq for e in self._logs[commit.ref] if e.id and not e.void}
        return result


@mutant
class LooksAtTheFirstKeyOnly(Mutant):
    def _commit(self, commit: Commit) -> Head | Refused:
        known = self._ids.get(commit.ref, {})
        self._ids[commit.ref] = {e.id: known[e.id] for e in commit.append[:1] if e.id in known}
        result = super()._commit(commit)
        self._ids[commit.ref] = {e.id: e.seq for e in self._logs.get(commit.ref, ()) if e.id}
        return result


@mutant
class TellsAStaleRetryThatItIsStale(Mutant):
    def _commit(self, commit: Commit) -> Head | Refused:
        head = self._heads.get(commit.ref)
        if head and not head.dead and commit.if_last is not None and commit.if_last != head.last:
            return Refused("last", head)
        return super()._commit(commit)


# --- Atomicity and order ---


@mutant
class KeepsHalfOfARefusedBatch(Mutant):
    def _commit(self, commit: Commit) -> Head | Refused:
        result = super()._commit(commit)
        if isinstance(result, Refused) and result.why == "known":
            super()._commit(Commit(ref=commit.ref, append=[e for e in commit.append if not e.id]))
        return result


@mutant
class StopsABatchAtTheFirstRefusal(Mutant):
    def commit(self, batch: Sequence[Commit]) -> list[Head | Refused]:
        results: list[Head | Refused] = []
        for commit in batch:
            failed = results and isinstance(results[-1], Refused)
            results.append(results[-1] if failed else super().commit([commit])[0])
        return results


@mutant
class LoadsTheHeadsOfABatchOnce(Mutant):
    def commit(self, batch: Sequence[Commit]) -> list[Head | Refused]:
        before = {commit.ref: self._heads.get(commit.ref) for commit in batch}
        stale = [
            c if c.if_last is None or before[c.ref] is None else replace(c, if_last=self._guess(c, before))
            for c in batch
        ]
        return [super(LoadsTheHeadsOfABatchOnce, self).commit([c])[0] for c in stale]

    def _guess(self, commit: Commit, before: Mapping[Ref, Head | None]) -> int | None:
        head = before[commit.ref]
        return None if head is not None and commit.if_last == head.last else commit.if_last


@mutant
class SkipsANumberAfterARefusal(Mutant):
    def _commit(self, commit: Commit) -> Head | Refused:
        result = super()._commit(commit)
        head = self._heads.get(commit.ref)
        if isinstance(result, Refused) and head and not head.dead:
            self._heads[commit.ref] = replace(head, last=head.last + 1)
        return result


class SlowHeads(dict[Ref, Head]):
    """Leaves time between looking and writing."""

    def get(self, key: Ref, default: Any = None) -> Any:
        found = super().get(key, default)
        time.sleep(0.0002)
        return found


@mutant
class TakesNoLock(Mutant):
    machine = False

    def __init__(self, text_of: TextOf) -> None:
        super().__init__(text_of)
        self._lock = nullcontext()  # type: ignore[assignment]
        self._heads = SlowHeads()


@mutant
class ShowsEntriesOneByOne(Mutant):
    machine = False

    def __init__(self, text_of: TextOf) -> None:
        super().__init__(text_of)
        self._writing, self._lock = self._lock, nullcontext()  # type: ignore[assignment]

    def commit(self, batch: Sequence[Commit]) -> list[Head | Refused]:
        with self._writing:
            return super().commit(batch)

    def _commit(self, commit: Commit) -> Head | Refused:
        result = super()._commit(commit)
        if isinstance(result, Head) and len(commit.append) > 1:
            whole = self._logs[commit.ref]
            for missing in range(len(commit.append), -1, -1):
                self._logs[commit.ref] = whole[: len(whole) - missing]
                time.sleep(0.0005)
        return result


# --- Deleting, forgetting, hiding ---


@mutant
class RevivesATombstone(Mutant):
    def change(self, commit: Commit) -> Commit:
        head = self._heads.get(commit.ref)
        late = head is not None and head.dead and commit.append and not commit.base
        return replace(commit, if_rev=head.rev) if late and head else commit


@mutant
class LeavesNoTombstone(Mutant):
    def _commit(self, commit: Commit) -> Head | Refused:
        result = super()._commit(commit)
        if commit.delete and isinstance(result, Head):
            del self._heads[commit.ref]
        return result


@mutant
class NumbersFromOneAgain(Mutant):
    def _commit(self, commit: Commit) -> Head | Refused:
        head = self._heads.get(commit.ref)
        if head and head.dead and commit.if_rev == head.rev:
            self._heads[commit.ref] = replace(head, last=0, base=0)
        return super()._commit(commit)


@mutant
class KeepsTheLogOfTheDeleted(Mutant):
    def _commit(self, commit: Commit) -> Head | Refused:
        log = self._logs.get(commit.ref, [])
        result = super()._commit(commit)
        if commit.delete and isinstance(result, Head):
            self._logs[commit.ref] = log
        return result


@mutant
class ForgetsNothing(Mutant):
    def _commit(self, commit: Commit) -> Head | Refused:
        log = list(self._logs.get(commit.ref, []))
        result = super()._commit(commit)
        if commit.trim is not None and isinstance(result, Head):
            kept = [e for e in log if e.seq <= commit.trim]
            self._logs[commit.ref] = kept + [e for e in self._logs[commit.ref] if e.seq > commit.trim]
        return result


@mutant
class RemembersForgottenKeys(Mutant):
    def _commit(self, commit: Commit) -> Head | Refused:
        ids = dict(self._ids.get(commit.ref, {}))
        result = super()._commit(commit)
        if commit.trim is not None and isinstance(result, Head):
            self._ids[commit.ref] |= ids
        return result


@mutant
class ShowsHiddenEntries(Mutant):
    def read(self, ref: Ref, **options: Any) -> list[Entry]:
        return super().read(ref, **(options | {"voided": True}))


@mutant
class NeverShowsAgain(Mutant):
    def change(self, commit: Commit) -> Commit:
        return replace(commit, void=[r for r in commit.void if r.hide])


@mutant
class LimitsBeforeItHides(Mutant):
    def read(self, ref: Ref, *, voided: bool = False, **options: Any) -> list[Entry]:
        return [e for e in super().read(ref, voided=True, **options) if voided or not e.void]
