"""The meaning of a commit: stated by examples, and by what must hold of any commit on any head."""

from __future__ import annotations

import copy
import unicodedata
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from holdfast.errors import Invalid, TooLarge
from holdfast.plan import (
    FIRST_TIME,
    LAST_TIME,
    MAX_BATCH,
    MAX_COUNT,
    MAX_COUNTERS,
    MAX_ENTRIES,
    MAX_ENTRY,
    MAX_HEAD_TAGS,
    MAX_ID,
    MAX_SAVED,
    MAX_TAGS,
    Commit,
    Entry,
    Head,
    Planned,
    Range,
    Ref,
    Refused,
    check_id,
    plan,
    validate,
)

S = Ref("session", "s")
ALIVE = Head(S, rev=4, last=9, base=2, trim=3, at=50, tags={"user": "ann", "turn": "t1"}, counts={"n": 5}, body=b"old")
DEAD = Head(S, rev=5, last=9, base=9, at=50, dead=True)


def made(head: Head | None, known: set[str] = frozenset(), **changes: Any) -> Planned:  # type: ignore[assignment]
    result = plan(head, known, Commit(ref=S, **changes))
    assert isinstance(result, Planned), result
    return result


def refused(head: Head | None, known: set[str] = frozenset(), **changes: Any) -> tuple[str, Head | None]:  # type: ignore[assignment]
    result = plan(head, known, Commit(ref=S, **changes))
    assert isinstance(result, Refused), result
    return tuple(result)  # type: ignore[return-value]


# --- Examples ---


@pytest.mark.parametrize(
    ("head", "changes", "why"),
    [
        (None, {}, "missing"),
        (None, {"if_rev": 1}, "missing"),
        (None, {"delete": True}, "missing"),
        (None, {"if_rev": 0, "if_last": 1}, "last"),
        (None, {"if_rev": 0, "if_tags": {"turn": "t1"}}, "tags"),
        (None, {"if_rev": 0, "void": [Range(1, 1)]}, "range"),
        (None, {"if_rev": 0, "trim": 0}, "range"),
        (None, {"if_rev": 0, "delete": True, "trim": 0}, "range"),
        (DEAD, {}, "deleted"),
        (DEAD, {"if_rev": 0}, "deleted"),
        (DEAD, {"if_rev": 4}, "deleted"),
        (DEAD, {"if_rev": 5, "delete": True}, "deleted"),
        (DEAD, {"if_rev": 5, "base": 3}, "deleted"),
        (DEAD, {"if_rev": 5, "if_last": 0}, "last"),
        (ALIVE, {"if_rev": 0}, "rev"),
        (ALIVE, {"if_rev": 3}, "rev"),
        (ALIVE, {"if_last": 8}, "last"),
        (ALIVE, {"if_last": 10}, "last"),
        (ALIVE, {"if_tags": {"turn": "t2"}}, "tags"),
        (ALIVE, {"if_tags": {"turn": None}}, "tags"),
        (ALIVE, {"if_tags": {"other": "x"}}, "tags"),
        (ALIVE, {"void": [Range(3, 4)]}, "range"),
        (ALIVE, {"void": [Range(9, 10)], "append": [Entry("", 0, b"x")]}, "range"),
        (ALIVE, {"trim": 1}, "range"),
        (ALIVE, {"trim": 10}, "range"),
        (ALIVE, {"base": 2}, "range"),
    ],
)
def test_a_commit_is_refused_for_what_does_not_hold(head: Head | None, changes: dict[str, Any], why: str) -> None:
    # On what is created anew there is nothing that a refusal could show.
    shown = None if head is DEAD and why == "last" else head
    assert refused(head, **changes) == (why, shown)


def test_a_known_id_comes_before_every_other_reason_but_deletion() -> None:
    append = [Entry("k", 0, b"x")]
    assert refused(ALIVE, {"k"}, append=append) == ("known", ALIVE)
    assert refused(ALIVE, {"k"}, append=append, if_last=0, if_rev=1, if_tags={"x": "y"}) == ("known", ALIVE)
    assert refused(DEAD, {"k"}, append=append) == ("deleted", DEAD)


def test_a_head_is_created() -> None:
    head, entries = made(None, if_rev=0, at=7, tags={"a": "1", "b": None}, add={"n": 2}, append=[Entry("k", 3, b"x")])
    assert head == Head(S, 1, 1, 0, 0, 7, {"a": "1"}, {"n": 2}, b"")
    assert entries == [Entry("k", 3, b"x", 1)]


def test_a_tombstone_gives_way_to_whoever_saw_it_and_its_numbers_go_on() -> None:
    head, entries = made(DEAD, if_rev=5, at=1, append=[Entry("", 0, b"x")])
    assert head == Head(S, rev=6, last=10, base=9, at=1)
    assert [e.seq for e in entries] == [10]


def test_a_deletion_keeps_the_number_and_nothing_else() -> None:
    assert made(ALIVE, delete=True, at=60) == (Head(S, rev=5, last=9, base=9, at=60, dead=True), ())
    assert made(ALIVE, delete=True, at=1).head.at == 50
    assert made(None, if_rev=0, delete=True, at=7) == (Head(S, rev=1, at=7, dead=True), ())


def test_tags_and_defaults() -> None:
    assert made(ALIVE, tags={"user": None, "a": "1"}).head.tags == {"turn": "t1", "a": "1"}
    assert made(ALIVE, defaults={"user": "bob", "title": "T"}).head.tags == {"user": "ann", "turn": "t1", "title": "T"}
    assert made(ALIVE, defaults={"x": "1"}, tags={"x": None}).head.tags == ALIVE.tags
    assert made(ALIVE, defaults={"x": "1"}, tags={"x": "2"}).head.tags["x"] == "2"


def test_a_head_that_an_earlier_version_let_grow_beyond_the_limit_may_shrink_and_not_grow() -> None:
    big = msgspec.structs.replace(ALIVE, tags={str(n): "x" for n in range(MAX_HEAD_TAGS + 9)})
    assert len(made(big, append=[Entry("", 0, b"x")], defaults={"1": "y"}).head.tags) == MAX_HEAD_TAGS + 9
    assert len(made(big, tags={"1": None, "2": "y"}).head.tags) == MAX_HEAD_TAGS + 8
    assert len(made(big, tags={"1": None, "new": "y"}).head.tags) == MAX_HEAD_TAGS + 9
    assert refused(big, tags={"new": "y"}) == ("full", big)


def test_a_full_head_is_told_as_none_where_there_was_none() -> None:
    many = {str(n): 1 for n in range(MAX_COUNTERS + 1)}
    assert refused(None, if_rev=0, add=many) == ("full", None)
    assert refused(DEAD, if_rev=5, add=many) == ("full", None)


def test_counters_stop_at_their_limit_instead_of_turning_round() -> None:
    assert made(ALIVE, add={"n": MAX_COUNT}).head.counts == {"n": MAX_COUNT}
    assert made(ALIVE, add={"n": -MAX_COUNT, "m": -1}).head.counts == {"n": 5 - MAX_COUNT, "m": -1}


def test_forgetting_never_goes_back() -> None:
    assert made(ALIVE, trim=6).head.trim == 6
    assert made(ALIVE, trim=2).head.trim == 3
    assert made(ALIVE, trim=9).head.trim == 9


def test_a_body_is_replaced_or_left() -> None:
    assert made(ALIVE).head.body == b"old"
    assert made(ALIVE, body=b"").head.body == b""


# --- What holds of any commit ---

names = st.sampled_from(["a", "b", "turn", "é"])
values = st.sampled_from(["", "1", "2"])
patches = st.dictionaries(names, st.none() | values, max_size=3)
heads = st.none() | st.builds(
    lambda rev, base, own, trim, at, tags, counts, body, dead: (
        Head(S, rev, base + own, base + own, 0, at, dead=True)
        if dead
        else Head(S, rev, base + own, base, base + min(trim, own), at, tags, counts, body)
    ),
    st.integers(1, 9),
    st.integers(0, 5),
    st.integers(0, 8),
    st.integers(0, 8),
    st.integers(0, 99),
    st.dictionaries(names, values, max_size=3),
    st.dictionaries(names, st.integers(-MAX_COUNT, MAX_COUNT), max_size=2),
    st.binary(max_size=3),
    st.sampled_from([False, False, False, True]),
)
commits = st.builds(
    Commit,
    ref=st.just(S),
    at=st.integers(0, 99),
    if_rev=st.none() | st.integers(0, 9),
    if_last=st.none() | st.integers(0, 13),
    if_tags=st.none() | patches,
    tags=st.none() | patches,
    defaults=st.none() | st.dictionaries(names, values, max_size=2),
    add=st.none() | st.dictionaries(names, st.integers(-MAX_COUNT, MAX_COUNT), max_size=2),
    body=st.none() | st.binary(max_size=3),
    append=st.lists(
        st.builds(Entry, st.sampled_from(["", "", "k1", "k2"]), st.integers(-9, 9), st.binary(max_size=3)), max_size=3
    ),
    void=st.lists(st.builds(Range, st.integers(1, 9), st.integers(1, 13), st.booleans()), max_size=2),
    trim=st.none() | st.integers(-1, 14),
    base=st.sampled_from([0, 0, 3]),
    delete=st.booleans(),
)


def allowed(commit: Commit) -> bool:
    try:
        validate(commit)
    except Invalid:
        return False
    return True


@given(heads, commits.filter(allowed), st.sets(st.sampled_from(["k1", "k2"])))
def test_any_commit_keeps_the_laws(head: Head | None, commit: Commit, stored: set[str]) -> None:
    known = {e.id for e in commit.append} & stored if head and not head.dead else set()
    before = copy.deepcopy((head, commit))
    result = plan(head, known, commit)
    assert (head, commit) == before, "plan changed what it was given"
    assert plan(head, known, commit) == result, "plan is no function"
    if isinstance(result, Refused):
        assert result.head == head or result.head is None
        return
    changed, entries = result
    old = head or Head(S)
    assert not known
    assert changed.ref == S
    assert changed.rev == old.rev + 1
    assert commit.if_rev in (None, old.rev)
    if commit.delete:
        assert changed == Head(S, old.rev + 1, old.last, old.last, 0, max(old.at, commit.at), dead=True)
        assert entries == ()
        return
    first = changed.last - len(commit.append)
    assert [e.seq for e in entries] == list(range(first + 1, changed.last + 1))
    assert [(e.id, e.at, e.body, e.void) for e in entries] == [(e.id, e.at, e.body, e.void) for e in commit.append]
    assert first == (commit.base if head is None else old.last), "numbers go on where they ended"
    assert commit.if_last in (None, first)
    assert not changed.dead
    assert changed.base <= changed.last
    assert changed.trim == 0 or changed.base <= changed.trim <= changed.last
    fresh = head is None or head.dead
    tags = {} if fresh else dict(old.tags)
    assert all(tags.get(name) == value for name, value in (commit.if_tags or {}).items())
    for name, value in (commit.defaults or {}).items():
        tags.setdefault(name, value)
    for name, patch in (commit.tags or {}).items():
        if patch is None:
            tags.pop(name, None)
        else:
            tags[name] = patch
    assert changed.tags == tags
    counts = {} if fresh else dict(old.counts)
    for name, more in (commit.add or {}).items():
        counts[name] = max(-MAX_COUNT, min(MAX_COUNT, counts.get(name, 0) + more))
    assert changed.counts == counts
    assert changed.at == (commit.at if fresh else max(old.at, commit.at))
    assert changed.body == (commit.body if commit.body is not None else b"" if fresh else old.body)
    if not fresh:
        assert changed.trim >= old.trim
        assert all(max(old.base, old.trim) < r.first <= r.last <= old.last for r in commit.void)


@given(heads, commits.filter(allowed))
def test_a_refusal_names_what_does_not_hold(head: Head | None, commit: Commit) -> None:
    result = plan(head, set(), commit)
    alive = head is not None and not head.dead
    if isinstance(result, Planned):
        return
    lowest = max(head.base, head.trim) if alive else 0
    holds = {
        "missing": head is not None or commit.if_rev == 0,
        "deleted": not (head and head.dead),
        "rev": not alive or commit.if_rev in (None, head.rev),
        "last": commit.if_last in (None, head.last if head else commit.base),
        "tags": all((head.tags if alive else {}).get(n) == v for n, v in (commit.if_tags or {}).items()),
        "full": True,
        "range": alive
        and not commit.base
        and all(lowest < r.first and r.last <= head.last for r in commit.void)
        and (commit.trim is None or head.base <= commit.trim <= head.last),
    }
    assert not holds[result.why], f"refused for {result.why}, which holds"


# --- What no backend is asked to hold ---


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"at": -1}, Invalid),
        ({"at": LAST_TIME + 1}, Invalid),
        ({"base": -1, "if_rev": 0}, Invalid),
        ({"base": 2**62 + 1, "if_rev": 0}, Invalid),
        ({"base": 1}, Invalid),
        ({"base": 1, "if_rev": 2}, Invalid),
        ({"append": [Entry("k", 0, b""), Entry("k", 0, b"")]}, Invalid),
        ({"append": [Entry("", LAST_TIME + 1, b"")]}, Invalid),
        ({"append": [Entry("", FIRST_TIME - 1, b"")]}, Invalid),
        ({"append": [Entry("a\nb", 0, b"")]}, Invalid),
        ({"append": [Entry("", 0, b"")] * (MAX_ENTRIES + 1)}, TooLarge),
        ({"append": [Entry("", 0, bytes(MAX_ENTRY + 1))]}, TooLarge),
        ({"append": [Entry("", 0, bytes(MAX_ENTRY))] * (MAX_BATCH // MAX_ENTRY + 1)}, TooLarge),
        ({"body": bytes(MAX_ENTRY + 1)}, TooLarge),
        ({"tags": {"": "x"}}, Invalid),
        ({"tags": {"a": "\0"}}, Invalid),
        ({"tags": {"a": "\ud800"}}, Invalid),
        ({"tags": {"a": "x" * (4 * MAX_ID + 1)}}, TooLarge),
        ({"defaults": {"x" * (MAX_ID + 1): "x"}}, TooLarge),
        ({"tags": {str(n): "x" for n in range(MAX_TAGS + 1)}}, TooLarge),
        ({"add": {"n": MAX_COUNT + 1}}, Invalid),
        ({"add": {"n": -MAX_COUNT - 1}}, Invalid),
        ({"add": {"": 1}}, Invalid),
        ({"void": [Range(0, 1)]}, Invalid),
        ({"void": [Range(2, 1)]}, Invalid),
        ({"void": [Range(1, 2**63)]}, Invalid),
        ({"delete": True, "append": [Entry("", 0, b"")]}, Invalid),
        ({"delete": True, "tags": {"a": "b"}}, Invalid),
        ({"delete": True, "body": b""}, Invalid),
    ],
)
def test_what_not_every_backend_could_hold_is_refused(changes: dict[str, Any], error: type[Invalid]) -> None:
    with pytest.raises(error) as raised:
        validate(Commit(ref=S, **changes))
    assert type(raised.value) is error


def test_a_save_may_have_more_entries_and_not_more_bytes() -> None:
    validate(Commit(ref=S, append=[Entry("", 0, b"")] * MAX_SAVED), MAX_SAVED)
    for many, size in ((MAX_SAVED + 1, 0), (MAX_BATCH // MAX_ENTRY + 1, MAX_ENTRY)):
        with pytest.raises(TooLarge):
            validate(Commit(ref=S, append=[Entry("", 0, bytes(size))] * many), MAX_SAVED)


@pytest.mark.parametrize(
    "changes",
    [
        {"append": [Entry("", 0, bytes(MAX_ENTRY))] * (MAX_BATCH // MAX_ENTRY)},
        {"append": [Entry("", 0, b"")] * MAX_ENTRIES},
        {"append": [Entry("k" * MAX_ID, FIRST_TIME, b""), Entry("K" * MAX_ID, LAST_TIME, b"")]},
        {"tags": {str(n): "x" * 4 * MAX_ID for n in range(MAX_TAGS)}},
        {"add": {"n": MAX_COUNT, "m": -MAX_COUNT}},
        {"base": 2**62, "if_rev": 0, "at": LAST_TIME},
        {"delete": True, "at": 1, "if_rev": 3, "if_last": 2, "if_tags": {"a": None}},
    ],
)
def test_the_limits_themselves_are_allowed(changes: dict[str, Any]) -> None:
    validate(Commit(ref=S, **changes))


@given(st.text() | st.text(alphabet="a\n\0é\ud800") | st.text(alphabet="xé", min_size=250, max_size=520))
def test_an_id_is_allowed_exactly_if_it_can_be_held(id: str) -> None:
    encodable = not any("\ud800" <= c <= "\udfff" for c in id)
    sound = encodable and 0 < len(id.encode()) <= MAX_ID and not any(unicodedata.category(c) == "Cc" for c in id)
    if sound:
        check_id(id, "id")
        return
    with pytest.raises(Invalid) as error:
        check_id(id, "id")
    assert type(error.value) is (TooLarge if encodable and len(id.encode()) > MAX_ID else Invalid)


@pytest.mark.parametrize("wrong", [None, 5, b"abc", 1.5, ["a"], {"a": 1}, bytearray(b"a")])
def test_what_is_no_text_is_no_id(wrong: Any) -> None:
    with pytest.raises(Invalid, match="must be text"):
        check_id(wrong, "session id")


@pytest.mark.parametrize("wrong", [5, None, ["s"], {"s": 1}, b"s"])
def test_a_ref_of_no_text_is_refused_each_time(wrong: Any) -> None:
    for ref in (Ref("session", wrong), Ref(wrong, "s"), Ref("session", wrong)):
        with pytest.raises(Invalid, match="must be text"):
            validate(Commit(ref=ref))


def test_a_name_that_was_refused_once_is_refused_again_and_one_that_fits_does_not_let_it_in() -> None:
    validate(Commit(ref=S, add={"fits": 1}))
    for _ in range(2):
        validate(Commit(ref=S, add={"fits": 1}))
        with pytest.raises(Invalid, match="control character"):
            validate(Commit(ref=S, add={"fits": 1, "fits\n": 1}))
        with pytest.raises(Invalid, match="control character"):
            validate(Commit(ref=Ref(S.kind, S.id + "\n")))


def test_more_names_than_are_remembered_are_all_checked() -> None:
    for start in range(0, 10_000, 100):
        validate(Commit(ref=Ref("session", f"s{start}"), add={f"n{n}": 1 for n in range(start, start + 100)}))
    with pytest.raises(Invalid, match="is empty"):
        validate(Commit(ref=Ref("session", "")))
