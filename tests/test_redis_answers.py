"""What is told when a server fails, refuses or changes its role amid a call: what was stored is never denied."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

import holdfast
from holdfast.backends.redisduty import Later
from holdfast.errors import ReadOnly, Unavailable, Uncertain
from servers import redis as servers
from servers.proxy import Proxy
from test_redis import prefix

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("redis-duty")]

Start = Callable[..., servers.Redis]


@pytest.fixture
def started(request: pytest.FixtureRequest) -> Start:
    def start(name: str = "", **settings: str) -> servers.Redis:
        server = servers.Redis(name, **settings).start()
        request.addfinalizer(server.stop)
        return server

    return start


def _login(url: str, user: str) -> str:
    return url.replace("redis://", f"redis://{user}:pw@")


def test_who_may_not_tell_others_stores_all_the_same(started: Start) -> None:
    """From Redis 7 on, a new user may use no channel: the hint is not given, and the commit is made."""
    server = started()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "u", "on", ">pw", "~*", "+@all", "resetchannels")
    with holdfast.open(_login(server.url(), "u")) as store:
        session = store.create("s")
        assert session.append(holdfast.user("one")).last == 1
        assert [event.seq for event in session.events()] == [1]


@pytest.mark.parametrize("name", ["valkey-server", "redis-server"])
@pytest.mark.parametrize("command", ["unlink", "hdel", "zrem", "sadd", "setrange", "set", "zadd"])
def test_who_may_not_do_all_is_told_at_the_door(started: Start, name: str, command: str) -> None:
    """A script that is refused half way has written a part."""
    server = started(name)
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "u", "on", ">pw", "~*", "&*", "+@all", f"-{command}")
    with pytest.raises(Unavailable, match=f"(?i){command}"):
        holdfast.open(_login(server.url(), "u"))


@pytest.mark.parametrize("name", ["valkey-server", "redis-server"])
def test_the_rights_that_are_documented_suffice(started: Start, name: str) -> None:
    server = started(name)
    page = (Path(__file__).parent.parent / "docs" / "REDIS.md").read_text()
    with server.client() as client:
        for line in page.splitlines():
            if line.startswith("ACL SETUSER"):
                client.execute_command(*line.split())
    writing, reading = (
        server.url(prefix="holdfast").replace("redis://", f"redis://{user}:secret@") for user in ("writer", "reader")
    )
    with pytest.raises(Unavailable):
        holdfast.open(reading)  # it is not there yet, and who reads can't begin it
    with holdfast.open(f"{writing}&blobs=redis") as store:
        session = store.create("s", labels=["x"])
        session.append(holdfast.user("an apple"), holdfast.user("x" * 100_000), key="k")
        assert session.append(holdfast.user("an apple"), holdfast.user("x" * 100_000), key="k").repeated
        session.rewind(to=1)
        assert store.backend.blobs.scan()
        store.create("gone").append(holdfast.user("a pear"))
        store.delete("gone")
        assert all(receipt.last for receipt in [store.create(f"n{n}").append(holdfast.user("n")) for n in range(3)])
        assert store.check(sweep=True).ok
        assert len(store.search("apple").items) == 1
        woken = threading.Event()
        with holdfast.open(f"{reading}&blobs=redis") as reader:
            stop = reader.backend.listen(woken.set)
            try:
                assert woken.wait(20)  # it listens
                woken.clear()
                session.append(holdfast.user("more"))
                assert woken.wait(20)
            finally:
                stop()
            assert {info.id for info in reader.sessions(label="x")} == {"s"}
            assert len(reader.search("apple").items) == 1
            assert [event.seq for event in reader.session("s").events(last=1)] == [session.info().last]
            assert reader.check().ok
            with pytest.raises(ReadOnly, match="may only read"):
                reader.session("s").append(holdfast.user("no"))
            with pytest.raises(ReadOnly):
                reader.create("no")
    with holdfast.open(writing) as store:
        assert not store.exists("no")


def documented(kind: str) -> list[str]:
    """The command that gives a user the rights that the guide lists."""
    page = (Path(__file__).parent.parent / "docs" / "REDIS.md").read_text()
    [line] = [line for line in page.splitlines() if line.startswith(f"ACL SETUSER {kind} ")]
    return line.split()


def test_who_waits_for_a_sync_needs_the_right_to(started: Start) -> None:
    server = started("valkey", appendfsync="everysec")
    url = server.url(prefix="holdfast").replace("redis://", "redis://writer:secret@")
    with server.client() as client:
        client.execute_command(*documented("writer"), "-waitaof")
        with pytest.raises(Unavailable, match="WAITAOF"):
            holdfast.open(url)
        client.execute_command(*documented("writer"), "+waitaof")
        with holdfast.open(url) as store:
            assert store.create("s").append(holdfast.user("one")).last == 1
            assert client.info("commandstats")["cmdstat_waitaof"]["calls"] >= 2


@pytest.mark.parametrize("how", ["settings", "password", "closed"])
def test_a_lost_answer_of_a_server_that_lets_nobody_back_is_uncertain(started: Start, how: str) -> None:
    """The commit was carried out, its answer was lost, and then the server is one that must not be written to."""
    server = started()
    straight = server.url()
    with Proxy(server.port, b"EVALSHA") as proxy, server.client() as client:
        store = holdfast.open(straight.replace(str(server.port), str(proxy.port)) + "&timeout=3")
        with store:
            session = store.create("s")
            proxy.meanwhile = {
                "settings": lambda: client.config_set("appendfsync", "no"),
                "password": lambda: client.config_set("requirepass", "x"),
                "closed": store.backend.close,
            }[how]
            proxy.cut(0, "answered")
            with pytest.raises(Uncertain):
                session.append(holdfast.user("one"), key="k")
            client.config_set("appendfsync", "always")
            client.config_set("requirepass", "")
    with holdfast.open(straight) as store:
        assert store.session("s").append(holdfast.user("one"), key="k").repeated


def test_what_is_waited_for_stays_as_it_was_asked(started: Start) -> None:
    """The server's settings change while a commit waits for its sync: an answer that nobody takes would be taken for
    that of the next call on the connection."""
    server = started(appendfsync="everysec")
    with holdfast.open(server.url()) as store, server.client() as client:
        links, address = store.backend._links, store.backend._servers.masters()[0]
        with links.take(address) as link:
            client.config_set("appendfsync", "always")
            with links.take(address) as other:
                assert (link.wait[0], other.wait) == ("WAITAOF", ())


def test_a_master_that_became_a_replica_is_left_for_the_new_one(started: Start) -> None:
    """It keeps its connections, and refuses every write on them."""
    first, second = started(), started()
    address = f"redis://127.0.0.1:{first.port},127.0.0.1:{second.port}/0?timeout=10"
    with first.client() as one, second.client() as other:
        other.replicaof("127.0.0.1", first.port)
        second.wait_until(lambda: other.info("replication")["master_link_status"] == "up")
        with holdfast.open(address) as store:
            session = store.create("s")
            session.append(holdfast.user("one"))
            one.execute_command("FAILOVER")
            second.wait_until(lambda: other.info("replication")["role"] == "master")
            assert session.append(holdfast.user("two")).last == 2
            assert store.backend.info()["servers"] == f"127.0.0.1:{second.port}"


def test_two_masters_are_not_one_store(started: Start) -> None:
    """One that was replaced and came back would take what is lost as soon as that is noticed."""
    first, second = started(), started()
    with pytest.raises(Unavailable, match="are each a master of its own"):
        holdfast.open(f"redis://127.0.0.1:{first.port},127.0.0.1:{second.port}/0")


def test_a_server_that_starts_has_stored_nothing(started: Start) -> None:
    """It says so (LOADING), to whoever comes: that is no lost answer."""
    server = started()
    with server.client() as client, client.pipeline(transaction=False) as pipe:
        for n in range(40_000):
            pipe.set("filler", n)
        pipe.execute()
    with holdfast.open(server.url(timeout="2")) as store:
        session = store.create("s")
        server.kill()
        server.settings["key-load-delay"] = "200"  # microseconds
        server.begin()
        with server.client() as client:
            server.wait_until(lambda: _loads(client))
            with pytest.raises(Unavailable, match="LOADING"):
                session.append(holdfast.user("one"))


def test_a_server_that_is_at_a_script_may_be_free_later(started: Start) -> None:
    """It does not even tell what it is: a call that makes a connection waits for it as one that has one does."""
    server = started()
    with server.client() as client, server.client() as other:
        client.config_set("lua-time-limit", "10")
        endless = threading.Thread(target=_endless, args=(other,))
        endless.start()
        server.wait_until(lambda: _is_busy(client))
        with pytest.raises(Later, match="BUSY"):
            holdfast.open(server.url())
        client.execute_command("SCRIPT", "KILL")
        endless.join()


def _endless(client: Any) -> None:
    with contextlib.suppress(redis.ResponseError):  # it is killed
        client.eval("while true do end", 0)


def _is_busy(client: Any) -> bool:
    try:
        return not client.ping()
    except redis.RedisError as error:
        return "BUSY" in str(error) or "busy" in str(error)


def _loads(client: Any) -> bool:
    try:
        return bool(client.info("persistence")["loading"])
    except redis.RedisError:
        return False


def test_a_lock_that_can_not_be_given_back_denies_no_commit(started: Start) -> None:
    """The server dies behind the commit that was made under it."""
    server = started()
    with holdfast.open(server.url(blobs="redis", timeout="1")) as store:
        with store.backend.blobs.shared():
            server.kill()
        server.start()
        assert store.create("s").append(holdfast.user("x" * 200_000)).last == 1


def test_a_value_whose_answer_was_lost_is_put_again(tmp_path: Path) -> None:
    server = servers.shared()
    with Proxy(server.port, b"ZADD") as proxy:
        url = server.url(prefix=prefix(tmp_path), blobs="redis").replace(str(server.port), str(proxy.port))
        with holdfast.open(url) as store:
            blobs, digest = store.backend.blobs, hashlib.sha256(b"data").hexdigest()
            proxy.cut(0, "answered")
            blobs.put(digest, b"data")
            assert proxy.cuts == 1
            assert blobs.get(digest) == b"data"


def test_a_value_that_was_put_again_is_as_durable_as_one_that_is_new(started: Start) -> None:
    server = started()
    url = server.url(prefix="b", blobs="redis", timeout="0.5")
    digest = hashlib.sha256(b"data").hexdigest()
    with holdfast.open(url) as store:
        store.backend.blobs.put(digest, b"data")
    replica = started(replicaof=f"127.0.0.1 {server.port}")
    with server.client() as client:
        server.wait_until(lambda: client.info("replication")["connected_slaves"] == 1)
        with holdfast.open(url + "&replicas=1") as store:
            replica.kill()
            server.wait_until(lambda: client.info("replication")["connected_slaves"] == 0)
            with pytest.raises(Uncertain, match="0 of 1 replicas"):
                store.backend.blobs.put(digest, b"data")
