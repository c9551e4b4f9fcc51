"""oxios's folders: `<base>/<category>/<name>.json|.md`, of which `sessions/*.json` are sessions and the rest documents.

A base is a place of its own, told by a digest of its path. Its documents are put under `oxios/<place>/<category>/`,
byte for byte; what the program itself could not read (a session that is none, JSON that is none, a name that can't be)
is put under `oxios-unreadable/<place>/`, and reported. Files that end in `.tmp` were never finished; the program passes
them over, and so does this.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from holdfast.documents.docheads import check_json, kind_of, text_of
from holdfast.errors import HoldfastError, TooLarge
from holdfast.formats import rustjson
from holdfast.formats.lines import digest_of, open_source
from holdfast.formats.oxios import (
    AGENT,
    PROGRAM,
    STEPS,
    NotRust,
    facts_of,
    name_in,
    payload_of,
    projects_in,
    session_of,
    title_in,
    to_time,
    woven,
)
from holdfast.formats.transcript import event_id, kept
from holdfast.formats.whole import Item, Said, Told, ToldDocument
from holdfast.formats.zeroclaw import fitted, place_of
from holdfast.heads.info import clean
from holdfast.model import Source
from holdfast.plan import check_id

SESSIONS, AGENTS = "sessions", "agents"
MAX_FILE = 256 * 1024 * 1024
"""Bytes of a file that is read."""
LOOKED_AT = 50
"""Files of a folder by which it is told whether it is one of the program's."""
_PEEK = 4096
UNREADABLE = "oxios-unreadable"
"""The category of what could not be read."""
ENDINGS = (".json", ".md")


class Base(NamedTuple):
    """A folder of the program's; `only` is the one category of it that was named, if any."""

    path: str
    only: str | None = None


def base_of(path: str) -> Base | None:
    """The base that a path is: the folder of all categories, its folder of sessions, or a session in there."""
    if os.path.isdir(path):
        if _holds(os.path.join(path, SESSIONS), _is_session) or _holds(os.path.join(path, AGENTS), _is_agent):
            return Base(path)
        if os.path.basename(os.path.abspath(path)) == SESSIONS and _holds(path, _is_session):
            return Base(os.path.dirname(os.path.abspath(path)), SESSIONS)
    return None


def is_folder(path: str, _head: bytes) -> bool:
    """Whether a path is a folder of the program's."""
    return base_of(path) is not None


def is_session_file(path: str, head: bytes) -> bool:
    """Whether a file looks like one session of the program's."""
    return path.endswith(".json") and _is_session(head)


def _is_session(head: bytes) -> bool:
    return b'"user_id"' in head and any(f'"{name}"'.encode() in head for name in ("user_messages", "created_at"))


def _is_agent(head: bytes) -> bool:
    return all(f'"{name}"'.encode() in head for name in ("id", "name", "status", "created_at"))


def _holds(folder: str, is_one: Any) -> bool:
    try:
        names = [name for name in sorted(os.listdir(folder)) if name.endswith(".json")]
    except OSError:  # it is not there, or none of ours to tell
        return False
    return any(is_one(_head(os.path.join(folder, name))) for name in names[:LOOKED_AT])


def _head(path: str) -> bytes:
    try:
        with open_source(path) as file:
            return file.read(_PEEK)
    except (OSError, HoldfastError):
        return b""  # what is wrong with it is told when it is read


def _read(path: str) -> bytes:
    with open_source(path) as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise TooLarge(f"{path} is larger than {MAX_FILE:,} bytes", path=path, limit=MAX_FILE)
    return data


@contextmanager
def sessions_in(path: str) -> Generator[Iterator[Told]]:
    """The sessions of a base, or the one in a file."""
    base = base_of(path)
    yield iter([_session(path)]) if base is None else _sessions(base)


def _sessions(base: Base) -> Iterator[Told]:
    for path, _ in _files(base, SESSIONS):
        if path.endswith(".json"):
            told = _session(path)
            if told is not None:
                yield told


def _session(path: str) -> Any:
    """The session in a file; None if it holds none."""
    folder, name = os.path.split(os.path.abspath(path))
    stem = name.removesuffix(".json")
    place = place_of(os.path.dirname(folder) if os.path.basename(folder) == SESSIONS else folder)
    id = name_in(place, stem)
    try:
        data = _read(path)
        document = session_of(data)
    except NotRust:
        return None
    except (OSError, HoldfastError) as error:
        failed = error

        def fail() -> Any:
            raise failed

        return Told(id, fail, fail, path)
    reading = _Reading(path, stem, data, document)
    return Told(id, reading.said, reading.items, path)


class _Reading:
    """One session's file, read."""

    def __init__(self, path: str, stem: str, data: bytes, document: dict[str, Any]) -> None:
        self._name = os.path.basename(path)
        self._stem = stem
        self._data = data
        self._document = document
        self._is_regular = rustjson.pretty(document).encode() == data

    def said(self) -> Said:
        """What the document says beside its arrays."""
        document = self._document
        facts = facts_of(document)
        told: dict[str, Any] = {"says": facts}
        if not self._is_regular:
            told["text"] = self._text_id()
        metadata: dict[str, Any] = {"oxios_document": told}
        if fitted(self._stem) != self._stem:
            metadata["oxios_id"] = clean(self._stem)
        tags: dict[str, str | None] = {"state": "idle", "user": _tag(document["user_id"])}
        if title := title_in(document.get("metadata", {})):
            tags["title"] = clean(" ".join(title.split()))[:200]
        if projects := projects_in(facts):
            tags["project"] = _tag(projects[0])
        return Said(
            digest=hashlib.sha256(self._data).hexdigest(),
            tags=tags,
            metadata=metadata,
            created=max(to_time(document["created_at"]), 0),
            active=max(to_time(document["updated_at"]), 0),
            notes=tuple(self._notes()),
        )

    def _notes(self) -> Iterator[str]:
        inside, steps = self._document["id"], len(self._document.get(STEPS, ()))
        if inside != self._stem:
            yield f"its file is that of {self._stem!r}, and it says that it is {inside!r}"
        for number, response in enumerate(self._document.get(AGENT, ()), 1):
            range = response.get("trajectory_range")
            if range and not range["start"] <= range["end"] <= steps:
                yield f"response {number} names the steps {range['start']} to {range['end']}, of {steps}"

    def items(self) -> Iterator[Item]:
        """The records in the order of their times, and the text itself where it is not as the program writes it."""
        for array, index, record, at in woven(self._document):
            yield Item(f"{array[0]}{index}", at, payload_of(array, record, index), index + 1)
        if not self._is_regular:
            source = Source(file=self._name, raw=self._data.decode())
            yield Item(self._text_id(), None, kept(PROGRAM, "document", None, source))

    def _text_id(self) -> str:
        return f"d.{event_id(digest_of(self._data))}"


def _tag(value: str) -> str | None:
    """A text as a tag; None if it can be none."""
    try:
        check_id(value, "user")
    except HoldfastError:
        return None
    return value


def _files(base: Base, category: str | None = None) -> Iterator[tuple[str, str]]:
    """The files of a base or one of its categories that the program would read, and their paths in the base."""
    top = base.path if category is None else os.path.join(base.path, category)
    for folder, folders, names in os.walk(top):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if name.endswith(ENDINGS) and os.path.isfile(path):
                yield path, os.path.relpath(path, base.path)
        if category is not None:
            return


def documents_in(path: str) -> Iterator[ToldDocument]:
    """The documents of a base: all that is no session, and what could not be read, with the reason."""
    base = base_of(path)
    if base is None:
        yield from _unread_session(path)
        return
    place = place_of(base.path)
    for file, inside in _files(base, base.only):
        told = _document(file, inside, place)
        if told is not None:
            yield told


def _unread_session(path: str) -> Iterator[ToldDocument]:
    folder, name = os.path.split(os.path.abspath(path))
    base = os.path.dirname(folder) if os.path.basename(folder) == SESSIONS else folder
    told = _document(path, os.path.join(SESSIONS, name), place_of(base))
    if told is not None:
        yield told


def _document(path: str, inside: str, place: str) -> ToldDocument | None:
    """A file as a document; None if it is a session."""
    id = f"{PROGRAM}/{place}/{inside}"
    try:
        data = _read(path)
    except (OSError, HoldfastError) as error:
        why = error.message if isinstance(error, HoldfastError) else (error.strerror or str(error))
        return ToldDocument(path, None, b"", why)
    try:
        if inside.startswith(SESSIONS + os.sep) and inside.count(os.sep) == 1 and inside.endswith(".json"):
            session_of(data)
            return None
        if kind_of(id) == "json":
            rustjson.parse(data)
            check_json(id, data)
        else:
            data.decode()
            text_of(id, data)
    except (NotRust, HoldfastError, UnicodeDecodeError) as error:
        return _unreadable(path, inside, place, data, error.message if isinstance(error, HoldfastError) else str(error))
    return ToldDocument(path, id, data)


def _unreadable(path: str, inside: str, place: str, data: bytes, why: str) -> ToldDocument:
    name = quote_from_bytes(os.fsencode(inside), safe="/ ")
    try:
        data.decode()
        return ToldDocument(path, f"{UNREADABLE}/{place}/{name}.md", data, why)
    except UnicodeDecodeError:
        return ToldDocument(path, f"{UNREADABLE}/{place}/{name}.b64.md", base64.b64encode(data), why)


def file_of(id: str, source: bytes) -> tuple[str, bytes]:
    """The path within a base, and the bytes, of the file that a document came from or becomes."""
    root, _, rest = id.partition("/")
    if root == UNREADABLE:
        name = rest.partition("/")[2].removesuffix(".md")
        if name.endswith(".b64"):
            source, name = base64.b64decode(source), name.removesuffix(".b64")
        return os.fsdecode(unquote_to_bytes(name)), source
    if root == PROGRAM and "/" in rest:
        return rest.partition("/")[2], source
    return id, source
