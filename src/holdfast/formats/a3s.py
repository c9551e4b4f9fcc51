"""a3s-code's sessions: the folders its `FileSessionStore` writes, and what names their sessions here.

How they map:
- A folder is a place of its own, and each session in it a session `a3s:<place>/<id>`, by the id *inside* its file. File
  names are lossy there (`a/b`, `a\\b` and `a_b` share one), ids are exact.
- A message is a message event, a cost record a usage event, the task list a tasks event, a trace event a step, a
  verification report a report event, and an artifact one of the session's artifacts. What else a session file says
  stands in the metadata of the head, its config in the head's config, without keys.
- What the program itself would refuse to read is kept byte for byte in the session `a3s:<place>/~store`, and reported.

`a3s_rules` says what the program takes, `a3s_events` how records and events answer to each other, `a3s_put` stores,
`a3s_get` reads back, `a3s_in` imports folders, and `a3s_out` writes them.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Mapping
from typing import Any, cast

from holdfast.errors import HoldfastError
from holdfast.formats.lines import open_source
from holdfast.formats.transcript import mapping
from holdfast.plan import check_id

PROGRAM = "a3s"
STORE = "~store"
"""What names the session of a place that keeps what belongs to no other: files that could not be read, and others."""
MAX_ID_BYTES = 400
"""Bytes of an id that stands in a session's id here; a longer one is told by its digest."""
FRAGMENTS = ("artifacts", "traces", "verification")
"""What a folder keeps of a session beside its file, since 2.0.0."""
OTHERS = ("runs", "subagent_tasks", "loop_checkpoints", "workflow_checkpoints")
"""What it keeps since then, which is taken and given back as it is."""
SEALED = b"A3SE"
"""How a file begins that was encrypted."""
STATES = {"Active": "idle", "Paused": "paused", "Completed": "completed", "Error": "error", "Unknown": "unknown"}
"""The program's states, and the states of holdfast that answer to them."""
LOOKED_AT = 5
"""Files of a folder that are looked at to tell whether it is one of the program's."""
_ENCODED = re.compile("id_([A-Za-z0-9_-]*)")


def place_of(folder: str) -> str:
    """What names the place of a folder's sessions: a digest of its real path."""
    path = os.path.realpath(os.path.expanduser(folder))
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def session_id_of(place: str, id: str) -> str:
    """The id in the store of a session of a place; different for every place and id."""
    return f"{PROGRAM}:{place}/{fitted(id)}"


def fitted(id: str) -> str:
    """The id itself where it can stand in one of ours, else `~` and its digest."""
    try:
        check_id(id, "id")
    except HoldfastError:
        return _stand_in(id)
    return _stand_in(id) if id.startswith("~") or len(id.encode()) > MAX_ID_BYTES else id


def _stand_in(id: str) -> str:
    return "~" + hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()


def id_in(id: str, metadata: Mapping[str, Any]) -> str:
    """The program's own id of a session, by its id in the store and its metadata; the whole id of one made here."""
    document = mapping(mapping(metadata.get(PROGRAM)).get("document"))
    told = document.get("id")
    if not id.startswith(f"{PROGRAM}:") or "/" not in id:
        return id
    shown = id.partition("/")[2]
    return told if isinstance(told, str) and fitted(told) == shown else shown


def safe(id: str) -> str:
    """The name that the program of 2.0 gives the files of an id; different ids may share it."""
    return id.replace("/", "_").replace("\\", "_").replace("..", "_")


def encoded(id: str) -> str:
    """The name that it gives them since 5.0; no two ids share it."""
    return "id_" + base64.urlsafe_b64encode(id.encode()).decode().rstrip("=")


def decoded(stem: str) -> str | None:
    """The id that such a name tells; None if it tells none."""
    found = _ENCODED.fullmatch(stem)
    if found is None:
        return None
    try:
        id = base64.urlsafe_b64decode(found[1] + "=" * (-len(found[1]) % 4)).decode()
    except ValueError:
        return None
    return id if encoded(id) == stem else None


def is_folder(path: str) -> bool:
    """Whether a folder looks like one of the program's stores: by the folders in it, where it lies or its files."""
    if os.path.basename(path).startswith("."):
        return False
    if os.path.isdir(os.path.join(path, "v1", "sessions")):
        return True
    here = os.path.realpath(path).split(os.sep)
    if here[-3:] == [".a3s", "tui", "sessions"]:
        return True
    if all(os.path.isdir(os.path.join(path, name)) for name in FRAGMENTS):
        return True
    with os.scandir(path) as entries:
        names = sorted(entry.name for entry in entries if entry.name.endswith(".json"))
    return any(_is_session(os.path.join(path, name)) for name in names[:LOOKED_AT])


def _is_session(path: str) -> bool:
    """Whether a file begins as a session file does: with its id and its config."""
    try:
        with open_source(path) as file:
            head = file.read(4096)
    except (OSError, HoldfastError):
        return False
    return all(f'"{name}"'.encode() in head for name in ("id", "config", "name", "workspace"))


def workspace_in(path: str) -> str | None:
    """The folder of sessions in a workspace; None if there is none."""
    folder = os.path.join(path, ".a3s", "tui", "sessions")
    return folder if os.path.isdir(folder) else None


def without_keys(value: Any) -> Any:
    """A value without the keys of models that stand in it at any depth."""
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {name: without_keys(item) for name, item in items if name not in ("api_key", "apiKey")}
    if isinstance(value, list):
        return [without_keys(item) for item in cast("list[Any]", value)]
    return value


_TEXT = rb'"(?:[^"\\]|\\.)*'
_KEY = re.compile(rb'("api_?[kK]ey"\s*:\s*)' + _TEXT + b'"?')
_PLACED = re.compile(rb'("llm_config"\s*:\s*\[\s*' + _TEXT + rb'"\s*,\s*' + _TEXT + rb'"\s*,\s*)' + _TEXT + b'"?')
"""The same where the config of a model is an array of its fields."""


def without_keys_raw(data: bytes) -> bytes:
    """Bytes that could not be read, without what looks like the key of a model."""
    return _PLACED.sub(rb"\1null", _KEY.sub(rb"\1null", data))
