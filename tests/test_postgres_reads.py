"""Reads on PostgreSQL: prepared statements behind poolers that know none, lists, watches of large stores, damage that
an append meets, listeners, and who keeps deleted rows."""

from __future__ import annotations

import threading

import psycopg
import pytest

from holdfast import Corrupt, HoldfastError, Unavailable
from holdfast.backend import Backend
from holdfast.backends import open_backend, pglisten
from holdfast.backends.postgres import PostgresBackend
from holdfast.plan import Commit
from holdfast.testing.subject import created, done, entries, eventually, ref, text_of, texts
from servers.postgres import Postgres

pytestmark = pytest.mark.server

MANY = 100_000
"""Heads of a large store."""


# --- Prepared statements ---


def test_what_is_read_again_and_again_is_prepared(at: str, backend: Backend) -> None:
    assert isinstance(backend, PostgresBackend)
    created(backend, append=entries("one", "two"))
    for _ in range(3):
        assert [head.ref for head in backend.find("session", {})] == [ref()]
        assert texts(backend.read(ref())) == ["one", "two"]
        with pytest.raises(HoldfastError):
            backend.get([ref(f"{ref().id}\u0000b")])  # a name that the server would take to end at NUL
    rows = backend._server.read("SELECT statement FROM pg_prepared_statements")
    assert [sql for (sql,) in rows if "head" in sql]
    assert [sql for (sql,) in rows if "entry" in sql]


@pytest.mark.parametrize("lost", ["DEALLOCATE ALL", "another has prepared them"])
def test_a_session_that_is_another_one_reads_the_same(backend: Backend, lost: str) -> None:
    """A pooler that knows nothing of prepared statements gives each transaction some server's session."""
    assert isinstance(backend, PostgresBackend)
    created(backend, append=entries("one"))
    read = lambda: texts(backend.read(ref()))  # noqa: E731  # twice below
    assert read() == read() == ["one"]
    with backend._server.lend() as inside:
        if lost == "DEALLOCATE ALL":
            inside.execute("DEALLOCATE ALL")
        else:
            inside.prepared._names.clear()  # this session is one of those where another client was before
    assert read() == read() == ["one"]
    assert not inside.prepared.works


@pytest.mark.parametrize("lost", ["DEALLOCATE ALL", "another has prepared them"])
def test_a_commit_to_a_session_that_is_another_one_is_stored_once(backend: Backend, lost: str) -> None:
    assert isinstance(backend, PostgresBackend)
    created(backend)
    for text in ("one", "two", "three"):
        done(backend, append=entries(text))
    with backend._server.lend() as inside:
        prepared = inside.execute("SELECT statement FROM pg_prepared_statements").fetchall()
        assert [sql for (sql,) in prepared if "grow(" in sql]
        if lost == "DEALLOCATE ALL":
            inside.execute("DEALLOCATE ALL")
        else:
            inside.prepared._names.clear()
    for text in ("four", "five"):
        done(backend, append=entries(text))
    assert texts(backend.read(ref())) == ["one", "two", "three", "four", "five"]
    assert not inside.prepared.works


def test_an_error_is_told_as_by_a_read_that_is_not_prepared(backend: Backend, db: psycopg.Connection) -> None:
    created(backend)
    for _ in range(3):
        backend.find("session", {})
    db.execute("ALTER TABLE head RENAME TO gone")
    with pytest.raises(Exception, match="no store that this version can use"):
        backend.find("session", {})
    db.execute("ALTER TABLE gone RENAME TO head")
    assert [head.ref for head in backend.find("session", {})] == [ref()]


def test_a_head_that_is_listed_again_is_still_checked(backend: Backend, db: psycopg.Connection) -> None:
    """What a row says is remembered; a row of which a bit was flipped is another one."""
    created(backend, "a", tags={"title": "one"})
    for _ in range(3):
        assert backend.find("session", {}).damaged == ()
    db.execute("UPDATE head SET tags = set_byte(tags, 3, get_byte(tags, 3) # 1)")
    assert backend.find("session", {}).damaged == (ref("a"),)
    db.execute("UPDATE head SET tags = set_byte(tags, 3, get_byte(tags, 3) # 1)")
    assert [head.tags for head in backend.find("session", {})] == [{"title": "one"}]


# --- Watches ---


def test_a_look_at_what_changed_reads_no_large_store_whole(backend: Backend, db: psycopg.Connection) -> None:
    db.execute("ALTER TABLE head SET (autovacuum_enabled = off)")
    created(backend, "s")
    db.execute("ANALYZE head")
    db.execute(
        "INSERT INTO head SELECT kind, 's' || n, rev, last, base, trim, at, standing, grown, tags, counts, body, crc "
        f"FROM head, generate_series(1, {MANY}) AS n"
    )
    position, _ = backend.changed()
    for number in range(20):
        done(backend, append=entries("x"))
        before, (position, told) = position, backend.changed(position)
        assert told == [ref()], number
        assert backend.changed(before)[1] == [ref()]
    backend.close()
    there = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'holdfast'"
    assert eventually(lambda: not db.execute(there).fetchall())
    read = "SELECT seq_tup_read - %s FROM pg_stat_all_tables WHERE schemaname = current_schema() AND relname = 'head'"
    assert (db.execute(read, (MANY,)).fetchone() or (MANY,))[0] < MANY  # the filling itself read one row


# --- Damage ---


def test_an_append_that_meets_rows_behind_the_end_of_its_log_says_corrupt(
    backend: Backend, db: psycopg.Connection
) -> None:
    created(backend, "a", append=entries("one"))
    created(backend, "b", append=entries("one"))
    db.execute(
        "INSERT INTO entry SELECT kind, id, 2, NULL, at, hidden, crc, body FROM entry WHERE id = 'a' AND seq = 1"
    )
    with pytest.raises(Corrupt, match="holdfast check") as told:
        backend.commit([Commit(ref=ref("a"), append=entries("two"))])
    assert "session, a, 2" in str(told.value)
    with psycopg.connect(db.info.dsn) as other, pytest.raises(Corrupt, match="holdfast check"):
        backend.commit_in(other, [Commit(ref=ref("a"), append=entries("two"))])  # type: ignore[attr-defined]
    assert done(backend, "b", append=entries("two")).last == 2
    assert (ref("a"), None) in {(problem.ref, problem.seq) for problem in backend.verify()}


# --- Listeners ---


def test_a_listener_that_did_not_hear_itself_tries_again(
    backend: Backend, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pglisten, "PROOF", 0.0)  # no server is that quick
    monkeypatch.setattr(pglisten, "AFRESH", 0.2)
    looks, listens = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE %s", ("LISTEN%",)
    woken = threading.Event()
    stop = backend.listen(woken.set)
    try:
        assert eventually(woken.is_set)
        woken.clear()
        created(backend, "while it looks")
        assert eventually(woken.is_set)
        monkeypatch.setattr(pglisten, "PROOF", 20.0)
        assert eventually(lambda: (db.execute(looks, listens).fetchone() or (0,))[0] > 0)
        for number in range(3):
            woken.clear()
            created(backend, f"s{number}")
            assert eventually(woken.is_set)
    finally:
        stop()


# --- Who keeps deleted rows ---


def test_compact_names_who_keeps_what_was_deleted() -> None:
    server = Postgres(
        max_prepared_transactions="2", hot_standby_feedback="on", wal_receiver_status_interval="1s"
    ).start()
    server.create_database()
    backend: Backend | None = None
    replica: Postgres | None = None
    try:
        backend = open_backend(server.url(), text_of)
        created(backend, append=entries("secret"))
        replica = server.base_backup(name="replica")
        replica.settings["primary_slot_name"] = "kept"
        with psycopg.connect(server.conninfo(), autocommit=True) as db:
            db.execute("SELECT pg_create_physical_replication_slot('kept')")
            replica.start()
            held = "SELECT xmin FROM pg_replication_slots WHERE slot_name = 'kept' AND xmin IS NOT NULL"
            assert eventually(lambda: bool(db.execute(held).fetchall()))
            replica.stop()
            replica = None
            db.execute("BEGIN")
            db.execute("SELECT pg_current_xact_id()")
            db.execute("PREPARE TRANSACTION 'forgotten'")
            done(backend, delete=True)
            with pytest.raises(Unavailable, match="still open") as told:
                backend.compact()
            assert "the prepared transaction 'forgotten'" in str(told.value)
            assert "the replication slot 'kept'" in str(told.value)
            db.execute("ROLLBACK PREPARED 'forgotten'")
            db.execute("SELECT pg_drop_replication_slot('kept')")
            backend.compact()
    finally:
        if backend is not None:
            backend.close()
        if replica is not None:
            replica.stop()
        server.stop()
