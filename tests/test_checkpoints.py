"""Checkpoints: a fork anywhere begins with exactly what was counted there, and reads few events for it."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings, strategies as st

import holdfast
from holdfast import Conflict, Corrupt, Session, Store, aopen, assistant, step, tool_call, usage, user
from holdfast.bundle import read_bundle, write_bundle
from holdfast.copies import copy_session, replay
from holdfast.heads.info import BYTES, EDIT, SUMMARY, Tally, session_ref
from holdfast.history import checkpoints, standings
from holdfast.history.ancestry import stored
from holdfast.history.standings import CHECKPOINT, Standing, checkpoint_ref, mark_of, noting
from holdfast.model import AnyPayload, Edit, Message, Report, Step, Summary
from holdfast.plan import Commit, Entry, Head, Range, Ref, Refused


@contextmanager
def every(distance: int) -> Iterator[None]:
    """So that short histories have checkpoints."""
    with patch.object(standings, "EVERY", distance):
        yield


@pytest.fixture
def close(store: Store) -> Iterator[Store]:
    """A store whose sessions note a checkpoint every eight events."""
    with every(8):
        yield store


def recount(session: Session) -> dict[str, int]:
    """The counters of a session as its events alone give them."""
    counts: dict[str, int] = {}
    for event in session.events(include_hidden=True):
        if not (event.hidden and isinstance(event.payload, Message | Step)):
            for name, count in Tally([event.payload]).add.items():
                counts[name] = counts.get(name, 0) + count
    return {name: count for name, count in counts.items() if count}


def counted(head: Head) -> dict[str, int]:
    return {name: count for name, count in head.counts.items() if count and name != BYTES}


def numbers(store: Store, id: str) -> list[int]:
    """The seqs of a session's checkpoints, those that are about to be written included."""
    store.session("flush").append(user("x"))
    return sorted(one.seq for one in checkpoints.noted(store, store.head(id), None))


class Reads:
    """Counts the entries that a store's backend reads."""

    def __init__(self, store: Store) -> None:
        self.entries = 0
        self._real = store.backend.read
        store.backend.read = self  # type: ignore[method-assign]

    def __call__(self, ref: Ref, **how: object) -> list[Entry]:
        found = self._real(ref, **how)  # type: ignore[arg-type]
        self.entries += len(found)
        return found

    def of(self, session: Session, at: int) -> int:
        """How many a fork reads."""
        before = self.entries
        session.fork(at=at)
        return self.entries - before


# --- Exact ---

PAYLOADS: Sequence[AnyPayload] = (
    user("hello"),
    assistant("", tool_call("c", "t")),
    step("t", is_error=True),
    usage("m", 3, 5, cost=7),
    Report(),
)
ACTIONS = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.sampled_from(
            [
                "append",
                "append",
                "append",
                "many",
                "remove_last",
                "rewind",
                "undo",
                "clear",
                "compact",
                "copied",
                "fork",
            ]
        ),
        st.integers(0, 9),
    ),
    min_size=4,
    max_size=24,
)


def act(session: Session, action: str, number: int) -> None:
    last = session.info().last
    if action == "append":
        session.append(PAYLOADS[number % len(PAYLOADS)])
    elif action == "many":
        session.append(*(PAYLOADS[(number + index) % len(PAYLOADS)] for index in range(number + 1)))
    elif action == "rewind":
        session.rewind(to=last * number // 9)
    elif action == "compact" and last:
        session.compact("what was said", upto=last)
    elif action == "copied":  # events of other sessions, whose edits and summaries are none of this one's
        session.append(Edit(action="rewind", ranges=((1, 1),), counts={"messages": -1}), Summary(content="s", end=1))
    elif action in ("remove_last", "undo", "clear"):
        getattr(session, action)()


def agree(store: Store, session: Session) -> None:
    """A fork at every event is what the events up to there give."""
    edits = {e.seq for e in session.events(include_hidden=True, types="edit")}
    real = {0}
    seq = int(store.head(session.id).tags.get(EDIT, "0"))
    while seq:
        real.add(seq)
        seq = next(
            e.payload.previous for e in session.events(after=seq - 1, before=seq + 1) if isinstance(e.payload, Edit)
        )
    assert real - {0} <= edits
    summaries = [e.seq for e in session.events(include_hidden=True, types="summary")]
    for at in range(session.info().last + 1):
        head = store.head(session.fork(at=at).id)
        assert counted(head) == recount(Session(store, head)), at
        assert int(head.tags.get(EDIT, "0")) == max(seq for seq in real if seq <= at)
        assert head.tags.get(SUMMARY) in (None, str(max((seq for seq in summaries if seq <= at), default=0)))


@pytest.mark.parametrize("engine", ["memory", "file", "sqlite"])
@settings(max_examples=settings.default.max_examples // 4)  # each makes some hundred forks
@given(actions=ACTIONS, distance=st.integers(2, 5))
def test_a_fork_at_every_event_of_any_history_counts_what_is_there(
    engine: str, actions: list[tuple[int, str, int]], distance: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, every(distance):
        urls = {"memory": "memory://", "file": f"file://{folder}/s", "sqlite": f"sqlite://{folder}/s.db"}
        with holdfast.open(f"{urls[engine]}{'' if engine == 'memory' else '?durability=process'}") as store:
            made = [store.create("s")]
            for which, action, number in actions:
                session = made[which % len(made)]
                if action == "fork":
                    made.append(session.fork(at=session.info().last * number // 9))
                else:
                    act(session, action, number)
            for session in made:
                agree(store, session)
            assert store.check().ok


def test_what_was_hidden_without_an_edit_as_0_1_did_counts_at_no_event(close: Store) -> None:
    session = close.create("s")
    with every(10**9):
        for _ in range(30):
            session.append(user("x"))
        hide = Commit(ref=session_ref("s"), void=[Range(5, 5), Range(20, 20)], add={"messages": -2})
        assert isinstance(close.backend.commit([hide])[0], Head)
    session.append(*[user("y")] * 3)
    session.remove_last()
    for at in (4, 5, 7, 8, 9, 20, 21, 33):
        head = close.head(session.fork(at=at).id)
        assert head.counts["messages"] == len(list(Session(close, head).events(types="message")))


def test_a_log_that_was_trimmed_is_counted_from_where_it_begins(close: Store) -> None:
    session = close.create("s")
    for _ in range(40):
        session.append(user("x"))
    assert isinstance(close.backend.commit([Commit(ref=session_ref("s"), trim=21)])[0], Head)
    for at in range(21, 41):
        assert close.head(session.fork(at=at).id).counts["messages"] == at


# --- Bounded ---


def test_a_fork_anywhere_in_a_long_session_reads_few_entries(store: Store) -> None:
    session = store.create("s")
    for number in range(700):
        session.append(*[user(f"{number}")] * (1 + number % 5), usage("m", 1))
        if number % 50 == 7:
            session.remove_last()
    reads, last = Reads(store), session.info().last
    assert last > 2500
    taken = [reads.of(session, at) for at in range(0, last, 97)]
    # Half the distance and a batch, the checkpoints around, and the edits near it; or, where the removal of what is
    # hidden is far away, as much once more as there is between the two checkpoints.
    assert sorted(taken)[len(taken) * 3 // 4] <= standings.EVERY // 2 + 12
    assert max(taken) <= 2 * standings.EVERY
    child = session.fork(at=1500)
    child.append(*[user("y")] * 10)
    assert reads.of(child, 700) <= standings.EVERY // 2 + 12
    assert reads.of(child, 1505) <= standings.EVERY // 2 + 12


def test_removals_that_came_later_are_not_read(store: Store) -> None:
    session = store.create("s")
    for number in range(300):
        session.append(user(f"{number}"))
        if number % 3 == 0:
            session.remove_last()
    for _ in range(100):
        session.remove_last()
    for _ in range(200):
        session.append(user("z"))
    reads = Reads(store)
    for at in (150, 190, 250, 333):
        assert reads.of(session, at) <= 4 * standings.EVERY


def test_what_no_checkpoint_tells_is_read_once(close: Store) -> None:
    with every(10**9), holdfast.open("memory://") as old:
        said = old.create("s")
        for _ in range(200):
            said.append(user("x"))
        with every(8):
            copy_session(old, close, "s")
    assert CHECKPOINT not in close.backend.kinds()
    session = close.session("s")
    reads = Reads(close)
    assert reads.of(session, 150) >= 50
    assert reads.of(session, 150) <= 10
    assert reads.of(session, 171) <= 10
    assert reads.of(session, 60) >= 60
    assert reads.of(session, 33) <= 10
    assert close.check().ok


def test_an_append_pays_for_no_transaction_of_its_own(close: Store) -> None:
    calls: list[int] = []
    commit = close.backend.commit

    def counting(batch: Sequence[Commit]) -> list[Head | Refused]:
        calls.append(len(batch))
        return commit(batch)

    session = close.create("s")
    close.backend.commit = counting  # type: ignore[method-assign]
    for _ in range(32):
        session.append(user("x"))
    assert len(calls) == 32
    assert sum(size > 1 for size in calls) == 3  # the fourth goes with what is written next


# --- Derived ---


def test_the_last_checkpoint_is_written_when_the_store_is_closed(url: str) -> None:
    if url.startswith("memory"):
        return
    with every(8):
        with holdfast.open(url) as store:
            store.create("s").append(*[user("x")] * 9)
        with holdfast.open(url) as store:
            assert [one.seq for one in checkpoints.noted(store, store.head("s"), None)] == [9]


def test_a_checkpoint_that_says_something_wrong_is_named(close: Store) -> None:
    session = close.create("s")
    for _ in range(20):
        session.append(user("x"))
    assert numbers(close, "s") == [8, 16]
    assert close.check().ok
    ref = checkpoint_ref(close.head("s"))
    for _ in range(4):
        session.append(user("x"))
    last = close.backend.read(session_ref("s"), after=23)[0]
    wrong = Standing(seq=24, counts={"messages": 3}, summary=0, mark=mark_of(last))
    close.batcher._later.clear()
    for commit in noting(close.head("s"), [wrong]):
        close.backend.commit([commit])
    assert [entry.id for entry in close.backend.read(ref)] == ["1", "2", "3"]
    report = close.check()
    assert [(f.session, f.seq) for f in report.findings] == [("s", 24)]
    assert "checkpoint" in report.findings[0].what
    misled = session.fork(at=23)
    assert misled.info().counts.messages == 2
    misled.delete()
    assert not close.check(sweep=True).ok
    assert close.check().ok
    assert close.head(session.fork(at=23).id).counts["messages"] == 23


def test_a_checkpoint_of_events_that_a_power_failure_took_is_not_believed(tmp_path: Path) -> None:
    """A folder that does not wait for the disk: the log of the checkpoints was written, the session's end was not."""
    with every(8):
        with holdfast.open(f"file://{tmp_path}/s?durability=process") as store:
            session = store.create("s")
            for number in range(25):
                session.append(user(f"{number}"), usage("m", 1))
        log = tmp_path / "s" / "logs" / "session" / "s.jsonl"
        log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:10]))
        for index in (tmp_path / "s").glob("index.db*"):
            index.unlink()  # as it is rebuilt after such a failure
        with holdfast.open(f"file://{tmp_path}/s?durability=process") as store:
            session = store.session("s")
            assert session.last < 20
            for number in range(40):
                session.append(user(f"anew {number}"))
            for at in range(session.last + 1):
                fork = session.fork(at=at)
                assert counted(store.head(fork.id)) == recount(fork), at
            assert store.check().ok  # as nobody is misled, nothing is wrong


def test_a_checkpoint_that_can_not_be_read_is_done_without(close: Store) -> None:
    session = close.create("s")
    for _ in range(15):
        session.append(user("x"))
    close.batcher._later.clear()
    ref = checkpoint_ref(close.head("s"))
    for body in (b"no json", b'{"seq":"x"}', b'{"seq":99,"counts":{}}'):
        id = str(len(close.backend.read(ref)) + 1)
        close.backend.commit([Commit(ref=ref, if_rev=0), Commit(ref=ref, append=[Entry(id, 0, body)])])
    for at in range(16):
        assert close.head(session.fork(at=at).id).counts.get("messages", 0) == at


@pytest.mark.parametrize("what", ["entry", "head"])
def test_damage_to_checkpoints_fails_no_append_and_no_fork_and_is_named(tmp_path: Path, what: str) -> None:
    path = tmp_path / "s.db"
    with every(8):
        with holdfast.open(f"sqlite://{path}") as store:
            session = store.create("s")
            for _ in range(30):
                session.append(user("x"))
        with sqlite3.connect(path) as db:
            sql = "UPDATE entry SET at = 5 WHERE head = (SELECT n FROM head WHERE kind = 'checkpoint') AND seq = 2"
            db.execute(sql if what == "entry" else "UPDATE head SET at = 5 WHERE kind = 'checkpoint'")
        db.close()
        with holdfast.open(f"sqlite://{path}") as store:
            session = store.session("s")
            for at in range(31):
                assert store.head(session.fork(at=at).id).counts.get("messages", 0) == at
            for _ in range(30):
                session.append(user("x"))
            assert session.last == 60
            assert any("checkpoint" in finding.what for finding in store.check().findings)
            store.delete(session.fork().id)


# --- Gone with the session ---


def gone(store: Store, ref: Ref) -> bool:
    head = store.backend.get([ref])[0]
    return head is not None and head.dead and not store.backend.read(ref)


def test_a_deletion_takes_the_checkpoints_along_and_a_late_writer_brings_none_back(close: Store) -> None:
    session = close.create("s")
    session.append(*[user("x")] * 9)
    head = close.head("s")
    close.delete("s")
    assert gone(close, checkpoint_ref(head))  # though none was written yet
    close.batcher.later(noting(head, [standings.standing_of(head)]))
    again = close.create("s")
    assert gone(close, checkpoint_ref(head))
    again.append(*[user("y")] * 9)
    assert numbers(close, "s") == [18]
    assert close.head(again.fork(at=12).id).counts["messages"] == 3
    assert close.check().ok


def test_a_purge_takes_the_checkpoints_along(close: Store) -> None:
    session = close.create("s")
    session.append(*[user("x")] * 9)
    assert numbers(close, "s") == [9]
    ref = checkpoint_ref(close.head("s"))
    close.trash.put("s")
    assert not gone(close, ref)
    assert close.trash.purge("s").left == ""
    assert gone(close, ref)


def test_checkpoints_that_an_interrupted_deletion_left_are_told_and_swept(close: Store) -> None:
    session = close.create("s")
    session.append(*[user("x")] * 9)
    assert numbers(close, "s") == [9]
    ref = checkpoint_ref(close.head("s"))
    close.backend.commit([Commit(ref=session_ref("s"), delete=True)])
    report = close.check()
    assert report.ok
    assert [finding.session for finding in report.unfinished] == ["s"]
    assert close.check(sweep=True).swept is not None
    assert gone(close, ref)
    assert close.check().unfinished == ()


def test_a_damaged_session_is_deleted_with_its_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with every(8):
        with holdfast.open(f"sqlite://{path}") as store:
            store.create("s").append(*[user("x")] * 9)
            ref = checkpoint_ref(store.head("s"))
        with sqlite3.connect(path) as db:
            db.execute("UPDATE head SET at = 5 WHERE kind = 'session'")
        db.close()
        with holdfast.open(f"sqlite://{path}") as store:
            with pytest.raises(Corrupt):
                store.head("s")
            store.delete("s")
            assert gone(store, ref)


# --- Nobody else's business ---


def test_checkpoints_are_in_no_list_search_copy_or_bundle(close: Store) -> None:
    session = close.create("s")
    for _ in range(20):
        session.append(user("x"))
    numbers(close, "s")
    assert {info.id for info in close.sessions()} == {"s", "flush"}
    assert list(close.search("messages OR summary OR checkpoint")) == []
    with holdfast.open("memory://") as target:
        assert [done.events for done in read_bundle(target, write_bundle(close, ["s"]))] == [20]
        assert CHECKPOINT not in target.backend.kinds()
        copy_session(close, target, "s")
        assert CHECKPOINT not in target.backend.kinds()


def test_a_view_of_one_user_notes_and_finds_her_checkpoints(close: Store) -> None:
    hers = close.for_user("ann")
    session = hers.create("s")
    for _ in range(20):
        session.append(user("x"))
    hers.create("other").append(user("x"))
    ref = checkpoint_ref(close.head("s"))
    head = close.backend.get([ref])[0]
    assert head is not None
    assert head.tags == {"session": "s", "user": "ann"}
    for store in (hers, close):
        found = store.session("s")
        assert [store.head(found.fork(at=at).id).counts["messages"] for at in (7, 8, 9, 16)] == [7, 8, 9, 16]
    with pytest.raises(holdfast.Denied):
        close.for_user("bob").backend.read(ref)
    for info in list(hers.sessions(limit=100)):
        if info.id != "s":
            hers.delete(info.id)
    for info in list(close.sessions(limit=100)):
        if info.parent == "s":
            close.delete(info.id)
    hers.delete("s")
    assert gone(close, ref)


def test_tasks_note_checkpoints_too(url: str) -> None:
    async def work() -> None:
        async with aopen(url) as store:
            session = await store.create("s")
            await asyncio.gather(*(session.append(user(f"{n}")) for n in range(50)))
            await session.append(user("x"))
            found = [one.seq for one in checkpoints.noted(store.sync, store.sync.head("s"), None)]
            assert found == [8, 16, 24, 32, 40, 48]
            fork = await session.fork(at=21)
            assert (await fork.info()).counts.messages == 21

    with every(8):
        asyncio.run(work())


def test_a_summary_that_was_copied_from_another_log_is_not_taken_for_one_of_this(store: Store) -> None:
    source = store.session("source")
    source.append(*(user(str(n)) for n in range(20)))
    source.compact("first", upto=10)
    source.append(user("more"))
    source.compact("second", upto=15)
    copied = list(source.events(types="summary"))[-1]
    session = store.session("s")
    session.append(*(user(str(n)) for n in range(50)))
    session.compact("of s", upto=40)
    session.append(*(user(str(n)) for n in range(74)))
    session.append(copied)
    session.append(*(user(str(n)) for n in range(14)))
    for at in (110, 125):
        fork = session.fork(at=at)
        assert fork.context().summary == 51
    assert store.check().ok


def test_damage_that_nobody_has_to_count_keeps_no_fork_from_being_made(tmp_path: Path) -> None:
    with holdfast.open(f"sqlite://{tmp_path}/s.db") as store:
        session = store.session("s")
        for number in range(200):
            session.append(user(str(number)))
        session.rewind(to=100)
    with closing(sqlite3.connect(tmp_path / "s.db")) as db:
        assert db.execute("UPDATE entry SET body = x'00' WHERE seq = 125").rowcount == 1
        db.commit()
    with holdfast.open(f"sqlite://{tmp_path}/s.db") as store:
        session = store.session("s")
        assert session.fork(at=126).info().counts.messages == 126
        with pytest.raises(Corrupt):
            list(session.events(include_hidden=True))


def test_a_copy_that_is_not_finished_is_no_source_of_counters(store: Store) -> None:
    with holdfast.open("memory://") as source:
        session = source.session("s")
        for _ in range(30):
            session.append(*(user("m") for _ in range(50)))
        head = source.head("s")
        with pytest.raises(Corrupt, match="missing"):
            replay(store, head, islice(stored(source, head), 1200))
        assert 0 < store.head("s").last < 1500
        for at in (900, store.head("s").last):
            with pytest.raises(Conflict, match="repeat the copy"):
                store.session("s").fork(at=at)
        store.session("other").append(user("x"))  # what was noted would be written with it
        copy_session(source, store, "s")
        for at in (900, 890, 700, 1100, 1500):
            assert store.session("s").fork(at=at).info().counts.messages == at
        assert store.check().ok
