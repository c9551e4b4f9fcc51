"""The contract suite and the machine on a Redis Cluster; slots that move and masters that die under load."""

from __future__ import annotations

from pathlib import Path

import pytest
from servers import redis as servers
from test_redis import prefix

from holdfast.backend import Backend, TextOf, open_backend
from holdfast.testing import BackendContract, BackendMachine

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("redis-cluster")]


class TestRedisCluster(BackendContract):
    def make(self, place: Path, text_of: TextOf) -> Backend:
        cluster = servers.shared_cluster()
        return open_backend(cluster.url(prefix=prefix(place), blobs=f"file://{place}/blobs"), text_of)
