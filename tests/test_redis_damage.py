"""Damage in Redis: flipped bits, lost keys, wrong lists. Each is named and hides nothing else; lists are repaired."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import holdfast
from faults.work import text_of
from holdfast import Store
from holdfast.backend import Repairing
from holdfast.errors import Corrupt, Invalid
from servers import redis as servers
from shell import Shell
from test_redis import prefix

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("redis")]

TAG = "{0}"


@pytest.fixture
def place(tmp_path: Path) -> str:
    return servers.shared().url(prefix=prefix(tmp_path))


@pytest.fixture
def store(place: str) -> Iterator[Store]:
    with holdfast.open(place) as opened:
        for id in ("a", "b", "c"):
            session = opened.create(id, user=f"u-{id}", name=f"n-{id}")
            session.append(*(holdfast.user(f"{id} text {n}") for n in range(5)), key="k")
        opened.session("c").remove_last()
        yield opened


@pytest.fixture
def client() -> Iterator[Any]:
    server = servers.shared()
    with server.client() as made:
        yield made


def key(store: Store, what: str) -> str:
    return f"{store.backend.info()['prefix']}:{TAG}:{what}"


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


def test_any_flipped_bit_of_a_head_is_named_and_hides_no_other(store: Store, place: str, client: Any) -> None:
    head = key(store, "head:session:b")
    whole = client.get(head)
    for at in range(0, len(whole), 7):
        client.set(head, flipped(whole, at))
        with holdfast.open(place) as other:
            assert [f.session for f in other.check().findings] == ["b"], at
            with pytest.raises(Corrupt):
                other.get("b")
            page = other.sessions()
            assert sorted(info.id for info in page) == ["a", "c"]
            assert list(page.damaged) == ["b"]
            assert [text_of(e) for e in other.get("b", damaged="keep").events()] == [f"b text {n}" for n in range(5)]
            with pytest.raises(Corrupt):
                other.session("b")
            assert len(other.search("text").items) == 9
            assert other.session("a").append(holdfast.user("goes on"), key="again").last == 6
    client.set(head, whole)
    with holdfast.open(place) as other:
        assert other.check().findings == ()


def test_a_damaged_head_can_be_deleted_and_no_number_comes_again(store: Store, place: str, client: Any) -> None:
    head = key(store, "head:session:b")
    client.set(head, flipped(client.get(head), 30))
    with holdfast.open(place) as other:
        other.delete("b")
        assert other.check().findings == ()
        assert other.backend.verify() == []
        assert other.create("b").append(holdfast.user("anew")).last == 6


@pytest.mark.parametrize("at", [0, 5, 12, 13, 20, -1])
def test_a_flipped_bit_of_an_event_is_named_and_hides_no_other(store: Store, place: str, client: Any, at: int) -> None:
    log = key(store, "log:session:b")
    record = client.hget(log, "3")
    client.hset(log, "3", flipped(record, at % len(record)))
    with holdfast.open(place) as other:
        assert {(f.session, f.seq) for f in other.check().findings} >= {("b", 3)}
        assert {f.session for f in other.check().findings} == {"b"}
        with pytest.raises(Corrupt):
            list(other.session("b").events())
        kept = list(other.session("b").events(damaged="keep"))
        assert [event.seq for event in kept] == [1, 2, 3, 4, 5]
        assert len(other.search("text").items) == 13
        assert other.session("b").append(holdfast.user("more")).last == 6


def _lost(field: str) -> Callable[[Store, Any], None]:
    return lambda store, client: client.hdel(key(store, "log:session:b"), field)


def _flipped(field: str) -> Callable[[Store, Any], None]:
    def flip(store: Store, client: Any) -> None:
        log = key(store, "log:session:b" if field != "v" else "log:session:c")
        client.hset(log, field, flipped(client.hget(log, field), 0))

    return flip


@pytest.mark.parametrize(
    ("damage", "session"),
    [
        (_lost("4"), "b"),
        (_lost("m"), "b"),
        (_flipped("m"), "b"),
        (_flipped("v"), "c"),
        (lambda store, client: client.hset(key(store, "log:session:b"), "iother", 3), "b"),
        (lambda store, client: client.delete(key(store, "log:session:b")), "b"),
        (lambda store, client: client.delete(key(store, "head:session:b")), "b"),
        (lambda store, client: client.rename(key(store, "log:session:a"), key(store, "log:session:b")), "b"),
    ],
)
def test_what_is_wrong_with_a_log_is_named(
    store: Store, place: str, client: Any, damage: Callable[[Store, Any], None], session: str
) -> None:
    damage(store, client)
    with holdfast.open(place) as other:
        assert session in {f.session for f in other.check().findings}
        assert "c" in {i.id for i in other.sessions()}
        if session == "b":
            assert len(list(other.session("c").events())) == 5


def test_the_bounds_of_a_log_can_be_told_by_what_is_there(store: Store, place: str, client: Any) -> None:
    _flipped("m")(store, client)
    with holdfast.open(place) as other:
        assert [event.seq for event in other.session("b").events()] == [1, 2, 3, 4, 5]


def at_place(client: Any, store: Store, id: str) -> bytes:
    return next(p for p in client.zrange(key(store, "at:session"), 0, -1) if p[9:] == id.encode())


@pytest.mark.parametrize("which", ["at", "id", "tag", "changed", "kinds", "all"])
def test_lists_that_lost_something_are_named_and_made_again(store: Store, place: str, client: Any, which: str) -> None:
    before = everything(store)
    for name in ("at:session", "id:session", "tag:session", "changed", "kinds"):
        if which == "all" or name.startswith(which):
            client.delete(key(store, name))
    with holdfast.open(place) as other:
        assert {f.session for f in other.check().findings} >= {"a", "b", "c"}
        report = other.check(repair=True)
        assert report.findings == ()
        assert report.repaired
        assert everything(other) == before
        assert other.check(repair=True).repaired == 0


def everything(store: Store) -> object:
    return (
        [info.id for info in store.sessions()],
        [[info.id for info in store.sessions(user=f"u-{id}")] for id in "abc"],
        sorted((hit.session, hit.event.seq) for hit in store.search("text").items),
        store.backend.kinds(),
    )


def test_places_that_are_nobodys_are_named_and_taken_away(store: Store, place: str, client: Any) -> None:
    place_of_b = at_place(client, store, "b")
    client.zadd(key(store, "at:session"), {b"l" + b"\xff" * 8 + b"b": 0, place_of_b[:9] + b"ghost": 0})
    client.zadd(key(store, "id:session"), {b"tb": 0})
    client.zadd(key(store, "tag:session"), {b"user\0u-x\0b": 0})
    with holdfast.open(place) as other:
        assert sorted(info.id for info in other.sessions()) == ["a", "b", "c"]
        assert list(other.sessions(user="u-x")) == []
        assert {"b", "ghost"} <= {f.session for f in other.check().findings}
        report = other.check(repair=True)
        assert (report.findings, report.repaired) == ((), 4)


def test_places_of_sessions_that_are_all_gone_are_taken_away(place: str, client: Any) -> None:
    with holdfast.open(place) as store:
        store.create("only", user="u").append(holdfast.user("text"))
        for what in ("head", "log"):
            client.delete(key(store, f"{what}:session:only"))
        assert {f.session for f in store.check().findings} == {"only"}
        report = store.check(repair=True)
        assert report.findings == ()
        assert report.repaired
        assert client.zcard(key(store, "at:session")) == 0


def test_places_that_stand_out_of_order_are_put_back(store: Store, place: str, client: Any) -> None:
    """A list is in the order of its bytes only while all of it has one score."""
    before = everything(store)
    client.zadd(key(store, "at:session"), {at_place(client, store, "b"): -1})
    client.zadd(key(store, "id:session"), {b"la": 5})
    with holdfast.open(place) as other:
        assert {f.session for f in other.check().findings} == {"a", "b"}
        report = other.check(repair=True)
        assert (report.findings, report.repaired) == ((), 2)
        assert everything(other) == before


@pytest.mark.parametrize(
    "which", ["at:session", "id:session", "tag:session", "changed", "kinds", "forgetting", "at:doc"]
)
def test_a_list_that_somebody_wrote_over_is_named_and_made_again(
    store: Store, place: str, client: Any, which: str
) -> None:
    store.documents.put("notes/a.json", {"n": 1})
    before = everything(store)
    client.delete(key(store, which))
    client.set(key(store, which), "by mistake")
    with holdfast.open(place) as other:
        report = other.check()
        assert any(which in finding.what and "check --repair" in finding.what for finding in report.findings)
        report = other.check(repair=True)
        assert report.findings == ()
        assert report.repaired
        assert everything(other) == before
        assert other.session("a").append(holdfast.user("goes on")).last == 6
        assert other.documents.get("notes/a.json").content == {"n": 1}


def test_a_write_that_meets_what_somebody_wrote_over_stores_nothing(store: Store, place: str, client: Any) -> None:
    client.delete(key(store, "at:session"))
    client.hset(key(store, "at:session"), "by", "mistake")
    with holdfast.open(place) as other:
        with pytest.raises(Corrupt, match="another type"):
            other.session("a").append(holdfast.user("lost"))
        with pytest.raises(Corrupt, match="another type"):
            other.create("d")
        with pytest.raises(Corrupt, match="another type"):
            other.sessions()
        assert other.check(repair=True).ok
        assert sorted(info.id for info in other.sessions()) == ["a", "b", "c"]
        assert other.session("a").last == 5


@pytest.mark.parametrize("what", ["head", "log"])
def test_a_session_that_somebody_wrote_over_is_named_and_hides_no_other(
    store: Store, place: str, client: Any, what: str
) -> None:
    client.delete(key(store, f"{what}:session:b"))
    client.rpush(key(store, f"{what}:session:b"), "by mistake")
    with holdfast.open(place) as other:
        report = other.check()
        assert "b" in {finding.session for finding in report.findings}
        assert not {"a", "c"} & {finding.session for finding in report.findings}
        assert report.sessions >= 2
        assert len(list(other.session("c").events())) == 5


@pytest.mark.parametrize("what", ["at:session", "id:session", "id:doc", "kinds", "head:session:b"])
def test_nothing_is_swept_while_somebody_has_written_over_what_says_what_is_needed(
    tmp_path: Path, client: Any, what: str
) -> None:
    with holdfast.open(servers.shared().url(prefix=prefix(tmp_path), blobs=f"file://{tmp_path}/blobs")) as store:
        store.session("b").append(holdfast.user("large " * 50_000))
        store.documents.put("notes/a.json", {"large": "value" * 50_000})
        blobs = store.large.blobs.scan()
        client.delete(key(store, what))
        client.hset(key(store, what), "by", "mistake")
        with contextlib.suppress(Corrupt):
            assert not store.check(sweep=True).ok
        assert store.large.blobs.scan() == blobs != []


def test_a_change_that_is_noted_anew_is_behind_all_others(store: Store, place: str, client: Any) -> None:
    """A reader who has passed a number looks for higher ones; a clock may have been set back."""
    changed = key(store, "changed")
    ahead = 2**52 - 10
    client.zadd(changed, {b"session\0c": ahead})
    client.zrem(changed, b"session\0b")
    store.check(repair=True)
    assert client.zscore(changed, b"session\0b") == ahead + 1


def test_the_command_repairs(store: Store, place: str, client: Any, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    client.delete(key(store, "at:session"))
    assert "check --repair" in shell("check", "--store", place).out
    assert "3 places in the lists made right" in shell.ok("check", "--repair", "--store", place).out


def test_only_what_has_lists_apart_is_repaired(tmp_path: Path) -> None:
    with holdfast.open(f"sqlite://{tmp_path}/s.db") as store:
        assert not isinstance(store.backend, Repairing)
        with pytest.raises(Invalid, match="no lists"):
            store.check(repair=True)


def test_a_log_that_begins_later_is_sound_to_whoever_meets_it_first(store: Store, place: str) -> None:
    store.delete("b")
    assert store.create("b").append(holdfast.user("text anew")).last > 5
    child = store.session("a").fork(id="child")
    child.append(holdfast.user("text of a fork"))
    with holdfast.open(place) as other:
        assert other.backend.verify() == []
        assert other.check().ok
    with holdfast.open(place) as other:
        assert len(other.search("text").items) == 11
        assert [event.seq for event in other.session("child").events()] == [1, 2, 3, 4, 5, 6]


def test_a_damaged_layout_is_not_believed(store: Store, place: str, client: Any) -> None:
    meta = store.backend.info()["prefix"] + ":store"
    whole = client.hget(meta, "layout")
    client.hset(meta, "layout", whole.replace(b"1 1 ", b"1 3 "))
    with pytest.raises(Corrupt, match="layout is damaged"):
        holdfast.open(place)
    client.hset(meta, "layout", whole)


def test_nothing_that_was_purged_is_left_in_the_servers_files(tmp_path: Path) -> None:
    server = servers.Redis().start()
    try:
        with holdfast.open(server.url()) as store:
            store.create("s").append(holdfast.user("secretive words"))
            store.create("t").append(holdfast.user("kept words"))
            assert "secretive" in str(store.session("s").events().__next__().payload)
            store.delete("s")
            store.compact()
            assert len(store.search("words").items) == 1
        files = [path.read_bytes() for path in server.place.rglob("*") if path.is_file() and path.name != "log"]
        assert any(b"head:session:t" in data for data in files)
        assert not any(b"log:session:s" in data for data in files)
    finally:
        server.stop()
