"""What an open store makes of a server that lost what it had: it believes no memory, and nothing new is missed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import holdfast
from holdfast import NotFound, Unavailable
from servers import redis as servers

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("redis-duty")]

Start = Callable[..., servers.Redis]


@pytest.fixture
def started() -> Iterator[Start]:
    running: list[servers.Redis] = []

    def start(**settings: str) -> servers.Redis:
        running.append(servers.Redis(**settings).start())
        return running[-1]

    yield start
    for server in running:
        server.stop()


def changed(url: str) -> bytes:
    """The key of the list by change of a store's only shard."""
    return url.partition("prefix=")[2].partition("&")[0].encode() + b":{0}:changed"


def number_of(client: Any, url: str, id: str, number: int) -> None:
    """Let a session's last change have a number: what a clock that is ahead gives."""
    assert client.zadd(changed(url), {f"session\0{id}".encode(): number}, ch=True) == 1


def test_a_promoted_replica_with_a_slower_clock_hides_no_event(started: Start) -> None:
    """It lost the newest change, and numbers its own below that; then the same session changes above it."""
    first, second = started(), started()
    url = second.url(durability="process", timeout="10").replace("127.0.0.1", f"127.0.0.1:{first.port},127.0.0.1", 1)
    with first.client() as old, second.client() as new:
        new.replicaof("127.0.0.1", first.port)
        second.wait_until(lambda: new.info("replication")["master_link_status"] == "up")
        with holdfast.open(url) as store:
            for id in ("a", "b", "c"):
                store.create(id).append(holdfast.user("kept"))
            second.wait_until(lambda: new.zcard(changed(url)) == 3 and len(new.hkeys(_log(url, "c"))) > 1)
            new.replicaof("NO", "ONE")
            ahead = int(time.time() + 1000) * 1_000_000
            number_of(old, url, "a", ahead)
            store.session("a").append(holdfast.user("lost apple"))
            assert len(store.search("apple").items) == 1
            position = store.backend.changed()[0]
            first.kill()
            store.session("b").append(holdfast.user("new apple"))
            number_of(new, url, "c", ahead + 10)
            store.session("a").append(holdfast.user("new plum"))
            assert {ref.id for ref in store.backend.changed(position)[1]} >= {"a", "b"}
            assert [(hit.session, hit.event.seq) for hit in store.search("apple").items] == [("b", 2)]
            assert [(hit.session, hit.event.seq) for hit in store.search("plum").items] == [("a", 2)]


def _log(url: str, id: str) -> bytes:
    return changed(url).removesuffix(b"changed") + f"log:session:{id}".encode()


@pytest.mark.parametrize("command", ["FLUSHALL", "FLUSHDB"])
@pytest.mark.parametrize("shards", ["1", "4"])
def test_a_store_that_is_emptied_goes_on_empty(started: Start, command: str, shards: str) -> None:
    server = started()
    url = server.url(shards=shards)
    with holdfast.open(url) as store, server.client() as client:
        old = [store.create(f"s{number}") for number in range(20)]
        for session in old:
            session.append(holdfast.user("apple"))
        assert len(store.search("apple", limit=100).items) == 20
        position = store.backend.changed()[0]
        client.execute_command(command)
        assert store.search("apple").items == []
        with pytest.raises(NotFound):
            old[0].append(holdfast.user("late apple"))
        assert list(store.sessions()) == []
        assert store.create("s7").append(holdfast.user("new apple pie")).last == 1
        assert {ref.id for ref in store.backend.changed(position)[1] if ref.kind == "session"} == {"s7"}
        assert [hit.session for hit in store.search("apple", limit=1).items] == ["s7"]
        with holdfast.open(url.replace(f"&shards={shards}", "")) as other:  # as it was cut
            assert [info.id for info in other.sessions()] == ["s7"]
            other.session("s8").append(holdfast.user("another apple"))
        assert len(store.search("apple").items) == 2
        assert store.check().ok


def test_who_has_a_store_open_that_was_emptied_and_begun_anew_is_told(started: Start) -> None:
    """It would look for sessions where the new store does not."""
    server = started()
    url = server.url()
    with holdfast.open(f"{url}&shards=4") as store, server.client() as client:
        store.create("s").append(holdfast.user("apple"))
        client.flushall()
        with holdfast.open(f"{url}&shards=3") as other:
            for number in range(12):
                other.create(f"n{number}")
            for number in range(12):
                with pytest.raises(Unavailable, match="emptied and begun anew"):
                    store.create(f"old {number}")
            other.create("after")
            assert len(list(other.sessions())) == 13
            assert other.check().ok
        with holdfast.open(url) as again:
            again.create("again")


def test_a_server_that_forgot_its_last_moments_is_read_anew(started: Start) -> None:
    """Without a file it comes back empty, and a mark of before is nowhere."""
    server = started(appendonly="no")
    url = server.url(durability="process")
    with holdfast.open(url) as store:
        store.create("s").append(holdfast.user("apple"), holdfast.user("apple"))
        assert len(store.search("apple").items) == 2
        server.kill()
        server.start()
        store.create("s").append(holdfast.user("pear"), holdfast.user("apple"))
        assert [hit.event.seq for hit in store.search("apple").items] == [2]
        assert [hit.event.seq for hit in store.search("pear").items] == [1]
