"""The shipped JSON Schemas: up to date, true of what is stored, open to what they do not know."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import holdfast
from holdfast import model, parts, schema
from holdfast.backends import open_backend
from holdfast.bundle import write_bundle
from holdfast.heads.info import session_ref

BIG = "a long line\n" * 10_000

EVERYTHING: list[Any] = [
    holdfast.message("system", "Be brief.", name="rules", metadata={"a": [1, None]}),
    holdfast.user("Hi", holdfast.Blob(content="aGk=", mime_type="text/plain"), holdfast.File(file_id="f1")),
    holdfast.assistant(
        holdfast.reasoning("hm"), "Let me look", holdfast.tool_call("c1", "lookup", {"order": 7, "big": 2**70})
    ),
    holdfast.tool_result("c1", {"rows": BIG}, is_error=True, duration=12),
    holdfast.user(BIG, holdfast.Uri(uri="https://example.org")),
    holdfast.step("ls", {"path": "."}, BIG, call_id="c1", duration=5, exit_code=1, error="no", artifacts=["x:1"]),
    holdfast.usage("m", 10, 20, provider="p", cost=holdfast.usd("0.01")),
    holdfast.Report(subject="tests", status="passed", checks=({"name": "unit", "ok": True},), residual_risks=("none",)),
    holdfast.Tasks(tasks=({"title": "write", "done": False},)),
    holdfast.State(state="paused", turn="t1", reason="asked"),
    holdfast.Summary(content="short", start=1, end=4),
    holdfast.Artifact(name="out.txt", sha256="0" * 64, size=3, media_type="text/plain"),
    holdfast.Edit(action="undo", ranges=((2, 3), (7, 7)), counts={"messages": 3}, previous=9, below=4, undoes=9),
    holdfast.note("look here", metadata={"by": "me"}),
    holdfast.custom("x.deploy", {"sha": "abc"}),
    holdfast.Note(text="imported", source=holdfast.Source(file="a.jsonl", line=3, raw='{"a":1}')),
]


def validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema.load(name))


def stored(store: holdfast.Store, *events: Any) -> list[dict[str, Any]]:
    session = store.session()
    session.append(*events)
    return [json.loads(event.raw) for event in session.events()]


@pytest.mark.parametrize("name", schema.NAMES)
def test_a_shipped_schema_is_the_one_that_the_types_make(name: str) -> None:
    path = Path(schema.__file__).with_name(f"{name}.schema.json")
    assert path.read_text(encoding="utf-8") == schema.text_of(schema.generate(name)), "run python -m holdfast.schema"


@pytest.mark.parametrize("name", schema.NAMES)
def test_a_schema_is_a_valid_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema.load(name))


def test_no_other_schema_lies_in_the_package() -> None:
    found = {path.name.removesuffix(".schema.json") for path in Path(schema.__file__).parent.glob("*.json")}
    assert found == set(schema.NAMES)


def test_every_stored_event_is_as_the_schema_says(tmp_path: Path) -> None:
    check = validator("event")
    with holdfast.open(f"sqlite://{tmp_path}/store.db") as store:
        bodies = stored(store, *EVERYTHING)
    for body in bodies:
        check.validate(body)
    known = {kind.__struct_config__.tag for kind in model.KnownPayload.__args__}
    assert {body["type"] for body in bodies} == known | {"x.deploy"}
    used = {part["type"] for body in bodies for part in body.get("parts", ())}
    assert used == {kind.__struct_config__.tag for kind in parts.KnownPart.__args__}
    assert any("large" in part for body in bodies for part in body.get("parts", ()))


def test_every_stored_session_is_as_the_schema_says(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/store.db"
    with holdfast.open(url) as store:
        store.session("plain")
        store.session("full", metadata={"a": {"b": 1}}, config={"model": "m"})
        store.get("full").update(metadata={"c": None, "d": 2})  # type: ignore[union-attr]
    backend = open_backend(url, lambda body: "")
    for head in backend.get([session_ref("plain"), session_ref("full")]):
        assert head is not None
        validator("session").validate(json.loads(head.body))
    backend.close()


def test_every_line_of_a_log_is_as_the_schema_says(tmp_path: Path) -> None:
    with holdfast.open(f"file://{tmp_path}/store") as store:
        bodies = stored(store, *EVERYTHING)
        session = store.session("more", labels=["x"], metadata={"a": 1})
        session.append(holdfast.user("Hi"), key="k")
        session.remove_last()
        store.delete("more")
    logs = sorted((tmp_path / "store").rglob("*.jsonl"))
    lines = [json.loads(line) for log in logs for line in log.read_bytes().splitlines()]
    for line in lines:
        validator("log-line").validate(line)
    entries = [entry for line in lines for entry in line.get("append", ())]
    assert [entry["body"] for entry in entries if entry.get("id") != "k"] == bodies
    assert not validator("log-line").is_valid({**lines[0], "crc": "none"})
    assert not validator("log-line").is_valid({**lines[0], "append": [{"at": 1}]})


def test_every_line_of_a_bundle_is_as_the_schema_says(tmp_path: Path) -> None:
    with holdfast.open(f"sqlite://{tmp_path}/store.db") as store:
        session = store.session("s", labels=["x"], metadata={"a": 1})
        session.append(*EVERYTHING)
        session.remove_last()
        lines = [json.loads(line) for line in write_bundle(store, ["s"])]
    for line in lines:
        validator("bundle-line").validate(line)
    assert sum("seq" in line for line in lines) == len(EVERYTHING) + 1  # the removal is an event, too
    assert any("blob" in line for line in lines)
    for line in lines:
        assert not validator("bundle-line").is_valid({**line, "crc": 5})
        unsaid = {name: value for name, value in line.items() if name not in {"holdfast", "seq", "blob", "end"}}
        assert not validator("bundle-line").is_valid(unsaid)


def test_what_a_later_version_adds_is_let_pass() -> None:
    check = validator("event")
    check.validate({"v": 1, "type": "message", "role": "narrator", "parts": [], "mood": "calm"})
    check.validate({"v": 1, "type": "message", "role": "user", "parts": [{"type": "hologram", "beam": 1}]})
    check.validate({"v": 1, "type": "teleport", "to": "here"})
    validator("session").validate({"v": 1, "later": True})


@pytest.mark.parametrize(
    "change",
    [
        {"v": None},
        {"v": 2},
        {"type": 5},
        {"role": 7},
        {"parts": {"type": "text"}},
        {"parts": [{"type": "text"}]},
        {"parts": [{"content": "of no type"}]},
        {"large": {"content": {"size": 3}}},
    ],
)
def test_what_breaks_the_format_is_told(change: dict[str, Any]) -> None:
    body: dict[str, Any] = {"v": 1, "type": "message", "role": "user", "parts": [{"type": "text", "content": "Hi"}]}
    validator("event").validate(copy.deepcopy(body))
    assert not validator("event").is_valid({**body, **change})
