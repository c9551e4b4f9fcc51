"""What several threads and several openings see of each other, what outlives closing, and blobs."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from logging.handlers import BufferingHandler
from pathlib import Path

from holdfast.backend import CHUNK, Backend
from holdfast.errors import Invalid
from holdfast.plan import Commit, Head, Range, Ref, Refused
from holdfast.testing.subject import (
    Subject,
    created,
    done,
    entries,
    entry,
    eventually,
    head,
    hits,
    ref,
    refused,
    seqs,
    text_of,
)

WAIT = 20
"""Seconds within which what is allowed must have happened."""
WRITERS = 6
EACH = 25


def _append_with_retries(backend: Backend, writer: int) -> None:
    """Append at the expected position, over and over, as a careful writer does."""
    number = 0
    for _ in range(EACH * 1000):
        last = head(backend).last
        commit = Commit(ref=ref(), if_last=last, append=[entry(f"{writer}:{number}")], add={"n": 1})
        number += isinstance(backend.commit([commit])[0], Head)
        if number == EACH:
            return
    raise AssertionError(f"writer {writer} came to {number} of {EACH} appends: others always won")


def _append_and_count(backend: Backend) -> None:
    for _ in range(EACH):
        done(backend, append=entries("x"), add={"n": 1})


class SharingContract(Subject):
    """Examples for threads, reopening, `listen`, `changed`, `verify`, `info`, `close` and blobs."""

    def test_threads_lose_nothing(self, backend: Backend) -> None:
        created(backend)

        def write(writer: int) -> list[int]:
            return [
                done(backend, append=[entry(f"{writer}:{n}", f"{writer}:{n}")], add={"n": 1}).last for n in range(EACH)
            ]

        with ThreadPoolExecutor(WRITERS) as pool:
            told = list(pool.map(write, range(WRITERS)))
        assert sorted(seq for seqs in told for seq in seqs) == list(range(1, WRITERS * EACH + 1))
        log = backend.read(ref())
        assert seqs(log) == list(range(1, WRITERS * EACH + 1))
        for writer, mine in enumerate(told):
            assert [log[seq - 1].id for seq in mine] == [f"{writer}:{n}" for n in range(EACH)]
        assert (head(backend).counts, head(backend).rev) == ({"n": WRITERS * EACH}, WRITERS * EACH + 1)

    def test_expected_positions_hold_among_threads(self, backend: Backend) -> None:
        created(backend)
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(_append_with_retries, [backend] * 3, range(3)))
        assert seqs(backend.read(ref())) == list(range(1, 3 * EACH + 1))
        assert head(backend).counts == {"n": 3 * EACH}

    def test_of_many_creators_one_wins(self, backend: Backend) -> None:
        def create(number: int) -> Head | Refused:
            return backend.commit([Commit(ref=ref(), if_rev=0, tags={"by": str(number)})])[0]

        with ThreadPoolExecutor(WRITERS) as pool:
            results = list(pool.map(create, range(24)))
        winners = [r for r in results if isinstance(r, Head)]
        assert len(winners) == 1
        assert all(r.why == "rev" and r.head == winners[0] for r in results if isinstance(r, Refused))

    def test_a_reader_never_sees_half_a_commit(self, backend: Backend) -> None:
        created(backend)
        writing = threading.Event()

        def write() -> None:
            try:
                for _ in range(40):
                    done(backend, append=entries(*"abcde"), add={"n": 5})
            finally:
                writing.set()

        with ThreadPoolExecutor(1) as pool:
            written = pool.submit(write)
            while not writing.is_set():
                now = head(backend)
                assert now.last % 5 == 0
                assert now.counts.get("n", 0) == now.last
                log = seqs(backend.read(ref()))
                assert log == list(range(1, len(log) + 1))
                assert len(log) % 5 == 0
                assert len(log) >= now.last
            written.result()
        assert head(backend).last == 200

    def test_a_find_has_every_head_though_they_change_meanwhile(self, backend: Backend) -> None:
        ids = {f"h{n}" for n in range(20)}
        for id in ids:
            created(backend, id, at=1)
        stop = threading.Event()

        def change() -> None:
            at = 1
            while not stop.is_set():
                at += 1
                done(backend, f"h{at * 7 % 20}", at=at)

        with ThreadPoolExecutor(1) as pool:
            changing = pool.submit(change)
            try:
                for look in range(40):
                    found = backend.find("session", {}, limit=100)
                    assert ({head.ref.id for head in found}, list(found.damaged)) == (ids, [])
                    places = [(head.at, head.ref.id) for head in found]
                    assert places == sorted(places, reverse=True)
                    assert look % 8 or list(backend.verify()) == []
            finally:
                stop.set()
            changing.result()

    def test_everything_outlives_closing(self, backend: Backend, place: Path) -> None:
        if not self.persistent:
            return
        created(backend, at=3, tags={"user": "ann"}, add={"n": 1}, body=b"\x00b", append=[entry("one", "k1", at=-1)])
        done(backend, append=[entry("two", "k2"), entry("three")], void=[Range(1, 1)])
        created(backend, "trimmed", append=entries("a", "b", "c"))
        done(backend, "trimmed", trim=2)
        created(backend, "dead", append=entries("x"))
        done(backend, "dead", delete=True)
        created(backend, "based", base=9)
        names = [ref(id) for id in ("s", "trimmed", "dead", "based", "nobody")]

        def all_of_it() -> object:
            logs = [backend.read(name, voided=True) for name in names]
            return backend.get(names), logs, backend.find("session", {}), backend.find("session", {"user": "ann"})

        before = all_of_it()
        for _ in range(2):
            backend = self.reopen(backend, place)
            assert all_of_it() == before
        try:
            assert refused(backend, append=[entry("two", "k2")]) == "known"
            assert refused(backend, "dead", append=entries("late")) == "deleted"
            assert done(backend, append=entries("four")).last == 4
            assert backend.verify() == []
        finally:
            backend.close()

    def test_two_openings_share_one_store(self, backend: Backend, place: Path) -> None:
        if not self.persistent:
            return
        other = self.make(place, text_of)
        try:
            created(backend, tags={"user": "ann"}, append=[entry("apple", "k1")])
            assert head(other) == head(backend)
            assert done(other, append=entries("apple")).last == 2
            assert done(backend, append=entries("apple"), tags={"user": "bob"}).last == 3
            assert refused(other, append=[entry("apple", "k1")]) == "known"
            assert seqs(other.read(ref())) == seqs(backend.read(ref())) == [1, 2, 3]
            assert other.find("session", {"user": "ann"}) == []
            assert other.find("session", {"user": "bob"}) == [head(backend)]
            assert hits(other, "apple") == hits(backend, "apple") == {("s", 1), ("s", 2), ("s", 3)}
            done(other, delete=True)
            assert refused(backend, append=entries("late")) == "deleted"
            assert hits(backend, "apple") == set()
        finally:
            other.close()

    def test_two_openings_lose_nothing(self, backend: Backend, place: Path) -> None:
        if not self.persistent:
            return
        created(backend)
        other = self.make(place, text_of)
        try:
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(_append_and_count, [backend, other, backend, other]))
            assert seqs(other.read(ref())) == list(range(1, 4 * EACH + 1))
            assert head(backend).counts == {"n": 4 * EACH}
        finally:
            other.close()

    def test_a_listener_is_woken_by_a_commit(self, backend: Backend) -> None:
        woken, also = threading.Event(), threading.Event()
        stops: list[Callable[[], None]] = [backend.listen(woken.set), backend.listen(also.set)]
        created(backend)
        assert eventually(woken.is_set)
        assert eventually(also.is_set)
        stops[0]()
        stops[0]()
        also.clear()
        done(backend, append=entries("x"))
        assert eventually(also.is_set)
        stops[1]()

    def test_a_listener_that_raises_fails_no_commit_and_no_other_listener(self, backend: Backend) -> None:
        woken, told = threading.Event(), BufferingHandler(100)
        logging.getLogger("holdfast").addHandler(told)

        def fails() -> None:
            raise RuntimeError("the listener's own")

        stops: list[Callable[[], None]] = [backend.listen(fails), backend.listen(woken.set)]
        for number in range(3):
            woken.clear()
            created(backend, f"s{number}")
            assert eventually(woken.is_set)
        for stop in stops:
            stop()
        logging.getLogger("holdfast").removeHandler(told)
        assert "the listener's own" in str([record.exc_info for record in told.buffer])

    def test_logs_that_grow_are_told_whatever_their_times(self, backend: Backend, place: Path) -> None:
        for id in ("a", "b", "quiet"):
            created(backend, id, at=50, append=[entry("x", at=50)] * 3)
        other = self.make(place, text_of) if self.persistent else backend
        try:
            position, told = backend.changed()
            assert told == []
            assert backend.changed(position)[1] == []
            done(other, "a", at=1, append=[entry("x", at=-7)])
            created(other, "new", at=1, append=[entry("x", at=1)])
            after, told = backend.changed(position)
            assert {ref("a"), ref("new")} == set(told)
            assert set(backend.changed(position)[1]) == set(told)
            assert backend.changed(after)[1] == []
            # What was newest goes, and what comes then may stand where it stood.
            done(other, "new", delete=True)
            done(other, "a", trim=4)
            done(other, "b", at=1, append=entries("x", "y"))
            after, told = backend.changed(after)
            assert ref("b") in told
            done(other, "b", trim=5)
            done(other, "b", append=entries("z"))
            assert ref("b") in backend.changed(after)[1]
        finally:
            if other is not backend:
                other.close()

    def test_every_change_is_told_behind_a_position(self, backend: Backend, place: Path) -> None:
        changed = ("tagged", "gone", "gone at once", "put away", "hidden", "trimmed", "grown and gone", "anew", "empty")
        for id in ("quiet", *(id for id in changed if id not in ("gone at once", "empty"))):
            created(backend, id, at=50, append=[entry("x", at=50)] * 2)
        created(backend, ref("doc", "doc"), at=50)
        start, told = backend.changed()
        assert told == []
        done(backend, "tagged", tags={"title": "T"})
        done(backend, "gone", delete=True)
        done(backend, "put away", tags={"trashed": "1"})
        done(backend, "hidden", void=[Range(1, 2)])
        created(backend, "empty", at=1)
        done(backend, ref("doc", "doc"), add={"n": 1})
        batch = [
            Commit(ref=ref("trimmed"), append=entries("y")),
            Commit(ref=ref("trimmed"), trim=3),
            Commit(ref=ref("grown and gone"), append=entries("y")),
            Commit(ref=ref("grown and gone"), delete=True),
            Commit(ref=ref("gone at once"), if_rev=0, append=entries("y")),
            Commit(ref=ref("gone at once"), delete=True),
            Commit(ref=ref("anew"), append=entries("y")),
            Commit(ref=ref("anew"), delete=True),
            Commit(ref=ref("anew"), if_rev=3),
        ]
        assert all(isinstance(result, Head) for result in backend.commit(batch))
        whole = {*map(ref, changed), ref("doc", "doc")}
        position = start
        for _ in range(2):  # by this opening, and by the next
            position, told = backend.changed(start)
            assert set(told) == whole
            assert backend.changed(position)[1] == []
            if self.persistent:
                backend.close()
                backend = self.make(place, text_of)
        try:
            assert backend.changed(position)[1] == []
            done(backend, "tagged", tags={"title": "U"})
            done(backend, "gone", if_rev=2)
            assert set(backend.changed(position)[1]) == {ref("tagged"), ref("gone")}
            assert whole <= set(backend.changed(start)[1])
        finally:
            if self.persistent:
                backend.close()

    def test_a_position_stays_good_when_what_was_newest_goes_and_comes_again(
        self, backend: Backend, place: Path
    ) -> None:
        for id in ("a", "b"):
            created(backend, id, append=[entry("x", at=7)] * 3)
        position, _ = backend.changed()
        done(backend, "b", delete=True)  # its numbers may be given again, from here on, to what is new
        if self.persistent:
            backend.close()
            backend = self.make(place, text_of)
        try:
            created(backend, "c", append=[entry("x", at=7)] * 3)
            position, told = backend.changed(position)
            assert {ref("b"), ref("c")} <= set(told)
            done(backend, "c", trim=3)
            done(backend, "a", append=[entry("x", at=7)])
            assert {ref("a"), ref("c")} <= set(backend.changed(position)[1])
        finally:
            if self.persistent:
                backend.close()

    def test_what_is_no_position_is_refused(self, backend: Backend) -> None:
        created(backend)
        for position in ("", "x", "W10", "é", "bnVsbA", "x" * 10_000, "WyJhIiwxXQ", "W10=", "\ud800"):
            assert _why_no_position(backend, position)

    def test_a_position_of_another_store_is_refused(self, backend: Backend, place: Path) -> None:
        other = place / "other"
        other.mkdir()
        another = self.make(other, text_of)
        try:
            created(backend)
            created(another)
            assert "another store" in _why_no_position(backend, another.changed()[0])
        finally:
            another.close()

    def test_a_sound_store_has_no_problems(self, backend: Backend) -> None:
        created(backend, append=entries("one", "two"))
        done(backend, void=[Range(1, 1)], append=entries("three"))
        created(backend, "dead")
        done(backend, "dead", delete=True)
        assert backend.verify() == []

    def test_facts_are_told(self, backend: Backend) -> None:
        facts = backend.info()
        assert facts["engine"]
        assert facts["durability"] in ("memory", "process", "disk", "replicated")
        assert all(isinstance(name, str) and isinstance(fact, str) for name, fact in facts.items())

    def test_closing_twice_does_nothing(self, backend: Backend) -> None:
        created(backend)
        backend.close()
        backend.close()

    def test_blobs_are_kept_under_their_digest(self, backend: Backend) -> None:
        values = [b"", b"one", bytes(range(256)) * 100, b"\0" * CHUNK]
        digests = [hashlib.sha256(value).hexdigest() for value in values]
        blobs = backend.blobs
        assert blobs.scan() == []
        for digest, value in zip(digests, values, strict=True):
            assert blobs.get(digest) is None
            blobs.put(digest, value)
            blobs.put(digest, value)
            assert blobs.get(digest) == value
        ordered = sorted(digests)
        assert blobs.scan() == ordered
        assert blobs.scan(limit=2) == ordered[:2]
        assert blobs.scan(after=ordered[1]) == ordered[2:]
        assert [blobs.delete(ordered[0]), blobs.delete(ordered[0])] == [True, False]
        assert blobs.get(ordered[0]) is None
        assert blobs.scan() == ordered[1:]

    def test_who_puts_blobs_and_who_deletes_them_keep_each_other_out(self, backend: Backend) -> None:
        blobs = backend.blobs
        told: list[str] = []
        waiting = threading.Event()

        def delete() -> None:
            waiting.set()
            with blobs.exclusive():
                told.append("deletes")

        def share() -> None:
            with blobs.shared():
                told.append("puts")

        deleter, sharer = threading.Thread(target=delete), threading.Thread(target=share)
        with blobs.shared():
            sharer.start()
            sharer.join(WAIT)  # beside others
            deleter.start()
            assert waiting.wait(WAIT)
            deleter.join(0.1)  # not beside others: however long it waits, it has not come in
            assert told == ["puts"]
        deleter.join(WAIT)
        assert told == ["puts", "deletes"]
        late = threading.Thread(target=share)
        with blobs.exclusive():
            late.start()
            late.join(0.1)
            assert told == ["puts", "deletes"]
        late.join(WAIT)
        assert told == ["puts", "deletes", "puts"]

    def test_the_kinds_of_heads_are_told(self, backend: Backend) -> None:
        assert backend.kinds() == []
        for kind in ("session", "doc", "session", "a kind"):
            backend.commit([Commit(ref=Ref(kind, "x"), if_rev=0), Commit(ref=Ref(kind, "y"), if_rev=0)])
        assert backend.kinds() == ["a kind", "doc", "session"]

    def test_blobs_outlive_closing(self, backend: Backend, place: Path) -> None:
        if not self.persistent:
            return
        digest = hashlib.sha256(b"kept").hexdigest()
        backend.blobs.put(digest, b"kept")
        backend = self.reopen(backend, place)
        try:
            assert backend.blobs.get(digest) == b"kept"
        finally:
            backend.close()


def _why_no_position(backend: Backend, position: str) -> str:
    """How a position is refused; "" if it is not."""
    try:
        backend.changed(position)
    except Invalid as error:
        return str(error)
    return ""
