"""Mistakes in the URL of a server: what is said of each, what it is told to do, and that nothing was made by it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import holdfast
from holdfast import Invalid, ReadOnly, Unavailable
from servers import postgres, redis
from servers.postgres import Postgres, schema_of
from shell import Shell

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("redis")]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server that asks one user for a password."""
    made = Postgres().start()
    made.create_database()
    with psycopg.connect(made.conninfo(), autocommit=True) as db:
        db.execute("CREATE ROLE ann LOGIN PASSWORD 'right'; CREATE ROLE poor LOGIN; CREATE ROLE group1")
        db.execute("CREATE ROLE many LOGIN CONNECTION LIMIT 0")
        for name, how in (("few", "CONNECTION LIMIT 0"), ("shut", "ALLOW_CONNECTIONS false"), ("private", "")):
            db.execute(f"CREATE DATABASE {name} {how}".encode())
        db.execute("REVOKE CONNECT ON DATABASE private FROM public")
    made.rule("host all ann 127.0.0.1/32 scram-sha-256", "host all kept 127.0.0.1/32 reject")
    yield made
    made.stop()


@pytest.mark.parametrize(
    ("login", "database", "more", "says"),
    [
        ("ann:wrong", "test", "", "password authentication failed.*say the right one in the URL, PGPASSWORD"),
        ("ann", "test", "", "no password supplied.*PGPASSWORD"),
        ("holdfast", "none", "", 'database "none" does not exist; make it'),
        ("nobody", "test", "", 'role "nobody" does not exist; make it'),
        ("many", "test", "", "too many connections for role.*let a pooler share"),
        ("poor", "few", "", "too many connections for database.*let a pooler share"),
        ("poor", "shut", "", "not currently accepting.*ALLOW_CONNECTIONS"),
        ("poor", "private", "", "permission denied for database.*GRANT CONNECT"),
        ("group1", "test", "", "not permitted to log in; let it"),
        ("kept", "test", "", "pg_hba.conf.*let this user in there"),
        ("holdfast", "test", "&sslmode=always", "invalid sslmode.*look at sslmode"),
        ("holdfast", "test", "&sslmode=require", "does not support SSL.*leave sslmode= away"),
    ],
)
def test_a_server_that_lets_nobody_in(server: Postgres, login: str, database: str, more: str, says: str) -> None:
    url = server.url().replace("//holdfast@", f"//{login}@").replace("/test?", f"/{database}?") + more
    with pytest.raises(Unavailable, match=says) as told:
        holdfast.open(url)
    assert "wrong" not in str(told.value)


def test_a_server_that_is_not_there(server: Postgres) -> None:
    for wrong, says in (("127.0.0.1:1", "refused; look at host, port"), ("no.invalid", "resolve host.*write postgres")):
        with pytest.raises(Unavailable, match=says):
            holdfast.open(f"postgresql://u@{wrong}/x?timeout=2")


def test_each_of_several_servers_says_why_not(server: Postgres) -> None:
    """The last one is a standby, say, and the first the primary."""
    url = server.url().replace("//holdfast@", "//many@")
    address = f"127.0.0.1:{server.port}"
    with pytest.raises(Unavailable, match=r"too many connections for role.*; .*refused; try again, or let a pooler"):
        holdfast.open(url.replace(address, f"{address},127.0.0.1:1"))


def test_a_user_who_may_not_begin_a_store(server: Postgres) -> None:
    with pytest.raises(ReadOnly, match=r"permission denied.*GRANT it"):
        holdfast.open(server.url().replace("//holdfast@", "//poor@"))


def test_redis_servers_that_refuse() -> None:
    url = redis.url()
    with pytest.raises(Unavailable, match=r"has no such database .*name another"):
        holdfast.open(url.replace("/0?", "/99?"))
    with redis.shared().client() as client:
        client.execute_command("ACL", "SETUSER", "poor", "on", ">s3cret", "~*", "+@read")
    with pytest.raises(Unavailable, match=r"too few rights.*docs/REDIS.md"):
        holdfast.open(url.replace("redis://", "redis://poor:s3cret@"))
    with pytest.raises(Unavailable, match=r"has 0 replicas.*durability=replicated"):
        holdfast.open(url + "&durability=replicated")
    with redis.shared().client() as client:
        assert not client.exists(url.partition("prefix=")[2] + ":store")
    with pytest.raises(Invalid, match="file:///folder"):
        holdfast.open(url + "&blobs=file:relative")


@pytest.mark.usefixtures("object_storage")
def test_object_storage_that_refuses(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"NoSuchBucket.*make the bucket"):
        holdfast.open(f"sqlite://{tmp_path}/s.db?blobs=s3://no-bucket/x")


def test_a_command_makes_no_store_by_looking_for_one(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.ok("append", "s", "hi", "--create")
    there, at = postgres.url(), redis.url()
    for url in (there, at):
        for command in (("session", "list"), ("append", "s", "hi"), ("check",), ("search", "hi"), ("info",)):
            done = shell("--store", url, *command)
            assert (done.code, "there is no store" in done.err, "init` creates one" in done.err) == (3, True, True)
        assert "not there yet" in shell.ok("--store", url, "doctor").out
        assert shell("copy", url, "memory:").code == 3
        assert shell.ok("copy", shell.url, url, "--dry-run", "--json").json["items"][0]["new"] == 1
        shell.ok("--store", url, "append", "s", "hi", "--create", "--dry-run")
    with psycopg.connect(there.partition("?")[0]) as db:
        assert not db.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema_of(there),)).fetchall()
    with redis.shared().client() as client:
        assert not client.keys(f"{at.partition('prefix=')[2]}*")
    for url in (there, at):
        for created in (True, False):
            assert shell.ok("--store", url, "init", "--json").json["created"] is created
        shell.ok("--store", url, "session", "list")
