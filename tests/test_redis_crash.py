"""Redis amid faults: killed servers, killed writers, cut connections. Nothing acknowledged is lost or twice there."""

from __future__ import annotations

import random
import select
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import holdfast
from faults import output
from faults.work import BASE, Judge, perform, text_of
from holdfast import Store
from holdfast.backends.redisanswers import Lost
from holdfast.errors import Unavailable, Uncertain
from servers import redis as servers
from servers.proxy import Proxy, When
from test_crash import killed_writer
from test_redis import prefix

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("redis-crash")]

KILLS, LONG = 30, 500
ACKS = 25
"""Acknowledged steps between two kills."""
MODES = ("steps", "tasks", "threads")


class Load:
    """Threads that append, each step until it is acknowledged."""

    def __init__(self, store: Store, threads: int = 4) -> None:
        self.judge = Judge(1, appends=True)
        self._store = store
        self._lock = threading.Lock()
        self._done = threading.Event()
        self.broken: list[BaseException] = []
        self._threads = [threading.Thread(target=self._work) for _ in range(threads)]
        for id in BASE:
            store.session(id)
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        try:
            while not self._done.is_set():
                with self._lock:
                    n = self.judge.tried
                    self.judge.tried += 1
                self._acknowledged(n)
        except BaseException as error:
            self.broken.append(error)

    def _acknowledged(self, n: int) -> None:
        while True:
            try:
                ack = perform(self._store, self.judge.seed, self.judge.step(n))
            except (Unavailable, Uncertain):
                continue
            with self._lock:
                self.judge.acks[n] = ack
            return

    def wait_for(self, more: int) -> None:
        """Until so many more steps were acknowledged."""
        wanted = len(self.judge.acks) + more
        deadline = time.monotonic() + 120
        while len(self.judge.acks) < wanted:
            assert not self.broken, self.broken
            assert time.monotonic() < deadline, "nothing is acknowledged any more"
            time.sleep(0.001)

    def end(self) -> Judge:
        """Let the threads finish what they do."""
        self._done.set()
        for thread in self._threads:
            thread.join()
        assert not self.broken, self.broken
        return self.judge


def under_load(server: servers.Redis, store: Store, kills: int) -> Judge:
    """Kill the server again and again while threads write."""
    rnd = random.Random(server.settings["appendfsync"])
    load = Load(store)
    try:
        for _ in range(kills):
            load.wait_for(rnd.randint(1, ACKS))
            server.kill()
            server.start()
        load.wait_for(ACKS)
    finally:
        judge = load.end()
    return judge


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[servers.Redis]:
    started = servers.Redis(**getattr(request, "param", {})).start()
    yield started
    started.stop()


@pytest.mark.parametrize(
    "server", [{"appendfsync": "always"}, {"appendfsync": "everysec"}], indirect=True, ids=["always", "waitaof"]
)
def test_a_killed_server_loses_nothing_acknowledged(server: servers.Redis, tmp_path: Path, long: bool) -> None:
    """With everysec, `durability=disk` waits for WAITAOF, which takes up to a second."""
    always = server.settings["appendfsync"] == "always"
    kills = LONG if long else KILLS
    with holdfast.open(server.url(prefix="a", blobs=f"file://{tmp_path}/blobs")) as store:
        assert store.durability == "disk"
        judge = under_load(server, store, kills) if always else under_load_of_many(server, store, kills)
        assert judge.wrong(store) == []
        assert store.backend.verify() == []


def under_load_of_many(server: servers.Redis, store: Store, kills: int) -> Judge:
    """As `under_load`; a wait of a second is shared by all who write."""
    load = Load(store, threads=32)
    try:
        for _ in range(kills):
            load.wait_for(8)
            server.kill()
            server.start()
        load.wait_for(8)
    finally:
        judge = load.end()
    return judge


@pytest.mark.parametrize("server", [{"appendfsync": "everysec"}], indirect=True)
def test_a_killed_server_that_syncs_every_second_tears_nothing(
    server: servers.Redis, tmp_path: Path, long: bool, record_property: Callable[[str, object], None]
) -> None:
    """What it lost is counted. A kill loses what Redis had not yet given to the system, a power cut up to a second."""
    with holdfast.open(server.url(prefix="a", durability="process", blobs=f"file://{tmp_path}/blobs")) as store:
        assert store.durability == "process"
        judge = under_load(server, store, LONG if long else KILLS)
        assert judge.wrong(store, lossy=True) == []
        lost = [wrong for wrong in judge.wrong(store) if "acknowledged as" in wrong]
        record_property("lost", len(lost))
        print(f"{len(lost)} of {len(judge.acks)} acknowledged steps were lost")
        assert len(lost) < len(judge.acks)


@pytest.mark.parametrize("mode", MODES)
def test_a_killed_writer_loses_nothing_acknowledged(mode: str, tmp_path: Path, long: bool) -> None:
    """Nor does it leave a list, or a search, that does not know what is there."""
    url = servers.url(prefix=prefix(tmp_path), blobs=f"file://{tmp_path}/blobs", shards="4")
    rnd, judge = random.Random(mode), Judge(0, appends=mode != "steps")
    for number in range((LONG if long else KILLS) // len(MODES)):
        killed_writer(url, judge, mode, rnd)
        with holdfast.open(url) as store:
            assert store.backend.verify() == [], f"round {number}"
            assert judge.wrong(store) == [], f"round {number}"
            for n in list(judge.acks)[-3:]:
                if judge.step(n).kind == "append" and (session := store.get(judge.step(n).session)):
                    seq = judge.acks[n].first  # a later step may have taken it back
                    shown = any(event.seq == seq for event in session.events(after=seq - 1))
                    hits = {hit.event.seq for hit in store.search(f'"step {n} event"').items}
                    assert (seq in hits) == shown, f"step {n}, round {number}"


@pytest.mark.parametrize("when", ["before", "amid", "answered"])
def test_a_cut_connection_stores_once(when: When, tmp_path: Path) -> None:
    server = servers.shared()
    with Proxy(server.port, b"EVALSHA") as proxy:
        url = server.url(prefix=prefix(tmp_path)).replace(str(server.port), str(proxy.port))
        with holdfast.open(url) as store:
            session = store.session("s")
            for n in range(20):
                proxy.cut(0, when)
                assert session.append(holdfast.user(f"text {n}")).last == n + 1
            assert proxy.cuts == 20
            assert [event.seq for event in session.events()] == list(range(1, 21))
            assert store.backend.verify() == []


def test_an_answer_that_never_comes_is_uncertain_and_the_key_resolves_it(tmp_path: Path) -> None:
    server = servers.shared()
    straight = server.url(prefix=prefix(tmp_path))
    with Proxy(server.port, b"EVALSHA") as proxy:
        url = straight.replace(str(server.port), str(proxy.port)) + "&timeout=0.5"
        with holdfast.open(url) as store, holdfast.open(straight) as other:
            session = store.session("s")
            proxy.cut(0, "answered")
            proxy.refuse()
            with pytest.raises(Uncertain):
                session.append(holdfast.user("once"), key="k")
            with pytest.raises(Unavailable):  # it is not even sent
                session.append(holdfast.user("never"), key="n")
            assert other.session("s").append(holdfast.user("once"), key="k").last == 1
            assert len(list(other.session("s").events())) == 1


def test_a_lost_answer_beside_another_writer_is_uncertain_and_nothing_is_twice(tmp_path: Path) -> None:
    """Whoever wrote last left no trace of who wrote before, so it can't be told by the stamp."""
    server = servers.shared()
    straight = server.url(prefix=prefix(tmp_path))
    with Proxy(server.port, b"EVALSHA") as proxy:
        url = straight.replace(str(server.port), str(proxy.port))
        with holdfast.open(url) as store, holdfast.open(straight) as other:
            session = store.session("s")
            proxy.meanwhile = lambda: other.session("s").append(holdfast.user("theirs"))
            for key in (None, "k"):
                session.append(holdfast.user("before"))
                proxy.cut(0, "answered")
                with pytest.raises(Uncertain):
                    session.append(holdfast.user(f"mine {key}"), key=key)
            assert session.append(holdfast.user("mine k"), key="k").repeated
            assert [text_of(event) for event in session.events()] == [
                *("before", "mine None", "theirs"),
                *("before", "mine k", "theirs"),
            ]


def test_a_server_that_is_away_is_unavailable_and_comes_back(server: servers.Redis) -> None:
    with holdfast.open(server.url(timeout="0.5")) as store:
        session = store.session("s")
        session.append(holdfast.user("one"))
        server.kill()
        for call in (lambda: session.append(holdfast.user("two")), lambda: store.sessions(), lambda: store.search("x")):
            with pytest.raises(Unavailable):
                call()
        server.start()
        assert session.append(holdfast.user("two")).last == 2
        assert len(store.search("two").items) == 1


def test_a_listener_outlives_its_connection(server: servers.Redis) -> None:
    with holdfast.open(server.url()) as store, holdfast.open(server.url(prefix="x")):
        session = store.session("s")
        woken = threading.Event()
        stop = store.backend.listen(woken.set)
        try:
            assert woken.wait(20)  # it listens now
            server.kill()
            woken.clear()
            server.start()
            assert woken.wait(20)  # it is back, and what was told meanwhile is made up for
            woken.clear()
            session.append(holdfast.user("one"))
            assert woken.wait(20)
        finally:
            stop()


def test_a_connection_that_ends_as_it_is_looked_at_is_lost(server: servers.Redis) -> None:
    """The thread that listens makes another one; it died of it."""
    with holdfast.open(server.url()) as store:
        link = store.backend._links.take(store.backend._servers.masters()[0])  # type: ignore[attr-defined]  # one end
        server.kill()
        select.select([link.fileno()], [], [], 20)
        assert link.readable()
        with pytest.raises(Lost):
            link.answer()
        link.drop()


@pytest.mark.parametrize("how", ["fork", "pool", "busy", "left", "two"])
def test_a_forked_child_and_its_parent_go_on_with_an_open_store(how: str, tmp_path: Path) -> None:
    url = servers.url(prefix=prefix(tmp_path))
    told = output("forker", url, how)
    with holdfast.open(url) as store:
        assert store.check().findings == ()
        held = [event.payload.text for event in store.session("shared").events()]  # type: ignore[union-attr]
    assert sorted(held) == sorted(told.decode().splitlines())
    assert len(held) >= 40


def test_a_search_knows_what_a_server_lost(server: servers.Redis, tmp_path: Path) -> None:
    """A server that comes back without its last moments, and goes on: other events have the same numbers now."""
    url = server.url(durability="process", prefix="a")
    with holdfast.open(url) as store:
        session = store.create("s")
        session.append(holdfast.user("kept apple"))
        with server.client() as client:
            kept = {key: client.dump(key) for key in client.scan_iter()}
            session.append(holdfast.user("lost apple"), holdfast.user("lost pear"))
            store.create("gone").append(holdfast.user("lost apple"))
            assert len(store.search("apple").items) == 3
            client.flushall()
            for key, dumped in kept.items():
                client.restore(key, 0, dumped)
            assert [hit.event.seq for hit in store.search("apple").items] == [1]
            with holdfast.open(url) as other:
                other.session("s").append(holdfast.user("new apple"), holdfast.user("new plum"))
            assert [len(store.search(word).items) for word in ("apple", "lost", "pear", "plum")] == [2, 0, 0, 1]
            assert store.session("s").append(holdfast.user("it goes on")).last == 4
            assert store.backend.verify() == []
