"""Trimming a long log on Redis: the record first, the removal after, in portions that hold up nobody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.backend import Backend
from holdfast.backends import open_backend, redisforget
from holdfast.errors import Unavailable
from holdfast.plan import Commit, Entry, Head, Ref
from servers import redis as servers
from test_redis import prefix

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("redis")]

REF = Ref("session", "long")
MANY = 20_000


def entries(first: int, last: int) -> list[Entry]:
    return [Entry(f"k{n}", 1, b"text %d" % n) for n in range(first, last + 1)]


def committed(backend: Backend, **change: Any) -> Head:
    [made] = backend.commit([Commit(ref=REF, **change)])
    assert isinstance(made, Head)
    return made


@pytest.fixture
def place(tmp_path: Path) -> str:
    return servers.quick().url(prefix=prefix(tmp_path), durability="process")


@pytest.fixture
def backend(place: str) -> Iterator[Backend]:
    """A store with a log of many entries."""
    opened = open_backend(place, lambda body: body.decode())
    committed(opened, if_rev=0)
    for first in range(1, MANY, 5000):
        committed(opened, append=entries(first, first + 4999))
    yield opened
    opened.close()


def fields(place: str) -> int:
    with servers.quick().client() as client:
        return client.hlen(f"{place.partition('prefix=')[2].partition('&')[0]}:{{0}}:log:session:long")


def test_a_long_trim_holds_up_nobody(backend: Backend, place: str) -> None:
    with servers.quick().client() as client:
        client.config_resetstat()
        client.config_set("slowlog-log-slower-than", 0)
        client.slowlog_reset()
        committed(backend, trim=MANY - 10)
        calls = client.info("commandstats")["cmdstat_evalsha"]["calls"]
        slowest = max((entry["duration"] for entry in client.slowlog_get(128)), default=0)
    assert calls >= MANY / redisforget.PORTION
    assert slowest < 200_000  # microseconds, on a machine that does much else
    assert fields(place) == 2 * 10 + 2  # entries and their ids, its bounds, what is hidden
    assert backend.verify() == []


def test_what_a_killed_trim_left_is_nobodys_and_goes_later(
    backend: Backend, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise Unavailable("the server went away")

    monkeypatch.setattr(backend._writer, "_forget", fail)  # type: ignore[attr-defined]  # as if killed behind the commit
    committed(backend, trim=MANY - 10)
    assert fields(place) == 2 * MANY + 3
    assert backend.verify() == []
    assert [entry.seq for entry in backend.read(REF)] == list(range(MANY - 9, MANY + 1))
    assert backend.read(REF, ids=["k5", f"k{MANY}"]) == backend.read(REF, after=MANY - 1)
    assert committed(backend, append=[Entry("k5", 2, b"its id is free")]).last == MANY + 1
    assert [entry.seq for entry in backend.read(REF, ids=["k5"])] == [MANY + 1]
    other = open_backend(place, lambda body: body.decode())
    other.compact()
    other.close()
    assert fields(place) == 2 * 11 + 2
    assert [entry.seq for entry in backend.read(REF, ids=["k5"])] == [MANY + 1]
    assert backend.verify() == []
