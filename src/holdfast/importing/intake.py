"""Intake: the writing half of an import, from drafts of events to commits of one session.

Its invariant: one commit holds events and, in the session's metadata under `imported`, the cursor behind the lines they
came from. So whenever an import ends, however it ends, what is stored and what is said to be stored agree.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from holdfast import codec
from holdfast.errors import Denied, Invalid, Stale, TooLarge
from holdfast.events.keys import usage_id
from holdfast.formats.lines import DIGEST, digest_of
from holdfast.formats.transcript import FOREIGN, Draft, Facts, event_id, id_of, kept, mapping, name_of
from holdfast.heads.info import BYTES, Tally, body_of, clean, created_at, encode_body, session_ref, tags_of
from holdfast.importing.lineage import counted_before, relatives
from holdfast.importing.sources import PROGRAMS, SourceFile, session_id
from holdfast.importing.titles import OPEN, TAG, imported, may_title
from holdfast.model import AnyPayload, Damaged, Other, Source
from holdfast.plan import Commit, Entry, Head, Ref
from holdfast.refusals import refusal
from holdfast.store import Store

_NAMESAKES = 10
"""Lines of one name in a file, of which each is compared with those before it."""
RETRIES = 50
"""How often a commit starts over when others change the session at the same time."""


class Cursor(msgspec.Struct, frozen=True):
    """How far a file was taken: its first `bytes`, with this `sha256`, and the `events` they became.

    `end` says that this was the end of the file as it was then, of `size` and `mtime` (in nanoseconds).
    """

    bytes: int
    sha256: str
    events: int
    end: bool
    size: int
    mtime: int


class StartOver(Exception):
    """No failure: read the file from its start once more, as it was rewritten, or another import took it meanwhile."""

    def __init__(self, cursor: Cursor | None) -> None:
        super().__init__()
        self.cursor = cursor


class Row(msgspec.Struct, frozen=True):
    """A draft with its time, and the id that its line gives it; "" where only a response names it."""

    id: str
    at: int
    draft: Draft


class Intake:
    """A session that a file fills; `key` is its path."""

    def __init__(self, store: Store, file: SourceFile, user: str | None, titles: Mapping[str, str]) -> None:
        """`titles` are those that sessions hold for messages of others (see `titles`). Next, `load` it."""
        if file.program is None or file.origin is None:
            raise Invalid(f"{file.path} was not recognised as a transcript", path=file.path)
        self.program = PROGRAMS[file.program]
        self.origin = file.origin
        self.key = clean(os.path.abspath(file.path))
        self.ref: Ref = session_ref(session_id(self.program.name, self.origin.id))
        self.unfit: list[tuple[Source, str]] = []
        """Lines that could not be stored as they were read, and why; they were kept unread."""
        self._store = store
        self._user = user
        self._titles = titles
        self._relatives: tuple[str | None, list[Ref]] | None = None

    def load(self) -> None:
        """Look at the session as it is now.

        Raises:
            Denied: it belongs to another user.
        """
        self.head: Head | None = self._store.backend.get([self.ref])[0]
        self.looks_up = False
        self._is_new = self.head is None
        if self.head and not self.head.dead and self._user is not None and self.head.tags.get("user") != self._user:
            raise Denied(f"session {self.ref.id!r} belongs to another user; import as that user", session=self.ref.id)

    @property
    def parent(self) -> str | None:
        """The program's id of the parent that an earlier import found."""
        told = imported(self.head).get("parent")
        return told if isinstance(told, str) else None

    def cursor(self, size: int) -> Cursor | None:
        """How far this file was taken; or another that told the same session, as when it was moved."""
        cursors = _cursors(self.head)
        shorter = [cursor for cursor in cursors.values() if cursor.bytes <= size]
        return cursors.get(self.key) or max(shorter, key=lambda cursor: cursor.bytes, default=None)

    def begin(self, cursor: Cursor | None) -> None:
        """Go on behind a cursor; without one, a session that is there has each event looked up before it is stored."""
        self._cursor = cursor
        self._own = _cursors(self.head).get(self.key)
        self._events = cursor.events if cursor else 0
        self.looks_up = cursor is None and self.head is not None
        self._taken: set[str] = set()  # ids under which another line is stored than the one that has it in this file

    def put(self, rows: Sequence[Row], facts: Facts, cursor: Cursor) -> tuple[int, int]:
        """Store the events of some lines and the cursor behind them; how many were stored, how many there already."""
        with self._store.large.hold:
            return self._put(rows, facts, cursor)

    def _put(self, rows: Sequence[Row], facts: Facts, cursor: Cursor) -> tuple[int, int]:
        entries, payloads = self._encoded(self._resolved(rows, facts))
        self._name(rows, facts)
        for _ in range(RETRIES):
            fresh = self._unknown(entries, payloads) if self.looks_up and entries else dict(enumerate(entries))
            behind = msgspec.structs.replace(cursor, events=self._events + len(entries))
            commit = self._commit(list(fresh.values()), [payloads[i] for i in fresh], facts, behind)
            result = self._store.batcher.commit(commit)
            if isinstance(result, Head):
                self.head, self._own, self._events = result, behind, behind.events
                return len(fresh), len(entries) - len(fresh)
            if result.why == "known":
                self.looks_up = True
            elif result.why == "rev":
                self._reload()
            else:
                raise refusal(result, commit)
        raise Stale(f"session {self.ref.id!r} changed {RETRIES} times during one commit; import again")

    def _reload(self) -> None:
        """Someone changed the session; if it was another import of the same file, start over behind that."""
        self.load()
        own = _cursors(self.head).get(self.key)
        if own != self._own:
            raise StartOver(own)

    def _unknown(self, entries: Sequence[Entry], payloads: Sequence[AnyPayload]) -> dict[int, Entry]:
        """Those entries that are not stored, by their index. Where another line has the id, the line's bytes are it."""
        others = [_by_bytes(entry.id, payload) for entry, payload in zip(entries, payloads, strict=True)]
        ids = dict.fromkeys(id for entry, other in zip(entries, others, strict=True) for id in _ids(entry.id, other))
        stored = {entry.id: entry for entry in self._store.backend.read(self.ref, ids=list(ids), voided=True)}
        fresh: dict[int, Entry] = {}
        for index, (entry, other) in enumerate(zip(entries, others, strict=True)):
            id = entry.id
            differs = id != other and id in stored and not _is_same(stored[id], entry)
            if differs:
                self._taken.add(id)
            if other in stored or (id in stored and not differs):
                continue
            if earlier := [n for n in _ids(id) if n in self._taken and _is_same(stored[n], entry)]:
                self._taken.remove(earlier[0])
            else:
                fresh[index] = msgspec.structs.replace(entry, id=other) if differs else entry
        return fresh

    def _name(self, rows: Sequence[Row], facts: Facts) -> None:
        """Take the title that another session holds for a message among these."""
        if self._titles and (named := {row.id: self._titles[row.id] for row in rows if row.id in self._titles}):
            copied = self.origin.copies and facts.parent is not None
            parent = session_ref(session_id(self.program.name, facts.parent or "")) if copied else None
            own = [id for id in named if parent is None or not self._store.backend.read(parent, ids=[id], voided=True)]
            if own:
                facts.name(named[own[-1]], FOREIGN)

    def _resolved(self, rows: Sequence[Row], facts: Facts) -> list[tuple[str, int, AnyPayload]]:
        """The rows as what is to be stored, without the usage that a relative counted before."""
        named = {row.draft.response: usage_id(row.draft.response) for row in rows if row.draft.response}
        counted = counted_before(self._store, self._related(facts), named.values()) if named else set[str]()
        found: list[tuple[str, int, AnyPayload]] = []
        for row in rows:
            draft = row.draft
            if not draft.response:
                found.append((row.id, row.at, draft.payload))
            elif (id := named[draft.response]) not in counted:
                found.append((id, row.at, draft.payload))
            elif draft.instead is not None:
                found.append((row.id, row.at, draft.instead))
        return found

    def _related(self, facts: Facts) -> list[Ref]:
        if self._relatives is None or self._relatives[0] != facts.parent:
            parent = session_id(self.program.name, facts.parent) if facts.parent else None
            self._relatives = facts.parent, relatives(self._store, self.ref.id, parent, new=self._is_new)
        return self._relatives[1]

    def _encoded(self, items: Sequence[tuple[str, int, AnyPayload]]) -> tuple[list[Entry], list[AnyPayload]]:
        entries: list[Entry] = []
        payloads: list[AnyPayload] = []
        for id, at, read in items:
            payload = read
            try:
                body = codec.encode(payload, self._store.large, parsed=True)
            except (Invalid, TooLarge) as error:
                if isinstance(payload, Other | Damaged) or payload.source is None:
                    raise
                self.unfit.append((payload.source, error.message))
                payload = kept(self.program.event, "unreadable", None, payload.source)
                body = codec.encode(payload, self._store.large)
            entries.append(Entry(id, at, body))
            payloads.append(payload)
        return entries, payloads

    def _commit(self, entries: Sequence[Entry], payloads: Sequence[AnyPayload], facts: Facts, cursor: Cursor) -> Commit:
        head = self.head
        tally = Tally(payloads, titled=True)
        tally.add[BYTES] = sum(len(entry.body) for entry in entries)
        times = [entry.at for entry in entries]
        at = max(times, default=0 if head else cursor.mtime // 1000)
        tags, metadata = self._told(facts, cursor)
        created = min([*times, *([created_at(head)] if head else [])], default=at)
        body = body_of(head) if head else {}
        body.pop("v", None)
        body["metadata"] = {**mapping(body.get("metadata")), **metadata}
        return Commit(
            ref=self.ref,
            at=at,
            if_rev=head.rev if head else 0,
            append=entries,
            add=tally.add,
            tags={**(tally.tags or {}), **tags, "created": str(created)},
            body=encode_body(body),
        )

    def _told(self, facts: Facts, cursor: Cursor) -> tuple[dict[str, str | None], dict[str, Any]]:
        """Tags and metadata. A title that a person gave the session here stays."""
        noted = imported(self.head)
        held: Mapping[str, str] = self.head.tags if self.head else {}
        tags: dict[str, str | None] = {}
        title, weight, titles = noted.get("title"), noted.get("weight"), mapping(noted.get("titles"))
        if facts.title and may_title(self.head, facts.weight):
            tags["title"] = title = facts.title
            weight = facts.weight
        if cursor.end:
            before, titles = titles, {event_id(name_of(name)): title for name, title in facts.titles.items()}
            tags[TAG] = None if not titles else OPEN if titles.items() - before.items() else held.get(TAG)
        if facts.parent is not None:
            tags["parent"] = session_id(self.program.name, facts.parent)
            tags["fork"] = "1" if self.origin.copies else None
        if self.head is None:
            tags |= tags_of(agent=self.program.name, state="unknown", user=self._user)
            tags["root"] = id_of(self.origin.root) if self.origin.root else None
        if "project" not in held and (cwd := facts.metadata.get("cwd")):
            tags["project"] = re.split(r"[\\/]", cwd.rstrip("\\/"))[-1][:200] or cwd
        files = {**mapping(noted.get("files")), self.key: msgspec.to_builtins(cursor)}
        metadata: dict[str, Any] = {
            **facts.metadata,
            "source_program": self.program.name,
            "source_session": clean(self.origin.id)[:1024],
            "source_file": self.key,
            "imported": {
                "files": files,
                "title": title,
                "weight": weight,
                "parent": facts.parent and clean(facts.parent),
                "titles": titles,
            },
        }
        if self.origin.subagent:
            metadata["subagent"] = True
        return tags, metadata


def _ids(id: str, *others: str) -> list[str]:
    """An id, others, and those of the lines of the same name before it."""
    name, _, rest = id.partition("#")
    times, dot, index = rest.partition(".")
    earlier = [f"{name}#{n}{dot}{index}" for n in range(2, min(int(times), _NAMESAKES))] if rest else []
    return [id, *others, *([name + dot + index] if rest else []), *earlier]


def _by_bytes(id: str, payload: AnyPayload) -> str:
    """The id that an event of a line gets by the line's bytes, instead of by the name that its program gave it."""
    source = payload.source
    if source is None or not isinstance(source.raw, str) or id.startswith("u:"):
        return id
    raw = source.raw.encode() if source.encoding is None else base64.b64decode(source.raw)
    return event_id(digest_of(raw)) + id[len(event_id(b"\0" * DIGEST)) :]


def _is_same(stored: Entry, entry: Entry) -> bool:
    """Whether two entries of one id come from the same line, wherever it stood. What is damaged is left as it is."""
    return bool(stored.fault) or _line_of(stored.body) == _line_of(entry.body)


def _line_of(body: bytes) -> dict[str, Any]:
    source = mapping(mapping(codec.decode_json(body)).get("source"))
    return {key: value for key, value in source.items() if key not in ("file", "line")}


def _cursors(head: Head | None) -> dict[str, Cursor]:
    """The cursors of the session's files."""
    found: dict[str, Cursor] = {}
    for key, noted in mapping(imported(head).get("files")).items():
        try:
            found[key] = msgspec.convert(noted, Cursor)
        except msgspec.ValidationError:
            continue  # someone changed it: then the events are looked up instead
    return found
