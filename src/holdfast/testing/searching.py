"""How entries are found by their words. Which ones is law; how they are ranked is the engine's own."""

from __future__ import annotations

from pathlib import Path

from holdfast import search
from holdfast.backend import Backend, Hit
from holdfast.plan import Commit, Range
from holdfast.testing.subject import Subject, created, done, entries, entry, hits, ref


def _found(backend: Backend, query: str, **options: object) -> list[Hit]:
    node = search.parse(query)
    assert node is not None
    return backend.search("session", node, **options)  # pyright: ignore[reportArgumentType]  # the options of `search`


class SearchContract(Subject):
    """Examples for `search` and `index`."""

    def test_an_entry_is_found_by_the_next_search(self, backend: Backend) -> None:
        created(backend, append=entries("red apple"))
        assert hits(backend, "apple") == {("s", 1)}
        for number in range(2, 6):
            done(backend, append=entries(f"apple {number}"))
            assert hits(backend, "apple") == {("s", n) for n in range(1, number + 1)}

    def test_a_query_hits_what_its_tree_says(self, backend: Backend) -> None:
        lines = [
            "red apple", "green apple pie", "apple red", "banana", "Redapple", "", "crème brûlée", "日本語の文書",
            "and or not near", 'quoted "apple" col:x', "getUserName",
        ]  # fmt: skip
        created(backend, append=entries(*lines))
        for query in (
            "apple", "red apple", '"red apple"', "app*", "apple -green", "pie OR banana", "(apple AND red)", "AND",
            "NEAR(", "col:x", "creme", "本語", "getusername", "user", "nowhere", "*", "apple* -red OR pie",
            "-apple banana",
        ):  # fmt: skip
            node = search.parse(query)
            if node is not None:
                expected = {("s", n) for n, t in enumerate(lines, 1) if search.matches(node, search.normalise(t))}
                assert hits(backend, query) == expected, query

    def test_a_hit_carries_the_entry_as_it_is_read(self, backend: Backend) -> None:
        created(backend, append=[entry("apple", "k", at=-7)])
        found = _found(backend, "apple")
        assert [(h.ref, h.entry) for h in found] == [(ref(), backend.read(ref())[0])]

    def test_hidden_entries_are_not_hit(self, backend: Backend) -> None:
        created(backend, append=[*entries("apple", "apple", "apple"), entry("apple", void=True)])
        assert hits(backend, "apple") == {("s", 1), ("s", 2), ("s", 3)}
        done(backend, void=[Range(2, 3)])
        assert hits(backend, "apple") == {("s", 1)}
        done(backend, void=[Range(3, 4, hide=False)])
        assert hits(backend, "apple") == {("s", 1), ("s", 3), ("s", 4)}

    def test_forgotten_entries_are_not_hit(self, backend: Backend) -> None:
        created(backend, append=entries("apple", "apple", "apple"))
        assert len(hits(backend, "apple")) == 3
        done(backend, trim=2)
        assert hits(backend, "apple") == {("s", 3)}

    def test_what_one_batch_forgets_twice_is_not_hit(self, backend: Backend) -> None:
        created(backend, append=entries("apple", "apple pear", "apple"))
        assert len(hits(backend, "apple")) == 3
        backend.commit([Commit(ref=ref(), trim=n, append=entries("apple")) for n in (0, 1, 2)])
        assert hits(backend, "apple") == {("s", n) for n in (3, 4, 5, 6)}
        assert hits(backend, "pear") == set()

    def test_deleted_logs_are_not_hit(self, backend: Backend) -> None:
        created(backend, append=entries("apple", "pear"))
        created(backend, "other", append=entries("apple"))
        assert len(hits(backend, "apple")) == 2
        dead = done(backend, delete=True)
        assert hits(backend, "apple") == {("other", 1)}
        done(backend, if_rev=dead.rev, append=entries("apple"))
        assert hits(backend, "apple") == {("other", 1), ("s", 3)}
        assert _found(backend, "pear") == []

    def test_a_search_keeps_to_its_kind_and_head(self, backend: Backend) -> None:
        for id in ("a", "b"):
            created(backend, id, append=entries("apple"))
        created(backend, ref("a", "doc"), append=entries("apple", "apple"))
        assert hits(backend, "apple") == {("a", 1), ("b", 1)}
        assert hits(backend, "apple", kind="doc") == {("a", 1), ("a", 2)}
        assert hits(backend, "apple", id="b") == {("b", 1)}
        assert hits(backend, "apple", id="nobody") == set()

    def test_a_search_keeps_to_tags_as_they_are_now(self, backend: Backend) -> None:
        created(backend, "a", tags={"user": "ann"}, append=entries("apple"))
        created(backend, "b", tags={"user": "bob"}, append=entries("apple"))
        created(backend, "c", append=entries("apple"))
        assert hits(backend, "apple", tags={"user": "ann"}) == {("a", 1)}
        assert hits(backend, "apple", tags={"user": None}) == {("c", 1)}
        assert hits(backend, "apple", tags={"user": "ann"}, id="b") == set()
        done(backend, "a", tags={"user": "bob"})
        assert hits(backend, "apple", tags={"user": "ann"}) == set()
        assert hits(backend, "apple", tags={"user": "bob"}) == {("a", 1), ("b", 1)}

    def test_the_best_comes_first(self, backend: Backend) -> None:
        filler = " ".join(f"word{n}" for n in range(200))
        created(backend, append=entries(f"apple {filler}", "apple apple pie", f"{filler} apple"))
        found = _found(backend, "apple")
        assert found[0].entry.seq == 2
        scores = [hit.score for hit in found]
        assert scores == sorted(scores, reverse=True)

    def test_the_newest_comes_first_when_asked_for(self, backend: Backend) -> None:
        created(backend, append=[entry(f"apple {'pie ' * n}", at=at) for n, at in enumerate((30, 10, 50, 20, 40))])
        assert [h.entry.at for h in _found(backend, "apple", newest=True)] == [50, 40, 30, 20, 10]

    def test_pages_of_hits_leave_nothing_out(self, backend: Backend) -> None:
        for id in ("a", "b"):
            created(backend, id, append=[entry("apple", at=n // 4) for n in range(15)])
        for newest in (False, True):
            for size in (1, 7, 29, 30, 31):
                found: list[tuple[str, int]] = []
                while page := _found(backend, "apple", newest=newest, offset=len(found), limit=size):
                    found += [(h.ref.id, h.entry.seq) for h in page]
                    assert len(found) <= 30, "pages tell something twice"
                assert sorted(found) == sorted((id, n) for id in ("a", "b") for n in range(1, 16))

    def test_the_index_is_complete_after_it_was_brought_up_to_date(self, backend: Backend) -> None:
        created(backend, append=entries(*["apple"] * 300))
        backend.index()
        assert backend.index() == 0
        assert len(hits(backend, "apple", limit=1000)) == 300
        done(backend, append=entries("apple"))
        done(backend, void=[Range(1, 100)])
        assert len(hits(backend, "apple", limit=1000)) == 201

    def test_a_search_agrees_after_reopening(self, backend: Backend, place: Path) -> None:
        if not self.persistent:
            return
        created(backend, append=entries("apple", "pear apple", "pear"))
        assert hits(backend, "apple") == {("s", 1), ("s", 2)}
        done(backend, append=entries("apple"), void=[Range(1, 1)])
        backend = self.reopen(backend, place)
        try:
            assert hits(backend, "apple") == {("s", 2), ("s", 4)}
            assert hits(backend, "pear") == {("s", 2), ("s", 3)}
        finally:
            backend.close()
