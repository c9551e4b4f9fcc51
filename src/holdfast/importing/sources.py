"""The transcripts of other programs on this disk: where they lie, which program wrote each, and which session it tells.

A file is recognised by its first lines, never by its name alone. Whatever can't be looked at is in the answer too, with
the reason, so that nothing is passed over in silence; nothing is ever written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import msgspec

from holdfast.bundle import is_bundle
from holdfast.errors import HoldfastError
from holdfast.formats import a3s, claude_code, codex, oxios, oxios_folder, zeroclaw, zeroclaw_db
from holdfast.formats.lines import LINE_LIMIT, open_source
from holdfast.formats.transcript import Origin, Reader, id_of, parse
from holdfast.formats.whole import Whole

HEAD = 4 * 1024 * 1024
"""Bytes of a file that are looked at to tell what it is, and the rest of the line in which they end."""
_PEEK = 4096
"""Bytes of a file by which a source that is read as a whole is told."""
HEAD_LINES = 64
"""Lines of a file that are looked at to tell what it is."""


class Program(NamedTuple):
    """A program whose transcripts can be read."""

    name: str
    event: str
    """Its name within the types of events, `x.<event>.…`."""
    is_record: Callable[[Mapping[str, Any]], bool]
    origin_of: Callable[[str, Sequence[Mapping[str, Any]]], Origin]
    reader: Callable[[Origin], Reader]
    named: str
    """The key under which a line has a name of its own, "" where it has none."""
    read: Callable[[bytes], tuple[Any, str]] = parse
    """The value of a line and "", or None and why there is none."""


PROGRAMS: Mapping[str, Program] = {
    program.name: program
    for program in (
        Program(
            claude_code.PROGRAM,
            claude_code.NAME,
            claude_code.is_record,
            claude_code.origin_of,
            claude_code.ClaudeCodeReader,
            "uuid",
        ),
        Program(codex.PROGRAM, codex.NAME, codex.is_record, codex.origin_of, codex.CodexReader, ""),
        Program(
            zeroclaw.PROGRAM,
            zeroclaw.NAME,
            zeroclaw.is_record,
            zeroclaw.origin_of,
            zeroclaw.ZeroclawReader,
            "",
            zeroclaw.read,
        ),
    )
}
WHOLES: Mapping[str, Whole] = {
    "zeroclaw database": Whole(zeroclaw.PROGRAM, zeroclaw_db.is_database, zeroclaw_db.database),
    "zeroclaw state file": Whole(zeroclaw.PROGRAM, zeroclaw.is_state_file, zeroclaw.state_file),
    "oxios folder": Whole(
        oxios.PROGRAM, oxios_folder.is_folder, oxios_folder.sessions_in, oxios_folder.documents_in, is_folder=True
    ),
    "oxios session": Whole(
        oxios.PROGRAM, oxios_folder.is_session_file, oxios_folder.sessions_in, oxios_folder.documents_in
    ),
}
"""Sources that are read as a whole."""
FOLDER = "a3s folder"
"""The kind of a source that is a whole folder, whose files belong together."""
WHAT = (
    "no transcript of Claude Code, Codex CLI or zeroclaw, no sessions.db or state file of zeroclaw, no session of "
    "oxios and no bundle; of oxios and a3s-code name the folder, which is imported as a whole"
)
"""What a file that is not recognised is not; so what could be imported, and how."""
_NAMES = (".jsonl", "sessions.db")
"""How the names of files end that are looked at in folders."""


class SourceFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was found. `program` is None where it was not recognised; `error` says why it can't be read.

    `session` is the id that its session has in the store: `<program>:<the program's own id>`. A source that is read as
    a whole has its kind in `whole`, and may tell many sessions.
    """

    path: str
    size: int = 0
    program: str | None = None
    origin: Origin | None = None
    error: str | None = None
    whole: str | None = None

    @property
    def session(self) -> str | None:
        """The id of its session in the store."""
        return None if self.program is None or self.origin is None else session_id(self.program, self.origin.id)


def session_id(program: str, id: str) -> str:
    """The id in the store of a program's session."""
    return f"{program}:{id_of(id)}"


def usual_places() -> list[str]:
    """The folders in which the known programs keep their transcripts, those that are there."""
    claude = os.environ.get("CLAUDE_CONFIG_DIR") or "~/.claude,~/.config/claude"
    rollouts = os.environ.get("CODEX_HOME") or "~/.codex"
    places = [os.path.join(place.strip(), "projects") for place in claude.split(",")]
    places += [os.path.join(rollouts, "sessions"), os.path.join(rollouts, "archived_sessions")]
    workspace = os.environ.get("ZEROCLAW_WORKSPACE")
    places += [
        os.path.join(place, "sessions")
        for place in ([workspace] if workspace else ["~/.zeroclaw/workspace", "~/.zeroclaw/data"])
    ]
    places += ["~/.oxios/workspace", "~/.oxios/state"]
    return [path for path in map(os.path.expanduser, places) if os.path.isdir(path)]


def find_sources(paths: Iterable[str | os.PathLike[str]] | None = None) -> list[SourceFile]:
    """The transcripts under these files and folders; by default, those in the usual places of the known programs.

    The usual places are `~/.claude/projects` and `~/.config/claude/projects` (or under `CLAUDE_CONFIG_DIR`),
    `sessions` and `archived_sessions` in `~/.codex` (or `CODEX_HOME`), `sessions` in `~/.zeroclaw/workspace` and
    `~/.zeroclaw/data` (or `ZEROCLAW_WORKSPACE`), and `~/.oxios/workspace` and `~/.oxios/state`. In a folder only
    `*.jsonl` and `sessions.db` are looked at, and whether it is one that a program keeps as a whole: of a3s-code also
    as `.a3s/tui/sessions` in a workspace. A file that can be reached in two ways is found once.
    """
    given = usual_places() if paths is None else [str(os.fspath(path)) for path in paths]
    seen: set[tuple[int, int]] = set()
    found: list[SourceFile] = []
    for place in given:
        for path, error in _files(os.path.expanduser(place), seen):
            found.append(SourceFile(path=path, error=error) if error else look_at(path))
    return found


def _files(path: str, seen: set[tuple[int, int]], *, within: bool = False) -> Iterator[tuple[str, str]]:
    """The files under a path, or why one can't be reached; a folder that contains itself by a link is walked once.

    A folder that is read as a whole is one of them; `within` it is no other.
    """
    try:
        status = os.stat(path)
        here = (status.st_dev, status.st_ino)
        if here in seen:
            return
        seen.add(here)
        if not os.path.isdir(path) or a3s.is_folder(path):
            yield path, ""
            return
        if (inside := a3s.workspace_in(path)) is not None:
            yield from _files(inside, seen)
        with os.scandir(path) as entries:
            names = sorted(entries, key=lambda entry: entry.name)
    except (OSError, ValueError) as error:
        yield path, _reason(error)
        return
    if not within and _kind_of_folder(path) is not None:
        yield path, ""
        within = True
    for entry in names:
        if entry.name.endswith(_NAMES) or _is_folder(entry):
            yield from _files(entry.path, seen, within=within)


def _kind_of_folder(path: str) -> str | None:
    return next((name for name, whole in WHOLES.items() if whole.is_folder and whole.is_one(path, b"")), None)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def look_at(path: str) -> SourceFile:
    """What a file is, by its first lines; and what kind a folder is that is read as a whole."""
    try:
        if os.path.isdir(path):
            kind = FOLDER if a3s.is_folder(path) else _kind_of_folder(path)
            if kind is not None:
                program = a3s.PROGRAM if kind == FOLDER else WHOLES[kind].program
                return SourceFile(path=path, size=_size_of(path), program=program, whole=kind)
        if path.endswith(".db"):
            # To open and close a database that this process has open would take its locks away.
            size, first, program, head = os.stat(path).st_size, zeroclaw_db.MAGIC, None, list[dict[str, Any]]()
        else:
            with open_source(path) as file:
                size = os.fstat(file.fileno()).st_size
                first = file.read(_PEEK)
                file.seek(0)
                program, head = _recognise(iter(lambda: file.readline(LINE_LIMIT), b""))
    except (OSError, ValueError, HoldfastError) as error:
        return SourceFile(path=path, error=_reason(error))
    if kind := next(
        (name for name, whole in WHOLES.items() if not whole.is_folder and whole.is_one(path, first)), None
    ):
        return SourceFile(path=path, size=size, program=WHOLES[kind].program, whole=kind)
    if program is None:
        return SourceFile(path=path, size=size, error=None if size == 0 else _why_not(first))
    return SourceFile(path=path, size=size, program=program.name, origin=program.origin_of(path, head))


def _why_not(first: bytes) -> str:
    """Why a file that begins so can't be imported from where it was found."""
    if is_bundle(first):
        return "this is a bundle; it is imported when it is named itself: `holdfast import FILE`"
    return f"not recognised: it is {WHAT}"


def _size_of(folder: str) -> int:
    """The bytes of all files in a folder; a link counts for what it is."""
    return sum(os.lstat(os.path.join(root, name)).st_size for root, _, names in os.walk(folder) for name in names)


def _recognise(lines: Iterator[bytes]) -> tuple[Program | None, list[dict[str, Any]]]:
    """The program that wrote these lines, and those of the first that are records."""
    program: Program | None = None
    head: list[dict[str, Any]] = []
    left = HEAD
    for number, raw in enumerate(lines):
        left -= len(raw)
        program = program or next((p for p in PROGRAMS.values() if _is_of(p, raw)), None)
        value, _ = (program.read if program else parse)(raw)
        if isinstance(value, dict):
            head.append(cast("dict[str, Any]", value))
        if left <= 0 or number >= HEAD_LINES or (program and _is_enough(program, head)):
            break
    return program, head


def _is_of(program: Program, raw: bytes) -> bool:
    value, _ = program.read(raw)
    return isinstance(value, dict) and program.is_record(cast("dict[str, Any]", value))


def _is_enough(program: Program, head: list[dict[str, Any]]) -> bool:
    if program.name == claude_code.PROGRAM:
        return claude_code.root_of(head) is not None
    return len(head) > 2
