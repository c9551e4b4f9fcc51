"""Which imported session another one's history was copied from, and what of it was counted there already.

Resuming or forking makes some programs copy a session's lines into a new file. The link between the two is the
session's `parent`; the tag `root` names the first message of a file, which a copy shares, and `fork` marks a session
that may begin with a copy. Usage events are named by the model response they count, so one look into the
relatives' logs tells.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from holdfast.errors import Corrupt, HoldfastError
from holdfast.formats import claude_code
from holdfast.formats.lines import LINE_LIMIT, open_source
from holdfast.formats.transcript import id_of, time_of
from holdfast.heads.info import SESSION, session_ref
from holdfast.importing.sources import SourceFile
from holdfast.plan import Ref
from holdfast.store import Store

MAX_RELATIVES = 100
"""Sessions that are asked whether they counted a response."""


class Mark(msgspec.Struct):
    """What tells one line from another across files."""

    uuid: str | None = None
    timestamp: str | None = None


_decoder = msgspec.json.Decoder(Mark)


def in_order(store: Store, files: Iterable[SourceFile]) -> list[SourceFile]:
    """The files so that an original comes before its copies, and those that share a history with their parent told."""
    chosen = sorted(files, key=_position)
    groups: dict[str, list[SourceFile]] = {}
    for file in chosen:
        if file.origin is not None and file.origin.root is not None:
            groups.setdefault(file.origin.root, []).append(file)
    placed: dict[str, list[SourceFile]] = {}
    for root, group in groups.items():
        ordered = _grouped(store, root, group)
        placed[group[0].path] = ordered
    grouped = {file.path for group in groups.values() for file in group}
    found: list[SourceFile] = []
    for file in chosen:
        found += placed.get(file.path, []) if file.path in grouped else [file]
    return found


def _position(file: SourceFile) -> tuple[bool, str, str]:
    """Main sessions before their helpers; rollouts, whose names begin with the time, by name."""
    name = file.path.replace("\\", "/").rsplit("/", 1)[-1] if file.program != claude_code.PROGRAM else ""
    return (file.origin is not None and file.origin.subagent, name, file.path)


def _grouped(store: Store, root: str, group: list[SourceFile]) -> list[SourceFile]:
    """Files with one first message: read for their order only while one of them is new."""
    if not any(_is_new(store, session_ref(file.session or "")) for file in group):
        return group
    if len(group) == 1:
        holder = store.backend.find(SESSION, {"root": id_of(root)}, limit=1)
        return [_child(group[0], holder[0].ref.id.partition(":")[2] if holder else None)]
    by_path = {file.path: file for file in group}
    ordered = claude_code.order({file.path: list(_marks(file.path)) for file in group})
    found: list[SourceFile] = []
    for path, parent in ordered:
        of = by_path[parent].origin if parent else None
        found.append(_child(by_path[path], of.id if of else None))
    return found


def _is_new(store: Store, ref: Ref) -> bool:
    try:
        return store.backend.get([ref])[0] is None
    except Corrupt:
        return False  # it is there; importing its file tells what is wrong with it


def _child(file: SourceFile, parent: str | None) -> SourceFile:
    """The file with its parent told, unless it tells one itself or it is the same session at another place."""
    if file.origin is None or file.origin.parent or parent is None or parent == file.origin.id:
        return file
    return msgspec.structs.replace(file, origin=msgspec.structs.replace(file.origin, parent=parent))


def _marks(path: str) -> Iterable[tuple[str, int | None]]:
    try:
        with open_source(path) as file:
            for raw in iter(lambda: file.readline(LINE_LIMIT), b""):
                try:
                    mark = _decoder.decode(raw)
                except (msgspec.MsgspecError, ValueError, RecursionError):
                    continue  # the import itself says what is wrong with a line
                if mark.uuid:
                    yield mark.uuid, time_of(mark.timestamp)
    except (OSError, HoldfastError):
        return  # likewise


def relatives(store: Store, session: str, parent: str | None, *, new: bool) -> list[Ref]:
    """The sessions that may have counted the same responses: those it came from; where these are not here, their other
    forks; and for one that is `new` here, forks of it that came before it.
    """
    found: list[Ref] = []
    seen = {session}
    while parent is not None and parent not in seen and len(found) < MAX_RELATIVES:
        seen.add(parent)
        try:
            head = store.backend.get([session_ref(parent)])[0]
        except Corrupt:
            found.append(session_ref(parent))  # what it counted can be read, where it came from can't
            break
        if head is None or head.dead:
            found += [r for r in _forks(store, parent) if r.id not in seen]
            break
        found.append(head.ref)
        parent = head.tags.get("parent")
    if new:
        found += [r for r in _forks(store, session) if r.id not in seen]
    return found


def _forks(store: Store, parent: str) -> list[Ref]:
    tags = {"parent": parent, "fork": "1"}
    living = store.backend.find(SESSION, tags, limit=MAX_RELATIVES)
    return [head.ref for head in [*living, *store.backend.find(SESSION, tags, limit=MAX_RELATIVES, trashed=True)]]


def counted_before(store: Store, refs: Iterable[Ref], ids: Collection[str]) -> set[str]:
    """Those of the ids of usage events that one of the sessions holds."""
    wanted = list(ids)
    return {entry.id for ref in refs for entry in store.backend.read(ref, ids=wanted, voided=True)} if wanted else set()
