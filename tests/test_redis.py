"""The contract suite and the machine on a Redis server."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import settings

from holdfast.backend import Backend, TextOf
from holdfast.backends import open_backend
from holdfast.testing import BackendContract, BackendMachine
from servers import redis as servers

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("redis")]


def prefix(place: Path) -> str:
    """A store's prefix, for the folder that it stands for."""
    return hashlib.sha256(str(place).encode()).hexdigest()[:16]


class TestRedis(BackendContract):
    def make(self, place: Path, text_of: TextOf) -> Backend:
        return open_backend(servers.url(prefix=prefix(place), blobs=f"file://{place}/blobs"), text_of)


class TestRedisWithShardsAndBlobs(BackendContract):
    """A store of several shards, as on a cluster, whose blobs are in Redis."""

    def make(self, place: Path, text_of: TextOf) -> Backend:
        return open_backend(servers.url(prefix=prefix(place), blobs="redis", shards="5"), text_of)


class RedisMachine(BackendMachine):
    def make(self, place: Path, text_of: TextOf) -> Backend:
        return open_backend(servers.quick().url(prefix=prefix(place), durability="process", shards="3"), text_of)


TestRedisMachine = RedisMachine.TestCase
TestRedisMachine.settings = settings(max_examples=max(1, settings.default.max_examples // 4))  # a call is a round trip
