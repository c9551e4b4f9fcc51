"""A snapshot of a session as a3s-code has one, stored: what is new is appended, and what went is hidden, in one commit.

What is there stays as it is as long as it stands in the same order in the new snapshot. So a conversation that went on
costs its new messages, and one that was compacted hides what went and appends what came instead.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from holdfast import codec
from holdfast.errors import Invalid, Stale, TooLarge
from holdfast.events.keys import artifact_id
from holdfast.formats import rustjson
from holdfast.formats.a3s import PROGRAM, STATES, session_id_of, without_keys
from holdfast.formats.a3s_events import (
    COST,
    MESSAGE,
    REPORT,
    TRACE,
    Json,
    artifact_of,
    cost_at,
    message_record,
    payload_of,
    report_record,
    tasks_of,
    trace_record,
)
from holdfast.formats.a3s_get import FILE, Held, Stored, key_of, look, split
from holdfast.formats.transcript import as_title, mapping, source_of
from holdfast.heads.info import Tally, body_of, clean, encode_body, session_ref, tags_of
from holdfast.heads.settings import without_secrets
from holdfast.heads.states import state_event
from holdfast.history.history import Taken, edit_commit, removal
from holdfast.model import AnyPayload, Artifact, Custom, Event, Message, Report, Source, Step, Usage
from holdfast.parts import LargeRef
from holdfast.plan import FIRST_TIME, LAST_TIME, MAX_SAVED, Commit, Entry, Head
from holdfast.refusals import refusal
from holdfast.session import Session
from holdfast.store import Store

FIT_ENTRIES = MAX_SAVED - 10
FIT_BYTES = 48 * 1024 * 1024
"""Events, and bytes of them, that an import puts into one commit, with room for what tells of them; what is more is
stored in several, and seen with the last."""
TRIES = 50
"""How often a save starts over when others change the session meanwhile."""


class Snapshot(msgspec.Struct, kw_only=True):
    """What is to be stored of a session; what is None is left as it is. `files` are kept as they are, by their paths.

    `about` is noted beside; `at` is when what has no time of its own was said, in microseconds.
    """

    session: Json | None = None
    artifacts: Sequence[Json] | None = None
    traces: Sequence[Json] | None = None
    reports: Sequence[Json] | None = None
    files: dict[str, tuple[bytes, str]] | None = None
    about: Json = {}
    at: int = 0


class Saved(msgspec.Struct):
    """What a save came to: the head, the events it appended, and those that were there already."""

    head: Head
    events: int
    known: int


class Change(msgspec.Struct):
    """What a save appends, with the artifacts' bytes stored, and what it hides."""

    payloads: list[tuple[int | None, AnyPayload]]
    hide: list[Event]
    known: int = 0


def save(
    store: Store,
    id: str,
    snapshot: Snapshot,
    *,
    user: str | None = None,
    note: Callable[[Head | None], Json | None] | None = None,
    spare: Callable[[Head, Stored], Collection[int]] | None = None,
    whole: bool = True,
) -> Saved | None:
    """Store a snapshot.

    Args:
        id: Of the session in the store. One that was deleted begins anew.
        note: What to note in its metadata under `imported`, by its head; None to store nothing.
        spare: The seqs of events that are not the snapshot's to take away.
        whole: In one commit, or not at all; else in as many as it takes, which an import goes on with.

    Returns:
        None if `note` said that there is nothing to store.

    Raises:
        Stale: others changed the session without a pause.
        TooLarge: it is too much for one commit.
    """
    for _ in range(TRIES):
        head = store.peek(id)
        noted = note(head) if note else {}
        if noted is None:
            return None
        done = _Save(store, id, head, snapshot, user, noted, spare, whole).run()
        if done is not None:
            return done
    raise Stale(f"session {id!r} changed {TRIES} times during one save; save again", session=id)


class _Save:
    def __init__(
        self,
        store: Store,
        id: str,
        head: Head | None,
        snapshot: Snapshot,
        user: str | None,
        noted: Json,
        spare: Callable[[Head, Stored], Collection[int]] | None,
        whole: bool,
    ) -> None:
        self.store, self.id, self.snapshot, self.user, self.noted = store, id, snapshot, user, noted
        self.before = head  # a tombstone too: whoever has seen it may begin anew
        self.head = None if head is None or head.dead else head
        self.spare = spare
        self.whole = whole
        self.at = min(max(snapshot.at, 0), LAST_TIME)
        self.noting: Json = {}

    def run(self) -> Saved | None:
        """Store it; None if somebody changed the session meanwhile."""
        with self.store.large.hold:
            stored, spared = Stored({kind: [] for kind in (MESSAGE, COST, TRACE, REPORT)}), frozenset[int]()
            artifacts: list[Artifact] = []
            if self.head is not None:
                session = Session(self.store, self.head)
                stored, artifacts = look(session), session.artifacts.list()
                spared = frozenset(self.spare(self.head, stored)) if self.spare else spared
            change = self._change(stored, artifacts, spared)
            self.noting = {"here": sorted(spared), "events": change.known + len(change.payloads)}
            entries = [self._entry(at, payload) for at, payload in change.payloads]
            if self.head is not None and self._is_same(self.head, entries, change):
                return Saved(self.head, 0, change.known)
            last = self.before
            for first, batch in [(0, entries)] if self.whole else _batches(entries):
                end = first + len(batch) == len(entries)
                commit = self._commit(last, batch, change.hide if first == 0 else [], end)
                result = self.store.batcher.commit(commit, entries=MAX_SAVED)
                if not isinstance(result, Head):
                    if result.why in ("rev", "deleted", "known", "missing"):
                        return None
                    raise refusal(result, commit)
                last = result
                if end:
                    return Saved(result, len(entries), change.known)
        return None

    def _is_same(self, head: Head, entries: Sequence[Any], change: Change) -> bool:
        if entries or change.hide or self.noted:
            return False
        body = body_of(head)
        body.pop("v", None)
        return self._body(head, True, head.counts, _about(head).get("at", 0), 0) == body

    def _change(self, stored: Stored, artifacts: list[Artifact], spared: Collection[int]) -> Change:
        change = Change([], [])
        said = self.snapshot.session or {}
        lists: list[tuple[str, Sequence[Json] | None]] = [
            (MESSAGE, said.get("messages")),
            (COST, said.get("cost_records", []) if said else None),
            (TRACE, self.snapshot.traces),
            (REPORT, self.snapshot.reports),
        ]
        for kind, records in lists:
            if records is not None:
                self._compare(change, kind, records, stored, spared)
        tasks = said.get("tasks", said.get("todos", []))
        if said and key_of(tasks) != key_of(stored.tasks or []):
            change.payloads.append((None, tasks_of(tasks)))
        if self.snapshot.artifacts is not None:
            self._artifacts(change, self.snapshot.artifacts, artifacts)
        for path, (data, reason) in (self.snapshot.files or {}).items():
            held = stored.files.get(path)
            if held is None or (held.data, held.reason) != (data, reason):
                change.payloads.append((None, file_event(path, data, reason)))
            else:
                change.known += 1
        if self.snapshot.files is not None:
            for path in [path for path in stored.files if path not in self.snapshot.files]:
                change.payloads.append((None, file_event(path, None, "")))
        return change

    def _compare(
        self, change: Change, kind: str, records: Sequence[Json], stored: Stored, spared: Collection[int]
    ) -> None:
        held = [h for h in stored.lists[kind] if h.event.seq not in spared]
        kept = _kept_of(held, records)
        gone = held[:]
        for index in reversed(kept):
            gone.pop(index)
        change.hide += [h.event for h in gone]
        change.known += len(kept)
        counted = _counted(stored, held, [held[index] for index in kept]) if kind == COST else Counter[str]()
        for record in records[len(kept) :]:
            payload = payload_of(record, kind)
            at = cost_at(record) if kind == COST else None
            if kind == COST and counted[name := key_of(record)] > 0:
                counted[name] -= 1  # it was counted before it was taken away
                payload = msgspec.structs.replace(payload, repeated=True)  # type: ignore[type-var]  # of costs
            change.payloads.append((at, payload))

    def _artifacts(self, change: Change, records: Sequence[Json], held: Sequence[Artifact]) -> None:
        wanted: dict[str, Artifact] = {}
        for record in records:
            data = record["content"].encode()
            made = artifact_of(record, LargeRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data), form="bytes"))
            if made.name in wanted:  # two of one id: both are known by their URIs then
                made = msgspec.structs.replace(made, name=clean(made.uri or made.name)[:256])
            wanted.pop(made.name, None)
            wanted[made.name] = made
        contents = {hashlib.sha256(record["content"].encode()).hexdigest(): record["content"] for record in records}
        order, position = list(wanted.values()), 0
        for old in held:
            if position < len(order) and _is_equal(old, order[position]):
                position += 1
            elif old.name not in wanted:
                change.payloads.append((None, Artifact(name=old.name, deleted=True)))
        change.known += position
        for made in order[position:]:
            ref = self.store.large.put(contents[made.sha256].encode(), "bytes")
            change.payloads.append((None, msgspec.structs.replace(made, large={"content": ref})))

    def _entry(self, at: int | None, payload: AnyPayload) -> tuple[Entry, AnyPayload]:
        when = self.at if at is None else min(max(at, FIRST_TIME), LAST_TIME)
        try:
            return Entry("", when, codec.encode(payload, self.store.large)), payload
        except (Invalid, TooLarge):
            told = unfit(payload)
            return Entry("", when, codec.encode(told, self.store.large)), told

    def _commit(
        self, head: Head | None, batch: Sequence[tuple[Entry, AnyPayload]], hide: Sequence[Event], end: bool
    ) -> Commit:
        alive = None if head is None or head.dead else head
        number = alive.counts.get("artifacts", 0) if alive else 0
        entries: list[Entry] = []
        for entry, payload in batch:
            if isinstance(payload, Artifact):
                number += 1
                entry = msgspec.structs.replace(entry, id=artifact_id(number))
            entries.append(entry)
        tally = Tally([payload for _, payload in batch], titled=alive is not None and "title" in alive.tags)
        tags: dict[str, str | None] = {**(tally.tags or {}), **self._tags(alive, entries, end)}
        add = dict(tally.add)
        commit = Commit(ref=session_ref(self.id), if_rev=head.rev if head else 0)
        if hide and alive is not None:
            taken = Taken(0)
            taken.add(sorted(hide, key=lambda event: event.seq), alive.last)
            edit = removal(self.store, alive, "rewind", taken)
            commit = edit_commit(alive, edit, codec.encode(edit, self.store.large), self.at, None)
            entries = [*commit.append, *entries]
            tags |= commit.tags or {}
            for name, count in (commit.add or {}).items():
                add[name] = add.get(name, 0) + count
        at = max([self.at, *(entry.at for entry in entries)])
        counts = dict(alive.counts) if alive else {}
        for name, count in add.items():
            counts[name] = counts.get(name, 0) + count
        last, active = (head.last if head else 0) + len(entries), max(at, alive.at if alive else 0)
        return msgspec.structs.replace(
            commit,
            at=max(0, at),
            append=entries,
            add=add or None,
            tags=tags,
            defaults=tally.defaults,
            body=encode_body(self._body(alive, end, counts, active, last)),
        )

    def _tags(self, head: Head | None, entries: list[Entry], end: bool) -> dict[str, str | None]:
        """What is said of the session in its list; its state is changed here only by who does not run it."""
        tags: dict[str, str | None] = {}
        said = self.snapshot.session or {}
        state = STATES.get(str(said.get("state")), "unknown")
        if head is None:
            created = said.get("created_at")
            at = created * 1_000_000 if isinstance(created, int) and 0 <= created < 2**40 else self.at
            tags = tags_of(agent=PROGRAM, state=state, user=self.user)
            tags |= {"created": str(min(at, LAST_TIME))}
            if title := as_title(str(mapping(said.get("config")).get("name") or "")):
                tags["title"] = title
            parent = said.get("parent_id") or mapping(said.get("config")).get("parent_id")
            if isinstance(parent, str) and parent:
                tags["parent"] = session_id_of(self.id.partition(":")[2].partition("/")[0], parent)
        elif end and said and head.tags.get("state") != state and "turn" not in head.tags:
            before = STATES.get(str(_about(head).get("document", {}).get("state")), "unknown")
            if head.tags.get("state") in (before, "unknown"):
                tags = {"state": state, "state_at": str(self.at)}
                entries.append(state_event(self.at, state, None, "saved", self.store.large))
        return tags

    def _body(self, head: Head | None, end: bool, counts: Mapping[str, int], at: int, last: int) -> Json:
        """The head's body; what makes a session of it comes with the last batch."""
        body = body_of(head) if head else {}
        body.pop("v", None)
        metadata: Json = dict(mapping(body.get("metadata")))
        about: Json = dict(_about(head) if head else {"bare": True})
        given = {
            "artifacts": self.snapshot.artifacts,
            "traces": self.snapshot.traces,
            "verification": self.snapshot.reports,
        }
        if end and self.snapshot.session is not None:
            document, config = (
                without_secrets(without_keys(part), self.store.secrets) for part in split(self.snapshot.session)
            )
            llm, own = mapping(document.get("llm_config")), "llm" in config
            names = ("input_tokens", "output_tokens", "cost")
            counted = {name: counts.get(name, 0) for name in names}
            about |= {"document": document, "llm": llm or None, "own_llm": own, "counted": counted, "at": at}
            about.pop("bare", None)
            body["config"] = {**config, "llm": llm} if llm and not own else config
        if end:
            about |= self.snapshot.about
            about["saved"] = sorted({*about.get("saved", []), *(name for name in given if given[name] is not None)})
        if self.noted:
            noted = {**mapping(self.noted.get("imported")), **self.noting, "last": last}
            metadata |= {**self.noted, "imported": noted if end else {**noted, "digest": None}}
        metadata[PROGRAM] = about
        body["metadata"] = metadata
        return body


def _about(head: Head) -> Json:
    return mapping(mapping(body_of(head).get("metadata")).get(PROGRAM))


def _kept_of(held: Sequence[Held], records: Sequence[Json]) -> list[int]:
    """Which of the held are the beginning of the records, in their order."""
    keys = [key_of(record) for record in records]
    kept: list[int] = []
    for index, one in enumerate(held):
        if len(kept) < len(keys) and key_of(one.record) == keys[len(kept)]:
            kept.append(index)
    return kept


def _counted(stored: Stored, held: Sequence[Held], kept: Sequence[Held]) -> Counter[str]:
    """The calls that were counted, and are not among those that are kept."""
    there = [h for h in held if not (isinstance(h.event.payload, Usage) and h.event.payload.repeated)]
    counted = Counter([*stored.hidden_costs, *(key_of(h.record) for h in there)])
    counted.subtract(key_of(h.record) for h in kept)
    return counted


def _is_equal(old: Artifact, new: Artifact) -> bool:
    return (old.name, old.sha256, old.uri, old.metadata) == (new.name, new.sha256, new.uri, new.metadata)


def _batches(entries: Sequence[tuple[Entry, AnyPayload]]) -> list[tuple[int, Sequence[tuple[Entry, AnyPayload]]]]:
    """The entries in as few commits as they fit in; one at least. Each comes with the place of its first."""
    found: list[tuple[int, Sequence[tuple[Entry, AnyPayload]]]] = []
    first, size = 0, 0
    for index, (entry, _) in enumerate(entries):
        if index - first >= FIT_ENTRIES or (size and size + len(entry.body) > FIT_BYTES):
            found.append((first, entries[first:index]))
            first, size = index, 0
        size += len(entry.body)
    return [*found, (first, entries[first:])]


def unfit(payload: AnyPayload) -> Custom:
    """What stands for a record that no event can hold, with all its text."""
    if isinstance(payload, Message):
        kind, record = MESSAGE, message_record(payload)
    elif isinstance(payload, Step):
        kind, record = TRACE, trace_record(payload)
    elif isinstance(payload, Report):
        kind, record = REPORT, report_record(payload)
    else:
        raise Invalid(f"a {payload.type} of the session can't be stored", type=payload.type)
    return Custom(type=f"x.{PROGRAM}.{payload.type}", source=Source(file=kind, raw=rustjson.compact(record)))


def file_event(path: str, data: bytes | None, reason: str) -> Custom:
    """The event that keeps a file as it is; or with no data, that says that it is not there any more."""
    about: Json = {"path": clean(path), "reason": reason or None, "gone": True if data is None else None}
    about = {name: value for name, value in about.items() if value is not None}
    return Custom(type=FILE, data=about, source=source_of(data or b"", 1, clean(path.rpartition("/")[2])))
