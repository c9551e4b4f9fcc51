"""A session's head as a person sees it, and what an append adds to it.

The head's tags and counters are all that lists, filters and totals need, so no list ever opens a log; its body holds
what only the owner reads (metadata, config).
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec

from holdfast.clock import now as now
from holdfast.codec import decode_json, encode_json
from holdfast.errors import Corrupt, Invalid
from holdfast.model import FORMAT, AnyPayload, Message, Step, Summary, Text, ToolCall, ToolResult, Usage
from holdfast.plan import MAX_ID, Head, Ref, check_id, check_text

SESSION = "session"
"""The kind of head that a session is."""
TITLE = 60
"""Characters of a title that is taken from the first user message."""
STATES = ("unknown", "idle", "running", "paused", "completed", "error")
"""What a session can be doing; `unknown` is for imported data."""

EDIT = "edit"
"""Tag of a head: the seq of the newest `Edit` in its log."""
SUMMARY = "summary"
"""Tag of a head: the seq of the newest `Summary` in its log, taken back or not; 0 if there is none, and not there if
nobody noted it, so that one has to look."""

COPYING = "copying"
"""Tag of a head while a copy brings its log, and its counters lag behind."""
CALL_TIMEOUT = "call_timeout"
"""Tag of a head: the shortest timeout of the tool calls that came with one last, in microseconds."""
UNSPLIT = "unsplit"
"""Tag of a head whose usage can't be told by model or day from the head alone: some has no model, or is older than the
session."""
NUMBERED = {"artifact": "artifacts", "report": "reports", "tasks": "task_lists"}
"""Types of events that are counted, hidden ones too, so that a reader knows when it has met them all."""
BYTES = "bytes"
"""Counter of a head: bytes of the bodies that were appended to its own log, before any compression."""
STARRED = "starred"
"""Label of the sessions that no prune touches."""

_LABEL = "label:"
MODEL = "model:"
"""Begins the tags of a head that name the models it used."""
_TEXT_TAGS = ("user", "name", "title", "state", "parent", "agent", "project")


class Counts(msgspec.Struct, frozen=True):
    """Totals over a session's events. Costs are in micro-dollars: `cost` as recorded, the other from a price list.

    `calls` are the model calls, one for each response. These, `cost_computed` and the cache's and the reasoning's
    tokens are not known of what version 0.1 counted.
    """

    messages: int = 0
    steps: int = 0
    tool_calls: int = 0
    errors: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0
    cost_computed: int = 0
    calls: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0


class SessionInfo(msgspec.Struct, frozen=True):
    """What is known of a session without opening its log. Times are microseconds since 1970 UTC.

    `last` is the seq of its newest event, `rev` counts its changes, `turn` is the one that runs it.
    """

    id: str
    user: str | None = None
    name: str | None = None
    title: str | None = None
    state: str = "idle"
    parent: str | None = None
    agent: str | None = None
    project: str | None = None
    labels: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    counts: Counts = Counts()
    metadata: dict[str, Any] = {}
    config: dict[str, Any] = {}
    created_at: int = 0
    updated_at: int = 0
    last: int = 0
    rev: int = 0
    turn: str | None = None


def info_of(head: Head) -> SessionInfo:
    """A session's head, read."""
    first, last = _told(head)
    # By position, in the order of its fields: a list makes many. What a caller might change is made anew.
    fields: list[Any]
    if len(head.body) <= len(_EMPTY_BODY):
        fields = [*first, {}, {}]
    else:
        body = body_of(head)
        fields = [*first, body.get("metadata", {}), body.get("config", {})]
    return SessionInfo(*fields, *last)


def _told(head: Head) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The fields before and behind those that its body holds; kept with it, as a list is mostly of known heads."""
    kept = vars(head)
    told: tuple[tuple[Any, ...], tuple[Any, ...]] | None = kept.get("told")
    if told is not None:
        return told
    tags, counts = head.tags, head.counts
    say = tags.get
    # One look at all of their names: most sessions have neither.
    labels, models = _labels_and_models(tags) if ":" in "".join(tags) else ((), ())
    first = (
        head.ref.id,
        say("user"),
        say("name"),
        say("title"),
        say("state", "unknown"),
        say("parent"),
        say("agent"),
        say("project"),
        labels,
        models,
        msgspec.convert(counts, Counts) if counts else _NO_COUNTS,
    )
    told = kept["told"] = first, (number_in(head, "created"), head.at, head.last, head.rev, say("turn"))
    return told


def _labels_and_models(tags: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    labels = sorted(tag[len(_LABEL) :] for tag in tags if tag.startswith(_LABEL))
    return tuple(labels), tuple(sorted(tag[len(MODEL) :] for tag in tags if tag.startswith(MODEL)))


_NO_COUNTS = Counts()


def is_counted(head: Head) -> bool:
    """Whether all usage was counted in full: version 0.1 knew no more than its tokens and recorded cost."""
    counts = head.counts
    return counts.get("tokens", 0) == counts.get("input_tokens", 0) + counts.get("output_tokens", 0)


def created_at(head: Head) -> int:
    """When the session was created, in microseconds UTC.

    Raises:
        Corrupt: its tag says no time.
    """
    return number_in(head, "created")


def number_in(head: Head, tag: str) -> int:
    """The number that a tag holds, 0 without it.

    Raises:
        Corrupt: it holds none.
    """
    text = head.tags.get(tag, "0")
    try:
        return int(text)
    except ValueError:
        raise Corrupt(f"the tag {tag!r} of session {head.ref.id!r} is no number but {text[:40]!r}", tag=tag) from None


def check_head(head: Head) -> None:
    """Refuse a head that its own bytes vouch for, and that says what none can say: it came from elsewhere.

    Raises:
        Corrupt: what is wrong with it.
    """
    info_of(head)
    number_in(head, EDIT)
    number_in(head, SUMMARY)


def body_of(head: Head) -> dict[str, Any]:
    """The decoded body of a head; {} if it has none.

    Raises:
        Corrupt: it is no JSON object.
    """
    body: object = decode_json(head.body) if len(head.body) > len(_EMPTY_BODY) else {}
    if not isinstance(body, dict):
        raise Corrupt(f"the head of session {head.ref.id!r} is no JSON object", data=head.body)
    return cast("dict[str, Any]", body)


def encode_body(body: Mapping[str, Any]) -> bytes:
    """The bytes of a head's body, with the format version."""
    return encode_json({"v": FORMAT, **body})


_EMPTY_BODY = encode_body({})


def said_by_appends(tag: str) -> bool:
    """Whether a tag comes from events alone: nobody sets or removes it by itself."""
    return tag.startswith(MODEL) or tag in (EDIT, SUMMARY, CALL_TIMEOUT, UNSPLIT)


def session_ref(id: str) -> Ref:
    """The name of a session's head."""
    return Ref(SESSION, id)


def tags_of(*, labels: Iterable[str] | Mapping[str, bool] = (), **texts: str | None) -> dict[str, str | None]:
    """Tags for a session's fields. As a mapping, labels are added (True) and removed (False)."""
    tags: dict[str, str | None] = {name: texts[name] or None for name in _TEXT_TAGS if name in texts}
    named = isinstance(labels, Mapping)
    chosen = cast("Mapping[str, bool]", labels).items() if named else ((label, True) for label in labels)
    for label, present in chosen:
        check_id(label, "label")
        tags[_LABEL + label] = "1" if present else None
    return tags


def check_user(user: str | None) -> str | None:
    """The user as given, unless it is empty: what was left unset must not mean None, who is nobody, or all users.

    Raises:
        Invalid: it is empty.
    """
    if user == "":
        raise Invalid("the user is empty; name one, or give none at all (None)", user=user)
    return user


def filter_tags(*, label: str | None = None, model: str | None = None, **texts: str | None) -> dict[str, str | None]:
    """The tags that a list's filters ask for; a filter that is None asks for nothing.

    Raises:
        Invalid, TooLarge: a filter that no session could carry.
    """
    check_user(texts.get("user"))
    given = {"label": label, "model": model, **texts}
    for name, value in given.items():
        if value is not None:
            check_text(value, name, 4 * MAX_ID)
    tags: dict[str, str | None] = {name: value for name, value in texts.items() if value is not None}
    if label is not None:
        tags[_LABEL + label] = "1"
    if model is not None:
        tags[MODEL + model] = "1"
    return tags


class Tally:
    """What a batch of payloads adds to its session's head: counters, models, and a title unless it is `titled`."""

    __slots__ = ("_titled", "add", "defaults", "tags")

    def __init__(self, payloads: Iterable[AnyPayload], *, titled: bool = False) -> None:
        self.add: dict[str, int] = {}
        self.tags: dict[str, str | None] | None = None
        self.defaults: dict[str, str] | None = None
        self._titled = titled
        for payload in payloads:
            self._take(payload)

    def _take(self, payload: AnyPayload) -> None:
        if isinstance(payload, Message):
            add = self.add
            add["messages"] = add.get("messages", 0) + 1
            if not self._titled and payload.role == "user" and (title := title_of(payload)):
                self.defaults = {"title": title}
                self._titled = True
            for part in payload.parts:
                if type(part) is Text:
                    continue  # as most are: to tell that it is none of the others takes longer
                if isinstance(part, ToolCall):
                    self._count("tool_calls", 1)
                    if part.timeout is not None:
                        self._shorten(part.timeout)
                elif isinstance(part, ToolResult) and part.is_error:
                    self._count("errors", 1)
        elif isinstance(payload, Step):
            self._count("steps", 1)
            if payload.is_error:
                self._count("errors", 1)
        elif isinstance(payload, Usage):
            self._take_usage(payload)
        elif isinstance(payload, Summary):  # its seq is known to who appends it behind a known one
            self.tags = {**(self.tags or {}), SUMMARY: None}
        elif (counter := NUMBERED.get(payload.type)) is not None:
            self._count(counter, 1)

    def _take_usage(self, usage: Usage) -> None:
        if usage.model:
            self.tags = {**(self.tags or {}), MODEL + usage.model: "1"}
        if usage.repeated:
            return
        self._count("input_tokens", usage.input_tokens)
        self._count("output_tokens", usage.output_tokens)
        self._count("cost", usage.cost or 0)
        self._count("calls", 0 if usage.grown else 1)
        self._count("tokens", usage.input_tokens + usage.output_tokens)
        for name in ("cost_computed", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens"):
            if count := getattr(usage, name):
                self._count(name, count)
        if not usage.model:
            self.tags = {**(self.tags or {}), UNSPLIT: "1"}

    def _shorten(self, timeout: int) -> None:
        shortest = min(timeout, int((self.tags or {}).get(CALL_TIMEOUT) or timeout))
        self.tags = {**(self.tags or {}), CALL_TIMEOUT: str(shortest)}

    def _count(self, name: str, more: object) -> None:
        if not isinstance(more, int):
            raise Invalid(f"{name} is counted in whole numbers, not {more!r:.40}", name=name)
        self.add[name] = self.add.get(name, 0) + more


def title_of(message: Message) -> str:
    """The first line that is not empty, cut to 60 characters with an ellipsis."""
    for part in message.parts:
        if isinstance(part, Text):
            head = part.content[:4096] if isinstance(part.content, str) else part.content.preview
            for line in head.splitlines():
                if line := " ".join(clean(line).split()):
                    return line if len(line) <= TITLE else line[: TITLE - 1] + "…"
    return ""


def clean(text: str) -> str:
    """Text that every engine can hold in a tag: lone surrogates and NUL become the replacement character."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


_last_id = 0
_id_lock = threading.Lock()


def new_id() -> str:
    """A UUIDv7 (RFC 9562): in order of time, and within this process strictly rising."""
    global _last_id  # the one clock of this process's ids
    with _id_lock:
        _last_id = stamp = max(_last_id + 1, time.time_ns() * 4096 // 1_000_000)  # milliseconds and 12 bits below
    millis, fraction = divmod(stamp, 4096)
    tail = int.from_bytes(os.urandom(8)) & (2**62 - 1)
    value = (millis & (2**48 - 1)) << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | tail
    return str(uuid.UUID(int=value))
