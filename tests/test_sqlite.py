"""The SQLite file as several processes hold it: who waits for whom, which library opens it, and its schema."""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import holdfast
from holdfast import Note, Store, note, user
from holdfast.backends import disk, migrate
from holdfast.backends.engine import Engine
from holdfast.errors import Corrupt, HoldfastError, Invalid, Unavailable
from holdfast.plan import Commit, Entry, Ref

SOON = 5.0
"""Seconds that are far less than a wait for the lock, and far more than the work takes on a busy machine."""


@contextmanager
def a_stopped_writer(path: Path) -> Iterator[None]:
    """The writers' lock, held as by a process that was stopped amid a write: a lock goes with its open file."""
    fd = os.open(f"{path}-lock", os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def test_who_only_reads_waits_for_no_writer(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    url = f"sqlite://{path}"
    with holdfast.open(url) as store:
        store.session("s").append(note("hello"))
    with a_stopped_writer(path):
        began = time.monotonic()
        with holdfast.open(url) as store:
            assert [info.id for info in store.sessions()] == ["s"]
            assert [event.payload for event in store.get("s").events()] == [note("hello")]  # type: ignore[union-attr]
            assert store.check().ok
        assert time.monotonic() - began < SOON
    with holdfast.open(url) as store:
        assert store.session("s").append(note("on")).last == 2


def test_who_writes_waits_for_the_writer_as_long_as_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    url = f"sqlite://{path}?timeout=1"
    with holdfast.open(url) as store:
        store.session("s").append(note("hello"))
    with a_stopped_writer(path), holdfast.open(url) as store:
        session = store.session("s")
        with pytest.raises(Unavailable, match="locked for 1 s"):
            session.append(note("more"))
        assert [event.payload for event in session.events()] == [note("hello")]


@pytest.mark.parametrize("engine", ["stdlib", "apsw"])
def test_entries_with_and_without_ids_share_a_transaction(tmp_path: Path, engine: str) -> None:
    ref = Ref("session", "s")
    entries = [Entry("", 1, b"a"), Entry("one", 2, b"b"), Entry("", 3, b"", void=True), Entry("two", 4, b"d" * 999)]
    with holdfast.open(f"sqlite://{tmp_path}/store.db?engine={engine}") as store:
        store.backend.commit([Commit(ref=ref, if_rev=0)])
        store.backend.commit([Commit(ref=ref, append=entries), Commit(ref=ref, append=entries[:1])])
        found = store.backend.read(ref, voided=True)
        assert [(e.id, e.at, e.body, e.void, e.seq) for e in found] == [
            (e.id, e.at, e.body, e.void, seq) for seq, e in enumerate([*entries, entries[0]], 1)
        ]
        assert [e.seq for e in store.backend.read(ref, ids=["one", "two"])] == [2, 4]
        assert store.backend.verify() == []
    with closing(sqlite3.connect(tmp_path / "store.db")) as db:
        kinds = "SELECT typeof(id), typeof(void), typeof(body) FROM entry ORDER BY n"
        assert db.execute(kinds).fetchall() == [
            (id, "integer", "blob") for id in ("null", "text", "null", "text", "null")
        ]
        kinds = "SELECT typeof(tags), typeof(counts), typeof(body), typeof(runs), typeof(dead) FROM head"
        assert set(db.execute(kinds).fetchall()) == {("blob", "blob", "blob", "blob", "integer")}


def test_a_store_that_is_closed_beside_a_stopped_writer_keeps_its_log(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    url = f"sqlite://{path}"
    store = holdfast.open(url)
    store.session("s").append(note("hello"))
    with a_stopped_writer(path):
        began = time.monotonic()
        store.close()
        assert time.monotonic() - began < SOON
        # A checkpoint would be one beside a writer; elsewhere than on Linux SQLite's own locks must keep them apart.
        assert sys.platform != "linux" or os.path.getsize(f"{path}-wal") > 0
    with holdfast.open(url) as store:
        assert [event.payload for event in store.session("s").events()] == [note("hello")]
    assert not os.path.exists(f"{path}-wal")


def test_files_and_folders_are_private_whatever_the_umask(tmp_path: Path) -> None:
    code = (
        "import os, sys, holdfast; os.umask(0); store = holdfast.open('sqlite://' + sys.argv[1] + '/in/store.db')\n"
        "store.session('a').append(holdfast.user('x' * 100_000)); store.search('x')\n"
        "for folder, folders, files in os.walk(sys.argv[1]):\n"
        "    for name in folders + files: print(oct(os.lstat(folder + '/' + name).st_mode), name)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout
    modes = {name: int(mode, 8) for mode, name in (line.split() for line in told.splitlines())}
    assert {"in", "store.db", "store.db-wal", "store.db-shm", "store.db-lock", "store.db-blobs"} <= set(modes)
    assert len(modes) > 6  # and the large value with its folder
    for name, mode in modes.items():
        assert stat.S_IMODE(mode) == (0o700 if stat.S_ISDIR(mode) else 0o600), name


WRITES = """
import os, select, sys, holdfast
while not select.select([sys.stdin], [], [], 0)[0]:
    with holdfast.open(sys.argv[1]) as store:
        for _ in range(50):
            store.session("s").append(holdfast.note(os.urandom(30_000).hex()))
"""
READS = """
import select, sys, holdfast
while not select.select([sys.stdin], [], [], 0)[0]:
    with holdfast.open(sys.argv[1]) as store:
        assert [len(list(store.session(info.id).events(last=5))) for info in store.sessions()] == [5]
"""
HOLDS, HELD = 8, 0.25
"""How often the lock is held, and for how many seconds: longer than one who closes waits for it."""

if sys.platform == "linux":  # elsewhere SQLite's own locks must do

    def test_a_checkpoint_happens_only_under_the_lock_of_the_writers(tmp_path: Path) -> None:
        path = tmp_path / "store.db"
        url = f"sqlite://{path}?durability=process"
        with holdfast.open(url) as store:
            store.session("s").append(*map(note, "abcde"))
        others = [
            subprocess.Popen([sys.executable, "-c", code, url], stdin=subprocess.PIPE)
            for code in (WRITES, WRITES, READS)
        ]
        try:
            for _ in range(HOLDS):
                with a_stopped_writer(path):
                    before, until = content_of(path), time.monotonic() + HELD
                    while time.monotonic() < until:
                        assert content_of(path) == before
                began = time.monotonic()
                while content_of(path) == before:  # there are checkpoints at other times
                    assert time.monotonic() - began < 60
        finally:
            for other in others:
                other.communicate(timeout=60)
        assert [other.returncode for other in others] == [0, 0, 0]
        with holdfast.open(url) as store:
            assert store.check().ok


def content_of(path: Path) -> bytes:
    """What the file itself holds, which a checkpoint changes. This process has no lock on it to lose."""
    return hashlib.blake2b(path.read_bytes()).digest()


def test_a_file_that_has_two_names_has_one_lock_and_one_place_for_large_values(tmp_path: Path) -> None:
    path, link = tmp_path / "store.db", tmp_path / "elsewhere" / "link.db"
    link.parent.mkdir()
    link.symlink_to(path)  # leads to nothing yet
    with holdfast.open(f"sqlite://{link}?timeout=1") as store:
        session = store.session("s")
        session.append(user("large " * 50_000))
        with a_stopped_writer(path), pytest.raises(Unavailable, match="locked for 1 s"):
            session.append(note("more"))
        with holdfast.open(f"sqlite://{path}") as same:
            assert [str(part.content) for m in same.session("s").messages() for part in m.parts] == ["large " * 50_000]  # type: ignore[union-attr]
    assert os.listdir(link.parent) == ["link.db"]


@pytest.mark.parametrize(("first", "second"), [("stdlib", "apsw"), ("apsw", "stdlib")])
def test_a_process_uses_one_library_on_a_file(tmp_path: Path, first: str, second: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    url = f"sqlite://{tmp_path}/real/store.db?engine={first}"
    other = f"sqlite://{tmp_path}/link/store.db?engine={second}"
    with holdfast.open(url) as store:
        store.session("s").append(note("hello"))
        with holdfast.open(url):
            pass
        for _ in range(2):  # one that was refused takes nothing from the one that is open
            with pytest.raises(Invalid, match=f"engine={first}"):
                holdfast.open(other)
        assert len(list(store.session("s").events())) == 1
    with holdfast.open(other) as store:
        assert [event.payload for event in store.session("s").events()] == [note("hello")]


if sys.platform == "linux":  # the guard is made of Linux's locks

    def test_a_file_that_took_the_place_of_another_is_guarded_too(tmp_path: Path) -> None:
        path = tmp_path / "store.db"
        with holdfast.open(f"sqlite://{path}") as old:
            old.session("s").append(note("old"))
            for suffix in ("", "-wal", "-shm"):
                os.rename(f"{path}{suffix}", f"{tmp_path}/old.db{suffix}")
            with holdfast.open(f"sqlite://{path}") as new:
                new.session("s").append(note("new"))
                for place in (path, tmp_path / "old.db"):
                    file = f":{place.stat().st_ino} "
                    assert any(
                        "OFDLCK" in line and file in line for line in Path("/proc/locks").read_text().split("\n")
                    )
        with holdfast.open(f"sqlite://{path}") as new:
            assert [event.payload for event in new.session("s").events()] == [note("new")]


@pytest.mark.parametrize("replaced", [False, True])
def test_a_store_whose_file_was_moved_away_is_not_mixed_with_what_takes_its_place(
    replaced: bool, tmp_path: Path
) -> None:
    path, away = tmp_path / "store.db", tmp_path / "away.db"
    with holdfast.open(f"sqlite://{path}") as old:
        session = old.session("s")
        session.append(note("old"))
        for suffix in ("", "-wal", "-shm"):
            os.rename(f"{path}{suffix}", f"{away}{suffix}")
        if replaced:
            with holdfast.open(f"sqlite://{path}") as new:
                new.session("s").append(note("new"))
        with pytest.raises(Unavailable, match="moved away"):
            session.append(note("late"))
        with ThreadPoolExecutor(4) as threads:  # more readers than are open: the others would open the wrong file
            told = list(threads.map(lambda _: _read(old), range(16)))
        assert {words for words in told if words is not None} <= {("old",)}
        if replaced:
            for suffix in ("-wal", "-shm"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
        for suffix in ("", "-wal", "-shm"):
            os.replace(f"{away}{suffix}", f"{path}{suffix}")
        session.append(note("back"))
    with holdfast.open(f"sqlite://{path}") as again:
        assert _read(again) == ("old", "back")
        assert again.check().findings == ()


def _read(store: Store) -> tuple[object, ...] | None:
    """The words of the session, None where the store says that it can't tell."""
    try:
        return tuple(event.payload.text for event in store.session("s").events() if isinstance(event.payload, Note))
    except Unavailable:
        return None


def test_a_store_that_could_not_be_opened_claims_no_library(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"no database " * 100)
    for engine in ("stdlib", "apsw"):
        with pytest.raises(Corrupt):
            holdfast.open(f"sqlite://{path}?engine={engine}")


def test_a_forked_child_knows_the_library_too(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with holdfast.open(f"sqlite://{path}") as store:
        child = os.fork()
        if not child:
            code = 1
            try:
                store.session("s").append(note("from the child"))
                holdfast.open(f"sqlite://{path}?engine=apsw")
            except Invalid:
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert len(list(store.session("s").events())) == 1


def schema_of(path: Path) -> tuple[int, list[tuple[str, ...]]]:
    """The number of a file's schema, and all that it holds."""
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name").fetchall()
        return db.execute("PRAGMA user_version").fetchone()[0], rows


def apply(path: Path) -> None:
    with closing(Engine("stdlib").connect(str(path), 30)) as db:
        migrate.migrate(db, str(path))


def test_a_store_of_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    holdfast.open(f"sqlite://{path}").close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(Invalid, match="newer holdfast"):
        holdfast.open(f"sqlite://{path}")
    assert path.read_bytes() == before


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (n INTEGER)")
        db.commit()


def newer(path: Path) -> None:
    holdfast.open(f"sqlite://{path}").close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")


def damaged(path: Path) -> None:
    with holdfast.open(f"sqlite://{path}") as store:
        store.session("s").append(note("hello"))
    with path.open("r+b") as file:  # the schema's own page, behind the header
        file.seek(100)
        file.write(b"\xff" * 400)


def text(path: Path) -> None:
    path.write_text("no database, but what somebody wrote\n" * 100)


def files_in(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


@pytest.mark.parametrize("engine", ["stdlib", "apsw"])
@pytest.mark.parametrize("make", [foreign, newer, damaged, text])
@pytest.mark.parametrize("locked", [False, True], ids=["", "locked"])
def test_a_file_that_is_refused_is_left_as_it_was_with_nothing_beside_it(
    tmp_path: Path, make: Callable[[Path], None], engine: str, *, locked: bool
) -> None:
    path = tmp_path / "f.db"
    make(path)
    Path(f"{path}-lock").unlink(missing_ok=True)
    if locked:  # as some left it
        Path(f"{path}-lock").touch()
    before = files_in(tmp_path)
    with pytest.raises((Invalid, Corrupt)):
        holdfast.open(f"sqlite://{path}?engine={engine}")
    after = files_in(tmp_path)
    if locked:
        assert after.pop("f.db-lock").startswith(b"process ")
        del before["f.db-lock"]
    assert after == before


def test_a_store_that_could_not_be_begun_leaves_nothing(tmp_path: Path) -> None:
    taken = tmp_path / "blobs"
    with holdfast.open(f"sqlite://{tmp_path}/first.db?blobs=file://{taken}"):
        pass
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(Invalid, match="another store keeps"):
        holdfast.open(f"sqlite://{tmp_path}/second.db?blobs=file://{taken}")
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_reader_makes_no_lock_where_none_was(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with holdfast.open(f"sqlite://{path}") as store:
        store.session("s").append(note("hello"))
    Path(f"{path}-lock").unlink()
    with holdfast.open(f"sqlite://{path}") as store:
        assert [info.id for info in store.sessions()] == ["s"]
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["store.db"]


def test_a_lock_that_is_another_file_each_time_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "samestat", lambda *_: False)  # as a file system may tell it
    with pytest.raises(Unavailable, match="another file"), disk.locked(f"{tmp_path}/lock", 0.05):
        pass


def test_who_waited_for_a_lock_that_was_removed_takes_the_one_that_is_there(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")

    def wait() -> bool:
        with disk.locked(path, 30) as mine:
            return os.path.samestat(os.fstat(mine), os.stat(path))

    def waiting() -> bool:
        return [os.path.realpath(fd) for fd in Path("/proc/self/fd").iterdir()].count(path) == 2

    with ThreadPoolExecutor() as pool:
        with disk.locked(path, 30):
            waiter = pool.submit(wait)
            while not waiting():
                assert not waiter.done()
            os.unlink(path)
        assert waiter.result(30)


def test_a_script_that_was_interrupted_leaves_the_schema_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    with holdfast.open(f"sqlite://{path}") as store:
        store.session("s").append(note("hello"))
    before = schema_of(path)
    shipped = migrate.scripts("sqlite")
    number = shipped[-1][0] + 1
    scripts = [*shipped, (number, "CREATE TABLE more (n INTEGER); CREATE TABLE head (n INTEGER);")]
    with monkeypatch.context() as patched:
        patched.setattr(migrate, "scripts", lambda dialect: scripts)
        patched.setattr(migrate, "NEWEST", number)
        with pytest.raises(HoldfastError, match="already exists"):
            holdfast.open(f"sqlite://{path}")
        assert schema_of(path) == before
        scripts[-1] = (number, "CREATE TABLE more (n INTEGER);")
        holdfast.open(f"sqlite://{path}").close()
        assert schema_of(path)[0] == number
    with pytest.raises(Invalid, match="newer holdfast"):
        holdfast.open(f"sqlite://{path}")


def test_a_migrated_schema_is_that_of_a_new_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = migrate.scripts("sqlite")
    assert shipped[-1][0] == migrate.NEWEST
    apply(tmp_path / "new.db")
    for count in range(1, len(shipped) + 1):
        monkeypatch.setattr(migrate, "scripts", lambda dialect, count=count: shipped[:count])
        apply(tmp_path / "migrated.db")
        assert schema_of(tmp_path / "migrated.db")[0] == shipped[count - 1][0]
    assert schema_of(tmp_path / "migrated.db") == schema_of(tmp_path / "new.db")
