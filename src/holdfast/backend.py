"""The seam: what an engine must do to keep a store.

Few verbs over bytes. A backend that passes `holdfast.testing.contract` is a backend; nothing above this line knows
which one it is. What is built once above the seam (counters, idempotent retries, tails, search syntax, large values)
must not be built again below it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from holdfast.errors import Corrupt
from holdfast.plan import Commit, Entry, Head, Ref, Refused

if TYPE_CHECKING:
    from holdfast.search import Node

CHUNK = 1024 * 1024
"""Bytes of a blob at the most; a larger value is cut into several."""

BLOB_PATIENCE = 60
"""Seconds that a writer of blobs waits for who deletes some, and the other way round."""

TextOf = Callable[[bytes], str]
"""What search looks at in a body, normalised. A backend that keeps an index is given one when it is opened, and calls
it when it indexes, so that the words of an event cost nothing on the append path. It raises `Corrupt` for what can't be
read whole; `text` on the error is what can."""


def readable(text_of: TextOf, body: bytes) -> str | None:
    """The words of a body as far as they can be read; None if none can."""
    try:
        return text_of(body)
    except Corrupt as error:
        text = error.facts.get("text")
        return text if isinstance(text, str) else None


class Hit(NamedTuple):
    """An entry that a search found. A higher `score` is a better hit; scores compare within one search only."""

    ref: Ref
    entry: Entry
    score: float


class Heads(list[Head]):
    """Heads that were found, in order. `damaged` names those left out: they, or their places, can't be trusted."""

    def __init__(self, heads: Iterable[Head] = (), damaged: Sequence[Ref] = ()) -> None:
        super().__init__(heads)
        self.damaged = tuple(damaged)


class Problem(NamedTuple):
    """Something `verify` found wrong. `ref` and `seq` say where, as far as that can be told."""

    ref: Ref | None
    seq: int | None
    what: str


class Blobs(Protocol):
    """Bytes under their SHA-256 (lower-case hex), at most `CHUNK` each, stored once.

    Who puts bytes that a commit will refer to holds `shared` from before the put until after the commit, and who
    deletes holds `exclusive` while it looks for references; so no bytes go that somebody is about to refer to.
    """

    def put(self, digest: str, data: bytes) -> None:
        """Store the bytes, durably; what is there already under their digest is left alone, unless it is damaged."""
        ...

    def get(self, digest: str) -> bytes | None:
        """The bytes, or None. Raises `Corrupt` if they do not match their digest."""
        ...

    def delete(self, digest: str) -> bool:
        """Remove the bytes; False if they were not there."""
        ...

    def scan(self, after: str = "", limit: int = 1000) -> list[str]:
        """The digests that are there, in order, from the first above `after`."""
        ...

    def shared(self) -> AbstractContextManager[None]:
        """Keep deleters out, of all threads and processes; others may put meanwhile. It ends with the process.

        A thread that holds it must not ask for it again.

        Raises:
            Unavailable: somebody deleted all the time.
        """
        ...

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep everybody else who holds either out, and new ones waiting.

        Raises:
            Unavailable: somebody held it all the time.
        """
        ...


class Backend(Protocol):
    """One engine's store. All methods may be called from any thread at once."""

    blobs: Blobs

    def commit(self, batch: Sequence[Commit]) -> list[Head | Refused]:
        """Make commits in order, each on its own, as `plan` says; all are durable on return.

        A head that can't be trusted can only be deleted: `plan` is given what is left of it, with a `last` and a `rev`
        that nobody has been told.

        Raises:
            Corrupt: a head can't be trusted; nothing of the whole batch was stored.
            Unavailable: nothing of the whole batch was stored.
            Uncertain: it can't be told.
        """
        ...

    def get(self, refs: Sequence[Ref]) -> list[Head | None]:
        """The heads, tombstones included; None where there never was one.

        Raises:
            Corrupt: a head is there but can't be trusted.
        """
        ...

    def read(
        self,
        ref: Ref,
        *,
        after: int = 0,
        upto: int | None = None,
        ids: Sequence[str] | None = None,
        limit: int | None = None,
        reverse: bool = False,
        voided: bool = False,
    ) -> list[Entry]:
        """Entries with `after < seq <= upto`, in order of seq (or reversed), voided ones only when asked for.

        With `ids`, only those that carry one of them. An entry that can't be trusted comes with its `fault` said.
        One call sees one state: never half a commit.
        """
        ...

    def find(
        self,
        kind: str,
        tags: Mapping[str, str | None],
        *,
        after: tuple[int, str] | None = None,
        limit: int = 100,
        dead: bool = False,
        trashed: bool = False,
    ) -> Heads:
        """Living heads that carry all the tags (None: lack it), newest first: by `(at, id)` falling, below `after`.

        With `dead`, tombstones instead of living heads; they carry no tags. With `trashed`, those that were put away,
        which are not found otherwise, and must cost a list of the living nothing. A head that changes while pages are
        turned moves to the front, where the next page does not look.
        One that can't be trusted is left out, so that it hides no other, and named in `damaged`. It does not count for
        `limit`: fewer heads than that are the end.
        """
        ...

    def scan(self, kind: str, after: str = "", limit: int = 1000, *, trashed: bool = False) -> Heads:
        """Living heads by id, code point by code point, from the first above `after`: changes move none of them.

        With `trashed`, those that were put away instead.

        One that can't be trusted is left out, and named in `damaged`, as by `find`.
        """
        ...

    def kinds(self) -> list[str]:
        """The kinds of which there are, or were, heads; in order."""
        ...

    def search(
        self,
        kind: str,
        query: Node,
        *,
        id: str | None = None,
        tags: Mapping[str, str | None] | None = None,
        newest: bool = False,
        offset: int = 0,
        limit: int = 100,
    ) -> list[Hit]:
        """Entries not voided that match, best first, or newest first by their time; of one head when `id` is given.

        Those of heads that were put away are left out.
        Every entry that was committed before the call is considered.
        """
        ...

    def index(self) -> int:
        """Bring the search index up to date now; the number of entries that were added to it."""
        ...

    def changed(self, since: str | None = None) -> tuple[str, list[Ref]]:
        """Where the store stands now, and which heads changed, or whose logs did, since it stood at `since`.

        Each commit that could not be seen then and can now is told of, whatever times it carries, in whatever order
        commits came to be seen, deletions included. `since` is what any opening of this store answered, by any
        process; None is the beginning of a watch, which tells of nobody. More may be told than changed; of everything
        where the engine can't tell any more. Otherwise the cost does not grow with the store.

        Raises:
            Invalid: `since` is of another store, or no position.
        """
        ...

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` soon after any commit, of any process; late, lost, needless calls are allowed. Returns a stop.

        What `wake` raises is logged: it fails no commit, and no one else who listens.
        """
        ...

    def compact(self) -> None:
        """Give back the space of what was deleted or trimmed, and leave no byte of it in any file, index and log.

        It may take as long as copying the store, while others read and no one writes; nothing that is there changes.

        Raises:
            Unavailable: it could not be done now, or not to the end; nothing was lost.
        """
        ...

    def verify(self) -> list[Problem]:
        """Read everything the engine keeps and say what is damaged."""
        ...

    def info(self) -> Mapping[str, str]:
        """Facts for a person: engine, versions, durability, sizes."""
        ...

    def close(self) -> None:
        """Give everything back; a second call does nothing."""
        ...


@runtime_checkable
class Repairing(Protocol):
    """A backend whose lists could part from what they are made of, and can be made again."""

    def repair(self) -> int:
        """Make the lists again from the heads; how many places were wrong or missing.

        Raises:
            Unavailable: not all could be done; a second call goes on.
        """
        ...
