"""A large value whose bytes were damaged: who stores the same value again mends it, wherever it is kept."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import boto3
import psycopg
import pytest

import holdfast
from holdfast import Corrupt, Store, user
from large_values import BIG, big_of
from servers import postgres
from servers.s3 import ObjectStorage, bucket_of

Damage = Callable[[bytes], bytes]
DAMAGES: dict[str, Damage] = {
    "flipped": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    "cut": lambda content: content[: len(content) // 2],
    "emptied": lambda _: b"",
}


@pytest.fixture(params=DAMAGES.values(), ids=DAMAGES)
def damage(request: pytest.FixtureRequest) -> Damage:
    """What becomes of stored bytes."""
    found: Damage = request.param
    return found


def mends(url: str, harm: Callable[[str], object]) -> None:
    """Store a value, harm its bytes, store it in another session: both have it, and nothing is damaged any more."""
    with holdfast.open(url) as store:
        store.session("s").append(user(BIG))
        for digest in store.backend.blobs.scan():
            harm(digest)
        assert_damaged(store)
        store.session("t").append(user(BIG))
        assert big_of(store) == BIG
        assert store.check().ok
    with holdfast.open(url) as store:
        assert big_of(store) == BIG


def assert_damaged(store: Store) -> None:
    with pytest.raises(Corrupt):
        big_of(store)
    assert not store.check().ok


@pytest.mark.parametrize("kind", ["sqlite", "file"])
def test_in_a_folder(tmp_path: Path, kind: str, damage: Damage) -> None:
    def harm(digest: str) -> None:
        [place] = tmp_path.rglob(digest[2:])
        place.write_bytes(damage(place.read_bytes()))

    mends(f"{kind}://{tmp_path}/store", harm)


def test_in_the_file(tmp_path: Path, damage: Damage) -> None:
    def harm(digest: str) -> None:
        with contextlib.closing(sqlite3.connect(tmp_path / "store.db")) as db:
            [(content,)] = db.execute("SELECT data FROM blob WHERE digest = ?", (digest,)).fetchall()
            db.execute("UPDATE blob SET data = ? WHERE digest = ?", (damage(content), digest))
            db.commit()

    mends(f"sqlite://{tmp_path}/store.db?blobs=database", harm)


@pytest.mark.server
def test_in_postgresql(damage: Damage) -> None:
    url = postgres.url()
    [schema] = parse_qs(urlsplit(url).query)["schema"]

    def harm(digest: str) -> None:
        with psycopg.connect(url.partition("?")[0], autocommit=True) as db:
            row = db.execute(f"SELECT data FROM {schema}.blob WHERE digest = %s".encode(), (digest,)).fetchone()
            assert row is not None
            db.execute(f"UPDATE {schema}.blob SET data = %s WHERE digest = %s".encode(), (damage(row[0]), digest))

    mends(url, harm)


def test_in_object_storage(tmp_path: Path, damage: Damage, object_storage: ObjectStorage) -> None:
    url = bucket_of(tmp_path)
    s3 = boto3.client("s3", endpoint_url=object_storage.endpoint)

    def harm(digest: str) -> None:
        key = f"{urlsplit(url).path[1:]}/{digest}"
        content = s3.get_object(Bucket="bucket", Key=key)["Body"].read()
        s3.put_object(Bucket="bucket", Key=key, Body=damage(content))

    mends(f"sqlite://{tmp_path}/store.db?blobs={url}", harm)


def test_who_stores_at_the_same_time_is_in_nobodys_way(tmp_path: Path) -> None:
    big = os.urandom(3_000_000).hex()
    with holdfast.open(f"sqlite://{tmp_path}/store.db") as store:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: store.session(f"s{n}").append(user(big)), range(8)))
        assert [store.session(f"s{n}").messages()[0].text for n in range(8)] == [big] * 8
        assert store.check().ok
