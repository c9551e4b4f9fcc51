"""The defects of oxios and zeroclaw around retention, each shown not to be here; see docs/RETENTION.md."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import holdfast
from holdfast import Invalid, Policy, Store, Unavailable, user
from holdfast.plan import Commit, Head, Ref, Refused


def fill(store: Store, count: int) -> None:
    for number in range(count):
        store.session(f"s{number}").append(user(f"words {number}"))


def listed(store: Store) -> list[str]:
    return [info.id for info in store.sessions(limit=1000)]


def test_o3_a_limit_on_the_number_takes_just_so_many(store: Store) -> None:
    """A session that appeared twice made a prune by number delete one too many."""
    fill(store, 3)
    store.session("s0").append(user("twice"))
    store.backend.commit([Commit(ref=Ref("doc", "s0"), if_rev=0)])
    assert store.prune(Policy(max_sessions=3)).chosen == ()
    assert store.prune(Policy(max_sessions=2)).apply().moved == ("s1",)
    assert store.prune(Policy(max_sessions=2)).chosen == ()


def test_o8_no_session_goes_because_another_one_was_saved(store: Store) -> None:
    """A prune in the background deleted the session that was just saved."""
    fill(store, 3)
    plan = store.prune(Policy(max_sessions=0))
    store.session("s1").append(user("saved just now"))
    assert "s1" not in plan.apply().moved
    assert listed(store) == ["s1"]


def test_o9_what_was_touched_between_list_and_deletion_stays(store: Store) -> None:
    """It listed, then deleted without another look, running sessions too, and for good."""
    fill(store, 3)
    plan = store.prune(Policy(max_age=0))
    with store.session("s1").turn() as turn:
        turn.append(user("still here"))
        done = plan.apply()
        turn.append(user("and here"))
    assert done.moved == ("s0", "s2")
    assert set(store.trash.undo(str(done.prune)).restored) == {"s0", "s2"}


@pytest.mark.parametrize("number", [2**64 - 1, 2**63 - 1, 2**63, 2**53 + 1])
def test_o10_the_largest_numbers_prune_nothing(store: Store, number: int) -> None:
    """The largest u64 became -1 hours and pruned everything; the largest i64 was a panic."""
    fill(store, 2)
    for policy in (Policy(max_age=number), Policy(max_sessions=number), Policy(max_bytes=number)):
        assert store.prune(policy).apply().moved == ()
    with pytest.raises(Invalid):
        Policy(max_age=-number)
    assert len(listed(store)) == 2


def test_o11_and_z9_what_is_counted_as_pruned_was_pruned(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deletions that did nothing, and such as failed, were counted."""
    fill(store, 3)
    plan = store.prune(Policy(max_age=0))
    store.delete("s0")
    with monkeypatch.context() as patch:
        patch.setattr(store.backend, "commit", _failing_for(store, "s1"))
        done = plan.apply()
    assert done.moved == ("s2",)
    assert [one.session for one in done.skipped] == ["s0"]
    assert [one.session for one in done.failed] == ["s1"]
    assert store.prunes()[0].moved == 1 == len(store.trash.list())


def _failing_for(store: Store, id: str) -> Callable[[Sequence[Commit]], list[Head | Refused]]:
    real = store.backend.commit

    def commit(batch: Sequence[Commit]) -> list[Head | Refused]:
        if any(one.ref.id == id for one in batch):
            raise holdfast.Corrupt("its row is damaged")
        return real(batch)

    return commit


def test_o12_the_session_that_was_chosen_is_the_one_that_goes(store: Store) -> None:
    """An id inside a file that did not fit its name was never pruned, or had another one deleted."""
    ids = ["a/b", "a_b", "A/B", "a..b", "é", "e\u0301", "CON", "../x"]
    for id in ids:
        store.session(id).append(user(id))
    for id in ids:
        assert store.prune(Policy(max_sessions=len(listed(store)) - 1)).apply().moved == (id,)
        assert store.trash.purge(older_than=0).purged == (id,)
        assert store.get(id) is None


def test_o26_one_that_runs_is_spared_by_every_rule_and_batches_hold_for_all(store: Store) -> None:
    """Running agents were pruned by the time of their creation, and the batch size was not for the rule by age."""
    fill(store, 7)
    store.session("s0").set_state("running", turn="t")
    sizes: list[int] = []
    real = store.batcher.commit_all
    store.batcher.commit_all = lambda commits: (sizes.append(len(commits)), real(commits))[1]  # type: ignore[method-assign]
    for policy in (Policy(max_age=0, batch=2), Policy(max_sessions=0, batch=2), Policy(max_bytes=0, batch=2)):
        done = store.prune(policy).apply()
        assert "s0" not in done.moved
        assert len(done.moved) == 6
        store.trash.undo(str(done.prune))
    assert max(sizes) == 2


def test_o26_what_can_not_be_decoded_is_named_and_can_be_deleted(tmp_path: Path) -> None:
    """Entries that could not be decoded were passed over for ever, in silence."""
    with holdfast.open(f"sqlite://{tmp_path}/store.db") as store:
        fill(store, 2)
    with sqlite3.connect(tmp_path / "store.db") as db:
        db.execute("UPDATE head SET body = x'00' WHERE id = 's0'")
    db.close()
    with holdfast.open(f"sqlite://{tmp_path}/store.db") as store:
        assert store.prune(Policy(max_age=0)).damaged == ("s0",)
        store.delete("s0")
        assert store.prune(Policy(max_age=0)).damaged == ()


def test_o27_nothing_is_pruned_by_default(store: Store) -> None:
    """By default all but 100 sessions of 7 days were lost, without a word."""
    for number in range(120):
        store.session(f"s{number}", created_at=1)
    assert store.prune(Policy()).apply().moved == ()
    assert len(listed(store)) == 120
    assert store.prunes() == []


def test_o28_a_failure_does_not_use_the_cooldown_up_and_a_success_does(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The throttle was used up before the prune succeeded, in whole seconds, and by each process for itself."""
    fill(store, 3)
    policy = Policy(max_age=0, cooldown=0.3)
    with monkeypatch.context() as patch:
        patch.setattr(store.backend, "commit", _failing_for(store, "s1"))
        assert len(store.prune(policy).apply().failed) == 1
    real = store.backend.commit

    def full(batch: Sequence[Commit]) -> list[Head | Refused]:
        if any(one.tags and "trashed" in one.tags for one in batch):
            raise Unavailable("the disk is full")
        return real(batch)

    with monkeypatch.context() as patch:
        patch.setattr(store.backend, "commit", full)
        assert store.prune(policy).apply().stopped == "the disk is full"
    assert store.prune(policy).apply().moved == ("s1",)
    store.session("new").append(user("x"))
    held = store.prune(policy).apply()
    assert 0 < held.wait <= 0.3
    time.sleep(held.wait)  # what is tested is that it ends
    assert store.prune(policy).apply().moved == ("new",)


def test_z9_a_running_session_is_not_cleaned_up(store: Store) -> None:
    """The cleanup deleted running sessions."""
    store.session("s", state="running", created_at=1)
    assert store.prune(Policy(max_age=0)).apply().moved == ()
    assert listed(store) == ["s"]
