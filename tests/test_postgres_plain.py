"""A store on PostgreSQL without an index of words, for servers that have no full text: the same store, read through."""

from __future__ import annotations

import hashlib
from pathlib import Path

import psycopg
import pytest

import holdfast
from holdfast import user
from holdfast.backend import Backend, TextOf
from holdfast.backends import open_backend
from holdfast.errors import Invalid
from holdfast.testing.searching import SearchContract
from servers import postgres

pytestmark = pytest.mark.server


class TestSearches(SearchContract):
    def make(self, place: Path, text_of: TextOf) -> Backend:
        return open_backend(
            postgres.url("s" + hashlib.sha256(str(place).encode()).hexdigest()[:30], words="off"), text_of
        )


@pytest.fixture
def plain(at: str) -> str:
    return f"{at}&words=off"


def _full_text(db: psycopg.Connection) -> int:
    found = db.execute(
        "SELECT count(*) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
        "WHERE c.relnamespace = current_schema()::regnamespace AND a.atttypid = 'tsvector'::regtype"
    ).fetchone()
    assert found is not None
    return int(found[0])


def test_it_needs_no_full_text_of_the_server(plain: str, db: psycopg.Connection) -> None:
    with holdfast.open(plain) as store:
        session = store.create("s", labels=["kept"])
        session.append(user("hello there"), key="k")
        store.create("t").append(user("hello again"), user("nothing"))
        assert store.backend.info()["words"] == "off"
        assert [hit.session for hit in store.search("hello").items] == ["t", "s"]
        assert [hit.session for hit in store.search("hello", label="kept").items] == ["s"]
        assert store.search('"hello again"', session="s").items == []
        store.compact()
        assert store.backend.verify() == []
        session.remove_last()
        store.delete("t")
        assert store.search("hello").items == []
    assert _full_text(db) == 0


def test_it_stays_so_until_an_index_is_asked_for(at: str, plain: str, db: psycopg.Connection) -> None:
    with holdfast.open(plain) as store:
        store.session("s").append(*(user(f"hello {n}") for n in range(30)))
    with holdfast.open(at) as store:
        store.session("s").append(user("hello 30"))
        assert len(store.search("hello", limit=100).items) == 31
        assert store.index() == 0
    assert _full_text(db) == 0
    with holdfast.open(f"{at}&words=on") as store:
        assert store.index() == 31
        assert len(store.search("hello", limit=100).items) == 31
        assert store.backend.verify() == []
    assert _full_text(db) > 0
    with holdfast.open(at) as store:
        assert store.backend.info()["words"] == "on"
    with pytest.raises(Invalid, match="leave words=off out"):
        holdfast.open(plain)


def test_an_index_that_could_not_be_made_leaves_the_store_as_it_was(at: str, plain: str) -> None:
    from holdfast.backends import pgmigrate

    scripts = pgmigrate.scripts

    def broken(*, words: bool = True) -> list[tuple[int, str]]:
        return [(n, s + "SELECT 1 / 0;" if words and n == 2 else s) for n, s in scripts(words=words)]

    with holdfast.open(plain) as store:
        store.session("s").append(user("hello"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pgmigrate, "scripts", broken)
        with pytest.raises(holdfast.HoldfastError):
            holdfast.open(f"{at}&words=on")
    with holdfast.open(plain) as store:
        assert len(store.search("hello").items) == 1
    with holdfast.open(f"{at}&words=on") as store:
        assert len(store.search("hello").items) == 1


def test_two_who_ask_for_an_index_at_once_make_one(at: str, plain: str, db: psycopg.Connection) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with holdfast.open(plain) as store:
        store.session("s").append(user("hello"))

    def ask(_: int) -> int:
        with holdfast.open(f"{at}&words=on") as store:
            return len(store.search("hello").items)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [1] * 4
    with holdfast.open(at) as store:
        assert store.backend.verify() == []


@pytest.mark.parametrize("word", ["", "maybe", "ON"])
def test_what_is_neither_on_nor_off_is_refused(at: str, word: str) -> None:
    with pytest.raises(Invalid, match="neither on nor off"):
        holdfast.open(f"{at}&words={word}")
