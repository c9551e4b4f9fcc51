"""What a killed writer leaves behind, for one who has the store open all along: in a folder store, a line of a log
that is ahead of the rows. Nobody was told of it, so it may be there or not; but it must be either for everybody.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import holdfast
from holdfast import Store, user
from holdfast.copies import Copied
from holdfast.errors import Exists
from holdfast.moving.copying import copy_store
from holdfast.moving.following import follow_store

BIG = "x" * 100_000
"""A text that becomes a large value."""

DYING = """
import os, signal, sys, holdfast
from holdfast import user
from holdfast.backends.filelogs import LogBodies
from holdfast.moving.copying import copy_store

def settle(self, db, real=LogBodies.settle):
    global left
    real(self, db)
    left -= any({})
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)  # the line is on the disk, and the rows are not committed

left = 1
store = holdfast.open(sys.argv[1])
LogBodies.settle = settle
{}
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with holdfast.open(f"file://{tmp_path}/store") as opened:
        opened.session("a").append(user("one"), user("two"))
        opened.session("b").append(user("one"))
        opened.documents.put("notes/a.md", "as it was")
        yield opened


def killed(store: Store, code: str, kind: str = "", *arguments: object) -> None:
    """Run a program that is killed as it commits to the first head of this kind, of any if none is said."""
    which = f"ref.kind.startswith({kind!r}) for ref in self._touched"
    program = [sys.executable, "-c", DYING.format(which, code), store.url, *map(str, arguments)]
    assert subprocess.run(program, timeout=60).returncode == -signal.SIGKILL


def said(store: Store, id: str) -> list[str]:
    return [str(message.parts[0].content)[:9] for message in store.session(id).messages()]  # type: ignore[union-attr]


def in_step(store: Store, id: str) -> None:
    """Let the next writer take in what stands in the log of a session."""
    store.session(id).update(labels=["seen"])


@pytest.mark.parametrize("how", ["session", "rename"])
def test_a_name_that_a_killed_writer_gave_is_not_given_again(how: str, store: Store) -> None:
    killed(store, "store.session('a').update(name='n')", "session")
    if how == "session":
        assert store.session(name="n").id == "a"
    else:
        with pytest.raises(Exists) as caught:
            store.session("b").update(name="n")
        assert caught.value.session == "a"
    in_step(store, "a")
    assert [info.id for info in store.sessions(name="n")] == ["a"]


def test_a_sweep_spares_what_a_line_refers_to_that_no_row_speaks_of(store: Store) -> None:
    killed(store, f"store.session('a').append(user({BIG!r}))")
    killed(store, f"store.create('new').append(user({BIG[1:]!r}))")
    killed(store, f"store.documents.put('notes/a.md', {BIG[2:]!r})")
    swept = store.check(sweep=True).swept
    assert swept is not None
    assert swept.unread == ()
    in_step(store, "a")
    assert said(store, "a") == ["one", "two", BIG[:9]]
    assert store.check().ok
    with holdfast.open(store.url) as again:
        assert again.check().ok
        document = again.documents.get("notes/a.md")
        assert document is not None
        assert document.source in (b"as it was", BIG[2:].encode())


@pytest.mark.parametrize("act", ["store.delete('a')", "store.documents.put('notes/a.md', 'as it is')"])
def test_compact_keeps_what_the_rows_speak_of_until_they_speak_of_another(act: str, store: Store) -> None:
    for _ in range(31 if "documents" in act else 0):  # the next one writes the log anew
        store.documents.put("notes/a.md", "as it was")
    killed(store, act, "doc" if "documents" in act else "session")
    store.compact()
    assert store.check().findings == ()
    assert not store.exists("a") or said(store, "a") == ["one", "two"]
    store.session("b").append(user("two"))
    assert said(store, "b") == ["one", "two"]
    assert [hit.session for hit in store.search("two")] in (["a", "b"], ["b", "a"], ["b"])
    document = store.documents.get("notes/a.md")
    assert document is not None
    assert document.source in (b"as it was", b"as it is")
    left = [path.name for path in Path(store.backend.info()["logs"]).rglob("*") if path.suffix in (".old", ".new")]
    assert left == []


def test_a_deletion_is_taken_over_though_a_killed_copy_went_on_with_the_session(store: Store, tmp_path: Path) -> None:
    with holdfast.open(f"sqlite://{tmp_path}/source.db") as source:
        source.session("copied").append(user("one"))
        source.documents.put("notes/copied.md", "as it was")
        assert copy_store(source, store).failed == ()
        source.session("copied").append(user("two"))
        source.documents.put("notes/copied.md", "as it is")
        copy = "copy_store(holdfast.open(sys.argv[2]), store)"
        killed(store, copy, "session", source.url)
        killed(store, copy, "doc", source.url)
        source.delete("copied")
        source.documents.delete("notes/copied.md")
        stop, told = threading.Event(), list[Copied]()
        stop.set()
        follow_store(source, store, stop=stop, told=told.append)
        assert [one for one in told if one.error is not None] == []
        assert sum(one.deleted for one in told) == 2
        assert not store.exists("copied")
        assert not store.documents.exists("notes/copied.md")
        with contextlib.closing(holdfast.open(store.url)) as again:
            assert again.check().ok


def test_a_copy_that_was_killed_before_its_end_is_no_damage(store: Store, tmp_path: Path) -> None:
    with holdfast.open(f"sqlite://{tmp_path}/source.db") as source:
        source.session("copied").append(user("one"))
        assert copy_store(source, store).failed == ()
        source.session("copied").append(user("two"))
        killed(store, "left = 2; copy_store(holdfast.open(sys.argv[2]), store)", "session", source.url)
        report = store.check()
        assert report.findings == ()
        assert [finding.session for finding in report.unfinished] == ["copied"]
        assert copy_store(source, store).failed == ()
        assert said(store, "copied") == ["one", "two"]
        report = store.check()
        assert (report.findings, report.unfinished) == ((), ())
