"""The values of oxios's store, as of its version 1.3.0, with their names: sessions, what is said in them, summaries.

A session is changed in place, as there, and becomes lasting when it is saved. What was said is frozen: it is appended,
never changed.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock
from typing import Any, TypeAlias

import msgspec

from holdfast.clock import from_micros, to_micros
from holdfast.errors import Invalid
from holdfast.formats.oxios import time_text
from holdfast.formats.rustjson import micros_of

SessionMetadata: TypeAlias = dict[str, Any]
"""What is said of a session, by names of the caller's own: any JSON values."""


class Timestamp(datetime):
    """A time in UTC, with the `text` that was written: it may have nanoseconds, which a datetime has no place for."""

    text: str

    @classmethod
    def of(cls, value: datetime | str) -> Timestamp:
        """A time, by a datetime or by RFC 3339 text with an offset.

        Raises:
            Invalid: it has no offset, or the text is none.
        """
        if isinstance(value, Timestamp):
            return value
        text = time_text(to_micros(value)) if isinstance(value, datetime) else value
        at = micros_of(text)
        if at is None:
            raise Invalid(f"{value!r} is no time of RFC 3339 with an offset", value=value)
        when = from_micros(at)
        made = cls(*when.timetuple()[:6], when.microsecond, UTC)
        made.text = text
        return made

    def __reduce_ex__(self, protocol: object) -> Any:
        return Timestamp.of, (self.text,)


def moment() -> Timestamp:
    """This moment."""
    return Timestamp.of(datetime.now(UTC))


class SessionId(str):
    """The id of a session: any text. Its `new` makes a random one."""

    __slots__ = ()

    @classmethod
    def new(cls) -> SessionId:
        """A random id, a UUID of version 4."""
        return cls(uuid.uuid4())


class UserMessage(msgspec.Struct, frozen=True):
    """What the user said."""

    content: str
    timestamp: datetime = msgspec.field(default_factory=moment)


class TrajectoryRange(msgspec.Struct, frozen=True):
    """Which of a session's steps belong to a response: from `start` up to, and without, `end`. A save checks it."""

    start: int
    end: int


class AgentResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent said. Only the content is needed."""

    content: str
    session_id: str | None = None
    seed_id: str | None = None
    phase_reached: str | None = None
    evaluation_passed: bool | None = None
    timestamp: datetime = msgspec.field(default_factory=moment)
    trajectory_range: TrajectoryRange | None = None


class TrajectoryStepRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One execution of a tool. `output_summary` has about 500 characters; `timestamp` is when it started."""

    tool_name: str
    tool_args: Any = None
    output_summary: str = ""
    duration_ms: int = 0
    is_error: bool = False
    tool_call_id: str = ""
    timestamp: datetime = msgspec.field(default_factory=moment)


class Base(msgspec.Struct, frozen=True):
    """What of a session was stored when it was loaded or saved: against this, a save tells what is new."""

    user_id: str
    user_messages: tuple[UserMessage, ...] = ()
    agent_responses: tuple[AgentResponse, ...] = ()
    trajectory_steps: tuple[TrajectoryStepRecord, ...] = ()
    active_seed_id: str | None = None
    active_persona_id: str | None = None
    created_at: str = ""
    updated_at: str = ""
    metadata: dict[str, Any] = {}


@dataclass
class Session:
    """One conversation of a user. `base` is what the store knows of it; None as long as it was never stored."""

    id: SessionId
    user_id: str
    user_messages: list[UserMessage] = field(default_factory=list[UserMessage])
    agent_responses: list[AgentResponse] = field(default_factory=list[AgentResponse])
    trajectory_steps: list[TrajectoryStepRecord] = field(default_factory=list[TrajectoryStepRecord])
    active_seed_id: str | None = None
    active_persona_id: str | None = None
    created_at: datetime = field(default_factory=moment)
    updated_at: datetime = field(default_factory=moment)
    metadata: SessionMetadata = field(default_factory=dict[str, Any])
    base: Base | None = field(default=None, repr=False, compare=False)

    @classmethod
    def new(cls, user_id: str) -> Session:
        """A new session of a user, with a random id."""
        return cls.with_id(user_id, SessionId.new())

    @classmethod
    def with_id(cls, user_id: str, session_id: str) -> Session:
        """A new session with an id of one's own."""
        now = moment()
        return cls(SessionId(session_id), user_id, created_at=now, updated_at=now)

    def add_user_message(self, content: str) -> None:
        """The user said this, now."""
        self.user_messages.append(UserMessage(content))
        self._touch()

    def add_agent_response(self, response: AgentResponse) -> None:
        """The agent said this."""
        self.agent_responses.append(response)
        self._touch()

    def extend_trajectory(self, steps: Iterable[TrajectoryStepRecord]) -> None:
        """These steps were made. None is no change."""
        if new := list(steps):
            self.trajectory_steps += new
            self._touch()

    def trajectory(self) -> tuple[TrajectoryStepRecord, ...]:
        """The steps that were made."""
        return tuple(self.trajectory_steps)

    def set_active_seed(self, seed_id: str | None) -> None:
        """The seed that is active; None for none."""
        self.active_seed_id = seed_id
        self._touch()

    def set_active_persona(self, persona_id: str | None) -> None:
        """The persona that is active; None for none."""
        self.active_persona_id = persona_id
        self._touch()

    def set_metadata(self, key: str, value: Any) -> None:
        """Set something that is said of the session."""
        self.metadata[key] = value
        self._touch()

    def get_metadata(self, key: str) -> Any:
        """What is said of the session under a key; None if nothing is."""
        return self.metadata.get(key)

    def exchange_count(self) -> int:
        """How many times the user spoke and the agent answered."""
        return min(len(self.user_messages), len(self.agent_responses))

    def is_empty(self) -> bool:
        """Whether nobody said anything."""
        return not self.user_messages and not self.agent_responses

    def _touch(self) -> None:
        self.updated_at = moment()


class SessionSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a session without its messages. `message_count` counts those of the user and the agent.

    `project_id` is the first of `project_ids`.
    """

    id: str
    user_id: str
    message_count: int
    title: str | None = None
    active_seed_id: str | None = None
    project_id: str | None = None
    project_ids: tuple[str, ...] = ()
    created_at: datetime
    updated_at: datetime


class PruneConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a prune leaves: so many sessions, and none that was not active for so many hours. 0 is no limit.

    Raises:
        Invalid: a number is negative or none.
    """

    max_sessions: int = 100
    ttl_hours: int = 168

    def __post_init__(self) -> None:
        check_count("max_sessions", self.max_sessions)
        check_count("ttl_hours", self.ttl_hours)


def check_count(name: str, value: object) -> None:
    """Refuse what is no whole number from 0 on.

    Raises:
        Invalid: it is none.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Invalid(f"{name} is a whole number, 0 or more, not {value!r:.80}", **{name: value})


class PruneThrottle:
    """Lets one prune through every so many seconds, in this process. Safe in threads.

    What was let through and did not succeed is given back with `release`, so that a failure uses nothing up. For all
    processes together, give `prune_sessions` a `cooldown`.
    """

    def __init__(self, cooldown_secs: float) -> None:
        if not 0 <= cooldown_secs < float("inf"):
            raise Invalid(f"cooldown_secs is a number of seconds, 0 or more, not {cooldown_secs}")
        self._cooldown = cooldown_secs
        self._last: float | None = None
        self._before: float | None = None
        self._lock = Lock()

    def should_prune(self) -> bool:
        """Whether enough time has gone by since the last time that this was true."""
        with self._lock:
            now = time.monotonic()
            if self._last is not None and now - self._last < self._cooldown:
                return False
            self._before, self._last = self._last, now
            return True

    def release(self) -> None:
        """The prune that was let through failed: the next may try at once."""
        with self._lock:
            self._last = self._before
