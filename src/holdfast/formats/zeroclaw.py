"""zeroclaw's sessions: `<workspace>/sessions/<key>.jsonl`, `sessions.db` beside them, and the state file of its shell.

How they map:
- A container (a folder of JSONL files, a database, a state file) is a place of its own, and each key in it a session
  `zeroclaw:<place>/<key>`. So the same key in two workspaces never shares a history. The place is a digest of the
  container's path.
- A message is `{"role":…,"content":…}`, and an array of the two is taken as well, as the program takes it. What the
  program passes over (a line that is no message) is kept and reported.
- A message has no time in JSONL: it gets that of the file.

`zeroclaw_db` reads databases, `zeroclaw_out` writes what the program loads.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from holdfast.errors import HoldfastError, Invalid
from holdfast.formats import rustjson
from holdfast.formats.lines import Names, digest_of, open_source
from holdfast.formats.transcript import WORDS, Draft, Facts, Line, Origin, event_id, kept, listing, mapping
from holdfast.formats.whole import Item, Said, Told
from holdfast.model import Message, Source, Text
from holdfast.plan import check_id

PROGRAM = "zeroclaw"
NAME = "zeroclaw"
MAX_KEY = 400
"""Bytes of a key that stands in a session's id; a longer one is told by its digest."""
MAX_STATE_FILE = 256 * 1024 * 1024
"""Bytes of a state file that is read."""
ARCHIVE = ".jsonl.migrated"
"""How the name of a JSONL file ends that the program took into its database."""
_FIELDS = ("role", "content")


def place_of(container: str) -> str:
    """What names a container of sessions: a folder of JSONL files, a database, or a state file."""
    path = os.path.realpath(os.path.expanduser(container))
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def name_of_key(place: str, key: str) -> str:
    """The id of a key's session, without the program's name; different for every place and key."""
    return f"{place}/{fitted(key)}"


def fitted(key: str) -> str:
    """The key itself where it can stand in an id, else `~` and its digest."""
    try:
        check_id(key or "-", "key")
    except HoldfastError:
        return _stand_in(key)
    return _stand_in(key) if key.startswith("~") or len(key.encode()) > MAX_KEY else key


def _stand_in(key: str) -> str:
    return "~" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def key_of(id: str, metadata: Mapping[str, Any]) -> str:
    """The key of a session, by its id in the store and its metadata."""
    told, shown = metadata.get("zeroclaw_key"), id.partition("/")[2]
    return told if isinstance(told, str) and fitted(told) == shown else shown


def safe(key: str) -> str:
    """The stem of the file in which the program keeps a key's messages; different keys may share it."""
    return "".join(c if c.isalnum() or c in "_-" else "_" for c in key)


def read(raw: bytes) -> tuple[dict[str, Any] | None, str]:
    """The message of a line and "", or None and why the program passes the line over."""
    try:
        text = rustjson.trimmed(raw.decode())
    except UnicodeDecodeError as error:
        return None, f"not UTF-8 at byte {error.start}"
    try:
        value = rustjson.parse(text.encode(), once=_FIELDS)
    except rustjson.NotRust as error:
        return None, str(error)
    return message_of(value)


def message_of(value: Any) -> tuple[dict[str, Any] | None, str]:
    """A JSON value as the fields of a message and "", or None and why it is none."""
    if isinstance(value, list):
        items = cast("list[Any]", value)
        if len(items) != len(_FIELDS):
            return None, f"no message: an array of {len(items)}"
        value = dict(zip(_FIELDS, items, strict=True))
    if not isinstance(value, dict):
        return None, "no message: neither an object nor an array"
    record = cast("dict[str, Any]", value)
    for field in _FIELDS:
        if not isinstance(record.get(field), str):
            return None, f"no message: its {field} is no text" if field in record else f"no message: it has no {field}"
    return record, ""


def is_record(record: Mapping[str, Any]) -> bool:
    """Whether a message is no line of another program's, which says more."""
    return not {"type", "payload", "sessionId", "uuid", "created_at", "record_type"} & record.keys()


def origin_of(path: str, _head: Sequence[Mapping[str, Any]]) -> Origin:
    """Whom a file belongs to: its folder is the place, its stem the key."""
    folder, name = os.path.split(os.path.abspath(path))
    archived = name.endswith(ARCHIVE)
    key = name.removesuffix(ARCHIVE).removesuffix(".jsonl")
    place = place_of(os.path.join(folder, "*" + ARCHIVE) if archived else folder)
    about = {"zeroclaw_form": "archive" if archived else "jsonl", "cwd": workspace_of(folder)}
    if fitted(key) != key:
        about["zeroclaw_key"] = key
    return Origin(id=name_of_key(place, key), copies=False, about=about)


def workspace_of(folder: str) -> str:
    """The workspace that a folder of sessions belongs to."""
    return os.path.dirname(folder) if os.path.basename(folder) == "sessions" else folder


def said(record: Mapping[str, Any], source: Source) -> Message:
    """The message of a line or row."""
    return Message(role=record["role"], parts=(Text(content=record["content"]),), source=source)


class ZeroclawReader:
    """Reads one JSONL file."""

    def __init__(self, origin: Origin) -> None:
        self.facts = Facts(origin.parent)
        self.facts.note(**origin.about)
        self.unknown: dict[str, int] = {}

    def take(self, line: Line) -> list[Draft]:
        """The message of a line."""
        if line.value["role"] == "user":
            self.facts.name(line.value["content"], WORDS)
        return [Draft(said(line.value, line.source))]

    def flush(self) -> list[Draft]:
        """Nothing: each line stands for itself."""
        return []


def is_state_file(path: str, head: bytes) -> bool:
    """Whether a JSON file looks like the state file of the program's shell."""
    return path.endswith(".json") and b'"version"' in head and b'"history"' in head


@contextmanager
def state_file(path: str) -> Generator[Iterator[Told]]:
    """The one session of a state file, whose name is the key.

    Raises:
        Invalid: the program would not read it.
    """
    with open_source(path) as file:
        written = os.fstat(file.fileno()).st_mtime_ns // 1000
        data = file.read(MAX_STATE_FILE + 1)
    if len(data) > MAX_STATE_FILE:
        raise Invalid(f"{path} is larger than {MAX_STATE_FILE:,} bytes; it is no state file", path=path)
    try:
        document = rustjson.parse(data, once=("version", "history"))
    except rustjson.NotRust as error:
        raise Invalid(f"{path} can't be read: {error}", path=path) from None
    about = mapping(document)
    if not isinstance(about.get("history"), list):
        raise Invalid(f"{path} is no state file: it has no history", path=path)
    rest = {name: value for name, value in about.items() if name != "history"}
    name = os.path.basename(path)
    key = name.removesuffix(".json")

    def facts() -> Said:
        metadata = {"zeroclaw_form": "state", "zeroclaw_document": rest, "zeroclaw_key": key}
        notes = [] if about.get("version") == 1 else [f"its version is {about.get('version')!r}, not 1"]
        return Said(digest=hashlib.sha256(data).hexdigest(), metadata=metadata, created=written, notes=tuple(notes))

    yield iter([Told(name_of_key(place_of(path), key), facts, _history(listing(about["history"]), name))])


def _history(history: Sequence[Any], file: str) -> Callable[[], Iterator[Item]]:
    def items() -> Iterator[Item]:
        names = Names()
        for number, value in enumerate(history, 1):
            raw = rustjson.compact(value)
            name = digest_of(raw.encode())
            source = Source(file=file, line=number, raw=raw)
            record, reason = message_of(value)
            payload = kept(NAME, "unreadable", value, source) if record is None else said(record, source)
            yield Item(event_id(name, names.count(name)), None, payload, number, reason)

    return items
