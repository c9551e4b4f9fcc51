"""oxios's sessions as documents: what the program takes as one, and how one becomes events and is made of them again.

How they map:
- A user's message and an agent's response are messages, an executed step is a `step`. The three arrays of a document
  are woven into one log by their times; each keeps its own order.
- An event's words, arguments and output stand in the event. The rest of its record, in the order in which it was
  written, is in the event's metadata under `oxios`: `in` names the array, `n` the place in it, `as` has the fields.
- What a document says beside its arrays is in the session's metadata under `oxios_document`; an array is told there by
  its length.

So a document is made again to the byte, as serde_json wrote it; of one that was written otherwise the text itself is
kept, too. `oxios_folder` reads folders, `oxios_out` writes them.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, cast

from holdfast.formats import rustjson
from holdfast.formats.rustjson import NotRust, micros_of
from holdfast.formats.transcript import mapping
from holdfast.formats.zeroclaw import fitted
from holdfast.model import AnyPayload, Message, Step, Text
from holdfast.parts import ToolResult

PROGRAM = "oxios"
USER, AGENT, STEPS = "user_messages", "agent_responses", "trajectory_steps"
ARRAYS = (USER, STEPS, AGENT)
"""The arrays of a document, in the order in which records of one time stand in a log."""
ORDER = ("id", "user_id", USER, AGENT, STEPS, "active_seed_id", "active_persona_id", "created_at", "updated_at",
         "metadata")  # fmt: skip
"""The fields of a document in the order of version 1.3.0."""
MOVED: Mapping[str, tuple[str, ...]] = {USER: ("content",), AGENT: ("content",), STEPS: ("tool_args", "output_summary")}
"""The fields of a record that stand in the event itself."""
MAX_NAME = 200
"""Bytes of a name that can be a file of the program's, with the ending that it writes first."""

Take = Callable[[Any], Any]


class Field(NamedTuple):
    """A field of a struct: what takes its value, whether it must be there, and what an array may leave out."""

    take: Take
    needed: bool = True
    default: bool = False


def _text(value: Any) -> Any:
    return value if isinstance(value, str) else _refuse("no text")


def _flag(value: Any) -> Any:
    return value if isinstance(value, bool) else _refuse("neither true nor false")


def _whole(value: Any) -> Any:
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64
    return value if fits else _refuse("no whole number from 0 to 2**64 - 1")


def _time(value: Any) -> Any:
    return value if isinstance(value, str) and micros_of(value) is not None else _refuse("no time with an offset")


def _any(value: Any) -> Any:
    return value


def _object(value: Any) -> Any:
    return cast("Any", value) if isinstance(value, dict) else _refuse("no object")


def _refuse(why: str) -> Any:
    raise NotRust(f"it is {why}")


def _maybe(take: Take) -> Take:
    return lambda value: None if value is None else take(value)


def _struct(fields: Mapping[str, Field]) -> Take:
    """Takes an object with the fields, or an array of them in order, as serde does; unknown ones stay."""

    def take(value: Any) -> Any:
        if isinstance(value, list):
            items = cast("list[Any]", value)
            if len(items) > len(fields):
                raise NotRust(f"it is an array of {len(items)}, for {len(fields)} fields")
            if missing := [name for name, field in list(fields.items())[len(items) :] if not field.default]:
                raise NotRust(f"it has no {missing[0]}")
            value = dict(zip(fields, items, strict=False))
        if not isinstance(value, dict):
            raise NotRust("it is neither an object nor an array")
        record = cast("dict[str, Any]", value)
        if twice := [name for name in rustjson.repeated(record) if name in fields]:
            raise NotRust(f"the field {twice[0]!r} stands there twice")
        if missing := [name for name, field in fields.items() if field.needed and name not in record]:
            raise NotRust(f"it has no {missing[0]}")
        return {name: _field(name, fields[name], item) if name in fields else item for name, item in record.items()}

    return take


def _field(name: str, field: Field, value: Any) -> Any:
    try:
        return field.take(value)
    except NotRust as error:
        raise NotRust(f"{name}: {error}") from None


def _listed(take: Take) -> Take:
    def taken(value: Any) -> Any:
        items = cast("list[Any]", value) if isinstance(value, list) else _refuse("no array")
        return [take(item) for item in items]

    return taken


_OPTION = Field(_maybe(_text), needed=False)
_RANGE = _struct({"start": Field(_whole), "end": Field(_whole)})
RECORDS: Mapping[str, Mapping[str, Field]] = {
    USER: {"content": Field(_text), "timestamp": Field(_time)},
    AGENT: {
        "content": Field(_text),
        "session_id": _OPTION,
        "seed_id": _OPTION,
        "phase_reached": _OPTION,
        "evaluation_passed": Field(_maybe(_flag), needed=False),
        "timestamp": Field(_time),
        "trajectory_range": Field(_maybe(_RANGE), needed=False),
    },
    STEPS: {
        "tool_name": Field(_text),
        "tool_args": Field(_any),
        "output_summary": Field(_text),
        "duration_ms": Field(_whole),
        "is_error": Field(_flag),
        "tool_call_id": Field(_text),
        "timestamp": Field(_time),
    },
}
"""The fields of the records in each array, as of 1.3.0."""
_RECORD = {array: _struct(fields) for array, fields in RECORDS.items()}
_SESSION = _struct(
    {
        "id": Field(_text),
        "user_id": Field(_text),
        **{array: Field(_listed(_RECORD[array]), needed=False, default=True) for array in (USER, AGENT, STEPS)},
        "active_seed_id": _OPTION,
        "active_persona_id": _OPTION,
        "created_at": Field(_time),
        "updated_at": Field(_time),
        "metadata": Field(_object, needed=False, default=True),
    }
)


def session_of(data: bytes) -> dict[str, Any]:
    """The document of a session, as version 1.3.0 reads it; fields that it does not know stay in it.

    Raises:
        NotRust: the program refuses it, and why.
    """
    return checked(rustjson.parse(data))


def checked(value: Any) -> dict[str, Any]:
    """A JSON value as the document of a session; see `session_of`."""
    return cast("dict[str, Any]", _SESSION(value))


def time_text(at: int) -> str:
    """Microseconds since 1970 UTC as the program writes a time."""
    return rustjson.time_text(at).replace("+00:00", "Z")


def woven(document: Mapping[str, Any]) -> Iterator[tuple[str, int, dict[str, Any], int]]:
    """The records of a document in the order of their times: the array, the place in it, the record, and its time."""

    def told(array: str) -> Iterator[tuple[str, int, dict[str, Any], int]]:
        for index, record in enumerate(document.get(array, ())):
            yield array, index, record, to_time(record["timestamp"])

    return heapq.merge(*map(told, ARRAYS), key=lambda one: one[3])


def to_time(text: str) -> int:
    """The microseconds of a time that was checked."""
    at = micros_of(text)
    if at is None:
        raise NotRust(f"{text!r} is no time with an offset")
    return at


def payload_of(array: str, record: Mapping[str, Any], index: int | None = None) -> Message | Step:
    """The event that a record is. `index` is its place in the document that it was read from."""
    moved = MOVED[array]
    noted: dict[str, Any] = {"in": array}
    if index is not None:
        noted["n"] = index
    noted["as"] = {name: None if name in moved else value for name, value in record.items()}
    metadata = {PROGRAM: noted}
    if array == STEPS:
        return Step(
            name=record["tool_name"],
            call_id=record["tool_call_id"] or None,
            arguments=record["tool_args"],
            output=record["output_summary"],
            duration=min(record["duration_ms"], 2**52) * 1000,
            is_error=record["is_error"],
            kind="tool_execution",
            metadata=metadata,
        )
    role = "user" if array == USER else "assistant"
    return Message(role=role, parts=(Text(content=record["content"]),), metadata=metadata)


class Record(NamedTuple):
    """A record as it is made of an event: its array, its place if it was read from a document, and its fields."""

    array: str
    place: int | None
    fields: dict[str, Any]


def record_of(payload: AnyPayload, at: int) -> Record | None:
    """The record that an event is; None if a document has no place for it. `at` is the event's time."""
    if not isinstance(payload, Message | Step):
        return None
    noted = mapping(mapping(payload.metadata).get(PROGRAM))
    array, told, index = noted.get("in"), mapping(noted.get("as")), noted.get("n")
    if isinstance(payload, Step):
        if array != STEPS:
            return Record(STEPS, None, _own_step(payload, at))
        moved = {"tool_args": _plain(payload.arguments), "output_summary": str(payload.output or "")}
        return Record(STEPS, index, {**told, **moved})
    if array in (USER, AGENT):
        return Record(array, index, {**told, "content": payload.text})
    return _own_message(payload, at)


def _plain(value: Any) -> Any:
    return value.value() if hasattr(value, "value") else value


def _own_step(step: Step, at: int) -> dict[str, Any]:
    output = str(step.summary or step.output or "")
    return {
        "tool_name": step.name,
        "tool_args": _plain(step.arguments),
        "output_summary": output if len(output) <= 500 else output[:499] + "…",
        "duration_ms": (step.duration or 0) // 1000,
        "is_error": step.is_error,
        "tool_call_id": step.call_id or "",
        "timestamp": time_text(at),
    }


def _own_message(message: Message, at: int) -> Record | None:
    if message.role not in ("user", "assistant") or any(isinstance(part, ToolResult) for part in message.parts):
        return None
    if not any(isinstance(part, Text) for part in message.parts):
        return None
    if message.role == "user":
        return Record(USER, None, {"content": message.text, "timestamp": time_text(at)})
    names = ("session_id", "seed_id", "phase_reached", "evaluation_passed")
    return Record(AGENT, None, {"content": message.text, **dict.fromkeys(names), "timestamp": time_text(at)})


def facts_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a document says beside its arrays, which are told by their length."""
    return {name: len(value) if name in ARRAYS else value for name, value in document.items()}


def title_in(metadata: Mapping[str, Any]) -> str | None:
    """The title that a session was given."""
    title = metadata.get("title")
    return title if isinstance(title, str) and title.strip() else None


def projects_in(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """The projects of a session: `project_ids` of its metadata, an array or a list with commas, or the `project_id`."""
    metadata = mapping(facts.get("metadata"))
    told = metadata.get("project_ids")
    found = told.split(",") if isinstance(told, str) else cast("list[Any]", told) if isinstance(told, list) else []
    ids = [id.strip() for id in found if isinstance(id, str) and id.strip()]
    if not ids:
        ids = [id for id in (metadata.get("project_id"), facts.get("project_id")) if isinstance(id, str) and id][:1]
    return tuple(dict.fromkeys(ids))


def name_in(place: str, id: str) -> str:
    """The id of a session, without the program's name; different for every place and id."""
    return f"{place}/{fitted(id)}"


def key_of(id: str, metadata: Mapping[str, Any]) -> str:
    """The program's id of a session, by its id in the store: that of its file. Any other session's is its own."""
    start = f"{PROGRAM}:"
    if not id.startswith(start) or "/" not in id:
        return id
    told, shown = metadata.get("oxios_id"), id.partition("/")[2]
    return told if isinstance(told, str) and fitted(told) == shown else shown


def is_name(name: str) -> bool:
    """Whether a name can be that of a file of the program's, which it also loads."""
    safe = ".." not in name and "/" not in name and "\\" not in name and "\0" not in name and name != ""
    return safe and len(name.encode("utf-8", "surrogateescape")) <= MAX_NAME
