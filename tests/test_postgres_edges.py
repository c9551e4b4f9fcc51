"""PostgreSQL at its edges: dumps on other servers, replicas amid transactions, plans that are kept, rights, waits."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator

import psycopg
import pytest

import holdfast
from holdfast import Invalid, ReadOnly, Unavailable, user
from holdfast.backend import Backend
from holdfast.backends import open_backend, pgserver
from holdfast.plan import Commit
from holdfast.testing.subject import created, done, entries, entry, eventually, hits, ref, text_of, texts
from servers import postgres
from servers.postgres import Postgres, schema_of, shared

pytestmark = pytest.mark.server

OTHERS = 5000
"""Heads that come after plans were made."""


@pytest.fixture
def another() -> Iterator[Postgres]:
    """A young server of the test's own."""
    made = Postgres().start()
    made.create_database()
    yield made
    made.stop()


def role(db: psycopg.Connection, url: str, name: str) -> str:
    """A new role's URL of the same store."""
    name = f"{name}_{schema_of(url)[:20]}"
    db.execute(f"CREATE ROLE {name} LOGIN")
    return url.replace("holdfast@", f"{name}@")


# --- Transactions' numbers on another server ---


def test_a_dump_on_a_younger_server_is_searched_and_watched_as_before(
    at: str, backend: Backend, db: psycopg.Connection, another: Postgres
) -> None:
    """The numbers of its transactions are ahead of that server's: what comes there would be taken for indexed."""
    server = shared()
    assert server is not None, "this test takes a dump of a private server"
    with psycopg.connect(another.conninfo()) as young:
        (now,) = young.execute("SELECT pg_current_xact_id()::text::bigint").fetchone() or (0,)
    while (db.execute("SELECT pg_current_xact_id()::text::bigint").fetchone() or (0,))[0] < now + 1000:
        pass
    created(backend, append=entries("old apple"))
    assert hits(backend, "apple") == {("s", 1)}
    created(backend, "unindexed", append=entries("late apple"))
    dump = subprocess.run(
        [server.program("pg_dump"), "-d", server.conninfo(), "-n", schema_of(at)], stdout=-1, check=True
    )
    restored = [server.program("psql"), "-q", "-v", "ON_ERROR_STOP=1", "-d", another.conninfo()]
    subprocess.run(restored, input=dump.stdout, stdout=subprocess.DEVNULL, check=True)
    there = open_backend(another.url(schema_of(at)), text_of)
    try:
        created(there, "new", append=entries("new apple"))
        assert hits(there, "apple") == {("s", 1), ("unindexed", 1), ("new", 1)}
        assert there.verify() == []
        position, _ = there.changed()
        done(there, append=entries("more apple"))
        assert there.changed(position)[1] == [ref()]
        assert len(hits(there, "apple")) == 4
    finally:
        there.close()


def test_a_watch_on_a_replica_misses_nothing_that_was_open_when_it_looked(another: Postgres) -> None:
    """A replica's snapshot does not name the transactions that are open between its bounds."""
    url = another.url()
    primary = open_backend(url, text_of)
    replica = another.base_backup(name="replica").start()  # which so has the store from its beginning
    copy: Backend | None = None
    try:
        for id in ("early", "late", "last"):
            created(primary, id)
        with psycopg.connect(another.conninfo()) as db:
            primary.commit_in(db, [Commit(ref=ref("late"), append=entries("x"))])  # type: ignore[attr-defined]
            done(primary, "early", append=entries("y"))
            copy = open_backend(url.replace(f":{another.port}/", f":{replica.port}/"), text_of)
            assert eventually(lambda: copy is not None and texts(copy.read(ref("early"))) == ["y"])
            position, _ = copy.changed()
        assert eventually(lambda: copy is not None and texts(copy.read(ref("late"))) == ["x"])
        position, told = copy.changed(position)
        assert ref("late") in told
        woken = threading.Event()
        stop = copy.listen(woken.set)
        try:
            assert eventually(woken.is_set)  # once, when it has begun to look
            woken.clear()
            done(primary, "last", append=entries("z"))
            assert eventually(woken.is_set)
            assert eventually(lambda: copy is not None and ref("last") in copy.changed(position)[1])
        finally:
            stop()
    finally:
        primary.close()
        if copy is not None:
            copy.close()
        replica.stop()


# --- Plans ---


def test_a_plan_of_when_the_store_was_small_reads_no_table_whole(backend: Backend, db: psycopg.Connection) -> None:
    """The functions keep their plans: those that a table of one page gave them must do for one of many."""
    db.execute("ALTER TABLE head SET (autovacuum_enabled = off); ALTER TABLE tag SET (autovacuum_enabled = off)")
    created(backend, tags={"n": "0"})
    db.execute("ANALYZE head; ANALYZE tag")
    for number in range(20):
        done(backend, append=entries("x"))
        done(backend, tags={"n": str(number), "odd": str(number) if number % 2 else None})
    made = [Commit(ref=ref(f"o{number}"), if_rev=0, tags={"a": "b"}) for number in range(OTHERS)]
    for start in range(0, OTHERS, 1000):
        backend.commit(made[start : start + 1000])
    for number in range(20):
        done(backend, append=entries("x"))
        done(backend, tags={"n": str(number), "odd": str(number) if number % 2 else None})
    end(backend, db)
    read = (
        "SELECT sum(seq_tup_read)::bigint FROM pg_stat_all_tables WHERE schemaname = current_schema() "
        "AND relname IN ('head', 'tag')"
    )
    assert (db.execute(read).fetchone() or (0,))[0] < OTHERS


def end(backend: Backend, db: psycopg.Connection) -> None:
    """Close it, and wait till the server's sessions have ended, which tell then what they read."""
    backend.close()
    there = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'holdfast'"
    assert eventually(lambda: not db.execute(there).fetchall())


def test_a_function_leaves_the_durability_to_the_end_of_its_transaction(
    backend: Backend, db: psycopg.Connection
) -> None:
    nothing = "'{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}'"
    with db.transaction():
        db.execute("SET LOCAL synchronous_commit = off")
        db.execute(f"SELECT write('on', '0', {nothing})")
        assert db.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_of_a_log_that_is_far_behind_no_more_is_read_than_is_taken_in(backend: Backend, db: psycopg.Connection) -> None:
    created(backend)
    for _ in range(4):
        done(backend, append=[entry("apple") for _ in range(5000)])
    assert backend.index() == 20_000
    end(backend, db)
    read = "SELECT idx_tup_fetch FROM pg_stat_all_tables WHERE schemaname = current_schema() AND relname = 'entry'"
    assert 20_000 <= (db.execute(read).fetchone() or (0,))[0] < 60_000


# --- Rights ---


def test_compact_says_so_when_it_may_not(at: str, backend: Backend, db: psycopg.Connection) -> None:
    """PostgreSQL warns, and skips the table: what was purged would be there."""
    created(backend, append=entries("secret"))
    theirs = role(db, at, "writer")
    name = theirs.partition("//")[2].partition("@")[0]
    db.execute(f"GRANT USAGE ON SCHEMA {schema_of(at)} TO {name}")
    db.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema_of(at)} TO {name}")
    writer = open_backend(theirs, text_of)
    try:
        done(writer, delete=True)
        with pytest.raises(Unavailable, match="only the owner"):
            writer.compact()
    finally:
        writer.close()
    backend.compact()


def test_a_schema_that_was_made_for_a_role_is_used_by_it(at: str, db: psycopg.Connection) -> None:
    """It may not make schemas, and need not."""
    theirs = role(db, at, "tenant")
    name = theirs.partition("//")[2].partition("@")[0]
    db.execute(f"CREATE SCHEMA {schema_of(at)} AUTHORIZATION {name}")
    opened = open_backend(theirs, text_of)
    try:
        created(opened, append=entries("apple"))
        assert hits(opened, "apple") == {("s", 1)}
    finally:
        opened.close()


# --- Connections ---


def test_a_search_that_reads_a_large_value_waits_for_no_other(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a connection when it comes to need another; as many as there are may be just there."""
    monkeypatch.setattr(pgserver, "MAX_CONNECTIONS", 1)
    with holdfast.open(f"{at}&timeout=3") as store:
        store.session("s").append(user("apple " + "a " * 20_000 + "apple tart " + "pear " * 10_000))
        assert len(store.search("apple")) == 1  # taken into the index
        assert len(store.search('"apple tart"')) == 1  # which has not all of its places
        assert len(store.backend._server._idle) <= 1


# --- A schema of another name ---


def renamed(db: psycopg.Connection, at: str) -> str:
    """The URL of a store that was moved aside, for another to be begun where it was."""
    with holdfast.open(at) as store:
        store.session("s").append(user("before"))
    db.execute(f"ALTER SCHEMA {schema_of(at)} RENAME TO {schema_of(at)}_aside")
    holdfast.open(at).close()
    return postgres.url(f"{schema_of(at)}_aside")


def test_a_schema_that_was_renamed_keeps_what_is_written_to_it(at: str, db: psycopg.Connection) -> None:
    """Functions name the schema whose tables they write to: there may be another store by now."""
    aside = renamed(db, at)
    for n in range(2):
        with holdfast.open(aside) as store:
            store.session("s").append(user(f"after {n}"))
            store.create(f"new {n}")
            assert store.check().ok
            assert len(store.session("s").messages()) == n + 2
    with holdfast.open(at) as store:
        assert not store.sessions()
    db.execute(f"DROP SCHEMA {schema_of(aside)} CASCADE")


def test_only_its_owner_can_mend_a_schema_that_was_renamed(at: str, db: psycopg.Connection) -> None:
    aside = renamed(db, at)
    theirs = role(db, aside, "writer")
    name = theirs.partition("//")[2].partition("@")[0]
    db.execute(f"GRANT USAGE ON SCHEMA {schema_of(aside)} TO {name}")
    db.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA {schema_of(aside)} TO {name}")
    reader = role(db, aside, "reader")
    db.execute(f"GRANT USAGE ON SCHEMA {schema_of(aside)} TO {reader.partition('//')[2].partition('@')[0]}")
    db.execute(
        f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema_of(aside)} TO {reader.partition('//')[2].partition('@')[0]}"
    )
    for url in (theirs, reader):
        with pytest.raises(ReadOnly, match="its owner must open"):
            holdfast.open(url)
    holdfast.open(aside).close()
    holdfast.open(reader).close()
    with holdfast.open(theirs) as store:
        store.session("s").append(user("after"))
    db.execute(f"DROP SCHEMA {schema_of(aside)} CASCADE")


# --- In the user's own transaction ---


def test_a_connection_in_another_encoding_is_refused(at: str) -> None:
    """The server would store other letters than the key's, and take the event for damaged."""
    with holdfast.open(at) as store:
        store.session("s").append(user("before"))
        with (
            psycopg.connect(at.partition("?")[0], client_encoding="LATIN1") as own,
            pytest.raises(Invalid, match="UTF8"),
        ):
            store.commit_in(own, "s", user("x"), key="schl\u00fcssel")
        assert len(store.session("s").messages()) == 1
        assert store.backend.verify() == []


def test_a_transaction_stays_as_durable_as_its_owner_made_it() -> None:
    at = postgres.url(durability="process")
    with holdfast.open(at) as store, psycopg.connect(at.partition("?")[0]) as own:
        store.session("s").append(user("before"))
        store.commit_in(own, "s", user("x"))
        assert own.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_who_waits_for_a_transaction_that_does_not_end_is_told() -> None:
    """Also for one of its own, which would wait for ever; and nothing is stored."""
    at = postgres.url(timeout="0.2")
    with holdfast.open(at) as store, psycopg.connect(at.partition("?")[0]) as own:
        session = store.session("s")
        session.append(user("before"))
        store.commit_in(own, "s", user("mine"))
        with pytest.raises(Unavailable, match="commit_in"):
            session.append(user("waits"), key="w")  # as remembered
        with holdfast.open(at) as other, pytest.raises(Unavailable, match="commit_in"):
            other.session("s").append(user("waits"), key="w")  # with a lock
        own.commit()
        session.append(user("waits"), key="w")
        assert [m.text for m in session.messages()] == ["before", "mine", "waits"]


# --- Listeners ---


def test_a_forgotten_reader_may_be_collected_while_another_begins(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The garbage collector ends it in whatever thread it runs in, amid whatever that does."""
    stop = backend.listen(lambda: None)
    stop()
    pipe = os.pipe

    def collecting() -> tuple[int, int]:
        stop()
        return pipe()

    monkeypatch.setattr(os, "pipe", collecting)
    begins = threading.Thread(target=lambda: backend.listen(lambda: None)(), daemon=True)
    begins.start()
    begins.join(30)
    assert not begins.is_alive()


def test_a_child_keeps_no_pipe_of_a_listener(backend: Backend) -> None:
    stop = backend.listen(lambda: None)
    try:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            pipes = [name for name in os.listdir("/proc/self/fd") if is_pipe(name)]
            os.write(writing, str(len(pipes)).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        here = [name for name in os.listdir("/proc/self/fd") if is_pipe(name)]
        assert int(os.read(reading, 10)) == len(here) - 2
        os.close(reading)
        os.close(writing)
    finally:
        stop()


def is_pipe(name: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{name}").startswith("pipe:")
    except FileNotFoundError:
        return False  # the one that listed them


def test_a_connection_that_another_thread_gives_back_is_used_again(at: str) -> None:
    """As of a check that was broken off, whose generator is ended by whatever thread collects garbage."""
    with holdfast.open(at) as store:
        server = store.backend._server
        loan = server.lend()
        lent = loan.__enter__()
        thread = threading.Thread(target=loan.__exit__, args=(None, None, None))
        thread.start()
        thread.join()
        with server.lend() as again:
            assert again is lent
