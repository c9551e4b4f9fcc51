"""What a session sends to its model: the system prompt, the summary that counts, and the newest messages.

Invariant: the messages are a conversation that a model takes: see `pairs`. The log is read from its end, as far as
there is room, or back to what the summary stands for; so the cost follows from the room, not from the log's length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import msgspec

from holdfast.context.pairs import Problem, arranged, interrupted, pairing_of
from holdfast.context.summaries import newest, walk
from holdfast.context.tokens import Counter, counted
from holdfast.errors import Invalid, Stale
from holdfast.heads.info import body_of
from holdfast.history.ancestry import newest_edit
from holdfast.log import Log, OnDamage
from holdfast.model import Event, Message, Step, Summary, system, user
from holdfast.plan import MAX_COUNT, Head
from holdfast.storage import Storage

MAX_TOKENS = 200_000
THRESHOLD = 0.80
SUMMARY = "Summary of the conversation so far:\n\n"
"""How the message begins that hands a summary to the model."""
SYSTEM = ("system", "developer")
"""The roles of those who tell the model what to be."""
LOOK_BACK = 1000
"""Messages beyond the room that are looked through for the call of a result that is to be kept."""
TRIES = 50
"""How often a context starts over when history is changed while it is read."""


class ContextUsage(msgspec.Struct, frozen=True):
    """How much of the room is used: `percent` is the share, 1.0 for all of it, `turns` the number of messages."""

    used_tokens: int = 0
    max_tokens: int = MAX_TOKENS
    percent: float = 0.0
    turns: int = 0


class Context(msgspec.Struct, frozen=True):
    """What to send to the model.

    `seqs` are the messages' seqs, 0 for what is not in the log as it is: the system prompt of the config, the summary,
    an answer that nobody gave. `full` says that it is time to compact: the threshold is passed, or older messages were
    `cut` off, as there was no room. `summary` is the seq of the summary in it, 0 for none; `last` the newest event that
    it was made of. `problems` tell what was moved, answered or left out.
    """

    messages: tuple[Message, ...]
    usage: ContextUsage
    seqs: tuple[int, ...] = ()
    full: bool = False
    cut: bool = False
    summary: int = 0
    last: int = 0
    problems: tuple[Problem, ...] = ()

    def before(self, keep: int) -> int:
        """The seq to compact up to so that at least the newest `keep` messages stay; 0 if that would leave nothing.

        No call is parted from its results.
        """
        said = [
            (seq, m.role == "tool") for seq, m in zip(self.seqs, self.messages, strict=True) if m.role not in SYSTEM
        ]
        for place in range(len(said) - max(keep, 0), 0, -1):
            behind = [seq for seq, _ in said[place:] if seq] or [self.last + 1]
            ahead = max(seq for seq, _ in said[:place])
            if place < len(said) and said[place][1]:
                continue
            if ahead and ahead < min(behind):
                return min(behind) - 1
        return 0


class Room(msgspec.Struct, frozen=True):
    """How much may be sent, as asked for or as the session's config says."""

    max_tokens: int
    keep: int
    threshold: float


def build(
    store: Storage,
    log: Log,
    max_tokens: int | None,
    keep: int,
    threshold: float | None,
    count: Counter,
    damaged: OnDamage,
) -> Context:
    """See `Session.context`."""
    for _ in range(TRIES):
        head = store.head(log.id, trashed=True)
        config = body_of(head).get("config", {})
        room = _room(config, max_tokens, keep, threshold)
        made = Reader(store, log, head, room, count, damaged).context(config)
        # Else the pages may show different views.
        if newest_edit(store.head(log.id, trashed=True)) == newest_edit(head):
            return made
    raise Stale(f"the history of session {log.id!r} changed {TRIES} times during one read; try again", session=log.id)


def _room(config: Mapping[str, Any], max_tokens: int | None, keep: int, threshold: float | None) -> Room:
    limit: object = config.get("max_context_length", MAX_TOKENS) if max_tokens is None else max_tokens
    share: object = config.get("auto_compact_threshold", THRESHOLD) if threshold is None else threshold
    if not _whole(limit, 1):
        source = "max_context_length in the config" if max_tokens is None else "max_tokens"
        raise Invalid(f"{source} is a number of tokens, 1 or more, not {limit!r:.40}", max_tokens=limit)
    if not _whole(keep, 0):
        raise Invalid(f"keep is a number of messages, 0 or more, not {keep!r:.40}", keep=keep)
    # Not a number lies in no range either.
    if not isinstance(share, int | float) or isinstance(share, bool) or not 0 <= share <= 1:
        source = "auto_compact_threshold in the config" if threshold is None else "threshold"
        raise Invalid(f"{source} is a share from 0 to 1, not {share!r:.40}", threshold=share)
    return Room(limit, keep, float(share))


def _whole(value: object, least: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= MAX_COUNT


class Tail(msgspec.Struct):
    """The newest messages and steps, newest first while they are gathered; `cut` if older ones had no room.

    `least` is how many messages are in it whatever they take.
    """

    said: list[tuple[int, Message | Step]]
    cut: bool = False
    least: int = 0


class Reader:
    """Reads one session's context, as of one head."""

    def __init__(self, store: Storage, log: Log, head: Head, room: Room, count: Counter, damaged: OnDamage) -> None:
        self._store = store
        self._log = log
        self._head = head
        self._room = room
        self._count = count
        self._damaged: OnDamage = damaged

    def context(self, config: Mapping[str, Any]) -> Context:
        """The context."""
        found = newest(self._store, self._log, self._head, self._damaged)
        summary, after = (found.seq, _end(found)) if found else (0, 0)
        opening = self._opening()
        begins = opening[-1][0] if opening else 0
        fixed = _prompt(config, opening)
        if found is not None and isinstance(found.payload, Summary):
            fixed.append((0, user(SUMMARY + str(found.payload.content))))
        used = sum(counted(self._count, message) for _, message in fixed)
        tail = self._tail(max(after, begins), used)
        said, problems, used = self._fitted(tail, used, parted=tail.cut or after > 0)
        messages = fixed + said
        limit = self._room.max_tokens
        usage = ContextUsage(used, limit, used / limit, len(said) + (summary > 0))
        return Context(
            messages=tuple(message for _, message in messages),
            usage=usage,
            seqs=tuple(seq for seq, _ in messages),
            full=tail.cut or used >= self._room.threshold * limit,
            cut=tail.cut,
            summary=summary,
            last=self._head.last,
            problems=tuple(problems),
        )

    def _opening(self) -> list[tuple[int, Message]]:
        """The system messages that the log begins with."""
        found: list[tuple[int, Message]] = []
        for event in walk(self._store, self._log, self._head, damaged=self._damaged):
            if isinstance(event.payload, Message):
                said = event.payload
                if said.role not in SYSTEM or not said.parts or said.tool_calls or said.tool_results:
                    break
                found.append((event.seq, said))
        return found

    def _tail(self, after: int, used: int) -> Tail:
        """The newest messages that there is room for, and those to be kept, with the calls of their results."""
        tail, kept, ahead = Tail([]), 0, 0
        results: dict[str, int] = {}
        wanted: set[str] = set()  # calls of results that are to be kept
        fits = 0
        for event in walk(self._store, self._log, self._head, after=after, reverse=True, damaged=self._damaged):
            said = event.payload
            if not isinstance(said, Message):
                if isinstance(said, Step) and said.call_id:
                    fits += fits == len(tail.said)  # it takes no room
                    tail.said.append((event.seq, said))
                continue
            used += counted(self._count, said) + self._answers(said, results)
            ahead += kept >= self._room.keep and used > self._room.max_tokens
            if ahead and (not wanted or ahead > LOOK_BACK):
                tail.cut = True
                break
            tail.said.append((event.seq, said))
            needed = kept < self._room.keep or bool(wanted)
            for result in said.tool_results:
                results[result.id or ""] = results.get(result.id or "", 0) + 1
                if kept < self._room.keep:
                    wanted.add(result.id or "")
            wanted -= {call.id or "" for call in said.tool_calls}
            kept += 1
            if needed:
                tail.least = kept
            if not ahead or not wanted:
                fits = len(tail.said)
        if wanted:  # there is no such call
            tail.least = self._room.keep
        if len(tail.said) > fits:
            tail.cut = True
            del tail.said[fits:]
        tail.said.reverse()
        return tail

    def _answers(self, said: Message, results: dict[str, int]) -> int:
        """The tokens of the answers that a message's calls need, of which no result was seen behind it."""
        tokens = 0
        for call in said.tool_calls:
            key = call.id or ""
            if results.get(key):
                results[key] -= 1
            else:
                tokens += counted(self._count, Message(role="tool", parts=(interrupted(call),)))
        return tokens

    def _fitted(self, tail: Tail, fixed: int, *, parted: bool) -> tuple[list[tuple[int, Message]], list[Problem], int]:
        """The tail as a model takes it; should it take more than its messages did, its oldest ones go."""
        said = tail.said
        while True:
            messages = [(seq, one) for seq, one in said if isinstance(one, Message)]
            pairing = pairing_of(said)
            made = arranged(messages, pairing)
            used = fixed + sum(counted(self._count, message) for _, message in made)
            if used <= self._room.max_tokens or len(messages) <= tail.least:
                return made, [_parted(p) if parted else p for p in pairing.problems], used
            oldest = next(place for place, (_, one) in enumerate(said) if isinstance(one, Message))
            said, tail.cut, parted = said[oldest + 1 :], True, True


def _end(found: Event) -> int:
    return found.payload.end if isinstance(found.payload, Summary) else 0


def _prompt(config: Mapping[str, Any], opening: Sequence[tuple[int, Message]]) -> list[tuple[int, Message]]:
    """The system prompt: the config's, then what the log begins with, unless that is the same."""
    words = config.get("system_prompt")
    if words is None or words == "":
        return list(opening)
    if not isinstance(words, str):
        raise Invalid(f"system_prompt of the config is text, not {words!r:.40}", system_prompt=words)
    return [(0, system(words)), *(one for one in opening if one[1].text != words)]


def _parted(problem: Problem) -> Problem:
    """A result whose call may well be there, but older than what is sent."""
    if problem.kind != "orphan":
        return problem
    what = "its call is older than what is sent, or there is none"
    return msgspec.structs.replace(problem, kind="cut", what=what)
