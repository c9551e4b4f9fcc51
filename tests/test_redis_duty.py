"""What a server must promise before a store is kept on it; what is refused, and in which words."""

from __future__ import annotations

import random
import socket
import threading
from pathlib import Path

import pytest

import holdfast
from holdfast.errors import Invalid, Unavailable
from servers import redis as servers
from test_redis import prefix

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("redis-duty")]


@pytest.fixture
def started(request: pytest.FixtureRequest):
    def start(name: str = "", **settings: str) -> servers.Redis:
        server = servers.Redis(name, **settings).start()
        request.addfinalizer(server.stop)
        return server

    return start


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"appendonly": "no"}, "set appendonly yes and appendfsync always"),
        ({"appendfsync": "no"}, "appendfsync no"),
        ({"maxmemory_policy": "allkeys-lru"}, "maxmemory-policy noeviction"),
    ],
)
def test_a_server_that_keeps_too_little_is_refused(started, settings: dict[str, str], says: str) -> None:
    server = started(**settings)
    with pytest.raises(Unavailable, match=says):
        holdfast.open(server.url())
    if "maxmemory_policy" not in settings:
        with holdfast.open(server.url(durability="process")) as store:
            assert store.durability == "process"
            assert store.create("s").append(holdfast.user("one")).last == 1


def test_the_oldest_redis_is_held_to_what_it_knows(started) -> None:
    """6.2 has no WAITAOF: with everysec it can't keep what `disk` promises, with always it can."""
    server = started("redis-server", appendfsync="everysec")
    with pytest.raises(Unavailable, match="set appendfsync always"):
        holdfast.open(server.url())
    with server.client() as client:
        client.config_set("appendfsync", "always")
        with holdfast.open(server.url()) as store:
            assert store.backend.info()["library"].startswith("Redis 6.2")
        client.config_set("no-appendfsync-on-rewrite", "yes")
        with pytest.raises(Unavailable, match="no-appendfsync-on-rewrite no"):
            holdfast.open(server.url())


def test_everysec_is_waited_for_where_the_server_can(started) -> None:
    server = started(appendfsync="everysec")
    with holdfast.open(server.url()) as store, server.client() as client:
        session = store.create("s")
        before = client.info("commandstats")["cmdstat_waitaof"]["calls"]
        session.append(holdfast.user("one"))
        assert client.info("commandstats")["cmdstat_waitaof"]["calls"] == before + 1


def test_what_is_known_already_is_waited_for_too(started) -> None:
    """A retry must not hear that an event is stored before that is durable: who wrote it may have died too early."""
    server = started(appendfsync="everysec")
    with holdfast.open(server.url(prefix="k", durability="process")) as quick:
        quick.create("s").append(holdfast.user("one"), key="k")
    with holdfast.open(server.url(prefix="k")) as store, server.client() as client:
        client.config_resetstat()  # each new connection waits once for nothing
        assert store.session("s").append(holdfast.user("one"), key="k").last == 1
        assert client.info("commandstats")["cmdstat_waitaof"]["calls"] == 1


def test_a_replica_that_was_made_the_master_goes_on(started) -> None:
    first = started()
    second = started(replicaof=f"127.0.0.1 {first.port}")
    with second.client() as client:
        second.wait_until(lambda: client.info("replication")["master_link_status"] == "up")
        address = f"redis://127.0.0.1:{second.port},127.0.0.1:{first.port}/0?durability=replicated"
        with holdfast.open(address) as store:
            session = store.create("s")
            session.append(holdfast.user("one"))
        with holdfast.open(address.replace("replicated", "disk")) as store:
            session = store.session("s")
            session.append(holdfast.user("two"))
            first.kill()
            client.replicaof("no", "one")
            assert session.append(holdfast.user("three")).last >= 2
            assert [event.seq for event in session.events()][-1] == session.info().last


def test_a_server_that_is_restarted_with_less_is_refused(started) -> None:
    server = started()
    with holdfast.open(server.url()) as store:
        session = store.create("s")
        session.append(holdfast.user("one"))
        server.stop()
        server.settings["appendfsync"] = "no"
        server.start()
        with pytest.raises(Unavailable, match="appendfsync no"):
            session.append(holdfast.user("two"))
        with server.client() as client:
            client.config_set("appendfsync", "always")
        assert session.append(holdfast.user("two")).last == 2


def test_replicas_are_waited_for(started) -> None:
    server = started()
    with pytest.raises(Unavailable, match="has 0 replicas"):
        holdfast.open(server.url(durability="replicated", timeout="0.3"))
    replica = started(replicaof=f"127.0.0.1 {server.port}")
    with server.client() as client, replica.client() as other:
        replica.wait_until(lambda: other.info("replication")["master_link_status"] == "up")
        with holdfast.open(server.url(prefix="r", durability="replicated")) as store:
            assert store.durability == "replicated"
            store.create("s").append(holdfast.user("one"))
            assert other.exists("r:{0}:log:session:s")
            other.replicaof("no", "one")
            server.wait_until(lambda: client.info("replication")["connected_slaves"] == 0)
        with holdfast.open(server.url(prefix="r", timeout="0.3")) as store:  # with disk it opens
            assert store.session("s").last == 1
            other.replicaof("127.0.0.1", server.port)
        with pytest.raises(Unavailable, match=f"is a replica; open the store at its master 127.0.0.1:{server.port}"):
            holdfast.open(replica.url())
        assert client.ping()


def test_a_full_server_stores_nothing_and_goes_on_when_there_is_room(started) -> None:
    server = started(maxmemory="3mb")
    with holdfast.open(server.url()) as store, server.client() as client:
        session = store.create("s")

        def fill() -> None:
            for n in range(100):
                session.append(holdfast.user(random.Random(n).randbytes(20_000).hex()))

        with pytest.raises(Unavailable, match="OOM"):
            fill()
        before = session.info().last
        assert before > 1
        assert [event.seq for event in session.events()] == list(range(1, before + 1))
        assert store.backend.verify() == []
        client.config_set("maxmemory", "100mb")
        assert session.append(holdfast.user("more")).last == before + 1


def test_a_wrong_password_says_so_and_none_is_told(started) -> None:
    server = started()
    with server.client() as client:
        client.config_set("requirepass", "s3cret")
    url = server.url()
    for wrong in (url, url.replace("redis://", "redis://:wr0ng@")):
        with pytest.raises(Unavailable) as caught:
            holdfast.open(wrong)
        assert "wr0ng" not in str(caught.value) + repr(caught.value)
    with holdfast.open(url.replace("redis://", "redis://:s3cret@")) as store:
        store.create("s")
        assert "s3cret" not in repr(store) + str(store.backend.info())


def test_no_server_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="no Redis server can be reached"):
        holdfast.open("redis://127.0.0.1:1/0?timeout=0.5")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b":x\r\n", b"*1\r\n" * 3000, b"%1\r\n+a\r\n"])
def test_what_is_no_redis_server_is_unavailable(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def serve() -> None:
            with other.accept()[0] as client:
                client.recv(4096)
                client.sendall(answer)
                client.shutdown(socket.SHUT_WR)
                client.recv(4096)

        serving = threading.Thread(target=serve)
        serving.start()
        with pytest.raises(Unavailable, match="no Redis server can be reached"):
            holdfast.open(f"redis://u:p@127.0.0.1:{other.getsockname()[1]}/0?timeout=5")
        serving.join()


@pytest.mark.parametrize(
    "wrong",
    [
        "shards=0",
        "shards=x",
        f"shards={'9' * 5000}",
        "replicas=-1",
        "timeout=0",
        "blobs=sqlite:///x.db",
        "blobs=nonsense",
        "prefix=a{b}",
        "prefix=",
    ],
)
def test_wrong_parameters_are_refused(wrong: str) -> None:
    url = servers.url()
    if wrong.startswith("prefix"):
        url = url.partition("?")[0] + "?x"
        url = url.removesuffix("?x") + "?" + wrong
    else:
        url += f"&{wrong}"
    with pytest.raises(Invalid):
        holdfast.open(url)


def test_certificates_that_are_not_there_are_named() -> None:
    with pytest.raises(Invalid, match=r"no file sslrootcert='/no/ca\.pem'"):
        holdfast.open("rediss://127.0.0.1:1/0?sslrootcert=/no/ca.pem")


@pytest.mark.parametrize("database", ["²", "9" * 5000, "x"])
def test_a_database_that_is_no_number_is_refused(database: str) -> None:
    with pytest.raises(Invalid, match="is no number"):
        holdfast.open(f"redis://127.0.0.1:1/{database}")


def test_shards_can_not_be_changed(tmp_path: Path) -> None:
    with holdfast.open(servers.url(prefix=prefix(tmp_path), shards="3")):
        pass
    with pytest.raises(Invalid, match="has 3 shards"):
        holdfast.open(servers.url(prefix=prefix(tmp_path), shards="4"))
    with holdfast.open(servers.url(prefix=prefix(tmp_path))) as store:
        assert store.backend.info()["shards"] == "3"


def test_a_large_value_needs_a_place(tmp_path: Path) -> None:
    with holdfast.open(servers.url(prefix=prefix(tmp_path))) as store:
        session = store.create("s")
        for put in (lambda: session.append(holdfast.user("x" * 200_000)), lambda: session.artifacts.put("a", b"x")):
            with pytest.raises(Invalid, match=r"\?blobs=file:///folder"):
                put()
        assert session.append(holdfast.user("small")).last == 1
    for where in ("redis", f"file://{tmp_path}/blobs"):
        with holdfast.open(servers.url(prefix=prefix(tmp_path), blobs=where)) as store:
            session = store.session(where)
            session.append(holdfast.user("x" * 200_000))
            session.artifacts.put("a", b"y" * 3_000_000)
            assert store.check().findings == ()


def test_two_stores_on_one_server_are_apart(tmp_path: Path) -> None:
    a, b = servers.url(prefix=prefix(tmp_path) + "a"), servers.url(prefix=prefix(tmp_path))
    with holdfast.open(a) as one, holdfast.open(b) as other:
        one.create("s").append(holdfast.user("apple"))
        assert other.get("s") is None
        assert other.search("apple").items == []
        assert other.check().sessions == 0
        assert one.backend.verify() == other.backend.verify() == []
