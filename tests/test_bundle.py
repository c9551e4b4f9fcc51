"""Bundles and copies: the copy equals the original, may be resumed and repeated, and never overwrites what differs."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import jq
import pytest
import zstandard

import holdfast
from holdfast import (
    Conflict,
    Corrupt,
    Deleted,
    Denied,
    Event,
    Invalid,
    Large,
    NotFound,
    Store,
    assistant,
    note,
    tool_call,
    user,
)
from holdfast.bundle import ended, is_bundle, read_bundle, write_bundle, write_documents
from holdfast.copies import COPIED, Copied, copy_session, replay
from holdfast.heads.info import session_ref
from holdfast.plan import MAX_HEAD_TAGS, Commit, Entry, Head


@pytest.fixture
def target(url: str, tmp_path: Path) -> Iterator[Store]:
    """A second empty store, on the same backend as `store`."""
    (tmp_path / "target").mkdir()
    with holdfast.open(url.replace(str(tmp_path), str(tmp_path / "target"))) as opened:
        yield opened


@pytest.fixture
def full(store: Store) -> Store:
    """A store whose session `s` has everything that a copy must keep."""
    session = store.session(
        "s", user="ada", name="n", labels=["x"], metadata={"a": 2**70}, config={"k": [1]}, created_at=5_000_000
    )
    session.append(user("Hi", metadata={"m": 1}), key="first")
    session.append(assistant("Look \ud800\0", tool_call("c", "run", {"big": 2**80})))
    session.append(Event(payload=note("old"), at=-7, id="mine"))
    session.append(note(Large.from_stream(io.BytesIO(b"large\n" * 700_000))))  # more than one chunk: a manifest too
    odd = b'{"v":1,"type":"x.odd","data":1.0,"unknown":{"b":1e5}, "spaced" : true}'
    session.append(Event(payload=holdfast.custom("x.odd", 1.0), raw=odd))
    session.append(user("take this back"))
    session.remove_last()
    session.append(holdfast.usage("m1", 10, 20, cost=300), holdfast.step("t", is_error=True))
    session.update(title="T", labels=["y"])
    return store


def log(store: Store, id: str = "s") -> list[Entry]:
    return store.backend.read(session_ref(id), voided=True)


def same(a: Head, b: Head) -> bool:
    """Whether two heads are equal in all but the number of changes it took, and the tag that tells a copy."""
    first, second = (
        (h.ref, h.last, h.base, h.at, {n: v for n, v in h.tags.items() if n != COPIED}, h.counts, h.body)
        for h in (a, b)
    )
    return first == second


def large_of(store: Store) -> str:
    return next(str(e.payload.text) for e in store.get("s").events(types="note", last=1))  # type: ignore[union-attr]


def test_a_copy_equals_the_original(full: Store, target: Store) -> None:
    told = copy_session(full, target, "s")
    assert told == Copied(session="s", events=9, new=9)
    assert same(target.head("s"), full.head("s"))
    assert log(target) == log(full)
    assert large_of(target) == "large\n" * 700_000
    assert target.check().ok
    assert [hit.seq for hit in target.search("hi")] == [1]


def test_a_bundle_holds_all_and_makes_the_same_session(full: Store, target: Store) -> None:
    lines = list(write_bundle(full, ["s"]))
    assert is_bundle(lines[0])
    assert all(line.count(b"\n") == 1 and isinstance(json.loads(line), dict) for line in lines)
    assert list(read_bundle(target, lines)) == [Copied(session="s", events=9, new=9)]
    assert same(target.head("s"), full.head("s"))
    assert log(target) == log(full)
    assert large_of(target) == "large\n" * 700_000
    assert list(write_bundle(target, ["s"])) == lines


def test_again_copies_only_what_is_new(full: Store, target: Store) -> None:
    copy_session(full, target, "s")
    rev = target.head("s").rev
    assert copy_session(full, target, "s").new == 0
    assert target.head("s").rev == rev  # nothing was written
    session = full.session("s")
    session.append(user("more"))
    session.remove_last()
    session.update(name=None, title="U", metadata={"a": None})
    assert copy_session(full, target, "s").new == 2
    assert same(target.head("s"), full.head("s"))
    assert log(target) == log(full)


def two_and_one(store: Store) -> list[bytes]:
    """A whole bundle of two sessions and a document."""
    for id in ("a", "b"):
        store.session(id, title="\u2028").append(user(id))
    store.documents.put("notes/x.md", "hello")
    return list(ended([*write_bundle(store, ["a", "b"]), *write_documents(store)]))


def test_a_bundle_that_tells_its_end_is_known_to_be_cut_off_between_any_two_lines(tmp_path: Path) -> None:
    with holdfast.open("memory://") as store:
        lines = two_and_one(store)
    between = 0
    for cut in range(1, len(lines) + 1):
        with holdfast.open("memory://") as target:
            errors = [one.error for one in read_bundle(target, lines[:cut]) if one.error]
            assert len(errors) == (cut < len(lines))
            between += any("its last line is missing" in error.message for error in errors)
            # Whatever was whole is there, and the whole bundle brings the rest.
            assert {c.error for c in read_bundle(target, lines)} == {None}
            assert (target.exists("a"), target.exists("b"), target.documents.get("notes/x.md") is None) == (
                True, True, False,
            )  # fmt: skip
    assert between == 3  # behind each session, and the document
    taken_out = [*lines[:3], *lines[6:]]
    with holdfast.open("memory://") as target:
        told = [one.error.message for one in read_bundle(target, taken_out) if one.error]
    assert len(told) == 1
    assert "should hold 2 sessions and 1 documents" in told[0]


def test_bundles_one_behind_the_other_end_each_by_itself(store: Store, target: Store) -> None:
    lines = two_and_one(store)
    assert [one.error for one in read_bundle(target, [*lines, *lines])] == [None] * 6
    with holdfast.open("memory://") as third:
        errors = [one.error for one in read_bundle(third, [*lines, *lines[:3]]) if one.error]
        assert [str(error.line) for error in errors] == [str(len(lines) + 3)]  # type: ignore[attr-defined]


def test_a_bundle_without_an_end_as_versions_before_wrote_it_is_whole(store: Store, target: Store) -> None:
    store.session("a").append(user("hello"))
    assert [one.error for one in read_bundle(target, write_bundle(store, ["a"]))] == [None]


def test_one_without_an_end_may_stand_before_one_that_has_it(store: Store, target: Store) -> None:
    store.session("old").append(user("hello"))
    old, new = list(write_bundle(store, ["old"])), two_and_one(store)
    assert [one.error for one in read_bundle(target, [*old, *new])] == [None] * 4
    with holdfast.open("memory://") as third:
        errors = [str(one.error) for one in read_bundle(third, [*old, *new[:3]]) if one.error]
        assert len(errors) == 1
        assert "its last line is missing" in errors[0]


def test_a_cut_behind_a_damaged_session_is_told_as_well(store: Store, target: Store) -> None:
    lines = two_and_one(store)
    end = next(index for index, line in enumerate(lines) if b'"end":' in line)
    damaged = [*lines[:end], lines[end].replace(b'"end":', b'"enD":')]
    errors = [str(one.error) for one in read_bundle(target, damaged) if one.error]
    assert len(errors) == 2
    assert "is damaged or was changed" in errors[0]
    assert "its last line is missing" in errors[1]


def test_a_bundle_of_nothing_is_its_end(target: Store) -> None:
    (line,) = ended([])
    assert is_bundle(line)
    assert jq.compile(".holdfast").input_text(line.decode()).all() == [3]
    assert list(read_bundle(target, [line])) == []


@pytest.mark.parametrize("cut", range(1, 13))
def test_a_bundle_that_breaks_off_anywhere_is_told_and_completed_later(cut: int, tmp_path: Path) -> None:
    with holdfast.open("memory://") as store, holdfast.open("memory://") as target:
        session = store.session("s")
        for number in range(10):
            session.append(user(f"n{number}"))
        lines = list(write_bundle(store, ["s"]))
        assert len(lines) == 12
        told = list(read_bundle(target, lines[:cut]))
        assert (cut == 12) == (told[0].error is None)
        assert [e.body for e in log(target)] == [e.body for e in log(store)][: len(log(target))]
        assert next(read_bundle(target, lines)).error is None
        assert same(target.head("s"), store.head("s"))


def test_a_copy_that_was_killed_between_two_commits_goes_on(full: Store, target: Store) -> None:
    head, entries = full.head("s"), log(full)
    with pytest.raises(Corrupt):
        replay(target, head, iter(entries[:3]))
    assert log(target) == entries[:3]
    assert copy_session(full, target, "s").new == 6
    assert same(target.head("s"), head)
    assert log(target) == entries


@pytest.mark.parametrize("change", ["title", "label", "metadata", "hide"])
@pytest.mark.parametrize("way", ["copy", "bundle"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_copy_that_others_changed_is_a_conflict_even_when_the_original_went_on(
    full: Store, target: Store, change: str, way: str, whole: bool
) -> None:
    if whole:
        copy_session(full, target, "s")
    else:
        with pytest.raises(Corrupt):
            replay(target, full.head("s"), iter(log(full)[:3]))
    if change == "hide":
        target.session("s").remove_last()
    else:
        changes = {"title": {"title": "mine"}, "label": {"labels": ["mine"]}, "metadata": {"metadata": {"mine": 1}}}
        target.session("s").update(**changes[change])  # type: ignore[arg-type]  # one of its own keywords each
    before = target.head("s"), log(target)
    full.session("s").append(user("more"))
    if way == "copy":
        with pytest.raises(Conflict):
            copy_session(full, target, "s")
    else:
        (told,) = read_bundle(target, write_bundle(full, ["s"]))
        assert isinstance(told.error, Conflict)
    assert (target.head("s"), log(target)) == before


def test_a_change_that_comes_in_the_middle_of_a_copy_is_not_overwritten(full: Store, target: Store) -> None:
    copy_session(full, target, "s")
    full.session("s").append(user("more"))

    def entries() -> Iterator[Entry]:
        yield from log(full)
        target.session("s").update(title="mine")

    with pytest.raises(Conflict):
        replay(target, full.head("s"), entries())
    assert target.session("s").info().title == "mine"


def test_a_session_that_was_there_before_with_the_same_beginning_is_a_conflict(store: Store, target: Store) -> None:
    for one, title in ((store, "theirs"), (target, "mine")):
        one.create("s", title=title, created_at=1)
    store.session("s").append(user("more"))
    with pytest.raises(Conflict):
        copy_session(store, target, "s")
    assert target.session("s").info().title == "mine"


def test_a_copy_that_went_on_is_copied_back_while_its_original_stayed(full: Store, target: Store) -> None:
    copy_session(full, target, "s")
    target.session("s").append(user("more"))
    assert copy_session(target, full, "s").new == 1
    assert same(target.head("s"), full.head("s"))
    full.session("s").append(user("and more"))
    assert copy_session(full, target, "s").new == 1
    assert list(write_bundle(full, ["s"])) == list(write_bundle(target, ["s"]))


def test_a_copy_of_a_copy_is_kept_up_too(full: Store, target: Store) -> None:
    with holdfast.open("memory://") as third:
        for _ in range(3):
            copy_session(full, target, "s")
            copy_session(target, third, "s")
            assert same(third.head("s"), full.head("s"))
            full.session("s").append(user("more"))


@pytest.mark.parametrize("change", ["append", "rename", "other", "longer"])
def test_a_session_that_went_its_own_way_is_a_conflict_and_stays(full: Store, target: Store, change: str) -> None:
    if change in ("append", "rename"):
        copy_session(full, target, "s")
    if change == "rename":
        target.session("s").update(title="mine")
    else:
        target.session("s").append(*[user("mine")] * (20 if change == "longer" else 1))
    before = target.head("s"), log(target)
    with pytest.raises(Conflict):
        copy_session(full, target, "s")
    (told,) = read_bundle(target, write_bundle(full, ["s"]))
    assert isinstance(told.error, Conflict)
    assert (target.head("s"), log(target)) == before


def test_an_interrupted_copy_is_its_users_from_the_first(full: Store, target: Store) -> None:
    full.backend.blobs.delete(full.backend.blobs.scan()[0])
    with pytest.raises(Corrupt):
        copy_session(full, target, "s")
    info = target.session("s", user="ada").info()
    assert (info.user, info.created_at) == ("ada", 5_000_000)
    with pytest.raises(Denied):
        target.session("s", user="bob")


@pytest.mark.parametrize("owner", ["bob", None])
def test_an_empty_session_of_another_user_is_not_taken_over(full: Store, target: Store, owner: str | None) -> None:
    target.create("s", user=owner, title="mine", created_at=1)
    before = target.head("s")
    with pytest.raises(Conflict, match="another user"):
        copy_session(full, target, "s")
    assert target.head("s") == before


def test_a_session_with_more_labels_than_one_call_takes_is_copied(store: Store, target: Store) -> None:
    session = store.session("s")
    for part in "abc":
        session.update(labels=[f"{part}{n}" for n in range(200)])
    copy_session(store, target, "s")
    assert same(target.head("s"), store.head("s"))
    session.update(labels=dict.fromkeys(session.info().labels[:200], False))
    session.update(labels=dict.fromkeys(session.info().labels[:200], False))
    copy_session(store, target, "s")
    assert same(target.head("s"), store.head("s"))


def test_a_session_that_is_full_of_labels_is_copied_and_kept_up(store: Store, target: Store) -> None:
    session = store.session("s", title="t")
    fill(session, MAX_HEAD_TAGS - 1 - len(store.head("s").tags))
    copy_session(store, target, "s")
    session.update(labels=["last"])  # now there is no room for the tag that tells a copy
    session.append(user("more"))
    assert copy_session(store, target, "s").new == 1
    assert same(target.head("s"), store.head("s"))
    assert copy_session(store, target, "s").new == 0
    session.append(note("and more"))
    assert copy_session(store, target, "s").new == 1
    assert same(target.head("s"), store.head("s"))
    session.update(labels={"last": False})
    with pytest.raises(Conflict):  # nothing tells whether the label was put there by somebody else
        copy_session(store, target, "s")


def fill(session: holdfast.Session, count: int) -> None:
    """Give a session so many labels."""
    for start in range(0, count, 200):
        session.update(labels=[f"l{n}" for n in range(start, min(start + 200, count))])


def as_an_earlier_version_left_it(target: Store) -> None:
    """Take away what tells a copy: versions that did not know it wrote the same but for that."""
    target.backend.commit([Commit(ref=session_ref("s"), tags={COPIED: None})])


@pytest.mark.parametrize("way", ["copy", "bundle"])
def test_a_copy_of_an_earlier_version_goes_on_with_its_original(full: Store, target: Store, way: str) -> None:
    copy_session(full, target, "s")
    as_an_earlier_version_left_it(target)
    full.session("s").append(user("more"), holdfast.usage("m2", 1, cost=5))
    full.session("s").remove_last()
    if way == "copy":
        assert copy_session(full, target, "s").new == 3
    else:
        assert list(read_bundle(target, write_bundle(full, ["s"]))) == [Copied(session="s", events=12, new=3)]
    assert same(target.head("s"), full.head("s"))
    assert log(target) == log(full)
    full.session("s").update(title="known as a copy from now on")
    copy_session(full, target, "s")
    assert same(target.head("s"), full.head("s"))


@pytest.mark.parametrize("change", ["title", "no title", "label", "no label", "metadata", "hide", "append"])
def test_a_copy_of_an_earlier_version_that_others_changed_is_a_conflict(
    full: Store, target: Store, change: str
) -> None:
    copy_session(full, target, "s")
    as_an_earlier_version_left_it(target)
    session = target.session("s")
    {
        "title": lambda: session.update(title="mine"),
        "no title": lambda: session.update(title=None),
        "label": lambda: session.update(labels=["mine"]),
        "no label": lambda: session.update(labels={"x": False}),
        "metadata": lambda: session.update(metadata={"mine": 1}),
        "hide": lambda: session.remove_last(),
        "append": lambda: session.append(user("mine")),
    }[change]()
    full.session("s").append(user("more"), user("and more"))
    before = target.head("s"), log(target)
    with pytest.raises(Conflict):
        copy_session(full, target, "s")
    (told,) = read_bundle(target, write_bundle(full, ["s"]))
    assert isinstance(told.error, Conflict)
    assert (target.head("s"), log(target)) == before


def test_entries_that_differ_are_a_conflict_even_in_an_older_session(full: Store, target: Store) -> None:
    entries = log(full)
    wrong = Entry(entries[1].id, entries[1].at, b'{"v":1,"type":"note","text":"other"}')
    with pytest.raises(Corrupt):
        replay(target, full.head("s"), iter(entries[:1]))
    target.backend.commit([Commit(ref=session_ref("s"), append=[wrong])])
    with pytest.raises(Conflict, match="event 2 is another one"):
        copy_session(full, target, "s")


def test_what_was_deleted_is_not_brought_back(full: Store, target: Store) -> None:
    copy_session(full, target, "s")
    target.delete("s")
    with pytest.raises(Deleted):
        copy_session(full, target, "s")
    full.delete("s")
    with pytest.raises(NotFound):
        copy_session(full, target, "s")
    with pytest.raises(NotFound):
        list(write_bundle(full, ["s"]))


def test_numbers_stay_where_a_log_was_forgotten_or_begins_later(store: Store, target: Store) -> None:
    for id, base in (("trimmed", 0), ("forked", 40)):
        appended = [Entry("", n, b'{"v":1,"type":"note","text":"n"}') for n in range(5)]
        store.backend.commit([Commit(ref=session_ref(id), at=9, if_rev=0, base=base, append=appended)])
    store.backend.commit([Commit(ref=session_ref("trimmed"), trim=3)])
    assert copy_session(store, target, "trimmed").events == 2
    assert [e.seq for e in log(target, "trimmed")] == [4, 5]
    assert max(target.head("trimmed").base, target.head("trimmed").trim) == 3
    assert copy_session(store, target, "trimmed").new == 0
    (told,) = read_bundle(target, write_bundle(store, ["forked"]))
    assert told == Copied(session="forked", events=5, new=5)
    assert target.head("forked").base == 40
    assert log(target, "forked") == log(store, "forked")


def test_any_changed_byte_is_refused_and_hides_no_other_session(target: Store) -> None:
    with holdfast.open("memory://") as store:
        for id in ("a", "b"):
            store.session(id, created_at=1).append(Event(payload=user(f"in {id}"), at=2))
        lines = list(write_bundle(store, ["a", "b"]))
    for at in range(9, len(lines[1]) - 2, 7):
        changed = lines[1][:at] + bytes([lines[1][at] ^ 1]) + lines[1][at + 1 :]
        told = {c.session: c.error for c in read_bundle(target, [lines[0], changed, *lines[2:]])}
        assert isinstance(told["a"], Corrupt), changed
        assert told["b"] is None
    assert [m.text for m in target.session("b").messages()] == ["in b"]


def three(store: Store) -> list[bytes]:
    """A bundle of three sessions, three lines each: head, entry, end."""
    for id in "abc":
        store.session(id).append(user(id))
    return list(write_bundle(store, "abc"))


@pytest.mark.parametrize("before", ["sound", "refused"])
@pytest.mark.parametrize("how", ["changed", "gone"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_session_without_a_sound_head_is_told_and_hides_no_other(
    target: Store, which: int, how: str, before: str
) -> None:
    with holdfast.open("memory://") as store:
        lines = three(store)
    if before == "refused" and which:  # the lines before the missing head are passed over, not read
        target.session("abc"[which - 1]).append(user("went its own way"))
    at = 3 * which
    lines[at : at + 1] = [lines[at].replace(b'"session":', b'"sessi0n":')] if how == "changed" else []
    told = list(read_bundle(target, lines))
    assert [c.session for c in told] == ["" if n == which else "abc"[n] for n in range(3)]
    assert isinstance(told[which].error, Corrupt)
    refused = {which - 1} if before == "refused" else set()
    assert all((c.error is None) == (n not in {which, *refused}) for n, c in enumerate(told))


@pytest.mark.parametrize("field", ["body64", "data"])
def test_bytes_that_are_no_base64_are_damage(target: Store, field: str) -> None:
    line: dict[str, object] = {"seq": 1, "body64": "abc"} if field == "body64" else {"blob": "ab" * 32, "data": "abc"}
    text = [sealed({"holdfast": 1, "session": "k", "last": 1}), sealed(line), sealed({"end": "k", "events": 1})]
    (told,) = read_bundle(target, text)
    assert isinstance(told.error, Corrupt)
    assert "base64" in told.error.message


def sealed(line: dict[str, object]) -> bytes:
    rest = json.dumps(line, separators=(",", ":")).encode()
    return b'{"crc":"%08x",%s\n' % (zlib.crc32(rest), rest[1:])


@pytest.mark.parametrize("lines", [[b"{}\n"], [b'{"type":"user"}\n'], [b"\xff\x00"], [b""]])
def test_what_is_no_bundle_is_refused(target: Store, lines: list[bytes]) -> None:
    assert not is_bundle(lines[0])
    with pytest.raises(Invalid):
        list(read_bundle(target, lines))


def test_a_missing_large_value_is_told_by_copy_and_bundle(full: Store, target: Store) -> None:
    full.backend.blobs.delete(full.backend.blobs.scan()[0])
    with pytest.raises(Corrupt):
        copy_session(full, target, "s")
    (told,) = read_bundle(target, write_bundle(full, ["s"]))
    assert isinstance(told.error, Corrupt)


def test_jq_reads_every_line(full: Store, tmp_path: Path) -> None:
    """Also lone surrogates, NUL and numbers of any size."""
    full.documents.put("notes/x.md", "# X")
    packed = full.backup(str(tmp_path / "b.jsonl.zst")).path
    with zstandard.open(packed, "rb") as file:
        text = file.read().decode()
    lines = text.splitlines()
    assert jq.compile("keys | length > 0").input_text(text).all() == [True] * len(lines)
    assert jq.compile("select(.session).session").input_text(text).all() == ["s"]
    words = jq.compile('select(.seq).body | select(.type == "message").parts[] | select(.type == "text").content')
    assert words.input_text(text).first() == "Hi"
    sound = jq.compile("select(.lines) | [.lines, .sessions, .documents]")
    assert sound.input_text(text).all() == [[len(lines) - 1, 1, 1]]
