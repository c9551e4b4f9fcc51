"""Every released format opens for ever: stores as each version wrote them, read and written on by this one."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import holdfast
from holdfast import user

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


def name_of(path: Path) -> str:
    return f"{path.parent.name}-{path.name}"


def test_this_version_has_a_fixture_of_each_persistent_backend() -> None:
    assert {path.name for path in STORES if path.parent.name == maker.SERIES} == set(maker.STORES)


@pytest.mark.parametrize("path", STORES, ids=name_of)
def test_a_store_of_an_earlier_version_says_what_it_said(path: Path, tmp_path: Path) -> None:
    with holdfast.open(copied(path, tmp_path)) as store:
        assert maker.contents(store) == expected(path)
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
    assert now == then
