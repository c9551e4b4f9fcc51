"""A backend held against the reference: Hypothesis makes up a history, and after every step both must say the same.

The reference is `MemoryBackend`. What is compared is all that the seam shows: heads, entries, reasons of refusals,
pages of `find`, and what a search hits (not how it ranks). Ids, times and words come from small pools, so that
collisions, equal times and repeated keys are the rule.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from holdfast import search
from holdfast.backend import Backend, TextOf
from holdfast.backends import open_backend
from holdfast.errors import Invalid
from holdfast.plan import TRASHED, Commit, Entry, Head, Range, Ref, Refused, validate
from holdfast.testing.subject import text_of

IDS = ("a", "A", "a/b", "é", "e\u0301", "b")
KINDS = ("session", "doc")
KEYS = ("", "", "", "", "", "", "k1", "k2", "K1", "k3", "é", "e\u0301")
TIMES = (0, 1, 2, 3, 7)
WORDS = ("apple", "apple", "pear", "applepie", "日本", "crème", "not", "x.y", "getName")
TAGS = ("user", "label:x", TRASHED)
VALUES = ("ann", "Ann", "")
QUERIES = (
    "apple", "app*", '"apple pear"', "apple -pear", "apple OR pear", "日", "creme", "NOT", "y x", "name", "getname",
    "pear -not", "*", "-apple",
)  # fmt: skip

APPLE = search.Phrase(("apple",))

NAMES = [Ref(kind, id) for kind in KINDS for id in IDS]

refs = st.builds(Ref, st.sampled_from(("session", *KINDS)), st.sampled_from(("a", "a", *IDS)))
words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join).map(str.encode)
bodies = st.one_of(words, words, words, st.binary(max_size=4))
_entries = st.builds(
    Entry,
    id=st.sampled_from(KEYS),
    at=st.sampled_from((-1, *TIMES)),
    body=bodies,
    void=st.sampled_from((False, False, False, True)),
)
seeds = st.lists(_entries, max_size=5, unique_by=lambda e: e.id or id(e))
"""A first log. Only ids must be unique in it."""
patches = st.dictionaries(st.sampled_from(TAGS), st.none() | st.sampled_from(VALUES), max_size=2)
ranges = st.tuples(
    st.sampled_from((0, 0, 1, 1, 2, 3, -1)), st.sampled_from((0, 0, 1, 3)), st.sampled_from((True, True, False))
)
"""A range to hide or show: how far before the newest entry it ends, how much longer than one it is, and which."""
maybe = st.sampled_from((None, None, None, None, None, None, 0, 0, 0, -1, 1))
"""An expectation, as its distance from the truth; None for none."""
filters = st.dictionaries(st.sampled_from(TAGS), st.none() | st.sampled_from(VALUES), max_size=2)


@st.composite
def changes(draw: st.DrawFn) -> dict[str, Any]:
    """The fields of a commit, with expectations and ranges relative to what will be there when it is made."""
    given: dict[str, Any] = {"at": draw(st.sampled_from(TIMES))}
    if draw(st.integers(0, 24)) == 24:
        given["delete"] = True
    else:
        given["append"] = draw(st.lists(_entries, max_size=4))
        optional: Mapping[str, st.SearchStrategy[Any]] = {
            "tags": patches,
            "defaults": st.dictionaries(st.sampled_from(TAGS), st.sampled_from(VALUES), max_size=2),
            "add": st.dictionaries(st.sampled_from(("n", "m")), st.integers(-5, 5) | st.just(2**62), max_size=2),
            "body": bodies,
            "void": st.lists(ranges, min_size=1, max_size=2),
            "trim": st.sampled_from((0, 1, 2, 2, 3, 3, -1)),
            "base": st.just(3),
        }
        for name in draw(st.lists(st.sampled_from([*sorted(optional), "void"]), max_size=4, unique=True)):
            given[name] = draw(optional[name])
    given["rev"], given["last"] = draw(maybe), draw(maybe)
    given["if_tags"] = draw(
        st.none() | st.dictionaries(st.sampled_from(TAGS), st.none() | st.sampled_from(VALUES), min_size=1)
    )
    given["true_tags"] = draw(st.sampled_from((True, True, False)))
    return given


class BackendMachine(RuleBasedStateMachine):
    """Inherit from it, say in `make` how your backend is opened, and collect `YourMachine.TestCase`."""

    persistent: ClassVar[bool] = True
    """False for a backend that keeps nothing after `close`."""
    workspace: ClassVar[str | None] = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108  # mkdtemp makes it private
    """Where the folders of the runs are made: in memory where there is such a place, as durability is not at stake."""

    def make(self, place: Path, text_of: TextOf) -> Backend:
        """Open the backend whose data belongs to the folder `place`, which is empty the first time."""
        raise NotImplementedError("say how your backend is made: def make(self, place, text_of)")

    @initialize(
        logs=st.dictionaries(refs, st.tuples(seeds, patches), min_size=1, max_size=4), at=st.sampled_from(TIMES)
    )
    def open(self, logs: dict[Ref, tuple[list[Entry], dict[str, str | None]]], at: int) -> None:
        """Start with a few logs."""
        self.place = Path(tempfile.mkdtemp(prefix="holdfast-", dir=self.workspace))
        self.model = open_backend("memory://", text_of)
        self.backend = self.make(self.place, text_of)
        for name, (log, tags) in logs.items():
            commit = Commit(ref=name, at=at, if_rev=0, append=log, tags=tags, add={"n": len(log)})
            assert self.backend.commit([commit]) == self.model.commit([commit])

    def teardown(self) -> None:
        """Leave nothing behind."""
        if hasattr(self, "backend"):
            self.backend.close()
        if hasattr(self, "place"):
            shutil.rmtree(self.place, ignore_errors=True)

    def _commit(self, name: Ref, given: Mapping[str, Any], ahead: Head | None) -> Commit | None:
        """The commit that the made-up changes come to on the head as it is; None if no store would let it pass."""
        head = ahead or Head(name)
        fields = dict(given)
        rev, last, true_tags = fields.pop("rev"), fields.pop("last"), fields.pop("true_tags")
        if ahead is None:
            rev = {None: 0, -1: None}.get(rev, rev)  # mostly, what is not there is to be created
        if fields["if_tags"] and true_tags:
            fields["if_tags"] = {tag: head.tags.get(tag) for tag in fields["if_tags"]}
        ends = [(head.last - before, more, hide) for before, more, hide in fields.get("void", ())]
        fields["void"] = [Range(last - more, last, hide) for last, more, hide in ends]
        if "trim" in fields:
            fields["trim"] = head.last - fields["trim"]
        if fields.get("base") and head.rev + (rev or 0) != 0:
            fields["base"] = 0
        commit = Commit(
            ref=name,
            if_rev=None if rev is None else max(head.rev + rev, 0),
            if_last=None if last is None else max(head.last + last, 0),
            **fields,
        )
        try:
            validate(commit)
        except Invalid:
            return None
        return commit

    @rule(
        made_up=st.lists(st.tuples(refs, changes()), min_size=1, max_size=4), same=st.sampled_from((False, False, True))
    )
    def commit(self, made_up: Sequence[tuple[Ref, dict[str, Any]]], same: bool) -> None:
        """Make a batch of commits, often several to one head."""
        batch: list[Commit] = []
        for name, given in made_up:
            target = made_up[0][0] if same else name
            commit = self._commit(target, given, self.model.get([target])[0])
            if commit is not None:
                batch.append(commit)
        expected = self.model.commit(batch)
        told = self.backend.commit(batch)
        assert [_said(r) for r in told] == [_said(r) for r in expected]
        for name in {commit.ref for commit in batch}:
            self._agree_on(name)

    def _agree_on(self, name: Ref) -> None:
        assert self.backend.get([name]) == self.model.get([name])
        assert self.backend.read(name, voided=True) == self.model.read(name, voided=True)
        assert self.backend.find(name.kind, {}) == self.model.find(name.kind, {})
        self._agree_on_hits(name.kind, APPLE, False, 1000, {})

    @rule(name=refs, more=st.lists(_entries, min_size=1, max_size=3))
    def append(self, name: Ref, more: list[Entry]) -> None:
        """Append without any expectation, creating the head where there is none."""
        head = self.model.get([name])[0]
        commit = Commit(ref=name, at=1, if_rev=0 if head is None else None, append=more, add={"n": len(more)})
        try:
            validate(commit)
        except Invalid:
            return
        assert [_said(r) for r in self.backend.commit([commit])] == [_said(r) for r in self.model.commit([commit])]
        self._agree_on(name)

    @rule(
        after=st.integers(-1, 5),
        upto=st.none() | st.integers(-1, 9),
        ids=st.none() | st.none() | st.lists(st.sampled_from((*KEYS, "nobody")), max_size=3),
        limit=st.none() | st.integers(0, 4),
        reverse=st.booleans(),
        voided=st.booleans(),
    )
    def read(self, **options: Any) -> None:
        """Read every log in some way."""
        for name in NAMES:
            assert self.backend.read(name, **options) == self.model.read(name, **options)

    @rule(tags=filters, at=st.sampled_from(TIMES), id=st.sampled_from(IDS), size=st.integers(1, 4))
    def find(self, tags: dict[str, str | None], at: int, id: str, size: int) -> None:
        """List from somewhere, by time and by id, and from the start page by page."""
        for kind in KINDS:
            expected = self.model.find(kind, tags, after=(at, id), limit=size)
            assert self.backend.find(kind, tags, after=(at, id), limit=size) == expected
            assert self.backend.scan(kind, id, size) == self.model.scan(kind, id, size)
            assert self.backend.scan(kind) == self.model.scan(kind)
            assert self.backend.find(kind, {}, dead=True) == self.model.find(kind, {}, dead=True)
            put_away = self.model.find(kind, tags, trashed=True)
            assert self.backend.find(kind, tags, trashed=True) == put_away
            assert self.backend.scan(kind, trashed=True) == self.model.scan(kind, trashed=True)
        found: list[Head] = []
        after: tuple[int, str] | None = None
        while page := self.backend.find("session", tags, after=after, limit=size):
            found += page
            assert page.damaged == (), "what is sound is said to be damaged"
            assert len(found) <= len(IDS), "pages tell something twice"
            after = (page[-1].at, page[-1].ref.id)
        assert found == self.model.find("session", tags)

    @rule(
        queries=st.lists(st.sampled_from(QUERIES), max_size=4, unique=True),
        id=st.none() | st.none() | st.sampled_from(IDS),
        tags=st.none() | filters,
        newest=st.booleans(),
        size=st.sampled_from((2, 1000)),
    )
    def search(self, queries: list[str], newest: bool, size: int, **where: Any) -> None:
        """Search, page by page; the same entries must be hit, each once."""
        for kind in KINDS:
            for query in ("apple", *queries):
                node = search.parse(query)
                if node is not None:
                    self._agree_on_hits(kind, node, newest, size, where)

    def _agree_on_hits(self, kind: str, node: search.Node, newest: bool, size: int, where: dict[str, Any]) -> None:
        expected = [(hit.ref, hit.entry) for hit in self.model.search(kind, node, limit=1000, **where)]
        found: list[tuple[Ref, Entry]] = []
        while page := self.backend.search(kind, node, newest=newest, offset=len(found), limit=size, **where):
            found += [(hit.ref, hit.entry) for hit in page]
            assert len(found) <= len(expected), f"hits that should not be: {found}"
        assert sorted(found, key=_place) == sorted(expected, key=_place)
        if newest:
            assert [e.at for _, e in found] == sorted((e.at for _, e in expected), reverse=True)

    @rule()
    def index(self) -> None:
        """Bring the index up to date; a second time there is nothing left."""
        self.backend.index()
        assert self.backend.index() == 0

    @rule()
    def compact(self) -> None:
        """Give space back; all that is there stays as it is."""
        self.backend.compact()
        assert self.backend.get(NAMES) == self.model.get(NAMES)
        for name in NAMES:
            assert self.backend.read(name, voided=True) == self.model.read(name, voided=True)
            self._agree_on_hits(name.kind, APPLE, False, 1000, {})

    @precondition(lambda self: self.persistent)
    @rule()
    def reopen(self) -> None:
        """Close, open again, and find everything as it was."""
        self.backend.close()
        self.backend = self.make(self.place, text_of)
        assert self.backend.get(NAMES) == self.model.get(NAMES)
        for name in NAMES:
            assert self.backend.read(name, voided=True) == self.model.read(name, voided=True)
        assert self.backend.verify() == []


def _said(result: Head | Refused) -> object:
    """What of a commit's answer must agree: the head, or why it was refused and by what head."""
    return result if isinstance(result, Head) else (result.why, result.head)


def _place(hit: tuple[Ref, Entry]) -> tuple[Ref, int]:
    return hit[0], hit[1].seq
