"""A store opened for one user: nothing of another's is seen or changed through it, by whatever call."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import inspect
import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import holdfast
from holdfast import (
    AsyncSession,
    AsyncStore,
    Corrupt,
    Denied,
    Documents,
    Event,
    Exists,
    HoldfastError,
    Invalid,
    NotFound,
    Policy,
    Session,
    Store,
    assistant,
    importer,
    tool_call,
    user,
)
from holdfast.adapters.a3s_sync import SyncSessionStore
from holdfast.adapters.oxios_sync import BlockingStateStore
from holdfast.adapters.zeroclaw import SessionBackend
from holdfast.artifacts.artifacts import Artifacts
from holdfast.bundle import read_bundle, write_bundle, write_documents
from holdfast.copies import copy_session
from holdfast.documents.doccopies import copy_document
from holdfast.documents.docheads import doc_ref
from holdfast.heads.info import SESSION, session_ref
from holdfast.history import branching
from holdfast.importer import import_files
from holdfast.log import Log
from holdfast.model import LargeRef, Message, Text
from holdfast.plan import Commit, Entry, Head
from holdfast.retention.prunes import PRUNE
from holdfast.retention.trash import Trash
from holdfast.storage import Storage
from holdfast.turns import keeping
from holdfast.upkeep import Upkeep
from holdfast.wrappers import ForUser
from rivals import wait_for
from shell import Shell

SECRET = "topsecret"
BIG = SECRET * 20_000
MARKS = (SECRET, "bobs-name", "bob-fork", "bobs-title", "bobs-label", "bobs-file")


def fill(store: Store) -> None:
    """What bob has, and a little of alice's and of nobody's."""
    bob = store.session("bob-1", user="bob", name="bobs-name", title="bobs-title", labels=["bobs-label"])
    bob.append(user(SECRET), assistant(tool_call("c1", "look", {})), user(BIG))
    bob.remove_last()
    bob.fork(id="bob-fork", name="bob-fork")
    running = store.session("bob-running", user="bob")
    running.set_state("running", turn="t")
    store.session("bob-deleted", user="bob").append(user(SECRET))
    store.delete("bob-deleted")
    hers = store.for_user("bob").documents
    hers.put("notes/x.md", SECRET)
    hers.put("notes/large.md", BIG)
    hers.put("agents/one.json", {"status": "Completed", "created_at": "2020-01-01T00:00:00Z", "name": SECRET})
    store.session("nobodys").append(user(SECRET))
    store.documents.put("notes/x.md", SECRET)
    store.session("alice-1", user="alice").append(user("hello"))


def fill_trash(store: Store) -> str:
    """More of bob's: artifacts, a session that he put into the trash, and one that his prune did; that prune."""
    bob = store.for_user("bob")
    for id in ("bob-1", "bob-away", "bob-pruned"):
        bob.session(id).artifacts.put("bobs-file", SECRET, tool="make")
    bob.trash.put("bob-away", why=SECRET)
    bob.session("bob-pruned").update(labels=["old"])
    prune = bob.prune(Policy(max_age=0, label="old")).apply().prune
    assert prune is not None
    return prune


def everything(store: Store) -> list[Any]:
    """All that a store holds of others than alice, in the trash or not."""
    backend = store.backend
    held: list[Any] = []
    for kind in (SESSION, "doc", "name", PRUNE):
        for head in (*backend.scan(kind, ""), *backend.scan(kind, "", trashed=True)):
            if head.tags.get("user") != "alice":
                held += [head, backend.read(head.ref, voided=True)]
    return held


def shown(value: Any) -> str:
    """All that an answer says."""
    if isinstance(value, Iterator):
        return shown(list(value))
    if isinstance(value, holdfast.Page):
        return shown([*value, value.cursor, value.damaged])
    if isinstance(value, Session):
        return shown([value.id, value._head])
    if isinstance(value, list | tuple):
        return " ".join(map(shown, value))
    if isinstance(value, io.IOBase):
        return shown(value.read())
    return repr(value)


def watched(view: Store) -> list[Any]:
    """What a watch tells from the beginning of time up to a change of alice's."""
    view.session("alice-1").append(user("now"))
    found = []
    for change in view.watch(since=1):
        found.append(change)
        if change.session == "alice-1":
            return found
    return found


def _outcome(call: Callable[[], Any]) -> Any:
    """What a call answers, or how it was refused; an error may say the id that it was given."""
    try:
        return call()
    except holdfast.HoldfastError as error:
        return type(error).__name__


APART = {"documents", "backup", "restore", "commit_in"}
"""What has a table, or tests, of its own: documents below, copies and what is inside a transaction elsewhere."""
ON_STORE: dict[str, Callable[[Store], Any]] = {
    "close": lambda view: view.close(),
    "for_user": lambda view: view.for_user("bob"),
    "session": lambda view: view.session("bob-1"),
    "create": lambda view: view.create("bob-1"),
    "get": lambda view: view.get("bob-1", damaged="keep"),
    "exists": lambda view: view.exists("bob-1"),
    "peek": lambda view: view.peek("bob-1"),
    "head": lambda view: view.head("bob-1"),
    "sessions": lambda view: [view.sessions(), view.sessions(user="bob"), view.sessions(name="bobs-name")],
    "search": lambda view: [view.search(SECRET), view.search(SECRET, user="bob"), view.search(SECRET, newest=True)],
    "index": lambda view: view.index(),
    "delete": lambda view: view.delete("bob-1"),
    "tree": lambda view: view.tree("bob-1"),
    "watch": watched,
    "position": lambda view: view.position(),
    "reader": lambda view: [_outcome(lambda: view.reader().get("bob-1")), view.reader().sessions()],
    "behind": lambda view: view.behind(),
    "replicas": lambda view: view.replicas(),
    "running": lambda view: view.running(),
    "stuck": lambda view: view.stuck(older_than=0),
    "recover": lambda view: [view.recover(older_than=0), view.recover("bob-running", older_than=0)],
    "check": lambda view: [view.check(), _outcome(lambda: view.check(sweep=True))],
    "usage": lambda view: [view.usage(by, user=u) for by in ("session", "model", "day") for u in (None, "bob")],
    "trash": lambda view: [
        view.trash.list(),
        *[_outcome(lambda id=id: view.trash.put(id)) for id in ("bob-1", "bob-running")],
        _outcome(lambda: view.trash.restore("bob-1")),
        view.trash.purge(older_than=0).left,
    ],
    "prune": lambda view: [
        view.prune(Policy(max_sessions=0, user=user, cooldown=cooldown)).apply()
        for user, cooldown in ((None, 3600), ("bob", 0))
    ],
    "prunes": lambda view: view.prunes(),
    "compact": lambda view: _outcome(view.compact),
    "text_of": lambda view: view.text_of(b'{"v":1,"type":"note","text":"x"}'),
    "resolve": lambda view: [view.resolve("@last"), view.resolve("bob")],
}
"""Each public method of a store, on what is bob's."""

ON_SESSION: dict[str, Callable[[Session], Any]] = {
    "info": lambda s: s.info(),
    "append": lambda s: s.append(user("x")),
    "events": lambda s: [e.raw for e in s.events(include_hidden=True, damaged="keep")],
    "messages": lambda s: s.messages(),
    "tail": lambda s: s.tail(after=0, follow=False),
    "before_last": lambda s: s.before_last(3),
    "update": lambda s: s.update(title="mine", name="mine", metadata={"a": 1}),
    "remove_last": lambda s: s.remove_last(),
    "rewind": lambda s: s.rewind(to=1),
    "clear": lambda s: s.clear(),
    "undo": lambda s: s.undo(),
    "fork": lambda s: s.fork(name="mine"),
    "turn": lambda s: s.turn().take(),
    "set_state": lambda s: s.set_state("running"),
    "delete": lambda s: s.delete(),
    "save": lambda s: s.save(user("x"), title="mine"),
    "stored": lambda s: s.stored(s.prepare([user("x")], None, None), None),
    "artifacts": lambda s: [s.artifacts.list(), _outcome(lambda: s.artifacts.put("x", b"x"))],
    "reports": lambda s: s.reports(),
    "tasks": lambda s: s.tasks(),
    "context": lambda s: s.context(max_tokens=1000),
    "compact": lambda s: s.compact("mine", upto=1),
    "validate": lambda s: s.validate(),
    "repair": lambda s: s.repair(),
}
"""Each public method of a session, were one of bob's in alice's hands."""
NO_CALLS = {"counted", "last", "prepare", "receipt", "decode", "asks_first"}
"""What asks no store."""

ON_DOCUMENTS: dict[str, Callable[[Documents], Any]] = {
    "put": lambda d: d.put("notes/x.md", "mine"),
    "write": lambda d: d.write("notes/large.md", b"mine"),
    "get": lambda d: d.get("notes/x.md"),
    "info": lambda d: d.info("notes/x.md"),
    "open": lambda d: d.open("notes/large.md"),
    "exists": lambda d: d.exists("notes/x.md"),
    "delete": lambda d: d.delete("notes/x.md"),
    "rename": lambda d: d.rename("notes/x.md", "notes/y.md"),
    "list": lambda d: [d.list(), d.list("notes")],
    "categories": lambda d: d.categories(),
    "prune_agents": lambda d: [d.prune_agents(max_count=0).apply(), d.prune_agents(max_count=0).items],
}


ON_TRASH: dict[str, tuple[Callable[[Trash, str], Any], str | None]] = {
    "list": (lambda t, prune: [t.list(), t.list(user="bob"), t.list(prune=prune)], None),
    "get": (lambda t, _: t.get("bob-away"), "Denied"),
    "put": (lambda t, _: t.put("bob-1"), "Denied"),
    "restore": (lambda t, _: t.restore("bob-away"), "Denied"),
    "undo": (lambda t, prune: t.undo(prune), "Denied"),
    "purge": (lambda t, _: [t.purge(older_than=0), _outcome(lambda: t.purge("bob-away", "bob-1"))], None),
}
"""Each public method of the trash, on what is bob's and the prune that he made; and how it is refused."""

ON_ARTIFACTS: dict[str, Callable[[Artifacts], Any]] = {
    "put": lambda a: a.put("bobs-file", "mine"),
    "list": lambda a: [a.list(), a.list(tool="make")],
    "stat": lambda a: a.stat("bobs-file"),
    "get": lambda a: a.get("bobs-file"),
    "read": lambda a: a.read("bobs-file"),
    "delete": lambda a: a.delete("bobs-file"),
}
"""Each public method of a session's artifacts, on what is bob's."""


def public(*classes: type) -> set[str]:
    return {name for cls in classes for name in vars(cls) if not name.startswith("_")}


def test_every_public_method_is_tried() -> None:
    assert set(ON_STORE) == public(Store, Upkeep, Storage) - APART
    assert set(ON_SESSION) == public(Session, Log) - NO_CALLS
    assert set(ON_DOCUMENTS) == public(Documents)
    assert set(ON_TRASH) == public(Trash)
    assert set(ON_ARTIFACTS) == public(Artifacts)


def tried(store: Store, call: Callable[[Store], Any], given: str = "bob-1") -> str | None:
    """How a call through alice's view failed, if it did; bob's things are as they were, and nothing told of them.

    An error may say the id that the caller gave.
    """
    before = everything(store)
    view = store.for_user("alice")
    failed = None
    try:
        said = shown(call(view))
    except (HoldfastError, StopIteration) as error:
        failed = type(error).__name__
        said = f"{error} {getattr(error, 'facts', '')}"
    assert [mark for mark in (*MARKS, "nobodys") if mark in said and mark != given] == []
    assert failed is not None or "bob" not in said
    assert everything(store) == before
    return failed


DENIED = {"for_user", "session", "create", "get", "exists", "peek", "head", "delete", "tree", "recover"}
"""Methods whose case names bob's by its exact id, at the end."""


@pytest.mark.parametrize("name", ON_STORE)
def test_a_store_shows_and_changes_nothing_of_others(store: Store, name: str) -> None:
    fill(store)
    failed = tried(store, ON_STORE[name])
    assert failed == ("Denied" if name in DENIED else "NotFound" if name == "resolve" else None)


@pytest.mark.parametrize("id", ["bob-1", "bob-fork", "bob-running", "nobodys"])
@pytest.mark.parametrize("name", ON_SESSION)
def test_a_session_of_another_does_nothing(store: Store, name: str, id: str) -> None:
    fill(store)
    head = store.head(id)
    for known in (head, Head(session_ref(id))):  # what somebody else knows of it, or nothing

        def call(view: Store, known: Head = known) -> Any:
            return ON_SESSION[name](Session(view, known))

        assert tried(store, call, id) == "Denied"


def test_a_turn_in_a_session_of_another_never_begins(store: Store) -> None:
    fill(store)
    before = everything(store)
    turn = Session(store.for_user("alice"), store.head("bob-1")).turn()
    with pytest.raises(Denied), turn:
        pass
    assert everything(store) == before


@pytest.mark.parametrize("name", ON_DOCUMENTS)
def test_documents_of_others_are_neither_seen_nor_changed(store: Store, name: str) -> None:
    fill(store)
    tried(store, lambda view: ON_DOCUMENTS[name](view.documents))
    assert store.for_user("bob").documents.get("notes/x.md").text == SECRET  # type: ignore[union-attr]  # it is there


@pytest.mark.parametrize("name", ON_TRASH)
def test_the_trash_of_others_is_neither_seen_nor_changed(store: Store, name: str) -> None:
    fill(store)
    prune = fill_trash(store)
    call, refused = ON_TRASH[name]
    assert tried(store, lambda view: call(view.trash, prune)) == refused
    bob = store.for_user("bob")
    assert {one.session.id for one in bob.trash.list()} == {"bob-away", "bob-pruned"}
    assert bob.trash.undo(prune).restored == ("bob-pruned",)  # which shows that she named what is there


@pytest.mark.parametrize("id", ["bob-1", "bob-away"])
@pytest.mark.parametrize("name", ON_ARTIFACTS)
def test_artifacts_of_others_are_neither_seen_nor_changed(store: Store, name: str, id: str) -> None:
    fill(store)
    fill_trash(store)
    bobs = store.for_user("bob").trash.get(id) or store.for_user("bob").session(id)
    for known in (bobs._head, Head(session_ref(id))):  # what somebody else knows of it, or nothing

        def call(view: Store, known: Head = known) -> Any:
            return ON_ARTIFACTS[name](Session(view, known).artifacts)

        assert tried(store, call, id) == "Denied"
    assert bobs.artifacts.get("bobs-file") == SECRET.encode()  # it is there


def test_each_user_has_documents_of_her_own(store: Store) -> None:
    alice, bob = store.for_user("alice").documents, store.for_user("bob").documents
    for documents, text in ((alice, "a"), (bob, "b"), (store.documents, "s")):
        assert documents.put("notes/x.md", text, rev=0).rev == 1
    assert [d.get("notes/x.md").text for d in (alice, bob, store.documents)] == ["a", "b", "s"]  # type: ignore[union-attr]  # there
    assert [[i.user for i in d.list()] for d in (alice, bob, store.documents)] == [["alice"], ["bob"], [None]]
    assert bob.delete("notes/x.md")
    assert alice.exists("notes/x.md")


@pytest.mark.parametrize("owner", ["a:b", "a%3Ab", "a", "a/b", "%", "ü:"])
def test_owners_that_look_alike_share_nothing(store: Store, owner: str) -> None:
    others = [name for name in ("a:b", "a%3Ab", "a", "a/b", "%", "ü:") if name != owner]
    store.for_user(owner).documents.put("b/n.md", owner)
    store.for_user(owner).documents.put("notes/b:n.md", owner)
    for other in others:
        assert list(store.for_user(other).documents.list()) == []
        assert store.for_user(other).documents.get("b/n.md") is None
    assert list(store.documents.list()) == []
    assert {i.user for i in store.for_user(owner).documents.list()} == {owner}
    assert doc_ref(owner, "b/n.md") != doc_ref(None, f"{owner}:b/n.md")


def test_what_she_creates_is_hers(store: Store) -> None:
    view = store.for_user("alice")
    assert view.user == "alice"
    for session in (view.session("s1"), view.create(), view.session("s1").fork(), view.session(user="alice")):
        assert session.info().user == "alice"
    assert {i.id for i in store.sessions()} == {i.id for i in view.sessions()}
    assert view.for_user("alice").session("s1").id == "s1"
    for call in (
        lambda: view.session("new", user="bob"),
        lambda: view.create(user="bob"),
        lambda: view.session("s1", user="bob"),
    ):
        with pytest.raises(Denied):
            call()
    assert not store.exists("new")
    with pytest.raises(Invalid):
        store.for_user("")


def test_the_head_can_be_given_to_nobody(store: Store) -> None:
    view = store.for_user("alice")
    view.session("s")
    for tags in ({"user": "bob"}, {"user": None, "title": "t"}):
        commit = Commit(ref=session_ref("s"), tags=tags)
        with contextlib.suppress(Denied):
            view.batcher.commit(commit)
        assert store.head("s").tags["user"] == "alice"


def test_she_does_all_that_a_store_can(store: Store) -> None:
    fill(store)
    view = store.for_user("alice")
    session = view.session("mine", name="mine")
    session.append(user("first words"), user("y" * 3_000_000), key="k")
    assert session.append(user("first words"), user("y" * 3_000_000), key="k").repeated
    assert [len(m.text) for m in view.for_user("alice").resolve("mine").messages()] == [11, 3_000_000]
    session.rewind(to=1)
    session.undo()
    fork = session.fork(at=1)
    assert [hit.session for hit in view.search("words")] == ["mine"]
    assert [hit.session for hit in view.search("words", session=fork.id)] == ["mine"]
    with session.turn() as turn:
        turn.append(assistant("in a turn"))
        assert [lease.session for lease in view.running()] == ["mine"]
    assert view.tree("mine").forks[0].session.id == fork.id
    report = view.check()
    assert (report.ok, report.sessions) == (True, 3)
    fork.delete()
    session.delete()
    assert view.create("mine").info().user == "alice"  # over the tombstone
    assert [i.id for i in view.sessions()] == ["mine", "alice-1"]


@pytest.mark.parametrize("call", ["fork", "delete"])
def test_a_fork_that_was_to_take_anothers_id_holds_nothing_up(store: Store, call: str) -> None:
    """Interrupted between pin and child: the pin names an id that is bob's."""
    fill(store)
    view = store.for_user("alice")
    with pytest.raises(Denied):
        view.session("alice-1").fork(id="bob-1")
    pin = {branching._pin("bob-1"): "bob-1", branching.MARK: "m"}
    store.batcher.commit(Commit(ref=session_ref("alice-1"), tags=pin))
    before = everything(store)
    if call == "fork":
        assert view.session("alice-1").fork(id="mine").info().user == "alice"
        assert branching.pins(view.head("alice-1")) == {}
    else:
        view.delete("alice-1")
    assert everything(store) == before


def test_the_start_of_an_id_finds_only_hers(store: Store) -> None:
    store.session("abc-1", user="bob")
    store.session("abd", user="alice")
    assert store.for_user("alice").resolve("ab").id == "abd"
    with pytest.raises(Invalid, match="could be"):
        store.resolve("ab")
    with pytest.raises(NotFound):
        store.for_user("alice").resolve("abc")
    with pytest.raises(NotFound):
        store.for_user("carol").resolve("@last")


def test_a_deleted_session_is_told_to_its_owner_only(store: Store) -> None:
    for name in ("alice", "bob"):
        store.session(f"{name}-s", user=name).append(user("x"))
    alice = store.for_user("alice")
    stream = alice.watch(since=1)
    assert next(stream).session == "alice-s"
    store.delete("bob-s")
    store.delete("alice-s")
    change = next(stream)
    assert (change.session, change.deleted) == ("alice-s", True)
    stream.close()


def test_one_session_of_another_is_not_checked(store: Store) -> None:
    fill(store)
    assert tried(store, lambda view: view.check(session="bob-1")) == "Denied"


def test_the_engine_tells_a_view_of_her_changes_only(store: Store) -> None:
    fill(store)
    backend = store.for_user("alice").backend
    position, _ = backend.changed()
    store.session("bob-1").append(user(SECRET))
    store.session("alice-1").append(user("x"))
    assert backend.changed(position)[1] == [session_ref("alice-1")]
    assert set(backend.info()) <= {"engine", "library", "durability"}
    assert backend.verify() == []


@pytest.mark.parametrize("method", ["commit", "get", "read", "find", "scan", "search"])
def test_a_view_that_forgets_the_rule_in_one_method_is_caught(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above can fail: with one method of the wrapper passing through, some case ends in another way."""

    def outcome(case: Callable[[Store], Any]) -> str | None:
        with holdfast.open("memory://") as store:
            fill(store)
            try:
                return tried(store, case)
            except AssertionError:
                return "leaked"

    def forget(self: ForUser, *args: Any, **how: Any) -> Any:
        return getattr(self._inner, method)(*args, **how)

    cases = list(ON_STORE.values())
    cases += [lambda view, do=do: do(Session(view, Head(session_ref("bob-1")))) for do in ON_SESSION.values()]
    right = [outcome(case) for case in cases]
    assert "leaked" not in right
    monkeypatch.setattr(ForUser, method, forget)
    assert [outcome(case) for case in cases] != right


# --- Blobs ---


def guessed(store: Store) -> LargeRef:
    """The reference to a value of bob's, which alice knows by some accident."""
    store.session("b", user="bob").append(user(BIG))
    (message,) = store.session("b").messages()
    assert isinstance(message, Message)
    part = message.parts[0]
    assert isinstance(part, Text)
    ref = part.content.ref  # type: ignore[union-attr]  # it is large
    assert ref is not None
    return ref


def test_a_digest_is_not_enough_to_have_the_bytes(store: Store) -> None:
    ref = guessed(store)
    view = store.for_user("alice")
    assert view.backend.blobs.get(ref.sha256) is None
    assert view.backend.blobs.scan() == []
    with pytest.raises(Denied):
        view.backend.blobs.delete(ref.sha256)
    session = view.session("s")
    crafted = Message(role="user", parts=(Text(content="", large={"content": ref}),))
    body = b'{"v":1,"type":"message","role":"user","parts":[{"type":"text","content":"","\\u006carge":{"content":%s}}]}'
    raw = body % msgspec.json.encode(ref)
    for event in (crafted, Event(payload=user("x"), raw=raw)):
        with pytest.raises(Denied, match="without giving them"):
            session.append(event)
    assert session.info().last == 0
    store.session("s").append(Event(payload=user("x"), raw=raw))  # the whole store may
    assert view.session("s").messages()[0].text == BIG  # and what stands in her session is hers to read


def test_a_list_of_chunks_that_were_guessed_is_refused(store: Store) -> None:
    ref = guessed(store)
    view = store.for_user("alice")
    listed = json.dumps([ref.sha256]).encode()
    digest = hashlib.sha256(listed).hexdigest()
    view.backend.blobs.put(digest, listed)
    forged = LargeRef(sha256="0" * 64, size=ref.size, form="text", manifest=f"{digest}:{len(listed)}:"[:64])
    crafted = Message(role="user", parts=(Text(content="", large={"content": forged}),))
    with pytest.raises(Denied, match=ref.sha256):
        view.session("s").append(crafted)


def test_a_bundle_brings_no_guessed_bytes(store: Store) -> None:
    ref = guessed(store)
    with holdfast.open("memory://") as own:
        body = b'{"v":1,"large":%s}' % msgspec.json.encode(ref)
        tags = {"user": "alice", "category": "n", "created": "1", "size": str(ref.size)}
        own.backend.commit([Commit(ref=doc_ref("alice", "n/x.md"), at=1, if_rev=0, tags=tags, body=body)])
        lines = [line for line in write_documents(own) if b'"blob"' not in line]
        (told,) = read_bundle(store.for_user("alice"), lines)
    assert isinstance(told.error, Denied | Corrupt)
    assert store.for_user("alice").documents.get("n/x.md") is None


def test_equal_bytes_are_shared_and_known_to_both(store: Store) -> None:
    for name in ("alice", "bob"):
        store.for_user(name).session(name).append(user(BIG))
    for name in ("alice", "bob"):
        assert store.for_user(name).session(name).messages()[0].text == BIG


def test_a_lineage_that_leads_to_another_is_denied(store: Store) -> None:
    fill(store)
    view = store.for_user("alice")
    view.batcher.commit(Commit(ref=session_ref("evil"), if_rev=0, base=2, tags={"forked": "bob-1", "created": "1"}))
    for call in (
        lambda: view.session("evil").messages(),
        lambda: view.tree("evil"),
        lambda: list(write_bundle(view, ["evil"])),
        lambda: view.search(SECRET, session="evil"),
    ):
        with pytest.raises(Denied):
            call()


def test_a_log_that_came_under_the_same_id_is_not_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look whose it is and the read, alice's session is deleted and bob begins one with its id."""
    view = store.for_user("alice")
    view.session("s").append(user("hers"))
    backend = view.backend
    assert isinstance(backend, ForUser)
    read = backend._inner.read

    def late(*args: Any, **how: Any) -> list[Entry]:
        monkeypatch.setattr(backend._inner, "read", read)
        store.delete("s")
        store.create("s", user="bob").append(user(SECRET))
        return read(*args, **how)

    monkeypatch.setattr(backend._inner, "read", late)
    assert backend.read(session_ref("s"), voided=True) == []


# --- Out and in ---


def test_export_and_copy_take_only_hers(store: Store) -> None:
    fill(store)
    view = store.for_user("alice")
    view.documents.put("notes/mine.md", "mine")
    with pytest.raises(Denied):
        list(write_bundle(view, ["bob-1"]))
    assert SECRET.encode() not in b"".join(write_documents(view))
    with holdfast.open("memory://") as target:
        with pytest.raises(Denied):
            copy_session(view, target, "bob-1")
        with pytest.raises(Denied):
            copy_document(view, target, doc_ref("bob", "notes/x.md"))
        assert copy_session(view, target, "alice-1").new == 1
        assert copy_document(view, target, doc_ref("alice", "notes/mine.md")).new == 1


def test_nothing_of_others_comes_into_her_store(store: Store, tmp_path: Path) -> None:
    with holdfast.open(f"sqlite://{tmp_path}/other.db") as other:
        fill(other)
        ids = ["bob-1", "nobodys", "alice-1"]
        lines = [*write_bundle(other, ids), *write_documents(other)]
    view = store.for_user("alice")
    told = list(read_bundle(view, lines))
    assert [(one.session, type(one.error)) for one in told if one.session] == [
        ("bob-1", Denied),
        ("nobodys", Denied),
        ("alice-1", type(None)),
    ]
    assert {type(one.error) for one in told if one.document} == {Denied}
    assert [i.id for i in store.sessions()] == ["alice-1"]
    assert import_files(view, []).files == []


def test_a_damaged_head_is_nobodys(tmp_path: Path) -> None:
    import sqlite3
    from contextlib import closing

    with holdfast.open(f"sqlite://{tmp_path}/store.db") as store:
        store.session("s", user="alice").append(user("x"))
    with closing(sqlite3.connect(tmp_path / "store.db")) as db, db:
        db.execute("UPDATE head SET body = x'00'")
    with holdfast.open(f"sqlite://{tmp_path}/store.db") as store:
        view = store.for_user("alice")
        assert list(view.sessions()) == []
        assert view.sessions().damaged == ()
        assert view.check().findings == ()
        with pytest.raises(holdfast.Corrupt):
            view.session("s")
        session = Session(view, Head(session_ref("s")))
        for call in (session.messages, session.delete, lambda: view.get("s", damaged="keep")):
            with pytest.raises(Denied):
                call()
        assert store.get("s", damaged="keep") is not None
        assert not store.check().ok


# --- Asyncio and concurrency ---


def test_the_asynchronous_store_is_opened_for_one_user(url: str) -> None:
    async def main() -> None:
        async with holdfast.aopen(url) as store:
            bob = store.for_user("bob")
            assert isinstance(bob, AsyncStore)
            session = await bob.session("b")
            assert isinstance(session, AsyncSession)
            await session.append(user(SECRET))
            await bob.documents.put("n/x.md", SECRET)
            alice = store.for_user("alice")
            assert (alice.user, store.user) == ("alice", None)
            for call in (alice.get("b"), alice.delete("b"), alice.tree("b"), alice.session("b")):
                with pytest.raises(Denied):
                    await call
            assert list(await alice.search(SECRET)) == []
            assert await alice.documents.get("n/x.md") is None
            assert list(await alice.documents.list()) == []
            with pytest.raises(Denied):
                alice.for_user("bob")
            await alice.close()
            assert (await store.documents.get("n/x.md")) is None
            assert [m.text for m in await session.messages()] == [SECRET]

    asyncio.run(main())


def test_many_users_write_at_once(url: str) -> None:
    async def main() -> None:
        async with holdfast.aopen(url) as store:
            views = [store.for_user(f"u{n}") for n in range(16)]

            async def work(view: AsyncStore) -> None:
                session = await view.session(f"s-{view.user}", name="same name for all")
                await asyncio.gather(*(session.append(user(f"{view.user} {n}")) for n in range(10)))

            await asyncio.gather(*map(work, views))
            for view in views:
                assert [i.id for i in await view.sessions()] == [f"s-{view.user}"]
                assert len(list(await view.search(str(view.user)))) == 10
                assert (await view.resolve("same name for all")).id == f"s-{view.user}"
            assert (await store.check()).ok

    asyncio.run(main())


def has_moved(store: Store, id: str, rev: int) -> bool:
    return store.head(id).rev > rev


def test_closing_the_store_ends_what_its_views_began(store: Store) -> None:
    turn = store.for_user("alice").for_user("alice").session("s").turn(ttl=60).take()
    assert "holdfast-turns" in [thread.name for thread in threading.enumerate()]
    store.close()
    assert "holdfast-turns" not in [thread.name for thread in threading.enumerate()]
    assert turn.id == "s"


def test_a_view_of_each_request_keeps_no_thread(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "LINGER", 0.01)
    ended = [store.for_user(f"u{n}") for n in range(5)]
    for view in ended:
        with view.session(f"of {view.user}").turn(ttl=0.1):
            pass
        for thread in [it for it in threading.enumerate() if it.name == "holdfast-turns"]:
            thread.join(10)
            assert not thread.is_alive()
        with view.session(f"of {view.user}").turn(ttl=0.1) as turn:  # another is started, and sends heartbeats
            begun = store.head(turn.id).rev
            wait_for(store, functools.partial(has_moved, store, turn.id, begun))


def test_an_id_is_one_sessions_whoever_asks(store: Store) -> None:
    store.for_user("alice").create("x")
    with pytest.raises(Denied):
        store.for_user("bob").create("x")
    with pytest.raises(Exists):
        store.for_user("alice").create("x")
    assert store.head("x").tags["user"] == "alice"


def test_a_store_is_closed_while_views_of_it_are_made() -> None:
    before = sys.getswitchinterval()
    stores = [holdfast.open("memory://") for _ in range(30)]
    kept = [store.for_user("ann") for store in stores for _ in range(200)]
    failed: list[BaseException] = []
    closed = threading.Event()

    def make() -> None:
        try:
            while not closed.is_set():
                kept.extend(store.for_user("ann") for store in stores)
        except BaseException as error:
            failed.append(error)

    maker = threading.Thread(target=make)
    maker.start()
    try:
        sys.setswitchinterval(1e-6)
        for store in stores:
            store.close()
    finally:
        sys.setswitchinterval(before)
        closed.set()
        maker.join()
    assert not failed


def takes_user(of: object) -> set[str]:
    """The public functions of a class or module that take a user, by name."""
    named = {name: f for name, f in vars(of).items() if name[0] != "_" or name == "__init__"}
    return {name for name, f in named.items() if inspect.isfunction(f) and "user" in inspect.signature(f).parameters}


EMPTY: dict[str, Callable[[Store], object]] = {
    "Store.create": lambda store: store.create("new", user=""),
    "Store.session": lambda store: store.session("hers", user=""),
    "Store.session by name": lambda store: store.session(name="hers", user=""),
    "Store.sessions": lambda store: store.sessions(user=""),
    "Store.search": lambda store: store.search("secret", user=""),
    "Store.usage": lambda store: store.usage(user=""),
    "Store.for_user": lambda store: store.for_user(""),
    "Trash.list": lambda store: store.trash.list(user=""),
    "Policy": lambda _: Policy(user=""),
    "import_files": lambda store: import_files(store, [], user=""),
    "adapters.a3s": lambda store: SyncSessionStore(store, user=""),
    "adapters.oxios": lambda store: BlockingStateStore(store, user=""),
    "adapters.zeroclaw": lambda store: SessionBackend(store, user=""),
}


@pytest.mark.parametrize("call", EMPTY.values(), ids=list(EMPTY))
def test_an_empty_user_is_a_mistake_that_is_told(store: Store, call: Callable[[Store], object]) -> None:
    store.session("hers", user="alice", name="hers").append(user("a secret"))
    with pytest.raises(Invalid, match="user is empty"):
        call(store)
    assert [info.id for info in store.sessions()] == ["hers"]


def test_every_call_that_takes_a_user_is_among_them() -> None:
    methods = {f"Store.{name}" for name in takes_user(Store) - {"__init__"}} | {
        f"Trash.{name}" for name in takes_user(Trash)
    }
    assert methods <= set(EMPTY)
    assert {name for name in takes_user(importer) if getattr(importer, name).__module__ == importer.__name__} == {
        "import_files"
    }
    assert takes_user(AsyncStore) - {"__init__"} == takes_user(Store) - {"__init__"}  # which it asks


def test_the_command_refuses_an_empty_user_but_not_an_empty_variable(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.ok("session", "new", "hers", "--user", "alice")
    for words in (
        ("--user", "", "session", "list"),
        ("session", "list", "--user", ""),
        ("session", "new", "--user", ""),
    ):
        done = shell(*words)
        assert done.code != 0
        assert "the user is empty" in done.err
    assert shell("append", "hers", "--create", "--user", "", "hi").code != 0
    shell.env["HOLDFAST_USER"] = ""
    assert "hers" in shell.ok("session", "list").out
