"""Reads from a replica: no staler than was said, exact about what one wrote oneself, and never going back in time."""

from __future__ import annotations

import contextlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import holdfast
from holdfast import Invalid, ReadOnly, Session, Store, Unavailable, user
from holdfast.backends import pgreplicas
from holdfast.backends.pgreplicas import Known, Position
from holdfast.urls import parse_url
from servers.postgres import Postgres
from shell import Shell

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    made = Postgres().start()
    made.create_database()
    yield made
    made.stop()


@pytest.fixture
def replica(server: Postgres) -> Iterator[Postgres]:
    made = server.base_backup(name="replica").start()
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was away is asked again at once."""
    monkeypatch.setattr(pgreplicas, "AWAY", 0.0)
    monkeypatch.setattr(pgreplicas, "PAUSE", 0.0)


def url_of(server: Postgres, *replicas: Postgres, max_stale: float = 60, **more: str) -> str:
    addresses = ",".join(f"127.0.0.1:{each.port}" for each in replicas)
    return server.url(read_from=addresses, max_stale=str(max_stale), **more)


def append(session: Session, text: str) -> None:
    session.append(user(text), key=text)


def texts(store: Store, id: str = "s") -> list[str]:
    found = store.get(id)
    return [] if found is None else [str(message.text) for message in found.messages()]


def role(store: Store) -> str:
    """Where a store reads."""
    return store.backend.info().get("role", "primary")


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def caught_up(store: Store) -> bool:
    """Whether the replicas have all that the store wrote."""
    return role(store.reader()) == "replica"


@contextlib.contextmanager
def paused(replica: Postgres) -> Iterator[None]:
    """It receives what is written, and does not show it."""
    with psycopg.connect(replica.conninfo(), autocommit=True) as admin:
        admin.execute("SELECT pg_wal_replay_pause()")
        wait_until(lambda: admin.execute("SELECT pg_get_wal_replay_pause_state()").fetchone() == ("paused",))
        try:
            yield
        finally:
            admin.execute("SELECT pg_wal_replay_resume()")


def test_a_reader_reads_all_there_is_from_the_replica(server: Postgres, replica: Postgres) -> None:
    with holdfast.open(url_of(server, replica)) as store:
        session = store.session("s", user="ann")
        append(session, "one apple")
        session.append(user("x" * 200_000))  # a large value is read there as well
        session.artifacts.put("a.txt", b"bytes")
        store.documents.put("notes/x.json", {"a": 1})
        session.fork(id="child").append(user("more"))
        wait_until(lambda: caught_up(store))
        reader = store.reader()
        with connections(replica) as before:
            assert texts(reader) == ["one apple", "x" * 200_000]
            assert texts(reader, "child") == ["one apple", "x" * 200_000, "more"]
            assert [info.id for info in reader.sessions(user="ann")] == ["child", "s"]
            assert [hit.seq for hit in reader.search("apple", session="s")] == [1]
            found = reader.get("s")
            assert found is not None
            assert found.artifacts.get("a.txt") == b"bytes"
            assert reader.documents.get("notes/x.json") is not None
            assert reader.check().ok
            assert (role(reader), reader.replicas()[0].why) == ("replica", "")
            assert before() > 0
        assert [info.id for info in reader.for_user("ann").sessions()] == ["child", "s"]
        assert texts(store.for_user("ann").reader()) == texts(reader)
        assert (role(store.for_user("ann")), store.for_user("ann").reader().behind() > 0) == ("primary", True)
        with pytest.raises(holdfast.Denied):
            store.for_user("bob").reader().get("s")


@contextlib.contextmanager
def connections(replica: Postgres) -> Iterator[Callable[[], int]]:
    """How many connections of holdfast the replica has."""
    with psycopg.connect(replica.conninfo(), autocommit=True) as admin:
        sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'holdfast'"
        yield lambda: (admin.execute(sql).fetchone() or (0,))[0]


def test_what_was_not_replayed_may_be_missing_but_never_what_one_wrote_oneself(
    server: Postgres, replica: Postgres
) -> None:
    url = url_of(server, replica)
    with holdfast.open(url) as store, holdfast.open(url) as other:
        append(store.session("s"), "one")
        wait_until(lambda: caught_up(store))
        with paused(replica):
            append(other.session("s"), "two")
            assert texts(store.reader()) == ["one"]  # of others, within the bound
            assert texts(other.reader()) == ["one", "two"]
            assert role(other.reader()) == "primary"
            assert texts(other.reader(own=False)) == ["one"]
            assert texts(store) == texts(other) == ["one", "two"]
            store.session("s").append(user("three"), expect=2)  # what must be exact is
        wait_until(lambda: caught_up(store))
        assert texts(store.reader()) == ["one", "two", "three"]


def test_a_refused_commit_is_followed_by_an_exact_read(server: Postgres, replica: Postgres) -> None:
    url = url_of(server, replica)
    with holdfast.open(url) as store, holdfast.open(url) as other:
        append(store.session("s"), "one")
        wait_until(lambda: caught_up(store))
        with paused(replica):
            append(other.session("s"), "two")
            with pytest.raises(holdfast.Stale):
                store.session("s").append(user("late"), expect=1)
            assert texts(store.reader()) == ["one", "two"]


def test_a_replica_behind_the_bound_is_left_for_good(server: Postgres, replica: Postgres) -> None:
    url = url_of(server, replica, max_stale=0.5)
    with holdfast.open(url) as store, holdfast.open(url) as other:
        append(store.session("s"), "one")
        wait_until(lambda: caught_up(store))
        reader = store.reader()
        with paused(replica):
            append(other.session("s"), "two")
            assert texts(reader) == ["one"]
            written = time.monotonic()
            wait_until(lambda: texts(reader) == ["one", "two"])
            assert time.monotonic() - written < 5
            assert reader.behind() == 0
            assert role(store.reader(own=False)) == "primary"
            [told] = store.replicas()
            assert "more than max_stale=0.5" in told.why
            assert (told.behind or 0) > 0.5
            assert (told.bytes or 0) > 0
        wait_until(lambda: caught_up(store))
        assert role(reader) == "primary"  # it never goes back in time


def test_where_nothing_is_written_a_replica_is_not_taken_for_stale(server: Postgres, replica: Postgres) -> None:
    """Its last commit is old; it has it, and there is no other."""
    with holdfast.open(url_of(server, replica, max_stale=0.3)) as store:
        append(store.session("s"), "one")
        wait_until(lambda: caught_up(store))
        reader = store.reader()
        begun = time.monotonic()
        while time.monotonic() - begun < 1.0:
            assert texts(reader) == ["one"]
            assert 0 < reader.behind() < 0.3
        assert role(reader) == "replica"
        assert [(told.bytes, told.why) for told in store.replicas()] == [(0, "")]


def test_one_that_is_always_a_little_behind_is_read_from(server: Postgres, replica: Postgres) -> None:
    """What the commits that it has say of when they were made bounds it, before it ever came to a known position."""
    url = url_of(server, replica, max_stale=30)
    with holdfast.open(url) as store:
        append(store.session("s"), "one")
        wait_until(lambda: caught_up(store))
    with psycopg.connect(replica.conninfo(), autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET recovery_min_apply_delay = '400ms'")
        admin.execute("SELECT pg_reload_conf()")
    with holdfast.open(url) as other:
        append(other.session("s"), "two")
        with holdfast.open(url) as fresh:  # it knows of no position but the one now
            reader = fresh.reader()
            assert (texts(reader), role(reader)) == (["one"], "replica")
            assert 0 < reader.behind() < 30


def test_a_killed_replica_costs_nothing_but_the_relief(server: Postgres, replica: Postgres) -> None:
    with holdfast.open(url_of(server, replica)) as store:
        append(store.session("s"), "one")
        wait_until(lambda: caught_up(store))
        reader = store.reader()
        assert texts(reader) == ["one"]
        replica.kill()
        assert texts(reader) == ["one"]
        assert (role(reader), role(store.reader(own=False))) == ("primary", "primary")
        [told] = store.replicas()
        assert (told.behind, told.bytes) == (None, None)
        assert f"{replica.port}" in told.why
        append(store.session("s"), "two")
        replica.start()
        wait_until(lambda: caught_up(store))
        assert texts(store.reader()) == ["one", "two"]


def test_of_two_replicas_the_one_that_is_there_is_read_from(server: Postgres, replica: Postgres) -> None:
    second = server.base_backup(name="second").start()
    try:
        with holdfast.open(url_of(server, second, replica)) as store:
            append(store.session("s"), "one")
            wait_until(lambda: [told.why for told in store.replicas()] == ["", ""])
            wait_until(lambda: caught_up(store))
            second.kill()
            for _ in range(4):
                reader = store.reader()
                assert texts(reader) == ["one"]
            assert role(store.reader()) == "replica"
            assert [told.why == "" for told in store.replicas()] == [False, True]
    finally:
        second.stop()


def test_a_replica_that_was_promoted_is_read_from_no_more(server: Postgres, replica: Postgres) -> None:
    """It goes its own way then: what it says of its position is of another history."""
    url = url_of(server, replica, max_stale=0.3)
    with holdfast.open(url) as store:
        append(store.session("s"), "one")
        wait_until(lambda: caught_up(store))
        with psycopg.connect(replica.conninfo(), autocommit=True) as admin:
            admin.execute("SELECT pg_promote()")
        with holdfast.open(url.replace(f":{server.port}/", f":{replica.port}/").partition("&read_from")[0]) as there:
            append(there.session("s"), "of its own")
        append(store.session("s"), "two")
        wait_until(lambda: "takes writes" in store.replicas()[0].why)
        assert texts(store.reader(own=False)) == ["one", "two"]


def test_clients_go_on_at_the_one_that_took_over_and_read_from_the_other(replica: Postgres) -> None:
    """A failover: of two replicas one is promoted, and the other follows it."""
    first = Postgres().start()
    first.create_database()
    second, third = first.base_backup(name="second").start(), None
    try:
        third = second.base_backup(name="third").start()  # it follows the second, before and after
        both = f"127.0.0.1:{first.port},127.0.0.1:{second.port}"
        url = url_of(first, third).replace(f"127.0.0.1:{first.port}/", f"{both}/")
        with holdfast.open(url) as store:
            append(store.session("s"), "one")
            wait_until(lambda: caught_up(store))
            first.kill()
            with psycopg.connect(second.conninfo(), autocommit=True) as admin:
                admin.execute("SELECT pg_promote()")

            def written() -> bool:
                with contextlib.suppress(Unavailable, holdfast.Uncertain):
                    append(store.session("s"), "two")
                    return True
                return False

            wait_until(written)
            wait_until(lambda: caught_up(store))
            assert texts(store.reader()) == ["one", "two"]
    finally:
        for each in (third, second, first):
            if each is not None:
                each.stop()


def test_without_the_primary_a_replica_is_read_as_long_as_the_bound_is_kept(replica: Postgres) -> None:
    first = Postgres().start()
    first.create_database()
    copy = first.base_backup(name="copy").start()
    try:
        with holdfast.open(url_of(first, copy, max_stale=1.5)) as store:
            append(store.session("s"), "one")
            wait_until(lambda: caught_up(store))
            reader = store.reader()
            assert texts(reader) == ["one"]
            first.kill()
            assert texts(reader) == ["one"]
            wait_until(lambda: fails(reader))
    finally:
        copy.stop()
        first.stop()


def fails(reader: Store) -> bool:
    """Whether it can't be read; until then it says what it said."""
    try:
        assert texts(reader) == ["one"]
    except Unavailable:
        return True
    return False


def test_what_writes_is_refused(server: Postgres, replica: Postgres) -> None:
    with holdfast.open(url_of(server, replica)) as store:
        append(store.session("s"), "one")
        wait_until(lambda: caught_up(store))
        refuses_all(store.reader())
        assert texts(store) == ["one"]


def test_any_store_has_a_reader(tmp_path: Path) -> None:
    """A program need not know whether there are replicas."""
    with holdfast.open(f"sqlite://{tmp_path}/s.db") as store:
        append(store.session("s"), "one")
        reader = store.reader()
        assert (texts(reader), reader.behind(), store.behind(), store.replicas()) == (["one"], 0.0, 0.0, [])
        refuses_all(reader)
        refuses_all(reader.reader())
        reader.close()
        assert texts(store) == ["one"]


def refuses_all(reader: Store) -> None:
    session = reader.get("s")
    assert session is not None
    calls: list[Callable[[], object]] = [
        lambda: session.append(user("no")),
        lambda: session.append(user("x" * 200_000)),
        lambda: session.artifacts.put("x", b"y"),
        lambda: session.update(title="no"),
        lambda: session.turn().__enter__(),
        lambda: session.delete(),
        lambda: session.fork(id="no"),
        lambda: reader.session("new"),
        lambda: reader.documents.put("a/b.json", {}),
        lambda: reader.delete("s"),
        reader.compact,
        reader.index,
        lambda: reader.check(sweep=True),
        lambda: reader.backend.blobs.put("0" * 64, b""),
        lambda: reader.backend.blobs.delete("0" * 64),
    ]
    for number, call in enumerate(calls):
        with pytest.raises(ReadOnly, match="open for reading alone"):
            raise AssertionError(f"call {number} was not refused: {call()!r}")


def test_who_follows_reads_from_the_primary(server: Postgres, replica: Postgres) -> None:
    """It would be told of what the replica does not have yet."""
    url = url_of(server, replica)
    with holdfast.open(url) as store, holdfast.open(url) as other:
        append(store.session("s"), "one")
        wait_until(lambda: caught_up(store))
        with paused(replica):
            reader = store.reader()
            assert role(reader) == "replica"
            changes = reader.watch()
            position, _ = reader.backend.changed()
            append(other.session("s"), "two")
            assert [ref.id for ref in reader.backend.changed(position)[1]] == ["s"]
            assert (next(changes).session, role(reader)) == ("s", "primary")
            changes.close()  # type: ignore[attr-defined]  # it is a generator


def test_a_user_without_rights_on_the_server_may_read_from_replicas(server: Postgres, replica: Postgres) -> None:
    url = url_of(server, replica, schema="plain_store")
    with psycopg.connect(server.conninfo(), autocommit=True) as admin:
        admin.execute("CREATE ROLE plain LOGIN")
        admin.execute("GRANT CREATE ON DATABASE test TO plain")
    with holdfast.open(url.replace("//holdfast@", "//plain@")) as store:
        append(store.session("s"), "one")
        wait_until(lambda: caught_up(store))
        assert texts(store.reader()) == ["one"]


def test_the_command_tells_of_replicas_and_reads_from_them(server: Postgres, replica: Postgres, tmp_path: Path) -> None:
    url = url_of(server, replica)
    with holdfast.open(url) as store:
        append(store.session("s"), "one")
        wait_until(lambda: caught_up(store))
    shell = Shell(tmp_path)
    shell.env["HOLDFAST_URL"] = url
    told: dict[str, Any] = {}

    def replayed() -> bool:  # the server writes to its log by itself, now and then
        [found] = shell.ok("--json", "info").json["replicas"]
        told.update(found)
        return told["bytes"] == 0

    wait_until(replayed)
    assert (told["address"], told["why"]) == (f"127.0.0.1:{replica.port}", "")
    assert 0 <= told["behind"] < 60
    assert "at most" in shell.ok("info").out
    assert "one" in shell.ok("--replica", "session", "show", "s").out
    refused = shell("--replica", "append", "s", "no")
    assert (refused.code, "open for reading alone" in refused.err) == (7, True)
    replica.kill()
    doctor = shell("--json", "doctor")
    assert doctor.code == 1
    assert "is not read from" in json.loads(doctor.out)["problems"][0]
    assert "one" in shell.ok("--replica", "session", "show", "s").out


@pytest.mark.parametrize(
    "wrong",
    [
        "read_from=",
        "read_from=u:secret-word@host",
        "read_from=h:x",
        "read_from=h:1&max_stale=0",
        "read_from=h:1&max_stale=x",
    ],
)
def test_a_wrong_parameter_is_refused(server: Postgres, wrong: str) -> None:
    with pytest.raises(Invalid) as told:
        holdfast.open(f"{server.url()}&{wrong}")
    assert "secret-word" not in str(told.value)


def known() -> Known:
    return Known("h:1", parse_url("postgresql://u@127.0.0.1:1/x"))


NOW = Position(at=100.0, system=7, timeline=2, lsn=5000, clock=1_000_000.0)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ((False, 7, 2, None, None), "takes writes"),
        ((True, 8, 2, 5000, None), "another server's"),
        ((True, 7, 1, 9000, None), "another history"),
    ],
)
def test_a_position_of_another_history_says_nothing(
    told: tuple[bool, int, int, int | None, float | None], why: str
) -> None:
    seen = known()
    seen.learn(told, deque([NOW]))
    assert why in seen.why
    assert seen.has() == float("-inf")


def test_what_a_position_says() -> None:
    older = NOW._replace(at=90.0, lsn=4000, clock=999_990.0)
    seen = known()
    seen.learn((True, 7, 2, 4500, 999_970.0), deque([older, NOW]))
    assert (seen.reached, seen.dated, seen.lacks) == (90.0, 70.0, 500)
    seen.learn((True, 7, 2, 4600, None), deque([NOW]))  # it went on, and the older position is forgotten
    assert seen.reached == 90.0
    seen.learn((True, 7, 2, 4000, 999_999.0), deque([NOW]))  # it was set up anew
    assert (seen.reached, seen.dated) == (float("-inf"), 99.0)
    seen.learn((True, 7, 2, 5100, 1_000_000.5), deque([NOW]))  # it went on while it was asked
    assert seen.has() == 100.0


def test_a_server_whose_clock_was_put_back_makes_no_replica_fresh() -> None:
    seen = known()
    seen.learn((True, 7, 2, 4000, 1_003_600.0), deque([NOW]))
    assert seen.has() == float("-inf")


@pytest.mark.parametrize(("lsn", "end"), [(8192 + 24, 8192), (8192 + 40, 8192), (8192 + 48, 8192 + 48), (8192, 8192)])
def test_a_page_that_is_empty_yet_is_nothing_to_wait_for(lsn: int, end: int) -> None:
    assert pgreplicas._end(lsn) == end
