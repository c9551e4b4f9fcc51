"""Whole lives of sessions, made up by Hypothesis: what a store shows after each step is what a simple model says.

The model keeps for each session the list of what was done to it, and works everything out by going through that list
from the beginning; so it has nothing in common with how the store finds the same.
"""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

import holdfast
from holdfast import Conflict, Deleted, Exists, Invalid, LeaseHeld, NotFound, Policy, Stale, Trashed, usage, user
from holdfast.copies import copy_session
from lives import Kept, Life, Moved, Said, Spent, Summed
from living import Lives, fractions, ids

NAMES = ("n1", "n2")
names = st.sampled_from(NAMES)
CONTENTS = (b"one", b"two" * 30_000, b"")
FILES = ("f", "g")


class WholeLives(Lives):
    """With names and labels, artifacts, usage, summaries, saves, the trash and prunes."""

    def _holder(self, name: str) -> str | None:
        every = {**self.lives, **self.trash}
        return next((id for id, life in every.items() if life.name == name), None)

    @rule(id=ids, name=st.none() | names, saves=st.booleans())
    def rename(self, id: str, name: str | None, saves: bool) -> None:
        """A name is one session's, until it or its session goes; a save that can't give it stores nothing."""
        if (some := self._some(id)) is None:
            return
        life, session = self.lives[some], self.store.session(some)
        words = self._words()
        if name is not None and self._holder(name) not in (None, some):
            with pytest.raises(Exists):
                session.save(user(words), name=name) if saves else session.update(name=name)
        else:
            if saves:
                receipt = session.save(user(words), name=name, metadata={"n": words})
                assert receipt.last == life.add(Said(words))
                assert session.info().metadata == {"n": words}
            else:
                session.update(name=name)
            life.name = name
        self._agree(some)
        if life.name is not None:
            assert self.store.resolve(life.name).id == some

    @rule(id=ids, label=st.sampled_from(("starred", "l")), there=st.booleans())
    def label(self, id: str, label: str, there: bool) -> None:
        """Labels come and go; lists find by them."""
        if (some := self._some(id)) is None:
            return
        self.store.session(some).update(labels={label: there})
        (self.lives[some].labels.add if there else self.lives[some].labels.discard)(label)
        assert {i.id for i in self.store.sessions(label=label)} == {
            id for id, life in self.lives.items() if label in life.labels
        }

    @rule(id=ids, file=st.sampled_from(FILES), content=st.sampled_from(CONTENTS))
    def put_artifact(self, id: str, file: str, content: bytes) -> None:
        """A name stands for other bytes; what is so already is not said again."""
        if (some := self._some(id)) is None:
            return
        life = self.lives[some]
        said = [done for done in life.view().values() if isinstance(done, Kept) and done.name == file]
        if said[-1:] != [Kept(file, content)]:
            life.add(Kept(file, content))
        assert self.store.session(some).artifacts.put(file, content).size == len(content)
        self._agree(some)

    @rule(id=ids, file=st.sampled_from(FILES))
    def delete_artifact(self, id: str, file: str) -> None:
        """A name is taken away, if it stands for anything."""
        if (some := self._some(id)) is None:
            return
        life = self.lives[some]
        there = file in life.artifacts()
        assert self.store.session(some).artifacts.delete(file) == there
        if there:
            life.add(Kept(file, None))
        self._agree(some)

    @rule()
    def sweep(self) -> None:
        """What is referred to stays, whatever was hidden, trashed or forked; all else goes."""
        report = self.store.check(sweep=True)
        assert report.ok, report.findings
        self._blobs_agree()

    @rule(id=ids, response=st.sampled_from(("r1", "r2")), tokens=st.integers(1, 9))
    def spend(self, id: str, response: str, tokens: int) -> None:
        """A response is counted once, also where a fork tells again what its parent told."""
        if (some := self._some(id)) is None:
            return
        life = self.lives[some]
        receipt = self.store.session(some).append(usage("m", tokens, response_id=response))
        known = life.responses()
        if receipt.repeated:  # word for word what counted it
            assert known[response] == tokens
        else:
            assert known.get(response) != tokens
            life.add(Spent(response, tokens, response not in known))
        self._agree(some)

    @rule(id=ids, eighths=fractions)
    def compact(self, id: str, eighths: int) -> None:
        """A summary stands for a range that is as it was, and that no newer one reaches over."""
        if (some := self._some(id)) is None:
            return
        life, session = self.lives[some], self.store.session(some)
        upto = life.first + (life.last - life.first) * eighths // 8
        counts, words = life.summary(), self._words()
        if upto == life.first:
            with pytest.raises(Invalid):
                session.compact(words, upto)
        elif life.disturbed(upto, upto):
            with pytest.raises(Stale):
                session.compact(words, upto)
        elif counts is not None and counts[1].end > upto:
            with pytest.raises(Conflict):
                session.compact(words, upto)
        else:
            assert session.compact(words, upto).seq == life.add(Summed(words, upto))
        self._agree(some)

    def _move(self, life: Life, id: str, prune: str | None) -> None:
        self.trash[id] = self.lives.pop(id)
        life.prune = prune
        life.add(Moved())

    def _back(self, id: str) -> None:
        """With the parents that it reads through."""
        while id in self.trash:
            life = self.lives[id] = self.trash.pop(id)
            life.add(Moved())
            if life.parent is None:
                return
            id = life.parent

    @rule(id=ids)
    def put_away(self, id: str) -> None:
        """A session goes into the trash, unless somebody runs it or a fork reads through it."""
        if id not in self.lives:
            with pytest.raises(Trashed if id in self.trash else Deleted if id in self.gone else NotFound):
                self.store.trash.put(id)
            return
        life, session = self.lives[id], self.store.session(id)
        if life.turn is not None or any(fork in self.lives for fork in self._forks(id)):
            with pytest.raises(LeaseHeld if life.turn else Conflict):
                self.store.trash.put(id)
            self._agree(id)
            return
        self.store.trash.put(id)
        self._move(life, id, None)
        for late in (
            lambda: session.append(user("late")),
            lambda: session.artifacts.put("f", "late"),
            lambda: session.fork(),
            lambda: session.update(title="late"),
            lambda: session.compact("late", 1),
            session.undo,
            session.delete,
            session.turn().take,
        ):
            with pytest.raises(Trashed):
                late()

    @rule(id=ids)
    def restore(self, id: str) -> None:
        """It comes back as it was, behind its parents."""
        if id not in self.trash:
            with pytest.raises((NotFound, Conflict)):
                self.store.trash.restore(id)
            return
        self.store.trash.restore(id)
        self._back(id)
        self._agree(id)

    @rule(keep=st.integers(0, 3), named=st.booleans())
    def prune(self, keep: int, named: bool) -> None:
        """A policy takes what it says, and spares what somebody needs."""
        plan = self.store.prune(Policy(max_sessions=keep, keep_named=named, batch=2))
        beyond = [info.id for info in self.store.sessions()][keep:]
        spared = {
            id
            for id in beyond
            if self.lives[id].turn
            or "starred" in self.lives[id].labels
            or (named and self.lives[id].name)
            or any(fork in self.lives for fork in self._forks(id))
        }
        assert {one.session for one in plan.spared} == spared
        done = plan.apply()
        assert (set(done.moved), done.skipped, done.failed) == (set(beyond) - spared, (), ())
        for id in done.moved:
            self._move(self.lives[id], id, done.prune)

    @rule()
    def undo_prune(self) -> None:
        """What a prune took comes back, as far as it is in the trash."""
        prunes = {life.prune for life in self.trash.values() if life.prune}
        for prune in sorted(prunes)[:1]:
            mine = [id for id, life in self.trash.items() if life.prune == prune]
            told = self.store.trash.undo(prune)
            assert (set(told.restored), told.failed) == (set(mine), ())
            for id in mine:
                self._back(id)

    @rule(some=st.sets(ids, min_size=1))
    def purge(self, some: set[str]) -> None:
        """What no fork needs goes for good, with its name and its bytes."""
        mine, gone = {id for id in some if id in self.trash}, set[str]()
        while more := {id for id in mine - gone if not set(self._forks(id)) - gone}:
            gone |= more
        told = self.store.trash.purge(*some)
        assert (set(told.purged), {one.session for one in told.spared}) == (gone, mine - gone)
        assert ({one.session for one in told.failed}, told.left) == (some - mine, "")
        for id in gone:
            life = self._forget(id, self.trash)
            with pytest.raises(Deleted):
                self.store.session(id)
            if life.name is not None:
                assert self._holder(life.name) is None
        if gone:
            self._blobs_agree()

    @rule(id=ids)
    def copy(self, id: str) -> None:
        """A copy in another store is equal in all that can be seen, and a second call changes nothing."""
        if (some := self._some(id)) is None:
            return
        with holdfast.open("memory://") as other:
            copy_session(self.store, other, some)
            assert copy_session(self.store, other, some).new == 0
            mine, copy = self.store.session(some), other.session(some)
            assert mine.info().counts == copy.info().counts
            own, self.store = self.store, other
            try:
                self._agree(some)
            finally:
                self.store = own


class MemoryLives(WholeLives):
    backend = "memory"


class FilesLives(WholeLives):
    backend = "files"


class SQLiteLives(WholeLives):
    backend = "sqlite"


TestMemoryLives = MemoryLives.TestCase
TestFilesLives = FilesLives.TestCase
TestSQLiteLives = SQLiteLives.TestCase
