"""Documents: exact ids, exact sources, compare-and-swap; they are checked, copied and bundled like sessions."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sqlite3
import subprocess
import sys
import threading
import tracemalloc
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

import holdfast
from holdfast import Conflict, Corrupt, Deleted, Exists, Finding, Invalid, NotFound, Stale, Store, TooLarge
from holdfast.bundle import is_bundle, read_bundle, write_bundle, write_documents
from holdfast.documents.doccopies import copy_document
from holdfast.documents.docheads import DOC, MAX_NESTING, all_documents, check_json, digests, doc_ref
from holdfast.documents.documents import Documents
from shell import Shell


def got(documents: Documents, id: str) -> holdfast.Document:
    document = documents.get(id)
    assert document is not None
    return document


# --- Put and get ---


def test_a_document_is_put_read_replaced_and_deleted(store: Store) -> None:
    documents = store.documents
    assert documents.get("notes/plan.md") is None
    assert documents.info("notes/plan.md") is None
    first = documents.put("notes/plan.md", "# Plan\r\n")
    assert (first.kind, first.category, first.name, first.rev, first.size) == ("md", "notes", "plan", 1, 8)
    assert first.created_at == first.updated_at > 0
    assert got(documents, "notes/plan.md").content == "# Plan\r\n"
    second = documents.put("notes/plan.md", "# Plan 2")
    assert (second.rev, second.created_at) == (2, first.created_at)
    assert second.updated_at >= first.updated_at
    assert documents.info("notes/plan.md") == second
    assert documents.exists("notes/plan.md")
    assert documents.delete("notes/plan.md") is True
    assert documents.delete("notes/plan.md") is False
    assert documents.delete("notes/never.md") is False
    assert not documents.exists("notes/plan.md")
    assert documents.put("notes/plan.md", "again").rev == 4  # a revision is used once


def test_markdown_and_json_of_one_name_are_two_documents(store: Store) -> None:
    store.documents.put("n/x.md", "text")
    store.documents.put("n/x.json", {"a": 1})
    assert [got(store.documents, id).content for id in ("n/x.md", "n/x.json")] == ["text", {"a": 1}]
    assert store.documents.delete("n/x.json")
    assert store.documents.exists("n/x.md")
    assert [info.id for info in store.documents.list("n")] == ["n/x.md"]


VALUES: list[Any] = [
    None, True, 0, -1.5, "", "text", [], {}, 2**200, "\ud800", "\0", "\u2028", {"": {"a": [1, {"b": None}]}}, 1e308,
    {"k\ud801": "\x1b"}, "🜂", [[[[]]]],
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_any_json_comes_back(store: Store, value: Any) -> None:
    store.documents.put("n/x.json", value)
    assert got(store.documents, "n/x.json").content == value


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20))
def test_every_value_is_kept(value: Any) -> None:
    with holdfast.open("memory://") as store:
        store.documents.put("n/x.json", value)
        document = got(store.documents, "n/x.json")
        assert document.content == value
        assert store.documents.write("n/y.json", document.source).size == len(document.source)
        assert got(store.documents, "n/y.json").content == value


@pytest.mark.parametrize(
    ("value", "what"),
    [(float("nan"), "nan"), ({"a": [float("inf")]}, r"\$\.a\[0\]"), ({1, 2}, "set"), (object(), "JSON")],
)
def test_what_json_cant_hold_is_refused(store: Store, value: Any, what: str) -> None:
    with pytest.raises(Invalid, match=what):
        store.documents.put("n/x.json", value)
    assert not store.documents.exists("n/x.json")


@given(st.text())
def test_every_text_is_kept(text: str) -> None:
    with holdfast.open("memory://") as store:
        store.documents.put("n/x.md", text)
        assert got(store.documents, "n/x.md").text == text


@pytest.mark.parametrize("content", [b"bytes", {"a": 1}, None, 7])
def test_markdown_is_text(store: Store, content: Any) -> None:
    with pytest.raises(Invalid, match="is Markdown"):
        store.documents.put("n/x.md", content)


SOURCES = [
    b'{\n  "b": 1.0,\n  "a": 1e5,\n  "a": 2\n}',
    b'{ "n": 123456789012345678901234567890.000000000000000000000001 }\r\n\t ',
    b'"\\ud800 \\u00e9 \xc3\xa9 \\/"',
    b"[]",
    b"null",
]


@pytest.mark.parametrize("source", SOURCES)
def test_json_is_kept_as_it_was_written(store: Store, source: bytes) -> None:
    info = store.documents.write("n/x.json", source)
    assert (info.as_given, info.size) == (True, len(source))
    assert got(store.documents, "n/x.json").source == source
    assert got(store.documents, "n/x.json").content == json.loads(source)
    with store.documents.open("n/x.json") as stream:
        assert stream.read() == source
    assert not store.documents.put("n/x.json", 1).as_given
    assert store.documents.write("n/x.json", source.decode()).as_given
    assert store.documents.write("n/x.json", io.BytesIO(source)).as_given
    assert got(store.documents, "n/x.json").source == source


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (b"", "is not"), (b"{", "is not"), (b"{'a': 1}", "is not"), (b"[1,]", "is not"), (b"NaN", "no number"),
        (b"[-Infinity]", "no number"), (b"1e999", "no number"), (b"\xef\xbb\xbf{}", "BOM"), (b'"\xff"', "is not"),
        ('"x"'.encode("utf-16"), "is not"), (b"1 2", "is not"), (b'"\t"', "is not"),
        (b"[" * (MAX_NESTING + 1) + b"]" * (MAX_NESTING + 1), "deeper"), (b"[" * 100_000, "deeper|is not"),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "deeper"),
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused(store: Store, source: bytes, what: str) -> None:
    with pytest.raises(Invalid, match=what):
        store.documents.write("n/x.json", source)
    assert not store.documents.exists("n/x.json")


def test_json_may_nest_as_deep_as_is_said(store: Store) -> None:
    source = b"[" * MAX_NESTING + b"]" * MAX_NESTING
    store.documents.write("n/x.json", source)
    assert got(store.documents, "n/x.json").content == json.loads(source)
    check_json("n/x.json", b'{"a":[{}]}')


def test_what_is_no_utf8_is_no_markdown(store: Store) -> None:
    for source in (b"caf\xe9", io.BytesIO(b"caf\xe9"), io.BytesIO(b"x" * 3_000_000 + b"\xe2\x82")):
        with pytest.raises(Invalid, match="no UTF-8"):
            store.documents.write("n/x.md", source)
    assert not store.documents.exists("n/x.md")


@pytest.mark.parametrize("size", [65_536, 65_537, 1_048_576, 3_333_333])
def test_a_large_document_comes_back(store: Store, size: int) -> None:
    source = ("é" + "x" * (size - 2)).encode()
    assert store.documents.write("n/x.md", source).size == size
    assert got(store.documents, "n/x.md").source == source
    assert store.documents.write("n/x.md", io.BytesIO(source)).size == size
    store.documents.put("n/x.json", source.decode())
    assert got(store.documents, "n/x.json").content == source.decode()
    with store.documents.open("n/x.md") as stream:
        assert stream.read(10) == source[:10]
    assert store.check().ok


def test_hundreds_of_megabytes_pass_through_in_pieces(tmp_path: Path) -> None:
    class Endless(io.RawIOBase):
        left = 128 * 1024 * 1024

        def read(self, size: int = -1) -> bytes:
            size = min(size, self.left)
            self.left -= size
            return b"x" * size

    with holdfast.open(f"sqlite://{tmp_path}/store.db") as store:
        tracemalloc.start()
        info = store.documents.write("n/x.md", Endless())  # type: ignore[arg-type]  # all that is needed of a stream
        size = 0
        with store.documents.open("n/x.md") as stream:
            while data := stream.read(1 << 20):
                size += len(data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert info.size == size == 128 * 1024 * 1024
    assert peak < 24 * 1024 * 1024


# --- Ids ---

GOOD = [
    "n/x.md", "cron/jobs/nightly.json", "n/a..b.md", "n/..md", "n/...md", "n/...json", "../x.md", "./x.md", "a/../b.md",
    "n/x.json.md", "n/ .md", "N/x.md", "n/X.md", "n/é.md", "n/e\u0301.md", "n/CON.md", "n/a\\b.md", "n/x:y.md",
    "~/x.md", "n/%2e%2e.md", "n/ﬁ.md", "n/x.md ".strip() + ".md", "a:b/c.md",
]  # fmt: skip


def test_ids_are_exact(store: Store) -> None:
    ids = list(dict.fromkeys(GOOD))
    for id in ids:
        store.documents.put(id, id) if id.endswith(".md") else store.documents.put(id, [id])
    for id in ids:
        assert got(store.documents, id).content in (id, [id])
        assert f"{got(store.documents, id).category}/{got(store.documents, id).name}" == id.rpartition(".")[0]
    assert sorted(info.id for info in store.documents.list(limit=100)) == sorted(ids)
    assert store.check().documents == len(ids)


@pytest.mark.parametrize(
    ("id", "what"),
    [
        ("x.md", "no category"), ("", "empty"), ("n/x", "ends neither"), ("n/x.MD", "ends neither"),
        ("n/x.txt", "ends neither"), ("n/.md", "no name"), ("/x.md", "category is empty"), ("n//x.md", "empty part"),
        ("/n/x.md", "empty part"), ("n/", "ends neither"), ("n/x\n.md", "control"), ("n/\0.md", "NUL"),
        ("n/\ud800.md", "surrogate"), ("n/x.md/", "ends neither"),
    ],
)  # fmt: skip
def test_ids_that_cant_be_say_why(store: Store, id: str, what: str) -> None:
    documents = store.documents
    for call in (
        lambda: documents.put(id, "x"), lambda: documents.get(id), lambda: documents.info(id),
        lambda: documents.exists(id), lambda: documents.delete(id), lambda: documents.open(id),
        lambda: documents.write(id, b"1"), lambda: documents.rename("n/x.md", id),
    ):  # fmt: skip
        with pytest.raises(Invalid, match=what):
            call()


@pytest.mark.parametrize("id", [None, 7, b"n/x.md"])
def test_an_id_is_text(store: Store, id: Any) -> None:
    with pytest.raises(Invalid, match="must be text"):
        store.documents.get(id)


def test_an_id_has_a_limit(store: Store) -> None:
    longest = "n/" + "x" * (512 - 6) + ".md"
    store.documents.put(longest, "x")
    for other in (longest.replace("n/", "nn/"), "n/" + "é" * 300 + ".md"):
        with pytest.raises(TooLarge):
            store.documents.put(other, "x")
    with pytest.raises(TooLarge, match="with its user"):
        store.for_user("alice").documents.put(longest, "x")


# --- Compare and swap ---


def test_who_states_a_revision_is_told_of_another(store: Store) -> None:
    documents = store.documents
    first = documents.put("n/x.json", {"n": 1}, rev=0)
    with pytest.raises(Exists, match="there already") as told:
        documents.put("n/x.json", {"n": 2}, rev=0)
    assert told.value.rev == 1
    assert told.value.current == first
    second = documents.put("n/x.json", {"n": 2}, rev=first.rev)
    with pytest.raises(Stale, match="at revision 2, not 1") as stale:
        documents.write("n/x.json", b"3", rev=first.rev)
    assert stale.value.current == second
    with pytest.raises(Stale):
        documents.delete("n/x.json", rev=1)
    assert documents.delete("n/x.json", rev=2)
    with pytest.raises(Deleted):
        documents.put("n/x.json", 4, rev=2)
    with pytest.raises(NotFound):
        documents.put("n/y.json", 4, rev=2)
    assert documents.put("n/x.json", 5, rev=0).rev == 4
    for rev in (-1, -(2**70)):
        with pytest.raises(Invalid):
            documents.put("n/x.json", 5, rev=rev)


def test_equal_content_is_no_excuse_for_a_lost_revision(store: Store) -> None:
    """Two who add one to the same number want the same content, and only one of them has it."""
    store.documents.put("n/x.json", {"n": 1}, rev=0)
    store.documents.put("n/x.json", {"n": 2}, rev=1)
    with pytest.raises(Stale):
        store.documents.put("n/x.json", {"n": 2}, rev=1)


def test_many_writers_lose_no_increment(url: str) -> None:
    with holdfast.open(url) as store:
        store.documents.put("n/x.json", 0)

        def add() -> None:
            for _ in range(10):
                while True:
                    document = got(store.documents, "n/x.json")
                    try:
                        store.documents.put("n/x.json", document.content + 1, rev=document.rev)
                        break
                    except Stale:
                        continue

        threads = [threading.Thread(target=add) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got(store.documents, "n/x.json").content == 60


ADDER = """
import sys, holdfast
with holdfast.open(sys.argv[1]) as store:
    for _ in range(25):
        while True:
            document = store.documents.get("n/x.json")
            try:
                store.documents.put("n/x.json", document.content + 1, rev=document.rev)
                break
            except holdfast.Stale:
                continue
"""


@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_processes_lose_no_increment(tmp_path: Path, backend: str) -> None:
    url = f"{backend}://{tmp_path}/store.db"
    with holdfast.open(url) as store:
        store.documents.put("n/x.json", 0)
        adders = [subprocess.Popen([sys.executable, "-c", ADDER, url]) for _ in range(3)]
        assert [adder.wait(60) for adder in adders] == [0, 0, 0]
        assert got(store.documents, "n/x.json").content == 75
        assert store.documents.info("n/x.json").rev == 76  # type: ignore[union-attr]  # it is there


def test_a_put_without_a_revision_wins_over_deletes(store: Store) -> None:
    def put() -> None:
        for n in range(30):
            store.documents.put("n/x.json", n)

    def delete() -> None:
        for _ in range(30):
            store.documents.delete("n/x.json")

    threads = [threading.Thread(target=call) for call in (put, delete, put)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.documents.put("n/x.json", "last").rev > 60


# --- Lists ---


def test_a_list_is_paged_and_shows_one_category_or_all(store: Store) -> None:
    for number in range(7):
        store.documents.put(f"cron/{number}.json", number)
    store.documents.put("cron/jobs/a.md", "x")
    store.documents.put("crons/b.md", "x")
    found: list[str] = []
    cursor = None
    while True:
        page = store.documents.list("cron", limit=3, cursor=cursor)
        found += [info.name for info in page]
        cursor = page.cursor
        if cursor is None:
            break
    assert found == list("6543210")
    assert len(store.documents.list()) == 9
    assert list(store.documents.list("nothing")) == []
    assert store.documents.categories() == {"cron": 7, "cron/jobs": 1, "crons": 1}
    assert store.documents.categories("cron") == {"cron": 7, "cron/jobs": 1}
    store.documents.put("cron/0.json", "touched")
    assert next(iter(store.documents.list("cron"))).name == "0"
    for bad in ("", "/", "a//b", "a/"):
        with pytest.raises(Invalid):
            store.documents.list(bad)
        with pytest.raises(Invalid):
            store.documents.categories(bad)
    with pytest.raises(Invalid):
        store.documents.list(limit=0)
    with pytest.raises(Invalid):
        store.documents.list(cursor="no cursor")


def test_documents_are_no_sessions(store: Store) -> None:
    store.documents.put("n/x.md", "needle")
    assert list(store.sessions()) == []
    assert list(store.search("needle")) == []
    with pytest.raises(NotFound):
        store.resolve("@last")
    assert store.get("n/x.md") is None
    store.session("n/x.md").append(holdfast.user("a session of the same name"))
    assert got(store.documents, "n/x.md").text == "needle"


def test_a_watch_tells_of_sessions_only(store: Store) -> None:
    store.documents.put("n/x.md", "x")
    store.session("s").append(holdfast.user("x"))
    stream = store.watch(since=1)
    assert next(stream).session == "s"
    store.documents.put("n/x.md", "y")
    store.session("t").append(holdfast.user("x"))
    assert next(stream).session == "t"
    stream.close()


# --- Rename ---


def test_a_rename_keeps_all_but_the_name(store: Store) -> None:
    documents = store.documents
    for source in (b'{ "a": 1 }', b'"' + b"x" * 200_000 + b'"'):
        first = documents.write("n/x.json", source)
        renamed = documents.rename("n/x.json", "other/y.json")
        assert (renamed.created_at, renamed.updated_at) == (first.created_at, first.updated_at)
        assert (renamed.as_given, got(documents, "other/y.json").source) == (True, source)
        assert [info.id for info in documents.list("other")] == ["other/y.json"]
        assert not documents.exists("n/x.json")
        documents.delete("other/y.json")


def test_a_rename_that_cant_be(store: Store) -> None:
    documents = store.documents
    documents.put("n/x.md", "x")
    documents.put("n/y.md", "y")
    with pytest.raises(Exists):
        documents.rename("n/x.md", "n/y.md")
    with pytest.raises(Exists):
        documents.rename("n/x.md", "n/x.md")
    with pytest.raises(Invalid, match="another kind"):
        documents.rename("n/x.md", "n/x.json")
    with pytest.raises(NotFound):
        documents.rename("n/z.md", "n/w.md")
    with pytest.raises(Stale):
        documents.rename("n/x.md", "n/w.md", rev=7)
    assert [got(documents, id).text for id in ("n/x.md", "n/y.md")] == ["x", "y"]
    assert len(documents.list()) == 2


def test_a_rename_of_what_changes_meanwhile_changes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = store.documents
    documents.put("n/x.md", "x")
    delete = Documents.delete

    def late(self: Documents, id: str, *, rev: int | None = None) -> bool:
        monkeypatch.setattr(Documents, "delete", delete)
        documents.put("n/x.md", "changed")
        return delete(self, id, rev=rev)

    monkeypatch.setattr(Documents, "delete", late)
    with pytest.raises(Stale):
        documents.rename("n/x.md", "n/y.md")
    assert (got(documents, "n/x.md").text, documents.exists("n/y.md")) == ("changed", False)


# --- They are part of the store ---


def test_they_outlive_the_process_and_the_index(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with holdfast.open(f"file://{folder}") as store:
        info = store.documents.write("cron/jobs/a..b.json", b"[1]")
        store.documents.put("n/gone.md", "x")
        store.documents.delete("n/gone.md")
        store.for_user("alice").documents.put("n/x.md", "hers")
    os.unlink(folder / "index.db")
    with holdfast.open(f"file://{folder}") as store:
        assert store.documents.info("cron/jobs/a..b.json") == info
        assert [i.id for i in store.documents.list()] == ["cron/jobs/a..b.json"]
        assert got(store.for_user("alice").documents, "n/x.md").text == "hers"
        with pytest.raises(Deleted):
            store.documents.open("n/gone.md")
        assert store.check().ok


WRITER = """
import sys, holdfast
with holdfast.open(sys.argv[1]) as store:
    for n in range(10**6):
        store.documents.put(f"n/{n % 5}.json", {"n": n, "pad": "x" * (100_000 if n % 7 == 0 else 10)})
        print(n, flush=True)
"""


@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, backend: str) -> None:
    url = f"{backend}://{tmp_path}/store.db"
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            while int(writer.stdout.readline()) < 40:
                pass
            writer.kill()
            lines = writer.stdout.read().split("\n")
            told = [int(line) for line in lines[:-1]] or [40]
        with holdfast.open(url) as store:
            newest = max(got(store.documents, f"n/{n}.json").content["n"] for n in range(5))
            assert newest >= told[-1]
            assert store.check().ok


def damage(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        assert db.execute(sql).rowcount > 0


def test_a_damaged_document_is_named_and_hides_no_other(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/store.db"
    with holdfast.open(url) as store:
        for who in (None, "ann"):
            documents = store.documents if who is None else store.for_user(who).documents
            documents.put("n/bad.md", "x")
            documents.put("n/good.md", "y")
    damage(tmp_path / "store.db", "UPDATE head SET body = x'00' WHERE id LIKE '%bad.md'")
    with holdfast.open(url) as store:
        report = store.check()
        assert [(f.document, f.user, f.session) for f in report.findings] == [
            ("n/bad.md", None, None),
            ("n/bad.md", "ann", None),
        ] or {(f.document, f.user) for f in report.findings} == {("n/bad.md", None), ("n/bad.md", "ann")}
        assert report.documents == 4
        page = store.documents.list()
        assert ([info.id for info in page], page.damaged) == (["n/good.md"], ("n/bad.md",))
        assert [info.id for info in store.for_user("ann").documents.list()] == ["n/good.md"]
        with pytest.raises(Corrupt):
            store.documents.get("n/bad.md")
        assert {ref.id for ref, head in all_documents(store) if head is None} == {":n/bad.md", "ann:n/bad.md"}
        assert store.documents.delete("n/bad.md")
        store.documents.put("n/bad.md", "new")


def test_a_lost_or_changed_blob_is_found(store: Store) -> None:
    store.documents.write("n/x.md", b"x" * 3_000_000)
    head = store.backend.get([doc_ref(None, "n/x.md")])[0]
    assert head is not None
    for digest in digests(store, head):
        data = store.backend.blobs.get(digest)
        assert data is not None
        store.backend.blobs.delete(digest)
        (finding,) = store.check().findings
        assert (finding.document, finding.user) == ("n/x.md", None)
        with pytest.raises(Corrupt):
            store.documents.get("n/x.md")
        store.backend.blobs.put(digest, data)
    assert store.check().ok
    tags = {"category": "n", "created": "1", "size": "5"}
    store.backend.commit([holdfast.plan.Commit(ref=doc_ref(None, "n/odd.md"), at=1, if_rev=0, tags=tags, body=b"{}")])
    assert [f.document for f in store.check().findings] == ["n/odd.md"]


def test_a_check_of_one_session_reads_no_document(store: Store) -> None:
    store.documents.put("n/x.md", "x")
    store.session("s")
    assert store.check(session="s").documents == 0
    assert store.check().documents == 1


# --- Copies ---


@pytest.fixture
def full(store: Store) -> Store:
    store.session("s").append(holdfast.user("x"))
    store.documents.write("n/x.json", b'{ "a" : 1 }')
    store.documents.put("n/large.md", "large " * 400_000)
    store.for_user("ann").documents.put("n/x.json", ["ann's"])
    return store


def everything(store: Store) -> dict[str, tuple[Any, ...]]:
    found = {}
    for ref, head in all_documents(store):
        assert head is not None
        user = head.tags.get("user")
        document = got((store if user is None else store.for_user(user)).documents, ref.id.partition(":")[2])
        found[ref.id] = (document.source, document.created_at, document.updated_at, document.as_given, document.user)
    return found


def copy_all(source: Store, target: Store) -> list[int]:
    return [copy_document(source, target, ref).new for ref, _ in all_documents(source)]


def test_a_copy_is_equal_and_comes_up_to_date(full: Store, tmp_path: Path) -> None:
    with holdfast.open(f"sqlite://{tmp_path}/copy.db") as target:
        assert copy_all(full, target) == [1, 1, 1]
        assert everything(target) == everything(full)
        assert copy_all(full, target) == [0, 0, 0]
        full.documents.put("n/x.json", "newer")
        assert sorted(copy_all(full, target)) == [0, 0, 1]
        assert everything(target) == everything(full)
        assert target.check().ok


def test_a_copy_that_was_changed_is_left_alone(full: Store, tmp_path: Path) -> None:
    ref = doc_ref(None, "n/x.json")
    with holdfast.open(f"sqlite://{tmp_path}/copy.db") as target:
        copy_document(full, target, ref)
        target.documents.put("n/x.json", "mine")
        with pytest.raises(Conflict, match=r"document 'n/x\.json'"):
            copy_document(full, target, ref)
        full.documents.put("n/x.json", "theirs")
        with pytest.raises(Conflict):
            copy_document(full, target, ref)
        assert got(target.documents, "n/x.json").content == "mine"
        target.documents.delete("n/x.json")
        with pytest.raises(Deleted, match=r"document 'n/x\.json'"):
            copy_document(full, target, ref)
        with pytest.raises(NotFound):
            copy_document(full, target, doc_ref("bob", "n/x.json"))


def test_a_bundle_brings_them_back(full: Store, tmp_path: Path) -> None:
    lines = [*write_bundle(full, ["s"]), *write_documents(full)]
    assert is_bundle(next(write_documents(full)))
    with holdfast.open(f"sqlite://{tmp_path}/copy.db") as target:
        told = list(read_bundle(target, lines))
        assert [(one.session or one.document, one.new, one.error) for one in told] == [
            ("s", 1, None), ("n/large.md", 1, None), ("n/x.json", 1, None), ("n/x.json", 1, None),
        ]  # fmt: skip
        assert [one.user for one in told] == [None, None, None, "ann"]
        assert everything(target) == everything(full)
        assert [one.new for one in read_bundle(target, lines)] == [0, 0, 0, 0]


def test_a_bundle_that_was_changed_or_cut_loses_one_document(full: Store) -> None:
    lines = list(write_documents(full))  # n/large.md with its blobs, n/x.json, ann's n/x.json
    changed = [line.replace(b"n/x.json", b"n/y.json") if b'"document"' in line else line for line in lines]
    for broken, lost in (([*lines[:2], *lines[3:]], "n/large.md"), (lines[:-1], "n/x.json"), (changed, "")):
        with holdfast.open("memory://") as target:
            told = list(read_bundle(target, broken))
            assert [one.document for one in told if isinstance(one.error, Corrupt)][:1] == [lost]
            assert len(everything(target)) == len([one for one in told if one.error is None]) < 3
            assert target.check().ok


def test_a_bundle_says_what_was_damaged(full: Store, tmp_path: Path) -> None:
    head = full.backend.get([doc_ref(None, "n/large.md")])[0]
    assert head is not None
    lost = digests(full, head)[-1]
    full.backend.blobs.delete(lost)
    lines = list(write_documents(full))
    assert sum(holdfast.bundle.tells_damage(line) for line in lines) == 1
    with holdfast.open(f"sqlite://{tmp_path}/copy.db") as target:
        assert [(one.document, type(one.error)) for one in read_bundle(target, lines) if one.error] == [
            ("n/large.md", Corrupt)
        ]
        assert len(everything(target)) == 2


def test_a_bundle_of_hostile_ids_is_refused() -> None:
    with holdfast.open("memory://") as store:
        for id in ("x.md", "n/x.exe", "//.md"):
            commit = holdfast.plan.Commit(ref=doc_ref(None, id), at=1, if_rev=0, body=b'{"v":1,"text":"x"}')
            store.backend.commit([commit])
        with holdfast.open("memory://") as target:
            assert [type(one.error) for one in read_bundle(target, write_documents(store))] == [Invalid] * 3
            assert everything(target) == {}


def test_the_command_exports_imports_copies_and_checks_them(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    with holdfast.open(shell.url) as store:
        store.session("s").append(holdfast.user("x"))
        store.documents.put("n/x.md", "kept")
        store.for_user("ann").documents.put("n/x.md", "hers")
    assert "2 documents: all sound" in shell.ok("check").out
    shell.ok("export", "--all", "-o", "all.jsonl")
    shell.ok("import", "all.jsonl", "--store", "sqlite:imported.db")
    told = shell.ok("copy", shell.url, "sqlite:copied.db")
    assert "1 session and 2 documents equal in both stores, 0 failed" in told.err
    shell.ok("copy", "--json", shell.url, "sqlite:copied.db")
    for name in ("imported.db", "copied.db"):
        with holdfast.open(f"sqlite://{tmp_path}/{name}") as store:
            assert got(store.documents, "n/x.md").text == "kept"
            assert got(store.for_user("ann").documents, "n/x.md").text == "hers"
    damage(tmp_path / "copied.db", "UPDATE head SET body = x'00' WHERE id = 'ann:n/x.md'")
    failed = shell("check", "--store", "sqlite:copied.db")
    assert failed.code == 5
    assert "document n/x.md of ann" in failed.out
    exported = shell("export", "--all", "-o", "part.jsonl", "--store", "sqlite:copied.db")
    assert (exported.code, "n/x.md" in exported.err) == (5, True)


def test_a_command_works_for_one_user(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    with holdfast.open(shell.url) as store:
        for who in ("ann", "bob"):
            store.session(f"{who}-1", user=who).append(holdfast.user(f"{who}s words"))
            store.for_user(who).documents.put("n/x.md", who)
    shell.env["HOLDFAST_USER"] = "ann"
    assert [item["id"] for item in shell.ok("--json", "session", "list").json["items"]] == ["ann-1"]
    assert shell("session", "show", "bob-1").code == 7
    assert shell("session", "show", "bob").code == 3
    assert shell.ok("session", "list", "--user", "bob").out == ""
    assert shell.ok("--json", "search", "words").json["items"][0]["session"] == "ann-1"
    assert shell("append", "bob-1", "x").code == 7
    assert shell("session", "delete", "bob-1", "--yes").code == 7
    shell.ok("append", "new", "x", "--create")
    shell.ok("export", "--all", "-o", "hers.jsonl")
    assert b"bob" not in (tmp_path / "hers.jsonl").read_bytes()
    shell.ok("copy", shell.url, "sqlite:hers.db")
    del shell.env["HOLDFAST_USER"]
    assert {i["id"] for i in shell.ok("--json", "session", "list", "--store", "sqlite:hers.db").json["items"]} == {
        "ann-1", "new",
    }  # fmt: skip
    assert len(shell.ok("--json", "--user", "bob", "session", "list").json["items"]) == 1
    assert len(shell.ok("--json", "session", "list").json["items"]) == 3


# --- Asyncio ---


def test_documents_for_asyncio(url: str) -> None:
    async def main() -> None:
        async with holdfast.aopen(url) as store:
            documents = store.documents
            first = await documents.put("n/x.json", {"a": 1}, rev=0)
            with pytest.raises(Exists):
                await documents.put("n/x.json", 2, rev=0)
            assert (await documents.get("n/x.json")).content == {"a": 1}  # type: ignore[union-attr]  # it is there
            assert await documents.info("n/x.json") == first
            await documents.write("n/y.md", b"y" * 100_000)
            stream = await documents.open("n/y.md")
            assert len(await store.run(stream.read)) == 100_000
            assert await documents.categories() == {"n": 2}
            assert [i.name for i in await documents.list("n", limit=1)] == ["y"]
            await documents.rename("n/y.md", "n/z.md")
            assert await documents.exists("n/z.md")
            assert await documents.delete("n/z.md")
            assert (await documents.prune_agents(max_count=0)).items == ()
            await asyncio.gather(*(documents.put(f"many/{n}.json", n) for n in range(30)))
            assert len(await documents.list("many")) == 30

    asyncio.run(main())


def test_a_finding_may_name_a_document() -> None:
    assert Finding(what="x", document="n/x.md").session is None
    assert DOC == "doc"


def test_a_head_that_says_what_none_can_say_is_named(store: Store) -> None:
    store.documents.put("n/good.md", "x")
    for name, tags in (("size", {"size": "much", "created": "1"}), ("created", {"size": "1", "created": "then"})):
        tags = {**tags, "category": "n"}
        ref = doc_ref(None, f"n/{name}.md")
        commit = holdfast.plan.Commit(ref=ref, at=1, if_rev=0, tags=tags, body=b'{"v":1,"text":"x"}')
        store.backend.commit([commit])
        with pytest.raises(Corrupt):
            store.documents.get(f"n/{name}.md")
    page = store.documents.list()
    assert ([i.id for i in page], set(page.damaged)) == (["n/good.md"], {"n/size.md", "n/created.md"})
    assert {f.document for f in store.check().findings} == {"n/size.md", "n/created.md"}
    with holdfast.open("memory://") as target:
        assert [type(one.error) for one in read_bundle(target, write_documents(store))] == [
            Corrupt,
            type(None),
            Corrupt,
        ]


def test_replacing_does_not_grow_a_folder_for_ever(tmp_path: Path) -> None:
    with holdfast.open(f"file://{tmp_path}/store") as store:
        for number in range(100):
            store.documents.put("n/x.md", "x" * 1000 + str(number))
        (log,) = (tmp_path / "store" / "logs" / "doc").iterdir()
        assert log.stat().st_size < 50_000
        assert got(store.documents, "n/x.md").text.endswith("x99")
        assert store.check().ok
