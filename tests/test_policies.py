"""What a policy chooses, whatever stands in it: a pure choice, and refusals before anything is touched."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, strategies as st

import holdfast
from holdfast import Invalid, Policy, Store, user
from holdfast.retention.policies import Candidate, choose

DAY = 86_400
NOW = 1_800_000_000_000_000
HUGE = (2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30)


def candidates(*ages: float, bytes: int = 10, spared: str = "") -> list[Candidate]:
    """Sessions `s0`, `s1`, … that were active so many days ago."""
    return [Candidate(int(NOW - age * DAY * 1e6), f"s{n}", 1, bytes, spared) for n, age in enumerate(ages)]


def taken(policy: Policy, found: list[Candidate]) -> list[str]:
    return [one.session for one in choose(policy, found, NOW)[0]]


def test_by_default_nothing_is_taken() -> None:
    assert choose(Policy(), candidates(0, 1e3, 1e5), NOW) == ([], [])


def test_the_longest_inactive_come_first_each_with_the_reason() -> None:
    chosen, _ = choose(Policy(max_age=30 * DAY), candidates(1, 400, 31, 30), NOW)
    assert [(one.session, one.why) for one in chosen] == [
        ("s1", "it was not active for 400 days; max_age is 30 days"),
        ("s2", "it was not active for 31 days; max_age is 30 days"),
    ]


def test_each_limit_takes_what_is_beyond_it_and_together_they_take_what_any_takes() -> None:
    found = candidates(1, 2, 3, 4, 5)
    assert taken(Policy(max_sessions=3), found) == ["s4", "s3"]
    assert taken(Policy(max_bytes=20), found) == ["s4", "s3", "s2"]
    assert taken(Policy(max_bytes=29), found) == ["s4", "s3", "s2"]
    assert taken(Policy(max_age=4.5 * DAY), found) == ["s4"]
    assert taken(Policy(max_age=4.5 * DAY, max_sessions=3, max_bytes=40), found) == ["s4", "s3"]


def test_what_is_spared_stays_and_takes_nobodys_place() -> None:
    found = candidates(1, 2, 3)
    found[2:] = [Candidate(found[2].at, "s2", 1, 10, "it is starred")]
    chosen, spared = choose(Policy(max_sessions=1), found, NOW)
    assert [one.session for one in chosen] == ["s1"]
    assert [(one.session, one.why) for one in spared] == [("s2", "it is starred")]
    assert choose(Policy(max_sessions=3), found, NOW) == ([], [])


def test_zero_keeps_none_and_a_number_beyond_all_takes_none() -> None:
    found = candidates(1, 2)
    for policy in (Policy(max_age=0), Policy(max_sessions=0), Policy(max_bytes=0)):
        assert taken(policy, found) == ["s1", "s0"]
    for huge in HUGE:
        for policy in (Policy(max_age=huge), Policy(max_sessions=huge), Policy(max_bytes=huge), Policy(cooldown=huge)):
            assert taken(policy, found) == []
    assert taken(Policy(max_age=1e300), found) == []


def test_what_is_dated_ahead_is_not_old() -> None:
    assert taken(Policy(max_age=0), candidates(-3)) == []


@pytest.mark.parametrize("name", ["max_age", "max_sessions", "max_bytes", "batch", "cooldown"])
@pytest.mark.parametrize("value", [-1, -(2**63), math.nan, math.inf, -math.inf, 1.7e308, "7", True, b"", [1]])
def test_what_makes_no_sense_is_refused(name: str, value: Any) -> None:
    with pytest.raises(Invalid, match=name):
        Policy(**{name: value})


@pytest.mark.parametrize(
    "fields",
    [
        {"batch": 0}, {"batch": 1001}, {"batch": 2**63}, {"max_sessions": 1.5}, {"state": "gone"}, {"user": 7},
        {"label": "\ud800"}, {"agent": "a\0b"}, {"project": "x" * 5000}, {"keep_labels": "one"}, {"keep_labels": ("",)},
    ],
)  # fmt: skip
def test_a_field_that_no_session_can_have_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        Policy(**fields)


numbers = st.one_of(st.none(), st.integers(0, 60), st.sampled_from(HUGE))
found_ones = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 30), st.booleans()), max_size=12
).map(
    lambda rows: [
        Candidate(NOW - age * 1_000_000, f"s{n:02}", 1, size, "named" if kept else "")
        for n, (age, size, kept) in enumerate(rows)
    ]
)  # fmt: skip


@given(found=found_ones, age=numbers, count=numbers, size=numbers)
def test_the_choice_keeps_its_invariants(
    found: list[Candidate], age: int | None, count: int | None, size: int | None
) -> None:
    policy = Policy(max_age=age, max_sessions=count, max_bytes=size)
    chosen, spared = choose(policy, found, NOW)
    told = [one.session for one in chosen] + [one.session for one in spared]
    assert len(told) == len(set(told))
    by_id = {one.id: one for one in found}
    assert not any(by_id[one.session].spared for one in chosen)
    assert all(by_id[one.session].spared for one in spared)
    order = [(by_id[one.session].at, one.session) for one in chosen]
    assert order == sorted(order)
    left = [one for one in found if one.id not in told]
    if left and told:
        # Who was active later is never taken before another one.
        assert max((by_id[id].at, id) for id in told) < min((one.at, one.id) for one in left)
    assert count is None or len(left) <= count
    assert size is None or sum(one.bytes for one in left) <= size
    assert age is None or all(NOW - one.at <= age * 1_000_000 for one in left)
    if count is not None and age is None and size is None:
        assert len(told) == max(len(found) - count, 0)


def test_a_policy_that_is_refused_touches_nothing(store: Store) -> None:
    store.session("s").append(user("one"))
    before = store.peek("s")
    with pytest.raises(Invalid):
        store.prune(Policy(max_age=-1)).apply()
    assert store.peek("s") == before
    assert store.prunes() == []


def test_a_policy_knows_only_what_it_names() -> None:
    with pytest.raises(TypeError):
        Policy(max_hours=1)  # pyright: ignore[reportCallIssue]
    assert Policy(user="ann", label="x").tags() == {"user": "ann", "label:x": "1"}
    assert holdfast.Policy is Policy
