"""Made-up histories of sessions, forks, prunes, undos and purges: a model of dictionaries says what must be there."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

import holdfast
from holdfast import Conflict, Deleted, Policy, PrunePlan, Store, Trashed, user
from holdfast.errors import NotFound

IDS = ("a", "b", "c", "d", "e", "f")
ids = st.sampled_from(IDS)
LIVING, TRASH, GONE = "living", "trash", "gone"


class Known:
    """What must be true of a session."""

    def __init__(self, said: list[str], parent: str | None) -> None:
        self.said = said
        self.parent = parent
        self.where = LIVING
        self.changes = 0
        self.starred = False
        self.prune: str | None = None


class RetentionMachine(RuleBasedStateMachine):
    backend = "memory"

    @initialize()
    def open(self) -> None:
        base = "/dev/shm" if os.path.isdir("/dev/shm") else None  # mkdtemp makes it private
        self.place = Path(tempfile.mkdtemp(prefix="holdfast-", dir=base))
        urls = {"memory": "memory://", "file": f"file://{self.place}/store", "sqlite": f"sqlite://{self.place}/s.db"}
        url = urls[self.backend]
        self.url = url if self.backend == "memory" else f"{url}?durability=process"
        self.store: Store = holdfast.open(self.url)
        self.known: dict[str, Known] = {}
        self.plan: tuple[PrunePlan, dict[str, int]] | None = None
        self.prunes: list[str] = []
        self.words = 0

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.agree()
            assert self.store.check().ok
            self.store.close()
            shutil.rmtree(self.place)

    def children(self, id: str, *where: str) -> list[str]:
        return [name for name, one in self.known.items() if one.parent == id and one.where in where]

    def agree(self) -> None:
        """The store shows what the model says."""
        living = {id for id, one in self.known.items() if one.where == LIVING}
        assert {info.id for info in self.store.sessions()} == living
        assert {one.session.id for one in self.store.trash.list()} == {
            id for id, one in self.known.items() if one.where == TRASH
        }
        for id, one in self.known.items():
            session = self.store.get(id) if one.where == LIVING else self.store.trash.get(id)
            if one.where == GONE:
                assert session is None
                assert self.store.get(id) is None
            else:
                assert session is not None
                assert [m.text for m in session.messages()] == one.said
        own = {id for id in living for word in self.known[id].said if word.startswith(f"{id} ")}
        assert {hit.session for hit in self.store.search("word", limit=1000)} == own

    @rule(id=ids, stars=st.booleans())
    def append(self, id: str, stars: bool) -> None:
        """Say something, creating the session where there is none."""
        self.words += 1
        text = f"{id} word {self.words}"
        one = self.known.get(id)
        if one is None:
            one = self.known[id] = Known([], None)
            self.store.create(id)
        if one.where != LIVING:
            with pytest.raises(Trashed if one.where == TRASH else Deleted):
                self.store.session(id).append(user(text))
            return
        self.store.session(id).append(user(text))
        if stars:
            self.store.session(id).update(labels={"starred": not one.starred})
            one.starred = not one.starred
        one.said.append(text)
        one.changes += 1

    @rule(id=ids, child=ids)
    def fork(self, id: str, child: str) -> None:
        one = self.known.get(id)
        if one is None or one.where != LIVING or child in self.known:
            return
        self.store.session(id).fork(id=child)
        self.known[child] = Known(list(one.said), id)
        one.changes += 1

    @rule(id=ids)
    def put(self, id: str) -> None:
        one = self.known.get(id)
        if one is None or one.where != LIVING:
            with pytest.raises(NotFound):
                self.store.trash.put(id)
        elif self.children(id, LIVING):
            with pytest.raises(Conflict):
                self.store.trash.put(id)
        else:
            self.store.trash.put(id)
            one.where, one.prune = TRASH, None
            one.changes += 1

    def back(self, id: str) -> None:
        one: Known | None = self.known[id]
        while one is not None and one.where == TRASH:
            one.where = LIVING
            one.changes += 1
            one = self.known[one.parent] if one.parent else None
        if one is not None:
            one.changes += 1  # the parent is held while its fork comes back

    @rule(id=ids)
    def restore(self, id: str) -> None:
        one = self.known.get(id)
        if one is not None and one.where == TRASH:
            self.store.trash.restore(id)
            self.back(id)
        else:
            with pytest.raises((NotFound, Conflict)):
                self.store.trash.restore(id)

    @rule(keep=st.integers(0, 3))
    def make_plan(self, keep: int) -> None:
        plan = self.store.prune(Policy(max_sessions=keep, batch=2))
        newest = [info.id for info in self.store.sessions()]
        needed = {id for id, one in self.known.items() if one.starred or self.children(id, LIVING)}
        assert {one.session for one in plan.chosen} == set(newest[keep:]) - needed
        assert {one.session for one in plan.spared} == set(newest[keep:]) & needed
        self.plan = plan, {id: one.changes for id, one in self.known.items()}

    @rule()
    def apply(self) -> None:
        """Apply a plan, however much happened since it was made."""
        if self.plan is None:
            return
        plan, seen = self.plan
        expected: list[str] = []
        for chosen in plan.chosen:
            one = self.known[chosen.session]
            if one.where == LIVING and one.changes == seen[chosen.session]:
                expected.append(chosen.session)
        done = plan.apply()
        assert list(done.moved) == expected
        assert len(done.moved) + len(done.skipped) == len(plan.chosen)
        assert done.failed == ()
        for id in done.moved:
            one = self.known[id]
            one.where, one.prune = TRASH, done.prune
            one.changes += 1
        if done.prune:
            self.prunes.append(done.prune)

    @rule(data=st.data())
    def undo(self, data: st.DataObject) -> None:
        if self.prunes:
            prune = data.draw(st.sampled_from(self.prunes))
            mine = {id for id, one in self.known.items() if one.where == TRASH and one.prune == prune}
            told = self.store.trash.undo(prune)
            assert (set(told.restored), told.failed) == (mine, ())
            for id in mine:
                self.back(id)

    @rule(some=st.sets(ids, min_size=1))
    def purge(self, some: set[str]) -> None:
        gone: set[str] = set()
        mine = {id for id in some if id in self.known and self.known[id].where == TRASH}
        while more := {id for id in mine - gone if not set(self.children(id, LIVING, TRASH)) - gone}:
            gone |= more
        told = self.store.trash.purge(*some)
        assert (set(told.purged), told.left) == (gone, "")
        assert {one.session for one in told.spared} == mine - gone
        assert {one.session for one in told.failed} == some - mine
        for id in gone:
            self.known[id].where = GONE

    @rule()
    def look(self) -> None:
        self.agree()

    @rule()
    def reopen(self) -> None:
        if self.backend != "memory":
            self.store.close()
            self.store = holdfast.open(self.url)
            self.plan = None
            self.agree()


@pytest.mark.parametrize("backend", ["memory", "file", "sqlite"])
def test_whatever_is_done_nothing_is_lost_but_what_was_purged(backend: str, long: bool) -> None:
    machine = type("Machine", (RetentionMachine,), {"backend": backend})
    examples = 60 if backend == "memory" else 25
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples * (20 if long else 1), stateful_step_count=30, deadline=None)
    )
