"""Appends inside the user's own transaction."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.rows import dict_row

import holdfast
from holdfast import Invalid, KeyReused, NotFound, Stale, Store, TooLarge, user
from servers import postgres

pytestmark = pytest.mark.server


@pytest.fixture
def at() -> str:
    return postgres.url()


@pytest.fixture
def store(at: str) -> Iterator[Store]:
    with holdfast.open(at) as opened:
        opened.session("s").append(user("before"), key="k0")
        yield opened


@pytest.fixture
def db(at: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(at.partition("?")[0]) as own:
        yield own


def told(store: Store) -> list[str]:
    return [message.text for message in store.session("s").messages()]


def test_both_are_stored_or_neither(store: Store, db: psycopg.Connection) -> None:
    db.execute("CREATE TEMP TABLE orders (id int)")
    db.commit()
    for number, commits in ((1, True), (2, False), (3, True)):
        db.execute("INSERT INTO orders VALUES (%s)", (number,))
        receipt = store.commit_in(db, "s", user(f"order {number}"), key=f"k{number}")
        assert receipt.durability == "memory"
        assert f"order {number}" not in told(store)
        db.commit() if commits else db.rollback()
    assert [row[0] for row in db.execute("SELECT id FROM orders ORDER BY id")] == [1, 3]
    assert told(store) == ["before", "order 1", "order 3"]
    assert store.session("s").append(user("after")).last == 4
    assert store.backend.verify() == []


def test_a_retry_stores_once_and_another_content_is_refused(store: Store, db: psycopg.Connection) -> None:
    with db.transaction():
        store.commit_in(db, "s", user("one"), key="k1")
    with db.transaction():
        receipt = store.commit_in(db, "s", user("one"), key="k1")
        assert (receipt.last, receipt.repeated) == (2, True)
        with pytest.raises(KeyReused):
            store.commit_in(db, "s", user("two"), key="k1")
        store.commit_in(db, "s", user("more"))
    assert told(store) == ["before", "one", "more"]


def test_what_is_refused_leaves_the_transaction_as_it_was(store: Store, db: psycopg.Connection) -> None:
    with db.transaction():
        with pytest.raises(Stale):
            store.commit_in(db, "s", user("x"), expect=7)
        with pytest.raises(NotFound):
            store.commit_in(db, "nobody", user("x"))
        with pytest.raises(TooLarge, match="64 KiB"):
            store.commit_in(db, "s", user("x" * 100_000))
        store.commit_in(db, "s", user("fine"), expect=1, key="twice")
        with pytest.raises(Invalid, match="same transaction"):
            store.commit_in(db, "s", user("fine"), key="twice")
    assert told(store) == ["before", "fine"]


def test_only_an_open_transaction_is_taken(store: Store, at: str) -> None:
    outside = psycopg.connect(at.partition("?")[0], autocommit=True)
    with outside, pytest.raises(Invalid, match="amid a transaction"):
        store.commit_in(outside, "s", user("x"))
    with pytest.raises(Invalid, match="amid a transaction"):
        store.commit_in(outside, "s", user("x"))
    for wrong in (object(), None):
        with pytest.raises(Invalid, match="psycopg"):
            store.commit_in(wrong, "s", user("x"))
    with holdfast.open("memory://") as memory:
        memory.session("s")
        with pytest.raises(Invalid, match="postgresql"):
            memory.commit_in(None, "s", user("x"))
    view = store.for_user("ann")
    view.session("hers")
    with pytest.raises(Invalid, match="whole store"):
        view.commit_in(None, "hers", user("x"))


def test_a_connection_to_another_store_of_the_same_name_is_refused(store: Store, at: str) -> None:
    """Each tenant's database has a store of that name; the events would be in somebody else's."""
    name = f"other_{uuid.uuid4().hex}"
    other = at.replace("/test?", f"/{name}?")
    with psycopg.connect(at.partition("?")[0], autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
        try:
            with psycopg.connect(other.partition("?")[0]) as db:
                with pytest.raises(Invalid, match="no store"):
                    store.commit_in(db, "s", user("x"))
                db.rollback()
                with holdfast.open(other) as theirs:
                    theirs.session("s").append(user("theirs"), key="k0")
                    with pytest.raises(Invalid, match="another store"):
                        store.commit_in(db, "s", user("x"))
                    db.commit()
                    assert told(theirs) == ["theirs"]
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_whose_store_it_is_is_asked_of_a_connection_once(
    store: Store, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[str]()
    sound = psycopg.Cursor.execute

    def execute(cursor: psycopg.Cursor, query: bytes | str, *values: object, **how: bool) -> psycopg.Cursor:
        asked.append(str(query))
        return sound(cursor, query, *values, **how)

    monkeypatch.setattr(psycopg.Cursor, "execute", execute)
    for _ in range(3):
        store.commit_in(db, "s", user("x"))
        db.commit()
    assert len([query for query in asked if ".meta" in query]) == 1
    assert told(store) == ["before", "x", "x", "x"]


def test_any_kind_of_connection_will_do(store: Store, at: str) -> None:
    with psycopg.connect(at.partition("?")[0], row_factory=dict_row, cursor_factory=psycopg.ClientCursor) as own:
        store.commit_in(own, "s", user("one"), user("two"))
        store.commit_in(own, "s", user("three"))
    assert told(store) == ["before", "one", "two", "three"]


def test_nobody_else_writes_to_that_session_meanwhile(store: Store, db: psycopg.Connection, at: str) -> None:
    """They wait for the transaction to end, and come behind it."""
    from concurrent.futures import ThreadPoolExecutor

    with holdfast.open(at) as other, ThreadPoolExecutor(1) as pool:
        store.commit_in(db, "s", user("first"))
        waiting = pool.submit(other.session("s").append, user("second"))
        with psycopg.connect(at.partition("?")[0], autocommit=True) as admin:
            while not admin.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'").fetchall():
                assert not waiting.done()
        db.commit()
        waiting.result(30)
    assert told(store) == ["before", "first", "second"]


def test_the_asynchronous_store_takes_it_too(at: str, db: psycopg.Connection) -> None:
    async def main() -> list[str]:
        async with holdfast.aopen(at) as store:
            session = await store.session("s")
            await store.commit_in(db, "s", user("one"))
            db.commit()
            return [message.text for message in await session.messages()]

    assert asyncio.run(main()) == ["one"]
