"""PostgreSQL under faults: connections that are cut at every point, servers that are killed amid writes, standbys.

What must hold: a call succeeds or says Unavailable or Uncertain; the same call with the same key then stores once;
nothing that was acknowledged is lost.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest

import holdfast
from holdfast import HoldfastError, Session, Unavailable, Uncertain, user
from servers.postgres import Postgres, shared
from servers.proxy import Proxy, When

pytestmark = pytest.mark.server

ROUNDS = 30
LONG_ROUNDS = 500
WRITERS = 3


@pytest.fixture
def rounds(long: bool) -> int:
    return LONG_ROUNDS if long else ROUNDS


@pytest.fixture
def server() -> Iterator[Postgres]:
    """A server of the test's own, to be killed."""
    made = Postgres().start()
    made.create_database()
    yield made
    made.stop()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """Before the server that the tests share."""
    target = shared()
    assert target is not None, "these tests cut connections of a private server"
    made = Proxy(target.port)
    yield made
    made.close()


def behind(proxy: Proxy, server: Postgres, url: str) -> str:
    """The same store behind the proxy. Nobody listens, so that all requests are the test's."""
    return url.replace(f":{server.port}/", f":{proxy.port}/") + "&listen=off&timeout=5"


def insist(action: Callable[[], object], seconds: float = 60) -> int:
    """Repeat a call with a key until it succeeds; how often it failed, which must be in one of the two ways."""
    failed = 0
    deadline = time.monotonic() + seconds
    while True:
        try:
            action()
            return failed
        except (Unavailable, Uncertain):
            failed += 1
            assert time.monotonic() < deadline, "the server does not come back"
            time.sleep(0.02)  # as any client would: it must not keep the server from starting


def append(session: Session, text: str) -> None:
    session.append(user(text), key=text)


@pytest.mark.parametrize("when", ["before", "after", "answered"])
def test_a_connection_that_is_cut_loses_nothing_and_stores_once(proxy: Proxy, when: When, rounds: int) -> None:
    """Another writer comes before each append, which then takes several requests: each is cut in some round."""
    target = shared()
    assert target is not None
    direct = target.url()
    told: list[str] = []
    with holdfast.open(direct) as other, holdfast.open(behind(proxy, target, direct)) as store:
        theirs, ours = other.session("s"), store.session("s")
        append(ours, "begin")
        for number in range(rounds):
            append(theirs, f"theirs {number}")
            proxy.cut(number % 5, when)
            try:
                append(ours, f"ours {number}")
                told.append("success")
            except (Unavailable, Uncertain) as error:
                told.append(type(error).__name__)
                if isinstance(error, Unavailable):
                    assert [message.text for message in theirs.messages()][-1] == f"theirs {number}"
            proxy.heal()
            # Once more at the most: a cut behind the last answer is noticed by the next call.
            assert insist(lambda number=number: append(ours, f"ours {number}")) <= 1
        expected = ["begin"]
        expected += [f"{who} {number}" for number in range(rounds) for who in ("theirs", "ours")]
        assert [message.text for message in ours.messages()] == expected
        assert store.backend.verify() == []
    # The first request prepares a commit, or is one by itself, which comes too late; the others look at the heads and
    # then commit, in two or more pieces.
    assert "success" not in told[0::5] + told[1::5]
    assert {"Unavailable", "Uncertain"} <= set(told)
    assert proxy.cuts >= rounds * 3 // 5


def test_an_answer_that_was_lost_is_found_by_the_same_call(proxy: Proxy) -> None:
    target = shared()
    assert target is not None
    direct = target.url()
    with holdfast.open(direct) as other, holdfast.open(behind(proxy, target, direct)) as store:
        session = store.session("s")
        append(session, "first")
        proxy.cut(0, "answered")
        with pytest.raises(Uncertain):
            append(session, "second")
        assert [m.text for m in other.session("s").messages()] == ["first", "second"]
        receipt = session.append(user("second"), key="second")
        assert (receipt.last, receipt.repeated) == (2, True)


def test_a_read_goes_on_over_another_connection(proxy: Proxy) -> None:
    target = shared()
    assert target is not None
    with holdfast.open(behind(proxy, target, target.url())) as store:
        session = store.session("s")
        append(session, "one")
        for when in ("before", "after", "answered"):
            proxy.cut(0, when)
            assert [m.text for m in session.messages()] == ["one"]
        assert proxy.cuts == 3


class Writers:
    """Threads that append without end, each to its own session and a common one, and note what they were told."""

    def __init__(self, url: str) -> None:
        self.acknowledged: list[list[str]] = [[] for _ in range(WRITERS)]
        self.failed = 0
        self._store = holdfast.open(url)
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._write, args=(n,)) for n in range(WRITERS)]
        for thread in self._threads:
            thread.start()

    def _write(self, writer: int) -> None:
        try:
            own, common = self._store.session(f"own{writer}"), self._store.session("common")
            number = 0
            while not self._stop.is_set():
                text = f"{writer} {number}"
                for session in (own, common):
                    self.failed += insist(lambda session=session, text=text: append(session, text))
                self.acknowledged[writer].append(text)
                number += 1
        except BaseException as error:
            self._errors.append(error)

    def wait_for(self, more: int) -> None:
        """Until each has been told of so many more appends."""
        wanted = [len(told) + more for told in self.acknowledged]
        deadline = time.monotonic() + 60
        while any(len(told) < want for told, want in zip(self.acknowledged, wanted, strict=True)):
            assert not self._errors, self._errors
            assert time.monotonic() < deadline, "the writers do not come on"
            time.sleep(0.002)

    def end(self) -> None:
        """End them; none may have met anything but the two kinds of failure."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        self._store.close()
        assert not self._errors, self._errors

    def check(self, url: str) -> None:
        """All that was acknowledged is there, once, in order, and nothing else."""
        with holdfast.open(url) as store:
            for writer, told in enumerate(self.acknowledged):
                assert [m.text for m in store.session(f"own{writer}").messages()][: len(told)] == told
                common = [m.text for m in store.session("common").messages() if m.text.startswith(f"{writer} ")]
                assert common[: len(told)] == told
                assert len(common) - len(told) <= 1
            events = list(store.session("common").events())
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            assert store.backend.verify() == []


def test_a_server_that_is_killed_over_and_over_loses_nothing(server: Postgres, rounds: int) -> None:
    """Shutdown `-m immediate` and kill -9 in turn, amid the writes of three threads."""
    url = server.url()
    writers = Writers(url)
    try:
        for number in range(rounds):
            writers.wait_for(2)
            if number % 2:
                server.kill()
            else:
                server.stop()
            server.start()
        writers.wait_for(2)
    finally:
        writers.end()
    assert writers.failed > 0
    writers.check(url)


def test_a_listener_hears_again_after_the_server_was_away(server: Postgres) -> None:
    url = server.url()
    woken = threading.Event()
    with holdfast.open(url) as store, holdfast.open(url) as other:
        session = other.session("s")
        stop = store.backend.listen(woken.set)
        try:
            server.stop()
            server.start()
            for number in range(3):
                woken.clear()
                insist(lambda number=number: append(session, str(number)))
                assert woken.wait(20)
        finally:
            stop()


def test_a_cancelled_wait_for_a_standby_is_uncertain(server: Postgres) -> None:
    """PostgreSQL answers success with a warning then, and no standby has the commit."""
    with holdfast.open(server.url()) as store:
        session = store.session("s")
        append(session, "before")
        server.stop()
        server.settings["synchronous_standby_names"] = "nobody"
        server.start()
        caught: list[HoldfastError] = []

        def write() -> None:
            try:
                append(session, "waits")
            except HoldfastError as error:
                caught.append(error)

        thread = threading.Thread(target=write)
        thread.start()
        with psycopg.connect(server.conninfo(), autocommit=True) as admin:
            waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            wait_until(lambda: bool(admin.execute(waiting).fetchall()))
            admin.execute(f"SELECT pg_cancel_backend(pid) FROM ({waiting}) AS w")
        thread.join(30)
        assert [type(error) for error in caught] == [Uncertain]
        server.stop()
        del server.settings["synchronous_standby_names"]
        server.start()
        append(session, "waits")
        assert [m.text for m in session.messages()] == ["before", "waits"]


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def follow(primary: Postgres, port: int | None = None) -> Postgres:
    """A new standby that the primary waits for from now on."""
    standby = primary.base_backup(name="standby")
    standby.port = port or standby.port
    standby.start()
    with psycopg.connect(primary.conninfo(), autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        admin.execute("SELECT pg_reload_conf()")
        streaming = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
        wait_until(lambda: bool(admin.execute(streaming).fetchall()))
    return standby


def promote(standby: Postgres) -> None:
    """Make it a primary, which waits for no standby, as it is all there is."""
    with psycopg.connect(standby.conninfo(), autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
        admin.execute("SELECT pg_promote()")


def url_of_both(server: Postgres, standby: Postgres) -> str:
    """A store's URL that names both."""
    return server.url().replace(f"127.0.0.1:{server.port}", f"127.0.0.1:{server.port},127.0.0.1:{standby.port}")


@contextlib.contextmanager
def standby_of(server: Postgres) -> Iterator[tuple[Postgres, str]]:
    """A standby that the server waits for, and the address of both."""
    standby = follow(server)
    try:
        yield standby, url_of_both(server, standby)
    finally:
        standby.stop()


def test_a_standby_that_takes_over_has_all_that_was_acknowledged(server: Postgres, rounds: int) -> None:
    """The primary waits for its standby, and is killed amid writes; clients go on at the one that took over.

    A new standby comes in the place of the one that was killed, and takes over in its turn.
    """
    primary, standby = server, follow(server)
    url = url_of_both(primary, standby)
    try:
        writers = Writers(url)
        try:
            for number in range(rounds):
                writers.wait_for(2)
                primary.kill()
                promote(standby)
                writers.wait_for(2)
                shutil.rmtree(primary.data)
                if number < rounds - 1:
                    primary, standby = standby, follow(standby, primary.port)
        finally:
            writers.end()
        assert writers.failed > 0
        writers.check(url)
    finally:
        primary.stop()
        standby.stop()


def test_what_took_over_is_held_to_what_was_promised(server: Postgres) -> None:
    """It may be alone, and then nothing is acknowledged as replicated."""
    with standby_of(server) as (standby, url), holdfast.open(f"{url}&durability=replicated") as store:
        session = store.create("s")
        append(session, "with the standby")
        server.kill()
        promote(standby)
        wait_until(lambda: "now waits for no standby" in refused(session))
        with holdfast.open(url) as other:
            assert [m.text for m in other.session("s").messages()] == ["with the standby"]
            append(other.session("s"), "on disk alone")


def refused(session: Session) -> str:
    """What an append is refused with, which must be so."""
    with pytest.raises((Unavailable, Uncertain)) as caught:
        append(session, "alone")
    return str(caught.value)


def test_a_replica_is_read_and_says_that_it_takes_no_writes(server: Postgres) -> None:
    """Searches find what it has replayed, indexed or not; a watch is woken, though it can't LISTEN there."""
    url = server.url()
    replica = server.base_backup(name="replica").start()
    try:
        with holdfast.open(url) as store:
            session = store.session("s", user="ann")
            append(session, "one apple")
            assert len(list(store.search("apple"))) == 1
            append(session, "another apple")
            wait_until(lambda: replayed(server, replica))
            woken = threading.Event()
            with holdfast.open(url.replace(f":{server.port}/", f":{replica.port}/")) as there:
                copy = there.session("s")
                assert [m.text for m in copy.messages()] == ["one apple", "another apple"]
                assert [hit.seq for hit in there.search("apple", newest=True)] == [2, 1]
                assert [info.id for info in there.sessions(user="ann")] == ["s"]
                facts = there.backend.info()
                assert (facts["role"], float(facts["behind_seconds"]) >= 0) == ("replica", True)
                with pytest.raises(holdfast.ReadOnly):
                    append(copy, "refused")
                position, _ = there.backend.changed()
                stop = there.backend.listen(woken.set)
                try:
                    append(session, "more")
                    wait_until(lambda: replayed(server, replica))
                    assert [r.id for r in there.backend.changed(position)[1]] == ["s"]
                    assert woken.wait(20)
                finally:
                    stop()
                assert there.backend.verify() == []
    finally:
        replica.stop()


def replayed(server: Postgres, replica: Postgres) -> bool:
    """Whether the replica has come to where the primary is now."""
    with psycopg.connect(server.conninfo()) as primary, psycopg.connect(replica.conninfo()) as copy:
        (now,) = primary.execute("SELECT pg_current_wal_flush_lsn()").fetchone() or ("",)
        row = copy.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (now,)).fetchone()
        return row == (True,)
