"""Copies of whole stores: verified on both sides, resumed after kill -9, in step with a store that is written to."""

from __future__ import annotations

import io
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import msgspec
import pytest

import holdfast
from holdfast import Corrupt, Large, Store, Unavailable, note, user
from holdfast.cli.app import App
from holdfast.cli.moving import _Told
from holdfast.copies import Copied, needed
from holdfast.finding.listing import all_heads
from holdfast.heads.info import session_ref
from holdfast.history import ancestry
from holdfast.moving import copying
from holdfast.moving.copying import Copier, copy_store
from holdfast.moving.digests import session_digest
from holdfast.moving.following import Behind, follow_store
from holdfast.packed import PackedBody, Packing, Span, handed_on, packed_entries
from holdfast.plan import Commit, Entry, Head, Refused
from shell import Shell

PATIENCE = 60


@pytest.fixture(params=["memory", "file", "sqlite"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store, on each backend, whichever `store` is on."""
    places = {"memory": "memory://", "file": f"file://{tmp_path}/target", "sqlite": f"sqlite://{tmp_path}/target.db"}
    with holdfast.open(places[request.param]) as opened:
        yield opened


def fill(store: Store) -> None:
    """Sessions of every kind: small and long ones, forks, hidden events, large values, documents, one in the trash."""
    for n in range(5):
        store.session(f"small-{n}", user="ada", labels=["x"]).append(user(f"one {n}"), user("two"))
    store.session("empty")
    long = store.session("long", title="T")
    for start in range(0, 2500, 500):
        long.append(*[user(f"message {start + n}") for n in range(500)])
    long.remove_last()
    long.fork(at=700, id="fork").append(note("on its own"))
    store.session("large").append(note(Large.from_stream(io.BytesIO(b"large\n" * 700_000))))
    store.session("away").append(user("away"))
    store.trash.put("away")
    store.documents.put("notes/x.md", "# X")


def digests(store: Store) -> dict[str, str]:
    """The digest of each session."""
    return {head.ref.id: session_digest(store, head) for heads in all_heads(store.backend) for head in heads}


def test_a_copy_has_the_same_digests_on_both_sides(store: Store, target: Store) -> None:
    fill(store)
    told: list[str] = []
    report = copy_store(store, target, told=lambda one: told.append(one.session or one.document))
    assert report.failed == ()
    assert (report.sessions, report.documents) == (9, 1)
    assert report.new == report.events + 1  # and the document
    assert digests(target) == digests(store)
    assert len(digests(target)) == 9
    assert sorted(told) == sorted([*digests(store), "notes/x.md"])
    assert target.check().ok
    revs = {id: target.head(id).rev for id in digests(target)}
    again = copy_store(store, target)
    assert (again.new, again.events, again.failed) == (0, report.events, ())
    assert {id: target.head(id).rev for id in digests(target)} == revs
    store.session("long").append(user("more"))
    store.session("small-1").remove_last()
    assert copy_store(store, target).new == 2
    assert digests(target) == digests(store)


@pytest.mark.parametrize("change", ["title", "event", "hidden", "metadata"])
def test_a_digest_tells_every_difference(store: Store, change: str) -> None:
    for id in ("s", "t"):
        store.session(id, created_at=1, title="a").append(holdfast.Event(payload=user("hi"), at=5, id="k"))
    one, other = (msgspec.structs.replace(store.head(id), ref=session_ref("s")) for id in "st")
    assert msgspec.structs.replace(other, rev=one.rev) == one
    before = session_digest(store, store.head("s"))
    session = store.session("s")
    if change == "title":
        session.update(title="b")
    elif change == "metadata":
        session.update(metadata={"a": 1})
    elif change == "event":
        session.append(user("more"))
    else:
        store.backend.commit([Commit(ref=session_ref("s"), void=[holdfast.plan.Range(1, 1)])])
    assert session_digest(store, store.head("s")) != before


def assert_spoiled(store: Store, target: Store, monkeypatch: pytest.MonkeyPatch, packed_anew: set[str]) -> None:
    """A target that keeps other bytes of the session `b`, and what it is given of some packed anew: `b` alone fails."""
    sound = target.backend.commit

    def lossy(batch: Sequence[Commit]) -> list[Head | Refused]:
        def kept(commit: Commit) -> Commit:
            if commit.ref.id not in packed_anew:
                return commit
            entries = [msgspec.structs.replace(e, body=e.body.replace(b"in b", b"in B")) for e in commit.append]
            return msgspec.structs.replace(commit, append=entries)

        return sound([kept(commit) for commit in batch])

    monkeypatch.setattr(target.backend, "commit", lossy)
    report = copy_store(store, target)
    assert [one.session for one in report.failed] == ["b"]
    assert isinstance(report.failed[0].error, Corrupt)
    assert report.failed[0].error.source != report.failed[0].error.target
    assert report.sessions == 2


def test_a_store_that_keeps_other_bytes_than_it_was_given_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with holdfast.open("memory://") as store, holdfast.open("memory://") as target:
        for id in "abc":
            store.session(id).append(user(f"in {id}"))
        assert_spoiled(store, target, monkeypatch, {"a", "b", "c"})


def lines_of(store: Store) -> dict[str, list[tuple[int, str, int, bytes, bool]]]:
    """All entries of each session, as they are read."""
    return {
        head.ref.id: [(e.seq, e.id, e.at, e.body, e.void) for e in ancestry.stored(store, head)]
        for heads in all_heads(store.backend)
        for head in heads
    }


def test_bodies_are_handed_on_as_they_stand_packed_and_compared_so(tmp_path: Path) -> None:
    with (
        holdfast.open(f"sqlite://{tmp_path}/source.db") as store,
        holdfast.open(f"sqlite://{tmp_path}/target.db") as target,
    ):
        fill(store)
        store.session("odd").append(note("short"), note("\\" * 300), note(bytes(range(256)).hex() * 9))
        assert isinstance(store.backend, Packing)
        assert isinstance(target.backend, Packing)
        assert copy_store(store, target).failed == ()
        for head in (h for heads in all_heads(target.backend) for h in heads):
            if head.ref.id == "fork":
                continue
            span = Span(head.ref, 0, head.last)
            assert target.backend.packed([span]) == store.backend.packed([span])
            handed = list(handed_on(store.backend, head, 0))
            assert packed_entries(handed) == target.backend.packed([span])[0]
            assert all(type(entry.body) is PackedBody for entry in handed)
        assert lines_of(target) == lines_of(store)


def test_what_a_store_keeps_packed_otherwise_than_it_was_sent_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        holdfast.open(f"sqlite://{tmp_path}/source.db") as store,
        holdfast.open(f"sqlite://{tmp_path}/target.db") as target,
    ):
        for id in "abc":
            store.session(id).append(user(f"in {id} " * 20))
        assert_spoiled(store, target, monkeypatch, {"b", "c"})


def test_a_body_that_is_longer_packed_than_plain_is_packed_anew(tmp_path: Path) -> None:
    """What somebody made may have bytes behind its end, which no body counts."""
    with holdfast.open(f"sqlite://{tmp_path}/source.db") as store:
        assert isinstance(store.backend, Packing)
        store.session("s").append(user("hello " * 30))
        ((entry,),) = store.backend.packed([Span(session_ref("s"), 0, 1)])
        body = store.backend.unpacked(entry.body)
        assert type(body) is PackedBody
        assert body.packed == entry.body
        longer = store.backend.unpacked(entry.body + b"more" * 100)
        assert (type(longer), longer) == (bytes, bytes(body))
        for wrong in (b"", b"\x09" + entry.body[1:], entry.body[:5]):
            with pytest.raises(Corrupt):
                store.backend.unpacked(wrong)


@pytest.mark.parametrize("kind", ["sqlite", "file"])
def test_a_fork_that_came_with_the_files_is_the_same_session(kind: str, tmp_path: Path) -> None:
    """Whoever copies the files of a store, and then the store, has forks on both sides."""
    with holdfast.open(f"{kind}://{tmp_path}/source/store") as store:
        first = store.session("first")
        first.append(*[user(f"{n}") for n in range(20)])
        first.fork(at=10, id="fork").append(note("on its own"))
        first.remove_last()
        store.session("fork").fork(id="of it").remove_last()
    shutil.copytree(tmp_path / "source", tmp_path / "target")
    with (
        holdfast.open(f"{kind}://{tmp_path}/source/store") as store,
        holdfast.open(f"{kind}://{tmp_path}/target/store") as target,
    ):
        assert copy_store(store, target).failed == ()
        store.session("fork").append(user("more"))
        report = copy_store(store, target)
        assert (report.new, report.failed) == (1, ())
        assert copy_store(store, store).failed == ()
        assert digests(target) == digests(store)
        assert target.check().ok


def test_a_key_that_is_written_with_escapes_takes_its_blobs_along(store: Store, target: Store) -> None:
    """JSON may spell any letter of a key by its number."""
    session = store.session("s")
    session.append(note(Large.from_stream(io.BytesIO(b"large\n" * 100_000))))
    (entry,) = store.backend.read(session_ref("s"))
    spelled = entry.body.replace(b'"large"', b'"\\u006carg\\u0065"')
    assert spelled != entry.body
    head = store.head("s")
    store.batcher.commit(Commit(ref=head.ref, if_rev=head.rev, append=[Entry("", entry.at, spelled)]))
    assert needed(store, head, Entry("", entry.at, spelled, 2)) == needed(store, head, entry) != []
    assert copy_store(store, target).failed == ()
    assert target.backend.blobs.scan() == store.backend.blobs.scan()


def test_what_the_command_is_to_tell_of_many_sessions_takes_no_memory(capsys: pytest.CaptureFixture[str]) -> None:
    app = App(None, json=False, color=False, quiet=False)
    with _Told(app) as told:
        tracemalloc.start()
        try:
            for n in range(20_000):
                told.take(Copied(session=f"a-session-with-a-long-name-{n}", events=20, new=20))
            assert tracemalloc.get_traced_memory()[1] < 2 * _Told.MEMORY
        finally:
            tracemalloc.stop()
        told.take(Copied(session="odd", error=Corrupt("line\none")))
        told.tell(dry_run=False)
        with pytest.raises(click.exceptions.Exit):
            told.fail(alone=False)
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 20_000
    assert out.startswith("a-session-with-a-long-name-0: 20 new events of 20\n")
    assert "20,000 sessions equal in both stores, 1 failed" in err


def copying_threads() -> list[str]:
    """Those that copy and have not ended."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("holdfast-copy")]


def fill_much(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the threads of a copy take on at once."""
    monkeypatch.setattr(copying, "GROUP_EVENTS", 20)
    for n in range(60):
        store.session(f"many-{n:02}").append(*[user(f"{n} {i}") for i in range(5)])


def test_a_copy_that_is_left_midway_leaves_no_thread_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with holdfast.open("memory://") as store, holdfast.open(f"sqlite://{tmp_path}/target.db") as target:
        fill_much(store, monkeypatch)
        copier = Copier(store, target)
        left = copier.all()
        assert next(left).error is None
        left.close()
        assert copying_threads() == []
        assert copier.session("many-59").error is None
        told = [one.session for one in copier.all()]
        assert sorted(told) == [f"many-{n:02}" for n in range(60)]
        assert digests(target) == digests(store)


def test_a_target_that_is_closed_amid_a_copy_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with holdfast.open("memory://") as store, holdfast.open(f"sqlite://{tmp_path}/target.db") as target:
        fill_much(store, monkeypatch)
        copied = Copier(store, target).all()
        next(copied)
        target.close()
        with pytest.raises(Unavailable):
            list(copied)
        assert copying_threads() == []


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    with holdfast.open(made.url) as store:
        fill(store)
    return made


def test_damage_in_the_target_is_named_and_the_exit_code_is_5(shell: Shell) -> None:
    shell.ok("copy", shell.url, "sqlite:to.db")
    db = sqlite3.connect(shell.place / "to.db")
    with db:
        sql = "UPDATE entry SET body = x'00' || '{}' WHERE head = (SELECT n FROM head WHERE id = 'small-2') AND seq = 2"
        assert db.execute(sql).rowcount == 1
    db.close()
    done = shell("copy", shell.url, "sqlite:to.db", "--json")
    assert done.code == 5
    (failed,) = [item for item in done.json["items"] if item["error"]]
    assert failed["session"] == "small-2"
    assert "event 2 of session 'small-2' is damaged in the target store" in failed["error"]["message"]


def test_a_blob_that_the_target_lost_is_brought_again(shell: Shell) -> None:
    shell.ok("copy", shell.url, "sqlite:to.db")
    blob = max((shell.place / "to.db-blobs").glob("??/*"), key=lambda path: path.stat().st_size)
    blob.write_bytes(b"\x00damaged")
    assert shell("check", "--store", "sqlite:to.db").code == 5
    shell.ok("copy", shell.url, "sqlite:to.db")
    shell.ok("check", "--store", "sqlite:to.db")


@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--follow"]])
def test_no_name_of_a_target_is_not_the_usual_store(shell: Shell, more: list[str]) -> None:
    with holdfast.open(shell.url) as store:
        store.session("s").append(user("x"))
    done = shell("copy", "memory:", "", *more)
    assert done.code == 2
    assert "'' is no store URL" in done.err


def test_a_dry_run_says_what_is_missing_and_creates_nothing(shell: Shell) -> None:
    done = shell.ok("copy", shell.url, "file:to", "--dry-run", "--json")
    assert {item["session"]: item["new"] for item in done.json["items"]}["long"] == 2501
    assert not (shell.place / "to").exists()
    shell.ok("copy", shell.url, "file:to")
    assert not any(i["new"] for i in shell.ok("copy", shell.url, "file:to", "--dry-run", "--json").json["items"])
    with holdfast.open(shell.url) as store:
        store.session("long").append(user("more"))
    items = shell.ok("copy", shell.url, "file:to", "--dry-run", "--json").json["items"]
    assert [(item["session"], item["new"]) for item in items if item["new"]] == [("long", 1)]
    done = shell.ok("copy", shell.url, "file:to")
    assert done.out == "long: 1 new event of 2,502\n"


WRITER = """
import sys, holdfast
with holdfast.open(sys.argv[1]) as store:
    print("ready", flush=True)
    n = 0
    while True:
        session = store.session(f"live-{n % 7}")
        session.append(holdfast.user(f"message {n}"), key=str(n))
        if n % 11 == 10:
            session.remove_last()
        if n % 50 == 49:
            session.update(title=f"t {n}")
            store.documents.put(f"notes/{n % 3}.md", f"# {n}")
        n += 1
        if n % 20 == 0:
            print(n, flush=True)
"""


def test_a_copy_that_follows_is_in_step_with_a_writer_and_equal_when_he_stopped(shell: Shell) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, shell.url], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"ready\n"
    following = shell.start("copy", shell.url, "file:to", "--follow", "--json")
    assert following.stdout is not None
    told = (json.loads(line) for line in following.stdout)
    live = 0
    for line in told:  # while it is being written
        live += line.get("session", "").startswith("live-") if line.get("session") else 0
        if live >= 40:
            break
    writer.kill()
    writer.wait()
    writer.stdout.close()
    following.send_signal(signal.SIGINT)
    begun = time.monotonic()
    _, talk = following.communicate(timeout=PATIENCE)
    assert time.monotonic() - begun < 20
    assert following.returncode == 0, talk
    assert b"the last pass copied" in talk
    with holdfast.open(shell.url) as store, holdfast.open(f"file://{shell.place}/to") as target:
        assert digests(target) == digests(store)
        assert sum(head.last for heads in all_heads(store.backend) for head in heads if "live" in head.ref.id) > 40
        documents = [(info.id, store.documents.get(info.id)) for info in store.documents.list(limit=100)]
        assert documents
        for id, document in documents:
            there = target.documents.get(id)
            assert document is not None
            assert there is not None
            assert there.source == document.source
        assert copy_store(store, target).new == 0


def test_following_reads_only_what_is_new_and_says_when_it_is_in_step(store: Store, target: Store) -> None:
    session = store.session("s")
    session.append(*[user(str(n)) for n in range(2000)])
    stop, in_step, copied = threading.Event(), threading.Event(), threading.Event()
    said: list[Behind] = []
    reports: list[copying.CopyReport] = []

    def behind(how: Behind) -> None:
        said.append(how)
        if how == Behind():
            in_step.set()

    def follow() -> None:
        told = lambda one: copied.set() if one.new == 1 else None  # noqa: E731
        reports.append(follow_store(store, target, stop=stop, told=told, behind=behind))

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        assert in_step.wait(PATIENCE)
        for _ in range(3):
            copied.clear()
            session.append(user("more"))
            assert copied.wait(PATIENCE)
    finally:
        stop.set()
        thread.join()
    assert digests(target) == digests(store)
    assert any(how.sessions == 1 for how in said)
    assert reports[0].failed == ()
    copier = Copier(store, target, remember=10)
    assert copier.session("s").error is None
    session.append(user("and more"))
    reads: list[int] = []
    sound = store.backend.read
    store.backend.read = lambda ref, **how: reads.append(len(found := sound(ref, **how))) or found  # type: ignore[method-assign]
    if isinstance(store.backend, Packing):
        packed = store.backend.packed
        store.backend.packed = lambda spans: [reads.append(len(found)) or found for found in packed(spans)]  # type: ignore[method-assign]
    assert copier.session("s").new == 1
    assert sum(reads) == 1
    session.remove_last()
    assert copier.session("s").error is None  # what was hidden is behind: all is read anew
    assert digests(target) == digests(store)
