"""Faults in what is kept of values, and in what outlives closing."""

from __future__ import annotations

import contextlib
import json
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from holdfast.backend import TextOf
from holdfast.plan import Commit, Entry, Head, Ref, Refused
from mutants import Mutant, mutant

replace = msgspec.structs.replace


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


@mutant
class LetsDeletersIn(Mutant):
    """Bytes may go between their put and the commit that refers to them."""

    machine = False

    def __init__(self, text_of: TextOf) -> None:
        super().__init__(text_of)
        self.blobs.shared = contextlib.nullcontext  # type: ignore[method-assign]


@mutant
class KnowsOneKind(Mutant):
    machine = False

    def kinds(self) -> list[str]:
        return ["session"]
