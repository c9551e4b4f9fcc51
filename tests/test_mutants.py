"""The suite itself is tested: backends broken on purpose, each of which it must catch.

Every mutant is the reference with one fault, the kind that backends are born with. A mutant that survives names a
promise which nothing checks.
"""

from __future__ import annotations

import json
import threading
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

import holdfast
from holdfast import user
from holdfast.backend import Backend, Hit, TextOf
from holdfast.backends.filelogs import LogBodies
from holdfast.backends.memory import MemoryBackend
from holdfast.plan import Commit, Entry, Head, Ref, Refused
from holdfast.search import Node
from holdfast.testing import BackendContract, BackendMachine, failures

replace = msgspec.structs.replace


class Mutant(MemoryBackend):
    """No fault yet: the reference, which what is opened later in the same folder shares."""

    machine: ClassVar[bool] = True
    """Whether the state machine must catch it too: it uses no threads, no blobs, and opens nothing twice."""

    def change(self, commit: Commit) -> Commit:
        """What is done instead of a commit."""
        return commit

    def commit(self, batch: Sequence[Commit]) -> list[Head | Refused]:
        return super().commit([self.change(commit) for commit in batch])

    def close(self) -> None:
        pass


MUTANTS: list[type[Mutant]] = []


def mutant(cls: type[Mutant]) -> type[Mutant]:
    MUTANTS.append(cls)
    return cls


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
            self._ids[commit.ref] = {e.id for e in self._logs[commit.ref] if e.id and not e.void}
        return result


@mutant
class LooksAtTheFirstKeyOnly(Mutant):
    def _commit(self, commit: Commit) -> Head | Refused:
        known = self._ids.get(commit.ref, set())
        self._ids[commit.ref] = {e.id for e in commit.append[:1]} & known
        result = super()._commit(commit)
        self._ids[commit.ref] = {e.id for e in self._logs.get(commit.ref, ()) if e.id}
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
        log = self._logs.get(commit.ref, [])
        result = super()._commit(commit)
        if commit.trim is not None and isinstance(result, Head):
            kept = [e for e in log if e.seq <= commit.trim]
            self._logs[commit.ref] = kept + [e for e in self._logs[commit.ref] if e.seq > commit.trim]
        return result


@mutant
class RemembersForgottenKeys(Mutant):
    def _commit(self, commit: Commit) -> Head | Refused:
        ids = self._ids.get(commit.ref, set())
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


# --- Reading ---


@mutant
class LimitsBeforeItReverses(Mutant):
    def read(self, ref: Ref, *, reverse: bool = False, **options: Any) -> list[Entry]:
        found = super().read(ref, **options)
        return found[::-1] if reverse else found


@mutant
class TakesTheEndAsOpen(Mutant):
    def read(self, ref: Ref, *, upto: int | None = None, **options: Any) -> list[Entry]:
        return super().read(ref, upto=None if upto is None else upto - 1, **options)


@mutant
class TakesZeroForNoLimit(Mutant):
    def read(self, ref: Ref, *, limit: int | None = None, **options: Any) -> list[Entry]:
        return super().read(ref, limit=limit or None, **options)


@mutant
class TakesNoIdsForAll(Mutant):
    def read(self, ref: Ref, *, ids: Sequence[str] | None = None, **options: Any) -> list[Entry]:
        return super().read(ref, ids=ids or None, **options)


@mutant
class OrdersByTime(Mutant):
    def read(self, ref: Ref, **options: Any) -> list[Entry]:
        found = super().read(ref, **options)
        return sorted(found, key=lambda e: e.at, reverse=options.get("reverse", False))


# --- Exactness ---


@mutant
class FoldsIdsByCase(Mutant):
    def change(self, commit: Commit) -> Commit:
        return replace(commit, ref=self._folded(commit.ref))

    def get(self, refs: Sequence[Ref]) -> list[Head | None]:
        return super().get([self._folded(ref) for ref in refs])

    def read(self, ref: Ref, **options: Any) -> list[Entry]:
        return super().read(self._folded(ref), **options)

    def _folded(self, ref: Ref) -> Ref:
        return Ref(ref.kind, ref.id.casefold())


@mutant
class ComposesAccents(FoldsIdsByCase):
    def _folded(self, ref: Ref) -> Ref:
        return Ref(ref.kind, unicodedata.normalize("NFC", ref.id))


@mutant
class ReplacesSlashes(FoldsIdsByCase):
    def _folded(self, ref: Ref) -> Ref:
        return Ref(ref.kind, ref.id.replace("/", "_"))


@mutant
class WritesJSONAnew(Mutant):
    machine = False  # its bodies are plain words

    def change(self, commit: Commit) -> Commit:
        return replace(commit, append=[replace(e, body=self._anew(e.body)) for e in commit.append])

    def _anew(self, body: bytes) -> bytes:
        try:
            return json.dumps(json.loads(body)).encode()
        except ValueError:
            return body


@mutant
class StoresTextOnly(Mutant):
    def change(self, commit: Commit) -> Commit:
        def as_text(e: Entry) -> Entry:
            return replace(e, body=e.body.decode("utf-8", "replace").encode())

        return replace(commit, append=[as_text(e) for e in commit.append])


@mutant
class LosesTheTimeOfEntries(Mutant):
    def change(self, commit: Commit) -> Commit:
        return replace(commit, append=[replace(e, at=commit.at) for e in commit.append])


@mutant
class OverwritesCounters(Mutant):
    def change(self, commit: Commit) -> Commit:
        head = self._heads.get(commit.ref)
        if not commit.add or head is None or head.dead:
            return commit
        return replace(commit, add={name: more - head.counts.get(name, 0) for name, more in commit.add.items()})


@mutant
class LetsDefaultsWin(Mutant):
    def change(self, commit: Commit) -> Commit:
        return replace(commit, tags={**(commit.tags or {}), **(commit.defaults or {})})


@mutant
class KeepsRemovedTags(Mutant):
    def change(self, commit: Commit) -> Commit:
        return replace(commit, tags={n: v for n, v in (commit.tags or {}).items() if v is not None})


@mutant
class MovesTheClockBack(Mutant):
    def _commit(self, commit: Commit) -> Head | Refused:
        result = super()._commit(commit)
        if isinstance(result, Head) and commit.at:
            result = self._heads[commit.ref] = replace(result, at=commit.at)
        return result


# --- Listing ---


@mutant
class ListsEqualTimesTheOtherWay(Mutant):
    def find(self, kind: str, tags: Mapping[str, str | None], **options: Any) -> list[Head]:
        return sorted(super().find(kind, tags, **options), key=lambda h: (-h.at, h.ref.id))


@mutant
class SkipsEqualTimesBetweenPages(Mutant):
    def find(
        self, kind: str, tags: Mapping[str, str | None], *, after: tuple[int, str] | None = None, limit: int = 100
    ) -> list[Head]:
        return super().find(kind, tags, after=None if after is None else (after[0], ""), limit=limit)


@mutant
class RepeatsTheLastOfAPage(Mutant):
    def find(
        self, kind: str, tags: Mapping[str, str | None], *, after: tuple[int, str] | None = None, limit: int = 100
    ) -> list[Head]:
        return super().find(kind, tags, after=None if after is None else (after[0], after[1] + "\0"), limit=limit)


@mutant
class FiltersAfterTheLimit(Mutant):
    def find(
        self, kind: str, tags: Mapping[str, str | None], *, after: tuple[int, str] | None = None, limit: int = 100
    ) -> list[Head]:
        fitting = {h.ref for h in super().find(kind, tags, limit=10**6)}
        return [h for h in super().find(kind, {}, after=after, limit=limit) if h.ref in fitting]


@mutant
class TakesTheLackOfATagForAnyTag(Mutant):
    def find(self, kind: str, tags: Mapping[str, str | None], **options: Any) -> list[Head]:
        return super().find(kind, {n: v for n, v in tags.items() if v is not None}, **options)


@mutant
class ListsTheDeleted(Mutant):
    def find(self, kind: str, tags: Mapping[str, str | None], **options: Any) -> list[Head]:
        found = super().find(kind, tags, **options)
        return [*found, *(h for h in self._heads.values() if h.dead and h.ref.kind == kind and not tags)]


@mutant
class ListsByTagsOfOld(Mutant):
    """An index that a change of tags does not reach."""

    def find(self, kind: str, tags: Mapping[str, str | None], **options: Any) -> list[Head]:
        found = super().find(kind, {}, **options)
        return [h for h in found if all(self._first(h).get(n) == v for n, v in tags.items())]

    def _first(self, head: Head) -> Mapping[str, str]:
        if not hasattr(self, "_old"):
            self._old: dict[Ref, Mapping[str, str]] = {}
        return self._old.setdefault(head.ref, head.tags)

    def _commit(self, commit: Commit) -> Head | Refused:
        result = super()._commit(commit)
        if isinstance(result, Head):
            self._first(result)
        return result


# --- Searching ---


class Searched(Mutant):
    """Searches something else than what is there."""

    def __init__(self, text_of: TextOf) -> None:
        super().__init__(text_of)
        self.shadow = MemoryBackend(text_of)

    def index_instead(self, commit: Commit) -> Commit | None:
        return commit

    def commit(self, batch: Sequence[Commit]) -> list[Head | Refused]:
        results = super().commit(batch)
        for commit, result in zip(batch, results, strict=True):
            if isinstance(result, Head) and (instead := self.index_instead(commit)) is not None:
                self.shadow.commit([replace(instead, if_last=None, if_tags=None)])
        return results

    def search(self, kind: str, query: Node, **options: Any) -> list[Hit]:
        return self.shadow.search(kind, query, **options)


@mutant
class SearchesHiddenEntries(Searched):
    def index_instead(self, commit: Commit) -> Commit:
        return replace(commit, void=(), append=[replace(e, void=False) for e in commit.append])


@mutant
class SearchesForgottenEntries(Searched):
    def index_instead(self, commit: Commit) -> Commit:
        return replace(commit, trim=None)


@mutant
class SearchesByTagsOfOld(Searched):
    def index_instead(self, commit: Commit) -> Commit:
        return commit if commit.if_rev == 0 else replace(commit, tags=None, defaults=None)


@mutant
class SearchesTheDeleted(Mutant):
    def search(self, kind: str, query: Node, **options: Any) -> list[Hit]:
        where = {ref: head for ref, head in self._heads.items() if head.dead}
        for ref, head in where.items():
            self._heads[ref] = replace(head, dead=False)
        try:
            return super().search(kind, query, **options)
        finally:
            self._heads.update(where)

    def _commit(self, commit: Commit) -> Head | Refused:
        log = self._logs.get(commit.ref, [])
        result = super()._commit(commit)
        if commit.delete and isinstance(result, Head):
            self._logs[commit.ref] = log
        return result

    def read(self, ref: Ref, **options: Any) -> list[Entry]:
        head = self._heads.get(ref)
        return [] if head and head.dead else super().read(ref, **options)


@mutant
class SearchesWithoutTheTail(Searched):
    """A stale index: what came since the last look is found by the search after the next."""

    def __init__(self, text_of: TextOf) -> None:
        super().__init__(text_of)
        self.waiting: list[Commit] = []

    def index_instead(self, commit: Commit) -> None:
        self.waiting.append(replace(commit, if_last=None, if_tags=None))

    def search(self, kind: str, query: Node, **options: Any) -> list[Hit]:
        found = super().search(kind, query, **options)
        self.index()
        return found

    def index(self) -> int:
        waiting, self.waiting = self.waiting, []
        self.shadow.commit(waiting)
        return len(waiting)


@mutant
class SearchesEveryone(Mutant):
    def search(self, kind: str, query: Node, **options: Any) -> list[Hit]:
        return super().search(kind, query, **(options | {"tags": None}))


@mutant
class SearchesEveryLog(Mutant):
    def search(self, kind: str, query: Node, **options: Any) -> list[Hit]:
        return super().search(kind, query, **(options | {"id": None}))


@mutant
class HitsWithoutASecondPage(Mutant):
    def search(self, kind: str, query: Node, *, offset: int = 0, **options: Any) -> list[Hit]:
        return [] if offset else super().search(kind, query, **options)


# --- Sharing, lasting, blobs ---


@mutant
class WritesLate(Mutant):
    """Acknowledges the last commit before it is kept."""

    def close(self) -> None:
        with self._lock:
            log = next((log for log in reversed(self._logs.values()) if log), [])
            del log[-1:]


@mutant
class WakesNobody(Mutant):
    machine = False

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        return lambda: None


@mutant
class LosesBlobs(Mutant):
    machine = False

    def __init__(self, text_of: TextOf) -> None:
        super().__init__(text_of)
        self.blobs.get = lambda digest: None  # type: ignore[method-assign]


# --- The proof ---


def opened(kind: type[Mutant]) -> Callable[[Any, Path, TextOf], Backend]:
    """A `make` under which all that is opened in one folder is one store, as with a file."""
    stores: dict[Path, Backend] = {}
    guard = threading.Lock()

    def make(self: Any, place: Path, text_of: TextOf) -> Backend:
        with guard:
            return stores.setdefault(place, kind(text_of))

    return make


def contract_of(kind: type[Mutant]) -> type[BackendContract]:
    return type("MutantContract", (BackendContract,), {"make": opened(kind)})


def run_machine(kind: type[Mutant], examples: int = 400) -> None:
    machine = type("MutantMachine", (BackendMachine,), {"make": opened(kind)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            print_blob=False,
            deadline=None,
        ),
    )


def test_what_is_not_broken_passes() -> None:
    assert list(failures(contract_of(Mutant))) == []
    run_machine(Mutant, 100)


@pytest.mark.parametrize("kind", MUTANTS, ids=lambda kind: kind.__name__)
def test_the_examples_catch_what_is_broken(kind: type[Mutant], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.testing.subject.PATIENCE", 0.5)
    caught = next(failures(contract_of(kind)), None)
    assert caught is not None, f"{kind.__name__} passes every example of the contract"


@pytest.mark.parametrize("kind", [kind for kind in MUTANTS if kind.machine], ids=lambda kind: kind.__name__)
def test_the_machine_catches_what_is_broken(kind: type[Mutant]) -> None:
    with pytest.raises((AssertionError, LookupError, ExceptionGroup)):
        run_machine(kind)


# --- Torn lines: only a store of log files has them ---


def tear_a_line(place: Path) -> None:
    """A crash in the middle of a write; what came before and comes after must be whole, also for whoever reads logs."""
    url = f"file://{place}/store?durability=process"
    with holdfast.open(url) as store:
        store.create("s").append(user("one"), user("two"))
    (log,) = (place / "store").glob("logs/**/*.jsonl")
    with log.open("ab") as file:
        file.write(b'{"v":1,"append":[{"torn')
    with holdfast.open(url) as store:
        assert store.session("s").append(user("three")).first == 3
    for line in log.read_bytes().splitlines():
        json.loads(line)
    for index in (place / "store").glob("index.db*"):
        index.unlink()  # it can be rebuilt from the logs
    with holdfast.open(url) as store:
        assert [m.text for m in store.session("s").messages()] == ["one", "two", "three"]
        assert store.check().ok


def test_a_torn_line_is_set_aside(tmp_path: Path) -> None:
    tear_a_line(tmp_path)


def test_a_glued_line_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LogBodies, "meet", lambda self, db, ref: False)
    with pytest.raises(json.JSONDecodeError):
        tear_a_line(tmp_path)
