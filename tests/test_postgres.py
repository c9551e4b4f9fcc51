"""PostgreSQL: the contract and the machine on a real server."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from holdfast.backend import Backend, TextOf, open_backend
from holdfast.testing import BackendContract, BackendMachine
from servers import postgres

pytestmark = pytest.mark.server


def url_of(place: Path, **params: str) -> str:
    """The URL of the store that belongs to a folder."""
    import hashlib

    return postgres.url("s" + hashlib.sha256(str(place).encode()).hexdigest()[:30], **params)


class TestContract(BackendContract):
    def make(self, place: Path, text_of: TextOf) -> Backend:
        return open_backend(url_of(place), text_of)


class PostgresMachine(BackendMachine):
    def make(self, place: Path, text_of: TextOf) -> Backend:
        return open_backend(url_of(place), text_of)


TestMachine = PostgresMachine.TestCase
TestMachine.settings = settings(max_examples=40)
