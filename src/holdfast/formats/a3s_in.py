"""a3s-code's folders as they are read and imported: each session with all that belongs to it, once.

What the program takes becomes a session; what it would refuse is kept as it is in the place's `~store`, and told. A
session is known again by a digest of all its files, and a rewritten one is compared with what is there: what went is
hidden, what came is appended, and what was said here since stays.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple, cast

from holdfast.errors import Denied, HoldfastError, Invalid
from holdfast.formats import a3s_rules as rules, rustjson
from holdfast.formats.a3s import (
    FRAGMENTS,
    OTHERS,
    PROGRAM,
    SEALED,
    STORE,
    decoded,
    place_of,
    safe,
    session_id_of,
    without_keys,
    without_keys_raw,
)
from holdfast.formats.a3s_events import Json
from holdfast.formats.a3s_get import Stored, marked
from holdfast.formats.a3s_put import Snapshot, save
from holdfast.formats.lines import open_source
from holdfast.formats.transcript import listing, mapping
from holdfast.heads.info import clean, session_ref
from holdfast.heads.settings import without_secrets
from holdfast.importing.reports import FileReport, Unreadable, told_in
from holdfast.importing.sources import SourceFile
from holdfast.importing.titles import imported
from holdfast.plan import Head
from holdfast.store import Store

MAX_FILE = 256 * 1024 * 1024
"""Bytes of a file that the program reads at the most."""
FORMS = ("2.0", "v1")
MOVED = ("session", "artifacts", "trace_events", "verification_reports")
"""The parts of a snapshot of the newer form that are what the older one keeps in files of their own."""
_SMALL = 1000
_INSIDE = {"artifacts": rules.artifacts, "traces": rules.traces, "verification": rules.verification}


class Read(NamedTuple):
    """One session of a folder as it was read, and what is odd about it."""

    snapshot: Snapshot
    id: str
    paths: list[str]
    unread: list[tuple[str, str]]


class Folder:
    """The files of a folder, by what they are. Paths are relative, with `/`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.sessions: list[str] = []
        self.beside: dict[str, str] = {}  # fragments and others, by the path
        self.strange: list[str] = []
        self.refused: dict[str, str] = {}
        self.notes: list[str] = []
        self._walk("")
        self._by_stem: dict[tuple[str, str], list[str]] = {}
        for name in self.beside:
            self._by_stem.setdefault(self._key(name), []).append(name)
        self._owned = self._owners()

    def _walk(self, under: str) -> None:
        real = os.path.realpath(self.path)
        with os.scandir(os.path.join(self.path, under) if under else self.path) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            path = f"{under}/{entry.name}" if under else entry.name
            if entry.is_symlink() and not os.path.realpath(entry.path).startswith(real + os.sep):
                self.refused[path] = "a link that leads out of the folder"
            elif entry.is_dir(follow_symlinks=not entry.is_symlink()):
                self._walk(path)
            else:
                self._place(path)

    def _place(self, path: str) -> None:
        head, _, name = path.rpartition("/")
        inside = path.removeprefix("v1/")
        if name.endswith(".tmp") or name == ".health_check":
            self.notes.append(f"{path} is left over from a save and says nothing")
        elif path == "v1/writer_lease.json" or path.startswith("v1/wal/"):
            self.notes.append(f"{path} tells who writes there, and is no session")
        elif name.endswith(".json") and head in ("", "v1/sessions"):
            self.sessions.append(path)
        elif inside.partition("/")[0] in (*FRAGMENTS, *OTHERS):
            self.beside[path] = ""
        else:
            self.strange.append(path)

    def _key(self, path: str) -> tuple[str, str]:
        """The form that a file belongs to, and what names its session there."""
        form = "v1" if path.startswith("v1/") else ""
        kind, _, rest = path.removeprefix("v1/").partition("/")
        stem = rest.removesuffix("/artifacts.json") if kind == "artifacts" and not form else rest.removesuffix(".json")
        return form, stem

    def _owners(self) -> dict[str, list[str]]:
        """The files that are named by a run, by the session they tell inside."""
        stems = {self.stem(path) for path in self.sessions}
        owned: dict[str, list[str]] = {}
        for path in self.beside:
            kind = path.removeprefix("v1/").partition("/")[0]
            if kind not in OTHERS or self._key(path) in stems:
                continue
            try:
                owner = _owner_in(self.data(path))
            except (OSError, HoldfastError):
                continue  # it is told with what belongs to no session
            if owner is not None:
                owned.setdefault(owner, []).append(path)
        return owned

    def stem(self, path: str) -> tuple[str, str]:
        """What names the files beside a session's file."""
        form = "v1" if path.startswith("v1/") else ""
        return form, path.rpartition("/")[2].removesuffix(".json")

    def beside_of(self, path: str, id: str) -> list[str]:
        """The files that belong to the session in a file."""
        return [*self._by_stem.get(self.stem(path), ()), *self._owned.get(id, ())]

    def data(self, path: str) -> bytes:
        """The bytes of a file.

        Raises:
            Invalid: it is larger than the program takes, or no file.
        """
        full = os.path.join(self.path, path)
        with open_source(full) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Invalid(f"{path} is no file", path=full)
            data = file.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise Invalid(f"{path} is larger than {MAX_FILE:,} bytes, which the program would not read", path=full)
        return data


def _owner_in(data: bytes) -> str | None:
    try:
        value = rustjson.parse(data)
    except rustjson.NotRust:
        return None
    first: Any = listing(value)[0] if listing(value) else value
    about = mapping(first)
    for told in (about, mapping(about.get("snapshot"))):
        for name in ("session_id", "parent_session_id"):
            if isinstance(told.get(name), str):
                return cast("str", told[name])
    return None


def parse_session(data: bytes, *, newer: bool = False) -> tuple[Json, Json | None]:
    """The session of a file, and the whole snapshot it stands in where it does.

    Raises:
        Refusal: the program would not read it.
    """
    if data.startswith(SEALED):
        raise rules.Refusal("it is encrypted (A3SE), and can't be read without its key")
    value = rules.read(data, rules.anything)
    if not {"schema_version", "session"} & mapping(value).keys():
        if newer:
            raise rules.Refusal("it is no snapshot: it has no schema_version")
        return mapping(rules.session(value, "")), None
    version: object = value.get("schema_version")
    if isinstance(version, bool) or version != 1:
        raise rules.Refusal(f"its schema_version is {version!r:.40}, not 1")
    whole = mapping(_snapshot(value, ""))
    return mapping(whole["session"]), whole


_snapshot = rules.struct(
    {"schema_version": rules.anything, "session": rules.session_v1},
    {
        "artifacts": rules.many(rules.artifact),
        "trace_events": rules.traces,
        "verification_reports": rules.verification,
    },
)


def read_session(folder: Folder, path: str) -> Read:
    """A session of a folder, with all that belongs to it.

    Raises:
        Refusal: the program would not read its file.
    """
    data = folder.data(path)
    session, whole = parse_session(data, newer=path.startswith("v1/"))
    about: Json = {"file": path, "form": FORMS[whole is not None], "raw": {}}
    files: dict[str, tuple[bytes, str]] = {}
    snapshot = Snapshot(session=session, about=about, files=files, at=_micros(session.get("updated_at")))
    if whole is None:
        about["envelope"] = None
        _keep_raw(about, files, path, data, marked(session), session)
    else:
        _unfold(snapshot, path, whole, files)
        _keep_raw(about, files, path, data, {**whole, "session": marked(session)}, session)
    beside = folder.beside_of(path, session["id"])
    unread: list[tuple[str, str]] = []
    for other in beside:
        _take_beside(snapshot, other, folder.data(other), whole is not None, unread)
    return Read(snapshot, session["id"], [path, *beside], unread)


def _micros(seconds: object) -> int:
    return seconds * 1_000_000 if isinstance(seconds, int) and 0 <= seconds < 2**40 else 0


def _unfold(snapshot: Snapshot, path: str, whole: Json, files: dict[str, tuple[bytes, str]]) -> None:
    """Take apart a snapshot of the newer form."""
    snapshot.artifacts = listing(whole.get("artifacts"))
    snapshot.traces = listing(whole.get("trace_events"))
    snapshot.reports = listing(whole.get("verification_reports"))
    envelope: Json = {}
    for name, value in whole.items():
        text = rustjson.compact(value)
        envelope[name] = None if name in MOVED or len(text) > _SMALL else value
        if name not in MOVED and len(text) > _SMALL:
            files[f"{path}#{name}"] = (without_keys_raw(text.encode()), "")
    snapshot.about["envelope"] = envelope


def _take_beside(snapshot: Snapshot, path: str, data: bytes, newer: bool, unread: list[tuple[str, str]]) -> None:
    files = cast("dict[str, tuple[bytes, str]]", snapshot.files)
    kind = path.partition("/")[0]
    if newer or kind not in FRAGMENTS or path.count("/") != (2 if kind == "artifacts" else 1):
        files[path] = (without_keys_raw(data), "")
        return
    try:
        value = rules.read(data, _INSIDE[kind])
    except rules.Refusal as refusal:
        files[path] = (without_keys_raw(data), str(refusal))
        unread.append((path, str(refusal)))
        return
    if kind == "artifacts":
        snapshot.artifacts = listing(value["artifacts"])
        snapshot.about["artifacts"] = {name: None if name == "artifacts" else item for name, item in value.items()}
    elif kind == "traces":
        snapshot.traces = listing(value)
    else:
        snapshot.reports = listing(value)
    _keep_raw(snapshot.about, files, path, data, value, {})


def _keep_raw(
    about: Json, files: dict[str, tuple[bytes, str]], path: str, data: bytes, value: Any, session: Json
) -> None:
    """Keep a file as it is, too, if it would not be written so again; but never a key."""
    made = rustjson.pretty(value).encode()
    config = mapping(session.get("config"))
    safe_to_keep = without_keys(session) == session and without_secrets(config) == config
    if made != data and safe_to_keep:
        about["raw"][path] = hashlib.sha256(made).hexdigest()
        files["=" + path] = (data, "")


def take_folder(store: Store, file: SourceFile, user: str | None) -> Iterator[FileReport]:
    """Import a folder; a report of each session, and one of what belongs to none.

    Raises:
        Unavailable, Uncertain, ReadOnly: the store can't take them now; call again to go on.
    """
    report = FileReport(path=file.path, program=PROGRAM, size=file.size)
    with told_in(report):
        folder = Folder(file.path)
        yield from _Taking(store, folder, user).run()
        return
    yield report


class _Taking:
    def __init__(self, store: Store, folder: Folder, user: str | None) -> None:
        self.store, self.folder, self.user = store, folder, user
        self.place = place_of(folder.path)
        self.taken: set[str] = set()
        self.ids: dict[str, str] = {}
        self.left: dict[str, tuple[bytes, str]] = {}
        self.over: dict[str, str] = dict(folder.refused)

    def run(self) -> Iterator[FileReport]:
        """Every session, those in the newer form first, then those whose file has their name."""
        waiting: list[str] = []
        for path in sorted(self.folder.sessions, key=lambda path: not path.startswith("v1/")):
            found = self._session(path, waiting)
            if found is not None:
                yield found
        for path in waiting:
            found = self._session(path, None)
            if found is not None:
                yield found
        yield from self._rest()

    def _session(self, path: str, waiting: list[str] | None) -> FileReport | None:
        report = FileReport(path=os.path.join(self.folder.path, path), program=PROGRAM)
        with told_in(report):
            try:
                read = read_session(self.folder, path)
            except rules.Refusal as refusal:
                self._leave(path, str(refusal))
                return None
            named = decoded(path.rpartition("/")[2].removesuffix(".json")) if path.startswith("v1/") else None
            fits = read.id == named or (named is None and path == f"{safe(read.id)}.json")
            if waiting is not None and not fits:
                waiting.append(path)
                return None
            if (other := self.ids.get(read.id)) is not None:
                self._leave(path, f"it tells the session {read.id!r} that {other} tells, too")
                return None
            self.ids[read.id] = path
            self.taken.update(read.paths)
            self._store(report, read, fits)
        return report

    def _leave(self, path: str, reason: str) -> None:
        self.left[path] = (without_keys_raw(self.folder.data(path)), reason)

    def _store(self, report: FileReport, read: Read, fits: bool) -> None:
        report.session = session_id_of(self.place, read.id)
        report.size = sum(os.stat(os.path.join(self.folder.path, path)).st_size for path in read.paths)
        if not fits:
            report.notes.append(f"the session inside is {read.id!r}, which its file is not named for")
        if without_keys(read.snapshot.session) != read.snapshot.session:
            report.notes.append("the key of a model was left out")
        for path, reason in read.unread:
            report.unreadable_lines += 1
            report.unreadable.append(Unreadable(1, f"{path}: {reason}"))
        self._put(report, report.session, read.id, read.snapshot, [*read.paths])

    def _put(self, report: FileReport, id: str, own: str, snapshot: Snapshot, paths: list[str]) -> None:
        digest = _digest(snapshot, paths)

        def note(head: Head | None) -> Json | None:
            if head is not None and head.dead:
                report.skipped = "its session was deleted here"
                return None
            if head is not None and head.trashed:
                report.skipped = "its session is in the trash here"
                return None
            if head is not None and self.user is not None and head.tags.get("user") != self.user:
                raise Denied(f"session {id!r} belongs to another user; import as that user")
            noted = imported(head)
            if head is not None and not noted:
                report.skipped = "a session of this id was begun here, and never imported"
                return None
            if noted.get("digest") == digest:
                report.known = int(noted.get("events", 0))
                return None
            return {
                "source_program": PROGRAM,
                "source_session": clean(own)[:1024],
                "source_file": clean(os.path.abspath(self.folder.path)),
                "imported": {"digest": digest},
            }

        saved = save(self.store, id, snapshot, user=self.user, note=note, spare=_spared, whole=False)
        if saved is not None:
            report.events, report.known = saved.events, saved.known

    def _rest(self) -> Iterator[FileReport]:
        """What belongs to no session, or could not be read."""
        folder = self.folder
        report = FileReport(path=folder.path, program=PROGRAM, notes=folder.notes)
        with told_in(report):
            for path in [*folder.beside, *folder.strange]:
                if path not in self.taken:
                    try:
                        data = folder.data(path)
                    except (OSError, HoldfastError) as error:
                        self.over[path] = str(error)
                        continue
                    sealed = "it is encrypted (A3SE), and can't be read without its key"
                    self.left[path] = (without_keys_raw(data), sealed if data.startswith(SEALED) else "")
            for path, reason in [*((path, reason) for path, (_, reason) in self.left.items()), *self.over.items()]:
                if reason:
                    report.unreadable_lines += 1
                    report.unreadable.append(Unreadable(1, f"{path}: {reason}"))
            id = session_id_of(self.place, "x")[:-1] + STORE
            if self.left or self.store.backend.get([session_ref(id)])[0] is not None:
                report.session = id
                self._put(report, id, STORE, Snapshot(files=self.left), list(self.left))
        if report.session or report.notes or report.unreadable or report.error:
            yield report


def _digest(snapshot: Snapshot, paths: list[str]) -> str:
    digest = hashlib.sha256()
    parts: list[Any] = [snapshot.session, snapshot.artifacts, snapshot.traces, snapshot.reports, snapshot.about, paths]
    digest.update(rustjson.compact(parts).encode())
    for path, (data, reason) in sorted((snapshot.files or {}).items()):
        digest.update(f"\0{path}\0{reason}\0{len(data)}\0".encode("utf-8", "replace") + data)
    return digest.hexdigest()


def _spared(head: Head, stored: Stored) -> Collection[int]:
    """The events that the folder did not bring: they are not its to take away."""
    noted = imported(head)
    last, here = noted.get("last", 0), listing(noted.get("here"))
    seqs = {held.event.seq for kind in stored.lists.values() for held in kind}
    return {seq for seq in seqs if seq > last or seq in here}
