"""No credential is told: not by an error, its causes or a log, not by a fact or a command, not by what a store keeps.

Each is a canary. Everything that can go wrong with it is made to, and all that is said meanwhile is searched for it.
"""

from __future__ import annotations

import base64
import logging
import pickle
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

import holdfast
from holdfast import HoldfastError, Store, user
from holdfast.backends import objects
from holdfast.opening import existing
from holdfast.shown import shown
from holdfast.urls import parse_url
from servers.postgres import Postgres
from servers.processes import free_port
from servers.proxy import Proxy, When
from servers.redis import Redis
from servers.s3 import storage
from shell import Shell

pytestmark = pytest.mark.server

PASSWORD = "pw-c4n4ry-1"
WRONG = "pw-c4n4ry-2"
SECRET_KEY = "aws-c4n4ry-3"
TOKEN = "token-c4n4ry-4"
CUSTOMER_KEY = base64.b64encode(b"customer-c4n4ry-5-of-32-bytes---").decode()
FORMS = ["c4n4ry", CUSTOMER_KEY, *(base64.b64encode(each.encode()).decode() for each in (PASSWORD, SECRET_KEY, TOKEN))]
"""All of which nothing may be found."""
BIG = "x" * 100_000


def leaks(text: str) -> list[str]:
    """What is told of credentials: the lines that do."""
    return [line[:300] for line in text.splitlines() if any(form in line for form in FORMS)]


class Ear:
    """Hears what is logged, printed, warned of and raised."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def fails(self, call: Callable[[], object]) -> HoldfastError:
        """A call must fail with an error of ours; all of it is heard, as well as what caused it."""
        with pytest.raises(HoldfastError) as told:
            call()
        self.hear(told.value)
        return told.value

    def hear(self, error: HoldfastError) -> None:
        """All that an error says, and what caused it."""
        self.heard += traceback.format_exception(error)
        self.heard += [repr(error), error.message, repr(error.facts), pickle.dumps(error).decode("latin-1")]


@pytest.fixture
def ear(capfd: pytest.CaptureFixture[str]) -> Iterator[Ear]:
    heard = Ear()
    handler = logging.Handler(0)
    handler.emit = lambda record: heard.heard.append(logging.Formatter().format(record))  # type: ignore[method-assign]
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(1)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        yield heard
    root.removeHandler(handler)
    root.setLevel(level)
    heard.heard += [str(each.message) for each in warned]
    heard.heard += capfd.readouterr()
    assert heard.heard
    assert leaks("\n".join(heard.heard)) == []


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server that asks for a password."""
    made = Postgres().start()
    made.create_database()
    with psycopg.connect(made.conninfo(), autocommit=True) as db:
        db.execute(f"CREATE ROLE secured LOGIN PASSWORD '{PASSWORD}'".encode())
        db.execute("GRANT CREATE ON DATABASE test TO secured")
    made.rule("host all secured 127.0.0.1/32 scram-sha-256")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    """A server with a user who has a password."""
    made = Redis().start()
    with made.client() as client:
        client.execute_command("ACL", "SETUSER", "secured", "on", f">{PASSWORD}", "~*", "&*", "+@all")
    yield made
    made.stop()


def secured(url: str, password: str = PASSWORD) -> str:
    """A URL with a user and a password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://secured:{password}@{rest.rpartition('holdfast@')[2]}"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A place in object storage, and the environment that leads to it."""
    found = storage()
    given = {
        "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_SESSION_TOKEN": TOKEN,
        "AWS_SSE_CUSTOMER_KEY_BASE64": CUSTOMER_KEY, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": found.endpoint,
    }  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(objects, "RETRIES", 0)
    return f"s3://bucket/{quote(tmp_path.name)}"


@pytest.mark.parametrize(
    "url",
    [
        "{scheme}://u:{pw}@h:port/db",
        "{scheme}://u:{pw}@h:99999999/db",
        "{scheme}://u:{pw}@[h/db",
        "{scheme}://u:{pw}@[x]/db",
        "{scheme}://u:{pw}\u2100@h/db",
        "{scheme}://u:{pw}%zz@h/d/b",
        "{scheme}://u:{pw}%ff@h/db",
        "{scheme}://u:{pw}%00@h/db",
        "{scheme}://u:a/{pw}@h/db",
        "{scheme}://u:a?{pw}@h/db",
        "{scheme}://u:a#{pw}@h/db",
        "{scheme}://u:a@{pw}@h/x/y",
        "{scheme}://u:{pw}@h/db\n",
        "{scheme}://u:{pw}/db",
        "{scheme}://:{pw}",
        "{scheme}://u:a@h/db?password={pw}",
        "{scheme}://u:{pw}@h/db?durability=ram",
        "{scheme}://u:{pw}@h/db?timeout=x",
        "{scheme}://u:{pw}@h/0?blobs=s3%3A//key:{pw}@bucket/prefix",
        "{scheme}://u:{pw}@h/0?blobs=s3://bucket/prefix&secret_access_key={pw}",
        "{scheme}://u:a@h:1/0?timeout=1&blobs=s3://bucket/prefix?secret_access_key={pw}",
        "no{scheme}://u:{pw}@h/db?password={pw}",
        "u:{pw}@h/db",
    ],
)
@pytest.mark.parametrize("scheme", ["postgresql", "redis", "rediss", "sqlite", "file"])
def test_a_url_that_is_wrong(ear: Ear, scheme: str, url: str) -> None:
    given = url.format(scheme=scheme, pw=PASSWORD)
    ear.heard.append(shown(given) if "&secret_access_key" not in given and "?password" not in given else "")
    try:
        where = parse_url(given)
    except HoldfastError:
        ear.fails(lambda: parse_url(given))
    else:
        ear.heard += [where.url, repr(where).replace(repr(dict(where.params)), "")]


@pytest.mark.parametrize(
    "blobs",
    [
        "s3://key:{pw}@bucket/prefix",
        "s3://bucket/prefix?secret_access_key={pw}",
        "s3://bucket/prefix?endpoint=http://key:{pw}@host",
        "s3://bucket/prefix?aws_session_token={pw}",
        "s3://bucket?x={pw}",
        "http://key:{pw}@host/x",
        "file://key:{pw}@host/x",
        "file:///tmp/x?password={pw}",
    ],
)
def test_a_place_for_blobs_that_is_wrong(ear: Ear, postgres: Postgres, tmp_path: Path, blobs: str) -> None:
    wrong = quote(blobs.format(pw=PASSWORD), safe="")
    for base in (f"sqlite://{tmp_path}/s.db?", f"file://{tmp_path}/f?", f"{postgres.url()}&"):
        ear.fails(lambda base=base: holdfast.open(f"{base}blobs={wrong}"))
    ear.fails(lambda: existing(f"sqlite://{tmp_path}/none.db?blobs={wrong}"))


def test_a_server_that_is_not_there(ear: Ear, tmp_path: Path) -> None:
    for scheme in ("redis", "rediss", "postgresql"):
        url = f"{scheme}://secured:{PASSWORD}@127.0.0.1:{free_port()}/0?timeout=0.2"
        ear.fails(partial(holdfast.open, url))
    shell = Shell(tmp_path)
    for args in (("--json", "doctor"), ("info",), ("demo",)):
        done = shell("--store", url, *args, env={"HOLDFAST_DEBUG": "1"})
        assert done.code != 0
        ear.heard += [done.out, done.err]


def test_a_password_that_is_wrong(ear: Ear, postgres: Postgres, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in (postgres.url(), redis.url(timeout="1")):
        ear.fails(partial(holdfast.open, secured(url, WRONG)))
    ear.fails(lambda: holdfast.open(secured(postgres.url()).replace("/test", "/no-such-database")))
    ear.fails(lambda: holdfast.open(secured(postgres.url(sslmode="verify-full", sslrootcert="/no/such/file"))))
    ear.fails(lambda: holdfast.open(secured(postgres.url(sslmode="nonsense"))))
    monkeypatch.setenv("PGPASSWORD", WRONG)
    ear.fails(lambda: holdfast.open(postgres.url().replace("//holdfast@", "//secured@")))


def test_a_replica_that_refuses(ear: Ear, postgres: Postgres) -> None:
    given = secured(postgres.url(read_from=f"127.0.0.1:{free_port()},127.0.0.1:{postgres.port}"))
    ear.fails(lambda: holdfast.open(secured(postgres.url(read_from=f"u:{PASSWORD}@h"))))
    with holdfast.open(given) as store:
        reader = store.reader()
        ear.heard += [repr(store.replicas()), repr(reader), repr(dict(reader.backend.info()))]
        assert all(replica.why for replica in store.replicas())


@pytest.mark.parametrize("when", ["before", "amid", "after", "answered"])
@pytest.mark.parametrize("kind", ["postgresql", "redis"])
def test_a_connection_that_is_cut(ear: Ear, request: pytest.FixtureRequest, kind: str, when: When) -> None:
    """Amid the handshake, and amid an append."""
    server = request.getfixturevalue("postgres" if kind == "postgresql" else "redis")
    more = {"timeout": "1", **({"listen": "off"} if kind == "postgresql" else {})}
    with Proxy(server.port) as proxy:
        url = secured(server.url(**more)).replace(f":{server.port}/", f":{proxy.port}/")
        with holdfast.open(url) as store:
            session = store.session("s")
            proxy.cut(0, when)
            try:
                session.append(user("x"), key="x")
            except HoldfastError as error:  # what is tried again may succeed
                ear.hear(error)
            proxy.heal()
            proxy.refuse()
            proxy.cut(0, when)
            ear.fails(lambda: [session.append(user(str(n))) for n in range(3)])
        proxy.heal()
    with Proxy(server.port) as proxy:
        url = secured(server.url(**more)).replace(f":{server.port}/", f":{proxy.port}/")
        for requests in range(4):
            proxy.cut(requests, when)
            try:
                holdfast.open(url).close()
            except HoldfastError as error:
                ear.hear(error)
            proxy.heal()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AWS_ENDPOINT_URL", f"http://127.0.0.1:1/?token={TOKEN}"),
        ("AWS_ENDPOINT_URL", f"http://key:{SECRET_KEY}@127.0.0.1:1"),
        ("AWS_ENDPOINT_URL", f"no-scheme-{SECRET_KEY} \n"),
        ("AWS_SESSION_TOKEN", f"{TOKEN}\n"),
        ("AWS_SESSION_TOKEN", f"{TOKEN}\u00e9"),
        ("AWS_ACCESS_KEY_ID", f"{SECRET_KEY}\n"),
        ("AWS_SSE_CUSTOMER_KEY_BASE64", ""),
        ("AWS_SSE_CUSTOMER_KEY_BASE64", "not-base64-c4n4ry!"),
        ("AWS_SSE_CUSTOMER_KEY_BASE64", base64.b64encode(b"short-c4n4ry").decode()),
        ("AWS_REGION", f"{SECRET_KEY}\n"),
    ],
)
def test_object_storage_that_refuses(
    ear: Ear, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    url = f"sqlite://{tmp_path}/s.db?blobs={bucket}%3Fencryption=sse-c"
    ear.fails(partial(holdfast.open, url))
    assert not (tmp_path / "s.db").exists()


def test_object_storage_that_is_gone(ear: Ear, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ear.fails(lambda: holdfast.open(f"sqlite://{tmp_path}/n.db?blobs=s3://no-such-bucket/x"))
    with Proxy(storage().port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        with holdfast.open(f"sqlite://{tmp_path}/s.db?blobs={bucket}%3Fencryption=sse-c") as store:
            session = store.session("s")
            session.append(user(BIG))
            digest = store.backend.blobs.scan()[0]
            whens: list[When] = ["before", "amid", "after", "answered"]
            for when in whens:
                proxy.cut(0, when)
                ear.fails(partial(session.append, user(BIG + when)))
            proxy.close()
            ear.fails(lambda: session.append(user(BIG + "gone")))
            ear.fails(lambda: store.backend.blobs.get(digest))
            ear.fails(store.backend.blobs.scan)
            ear.fails(lambda: store.backend.blobs.delete(digest))
            ear.fails(lambda: store.check(sweep=True))


class Echo(BaseHTTPRequestHandler):
    """Refuses every request and repeats its headers, as the answer to a wrong signature does in parts."""

    code = "SignatureDoesNotMatch"

    def do(self) -> None:
        heard = " ".join(f"<H>{name}: {value}</H>" for name, value in self.headers.items())
        answer = f"<?xml version='1.0'?><Error><Code>{self.code}</Code>{heard}</Error>".encode()
        self.send_response(403)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = do  # noqa: N815  # http.server's names

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


def test_object_storage_that_repeats_what_it_was_sent(
    ear: Ear, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = f"sqlite://{tmp_path}/s.db?blobs={bucket}%3Fencryption=sse-c"
    holdfast.open(url).close()
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
            with holdfast.open(url) as store:
                blobs = store.backend.blobs
                told = ear.fails(lambda: store.session("s").append(user(BIG)))
                ear.fails(lambda: blobs.get("0" * 64))
                ear.fails(blobs.scan)
                ear.fails(lambda: blobs.delete("0" * 64))
                ear.fails(lambda: store.check(sweep=True))
                for code, hint in (("RequestTimeTooSkewed", "clock"), ("ExpiredToken", "AWS_SESSION_TOKEN")):
                    monkeypatch.setattr(Echo, "code", code)
                    assert hint in ear.fails(lambda: store.session("s").append(user(BIG))).message
        finally:
            server.shutdown()
            thread.join()
    assert "403 Forbidden (SignatureDoesNotMatch)" in told.message


def test_a_store_that_works_keeps_and_tells_none(
    ear: Ear, postgres: Postgres, redis: Redis, bucket: str, tmp_path: Path
) -> None:
    blobs = f"blobs={bucket}%3Fencryption=sse-c"
    urls = [
        f"sqlite://{tmp_path}/s.db?{blobs}",
        f"file://{tmp_path}/f?{blobs}1".replace("%3Fencryption=sse-c1", "1%3Fencryption=sse-c"),
        secured(postgres.url("kept")) + f"&{blobs}".replace("%3F", "2%3F"),
        secured(redis.url(prefix="kept")) + "&blobs=redis",
    ]
    for url in urls:
        with holdfast.open(url) as store:
            session = store.session("s")
            session.append(user(BIG))
            with session.turn() as turn:
                turn.append(user("hi"))
            ear.heard += [store.url, repr(store), repr(session), repr(store.for_user("ann")), repr(store.backend)]
            ear.heard += [repr(dict(store.backend.info())), repr(store.check()), *said(store)]
    shell = Shell(tmp_path)
    for url, args in (
        (urls[0], ("init",)), (urls[0], ("doctor",)), (urls[2], ("--json", "info")), (urls[2], ("--json", "doctor")),
        (urls[3], ("session", "show", "none")),
    ):  # fmt: skip
        done = shell("--store", url, *args, env={"HOLDFAST_DEBUG": "1"})
        ear.heard += [done.out, done.err]
    ear.heard += [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    with psycopg.connect(postgres.conninfo(), autocommit=True) as db:
        tables = db.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'kept'").fetchall()
        assert len(tables) > 3
        for (table,) in tables:
            ear.heard += [str(row) for row in db.execute(f"SELECT t::text FROM kept.{table} t".encode()).fetchall()]
        ear.heard += [str(row) for row in db.execute("SELECT * FROM pg_stat_activity").fetchall()]
    with redis.client() as client:
        ear.heard += [repr(client.dump(key)) for key in client.scan_iter("*")]


def said(store: Store) -> Iterator[str]:
    """Errors of a store that works."""
    for call in (lambda: store.delete("none"), lambda: store.session("s").append(user("x"), expect=99)):
        with pytest.raises(HoldfastError) as told:
            call()
        yield "".join(traceback.format_exception(told.value))
