"""Documents: JSON and Markdown beside the sessions, under `category/name.json` and `category/name.md`.

A document is a head of its own, without a log: its revision is the head's, so that of two who replace it at once one is
told what the other wrote. Invariant: what is stored is the source, byte for byte, and it can be read: JSON is JSON,
Markdown is UTF-8. A source of more than 64 KiB is a large value and is not held by the head. Ids are exact names, not
paths: `a..b`, `.` and `..` are names like any other. A document belongs to the user whose store it was put through, or
to the store itself; those of two users share no names.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, BinaryIO, TypeAlias, cast

import msgspec

from holdfast import codec
from holdfast.clock import now
from holdfast.documents import agents
from holdfast.documents.agents import AgentPrune
from holdfast.documents.docheads import (
    DOC,
    PAGE,
    Checked,
    Document,
    DocumentInfo,
    check_category,
    check_json,
    doc_ref,
    document_info,
    id_of,
    kind_of,
    prefix_of,
    source_of,
    text_of,
)
from holdfast.errors import Conflict, Corrupt, Deleted, Exists, Invalid, NotFound, Stale, TooLarge
from holdfast.finding.pages import Page, check_limit, cursor_of, position_of
from holdfast.heads.info import encode_body
from holdfast.plan import MAX_ID, Commit, Head, Ref
from holdfast.refusals import refusal
from holdfast.storage import Storage

TRIES = 200
REWRITE = 32
"""Changes of a document after which an engine that only appends drops what was replaced."""

Source: TypeAlias = bytes | str | BinaryIO


class Documents:
    """The documents of a store, or of the user for whom it was opened: `store.documents`."""

    def __init__(self, store: Storage) -> None:
        self._store = store

    def put(self, id: str, content: Any, *, rev: int | None = None) -> DocumentInfo:
        """Create or replace a document: any JSON value under `….json`, text under `….md`.

        Args:
            id: `category/name.json` or `category/name.md`; a category may have several parts.
            content: What to store. A value is kept exactly, but how its JSON was written is not: `write` keeps that.
            rev: The revision that must be there, 0 for none. Without, whatever is there is replaced.

        Raises:
            Exists, Stale: another revision is there; `current`, a `DocumentInfo`, and `rev` on the error say which.
            NotFound, Deleted: `rev` was stated and nothing is there.
            Uncertain: the answer was lost; read the document to learn what became of it.
            Invalid, TooLarge: the id or the content can't be stored; the message says what is wrong.
        """
        if kind_of(id) == "md":
            if not isinstance(content, str):
                raise Invalid(f"{id!r} is Markdown: its content is text, not {type(content).__name__}", document=id)
            data = content.encode("utf-8", "surrogatepass")
            return self._put(id, data, as_given=True, rev=rev)
        return self._put(id, codec.encode_json(content), as_given=False, rev=rev)

    def write(self, id: str, source: Source, *, rev: int | None = None) -> DocumentInfo:
        """Create or replace a document by its source, which is kept byte for byte; see `put` for the rest.

        Args:
            id, rev: As for `put`.
            source: The bytes, or a text, or a stream of bytes. A stream of Markdown is never held in memory as a whole.

        Raises:
            Exists, Stale, NotFound, Deleted, TooLarge: as for `put`.
            Invalid: as for `put`, or the source is no JSON, or no UTF-8.
        """
        if kind_of(id) == "md" and not isinstance(source, bytes | str):
            return self._put(id, source, as_given=True, rev=rev)
        data = source if isinstance(source, bytes | str) else source.read()
        data = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else bytes(data)
        if kind_of(id) == "json":
            check_json(id, data)
        else:
            text_of(id, data)
        return self._put(id, data, as_given=True, rev=rev)

    def _put(self, id: str, source: bytes | BinaryIO, *, as_given: bool, rev: int | None) -> DocumentInfo:
        if rev is not None and rev < 0:
            raise Invalid(f"rev is a revision, 0 or more, not {rev}", rev=rev)
        with self._store.large.hold:
            body, size = self._body(id, source)
            return self._committed(id, body, size, as_given=as_given, rev=rev)

    def _committed(self, id: str, body: bytes, size: int, *, as_given: bool, rev: int | None) -> DocumentInfo:
        ref = self._ref(id)
        for _ in range(TRIES):
            head = self._store.backend.get([ref])[0]
            found = None if head is None or head.dead else head
            if rev is not None and rev != (found.rev if found else 0):
                raise _lost(id, rev, head)
            tags = {"size": str(size), "given": "1" if as_given else None}
            commit = Commit(ref=ref, at=now(), if_rev=head.rev if head else 0, body=body, tags=tags)
            if found is not None and found.rev % REWRITE == 0:
                commit = msgspec.structs.replace(commit, trim=0)
            if found is None:
                new = {"user": self._store.user, "category": id.rpartition("/")[0], "created": str(commit.at)}
                commit = msgspec.structs.replace(commit, tags={**tags, **new})
            made = self._store.batcher.commit(commit)
            if isinstance(made, Head):
                return document_info(made)
            if made.why not in ("rev", "deleted"):
                raise refusal(made, commit)
        raise Stale(f"document {id!r} changed {TRIES} times during one put; try again", document=id)

    def _body(self, id: str, source: bytes | BinaryIO) -> tuple[bytes, int]:
        first = source if isinstance(source, bytes) else source.read(codec.LARGE + 1)
        if len(first) <= codec.LARGE:
            return encode_body({"text": text_of(id, first)}), len(first)
        form = "json" if kind_of(id) == "json" else "text"
        stream = io.BytesIO(source) if isinstance(source, bytes) else Checked(id, first, source)
        large = self._store.large.put(cast("BinaryIO", stream), form)
        return encode_body({"large": msgspec.to_builtins(large)}), large.size

    def get(self, id: str) -> Document | None:
        """The document with its whole content, or None. `open` gives a large one as a stream.

        Raises:
            Corrupt: it is there and damaged.
            Invalid, TooLarge: no document can have this id.
        """
        head = self._head(id)
        if head is None:
            return None
        with source_of(self._store, head) as stream:
            return Document(**msgspec.structs.asdict(document_info(head)), source=stream.read())

    def info(self, id: str) -> DocumentInfo | None:
        """What is known of the document without reading its content, or None; it raises what `get` does."""
        head = self._head(id)
        return None if head is None else document_info(head)

    def open(self, id: str) -> BinaryIO:
        """A stream of the document's source, as it is now.

        Raises:
            NotFound, Deleted: it is not there.
            Corrupt: it is damaged; what is wrong with a large value is told while it is read.
        """
        head = self._store.backend.get([self._ref(id)])[0]
        if head is None or head.dead:
            raise _missing(id, head)
        return source_of(self._store, head)

    def exists(self, id: str) -> bool:
        """Whether there is a document with this id."""
        return self._head(id) is not None

    def delete(self, id: str, *, rev: int | None = None) -> bool:
        """Delete the document; False if it was not there.

        Args:
            id: Which one.
            rev: The revision that must be there.

        Raises:
            Stale: another revision is there; see `put`.
        """
        ref = self._ref(id)
        commit = Commit(ref=ref, at=now(), if_rev=rev, delete=True)
        result = self._store.batcher.commit(commit)
        if isinstance(result, Head):
            return True
        if result.why in ("missing", "deleted"):
            return False
        if result.why == "rev":
            raise _lost(id, rev or 0, result.head)
        raise refusal(result, commit)

    def rename(self, id: str, to: str, *, rev: int | None = None) -> DocumentInfo:
        """Give the document another id of the same kind. It is there under both for a moment, never under none.

        Args:
            id, to: Which one, and what it is called then.
            rev: The revision that must be there.

        Raises:
            Exists: there is a document `to`; nothing was changed.
            Stale: another revision is there, or it was changed meanwhile; nothing was renamed.
            NotFound, Deleted: it is not there.
            Invalid, TooLarge: no document of this kind can have the id `to`.
        """
        if kind_of(to) != kind_of(id):
            raise Invalid(f"{id!r} can't become {to!r}, which is of another kind", document=id)
        head = self._store.backend.get([self._ref(id)])[0]
        if head is None or head.dead:
            raise _missing(id, head)
        if rev is not None and rev != head.rev:
            raise _lost(id, rev, head)
        target = self._ref(to)
        old = self._store.backend.get([target])[0]
        if old is not None and not old.dead:
            raise _lost(to, 0, old)
        tags = {**head.tags, "category": to.rpartition("/")[0]}
        commit = Commit(ref=target, at=head.at, if_rev=old.rev if old else 0, tags=tags, body=head.body)
        made = self._store.batcher.commit(commit)
        if not isinstance(made, Head):
            raise _lost(to, 0, made.head)
        try:
            if not self.delete(id, rev=head.rev):
                raise _missing(id, None)
        except (Stale, NotFound):
            self.delete(to, rev=made.rev)
            raise
        return document_info(made)

    def list(self, category: str | None = None, *, limit: int = 50, cursor: str | None = None) -> Page[DocumentInfo]:
        """Documents, the one that was changed last first. What is damaged is left out, and named by `damaged`.

        Args:
            category: Only those of exactly this category, not of `category/more`; all if not given.
            limit: Items on the page, up to 10,000.
            cursor: Where the page before ended.
        """
        check_limit(limit)
        tags: dict[str, str | None] = {"user": self._store.user}
        if category is not None:
            check_category(category)
            tags["category"] = category
        heads = self._store.backend.find(DOC, tags, after=position_of(cursor), limit=limit + 1)
        shown = heads[:limit]
        more = cursor_of([shown[-1].at, shown[-1].ref.id]) if len(heads) > limit else None
        prefix = prefix_of(self._store.user)
        damaged = [ref.id.removeprefix(prefix) for ref in heads.damaged if ref.id.startswith(prefix)]
        infos: list[DocumentInfo] = []
        for head in shown:
            try:
                infos.append(document_info(head))
            except Corrupt:
                damaged.append(id_of(head.ref))
        return Page(infos, more, damaged)

    def categories(self, under: str | None = None) -> dict[str, int]:
        """The categories that hold documents, in order, and how many each. It looks at every document's head.

        Args:
            under: Only this category and those below it: `cron` also gives `cron/jobs`.
        """
        if under is not None:
            check_category(under)
        counts: dict[str, int] = {}
        for head in self._all():
            category = head.tags.get("category", "")
            if under is None or category == under or category.startswith(under + "/"):
                counts[category] = counts.get(category, 0) + 1
        return dict(sorted(counts.items()))

    def prune_agents(
        self,
        *,
        max_age: float | None = None,
        max_count: int | None = None,
        batch: int | None = None,
        category: str = agents.CATEGORY,
    ) -> AgentPrune:
        """What to put away of the agent records under `agents`, and why; nothing is changed before `apply()`.

        Agents that may still run, by their `status`, are spared whatever their age.

        Args:
            max_age: Seconds since the record's `created_at` after which it is put away.
            max_count: How many records are kept, the newest by `created_at`.
            batch: How many are put away at the most, the oldest first.
            category: Where the records are, if not under `agents`.

        Raises:
            Invalid: a limit is negative or no number.
        """
        return agents.plan(self, max_age, max_count, batch, category)

    def _all(self) -> Iterator[Head]:
        prefix = after = prefix_of(self._store.user)
        while heads := self._store.backend.scan(DOC, after, PAGE):
            for head in heads:
                if not head.ref.id.startswith(prefix):
                    return
                yield head
            after = heads[-1].ref.id

    def _ref(self, id: str) -> Ref:
        kind_of(id)
        ref = doc_ref(self._store.user, id)
        if len(ref.id.encode()) > MAX_ID:
            raise TooLarge(f"document id {id[:40]!r}… takes, with its user, over {MAX_ID} bytes", limit=MAX_ID)
        return ref

    def _head(self, id: str) -> Head | None:
        head = self._store.backend.get([self._ref(id)])[0]
        return None if head is None or head.dead else head


def _missing(id: str, head: Head | None) -> NotFound:
    if head is None:
        return NotFound(f"there is no document {id!r}", document=id)
    return Deleted(f"document {id!r} was deleted; put it with revision 0 to start it anew", document=id)


def _lost(id: str, rev: int, head: Head | None) -> NotFound | Conflict:
    """Why a stated revision is not the one that is there."""
    if head is None or head.dead:
        return _missing(id, head)
    facts = {"document": id, "rev": head.rev, "current": document_info(head)}
    if rev == 0:
        return Exists(
            f"document {id!r} is there already (revision {head.rev}); replace that one, or use another id", **facts
        )
    return Stale(f"document {id!r} is at revision {head.rev}, not {rev}; read it again and decide anew", **facts)
