"""Backends broken on purpose: each is the reference with one fault, of the kind that backends are born with."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import ClassVar

from holdfast.backends.memory import MemoryBackend
from holdfast.plan import Commit, Head, Refused


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


_all: list[type[Mutant]] = []


def mutant(cls: type[Mutant]) -> type[Mutant]:
    """Mark a class as one that must be caught."""
    _all.append(cls)
    return cls


def mutants_of(family: ModuleType) -> list[type[Mutant]]:
    """Those that a module defines."""
    return [cls for cls in _all if cls.__module__ == family.__name__]
