"""PostgreSQL: the contract and the machine on a real server, how it is opened, and what damage shows."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from hypothesis import settings

import holdfast
from holdfast import Corrupt, Invalid, ReadOnly, Unavailable, search, user
from holdfast.backend import Backend, TextOf
from holdfast.backends import open_backend, pgspace
from holdfast.backends.pgserver import Server, did_nothing
from holdfast.packed import Packing, Span
from holdfast.plan import Commit, Entry, Ref
from holdfast.testing import BackendContract, BackendMachine
from holdfast.testing.subject import created, done, entries, entry, eventually, hits, ref, text_of, texts
from holdfast.urls import parse_url
from servers import postgres
from servers.postgres import schema_of

pytestmark = pytest.mark.server

TESTS = Path(__file__).parent
EXAMPLES = 15
"""Histories of the machine in a normal run: each opens stores and writes tables anew many times."""
LONG = 500


def url_of(place: Path, **params: str) -> str:
    """The URL of the store that belongs to a folder."""
    return postgres.url("s" + hashlib.sha256(str(place).encode()).hexdigest()[:30], **params)


class TestContract(BackendContract):
    def make(self, place: Path, text_of: TextOf) -> Backend:
        return open_backend(url_of(place), text_of)


class PostgresMachine(BackendMachine):
    def make(self, place: Path, text_of: TextOf) -> Backend:
        return open_backend(url_of(place), text_of)


TestMachine = PostgresMachine.TestCase
TestMachine.settings = settings(max_examples=EXAMPLES)


@pytest.fixture(scope="module", autouse=True)
def _length(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--long"):
        TestMachine.settings = settings(max_examples=LONG)


# --- How it is opened ---


def test_many_who_open_a_new_store_at_once_find_one(at: str) -> None:
    code = f"import holdfast\nwith holdfast.open({at!r}) as s: s.session('p').append(holdfast.user('x'))"
    programs = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(2)]

    def open_and_append(number: int) -> None:
        with holdfast.open(at) as store:
            store.session("t").append(user(str(number)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(open_and_append, range(16)))
    for program in programs:
        assert program.communicate(timeout=60)[1] == b""
        assert program.returncode == 0
    with holdfast.open(at) as store:
        assert sorted(m.text for m in store.session("t").messages()) == sorted(map(str, range(16)))
        assert len(store.session("p").messages()) == 2
        assert store.backend.verify() == []


def test_a_newer_store_is_refused(at: str, backend: Backend, db: psycopg.Connection) -> None:
    db.execute("UPDATE meta SET value = '9999' WHERE name = 'schema'")
    with pytest.raises(Invalid, match="newer holdfast"):
        open_backend(at, text_of)


def test_a_migration_that_was_cut_off_leaves_nothing_and_is_made_anew(at: str, db: psycopg.Connection) -> None:
    from holdfast.backends import pgmigrate

    scripts = pgmigrate.scripts()
    broken = [*scripts, (scripts[-1][0] + 1, "CREATE TABLE {schema}.more (n int); SELECT 1 / 0;")]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pgmigrate, "scripts", lambda **_: broken)
        with pytest.raises(holdfast.HoldfastError):
            open_backend(at, text_of)
    found = db.execute("SELECT count(*) FROM pg_namespace WHERE nspname = %s", (schema_of(at),)).fetchone()
    assert found == (0,)
    open_backend(at, text_of).close()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pgmigrate, "scripts", lambda **_: [*broken[:-1], (broken[-1][0], broken[-1][1].split(";")[0])])
        opened = open_backend(at, text_of)
        created(opened)
        opened.close()
    assert db.execute("SELECT count(*) FROM more").fetchone() == (0,)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_store_of_an_earlier_schema_is_brought_up_to_date(at: str, version: int) -> None:
    from holdfast.backends import pgmigrate

    earlier = [script for script in pgmigrate.scripts() if script[0] <= version]
    where = parse_url(at)
    server = Server(where, 30)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pgmigrate, "scripts", lambda **_: earlier)
        pgmigrate.migrate(server, where, schema_of(at), lambda db: None)
    server.close()
    with holdfast.open(at) as store:
        store.session("s").append(user("hello"), key="k")
        assert store.session("s").append(user("hello"), key="k").repeated
        assert len(store.search("hello").items) == 1
        assert store.backend.info()["words"] == "on"
        assert store.backend.verify() == []


def test_a_schema_of_another_program_is_refused(at: str, db: psycopg.Connection) -> None:
    db.execute(f"CREATE SCHEMA {schema_of(at)}")
    open_backend(at, text_of).close()  # an empty one is fine
    other = postgres.url()
    db.execute(f"CREATE SCHEMA {schema_of(other)}; CREATE TABLE {schema_of(other)}.users (id int)")
    with pytest.raises(Invalid, match="another program"):
        open_backend(other, text_of)


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"schema": "pg_mine"}, "no name of a schema"),
        ({"schema": "x" * 64}, "no name of a schema"),
        ({"schema": "100%25"}, "no name of a schema.*without %"),
        ({"schema": "a$$b"}, "no name of a schema.*without %"),
        ({"timeout": "soon"}, "no number of seconds"),
        ({"listen": "maybe"}, "neither on nor off"),
        ({"durability": "replicated"}, "waits for no standby"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(params: dict[str, str], why: str) -> None:
    schema = params.pop("schema", "")
    with pytest.raises(Invalid, match=why):
        open_backend(postgres.url(schema, **params), text_of)


@pytest.mark.parametrize("schema", ["Store", "my-store", "a b", "select", "%22quoted%22", "日本語"])
def test_a_schema_may_have_any_name(schema: str) -> None:
    opened = open_backend(postgres.url(schema), text_of)
    try:
        if opened.get([ref()]) == [None]:
            created(opened, append=entries("apple"), tags={"user": "ann"})
        assert hits(opened, "apple") == {("s", 1)}
        assert opened.verify() == []
    finally:
        opened.close()


def test_a_server_that_is_not_there_is_unavailable_and_no_password_is_told() -> None:
    from servers.processes import free_port

    with pytest.raises(Unavailable) as caught:
        holdfast.open(f"postgresql://ann:s3cret@127.0.0.1:{free_port()}/x?timeout=2")
    told = [str(caught.value), repr(caught.value.facts)]
    cause = caught.value.__cause__
    assert not [text for text in (*told, str(cause), repr(cause)) if "s3cret" in text]


def test_a_user_who_may_only_read_reads(at: str, backend: Backend, db: psycopg.Connection) -> None:
    created(backend, append=entries("one apple"))
    backend.index()
    name = "reader_" + schema_of(at)[:20]
    db.execute(f"CREATE ROLE {name} LOGIN; GRANT USAGE ON SCHEMA {schema_of(at)} TO {name}")
    db.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema_of(at)} TO {name}")
    reader = open_backend(at.replace("holdfast@", f"{name}@"), text_of)
    try:
        assert texts(reader.read(ref())) == ["one apple"]
        assert hits(reader, "apple") == {("s", 1)}
        with pytest.raises(ReadOnly):
            done(reader, append=entries("two"))
        done(backend, append=entries("more apple"))
        assert hits(reader, "apple") == {("s", 1), ("s", 2)}
    finally:
        reader.close()


def test_facts_name_the_engine_and_its_durability(backend: Backend) -> None:
    facts = backend.info()
    assert (facts["engine"], facts["durability"], facts["fsync"]) == ("postgresql", "disk", "on")


# --- Several at once ---


def test_processes_append_to_one_session_without_a_gap(at: str) -> None:
    count = 150
    code = (
        "import sys, holdfast\n"
        "with holdfast.open(sys.argv[1]) as store:\n"
        "    session = store.session('shared')\n"
        f"    for n in range({count}):\n"
        "        session.append(holdfast.user(f'{sys.argv[2]} {n}'), key=f'{sys.argv[2]}-{n}')\n"
    )
    programs = [subprocess.Popen([sys.executable, "-c", code, at, str(n)]) for n in range(3)]
    assert [program.wait(120) for program in programs] == [0, 0, 0]
    with holdfast.open(at) as store:
        events = list(store.session("shared").events())
        assert [event.seq for event in events] == list(range(1, 3 * count + 1))
        for writer in range(3):
            mine = [e.payload.text for e in events if e.payload.text.startswith(f"{writer} ")]
            assert mine == [f"{writer} {n}" for n in range(count)]
        assert store.backend.verify() == []


def test_a_batch_takes_one_call_and_another_writer_costs_a_second_look(backend: Backend, at: str) -> None:
    other = open_backend(at, text_of)
    try:
        created(backend)
        done(other, append=entries("theirs"))
        result = backend.commit([Commit(ref=ref(), append=entries("ours"), add={"n": 1}) for _ in range(64)])
        assert [r.last for r in result] == list(range(2, 66))
        assert backend.get([ref()]) == other.get([ref()])
    finally:
        other.close()


def test_what_grew_is_told_of_transactions_that_end_late(backend: Backend, db: psycopg.Connection) -> None:
    """A transaction that began before a look and ends after it is told by the next one."""
    created(backend, "early")
    position, _ = backend.changed()
    with db.transaction():
        created_in = backend.commit_in(db, [Commit(ref=ref("late"), if_rev=0, append=entries("x"))])  # type: ignore[attr-defined]
        assert created_in[0].last == 1
        done(backend, "early", append=entries("y"))
        position, told = backend.changed(position)
        assert told == [ref("early")]
        assert backend.changed(position)[1] == []
    position, told = backend.changed(position)
    assert told == [ref("late")]
    assert backend.changed(position)[1] == []


@pytest.mark.parametrize("listen", ["on", "off"])
def test_a_listener_hears_of_another_process(listen: str) -> None:
    at = postgres.url(listen=listen)
    backend, other = open_backend(at, text_of), open_backend(at, text_of)
    woken = threading.Event()
    stop = backend.listen(woken.set)
    try:
        for number in range(5):
            woken.clear()
            created(other, f"s{number}")
            assert eventually(woken.is_set)
    finally:
        stop()
        backend.close()
        other.close()


def test_a_child_goes_on_with_connections_of_its_own(backend: Backend) -> None:
    created(backend)
    done(backend, append=entries("parent"))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            done(backend, append=entries("child"))
            code = 0 if texts(backend.read(ref())) == ["parent", "child"] else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    done(backend, append=entries("parent"))
    assert texts(backend.read(ref())) == ["parent", "child", "parent"]


# --- Damage, and what is left of what was deleted ---


def test_damage_is_named_and_hides_nothing_else(backend: Backend, db: psycopg.Connection) -> None:
    for id in "abcde":
        created(backend, id, tags={"user": "ann"}, append=[entry(f"one {id}"), entry("two"), entry("three")])
    hits(backend, "one")
    db.execute("UPDATE entry SET body = set_byte(body, 1, get_byte(body, 1) # 4) WHERE id = 'a' AND seq = 2")
    db.execute("UPDATE entry SET hidden = hidden # 1 WHERE id = 'a' AND seq = 3")
    db.execute("UPDATE head SET counts = '{\"n\":1}' WHERE id = 'b'")
    db.execute("DELETE FROM tag WHERE id = 'c'")
    db.execute("DELETE FROM entry WHERE id = 'd' AND seq = 2")
    db.execute("DELETE FROM words WHERE id = 'e' AND seq = 1")
    found = {(p.ref.id if p.ref else None, p.seq) for p in backend.verify()}
    assert found == {("a", 2), ("a", 3), ("b", None), ("c", None), ("d", None), ("e", None), (None, None)}
    assert [e.seq for e in backend.read(ref("a")) if e.fault] == [2, 3]
    listed = backend.find("session", {})
    assert [h.ref.id for h in listed] == ["e", "d", "c", "a"]
    assert listed.damaged == (ref("b"),)
    assert backend.scan("session", limit=2).damaged == (ref("b"),)
    with pytest.raises(Corrupt):
        backend.get([ref("b")])
    assert texts(backend.read(ref("b"))) == ["one b", "two", "three"]


def test_a_copy_finds_what_the_server_kept_otherwise_than_it_was_sent(
    at: str, backend: Backend, db: psycopg.Connection, tmp_path: Path
) -> None:
    with holdfast.open(f"sqlite://{tmp_path}/a.db") as source, holdfast.open(at) as target:
        for name in ("one", "two", "three"):
            source.session(name).append(*(user(f"{name} {n} " * 20) for n in range(30)))
        db.execute(
            "CREATE FUNCTION spoiled() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.body := "
            "set_byte(NEW.body, 9, get_byte(NEW.body, 9) # 4); RETURN NEW; END $$"
        )
        db.execute(
            "CREATE TRIGGER spoil BEFORE INSERT ON entry FOR EACH ROW WHEN (NEW.id = 'two' AND NEW.seq = 7) "
            "EXECUTE FUNCTION spoiled()"
        )
        report = holdfast.copy_store(source, target)
        assert [one.session for one in report.failed] == ["two"]
        assert "event 7 of session 'two' is damaged" in str(report.failed[0].error)
        assert (report.sessions, report.events) == (2, 60)
        assert isinstance(source.backend, Packing)
        assert isinstance(backend, Packing)
        spans = [Span(ref("three"), 3, 20), Span(ref("nobody"), 0, 9), Span(ref("one"), 0, 30)]
        assert backend.packed(spans) == source.backend.packed(spans)
        assert [len(found) for found in backend.packed(spans)] == [17, 0, 30]
        assert backend.packed([]) == []


def test_a_key_that_another_server_tells_of_in_its_own_words_is_stored_once(at: str, db: psycopg.Connection) -> None:
    """As Citus does, where the error of a worker comes with another SQLSTATE."""
    with holdfast.open(at) as store, holdfast.open(at) as another:
        store.session("s").append(user("first"))
        another.session("s").append(user("second"))
        db.execute(
            "CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF EXISTS (SELECT 1 FROM {schema_of(at)}.entry WHERE id = NEW.id AND key = NEW.key) THEN "
            "RAISE EXCEPTION 'duplicate key' USING ERRCODE = 'XX000'; END IF; RETURN NEW; END $$"
        )
        db.execute("CREATE TRIGGER told BEFORE INSERT ON entry FOR EACH ROW EXECUTE FUNCTION told()")
        assert not another.session("s").append(user("third"), key="k").repeated
        assert another.session("s").append(user("third"), key="k").repeated
        assert store.session("s").append(user("third"), key="k").repeated
        assert [m.text for m in store.session("s").messages()] == ["first", "second", "third"]


@pytest.mark.parametrize(("severity", "nothing"), [("ERROR", True), ("FATAL", False), ("PANIC", False)])
def test_of_an_error_that_ended_the_connection_nothing_is_taken_for_granted(severity: str, nothing: bool) -> None:
    class Told(psycopg.errors.InternalError_):
        diag = SimpleNamespace(severity_nonlocalized=severity)  # type: ignore[assignment]  # as far as it is read

    assert Told().sqlstate == "XX000"
    assert did_nothing(Told()) == nothing


def test_a_damaged_head_can_only_be_deleted(backend: Backend, db: psycopg.Connection) -> None:
    before = created(backend, tags={"user": "ann"}, append=entries("one", "two"))
    db.execute("UPDATE head SET last = last # 64, crc = crc # 1")
    for commit in (Commit(ref=ref(), append=entries("x")), Commit(ref=ref(), tags={"a": "b"})):
        with pytest.raises(Corrupt):
            backend.commit([Commit(ref=ref("beside"), if_rev=0), commit])
    assert backend.get([ref("beside")]) == [None]
    dead = done(backend, delete=True)
    assert dead.dead
    assert dead.last >= 2
    assert dead.rev > before.rev
    assert backend.read(ref(), voided=True) == []
    assert backend.find("session", {"user": "ann"}) == []
    assert backend.verify() == []


def test_rows_without_a_head_are_named(backend: Backend, db: psycopg.Connection) -> None:
    for id in "abc":
        created(backend, id, tags={"user": "ann"}, append=entries("one"))
    db.execute("DELETE FROM head WHERE id <> 'b'")
    assert sorted(p.what for p in backend.verify()) == [
        "1 events are kept for session 'a', which is not there",
        "1 events are kept for session 'c', which is not there",
        "1 tags are kept for session 'a', which is not there",
        "1 tags are kept for session 'c', which is not there",
    ]


def test_nothing_is_left_in_the_servers_tables_of_what_was_deleted(backend: Backend, db: psycopg.Connection) -> None:
    server = postgres.shared()
    assert server is not None, "this test looks into the files of a private server"
    noise = os.urandom(64)
    word = "w" + os.urandom(12).hex()
    created(backend, tags={"t": word}, append=[entry(word), entry(noise)])
    created(backend, "kept", append=entries("pear"))
    assert hits(backend, word) == {("s", 1)}
    db.execute("CHECKPOINT")
    assert files_with(server.data, noise, word.encode()), "the test would find nothing if it were there"
    done(backend, delete=True)
    backend.compact()
    db.execute("CHECKPOINT")
    assert files_with(server.data, noise, word.encode()) == []
    assert hits(backend, "pear") == {("kept", 1)}
    assert backend.verify() == []


def files_with(data: Path, *needles: bytes) -> list[Path]:
    """The files of tables and indexes that hold one of the bytes."""
    found = []
    for path in (data / "base").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            found += [path] if any(needle in content for needle in needles) else []
    return found


@contextlib.contextmanager
def an_older_transaction(at: str) -> Iterator[psycopg.Connection]:
    """One that goes on looking at what is there now."""
    with psycopg.connect(at.partition("?")[0]) as reader:
        reader.execute("SET default_transaction_isolation = 'repeatable read'")
        reader.commit()
        reader.execute("SELECT 1 FROM pg_class LIMIT 1")
        yield reader


def test_compact_says_when_an_older_transaction_keeps_what_was_deleted(
    backend: Backend, at: str, db: psycopg.Connection
) -> None:
    created(backend, append=entries("secret"))
    with an_older_transaction(at):
        done(backend, delete=True)
        with pytest.raises(Unavailable, match="still open"):
            backend.compact()
    backend.compact()


def test_compact_waits_for_a_transaction_that_ends_soon(
    backend: Backend, at: str, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pgspace, "WAIT", 60)
    created(backend, append=entries("secret"))
    with an_older_transaction(at) as reader:
        done(backend, delete=True)
        end = threading.Timer(0.2, reader.rollback)
        end.start()
        backend.compact()
        end.join()


# --- Search ---


def test_words_that_the_index_can_not_tell_apart_are_told_by_their_text(backend: Backend) -> None:
    long = "क" * 700  # 2,100 bytes; a query may have 1,000 characters
    created(backend, append=entries(f"{long}a apple", f"{long}b apple", "apple " * 400 + "pie", "a b " * 9000 + "c d"))
    assert hits(backend, f"{long}a") == {("s", 1)}
    assert hits(backend, f"apple -{long}a") == {("s", 2), ("s", 3)}
    assert hits(backend, '"apple pie"') == {("s", 3)}
    assert hits(backend, '"c d"') == {("s", 4)}
    assert hits(backend, '"b c"') == {("s", 4)}
    assert hits(backend, '"d c"') == set()


def test_phrases_hit_the_same_however_long_the_texts_are(backend: Backend) -> None:
    often, far = "pie x apple y " * 300, "a b " * 9000
    texts = ("one apple pie two", "pie apple", f"apple pie {often}", f"{often} end apple pie", f"{far} apple pie", "x")
    created(backend, append=entries(*texts))
    for query in (
        '"apple pie"', '"pie apple"', '"apple pi"*', '"apple pie two"', 'apple -"apple pie"', '"apple pie" OR x',
        '"apple pie" -"one apple"', 'pie -"pie apple" OR x', '"b apple" -"apple pi"*', '"end apple" "apple pie"',
    ):  # fmt: skip
        node = search.parse(query)
        assert node is not None
        expected = {("s", n) for n, text in enumerate(texts, 1) if search.matches(node, " ".join(text.split()))}
        assert hits(backend, query) == expected, query
        for limit in (1, 2):
            pages = [hit for at in range(0, 7, limit) for hit in hits(backend, query, limit=limit, offset=at)]
            assert sorted(pages) == sorted(expected), query


def test_a_page_deep_among_texts_that_must_be_read(backend: Backend) -> None:
    long = "pie x apple y " * 260
    every = [f"{long} {'apple pie' if n % 2 else ''} {n}".encode() for n in range(120)]
    created(backend, append=[Entry("", 0, text) for text in every])
    found = [hit for at in range(0, 60, 25) for hit in hits(backend, '"apple pie"', limit=25, offset=at, newest=True)]
    assert len(set(found)) == 60
    assert hits(backend, '"apple pie"', limit=25, offset=60) == set()


def test_a_text_of_too_many_words_is_searched_all_the_same(backend: Backend) -> None:
    many = " ".join(f"{n:x}word{n * 7919:x}" for n in range(60_000))
    created(backend, append=entries(many, "apple"))
    assert hits(backend, "ea5fword1c4ffe1") == ({("s", 1)} if "ea5fword1c4ffe1" in many else set())
    assert hits(backend, "0word0") == {("s", 1)}
    assert hits(backend, "apple") == {("s", 2)}
    assert hits(backend, "apple OR 0word0") == {("s", 1), ("s", 2)}
    assert backend.verify() == []


def test_words_of_another_normalisation_are_taken_in_anew(backend: Backend, db: psycopg.Connection) -> None:
    created(backend, append=entries("apple"))
    assert hits(backend, "apple") == {("s", 1)}
    db.execute("UPDATE meta SET value = '0' WHERE name = 'norm'")
    db.execute("UPDATE words SET words = 'stale'")
    assert hits(backend, "apple") == {("s", 1)}
    assert hits(backend, "stale") == set()


def test_searches_of_many_index_each_entry_once(backend: Backend, at: str) -> None:
    created(backend, append=[Entry("", 0, b"apple") for _ in range(3000)])
    other = open_backend(at, text_of)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda b: len(hits(b, "apple", limit=5000)), [backend, other, backend, other]))
        assert found == [3000] * 4
        assert backend.verify() == []
    finally:
        other.close()


# --- In the user's own transaction ---


def test_a_ref_is_named_as_the_tables_name_it(backend: Backend, db: psycopg.Connection) -> None:
    created(backend, Ref("session", "a/b"), append=entries("x"))
    assert db.execute("SELECT kind, id, seq FROM entry").fetchall() == [("session", "a/b", 1)]


def test_listening_may_end_at_any_moment(backend: Backend) -> None:
    """Right after it began, and while it is woken: by its own thread."""
    for _ in range(50):
        backend.listen(lambda: None)()
    ended = threading.Event()
    stops: list[object] = []

    def end() -> None:
        if stops and not ended.is_set():
            stops[0]()  # type: ignore[operator]
            ended.set()

    stops.append(backend.listen(end))
    other = open_backend_like(backend)
    try:
        created(other)
        assert eventually(ended.is_set)
    finally:
        other.close()


def open_backend_like(backend: Backend) -> Backend:
    """Another opening of the same store."""
    return open_backend(f"{backend.info()['path']}?schema={backend.info()['schema']}", text_of)
