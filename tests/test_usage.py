"""Usage: each response counts once, and totals are right whatever became of the sessions."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

import holdfast
from holdfast import Event, Invalid, KeyReused, Price, Store, Usage, UsageTotal, note, priced, usage, usd, user
from holdfast.codec import encode_json
from holdfast.model import to_micros
from holdfast.plan import Commit, Entry, Ref

DAY = 86_400_000_000
START = to_micros(datetime(2026, 8, 1, 12, tzinfo=UTC))


def calls(session: holdfast.Session) -> tuple[int, int]:
    counts = session.info().counts
    return counts.calls, counts.input_tokens


def stored(session: holdfast.Session) -> list[bool]:
    """Of each usage event, whether it says that its response was counted before."""
    payloads = [event.payload for event in session.events(types="usage")]
    return [payload.repeated for payload in payloads if isinstance(payload, Usage)]


def total(store: Store, by: str = "session", **filters: object) -> dict[str, int]:
    found = store.usage(by, **filters)  # type: ignore[arg-type]
    assert found.total.input_tokens == sum(t.input_tokens for t in found.totals)
    return {t.key: t.input_tokens for t in found.totals}


# --- Each response once ---


def test_a_response_counts_once(store: Store) -> None:
    session = store.session("s")
    first = session.append(usage("m", 10, 1, response_id="r1"))
    again = session.append(usage("m", 10, 1, response_id="r1"))
    assert (again.first, again.repeated) == (first.first, True)
    # Other content, and so another event: it is stored, and does not count.
    other = session.append(user("Hi"), usage("m", 99, 1, response_id="r1"))
    assert (other.first, other.last, other.repeated) == (2, 3, False)
    session.append(usage("m", 5, 1, response_id="r2"), usage("m", 6, 1, response_id="r2"))
    session.append(usage("m", 7), usage("m", 7))  # without an id each is one of its own
    assert (stored(session), calls(session)) == ([False, True, False, True, False, False], (4, 29))
    assert store.check().ok
    assert total(store) == {"s": 29}


def test_a_repeated_batch_is_known_by_its_responses(store: Store) -> None:
    session = store.session("s")
    batch = (user("Hi"), usage("m", 10, response_id="r1"))
    assert not session.append(*batch).repeated
    assert session.append(*batch).repeated
    assert session.append(user("Hi"), usage("m", 10, response_id="r1"), note("more")).first == 3
    assert calls(session) == (1, 10)


def test_a_key_is_kept_beside_responses(store: Store) -> None:
    session = store.session("s")
    session.append(usage("m", 10, response_id="r1"))
    batch = (usage("m", 11, response_id="r1"), user("Hi"), usage("m", 12, response_id="r2"))
    assert session.append(*batch, key="k").last == 4
    assert session.append(*batch, key="k").repeated
    assert calls(session) == (2, 22)
    with pytest.raises(KeyReused):
        session.append(user("Other"), key="k")
    with pytest.raises(Invalid, match="leave the key out"):
        session.append(usage("m", 1, response_id="r3"), key="k3")
    session.append(Event(payload=usage("m", 1, response_id="r1"), id="mine"))  # named by who wrote it
    assert calls(session) == (3, 23)
    assert store.check().ok


def test_a_fork_counts_what_its_parent_counted_once(store: Store) -> None:
    session = store.session("s")
    session.append(user("Hi"), usage("m", 10, response_id="r1"), note("n"))
    fork = session.fork(at=2)
    early = session.fork(at=1)
    assert fork.append(usage("m", 10, response_id="r1")).repeated
    fork.append(usage("m", 20, response_id="r1"), usage("m", 3, response_id="r2"))
    early.append(usage("m", 4, response_id="r1"))
    assert (calls(fork), calls(early), calls(session)) == ((2, 13), (1, 4), (1, 10))
    assert store.check().ok
    assert total(store) == {"s": 10, fork.id: 3, early.id: 4}  # nothing twice
    assert calls(fork.fork(at=fork.last)) == (2, 13)


def test_what_is_taken_back_was_spent(store: Store) -> None:
    session = store.session("s")
    session.append(usage("m", 10, response_id="r1"))
    session.clear()
    assert session.append(usage("m", 11, response_id="r1")).first == 3
    assert calls(session) == (1, 10)
    assert total(store, "day") != {}


def test_a_response_counts_once_for_writers_at_once(store: Store) -> None:
    session = store.session("s")

    def write(number: int) -> None:
        for response in range(10):
            store.session("s").append(note(str(number)), usage("m", number + 1, response_id=f"r{response}"))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert session.info().counts.calls == 10
    assert stored(session).count(False) == 10
    assert store.check().ok


@pytest.mark.parametrize("response", ["x" * 10_000, "a\nb", "\ud800", "ü", "\u241f"])
def test_any_response_id_counts_once(store: Store, response: str) -> None:
    session = store.session("s")
    session.append(usage("m", 1, response_id=response))
    session.append(user("Hi"), usage("m", 2, response_id=response))
    assert calls(session) == (1, 1)


def test_a_response_that_was_imported_counts_once_with_what_is_appended(store: Store) -> None:
    from holdfast.events.keys import usage_id

    session = store.session("s")
    session.append(Event(payload=usage("m", 1, response_id="msg_1"), id=usage_id("msg_1")))
    session.append(user("Hi"), usage("m", 2, response_id="msg_1"))
    assert calls(session) == (1, 1)


def test_fields_of_a_later_version_survive_the_mark(store: Store) -> None:
    session = store.session("s")
    body = encode_json({"v": 1, "type": "usage", "model": "m", "input_tokens": 1, "response_id": "r", "later": [1]})
    store.backend.commit([Commit(ref=Ref("session", "o"), if_rev=0, append=[Entry("", 1, body)])])
    event = next(store.session("o").events())
    session.append(usage("m", 2, response_id="r"))
    session.append(note("n"), event)
    raw = list(session.events(types="usage"))[1].raw
    assert b'"later":[1]' in raw
    assert b'"repeated":true' in raw


def test_what_a_response_took_more_counts_and_is_no_call(store: Store) -> None:
    session = store.session("s")
    session.append(usage("m", 10, 1, response_id="r"))
    session.append(Usage(model="m", output_tokens=5, response_id="r", grown=True), key="k")
    assert (session.info().counts.calls, session.info().counts.output_tokens) == (1, 6)
    session.append(usage("n", 1, 0, response_id="r2"))
    assert [(t.key, t.calls, t.output_tokens) for t in store.usage("model").totals] == [("m", 1, 6), ("n", 1, 0)]
    assert store.check().ok


def test_null_caches_and_totals_are_kept(store: Store) -> None:
    session = store.session("s")
    session.append(usage("m", 1, 2, cache_read_tokens=None, cache_write_tokens=4, total_tokens=9))
    found = next(session.events()).payload
    assert isinstance(found, Usage)
    assert (found.cache_read_tokens, found.cache_write_tokens, found.total_tokens) == (None, 4, 9)
    assert session.info().counts.cache_write_tokens == 4


# --- Money ---


def test_recorded_and_computed_cost_are_apart(store: Store) -> None:
    prices = {"m": Price(input=usd(3), output=usd(15), cache_read=usd("0.3"))}
    call = priced(usage("m", 1_000_000, 100_000, cache_read_tokens=500_000, cost=usd(2)), prices)
    assert (call.cost, call.cost_computed) == (usd(2), usd("1.5") + usd("0.15") + usd("1.5"))
    unknown = usage("other", 5)
    assert priced(unknown, prices) is unknown
    store.session("s").append(call, unknown)
    found = store.usage().total
    assert (found.cost, found.cost_computed, found.total_tokens) == (usd(2), usd("3.15"), 1_100_005)
    assert store.session("s").info().counts.cost_computed == usd("3.15")


@pytest.mark.parametrize(("tokens", "micros"), [(1, 0), (500_000, 0), (500_001, 1), (1_500_000, 2), (2_500_000, 2)])
def test_half_a_micro_dollar_is_rounded_to_even(tokens: int, micros: int) -> None:
    assert priced(usage("m", tokens), {"m": Price(input=1, output=0)}).cost_computed == micros


# --- Totals ---


def test_totals_by_each_key(store: Store) -> None:
    for n, (agent, model, owner) in enumerate([("a", "x", "ann"), ("a", "y", "bob"), (None, "x", "ann")]):
        session = store.create(f"s{n}", agent=agent, user=owner, project="p" if n else None, created_at=START)
        session.append(Event(payload=usage(model, 10**n, cost=n), at=START + n * DAY))
    store.session("nothing").append(user("Hi"))
    assert total(store) == {"s0": 1, "s1": 10, "s2": 100}
    assert total(store, "model") == {"x": 101, "y": 10}
    assert total(store, "agent") == {"": 100, "a": 11}
    assert total(store, "user") == {"ann": 101, "bob": 10}
    assert total(store, "project") == {"": 1, "p": 110}
    assert total(store, "day") == {"2026-08-01": 1, "2026-08-02": 10, "2026-08-03": 100}
    assert total(store, user="ann", by="day") == {"2026-08-01": 1, "2026-08-03": 100}
    assert total(store, since=START + 1, until=START + 2 * DAY) == {"s1": 10}
    assert total(store, since="2026-08-01T12:00:00Z", until="2026-08-01T12:00:01Z") == {"s0": 1}
    assert store.usage("model").totals[0] == UsageTotal(key="x", calls=2, input_tokens=101, cost=2)
    with pytest.raises(Invalid, match="can't be given by 'hour'"):
        store.usage("hour")


def test_sessions_of_several_days_and_models_are_split(store: Store) -> None:
    session = store.create("s", created_at=START)
    for n in range(3):
        session.append(Event(payload=usage(f"m{n % 2}", 10**n), at=START + n * DAY))
    session.append(usage("", 5), Event(payload=usage("m0", 7), at=START - DAY))  # without a model; before it began
    found = total(store, "day")
    assert [found[f"2026-0{d}"] for d in ("7-31", "8-01", "8-02", "8-03")] == [7, 1, 10, 100]
    assert total(store, "model") == {"": 5, "m0": 108, "m1": 10}
    assert total(store, since=START - DAY, until=START) == {"s": 7}


def test_most_totals_read_no_log(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(20):
        session = store.create(f"s{n}", created_at=START + n)
        session.append(*(Event(payload=usage(f"m{n % 3}", 1, response_id=f"r{i}"), at=START + n) for i in range(5)))
    monkeypatch.setattr(store.backend, "read", None)
    for by in ("session", "model", "agent", "user", "project", "day"):
        assert sum(total(store, by).values()) == 100
    assert sum(total(store, "day", since=START - 1, until=START + DAY).values()) == 100


def test_a_damaged_session_is_named_and_the_others_count(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.session("s").append(usage("m", 1))
    store.session("t").append(usage("m", 1), usage("n", 2))
    read = store.backend.read

    def damaged(ref: Ref, **kwargs: object) -> object:
        return [Entry(e.id, e.at, e.body, e.seq, e.void, "a flipped bit") for e in read(ref, **kwargs)]  # type: ignore[arg-type]

    monkeypatch.setattr(store.backend, "read", damaged)
    found = store.usage("model")
    assert ([t.key for t in found.totals], found.damaged) == (["m"], ("t",))


def test_sessions_that_become_active_meanwhile_are_met_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.events import totals

    monkeypatch.setattr(totals, "PAGE", 2)
    for n in range(7):
        store.create(f"s{n}", created_at=START).append(Event(payload=usage("m", 1), at=START + n))
    find = store.backend.find
    touched = iter([("s0", "s5"), ("s1",)])

    def busy(*args: object, **kwargs: object) -> object:
        found = find(*args, **kwargs)  # type: ignore[arg-type]
        for id in next(touched, ()):
            store.session(id).append(note("busy"))
        return found

    monkeypatch.setattr(store.backend, "find", busy)
    assert total(store) == {f"s{n}": 1 for n in range(7)}


def test_sessions_that_0_1_counted_are_read(store: Store) -> None:
    """0.1 counted tokens and recorded cost only."""
    body = encode_json({"v": 1, "type": "usage", "model": "m", "input_tokens": 3, "cache_read_tokens": 2})
    add = {"input_tokens": 3, "output_tokens": 0, "cost": 0}
    old = Commit(
        ref=Ref("session", "s"), if_rev=0, at=START, add=add, append=[Entry("", START, body)],
        tags={"created": str(START), "model:m": "1"},
    )  # fmt: skip
    store.backend.commit([old])
    store.session("s").append(usage("m", 4, cache_read_tokens=1))
    assert store.usage("model").totals == (UsageTotal(key="m", calls=2, input_tokens=7, cache_read_tokens=3),)
    assert store.check().ok
