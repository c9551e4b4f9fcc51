"""What the real programs wrote: it is read whole, and comes back to the byte; see tests/data/origins."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import holdfast
from a3s_files import tree
from holdfast.adapters.a3s_sync import SyncFileSessionStore, SyncSessionStore
from holdfast.adapters.oxios_sync import BlockingStateStore
from holdfast.adapters.zeroclaw import SessionBackend, SessionQuery
from holdfast.cli.foreign import BESIDE, FOREIGN
from holdfast.formats import a3s, rustjson, zeroclaw
from holdfast.importer import ImportReport
from holdfast.store import Store
from transcripts import take
from zeroclaw_files import rows

ORIGINS = Path(__file__).parent / "data" / "origins"
OXIOS = ORIGINS / "oxios" / "v1.3.0"
A3S = ORIGINS / "a3s-code" / "2.0.0"
JSONL = ORIGINS / "zeroclaw" / "jsonl_v0.6.9" / "sessions"
SQLITE = ORIGINS / "zeroclaw" / "sqlite_v0.6.9" / "sessions" / "sessions.db"

GENERATIONS = {
    "first": [f"ALTER TABLE session_metadata DROP COLUMN {n}" for n in ("turn_started_at", "turn_id", "state", "name")],
    "names": [f"ALTER TABLE session_metadata DROP COLUMN {n}" for n in ("turn_started_at", "turn_id", "state")],
    "states": [],
    "head": [
        *(
            f"ALTER TABLE session_metadata ADD COLUMN {name} TEXT"
            for name in ("agent_alias", "channel_id", "room_id", "sender_id")
        ),
        "UPDATE session_metadata SET agent_alias = 'ada', sender_id = 'u1' WHERE session_key = 'stuck'",
        "CREATE TABLE jsonl_import_receipts (source_name TEXT PRIMARY KEY, session_key TEXT NOT NULL,"
        " source_hash TEXT NOT NULL, source_len INTEGER NOT NULL, imported_at TEXT NOT NULL)",
        "INSERT INTO jsonl_import_receipts VALUES ('gw_3f2a.jsonl', 'gw_3f2a', 'ab', 70, '2026-11-21T02:23:58+00:00')",
    ],
}
"""What makes a database of another generation of the one that is here, which is of the third."""
KINDS = ("oxios", "a3s", "zeroclaw", *(f"zeroclaw-sqlite-{name}" for name in GENERATIONS))
REFUSED = {"oxios": 1}
"""Of the files of a kind, how many the program itself can't read."""


def sample(kind: str, folder: Path) -> Path:
    """A copy of a sample, as it lies in a workspace."""
    place = folder / "workspace" / "sessions"
    if kind == "oxios":
        shutil.copytree(OXIOS, place.parent)
        return place.parent
    if not kind.startswith("zeroclaw-sqlite"):
        shutil.copytree(A3S if kind == "a3s" else JSONL, place)
        return place
    place.mkdir(parents=True)
    shutil.copyfile(SQLITE, place / "sessions.db")
    with closing(sqlite3.connect(place / "sessions.db")) as connection, connection:
        for statement in GENERATIONS[kind.rpartition("-")[2]]:
            connection.execute(statement)
    return place / "sessions.db"


def ids(store: Store) -> list[str]:
    return [info.id for info in store.sessions(limit=1000)]


def assert_comes_back(store: Store, kind: str, source: Path, out: Path) -> None:
    """What is exported is the sample: each file to the byte, of a database each row."""
    form = "zeroclaw-sqlite" if kind.startswith("zeroclaw-sqlite") else kind
    FOREIGN[form](store, ids(store), str(out), False)
    if form != "zeroclaw-sqlite":
        missing = BESIDE[form](store, ids(store), str(out), True) if form in BESIDE else []
        assert missing == []
        assert tree(out) == tree(source)
        return
    for table in ("sessions", "session_metadata"):
        before = rows(source, table)
        assert rows(out, table, list(before[0])) == before
    if kind.endswith("head"):
        assert rows(out, "jsonl_import_receipts") == rows(source, "jsonl_import_receipts")
    with closing(sqlite3.connect(out)) as made:
        made.execute("INSERT INTO sessions_fts(sessions_fts) VALUES ('integrity-check')")


def fingerprint(store: Store) -> dict[str, Any]:
    """All that an import left."""
    found: dict[str, Any] = {}
    for id in ids(store):
        session = store.session(id)
        info = session.info()
        events = [(event.id, event.at, event.hidden, event.raw) for event in session.events(include_hidden=True)]
        found[id] = (info.title, info.name, info.state, info.counts, info.created_at, info.updated_at, events)
        found[id] += tuple((one.name, one.sha256, one.uri) for one in session.artifacts.list())
    for info in store.documents.list(limit=1000):
        if not info.id.startswith("oxios-imports"):  # which tell when
            found[info.id] = store.documents.get(info.id).source  # type: ignore[union-attr]  # it was listed
    return found


def refused(report: ImportReport) -> int:
    """How many files the program itself could not read."""
    assert report.failed == []
    return sum(file.unreadable_lines for file in report.files)


@pytest.mark.parametrize("kind", KINDS)
def test_a_round_trip_is_exact(store: Store, tmp_path: Path, kind: str) -> None:
    source = sample(kind, tmp_path)
    before = source.read_bytes() if source.is_file() else tree(source)
    report = take(store, source)
    assert refused(report) == REFUSED.get(kind, 0)
    assert report.events > 0
    assert_comes_back(store, kind, source, tmp_path / "out")
    assert (source.read_bytes() if source.is_file() else tree(source)) == before
    assert store.check().ok


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_import_changes_nothing(store: Store, tmp_path: Path, kind: str) -> None:
    source = sample(kind, tmp_path)
    take(store, source)
    before, revs = fingerprint(store), {id: store.head(id).rev for id in ids(store)}
    assert take(store, source).events == 0
    assert fingerprint(store) == before
    assert {id: store.head(id).rev for id in ids(store)} == revs


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_exported_is_taken_like_the_sample(store: Store, tmp_path: Path, kind: str) -> None:
    source = sample(kind, tmp_path)
    take(store, source)
    out = tmp_path / "out" / "sessions.db" if source.is_file() else tmp_path / "out"
    out.parent.mkdir(exist_ok=True)
    assert_comes_back(store, kind, source, out)
    with holdfast.open("memory://") as other:
        assert refused(take(other, out)) == REFUSED.get(kind, 0)
        assert len(ids(other)) == len(ids(store))
        assert_comes_back(other, kind, source, tmp_path / "again")


KILLED = """
import os, sys, holdfast
from holdfast.importer import find_sources, import_files
left = 3
with holdfast.open(sys.argv[1]) as store:
    commit = store.batcher.commit
    def counted(change, **limit):
        global left
        if left == 0:
            os.kill(os.getpid(), 9)
        left -= 1
        return commit(change, **limit)
    store.batcher.commit = counted
    import_files(store, find_sources([sys.argv[2]]))
"""
"""An import that is killed before its fourth commit."""


@pytest.mark.parametrize("scheme", ["file", "sqlite"])
@pytest.mark.parametrize("kind", ["oxios", "a3s", "zeroclaw", "zeroclaw-sqlite-head"])
def test_an_import_that_is_killed_again_and_again_comes_to_the_same(tmp_path: Path, kind: str, scheme: str) -> None:
    source = sample(kind, tmp_path)
    url = f"{scheme}://{tmp_path}/store" + (".db" if scheme == "sqlite" else "")
    killed = 0
    while (code := subprocess.run([sys.executable, "-c", KILLED, url, str(source)], check=False).returncode) != 0:
        assert code == -signal.SIGKILL
        killed += 1
        assert killed < 50
        with holdfast.open(url) as store:
            report = store.check()
            assert report.ok, report.findings
    assert killed > 0
    with holdfast.open(url) as store, holdfast.open("memory://") as straight:
        assert take(store, source).events == 0
        take(straight, source)
        assert fingerprint(store) == fingerprint(straight)
        assert_comes_back(store, kind, source, tmp_path / "out")
        assert store.check().ok


# The adapters


def loaded(path: Path) -> Any:
    return rustjson.parse(path.read_bytes())


def test_oxios_reads_what_its_program_wrote(store: Store, tmp_path: Path) -> None:
    base = sample("oxios", tmp_path)
    take(store, base)
    mine = BlockingStateStore(store, zeroclaw.place_of(str(base)))
    files = {path.stem: path for path in (base / "sessions").glob("*.json") if path.stem != "corrupt"}
    for stem, path in files.items():
        document, session = loaded(path), mine.load_session(stem)
        assert mine.load_json("sessions", stem) == document
        assert session is not None
        assert session.user_id == document["user_id"]
        assert [it.content for it in session.user_messages] == [it["content"] for it in document["user_messages"]]
        assert [it.content for it in session.agent_responses] == [it["content"] for it in document["agent_responses"]]
        assert len(session.trajectory_steps) == len(document.get("trajectory_steps", ()))
        assert session.metadata == document["metadata"]
        mine.save_session(session)  # nothing is new
        assert mine.load_json("sessions", stem) == document
    twin = base / "sessions" / "33333333-3333-4333-8333-333333333333.md"
    assert (mine.load_markdown("sessions", twin.stem) or "").encode() == twin.read_bytes()
    agent = next((base / "agents").glob("*.json"))
    assert mine.load_json("agents", agent.stem) == loaded(agent)


def test_oxios_lists_what_its_program_listed_but_for_the_defects(store: Store, tmp_path: Path) -> None:
    base = sample("oxios", tmp_path)
    take(store, base)
    mine = BlockingStateStore(store, zeroclaw.place_of(str(base)))
    theirs = {told["id"]: told for told in loaded(base / "list_sessions.out.json")}  # O3: one of them twice
    ours = {told.id: told for told in mine.list_sessions()}
    assert list(ours) == list(theirs)
    titles = {"77777777-0000-4000-8000-000000000000": "", "44444444-4444-4444-8444-444444444444": "안녕하세요 이것"}
    for id, told in theirs.items():
        document, summary = loaded(base / "sessions" / f"{id}.json"), ours[id]
        assert summary.user_id == told["user_id"]
        assert list(summary.project_ids) == document["metadata"].get("project_ids", [])  # O22: an array gave them none
        assert "project_id" not in told
        assert rustjson.micros_of(told["updated_at"]) == int(summary.updated_at.timestamp() * 1_000_000)
        said = len(document["user_messages"]) + len(document["agent_responses"])
        assert (told["message_count"], summary.message_count) == (len(document["user_messages"]), said)  # O20
        if id in titles:  # O21: no title, or one that was cut by its bytes
            assert str(summary.title) not in ("", told["title"])
            assert str(summary.title).startswith(titles[id])
        else:
            assert summary.title == told.get("title")
    listed = set(loaded(base / "list_category_sessions.out.json")) - {"corrupt"}  # O2: one of them twice
    assert mine.list_category("sessions") == sorted(listed)  # what could not be read was put apart


def test_a3s_reads_what_its_program_wrote(store: Store, tmp_path: Path) -> None:
    folder = sample("a3s", tmp_path)
    take(store, folder)
    with holdfast.open("memory://") as empty:
        imported, beside = SyncSessionStore(store, a3s.place_of(str(folder))), SyncFileSessionStore(empty, folder)
        documents = {loaded(path)["id"]: path for path in folder.glob("*.json")}
        assert imported.list() == beside.list() == sorted(documents)
        for id, path in documents.items():
            for mine in (imported, beside):
                session = mine.load(id)
                assert session is not None
                assert session.json() == loaded(path)
                assert [it.json() for it in mine.load_trace_events(id) or ()] == loaded(folder / "traces" / path.name)
                reports = [it.json() for it in mine.load_verification_reports(id) or ()]
                assert reports == loaded(folder / "verification" / path.name)
                artifacts = [it.json() for it in mine.load_artifacts(id) or ()]
                assert artifacts == loaded(folder / "artifacts" / path.stem / "artifacts.json")["artifacts"]
        for id in documents:
            session = imported.load(id)
            assert session is not None
            imported.save(session)  # nothing is new
        assert_comes_back(store, "a3s", folder, tmp_path / "out")


def test_zeroclaw_reads_the_lines_that_its_program_wrote(store: Store, tmp_path: Path) -> None:
    folder = sample("zeroclaw", tmp_path)
    take(store, folder)
    mine = SessionBackend(store, zeroclaw.place_of(str(folder)))
    keys = {path.name.removesuffix(".jsonl"): path for path in folder.iterdir()}
    assert "" in keys
    assert sorted(mine.list_sessions()) == sorted(keys)
    for key, path in keys.items():
        lines = [json.loads(line) for line in path.read_bytes().splitlines()]
        assert [{"role": it.role, "content": it.content} for it in mine.load(key)] == lines


@pytest.mark.parametrize("generation", GENERATIONS)
def test_zeroclaw_reads_the_rows_that_its_program_wrote(store: Store, tmp_path: Path, generation: str) -> None:
    path = sample(f"zeroclaw-sqlite-{generation}", tmp_path)
    take(store, path)
    mine = SessionBackend(store, zeroclaw.place_of(str(path)))
    said: dict[str, list[tuple[str, str]]] = {}
    for row in rows(path, "sessions"):
        said.setdefault(row["session_key"].decode(), []).append((row["role"].decode(), row["content"].decode()))
    told = {row["session_key"].decode(): row for row in rows(path, "session_metadata")}
    for metadata in mine.list_sessions_with_metadata():
        row = told.pop(metadata.key)
        assert [(it.role, it.content) for it in mine.load(metadata.key)] == said[metadata.key]
        assert metadata.message_count == row["message_count"]
        assert metadata.name == (row["name"].decode() if row.get("name") else None)
        assert mine.get_session_name(metadata.key) == metadata.name
        for at, name in ((metadata.created_at, "created_at"), (metadata.last_activity, "last_activity")):
            assert int(at.timestamp() * 1_000_000) == rustjson.micros_of(row[name].decode())
        state = mine.get_session_state(metadata.key)
        assert state is not None
        if "state" in row:
            assert state.state == row["state"].decode()
            assert state.turn_id == (row["turn_id"].decode() if row["turn_id"] and state.state == "running" else None)
    assert told == {}
    by_activity = sorted(rows(path, "session_metadata"), key=lambda row: row["last_activity"], reverse=True)
    assert mine.list_sessions() == [row["session_key"].decode() for row in by_activity]
    stuck = ["stuck"] if generation in ("states", "head") else []
    assert [it.key for it in mine.list_running_sessions()] == stuck
    assert [it.key for it in mine.search(SessionQuery("resume"))] == ["telegram__alice"]
