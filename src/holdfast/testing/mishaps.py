"""What becomes of the files of a closed store: a torn write behind the last one, an index that is lost or old."""

from __future__ import annotations

import os
from pathlib import Path

from holdfast.backend import Backend
from holdfast.plan import Commit, Refused
from holdfast.testing.subject import Subject, created, done, entries, entry, head, hits, ref, text_of, texts


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
        """Bytes that can't be compressed, and words, which stand in an index as they are."""
        noise = [os.urandom(64) for _ in range(60)]
        logs = [(f"s{n}", [entry(f"secretive{n} apple"), entry(noise[n]), entry("kept pear")]) for n in range(60)]
        backend.commit([Commit(ref=ref(id), if_rev=0, tags={"secretive": id}, append=log) for id, log in logs])
        assert len(hits(backend, "apple")) == 60
        created(backend, "fresh", append=entries("secretive long " * 9999))
        gone = [Commit(ref=ref(f"s{n}"), delete=True) for n in range(0, 60, 2)]
        cut = [Commit(ref=ref(f"s{n}"), trim=2, tags={"secretive": None}) for n in range(1, 60, 2)]
        assert not any(isinstance(result, Refused) for result in backend.commit([*gone, *cut]))
        done(backend, "fresh", delete=True)
        backend.compact()
        if self.persistent:
            backend.close()
            for path in [path for path in place.rglob("*") if path.is_file()]:
                content = path.read_bytes()
                assert b"cretive" not in content, path  # an index may share the beginnings of words
                assert not any(bytes in content for bytes in noise), path
            backend = self.make(place, text_of)
        backend.compact()
        assert len(hits(backend, "pear")) == 30
        assert hits(backend, "apple") == set()
        assert backend.verify() == []
        backend.close()

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
