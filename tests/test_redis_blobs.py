"""Large values of a store on Redis in object storage: noted once, for it alone, swept under the server's lock."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

import holdfast
from holdfast import Corrupt, Invalid, Unavailable, Uncertain, user
from holdfast.backends import redisblobs
from holdfast.backends.objects import ObjectBlobs
from holdfast.backends.redisblobs import RedisBlobs
from large_values import BIG, big_of, killed_large_writer, retried_once_it_is_back
from servers import redis as servers
from servers.s3 import ObjectStorage, bucket_of
from test_redis import prefix

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("redis")]


@pytest.fixture(autouse=True)
def server(object_storage: ObjectStorage) -> ObjectStorage:
    """Object storage, to which the environment leads."""
    return object_storage


@pytest.fixture
def base(tmp_path: Path) -> str:
    """A store that is not there yet."""
    return servers.url(prefix=prefix(tmp_path))


@pytest.fixture
def place(tmp_path: Path) -> str:
    return bucket_of(tmp_path)


def test_all_who_open_the_store_look_there_told_or_not(base: str, place: str) -> None:
    with holdfast.open(f"{base}&blobs={place}") as store:
        store.session("s").append(user(BIG))
        assert isinstance(store.backend.blobs, ObjectBlobs)
        assert store.backend.info()["blobs"] == place
        assert store.backend.blobs.scan()
        assert store.check().ok
    for given in ("", f"&blobs={place}"):
        with holdfast.open(base + given) as store:
            assert big_of(store) == BIG
    for other in ("redis", "file:///elsewhere", f"{place}2"):
        with pytest.raises(Invalid, match="leave blobs= away"):
            holdfast.open(f"{base}&blobs={other}")


def test_what_nobody_needs_is_swept_from_there(base: str, place: str) -> None:
    with holdfast.open(f"{base}&blobs={place}") as store:
        store.session("s").append(user(BIG))
        store.session("s").delete()
        swept = store.check(sweep=True).swept
        assert swept is not None
        assert swept.deleted > 0
        assert store.backend.blobs.scan() == []


def test_a_sweep_waits_for_a_writer_on_another_machine(base: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with holdfast.open(f"{base}&blobs={place}") as store, holdfast.open(base) as other:
        monkeypatch.setattr("holdfast.backends.redisblobs.BLOB_PATIENCE", 0.2)
        sweep = other.backend.blobs.exclusive()
        with store.backend.blobs.shared(), pytest.raises(Unavailable, match="in use"):
            sweep.__enter__()
        with other.backend.blobs.exclusive():
            pass


def test_two_stores_share_no_place(base: str, place: str) -> None:
    with holdfast.open(f"{base}&blobs={place}") as store:
        store.session("s").append(user(BIG))
        with pytest.raises(Invalid, match="another store keeps"):
            holdfast.open(f"{servers.url()}&blobs={place}")
        assert big_of(store) == BIG


def test_a_store_with_large_values_in_redis_keeps_them_there(base: str, place: str) -> None:
    with holdfast.open(f"{base}&blobs=redis") as store:
        store.session("s").append(user(BIG))
    with pytest.raises(Invalid, match="has its large values in Redis"):
        holdfast.open(f"{base}&blobs={place}")
    with holdfast.open(f"{base}&blobs=redis") as store:
        assert big_of(store) == BIG


def test_of_many_who_name_the_place_at_once_all_have_it(base: str, place: str) -> None:
    barrier, opened = threading.Barrier(4), list[str]()

    def begin() -> None:
        barrier.wait()
        with holdfast.open(f"{base}&blobs={place}") as store:
            opened.append(store.backend.info()["blobs"])

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == [place] * 4


def test_a_store_that_is_emptied_keeps_its_place(place: str) -> None:
    server = servers.quick()
    base = server.url(durability="process")
    with holdfast.open(f"{base}&blobs={place}") as store, server.client() as client:
        store.session("s").append(user(BIG))
        for key in client.scan_iter(f"{base.partition('prefix=')[2].partition('&')[0]}:*"):
            client.delete(key)
        store.create("s").append(user(BIG))
        with holdfast.open(base) as other:
            assert big_of(other) == BIG


def test_no_answer_is_unavailable_and_a_retry_stores_once(
    base: str, place: str, server: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    retried_once_it_is_back(f"{base}&blobs={place}", server, monkeypatch)


def test_a_note_that_cant_be_read_is_told(place: str) -> None:
    server = servers.quick()
    base = server.url(durability="process")
    holdfast.open(f"{base}&blobs={place}").close()
    with server.client() as client:
        client.hset(f"{base.partition('prefix=')[2].partition('&')[0]}:store", "blobs", "gone mad")
    with pytest.raises(Corrupt, match="does not say where"):
        holdfast.open(base)


def test_a_killed_writer_loses_nothing(base: str, place: str) -> None:
    killed_large_writer(f"{base}&blobs={place}")
    with holdfast.open(base) as store:
        messages = [str(message.text) for message in store.session("s").messages()]
        assert messages[:6] == [str(number) * 300_000 for number in range(6)]


STANDS = """
import os, signal, sys, holdfast
from holdfast.backends import redisblobs
redisblobs.LEASE, redisblobs.BEAT = 1, 60.0

def then(real):
    def call(*arguments):
        os.kill(os.getpid(), signal.SIGSTOP)
        return real(*arguments)
    return call

store = holdfast.open(sys.argv[1])
try:
"""
"""The beginning of a program that stands still for longer than its lock lasts, until it is let go on."""

STORES = f"""{STANDS}
    session = store.session("s")
    store.backend.commit = then(store.backend.commit)
    session.append(holdfast.user("x" * 100_000), key="k")
    print("stored")
except holdfast.Uncertain:
    print("uncertain")
"""
SWEEPS = f"""{STANDS}
    redisblobs.RedisBlobs.delete = then(redisblobs.RedisBlobs.delete)
    store.check(sweep=True)
    print("swept")
except holdfast.Unavailable:
    print("unavailable")
"""


@contextmanager
def standing(program: str, *arguments: str) -> Generator[list[str]]:
    """Run a program until it stops itself, let it go on behind the block, and take what it prints."""
    said: list[str] = []
    with subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert os.WIFSTOPPED(os.waitpid(child.pid, os.WUNTRACED)[1])
            yield said
            child.send_signal(signal.SIGCONT)
            said += child.communicate(timeout=60)[0].split()
        finally:
            child.kill()


def test_who_stood_still_while_a_value_was_swept_is_told(base: str) -> None:
    with holdfast.open(f"{base}&blobs=redis") as store:
        with standing(STORES, f"{base}&blobs=redis") as said:
            swept = store.check(sweep=True).swept
            assert swept is not None
            assert swept.deleted == 1
        assert said == ["uncertain"]
        store.session("s").append(user("x" * 100_000), key="k")
        assert big_of(store) == "x" * 100_000


def test_who_stood_still_amid_a_sweep_deletes_nothing_that_was_stored_meanwhile(base: str) -> None:
    with holdfast.open(f"{base}&blobs=redis") as store:
        store.session("gone").append(user(BIG))
        store.delete("gone")
        with standing(SWEEPS, f"{base}&blobs=redis") as said:
            store.session("s").append(user(BIG))
        assert said == ["unavailable"]
        assert big_of(store) == BIG
        assert store.check(sweep=True).ok
        assert big_of(store) == BIG


def test_who_stood_still_amid_a_sweep_of_object_storage_deletes_nothing_either(base: str, place: str) -> None:
    with holdfast.open(f"{base}&blobs={place}") as store:
        store.session("gone").append(user(BIG))
        store.delete("gone")
        with standing(SWEEPS.replace("redisblobs.RedisBlobs", "type(store.backend.blobs)"), base) as said:
            store.session("s").append(user(BIG))
        assert said == ["unavailable"]
        assert big_of(store) == BIG


def test_of_two_sweeps_at_once_the_one_that_lost_the_lock_deletes_nothing(base: str) -> None:
    """In one process each has its own lock, not what the other one has by now."""
    with holdfast.open(f"{base}&blobs=redis") as store, ThreadPoolExecutor(1) as thread:
        blobs = store.backend.blobs
        assert isinstance(blobs, RedisBlobs)
        digest = hashlib.sha256(b"needed").hexdigest()
        blobs.put(digest, b"needed")
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(redisblobs, "LEASE", 1)
            patched.setattr(redisblobs, "BEAT", 60.0)  # it stands still
            first, second = blobs.exclusive(), blobs.exclusive()
            first.__enter__()
            patched.setattr(redisblobs, "LEASE", 60)
            thread.submit(second.__enter__).result()  # as soon as the first one's is over
            with pytest.raises(Unavailable, match="lock of the store's blobs was lost"):
                blobs.delete(digest)
            with pytest.raises(Uncertain):
                first.__exit__(None, None, None)
            assert thread.submit(lambda: blobs._lock.alone_until).result() is not None
            thread.submit(second.__exit__, None, None, None).result()
        assert blobs.get(digest) == b"needed"
