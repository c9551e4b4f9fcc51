"""Backups: of a running store, whole or not there, restored on any backend, and refused when damaged anywhere."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

import holdfast
from holdfast import Corrupt, Exists, Invalid, NotFound, Store, Unavailable, user
from holdfast.backend import Heads
from holdfast.backends.sqlite import SQLiteBackend
from holdfast.cli.writing import written as written_by_the_command
from holdfast.finding.listing import all_heads
from holdfast.moving.bundlefiles import packing
from holdfast.moving.digests import session_digest
from holdfast.paths import appear
from holdfast.retention.archives import write_archive
from shell import Shell
from test_copying import WRITER, digests, fill


@pytest.fixture(params=["memory", "file", "sqlite"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    places = {"memory": "memory://", "file": f"file://{tmp_path}/target", "sqlite": f"sqlite://{tmp_path}/target.db"}
    with holdfast.open(places[request.param]) as opened:
        yield opened


def lines(path: Path) -> list[bytes]:
    with zstandard.open(path, "rb") as file:
        return file.read().splitlines(keepends=True)


def written(path: Path, of: list[bytes]) -> Path:
    with open(path, "wb") as file, packing(file) as packed:
        packed.write(b"".join(of))
    return path


def test_a_backup_of_each_backend_restores_on_each(store: Store, target: Store, tmp_path: Path) -> None:
    fill(store)
    done = store.backup(str(tmp_path / "b.jsonl.zst"))
    assert (done.sessions, done.documents, done.damaged) == (10, 1, {})
    assert done.size == os.path.getsize(done.path)
    assert stat.S_IMODE(os.stat(done.path).st_mode) == 0o600
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".b")]
    report = target.restore(done.path)
    assert (report.sessions, report.documents, report.failed) == (10, 1, ())
    assert digests(target) == digests(store)
    away, there = store.head("away", trashed=True), target.head("away", trashed=True)
    assert there.trashed
    assert session_digest(target, there) == session_digest(store, away)
    document = target.documents.get("notes/x.md")
    assert document is not None
    assert document.text == "# X"
    assert target.check().ok
    again = target.restore(done.path, merge=True)
    assert (again.new, again.failed) == (0, ())
    assert [m.text for m in target.trash.restore("away").messages()] == ["away"]


def test_a_store_that_holds_something_is_refused_unless_told(store: Store, tmp_path: Path) -> None:
    store.session("s").append(user("mine"))
    path = str(tmp_path / "b.zst")
    store.backup(path)
    with pytest.raises(Invalid, match="not empty"):
        store.restore(path)
    with pytest.raises(Exists):
        store.backup(path)
    store.session("s").append(user("more"))
    assert store.backup(path, replace=True).sessions == 1
    store.session("s").append(user("and more"))
    (failed,) = store.restore(path, merge=True).failed  # it was active later: it stays
    assert failed.session == "s"
    assert store.session("s").last == 3
    with pytest.raises(NotFound):
        store.restore(str(tmp_path / "none"))


@pytest.mark.parametrize("engine", ["stdlib", "apsw"])
def test_a_backup_of_sqlite_is_of_one_moment_while_another_process_writes(tmp_path: Path, engine: str) -> None:
    url = f"sqlite://{tmp_path}/live.db?engine={engine}"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert writer.stdout is not None
    try:
        with holdfast.open(url) as store:
            while int(writer.stdout.readline().replace(b"ready", b"0")) < 200:
                pass
            for n in range(4):
                done = store.backup(str(tmp_path / f"b{n}.zst"))
                assert done.one_moment
                with holdfast.open("memory://") as target:
                    assert target.restore(done.path).failed == ()
                    # The writer goes from session to session: at no moment is one far behind another.
                    counts = sorted(sum(not e.hidden and e.type == "message" for e in s) for s in logs(target))
                    keys = {e.id for s in logs(target) for e in s if e.type == "message"}
                    assert keys == {str(i) for i in range(len(keys))}
                    assert len(counts) == 7
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()
    with holdfast.open(url) as store:
        assert store.check().ok


@pytest.mark.parametrize("engine", ["stdlib", "apsw"])
def test_either_library_copies_a_file_as_it_is(tmp_path: Path, engine: str) -> None:
    """Also into a place that can't be had, which is told as of anything else, and leaves the store as it was."""
    with holdfast.open(f"sqlite://{tmp_path}/s.db?engine={engine}&blobs=database") as store:
        fill(store)
        backend = store.backend
        assert isinstance(backend, SQLiteBackend)
        backend.backup(str(tmp_path / "copy.db"))
        store.session("s").append(user("not in it"))
        with holdfast.open(f"sqlite://{tmp_path}/copy.db") as copy:
            assert copy.check().ok
            assert copy.get("s") is None
            assert len(digests(copy)) == len(digests(store)) - 1
        with pytest.raises(Unavailable):
            backend.backup(str(tmp_path / "no-folder" / "copy.db"))
        assert store.check().ok


def logs(store: Store) -> list[list[holdfast.Event]]:
    ids = [head.ref.id for heads in all_heads(store.backend) for head in heads]
    return [list(store.session(id).events(include_hidden=True)) for id in ids]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    with holdfast.open(made.url) as store:
        fill(store)
    return made


def test_a_backup_that_is_killed_leaves_nothing_at_the_place(shell: Shell) -> None:
    with holdfast.open(shell.url) as store:
        for n in range(30):
            store.session(f"more-{n}").append(*[user(os.urandom(500).hex()) for _ in range(200)])
    shell.ok("backup", "b.zst")
    whole = (shell.place / "b.zst").read_bytes()
    for _ in range(5):
        running = shell.start("backup", "b.zst", "--force")
        while running.poll() is None and not list(shell.place.glob(".b.zst.*")):
            pass
        running.kill()
        running.communicate()
        shell.ok("restore", "b.zst", "--dry-run", "--store", "memory://")
    (shell.place / "b.zst").unlink()
    running = shell.start("backup", "b.zst")
    while running.poll() is None and not list(shell.place.glob(".b.zst.*/backup")):
        pass
    running.kill()
    running.communicate()
    assert not (shell.place / "b.zst").exists()
    assert len(whole) > 1_000_000
    for left in shell.place.glob(".b.zst.*"):
        shutil.rmtree(left)
    shell.ok("backup", "b.zst")


def test_a_file_that_was_cut_off_anywhere_is_told_and_nothing_is_restored(shell: Shell) -> None:
    shell.ok("backup", "b.zst")
    content = (shell.place / "b.zst").read_bytes()
    all_lines = lines(shell.place / "b.zst")
    cut = shell.place / "cut.zst"
    for end in [0, 3, 10, *range(20, len(content) - 1, len(content) // 12), len(content) - 5]:
        cut.write_bytes(content[:end])
        done = shell("restore", "cut.zst", "--store", "sqlite:new.db")
        assert done.code in (2, 5), (end, done)
        assert not (shell.place / "new.db").exists()
    for end in (1, 5, len(all_lines) // 2, len(all_lines) - 1):
        written(cut, all_lines[:end])  # the stream is whole, but lines are missing
        done = shell("restore", "cut.zst", "--store", "sqlite:new.db")
        assert done.code == 5
        assert f"line {end:,}" in done.err
        assert "nothing was restored" in done.err
        assert not (shell.place / "new.db").exists()
    written(cut, [*all_lines[:3], *all_lines[4:]])
    assert shell("restore", "cut.zst", "--store", "sqlite:new.db").code == 5
    assert not (shell.place / "new.db").exists()


def test_any_changed_byte_is_told_and_nothing_is_restored(tmp_path: Path) -> None:
    with holdfast.open("memory://") as store, holdfast.open("memory://") as target:
        for id in "ab":
            store.session(id).append(user(f"in {id}"))
        store.documents.put("notes/x.json", {"a": 1})
        path = Path(store.backup(str(tmp_path / "b.zst")).path)
        content = path.read_bytes()
        for at in range(len(content)):
            path.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
            try:
                assert target.restore(str(path), dry_run=True).sessions == 2
            except (Corrupt, Invalid):
                assert target.backend.kinds() == []
            else:
                assert lines(path) == lines(written(tmp_path / "same.zst", lines(path)))
        path.write_bytes(content)
        assert target.restore(str(path)).sessions == 2


def test_a_changed_event_with_a_right_checksum_is_found_by_the_digest(tmp_path: Path) -> None:
    with holdfast.open("memory://") as store, holdfast.open("memory://") as target:
        store.session("s").append(user("ten"))
        path = Path(store.backup(str(tmp_path / "b.zst")).path)
        changed = [sealed(json.loads(line.replace(b'"ten"', b'"TEN"'))) for line in lines(path)]
        written(path, changed)
        with pytest.raises(Corrupt, match="digest"):
            target.restore(str(path))
        assert target.backend.kinds() == []


def sealed(line: dict[str, object]) -> bytes:
    rest = json.dumps({name: value for name, value in line.items() if name != "crc"}, separators=(",", ":")).encode()
    return b'{"crc":"%08x",%s\n' % (zlib.crc32(rest), rest[1:])


def test_a_newer_version_is_refused_and_an_older_bundle_opens(tmp_path: Path) -> None:
    with holdfast.open("memory://") as store, holdfast.open("memory://") as target:
        store.session("s").append(user("hi"))
        path = Path(store.backup(str(tmp_path / "b.zst")).path)
        head, *rest = map(json.loads, lines(path))
        written(path, [sealed({**head, "holdfast": 4}), *map(sealed, rest)])
        with pytest.raises(Invalid, match="version 4"):
            target.restore(str(path))
        # As versions before wrote it: no digests, no last line. It is imported; to be restored, it lacks its end.
        old = [sealed({k: v for k, v in line.items() if k not in ("digest", "ends")}) for line in (head, *rest[:-1])]
        assert [one.error for one in holdfast.bundle.read_bundle(target, old)] == [None]
        assert target.session("s").last == 1
        written(path, old)
        with pytest.raises(Corrupt, match="cut off"):
            target.restore(str(path), merge=True)


def damage(shell: Shell) -> None:
    """Change a session's first event."""
    db = sqlite3.connect(shell.place / "store.db")
    with db:
        db.execute("UPDATE entry SET body = x'00' WHERE seq = 1 AND head = (SELECT n FROM head WHERE id = 'small-2')")
    db.close()


def test_a_damaged_store_is_backed_up_and_restored_as_far_as_it_is_whole(shell: Shell) -> None:
    damage(shell)
    done = shell("backup", "b.zst", "--json")
    assert done.code == 5
    assert list(done.json["damaged"]) == ["small-2"]
    refused = shell("restore", "b.zst", "--store", "sqlite:new.db")
    assert refused.code == 5
    assert "small-2" in refused.err
    told = shell("restore", "b.zst", "--partial", "--store", "sqlite:new.db", "--json")
    assert told.code == 8
    assert [one["session"] for one in told.json["failed"]] == ["small-2"]
    assert told.json["sessions"] == 9


def test_the_command_backs_up_and_restores(shell: Shell) -> None:
    done = shell.ok("backup", "b.jsonl.zst", "--json").json
    assert (done["sessions"], done["one_moment"]) == (10, True)
    assert shell("backup", "b.jsonl.zst").code == 4
    shell.ok("backup", "b.jsonl.zst", "--force")
    dry = shell.ok("restore", "b.jsonl.zst", "--store", "file:new", "--dry-run", "--json").json
    assert dry["sessions"] == 10
    assert not (shell.place / "new").exists()
    shell.ok("restore", "b.jsonl.zst", "--store", "file:new")
    assert shell("restore", "b.jsonl.zst", "--store", "file:new").code == 2
    shell.ok("import", "b.jsonl.zst", "--store", "sqlite:other.db")  # it is a bundle like any other
    with holdfast.open(shell.url) as store, holdfast.open(f"file://{shell.place}/new") as new:
        assert digests(new) == digests(store)
    plain = shell.place / "plain.jsonl"
    plain.write_bytes(b"".join(lines(shell.place / "b.jsonl.zst")))
    shell.ok("restore", "plain.jsonl", "--store", "sqlite:plain.db")  # packed or not
    for line in plain.read_bytes().splitlines():
        json.loads(line)


def test_a_view_backs_up_only_what_is_hers(store: Store, tmp_path: Path) -> None:
    store.session("a", user="ada").append(user("hers"))
    store.session("b", user="bob").append(user("his"))
    done = store.for_user("ada").backup(str(tmp_path / "ada.zst"))
    assert done.sessions == 1
    assert b"his" not in b"".join(lines(Path(done.path)))


def test_a_line_longer_than_any_is_refused(tmp_path: Path) -> None:
    with holdfast.open("memory://") as target:
        bomb = io.BytesIO()
        with packing(bomb) as packed:
            for _ in range(70):
                packed.write(b" " * 1024 * 1024)
        (tmp_path / "bomb.zst").write_bytes(bomb.getvalue())
        with pytest.raises(Corrupt, match="longer than any"):
            target.restore(str(tmp_path / "bomb.zst"))


def test_a_dry_run_says_what_a_backup_would_say_and_writes_nothing(shell: Shell) -> None:
    before = sorted(path.name for path in shell.place.iterdir())
    tried = shell.ok("backup", "b.jsonl.zst", "--dry-run", "--json").json
    assert sorted(path.name for path in shell.place.iterdir()) == before
    done = shell.ok("backup", "b.jsonl.zst", "--json").json
    assert tried.pop("dry_run") is True
    assert abs(tried.pop("size") - done.pop("size")) < 100
    assert tried == done
    assert "is there already" in shell("backup", "b.jsonl.zst", "--dry-run").err
    assert "would be in" in shell.ok("backup", "b.jsonl.zst", "--dry-run", "--force").err


def test_a_dry_run_names_what_is_damaged(shell: Shell) -> None:
    damage(shell)
    tried, done = (shell("backup", "b.jsonl.zst", "--json", *more) for more in (["--dry-run"], []))
    assert (tried.code, done.code) == (5, 5)
    assert tried.json["damaged"] == done.json["damaged"] != {}


def test_a_session_that_comes_back_from_the_trash_meanwhile_is_in_the_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with holdfast.open("memory://") as store, holdfast.open("memory://") as target:
        for id in ("away", "purged", "there"):
            store.session(id).append(user(id))
        store.trash.put("away")
        store.trash.put("purged")
        scan, looked, restored = store.backend.scan, list[bool](), list[str]()

        def late(kind: str, after: str = "", limit: int = 1000, *, trashed: bool = False) -> Heads:
            if trashed and False in looked and not restored:
                restored.append(store.trash.restore("away").id)  # all that are not away were told
                store.trash.purge("purged")
            looked.append(trashed)
            return scan(kind, after, limit, trashed=trashed)

        monkeypatch.setattr(store.backend, "scan", late)
        monkeypatch.setattr("holdfast.backends.memory.BLOB_PATIENCE", 0.01)  # the purge does not wait for the backup
        done = store.backup(str(tmp_path / "b"))
        assert (done.sessions, done.damaged) == (2, {})
        assert target.restore(done.path).sessions == 2
        assert [m.text for m in target.session("away").messages()] == ["away"]


@pytest.mark.parametrize("look", range(1, 7))
@pytest.mark.parametrize("goes", [True, False])
def test_a_session_that_is_moved_during_a_backup_is_in_it_once(
    goes: bool, look: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with holdfast.open("memory://") as store, holdfast.open("memory://") as target:
        for id in ("a", "moved", "z"):
            store.session(id).append(user(id))
        if not goes:
            store.trash.put("moved")
        scan, looks = store.backend.scan, 0

        def late(kind: str, after: str = "", limit: int = 1000, *, trashed: bool = False) -> Heads:
            nonlocal looks
            found = scan(kind, after, limit, trashed=trashed)
            looks += kind == "session"
            if (looks, kind) == (look, "session"):
                store.trash.put("moved") if goes else store.trash.restore("moved")
            return found

        monkeypatch.setattr(store.backend, "scan", late)
        done = store.backup(str(tmp_path / "b"))
        assert (done.sessions, done.damaged) == (3, {})
        assert target.restore(done.path).sessions == 3
        assert [m.text for m in (target.trash.get("moved") or target.session("moved")).messages()] == ["moved"]


@pytest.fixture(params=[errno.EPERM, errno.ENOTSUP])
def unlinked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that has no links, as FAT."""

    def link(source: str, path: str) -> None:
        raise OSError(request.param, os.strerror(request.param), source, None, path)

    monkeypatch.setattr(os, "link", link)


@pytest.mark.usefixtures("unlinked")
def test_files_appear_whole_and_replace_none_where_there_are_no_links(tmp_path: Path) -> None:
    url, kept = f"sqlite://{tmp_path}/a.db", tmp_path / "kept"
    with holdfast.open(url) as store:
        store.session("s").append(user("hello"))

    def export(path: Path) -> None:
        with written_by_the_command(str(path), force=False) as file:
            file.write(b"exported")

    def backup(path: Path) -> None:
        with holdfast.open(url) as store:
            store.backup(str(path))

    def archive(path: Path) -> None:
        with holdfast.open(url) as store:
            assert write_archive(store, str(path), ["s"]) == {}

    for write in (export, backup, archive):
        path = tmp_path / write.__name__
        write(path)
        assert path.stat().st_size > 0
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        kept.write_text("somebody's")
        with pytest.raises(Exists):
            write(kept)
        assert kept.read_text() == "somebody's"
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith("a.db")) == [
        "archive",
        "backup",
        "export",
        "kept",
    ]


@pytest.mark.usefixtures("unlinked")
def test_without_links_a_file_that_appears_meanwhile_stays_and_a_failure_leaves_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, path = tmp_path / "beside", tmp_path / "path"
    beside.write_text("mine")
    path.write_text("theirs")
    with pytest.raises(FileExistsError):
        appear(str(beside), str(path))
    assert (beside.read_text(), path.read_text()) == ("mine", "theirs")
    path.unlink()

    def full(source: str, target: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space"):
            appear(str(beside), str(path))
    assert not path.exists()
    appear(str(beside), str(path))
    assert path.read_text() == "mine"


@pytest.mark.usefixtures("unlinked")
def test_without_links_an_interrupt_takes_no_whole_file_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside, path = tmp_path / "beside", tmp_path / "path"
    beside.write_text("mine")
    replace = os.replace

    def interrupted(source: str, target: str) -> None:
        replace(source, target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            appear(str(beside), str(path))
    assert path.read_text() == "mine"
