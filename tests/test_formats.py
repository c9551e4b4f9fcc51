"""Every released format opens for ever: stores as each version wrote them, read and written on by this one."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import holdfast
from holdfast import user
from holdfast.backends import migrate

ROOT = Path(__file__).parent.parent
FORMATS = ROOT / "tests" / "data" / "formats"
STORES = sorted(path for path in FORMATS.glob("*/*") if path.is_dir())


def the_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_format_fixture", ROOT / "scripts" / "make_format_fixture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


maker = the_script()


def copied(path: Path, tmp_path: Path) -> str:
    """The URL of a copy that may be changed."""
    shutil.copytree(path, tmp_path / "copy")
    return maker.STORES[path.name].format(tmp_path / "copy")


def expected(path: Path) -> dict[str, Any]:
    return json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))


def said(store: holdfast.Store, then: dict[str, Any]) -> dict[str, Any]:
    """All that a store says of itself, but for the fields of sessions that there were not then."""
    told: dict[str, Any] = maker.contents(store)
    for id, session in then["sessions"].items():
        info = told["sessions"][id]["info"]
        info["counts"] = {name: count for name, count in info["counts"].items() if name in session["info"]["counts"]}
        told["sessions"][id]["info"] = {name: info[name] for name in session["info"]}
    return told


def name_of(path: Path) -> str:
    return f"{path.parent.name}-{path.name}"


def test_this_version_has_a_fixture_of_each_persistent_backend() -> None:
    assert {path.name for path in STORES if path.parent.name == maker.SERIES} == set(maker.STORES)


@pytest.mark.parametrize("path", STORES, ids=name_of)
def test_a_store_of_an_earlier_version_says_what_it_said(path: Path, tmp_path: Path) -> None:
    with holdfast.open(copied(path, tmp_path)) as store:
        assert said(store, expected(path)) == expected(path)
        assert store.check().ok
        assert "deleted" not in expected(path)["sessions"]
        with pytest.raises(holdfast.Deleted):
            store.session("deleted")


@pytest.mark.parametrize("path", STORES, ids=name_of)
def test_a_store_of_an_earlier_version_goes_on(path: Path, tmp_path: Path) -> None:
    url = copied(path, tmp_path)
    with holdfast.open(url) as store:
        session = store.session("a/b ünïcode")
        last = session.last
        assert session.append(user("one more of the zeppelins")).first == last + 1
        assert session.append(user("Where is order 7?\nMy Résumé says \0 and \ud800."), key="new").last == last + 2
    with holdfast.open(url) as store:
        assert [hit.seq for hit in store.search("zeppelins")] == [last + 1]
        assert store.check().ok


KILLED = """
import os, signal, sqlite3, sys
import holdfast
from holdfast.backends import migrate
whole = migrate.statements
def cut(script):
    for number, statement in enumerate(whole(script)):
        if number == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        yield statement
migrate.statements = cut
holdfast.open(sys.argv[1])
"""


@pytest.mark.parametrize("path", [p for p in STORES if p.parent.name != maker.SERIES], ids=name_of)
def test_a_conversion_that_is_killed_leaves_the_store_as_it_was(path: Path, tmp_path: Path) -> None:
    url = copied(path, tmp_path)
    for number in range(len(migrate.statements(migrate.scripts("sqlite")[-1][1]))):
        killed = subprocess.run([sys.executable, "-c", KILLED, url, str(number)], check=False)
        assert killed.returncode == -signal.SIGKILL
    with holdfast.open(url) as store:
        assert said(store, expected(path)) == expected(path)
        assert store.check().ok


def test_a_store_that_is_open_elsewhere_is_not_converted(tmp_path: Path) -> None:
    """The other program stands for an older holdfast, which would go on to write by the rules of the old schema."""
    url = copied(FORMATS / "0.1" / "sqlite", tmp_path)
    other = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('SELECT * FROM head'); print(); input()"
    command = [sys.executable, "-c", other, str(tmp_path / "copy" / "store.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(holdfast.Unavailable, match=r"older holdfast .* another program has it open"):
            holdfast.open(url + "?timeout=1")
        process.communicate("\n")
    with holdfast.open(url) as store:
        then = expected(FORMATS / "0.1" / "sqlite")
        assert said(store, then) == then


def schema_of(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").fetchall()


def test_the_fixture_of_this_version_is_what_this_version_writes(tmp_path: Path) -> None:
    maker.write(maker.STORES["sqlite"].format(tmp_path))
    kept = FORMATS / maker.SERIES / "sqlite" / "store.db"
    shutil.copy(kept, tmp_path / "kept.db")
    assert schema_of(tmp_path / "store.db") == schema_of(tmp_path / "kept.db"), "run scripts/make_format_fixture.py"
    with holdfast.open(maker.STORES["sqlite"].format(tmp_path)) as store:
        now, then = maker.contents(store), expected(kept.parent)
    for told in (now, then):
        for session in told["sessions"].values():
            del session["info"]["updated_at"]
            for event in session["events"]:
                if '"type":"edit"' in event["raw"]:
                    del event["at"]  # of the moment
    assert now == then
