"""oxios's folders in and out: nothing is lost, what it refuses is told, and what it wrote comes back as it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

import holdfast
from holdfast.adapters.oxios import BlockingStateStore
from holdfast.errors import Conflict
from holdfast.formats import rustjson
from holdfast.formats.oxios import NotRust, micros_of, session_of
from holdfast.formats.oxios_out import document_of, documents, file_names, session_bytes
from holdfast.formats.written import Written
from holdfast.formats.zeroclaw import place_of
from holdfast.importer import FileReport, import_files
from holdfast.importing.sources import find_sources
from holdfast.model import assistant, step, user
from holdfast.store import Store
from oxios_files import AT, VERSIONS, contents, document, fill, written
from shell import Shell
from test_import import fingerprint
from transcripts import take


def exported(store: Store) -> dict[str, bytes]:
    """The folder that a store's sessions and documents make."""
    ids = [info.id for info in store.sessions(limit=1000)]
    missing: list[str] = []
    files = {name: session_bytes(store, id, Written()) for id, name in file_names(store, ids).items()}
    files |= dict(documents(store, missing))
    assert missing == []
    return files


def session_at(store: Store, base: Path, key: str) -> holdfast.Session:
    session = store.get(f"oxios:{place_of(str(base))}/{key}")
    assert session is not None
    return session


def by_name(store: Store, base: Path) -> dict[str, FileReport]:
    return {os.path.basename(report.path): report for report in take(store, base).files}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_folder_comes_back_as_it_was(store: Store, tmp_path: Path, version: str) -> None:
    base = fill(tmp_path / "state", version)
    report = take(store, base)
    assert [file.error for file in report.failed] == []
    assert exported(store) == contents(base)
    assert store.check().ok


def test_records_are_woven_into_one_log(store: Store, tmp_path: Path) -> None:
    base = fill(tmp_path / "state")
    take(store, base)
    session = session_at(store, base, "s-1")
    assert [event.type for event in session.events()] == ["message", "step", "message", "message"]
    assert [message.role for message in session.messages()] == ["user", "assistant", "user"]
    (made,) = session.events(types="step")
    payload = made.payload
    assert isinstance(payload, holdfast.Step)
    assert (payload.name, payload.output, payload.duration) == ("bash", "a\nb", 12_000)
    assert payload.arguments["z"] == 2**64 - 1
    info = session.info()
    assert (info.agent, info.user, info.state, info.title, info.project) == (
        "oxios",
        "alice",
        "idle",
        "My title",
        "p-1",
    )
    assert info.updated_at == micros_of(AT.format("6.5"))
    assert info.created_at == micros_of(AT.format("3.123"))


def test_what_the_program_refuses_is_told_and_kept_apart(store: Store, tmp_path: Path) -> None:
    base = fill(tmp_path / "state")
    reports = by_name(store, base)
    told = {name: report.unreadable[0].reason for name, report in reports.items() if report.unreadable}
    assert set(told) == {"corrupt.json", "binary.json", "latin.md"}
    assert told["corrupt.json"].startswith("no JSON")
    assert all(reports[name].notes and reports[name].session is None for name in told)
    place = place_of(str(base))
    kept = store.documents.get(f"oxios-unreadable/{place}/sessions/corrupt.json.md")
    assert kept is not None
    assert kept.source == b"not valid json {{{"
    assert not any("tmp" in name for name in reports)


def test_an_id_inside_that_is_another_is_told_and_its_file_is_what_counts(store: Store, tmp_path: Path) -> None:
    base = fill(tmp_path / "state")
    notes = by_name(store, base)["a..b.json"].notes
    assert notes == ["its file is that of 'a..b', and it says that it is 'someone-else'"]
    state = BlockingStateStore(store, place_of(str(base)))
    assert "a..b" in [summary.id for summary in state.list_sessions()]
    assert state.delete_session("a..b")
    assert "a..b" not in [summary.id for summary in state.list_sessions()]
    assert not state.delete_session("someone-else")


def test_steps_that_are_not_there_are_told(store: Store, tmp_path: Path) -> None:
    base = fill(tmp_path / "state")
    odd = document()
    odd["agent_responses"][0]["trajectory_range"] = {"start": 5, "end": 2}
    (base / "sessions" / "s-1.json").write_bytes(written(odd))
    assert by_name(store, base)["s-1.json"].notes == ["response 1 names the steps 5 to 2, of 1"]
    state = BlockingStateStore(store, place_of(str(base)))
    loaded = state.load_session("s-1")
    assert loaded is not None
    assert exported(store) == contents(base)


def test_a_second_import_changes_nothing_and_a_longer_file_adds_to_it(store: Store, tmp_path: Path) -> None:
    base = fill(tmp_path / "state")
    take(store, base)
    before = fingerprint(store)
    report = take(store, base)
    assert report.events == 0
    assert fingerprint(store) == before

    longer = document()
    longer["user_messages"].append({"content": "more", "timestamp": AT.format("9")})
    longer["updated_at"] = AT.format("9")
    longer["metadata"]["title"] = "Another"
    (base / "sessions" / "s-1.json").write_bytes(written(longer))
    (base / "notes" / "n.md").write_bytes(b"changed")
    assert take(store, base).events == 2  # the message, and the document
    assert session_at(store, base, "s-1").info().title == "Another"
    assert exported(store) == contents(base)

    longer["user_messages"][0]["content"] = "edited in place"
    (base / "sessions" / "s-1.json").write_bytes(written(longer))
    assert take(store, base).events == 1
    assert exported(store) == contents(base)
    del longer["user_messages"][1:]
    (base / "sessions" / "s-1.json").write_bytes(written(longer))
    take(store, base)
    assert exported(store) == contents(base)


def test_what_was_changed_or_deleted_here_stays(store: Store, tmp_path: Path) -> None:
    base = fill(tmp_path / "state")
    take(store, base)
    place = place_of(str(base))
    store.documents.write(f"oxios/{place}/notes/n.md", b"mine")
    store.documents.delete(f"oxios/{place}/notes/n.json")
    session_at(store, base, "dots.in.id").delete()
    (base / "notes" / "n.md").write_bytes(b"theirs")
    reports = by_name(store, base)
    assert reports["n.md"].skipped == "its document was changed here"
    assert reports["n.json"].skipped == "its document was deleted here"
    assert reports["dots.in.id.json"].skipped == "its session was deleted here"
    kept = store.documents.get(f"oxios/{place}/notes/n.md")
    assert kept is not None
    assert kept.source == b"mine"


def test_what_was_said_here_follows_in_the_file(store: Store, tmp_path: Path) -> None:
    base = fill(tmp_path / "state")
    take(store, base)
    session = session_at(store, base, "s-1")
    at = 1_800_000_000_000_000
    session.append(
        holdfast.Event(payload=user("thanks"), at=at),
        holdfast.Event(payload=step("ls", {"a": 1}, "x", call_id="c", duration=3000), at=at + 1000),
        holdfast.Event(payload=assistant("welcome"), at=at + 1_000_001),
        holdfast.Event(payload=holdfast.note("no place"), at=at),
    )
    session.update(labels=["starred"])
    was, now = document(), session_of(exported(store)["sessions/s-1.json"])
    assert list(now) == list(was)
    assert now["user_messages"] == [*was["user_messages"], {"content": "thanks", "timestamp": "2027-01-15T08:00:00Z"}]
    assert now["trajectory_steps"][1:] == [
        {
            "tool_name": "ls",
            "tool_args": {"a": 1},
            "output_summary": "x",
            "duration_ms": 3,
            "is_error": False,
            "tool_call_id": "c",
            "timestamp": "2027-01-15T08:00:00.001Z",
        }
    ]
    assert list(now["agent_responses"][1].items()) == [
        ("content", "welcome"),
        ("session_id", None),
        ("seed_id", None),
        ("phase_reached", None),
        ("evaluation_passed", None),
        ("timestamp", "2027-01-15T08:00:01.000001Z"),
        ("trajectory_range", {"start": 1, "end": 2}),
    ]
    assert now["updated_at"] == "2027-01-15T08:00:01.000001Z"
    assert document_of(session).left_out == 1


def test_a_star_or_a_turn_is_no_change_of_the_file(store: Store, tmp_path: Path) -> None:
    base = fill(tmp_path / "state")
    take(store, base)
    session = session_at(store, base, "s-1")
    session.update(labels=["starred"], metadata={"mine": 1})
    with session.turn():
        pass
    assert exported(store) == contents(base)


def test_a_session_of_another_program_gets_the_fields_of_1_3_0(store: Store) -> None:
    made = store.create("chat/1", name="a name", user="bob")
    made.append(holdfast.Event(payload=user("hi"), at=1_800_000_000_000_000))
    (name,) = file_names(store, ["chat/1"]).values()
    now = session_of(session_bytes(store, "chat/1", Written()))
    assert name == f"sessions/{now['id']}.json"
    assert "/" not in now["id"]
    assert list(now) == [
        "id",
        "user_id",
        "user_messages",
        "agent_responses",
        "created_at",
        "updated_at",
        "metadata",
    ]
    assert (now["user_id"], now["metadata"]) == ("bob", {"title": "a name"})
    assert now["agent_responses"] == []


def test_a_fork_is_a_session_of_its_own(store: Store, tmp_path: Path) -> None:
    base = fill(tmp_path / "state")
    take(store, base)
    fork = session_at(store, base, "s-1").fork(1)
    now = session_of(session_bytes(store, fork.id, Written()))
    assert now["id"] == fork.id
    assert len(now["user_messages"]) == 1
    assert now["agent_responses"] == []


def test_two_places_do_not_share_a_file(store: Store, tmp_path: Path) -> None:
    for name in ("one", "two"):
        take(store, fill(tmp_path / name))
    with pytest.raises(Conflict, match="share the file"):
        exported(store)


def test_a_document_that_can_be_no_file_is_left_out_and_named(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    base = fill(tmp_path / "state")
    with holdfast.open(shell.url) as store:
        take(store, base)
        store.documents.put("../out.md", "leads elsewhere")
        (base / "sessions" / "s-1.json").write_bytes(b"torn after it was imported")
        (report,) = (report for report in take(store, base).files if report.path.endswith("s-1.json"))
        assert report.unreadable_lines == 1
    done = shell("export", "-f", "oxios", "--all", "-o", str(tmp_path / "to" / "here"))
    assert done.code != 0
    assert "../out.md" in done.err
    assert "sessions/s-1.json.md" in done.err
    assert not (tmp_path / "to" / "out.md").exists()
    assert (tmp_path / "to" / "here" / "sessions" / "s-1.json").read_bytes() == written(document())


# What it accepts we accept, what it refuses we report

REQUIRED = {"id": "x", "user_id": "u", "created_at": AT.format(0), "updated_at": AT.format(0)}
MESSAGE = {"content": "c", "timestamp": AT.format(0)}
STEP = document()["trajectory_steps"][0]


def without(record: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != name}


ACCEPTED: list[Any] = [
    REQUIRED,
    {**REQUIRED, "unknown": {"a": 1}, "metadata": {"k": [None, 1e300]}},
    {**REQUIRED, "active_seed_id": None, "active_persona_id": None},
    {**REQUIRED, "user_messages": [{**MESSAGE, "extra": 1}], "trajectory_steps": []},
    {**REQUIRED, "agent_responses": [MESSAGE, {**MESSAGE, "session_id": None, "evaluation_passed": False}]},
    {**REQUIRED, "agent_responses": [{**MESSAGE, "trajectory_range": {"start": 9, "end": 2}}]},
    {**REQUIRED, "agent_responses": [{**MESSAGE, "trajectory_range": None}]},
    {**REQUIRED, "trajectory_steps": [{**STEP, "tool_args": None, "duration_ms": 2**64 - 1}]},
    {**REQUIRED, "user_messages": [["as an array", AT.format(0)]]},
    {**REQUIRED, "id": "", "user_id": ""},
    *(
        {**REQUIRED, "created_at": text}
        for text in (
            "2026-06-14T01:02:03+02:00",
            "2026-06-14 01:02:03Z",
            "2026-06-14T01:02:03+0000",
            "2026-06-14T01:02:60Z",
            "2026-06-14T01:02:03.1234567891234Z",
            "+10000-01-01T00:00:00Z",
            "-0044-03-15T00:00:00Z",
            "0000-01-01T00:00:00Z",
            " 2026-6-14 1:2:3 UTC",
        )
    ),
]
REFUSED: list[Any] = [
    *(without(REQUIRED, name) for name in REQUIRED),
    *({**REQUIRED, name: None} for name in (*REQUIRED, "user_messages", "agent_responses", "metadata")),
    {**REQUIRED, "trajectory_steps": None},
    {**REQUIRED, "id": 1},
    {**REQUIRED, "metadata": []},
    {**REQUIRED, "active_seed_id": 1},
    {**REQUIRED, "user_messages": [without(MESSAGE, "timestamp")]},
    {**REQUIRED, "user_messages": [without(MESSAGE, "content")]},
    {**REQUIRED, "user_messages": [["too", AT.format(0), "long"]]},
    {**REQUIRED, "user_messages": [["short"]]},
    {**REQUIRED, "user_messages": {"0": MESSAGE}},
    {**REQUIRED, "agent_responses": [{**MESSAGE, "evaluation_passed": 1}]},
    {**REQUIRED, "agent_responses": [{**MESSAGE, "trajectory_range": {"start": 0}}]},
    {**REQUIRED, "agent_responses": [{**MESSAGE, "trajectory_range": {"start": -1, "end": 0}}]},
    *({**REQUIRED, "trajectory_steps": [without(STEP, name)]} for name in STEP),
    *({**REQUIRED, "trajectory_steps": [{**STEP, "duration_ms": n}]} for n in (-1, 1.0, True, 2**64, "1")),
    *(
        {**REQUIRED, "updated_at": value}
        for value in ("2026-06-14T01:02:03", "2026-06-14", 1_700_000_000, "2026-13-14T01:02:03Z", "", "20000000-01-01Z")
    ),
    [],
    "text",
    None,
]
REFUSED_TEXTS = [
    b"",
    b"not json",
    b"\xef\xbb\xbf" + written(REQUIRED),
    written(REQUIRED)[:-2] + b",\n}",
    written(REQUIRED)[:-1] + b',"id":"x"}',
    written(REQUIRED)[:-1] + b',"user_messages":[{"content":"a","content":"b","timestamp":"2026-06-14T01:02:03Z"}]}',
    written(REQUIRED)[:-1] + b',"x":"\\ud800"}',
    written(REQUIRED)[:-1] + b',"metadata":' + b'{"a":' * 127 + b"1" + b"}" * 127 + b"}",
    written(REQUIRED)[:-1] + b',"x":1e400}',
    written(REQUIRED) + b"x",
]


@pytest.mark.parametrize("value", ACCEPTED, ids=str)
def test_what_the_program_accepts_is_accepted(value: Any, tmp_path: Path) -> None:
    base = tmp_path / "state"
    (base / "sessions").mkdir(parents=True)
    (base / "sessions" / "x.json").write_bytes(rustjson.pretty(value).encode())
    with holdfast.open("memory://") as store:
        (report,) = take(store, base).files
        assert (report.error, report.session) == (None, f"oxios:{place_of(str(base))}/x")
        assert exported(store) == contents(base)
        loaded = BlockingStateStore(store, place_of(str(base))).load_session("x")
        assert loaded is not None
        assert loaded.id == "x"


@pytest.mark.parametrize("value", [*REFUSED, *REFUSED_TEXTS], ids=str)
def test_what_the_program_refuses_is_refused(value: Any, tmp_path: Path) -> None:
    data = value if isinstance(value, bytes) else written(value)
    with pytest.raises(NotRust):
        session_of(data)
    base = tmp_path / "state"
    (base / "sessions").mkdir(parents=True)
    (base / "sessions" / "a.json").write_bytes(written(REQUIRED))
    (base / "sessions" / "x.json").write_bytes(data)
    with holdfast.open("memory://") as store:
        reports = by_name(store, base)
        assert reports["x.json"].unreadable_lines == 1
        assert exported(store) == contents(base)


def test_a_session_as_an_array_of_its_fields_is_accepted(store: Store, tmp_path: Path) -> None:
    base = tmp_path / "state"
    (base / "sessions").mkdir(parents=True)
    (base / "sessions" / "x.json").write_bytes(written(REQUIRED))
    values = ["a", "alice", [["hi", AT.format(0)]], [["yes", None, None, None, True, AT.format(1), [0, 1]]]]
    values += [[["bash", {}, "", 1, False, "c", AT.format(1)]], None, "persona", AT.format(0), AT.format(1), {"k": 1}]
    (base / "sessions" / "a.json").write_bytes(written(values))
    (base / "sessions" / "b.json").write_bytes(written(values[:-1]))
    (base / "sessions" / "c.json").write_bytes(written(values[:-2]))
    reports = by_name(store, base)
    assert {name: reports[f"{name}.json"].unreadable_lines for name in "abcx"} == {"a": 0, "b": 0, "c": 1, "x": 0}
    assert exported(store) == contents(base)
    loaded = BlockingStateStore(store, place_of(str(base))).load_session("a")
    assert loaded is not None
    assert (loaded.user_id, loaded.active_persona_id, loaded.metadata) == ("alice", "persona", {"k": 1})
    assert [message.content for message in (*loaded.user_messages, *loaded.agent_responses)] == ["hi", "yes"]


@pytest.mark.parametrize("data", [b'{"a":"\\ud800"}', b"[" * 128 + b"]" * 128, b"9" * 400, b"1e999", b"{"], ids=len)
def test_json_that_the_program_refuses_is_kept_apart(store: Store, tmp_path: Path, data: bytes) -> None:
    base = tmp_path / "state"
    for folder in ("sessions", "notes"):
        (base / folder).mkdir(parents=True)
    (base / "sessions" / "a.json").write_bytes(written(REQUIRED))
    (base / "notes" / "x.json").write_bytes(data)
    (base / "notes" / "y.json").write_bytes(b"[" * 127 + b"]" * 127)
    reports = by_name(store, base)
    assert (reports["x.json"].unreadable_lines, reports["y.json"].unreadable_lines) == (1, 0)
    assert exported(store) == contents(base)


def test_what_may_stand_twice_is_accepted() -> None:
    data = written(REQUIRED)[:-1] + b',"unknown":1,"unknown":2,"metadata":{"a":1,"a":2}}'
    assert session_of(data)["metadata"] == {"a": 2}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abé🦀", max_size=3), inner, max_size=3),
    max_leaves=8,
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TIMES = st.builds(AT.format, st.integers(0, 9) | st.from_regex(r"\A[0-9]\.[0-9]{1,9}\Z"))


@given(
    st.lists(st.tuples(TEXT, TIMES), max_size=4),
    st.lists(st.tuples(TEXT, TIMES, st.none() | TEXT), max_size=4),
    st.lists(st.tuples(TEXT, JSON, TEXT, st.integers(0, 2**64 - 1), TIMES), max_size=3),
    st.dictionaries(TEXT, JSON, max_size=3),
    st.dictionaries(st.text("xyz", min_size=3), JSON, max_size=2),
)
def test_any_document_comes_back_to_the_byte(
    users: Any, agents: Any, steps: Any, metadata: dict[str, Any], more: dict[str, Any]
) -> None:
    value = {
        "id": "s",
        "user_id": "u",
        "user_messages": [{"content": text, "timestamp": at} for text, at in users],
        "agent_responses": [
            {"content": text, "session_id": None, "seed_id": seed, "phase_reached": None, "evaluation_passed": None,
             "timestamp": at} for text, at, seed in agents
        ],
        **({"trajectory_steps": [
            {"tool_name": name, "tool_args": args, "output_summary": out, "duration_ms": ms, "is_error": False,
             "tool_call_id": "", "timestamp": at} for name, args, out, ms, at in steps
        ]} if steps else {}),
        **more,
        "created_at": AT.format(0),
        "updated_at": AT.format(1),
        "metadata": metadata,
    }  # fmt: skip
    data = rustjson.pretty(value).encode()
    with holdfast.open("memory://") as store:
        with tempfile.TemporaryDirectory() as folder:
            base = Path(folder)
            (base / "sessions").mkdir()
            (base / "sessions" / "s.json").write_bytes(data)
            assert take(store, base).failed == []
        assert exported(store) == {"sessions/s.json": data}
        (info,) = store.sessions()
        assert not any(event.type.startswith("x.") for event in holdfast.Session(store, store.head(info.id)).events())


# The command, places, and interruptions


def test_the_usual_places_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = fill(tmp_path / ".oxios" / "workspace")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [source.path for source in find_sources() if source.program == "oxios"] == [str(base)]


def test_a_name_that_is_no_utf8_and_a_folder_like_a_file_are_no_obstacle(store: Store, tmp_path: Path) -> None:
    base = fill(tmp_path / "state")
    (base / "notes" / "folder.json").mkdir()
    (base / "notes" / "N.JSON").write_bytes(b"{}")
    odd = os.path.join(os.fsencode(base), b"sessions", b"caf\xe9.json")
    with open(odd, "wb") as file:
        file.write(written(document(id="odd")))
    with open(os.path.join(os.fsencode(base), b"notes", b"caf\xe9.md"), "wb") as file:
        file.write(b"note")
    assert [report.error for report in take(store, base).failed] == []
    files = exported(store)
    assert files[os.fsdecode(b"notes/caf\xe9.md")] == b"note"
    (name,) = (name for name in files if name.startswith("sessions/~"))
    assert files[name] == written(document(id="odd"))
    assert not {"notes/folder.json", "notes/N.JSON"} & set(files)


def test_a_folder_of_sessions_and_one_file_are_recognised(store: Store, tmp_path: Path) -> None:
    base = fill(tmp_path / "state")
    one = take(store, base / "sessions" / "s-1.json")
    assert [report.session for report in one.files] == [f"oxios:{place_of(str(base))}/s-1"]
    sessions = take(store, base / "sessions")
    assert {report.session for report in sessions.files if report.session} == {
        f"oxios:{place_of(str(base))}/{name}" for name in ("s-1", "dots.in.id", "a..b", "by-hand")
    }
    assert [source.whole for source in find_sources([base, base.parent / "nothing"])][:1] == ["oxios folder"]
    (tmp_path / "outer").mkdir()
    base.rename(tmp_path / "outer" / "state")
    assert [source.whole for source in find_sources([tmp_path / "outer"])] == ["oxios folder"]


def test_the_command_imports_and_exports(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    base = fill(tmp_path / "state")
    told = shell("import", str(base))
    assert told.code == 0
    assert "oxios could not read it, and it is kept: no JSON" in told.out + told.err
    out = tmp_path / "out"
    shell("export", "-f", "oxios", "--all", "-o", str(out))
    assert contents(out) == contents(base)
    assert {path.stat().st_mode & 0o777 for path in out.rglob("*.json")} == {0o600}
    again = shell("export", "-f", "oxios", "--all", "-o", str(out))
    assert again.code != 0
    assert contents(out) == contents(base)


def test_an_import_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    base = tmp_path / "state"
    (base / "sessions").mkdir(parents=True)
    (base / "notes").mkdir()
    for number in range(60):
        (base / "sessions" / f"s-{number}.json").write_bytes(written(document("1.3.0", f"s-{number}")))
        (base / "notes" / f"n-{number}.md").write_bytes(b"note")
    url = f"sqlite://{tmp_path}/s.db"
    code = (
        "import holdfast, sys\nfrom holdfast.importer import import_files\n"
        "from holdfast.importing.sources import find_sources\n"
        "store = holdfast.open(sys.argv[1])\nlimit = int(sys.argv[3])\ncount = 0\n"
        "commit = store.batcher.commit\n"
        "def counted(one):\n"
        "    global count\n    count += 1\n    done = commit(one)\n"
        "    if count == limit:\n        import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n    return done\n"
        "store.batcher.commit = counted\nimport_files(store, find_sources([sys.argv[2]]))\n"
    )
    for limit in (7, 30, 50):
        done = subprocess.run([sys.executable, "-c", code, url, str(base), str(limit)], check=False)  # our own code
        assert done.returncode == -signal.SIGKILL
    with holdfast.open(url) as store:
        report = import_files(store, find_sources([base]))
        assert report.failed == []
        assert exported(store) == contents(base)
        assert store.check().ok
        assert import_files(store, find_sources([base])).events == 0


def test_files_for_one_user_are_hers(tmp_path: Path) -> None:
    base = fill(tmp_path / "state")
    with holdfast.open("memory://") as store:
        import_files(store, find_sources([base]), user="carol")
        hers = store.for_user("carol")
        assert {info.user for info in store.sessions(limit=100)} == {"carol"}
        assert exported(hers) == contents(base)
        assert json.loads(exported(hers)["sessions/s-1.json"])["user_id"] == "alice"
