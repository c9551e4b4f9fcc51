"""Sessions as oxios loads them: the document of each, as its version 1.3.0 writes it, and the documents beside them.

What came from the program and was not changed here goes back to the byte. What was appended here follows in the arrays;
a session that never was the program's gets the fields that 1.3.0 writes. Its form has a place for what the user and the
agent said and for steps, so the rest of a session is counted as left out.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from holdfast.documents.docheads import all_documents, id_of, owner_of
from holdfast.errors import Conflict, HoldfastError
from holdfast.formats import rustjson
from holdfast.formats.oxios import (
    AGENT,
    ARRAYS,
    ORDER,
    PROGRAM,
    STEPS,
    USER,
    NotRust,
    is_name,
    key_of,
    record_of,
    session_of,
    time_text,
)
from holdfast.formats.oxios_folder import SESSIONS, file_of
from holdfast.formats.transcript import mapping
from holdfast.formats.written import Holders, Written
from holdfast.heads.info import SessionInfo
from holdfast.log import OnDamage
from holdfast.model import Custom, Damaged, Edit, Event, State
from holdfast.session import Session
from holdfast.store import Store

MAX_PART = 255
"""Bytes of a file's name."""
HERE = "oxios_here"
"""Where a session's metadata has what was said of it here, over what it was imported with."""


class Document(NamedTuple):
    """A session as a document. `text` is the one that it was imported from, if that was written by other rules."""

    fields: dict[str, Any]
    text: bytes | None
    left_out: int
    damaged: int

    def encoded(self) -> bytes:
        """The document as a file."""
        made = rustjson.pretty(self.fields)
        if self.text is not None:
            try:
                if rustjson.pretty(session_of(self.text)) == made:
                    return self.text
            except NotRust:  # somebody else wrote an event of this name
                return made.encode()
        return made.encode()


def is_as_imported(info: SessionInfo) -> bool:
    """Whether a session is the one that was imported, no fork of it, which has its metadata too."""
    return info.metadata.get("source_session") == info.id.removeprefix(f"{PROGRAM}:")


def facts_in(info: SessionInfo) -> dict[str, Any]:
    """What a session's document says beside its arrays, by its head alone; an array is told by how much was imported.

    A field that is not there, and that only a change here could give, is not in it.
    """
    told = dict(mapping(mapping(info.metadata.get("oxios_document")).get("says")))
    here = mapping(info.metadata.get(HERE))
    facts = told or {
        "id": "",
        "user_id": info.user or "",
        USER: 0,
        AGENT: 0,
        "created_at": time_text(info.created_at),
        "updated_at": time_text(info.updated_at),
        "metadata": {} if info.name is None else {"title": info.name},
    }
    if not told or not is_as_imported(info):
        facts["id"] = key_of(info.id, info.metadata)
    if told and not is_as_imported(info):
        facts["created_at"] = time_text(info.created_at)
    for name, value in mapping(here.get("fields")).items():
        if value is None:
            facts.pop(name, None)
        else:
            facts = _with(facts, name, value)
    changed, gone = mapping(here.get("metadata")), here.get("gone", [])
    if changed or gone:
        metadata = {**mapping(facts.get("metadata")), **changed}
        facts = _with(facts, "metadata", {name: value for name, value in metadata.items() if name not in gone})
    return facts


def _with(fields: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    """Fields with one set: in its place, or where the program writes it."""
    if name in fields:
        return {**fields, name: value}
    behind = set(ORDER[ORDER.index(name) + 1 :]) if name in ORDER else set[str]()
    items = list(fields.items())
    place = next((index for index, (other, _) in enumerate(items) if other in behind), len(items))
    return dict([*items[:place], (name, value), *items[place:]])


def document_of(session: Session, *, damaged: OnDamage = "keep") -> Document:
    """The document that a session is now.

    Raises:
        Corrupt: an event is damaged, and `damaged` is `raise`.
        NotFound, Deleted: the session is not there.
    """
    info = session.info()
    facts = facts_in(info)
    placed: dict[str, dict[int, Any]] = {array: {} for array in ARRAYS}
    added: dict[str, list[Any]] = {array: [] for array in ARRAYS}
    told = mapping(info.metadata.get("oxios_document")).get("text")
    text: bytes | None = None
    left_out = lost = latest = begun = 0
    for event in session.events(damaged=damaged):
        record = record_of(event.payload, event.at)
        if record is None:
            text = _text_in(event) if told and event.id == told else text
            lost += isinstance(event.payload, Damaged)
            left_out += not _is_no_news(event)
        elif record.place is not None:
            placed[record.array][record.place] = record.fields  # of one that was changed in place, the newer
        else:
            if not _is_noted(event):
                latest = max(latest, event.at)
                if record.array == AGENT and len(added[STEPS]) > begun:
                    record.fields["trajectory_range"] = _Range(begun, len(added[STEPS]))
            if record.array == AGENT:
                begun = len(added[STEPS])
            added[record.array].append(record.fields)
    arrays = {name: [v for n, v in sorted(placed[name].items()) if n < int(facts.get(name, 0))] for name in ARRAYS}
    before = len(arrays[STEPS])
    for response in added[AGENT]:
        if isinstance(spread := response.get("trajectory_range"), _Range):
            response["trajectory_range"] = {"start": spread.start + before, "end": spread.end + before}
    for name in ARRAYS:
        arrays[name] += added[name]
        if arrays[name] or name in facts:
            facts = _with(facts, name, arrays[name])
    if latest > (rustjson.micros_of(str(facts["updated_at"])) or 0):
        facts["updated_at"] = time_text(latest)
    return Document(facts, text, left_out, lost)


class _Range(NamedTuple):
    """Where the steps of a response stand among those that were appended here."""

    start: int
    end: int


def _is_noted(event: Event) -> bool:
    return PROGRAM in mapping(getattr(event.payload, "metadata", None))


def _text_in(event: Event) -> bytes | None:
    source = event.payload.source if isinstance(event.payload, Custom) else None
    return None if source is None else str(source.raw).encode()


def _is_no_news(event: Event) -> bool:
    """Whether an event has done its work, or is told otherwise: a change of state or view, the text of a document."""
    return isinstance(event.payload, State | Edit | Damaged) or event.type == f"x.{PROGRAM}.document"


def file_names(store: Store, ids: Sequence[str]) -> dict[str, str]:
    """The path of each session's file in the folder, by the session's id.

    Raises:
        Conflict: two sessions would share a file.
        NotFound, Deleted: a session is not there.
    """
    names: dict[str, str] = {}
    holders = Holders()
    for id in ids:
        info = Session(store, store.head(id)).info()
        name = f"{SESSIONS}/{stem_of(info)}.json"
        holders.take(name, id)
        names[id] = name
    return names


def stem_of(info: SessionInfo) -> str:
    """The name of a session's file: its id where that can be one, else a digest of it."""
    key = key_of(info.id, info.metadata)
    came = is_as_imported(info) and "/" not in key
    return key if came or is_name(key) else "~" + hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def session_bytes(store: Store, id: str, written: Written) -> bytes:
    """The file of a session."""
    session = Session(store, store.head(id))
    info = session.info()
    made = document_of(session)
    if not is_as_imported(info) and made.fields["id"] != stem_of(info):
        made.fields["id"] = stem_of(info)  # the program finds it by this name only
    written.sessions += 1
    written.messages += len(made.fields.get(USER, ())) + len(made.fields.get(AGENT, ()))
    written.left_out += made.left_out
    written.damaged += made.damaged
    return made.encoded()


def documents(store: Store, missing: list[str], taken: Collection[str] = ()) -> Iterator[tuple[str, bytes]]:
    """The files that the store's documents are in a folder of the program's, all of them but what imports noted.

    Args:
        store: Where they are.
        missing: Gets the ids of those that can't be read, or can be no file beside these sessions.
        taken: The files of sessions, which go before a document that would be the same file.

    Raises:
        Conflict: two of them would share a file.
    """
    holders: dict[str, str] = {}
    for ref, head in all_documents(store):
        id, owner = id_of(ref), owner_of(ref)
        if id.startswith(f"{PROGRAM}-imports/"):
            continue
        kept = store if owner is None or owner == store.user else store.for_user(owner)
        try:
            document = None if head is None else kept.documents.get(id)
        except HoldfastError:
            document = None
        path, source = file_of(id, b"" if document is None else document.source)
        if document is None or path in taken or not _is_path(path):
            missing.append(id)
            continue
        if other := holders.get(path):
            raise Conflict(f"documents {other!r} and {id!r} would share the file {path!r}", document=id, other=other)
        holders[path] = id
        yield path, source


def _is_path(path: str) -> bool:
    """Whether a path leads to a file within the folder, on every file system that is usual."""
    parts = path.split("/")
    return all(part not in ("", ".", "..") and len(os.fsencode(part)) <= MAX_PART for part in parts)
