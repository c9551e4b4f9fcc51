"""The limits that docs/LIMITS.md states: they are the code's, and what exceeds one is refused whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import backend, codec, plan, search
from holdfast.artifacts import artifacts
from holdfast.documents import docheads
from holdfast.errors import TooLarge
from holdfast.finding import pages
from holdfast.model import Text, custom, message, note, usage, user
from holdfast.retention import policies

STATED = (Path(__file__).parent.parent / "docs" / "LIMITS.md").read_text(encoding="utf-8")

CONSTANTS = {
    "an id of a session or event, a key": [plan.MAX_ID],
    "a label, the name of a model": [plan.MAX_ID - len("label:")],
    "a name, title, user, agent, project, parent": [4 * plan.MAX_ID],
    "fields and labels set by one call": [plan.MAX_TAGS],
    "fields, labels and models of one session": [plan.MAX_HEAD_TAGS],
    "one event, after its large values moved out": [codec.MAX_BODY],
    "metadata and config of one session together": [plan.MAX_ENTRY],
    "events in one append": [plan.MAX_ENTRIES],
    "events in one save of a session (`Session.save`, the adapters' saves)": [plan.MAX_SAVED],
    "bytes of all events in one append or save, after their large values moved out": [plan.MAX_BATCH],
    "nesting of arrays and objects in one event": [codec.MAX_DEPTH],
    "a value that stays in its event": [codec.LARGE],
    "a large value": [backend.CHUNK],
    "an artifact's name": [artifacts.MAX_NAME],
    "artifacts of a session, and their bytes": [],
    "a user for whom a store is opened": [plan.MAX_ID],
    "an id of a document, with its user's name": [plan.MAX_ID - 1],
    "nesting of arrays and objects in a JSON document": [codec.MAX_DEPTH, docheads.MAX_NESTING],
    "the reason why a session is put into the trash": [4 * plan.MAX_ID],
    "sessions that a prune moves in one transaction": [policies.MAX_BATCH],
    "a text on the command's stdin (`append REF -`, `session compact`), an artifact, a Markdown document": [],
    "a line of `append --jsonl`, a JSON document, a document for `doc get --json`": [],
    "items on one page of a list": [pages.MAX_LIMIT],
    "a search query": [search.MAX_QUERY_CHARS, search.MAX_TERMS],
    "a counter, a time in microseconds, a seq": [plan.MAX_COUNT],
}


def rows() -> dict[str, list[int]]:
    limits, _, _ = STATED.partition("There is no limit on")  # what takes memory is told behind
    found = re.findall(r"^\| (.+?) \| (.+?) \|$", limits, re.MULTILINE)[1:]
    return {what: [int(n.replace(",", "")) for n in re.findall(r"(?<!-)\b\d[\d,]*", limit)] for what, limit in found}


def test_the_stated_limits_are_those_of_the_code() -> None:
    assert rows() == CONSTANTS


@pytest.fixture
def store() -> Iterator[holdfast.Store]:
    with holdfast.open("memory://") as store:
        yield store


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def parts(count: int, size: int) -> holdfast.Message:
    return message("user", *[Text(content="x" * size)] * count)


@pytest.mark.parametrize(
    ("fits", "exceeds"),
    [
        ("i" * 512, "i" * 513),
        ("é" * 256, "é" * 257),
    ],
)
def test_ids_up_to_the_limit(store: holdfast.Store, fits: str, exceeds: str) -> None:
    store.session(fits).append(user("Hi"), key=fits)
    with pytest.raises(TooLarge):
        store.session(exceeds)
    with pytest.raises(TooLarge):
        store.session("other").append(user("Hi"), key=exceeds)
    assert store.get("other").last == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("field", ["name", "title", "user", "agent", "project", "parent"])
def test_fields_up_to_the_limit(store: holdfast.Store, field: str) -> None:
    assert getattr(store.create(**{field: "x" * 2048}).info(), field) == "x" * 2048  # type: ignore[arg-type]
    with pytest.raises(TooLarge):
        store.create(**{field: "x" * 2049})  # type: ignore[arg-type]


def test_labels_and_models_up_to_the_limit(store: holdfast.Store) -> None:
    session = store.create(labels=["x" * 506])
    session.append(usage("m" * 506))
    assert (session.info().labels, session.info().models) == (("x" * 506,), ("m" * 506,))
    with pytest.raises(TooLarge):
        session.update(labels=["x" * 507])
    with pytest.raises(TooLarge):
        session.append(usage("m" * 507))
    with pytest.raises(TooLarge):
        session.update(labels=[f"label {n}" for n in range(257)])


def test_labels_and_models_of_many_calls_up_to_the_limit(store: holdfast.Store) -> None:
    session = store.create(title="t")
    free = 1024 - len(store.head(session.id).tags)
    labels = [f"l{n}" for n in range(free)]
    for start in range(0, free, 200):
        session.update(labels=labels[start : start + 200])
    assert len(session.info().labels) == free
    for more in (
        lambda: session.update(labels=["one more"]),
        lambda: session.update(name="n", metadata={"a": 1}),
        lambda: session.append(user("Hi"), usage("m")),
    ):
        with pytest.raises(TooLarge, match="1,024"):
            more()
    assert (session.info().last, session.info().metadata) == (0, {})
    session.update(title="other", labels={"l0": False})
    session.append(user("Hi"), usage("m"))
    assert session.info().models == ("m",)


@pytest.mark.parametrize(
    ("fits", "exceeds"),
    [
        ([custom("x.deep", nested(99))], [custom("x.deep", nested(100))]),
        ([parts(60, 65_536)], [parts(70, 65_536)]),
        ([note("x")] * 10_000, [note("x")] * 10_001),
        ([parts(60, 65_536)] * 17, [parts(60, 65_536)] * 18),
    ],
    ids=["nesting", "event", "events", "batch"],
)
def test_appends_up_to_the_limit(store: holdfast.Store, fits: list[Any], exceeds: list[Any]) -> None:
    session = store.session("s")
    with pytest.raises(TooLarge):
        session.append(*exceeds)
    assert session.info().last == 0
    session.append(*fits)
    assert [event.payload for event in session.events()] == fits


def test_a_value_above_64_kib_moves_out(store: holdfast.Store) -> None:
    session = store.session("s")
    session.append(note("x" * 65_536), note("x" * 65_537))
    small, large = (event.payload.text for event in session.events())  # type: ignore[union-attr]
    assert small == "x" * 65_536
    assert isinstance(large, holdfast.Large)
    assert str(large) == "x" * 65_537


def test_metadata_up_to_the_limit(store: holdfast.Store) -> None:
    session = store.session("s")
    session.update(metadata={"a": "x" * 8_000_000})
    with pytest.raises(TooLarge):
        session.update(metadata={"b": "x" * 1_000_000})
    assert set(session.info().metadata) == {"a"}


def test_pages_and_queries_up_to_the_limit(store: holdfast.Store) -> None:
    store.sessions(limit=10_000)
    store.search("x" * 1000)
    store.search(" ".join("abcd"[n % 4] * (n // 4 + 1) for n in range(64)))
    for wrong in (
        lambda: store.sessions(limit=10_001),
        lambda: store.search("x" * 1001),
        lambda: store.search(" ".join("abcd"[n % 4] * (n // 4 + 1) for n in range(65))),
    ):
        with pytest.raises(holdfast.Invalid):
            wrong()
