"""JSON Schemas (draft 2020-12) of everything that is stored, made from the types that write it.

They ship with the package, one file for each record, and say what this version writes. A reader must let pass what they
do not name: fields, event types and part types of a later version, or of another writer. `python -m holdfast.schema`
writes the files anew; a test keeps them true.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any, Literal, cast

import msgspec

from holdfast import model, parts

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REF = "#/$defs/{name}"

Schema = dict[str, Any]


class SessionBody(msgspec.Struct):
    """The body of a session's head: what only its owner reads. Lists and filters work on the head's tags."""

    v: Literal[1]
    metadata: dict[str, Any] = {}
    config: dict[str, Any] = {}


class DocumentBody(msgspec.Struct):
    """The body of a document's head: its source as text, or where the source is."""

    v: Literal[1]
    text: str | msgspec.UnsetType = msgspec.UNSET
    large: model.LargeRef | msgspec.UnsetType = msgspec.UNSET


def load(name: str) -> Schema:
    """A shipped schema: one of `NAMES`."""
    return json.loads(files("holdfast.schema").joinpath(f"{name}.schema.json").read_bytes())


def generate(name: str) -> Schema:
    """The schema as the types of this version make it."""
    title, make = _RECORDS[name]
    schema, components = make()
    for component in components.values():
        # Python 3.13 cuts the indentation of docstrings, older ones keep it.
        component["description"] = inspect.cleandoc(component["description"])
    return {"$schema": DIALECT, "title": title, **schema, "$defs": dict(sorted(components.items()))}


def text_of(schema: Schema) -> str:
    """A schema as the text of its file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _event() -> tuple[Schema, dict[str, Schema]]:
    _, components = msgspec.json.schema_components([model.KnownPayload, model.Custom], ref_template=_REF)
    # A large value is stored as its preview and, under `large`, a reference; what stands for it in Python never is.
    components = cast("dict[str, Schema]", _without_large(components))
    for name in ("Large", "OtherPart"):
        del components[name]
    components["Message"]["properties"]["parts"]["items"] = _one_of(components, "Part", parts.KnownPart)
    components["Custom"]["properties"]["type"] = {"type": "string", "pattern": r"^x\.."}
    schema = _one_of(components, "Event", model.KnownPayload, "Custom")
    version = {"v": {"const": model.FORMAT, "description": "Version of the record format."}}
    return {"type": "object", "properties": version, "required": ["v", "type"], **schema}, components


def _without_large(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_large(item) for item in cast("list[Any]", schema) if item != {"$ref": "#/$defs/Large"}]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _without_large(item) for key, item in cast("Schema", schema).items()}
    if len(plain.get("anyOf", ())) == 1:
        plain |= plain.pop("anyOf")[0]
    return plain


def _one_of(components: dict[str, Schema], what: str, known: Any, *more: str) -> Schema:
    """One of the known types, or any object whose type is not known."""
    types = [*(kind.__name__ for kind in known.__args__), *more]
    names: list[str] = []
    for kind in known.__args__:
        names += components[kind.__name__]["properties"]["type"]["enum"]
    unknown: list[Schema] = [{"enum": names}, *(components[name]["properties"]["type"] for name in more)]
    components[f"Unknown{what}"] = {
        "title": f"Unknown{what}",
        "description": "Of a type that this version does not know; it is kept as it is.",
        "type": "object",
        "properties": {"type": {"type": "string", "not": {"anyOf": unknown}}},
        "required": ["type"],
    }
    return {"anyOf": [{"$ref": _REF.format(name=name)} for name in (*types, f"Unknown{what}")]}


def _session() -> tuple[Schema, dict[str, Schema]]:
    (schema,), components = msgspec.json.schema_components([SessionBody], ref_template=_REF)
    return schema, components


def _document() -> tuple[Schema, dict[str, Schema]]:
    (schema,), components = msgspec.json.schema_components([DocumentBody], ref_template=_REF)
    components["DocumentBody"]["oneOf"] = [{"required": ["text"]}, {"required": ["large"]}]
    return schema, components


def _log_line() -> tuple[Schema, dict[str, Schema]]:
    from holdfast.backends.jsonl import Line, LoggedEntry  # only to describe them; no store is opened

    entry = _twin(LoggedEntry)
    (schema,), components = msgspec.json.schema_components(
        [_twin(Line, append=tuple[entry, ...])],
        ref_template=_REF,
    )
    line = _with_checksum(components["Line"])
    line["description"] = "A commit. What a line does not name was not changed; `kind` and `id` stand in the first."
    return schema, components


def _twin(kind: type[msgspec.Struct], **types: Any) -> Any:
    """The same struct with any JSON where the original keeps raw bytes, which have no schema."""
    fields: list[Any] = []
    for field in msgspec.structs.fields(kind):
        of = types.get(field.name, Any if field.type is msgspec.Raw else field.type)
        if field.required:
            fields.append((field.name, of))
        elif field.type is msgspec.Raw:
            fields.append((field.name, of, msgspec.UNSET))
        else:
            made = field.default_factory is not msgspec.NODEFAULT
            fields.append(
                (field.name, of, msgspec.field(default_factory=field.default_factory) if made else field.default)
            )
    return msgspec.defstruct(kind.__name__, fields, namespace={"__doc__": kind.__doc__})


_KINDS_OF_LINE = (["holdfast", "session"], ["holdfast", "document"], ["seq"], ["blob"], ["end"])


def _bundle_line() -> tuple[Schema, dict[str, Schema]]:
    from holdfast.bundle import Line

    (schema,), components = msgspec.json.schema_components([_twin(Line)], ref_template=_REF)
    line = _with_checksum(components["Line"])
    line["anyOf"] = [{"required": names} for names in _KINDS_OF_LINE]
    return schema, components


def _with_checksum(line: Schema) -> Schema:
    """A line's schema with the checksum that its first bytes are."""
    line["properties"] = {"crc": {"type": "string", "pattern": "^[0-9a-f]{8}$"}, **line["properties"]}
    line["required"] = ["crc", *line.get("required", ())]
    return line


_RECORDS: dict[str, tuple[str, Callable[[], tuple[Schema, dict[str, Schema]]]]] = {
    "event": ("The body of an event", _event),
    "session": ("The body of a session's head", _session),
    "document": ("The body of a document's head", _document),
    "bundle-line": ("A line of a bundle, as `holdfast export` writes it", _bundle_line),
    "log-line": ("A line of a session's log in a folder store", _log_line),
}
NAMES = tuple(_RECORDS)
"""The records that have a schema."""
