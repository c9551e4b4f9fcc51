"""Flipped bits: each is named by `check` or changes nothing, and no read ever gives a wrong answer for a right one."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

import holdfast
from faults import BACKENDS, url_of
from holdfast import Damaged, Event, Large, Message, Store, Text, note, step, usage, usd, user
from holdfast.errors import HoldfastError

FLIPS, LONG = 40, 2_000
PAGE = 4096
SESSIONS = 6
LARGE = "a large value "


class Held(NamedTuple):
    """What a session holds: what is said of it, and each event by its seq."""

    about: tuple[object, ...]
    events: Mapping[int, tuple[object, ...]]


def make(backend: str, place: Path) -> None:
    """A store with some of everything."""
    place.mkdir()
    with holdfast.open(url_of(backend, place)) as store:
        for number in range(SESSIONS):
            session = store.session(f"session {number}", name=f"name {number}", labels=["kept"], metadata={"n": number})
            for turn in range(8):
                session.append(
                    user(f"question {turn} of {number}: why is the file not there?"),
                    step("look", arguments={"path": f"/tmp/{turn}"}, output="nothing " * turn),
                    usage(model="m", input_tokens=turn, output_tokens=2, cost=usd("0.01")),
                    key=f"turn {turn}",
                )
            session.append(user(LARGE * 20_000 + str(number)), note("behind it"))
            session.remove_last()
        store.session("deleted").append(note("gone"))
        store.delete("deleted")
        assert len(store.search("question")) == 20
        assert store.check().ok


def read(store: Store, id: str) -> Held | str:
    """What a session is found to hold, without what is damaged; or the error."""
    try:
        session = store.get(id)
        if session is None:
            return "not there"
        info = session.info()
        about = (info.id, info.name, info.labels, info.metadata, info.counts, info.state, info.last, info.created_at)
        events: dict[int, tuple[object, ...]] = {}
        for event in session.events(include_hidden=True, damaged="keep"):
            if not isinstance(event.payload, Damaged):
                events[event.seq] = (event.id, event.at, event.hidden, event.raw, large(event))
        return Held(about, events)
    except HoldfastError as error:
        return f"{type(error).__name__}: {error}"


def large(event: Event) -> str | None:
    """The whole of an event's large value; None where it has none, or says that it is damaged."""
    part = event.payload.parts[0] if isinstance(event.payload, Message) else None
    try:
        return str(part.content) if isinstance(part, Text) and isinstance(part.content, Large) else None
    except HoldfastError as error:
        return f"damaged: {type(error).__name__}"


def all_ids() -> list[str]:
    return [*(f"session {number}" for number in range(SESSIONS)), "deleted"]


def wrong_after_flip(url: str, sound: Mapping[str, Held | str]) -> tuple[str, list[str]]:
    """What a flip did (harmless, named, refused), and the answers that were wrong."""
    try:
        store = holdfast.open(url)
    except HoldfastError as error:
        return f"refused: {type(error).__name__}", []
    wrong: list[str] = []
    with store:
        found = {id: read(store, id) for id in all_ids()}
        try:
            listed = {info.id for info in store.sessions(limit=100)}
        except HoldfastError as error:
            listed = {f"{type(error).__name__}: {error}"}
        try:
            report = [str(finding) for finding in store.check().findings]
        except HoldfastError as error:
            report = [f"{type(error).__name__}: {error}"]
    same = found == sound and listed == {id for id, held in sound.items() if isinstance(held, Held)}
    if not report and not same:
        wrong.append("nothing was named")
    for id, held in found.items():
        wrong += wrong_answers(id, held, sound[id])
    return "harmless" if same else "named", wrong


def wrong_answers(id: str, held: Held | str, right: Held | str) -> list[str]:
    """Answers that look sound and are not. An error is no wrong answer, nor is what is left out and named."""
    if isinstance(held, str):
        return []  # also "not there": of what a damaged index leads past only `check`, which reads all, can know
    if isinstance(right, str):
        return [f"{id} came back"]
    wrong = [] if held.about == right.about else [f"{id}: {held.about} instead of {right.about}"]
    for seq, event in held.events.items():
        expected = right.events.get(seq)
        if event != expected and not str(event[-1]).startswith("damaged: "):
            wrong.append(f"{id} {seq}: {event} instead of {expected}")
    return wrong


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_flipped_bit_is_named_or_harmless(backend: str, tmp_path: Path, long: bool) -> None:
    make(backend, tmp_path / "sound")
    with holdfast.open(url_of(backend, tmp_path / "sound")) as store:
        sound = {id: read(store, id) for id in all_ids()}
    files = sorted(p.relative_to(tmp_path / "sound") for p in (tmp_path / "sound").rglob("*") if p.is_file())
    sizes = [(tmp_path / "sound" / path).stat().st_size for path in files]
    rnd = random.Random(0)
    done: dict[str, int] = {}
    for number in range(LONG if long else FLIPS):
        # By their size, but every other time any file: the small ones matter as much.
        weights = [bool(size) if number % 2 else size for size in sizes]
        path, size = rnd.choices(list(zip(files, sizes, strict=True)), weights)[0]
        bit = rnd.randrange(size * 8)
        place = tmp_path / "damaged"
        shutil.copytree(tmp_path / "sound", place)
        flip(place / path, bit)
        what, wrong = wrong_after_flip(url_of(backend, place), sound)
        assert wrong == [], f"bit {bit} of {path}"
        done[what] = done.get(what, 0) + 1
        shutil.rmtree(place)
    assert done.get("named", 0) > 0, done
    assert done.get("harmless", 0) > 0, done


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_damaged_session_hides_no_other(backend: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    make(backend, place)
    with holdfast.open(url_of(backend, place)) as store:
        sound = {id: read(store, id) for id in all_ids()}
    needle = b"name 3"  # in the head of one session
    touched = 0
    for path in [p for p in place.rglob("*") if p.is_file()]:
        data = path.read_bytes()
        if needle in data:
            touched += 1
            path.write_bytes(data.replace(needle, b"nAme 3"))
    assert touched
    with holdfast.open(url_of(backend, place)) as store:
        for id in all_ids():
            if id != "session 3":
                assert read(store, id) == sound[id]
        others = {id for id in all_ids() if id not in ("session 3", "deleted")}
        assert {info.id for info in store.sessions()} >= others
        named = {finding.session for finding in store.check().findings}
        assert "session 3" in named
        assert named <= {"session 3", None}  # None: what the engine says of its own pages


def spoil(data: bytearray, page: int, how: str) -> None:
    """Spoil the page that begins there; see SQLite's file format, "B-tree Pages"."""
    if how == "order":
        cells = int.from_bytes(data[page + 3 : page + 5])
        first = page + (12 if data[page] in (2, 5) else 8)
        if data[page] in (2, 5, 10, 13) and 1 < cells < 400:
            places = [bytes(data[at : at + 2]) for at in range(first, first + 2 * cells, 2)]
            data[first : first + 2 * cells] = b"".join(reversed(places))
        return
    at, size = (page, 1) if how == "kind" else (page + 12, 28)
    data[at : at + size] = b"\xff" * size


@pytest.mark.parametrize("how", ["kind", "cells", "order"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_spoilt_page_of_the_database_is_named_or_harmless(backend: str, how: str, tmp_path: Path) -> None:
    """Each page, so that every statement meets one that SQLite can't read, or that is in another order."""
    make(backend, tmp_path / "sound")
    with holdfast.open(url_of(backend, tmp_path / "sound")) as store:
        sound = {id: read(store, id) for id in all_ids()}
    (database,) = (tmp_path / "sound").rglob("*.db")
    done: dict[str, int] = {}
    for start in range(0, database.stat().st_size, PAGE):
        place = tmp_path / "damaged"
        shutil.copytree(tmp_path / "sound", place)
        spoilt = place / database.relative_to(tmp_path / "sound")
        data = bytearray(spoilt.read_bytes())
        spoil(data, start or 100, how)  # the first page has the header of the file before its own
        spoilt.write_bytes(data)
        with contextlib.suppress(HoldfastError), holdfast.open(url_of(backend, place)) as store:
            store.search("question")
        what, wrong = wrong_after_flip(url_of(backend, place), sound)
        assert wrong == [], f"the page at {start}"
        done[what] = done.get(what, 0) + 1
        shutil.rmtree(place)
    assert done.get("named", 0) > 0, done
