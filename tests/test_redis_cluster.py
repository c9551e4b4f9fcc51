"""The contract suite and the machine on a Redis Cluster; slots that move and masters that die under load."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import holdfast
from holdfast.backend import Backend, TextOf
from holdfast.backends import open_backend
from holdfast.backends.rediskeys import Layout
from holdfast.backends.redisnodes import slot_of
from holdfast.errors import ReadOnly, Unavailable, Uncertain
from holdfast.plan import Ref
from holdfast.testing import BackendContract, BackendMachine
from servers import redis as servers
from test_redis import prefix
from test_redis_answers import documented
from test_redis_crash import ACKS, Load

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("redis-cluster")]

MASTERS, LONG_MASTERS = 8, 125
"""How many masters are killed, one after the other: by each of two servers, at each of two durabilities."""


class TestRedisCluster(BackendContract):
    def make(self, place: Path, text_of: TextOf) -> Backend:
        cluster = servers.shared_cluster()
        return open_backend(
            cluster.url(prefix=prefix(place), durability="process", blobs=f"file://{place}/blobs"), text_of
        )


class ClusterMachine(BackendMachine):
    def make(self, place: Path, text_of: TextOf) -> Backend:
        cluster = servers.shared_cluster()
        return open_backend(cluster.url(prefix=prefix(place), durability="process", shards="7"), text_of)


TestClusterMachine = ClusterMachine.TestCase
TestClusterMachine.settings = settings(max_examples=max(1, settings.default.max_examples // 20))


@pytest.fixture(params=["valkey", "redis"])
def cluster(request: pytest.FixtureRequest) -> Iterator[servers.Cluster]:
    """A cluster that a test may break; of the newest and of the oldest."""
    started = servers.Cluster(f"{request.param}-server").start()
    yield started
    started.stop()


@pytest.fixture(params=["valkey", "redis"])
def quick_cluster(request: pytest.FixtureRequest) -> Iterator[servers.Cluster]:
    """One that replaces a master that is silent for half a second, so that many can be killed."""
    started = servers.Cluster(f"{request.param}-server", cluster_node_timeout="500").start()
    yield started
    started.stop()


def test_the_shards_of_a_store_are_on_all_masters(tmp_path: Path) -> None:
    cluster = servers.shared_cluster()
    with holdfast.open(cluster.url(prefix=prefix(tmp_path), durability="process")) as store:
        assert store.backend.info()["shards"] == "64"
        for n in range(100):
            store.create(f"s{{{n}}}").append(holdfast.user(f"apple {n}"))  # braces would move the slot
        assert len(store.search("apple", limit=200).items) == 100
        assert [info.id for info in store.sessions(limit=200)] == [f"s{{{n}}}" for n in reversed(range(100))]
        for server in cluster.servers[:3]:
            with server.client() as client:
                assert client.dbsize() > 20


def _on_another(cluster: servers.Cluster, layout: Layout) -> str:
    """A session that is not on the first master."""
    first = cluster.servers[0]
    ids = (f"s{n}" for n in range(100))
    return next(
        id for id in ids
        if cluster.master_of(slot_of(layout.tag(layout.shard_of(Ref("session", id))))) is not first
    )  # fmt: skip


def test_who_listens_is_told_by_the_master_that_was_written_to(cluster: servers.Cluster) -> None:
    """Not only by another one: what masters tell each other may come tens of milliseconds later, or not at all."""
    url = cluster.url(prefix="l", durability="process")
    with holdfast.open(url) as store, holdfast.open(url) as other:
        session = other.create(_on_another(cluster, store.backend._layout))
        woken = threading.Event()
        stop = store.backend.listen(woken.set)
        try:
            assert woken.wait(20)  # it listens now
            woken.clear()
            os.kill(cluster.servers[0].pid, signal.SIGSTOP)
            try:
                session.append(holdfast.user("one"))
                assert woken.wait(1.5)  # in 2 seconds the first master would be replaced
            finally:
                os.kill(cluster.servers[0].pid, signal.SIGCONT)
        finally:
            stop()


def test_what_several_masters_tell_wakes_once(cluster: servers.Cluster) -> None:
    with holdfast.open(cluster.url(prefix="l", durability="process")) as store:
        woken = threading.Semaphore(0)
        stop = store.backend.listen(woken.release)
        try:
            assert woken.acquire(timeout=20)  # it listens now
            for n in range(20):
                with cluster.servers[n % 3].client() as client:
                    client.publish("l:changes", f"{n}")
                assert woken.acquire(timeout=20)
            assert not woken.acquire(blocking=False)
        finally:
            stop()


def test_who_listens_hears_of_the_others_while_a_master_is_away(cluster: servers.Cluster) -> None:
    url = cluster.url(prefix="l", durability="process", timeout="5")
    with holdfast.open(url) as store, holdfast.open(url) as other:
        session = other.create(_on_another(cluster, store.backend._layout))
        cluster.servers[0].kill()
        woken = threading.Event()
        stop = store.backend.listen(woken.set)
        try:
            assert woken.wait(20)
            for n in range(5):
                woken.clear()
                session.append(holdfast.user(f"{n}"))
                assert woken.wait(20)
        finally:
            stop()


def test_the_rights_that_are_documented_suffice_on_a_cluster(cluster: servers.Cluster, tmp_path: Path) -> None:
    for server in cluster.servers:
        with server.client() as client:
            for kind in ("writer", "reader"):
                client.execute_command(*documented(kind), "+cluster|slots", "+asking")
    url = cluster.url(prefix="holdfast", blobs="redis")
    writing, reading = (url.replace("redis://", f"redis://{kind}:secret@") for kind in ("writer", "reader"))
    with holdfast.open(writing) as store, holdfast.open(reading) as reader:
        load = Load(store)
        try:
            for shard in range(4):  # commits follow slots that move
                slot = slot_of(b"holdfast:{%d}:" % shard)
                cluster.move(slot, next(s for s in cluster.servers[:3] if s is not cluster.master_of(slot)))
                load.wait_for(1)
        finally:
            judge = load.end()
        assert judge.wrong(store) == []
        store.create("s", labels=["x"]).append(holdfast.user("an apple"), holdfast.user("x" * 100_000))
        store.create("gone").append(holdfast.user("a pear"))
        store.delete("gone")
        assert store.check(sweep=True).ok
        store.backend.info()
        woken = threading.Event()
        stop = reader.backend.listen(woken.set)
        try:
            assert woken.wait(20)
            woken.clear()
            store.session("s").append(holdfast.user("more"))
            assert woken.wait(20)
        finally:
            stop()
        assert len(reader.search("apple").items) >= 1
        assert {info.id for info in reader.sessions(label="x")} == {"s"}
        assert reader.check().ok
        with pytest.raises(ReadOnly):
            reader.session("s").append(holdfast.user("no"))


def test_slots_move_under_load(cluster: servers.Cluster, tmp_path: Path, long: bool) -> None:
    """Key by key, as every version can: meanwhile keys of one shard are on two servers."""
    with holdfast.open(cluster.url(shards="4", prefix="m", blobs=f"file://{tmp_path}/blobs")) as store:
        load = Load(store)
        try:
            for turn in range(125 if long else 8):
                load.wait_for(ACKS)
                for shard in range(4):
                    slot = slot_of(b"m:{%d}:" % shard)
                    others = [s for s in cluster.servers[:3] if s is not cluster.master_of(slot)]
                    cluster.move(slot, others[turn % 2])
                    load.wait_for(1)
        finally:
            judge = load.end()
        assert judge.wrong(store) == []
        assert store.backend.verify() == []


@pytest.mark.parametrize("durability", ["disk", "replicated"])
def test_a_master_is_killed_and_its_replica_takes_over(
    quick_cluster: servers.Cluster,
    durability: str,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    long: bool,
) -> None:
    """Over and over: who comes back as a replica takes over in its turn.

    Redis replicates behind its answers, so an acknowledged write may be lost with its master, unless it was waited for.
    What is left is whole either way.
    """
    blobs, cluster = f"file://{tmp_path}/blobs", quick_cluster
    with holdfast.open(cluster.url(prefix="k", blobs=blobs, durability=durability, shards="8", timeout="6")) as store:
        load = Load(store)
        try:
            load.wait_for(4 * ACKS)
            slot = slot_of(b"k:{%d}:" % Layout("k", 8).shard_of(Ref("session", "first")))
            for _ in range(LONG_MASTERS if long else MASTERS):
                victim = cluster.master_of(slot)
                victim.kill()
                cluster.wait_until(lambda victim=victim: cluster.master_of(slot) is not victim)
                victim.start()  # it comes back as a replica; without one, nothing is acknowledged as replicated
                load.wait_for(4 * ACKS)
                cluster.wait_until(lambda victim=victim: follows(victim))
        finally:
            judge = load.end()
        lost = [wrong for wrong in judge.wrong(store) if "acknowledged as" in wrong]
        record_property("lost", len(lost))
        print(f"{durability}: {len(lost)} of {len(judge.acks)} acknowledged steps were lost with the master")
        assert judge.wrong(store, lossy=True) == []
        assert store.backend.verify() == []
        if durability == "replicated":
            assert lost == []


def follows(server: servers.Redis) -> bool:
    """Whether it is a replica that has what its master has."""
    with server.client() as client:
        return client.info("replication").get("master_link_status") == "up"


def test_a_connection_that_was_made_to_a_replica_is_not_trusted_once_it_is_a_master(cluster: servers.Cluster) -> None:
    """It was held to nothing then. Now no replica is left, so nothing may be acknowledged as replicated."""
    with holdfast.open(cluster.url(prefix="p", durability="replicated", shards="1", timeout="4")) as store:
        session = store.create("s")
        session.append(holdfast.user("one"))
        store.backend.compact()  # it talks to replicas, too
        slot = slot_of(b"p:{0}:")
        victim = cluster.master_of(slot)
        victim.kill()
        cluster.wait_until(lambda: cluster.master_of(slot) is not victim)
        with pytest.raises(Uncertain, match="0 of 1 replicas"):
            session.append(holdfast.user("two"), key="k")


def test_servers_that_send_a_call_to_each_other_are_unavailable(tmp_path: Path) -> None:
    """Each believes that the other has the slot."""
    cluster = servers.shared_cluster()
    with holdfast.open(cluster.url(prefix=prefix(tmp_path), durability="process", shards="1024", timeout="2")) as store:
        layout: Layout = store.backend._layout  # type: ignore[attr-defined]
        ref = next(ref for n in range(10_000) if _is_free(cluster, layout.keys(ref := Ref("session", str(n))).head))
        slot = slot_of(layout.keys(ref).head)
        owner = cluster.master_of(slot)
        other = next(server for server in cluster.servers[:3] if server is not owner)
        with owner.client() as one, other.client() as two:
            clients = {owner: one, other: two}
            ids = {server: cluster._id(client) for server, client in clients.items()}
            try:
                one.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[other])
                before = _moved(clients.values())
                with pytest.raises(Unavailable, match=r"from one server to another.*MOVED"):
                    store.backend.get([ref])
                assert _moved(clients.values()) - before < 30
            finally:
                for client in clients.values():
                    client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[owner])
        assert store.backend.get([ref]) == [None]


def _is_free(cluster: servers.Cluster, key: bytes) -> bool:
    """Whether nobody has anything in the slot of a key."""
    slot = slot_of(key)
    with cluster.master_of(slot).client() as client:
        return client.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot) == 0


def _moved(clients: Iterable[Any]) -> int:
    """How many calls some servers have sent to others."""
    return sum(client.info("errorstats").get("errorstat_MOVED", {"count": 0})["count"] for client in clients)
