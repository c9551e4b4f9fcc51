"""Prunes: a plan changes nothing, an application moves only what is as it was seen, and says what really happened."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

import holdfast
from holdfast import (
    Conflict,
    Corrupt,
    Exists,
    Policy,
    Store,
    Trashed,
    Unavailable,
    user,
)
from holdfast.bundle import read_bundle, verify_bundle
from holdfast.errors import NotFound, Uncertain
from holdfast.heads.info import BYTES, SESSION, session_ref
from holdfast.plan import TRASHED, Commit, Head, Ref, Refused
from holdfast.retention import archives
from holdfast.retention.prunes import COOLDOWN, PRUNE
from holdfast.retention.putting import PRUNED

ALL = Policy(max_age=0)


def fill(store: Store, count: int = 6) -> list[str]:
    ids = [f"s{number}" for number in range(count)]
    for id in ids:
        store.session(id).append(user(f"words of {id}"))
    return ids


def state(store: Store) -> list[Head | None]:
    """All that is said about any session or prune."""
    return [
        *store.backend.scan(SESSION), *store.backend.scan(SESSION, trashed=True), *store.backend.scan(PRUNE),
        *store.backend.get([Ref(COOLDOWN, "prune")]),
    ]  # fmt: skip


def listed(store: Store) -> list[str]:
    return [info.id for info in store.sessions(limit=1000)]


def in_trash(store: Store) -> list[str]:
    return [one.session.id for one in store.trash.list(limit=1000)]


# --- The plan ---


def test_a_plan_changes_nothing_and_tells_what_why_and_how_much(store: Store) -> None:
    fill(store)
    before = state(store)
    plan = store.prune(Policy(max_sessions=4))
    assert state(store) == before
    assert [(one.session, one.rev) for one in plan.chosen] == [("s0", 2), ("s1", 2)]
    assert plan.chosen[0].why == "it is number 6 by last activity; max_sessions is 4"
    assert plan.chosen[0].updated_at == store.session("s0").info().updated_at
    (event,) = store.session("s0").events()
    assert [one.bytes for one in plan.chosen] == [len(event.raw)] * 2
    assert (plan.bytes, plan.sessions, plan.matched) == (2 * len(event.raw), 6, 6)
    assert "2 of 6 sessions" in repr(plan)


def test_the_bytes_of_a_session_are_those_of_its_own_events(store: Store) -> None:
    session = store.session("s")
    session.append(user("one"), user("two"))
    session.append(user("three"))
    session.remove_last()
    child = session.fork(at=2, id="child")
    child.append(user("four"))
    sizes = {one.session: one.bytes for one in store.prune(ALL).chosen}
    own = [event for event in child.events() if event.seq > 2]
    assert sizes["child"] == sum(len(event.raw) for event in own)
    said = [event for event in session.events(include_hidden=True) if event.type == "message"]
    assert store.backend.get([session_ref("s")])[0].counts[BYTES] == sum(len(event.raw) for event in said)  # type: ignore[union-attr]


def test_a_session_whose_head_does_not_know_its_bytes_is_measured(store: Store) -> None:
    fill(store, 1)
    # As 0.1 left it: without the counter.
    store.backend.commit([Commit(ref=session_ref("old"), if_rev=0, at=1, tags={"created": "1", "state": "idle"})])
    fresh = store.session("s0")
    entries = store.backend.read(session_ref("s0"))
    store.backend.commit([Commit(ref=session_ref("old"), append=[msgspec.structs.replace(e, id="") for e in entries])])
    for policy in (ALL, Policy(max_bytes=0)):
        sizes = {one.session: one.bytes for one in store.prune(policy).chosen}
        assert sizes["old"] == sum(len(event.raw) for event in fresh.events())


@pytest.mark.parametrize(
    "policy",
    [
        Policy(max_sessions=5),
        Policy(max_bytes=0),
        Policy(max_age=0),
        Policy(max_sessions=5, max_bytes=100, max_age=3600, keep_labels=("x",), keep_named=False),
    ],
    ids=["max_sessions", "max_bytes", "max_age", "all"],
)
def test_a_plan_reads_no_event(store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, 20)
    edited = store.session("s0")
    edited.artifacts.put("a", "x" * 100_000)
    edited.append(user("y" * 100_000), user("gone"))
    edited.remove_last()
    edited.fork(id="child").append(user("of the child"))
    with store.session("s1").turn():
        monkeypatch.setattr(store.backend, "read", None)
        plan = store.prune(policy)
    assert (plan.sessions, plan.matched, plan.damaged) == (21, 21, ())
    assert len(plan.chosen) >= 15
    assert {one.session for one in plan.spared} <= {"s0", "s1"}
    monkeypatch.undo()
    for one in plan.chosen:  # what was told without reading is what reading tells
        own = [event.raw for event in store.session(one.session).events() if event.seq > store.head(one.session).base]
        assert one.bytes == sum(map(len, own))


def test_only_what_matches_is_counted_and_taken(store: Store) -> None:
    for number in range(4):
        for name in ("ann", "bob"):
            store.create(f"{name}{number}", user=name, labels=["x"] if number % 2 else [], agent=f"a{number}")
    plan = store.prune(Policy(max_sessions=1, user="ann"))
    assert [one.session for one in plan.chosen] == ["ann0", "ann1", "ann2"]
    assert (plan.sessions, plan.matched) == (8, 4)
    assert [one.session for one in store.prune(Policy(max_age=0, label="x", user="bob")).chosen] == ["bob1", "bob3"]
    assert [one.session for one in store.prune(Policy(max_age=0, agent="a2")).chosen] == ["ann2", "bob2"]
    assert store.prune(Policy(max_age=0, state="error")).chosen == ()
    store.session("ann3").set_state("error")
    assert [one.session for one in store.prune(Policy(max_age=0, state="error")).chosen] == ["ann3"]


def test_what_somebody_needs_is_spared_and_the_plan_says_why(store: Store) -> None:
    fill(store, 8)
    store.session("s1").update(name="keep me")
    store.session("s2").update(labels=["starred"])
    store.session("s3").update(labels=["legal"])
    store.session("s4").set_state("running", turn="t")
    store.session("s5").fork(id="child")
    policy = Policy(max_age=0, keep_labels=("legal", "x"))
    with store.session("s6").turn():
        plan = store.prune(policy)
        assert {one.session: one.why for one in plan.spared} == {
            "s1": "it has a name, 'keep me'",
            "s2": "it is starred",
            "s3": "it carries the label 'legal'",
            "s4": "a turn holds it",
            "s5": "its fork 'child' reads its events",
            "s6": "a turn holds it",
        }
        assert {one.session for one in plan.chosen} == {"s0", "s7", "child"}
        bare = store.prune(Policy(max_age=0, keep_named=False, keep_starred=False))
        assert {one.session for one in bare.spared} == {"s4", "s5", "s6"}


def test_a_damaged_head_is_named_and_left_alone(tmp_path: Path) -> None:
    import sqlite3

    url = f"sqlite://{tmp_path}/store.db"
    with holdfast.open(url) as store:
        fill(store, 3)
    with sqlite3.connect(tmp_path / "store.db") as db:
        db.execute("UPDATE head SET rev = 7 WHERE id = 's1'")
    db.close()
    with holdfast.open(url) as store:
        plan = store.prune(ALL)
        assert plan.damaged == ("s1",)
        assert plan.apply().moved == ("s0", "s2")
        assert store.get("s1", damaged="keep") is not None


# --- The application ---


def test_an_application_moves_what_was_planned_and_tells_it(store: Store) -> None:
    fill(store)
    plan = store.prune(Policy(max_sessions=2, batch=3))
    done = plan.apply()
    assert done.moved == ("s0", "s1", "s2", "s3")
    assert (done.bytes, done.skipped, done.failed, done.archive, done.wait) == (plan.bytes, (), (), None, 0)
    assert listed(store) == ["s5", "s4"]
    assert in_trash(store) == ["s3", "s2", "s1", "s0"]
    assert store.check().ok


def test_what_was_touched_since_the_plan_is_skipped_and_said_so(store: Store) -> None:
    fill(store, 8)
    plan = store.prune(ALL)
    store.session("s1").append(user("more"))
    store.session("s2").update(title="another")
    turn = store.session("s3").turn()
    turn.take()
    store.session("s4").fork(id="child")
    store.delete("s5")
    store.trash.put("s6")
    store.delete("s7")
    store.create("s7")
    done = plan.apply()
    assert done.moved == ("s0",)
    assert {one.session: one.why for one in done.skipped} == {
        "s1": "it was touched since",
        "s2": "it was touched since",
        "s3": "a turn holds it",
        "s4": "it was touched since",
        "s5": "it was deleted since",
        "s6": "it is in the trash already",
        "s7": "it was touched since",
    }
    assert done.failed == ()
    turn.end()


def test_what_is_touched_between_the_look_and_the_move_is_skipped(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, 4)
    plan, real = store.prune(ALL), store.batcher.commit_all

    def commit_all(commits: Sequence[Commit]) -> list[Head | Refused | holdfast.HoldfastError]:
        store.session("s1").append(user("just now"))
        store.session("s2").fork(id="child")
        store.delete("s3")
        return real(commits)

    monkeypatch.setattr(store.batcher, "commit_all", commit_all)
    done = plan.apply()
    assert done.moved == ("s0",)
    assert [(one.session, one.why) for one in done.skipped] == [
        ("s1", "it was touched since"),
        ("s2", "it was touched since"),
        ("s3", "session 's3' was deleted; only creating it anew starts it over"),
    ]
    assert [m.text for m in store.session("child").messages()] == ["words of s2"]


def test_a_fork_that_no_page_of_the_plan_met_spares_its_parent(store: Store) -> None:
    fill(store, 2)
    plan = store.prune(ALL)
    child = store.session("s0").fork(id="a")
    head = store.backend.get([session_ref("s0")])[0]
    assert head is not None
    late = [msgspec.structs.replace(one, rev=head.rev) if one.session == "s0" else one for one in plan.chosen]
    plan.chosen = tuple(late)  # as if the fork had been made just before its parent was looked at
    done = plan.apply()
    assert done.moved == ("s1",)
    assert [(one.session, one.why) for one in done.skipped] == [("s0", "its fork 'a' reads its events")]
    assert [m.text for m in child.messages()] == ["words of s0"]


def test_a_plan_may_be_applied_again(store: Store) -> None:
    fill(store, 3)
    plan = store.prune(ALL)
    assert len(plan.apply().moved) == 3
    again = plan.apply()
    assert again.moved == ()
    assert {one.why for one in again.skipped} == {"it is in the trash already"}


def test_an_empty_plan_leaves_no_trace(store: Store) -> None:
    fill(store, 2)
    before = state(store)
    assert store.prune(Policy(max_sessions=2, cooldown=60)).apply() == holdfast.Pruned()
    assert state(store) == before


def test_one_that_fails_stops_no_other(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, 5)
    plan, real = store.prune(ALL), store.backend.commit

    def commit(batch: Sequence[Commit]) -> list[Head | Refused]:
        if any(one.ref.id == "s2" and one.tags and TRASHED in one.tags for one in batch):
            raise holdfast.Corrupt("the row of s2 is damaged")
        return real(batch)

    monkeypatch.setattr(store.backend, "commit", commit)
    done = plan.apply()
    assert done.moved == ("s0", "s1", "s3", "s4")
    assert [(one.session, one.why) for one in done.failed] == [("s2", "the row of s2 is damaged")]
    assert (store.prunes()[0].moved, store.prunes()[0].failed, store.prunes()[0].state) == (4, 1, "applied")


def test_a_store_that_fails_has_the_rest_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, 5)
    plan, real = store.prune(Policy(max_age=0, batch=2)), store.backend.commit
    batches = 0

    def commit(batch: Sequence[Commit]) -> list[Head | Refused]:
        nonlocal batches
        if any(one.tags and TRASHED in one.tags for one in batch):
            batches += 1
            if batches == 2:
                raise Unavailable("the disk is full")
        return real(batch)

    monkeypatch.setattr(store.backend, "commit", commit)
    done = plan.apply()
    assert done.moved == ("s0", "s1") == tuple(reversed(in_trash(store)))
    assert [one.session for one in done.failed] == ["s2", "s3", "s4"]
    assert done.stopped == "the disk is full"
    assert store.prunes()[0].state == "applying"
    assert store.prune(ALL).apply().moved == ("s2", "s3", "s4")


def test_an_answer_that_was_lost_is_looked_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, 3)
    plan, real = store.prune(Policy(max_age=0, batch=1)), store.backend.commit

    def commit(batch: Sequence[Commit]) -> list[Head | Refused]:
        moves = batch[0].tags is not None and TRASHED in batch[0].tags
        if moves and batch[0].ref.id == "s2":
            raise Uncertain("nothing came back")
        results = real(batch)
        if moves and batch[0].ref.id == "s1":
            raise Uncertain("the answer was lost")
        return results

    monkeypatch.setattr(store.backend, "commit", commit)
    done = plan.apply()
    assert done.moved == ("s0", "s1")
    assert [(one.session, one.why) for one in done.failed] == [("s2", "nothing came back")]
    assert sorted(in_trash(store)) == ["s0", "s1"]


def test_two_applications_at_once_move_each_session_once(store: Store) -> None:
    fill(store, 40)
    plans = [store.prune(Policy(max_age=0, batch=3)) for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(lambda plan: plan.apply(), plans))
    moved = [id for one in done for id in one.moved]
    assert sorted(moved) == sorted(f"s{n}" for n in range(40))
    assert all(len(one.moved) + len(one.skipped) == 40 and not one.failed for one in done)
    for one in done:
        assert {t.session.id for t in store.trash.list(prune=str(one.prune), limit=100)} == set(one.moved)


# --- The history, and undo ---


def test_the_history_tells_of_each_prune_and_an_undo_brings_all_of_it_back(store: Store) -> None:
    fill(store)
    before = {info.id: info for info in store.sessions()}
    first = store.prune(Policy(max_sessions=4)).apply()
    second = store.prune(Policy(max_sessions=2, user=None)).apply()
    assert [(p.id, p.state, p.moved) for p in store.prunes()] == [
        (second.prune, "applied", 2),
        (first.prune, "applied", 2),
    ]
    assert store.prunes(limit=1)[0].policy["max_sessions"] == 2
    assert store.prunes()[1].bytes == first.bytes > 0
    back = store.trash.undo(str(first.prune))
    assert (set(back.restored), back.failed) == ({"s0", "s1"}, ())
    assert set(listed(store)) == {"s0", "s1", "s4", "s5"}
    undone = store.prunes()[1]
    assert (undone.state, undone.moved) == ("undone", 2)
    assert undone.undone_at is not None
    assert store.trash.undo(str(first.prune)).restored == ()
    for id in ("s0", "s1"):
        info = store.session(id).info()
        old = before[id]
        assert msgspec.structs.replace(info, last=old.last, rev=old.rev) == old
    with pytest.raises(NotFound, match="no prune 'nothing'"):
        store.trash.undo("nothing")


def test_an_undo_tells_what_was_purged_meanwhile_by_leaving_it_out(store: Store) -> None:
    fill(store, 3)
    done = store.prune(ALL).apply()
    store.trash.purge("s1")
    assert set(store.trash.undo(str(done.prune)).restored) == {"s0", "s2"}


# --- The cooldown ---


def test_a_cooldown_holds_for_every_opening_of_the_store(url: str) -> None:
    policy = Policy(max_age=0, cooldown=3600)
    with holdfast.open(url) as store:
        fill(store, 2)
        assert len(store.prune(policy).apply().moved) == 2
        if url.startswith("memory"):
            _waits(store, policy)
            return
    with holdfast.open(url) as store:
        _waits(store, policy)


def _waits(store: Store, policy: Policy) -> None:
    store.session("new").append(user("x"))
    held = store.prune(policy).apply()
    assert (held.prune, held.moved) == (None, ())
    assert 3500 < held.wait <= 3600
    assert listed(store) == ["new"]
    assert store.prune(Policy(max_age=0)).apply().moved == ("new",)  # this one has none


def test_a_prune_under_way_keeps_others_with_a_cooldown_off(store: Store) -> None:
    fill(store, 2)
    policy = Policy(max_age=0, cooldown=1)
    inside, go_on = threading.Event(), threading.Event()
    plan, real = store.prune(policy), store.batcher.commit_all

    def slow(commits: Sequence[Commit]) -> list[Head | Refused | holdfast.HoldfastError]:
        inside.set()
        assert go_on.wait(20)
        return real(commits)

    store.batcher.commit_all = slow  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(plan.apply)
        assert inside.wait(20)
        with pytest.raises(Conflict, match="is under way"):
            plan.apply()
        go_on.set()
        assert len(running.result().moved) == 2


def test_a_clock_that_was_set_back_does_not_lengthen_a_cooldown(store: Store) -> None:
    fill(store, 1)
    policy = Policy(max_age=0, cooldown=3600)
    store.backend.commit([Commit(ref=Ref(COOLDOWN, "prune"), if_rev=0, tags={"done": str(2**52)})])
    assert store.prune(policy).apply().moved == ("s0",)


# --- The archive ---


def test_an_archive_is_written_first_and_holds_all_that_is_moved(store: Store, tmp_path: Path) -> None:
    fill(store, 4)
    store.session("s1").fork(id="child").append(user("own words"))
    path = tmp_path / "archive.holdfast"
    done = store.prune(ALL).apply(archive=path)
    assert set(done.moved) == {"s0", "s2", "s3", "child"}
    assert done.archive == store.prunes()[0].archive == str(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == [path.name] or not list(tmp_path.glob("*.tmp"))
    with holdfast.open("memory://") as other, path.open("rb") as file:
        assert {copied.session for copied in read_bundle(other, file)} == set(done.moved)
        assert [m.text for m in other.session("child").messages()] == ["words of s1", "own words"]


def test_a_file_that_is_there_is_not_written_over(store: Store, tmp_path: Path) -> None:
    fill(store, 2)
    path = tmp_path / "archive"
    path.write_text("mine")
    with pytest.raises(Exists):
        store.prune(ALL).apply(archive=path)
    assert path.read_text() == "mine"
    assert in_trash(store) == []
    assert store.prunes() == []


def test_nothing_is_moved_if_the_archive_can_not_be_written(store: Store, tmp_path: Path) -> None:
    fill(store, 2)
    policy = Policy(max_age=0, cooldown=3600)
    with pytest.raises(Unavailable, match="nothing was moved"):
        store.prune(policy).apply(archive=tmp_path / "missing" / "archive")
    assert (in_trash(store), store.prunes()) == ([], [])
    assert len(store.prune(policy).apply(archive=tmp_path / "archive").moved) == 2  # the failure used no cooldown up


@pytest.mark.parametrize("part", [b'"holdfast":1', b'"seq":1', b'"end":'])
def test_what_is_read_back_wrong_is_not_moved(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: bytes
) -> None:
    fill(store, 2)
    real = archives.ended

    def flipped(lines: Iterable[bytes]) -> Iterator[bytes]:
        for line in real(lines):
            yield line.replace(b"s0", b"s1") if part in line else line

    monkeypatch.setattr(archives, "ended", flipped)
    path = tmp_path / "archive"
    if part == b'"holdfast":1':
        with pytest.raises(Corrupt, match="nothing was moved"):
            store.prune(ALL).apply(archive=path)
        assert (listed(store), store.prunes(), path.exists()) == (["s1", "s0"], [], False)
    else:
        done = store.prune(ALL).apply(archive=path)
        assert (done.moved, [one.session for one in done.failed], listed(store)) == (("s1",), ["s0"], ["s0"])
    assert list(tmp_path.glob("*.tmp")) == []


def test_a_bundle_is_verified_session_by_session(store: Store, tmp_path: Path) -> None:
    fill(store, 3)
    path = tmp_path / "archive"
    store.prune(ALL).apply(archive=path)
    lines = path.read_bytes().splitlines(keepends=True)
    assert verify_bundle(lines) == ({"s0", "s1", "s2"}, {})
    whole, faults = verify_bundle([line for n, line in enumerate(lines) if n != 4])
    assert whole == {"s0", "s2"}
    assert set(faults) == {"s1", ""}
    assert "should hold 3 sessions" in faults[""]
    whole, faults = verify_bundle(lines[:-1])
    assert (whole, set(faults)) == ({"s0", "s1", "s2"}, {""})
    assert "its last line is missing" in faults[""]
    whole, faults = verify_bundle(lines[:-2])
    assert whole == {"s0", "s1"}
    assert "ends in the middle" in faults["s2"]


def test_the_tags_of_a_moved_session_say_which_prune_it_was(store: Store) -> None:
    fill(store, 1)
    done = store.prune(ALL).apply()
    head = store.peek("s0")
    assert head is not None
    assert head.tags[PRUNED] == done.prune
    with pytest.raises(Trashed, match="restore it"):
        store.session("s0")
