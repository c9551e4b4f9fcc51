"""PostgreSQL behind PgBouncer in transaction mode: the contract holds, as nothing is kept in a server's session."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.backend import Backend, TextOf
from holdfast.backends import open_backend
from holdfast.testing import BackendContract
from servers import pgbouncer, postgres
from servers.pgbouncer import PgBouncer

pytestmark = pytest.mark.server

_pooler: list[PgBouncer] = []


@pytest.fixture(scope="module", autouse=True)
def pooler() -> Iterator[None]:
    if pgbouncer.program() is None and not pgbouncer.may_be_installed():
        pytest.skip(pgbouncer.NOT_RUN)
    server = postgres.shared()
    assert server is not None, "PgBouncer stands before a private server"
    _pooler.append(PgBouncer(server))
    yield
    _pooler.pop().stop()


class TestBehindPgBouncer(BackendContract):
    def make(self, place: Path, text_of: TextOf) -> Backend:
        url = postgres.url("p" + hashlib.sha256(str(place).encode()).hexdigest()[:30])
        host, _, rest = url.partition("/test?")
        return open_backend(f"{host.rpartition(':')[0]}:{_pooler[0].port}/test?{rest}", text_of)
