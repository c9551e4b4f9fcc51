"""Imports of every program's files, killed at any moment: the store stays sound, and the next one completes them."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

import a3s_files
import holdfast
import oxios_files
import zeroclaw_files
from faults import BACKENDS, start, url_of
from holdfast import Store
from holdfast.importer import import_files
from holdfast.importing.sources import find_sources
from transcripts import answered, said

ROUNDS, LONG = 6, 100
EACH = 12


def fill(folder: Path) -> Path:
    """Sessions of every program."""
    for number in range(EACH):
        (folder / "claude").mkdir(parents=True, exist_ok=True)
        id = f"s-{number}"
        lines = [said(f"Line {n}", n, id) if n % 3 else answered(f"r-{n}", n, n, id) for n in range(60)]
        (folder / "claude" / f"{id}.jsonl").write_bytes(b"".join(lines))
        (folder / "zeroclaw" / "sessions").mkdir(parents=True, exist_ok=True)
        spoken = b"".join(zeroclaw_files.line("user", f"{n} of {number}") for n in range(30))
        (folder / "zeroclaw" / "sessions" / f"telegram_{number}.jsonl").write_bytes(spoken)
        (folder / "oxios" / "sessions").mkdir(parents=True, exist_ok=True)
        (folder / "oxios" / "notes").mkdir(parents=True, exist_ok=True)
        document = oxios_files.document("1.3.0", id)
        (folder / "oxios" / "sessions" / f"{id}.json").write_bytes(oxios_files.written(document))
        (folder / "oxios" / "notes" / f"{number}.md").write_bytes(b"# Note")
        messages = [a3s_files.message("user", a3s_files.text(f"{n} of {number}")) for n in range(30)]
        (folder / "a3s").mkdir(parents=True, exist_ok=True)
        session = a3s_files.session(id, messages)
        a3s_files.fill(folder / "a3s", session, artifacts=[a3s_files.artifact(number)], traces=[a3s_files.trace()])
    zeroclaw_files.fill(folder / "zeroclaw" / "sessions" / "sessions.db")
    return folder


def held(store: Store) -> dict[str, object]:
    """All that an import left: the events of each session, and the documents."""
    found: dict[str, object] = {}
    for info in store.sessions(limit=1000):
        events = [(e.id, e.at, e.hidden, e.raw) for e in store.session(info.id).events(include_hidden=True)]
        found[info.id] = (info.title, info.user, info.counts, sorted(events, key=lambda event: event[3]))
    for info in store.documents.list(limit=1000):
        document = store.documents.get(info.id)
        assert document is not None
        if not info.id.startswith("oxios-imports"):  # which tell when
            found[info.id] = document.source
    return found


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_killed_import_leaves_a_sound_store_and_is_completed(backend: str, tmp_path: Path, long: bool) -> None:
    folder, rnd = fill(tmp_path / "sources"), random.Random(backend)
    with holdfast.open("memory://") as store:
        assert import_files(store, find_sources([folder])).failed == []
        whole = held(store)
        assert len(whole) > EACH * 5
    killed = 0
    for number in range(LONG if long else ROUNDS):
        url = url_of(backend, tmp_path / f"store-{number // 5}", durability="process")
        (tmp_path / f"store-{number // 5}").mkdir(exist_ok=True)
        with start("taker", url, folder) as program:
            assert program.stdout is not None
            assert program.stdout.readline() == b"go\n"
            time.sleep(rnd.uniform(0, 0.4))  # the moment of the kill, not a wait for anything
            program.send_signal(signal.SIGKILL)
        killed += program.returncode == -signal.SIGKILL
        with holdfast.open(url) as store:
            report = store.check()
            assert report.ok, report.findings
            if number % 5 == 4 or number == (LONG if long else ROUNDS) - 1:
                assert import_files(store, find_sources([folder])).failed == []
                assert held(store) == whole
                assert import_files(store, find_sources([folder])).events == 0
    assert killed > 0
