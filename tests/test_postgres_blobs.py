"""Large values of a store on PostgreSQL in another place: all machines look there, and no other store does."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

import holdfast
from holdfast import Conflict, Corrupt, Invalid, Store, Unavailable, Uncertain, user
from holdfast.backend import Backend, Blobs, TextOf
from holdfast.backends import open_backend
from holdfast.backends.blobs import DirectoryBlobs
from holdfast.backends.objects import ObjectBlobs
from holdfast.backends.pgblobs import Lock, PostgresBlobs
from holdfast.testing.sharing import SharingContract
from holdfast.testing.subject import Subject
from large_values import BIG, big_of, killed_large_writer, retried_once_it_is_back
from servers import postgres
from servers.s3 import ObjectStorage, bucket_of

pytestmark = pytest.mark.server


@pytest.fixture(autouse=True)
def server(object_storage: ObjectStorage) -> ObjectStorage:
    """Object storage, to which the environment leads."""
    return object_storage


@pytest.fixture
def base() -> str:
    """A store that is not there yet."""
    return postgres.url()


@pytest.fixture(params=["s3", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for its blobs."""
    return bucket_of(tmp_path) if request.param == "s3" else f"file://{tmp_path}/far"


@contextlib.contextmanager
def rows(url: str) -> Iterator[tuple[psycopg.Connection, str]]:
    """The database behind a store, and the store's schema."""
    [schema] = parse_qs(urlsplit(url).query)["schema"]
    with psycopg.connect(url.partition("?")[0], autocommit=True) as db:
        yield db, schema


class TestContract(Subject):
    """What the contract asks of blobs; the rest of it is the same rows wherever they are."""

    def make(self, place: Path, text_of: TextOf) -> Backend:
        word = hashlib.sha256(str(place).encode()).hexdigest()
        return open_backend(postgres.url(f"s{word[:20]}") + f"&blobs={bucket_of(place)}", text_of)

    test_digests = SharingContract.test_blobs_are_kept_under_their_digest
    test_locks = SharingContract.test_who_puts_blobs_and_who_deletes_them_keep_each_other_out
    test_reopening = SharingContract.test_blobs_outlive_closing


def test_all_who_open_the_store_look_in_the_same_place_told_or_not(base: str, place: str) -> None:
    with holdfast.open(f"{base}&blobs={place}") as store:
        store.session("s").append(user(BIG))
        assert isinstance(store.backend.blobs, ObjectBlobs | DirectoryBlobs)
        assert store.backend.blobs.scan()
        assert store.check().ok
    for given in ("", f"&blobs={place}"):
        with holdfast.open(base + given) as store:
            assert big_of(store) == BIG
    with rows(base) as (db, schema):
        assert db.execute(f"SELECT count(*) FROM {schema}.blob".encode()).fetchone() == (0,)


def test_what_nobody_needs_is_swept_from_there(base: str, place: str) -> None:
    with holdfast.open(f"{base}&blobs={place}") as store:
        store.session("s").append(user(BIG))
        store.session("s").delete()
        swept = store.check(sweep=True).swept
        assert swept is not None
        assert swept.deleted > 0
        assert store.backend.blobs.scan() == []


def test_a_sweep_waits_for_a_writer_on_another_machine(base: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is the server's: two that have nothing in common but the database keep each other out."""
    with holdfast.open(f"{base}&blobs={place}") as store, holdfast.open(base) as other:
        monkeypatch.setattr("holdfast.backends.pgblobs.BLOB_PATIENCE", 1)
        with store.backend.blobs.shared(), other.backend.blobs.shared():
            pass
        sweep = other.backend.blobs.exclusive()
        with store.backend.blobs.shared(), pytest.raises(Unavailable, match="in use"):
            sweep.__enter__()
        with other.backend.blobs.exclusive():
            pass


def spares_what_came_meanwhile(db: psycopg.Connection, blobs: Blobs, lock: Lock, digest: str, other: Store) -> None:
    """A sweep whose lock is lost does not delete what another process stores then."""
    with contextlib.ExitStack() as sweep:
        sweep.enter_context(blobs.exclusive())
        assert lock.alone is not None
        db.execute("SELECT pg_terminate_backend(%s)", (lock.alone.info.backend_pid,))
        other.session("s").append(user(BIG))
        with pytest.raises(Unavailable, match="lock of the blobs"):
            blobs.delete(digest)
        with pytest.raises(Uncertain):
            sweep.close()
    assert big_of(other) == BIG


def test_who_lost_the_lock_amid_a_sweep_deletes_nothing_that_was_stored_meanwhile(base: str) -> None:
    with holdfast.open(base) as store, holdfast.open(base) as other, rows(base) as (db, _):
        store.session("gone").append(user(BIG))
        store.delete("gone")
        blobs = store.backend.blobs
        assert isinstance(blobs, PostgresBlobs)
        [digest] = blobs.scan()
        spares_what_came_meanwhile(db, blobs, blobs._lock, digest, other)


def test_of_two_sweeps_at_once_the_one_that_lost_the_lock_deletes_nothing(base: str) -> None:
    """In one process each has its own lock, not what the other one has by now."""
    with holdfast.open(base) as store, rows(base) as (db, _), ThreadPoolExecutor(1) as thread:
        blobs = store.backend.blobs
        assert isinstance(blobs, PostgresBlobs)
        digest = hashlib.sha256(b"needed").hexdigest()
        blobs.put(digest, b"needed")
        with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
            first.enter_context(blobs.exclusive())
            assert blobs._lock.alone is not None
            db.execute("SELECT pg_terminate_backend(%s)", (blobs._lock.alone.info.backend_pid,))
            thread.submit(second.enter_context, blobs.exclusive()).result()
            with pytest.raises(Unavailable, match="lock of the blobs"):
                blobs.delete(digest)
            with pytest.raises(Uncertain):
                first.close()
            alone = thread.submit(lambda: blobs._lock.alone).result()
            assert alone is not None
            db.execute("SELECT pg_terminate_backend(%s)", (alone.info.backend_pid,))
            with pytest.raises(Unavailable, match="lock of the blobs"):
                thread.submit(blobs.delete, digest).result()
            with pytest.raises(Uncertain):
                thread.submit(second.close).result()
        assert blobs.get(digest) == b"needed"


def test_what_a_sweep_deleted_is_there_again_if_its_lock_was_lost_in_the_end(base: str) -> None:
    """Who came in since may need it."""
    with holdfast.open(base) as store, rows(base) as (db, _):
        blobs = store.backend.blobs
        assert isinstance(blobs, PostgresBlobs)
        digest = hashlib.sha256(b"needed").hexdigest()
        blobs.put(digest, b"needed")
        with contextlib.ExitStack() as sweep:
            sweep.enter_context(blobs.exclusive())
            assert blobs.delete(digest)
            assert blobs._lock.alone is not None
            db.execute("SELECT pg_terminate_backend(%s)", (blobs._lock.alone.info.backend_pid,))
            with pytest.raises(Uncertain):
                sweep.close()
        assert blobs.get(digest) == b"needed"


def test_who_lost_the_lock_amid_a_sweep_of_another_place_deletes_nothing_either(base: str, place: str) -> None:
    with holdfast.open(f"{base}&blobs={place}") as store, holdfast.open(base) as other, rows(base) as (db, _):
        store.session("gone").append(user(BIG))
        store.delete("gone")
        blobs = store.backend.blobs
        assert isinstance(blobs, ObjectBlobs | DirectoryBlobs)
        [digest] = blobs.scan()
        assert isinstance(blobs._gate, Lock)
        spares_what_came_meanwhile(db, blobs, blobs._gate, digest, other)


def test_two_stores_share_no_place(base: str, place: str) -> None:
    """A sweep of one would delete what only the other refers to."""
    second = postgres.url()
    with holdfast.open(f"{base}&blobs={place}") as store:
        store.session("s").append(user(BIG))
        with pytest.raises(Invalid, match="another store keeps"):
            holdfast.open(f"{second}&blobs={place}")
        with rows(second) as (db, schema):  # it was not begun
            assert db.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)).fetchone() is None
        holdfast.open(f"{second}&blobs={place}2").close()
        with rows(second) as (db, schema):  # by hand
            sql = f"UPDATE {schema}.meta SET value = replace(value, %s, %s) WHERE name = 'blobs'"
            db.execute(sql.encode(), (f"{place}2", place))
        with holdfast.open(second) as other, pytest.raises(Conflict, match="another store's"):
            other.check(sweep=True)
        assert big_of(store) == BIG


def test_the_place_is_said_when_the_store_is_begun_and_never_again(base: str, place: str, tmp_path: Path) -> None:
    holdfast.open(base).close()
    with pytest.raises(Invalid, match="was begun with its large values in database"):
        holdfast.open(f"{base}&blobs={place}")
    holdfast.open(f"{base}&blobs=database").close()
    second = postgres.url()
    holdfast.open(f"{second}&blobs={place}").close()
    for other in ("database", f"file://{tmp_path}/elsewhere"):
        with pytest.raises(Invalid, match="leave blobs= away"):
            holdfast.open(f"{second}&blobs={other}")


def test_of_many_who_begin_a_store_at_once_one_says_where(base: str, tmp_path: Path) -> None:
    barrier, opened = threading.Barrier(4), list[str]()

    def begin(given: str) -> None:
        barrier.wait()
        with contextlib.suppress(Invalid), holdfast.open(given) as store:
            store.session(given).append(user(given * 10_000))
            opened.append(given)

    places = [base, *(f"{base}&blobs=file://{tmp_path}/{number}" for number in range(3))]
    threads = [threading.Thread(target=begin, args=(given,)) for given in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened
    with holdfast.open(base) as store:
        assert store.check().ok
        said = {str(message.text) for info in store.sessions() for message in store.session(info.id).messages()}
        assert said == {given * 10_000 for given in opened}


def test_no_answer_is_unavailable_and_a_retry_stores_once(
    base: str, tmp_path: Path, server: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    retried_once_it_is_back(f"{base}&blobs={bucket_of(tmp_path)}", server, monkeypatch)


def test_a_bucket_that_is_not_there_is_told_before_a_store_is_begun(base: str) -> None:
    with pytest.raises(Unavailable, match=r"NoSuchBucket|does not exist|not found"):
        holdfast.open(f"{base}&blobs=s3://no-bucket/x")
    with holdfast.open(base) as store:
        store.session("s").append(user(BIG))
        assert big_of(store) == BIG


def test_a_note_that_cant_be_read_is_told(base: str, place: str) -> None:
    holdfast.open(f"{base}&blobs={place}").close()
    with rows(base) as (db, schema):
        db.execute(f"UPDATE {schema}.meta SET value = 'gone mad' WHERE name = 'blobs'".encode())
    with pytest.raises(Corrupt, match="does not say where"):
        holdfast.open(base)


def test_a_killed_writer_loses_nothing_and_holds_nobody_up(base: str, place: str) -> None:
    given = f"{base}&blobs={place}"
    killed_large_writer(given)
    with holdfast.open(base) as store:
        assert store.check(sweep=True).ok
        messages = [str(message.text) for message in store.session("s").messages()]
        assert messages[:6] == [str(number) * 300_000 for number in range(6)]
