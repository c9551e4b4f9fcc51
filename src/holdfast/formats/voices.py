"""What a rollout of Codex says, counted once in whatever ways it says it.

The same words may stand in a file up to three times: as an item of the conversation, as an event that shows them, and
as an item that was completed. Versions differ in which of them they write, and in what order. Words are said anew where
one of these voices has said them more often than each of the others before: so each turn counts once, and one that only
an event tells counts too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from holdfast.formats.transcript import Draft, Line, listing, mapping, newer_half, string

ITEM, EVENT, COMPLETED = range(3)
"""The voices: `response_item`s, `event_msg`s, and `event_msg`s of the type `item_completed`."""
Speaker = Literal["user", "assistant", "reasoning"]

RECENT = 20_000
"""Words back to which a repetition is known."""
_UNSHOWN = re.compile(r"<(oai-mem-citation|proposed_plan)>.*?(</\1>|\Z)", re.DOTALL)
"""What the model writes and the program leaves out of the words it shows."""
_EVENTS: Mapping[str, tuple[Speaker, str]] = {
    "user_message": ("user", "message"),
    "agent_message": ("assistant", "message"),
    "agent_reasoning": ("reasoning", "text"),
    "agent_reasoning_raw_content": ("reasoning", "text"),
}
WAITING = 32
"""Lines that wait at the most, until it is known whether an item tells what an event said."""
WAITING_SIZE = 1 << 20
"""Characters of the lines that wait at the most."""
_ITEMS: Mapping[str, Speaker] = {"UserMessage": "user", "AgentMessage": "assistant", "Reasoning": "reasoning"}


class Speech(msgspec.Struct, frozen=True):
    """What an event says: in which voice, who, the words piece by piece, and pictures by their URLs."""

    voice: int
    speaker: Speaker
    words: Sequence[str]
    pictures: Sequence[str] = ()
    phase: str | None = None


def speech_of(kind: str | None, event: Mapping[str, Any]) -> Speech | None:
    """What an `event_msg` says; None if it is no speech, or says nothing."""
    if kind is not None and kind in _EVENTS:
        speaker, key = _EVENTS[kind]
        voice, about, words = EVENT, event, [event.get(key)]
        pictures = listing(event.get("images"))
    elif kind == "item_completed" and (speaker := _ITEMS.get(str(mapping(event.get("item")).get("type")))):
        voice, about = COMPLETED, mapping(event.get("item"))
        content = [mapping(part) for part in listing(about.get("content"))]
        words = [part.get("text") for part in content]
        words += [*listing(about.get("summary_text")), *listing(about.get("raw_content"))]
        pictures = [part.get("image_url") for part in content]
    else:
        return None
    said = [text for word in words if (text := string(word))]
    shown = [url for picture in pictures if (url := string(picture))]
    return Speech(voice, speaker, said, shown, string(about.get("phase"))) if said or shown else None


class Voices:
    """How often each voice said what."""

    def __init__(self) -> None:
        self._said: dict[int, list[int]] = {}

    def has(self, voice: int, speaker: Speaker, words: Sequence[str]) -> bool:
        """Whether some of these words would be a repetition, of what another voice said."""
        counts = [self._said.get(key) for text in words for key in _keys(speaker, [text])]
        return any(count is not None and count[voice] < max(count) for count in counts)

    def say(self, voice: int, speaker: Speaker, words: Sequence[str]) -> bool:
        """Take note of words; whether they are said anew: not all of them, nor all as one, repeat another voice."""
        apart = [self._count(key, voice) for text in words for key in _keys(speaker, [text])]
        whole = [self._count(key, voice) for key in _keys(speaker, words)] if len(words) > 1 else []
        return not apart or (any(apart) and all(whole))

    def _count(self, key: int, voice: int) -> bool:
        if len(self._said) > 2 * RECENT:
            self._said = newer_half(self._said)
        counts = self._said.setdefault(key, [0, 0, 0])
        before = max(counts)
        counts[voice] += 1
        return counts[voice] > before


def _keys(speaker: Speaker, words: Sequence[str]) -> list[int]:
    """What words are known by: without what is not shown and the space around. Several pieces are joined either way."""
    shown = [(_UNSHOWN.sub("", text) if "<" in text else text).strip() for text in words]
    joined = {glue.join(shown) for glue in ("", "\n")} if len(shown) > 1 else set(shown)
    return [hash((speaker, text)) for text in joined if text]


class Heard(msgspec.Struct, frozen=True):
    """An event that says something, on its line."""

    speech: Speech
    event: dict[str, Any]
    line: Line


class Conversation:
    """The drafts of a file in their order; events that speak wait for the item that says the same, if one follows.

    So the item is the message where both are there, as it tells more. What goes on between them waits as well.
    """

    def __init__(self, decide: Callable[[Heard, bool], Draft]) -> None:
        """`decide` makes the draft of an event: a message if it says something anew, else an echo."""
        self._decide = decide
        self._voices = Voices()
        self._waiting: list[Heard | Draft] = []
        self._size = 0

    def hear(self, heard: Heard) -> list[Draft]:
        """An event that speaks."""
        self._waiting.append(heard)
        self._size += _size(heard.line)
        if len(self._waiting) > WAITING or self._size > WAITING_SIZE:
            self._settle()
        return self._released()

    def is_anew(self, speaker: Speaker, words: Sequence[str]) -> bool:
        """Whether an item says something anew; the events that wait are its echoes then."""
        repeats = self._voices.has(ITEM, speaker, words)
        if repeats:
            self._settle(speaker)
        anew = self._voices.say(ITEM, speaker, words)
        if not repeats:
            self._settle(speaker)
        return anew

    def add(self, draft: Draft, line: Line, *, waits: bool) -> list[Draft]:
        """Any other draft. `waits` tells that it may stand between an event and its item."""
        if not self._waiting:
            return [draft]
        if not waits:
            self._settle()
        self._waiting.append(msgspec.structs.replace(draft, id=line.id))
        self._size += _size(line)
        return self._released()

    def end(self) -> list[Draft]:
        """What waits in vain."""
        self._settle()
        return self._released()

    def _settle(self, speaker: Speaker | None = None) -> None:
        for index, heard in enumerate(self._waiting):
            if isinstance(heard, Heard) and speaker in (None, heard.speech.speaker):
                speech = heard.speech
                draft = self._decide(heard, self._voices.say(speech.voice, speech.speaker, speech.words))
                self._waiting[index] = msgspec.structs.replace(draft, id=heard.line.id)

    def _released(self) -> list[Draft]:
        """Those at the head whose form is known."""
        drafts: list[Draft] = []
        for draft in self._waiting:
            if isinstance(draft, Heard):
                break
            drafts.append(draft)
        del self._waiting[: len(drafts)]
        if not self._waiting:
            self._size = 0
        return drafts


def _size(line: Line) -> int:
    return len(line.source.raw) if isinstance(line.source.raw, str) else 0
