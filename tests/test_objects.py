"""Blobs in object storage, and in a folder of one's choice: nothing is lost, nothing secret told, nothing mixed up."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest

import holdfast
from holdfast import Corrupt, Invalid, Large, Store, Unavailable, user
from holdfast.backend import Backend, TextOf, open_backend
from holdfast.backends import objects
from holdfast.backends.objects import ObjectBlobs
from holdfast.model import Message, Text
from holdfast.testing import BackendContract
from servers.s3 import KEYS, ObjectStorage, storage

BIG = os.urandom(2_000_000).hex()
"""A text that takes several chunks."""


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStorage]:
    """Object storage, and the environment that leads to it."""
    found = storage()
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": found.endpoint}.items():
        monkeypatch.setenv(name, value)
    yield found
    if not found.answers():
        found.start()


def bucket_of(place: Path) -> str:
    """A place in the bucket for what belongs to a folder."""
    return f"s3://bucket/{hashlib.sha256(str(place).encode()).hexdigest()}"


@pytest.fixture(params=["sqlite", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store may be that keeps its blobs elsewhere."""
    return {"sqlite": f"sqlite://{tmp_path}/store.db", "file": f"file://{tmp_path}/store"}[request.param]


def big_of(store: Store) -> str:
    [found] = store.session("s").messages()
    assert isinstance(found, Message)
    [part] = found.parts
    assert isinstance(part, Text)
    assert isinstance(part.content, Large)
    with part.content.open() as stream:
        return stream.read().decode()


class TestContract(BackendContract):
    """The whole contract with blobs in object storage, as shared locks are part of it."""

    def make(self, place: Path, text_of: TextOf) -> Backend:
        return open_backend(f"sqlite://{place}/store.db?durability=process&blobs={bucket_of(place)}", text_of)


class TestContractOfRows(BackendContract):
    """The same with blobs in the database."""

    def make(self, place: Path, text_of: TextOf) -> Backend:
        return open_backend(f"sqlite://{place}/store.db?durability=process&blobs=database", text_of)


def test_one_file_has_it_all(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/store.db"
    with holdfast.open(f"{url}?blobs=database") as store:
        store.session("s").append(user(BIG))
        assert len(store.backend.blobs.scan()) == 5
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store.db").rename(tmp_path / "elsewhere" / "store.db")
    with holdfast.open(f"sqlite://{tmp_path}/elsewhere/store.db") as store:  # it need not be told
        assert big_of(store) == BIG
        assert store.check().ok
        digest = store.backend.blobs.scan()[0]
        with pytest.raises(Invalid, match="in itself"):
            holdfast.open(f"sqlite://{tmp_path}/elsewhere/store.db?blobs={bucket_of(tmp_path)}")
        with contextlib.closing(sqlite3.connect(tmp_path / "elsewhere" / "store.db")) as db:
            db.execute("UPDATE blob SET data = x'0001' WHERE digest = ?", (digest,))
            db.commit()
        with pytest.raises(Corrupt):
            store.backend.blobs.get(digest)
        assert not store.check().ok


def test_what_was_purged_leaves_no_byte_in_the_file(tmp_path: Path) -> None:
    with holdfast.open(f"sqlite://{tmp_path}/store.db?blobs=database") as store:
        store.session("s").append(user(os.urandom(100_000).hex() + "a word that nobody else has" * 3_000))
        store.session("s").delete()
        assert store.check(sweep=True).swept.deleted
        store.compact()
        assert store.backend.blobs.scan() == []
    assert (tmp_path / "store.db").stat().st_size < 200_000


def test_a_store_with_blobs_elsewhere_takes_none_into_the_database(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/store.db"
    with holdfast.open(url) as store:
        store.session("s").append(user(BIG))
    with pytest.raises(Invalid, match="copy it to a new one"):
        holdfast.open(f"{url}?blobs=database")


def test_large_values_are_in_the_bucket_and_found_without_being_told(url: str, tmp_path: Path) -> None:
    where = bucket_of(tmp_path)
    with holdfast.open(f"{url}?blobs={where}") as store:
        store.session("s").append(user(BIG))
        assert isinstance(store.backend.blobs, ObjectBlobs)
        assert len(store.backend.blobs.scan()) == 5  # four chunks and their list
        assert store.check().ok
    for given in ("", f"?blobs={where}"):
        with holdfast.open(url + given) as store:
            assert big_of(store) == BIG
    assert not [name for name in tmp_path.rglob("*") if len(name.name) == 62]


def test_another_folder_takes_the_blobs(url: str, tmp_path: Path) -> None:
    with holdfast.open(f"{url}?blobs=file://{tmp_path}/far") as store:
        store.session("s").append(user(BIG))
    assert len(list((tmp_path / "far").glob("??/*"))) == 5  # four chunks and their list
    with holdfast.open(url) as store:
        assert big_of(store) == BIG
        store.session("s").delete()
        assert store.check(sweep=True).ok
    assert list((tmp_path / "far").glob("??/*")) == []


def test_a_store_that_has_blobs_is_not_sent_elsewhere(url: str, tmp_path: Path) -> None:
    with holdfast.open(url) as store:
        store.session("s").append(user(BIG))
    with pytest.raises(Invalid, match="copy it to a new one"):
        holdfast.open(f"{url}?blobs={bucket_of(tmp_path)}")
    with holdfast.open(url) as store:
        assert big_of(store) == BIG


def test_another_place_than_the_stores_is_refused(url: str, tmp_path: Path) -> None:
    holdfast.open(f"{url}?blobs={bucket_of(tmp_path)}").close()
    with pytest.raises(Invalid, match="leave blobs= away"):
        holdfast.open(f"{url}?blobs=file://{tmp_path}/far")


@pytest.mark.parametrize(
    "blobs",
    [
        "s3://bucket",
        "s3:///prefix",
        "s3://key:secret-word@bucket/prefix",
        "s3://bucket/prefix?secret_access_key=secret-word",
        "s3://bucket/prefix?endpoint=http://key:secret-word@host",
        "https://bucket/secret-word@x",
        "file:relative",
        "file://host/x",
    ],
)
def test_a_place_that_is_none_is_refused_without_telling_secrets(url: str, tmp_path: Path, blobs: str) -> None:
    from urllib.parse import quote

    with pytest.raises(Invalid) as refused:
        holdfast.open(f"{url}?blobs={quote(blobs, safe='')}")
    assert "secret-word" not in str(refused.value) + repr(refused.value.facts) or "secret-word@x" in blobs
    with holdfast.open(url) as store:  # nothing was noted
        store.session("s").append(user(BIG))
        assert big_of(store) == BIG


def test_no_answer_is_unavailable_and_a_retry_stores_once(
    url: str, tmp_path: Path, server: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "RETRIES", 1)
    with holdfast.open(f"{url}?blobs={bucket_of(tmp_path)}") as store:
        session = store.session("s")
        server.kill()
        with pytest.raises(Unavailable) as told:
            session.append(user(BIG), key="k")
        assert KEYS["AWS_SECRET_ACCESS_KEY"] not in str(told.value)
        assert "Debug source" not in str(told.value)
        assert list(session.events()) == []
        server.start()
        session.append(user(BIG), key="k")
        assert session.append(user(BIG), key="k").repeated
        assert big_of(store) == BIG


def test_a_bucket_that_is_not_there_is_told_as_such(url: str) -> None:
    with holdfast.open(f"{url}?blobs=s3://no-bucket/x") as store:
        with pytest.raises(Unavailable, match=r"NoSuchBucket|does not exist|not found"):
            store.session("s").append(user(BIG))
        with pytest.raises(Unavailable):
            store.backend.blobs.get("0" * 64)


def test_a_damaged_object_is_found(url: str, tmp_path: Path) -> None:
    with holdfast.open(f"{url}?blobs={bucket_of(tmp_path)}") as store:
        store.session("s").append(user(BIG))
        blobs = store.backend.blobs
        assert isinstance(blobs, ObjectBlobs)
        digest = blobs.scan()[0]
        obstore.put(blobs._store, digest, b"\x00other bytes")
        with pytest.raises(Corrupt):
            blobs.get(digest)
        assert not store.check().ok


def test_a_forked_child_is_told_instead_of_hanging(url: str, tmp_path: Path) -> None:
    with holdfast.open(f"{url}?blobs={bucket_of(tmp_path)}") as store:
        store.session("s").append(user(BIG))
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(BaseException):
                try:
                    big_of(store)
                except Unavailable as error:
                    code = 0 if "forked" in str(error) else 2
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert big_of(store) == BIG


WRITER = """
import sys, holdfast
with holdfast.open(sys.argv[1]) as store:
    for number in range(1000):
        store.session("s").append(holdfast.user(str(number) * 300_000), key=str(number))
        print(number, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_was_acknowledged(url: str, tmp_path: Path) -> None:
    given = f"{url}?blobs={bucket_of(tmp_path)}"
    with subprocess.Popen([sys.executable, "-c", WRITER, given], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) == 5:
                writer.send_signal(signal.SIGKILL)
                break
    with holdfast.open(url) as store:
        assert store.check(sweep=True).ok
        assert len(list(store.session("s").events())) >= 6
        assert [len(str(number) * 300_000) for number in range(6)] == [
            len(found.text) for found in list(store.session("s").messages())[:6] if isinstance(found, Message)
        ]


def test_a_url_that_says_where_the_server_is(
    tmp_path: Path, server: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_REGION")
    where = f"{bucket_of(tmp_path)}%3Fendpoint={server.endpoint}%26region=us-east-1"
    with holdfast.open(f"sqlite://{tmp_path}/s.db?blobs={where}") as store:
        store.session("s").append(user(BIG))
    with holdfast.open(f"sqlite://{tmp_path}/s.db") as store:
        assert big_of(store) == BIG
