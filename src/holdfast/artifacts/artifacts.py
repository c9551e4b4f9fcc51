"""The artifacts of a session: named bytes that its tools made, kept once each in the blob store.

An artifact is an event that names its bytes by their SHA-256. The newest one of a name is what the name stands for, and
one that says `deleted` takes it away. Each has the id that `keys.artifact_id` gives its number, and a counter of the
head tells how many there are: so they are read without the rest of the log, and a fork finds its parent's.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import quote

import msgspec

from holdfast import codec
from holdfast.backend import CHUNK
from holdfast.errors import Corrupt, Invalid, NotFound, Stale, TooLarge
from holdfast.events.keys import artifact_id
from holdfast.heads.info import EDIT, body_of, now
from holdfast.history.ancestry import seen_with_ids, stored
from holdfast.model import Artifact, Large
from holdfast.parts import LargeRef
from holdfast.plan import Commit, Entry, Head, Refused, check_text
from holdfast.refusals import refusal
from holdfast.storage import Storage

if TYPE_CHECKING:
    from holdfast.log import Log

PAGE = 500
"""Artifacts that are read at a time."""
TRIES = 200
"""How often a change starts over when others store artifacts of the session at the same time."""
MAX_NAME = 1024
"""Bytes of UTF-8 that an artifact's name may take."""
LIMITS = ("max_artifacts", "max_artifact_bytes")
"""Keys of a session's config: how many artifacts it may have, and how many bytes all of them may take."""


class Artifacts:
    """The artifacts of one session; of a fork, also those that its parent had when it was forked.

    The first look at them costs as much as the session ever had artifacts, however long its log is; a later one by the
    same object what came since.
    """

    def __init__(self, store: Storage, session: Log, fence: Callable[[], Mapping[str, str | None] | None]) -> None:
        self._store = store
        self._session = session
        self._fence = fence
        self._seen = Seen()

    def put(
        self,
        name: str,
        data: bytes | str | BinaryIO,
        *,
        media_type: str | None = None,
        tool: str | None = None,
        uri: str | None = None,
        shown: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        max_artifacts: int | None = None,
        max_artifact_bytes: int | None = None,
    ) -> Artifact:
        """Keep bytes, a text or what a binary stream gives under a name, which stood for other bytes before, maybe.

        Equal bytes are stored once in a store. The call may be repeated: what is there already stays.

        Args:
            tool: The tool that made it.
            uri: Any URI by which it is known elsewhere, kept as it is; `a3s://artifact/<name>/<16 of the digest>` if
                not given.
            shown: Bytes of it that the model was shown.
            max_artifacts, max_artifact_bytes: Refuse it if the session would have more artifacts than that, or all of
                them together more bytes. If not given, what the session's config says under these names counts.

        Raises:
            TooLarge: a limit would be exceeded; nothing was taken away to make room.
            Invalid: the name is empty or no text, or a limit is negative.
            NotFound, Deleted: the session is not there.
        """
        check_text(name, "artifact's name", MAX_NAME)
        if not name:
            raise Invalid("the artifact's name is empty; give it at least one character")
        head = self._store.head(self._session.id)
        limits = Limits(body_of(head).get("config", {}), max_artifacts, max_artifact_bytes)
        stream = io.BytesIO(data.encode() if isinstance(data, str) else data) if isinstance(data, str | bytes) else data
        with self._store.large.hold:
            ref = self._store.large.put(cast("BinaryIO", limits.bounded(stream)), "bytes")
            made = Artifact(
                name=name, sha256=ref.sha256, size=ref.size, media_type=media_type, tool=tool, shown=shown,
                uri=uri or uri_of("artifact", name, ref.sha256),
                metadata=None if metadata is None else dict(metadata), large={"content": ref},
            )  # fmt: skip
            return self._change(made, limits)

    def _change(self, made: Artifact, limits: Limits | None) -> Artifact:
        """Store what is to be said of a name, unless it is so already."""
        body = codec.encode(made, self._store.large)
        for _ in range(TRIES):
            head = self._store.head(self._session.id)
            there = self._newest(head)
            old = there.get(made.name)
            if old is not None and old[0].body == body:
                return old[1]
            if limits is not None:
                limits.check(made, [artifact for name, (_, artifact) in there.items() if name != made.name])
            if self._stored(head, body):
                return cast("Artifact", codec.decode(body, self._store.large))
        raise Stale(f"the artifacts of session {self._session.id!r} changed {TRIES} times meanwhile; try again")

    def _stored(self, head: Head, body: bytes) -> bool:
        """Append an artifact event if the artifacts are still those of this head; False if not."""
        at, number = now(), head.counts.get("artifacts", 0) + 1
        commit = Commit(
            ref=head.ref,
            at=at,
            if_tags={**(self._fence() or {}), EDIT: head.tags.get(EDIT)},
            append=[Entry(artifact_id(number), at, body)],
            add={"artifacts": 1},
        )
        result = self._store.batcher.commit(commit)
        if not isinstance(result, Refused):
            return True
        edited = result.head is not None and result.head.tags.get(EDIT) != head.tags.get(EDIT)
        if result.why == "known" or (result.why == "tags" and edited):
            return False
        raise refusal(result, commit)

    def list(self, *, tool: str | None = None) -> list[Artifact]:
        """What there is, the newest of each name, in the order in which they were put; of one `tool`, maybe.

        Raises:
            Corrupt: an artifact's event is damaged.
            NotFound, Deleted: the session is not there.
        """
        there = self._newest(self._store.head(self._session.id, trashed=True))
        return [artifact for _, artifact in there.values() if tool is None or artifact.tool == tool]

    def stat(self, name: str) -> Artifact | None:
        """What is known of an artifact by its name or URI; None if there is none. Its bytes are not read."""
        there = self._newest(self._store.head(self._session.id, trashed=True))
        if name in there:
            return there[name][1]
        return next((artifact for _, artifact in list(there.values())[::-1] if artifact.uri == name), None)

    def get(self, name: str) -> bytes | None:
        """All bytes of an artifact, by its name or URI; None if there is none.

        Raises:
            Corrupt: they are not those that were put.
        """
        artifact = self.stat(name)
        return None if artifact is None else b"".join(_chunks(artifact))

    def read(self, name: str) -> Iterator[bytes]:
        """An artifact's bytes, in pieces of up to 1 MiB, so that one of any size fits in memory.

        `stat(name).content.open()` is a binary stream of them.

        Raises:
            NotFound: there is none of this name or URI.
            Corrupt: they are not those that were put; told by the end at the latest.
        """
        artifact = self.stat(name)
        if artifact is None:
            raise NotFound(f"session {self._session.id!r} has no artifact {name!r}", session=self._session.id)
        return _chunks(artifact)

    def delete(self, name: str) -> bool:
        """Take an artifact away, by its name or URI; False if there is none. An event says so, nothing is erased.

        The bytes go with a sweep, once no event of the log refers to them any more; see `Store.check`.
        """
        artifact = self.stat(name)
        if artifact is None:
            return False
        self._change(Artifact(name=artifact.name, deleted=True), None)
        return True

    def _newest(self, head: Head) -> Mapping[str, tuple[Entry, Artifact]]:
        """The newest artifact of each name, and the event that tells of it."""
        count = head.counts.get("artifacts", 0)
        view = (head.tags.get("created"), head.tags.get(EDIT))
        seen = self._seen if self._seen.view == view and self._seen.count <= count else Seen(view)
        if seen.count < count:
            found = dict(seen.found)
            entries = _numbered(self._store, head, seen.count, count)
            if len(entries) < count - seen.count:  # some were appended with ids of their own: then the log tells
                found = {}
                entries = [entry for entry in stored(self._store, head) if b'"artifact"' in entry.body]
            for entry in entries:
                self._take(entry, found)
            seen = Seen(view, count, found)
        self._seen = seen
        return seen.found

    def _take(self, entry: Entry, found: dict[str, tuple[Entry, Artifact]]) -> None:
        if entry.fault:
            id = self._session.id
            raise Corrupt(
                f"event {entry.seq} of session {id!r}, an artifact, is damaged: {entry.fault}",
                session=id,
                seq=entry.seq,
            )
        payload = codec.decode(entry.body, self._store.large)
        if not isinstance(payload, Artifact) or entry.void:
            return
        found.pop(payload.name, None)
        if not payload.deleted:
            found[payload.name] = entry, payload


class Seen(msgspec.Struct, frozen=True):
    """The artifacts as a head told of them: when it was created and its newest edit, how many events, what they say."""

    view: tuple[str | None, str | None] = (None, None)
    count: int = 0
    found: Mapping[str, tuple[Entry, Artifact]] = {}


def _numbered(store: Storage, head: Head, after: int, upto: int) -> list[Entry]:
    """The artifact events with these numbers, hidden or not."""
    found: list[Entry] = []
    for first in range(after + 1, upto + 1, PAGE):
        ids = [artifact_id(number) for number in range(first, min(first + PAGE, upto + 1))]
        found += seen_with_ids(store, head, ids)
    return sorted(found, key=lambda entry: entry.seq)


def _chunks(artifact: Artifact) -> Iterator[bytes]:
    if not isinstance(artifact.content, Large):
        raise Corrupt(f"the bytes of artifact {artifact.name!r} were never stored here", sha256=artifact.sha256)
    whole = hashlib.sha256()
    with artifact.content.open() as stream:
        while chunk := stream.read(CHUNK):
            whole.update(chunk)
            yield chunk
    if whole.hexdigest() != artifact.sha256:
        raise Corrupt(f"artifact {artifact.name!r} does not hold the bytes that were put", sha256=artifact.sha256)


def uri_of(kind: str, name: str, sha256: str) -> str:
    """The URI of an artifact that has none of its own: `a3s://<kind>/<name>/<the first 16 of its digest>`."""
    return f"a3s://{kind}/{quote(name, safe='', errors='replace')}/{sha256[:16]}"


def artifact_of(name: str, ref: LargeRef, **fields: Any) -> Artifact:
    """An artifact whose bytes are stored already, to be appended."""
    return Artifact(name=name, sha256=ref.sha256, size=ref.size, large={"content": ref}, **fields)


class Limits:
    """What a session's artifacts may come to."""

    def __init__(self, config: Mapping[str, Any], count: int | None, size: int | None) -> None:
        self.count, self.size = (
            config.get(name) if given is None else given for name, given in zip(LIMITS, (count, size), strict=True)
        )
        for name, limit in zip(LIMITS, (self.count, self.size), strict=True):
            if limit is not None and (not isinstance(limit, int) or limit < 0):
                raise Invalid(f"{name} is a whole number, 0 or more, not {limit!r:.40}", limit=limit)

    def bounded(self, stream: BinaryIO) -> Any:
        """The stream, which is read no further than any artifact may be long."""
        return stream if self.size is None else _Bounded(stream, self.size)

    def check(self, made: Artifact, others: list[Artifact]) -> None:
        """Refuse an artifact that would exceed the limits beside the others."""
        if self.count is not None and len(others) + 1 > self.count:
            raise TooLarge(
                f"the session would have {len(others) + 1:,} artifacts, the limit is {self.count:,}; delete some first",
                limit=self.count,
            )
        total = made.size + sum(artifact.size for artifact in others)
        if self.size is not None and total > self.size:
            raise _exceeded(self.size, f"would take {total:,} bytes")


class _Bounded:
    """A binary stream that raises when it gives more than it may."""

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self._stream = stream
        self._limit = self._left = limit

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise _exceeded(self._limit, "would take more")
        return data


def _exceeded(limit: int, what: str) -> TooLarge:
    return TooLarge(
        f"the session's artifacts {what}, the limit is {limit:,} bytes; delete some first, or raise max_artifact_bytes",
        limit=limit,
    )
