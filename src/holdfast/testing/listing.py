"""How heads are found: by tags, newest first, page by page; and by id."""

from __future__ import annotations

from holdfast.backend import Backend
from holdfast.plan import TRASHED, Head
from holdfast.testing.heads import IDS
from holdfast.testing.subject import Subject, created, done, entries, head, hits, ids, ref, texts


def pages(backend: Backend, size: int, tags: dict[str, str | None]) -> list[Head]:
    """All heads, page by page."""
    found: list[Head] = []
    after: tuple[int, str] | None = None
    while page := backend.find("session", tags, after=after, limit=size):
        assert len(page) <= size
        assert page.damaged == (), "what is sound is said to be damaged"
        assert after is None or (page[0].at, page[0].ref.id) < after, "a page begins above where the one before ended"
        found += page
        after = (page[-1].at, page[-1].ref.id)
    return found


class FindContract(Subject):
    """Examples for `find` and `scan`."""

    def test_the_newest_comes_first(self, backend: Backend) -> None:
        for id, at in (("a", 2), ("b", 9), ("c", 5)):
            created(backend, id, at=at)
        assert ids(backend.find("session", {})) == ["b", "c", "a"]
        done(backend, "a", at=10, append=entries("x"))
        done(backend, "b", at=1, append=entries("x"))
        assert ids(backend.find("session", {})) == ["a", "b", "c"]
        assert ids(backend.find("session", {}, limit=2)) == ["a", "b"]

    def test_equal_times_are_ordered_by_id_code_point_by_code_point(self, backend: Backend) -> None:
        for id in IDS:
            created(backend, id, at=1)
        assert ids(backend.find("session", {})) == sorted(IDS, reverse=True)

    def test_what_is_found_is_the_head_as_it_is(self, backend: Backend) -> None:
        created(backend, at=3, tags={"user": "ann"}, add={"n": 1}, body=b"b", append=entries("one"))
        assert backend.find("session", {"user": "ann"}) == [head(backend)]

    def test_all_tags_must_be_carried(self, backend: Backend) -> None:
        created(backend, "a", at=1, tags={"user": "ann", "state": "idle"})
        created(backend, "b", at=2, tags={"user": "ann", "state": "running", "label:x": "1"})
        created(backend, "c", at=3, tags={"user": "bob", "state": "idle", "empty": ""})
        created(backend, "d", at=4)
        assert ids(backend.find("session", {"user": "ann"})) == ["b", "a"]
        assert ids(backend.find("session", {"user": "ann", "state": "idle"})) == ["a"]
        assert ids(backend.find("session", {"state": "idle"})) == ["c", "a"]
        assert ids(backend.find("session", {"user": "Ann"})) == []
        assert ids(backend.find("session", {"nobody": "x"})) == []
        assert ids(backend.find("session", {"empty": ""})) == ["c"]

    def test_none_asks_for_the_lack_of_a_tag(self, backend: Backend) -> None:
        created(backend, "a", at=1, tags={"user": "ann"})
        created(backend, "b", at=2, tags={"user": "ann", "trash": "1"})
        created(backend, "c", at=3, tags={"trash": ""})
        created(backend, "d", at=4)
        assert ids(backend.find("session", {"trash": None})) == ["d", "a"]
        assert ids(backend.find("session", {"trash": None, "user": "ann"})) == ["a"]
        assert ids(backend.find("session", {"user": None, "trash": None})) == ["d"]

    def test_a_changed_tag_is_found_at_once(self, backend: Backend) -> None:
        created(backend, tags={"state": "idle"})
        assert ids(backend.find("session", {"state": "idle"})) == ["s"]
        done(backend, tags={"state": "running", "new": "1"})
        assert backend.find("session", {"state": "idle"}) == []
        assert ids(backend.find("session", {"state": "running"})) == ["s"]
        assert backend.find("session", {"new": None}) == []
        done(backend, tags={"state": None}, defaults={"title": "t"})
        assert backend.find("session", {"state": "running"}) == []
        assert ids(backend.find("session", {"state": None, "title": "t"})) == ["s"]

    def test_deleted_heads_are_not_found(self, backend: Backend) -> None:
        created(backend, "a", tags={"user": "ann"})
        created(backend, "b", tags={"user": "ann"})
        done(backend, "a", delete=True)
        assert ids(backend.find("session", {})) == ["b"]
        assert ids(backend.find("session", {"user": "ann"})) == ["b"]
        assert ids(backend.find("session", {"user": None})) == []

    def test_tombstones_are_found_when_asked_for(self, backend: Backend) -> None:
        for number, id in enumerate("abcd"):
            created(backend, id, at=number)
        assert backend.find("session", {}, dead=True) == []
        for number, id in enumerate("cab"):
            done(backend, id, at=10 + number, delete=True)
        assert ids(backend.find("session", {}, dead=True)) == ["b", "a", "c"]
        assert ids(backend.find("session", {}, dead=True, limit=1)) == ["b"]
        assert ids(backend.find("session", {}, dead=True, after=(12, "b"))) == ["a", "c"]
        assert all(h.dead for h in backend.find("session", {}, dead=True))
        done(backend, "a", at=20, if_rev=head(backend, "a").rev)  # anew
        assert ids(backend.find("session", {}, dead=True)) == ["b", "c"]

    def test_what_was_put_away_is_found_only_when_asked_for(self, backend: Backend) -> None:
        for number, id in enumerate("abcd"):
            created(backend, id, at=number, tags={"user": "ann"}, append=entries("apple"))
        for id in "ca":
            done(backend, id, tags={TRASHED: id})
        assert ids(backend.find("session", {})) == ids(backend.find("session", {"user": "ann"})) == ["d", "b"]
        assert ids(backend.find("session", {"user": "ann"}, limit=1)) == ["d"]
        assert ids(backend.scan("session")) == ["b", "d"]
        assert ids(backend.find("session", {}, dead=True)) == []
        for tags in ({}, {"user": "ann"}):
            assert ids(backend.find("session", tags, trashed=True)) == ["c", "a"]
        assert ids(backend.find("session", {TRASHED: "a"}, trashed=True)) == ["a"]
        assert ids(backend.find("session", {}, trashed=True, limit=1)) == ["c"]
        assert ids(backend.find("session", {}, trashed=True, after=(2, "c"))) == ["a"]
        assert ids(backend.scan("session", trashed=True)) == ["a", "c"]
        assert ids(backend.scan("session", "a", 1, trashed=True)) == ["c"]
        assert hits(backend, "apple") == {("b", 1), ("d", 1)}
        assert hits(backend, "apple", id="a") == set()
        assert texts(backend.read(ref("a"))) == ["apple"]
        done(backend, "a", if_tags={TRASHED: "a"}, tags={TRASHED: None})
        assert ids(backend.find("session", {})) == ["d", "b", "a"]
        assert ids(backend.find("session", {}, trashed=True)) == ["c"]
        assert hits(backend, "apple", id="a") == {("a", 1)}
        done(backend, "c", if_tags={TRASHED: "c"}, delete=True)
        assert ids(backend.find("session", {}, trashed=True)) == []
        assert ids(backend.find("session", {}, dead=True)) == ["c"]

    def test_pages_leave_nothing_out_and_tell_nothing_twice(self, backend: Backend) -> None:
        expected: list[tuple[int, str]] = []
        for number in range(23):
            at, id = number // 9, f"s{number % 9}{number}"
            created(backend, id, at=at, tags={"odd": "1"} if number % 2 else None)
            expected.append((at, id))
        expected.sort(reverse=True)
        for size in (1, 2, 5, 9, 22, 23, 24):
            assert [(h.at, h.ref.id) for h in pages(backend, size, {})] == expected
            odd = [h.ref.id for h in pages(backend, size, {"odd": "1"})]
            assert sorted(odd) == sorted(f"s{n % 9}{n}" for n in range(1, 23, 2))

    def test_a_page_may_start_where_nothing_is(self, backend: Backend) -> None:
        created(backend, "b", at=5)
        created(backend, "d", at=5)
        assert ids(backend.find("session", {}, after=(5, "c"))) == ["b"]
        assert ids(backend.find("session", {}, after=(6, ""))) == ["d", "b"]
        assert ids(backend.find("session", {}, after=(5, ""))) == []
        assert ids(backend.find("session", {}, after=(4, "z"))) == []

    def test_a_scan_goes_by_id_whatever_becomes_active(self, backend: Backend) -> None:
        for number, id in enumerate(IDS):
            created(backend, id, at=number, tags={"user": "ann"}, append=entries("x"))
        created(backend, "dead")
        done(backend, "dead", delete=True)
        created(backend, ref("0", "doc"))
        assert backend.scan("session") == backend.get([ref(id) for id in sorted(IDS)])
        for size in (1, 2, len(IDS)):
            found: list[str] = []
            while page := backend.scan("session", found[-1] if found else "", size):
                assert len(page) <= size
                found += ids(page)
                for id in (min(IDS), max(IDS)):
                    done(backend, id, at=99, append=entries("active"))
            assert found == sorted(IDS)
        assert backend.scan("session", max(IDS)) == []

    def test_another_kind_is_not_found(self, backend: Backend) -> None:
        created(backend, ref("a", "doc"), tags={"user": "ann"})
        assert backend.find("session", {}) == []
        assert backend.find("session", {"user": "ann"}) == []
        assert ids(backend.find("doc", {"user": "ann"})) == ["a"]
