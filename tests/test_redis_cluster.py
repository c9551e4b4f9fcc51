"""The contract suite and the machine on a Redis Cluster; slots that move and masters that die under load."""

from __future__ import annotations

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
from holdfast.errors import Unavailable, Uncertain
from holdfast.plan import Ref
from holdfast.testing import BackendContract, BackendMachine
from servers import redis as servers
from test_redis import prefix
from test_redis_crash import ACKS, Load

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("redis-cluster")]

MASTERS = 20
"""How many masters are killed, one after the other, in a long run."""


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


def test_slots_move_under_load(cluster: servers.Cluster, tmp_path: Path, long: bool) -> None:
    """Key by key, as every version can: meanwhile keys of one shard are on two servers."""
    with holdfast.open(cluster.url(shards="4", prefix="m", blobs=f"file://{tmp_path}/blobs")) as store:
        load = Load(store)
        try:
            for turn in range(20 if long else 4):
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
    cluster: servers.Cluster,
    durability: str,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    long: bool,
) -> None:
    """Over and over with `--long`: who comes back as a replica takes over in its turn.

    Redis replicates behind its answers, so an acknowledged write may be lost with its master, unless it was waited for.
    What is left is whole either way.
    """
    blobs = f"file://{tmp_path}/blobs"
    with holdfast.open(cluster.url(prefix="k", blobs=blobs, durability=durability, shards="8", timeout="6")) as store:
        load = Load(store)
        try:
            load.wait_for(4 * ACKS)
            slot = slot_of(b"k:{%d}:" % Layout("k", 8).shard_of(Ref("session", "first")))
            for _ in range(MASTERS if long else 1):
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
        layout: Layout = store.backend._layout  # type: ignore[attr-defined]  # to find a slot that nobody else uses
        ref = next(ref for n in range(10_000) if layout.shard_of(ref := Ref("session", str(n))) > 512)
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


def _moved(clients: Iterable[Any]) -> int:
    """How many calls some servers have sent to others."""
    return sum(client.info("errorstats").get("errorstat_MOVED", {"count": 0})["count"] for client in clients)
