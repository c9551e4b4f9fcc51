"""Tool calls and their results: which belong together, what is wrong with them, and how a model takes them.

A model takes a conversation in which each call is answered exactly once, directly behind the message that asks.
Logs say what happened, and that may be otherwise: a run was cut off, a result came late, twice, or without a call.
`Pairing` reads messages in order and tells; `arranged` makes what a model takes of the same messages, without a change
to any word that was said.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from holdfast.model import AnyPart, Message, Step, ToolCall, ToolResult

INTERRUPTED = "interrupted: the run ended before this call was answered; whether it took effect is not known"
"""What a call is answered with of which nobody knows the result."""
SPEAKERS = ("system", "user", "assistant", "tool")


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with a call or a result, at which `seq`; `what` says it in words. `id` is the call's.

    Kinds: dangling (a call without a result), orphan (a result without a call), duplicate (a second result), early (a
    result before its call), late (one with something else between it and its call), repeated_id, no_id (a call whose
    id was used before, or that has none), speaker (a part in a message of a role that can't say it), empty (a message
    without parts), and in a context cut (a result whose call was left out with what is older).
    """

    kind: str
    seq: int
    what: str
    id: str | None = None


class Asked:
    """A call, and what is known of its result."""

    __slots__ = ("call", "early", "id", "result", "seq", "step", "told")

    def __init__(self, seq: int, call: ToolCall, id: str) -> None:
        self.seq = seq
        self.call = call
        self.id = id  # as it is sent: no other call has it
        self.result: ToolResult | None = None
        self.told = 0  # the seq of the result
        self.early: tuple[int, ToolResult] | None = None
        self.step: Step | None = None

    @property
    def answer(self) -> ToolResult:
        """Its result; else what an early one or its step says; else that it was interrupted."""
        found = self.result or (self.early[1] if self.early else None)
        if found is None:
            return interrupted(self.call) if self.step is None else told_by(self.call, self.step)
        return found


def told_by(call: ToolCall, step: Step) -> ToolResult:
    """The result of a call that was executed, as its step says."""
    response = step.error if step.output is None else step.output
    return ToolResult(id=call.id, name=call.name, response=response, is_error=step.is_error, duration=step.duration)


def interrupted(call: ToolCall) -> ToolResult:
    """The result of a call of which nobody knows it."""
    return ToolResult(id=call.id, name=call.name, response=INTERRUPTED, is_error=True)


class Pairing:
    """The calls and results of messages that are taken in order."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._found: list[Problem] = []
        self._open: dict[str, list[Asked]] = {}
        self._before: dict[str, list[tuple[int, ToolResult]]] = {}
        self._ids: set[str] = set()
        self._latest = 0
        self._between = 0

    def take(self, seq: int, said: Message | Step) -> None:
        """Learn from the next message or step."""
        if isinstance(said, Step):
            self._executed(said)
            return
        if not said.parts:
            self._tell("empty", seq, "a message without parts")
        for index, part in enumerate(said.parts):
            if isinstance(part, ToolCall):
                self._call(seq, index, part, said.role)
            elif isinstance(part, ToolResult):
                self._result(seq, part, said.role)
            else:
                if seq != self._latest and not self._between:
                    self._between = seq
                if said.role == "tool":
                    self._tell("speaker", seq, "a tool says something that is no result")

    def _tell(self, kind: str, seq: int, what: str, id: str | None = None) -> None:
        self._found.append(Problem(kind, seq, what, id))

    def _call(self, seq: int, index: int, call: ToolCall, role: str) -> None:
        key = call.id or ""
        id = key
        if not key:
            id = self._fresh(f"call_{seq}_{index}")
            self._tell("no_id", seq, f"a call of {call.name!r} has no id", call.id)
        elif key in self._ids:
            id = self._fresh(key)
            self._tell("repeated_id", seq, f"the id {key!r} was an earlier call's", key)
        if role != "assistant":
            self._tell("speaker", seq, f"a message of role {role!r} calls a tool", call.id)
        self._ids.add(id)
        asked = Asked(seq, call, id)
        if waiting := self._before.get(key):
            asked.early = waiting.pop(0)
        self.asked.append(asked)
        self._open.setdefault(key, []).append(asked)
        self._latest, self._between = seq, 0

    def _fresh(self, id: str) -> str:
        """An id that no call had until here."""
        number, fresh = 1, id
        while fresh in self._ids:
            number += 1
            fresh = f"{id}_{number}"
        return fresh

    def _newest_open(self, key: str) -> Asked | None:
        """The call that a result with this id answers: the newest open one, of one message the first."""
        waiting = self._open.get(key)
        return next(a for a in waiting if a.seq == waiting[-1].seq) if waiting else None

    def _result(self, seq: int, result: ToolResult, role: str) -> None:
        key = result.id or ""
        asked = self._newest_open(key)
        if role not in ("tool", "user"):
            self._tell("speaker", seq, f"a message of role {role!r} holds a result", result.id)
        if asked is None:
            if key in self._open:
                self._tell("duplicate", seq, f"the call {key!r} has a result already", result.id)
            else:
                self._before.setdefault(key, []).append((seq, result))
            return
        self._open[key].remove(asked)
        asked.result, asked.told = result, seq
        if asked.early:  # it was none of this call's
            self._before.setdefault(key, []).append(asked.early)
            asked.early = None
        if asked.seq != self._latest or self._between:
            what = f"other messages stand between it and its call at {asked.seq}"
            self._tell("late", seq, what, result.id)

    def _executed(self, step: Step) -> None:
        if step.call_id and (asked := self._newest_open(step.call_id)):
            asked.step = step

    @property
    def open(self) -> list[Asked]:
        """The calls that no result answers."""
        return [asked for asked in self.asked if asked.result is None]

    @property
    def problems(self) -> list[Problem]:
        """What is wrong, in order of seq."""
        found = list(self._found)
        for asked in self.open:
            if asked.early:
                what = f"it stands before its call at {asked.seq}"
                found.append(Problem("early", asked.early[0], what, asked.call.id))
            else:
                found.append(Problem("dangling", asked.seq, f"a call of {asked.call.name!r} has no result", asked.id))
        for waiting in self._before.values():
            found += [Problem("orphan", seq, "a result without a call", result.id) for seq, result in waiting]
        return sorted(found, key=lambda problem: problem.seq)


def arranged(said: Sequence[tuple[int, Message]], pairing: Pairing) -> list[tuple[int, Message]]:
    """The messages as a model takes them, with their seqs, 0 for an answer that is not in the log.

    Each result stands directly behind its call, whatever was between them comes next; a call without a result is
    answered; what has no call or came twice is left out; ids are made different. Anything else is as it was.
    """
    sources = dict(said)
    calls: dict[int, list[Asked]] = {}
    for asked in pairing.asked:
        calls.setdefault(asked.seq, []).append(asked)
    made: list[tuple[int, Message]] = []
    for seq, message in said:
        asking = calls.get(seq, [])
        others = tuple(p for p in message.parts if not isinstance(p, ToolCall | ToolResult))
        if asking and message.role == "assistant":
            made.append((seq, _with_ids(message, asking)))
        else:
            if others:
                role = "user" if message.role == "tool" else message.role
                made.append((seq, _changed(message, others, role)))
            if asking:
                name = message.name or (message.role if message.role not in SPEAKERS else None)
                made.append((seq, Message(role="assistant", parts=tuple(map(_sent, asking)), name=name)))
        made += _answers(asking, sources)
    return made


def _sent(asked: Asked) -> ToolCall:
    return asked.call if asked.call.id == asked.id else msgspec.structs.replace(asked.call, id=asked.id)


def _with_ids(message: Message, asking: Sequence[Asked]) -> Message:
    calls = iter(asking)
    parts = tuple(
        _sent(next(calls)) if isinstance(part, ToolCall) else part
        for part in message.parts
        if not isinstance(part, ToolResult)
    )
    return _changed(message, parts, "assistant")


def _changed(message: Message, parts: tuple[AnyPart, ...], role: str) -> Message:
    if message.role == role and len(parts) == len(message.parts) and all(map(_is, parts, message.parts)):
        return message
    return msgspec.structs.replace(message, parts=parts, role=role)


def _is(one: object, other: object) -> bool:
    return one is other


def _answers(asking: Sequence[Asked], sources: dict[int, Message]) -> Iterable[tuple[int, Message]]:
    """The results of one message's calls, those that came in one message in one; what nobody told comes last."""
    by_source: dict[int, list[ToolResult]] = {}
    for asked in asking:
        told = asked.told or (asked.early[0] if asked.early else 0)
        answer = asked.answer
        sent = answer if answer.id == asked.id else msgspec.structs.replace(answer, id=asked.id)
        by_source.setdefault(told, []).append(sent)
    for told in sorted(by_source, key=lambda seq: seq or 2**63):
        parts = by_source[told]
        source = sources.get(told)
        if source is None or not told:
            yield 0, Message(role="tool", parts=tuple(parts))
            continue
        order = {id(part): place for place, part in enumerate(source.parts)}
        parts.sort(key=lambda part: order.get(id(part), len(order)))
        yield told, _changed(source, tuple(parts), "tool")


def answering(open: Sequence[Asked]) -> list[Asked]:
    """Open calls in an order in which results that are appended find theirs: of those with one id the newest first."""
    first: dict[str, int] = {}
    for place, asked in enumerate(open):
        first.setdefault(asked.call.id or "", place)
    return sorted(open, key=lambda asked: (first[asked.call.id or ""], -asked.seq))


def pairing_of(said: Iterable[tuple[int, Message | Step]]) -> Pairing:
    """The pairs of messages and steps in order."""
    pairing = Pairing()
    for seq, payload in said:
        pairing.take(seq, payload)
    return pairing


def complete(messages: Iterable[Message]) -> list[Message]:
    """Messages as a model takes them: see `arranged`."""
    said = list(enumerate(messages, 1))
    return [message for _, message in arranged(said, pairing_of(said))]
