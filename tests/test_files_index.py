"""The index of a folder store: whatever became of it or of its writers, the answers are those of the logs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import holdfast
from faults.holder import Holder
from faults.work import text_of
from holdfast import Store, user
from holdfast.backend import Backend
from holdfast.backends import adoption, disk, files, open_backend
from holdfast.backends.disk import lock, locked
from holdfast.backends.jsonl import log_name
from holdfast.backends.sqlitefile import SQLiteFile
from holdfast.errors import Unavailable
from holdfast.plan import Commit, Entry, Head, Ref

REF = Ref("session", "a")
SOON = 10.0
"""Seconds that are far less than a wait for a lock, and far more than the work takes on a busy machine."""

DYING = """
import os, signal, sys, holdfast
from holdfast import user
from holdfast.backends import filelogs, logfile
from holdfast.backends.sqlitefile import SQLiteFile
from holdfast.backends import open_backend
from holdfast.plan import Commit, Entry, Ref

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def then_die(real):
    def call(*arguments, **options):
        real(*arguments, **options)
        die()
    return call
"""
"""The beginning of a program that kills itself at a chosen moment."""

APPEND = f"{DYING}\nsession = holdfast.open(sys.argv[1]).session('a')\n{{}}\nsession.append(user('two'), user('three'))"
TRIM = (
    f"{DYING}\nbackend = open_backend(sys.argv[1], bytes.decode)\nbackend.get([])\n{{}}\n"
    "backend.commit([Commit(ref=Ref('session', 'a'), trim=2)])"
)


def url_at(place: Path, durability: str = "disk") -> str:
    return f"file://{place}/store?durability={durability}"


def backend_at(place: Path, durability: str = "disk") -> Backend:
    return open_backend(url_at(place, durability), bytes.decode)


def log_at(place: Path, id: str = "a") -> Path:
    return place / "store" / log_name(Ref("session", id))


def run(code: str, *arguments: object, dies: bool = False) -> str:
    """What a program prints that ends well, or that kills itself."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, timeout=300)
    assert done.returncode == (-signal.SIGKILL if dies else 0)
    return done.stdout.decode()


def texts(store: Store, id: str = "a") -> list[str]:
    return [text_of(event) for event in store.session(id).events()]


def writers(place: Path) -> dict[str, object]:
    return json.loads((place / "store" / "writers").read_bytes())


def recorded(place: Path, *said: str) -> None:
    with holdfast.open(url_at(place)) as store:
        for text in said:
            store.session("a").append(user(text))
        assert texts(store) == list(said)


# --- An index that is lost, stale or another's ---


def answers(place: Path) -> Sequence[object]:
    """What a store says, in every way of asking."""
    with holdfast.open(url_at(place)) as store:
        told = [
            [(info.id, info.name, info.labels, info.counts, info.last) for info in store.sessions()],
            {id: texts(store, id) for id in ("a", "B/1", "trimmed")},
            sorted((hit.session, hit.event.seq) for hit in store.search("apple", limit=100)),
            store.backend.get([Ref("session", "deleted"), Ref("session", "never")]),
        ]
        assert store.check().findings == ()
    return told


def made(place: Path) -> None:
    with holdfast.open(url_at(place)) as store:
        for id in ("a", "B/1", "trimmed", "deleted"):
            session = store.session(id, name=f"name of {id}", labels=["kept"])
            session.append(*[user(f"apple {n}") for n in range(5)], key="first")
            session.append(user("pear"), user("apple again"))
            session.remove_last()
        store.delete("deleted")
        (head,) = store.backend.commit([Commit(ref=Ref("session", "trimmed"), trim=2)])
        assert isinstance(head, Head)
        store.backend.commit([Commit(ref=Ref("session", "trimmed"), body=b"")])


def lost(index: Path, _: Path) -> None:
    index.unlink()


def garbage(index: Path, _: Path) -> None:
    index.write_bytes(os.urandom(50_000))


def empty(index: Path, _: Path) -> None:
    index.write_bytes(b"")


def stale(index: Path, old: Path) -> None:
    shutil.copy(old, index)


def anothers(index: Path, old: Path) -> None:
    recorded(old.parent, "something else")
    shutil.copy(old.parent / "store" / "index.db", index)


@pytest.mark.parametrize("change", [lost, garbage, empty, stale, anothers], ids=lambda change: change.__name__)
def test_an_index_that_is_not_the_logs_own_is_built_anew(change: Callable[[Path, Path], None], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    index = tmp_path / "store" / "index.db"
    made(tmp_path)
    shutil.copy(index, other / "index.db")
    with holdfast.open(url_at(tmp_path)) as store:
        store.session("a").append(user("apple of today"))
        store.backend.commit([Commit(ref=Ref("session", "trimmed"), trim=3)])
    expected = answers(tmp_path)
    logs = {path: path.read_bytes() for path in (tmp_path / "store" / "logs").rglob("*") if path.is_file()}
    change(index, other / "index.db")
    assert answers(tmp_path) == expected
    assert {path: path.read_bytes() for path in logs} == logs


def test_rows_that_end_in_the_middle_of_a_line_cut_nothing(tmp_path: Path) -> None:
    recorded(tmp_path, "one", "two", "three")
    with sqlite3.connect(tmp_path / "store" / "index.db") as db:
        db.execute("UPDATE log SET size = size - 200")
    db.close()
    (tmp_path / "store" / "writers").write_text(json.dumps({**writers(tmp_path), "clean": False}))
    before = log_at(tmp_path).read_bytes()
    with holdfast.open(url_at(tmp_path)) as store:
        assert texts(store) == ["one", "two", "three"]
        assert store.check().ok
    assert log_at(tmp_path).read_bytes() == before
    assert [path.name for path in log_at(tmp_path).parent.iterdir()] == ["a.jsonl"]


def test_an_index_that_vanished_beside_a_running_process_refuses_the_next_and_loses_nothing(tmp_path: Path) -> None:
    with holdfast.open(url_at(tmp_path)) as store:
        store.session("a").append(user("one"))
        (tmp_path / "store" / "index.db").unlink()
        with pytest.raises(Unavailable, match="removed or replaced while the store is open"):
            holdfast.open(url_at(tmp_path))
        store.session("a").append(user("two"))
    with holdfast.open(url_at(tmp_path)) as store:
        assert texts(store) == ["one", "two"]
        assert store.check().ok


COUNTING = """
import sys, holdfast
opened = []
def seen(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".jsonl"):
        opened.append(arguments[0])
store = holdfast.open(sys.argv[1])
sys.addaudithook(seen)
count, cursor = 0, None
while True:
    page = store.sessions(limit=1000, cursor=cursor)
    count += len(page)
    cursor = page.cursor
    if cursor is None:
        break
print(count, len(opened))
list(store.session("s1").events())
print(len(opened) > 0)
store.close()
"""


def test_a_list_of_many_sessions_opens_no_log(tmp_path: Path, long: bool) -> None:
    count = 100_000 if long else 2_000
    backend = backend_at(tmp_path, "process")
    for start in range(0, count, 1000):
        refs = [Ref("session", f"s{n}") for n in range(start, start + 1000)]
        backend.commit([Commit(ref=ref, at=1, if_rev=0, append=[Entry("", 0, b"{}")]) for ref in refs])
    backend.close()
    assert run(COUNTING, url_at(tmp_path)).split() == [str(count), "0", "True"]
    (tmp_path / "store" / "index.db").unlink()
    assert run(COUNTING, url_at(tmp_path)).split() == [str(count), "0", "True"]


# --- Writers that are killed ---


@pytest.mark.parametrize("moment", ["filelogs.Log.sync = die", "logfile.sync = die", "SQLiteFile.end = die"])
@pytest.mark.parametrize("beside", [False, True])
def test_a_writer_killed_before_its_rows_leaves_all_of_its_batch_or_nothing(
    moment: str, beside: bool, tmp_path: Path
) -> None:
    recorded(tmp_path, "one")
    written = moment != "filelogs.Log.sync = die"
    expected = ["one", "two", "three"] if written else ["one"]
    if beside:
        with holdfast.open(url_at(tmp_path)) as store:
            store.session("a").append(user("one and a half"))
            expected.insert(1, "one and a half")
            run(APPEND.format(moment), url_at(tmp_path), dies=True)
            assert texts(store) == ["one", "one and a half"]
            assert store.session("a").append(user("four")).last == len(expected) + 1
            expected.append("four")
            assert texts(store) == expected
            assert store.check().ok
    else:
        run(APPEND.format(moment), url_at(tmp_path), dies=True)
    with holdfast.open(url_at(tmp_path)) as store:
        assert texts(store) == expected
        assert store.check().ok
        assert len(store.search("two")) == written
    assert writers(tmp_path)["clean"] is True


def test_a_killed_writer_is_not_forgotten_when_another_closes_last(tmp_path: Path) -> None:
    with holdfast.open(url_at(tmp_path)) as store:
        store.session("a").append(user("one"))
        run(APPEND.format("SQLiteFile.end = die"), url_at(tmp_path), dies=True)
        assert len(writers(tmp_path)["open"]) == 2  # type: ignore[arg-type]  # a list of notes
    state = writers(tmp_path)
    assert state["clean"] is False
    assert len(state["open"]) == 1  # type: ignore[arg-type]  # a list of notes
    with holdfast.open(url_at(tmp_path)) as store:
        assert texts(store) == ["one", "two", "three"]
    assert writers(tmp_path)["clean"] is True


@pytest.mark.parametrize("beside", [False, True])
def test_what_a_killed_writer_left_is_synced_before_its_rows_are_committed(
    beside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(tmp_path, "one")
    calls: list[str] = []
    real_sync, real_dir, real_end = adoption.sync_files, adoption.sync_dir, SQLiteFile.end
    monkeypatch.setattr(adoption, "sync_files", lambda paths: (calls.extend(paths), real_sync(paths)))
    monkeypatch.setattr(adoption, "sync_dir", lambda path: (calls.append("folder"), real_dir(path)))
    monkeypatch.setattr(
        SQLiteFile,
        "end",
        lambda self, db, commit: (calls.append(f"commit {commit}"), real_end(self, db, commit=commit)),
    )
    if beside:
        with holdfast.open(url_at(tmp_path)) as store:
            run(APPEND.format("logfile.sync = die"), url_at(tmp_path), dies=True)
            calls.clear()
            store.session("a").append(user("four"))
            assert calls == [str(log_at(tmp_path)), "folder", "commit True"]
    else:
        run(APPEND.format("logfile.sync = die"), url_at(tmp_path), dies=True)
        with holdfast.open(url_at(tmp_path)):
            assert calls[-3:] == [str(log_at(tmp_path)), "folder", "commit True"]


@pytest.mark.parametrize(
    "moment",
    [
        "os.link = die",
        "os.link = then_die(os.link)",
        "os.replace = then_die(os.replace)",
        "SQLiteFile.end = die",
        "SQLiteFile.end = then_die(SQLiteFile.end)",
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_a_trim_that_is_killed_was_made_or_was_not(moment: str, beside: bool, tmp_path: Path) -> None:
    backend = backend_at(tmp_path)
    backend.commit([Commit(ref=REF, if_rev=0, append=[Entry("", 0, b'{"n":%d}' % n) for n in range(1, 5)])])
    if not beside:
        backend.close()
    run(TRIM.format(moment), url_at(tmp_path), dies=True)
    if not beside:
        backend = backend_at(tmp_path)
    left = backend.read(REF)
    assert [(e.seq, e.body, e.fault) for e in left] == [(e.seq, b'{"n":%d}' % e.seq, "") for e in left]
    assert [e.seq for e in left] in ([1, 2, 3, 4], [3, 4])
    (head,) = backend.commit([Commit(ref=REF, append=[Entry("", 0, b'{"n":5}')])])
    assert isinstance(head, Head)
    assert head.last == 5
    backend.close()
    backend = backend_at(tmp_path)
    assert backend.verify() == []
    assert [e.seq for e in backend.read(REF)] == [*range(head.trim + 1, 6)]
    backend.close()
    assert [path.name for path in log_at(tmp_path).parent.iterdir()] == ["a.jsonl"]


TRIMMING = """
import sys
from holdfast.backends import open_backend
from holdfast.plan import Commit, Entry, Head, Ref
backend = open_backend(sys.argv[1], bytes.decode)
for n in range(5, int(sys.argv[2])):
    body = b'{"n":%d}' % n
    (head,) = backend.commit([Commit(ref=Ref("session", "a"), trim=n - 3, append=[Entry("", 0, body)])])
    assert isinstance(head, Head)
backend.close()
"""


def test_readers_see_whole_logs_while_another_process_trims_them(tmp_path: Path, long: bool) -> None:
    backend = backend_at(tmp_path, "process")
    backend.commit([Commit(ref=REF, if_rev=0, append=[Entry("", 0, b'{"n":%d}' % n) for n in range(1, 5)])])
    count = 20_000 if long else 500
    arguments = [sys.executable, "-c", TRIMMING, url_at(tmp_path, "process"), str(count)]
    reads = 0
    with subprocess.Popen(arguments) as trimming:
        while trimming.poll() is None:
            seen = backend.read(REF)
            assert [(e.seq, e.body, e.fault) for e in seen] == [(e.seq, b'{"n":%d}' % e.seq, "") for e in seen]
            assert len(seen) in (3, 4)
            assert [e.seq for e in seen] == list(range(seen[0].seq, seen[0].seq + len(seen)))
            if reads % 10 == 0:
                assert backend.verify() == []
            reads += 1
    assert trimming.returncode == 0
    assert reads > 10
    assert backend.read(REF)[-1].seq == count - 1
    backend.close()


# --- Who has the store open ---


def test_with_durability_process_the_logs_are_synced_before_anyone_vouches_for_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real, everything = disk.sync_file, os.sync
    monkeypatch.setattr(disk, "sync_file", lambda path: (synced.append(path), real(path)))
    monkeypatch.setattr(os, "sync", lambda: (synced.append("everything"), everything()))
    with holdfast.open(url_at(tmp_path, "process")) as store:
        store.session("a").append(user("one"))
    assert synced == [str(log_at(tmp_path))]
    assert writers(tmp_path)["clean"] is True
    backend = backend_at(tmp_path, "process")
    backend.commit([Commit(ref=Ref("session", f"s{n}"), if_rev=0) for n in range(disk.MANY + 1)])
    synced.clear()
    backend.close()
    assert synced == ["everything"] or len(synced) > disk.MANY
    synced.clear()
    run(
        f"{DYING}\nholdfast.open(sys.argv[1]).session('a').append(user('two')); die()",
        url_at(tmp_path, "process"),
        dies=True,
    )
    backend_at(tmp_path).close()  # that one synced nothing, and it can't be told what it wrote
    assert synced == ["everything"] or len(synced) > disk.MANY


@pytest.mark.parametrize("durability", ["disk", "process"])
def test_what_a_loss_of_power_takes_from_a_log_is_damage_only_if_it_was_promised(
    durability: str, tmp_path: Path
) -> None:
    """The rows reached the disk, the end of the log did not: after `process` it is torn, after `disk` it has rotted."""
    url = url_at(tmp_path, durability)
    run(f"{DYING}\nsession = holdfast.open(sys.argv[1]).session('a')\nsession.append(user('one'))\n"
        "session.append(user('two'))\ndie()", url, dies=True)  # fmt: skip
    log = log_at(tmp_path)
    data = log.read_bytes()
    keep = data.rindex(b"\n", 0, -1) + 1
    log.write_bytes(data[:keep] + bytes(len(data) - keep))
    with holdfast.open(url) as store:
        assert store.check().ok == (durability == "process")
        assert store.session("a").append(user("three")).last == (2 if durability == "process" else 3)
    torn = list(log.parent.glob("*.torn.*"))
    assert [path.read_bytes() for path in torn] == ([bytes(len(data) - keep)] if durability == "process" else [])


FORKING = """
import os, sys, holdfast
from holdfast import user
from holdfast.backends.disk import try_lock
store = holdfast.open(sys.argv[1])
store.session("a").append(user("parent"))
child = os.fork()
if child == 0:
    store.session("a").append(user("child"))
    store.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
fd = os.open(sys.argv[2] + "/writers", os.O_RDWR)
print("alone" if try_lock(fd) else "locked")
os.close(fd)
store.session("a").append(user("parent again"))
store.close()
"""


def test_a_forked_childs_close_leaves_its_parents_lock_alone(tmp_path: Path) -> None:
    assert run(FORKING, url_at(tmp_path), tmp_path / "store") == "locked\n"
    assert writers(tmp_path)["clean"] is True
    with holdfast.open(url_at(tmp_path)) as store:
        assert texts(store) == ["parent", "child", "parent again"]


def test_who_waits_for_a_lock_in_vain_is_told_who_has_it(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with locked(path, 1):
        fd = os.open(path, os.O_RDWR)
        with pytest.raises(Unavailable, match=rf"locked for 0.05 s by process {os.getpid()} on "):
            lock(fd, 0.05, path)
        os.close(fd)


def test_the_folder_says_who_writes(tmp_path: Path) -> None:
    with holdfast.open(url_at(tmp_path)) as store:
        assert store.backend.info()["written by"] == "nobody"
        store.session("a")
        assert f"process {os.getpid()} on " in store.backend.info()["written by"]
        with holdfast.open(url_at(tmp_path)) as beside:
            beside.session("b")
            assert store.backend.info()["written by"].count("process") == 2
        assert store.backend.info()["written by"].count("process") == 1


# --- Who only reads ---


def test_who_only_reads_a_folder_waits_for_no_stopped_writer(tmp_path: Path) -> None:
    url = url_at(tmp_path)
    recorded(tmp_path, "apple one", "two")
    with Holder(url, "theirs", "apple of theirs") as holder:
        holder.hold()
        began = time.monotonic()
        with holdfast.open(url) as store:
            assert sorted(info.id for info in store.sessions()) == ["a", "theirs"]
            assert texts(store) == ["apple one", "two"]
            assert texts(store, "theirs") == ["the first write of this process"]
            assert [(hit.session, hit.seq) for hit in store.search("apple")] == [("a", 1)]
            assert store.check().ok
        assert time.monotonic() - began < SOON
        assert holder.finish() == 2
    assert writers(tmp_path)["clean"] is True
    with holdfast.open(url) as store:
        assert texts(store, "theirs") == ["the first write of this process", "apple of theirs"]


def test_beside_a_writer_that_was_killed_amid_its_commit_all_that_was_acknowledged_is_read(tmp_path: Path) -> None:
    url = url_at(tmp_path)
    with holdfast.open(url), Holder(url, "theirs", "apple of theirs") as holder:
        holder.hold()
        holder.kill()
        with holdfast.open(url) as store:
            assert texts(store, "theirs") == ["the first write of this process"]
            assert store.session("theirs").append(user("next")).last == 3  # its line was whole, and is taken in first
            assert len(texts(store, "theirs")) == 3


def test_a_folder_that_another_is_just_opening_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded(tmp_path, "one")
    monkeypatch.setattr(files, "TIMEOUT", 0.2)
    with locked(str(tmp_path / "store" / "open-lock"), 1), pytest.raises(Unavailable, match="open-lock was locked for"):
        holdfast.open(url_at(tmp_path))


def test_who_only_read_closes_beside_one_who_opens(tmp_path: Path) -> None:
    recorded(tmp_path, "one")
    store = holdfast.open(url_at(tmp_path))
    assert texts(store) == ["one"]
    with locked(str(tmp_path / "store" / "open-lock"), 1):
        began = time.monotonic()
        store.close()
        assert time.monotonic() - began < SOON
    with holdfast.open(url_at(tmp_path)) as store:
        assert texts(store) == ["one"]


KILLED = """
import os, signal, sys
import holdfast
from holdfast.backends import writers

calls = 0

def last(call):
    def done(*given):
        global calls
        result = call(*given)
        calls += 1
        if calls == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return done

os.ftruncate, writers.write_at = last(os.ftruncate), last(writers.write_at)
holdfast.open(sys.argv[1]).session("s").append(holdfast.user("two"))
"""
"""Appends, and is killed behind one of the calls by which it notes that it writes."""


@pytest.mark.parametrize("call", [1, 2])
def test_who_is_killed_as_it_notes_itself_keeps_nobody_from_opening(tmp_path: Path, call: int) -> None:
    url = f"file://{tmp_path}/store"
    with holdfast.open(url) as store:
        store.session("s").append(holdfast.user("one"))
        ended = subprocess.run([sys.executable, "-c", KILLED, url, str(call)], check=False)
        assert ended.returncode == -signal.SIGKILL
        with holdfast.open(url) as other:
            assert [message.text for message in other.session("s").messages()] == ["one"]
            other.session("s").append(holdfast.user("three"))
        assert [message.text for message in store.session("s").messages()] == ["one", "three"]
        assert store.check().ok
