"""Faults in reading, listing and searching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from holdfast.backend import Heads, Hit, TextOf
from holdfast.backends.memory import MemoryBackend
from holdfast.plan import TRASHED, Commit, Entry, Head, Ref, Refused
from holdfast.search import Node
from mutants import Mutant, mutant

replace = msgspec.structs.replace


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


# --- Listing ---


@mutant
class ListsEqualTimesTheOtherWay(Mutant):
    def find(self, kind: str, tags: Mapping[str, str | None], **options: Any) -> Heads:
        return Heads(sorted(super().find(kind, tags, **options), key=lambda h: (-h.at, h.ref.id)))


@mutant
class SkipsEqualTimesBetweenPages(Mutant):
    def find(
        self, kind: str, tags: Mapping[str, str | None], *, after: tuple[int, str] | None = None, **options: Any
    ) -> Heads:
        return super().find(kind, tags, after=None if after is None else (after[0], ""), **options)


@mutant
class RepeatsTheLastOfAPage(Mutant):
    def find(
        self, kind: str, tags: Mapping[str, str | None], *, after: tuple[int, str] | None = None, **options: Any
    ) -> Heads:
        return super().find(kind, tags, after=None if after is None else (after[0], after[1] + "\0"), **options)


@mutant
class FiltersAfterTheLimit(Mutant):
    def find(
        self, kind: str, tags: Mapping[str, str | None], *, after: tuple[int, str] | None = None, **options: Any
    ) -> Heads:
        fitting = {h.ref for h in super().find(kind, tags, **(options | {"limit": 10**6}))}
        return Heads(h for h in super().find(kind, {}, after=after, **options) if h.ref in fitting)


@mutant
class TakesTheLackOfATagForAnyTag(Mutant):
    def find(self, kind: str, tags: Mapping[str, str | None], **options: Any) -> Heads:
        return super().find(kind, {n: v for n, v in tags.items() if v is not None}, **options)


@mutant
class ListsTheDeleted(Mutant):
    def find(self, kind: str, tags: Mapping[str, str | None], **options: Any) -> Heads:
        found = super().find(kind, tags, **options)
        return Heads([*found, *(h for h in self._heads.values() if h.dead and h.ref.kind == kind and not tags)])


@mutant
class ListsByTagsOfOld(Mutant):
    """An index that a change of tags does not reach."""

    def find(self, kind: str, tags: Mapping[str, str | None], **options: Any) -> Heads:
        found = super().find(kind, {}, **options)
        return Heads(h for h in found if all(self._first(h).get(n) == v for n, v in tags.items()))

    def _first(self, head: Head) -> Mapping[str, str]:
        if not hasattr(self, "_old"):
            self._old: dict[Ref, Mapping[str, str]] = {}
        return self._old.setdefault(head.ref, head.tags)

    def _commit(self, commit: Commit) -> Head | Refused:
        result = super()._commit(commit)
        if isinstance(result, Head):
            self._first(result)
        return result


@mutant
class TakesTheOldestForDamaged(Mutant):
    def find(self, kind: str, tags: Mapping[str, str | None], **options: Any) -> Heads:
        found = super().find(kind, tags, **options)
        return Heads(found, [head.ref for head in found if head.at == 0])


@mutant
class ScansByTime(Mutant):
    """Pages of an order in which what becomes active moves."""

    def scan(self, kind: str, after: str = "", limit: int = 1000, **options: Any) -> Heads:
        behind = self._heads.get(Ref(kind, after))
        return self.find(kind, {}, after=(behind.at, after) if behind else None, limit=limit, **options)


@mutant
class ScansTheDeleted(Mutant):
    def scan(self, kind: str, after: str = "", limit: int = 1000, **options: Any) -> Heads:
        found = [h for h in self._heads.values() if h.ref.kind == kind and h.ref.id > after]
        return Heads(sorted(found, key=lambda h: h.ref.id)[:limit])


@mutant
class TellsTheDeletedAsLiving(Mutant):
    def find(self, kind: str, tags: Mapping[str, str | None], *, dead: bool = False, **options: Any) -> Heads:
        return super().find(kind, tags, **options)


@mutant
class ListsTheTrash(Mutant):
    def find(self, kind: str, tags: Mapping[str, str | None], *, trashed: bool = False, **options: Any) -> Heads:
        found = [*super().find(kind, tags, **options), *super().find(kind, tags, trashed=True, **options)]
        return Heads(sorted(found, key=lambda h: (h.at, h.ref.id), reverse=True)[: options.get("limit", 100)])


@mutant
class ScansTheTrash(Mutant):
    def scan(self, kind: str, after: str = "", limit: int = 1000, *, trashed: bool = False) -> Heads:
        found = [*super().scan(kind, after, limit), *super().scan(kind, after, limit, trashed=True)]
        return Heads(sorted(found, key=lambda h: h.ref.id)[:limit])


@mutant
class TakesTheTrashForDeleted(Mutant):
    def find(self, kind: str, tags: Mapping[str, str | None], *, trashed: bool = False, **options: Any) -> Heads:
        return Heads() if trashed else super().find(kind, tags, **options)


@mutant
class SearchesTheTrash(Mutant):
    def search(self, kind: str, query: Node, **options: Any) -> list[Hit]:
        kept = dict(self._heads)
        for ref, head in kept.items():
            self._heads[ref] = replace(head, tags={n: v for n, v in head.tags.items() if n != TRASHED})
        try:
            return super().search(kind, query, **options)
        finally:
            self._heads.update(kept)


@mutant
class TellsChangesByTime(Mutant):
    """What is imported of long ago is not told."""

    machine = False

    def __init__(self, text_of: TextOf) -> None:
        super().__init__(text_of)
        self._newest: dict[str, int] = {}

    def changed(self, since: str | None = None) -> tuple[str, list[Ref]]:
        now, _ = super().changed(since)
        self._newest[now] = max((head.at for head in self._heads.values()), default=-1)
        return now, [] if since is None else [r for r, head in self._heads.items() if head.at > self._newest[since]]


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
