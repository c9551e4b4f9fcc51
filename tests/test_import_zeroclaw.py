"""zeroclaw's files in and out: nothing is lost, what it refuses is told, and what it wrote comes back as it was."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

import holdfast
from holdfast.formats import zeroclaw_out
from holdfast.formats.zeroclaw import place_of, read, safe
from holdfast.importer import FileReport, find_sources, import_files
from holdfast.model import Message
from holdfast.store import Store
from shell import Shell
from test_import import digest, fingerprint
from transcripts import source_bytes, take, take_one
from zeroclaw_files import AT, GENERATIONS, connect, fill, line, rows, say

OLD = 1_700_000_000


def session_of(store: Store, path: Path, key: str) -> holdfast.Session:
    """The session of a key in a folder or a database."""
    session = store.get(f"zeroclaw:{place_of(str(path))}/{key}")
    assert session is not None
    return session


def texts(store: Store, path: Path, key: str) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in session_of(store, path, key).messages()]


def exported(store: Store, ids: list[str], folder: Path) -> dict[str, bytes]:
    """The JSONL files of some sessions, by name."""
    names = zeroclaw_out.file_names(store, ids)
    return {name: b"".join(zeroclaw_out.jsonl_lines(store, id, zeroclaw_out.Written())) for id, name in names.items()}


def all_ids(store: Store) -> list[str]:
    return [info.id for info in store.sessions(limit=1000)]


# JSONL


@pytest.fixture
def sessions(tmp_path: Path) -> Path:
    """A workspace's folder of JSONL files."""
    folder = tmp_path / "workspace" / "sessions"
    folder.mkdir(parents=True)
    (folder / "telegram_user123.jsonl").write_bytes(
        line("system", "Be brief.") + line("user", 'hello "q" \\ é\x7f\u2028🦀\n\t\x01') + line("assistant", "hi")
    )
    (folder / ".jsonl").write_bytes(line("user", "empty key"))
    (folder / "a_b.jsonl").write_bytes(b'["user","an array"]\n' + line("narrator", ""))
    (folder / "user_Алиса.jsonl").write_bytes(line("tool", "x"))
    (folder / "corrupt.jsonl").write_bytes(
        line("user", "one")
        + b"\n"
        + b"this is no JSON\n"
        + b'{"role":"user"}\n'
        + b'["user"]\n["user","x","y"]\n[1,2]\n42\n'
        + b'{"role":"user","content":null}\n'
        + b'{"role":"user","role":"user","content":"twice"}\n'
        + b'{"role":"user","content":"\xff"}\n'
        + b'{"role":"user","content":"\\ud800"}\n'
        + b'{"role":"user","content":"more","extra":{"n":1e400}}\n'
        + b'  {"content":"order","role":"user","extra":[1.50,{"a":1,"a":2}]} \r\n'
        + b'{"role":"assistant","content":"torn'
    )
    for path in folder.iterdir():
        os.utime(path, (OLD, OLD))
    return folder


def test_a_folder_of_jsonl_is_recognised_and_comes_back_byte_for_byte(store: Store, sessions: Path) -> None:
    reports = take(store, sessions).files
    assert [report.error for report in reports] == [None] * 5
    for report in reports:
        session = store.get(report.session or "")
        assert session is not None
        assert source_bytes(list(session.events())) == Path(report.path).read_bytes()
    assert texts(store, sessions, "telegram_user123")[2] == ("assistant", "hi")
    assert texts(store, sessions, "") == [("user", "empty key")]
    assert texts(store, sessions, "a_b") == [("user", "an array"), ("narrator", "")]
    assert exported(store, all_ids(store), sessions) == {p.name: p.read_bytes() for p in sessions.iterdir()}
    info = session_of(store, sessions, "user_Алиса").info()
    assert (info.agent, info.project, info.created_at) == ("zeroclaw", "workspace", OLD * 1_000_000)
    assert store.check().ok


def test_what_the_program_passes_over_is_kept_and_told(store: Store, sessions: Path) -> None:
    report = take_one(store, sessions / "corrupt.jsonl")
    assert texts(store, sessions, "corrupt") == [("user", "one"), ("user", "order")]
    assert [(item.line, item.reason) for item in report.unreadable] == [
        (3, "no JSON: Expecting value: line 1 column 1 (char 0)"),
        (4, "no message: it has no content"),
        (5, "no message: an array of 1"),
        (6, "no message: an array of 3"),
        (7, "no message: its role is no text"),
        (8, "no message: neither an object nor an array"),
        (9, "no message: its content is no text"),
        (10, "the field 'role' stands there twice"),
        (11, "not UTF-8 at byte 26"),
        (12, "it holds half of a surrogate pair"),
        (13, "1e400 is outside the range of a float"),
        (15, "no JSON: Unterminated string starting at: line 1 column 31 (char 30)"),
    ]


def test_white_space_is_what_the_program_takes_for_it(store: Store, tmp_path: Path) -> None:
    said = line("user", "x")[:-1]
    path = tmp_path / "sessions" / "k.jsonl"
    path.parent.mkdir()
    lines = [b"\xc2\xa0" + said + b"\xe3\x80\x80", b"\x1c" + said, said + b"\x1f", b"\xef\xbb\xbf" + said]
    lines += [b"\r" + said + b"\r"]
    path.write_bytes(b"\n".join(lines) + b"\n")
    (report,) = take(store, path).files
    assert [unread.line for unread in report.unreadable] == [2, 3, 4]
    assert len(texts(store, path.parent, "k")) == 2


def test_a_second_import_changes_nothing_and_a_longer_file_adds_to_it(store: Store, sessions: Path) -> None:
    take(store, sessions)
    before, revs = fingerprint(store), [info.rev for info in store.sessions(limit=100)]
    assert take(store, sessions).events == 0
    assert (fingerprint(store), [info.rev for info in store.sessions(limit=100)]) == (before, revs)
    path = sessions / "a_b.jsonl"
    path.write_bytes(path.read_bytes() + line("user", "more") + b'{"role":"user","con')
    report = take_one(store, path)
    assert (report.events, report.known, report.left) == (1, 2, 19)
    assert texts(store, sessions, "a_b")[-1] == ("user", "more")


def test_the_same_key_of_two_workspaces_is_two_sessions(store: Store, tmp_path: Path) -> None:
    for name in ("one", "other"):
        folder = tmp_path / name / "sessions"
        folder.mkdir(parents=True)
        (folder / "k.jsonl").write_bytes(line("user", name))
    fill(tmp_path / "one" / "sessions" / "sessions.db")
    take(store, tmp_path)
    assert [texts(store, tmp_path / name / "sessions", "k") for name in ("one", "other")] == [
        [("user", "one")],
        [("user", "other")],
    ]
    with pytest.raises(holdfast.Conflict, match=r"k\.jsonl"):
        exported(store, [id for id in all_ids(store) if id.endswith("/k")], tmp_path)


def test_an_archive_is_read_when_it_is_named(store: Store, sessions: Path) -> None:
    archive = sessions / "k.jsonl.migrated"
    archive.write_bytes(line("user", "before the database"))
    (sessions / "k.jsonl").write_bytes(line("user", "after"))
    assert not any(report.path.endswith("migrated") for report in take(store, sessions).files)
    report = take_one(store, archive)
    assert (report.error, report.events) == (None, 1)
    assert texts(store, sessions, "k") == [("user", "after")]
    assert exported(store, [report.session or ""], sessions) == {"k.jsonl": archive.read_bytes()}


def test_files_of_others_are_none_of_zeroclaws(store: Store, tmp_path: Path) -> None:
    for name, data in {
        "codex.jsonl": b'{"type":"message","role":"user","content":"x"}\n',
        "claude.jsonl": b'{"type":"user","sessionId":"s","message":{"role":"user","content":"x"}}\n',
        "nothing.jsonl": b"no JSON\n",
        "notes.json": b'{"version":2}',
    }.items():
        (tmp_path / name).write_bytes(data)
    found = {os.path.basename(f.path): f.program for f in find_sources([tmp_path, tmp_path / "notes.json"])}
    assert found == {"codex.jsonl": "codex", "claude.jsonl": "claude-code", "nothing.jsonl": None, "notes.json": None}


def test_a_torn_line_does_not_swallow_what_is_appended_here(store: Store, sessions: Path) -> None:
    """The program glues what it appends to a torn line, and both are lost."""
    take(store, sessions)
    session = session_of(store, sessions, "corrupt")
    session.append(holdfast.user("next"))
    (data,) = exported(store, [session.id], sessions).values()
    assert data == (sessions / "corrupt.jsonl").read_bytes() + b"\n" + line("user", "next")


MESSAGES = st.tuples(
    st.sampled_from(["user", "assistant", "tool", "system", ""]), st.text(st.characters(exclude_categories=["Cs"]))
)


@given(st.lists(MESSAGES, max_size=6))
def test_every_message_is_written_as_the_program_writes_it(messages: list[tuple[str, str]]) -> None:
    with holdfast.open("memory://") as store:
        session = store.create("zeroclaw:p/k", agent="zeroclaw")
        for role, content in messages:
            session.append(holdfast.message(role, content))
        (data,) = exported(store, [session.id], Path()).values()
        assert data == b"".join(line(role, content) for role, content in messages)
        taken = [read(raw)[0] for raw in data.splitlines(keepends=True) if raw.endswith(b"\n")]
        assert len(taken) >= len(messages)


def test_what_has_no_place_there_is_counted(store: Store) -> None:
    session = store.create("support")
    session.append(holdfast.user("Hi", holdfast.Uri(uri="a://b")), holdfast.note("aside"), holdfast.step("run"))
    session.set_state("running")
    session.append(holdfast.assistant(holdfast.reasoning("Hm."), holdfast.tool_call("c", "look", {"at": 1e-7})))
    session.append(holdfast.tool_result("c", {"sky": "blue"}))
    session.append(holdfast.user("gone"))
    session.remove_last()
    written = zeroclaw_out.Written()
    lines = [json.loads(raw) for raw in zeroclaw_out.jsonl_lines(store, "support", written)]
    assert [(found["role"], found["content"]) for found in lines] == [
        ("user", 'Hi\n{"type":"uri","uri":"a://b"}'),
        ("assistant", 'Hm.\n{"id":"c","name":"look","arguments":{"at":1e-7}}'),
        ("tool", '{"sky":"blue"}'),
    ]
    assert (written.messages, written.left_out) == (3, 2)
    assert safe("slack/thread:1 é_-") == "slack_thread_1_é_-"


# Databases


def exported_database(store: Store, path: Path, ids: list[str] | None = None) -> zeroclaw_out.Written:
    return zeroclaw_out.write_database(store, ids or all_ids(store), str(path))


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_database_of_each_generation_comes_back_row_for_row(store: Store, tmp_path: Path, generation: str) -> None:
    path = fill(tmp_path / "sessions" / "sessions.db", generation)
    reports = take(store, path).files
    assert [report.error for report in reports] == [None] * 7
    assert texts(store, path, "gw_1") == [("user", "How do I parse JSON in Rust?"), ("assistant", "Use serde_json.")]
    assert texts(store, path, "slack/thread:1/user") == [("user", 'é\0\u2028🦀 "q" \\')]
    assert texts(store, path, "empty") == []
    exported_database(store, tmp_path / "out.db")
    assert rows(tmp_path / "out.db", "sessions") == rows(path, "sessions")
    before = rows(path, "session_metadata")
    columns = list(before[0])
    after = rows(tmp_path / "out.db", "session_metadata", columns)
    assert [row for row in after if row["session_key"] != b"lost"] == before
    assert [row["message_count"] for row in after if row["session_key"] == b"lost"] == [1]  # it is listed again
    if generation == "head":
        assert rows(tmp_path / "out.db", "jsonl_import_receipts") == rows(path, "jsonl_import_receipts")
    with closing(sqlite3.connect(tmp_path / "out.db")) as made:
        found = made.execute("SELECT session_key FROM sessions_fts WHERE sessions_fts MATCH 'serde_json'").fetchall()
        made.execute("INSERT INTO sessions_fts(sessions_fts) VALUES ('integrity-check')")
        assert found == [("gw_1",)]
        assert made.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        say(made, "gw_1", "user", "and it goes on there", AT.format(9))
    assert store.check().ok


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ANY_KEY = st.sampled_from(["", "a", "a/b", "a_b", "~a", "a\nb", "\0", "k" * 500, "é", "e\u0301"]) | ANY_TEXT
ANY_TIME = st.sampled_from(
    [AT.format(n) for n in range(10)] + ["", "never", "2026-11-21T02:23:58Z", "1969-01-01T00:00:00Z"]
)
ANY_VALUE = ANY_TEXT | st.binary(max_size=5) | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)


@given(
    st.lists(st.tuples(ANY_KEY, ANY_VALUE, ANY_VALUE, ANY_TIME), max_size=8),
    st.dictionaries(
        ANY_KEY, st.tuples(ANY_TIME, ANY_TIME, st.integers(0, 9), st.none() | ANY_TEXT, ANY_TEXT), max_size=4
    ),
)
def test_whatever_rows_a_database_has_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    messages: list[tuple[Any, ...]],
    listed: dict[str, tuple[Any, ...]],
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    path = folder / "sessions.db"
    with closing(connect(path)) as made:
        made.execute("BEGIN")
        made.executemany("INSERT INTO sessions (session_key, role, content, created_at) VALUES (?, ?, ?, ?)", messages)
        for key, (created, active, number, name, state) in listed.items():
            made.execute(
                "INSERT INTO session_metadata VALUES (?, ?, ?, ?, ?, ?, NULL, NULL)",
                (key, created, active, number, name, state),
            )
        made.execute("COMMIT")
    with holdfast.open("memory://") as store:
        assert take(store, path).failed == []
        exported_database(store, folder / "out.db")
        assert rows(folder / "out.db", "sessions") == rows(path, "sessions")
        after = rows(folder / "out.db", "session_metadata")
        assert [row for row in after if row["session_key"].decode() in listed] == rows(path, "session_metadata")
        assert take(store, path).events == 0


def test_what_is_odd_about_a_database_is_told(store: Store, tmp_path: Path) -> None:
    path = fill(tmp_path / "sessions.db")
    with closing(connect(path)) as made:
        made.execute("INSERT INTO sessions VALUES (50, 'gw_1', 'user', x'00ff', 'yesterday')")
        made.execute("INSERT INTO sessions VALUES (51, 'gw_1', 'user', CAST(x'ff41' AS TEXT), '')")
        made.execute("INSERT INTO sessions VALUES (52, CAST(x'6bff' AS TEXT), 'user', 'an odd key', '')")
        made.execute("INSERT INTO sessions VALUES (53, x'6b', 'user', 'a key that is no text', '')")
        made.execute("CREATE TABLE others (a, session_key)")
        made.execute("INSERT INTO others VALUES (1.5, 'gw_1')")
        made.execute("CREATE TABLE strange (a)")
        made.execute("UPDATE session_metadata SET last_activity = 'never' WHERE session_key = 'empty'")
    told = {(report.session or "").partition("/")[2]: report for report in take(store, path).files}
    strange = "what its tables strange hold was not read"
    assert told["lost"].notes == [
        "it has messages and no row in session_metadata, so the program does not list it",
        strange,
    ]
    assert told[""].notes == ["its message_count says 9, and it has 1 messages", strange]
    assert told["slack/thread:1/user"].notes == ["its state 'dreaming' is none that is known", strange]
    assert told["empty"].notes == ["its last_activity 'never' is no time", strange]
    assert [(item.line, item.reason) for item in told["gw_1"].unreadable] == [
        (50, "its content is no text"),
        (51, "its content is no text"),
    ]
    session = session_of(store, path, "gw_1")
    assert [event.type for event in session.events()][2:] == ["x.zeroclaw.unreadable"] * 2 + ["x.zeroclaw.others"]
    assert len(session.messages()) == 2
    assert [report.error for report in told.values()] == [None] * 9
    exported_database(store, tmp_path / "out.db")
    assert rows(tmp_path / "out.db", "sessions") == rows(path, "sessions")


def test_names_states_and_times_become_the_sessions_own(store: Store, tmp_path: Path) -> None:
    path = fill(tmp_path / "sessions.db")
    take(store, path)
    info = session_of(store, path, "gw_1").info()
    assert (info.name, info.title, info.state) == ("My Session", "How do I parse JSON in Rust?", "idle")
    assert (info.created_at, info.updated_at) == (1795227838813416, 1795227838813416)
    assert session_of(store, path, "slack_thread_1_user").info().updated_at == 1795227839000000  # whatever its offset
    assert session_of(store, path, "slack/thread:1/user").info().state == "unknown"
    (lease,) = store.running()
    assert (lease.turn, lease.standing, lease.since) == ("turn-9", "unleased", 1795227838813416)


def test_again_takes_only_what_is_new_and_follows_what_changed_there(store: Store, tmp_path: Path) -> None:
    path = fill(tmp_path / "sessions.db")
    take(store, path)
    before, revs = fingerprint(store), [info.rev for info in store.sessions(limit=100)]
    again = take(store, path)
    assert (again.events, [info.rev for info in store.sessions(limit=100)]) == (0, revs)
    assert fingerprint(store) == before
    mine = session_of(store, path, "")
    mine.update(name="Mine", title="T")
    with closing(connect(path)) as made:
        say(made, "gw_1", "user", "more", "2026-11-22T00:00:00+00:00")
        made.execute("UPDATE sessions SET content = 'changed' WHERE id = 1")
        made.execute("UPDATE session_metadata SET name = 'Theirs'")
        made.execute("UPDATE session_metadata SET state = 'idle', turn_id = NULL, turn_started_at = NULL")
    reports = {(report.session or "").partition("/")[2]: report for report in take(store, path).files}
    assert (reports["gw_1"].events, reports["gw_1"].known) == (2, 1)
    assert [text for _, text in texts(store, path, "gw_1")] == [
        "How do I parse JSON in Rust?",
        "Use serde_json.",
        "changed",
        "more",
    ]
    assert session_of(store, path, "gw_1").info().name == "Theirs"
    assert (mine.info().name, mine.info().title) == ("Mine", "T")  # what was said here stays
    ended = session_of(store, path, "slack_thread_1_user")
    assert ended.info().state == "idle"
    assert [event.type for event in ended.events()] == ["message", "state"]
    assert store.running() == []
    assert take(store, path).events == 0


def test_what_happened_here_goes_into_the_database(store: Store, tmp_path: Path) -> None:
    path = fill(tmp_path / "sessions.db")
    take(store, path)
    session = session_of(store, path, "gw_1")
    session.append(holdfast.user("new"))
    session.update(name="Renamed")
    session.set_state("running", turn="t-1")
    other = store.create("support-42")
    other.append(holdfast.user("of no zeroclaw"))
    exported_database(store, tmp_path / "out.db", [session.id, other.id])
    made = rows(tmp_path / "out.db", "sessions")
    assert [(row["id"], row["session_key"], row["content"]) for row in made] == [
        (1, b"gw_1", b"How do I parse JSON in Rust?"),
        (3, b"gw_1", b"Use serde_json."),
        (4, b"gw_1", b"new"),
        (5, b"support-42", b"of no zeroclaw"),
    ]
    told = {row["session_key"]: row for row in rows(tmp_path / "out.db", "session_metadata")}
    gw = told[b"gw_1"]
    assert (gw["name"], gw["state"], gw["turn_id"], gw["message_count"]) == (b"Renamed", b"running", b"t-1", 3)
    assert gw["created_at"].decode() == AT.format(1)
    assert told[b"support-42"]["state"] == b"idle"
    take(store, tmp_path / "out.db")
    assert texts(store, tmp_path / "out.db", "gw_1")[2] == ("user", "new")


def test_a_fork_is_a_session_of_its_own_there(store: Store, tmp_path: Path) -> None:
    path = fill(tmp_path / "sessions.db")
    take(store, path)
    parent = session_of(store, path, "gw_1")
    parent.fork(at=1, id="child").append(holdfast.user("otherwise"))
    exported_database(store, tmp_path / "out.db", [parent.id, "child"])
    made = rows(tmp_path / "out.db", "sessions")
    assert [(row["id"], row["session_key"], row["content"]) for row in made] == [
        (1, b"gw_1", b"How do I parse JSON in Rust?"),
        (3, b"gw_1", b"Use serde_json."),
        (4, b"child", b"How do I parse JSON in Rust?"),
        (5, b"child", b"otherwise"),
    ]
    assert [row["session_key"] for row in rows(tmp_path / "out.db", "session_metadata")] == [b"child", b"gw_1"]


def test_messages_of_any_size_come_back(store: Store, tmp_path: Path) -> None:
    words = "é" * 300_000
    folder = tmp_path / "sessions"
    with closing(connect(folder / "sessions.db")) as made:
        say(made, "k", "user", words, AT.format(1))
    (folder / "k.jsonl").write_bytes(line("user", words) + line("user", words + "x" * 40_000_000))
    reports = take(store, folder).files
    assert [report.error for report in reports] == [None, None]
    exported_database(store, tmp_path / "out.db", [reports[1].session or ""])
    assert rows(tmp_path / "out.db", "sessions") == rows(folder / "sessions.db", "sessions")
    (data,) = exported(store, [reports[0].session or ""], folder).values()
    assert data == (folder / "k.jsonl").read_bytes()


def test_imports_of_one_database_at_the_same_time_store_it_once(tmp_path: Path) -> None:
    path = fill(tmp_path / "sessions.db")
    with holdfast.open(f"sqlite://{tmp_path}/store.db") as store, holdfast.open("memory://") as straight:
        threads = [threading.Thread(target=take, args=(store, path)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        take(straight, path)
        assert fingerprint(store) == fingerprint(straight)
        assert take(store, path).events == 0


def test_two_sessions_of_one_key_are_not_written_into_one_database(store: Store, tmp_path: Path) -> None:
    for name in ("a", "b"):
        take(store, fill(tmp_path / name / "sessions.db"))
    with pytest.raises(holdfast.Conflict, match="both have the key"):
        exported_database(store, tmp_path / "out.db")
    assert not (tmp_path / "out.db").exists()


def test_a_session_that_was_deleted_here_does_not_come_back(store: Store, tmp_path: Path) -> None:
    path = fill(tmp_path / "sessions.db")
    take(store, path)
    store.delete(session_of(store, path, "gw_1").id)
    skipped = [report.session for report in take(store, path).files if report.skipped]
    assert skipped == [f"zeroclaw:{place_of(str(path))}/gw_1"]


def test_databases_belong_to_the_user_who_imports(store: Store, tmp_path: Path) -> None:
    path = fill(tmp_path / "sessions.db")
    import_files(store, find_sources([path]), user="ada")
    assert {info.user for info in store.sessions(limit=100)} == {"ada"}
    failed = import_files(store, find_sources([path]), user="bob").failed
    assert len(failed) == 7
    assert "another user" in str(failed[0].error)


# A database that is in use


WRITER = """
import sqlite3, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from zeroclaw_files import connect, say
connection = connect(Path(sys.argv[1]))
print("open", flush=True)
for number, _ in enumerate(sys.stdin):
    say(connection, "live", "user", str(number), "2026-11-21T02:23:58+00:00")
    print(number, flush=True)
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A program that has the database open, and says a line for each that it is given."""
    fill(tmp_path / "sessions.db")
    tests = str(Path(__file__).parent)
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "sessions.db"), tests],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == "open\n"
    yield child
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()


def write_line(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("\n")
    child.stdin.flush()
    assert child.stdout.readline()


def test_a_database_in_use_is_read_whole_and_left_as_it_is(
    store: Store, tmp_path: Path, writer: subprocess.Popen[str]
) -> None:
    path = tmp_path / "sessions.db"
    for number in range(3):
        write_line(writer)
        files = {p: d[:2] for p, d in digest(tmp_path).items() if os.path.basename(p).startswith("sessions.db")}
        assert set(map(os.path.basename, files)) == {"sessions.db", "sessions.db-wal", "sessions.db-shm"}
        assert take(store, path).failed == []
        after = {p: d[:2] for p, d in digest(tmp_path).items() if os.path.basename(p).startswith("sessions.db")}
        shm = str(path) + "-shm"  # holds the locks of readers; nothing else of it is the database's
        assert {p: d for p, d in after.items() if p != shm} == {p: d for p, d in files.items() if p != shm}
        assert [text for _, text in texts(store, path, "live")] == [str(n) for n in range(number + 1)]
    write_line(writer)


def test_a_program_at_work_is_not_held_up_and_each_import_is_of_one_moment(
    tmp_path: Path, writer: subprocess.Popen[str]
) -> None:
    path, stop = tmp_path / "sessions.db", threading.Event()

    def work() -> None:
        while not stop.is_set():
            write_line(writer)  # fails if the program ended with an error, such as a database that is locked

    with holdfast.open("memory://") as store:
        write_line(writer)
        working = threading.Thread(target=work)
        working.start()
        try:
            for _ in range(5):
                assert take(store, path).failed == []
                found = [text for _, text in texts(store, path, "live")]
                assert found == [str(number) for number in range(len(found))]
        finally:
            stop.set()
            working.join()
        write_line(writer)
        take(store, path)
        assert len(texts(store, path, "live")) > len(found)


def test_a_database_whose_program_was_killed_is_read_whole(
    store: Store, tmp_path: Path, writer: subprocess.Popen[str]
) -> None:
    write_line(writer)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    path = tmp_path / "sessions.db"
    before = digest(tmp_path)
    assert (tmp_path / "sessions.db-wal").stat().st_size > 0
    with holdfast.open("memory://") as first:
        take(first, path)
        assert texts(first, path, "live") == [("user", "0")]
    assert {p: d[:2] for p, d in digest(tmp_path).items() if p in before} == {p: d[:2] for p, d in before.items()}
    (tmp_path / "sessions.db-shm").unlink()  # as in a copy
    take(store, path)
    assert texts(store, path, "live") == [("user", "0")]
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("sessions.db")) == [
        "sessions.db",
        "sessions.db-wal",
    ]


def test_a_closed_database_gets_no_files_beside_it(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    path = fill(folder / "sessions.db")
    before = digest(folder)
    path.chmod(0o444)
    folder.chmod(0o555)
    try:
        assert take(store, folder).failed == []
    finally:
        folder.chmod(0o755)
        path.chmod(stat.S_IMODE(before[str(path)][2]))
    assert digest(folder) == before


KILLED = """
import os, signal, sys, holdfast
from holdfast import importer
from holdfast.importing import wholes
wholes.BATCH_EVENTS = 50
commits = 0
with holdfast.open(sys.argv[1]) as store:
    commit = store.batcher.commit
    def counted(*given):
        global commits
        commits += 1
        if commits > int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        return commit(*given)
    store.batcher.commit = counted
    importer.import_files(store, importer.find_sources([sys.argv[2]]))
"""


@pytest.mark.parametrize("scheme", ["file", "sqlite"])
@pytest.mark.parametrize("after", [1, 3, 6])
def test_an_import_that_was_killed_goes_on_where_it_was(tmp_path: Path, scheme: str, after: int) -> None:
    path = tmp_path / "sessions.db"
    with closing(connect(path)) as made:
        made.execute("BEGIN")
        for number in range(200):
            say(made, "long", "user", f"Line {number}", AT.format(number % 10))
            say(made, f"k{number % 4}", "user", f"Line {number}", AT.format(number % 10))
        made.execute("COMMIT")
    url = f"{scheme}://{tmp_path}/store" + (".db" if scheme == "sqlite" else "")
    child = subprocess.run([sys.executable, "-c", KILLED, url, str(path), str(after)], check=False, timeout=60)
    assert child.returncode == -signal.SIGKILL
    with holdfast.open(url) as store, holdfast.open("memory://") as straight:
        report = take(store, path)
        assert report.failed == []
        assert sum(file.known for file in report.files) > 0
        assert report.events > 0
        take(straight, path)
        assert fingerprint(store) == fingerprint(straight)
        assert take(store, path).events == 0
        assert store.check().ok


def failed(store: Store, path: Path) -> FileReport:
    (report,) = take(store, path).files
    assert report.error is not None
    return report


def test_what_is_no_database_of_zeroclaws_is_told(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    path.write_bytes(b"no database at all, though it is long enough to be one" * 50)
    assert "can't be read" in str(failed(store, path).error)
    path.unlink()
    for table, word in {"acp_sessions": "ACP", "other": "no table of messages"}.items():
        with closing(sqlite3.connect(tmp_path / f"{table}.db")) as made:
            made.execute(f"CREATE TABLE {table} (id)")
        assert word in str(failed(store, tmp_path / f"{table}.db").error)
    assert "No such file" in str(failed(store, tmp_path / "missing.db").error)


@pytest.mark.parametrize("scheme", ["file", "sqlite"])
def test_a_store_does_not_open_its_own_files_as_a_source(tmp_path: Path, scheme: str) -> None:
    url = f"{scheme}://{tmp_path}/store" + (".db" if scheme == "sqlite" else "")
    own = tmp_path / ("store.db" if scheme == "sqlite" else "store/index.db")
    with holdfast.open(url) as store:
        assert "belongs to the store" in str(failed(store, own).error)
        fill(tmp_path / "store" / "sessions.db") if scheme == "sqlite" else None
        assert take(store, tmp_path / "missing.jsonl").failed


def test_a_damaged_page_hides_only_what_is_on_it(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with closing(connect(path)) as made:
        for number in range(40):
            say(made, f"k{number}", "user", f"{number} " + "x" * 3000, AT.format(number % 10))
        made.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(path.read_bytes())
    at = data.index(b"20 xxx") // 4096 * 4096
    data[at : at + 8] = b"\xff" * 8
    path.write_bytes(data)
    reports = take(store, path).files
    bad = [report for report in reports if report.error]
    assert 0 < len(bad) < 10
    assert sum(report.error is None for report in reports) >= 30
    assert "can't be read" in str(bad[0].error)


# The state file of its shell


def test_a_state_file_is_one_session_and_may_grow(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    history = [{"role": "system", "content": "s"}, {"role": "user", "content": "é", "more": 1}, ["user", "é"], {"x": 1}]
    path.write_text(json.dumps({"version": 1, "history": history, "extra": [1]}, indent=2, ensure_ascii=False))
    report = take_one(store, path)
    assert (report.events, report.unreadable_lines, report.notes) == (4, 1, [])
    assert texts(store, path, "state") == [("system", "s"), ("user", "é"), ("user", "é")]
    info = session_of(store, path, "state").info()
    assert info.created_at == path.stat().st_mtime_ns // 1000
    assert info.metadata["zeroclaw_document"] == {"version": 1, "extra": [1]}
    assert take_one(store, path).known == 4
    history.append({"role": "assistant", "content": "a"})
    path.write_text(json.dumps({"version": 1, "history": history}))
    report = take_one(store, path)
    assert (report.events, report.known) == (1, 4)
    sources = [e.payload.source for e in session_of(store, path, "state").events() if isinstance(e.payload, Message)]
    assert str(sources[1].raw) == '{"role":"user","content":"é","more":1}'  # type: ignore[union-attr]


@pytest.mark.parametrize("end", [b"{}}", b"[],}", b"[", b'[],"history":[]}'])
def test_a_state_file_that_the_program_refuses_is_told(store: Store, tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(b'{"version":1,"history":' + end)
    failed(store, path)
    assert all_ids(store) == []


# The command


def test_the_command_imports_and_exports(tmp_path: Path, sessions: Path) -> None:
    shell = Shell(tmp_path)
    database = fill(tmp_path / "other" / "sessions.db")
    done = shell("import", str(sessions), str(database))
    assert done.code == 0, done.err
    assert "its state 'dreaming' is none that is known" in done.err
    assert "0 new events from 0 of 6 files, 0 failed" in shell("import", str(sessions), str(database)).err
    found = shell("--json", "session", "list", "-n", "100").json["items"]
    ids = [item["id"] for item in found]
    files = [id for id in ids if place_of(str(sessions)) in id]
    out = tmp_path / "out"
    assert shell("export", "-f", "zeroclaw", "-o", str(out), *files).code == 0
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {p.name: p.read_bytes() for p in sessions.iterdir()}
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert shell("export", "-f", "zeroclaw", "-o", str(out), *files).code == 4
    told = shell(
        "--json", "export", "-f", "zeroclaw-sqlite", "-o", str(tmp_path / "out.db"), *set(ids) - set(files)
    ).json
    assert (told["sessions"], told["unsaid"]) == (7, 0)
    assert rows(tmp_path / "out.db", "sessions") == rows(database, "sessions")
    assert shell("export", "-f", "zeroclaw", *files).code == 2
    (tmp_path / "broken.db").write_bytes(b"no database")
    assert shell("import", str(tmp_path / "broken.db"), str(database)).code == 8
    both = shell("export", "-f", "zeroclaw", "-o", str(tmp_path / "all"), "--all")
    assert both.code == 4
    assert "would share the file" in both.err


def test_the_command_finds_the_usual_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "CLAUDE_CONFIG_DIR", "CODEX_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("ZEROCLAW_WORKSPACE", raising=False)
    fill(tmp_path / ".zeroclaw" / "workspace" / "sessions" / "sessions.db")
    fill(tmp_path / ".zeroclaw" / "data" / "sessions" / "sessions.db", "head")
    fill(tmp_path / "w" / "sessions" / "sessions.db")
    assert [source.whole for source in find_sources()] == ["zeroclaw database"] * 2
    monkeypatch.setenv("ZEROCLAW_WORKSPACE", str(tmp_path / "w"))
    assert [source.path for source in find_sources()] == [str(tmp_path / "w" / "sessions" / "sessions.db")]
