"""What becomes of the files of a closed store: a torn write behind the last one, an index that is lost or old."""

from __future__ import annotations

from pathlib import Path

from holdfast.backend import Backend
from holdfast.testing.subject import Subject, created, done, entries, head, hits, ref, text_of, texts


class MishapContract(Subject):
    """Examples for `tear` and `derived`; a backend that names no such files has nothing to lose here."""

    def test_a_torn_write_is_in_nobodys_way(self, backend: Backend, place: Path) -> None:
        if not self.persistent:
            return
        created(backend, append=entries("one", "two"))
        for text, last in (("three", 3), ("four", 4)):
            backend.close()
            self.tear(place)
            backend = self.make(place, text_of)
            assert done(backend, append=entries(text)).last == last
        self._lose(backend, place)
        self._holds(place, "one", "two", "three", "four")

    def test_an_index_that_is_lost_is_built_anew(self, backend: Backend, place: Path) -> None:
        if not self.persistent:
            return
        created(backend, tags={"user": "ann"}, append=entries("one", "two"))
        self._lose(backend, place)
        self._holds(place, "one", "two")

    def test_an_index_that_is_old_is_not_believed(self, backend: Backend, place: Path) -> None:
        if not self.persistent:
            return
        created(backend, tags={"user": "bob"}, append=entries("one"))
        backend.close()
        old = {path: path.read_bytes() for path in self.derived(place)}
        backend = self.make(place, text_of)
        done(backend, append=entries("two"), tags={"user": "ann"})
        self._lose(backend, place)
        for path, content in old.items():
            path.write_bytes(content)
        self._holds(place, "one", "two")

    def test_nothing_is_left_of_what_was_deleted_once_it_is_compact(self, backend: Backend, place: Path) -> None:
        """Words that come once, and often; of one log and of some; those that are indexed and those that are not."""
        for number in range(60):
            created(backend, f"s{number}", append=entries(f"secretword{number} apple", "kept pear"))
        assert len(hits(backend, "apple")) == 60
        created(backend, "trimmed", append=entries("secretbeginning", "kept pear"))
        created(backend, "fresh", tags={"title": "secrettitle"}, append=entries("secretfresh " + "secretlong " * 9999))
        for number in range(0, 60, 2):
            done(backend, f"s{number}", delete=True)
        for number in range(1, 60, 2):
            done(backend, f"s{number}", trim=1)
        done(backend, "trimmed", trim=1)
        done(backend, "fresh", delete=True)
        backend.compact()
        backend.compact()
        assert len(hits(backend, "pear")) == 31
        assert hits(backend, "apple") == set()
        assert backend.verify() == []
        if not self.persistent:
            return
        backend.close()
        files = [path for path in place.rglob("*") if path.is_file()]
        assert files
        for path in files:
            assert b"secret" not in path.read_bytes(), path

    def test_a_store_that_is_compact_goes_on(self, backend: Backend, place: Path) -> None:
        created(backend, append=entries("one"))
        backend.compact()
        assert done(backend, append=entries("two")).last == 2
        assert hits(backend, "two") == {("s", 2)}
        backend.compact()
        if self.persistent:
            backend = self.reopen(backend, place)
        assert done(backend, append=entries("three")).last == 3
        assert texts(backend.read(ref())) == ["one", "two", "three"]
        assert backend.verify() == []
        backend.close()

    def _lose(self, backend: Backend, place: Path) -> None:
        backend.close()
        for path in self.derived(place):
            path.unlink()

    def _holds(self, place: Path, *expected: str) -> None:
        backend = self.make(place, text_of)
        try:
            assert texts(backend.read(ref())) == list(expected)
            assert head(backend).last == len(expected)
            for number, text in enumerate(expected, 1):
                assert hits(backend, text) == {("s", number)}
            assert backend.find("session", {"user": "bob"}) == []
            assert backend.verify() == []
        finally:
            backend.close()
