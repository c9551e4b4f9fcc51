"""A watch goes on where it ended: behind a position, after kills, in any process, whatever the clocks say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import holdfast
from faults import BACKENDS, url_of
from holdfast import Change, Invalid, Store, user
from holdfast.backends import writers
from shell import Shell
from test_cli_json import documented
from test_follow import eventually

WRITER = """
import random, sys, holdfast, time
from holdfast import user
url, name, count, skew = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
real = time.time_ns
time.time_ns = lambda: real() + skew * 1_000_000_000  # this machine's clock is wrong
with holdfast.open(url) as store:
    for n in range(count):
        session = store.create(f"{name}-{n}")
        if n % 3 == 0:
            session.append(user("x"))
        if n % 5 == 0:
            session.update(title="T")
        if n % 7 == 0:
            session.delete()
        print(session.id, flush=True)
"""
WATCHER = """
import sys, json, holdfast
url, place = sys.argv[1:]
with holdfast.open(url) as store, open(place, "a+", buffering=1) as kept:
    kept.seek(0)
    lines = [line for line in kept.read().splitlines(keepends=True) if line.endswith("\\n")]
    after = json.loads(lines[-1])["position"] if lines else ""
    for change in store.watch(after=after):
        kept.write(json.dumps({"session": change.session, "rev": change.rev, "deleted": change.deleted,
                               "position": change.position}) + "\\n")
"""


def first(changes: Iterator[Change], count: int) -> list[Change]:
    return [next(changes) for _ in range(count)]


def caught_up(store: Store, after: str) -> list[Change]:
    """All that is told behind a position, up to a change that is made now."""
    changes = store.watch(after=after)
    store.session("mark").append(user("x"))
    mark = store.session("mark").info().rev
    told: list[Change] = []
    while not told or (told[-1].session, told[-1].rev) != ("mark", mark):
        told.append(next(changes))
    return told


def test_a_watch_goes_on_behind_each_position(store: Store) -> None:
    position = store.position()
    for id in ("a", "b", "c"):
        store.create(id, created_at=1).append(user("x"))
    told = caught_up(store, position)
    assert {change.session for change in told} == {"a", "b", "c", "mark"}
    store.delete("b")
    store.session("c").update(title="T")
    store.trash.put("a")
    behind = caught_up(store, told[-1].position)
    assert {change.session for change in behind} == {"a", "b", "c", "mark"}
    assert {change.session: (change.deleted, change.trashed) for change in behind if change.session != "mark"} == {
        "a": (False, True), "b": (True, False), "c": (False, False)
    }  # fmt: skip
    for n, change in enumerate(told):  # what came with it may be told again, and nothing behind it is left out
        again = {c.session for c in caught_up(store, change.position)}
        assert {c.session for c in told[n + 1 :]} | {"a", "b", "c"} <= again


def test_what_changes_between_the_call_and_the_first_step_is_told(store: Store) -> None:
    changes = store.watch()
    store.create("s")
    assert next(changes).session == "s"
    changes.close()  # type: ignore[attr-defined]


def test_a_watch_since_a_time_can_be_gone_on_with_amid_its_beginning(store: Store) -> None:
    for n in range(5):
        store.create(f"s{n}")
    store.delete("s0")
    store.trash.put("s1")
    begun = first(store.watch(since=1), 2)
    assert len(begun) == 2
    told = {change.session: change for change in caught_up(store, begun[0].position)}
    assert set(told) == {"s0", "s1", "s2", "s3", "s4", "mark"}
    assert told["s0"].deleted
    assert told["s1"].trashed
    whole = first(store.watch(since=1), 6)
    assert [change.session for change in caught_up(store, whole[-1].position)] == ["mark"]


def test_a_position_that_is_none_or_of_another_store_is_refused(store: Store, tmp_path: Path) -> None:
    with holdfast.open(f"sqlite://{tmp_path}/another.db") as other:
        position = other.position()
    for wrong in (position, "", "nonsense", store.position() + "~x", store.position() + "~" + "9" * 30, "~1"):
        with pytest.raises(Invalid):
            store.watch(after=wrong)
    with pytest.raises(Invalid, match="leave one out"):
        store.watch(after=store.position(), since=1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_writers_with_wrong_clocks_and_a_killed_watcher_lose_nothing(
    backend: str, tmp_path: Path, long: bool
) -> None:
    lose_nothing(url_of(backend, tmp_path), tmp_path / "kept", long=long)


@pytest.mark.server
@pytest.mark.parametrize(
    "server",
    [
        "postgres",
        pytest.param("redis", marks=pytest.mark.xdist_group("redis")),
        pytest.param("cluster", marks=pytest.mark.xdist_group("redis-cluster")),
    ],
)
def test_on_servers_they_lose_nothing_either(server: str, tmp_path: Path, long: bool) -> None:
    from servers import postgres, redis

    url = (
        postgres.url()
        if server == "postgres"
        else redis.url()
        if server == "redis"
        else redis.shared_cluster().url(durability="process")
    )
    lose_nothing(url, tmp_path / "kept", long=long)


def lose_nothing(url: str, kept: Path, *, long: bool) -> None:
    """Writers and a watcher are killed again and again; in the end the watcher knows every session as it stands."""
    with holdfast.open(url) as store:
        kept.write_text(json.dumps({"session": "", "rev": 0, "deleted": False, "position": store.position()}) + "\n")
        acknowledged: set[str] = set()
        each = 40 if long else 16
        for turn in range(20 if long else 2):
            watcher = start(WATCHER, url, kept)
            working = [start(WRITER, url, f"{turn}{name}", each, skew) for name, skew in (("a", -86_400), ("b", 3600))]
            for writer in working:
                assert writer.stdout is not None
                acknowledged |= {writer.stdout.readline().decode().strip() for _ in range(each // 2)}
            for process in (working[0], watcher):
                os.kill(process.pid, signal.SIGKILL)
            for process in working:
                out, _ = process.communicate(timeout=60)
                acknowledged |= {line.decode() for line in out.splitlines(keepends=False) if line.count(b"-") == 1}
            watcher.communicate(timeout=60)
        watcher = start(WATCHER, url, kept)
        store.create("last").append(user("x"))
        heads = {head.ref.id: head.rev for dead in (False, True) for head in store.backend.find(
            "session", {}, limit=10_000, dead=dead)}  # fmt: skip
        try:  # what a clock that is ahead wrote comes behind the last one in the same look
            eventually(lambda: heads.items() <= told_in(kept).items())
        finally:
            watcher.kill()
            watcher.communicate(timeout=60)
        assert acknowledged <= set(heads)


def told_in(kept: Path) -> dict[str, int]:
    """The revision of each session that was told last."""
    told: dict[str, int] = {}
    for line in kept.read_text().splitlines():
        if line.endswith("}") and line.startswith("{"):  # a kill may have cut one
            change = json.loads(line)
            assert change["rev"] >= told.get(change["session"], 0), "a session's changes came out of order"
            told[change["session"]] = change["rev"]
    return told


def start(program: str, *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE)


def test_an_index_that_was_built_anew_loses_no_change(tmp_path: Path) -> None:
    url = url_of("files", tmp_path)
    with holdfast.open(url) as store:
        for id in ("a", "b"):
            store.create(id).append(user("x"))
        position = store.position()
        store.session("b").append(user("y"))
    for file in (tmp_path / "store").glob("index.db*"):
        file.unlink()
    with holdfast.open(url) as store:
        assert {"b", "mark"} <= {change.session for change in caught_up(store, position)}


def test_a_file_that_was_put_back_from_an_older_copy_loses_no_change(tmp_path: Path) -> None:
    url, file = url_of("sqlite", tmp_path), tmp_path / "store.db"
    with holdfast.open(url) as store:
        for id in ("a", "b", "c"):
            store.create(id).append(user("x"))
    older = file.read_bytes()  # nobody has it open
    with holdfast.open(url) as store:
        for n in range(3):
            store.session("b").update(title=str(n))
            store.session("c").append(user("y"))
        position = store.position()
    file.write_bytes(older)
    with holdfast.open(url) as store:
        assert {"b", "c", "mark"} <= {change.session for change in caught_up(store, position)}
    file.write_bytes(older)
    with holdfast.open(url) as store:
        # The numbers of before are given again, and in the end to those that had them.
        store.session("a").update(title="T")
        for n in range(3):
            store.session("b").update(title=str(n))
            store.session("c").append(user("y"))
        assert {"a", "b", "c", "mark"} <= {change.session for change in caught_up(store, position)}


def test_rows_that_a_reboot_may_have_taken_are_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = url_of("files", tmp_path)
    with holdfast.open(url) as store:
        store.create("a").append(user("x"))
        position = store.position()
    code = f"import os, holdfast\nholdfast.open({url!r}).session('b').append(holdfast.user('x'))\nos._exit(1)"
    subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    with holdfast.open(url) as store:
        told = caught_up(store, position)
        assert {change.session for change in told} == {"b", "mark"}  # the kill took nothing from the index
        position = told[-1].position
    subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    monkeypatch.setattr(writers, "boot", lambda: "another boot")
    with holdfast.open(url) as store:
        assert {change.session for change in caught_up(store, position)} == {"a", "b", "mark"}


@pytest.mark.server
def test_a_server_that_was_restarted_loses_no_change() -> None:
    from servers.postgres import Postgres

    server = Postgres().start()
    try:
        server.create_database()
        url = server.url()
        with holdfast.open(url) as store:
            store.create("a").append(user("x"))
            position = store.position()
            store.session("b").append(user("x"))
            server.kill()
            server.start()
            store.session("c").append(user("x"))
            assert {change.session for change in caught_up(store, position)} == {"b", "c", "mark"}
    finally:
        server.stop()


def test_a_tail_goes_on_behind_its_seq_through_rewinds_and_forks(store: Store) -> None:
    session = store.create("s")
    session.append(*(user(str(n)) for n in range(6)))
    session.rewind(to=3)
    session.append(user("new"))
    assert [event.seq for event in session.tail(after=2, follow=False)] == [3, 7, 8]
    fork = session.fork(at=3, id="f")
    fork.append(user("own"))
    assert [event.seq for event in fork.tail(after=2, follow=False)] == [3, 4]
    stop = threading.Event()
    tail = fork.tail(after=4, stop=stop)
    fork.append(user("later"))
    assert next(tail).seq == 5
    tail.close()  # type: ignore[attr-defined]


def test_the_command_tells_changes_and_where_to_go_on(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    with holdfast.open(shell.url) as store:
        store.create("before").append(user("x"))
        position = store.position()
        store.create("after").append(user("x"))
    with shell.start("watch", "--after", position, "--json") as running:
        assert running.stdout is not None
        change = json.loads(running.stdout.readline())
        assert (change["session"], set(change)) == ("after", documented("change ("))
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 130
    with shell.start("watch", "--after", position) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline().startswith(b"after  event 1  ")
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 130
        # A signal that comes as a line is printed lets it be told once more.
        assert running.stderr.read().decode().split() in [
            ["more:", "--after", p] for p in (position, change["position"])
        ]
    assert "another store" in shell("--store", "memory://", "watch", "--after", position).err


def test_the_command_says_where_to_go_on_after_an_error(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    with holdfast.open(shell.url) as store:
        position = store.position()
        store.create("one").append(user("x"))
    with shell.start("watch", "--after", position) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline().startswith(b"one  ")
        (shell.place / "store.db").write_bytes(b"another file by now" * 1000)
        assert running.wait(20) not in (0, 130)
        assert b"more: --after " in running.stderr.read()


def test_an_empty_position_is_refused_and_not_taken_for_now(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    with holdfast.open(shell.url) as store:
        store.create("s")
    assert shell("watch", "--after", "").code == 2
