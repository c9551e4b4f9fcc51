"""Blobs in object storage, and in a folder of one's choice: nothing is lost, nothing secret told, nothing mixed up."""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import os
import sqlite3
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import obstore
import pytest

import holdfast
from holdfast import Conflict, Corrupt, Invalid, Large, Store, Unavailable, user
from holdfast.backend import Backend, TextOf
from holdfast.backends import objects, open_backend
from holdfast.backends.objects import ObjectBlobs
from holdfast.model import Message, Text
from holdfast.testing import BackendContract
from large_values import killed_large_writer, retried_once_it_is_back
from servers.proxy import Proxy
from servers.s3 import KEYS, ObjectStorage, bucket_of

BIG = os.urandom(2_000_000).hex()
"""A text that takes several chunks."""


@pytest.fixture(autouse=True)
def server(object_storage: ObjectStorage) -> ObjectStorage:
    """Object storage, to which the environment leads."""
    return object_storage


@pytest.fixture(params=["sqlite", "file"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
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
    base = f"sqlite://{tmp_path}/store.db"
    with holdfast.open(f"{base}?blobs=database") as store:
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
    base = f"sqlite://{tmp_path}/store.db"
    with holdfast.open(base) as store:
        store.session("s").append(user(BIG))
    with pytest.raises(Invalid, match="copy it to a new store"):
        holdfast.open(f"{base}?blobs=database")


def test_large_values_are_in_the_bucket_and_found_without_being_told(base: str, tmp_path: Path) -> None:
    where = bucket_of(tmp_path)
    with holdfast.open(f"{base}?blobs={where}") as store:
        store.session("s").append(user(BIG))
        assert isinstance(store.backend.blobs, ObjectBlobs)
        assert len(store.backend.blobs.scan()) == 5  # four chunks and their list
        assert store.check().ok
    for given in ("", f"?blobs={where}"):
        with holdfast.open(base + given) as store:
            assert big_of(store) == BIG
    assert not [name for name in tmp_path.rglob("*") if len(name.name) == 62]


def test_another_folder_takes_the_blobs(base: str, tmp_path: Path) -> None:
    with holdfast.open(f"{base}?blobs=file://{tmp_path}/far") as store:
        store.session("s").append(user(BIG))
    assert len(list((tmp_path / "far").glob("??/*"))) == 5  # four chunks and their list
    with holdfast.open(base) as store:
        assert big_of(store) == BIG
        store.session("s").delete()
        assert store.check(sweep=True).ok
    assert list((tmp_path / "far").glob("??/*")) == []


@pytest.mark.parametrize("blobs", ["s3", "file"])
def test_two_stores_share_no_place(base: str, tmp_path: Path, blobs: str) -> None:
    """A sweep of one would delete what only the other refers to."""
    where = bucket_of(tmp_path) if blobs == "s3" else f"file://{tmp_path}/far"
    with holdfast.open(f"{base}?blobs={where}") as store:
        store.session("s").append(user(BIG))
        with pytest.raises(Invalid, match="another store keeps"):
            holdfast.open(f"sqlite://{tmp_path}/second.db?blobs={where}")
        assert not (tmp_path / "second.db").exists()
        assert store.check(sweep=True).ok
        assert big_of(store) == BIG
    second = f"sqlite://{tmp_path}/second.db"
    holdfast.open(f"{second}?blobs={where}2").close()
    note = tmp_path / "second.db-blobs" / "where"
    note.write_text(note.read_text().replace(f"{where}2", where))  # by hand
    with holdfast.open(second) as other, pytest.raises(Conflict, match="another store's"):
        other.check(sweep=True)
    with holdfast.open(base) as store:
        assert big_of(store) == BIG


@pytest.mark.parametrize("how", ["not asked for", "not heeded"])
def test_two_stores_share_no_place_where_anything_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: ObjectStorage, how: str
) -> None:
    where = bucket_of(tmp_path)
    if how == "not asked for":
        monkeypatch.setenv("AWS_CONDITIONAL_PUT", "disabled")
        relay = None
    else:
        relay = Heedless(server.port)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{relay.server_port}")
    with contextlib.ExitStack() as held:
        if relay is not None:
            held.enter_context(relay.running())
        with holdfast.open(f"sqlite://{tmp_path}/one.db?blobs={where}") as store:
            store.session("s").append(user(BIG))
            with pytest.raises(Invalid, match="another store keeps"):
                holdfast.open(f"sqlite://{tmp_path}/second.db?blobs={where}")
            assert store.check(sweep=True).ok
            assert big_of(store) == BIG


class Heedless(ThreadingHTTPServer):
    """Object storage that knows no condition: it overwrites what is there. It may be slow to delete."""

    def __init__(self, port: int, dropped: str = "if-none-match") -> None:
        self.held, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self.done = threading.Semaphore(0)
        """Raised by each deletion that was carried out."""
        relay = self

        class Relay(BaseHTTPRequestHandler):
            def do(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.command == "DELETE" or (self.command == "POST" and "delete" in self.path):
                    relay.held.set()
                    relay.go_on.wait(60)
                there = http.client.HTTPConnection("127.0.0.1", port)
                headers = {name: value for name, value in self.headers.items() if name.lower() != dropped}
                there.request(self.command, self.path, content, headers)
                answer = there.getresponse()
                body = answer.read()
                there.close()
                if self.command in ("DELETE", "POST"):
                    relay.done.release()
                with contextlib.suppress(OSError):  # whoever asked may be gone
                    self.send_response(answer.status)
                    for name, value in answer.getheaders():
                        if name.lower() not in ("connection", "transfer-encoding", "date", "server"):
                            self.send_header(name, value)
                    if answer.getheader("Content-Length") is None:
                        self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = do  # noqa: N815  # http.server's names

            def log_message(self, format: str, *args: object) -> None:
                """Nothing on stderr."""

        super().__init__(("127.0.0.1", 0), Relay)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """While the block lasts."""
        thread = threading.Thread(target=self.serve_forever)
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


SWEEPER = "import sys, holdfast; holdfast.open(sys.argv[1]).check(sweep=True)"


def test_a_deletion_that_comes_late_takes_nothing_that_was_put_again(
    server: ObjectStorage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever swept was killed with its request on the way: nobody knows when that is carried out."""
    relay = Heedless(server.port, dropped="")
    url = f"sqlite://{tmp_path}/store.db?blobs={bucket_of(tmp_path)}"
    with relay.running(), holdfast.open(url) as store:
        store.create("old").append(user(BIG))
        store.delete("old")
        relay.go_on.clear()
        slow = {**os.environ, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{relay.server_port}"}
        with subprocess.Popen([sys.executable, "-c", SWEEPER, url], env=slow) as sweeper:
            assert relay.held.wait(60)
            sweeper.kill()
        store.create("s").append(user(BIG))
        relay.go_on.set()
        assert relay.done.acquire(timeout=60)
        assert big_of(store) == BIG
        assert store.check().ok
        # What was on the way is over after a while, and until then a sweep deletes no more than what nobody needs.
        for over, unfinished in ((objects.OVER, 1), (timedelta(0), 0)):
            monkeypatch.setattr(objects, "OVER", over)
            store.create("gone").append(user(BIG[::-1]))
            store.delete("gone")
            assert store.check(sweep=True).swept.deleted
            assert big_of(store) == BIG
            blobs = store.backend.blobs
            assert isinstance(blobs, ObjectBlobs)
            assert len(blobs.unfinished()) == unfinished
        store.delete("s")
        assert store.check(sweep=True).swept.deleted == 5
        assert store.backend.blobs.scan() == []


def test_a_deletion_that_was_tried_again_is_not_taken_for_over(
    server: ObjectStorage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first request may still be on the way when the second is answered."""
    url = f"sqlite://{tmp_path}/store.db?blobs={bucket_of(tmp_path)}"
    with Proxy(server.port, b"POST /") as proxy:  # the driver asks for deletions so
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        with holdfast.open(url) as store:
            blobs = store.backend.blobs
            assert isinstance(blobs, ObjectBlobs)
            for cut, unfinished in ((False, 0), (True, 1)):
                store.create(f"{cut}").append(user("x" * 100_000))
                store.delete(f"{cut}")
                if cut:
                    proxy.cut(0, "before")
                assert store.check(sweep=True).swept.deleted
                assert blobs.scan() == []
                assert len(blobs.unfinished()) == unfinished


def test_the_place_is_said_when_the_store_is_begun_and_never_again(base: str, tmp_path: Path) -> None:
    """Who has it open would go on in the place from before, and nobody find that."""
    where = bucket_of(tmp_path)
    with holdfast.open(base) as store:
        with pytest.raises(Invalid, match="was begun with its large values in"):
            holdfast.open(f"{base}?blobs={where}")
        store.session("s").append(user(BIG))
    with holdfast.open(base) as store:
        assert big_of(store) == BIG


def test_of_two_who_begin_a_store_at_once_one_says_where(base: str, tmp_path: Path) -> None:
    for number in range(20):
        here = base.replace("/store", f"/store{number}")
        barrier, opened = threading.Barrier(3), list[str]()

        def begin(given: str, barrier: threading.Barrier = barrier, opened: list[str] = opened) -> None:
            barrier.wait()
            with contextlib.suppress(Invalid), holdfast.open(given) as store:
                store.session(given).append(user(given * 10_000))
                opened.append(given)

        places = [here, *(f"{here}?blobs=file://{tmp_path}/{number}-{n}" for n in range(2))]
        threads = [threading.Thread(target=begin, args=(given,)) for given in places]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert opened
        with holdfast.open(here) as store:
            assert store.check().ok
            assert {message.text for info in store.sessions() for message in store.session(info.id).messages()} == {
                given * 10_000 for given in opened
            }


def test_a_dry_run_notes_nothing(base: str, tmp_path: Path) -> None:
    holdfast.open(base).close()
    before = set(tmp_path.rglob("*"))
    where = f"file://{tmp_path}/far"
    command = [
        sys.executable,
        "-m",
        "holdfast.cli",
        "--store",
        f"{base}?blobs={where}",
        "session",
        "new",
        "x",
        "--dry-run",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "was begun with" in done.stderr) == (2, True)
    assert not (tmp_path / "far").exists()
    assert {path for path in tmp_path.rglob("*") if path.name in ("where", "owner")} <= before


def test_a_note_that_cant_be_read_is_told(base: str, tmp_path: Path) -> None:
    holdfast.open(f"{base}?blobs=file://{tmp_path}/far").close()
    [note] = tmp_path.rglob("where")
    note.write_text("gone mad")
    with pytest.raises(Corrupt, match="does not say where"):
        holdfast.open(base)


def test_a_store_that_has_blobs_is_not_sent_elsewhere(base: str, tmp_path: Path) -> None:
    with holdfast.open(base) as store:
        store.session("s").append(user(BIG))
    with pytest.raises(Invalid, match="copy it to a new store"):
        holdfast.open(f"{base}?blobs={bucket_of(tmp_path)}")
    with holdfast.open(base) as store:
        assert big_of(store) == BIG


def test_another_place_than_the_stores_is_refused(base: str, tmp_path: Path) -> None:
    holdfast.open(f"{base}?blobs={bucket_of(tmp_path)}").close()
    with pytest.raises(Invalid, match="leave blobs= away"):
        holdfast.open(f"{base}?blobs=file://{tmp_path}/far")


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
def test_a_place_that_is_none_is_refused_without_telling_secrets(base: str, tmp_path: Path, blobs: str) -> None:
    from urllib.parse import quote

    with pytest.raises(Invalid) as refused:
        holdfast.open(f"{base}?blobs={quote(blobs, safe='')}")
    assert "secret-word" not in str(refused.value) + repr(refused.value.facts) or "secret-word@x" in blobs
    with holdfast.open(base) as store:  # nothing was noted
        store.session("s").append(user(BIG))
        assert big_of(store) == BIG


def test_no_answer_is_unavailable_and_a_retry_stores_once(
    base: str, tmp_path: Path, server: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = retried_once_it_is_back(f"{base}?blobs={bucket_of(tmp_path)}", server, monkeypatch, BIG)
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in told
    assert "Debug source" not in told


def test_a_bucket_that_is_not_there_is_told_before_a_store_is_begun(base: str) -> None:
    with pytest.raises(Unavailable, match=r"NoSuchBucket|does not exist|not found"):
        holdfast.open(f"{base}?blobs=s3://no-bucket/x")
    with holdfast.open(base) as store:
        store.session("s").append(user(BIG))
        assert big_of(store) == BIG


def test_a_damaged_object_is_found(base: str, tmp_path: Path) -> None:
    with holdfast.open(f"{base}?blobs={bucket_of(tmp_path)}") as store:
        store.session("s").append(user(BIG))
        blobs = store.backend.blobs
        assert isinstance(blobs, ObjectBlobs)
        digest = blobs.scan()[0]
        obstore.put(blobs._store, digest, b"\x00other bytes")
        with pytest.raises(Corrupt):
            blobs.get(digest)
        assert not store.check().ok


def test_a_forked_child_is_told_instead_of_hanging(base: str, tmp_path: Path) -> None:
    with holdfast.open(f"{base}?blobs={bucket_of(tmp_path)}") as store:
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


@pytest.mark.parametrize(
    ("said", "variables", "header"),
    [
        ("%3Fencryption=AES256", {}, ("x-amz-server-side-encryption", "AES256")),
        ("%3Fencryption=aws:kms", {}, ("x-amz-server-side-encryption", "aws:kms")),
        ("%3Fencryption=aws:kms%26kms_key=k-1", {}, ("x-amz-server-side-encryption-aws-kms-key-id", "k-1")),
        ("", {"AWS_SERVER_SIDE_ENCRYPTION": "AES256"}, ("x-amz-server-side-encryption", "AES256")),
        ("", {}, ("x-amz-server-side-encryption", None)),
    ],
)
def test_objects_are_encrypted_as_was_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    variables: dict[str, str],
    header: tuple[str, str | None],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    where = bucket_of(tmp_path)
    with holdfast.open(f"sqlite://{tmp_path}/s.db?blobs={where}{said}") as store:
        store.session("s").append(user(BIG))
    with holdfast.open(f"sqlite://{tmp_path}/s.db") as store:  # what the URL said is noted
        store.session("t").append(user(BIG[::-1]))
        assert big_of(store) == BIG
        blobs = store.backend.blobs
        assert isinstance(blobs, ObjectBlobs)
        for name in ("owner", *blobs.scan()):
            signed = obstore.sign(blobs._store, "HEAD", name, timedelta(minutes=1))
            with urllib.request.urlopen(urllib.request.Request(signed, method="HEAD")) as answer:
                assert answer.headers[header[0]] == header[1]


def test_a_key_of_ones_own_goes_with_each_request(
    tmp_path: Path, server: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server for the tests takes it and does not encrypt, so what is sent is looked at."""
    key = base64.b64encode(b"k" * 32)
    monkeypatch.setenv("AWS_SSE_CUSTOMER_KEY_BASE64", key.decode())
    with Proxy(server.port, b"x-amz-server-side-encryption-customer-key: " + key) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        with holdfast.open(f"sqlite://{tmp_path}/s.db?blobs={bucket_of(tmp_path)}%3Fencryption=sse-c") as store:
            counts = [proxy.requests]
            blobs = store.backend.blobs
            store.session("s").append(user(BIG))
            counts.append(proxy.requests)
            assert big_of(store) == BIG
            counts.append(proxy.requests)
            assert [after - before for before, after in itertools.pairwise(counts)] == [5, 5]  # chunks and their list
            assert len(blobs.scan()) == 5


@pytest.mark.parametrize("said", ["encryption=rot13", "encryption=sse-c", "kms_key=k", "encryption=AES256%26kms_key=k"])
def test_an_encryption_that_is_none_is_refused(tmp_path: Path, said: str) -> None:
    with pytest.raises(Invalid, match=r"encryption"):
        holdfast.open(f"sqlite://{tmp_path}/s.db?blobs={bucket_of(tmp_path)}%3F{said}")
    assert not (tmp_path / "s.db").exists()


def test_a_killed_writer_loses_nothing_that_was_acknowledged(base: str, tmp_path: Path) -> None:
    given = f"{base}?blobs={bucket_of(tmp_path)}"
    killed_large_writer(given)
    with holdfast.open(base) as store:
        assert store.check(sweep=True).ok
        messages = [message.text for message in store.session("s").messages()]
        assert messages[:6] == [str(number) * 300_000 for number in range(6)]


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
