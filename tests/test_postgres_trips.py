"""How often a writer on PostgreSQL waits for the server: once or twice for a batch, whatever its size."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import holdfast
from holdfast import Store
from holdfast.heads.info import now, session_ref
from holdfast.plan import Commit, Entry, Head
from servers.postgres import shared
from servers.proxy import Proxy

pytestmark = pytest.mark.server

SIZES = (1, 8, 64, 500)
BODY = b'{"v":1,"type":"note","text":"hello"}'


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    target = shared()
    assert target is not None, "these tests look into the connections of a private server"
    with Proxy(target.port) as made:
        yield made


@pytest.fixture
def behind(proxy: Proxy, at: str) -> str:
    target = shared()
    assert target is not None
    holdfast.open(at).close()
    # Nobody listens, so that all that is said on the connections is the test's.
    return at.replace(f":{target.port}/", f":{proxy.port}/") + "&listen=off"


def trips(proxy: Proxy, store: Store, size: int) -> int:
    """The round trips of one batch of appends, each to a session of its own."""
    batch = [
        Commit(ref=session_ref(f"s{number}"), at=now(), append=(Entry("", now(), BODY),)) for number in range(size)
    ]
    before = proxy.turns
    results = store.backend.commit(batch)
    assert [isinstance(result, Head) for result in results] == [True] * size
    return proxy.turns - before


def test_a_batch_takes_one_or_two_round_trips_whatever_its_size(proxy: Proxy, behind: str) -> None:
    with holdfast.open(behind) as store:
        made = [Commit(ref=session_ref(f"s{number}"), at=now(), if_rev=0) for number in range(max(SIZES))]
        assert all(isinstance(result, Head) for result in store.backend.commit(made))
        told = {("known", size): trips(proxy, store, size) for size in SIZES}  # heads that this process wrote last
    for size in SIZES:
        with holdfast.open(behind) as store:  # a process that knows none of them
            assert store.backend.kinds() == ["session"]  # it is connected
            told["unknown", size] = trips(proxy, store, size)
    assert set(told.values()) <= {1, 2}, told
