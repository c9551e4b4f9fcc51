"""A store against the model of `lives`: appends, history, forks, turns and deletions. `test_lives` adds the rest."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import holdfast
from faults import url_of
from holdfast import (
    Conflict,
    Deleted,
    Exists,
    Invalid,
    KeyReused,
    LeaseHeld,
    LeaseLost,
    Message,
    NotFound,
    Session,
    Stale,
    Store,
    Trashed,
    Turn,
    note,
    user,
)
from holdfast.context.context import SUMMARY
from holdfast.turns.places import Process
from lives import Hidden, Life, Said, Told, Undone
from rivals import FakePlace, Unwatched

IDS = ("a", "b", "c", "a/b", "A")
IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # mkdtemp makes it private
ids = st.sampled_from(IDS)
fractions = st.integers(0, 8)
"""A place in a log, in eighths of its length."""


class Lives(RuleBasedStateMachine):
    """The store of `backend` against the model."""

    backend: ClassVar[str]

    @initialize()
    def open(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="holdfast-", dir=IN_MEMORY))
        self.here = FakePlace("here")
        self.lives: dict[str, Life] = {}
        self.trash: dict[str, Life] = {}
        self.gone: dict[str, int] = {}
        self.lost: list[Turn] = []
        self.keyed: dict[str, tuple[str, str, int]] = {}
        self.count = 0
        self._open()

    def _open(self) -> None:
        url = "memory://" if self.backend == "memory" else url_of(self.backend, self.place, durability="process")
        self.store: Store = holdfast.open(url)
        self.store.turns.close()
        self.store.turns = Unwatched(self.store.batcher, self.store.large, self.here)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            for id in self.lives:
                self._agree(id)
            report = self.store.check(sweep=True)
            assert report.ok, report.findings
            self._blobs_agree()
            self.store.close()
            shutil.rmtree(self.place, ignore_errors=True)

    def _words(self) -> str:
        self.count += 1
        return f"word{self.count}"

    def _agree(self, id: str) -> None:
        life = self.lives[id]
        session = self.store.get(id)
        assert session is not None
        self._log_agrees(session, life)
        info = session.info()
        assert (info.last, info.state, info.parent, info.name) == (life.last, life.state, life.parent, life.name)
        assert (info.title, set(info.labels)) == (life.title, life.labels)
        assert info.counts.messages == len(life.words())
        assert (info.counts.calls, info.counts.input_tokens) == life.spent()
        assert info.turn == (life.turn.token if life.turn else None)
        assert [(a.name, session.artifacts.get(a.name)) for a in session.artifacts.list()] == list(
            life.artifacts().items()
        )
        self._context_agrees(session, life)

    def _log_agrees(self, session: Session, life: Life) -> None:
        assert [m.text for m in session.messages()] == life.words()
        assert [m.text for m in session.messages(last=2)] == life.words()[-2:]
        shown = [e.seq for e in session.events() if e.type != "edit"]
        assert shown == list(life.view())
        assert [e.seq for e in session.events(include_hidden=True)] == list(life.log)

    def _context_agrees(self, session: Session, life: Life) -> None:
        """A context is the summary that counts, and the messages behind what it stands for."""
        context = session.context()
        counts = life.summary()
        seq, end = (counts[0], counts[1].end) if counts else (0, 0)
        assert (context.summary, context.last, context.cut, context.problems) == (seq, life.last, False, ())
        summary = [SUMMARY + counts[1].words] if counts else []
        assert [m.text for m in context.messages] == summary + [w for n, w in life.said().items() if n > end]

    def _blobs_agree(self) -> None:
        """After a sweep there is what somebody needs, and nothing else."""
        needed = {
            hashlib.sha256(c).hexdigest() for life in (*self.lives.values(), *self.trash.values()) for c in life.needs()
        }
        assert set(self.store.backend.blobs.scan()) == needed

    @rule(id=ids, number=st.integers(1, 3), remark=st.booleans())
    def append(self, id: str, number: int, remark: bool) -> None:
        """Append to a session, begun if it is not there; a deleted one stays deleted."""
        words = [self._words() for _ in range(number)]
        payloads = [*map(user, words), *([note("remark")] if remark else [])]
        if id in self.gone or id in self.trash:
            with pytest.raises(Trashed if id in self.trash else Deleted):
                self.store.session(id)
            return
        receipt = self.store.session(id).append(*payloads)
        life = self.lives.setdefault(id, Life())
        seqs = [life.add(Said(said)) for said in words] + [life.add(Told()) for _ in range(remark)]
        assert (receipt.first, receipt.last) == (seqs[0], seqs[-1])
        self._agree(id)

    def _some(self, id: str) -> str | None:
        """A session that is there, near this id."""
        return id if id in self.lives else next(iter(self.lives), None)

    @rule(id=ids, key=st.sampled_from(("k", "l")))
    def append_once(self, id: str, key: str) -> None:
        """The same key stores once; for other words it is refused, also in a fork of where it was used."""
        if (some := self._some(id)) is None:
            return
        life, session = self.lives[some], self.store.session(some)
        known = self.keyed.get(f"{some}\0{key}")
        if known is None:
            words = self._words()
            receipt = session.append(user(words), key=key)
            assert not receipt.repeated
            self.keyed[f"{some}\0{key}"] = (some, words, life.add(Said(words)))
        else:
            receipt = session.append(user(known[1]), key=key)
            assert (receipt.repeated, receipt.last) == (True, known[2])
            with pytest.raises(KeyReused):
                session.append(user("other words"), key=key)
        self._agree(some)

    @rule(id=ids, off=st.integers(1, 3))
    def append_late(self, id: str, off: int) -> None:
        """Whoever expects another end than there is stores nothing."""
        if (some := self._some(id)) is None:
            return
        with pytest.raises(Stale):
            self.store.session(some).append(user("late"), expect=self.lives[some].last + off)
        self._agree(some)

    @rule(id=ids)
    def remove_last(self, id: str) -> None:
        """The newest message is taken back."""
        if (some := self._some(id)) is None:
            return
        life = self.lives[some]
        said = list(life.said())
        taken = self.store.session(some).remove_last()
        assert (taken.seq if taken else None) == (said[-1] if said else None)
        if said:
            life.add(Hidden(frozenset(said[-1:])))
        self._agree(some)

    @rule(id=ids, eighths=fractions)
    def rewind(self, id: str, eighths: int) -> None:
        """All behind a seq is taken back; to the beginning it is a clear."""
        if (some := self._some(id)) is None:
            return
        life = self.lives[some]
        to = life.last * eighths // 8
        behind = frozenset(n for n in life.view() if n > to)
        session = self.store.session(some)
        edit = session.rewind(to=to) if to else session.clear()
        assert (edit is not None) == bool(behind)
        if behind:
            life.add(Hidden(behind))
        with pytest.raises(Invalid):
            session.rewind(to=life.last + 1)
        self._agree(some)

    @rule(id=ids)
    def undo(self, id: str) -> None:
        """The newest removal that was not undone is undone."""
        if (some := self._some(id)) is None:
            return
        life = self.lives[some]
        edit = self.store.session(some).undo()
        assert (edit is not None) == bool(life.removals())
        if edit is not None:
            life.add(Undone())
        self._agree(some)

    @rule(id=ids, child=ids, eighths=fractions)
    def fork(self, id: str, child: str, eighths: int) -> None:
        """A fork shows what its parent was at a seq, whatever became of either."""
        if (some := self._some(id)) is None:
            return
        life, session = self.lives[some], self.store.session(some)
        at = life.first + (life.last - life.first) * eighths // 8
        if child in self.gone or child in self.trash:
            with pytest.raises(Trashed if child in self.trash else Deleted):
                session.fork(at=at, id=child)
        elif child in self.lives:
            there = self.lives[child]
            if there.parent == some and there.base == at:
                assert session.fork(at=at, id=child).id == child  # as an answer that was lost is asked for again
            else:
                with pytest.raises(Exists):
                    session.fork(at=at, id=child)
        else:
            session.fork(at=at, id=child)
            self.lives[child] = Life(life.upto(at), first=life.first, base=at, parent=some, title=life.title)
            self._own_keys(some, child, at)
        for each in (some, child):
            if each in self.lives:
                self._agree(each)

    def _own_keys(self, parent: str, child: str, at: int) -> None:
        """A fork knows the keys of the events that it begins with."""
        for name, (id, words, seq) in list(self.keyed.items()):
            if id == parent and seq <= at:
                self.keyed[f"{child}\0{name.partition(chr(0))[2]}"] = (child, words, seq)

    @rule(id=ids)
    def delete(self, id: str) -> None:
        """A session goes, unless a fork reads through it; late writers are refused."""
        if id not in self.lives:
            with pytest.raises(Trashed if id in self.trash else Deleted if id in self.gone else NotFound):
                self.store.delete(id)
            return
        session = self.store.session(id)
        if self._forks(id):
            with pytest.raises(Conflict):
                session.delete()
            self._agree(id)
            return
        session.delete()
        life = self._forget(id, self.lives)
        if life.turn is not None:
            self.lost.append(life.turn)
        with pytest.raises(Deleted):
            session.append(user("late"))
        assert self.store.get(id) is None

    def _forks(self, id: str) -> list[str]:
        return [name for each in (self.lives, self.trash) for name, life in each.items() if life.parent == id]

    def _forget(self, id: str, where: dict[str, Life]) -> Life:
        """It is gone for good."""
        life = where.pop(id)
        self.gone[id] = life.last
        self.keyed = {name: known for name, known in self.keyed.items() if known[0] != id}
        return life

    @rule(id=ids)
    def create(self, id: str) -> None:
        """On purpose a deleted session begins anew; its numbers go on."""
        if id in self.lives or id in self.trash:
            with pytest.raises(Trashed if id in self.trash else Exists):
                self.store.create(id)
            return
        self.store.create(id)
        self.lives[id] = Life(first=self.gone.pop(id, 0))
        self._agree(id)

    @rule(id=ids)
    def begin(self, id: str) -> None:
        """A turn begins where none runs."""
        if (some := self._some(id)) is None:
            return
        life, turn = self.lives[some], self.store.session(some).turn(owner="me")
        if life.turn is not None:
            with pytest.raises(LeaseHeld):
                turn.take()
        else:
            life.turn = turn.take()
            life.state = "running"
            life.add(Told())
        self._agree(some)

    @rule(id=ids, how=st.sampled_from(("", "complete", "pause", "error")))
    def end(self, id: str, how: str) -> None:
        """A turn writes, and ends in one of the ways."""
        life = self.lives.get(id)
        if life is None or life.turn is None:
            return
        words = self._words()
        life.turn.append(user(words))
        life.add(Said(words))
        if how in ("complete", "pause"):
            getattr(life.turn, how)()
        life.turn.end(ValueError("it went wrong") if how == "error" else None)
        life.state = {"": "idle", "complete": "completed", "pause": "paused", "error": "error"}[how]
        life.turn = None
        life.add(Told())
        self._agree(id)

    @rule(id=ids)
    def overtake(self, id: str) -> None:
        """Where the holder's process has ended, another turn begins; what the one before writes late is refused."""
        life = self.lives.get(id)
        if life is None or life.turn is None:
            return
        self.here.ended |= {Process("here", 100, born) for born in range(1, self.here.born + 1)}
        self.here.born += 1
        old, life.turn = life.turn, self.store.session(id).turn(owner="next").take()
        life.add(Told())  # the old one was interrupted
        life.add(Told())
        self.here.ended.clear()  # the turns of other sessions go on
        self.lost.append(old)
        self._agree(id)

    @rule()
    def write_late(self) -> None:
        """Nobody whose turn is lost writes anything, however often it tries."""
        for turn in self.lost:
            for late in self._late(turn):
                with pytest.raises((LeaseLost, NotFound)):
                    late()
        for id in self.lives:
            self._agree(id)

    def _late(self, turn: Turn) -> list[Callable[[], object]]:
        """Every way to write."""
        return [
            lambda: turn.append(user("late")),
            lambda: turn.update(title="late"),
            lambda: turn.update(name="late"),
            lambda: turn.save(user("late"), labels=["late"]),
            lambda: turn.artifacts.put("late", "late"),
            lambda: turn.fork(id="late"),
            lambda: turn.set_state("paused"),
            turn.delete,
        ]

    @rule()
    def look(self) -> None:
        """The list, the tree and the search agree with the model."""
        assert {info.id for info in self.store.sessions()} == set(self.lives)
        assert {one.session.id for one in self.store.trash.list()} == set(self.trash)
        for id, life in self.trash.items():
            session = self.store.trash.get(id)
            assert session is not None
            assert self.store.get(id) is None
            self._log_agrees(session, life)
        usage = self.store.usage()
        owns = {id: life.spent(own=True) for id, life in self.lives.items()}
        assert {t.key: (t.calls, t.input_tokens) for t in usage.totals} == {id: s for id, s in owns.items() if s[0]}
        for id, life in self.lives.items():
            tree = {branch.session.id for branch in _branches(self.store.tree(id))}
            assert tree >= {id, *([life.parent] if life.parent else [])}
            for words in life.words()[:2]:
                assert words in {_text(hit.event.payload) for hit in self.store.search(words, session=id)}
        running = {id for id, life in self.lives.items() if life.turn}
        assert {lease.session for lease in self.store.running()} == running

    @precondition(lambda self: self.backend != "memory")
    @rule()
    def reopen(self) -> None:
        """Close, open again, and find everything as it was."""
        self.store.close()
        self._open()
        for turn in [*self.lost, *(life.turn for life in self.lives.values() if life.turn)]:
            turn._store = self.store  # pyright: ignore[reportPrivateUsage]  # its process goes on with another store
            turn.__dict__.pop("artifacts", None)  # which remembers the store
        for id in self.lives:
            self._agree(id)


def _branches(branch: holdfast.Branch) -> list[holdfast.Branch]:
    return [branch, *(below for fork in branch.forks for below in _branches(fork))]


def _text(payload: object) -> str:
    return payload.text if isinstance(payload, Message) else ""
