"""What a commit does to a head: preconditions, tags, counters, body, deletion; and that ids are exact."""

from __future__ import annotations

from pathlib import Path

from holdfast.backend import Backend
from holdfast.plan import MAX_COUNT, MAX_COUNTERS, MAX_HEAD_TAGS, MAX_TAGS, TRASHED, Commit, Head, Refused
from holdfast.testing.subject import Subject, created, done, entries, entry, head, ids, ref, refused, seqs, texts

IDS = (
    "a/b", "a_b", "A/B", "a..b", "a b", "a\\b", "a:b", "a%2Fb", "../x", "/etc/x", ".", "..", "~", "CON", "con", "nul",
    "con.txt", "x.", "x", "x ", "X", "é", "e\u0301", "É", "\u0131", "i", "İ", "ß", "ss", "ﬁ", "fi", "\U0001f980",
    "日本語", "שלום", "\u200b", "-rf", "'; DROP TABLE heads; --", '"', "*", "a?b#c", "{a}", "$HOME", "x" * 512,
    "é" * 256, "0", "00", "\uff10", "\uffff", "\U00010000",
)  # fmt: skip
"""Ids that some file system or engine folds into one another, or takes for something else."""

BODIES = (
    b"", b"{}", b'{"b":1,  "a":1.0 }', b'{"a":1,"a":2}', b"\x00\xff\xfe", bytes(range(256)), b"\r\n", b"null",
    b'"\\ud800"', "é\u0000".encode(), b"1E400", b"\xef\xbb\xbf{}", b"x" * 100_000,
)  # fmt: skip
"""Bytes that must come back as they went in, whatever they look like."""


class HeadContract(Subject):
    """Examples for `commit` and `get`."""

    def test_nothing_is_there_at_first(self, backend: Backend) -> None:
        assert backend.get([ref("a"), ref("b")]) == [None, None]
        assert backend.get([]) == []
        assert backend.commit([]) == []
        assert backend.read(ref("a")) == []
        assert backend.find("session", {}) == []

    def test_a_created_head_holds_what_was_given(self, backend: Backend) -> None:
        made = created(backend, at=7, tags={"user": "ann"}, add={"n": 2}, body=b"{}", append=entries("one", "two"))
        expected = Head(ref(), 1, 2, 0, 0, 7, {"user": "ann"}, {"n": 2}, b"{}")
        assert made == expected
        assert head(backend) == expected

    def test_heads_come_in_the_order_they_were_asked_for(self, backend: Backend) -> None:
        for id in ("a", "b", "c"):
            created(backend, id)
        found = backend.get([ref("c"), ref("nobody"), ref("a"), ref("c")])
        assert [h and h.ref.id for h in found] == ["c", None, "a", "c"]

    def test_many_heads_are_got_at_once(self, backend: Backend) -> None:
        names = [ref(f"s{n}") for n in range(1200)]
        backend.commit([Commit(ref=name, if_rev=0) for name in names])
        assert [h and h.ref for h in backend.get(names)] == names

    def test_only_revision_zero_creates(self, backend: Backend) -> None:
        assert refused(backend, append=entries("lost")) == "missing"
        assert refused(backend, if_rev=1) == "missing"
        assert refused(backend, if_last=0) == "missing"
        assert refused(backend, delete=True) == "missing"
        assert refused(backend, tags={"a": "b"}, add={"n": 1}) == "missing"

    def test_creating_twice_is_refused(self, backend: Backend) -> None:
        created(backend, tags={"user": "ann"})
        assert refused(backend, if_rev=0, tags={"user": "bob"}, append=entries("x")) == "rev"

    def test_a_creation_keeps_its_other_preconditions(self, backend: Backend) -> None:
        assert refused(backend, if_rev=0, if_last=1) == "last"
        assert refused(backend, if_rev=0, if_tags={"turn": "t1"}) == "tags"
        created(backend, if_last=0, if_tags={"turn": None})

    def test_every_commit_counts_one_revision(self, backend: Backend) -> None:
        revs = [created(backend).rev, done(backend).rev, done(backend, append=entries("a", "b")).rev]
        assert [*revs, done(backend, tags={"a": "b"}, if_rev=3).rev] == [1, 2, 3, 4]

    def test_a_wrong_revision_is_refused(self, backend: Backend) -> None:
        created(backend)
        done(backend, tags={"a": "1"})
        for stale in (1, 3, 0):
            assert refused(backend, if_rev=stale, tags={"a": "2"}, append=entries("x"), add={"n": 1}) == "rev"
        assert done(backend, if_rev=2).rev == 3

    def test_a_wrong_position_is_refused(self, backend: Backend) -> None:
        created(backend, append=entries("one", "two"))
        for wrong in (0, 1, 3):
            assert refused(backend, if_last=wrong, append=entries("x")) == "last"
        assert done(backend, if_last=2, append=entries("three")).last == 3

    def test_tags_that_do_not_hold_are_refused(self, backend: Backend) -> None:
        created(backend, tags={"turn": "t1", "state": "running"})
        assert refused(backend, if_tags={"turn": "t2"}, append=entries("x")) == "tags"
        assert refused(backend, if_tags={"turn": None}, append=entries("x")) == "tags"
        assert refused(backend, if_tags={"other": "t1"}) == "tags"
        assert refused(backend, if_tags={"turn": "t1", "state": "idle"}) == "tags"
        done(backend, if_tags={"turn": "t1", "state": "running", "other": None}, append=entries("y"))
        assert head(backend).last == 1

    def test_tags_are_set_replaced_and_removed(self, backend: Backend) -> None:
        created(backend, tags={"a": "1", "b": "2", "c": "", "gone": None})
        assert head(backend).tags == {"a": "1", "b": "2", "c": ""}
        done(backend, tags={"a": "one", "b": None, "nobody": None, "d": "4"})
        assert head(backend).tags == {"a": "one", "c": "", "d": "4"}
        done(backend, tags={})
        assert head(backend).tags == {"a": "one", "c": "", "d": "4"}

    def test_tags_keep_any_text(self, backend: Backend) -> None:
        tags = {id: id for id in IDS} | {"lines": "a\nb\tc", "long": "x" * 2048}
        created(backend, tags=tags)
        assert head(backend).tags == tags

    def test_defaults_are_set_only_where_nothing_is(self, backend: Backend) -> None:
        created(backend, defaults={"title": "first"}, tags={"user": "ann"})
        done(backend, defaults={"title": "second", "name": "n"})
        assert head(backend).tags == {"user": "ann", "title": "first", "name": "n"}
        done(backend, defaults={"title": "third", "x": "default"}, tags={"x": "given", "title": None})
        assert head(backend).tags == {"user": "ann", "name": "n", "x": "given"}
        done(backend, tags={"name": ""})
        done(backend, defaults={"name": "again"})
        assert head(backend).tags["name"] == ""

    def test_a_head_takes_so_many_tags_from_any_number_of_commits(self, backend: Backend) -> None:
        names = [f"t{n}" for n in range(MAX_HEAD_TAGS)]
        created(backend, append=entries("one"))
        for start in range(0, MAX_HEAD_TAGS, MAX_TAGS):
            done(backend, tags=dict.fromkeys(names[start : start + MAX_TAGS], "x"))
        assert refused(backend, tags={"more": "x"}, append=entries("lost")) == "full"
        assert refused(backend, defaults={"more": "x"}, add={"n": 1}) == "full"
        done(backend, tags={"t0": "y"}, defaults={"t1": "z"}, append=entries("two"))
        done(backend, tags={"t2": None, "more": "x"})
        assert head(backend).tags == {n: "x" for n in (*names, "more") if n != "t2"} | {"t0": "y"}

    def test_a_full_head_refuses_for_its_writer_alone(self, backend: Backend) -> None:
        created(backend, "full")
        for part in range(MAX_HEAD_TAGS // MAX_TAGS):
            done(backend, "full", tags={f"{part} {n}": "" for n in range(MAX_TAGS)})
        results = backend.commit(
            [
                Commit(ref=ref("full"), append=entries("one")),
                Commit(ref=ref("full"), tags={"more": "x"}, append=entries("lost")),
                Commit(ref=ref("other"), if_rev=0, append=entries("beside")),
                Commit(ref=ref("full"), append=entries("two")),
            ]
        )
        assert [r.why if isinstance(r, Refused) else r.last for r in results] == [1, "full", 1, 2]
        assert texts(backend.read(ref("full"))) == ["one", "two"]

    def test_a_head_takes_so_many_counters(self, backend: Backend) -> None:
        created(backend, add={f"n{n}": 1 for n in range(MAX_COUNTERS)})
        assert refused(backend, add={"n0": 1, "more": 1}) == "full"
        assert done(backend, add={"n0": 1}).counts["n0"] == 2
        assert refused(backend, "other", if_rev=0, add={f"n{n}": 1 for n in range(MAX_COUNTERS + 1)}) == "full"

    def test_counters_add_up(self, backend: Backend) -> None:
        created(backend, add={"n": 5, "m": -1})
        done(backend, add={"n": 2})
        done(backend, add={"n": -10, "k": 0})
        assert head(backend).counts == {"n": -3, "m": -1, "k": 0}

    def test_counters_stop_at_their_limit(self, backend: Backend) -> None:
        created(backend, add={"up": MAX_COUNT, "down": -MAX_COUNT})
        done(backend, add={"up": MAX_COUNT, "down": -1})
        assert head(backend).counts == {"up": MAX_COUNT, "down": -MAX_COUNT}

    def test_a_body_comes_back_byte_for_byte(self, backend: Backend) -> None:
        created(backend)
        for body in BODIES:
            assert done(backend, body=body).body == body
            assert head(backend).body == body
            done(backend, append=entries("x"))
            assert head(backend).body == body

    def test_the_last_activity_never_goes_back(self, backend: Backend) -> None:
        created(backend, at=10)
        assert [done(backend, at=at).at for at in (5, 0, 10, 11, 3)] == [10, 10, 10, 11, 11]
        assert head(backend).at == 11

    def test_a_deleted_head_is_a_tombstone(self, backend: Backend) -> None:
        created(
            backend, at=3, tags={"user": "ann"}, add={"n": 1}, body=b"{}", append=[entry("one", "k1"), entry("two")]
        )
        dead = done(backend, at=5, delete=True)
        assert dead == Head(ref(), 2, 2, 2, 0, 5, dead=True)
        assert backend.get([ref()]) == [dead]
        assert backend.read(ref(), voided=True) == []
        assert backend.find("session", {}) == []

    def test_a_deletion_keeps_its_preconditions(self, backend: Backend) -> None:
        created(backend, append=entries("one"), tags={"turn": "t1"})
        assert refused(backend, delete=True, if_rev=7) == "rev"
        assert refused(backend, delete=True, if_last=0) == "last"
        assert refused(backend, delete=True, if_tags={"turn": None}) == "tags"
        assert done(backend, delete=True, if_rev=1, if_last=1, if_tags={"turn": "t1"}).dead

    def test_an_id_is_taken_away_before_it_was_used(self, backend: Backend) -> None:
        dead = done(backend, at=5, if_rev=0, delete=True)
        assert dead == Head(ref(), 1, at=5, dead=True)
        assert refused(backend, if_rev=0) == "deleted"
        assert refused(backend, if_rev=0, delete=True) == "deleted"
        assert refused(backend, append=entries("late")) == "deleted"
        assert backend.get([ref()]) == [dead]
        assert backend.find("session", {}) == []
        assert backend.find("session", {}, dead=True) == [dead]
        assert backend.read(ref()) == []
        assert backend.verify() == []
        assert done(backend, if_rev=1, append=entries("anew")).last == 1

    def test_a_late_writer_does_not_bring_a_deleted_head_back(self, backend: Backend) -> None:
        created(backend, append=entries("one"))
        done(backend, delete=True)
        assert refused(backend, append=entries("late")) == "deleted"
        assert refused(backend, append=entries("late"), if_last=1) == "deleted"
        assert refused(backend, if_rev=0) == "deleted"
        assert refused(backend, if_rev=1, append=entries("late")) == "deleted"
        assert refused(backend, delete=True) == "deleted"

    def test_whoever_saw_the_tombstone_may_create_anew(self, backend: Backend) -> None:
        created(
            backend, at=9, tags={"user": "ann"}, add={"n": 3}, body=b"old", append=[entry("one", "k"), entry("two")]
        )
        dead = done(backend, at=9, delete=True)
        again = done(backend, at=4, if_rev=dead.rev, tags={"user": "bob"}, append=[entry("three", "k")])
        assert again == Head(ref(), 3, 3, 2, 0, 4, {"user": "bob"})
        assert seqs(backend.read(ref())) == [3]
        assert texts(backend.read(ref(), ids=["k"])) == ["three"]
        assert ids(backend.find("session", {"user": "bob"})) == ["s"]
        assert backend.find("session", {"user": "ann"}) == []

    def test_what_was_put_away_is_changed_only_by_who_says_so(self, backend: Backend) -> None:
        created(backend, at=5, tags={"user": "ann"}, append=[entry("one", "k")])
        away = done(backend, tags={TRASHED: "7"})
        assert away == Head(ref(), 2, 1, 0, 0, 5, {"user": "ann", TRASHED: "7"})
        assert refused(backend, append=entries("late")) == "trashed"
        assert refused(backend, append=entries("late"), if_last=1, if_rev=2, if_tags={"user": "ann"}) == "trashed"
        assert refused(backend, append=[entry("one", "k")]) == "known"
        assert refused(backend, tags={TRASHED: None}) == "trashed"
        assert refused(backend, delete=True) == "trashed"
        assert refused(backend, if_rev=0) == "trashed"
        assert refused(backend, append=entries("late"), if_tags={TRASHED: None}) == "tags"
        assert refused(backend, delete=True, if_tags={TRASHED: "8"}) == "tags"
        back = done(backend, if_tags={TRASHED: "7"}, tags={TRASHED: None})
        assert back == Head(ref(), 3, 1, 0, 0, 5, {"user": "ann"})
        assert done(backend, append=entries("two")).last == 2
        done(backend, tags={TRASHED: "9"})
        assert done(backend, delete=True, if_tags={TRASHED: "9"}).dead

    def test_a_log_may_start_behind_a_base(self, backend: Backend) -> None:
        made = created(backend, base=7, append=entries("eight", "nine"))
        assert (made.base, made.last) == (7, 9)
        assert seqs(backend.read(ref())) == [8, 9]
        assert refused(backend, if_rev=0, base=7) == "rev"
        assert created(backend, "empty", base=3, if_last=3).last == 3

    def test_commits_of_a_batch_stand_each_on_its_own(self, backend: Backend) -> None:
        created(backend, "a")
        results = backend.commit(
            [
                Commit(ref=ref("a"), if_last=0, append=entries("one")),
                Commit(ref=ref("a"), if_last=0, append=entries("stale")),
                Commit(ref=ref("nobody"), append=entries("lost")),
                Commit(ref=ref("b"), if_rev=0, tags={"x": "1"}, append=[entry("two", "k")]),
                Commit(ref=ref("b"), append=[entry("again"), entry("two", "k")]),
                Commit(ref=ref("a"), if_last=1, append=entries("three")),
                Commit(ref=ref("b"), delete=True),
                Commit(ref=ref("b"), append=entries("late")),
                Commit(ref=ref("b"), if_rev=2, append=entries("anew")),
            ]
        )
        said = [r.why if isinstance(r, Refused) else (r.rev, r.last) for r in results]
        assert said == [(2, 1), "last", "missing", (1, 1), "known", (3, 2), (2, 1), "deleted", (3, 2)]
        assert texts(backend.read(ref("a"))) == ["one", "three"]
        assert texts(backend.read(ref("b"))) == ["anew"]
        assert backend.get([ref("nobody")]) == [None]

    def test_ids_are_exact(self, backend: Backend, place: Path) -> None:
        for number, id in enumerate(IDS):
            created(backend, id, tags={"number": str(number)}, append=entries(f"n{number}"))
        backend = self.reopen(backend, place) if self.persistent else backend
        try:
            for number, id in enumerate(IDS):
                assert head(backend, id).tags == {"number": str(number)}, id
                assert texts(backend.read(ref(id))) == [f"n{number}"], id
            assert sorted(ids(backend.find("session", {}))) == sorted(IDS)
        finally:
            backend.close()

    def test_kinds_do_not_mix(self, backend: Backend) -> None:
        created(backend, ref("x", "session"), append=entries("one"))
        created(backend, ref("x", "doc"), append=entries("two"))
        assert texts(backend.read(ref("x", "doc"))) == ["two"]
        done(backend, ref("x", "doc"), delete=True)
        assert texts(backend.read(ref("x", "session"))) == ["one"]
        assert backend.find("doc", {}) == []
