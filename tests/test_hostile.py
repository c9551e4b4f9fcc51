"""Input from hell: what each comes to is stated here, on every backend.

An outcome is what the call answers, or the error it raises; after an error nothing of the call was stored. After each
the store is sound and goes on.
"""

from __future__ import annotations

import enum
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest

import holdfast
from holdfast import (
    Custom,
    Event,
    Invalid,
    Message,
    NotFound,
    OtherPart,
    Store,
    TooLarge,
    ToolCall,
    assistant,
    custom,
    message,
    note,
    step,
    tool_call,
    tool_result,
    usage,
    user,
)
from holdfast.finding.pages import cursor_of
from holdfast.model import to_micros

MEGA = 1024 * 1024


class Hostile(NamedTuple):
    """What is done to an empty store, and what comes of it: an answer, or an error."""

    name: str
    call: Callable[[Store], Any]
    outcome: Any


def nested(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = [value]
    return value


def itself() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


def itself_in_a_dict() -> Any:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


class Colour(enum.Enum):
    RED = object()


@dataclass
class Choice:
    of: Any


def given(value: Any) -> Callable[[Store], Any]:
    """The value as a tool's arguments; the answer is how it comes back."""

    def call(store: Store) -> Any:
        session = store.session("s")
        session.append(assistant(tool_call("c", "t", value)))
        return session.messages()[0].tool_calls[0].arguments

    return call


def said(text: Any) -> Callable[[Store], Any]:
    """The text in a message; the answer is how it comes back."""

    def call(store: Store) -> Any:
        session = store.session("s")
        session.append(user(text))
        assert session.messages()[0].text == session.messages(last=1)[0].text
        return session.messages()[0].text

    return call


def appended(*events: Any, **options: Any) -> Callable[[Store], Any]:
    """Events appended to a new session; the answer is the last number."""
    return lambda store: store.session("s").append(*events, **options).last


def called(id: Any) -> Callable[[Store], Any]:
    """The id of a session; the answer is the id it is listed under."""

    def call(store: Store) -> Any:
        store.create(id)
        store.session(id).append(note("x"))
        (info,) = store.sessions()
        assert store.exists(id)
        return info.id

    return call


def apart(*ids: str) -> Callable[[Store], Any]:
    """Sessions whose ids look alike; the answer is how many there are, each with its own words."""

    def call(store: Store) -> int:
        for number, id in enumerate(ids):
            store.create(id, title=f"t{number}").append(user(f"word{number}"))
        for number, id in enumerate(ids):
            assert store.session(id).messages()[0].text == f"word{number}"
            assert [h.session for h in store.search(f"word{number}")] == [id]
        return len(store.sessions(limit=100))

    return call


def searched(query: str) -> Callable[[Store], Any]:
    """A query over three lines; the answer is the numbers of the lines it hits."""

    def call(store: Store) -> list[int]:
        store.session("s").append(note("plain words AND near col:x"), note('say "quoted" or not'), note("x a b"))
        return sorted(h.seq for h in store.search(query))

    return call


def opened(url: str) -> Callable[[Store], Any]:
    """Another store opened, and closed again."""

    def call(store: Store) -> None:
        holdfast.open(url).close()

    return call


def created(**fields: Any) -> Callable[[Store], Any]:
    """A session created with these fields; the answer is what they are afterwards."""

    def call(store: Store) -> Any:
        info = store.create("s", **fields).info()
        return {name: getattr(info, name) for name in fields}

    return call


def updated(**fields: Any) -> Callable[[Store], Any]:
    """A session updated with these fields; the answer is what they are afterwards."""

    def call(store: Store) -> Any:
        info = store.session("s").update(**fields)
        return {name: getattr(info, name) for name in fields}

    return call


def read(**options: Any) -> Callable[[Store], Any]:
    """Three events read with these options; the answer is their numbers."""

    def call(store: Store) -> list[int]:
        session = store.session("s")
        session.append(note("1"), note("2"), note("3"))
        return [e.seq for e in session.events(**options)]

    return call


def ten_thousand_and_one(store: Store) -> Any:
    return store.session("s").append(*(note("x") for _ in range(10_001)))


def too_heavy(store: Store) -> Any:
    return store.session("s").append(*(note("x", metadata={"k": "v" * 3 * MEGA}) for _ in range(22)))


NAN, INF = float("nan"), float("inf")
LONE, PAIR = "\ud83e", "\ud83e\udd80"
YEAR_1, YEAR_9999 = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)

TABLE = [
    # Numbers
    Hostile("NaN", given({"a": [1, NAN]}), Invalid),
    Hostile("NaN alone", given(NAN), Invalid),
    Hostile("Infinity", given({"a": INF}), Invalid),
    Hostile("-Infinity", given([-INF]), Invalid),
    Hostile("NaN in metadata of an event", appended(user("x", metadata={"n": NAN})), Invalid),
    Hostile("NaN as a key", given({NAN: 1}), Invalid),
    Hostile("NaN as a key in metadata of an event", appended(user("x", metadata={NAN: "x"})), Invalid),
    Hostile("Infinity as a key beneath", appended(user("x", metadata={"a": {INF: "x"}})), Invalid),
    Hostile("numbers as keys", given({"a": {1: 2, 1.5: True}}), {"a": {"1": 2, "1.5": True}}),
    Hostile("NaN as a timeout", appended(Message(role="assistant", parts=(
        ToolCall(id="1", name="n", arguments={"a": 1}, timeout=NAN),  # type: ignore[arg-type]
    ))), Invalid),
    Hostile("NaN in custom data", appended(custom("x.y", {"n": NAN})), Invalid),
    Hostile("NaN in metadata of a session", created(metadata={"n": {"m": NAN}}), Invalid),
    Hostile("NaN in an update", updated(config={"n": NAN}), Invalid),
    Hostile("null where it belongs", given({"a": None, "b": [None]}), {"a": None, "b": [None]}),
    Hostile("2**70", given({"n": 2**70}), {"n": 2**70}),
    Hostile("-2**70", given([-(2**70)]), [-(2**70)]),
    Hostile("2**64 and its neighbours", given([2**63 - 1, 2**63, 2**64 - 1, 2**64]),
            [2**63 - 1, 2**63, 2**64 - 1, 2**64]),
    Hostile("an integer of 5,000 digits", given(10**5000), Invalid),
    Hostile("the smallest float", given([5e-324, -0.0, 1e308]), [5e-324, -0.0, 1e308]),
    Hostile("2**70 in the metadata of a session", created(metadata={"n": 2**70}), {"metadata": {"n": 2**70}}),
    Hostile("2**70 tokens", appended(usage("m", 2**70)), Invalid),
    Hostile("-2**70 tokens", appended(usage("m", 0, -(2**70))), Invalid),
    Hostile("2**70 micro-dollars", appended(usage("m", cost=2**70)), Invalid),
    Hostile("half a token", appended(usage("m", 1.5)), Invalid),  # type: ignore[arg-type]
    Hostile("NaN tokens", appended(usage("m", NAN)), Invalid),  # type: ignore[arg-type]
    Hostile("tokens as text", appended(usage("m", "many")), Invalid),  # type: ignore[arg-type]
    # Text
    Hostile("a lone surrogate", said(f"a{LONE}b"), f"a{LONE}b"),
    Hostile("a lone surrogate in a key", given({LONE: LONE}), {LONE: LONE}),
    Hostile("a lone surrogate beside 2**70", given({"a": LONE, "n": 2**70}), {"a": LONE, "n": 2**70}),
    Hostile("a character in two surrogates", said(f"a{PAIR}b"), Invalid),
    Hostile("surrogates the wrong way round", said("\udd80\ud83e"), "\udd80\ud83e"),
    Hostile("NUL", said("a\0b"), "a\0b"),
    Hostile("NUL first, which is the title too", said("\0"), "\0"),
    Hostile("every control character", said("".join(map(chr, range(32))) + "\x7f\x85\u2028"),
            "".join(map(chr, range(32))) + "\x7f\x85\u2028"),
    Hostile("emoji in families", said("\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea"),
            "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea"),
    Hostile("right to left with overrides", said("\u202e\u05e9\u05dc\u05d5\u05dd\u202c abc"),
            "\u202e\u05e9\u05dc\u05d5\u05dd\u202c abc"),
    Hostile("noncharacters and a byte order mark", said("\ufeff\ufffe\uffff\U0010ffff"),
            "\ufeff\ufffe\uffff\U0010ffff"),
    Hostile("not composed", said("e\u0301"), "e\u0301"),
    Hostile("line ends of every kind", said("a\r\nb\rc\nd"), "a\r\nb\rc\nd"),
    Hostile("no text at all", said(""), ""),
    Hostile("what looks like the inside of a record", said('","type":"~","v":9,"large":{"content":{}}}'),
            '","type":"~","v":9,"large":{"content":{}}}'),
    Hostile("keys that look like the store's own", given({"type": "~", "v": 9, "large": {"arguments": 1}}),
            {"type": "~", "v": 9, "large": {"arguments": 1}}),
    # Shapes
    Hostile("nested 10,000 deep", given(nested(10_000)), TooLarge),
    Hostile("nested 200 deep", given(nested(200)), TooLarge),
    Hostile("nested 90 deep", given(nested(90)), nested(90)),
    Hostile("nested 10,000 deep in metadata", created(metadata={"n": nested(10_000)}), TooLarge),
    Hostile("nested 10,000 deep in custom data", appended(custom("x.y", nested(10_000))), TooLarge),
    Hostile("a list that holds itself", given(itself()), TooLarge),
    Hostile("a dictionary that holds itself", given(itself_in_a_dict()), TooLarge),
    Hostile("metadata that holds itself", updated(metadata={"x": itself()}), TooLarge),
    Hostile("an object", given(object()), Invalid),
    Hostile("an object deep inside", given({"a": [{"b": object()}]}), Invalid),
    Hostile("a complex number", given(1j), Invalid),
    Hostile("a function", given({"f": len}), Invalid),
    Hostile("an enumeration of objects", given(Colour.RED), Invalid),
    Hostile("an object in metadata of a session", created(metadata={"o": object()}), Invalid),
    Hostile("pairs as keys", given({(1, 2): 3}), Invalid),
    Hostile("None as a key", given({None: 1}), Invalid),
    Hostile("bytes, which are base64 in JSON", given(b"\x00\xff"), "AP8="),
    Hostile("a set, which has no order", given({7}), Invalid),
    Hostile("a set deep inside", given({"a": [{"b": frozenset("xy")}]}), Invalid),
    Hostile("a set in metadata of an event", appended(user("x", metadata={"s": {1, 2}})), Invalid),
    Hostile("a set in a step's arguments", appended(step("t", {"s": {1, 2}})), Invalid),
    Hostile("a set in custom data", appended(custom("x.y", {1, 2})), Invalid),
    Hostile("a set in a part that is not known",
            appended(message("user", OtherPart(data={"type": "q", "s": {1, 2}}))), Invalid),
    Hostile("a set in a value that moves out", given({"s": {"x" * 70_000, "y"}}), Invalid),
    Hostile("a set in a dataclass", given([Choice({"x", "y"})]), Invalid),
    Hostile("a set in metadata of a session", created(metadata={"s": {1, 2}}), Invalid),
    Hostile("a dataclass, which is an object in JSON", given([Choice(["x"])]), [{"of": ["x"]}]),
    Hostile("a tuple, which is a list in JSON", given((1, (2,))), [1, [2]]),
    Hostile("numbers as keys, which are text in JSON", given({1: "a"}), {"1": "a"}),
    Hostile("5,000 keys", lambda store: len(given({f"k{n}": n for n in range(5000)})(store)), 5000),
    # Ids
    Hostile("id: up and away", called("../x"), "../x"),
    Hostile("id: further away", called("../../../../etc/passwd"), "../../../../etc/passwd"),
    Hostile("id: absolute", called("/etc/passwd"), "/etc/passwd"),
    Hostile("id: a device of Windows", called("CON"), "CON"),
    Hostile("id: a device with an ending", called("nul.txt"), "nul.txt"),
    Hostile("id: a stream of NTFS", called("a:b"), "a:b"),
    Hostile("id: a dot", called("."), "."),
    Hostile("id: two dots", called(".."), ".."),
    Hostile("id: a blank", called(" "), " "),
    Hostile("id: an ending dot and blank", called("x. "), "x. "),
    Hostile("id: an emoji", called("\U0001f980"), "\U0001f980"),
    Hostile("id: right to left", called("\u202eabc"), "\u202eabc"),
    Hostile("id: SQL", called("'; DROP TABLE heads; --"), "'; DROP TABLE heads; --"),
    Hostile("id: wildcards", called("%_*?[a-z]"), "%_*?[a-z]"),
    Hostile("id: percent escapes", called("%2e%2e%2fx%00"), "%2e%2e%2fx%00"),
    Hostile("id: 512 bytes", called("x" * 512), "x" * 512),
    Hostile("id: 512 bytes of two each", called("é" * 256), "é" * 256),
    Hostile("id: 513 bytes", called("x" * 513), TooLarge),
    Hostile("id: 513 bytes, 257 characters", called("é" * 256 + "x"), TooLarge),
    Hostile("id: 10 MB", called("x" * 10 * MEGA), TooLarge),
    Hostile("id: empty", called(""), Invalid),
    Hostile("id: empty, created", lambda store: store.create("").info(), Invalid),
    Hostile("id: empty, asked for", lambda store: store.session(""), Invalid),
    Hostile("id: empty, got", lambda store: store.get(""), Invalid),
    Hostile("id: NUL", called("a\0b"), Invalid),
    Hostile("id: a line end", called("a\nb"), Invalid),
    Hostile("id: an escape", called("\x1b[2J"), Invalid),
    Hostile("id: a C1 control character", called("\x85"), Invalid),
    Hostile("id: a lone surrogate", called("a\ud800"), Invalid),
    Hostile("id: a number", called(5), Invalid),
    Hostile("id: bytes", called(b"abc"), Invalid),
    Hostile("id: a list", called(["a"]), Invalid),
    Hostile("id: a dictionary, got", lambda store: store.get({"a": 1}), Invalid),  # type: ignore[arg-type]
    Hostile("id: a list, for a search", lambda store: store.search("x", session=["a"]), Invalid),  # type: ignore[arg-type]
    Hostile("ids that file systems fold", apart("a/b", "a_b", "A/B", "a..b", "a\\b", "a b", "a:b"), 7),
    Hostile("ids that differ in case", apart("abc", "ABC", "Abc", "aBC"), 4),
    Hostile("ids that are twins in Unicode",
            apart("é", unicodedata.normalize("NFD", "é"), "ﬁ", "fi", "\u212b", "Å"), 6),
    Hostile("ids that Turkish folds", apart("i", "I", "\u0131", "\u0130"), 4),
    Hostile("ids that end in blanks and dots", apart("x", "x ", "x.", " x", "x\u00a0"), 5),
    Hostile("ids that are escapes of one another", apart("%41", "A", "%2541", "a%2Fb", "a/b"), 5),
    # Keys, positions, batches
    Hostile("nothing to append", appended(), Invalid),
    Hostile("two events of one id",
            appended(Event(payload=user("a"), id="k"), Event(payload=user("b"), id="k")), Invalid),
    Hostile("10,001 events in one batch", ten_thousand_and_one, TooLarge),
    Hostile("66 MB in one batch", too_heavy, TooLarge),
    Hostile("5 MB that can't move out", appended(user("x", metadata={"k": "v" * 5 * MEGA})), TooLarge),
    Hostile("a negative position", appended(user("x"), expect=-1), Invalid),
    Hostile("a position of 2**70", appended(user("x"), expect=2**70), holdfast.Stale),
    Hostile("a key of 513 bytes", appended(user("x"), key="k" * 513), TooLarge),
    Hostile("a key with NUL", appended(user("x"), key="k\0"), Invalid),
    Hostile("a key that is a list", appended(user("x"), key=["k"]), Invalid),
    Hostile("a key that is bytes", appended(user("x"), key=b"k"), Invalid),
    Hostile("a key that is a number", appended(user("x"), key=5), Invalid),
    Hostile("an event's id that is a list", appended(Event(payload=user("x"), id=["k"])), Invalid),  # type: ignore[arg-type]
    Hostile("an event's id that is bytes", appended(Event(payload=user("x"), id=b"k")), Invalid),  # type: ignore[arg-type]
    Hostile("a key of 512 bytes", appended(user("x"), key="k" * 512), 1),
    Hostile("keys that differ in case",
            lambda s: [appended(note("x"), key=k)(s) for k in ("k", "K", "é", "e\u0301")], [1, 2, 3, 4]),
    Hostile("a damaged event appended", appended(holdfast.Damaged("x", b"y")), Invalid),
    Hostile("an unknown event made by hand", appended(holdfast.Other(data={"type": "q"})), Invalid),
    Hostile("no event but a text", appended("hello"), Invalid),
    Hostile("no event but a dictionary", appended({"type": "note"}), Invalid),
    Hostile("no event but None", appended(None), Invalid),
    Hostile("a number for a part", lambda store: appended(user(5))(store), Invalid),
    Hostile("None for a part", lambda store: appended(user(None))(store), Invalid),
    Hostile("a custom type without its mark", lambda store: appended(custom("deploy"))(store), Invalid),
    Hostile("a custom type of nothing", lambda store: appended(custom("x."))(store), Invalid),
    Hostile("a custom type that takes a known one's place", appended(Custom(type="message", data=1)), Invalid),
    Hostile("a role of one's own", appended(message("wizard", "x")), 1),
    Hostile("a name with every quote", appended(step("'\"`$(rm)"), tool_result("c", "'\"`")), 2),
    # Times
    Hostile("a datetime without a zone", created(created_at=datetime(2026, 1, 1)), Invalid),  # noqa: DTZ001
    Hostile("a time that is a text", lambda store: ids_since(store, "yesterday"), Invalid),
    Hostile("a time without a zone as text", lambda store: ids_since(store, "2026-01-01T00:00:00"), Invalid),
    Hostile("True for a time", lambda store: ids_since(store, True), Invalid),
    Hostile("an event before 1970", appended(Event(payload=note("x"), at=-1)), 1),
    Hostile("an event of the year 1", appended(Event(payload=note("x"), at=to_micros(YEAR_1))), 1),
    Hostile("an event of the year 9999", appended(Event(payload=note("x"), at=to_micros(YEAR_9999))), 1),
    Hostile("an event after the year 9999", appended(Event(payload=note("x"), at=to_micros(YEAR_9999) + 1)), Invalid),
    Hostile("an event before the year 1", appended(Event(payload=note("x"), at=to_micros(YEAR_1) - 1)), Invalid),
    Hostile("an event at 2**70", appended(Event(payload=note("x"), at=2**70)), Invalid),
    Hostile("a session of before 1970", created(created_at=-1), Invalid),
    Hostile("a session of the year 9999", created(created_at=to_micros(YEAR_9999)),
            {"created_at": to_micros(YEAR_9999)}),
    Hostile("a session at 2**70", created(created_at=2**70), Invalid),
    Hostile("listing since 2**70", lambda store: ids_since(store, 2**70), []),
    Hostile("listing since -2**70", lambda store: ids_since(store, -(2**70)), ["s"]),
    # Fields
    Hostile("labels as one text", created(labels="abc"), Invalid),
    Hostile("an empty label", created(labels=[""]), Invalid),
    Hostile("an empty label in an update", updated(labels=[""]), Invalid),
    Hostile("a label with a line end", updated(labels=["a\nb"]), Invalid),
    Hostile("a label of 600 bytes", updated(labels=["x" * 600]), TooLarge),
    Hostile("a label that looks like a tag", created(labels=["user", "label:x"]), {"labels": ("label:x", "user")}),
    Hostile("300 labels at once", updated(labels=[f"l{n}" for n in range(300)]), TooLarge),
    Hostile("a number for a label", updated(labels=[5]), Invalid),
    Hostile("a list for a label", created(labels=[["a"]]), Invalid),
    Hostile("a list for a label in a list", lambda store: store.sessions(label=["a"]), Invalid),  # type: ignore[arg-type]
    Hostile("a list for a user in a list", lambda store: store.sessions(user=["a"]), Invalid),  # type: ignore[arg-type]
    Hostile("a lone surrogate for a user in a list", lambda store: store.sessions(user="\ud800"), Invalid),
    Hostile("a name with NUL", created(name="a\0b"), Invalid),
    Hostile("a name with a lone surrogate", updated(name="\ud800"), Invalid),
    Hostile("a title of 10 MB", updated(title="x" * 10 * MEGA), TooLarge),
    Hostile("a name with line ends and emoji", created(name="a\n\U0001f980"), {"name": "a\n\U0001f980"}),
    Hostile("a number for a name", created(name=5), Invalid),
    Hostile("a state of one's own", created(state="dancing"), Invalid),
    Hostile("a field that is none", updated(colour="red"), Invalid),
    Hostile("metadata of 9 MB", created(metadata={"k": "v" * 9 * MEGA}), TooLarge),
    Hostile("a model's name of 600 bytes", appended(usage("m" * 600)), TooLarge),
    Hostile("a model's name with a line end", appended(usage("a\nb")), Invalid),
    # Reading and paging
    Hostile("a page of 0", lambda store: store.sessions(limit=0), Invalid),
    Hostile("a page of -1", lambda store: store.sessions(limit=-1), Invalid),
    Hostile("a page of 10**9", lambda store: store.sessions(limit=10**9), Invalid),
    Hostile("a page of hits of 0", lambda store: store.search("x", limit=0), Invalid),
    Hostile("a page of hits of 10**9", lambda store: store.search("x", limit=10**9), Invalid),
    Hostile("a cursor of nonsense", lambda store: store.sessions(cursor="nonsense!"), Invalid),
    Hostile("a cursor of no ASCII", lambda store: store.sessions(cursor="é\ud800"), Invalid),
    Hostile("an empty cursor", lambda store: store.sessions(cursor=""), Invalid),
    Hostile("a cursor of another list", lambda store: store.sessions(cursor=hits_cursor(store)), Invalid),
    Hostile("a list's cursor for hits", lambda store: store.search("x", cursor=list_cursor(store)), Invalid),
    Hostile("a cursor with 2**70 in it", lambda store: store.sessions(cursor=forged([2**70, "s"])), Invalid),
    Hostile("a cursor with a negative offset", lambda store: store.search("x", cursor=forged([-5])), Invalid),
    Hostile("a cursor with an offset of 2**70", lambda store: store.search("x", cursor=forged([2**70])), Invalid),
    Hostile("events after 2**70", read(after=2**70), []),
    Hostile("events after -2**70", read(after=-(2**70)), [1, 2, 3]),
    Hostile("events before 2**70", read(before=2**70), [1, 2, 3]),
    Hostile("events before -2**70", read(before=-(2**70)), []),
    Hostile("the last -1 events", read(last=-1), Invalid),
    Hostile("the last 2**70 events", read(last=2**70), [1, 2, 3]),
    Hostile("events of a type that is none", read(types="nonsense"), []),
    Hostile("events of no type", read(types=[]), []),
    Hostile("a session that a pattern would find", lambda store: store.resolve("%"), NotFound),
    # Queries
    Hostile("query: a quote", searched('"'), []),
    Hostile("query: AND", searched("AND"), [1]),
    Hostile("query: OR", searched("OR"), [2]),
    Hostile("query: NOT", searched("NOT"), [2]),
    Hostile("query: a star", searched("*"), []),
    Hostile("query: a column", searched("col:x"), [1]),
    Hostile("query: NEAR(", searched("NEAR("), [1]),
    Hostile("query: NEAR(a b, 2)", searched("NEAR(a b, 2)"), []),
    Hostile("query: a OR", searched("a OR"), []),
    Hostile("query: -x", searched("-x"), []),
    Hostile("query: x -b", searched("x -b"), [1]),
    Hostile("query: a quote that stays open", searched('"quoted'), [2]),
    Hostile("query: brackets", searched(")(("), []),
    Hostile("query: a caret, braces, a plus", searched("^x + {a b}"), [3]),
    Hostile("query: SQL", searched("x'; DROP TABLE heads; --"), []),
    Hostile("query: empty", searched(""), []),
    Hostile("query: NUL", searched("\0x\0"), [1, 3]),
    Hostile("query: a lone surrogate", searched("x \ud800"), [1, 3]),
    Hostile("query: the mark of the index", searched("\ue000"), []),
    Hostile("query: 10 MB", searched("x" * 10 * MEGA), Invalid),
    Hostile("query: 1,000 words", searched("x " * 500), Invalid),
    # URLs
    Hostile("URL: a parameter unknown", opened("memory://?colour=red"), Invalid),
    Hostile("URL: a parameter misspelt", opened("sqlite:///tmp/never.db?durabilty=disk"), Invalid),
    Hostile("URL: a durability unknown", opened("file:///tmp/never?durability=maybe"), Invalid),
    Hostile("URL: a durability of nothing", opened("sqlite:///tmp/never.db?durability="), Invalid),
    Hostile("URL: a scheme unknown", opened("mongodb://host/db"), Invalid),
    Hostile("URL: a scheme in capitals", opened("SQLITE:///tmp/never.db"), Invalid),
    Hostile("URL: a host", opened("sqlite://host/never.db"), Invalid),
    Hostile("URL: half an address", opened("sqlite://[/never.db"), Invalid),
    Hostile("URL: no path", opened("sqlite://"), Invalid),
    Hostile("URL: no scheme", opened("just words"), Invalid),
    Hostile("URL: NUL", opened("file:///tmp/never%00there"), Invalid),
    Hostile("URL: a hash that would cut the path", opened("file:///tmp/never#there"), Invalid),
    Hostile("URL: a line end that would vanish", opened("file:///tmp/nev\ner"), Invalid),
]  # fmt: skip


def ids_since(store: Store, since: Any) -> list[str]:
    store.session("s")
    return [info.id for info in store.sessions(since=since)]


def list_cursor(store: Store) -> str | None:
    for id in "ab":
        store.create(id)
    return store.sessions(limit=1).cursor


def hits_cursor(store: Store) -> str | None:
    store.session("s").append(note("x"), note("x"))
    return store.search("x", limit=1).cursor


def forged(position: list[Any]) -> str:
    return cursor_of(position)


def test_the_table_is_long_enough_and_names_each_once() -> None:
    assert len(TABLE) >= 60
    assert len({row.name for row in TABLE}) == len(TABLE)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_hostile_input_comes_to_what_is_stated(store: Store, row: Hostile) -> None:
    if isinstance(row.outcome, type):
        with pytest.raises(row.outcome) as error:
            row.call(store)
        assert type(error.value) is row.outcome
        assert len(str(error.value)) < 1000, "the message repeats the input"
        assert {info.last for info in store.sessions()} <= {0, STORED_BEFORE.get(row.name, 0)}
    else:
        assert row.call(store) == row.outcome
    session = store.session("afterwards")
    session.append(user("fine"))
    assert [m.text for m in session.messages()] == ["fine"]
    assert store.check().findings == ()


STORED_BEFORE = {"a cursor of another list": 2, "the last -1 events": 3, "query: 10 MB": 3, "query: 1,000 words": 3}
"""Rows that must store something, so many events, before what they are about is refused."""
