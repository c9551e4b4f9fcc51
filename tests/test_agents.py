"""Agent records: what is put away and why, who is spared, and that it can be brought back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast import Invalid, Store, Unavailable
from holdfast.documents.docheads import digests, doc_ref
from holdfast.documents.documents import Documents

HOUR = 3600.0


def record(store: Store, number: int, status: Any = "Completed", hours: float = 0, **more: Any) -> str:
    """A record as oxios writes it, of so many hours ago."""
    made = datetime.now(UTC) - timedelta(hours=hours)
    id = f"agents/00000000-0000-4000-8000-{number:012}.json"
    fields = {"id": id[7:-5], "name": "a", "status": status, "created_at": made.isoformat().replace("+00:00", "Z")}
    store.documents.put(id, {**fields, **more})
    return id


def ids(items: Any) -> list[int]:
    return [int(item.document.name[-12:]) for item in items]


def left(store: Store) -> list[int]:
    return sorted(int(info.name[-12:]) for info in store.documents.list("agents", limit=1000))


def test_a_plan_changes_nothing_and_says_what_and_why(store: Store) -> None:
    for number in range(5):
        record(store, number, hours=number)
    plan = store.documents.prune_agents(max_age=2.5 * HOUR)
    assert ids(plan.items) == [4, 3]  # the oldest first
    assert "older than 9,000.0 seconds" in plan.items[0].why
    assert plan.size == sum(item.document.size for item in plan.items) > 0
    assert left(store) == [0, 1, 2, 3, 4]
    done = plan.apply()
    assert len(done.moved) == 2
    assert done.skipped == {}
    assert left(store) == [0, 1, 2]
    assert store.documents.prune_agents(max_age=2.5 * HOUR).items == ()


def test_the_newest_are_kept_by_count(store: Store) -> None:
    for number in range(6):
        record(store, number, hours=number)
    plan = store.documents.prune_agents(max_count=4)
    assert ids(plan.items) == [5, 4]
    assert "6 records, 4 are kept" in plan.items[0].why
    assert ids(store.documents.prune_agents(max_count=0).items) == [5, 4, 3, 2, 1, 0]
    assert store.documents.prune_agents(max_count=2**70).items == ()
    assert store.documents.prune_agents().items == ()  # nothing was asked for


def test_who_may_run_is_spared_whatever_its_age(store: Store) -> None:
    for number, status in enumerate(["Running", "Starting", "Idle", "Failed", "Stopped", "running", "of another kind"]):
        record(store, number, status, hours=100 + number)
    plan = store.documents.prune_agents(max_age=HOUR, max_count=0)
    assert ids(plan.items) == [4, 3]
    assert {item.status for item in plan.spared} == {"Running", "Starting", "Idle", "running", "of another kind"}
    assert all(item.why.startswith(f"it is {item.status}, though it is older") for item in plan.spared)
    plan.apply()
    assert left(store) == [0, 1, 2, 5, 6]


def test_a_batch_bounds_all_of_it(store: Store) -> None:
    for number in range(7):
        record(store, number, hours=number + 1)
    plan = store.documents.prune_agents(max_age=60, batch=3)
    assert ids(plan.items) == [6, 5, 4]
    assert {item.why for item in plan.spared} == {"the batch of 3 is full; plan again"}
    assert store.documents.prune_agents(max_age=60, batch=0).items == ()
    assert sum(len(store.documents.prune_agents(max_age=60, batch=3).apply().moved) for _ in range(4)) == 7


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), -(2**63)])
@pytest.mark.parametrize("limit", ["max_age", "max_count", "batch"])
def test_limits_that_are_none(store: Store, limit: str, value: Any) -> None:
    record(store, 1)
    with pytest.raises(Invalid, match=limit):
        store.documents.prune_agents(**{limit: value})
    assert left(store) == [1]


def test_extreme_ages(store: Store) -> None:
    record(store, 1, hours=1)
    assert store.documents.prune_agents(max_age=2**63).items == ()
    assert store.documents.prune_agents(max_age=1e300).items == ()
    assert ids(store.documents.prune_agents(max_age=0).items) == [1]


def test_what_changed_since_the_plan_is_skipped_and_said_so(store: Store) -> None:
    first, second, third = (record(store, number, hours=9) for number in range(3))
    plan = store.documents.prune_agents(max_age=HOUR)
    record(store, 0, "Running", hours=9)  # it was resumed
    store.documents.delete(second)
    done = plan.apply()
    assert done.moved == (third,)
    assert set(done.skipped) == {first, second}
    assert "revision 2, not 1" in done.skipped[first]
    assert left(store) == [0]
    assert set(plan.apply().skipped) == {first, second, third}


def test_it_can_be_undone(store: Store) -> None:
    before = {record(store, number, hours=9, extra=2**80): number for number in range(3)}
    sources = {id: store.documents.get(id).source for id in before}  # type: ignore[union-attr]  # they are there
    infos = {id: store.documents.info(id) for id in before}
    plan = store.documents.prune_agents(max_age=HOUR)
    plan.apply()
    assert left(store) == []
    assert store.documents.categories() == {"trash/agents": 3}
    again = next(iter(before))
    store.documents.put(again, {"status": "Running"})
    done = plan.undo()
    assert set(done.moved) == set(before) - {again}
    assert set(done.skipped) == {again}
    for id in done.moved:
        found, was = store.documents.get(id), infos[id]
        assert found is not None
        assert was is not None
        assert (found.source, found.created_at, found.updated_at) == (sources[id], was.created_at, was.updated_at)
    assert store.documents.get(again).content == {"status": "Running"}  # type: ignore[union-attr]  # it is there


@pytest.mark.parametrize("content", [None, [], "x", {}, {"status": 7}, {"created_at": "no time"}, {"created_at": 7}])
def test_what_is_no_record_goes_by_its_own_time(store: Store, content: Any) -> None:
    store.documents.put("agents/odd.json", content)
    store.documents.put("agents/notes.md", "no record")
    store.documents.put("agents/below/x.json", {"status": "Completed", "created_at": "2001-01-01T00:00:00Z"})
    assert store.documents.prune_agents(max_age=HOUR).items == ()
    plan = store.documents.prune_agents(max_count=0)
    assert [item.document.id for item in plan.items] == ["agents/odd.json"]
    assert plan.items[0].created_at == plan.items[0].document.created_at


def test_a_record_that_cant_be_read_is_spared(store: Store) -> None:
    store.documents.put("agents/x.json", {"status": "Completed", "pad": "x" * 3_000_000})
    head = store.backend.get([doc_ref(None, "agents/x.json")])[0]
    assert head is not None
    store.backend.blobs.delete(digests(store, head)[-1])
    plan = store.documents.prune_agents(max_count=0)
    assert plan.items == ()
    assert "can't be read" in plan.spared[0].why


def test_a_store_that_fails_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    record(store, 1, hours=9)
    plan = store.documents.prune_agents(max_age=HOUR)

    def fail(*_: Any, **__: Any) -> Any:
        raise Unavailable("busy")

    monkeypatch.setattr(Documents, "rename", fail)
    with pytest.raises(Unavailable):
        plan.apply()


def test_each_user_prunes_her_own(store: Store) -> None:
    alice = store.for_user("alice")
    for each in (store, alice):
        record(each, 1, hours=9)
    assert len(alice.documents.prune_agents(max_age=HOUR).apply().moved) == 1
    assert (left(store), left(alice)) == ([1], [])
