"""Commits of several sessions that meet in one batch go to the server as one transaction, and each is judged alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.backend import Backend
from holdfast.backends import open_backend
from holdfast.errors import Unavailable
from holdfast.plan import Commit, Entry, Head, Ref, Refused
from servers import redis as servers
from servers.proxy import Proxy, When
from test_redis import prefix

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("redis-duty")]
MANY = 100
"""Sessions of a batch: more than one transaction takes."""


@pytest.fixture(params=["", "redis-server"], ids=["new", "6.2"])
def server(request: pytest.FixtureRequest) -> Iterator[servers.Redis]:
    server = servers.Redis(request.param).start()
    yield server
    server.stop()


def opened(server: servers.Redis, **params: str) -> Backend:
    return open_backend(server.url(**params), lambda body: body.decode())


def batch(step: int, size: int = 300) -> list[Commit]:
    """One event for each of many sessions."""
    entry = Entry(f"e{step}", at=step, body=b"x" * size)
    new = 0 if step == 1 else None
    return [Commit(ref=Ref("session", f"s{n}"), at=step, append=(entry,), if_rev=new) for n in range(MANY)]


def lasts(backend: Backend) -> list[int]:
    heads = backend.get([Ref("session", f"s{n}") for n in range(MANY)])
    return [head.last if head else 0 for head in heads]


def calls(client: Any, command: str) -> int:
    return client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"]


def test_a_batch_is_sent_as_few_transactions_and_a_single_commit_as_none(server: servers.Redis) -> None:
    backend = opened(server)
    with server.client() as client:
        assert all(isinstance(result, Head) for result in backend.commit(batch(1)))
        before = calls(client, "exec")
        assert all(isinstance(result, Head) for result in backend.commit(batch(2)))
        assert calls(client, "exec") == before + 2
        alone = Commit(ref=Ref("session", "s0"), at=3, append=(Entry("alone", at=3, body=b"x"),))
        assert isinstance(backend.commit([alone])[0], Head)
        assert calls(client, "exec") == before + 2
    assert lasts(backend) == [3, *[2] * (MANY - 1)]
    assert backend.verify() == []
    backend.close()


def test_one_that_is_refused_leaves_its_neighbours_alone(server: servers.Redis) -> None:
    backend, other = opened(server, prefix="p"), opened(server, prefix="p")
    backend.commit(batch(1))
    other.commit(
        [Commit(ref=Ref("session", "s7"), at=2, append=(Entry("e2", at=2, body=b"y"),))]
    )  # what is remembered is old
    results = backend.commit(batch(2))
    assert [n for n, result in enumerate(results) if isinstance(result, Refused)] == [7]
    assert lasts(backend) == [2] * MANY
    assert backend.verify() == []
    for one in (backend, other):
        one.close()


def test_a_server_that_forgot_the_script_gets_it_again(server: servers.Redis) -> None:
    backend = opened(server)
    backend.commit(batch(1))
    with server.client() as client:
        client.script_flush()
    assert all(isinstance(result, Head) for result in backend.commit(batch(2)))
    assert lasts(backend) == [2] * MANY
    backend.close()


def test_a_user_who_may_make_no_transaction_makes_each_commit_by_itself(server: servers.Redis) -> None:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "agent", "on", ">word", "~*", "&*", "+@all", "-multi", "-exec")
        backend = open_backend(server.url().replace("redis://", "redis://agent:word@"), lambda body: body.decode())
        for step in (1, 2):
            assert all(isinstance(result, Head) for result in backend.commit(batch(step)))
        assert calls(client, "exec") == 0
    assert lasts(backend) == [2] * MANY
    backend.close()


def test_a_full_server_refuses_a_batch_and_takes_it_when_there_is_room(server: servers.Redis) -> None:
    backend = opened(server)
    backend.commit(batch(1))
    with server.client() as client:
        client.config_set("maxmemory", "100kb")
        with pytest.raises(Unavailable, match="OOM"):
            backend.commit(batch(2, 20_000))
        assert lasts(backend) == [1] * MANY
        client.config_set("maxmemory", "0")
    assert all(isinstance(result, Head) for result in backend.commit(batch(2)))
    assert backend.verify() == []
    backend.close()


@pytest.mark.parametrize("when", ["before", "amid", "answered"])
def test_a_cut_connection_stores_a_batch_once(when: When, tmp_path: Path) -> None:
    server = servers.shared()
    with Proxy(server.port, b"EVALSHA") as proxy:
        url = server.url(prefix=prefix(tmp_path)).replace(str(server.port), str(proxy.port))
        backend = open_backend(url, lambda body: body.decode())
        for step in range(1, 6):
            proxy.cut(0, when)
            assert [result.last for result in backend.commit(batch(step)) if isinstance(result, Head)] == [step] * MANY
        assert proxy.cuts == 5
        assert backend.verify() == []
        backend.close()


def test_a_killed_server_keeps_every_batch_it_acknowledged(server: servers.Redis) -> None:
    backend = opened(server)
    for step in range(1, 4):
        backend.commit(batch(step))
        server.kill()
        server.start()
        assert lasts(backend) == [step] * MANY
    assert backend.verify() == []
    backend.close()
