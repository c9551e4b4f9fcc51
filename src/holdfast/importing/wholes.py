"""Import of sources that are read as a whole: each of their sessions, each event once, however often it runs.

The digest of what the source says is noted with the last commit of a session, so an import that was killed is known by
its absence, and goes on: events that are there already are found by their ids. What a person changed here stays; what
the source changed since the last import, and nobody changed here, follows it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from holdfast import codec
from holdfast.errors import Denied, Invalid, Stale, TooLarge
from holdfast.formats.lines import digest_of
from holdfast.formats.transcript import event_id, kept, mapping
from holdfast.formats.whole import Item, Said, Told
from holdfast.heads.info import BYTES, Tally, body_of, clean, encode_body, session_ref, tags_of
from holdfast.heads.states import state_event
from holdfast.importing.reports import TOLD, FileReport, Unreadable, told_in
from holdfast.importing.sources import WHOLES, SourceFile, session_id
from holdfast.importing.titles import imported
from holdfast.importing.wholedocs import take_documents
from holdfast.model import AnyPayload, Custom, Message
from holdfast.plan import Commit, Entry, Head
from holdfast.refusals import refusal
from holdfast.store import Store

BATCH_BYTES = 4 * 1024 * 1024
"""Bytes of bodies in one commit, about."""
BATCH_EVENTS = 1000
"""Events in one commit."""
RETRIES = 50
"""How often a session is begun again when others change it at the same time."""


def take_whole(store: Store, file: SourceFile, user: str | None) -> Iterator[FileReport]:
    """Import every session of a source; a report of each, and one of what makes the rest of it unreadable.

    Raises:
        Unavailable, Uncertain, ReadOnly: the store can't take them now; call again to go on.
    """
    whole = WHOLES[file.whole or ""]
    about = FileReport(path=file.path, program=whole.program, size=file.size)
    with told_in(about):
        _check_apart(store, file.path)
        with whole.sessions(file.path) as sessions:
            for told in sessions:
                yield _Taking(store, file, told, user).report
        if whole.documents is not None:
            yield from take_documents(store, file.path, whole.program, whole.documents(file.path), user)
    if about.error is not None:
        yield about


def _size_of(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0  # it is gone; what was read of it counts


def _check_apart(store: Store, path: str) -> None:
    """Refuse the store's own files: whoever opens and closes them beside its engine takes its locks away."""
    own, real = store.backend.info().get("path"), os.path.realpath(path)
    if own is not None and f"{real}/".startswith(f"{os.path.realpath(own)}/"):
        raise Invalid(f"{path} belongs to the store that is imported into", path=path)


class _Taking:
    """One session on its way into the store."""

    def __init__(self, store: Store, file: SourceFile, told: Told, user: str | None) -> None:
        self._store = store
        self._told = told
        self._user = user
        self._program = WHOLES[file.whole or ""].program
        path = told.path or file.path
        self._key = clean(os.path.abspath(path))
        self._ref = session_ref(session_id(self._program, told.id))
        size = file.size if told.path is None else _size_of(path)
        self.report = FileReport(path=path, program=self._program, session=self._ref.id, size=size)
        with told_in(self.report):
            self._take()

    def _take(self) -> None:
        said = self._told.said()
        if self._user is not None and "user" in said.tags:  # whoever imports for a user says whose they are
            said = msgspec.structs.replace(said, tags={**said.tags, "user": self._user})
        self.report.notes = list(said.notes)
        for _ in range(RETRIES):
            head = self._store.backend.get([self._ref])[0]
            if head is not None and head.dead:
                self.report.skipped = "its session was deleted here"
                return
            if head is not None and self._user is not None and head.tags.get("user") != self._user:
                raise Denied(f"session {self._ref.id!r} belongs to another user; import as that user")
            noted = imported(head)
            if noted.get("digest") == said.digest:
                self.report.known = int(noted.get("events", 0))
                return
            if self._put(head, said):
                return
        raise Stale(f"session {self._ref.id!r} changed {RETRIES} times during one import; import again")

    def _put(self, head: Head | None, said: Said) -> bool:
        """Store what is new; False if somebody changed the session meanwhile."""
        report = self.report
        report.known, report.unreadable, report.unreadable_lines = 0, [], 0
        at, total = said.created or 0, 0
        for batch, end in _batches(self._told.items()):
            total += len(batch)
            rows: list[tuple[str, int, AnyPayload]] = []
            for item in batch:
                at = at if item.at is None else item.at
                if item.reason:
                    self._miss(item.number, item.reason)
                rows.append((item.id, at, item.payload))
            fresh = self._fresh(head, rows)
            report.known += len(rows) - len(fresh)
            if not fresh and not end:
                continue
            commit = self._commit(head, fresh, said, total if end else None)
            result = self._store.batcher.commit(commit)
            if not isinstance(result, Head):
                if result.why in ("rev", "known"):
                    return False
                raise refusal(result, commit)
            head = result
            report.events += len(fresh)
        return True

    def _miss(self, number: int, reason: str) -> None:
        self.report.unreadable_lines += 1
        if len(self.report.unreadable) < TOLD:
            self.report.unreadable.append(Unreadable(number, reason))

    def _fresh(self, head: Head | None, rows: Sequence[tuple[str, int, AnyPayload]]) -> list[tuple[Entry, AnyPayload]]:
        """What is not stored yet. A record that was changed in place is stored beside what it was."""
        encoded = [self._encoded(*row) for row in rows]
        if head is None or not encoded:
            return encoded
        others = [f"{entry.id}.{event_id(digest_of(entry.body))}" for entry, _ in encoded]
        ids = [*(entry.id for entry, _ in encoded), *others]
        stored = {entry.id: entry.body for entry in self._store.backend.read(self._ref, ids=ids, voided=True)}
        fresh: list[tuple[Entry, AnyPayload]] = []
        for (entry, payload), other in zip(encoded, others, strict=True):
            if entry.id not in stored:
                fresh.append((entry, payload))
            elif stored[entry.id] != entry.body and other not in stored:
                fresh.append((msgspec.structs.replace(entry, id=other), payload))
        return fresh

    def _encoded(self, id: str, at: int, payload: AnyPayload) -> tuple[Entry, AnyPayload]:
        try:
            return Entry(id, at, codec.encode(payload, self._store.large)), payload
        except (Invalid, TooLarge) as error:
            if not isinstance(payload, Message | Custom) or payload.source is None:
                raise
            self._miss(payload.source.line, error.message)
            unread = kept(self._program, "unreadable", None, payload.source)
            return Entry(id, at, codec.encode(unread, self._store.large)), unread

    def _commit(
        self, head: Head | None, fresh: Sequence[tuple[Entry, AnyPayload]], said: Said, total: int | None
    ) -> Commit:
        """A batch; with the last, `total` says how many events there are, all that is said of the session is set."""
        entries = [entry for entry, _ in fresh]
        tally = Tally([payload for _, payload in fresh], titled=head is not None and "title" in head.tags)
        at = max([*(entry.at for entry in entries), said.active or 0, 0])
        tags: dict[str, str | None] = dict(tally.tags or {})
        body = body_of(head) if head else {}
        body.pop("v", None)
        noted = imported(head)
        if head is None:
            tags |= tags_of(agent=self._program, state="unknown", user=self._user)
            tags |= {"created": str(at if said.created is None else said.created)}
            if cwd := said.metadata.get("cwd"):
                tags["project"] = clean(os.path.basename(cwd.rstrip("/\\")))[:200] or None
        if total is not None:
            changed = _changed(head, said.tags, mapping(noted.get("tags")))
            tags |= changed
            # Until it was imported as a whole for the first time, its state is none that anybody changed.
            if head is not None and "digest" in noted and changed.get("state") not in (None, head.tags.get("state")):
                entries.append(
                    state_event(at, str(changed["state"]), changed.get("turn"), "imported", self._store.large)
                )
            last = (head.last if head else 0) + len(entries)
            noted = {"digest": said.digest, "events": total, "last": last, "tags": said.tags}
        tally.add[BYTES] = sum(len(entry.body) for entry in entries)
        about = {
            "source_program": self._program,
            "source_session": clean(self._told.id)[:1024],
            "source_file": self._key,
            "imported": noted,
        }
        body["metadata"] = {**mapping(body.get("metadata")), **said.metadata, **about}
        return Commit(
            ref=self._ref,
            at=at,
            if_rev=head.rev if head else 0,
            append=entries,
            add=tally.add,
            defaults=tally.defaults,
            tags=tags,
            body=encode_body(body),
        )


def _changed(head: Head | None, told: Mapping[str, str | None], before: Mapping[str, Any]) -> dict[str, str | None]:
    """The tags that the source says otherwise than before, and nobody changed here. State and turn go together."""
    held: Mapping[str, str] = head.tags if head else {}
    if not before:
        return dict(told)
    new = {name: value for name, value in told.items() if value != before.get(name)}
    kept_here = {name for name in new if held.get(name) != before.get(name)}
    run = {"state", "turn", "state_at"}
    if kept_here & run or "lease_beat" in held or held.get("state") != before.get("state"):
        kept_here |= run
    return {name: value for name, value in new.items() if name not in kept_here}


def _batches(items: Iterator[Item]) -> Iterator[tuple[list[Item], bool]]:
    """The items, some at a time, and whether these are the last; at least once."""
    batch: list[Item] = []
    size = 0
    for item in items:
        if len(batch) >= BATCH_EVENTS or size >= BATCH_BYTES:
            yield batch, False
            batch, size = [], 0
        batch.append(item)
        source = getattr(item.payload, "source", None)
        size += len(source.raw) if source is not None and isinstance(source.raw, str) else 0
    yield batch, True
