"""a3s-code's folders as they are written, so that the program loads them.

What came from there and was not changed is written as it was, to the byte; anything else as 2.0.0 writes it. A session
of the newer form goes back into that form.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from holdfast.errors import Invalid
from holdfast.formats import a3s_rules as rules, rustjson
from holdfast.formats.a3s import FRAGMENTS, STORE, encoded, fitted, id_in, safe
from holdfast.formats.a3s_events import REPORT, TRACE, Json
from holdfast.formats.a3s_get import Stored, about_of, artifact_records, look, session_record
from holdfast.formats.transcript import mapping
from holdfast.formats.written import Holders, Written
from holdfast.heads.info import SessionInfo
from holdfast.session import Session
from holdfast.store import Store

MAX_NAME = 255
"""Bytes that the name of a file may take."""


def file_names(store: Store, ids: Sequence[str]) -> dict[str, str]:
    """The path of each session's file in the folder, by the session's id; "" for what belongs to no session.

    Raises:
        Conflict: two sessions would share a file, as the program of 2.0 names files so that different ids may.
        Invalid: a session's id can't name a file there.
        NotFound, Deleted: a session is not there.
    """
    names: dict[str, str] = {}
    holders = Holders()
    for id in ids:
        info = Session(store, store.head(id)).info()
        name = names[id] = _file_of(info)
        holders.take(name or id, id)
        _check_inside(id, name or ".")
        if len(name.rpartition("/")[2].encode()) > MAX_NAME:
            raise Invalid(f"the id of session {id!r} is too long for a file of a3s-code; its name has {MAX_NAME} bytes")
    return names


def _check_inside(id: str, path: str) -> None:
    """Refuse a path that leads out of the folder, or to no file: a session may have come from anywhere."""
    if "\0" in path or (path != "." and any(part in ("", ".", "..") for part in path.split("/"))):
        raise Invalid(f"session {id!r} names {path!r}, which is no file in a folder", session=id, file=path)


def _file_of(info: SessionInfo) -> str:
    about = about_of(info)
    if info.id.rpartition("/")[2] == STORE:
        return ""
    id = id_in(info.id, info.metadata)
    if not _is_own(info, about):
        return f"{safe(id)}.json"
    path = about.get("file")
    if isinstance(path, str):
        return path or "/"
    return f"v1/sessions/{encoded(id)}.json" if about.get("form") == "v1" else f"{safe(id)}.json"


def _is_own(info: SessionInfo, about: Json) -> bool:
    """Whether what was noted is the session's own: a fork has its parent's metadata."""
    own = mapping(about.get("document")).get("id")
    return isinstance(own, str) and info.id.partition("/")[2] == fitted(own)


def files_of(store: Store, id: str, name: str, written: Written) -> Iterator[tuple[str, bytes]]:
    """The files of a session: their paths in the folder, and what is in them.

    Raises:
        Corrupt: the bytes of an artifact are not what was put.
        Invalid: it names a file that is none in the folder.
        NotFound, Deleted: the session is not there.
    """
    session = Session(store, store.head(id))
    info, stored = session.info(), look(session, "keep")
    about = about_of(info)
    own = not name or _is_own(info, about)
    written.sessions += 1
    written.left_out += stored.left_out
    written.damaged += stored.damaged
    if name:
        record = session_record(info, stored)
        written.messages += len(record["messages"])
        made = dict(_made(session, name, about if own else {}, record, stored))
        for path, value in made.items():
            yield path, _as_it_was(about, stored, path, rustjson.pretty(value).encode())
    for path, kept in stored.files.items():
        if own and not path.startswith("=") and "#" not in path:
            _check_inside(id, path)
            yield path, kept.data


def _made(session: Session, name: str, about: Json, record: Json, stored: Stored) -> Iterator[tuple[str, object]]:
    """The files that are made of events, by their paths."""
    artifacts = artifact_records(session)
    traces = [held.record for held in stored.lists[TRACE]]
    reports = [held.record for held in stored.lists[REPORT]]
    if about.get("form") == "v1":
        yield name, _folded(name, mapping(about.get("envelope")), record, artifacts, traces, reports, stored)
        return
    yield name, _loadable(record)
    stem = name.removesuffix(".json")
    saved = about.get("saved", FRAGMENTS) if about.get("file") else FRAGMENTS
    told = mapping(about.get("artifacts")) or {"artifacts": None}
    document = {field: artifacts if field == "artifacts" else value for field, value in told.items()}
    beside = [
        ("artifacts", f"artifacts/{stem}/artifacts.json", artifacts, document),
        ("traces", f"traces/{stem}.json", traces, traces),
        ("verification", f"verification/{stem}.json", reports, reports),
    ]
    for kind, path, records, value in beside:
        unread = path in stored.files  # it could not be read, and goes back as it was
        if not unread and (records or kind in saved):
            yield path, value


def _loadable(record: Json) -> Json:
    """The session file without blocks of types for which 2.0.0 would refuse all of it: they go as text."""
    if rules.fits(rules.session, record):
        return record
    messages: list[Json] = []
    for message in record["messages"]:
        blocks = [block if rules.fits(rules.block, block) else _as_text(block) for block in message["content"]]
        messages.append({**message, "content": blocks})
    return {**record, "messages": messages}


def _as_text(block: Json) -> Json:
    return {"type": "text", "text": rustjson.compact(block)}


def _folded(
    name: str,
    envelope: Json,
    record: Json,
    artifacts: list[Json],
    traces: list[Json],
    reports: list[Json],
    stored: Stored,
) -> Json:
    """A snapshot of the newer form."""
    parts = {"session": record, "artifacts": artifacts, "trace_events": traces, "verification_reports": reports}
    made: Json = {}
    for field, value in (envelope or {"schema_version": 1, "session": None}).items():
        moved = stored.files.get(f"{name}#{field}")
        made[field] = parts.pop(field, value) if moved is None else rustjson.parse(moved.data)
    return {**made, **{field: value for field, value in parts.items() if value}}


def _as_it_was(about: Json, stored: Stored, path: str, made: bytes) -> bytes:
    """The file as it came, where nothing of what it says was changed since."""
    raw = stored.files.get(f"={path}")
    same = mapping(about.get("raw")).get(path) == hashlib.sha256(made).hexdigest()
    return raw.data if raw is not None and same else made
