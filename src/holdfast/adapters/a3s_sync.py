"""a3s-code's `SessionStore` over a holdfast store: the trait of its version 2.0, with its names.

Ids are exact, a save is one commit that hides what went and appends what came, lists are sorted, an error is never
"not there", and the key of a model is never kept. docs/ORIGINS.md tells, defect by defect, what is different.
`a3s` has the same for asyncio, as the trait is.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import Any

from holdfast.adapters.a3s_types import (
    ArtifactStore,
    SessionData,
    ToolArtifact,
    TraceEvent,
    VerificationReport,
    checked,
)
from holdfast.adapters.kept import kept_sessions
from holdfast.errors import Corrupt, HoldfastError, Invalid, NotFound, Trashed, Unavailable
from holdfast.events.redact import masked
from holdfast.formats import a3s_rules as rules
from holdfast.formats.a3s import (
    FRAGMENTS,
    PROGRAM,
    STORE,
    id_in,
    place_of,
    safe,
    session_id_of,
    without_keys,
)
from holdfast.formats.a3s_events import REPORT, TRACE, Json
from holdfast.formats.a3s_get import about_of, artifact_records, look, session_record
from holdfast.formats.a3s_in import Folder, read_session
from holdfast.formats.a3s_put import Snapshot, save
from holdfast.formats.transcript import mapping
from holdfast.heads.info import SessionInfo, check_user, info_of, now, session_ref
from holdfast.history import branching
from holdfast.paths import as_path
from holdfast.plan import Commit, Head, Refused, check_id
from holdfast.refusals import refusal
from holdfast.session import Session
from holdfast.store import Store


class SyncSessionStore:
    """The sessions of one place in a store. Safe in threads; the store stays the caller's to close.

    Args:
        store: Where they are kept.
        place: What names this set of sessions; each has its own ids. `holdfast.formats.a3s.place_of(folder)` is the
            place of what was imported from there.
        user: Whose the sessions are that it creates.

    Every method raises what `Store` and `Session` raise, `Corrupt` for what can't be read among it.
    """

    name = "holdfast"

    def __init__(self, store: Store, place: str = "default", *, user: str | None = None) -> None:
        check_id(place, "place")
        if "/" in place:
            raise Invalid(f"the place {place!r} holds a slash, which ends it in the ids of its sessions", place=place)
        self.store = store
        self.place = place
        self._user = check_user(user)

    def session_id(self, id: str) -> str:
        """The id of a session in the store."""
        return session_id_of(self.place, id)

    def session(self, id: str) -> Session | None:
        """The session itself, with all that holdfast keeps of it; None if it is not there."""
        head = self._head(id)
        return None if head is None else Session(self.store, head)

    def _head(self, id: str) -> Head | None:
        head = self.store.peek(self.session_id(id))
        return None if head is None or head.dead or head.trashed or _is_bare(info_of(head)) else head

    def save(self, session: SessionData) -> None:
        """Save a session: what is new is appended, what went is hidden, in one step. What is as it was costs a read.

        `created_at` never moves to a later time; the key of a model is not kept.

        Raises:
            Invalid: the program could not read it. Blocks and fields that are not known are no such thing.
            TooLarge: more than 100,000 events would be new; nothing of them is stored.
        """
        self.save_snapshot(session)

    def save_snapshot(
        self,
        session: SessionData,
        artifacts: ArtifactStore | None = None,
        trace_events: Sequence[TraceEvent] | None = None,
        verification_reports: Sequence[VerificationReport] | None = None,
    ) -> None:
        """Save a session and what belongs to it, all in one step; what is None is left as it is."""
        record: Json = masked(without_keys(session.json()), self.store.secrets)
        known = [{**message, "content": _known(message["content"])} for message in record["messages"]]
        checked(rules.session, {**record, "messages": known}, "session")
        self._check_not_put_away(session.id)
        before = self._head(session.id)
        created = None if before is None else mapping(about_of(info_of(before)).get("document")).get("created_at")
        if isinstance(created, int):
            record["created_at"] = min(created, record["created_at"])
        at = session.updated_at * 1_000_000 if 0 <= session.updated_at < 2**40 else 0
        parts = masked(_parts(artifacts, trace_events, verification_reports), self.store.secrets)
        snapshot = Snapshot(session=record, at=at, **parts)
        save(self.store, self.session_id(session.id), snapshot, user=self._user)

    def _check_not_put_away(self, id: str) -> None:
        """Refuse a save of what is in the trash, also one that would change nothing of it."""
        head = self.store.peek(self.session_id(id))
        if head is not None and head.trashed:
            raise refusal(Refused("trashed", head), Commit(ref=head.ref))

    def load(self, id: str) -> SessionData | None:
        """A session; None if it is not there.

        Raises:
            Corrupt: it is there and can't be read, or its file could not be read when it was imported.
        """
        head = self._head(id)
        if head is not None:
            session = Session(self.store, head)
            try:
                return SessionData.of(session_record(session.info(), look(session)))
            except NotFound:
                return None  # deleted meanwhile
        self._check_unread(id)
        return None

    def _check_unread(self, id: str) -> None:
        kept = self.store.get(f"{PROGRAM}:{self.place}/{STORE}")
        found = None if kept is None else look(kept).files.get(f"{safe(id)}.json")
        if found is not None and found.reason:
            raise Corrupt(f"the file of session {id!r} can't be read: {found.reason}", session=id)

    def delete(self, id: str) -> None:
        """Delete a session with its artifacts, traces and reports, in one step; nothing if it is not there.

        Raises:
            Conflict: a fork reads its messages.
            Trashed: it is in the trash; restore or purge it there.
        """
        try:
            branching.delete(self.store, self.session_id(id))
        except Trashed:
            raise
        except NotFound:
            return

    def list(self) -> list[str]:
        """The ids of all sessions, sorted."""
        infos = kept_sessions(self.store, PROGRAM, self.session_id("x")[:-1])
        return sorted(id_in(info.id, info.metadata) for info in infos if not _is_bare(info))

    def exists(self, id: str) -> bool:
        """Whether a session is there."""
        return self._head(id) is not None

    def save_artifacts(self, id: str, artifacts: ArtifactStore) -> None:
        """Save all artifacts of a session, which need not be saved yet."""
        self._save(id, artifacts=artifacts)

    def save_trace_events(self, id: str, events: Sequence[TraceEvent]) -> None:
        """Save all trace events of a session, which need not be saved yet."""
        self._save(id, trace_events=events)

    def save_verification_reports(self, id: str, reports: Sequence[VerificationReport]) -> None:
        """Save all verification reports of a session, which need not be saved yet."""
        self._save(id, verification_reports=reports)

    def _save(self, id: str, **parts: Any) -> None:
        made = masked(_parts(**parts), self.store.secrets)
        save(self.store, self.session_id(id), Snapshot(at=now(), **made), user=self._user)

    def load_artifacts(self, id: str) -> ArtifactStore | None:
        """The artifacts of a session; None if none were ever saved."""
        session = self._part(id, "artifacts")
        if session is None:
            return None
        return ArtifactStore([ToolArtifact.of(record) for record in artifact_records(session)])

    def load_trace_events(self, id: str) -> list[TraceEvent] | None:
        """The trace events of a session; None if none were ever saved."""
        session = self._part(id, "traces")
        return None if session is None else [TraceEvent.of(held.record) for held in look(session).lists[TRACE]]

    def load_verification_reports(self, id: str) -> list[VerificationReport] | None:
        """The verification reports of a session; None if none were ever saved."""
        session = self._part(id, "verification")
        return None if session is None else [VerificationReport.of(held.record) for held in look(session).lists[REPORT]]

    def _part(self, id: str, kind: str) -> Session | None:
        """The session if that part of it was saved, or something of it was made here."""
        head = self.store.peek(self.session_id(id))
        if head is None or head.dead or head.trashed:
            return None
        counter = {"artifacts": "artifacts", "traces": "steps", "verification": "reports"}[kind]
        saved = kind in about_of(info_of(head)).get("saved", ())
        return Session(self.store, head) if saved or head.counts.get(counter) else None

    def health_check(self) -> None:
        """Read from the store.

        Raises:
            Unavailable: it can't be reached.
        """
        self.store.backend.get([session_ref(self.session_id("health"))])

    def backend_name(self) -> str:
        """What diagnostics call it."""
        return self.name


def _is_bare(info: SessionInfo) -> bool:
    """Whether only artifacts, traces or reports of a session were saved, and it itself never."""
    return bool(about_of(info).get("bare"))


def _known(blocks: Any) -> list[Any]:
    """The blocks of a message of those types that the program of 2.0 knows."""
    return [block for block in blocks if mapping(block).get("type") in ("text", "image", "tool_use", "tool_result")]


def _parts(
    artifacts: ArtifactStore | None = None,
    trace_events: Sequence[TraceEvent] | None = None,
    verification_reports: Sequence[VerificationReport] | None = None,
) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if artifacts is not None:
        made["artifacts"] = [artifact.json() for artifact in artifacts]
        checked(rules.artifacts, made, "artifact")
    if trace_events is not None:
        made["traces"] = [event.json() for event in trace_events]
        checked(rules.traces, made["traces"], "trace event")
    if verification_reports is not None:
        made["reports"] = [report.json() for report in verification_reports]
        checked(rules.verification, made["reports"], "verification report")
    return made


class SyncFileSessionStore(SyncSessionStore):
    """Like `FileSessionStore` with a folder of the program's own beside: what is there and not in the store is read.

    Nothing is ever written into the folder; `holdfast import` takes all of it into the same place.
    """

    name = "file"

    def __init__(self, store: Store, folder: str | os.PathLike[str], *, user: str | None = None) -> None:
        self.folder = as_path(os.fspath(folder))
        super().__init__(store, place_of(self.folder), user=user)

    def load(self, id: str) -> SessionData | None:
        """See `SyncSessionStore.load`. A file is taken only if the id inside is the one that is asked for."""
        if self._is_here(id):
            return super().load(id)
        old = self._old(id)
        if old is None or old.session is None:
            return super().load(id)
        return SessionData.of(without_keys(old.session))

    def _is_here(self, id: str) -> bool:
        """Whether the store knows of the session, also that it was deleted."""
        head = self.store.peek(self.session_id(id))
        return head is not None and (head.dead or head.trashed or not _is_bare(info_of(head)))

    def _old(self, id: str) -> Snapshot | None:
        """The session of the folder; None if there is none."""
        path = f"{safe(id)}.json"
        if "\0" in path or len(path.encode("utf-8", "replace")) > 255:
            return None  # no file of this name can be there
        if not os.path.lexists(os.path.join(self.folder, path)):
            return None
        try:
            read = read_session(Folder(self.folder), path)
        except FileNotFoundError:
            return None
        except rules.Refusal as why:
            raise Corrupt(f"the file {path} of session {id!r} can't be read: {why}", session=id) from None
        return read.snapshot if read.id == id else None

    def _fragment(self, id: str, kind: str) -> Snapshot | None:
        return None if self._is_here(id) or self._part(id, kind) is not None else self._old(id)

    def delete(self, id: str) -> None:
        """See `SyncSessionStore.delete`. A session of the folder is told to be deleted; its file stays."""
        if not self._is_here(id) and self._old(id) is not None:
            ref = session_ref(self.session_id(id))
            head = self.store.peek(ref.id)
            if head is None:
                self.store.batcher.commit(Commit(ref=ref, at=now(), if_rev=0, delete=True))
                return
        super().delete(id)

    def list(self) -> list[str]:
        """See `SyncSessionStore.list`; with the sessions of the folder that can be read."""
        found = set(super().list())
        folder = Folder(self.folder) if os.path.isdir(self.folder) else None
        for path in folder.sessions if folder else ():
            try:
                id = read_session(folder, path).id if folder else ""
            except (OSError, HoldfastError, rules.Refusal):
                continue  # `load` tells what is wrong with it
            if not self._is_here(id) and path == f"{safe(id)}.json":
                found.add(id)
        return sorted(found)

    def exists(self, id: str) -> bool:
        """See `SyncSessionStore.exists`; a file that can't be read is there."""
        if self._is_here(id):
            return super().exists(id)
        try:
            return self._old(id) is not None
        except Corrupt:
            return True

    def load_artifacts(self, id: str) -> ArtifactStore | None:
        """See `SyncSessionStore.load_artifacts`."""
        old = self._fragment(id, FRAGMENTS[0])
        if old is None or old.artifacts is None:
            return super().load_artifacts(id)
        return ArtifactStore([ToolArtifact.of(record) for record in old.artifacts])

    def load_trace_events(self, id: str) -> list[TraceEvent] | None:
        """See `SyncSessionStore.load_trace_events`."""
        old = self._fragment(id, FRAGMENTS[1])
        if old is None or old.traces is None:
            return super().load_trace_events(id)
        return [TraceEvent.of(record) for record in old.traces]

    def load_verification_reports(self, id: str) -> list[VerificationReport] | None:
        """See `SyncSessionStore.load_verification_reports`."""
        old = self._fragment(id, FRAGMENTS[2])
        if old is None or old.reports is None:
            return super().load_verification_reports(id)
        return [VerificationReport.of(record) for record in old.reports]

    def health_check(self) -> None:
        """Write a file into the folder, sync and rename it, under names that nobody else has; and read from the store.

        Raises:
            Unavailable: one of them can't be reached.
        """
        super().health_check()
        try:
            with tempfile.TemporaryDirectory(prefix=".holdfast-", dir=self.folder) as inside:
                path = os.path.join(inside, "probe")
                with open(path, "wb") as file:
                    file.write(b"ok")
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(path, path + ".renamed")
        except OSError as error:
            raise Unavailable(
                f"the folder {self.folder} can't be written: {error.strerror}", path=self.folder
            ) from None


class SyncMemorySessionStore(SyncSessionStore):
    """Like `MemorySessionStore`: a store in memory of its own, if none is given, that ends with the object."""

    name = "memory"

    def __init__(self, store: Store | None = None, place: str = "default", *, user: str | None = None) -> None:
        super().__init__(Store("memory://") if store is None else store, place, user=user)
