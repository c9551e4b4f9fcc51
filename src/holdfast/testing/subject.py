"""What is proven: a backend that can be made fresh in an empty folder, and words to say what is done to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from holdfast import search
from holdfast.backend import Backend, TextOf
from holdfast.plan import Commit, Entry, Head, Ref, Refused, Why

PATIENCE = 20.0
"""Seconds after which something that was waited for counts as not coming."""


def text_of(body: bytes) -> str:
    """The suite's bodies are plain words in UTF-8; this is what search looks at in them."""
    return search.normalise(body.decode("utf-8", "replace"))


class Subject:
    """The hooks of a contract: say how your backend is made, whether it outlives `close`, and what a crash may do."""

    persistent: ClassVar[bool] = True
    """False for a backend that keeps nothing after `close`: it is spared the examples that open it again."""

    def make(self, place: Path, text_of: TextOf) -> Backend:
        """Open the backend whose data belongs to the folder `place`, which is empty the first time."""
        raise NotImplementedError("say how your backend is made: def make(self, place, text_of)")

    def tear(self, place: Path) -> None:
        """Leave in the closed store at `place` what a crash amid a write leaves; nothing if that can't be seen."""

    def derived(self, place: Path) -> Sequence[Path]:  # noqa: ARG002  # whoever has such files needs it
        """Those files of the closed store at `place` that are built anew from the others, such as an index: none."""
        return ()

    def reopen(self, backend: Backend, place: Path) -> Backend:
        """Close the backend, and open what it left."""
        backend.close()
        return self.make(place, text_of)

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        """An empty folder."""
        return tmp_path

    @pytest.fixture
    def backend(self, place: Path) -> Iterator[Backend]:
        """A fresh backend."""
        made = self.make(place, text_of)
        yield made
        made.close()


def ref(id: str = "s", kind: str = "session") -> Ref:
    """The name of a head."""
    return Ref(kind, id)


def entry(text: str | bytes, id: str = "", *, at: int = 0, void: bool = False) -> Entry:
    """An entry to append."""
    return Entry(id, at, text.encode() if isinstance(text, str) else text, void=void)


def entries(*texts: str) -> list[Entry]:
    """Several entries without ids."""
    return [entry(text) for text in texts]


def done(backend: Backend, of: str | Ref = "s", **changes: Any) -> Head:
    """Make one commit that must be made."""
    result = backend.commit([Commit(ref=_named(of), **changes)])
    assert len(result) == 1
    assert isinstance(result[0], Head), f"refused: {result[0]}"
    return result[0]


def created(backend: Backend, of: str | Ref = "s", **changes: Any) -> Head:
    """Create a head."""
    return done(backend, of, if_rev=0, **changes)


def refused(backend: Backend, of: str | Ref = "s", **changes: Any) -> Why:
    """Make one commit that must be refused, and leave everything as it was; why it was refused."""
    name = _named(of)
    before = backend.get([name]), backend.read(name, voided=True)
    result = backend.commit([Commit(ref=name, **changes)])
    assert isinstance(result[0], Refused), f"not refused: {result[0]}"
    assert result[0].head == before[0][0], "the refusal comes with another head than the current one"
    assert (backend.get([name]), backend.read(name, voided=True)) == before, "a refused commit left traces"
    return result[0].why


def head(backend: Backend, of: str | Ref = "s") -> Head:
    """A head that must be there."""
    found = backend.get([_named(of)])
    assert len(found) == 1
    assert found[0] is not None
    return found[0]


def texts(found: Sequence[Entry]) -> list[str]:
    """The words of entries."""
    return [e.body.decode() for e in found]


def seqs(found: Sequence[Entry]) -> list[int]:
    """The numbers of entries."""
    return [e.seq for e in found]


def ids(found: Sequence[Head]) -> list[str]:
    """The ids of heads."""
    return [h.ref.id for h in found]


def hits(backend: Backend, query: str, *, kind: str = "session", **options: Any) -> set[tuple[str, int]]:
    """Where a query hits: the ids of heads and the numbers of entries."""
    node = search.parse(query)
    assert node is not None, f"{query!r} can't hit anything"
    found = [(hit.ref.id, hit.entry.seq) for hit in backend.search(kind, node, **options)]
    assert len(found) == len(set(found)), f"an entry was hit twice: {found}"
    return set(found)


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether a condition comes true within `PATIENCE`."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def _named(of: str | Ref) -> Ref:
    return ref(of) if isinstance(of, str) else of
