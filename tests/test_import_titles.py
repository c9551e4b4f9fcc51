"""A title that stands in another session's file: the session that holds the message it names gets it, in any order."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import holdfast
from holdfast.importer import import_files
from holdfast.importing.sources import find_sources
from holdfast.store import Store
from transcripts import events, said, source_bytes, take, take_one

HOLDER, TELLER, OTHER = (f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2, 3))


def summary(words: str, leaf: str) -> bytes:
    return json.dumps({"type": "summary", "summary": words, "leafUuid": leaf}).encode() + b"\n"


def holder(folder: Path, lines: int = 3) -> Path:
    path = folder / f"{HOLDER}.jsonl"
    path.write_bytes(b"".join(said(f"Line {n}", n, session=HOLDER) for n in range(lines)))
    return path


def teller(folder: Path, *lines: bytes) -> Path:
    path = folder / f"{TELLER}.jsonl"
    path.write_bytes(b"".join(lines or [summary("Told elsewhere", f"{HOLDER}-1")]) + said("Mine", 0, session=TELLER))
    return path


def title(store: Store, id: str = HOLDER) -> str | None:
    session = store.get(f"claude-code:{id}")
    assert session is not None
    return session.info().title


@pytest.mark.parametrize("order", list(itertools.permutations(range(2))))
@pytest.mark.parametrize("runs", [1, 2])
def test_a_title_reaches_the_session_that_holds_its_message(
    store: Store, tmp_path: Path, order: tuple[int, ...], runs: int
) -> None:
    paths = [(holder, teller)[n](tmp_path) for n in order]
    if runs == 1:
        import_files(store, [file for path in paths for file in find_sources([path])])
    else:
        for path in paths:
            take(store, path)
    assert (title(store), title(store, TELLER)) == ("Told elsewhere", "Mine")
    for path in paths:
        id = f"claude-code:{path.stem}"
        assert source_bytes(events(store, id)) == path.read_bytes()
    assert store.check().ok
    before = [(i.id, i.rev, i.title) for i in store.sessions()]
    assert take(store, tmp_path).events == 0
    assert [(i.id, i.rev, i.title) for i in store.sessions()] == before


def test_a_title_stays_when_the_file_of_its_session_grows(store: Store, tmp_path: Path) -> None:
    path = holder(tmp_path)
    take(store, path, teller(tmp_path))
    with path.open("ab") as file:
        file.write(said("More", 9, session=HOLDER))
    assert take_one(store, path).events == 1
    assert title(store) == "Told elsewhere"


def test_a_message_that_comes_later_is_found_when_it_comes(store: Store, tmp_path: Path) -> None:
    path = holder(tmp_path, lines=1)
    take(store, path, teller(tmp_path))
    assert title(store) == "Line 0"
    holder(tmp_path)
    take(store, path)
    assert title(store) == "Told elsewhere"


def test_a_summary_that_is_added_later_names_a_session_that_was_there(store: Store, tmp_path: Path) -> None:
    path = teller(tmp_path, summary("Lost", "nowhere"))
    take(store, holder(tmp_path), path)
    assert title(store) == "Line 0"
    with path.open("ab") as file:
        file.write(summary("Told later", f"{HOLDER}-2"))
    take(store, path)
    assert title(store) == "Told later"


def test_a_message_that_is_nowhere_names_nothing(store: Store, tmp_path: Path) -> None:
    take(store, holder(tmp_path), teller(tmp_path, summary("Lost", "nowhere")))
    assert {i.title for i in store.sessions()} == {"Line 0", "Mine"}
    assert "x.claude_code.summary" in [e.type for e in events(store, f"claude-code:{TELLER}")]


def test_a_title_that_a_person_gave_stays(store: Store, tmp_path: Path) -> None:
    take(store, holder(tmp_path))
    session = store.get(f"claude-code:{HOLDER}")
    assert session is not None
    session.update(title="Given here")
    take(store, teller(tmp_path))
    assert title(store) == "Given here"


def test_a_title_that_the_sessions_own_file_gives_stays(store: Store, tmp_path: Path) -> None:
    path = holder(tmp_path)
    with path.open("ab") as file:
        file.write(b'{"type":"ai-title","sessionId":"%s","aiTitle":"Its own"}\n' % HOLDER.encode())
    take(store, path)
    take(store, teller(tmp_path))
    assert title(store) == "Its own"


@pytest.mark.parametrize("runs", [1, 2])
def test_of_two_titles_that_of_the_later_message_wins(store: Store, tmp_path: Path, runs: int) -> None:
    late, early = summary("Late", f"{HOLDER}-2"), summary("Early", f"{HOLDER}-0")
    if runs == 1:
        take(store, teller(tmp_path, late, early), holder(tmp_path))
    else:
        take(store, holder(tmp_path), teller(tmp_path, late))
        take(store, teller(tmp_path, late, early))
    assert title(store) == "Late"


def test_of_a_session_and_its_copy_the_original_gets_the_title(store: Store, tmp_path: Path) -> None:
    path = holder(tmp_path)
    (tmp_path / f"{OTHER}.jsonl").write_bytes(path.read_bytes() + said("Went on", 50, session=OTHER))
    take(store, path, tmp_path / f"{OTHER}.jsonl")
    take(store, teller(tmp_path))
    assert (title(store), title(store, OTHER)) == ("Told elsewhere", "Line 0")


def test_a_title_stays_with_its_user(store: Store, tmp_path: Path) -> None:
    import_files(store, find_sources([holder(tmp_path)]), user="ana")
    import_files(store, find_sources([teller(tmp_path)]), user="ben")
    assert title(store) == "Line 0"


def test_sessions_that_hold_nothing_named_are_not_changed(store: Store, tmp_path: Path) -> None:
    path = tmp_path / f"{OTHER}.jsonl"
    path.write_bytes(said("Apart", 0, session=OTHER))
    take(store, path)
    before = store.get(f"claude-code:{OTHER}").info()  # type: ignore[union-attr]
    take(store, holder(tmp_path), teller(tmp_path))
    assert store.get(f"claude-code:{OTHER}").info() == before  # type: ignore[union-attr]


KILLED = """
import os, signal, sys
import holdfast
from holdfast import importer
def killed(*args):
    os.kill(os.getpid(), signal.SIGKILL)
importer.spread = killed
with holdfast.open(sys.argv[1]) as store:
    importer.import_files(store, importer.find_sources(sys.argv[2:]))
"""


@pytest.mark.parametrize("scheme", ["file", "sqlite"])
def test_an_import_killed_before_it_told_the_titles_tells_them_the_next_time(tmp_path: Path, scheme: str) -> None:
    paths = [holder(tmp_path), teller(tmp_path)]
    url = f"{scheme}://{tmp_path}/store" + (".db" if scheme == "sqlite" else "")
    child = subprocess.run([sys.executable, "-c", KILLED, url, *map(str, paths)], check=False, timeout=60)
    assert child.returncode == -signal.SIGKILL
    with holdfast.open(url) as store:
        assert title(store) == "Line 0"
        assert take(store, *paths).events == 0
        assert title(store) == "Told elsewhere"


def test_a_line_that_changed_under_its_uuid_is_stored_beside_the_old_one(store: Store, tmp_path: Path) -> None:
    path = holder(tmp_path)
    take(store, path)
    lines = path.read_bytes().splitlines(keepends=True)
    for number, words in enumerate((b"LINE 1", b"L I N E 1", b"Line 1", b"LINE 1")):
        path.write_bytes(lines[0] + lines[1].replace(b"Line 1", words) + lines[2])
        os.utime(path, ns=(1, path.stat().st_mtime_ns + 1_000_000 * (number + 1)))
        assert take_one(store, path).events == (1 if number < 2 else 0)
    found = [m.text for m in store.get(f"claude-code:{HOLDER}").messages()]  # type: ignore[union-attr]
    assert found == ["Line 0", "Line 1", "Line 2", "LINE 1", "L I N E 1"]
