"""A store in a folder of logs: what stands in them, and what becomes of lines that are torn, damaged or misplaced."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

import holdfast
from faults.work import text_of
from holdfast import Damaged, Store, note, user
from holdfast.backend import Backend
from holdfast.backends import disk, logfile, open_backend
from holdfast.backends.engine import Connection
from holdfast.backends.filelogs import LogBodies
from holdfast.backends.jsonl import Line, LoggedEntry, file_name, log_name, logged, opened, seal
from holdfast.backends.logfile import Log
from holdfast.backends.sqlitefile import SQLiteFile
from holdfast.errors import Corrupt, Invalid, Unavailable, Uncertain
from holdfast.plan import Commit, Entry, Head, Range, Ref

REF = Ref("session", "a")


def backend_at(place: Path, durability: str = "disk") -> Backend:
    return open_backend(f"file://{place}/store?durability={durability}", lambda body: body.decode(errors="replace"))


def url_at(place: Path) -> str:
    return f"file://{place}/store"


def log_at(place: Path, id: str = "a") -> Path:
    return place / "store" / log_name(Ref("session", id))


def bodies(backend: Backend, ref: Ref = REF) -> list[bytes]:
    found = backend.read(ref, voided=True)
    assert [entry.fault for entry in found] == [""] * len(found)
    return [entry.body for entry in found]


def recorded(place: Path, *texts: str, id: str = "a") -> Path:
    """A store that was closed, with a line for each text in the log that is returned."""
    with holdfast.open(url_at(place)) as store:
        session = store.session(id)
        for text in texts:
            session.append(user(text))
    return log_at(place, id)


def texts(store: Store, id: str = "a") -> list[str]:
    """What a session says; "?" for what is lost. Its numbers have no gap."""
    events = list(store.session(id).events(damaged="keep"))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    return ["?" if isinstance(event.payload, Damaged) else text_of(event) for event in events]


def forget_index(place: Path) -> None:
    for path in (place / "store").glob("index.db*"):
        path.unlink()


def line_starts(data: bytes) -> list[int]:
    return [0, *(match.end() for match in re.finditer(b"\n", data))][:-1]


# --- What stands in a log ---


def test_each_line_is_json_that_says_its_version_and_a_checksum_of_the_rest(tmp_path: Path) -> None:
    data = recorded(tmp_path, "to be found", "größer", "two\nlines", id="Some Id/1").read_bytes()
    assert data.endswith(b"\n")
    for line in data.splitlines():
        told = json.loads(line)
        assert told["v"] == 1
        start, rest = line.split(b",", 1)
        assert start == b'{"crc":"%08x"' % zlib.crc32(rest)
    first = json.loads(data.splitlines()[0])
    assert (first["kind"], first["id"]) == ("session", "Some Id/1")
    assert sum(b"to be found" in line for line in data.splitlines()) == 1
    assert "größer".encode() in data


@given(
    st.binary() | st.builds(lambda b: b"{" + b + b"}", st.binary()) | st.text().map(lambda t: json.dumps([t]).encode())
)
def test_any_body_stands_in_a_line_of_json_and_comes_back_to_the_byte(body: bytes) -> None:
    line = seal(Line(v=1, append=(logged(Entry("", 0, body, 1)),)))
    assert line.count(b"\n") == 1
    assert json.loads(line)["append"][0]["seq"] == 1
    found: LoggedEntry = opened(line[:-1]).append[0]
    assert found.bytes() == body


def test_a_batch_is_one_write_to_each_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    real = logfile.write_at

    def write_at(fd: int, data: bytes, offset: int) -> None:
        written.append(data)
        real(fd, data, offset)

    monkeypatch.setattr(logfile, "write_at", write_at)
    backend = backend_at(tmp_path)
    refs = [Ref("session", id) for id in "ab"]
    backend.commit([Commit(ref=ref, if_rev=0) for ref in refs])
    written.clear()
    backend.commit([Commit(ref=ref, append=[Entry("", 0, b"{}")]) for ref in refs * 3])
    assert [data.count(b"\n") for data in written] == [3, 3]
    backend.close()


def test_files_and_folders_are_private_whatever_the_umask(tmp_path: Path) -> None:
    code = (
        "import os, sys, holdfast; from holdfast import user; os.umask(0); store = holdfast.open(sys.argv[1])\n"
        "store.session('a').append(user('x' * 100_000), user('y'))\n"
        "open(sys.argv[2] + '/logs/session/a.jsonl', 'ab').write(b'torn')\n"
        "store.session('a').append(user('z')); store.search('z')\n"
        "for folder, folders, files in os.walk(sys.argv[2]):\n"
        "    for name in folders + files: print(oct(os.lstat(folder + '/' + name).st_mode), name)\n"
    )
    arguments = [sys.executable, "-c", code, url_at(tmp_path), str(tmp_path / "store")]
    told = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.splitlines()
    modes = {name: int(mode, 8) for mode, name in (line.split() for line in told)}
    assert {"index.db", "index.db-wal", "writers", "a.jsonl", "a.jsonl.torn.1", "open-lock"} <= set(modes)
    for name, mode in modes.items():
        assert stat.S_IMODE(mode) == (0o700 if stat.S_ISDIR(mode) else 0o600), name
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700


# --- Names ---

letters = st.sampled_from("aAbB/\\.._- ~:*éÉéß\u212a\u0130\u200bﬁx0")
hostile = st.text(letters, min_size=1, max_size=8) | st.sampled_from(
    ["CON", "con", "nul.txt", "COM1", "lpt9", ".", "..", "a.", "a ", "a/b", "a_b", "a..b", "A/B", "x" * 300, "~", "aux"]
)  # fmt: skip


def as_a_file_system_may_see_it(name: str) -> set[str]:
    return {unicodedata.normalize(form, name).casefold().rstrip(". ") for form in ("NFC", "NFD", "NFKC")}


@given(hostile | st.text(min_size=1), hostile | st.text(min_size=1))
def test_no_two_ids_share_a_file_on_any_file_system(a: str, b: str) -> None:
    name = file_name(a.encode(errors="replace").decode())
    assert re.fullmatch(r"[a-z0-9_~-]{1,70}", name)
    assert name not in {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
    other = file_name(b.encode(errors="replace").decode())
    same = a.encode(errors="replace") == b.encode(errors="replace")
    assert bool(as_a_file_system_may_see_it(name) & as_a_file_system_may_see_it(other)) == same


def test_a_log_of_another_session_is_named_and_never_used(tmp_path: Path) -> None:
    recorded(tmp_path, "one", id="a").rename(log_at(tmp_path, "b"))
    forget_index(tmp_path)
    with holdfast.open(url_at(tmp_path)) as store:
        assert [info.id for info in store.sessions()] == []
        assert not store.exists("a")
        assert ["holds the log of session 'a'" in finding.what for finding in store.check().findings] == [True]
        with pytest.raises(Corrupt, match="holds the log of session 'a'"):
            store.create("b")
        assert store.create("a").append(note("new")).last == 1  # its own place is free
        assert store.create("c").append(note("beside")).last == 1


def test_a_log_that_was_swapped_for_anothers_while_all_was_closed_is_found_out(tmp_path: Path) -> None:
    recorded(tmp_path, "one", id="a")
    recorded(tmp_path, "two", id="b").replace(log_at(tmp_path, "a"))
    with holdfast.open(url_at(tmp_path)) as store:
        assert texts(store) == ["?"]
        with pytest.raises(Corrupt, match="holds the log of session 'b'"):
            store.session("a").append(user("more"))
        assert {finding.session for finding in store.check().findings} >= {"a", "b"}


# --- Torn lines ---


@pytest.mark.parametrize("tail", ["cut", "zeros", "garbage"])
def test_a_torn_line_is_set_aside_byte_for_byte(tail: str, tmp_path: Path) -> None:
    log = recorded(tmp_path, "one", "two")
    data = log.read_bytes()
    last = data[line_starts(data)[-1] :]
    tears = {"cut": [last[:n] for n in range(1, len(last), 7)], "zeros": [bytes(4096)], "garbage": [b"\xff\n\xfe\n{}"]}
    for number, torn in enumerate(tears[tail], 1):
        log.write_bytes(log.read_bytes() + torn)
        with holdfast.open(url_at(tmp_path)) as store:
            expected = texts(store)
            store.session("a").append(user(f"after {number}"))
            assert texts(store) == [*expected, f"after {number}"]
            assert store.check().ok
        assert log.with_name(f"a.jsonl.torn.{number}").read_bytes() == torn
    assert all(json.loads(line) for line in log.read_bytes().splitlines())
    forget_index(tmp_path)
    with holdfast.open(url_at(tmp_path)) as store:
        assert texts(store)[:2] == ["one", "two"]
        assert len(texts(store)) == 2 + len(tears[tail])


def test_a_log_that_is_torn_in_its_first_line_leaves_no_session(tmp_path: Path) -> None:
    log = recorded(tmp_path, "one")
    whole = log.read_bytes()
    torn = log_at(tmp_path, "b")
    torn.write_bytes(whole.replace(b'"id":"a"', b'"id":"b"')[:40])
    with holdfast.open(url_at(tmp_path)) as store:
        assert not store.exists("b")
        assert store.create("b").append(user("new")).last == 1
        assert texts(store, "b") == ["new"]
    assert torn.with_name("b.jsonl.torn.1").stat().st_size == 40


def tear(log: Path, secret: bytes) -> None:
    """Leave at the end of a log what a writer that was killed leaves, and have it set aside."""
    with log.open("ab") as file:
        file.write(b'{"crc":"00000000","v":1,"append":[' + secret)
    with holdfast.open(f"file://{log.parents[2]}") as store:
        store.session(log.stem).append(user("on"))


def holding(place: Path, secret: bytes) -> list[str]:
    """The files below a folder that hold some bytes."""
    return [path.name for path in place.rglob("*") if path.is_file() and secret in path.read_bytes()]


def test_torn_lines_go_with_their_session_and_no_other(tmp_path: Path) -> None:
    for id in ("a", "aa"):
        log = recorded(tmp_path, "one", id=id)
        tear(log, b"first secret")
        tear(log, b"second secret")
    kept = ["aa.jsonl.torn.1", "aa.jsonl.torn.2"]
    assert sorted(holding(tmp_path, b" secret")) == ["a.jsonl.torn.1", "a.jsonl.torn.2", *kept]
    with contextlib.closing(backend_at(tmp_path)) as backend:
        backend.commit([Commit(ref=REF, trim=2)])  # written anew, and not deleted
        assert len(holding(tmp_path, b" secret")) == 4
        backend.commit([Commit(ref=REF, delete=True)])
    assert sorted(holding(tmp_path, b" secret")) == kept


def test_torn_lines_of_a_session_whose_deletion_was_killed_go_at_the_next_open(tmp_path: Path) -> None:
    tear(recorded(tmp_path, "one"), b"secret")
    tear(recorded(tmp_path, "one", id="b"), b"secret")
    code = (
        "import os, signal, sys, holdfast\n"
        "from holdfast.backends.logfile import Log\n"
        "Log.done = lambda log: os.kill(os.getpid(), signal.SIGKILL)\n"  # the rows are committed, the file is there
        "holdfast.open(sys.argv[1]).delete('a')\n"
    )
    child = subprocess.run([sys.executable, "-c", code, url_at(tmp_path)], check=False)
    assert child.returncode == -signal.SIGKILL
    assert sorted(holding(tmp_path, b"secret")) == ["a.jsonl.torn.1", "b.jsonl.torn.1"]
    with holdfast.open(url_at(tmp_path)) as store:
        assert store.get("a") is None
    assert holding(tmp_path, b"secret") == ["b.jsonl.torn.1"]


def test_a_folder_with_the_name_of_torn_lines_keeps_no_store_shut(tmp_path: Path) -> None:
    recorded(tmp_path, "one", id="b")
    log = recorded(tmp_path, "one")
    log.with_name("a.jsonl.torn.1").mkdir()
    log.with_name("c.jsonl").mkdir()
    code = (
        "import os, signal, sys, holdfast\n"
        "from holdfast.backends.logfile import Log\n"
        "Log.done = lambda log: os.kill(os.getpid(), signal.SIGKILL)\n"
        "holdfast.open(sys.argv[1]).delete('a')\n"
    )
    child = subprocess.run([sys.executable, "-c", code, url_at(tmp_path)], check=False)
    assert child.returncode == -signal.SIGKILL
    with holdfast.open(url_at(tmp_path)) as store:
        assert [info.id for info in store.sessions()] == ["b"]
        assert store.check().findings == ()
    assert log.with_name("a.jsonl.torn.1").is_dir()


def test_a_folder_among_torn_lines_keeps_none_of_them(tmp_path: Path) -> None:
    log = recorded(tmp_path, "one")
    log.with_name("a.jsonl.torn.1").mkdir()
    tear(log, b"secret")
    assert holding(tmp_path, b"secret") == ["a.jsonl.torn.2"]
    with holdfast.open(url_at(tmp_path)) as store:
        store.delete("a")
    assert holding(tmp_path, b"secret") == []
    assert log.with_name("a.jsonl.torn.1").is_dir()


def unremovable(monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """Let no file whose name ends so be removed, as of one that is immutable or on a device that fails."""
    real = os.unlink

    def unlink(path: str, **how: object) -> None:
        if str(path).endswith(ending) and os.path.exists(path):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)
        real(path)

    monkeypatch.setattr(os, "unlink", unlink)


@pytest.mark.parametrize("ending", [".old", ".torn.1"])
def test_what_could_not_be_removed_is_told_and_goes_later(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = recorded(tmp_path, "secret", "one")
    logs = log.parent
    tear(log, b"secret")
    tear(log, b"secret")
    with monkeypatch.context() as patch:
        unremovable(patch, f"a.jsonl{ending}")
        with holdfast.open(url_at(tmp_path)) as store:
            store.delete("a")
            assert holding(logs, b"secret") == [f"a.jsonl{ending}"]
            with pytest.raises(Unavailable, match=r"a\.jsonl\..* is left of what was deleted and can't be removed"):
                store.compact()
        with holdfast.open(url_at(tmp_path)) as store:  # it keeps no store shut
            assert store.check().ok
            assert store.get("a") is None
    assert holding(logs, b"secret") == [f"a.jsonl{ending}"]
    with holdfast.open(url_at(tmp_path)) as store:
        assert holding(logs, b"secret") == []
        store.compact()


def test_what_could_not_be_removed_goes_with_a_compact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = recorded(tmp_path, "one")
    tear(log, b"secret")
    with holdfast.open(url_at(tmp_path)) as store:
        with monkeypatch.context() as patch:
            unremovable(patch, ".torn.1")
            store.delete("a")
        assert holding(tmp_path, b"secret") == ["a.jsonl.torn.1"]
        store.compact()
        assert holding(tmp_path, b"secret") == []


def test_a_log_that_can_not_be_moved_back_is_closed(tmp_path: Path) -> None:
    path = recorded(tmp_path, "one")
    before = len(os.listdir("/dev/fd"))
    origin = Log(str(path), durable=True)
    fresh = Log(str(path), durable=True, origin=origin)
    fresh.add(path.read_bytes())
    fresh.sync()
    fresh.move()
    path.with_name("a.jsonl.old").unlink()
    with pytest.raises(FileNotFoundError):
        fresh.undo()
    assert len(os.listdir("/dev/fd")) == before


# --- Damaged lines ---


def damage(log: Path, number: int, change: Callable[[bytes], bytes] = lambda line: line.replace(b"t", b"T", 1)) -> int:
    """Damage a line of a log; where it starts."""
    data = log.read_bytes()
    start = line_starts(data)[number]
    end = data.index(b"\n", start) + 1
    changed = change(data[start:end])
    assert changed != data[start:end]
    log.write_bytes(data[:start] + changed + data[end:])
    return start


@pytest.mark.parametrize("index", ["kept", "lost"])
def test_a_damaged_line_in_the_middle_is_told_with_its_offset_and_hides_no_other(index: str, tmp_path: Path) -> None:
    log = recorded(tmp_path, "one", "two", "three")
    start = damage(log, 2)
    damaged = log.read_bytes()
    if index == "lost":
        forget_index(tmp_path)
    with holdfast.open(url_at(tmp_path)) as store:
        assert texts(store) == ["one", "?", "three"]
        (finding,) = store.check().findings
        assert (finding.session, finding.seq) == ("a", 2)
        assert f"the line at byte {start} of a.jsonl is damaged" in finding.what
        with pytest.raises(Corrupt, match="event 2"):
            list(store.session("a").events())
        lost = [event.payload for event in store.session("a").events(damaged="keep")][1]
        assert isinstance(lost, Damaged)
        assert lost.data == damaged[start:].split(b"\n")[0]
        assert store.session("a").append(user("four")).last == 4
        assert texts(store) == ["one", "?", "three", "four"]
    assert log.read_bytes().startswith(damaged)


@pytest.mark.parametrize("index", ["kept", "lost"])
@pytest.mark.parametrize("how", ["byte", "newline"])
def test_a_damaged_last_line_was_acknowledged_and_is_never_cut_off(how: str, index: str, tmp_path: Path) -> None:
    log = recorded(tmp_path, "one", "two")
    if how == "byte":
        damage(log, 2)  # in "last", which is then told by the numbers of the entries
    elif index == "lost":
        damage(log, 2, lambda line: line.replace(b"message", b"mess\x00ge"))
    else:
        damage(log, 2, lambda line: line[:-1] + b"\x0b")
    damaged = log.read_bytes()
    if index == "lost":
        forget_index(tmp_path)
    with holdfast.open(url_at(tmp_path)) as store:
        assert store.session("a").append(user("three")).last == 3
        assert texts(store)[0::2] == ["one", "three"]
        assert texts(store)[1] == ("two" if (how, index) == ("newline", "kept") else "?")
    assert log.read_bytes().startswith(damaged)
    assert list(log.parent.glob("*.torn.*")) == []
    forget_index(tmp_path)
    with holdfast.open(url_at(tmp_path)) as store:
        assert texts(store) == ["one", "?", "three"]


@pytest.mark.parametrize("id", ["a", "Some/Id"])
def test_a_log_whose_first_line_is_damaged_is_still_its_sessions(id: str, tmp_path: Path) -> None:
    start = damage(recorded(tmp_path, "one", "two", id=id), 0, lambda line: line.replace(b'"rev":1', b'"rev":7'))
    forget_index(tmp_path)
    with holdfast.open(url_at(tmp_path)) as store:
        assert texts(store, id) == ["one", "two"]
        (finding,) = [f for f in store.check().findings if "byte" in f.what]
        assert (finding.session, finding.seq) == (id, None)
        assert f"byte {start} " in finding.what
        assert store.session(id).append(user("three")).last == 3


def test_the_only_line_of_a_session_may_be_damaged(tmp_path: Path) -> None:
    backend = backend_at(tmp_path)
    backend.commit([Commit(ref=REF, if_rev=0, append=[Entry("", 0, b'{"t":1}'), Entry("", 0, b'{"t":2}')])])
    backend.close()
    damage(log_at(tmp_path), 0, lambda line: line.replace(b'{"t":2}', b'{"t":3}'))
    forget_index(tmp_path)
    backend = backend_at(tmp_path)
    assert [(entry.seq, bool(entry.fault)) for entry in backend.read(REF)] == [(1, True), (2, True)]
    (head,) = backend.commit([Commit(ref=REF, append=[Entry("", 0, b"{}")])])
    assert isinstance(head, Head)
    assert head.last == 3
    backend.close()


def test_a_damaged_line_survives_a_trim_as_it_is_and_is_told_with_its_new_offset(tmp_path: Path) -> None:
    backend = backend_at(tmp_path)
    backend.commit([Commit(ref=REF, if_rev=0)])
    for n in range(6):
        backend.commit([Commit(ref=REF, append=[Entry("", 0, b'{"t":%d%d}' % (n, k)) for k in range(2)])])
    start = damage(log_at(tmp_path), 4, lambda line: line.replace(b'{"t":30}', b'{"x":30}'))
    damaged = log_at(tmp_path).read_bytes()[start:].split(b"\n")[0]
    backend.commit([Commit(ref=REF, trim=3)])
    for index in ("kept", "lost"):
        lost = [(entry.seq, entry.body) for entry in backend.read(REF) if entry.fault]
        assert lost == [(7, damaged), (8, damaged)], index
        assert [entry.seq for entry in backend.read(REF)] == list(range(4, 13))
        assert log_at(tmp_path).read_bytes().count(damaged) == 1
        told = backend.verify()
        assert [problem.seq for problem in told] == [7, 8]
        assert f"byte {log_at(tmp_path).read_bytes().index(damaged)} " in told[0].what
        backend.close()
        forget_index(tmp_path)
        backend = backend_at(tmp_path)
    backend.close()


# --- Damaged rows of a log that is sound ---


FLIPS = ["at = 77", "at = 'then'", "id = 'x'", "void = 1 - void", "crc = crc + 1"]
"""What a flipped bit may make of the columns of a row."""


def flip_row(place: Path, seq: int, change: str) -> None:
    """Change a column of an entry's row in the index of a closed store, past its checksum."""
    with contextlib.closing(sqlite3.connect(place / "store" / "index.db")) as db, db:
        assert db.execute(f"UPDATE entry SET {change} WHERE seq = ?", (seq,)).rowcount == 1


@pytest.mark.parametrize("change", FLIPS)
def test_a_damaged_row_stays_damaged_when_a_killed_writer_had_hidden_it(change: str, tmp_path: Path) -> None:
    recorded(tmp_path, "one", "two")
    code = (
        "import os, signal, sys, holdfast\n"
        "from holdfast.backends.sqlitefile import SQLiteFile\n"
        "session = holdfast.open(sys.argv[1]).session('a')\n"
        "SQLiteFile.end = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"  # the line is written
        "session.remove_last()\n"
    )
    child = subprocess.run([sys.executable, "-c", code, url_at(tmp_path)], check=False)
    assert child.returncode == -signal.SIGKILL
    flip_row(tmp_path, 2, change)
    with holdfast.open(url_at(tmp_path)) as store:
        events = list(store.session("a").events(include_hidden=True, damaged="keep"))
        assert isinstance(events[1].payload, Damaged)
        assert [finding.seq for finding in store.check().findings] == [2]
    forget_index(tmp_path)
    with holdfast.open(url_at(tmp_path)) as store:
        taken = list(store.session("a").events(include_hidden=True))[1]
        assert (taken.hidden, text_of(taken)) == (True, "two")
        assert store.check().ok


@pytest.mark.parametrize("void", [False, True])
@pytest.mark.parametrize("change", FLIPS)
def test_a_trim_takes_nothing_from_a_damaged_row_into_the_log(change: str, void: bool, tmp_path: Path) -> None:
    entries = [Entry(f"id {n}", 1000 + n, b'{"n":%d}' % n) for n in range(1, 5)]
    with contextlib.closing(backend_at(tmp_path)) as backend:
        backend.commit([Commit(ref=REF, if_rev=0, append=entries)])
        backend.commit([Commit(ref=REF, void=[Range(3, 3, void)])])
        sound = backend.read(REF, voided=True)
    flip_row(tmp_path, 3, change)
    with contextlib.closing(backend_at(tmp_path)) as backend:
        backend.commit([Commit(ref=REF, trim=1)])
        assert [entry.seq for entry in backend.read(REF, voided=True) if entry.fault] == [3]
        assert [problem.seq for problem in backend.verify()] == [3]
    forget_index(tmp_path)
    with contextlib.closing(backend_at(tmp_path)) as backend:
        assert backend.read(REF, voided=True) == sound[1:]
        assert backend.verify() == []


# --- Lines that stand twice ---


@pytest.mark.parametrize("index", ["kept", "lost"])
def test_lines_that_stand_in_a_log_twice_count_once(index: str, tmp_path: Path) -> None:
    log = recorded(tmp_path, "one", "two")
    data = log.read_bytes()
    log.write_bytes(data + data)
    if index == "lost":
        forget_index(tmp_path)
    with holdfast.open(url_at(tmp_path)) as store:
        assert store.session("a").append(user("three")).last == 3
        assert texts(store) == ["one", "two", "three"]


# --- What was written by a newer holdfast ---


@pytest.mark.parametrize("what", ["layout", "line"])
def test_what_a_newer_holdfast_wrote_is_refused_and_left_alone(what: str, tmp_path: Path) -> None:
    log = recorded(tmp_path, "one", "two")
    recorded(tmp_path, "other", id="b")
    with log_at(tmp_path, "b").open("ab") as file:
        file.write(b"torn")  # not set aside either
    if what == "layout":
        (tmp_path / "store" / "holdfast.json").write_text('{"layout":2}')
        (tmp_path / "store" / "open-lock").unlink()
    else:
        rest = b'"v":2,"news":true}'
        with log.open("ab") as file:
            file.write(b'{"crc":"%08x",%s\n' % (zlib.crc32(rest), rest))
        forget_index(tmp_path)

    def held() -> dict[Path, bytes]:
        return {
            p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and (what == "layout" or "logs" in p.parts)
        }

    before = held()
    with pytest.raises(Invalid, match=r"newer holdfast .*2, this one knows 1.*upgrade"):
        holdfast.open(url_at(tmp_path))
    assert held() == before


# --- What the disk refuses ---


def failing(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """The next call of each of these functions of `os` fails with EIO."""
    for name in names:
        real = getattr(os, name)

        def once(*arguments: object, name: str = name, real: Callable[..., object] = real) -> object:
            monkeypatch.setattr(os, name, real)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, name, once)


def test_a_line_that_could_not_be_synced_is_cut_off_and_a_retry_stores_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with holdfast.open(url_at(tmp_path)) as store:
        session = store.session("a")
        session.append(user("one"))
        before = log_at(tmp_path).read_bytes()
        failing(monkeypatch, "fdatasync")
        with pytest.raises(Unavailable, match="nothing was stored"):
            session.append(user("two"), key="k")
        assert log_at(tmp_path).read_bytes() == before
        assert texts(store) == ["one"]
        assert session.append(user("two"), key="k").last == 2
        assert session.append(user("two"), key="k").last == 2
        assert texts(store) == ["one", "two"]
        assert store.check().ok


def test_if_a_failed_line_can_not_be_cut_off_nobody_is_told_that_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with holdfast.open(url_at(tmp_path)) as store:
        session = store.session("a")
        failing(monkeypatch, "fdatasync", "ftruncate")
        with pytest.raises(Uncertain, match="same key"):
            session.append(user("one"), key="k")
        assert session.append(user("one"), key="k").last == 1
        assert texts(store) == ["one"]
        assert store.check().ok


@pytest.mark.parametrize("call", ["link", "replace", "fdatasync"])
def test_a_trim_that_fails_leaves_the_log_as_it_was(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_at(tmp_path)
    backend.commit([Commit(ref=REF, if_rev=0, append=[Entry("", 0, b'{"n":%d}' % n) for n in range(3)])])
    before = log_at(tmp_path).read_bytes()
    failing(monkeypatch, call)
    with pytest.raises(Unavailable):
        backend.commit([Commit(ref=REF, trim=2)])
    assert log_at(tmp_path).read_bytes() == before
    assert len(bodies(backend)) == 3
    assert isinstance(backend.commit([Commit(ref=REF, trim=2)])[0], Head)
    assert bodies(backend) == [b'{"n":2}']
    backend.close()
    assert [p.name for p in log_at(tmp_path).parent.iterdir()] == ["a.jsonl"]


def what_is_left_stays(place: Path, _: pytest.MonkeyPatch) -> None:
    """What was set aside of the log can't be removed: a folder has its name."""
    log_at(place).with_name("a.jsonl.torn.1").mkdir()


def folder_is_not_synced(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder's sync fails once, after the rows were committed; no folder can be made to do that."""

    def once(path: str) -> None:
        monkeypatch.undo()
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    monkeypatch.setattr(logfile, "sync_dir", once)


@pytest.mark.parametrize("fault", [what_is_left_stays, folder_is_not_synced])
def test_what_is_left_of_a_deleted_log_costs_no_other_its_events(
    fault: Callable[[Path, pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Ref("session", "b")
    with contextlib.closing(backend_at(tmp_path)) as backend:
        backend.commit([Commit(ref=REF, if_rev=0, append=[Entry("", 0, b"{}")])])
        backend.commit([Commit(ref=other, if_rev=0, append=[Entry("", 0, b'{"n":%d}' % n) for n in range(5)])])
    with contextlib.closing(backend_at(tmp_path)) as backend:
        fault(tmp_path, monkeypatch)
        (dead,) = backend.commit([Commit(ref=REF, delete=True)])
        assert isinstance(dead, Head)
        assert dead.dead
        backend.commit([Commit(ref=other, append=[Entry("", 0, b'{"n":5}')])])  # its log gets a number that is free
        (head,) = backend.commit([Commit(ref=REF, if_rev=dead.rev, append=[Entry("", 0, b"again")])])
        assert isinstance(head, Head)
        assert bodies(backend) == [b"again"]
        assert bodies(backend, other) == [b'{"n":%d}' % n for n in range(6)]
    with contextlib.closing(backend_at(tmp_path)) as backend:
        assert bodies(backend) == [b"again"]
        assert bodies(backend, other) == [b'{"n":%d}' % n for n in range(6)]
        assert backend.verify() == []


def test_a_log_that_can_not_be_closed_keeps_no_other_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refs = [Ref("session", id) for id in "abc"]
    with contextlib.closing(backend_at(tmp_path)) as backend, contextlib.closing(backend_at(tmp_path)) as another:
        for ref in refs:
            backend.commit([Commit(ref=ref, if_rev=0, append=[Entry("", 0, b"{}")])])
        another.commit([Commit(ref=REF, trim=1)])
        failed: list[int] = []
        real = os.close

        def close(fd: int) -> None:  # as the system does it: the number is free again, whatever it says
            real(fd)
            if len(failed) < len(refs):
                failed.append(fd)
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "close", close)
        (head,) = backend.commit([Commit(ref=REF, append=[Entry("", 0, b"[]")])])
        monkeypatch.undo()
        assert isinstance(head, Head)
        assert len(set(failed)) == len(refs)
        assert bodies(backend) == [b"[]"]


@pytest.mark.parametrize("fails", [False, True])
def test_no_other_writes_before_the_logs_are_as_the_rows_say(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free: list[bool] = []

    def looking(real: Callable[[LogBodies], None]) -> Callable[[LogBodies], None]:
        def call(bodies: LogBodies) -> None:
            with open(tmp_path / "store" / "index.db-lock", "rb+") as file:
                free.append(disk.try_lock(file.fileno()))
            real(bodies)

        return call

    def fail(file: SQLiteFile, db: Connection, *, commit: bool) -> None:  # as on a full disk: it is rolled back
        real_end(file, db, commit=False)
        if commit:
            raise sqlite3.OperationalError("disk I/O error")

    with contextlib.closing(backend_at(tmp_path)) as backend:
        backend.commit([Commit(ref=REF, if_rev=0, append=[Entry("", 0, b"{}")])])
        monkeypatch.setattr(LogBodies, "done", looking(LogBodies.done))
        monkeypatch.setattr(LogBodies, "undo", looking(LogBodies.undo))
        real_end = SQLiteFile.end
        if fails:
            monkeypatch.setattr(SQLiteFile, "end", fail)
        with pytest.raises(Unavailable) if fails else contextlib.nullcontext():
            backend.commit([Commit(ref=REF, append=[Entry("", 0, b"[]")])])
        assert free == [False]
        monkeypatch.undo()
        assert bodies(backend) == ([b"{}"] if fails else [b"{}", b"[]"])


# --- What it costs ---


def test_an_append_reads_nothing_of_a_log_and_the_newest_events_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with holdfast.open(url_at(tmp_path)) as store:
        for _ in range(20):
            store.session("a").append(*[user("x" * 1000)] * 100)
        store.session("a").append(*[user("y" * 500)] * 50)
    read: list[int] = []
    real = logfile.read_at

    def read_at(fd: int, size: int, offset: int) -> bytes:
        read.append(size)
        return real(fd, size, offset)

    monkeypatch.setattr(logfile, "read_at", read_at)
    with holdfast.open(url_at(tmp_path)) as store:
        store.session("a").append(user("z"))
        assert sum(read) < 100
        assert len(list(store.session("a").events(last=50))) == 50
        assert sum(read) < 100_000
    assert log_at(tmp_path).stat().st_size > 2_000_000


def test_a_thousand_sessions_and_many_threads_keep_few_files_open(tmp_path: Path) -> None:
    backend = backend_at(tmp_path, "process")
    refs = [Ref("session", f"s{n}") for n in range(1000)]
    for ref in refs:
        backend.commit([Commit(ref=ref, if_rev=0, append=[Entry("", 0, b"{}")])])

    def read(some: list[Ref]) -> None:
        for ref in some:
            bodies(backend, ref)

    threads = [threading.Thread(target=read, args=(refs[n::20],)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) < 128 + 100
    backend.close()


def test_a_log_may_be_trimmed_more_than_once_in_a_batch(tmp_path: Path) -> None:
    backend = backend_at(tmp_path)
    backend.commit([Commit(ref=REF, if_rev=0, append=[Entry("", 0, b'{"n":1}'), Entry("", 0, b'{"n":2}')])])
    told = backend.commit(
        [
            Commit(ref=REF, trim=1, append=[Entry("", 0, b'{"n":3}')]),
            Commit(ref=REF, append=[Entry("", 0, b'{"n":4}')]),
            Commit(ref=REF, trim=2, append=[Entry("", 0, b'{"n":5}')]),
        ]
    )
    assert [isinstance(result, Head) for result in told] == [True] * 3
    assert bodies(backend) == [b'{"n":3}', b'{"n":4}', b'{"n":5}']
    backend.close()
    again = backend_at(tmp_path)
    assert bodies(again) == [b'{"n":3}', b'{"n":4}', b'{"n":5}']
    assert again.verify() == []
    again.close()
