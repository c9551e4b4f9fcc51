"""What a session is called and whose it is: titles, labels, projects, agents, parents and children."""

from __future__ import annotations

import pytest

import holdfast
from holdfast import Invalid, Store, TooLarge, assistant, system, text, user
from holdfast.heads.info import session_ref
from holdfast.plan import Commit

# --- Titles: O21 of oxios counted bytes, and took "" from a text that began with a newline. ---

TITLES = {
    "short": "short",
    "x" * 60: "x" * 60,
    "x" * 61: "x" * 59 + "…",
    "가" * 60: "가" * 60,
    "가" * 61: "가" * 59 + "…",
    "\n\n  \t\nfirst line\nsecond": "first line",
    "\r\nwindows\r\nlines": "windows",
    "  much \t space  inside ": "much space inside",
    "👩‍👩‍👧" * 30: ("👩‍👩‍👧" * 30)[:59] + "…",
    "a\0b \ud800": "a\ufffdb ?",
    "\u2028\u2028line separators": "line separators",
}


@pytest.mark.parametrize("said", TITLES, ids=repr)
def test_a_title_is_the_first_line_of_the_first_user_message(store: Store, said: str) -> None:
    session = store.session("s")
    session.append(system("Be brief."), assistant("Hello."))
    assert session.info().title is None
    session.append(user(said), user("another"))
    assert session.info().title == TITLES[said]
    assert len(session.info().title or "") <= 60
    session.append(user("later"))
    assert session.info().title == TITLES[said]


def test_a_message_without_text_gives_no_title_and_the_next_does(store: Store) -> None:
    session = store.session("s")
    session.append(user(" \n \n"))
    assert session.info().title is None
    session.append(user(text(""), text("\nsecond part")))
    assert session.info().title == "second part"


def test_a_title_that_was_given_stays(store: Store) -> None:
    session = store.session("s", title="given")
    session.append(user("said"))
    assert session.info().title == "given"
    session.update(title=None)
    store.session("s").append(user("said later"))
    assert session.info().title == "said later"


def test_a_title_comes_from_a_large_message_too(store: Store) -> None:
    store.session("s").append(user("first line\n" + "x" * 200_000))
    assert store.session("s").info().title == "first line"


# --- Labels, projects, agents ---


def test_labels_are_added_taken_away_and_found(store: Store) -> None:
    for id, labels in (("a", ["starred", "x"]), ("b", ["x"]), ("c", [])):
        store.session(id, labels=labels)
    assert [i.id for i in store.sessions(label="starred")] == ["a"]
    assert sorted(i.id for i in store.sessions(label="x")) == ["a", "b"]
    store.session("c").update(labels=["starred"])
    store.session("a").update(labels={"starred": False, "new": True})
    assert [i.id for i in store.sessions(label="starred")] == ["c"]
    assert store.session("a").info().labels == ("new", "x")
    store.session("a").update(labels={"never there": False})
    for bad in ("", "a\nb", "\ud800"):
        with pytest.raises(Invalid):
            store.session("a").update(labels=[bad])
    with pytest.raises(TooLarge):
        store.session("a").update(labels=["x" * 600])


def test_exact_labels_of_every_look(store: Store) -> None:
    labels = ["A", "a", "a ", "é", "e\u0301", "label:x", "a/b", "a:b", "%"]
    store.session("s", labels=labels)
    assert store.session("s").info().labels == tuple(sorted(labels))
    for label in labels:
        assert [i.id for i in store.sessions(label=label)] == ["s"]
    assert list(store.sessions(label="a  ")) == []


def test_projects_agents_and_users_filter_together(store: Store) -> None:
    for number, (who, agent, project) in enumerate(
        [("ann", "coder", "p1"), ("ann", "helper", "p1"), ("bob", "coder", "p2"), ("bob", "coder", "p1")]
    ):
        store.session(f"s{number}", user=who, agent=agent, project=project).append(user("word"))
    assert [i.id for i in store.sessions(project="p1", agent="coder")] == ["s3", "s0"]
    assert [i.id for i in store.sessions(project="p1", agent="coder", user="ann")] == ["s0"]
    assert [i.id for i in store.for_user("bob").sessions(project="p1")] == ["s3"]
    assert {hit.session for hit in store.search("word", project="p1", agent="coder")} == {"s0", "s3"}
    store.session("s0").update(project="p2", agent=None)
    assert sorted(i.id for i in store.sessions(project="p2")) == ["s0", "s2"]
    assert store.session("s0").info().agent is None
    assert list(store.sessions(project="a,p1")) == []  # one project, not a list in a text


def test_children_are_found_by_their_parent(store: Store) -> None:
    parent = store.session("p", user="ann")
    parent.append(user("x"))
    child = store.session("c", user="ann", parent="p", agent="helper")
    fork = parent.fork(id="f")
    assert sorted(i.id for i in store.sessions(parent="p")) == ["c", "f"]
    assert child.info().parent == fork.info().parent == "p"
    assert (child.info().agent, fork.info().user) == ("helper", "ann")
    child.update(parent=None)
    assert [i.id for i in store.for_user("ann").sessions(parent="p")] == ["f"]
    # A parent is a statement: it may be told before that one is there, and stays when it was deleted.
    early = store.session("early", parent="comes-later")
    assert early.info().parent == "comes-later"
    fork.delete()
    parent.delete()
    assert store.get("p") is None


def test_what_a_fork_takes_over(store: Store) -> None:
    session = store.session("s", user="ann", agent="a", project="p", labels=["starred"], title="t", name="n")
    session.append(user("x"))
    told = session.fork().info()
    assert (told.user, told.agent, told.project, told.title) == ("ann", "a", "p", "t")
    assert (told.labels, told.name) == ((), None)
    assert holdfast.SessionInfo(id="x").labels == ()


def test_a_fork_takes_over_fields_that_this_version_does_not_know(store: Store) -> None:
    session = store.session("s", metadata={"k": 1}, config={"model": "m"})
    session.append(user("x"))
    later = b'{"v":1,"metadata":{"k":1},"config":{"model":"m"},"later":{"n":12345678901234567890123}}'
    store.backend.commit([Commit(ref=session_ref("s"), body=later)])
    fork = session.fork()
    assert store.head(fork.id).body == later
    session.update(title="t", metadata={"l": 2})
    assert b'"later":{"n":12345678901234567890123}' in store.head("s").body
