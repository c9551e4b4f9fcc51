"""The parts of what a3s-code 2.0 saves, with its names; fields that are not known here stay in `extra`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar, Self, TypeAlias, cast

import msgspec

from holdfast.errors import Invalid
from holdfast.formats.a3s_events import Json
from holdfast.formats.transcript import listing, mapping

DEFAULT_AUTO_COMPACT_THRESHOLD = 0.80
"""The share of the context from which on it is compacted."""


class SessionState(StrEnum):
    """What a session was doing when it was saved."""

    Unknown = "Unknown"
    Active = "Active"
    Paused = "Paused"
    Completed = "Completed"
    Error = "Error"


class Record(msgspec.Struct, kw_only=True):
    """A record with its fields in the order in which they are written."""

    extra: dict[str, Any] = {}
    OMITTED: ClassVar[frozenset[str]] = frozenset()
    """Fields that are not written when they say nothing."""
    PARTS: ClassVar[Mapping[str, type[Record]]] = {}
    """Fields that are records, or lists of records."""
    NAMES: ClassVar[Mapping[str, str]] = {}
    """Fields that have another name in JSON."""

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Self:
        """The record that a JSON object tells.

        Raises:
            Invalid: a field is missing that must be there.
        """
        given, found = dict(value), dict[str, Any]()
        for field in cls.__struct_fields__:
            name = cls.NAMES.get(field, field)
            if field != "extra" and name in given:
                found[field] = cls._read(field, given.pop(name))
        try:
            return cls(**found, extra=given)
        except TypeError as error:
            raise Invalid(f"no {cls.__name__}: {error}") from None

    @classmethod
    def _read(cls, field: str, value: Any) -> Any:
        part = cls.PARTS.get(field)
        if part is None or value is None:
            return value
        if isinstance(value, list):
            return [part.of(mapping(item)) for item in cast("list[Any]", value)]
        return part.of(mapping(value))

    def json(self) -> Json:
        """The JSON object that tells the record."""
        made: Json = {}
        for field in self.__struct_fields__:
            value = getattr(self, field)
            if field == "extra" or (field in self.OMITTED and value in (None, [], {})):
                continue
            made[self.NAMES.get(field, field)] = _plain(value)
        return {**made, **{name: value for name, value in self.extra.items() if name not in made}}


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.json()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("list[Any]", value)]
    if isinstance(value, float):
        return float(value)  # also of a number that was read as one of 32 bits
    return str(value) if isinstance(value, StrEnum) else value


class TextBlock(Record, kw_only=True):
    """Words."""

    type: str = "text"
    text: str


class ImageBlock(Record, kw_only=True):
    """An image: `source` has type, media_type and data, which is base64."""

    type: str = "image"
    source: dict[str, Any]


class ToolUseBlock(Record, kw_only=True):
    """The model asks for a tool."""

    type: str = "tool_use"
    id: str
    name: str
    input: Any


class ToolResultBlock(Record, kw_only=True):
    """What the tool answered: a text, or a list of text and image blocks."""

    type: str = "tool_result"
    tool_use_id: str
    content: Any
    is_error: bool | None = None


class OtherBlock(Record, kw_only=True):
    """A block of a type that is not known here, with all its fields in `extra`."""

    @property
    def type(self) -> str:
        """Its own name for its type."""
        return str(self.extra.get("type", ""))


ContentBlock: TypeAlias = TextBlock | ImageBlock | ToolUseBlock | ToolResultBlock | OtherBlock
_BLOCKS: Mapping[str, type[Record]] = {
    "text": TextBlock,
    "image": ImageBlock,
    "tool_use": ToolUseBlock,
    "tool_result": ToolResultBlock,
}


class Message(Record, kw_only=True):
    """Something said. The role is any word; `reasoning_content` is what the model thought before."""

    role: str
    content: list[Any] = []
    reasoning_content: str | None = None
    OMITTED = frozenset({"reasoning_content"})

    @classmethod
    def user(cls, text: str) -> Message:
        """What the user said."""
        return cls(role="user", content=[TextBlock(text=text)])

    @classmethod
    def assistant(cls, text: str) -> Message:
        """What the model said."""
        return cls(role="assistant", content=[TextBlock(text=text)])

    @classmethod
    def _read(cls, field: str, value: Any) -> Any:
        if field != "content":
            return value
        blocks = [mapping(block) for block in listing(value)]
        return [_BLOCKS.get(str(block.get("type")), OtherBlock).of(block) for block in blocks]


class ContextUsage(Record, kw_only=True):
    """How full the context was: `percent` is a share of `max_tokens`, from 0 to 1."""

    used_tokens: int = 0
    max_tokens: int = 200_000
    percent: float = 0.0
    turns: int = 0


class TokenUsage(Record, kw_only=True):
    """Tokens; None for what is not known."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None


class LlmCostRecord(Record, kw_only=True):
    """What one call of a model took. `timestamp` is RFC 3339 text, as it is written."""

    model: str
    provider: str
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost_usd: float | None = None
    timestamp: str
    session_id: str | None = None


class Task(Record, kw_only=True):
    """One task. `status` is pending, in_progress, completed, failed, skipped or cancelled."""

    id: str
    content: str
    status: str = "pending"
    priority: str = "medium"
    tool: str | None = None
    dependencies: list[str] = []
    success_criteria: str | None = None
    OMITTED = frozenset({"tool", "dependencies", "success_criteria"})


class LlmConfigData(Record, kw_only=True):
    """Which model a session talks to. `api_key` is never stored, and never read."""

    provider: str
    model: str
    api_key: str | None = None
    base_url: str | None = None
    OMITTED = frozenset({"api_key"})


class ConfirmationPolicy(Record, kw_only=True):
    """When a person is asked before a tool runs."""

    enabled: bool = False
    default_timeout_ms: int = 30_000
    timeout_action: str = "Reject"
    yolo_lanes: list[str] = []

    @classmethod
    def on(cls) -> ConfirmationPolicy:
        """One that asks; theirs is called `enabled()`, which is a field here."""
        return cls(enabled=True)


class PermissionPolicy(Record, kw_only=True):
    """What tools may do: rules as `{"rule": "Bash(cargo:*)"}`."""

    deny: list[Any] = []
    allow: list[Any] = []
    ask: list[Any] = []
    default_decision: str = "ask"
    enabled: bool = True

    def allowing(self, *rules: str) -> PermissionPolicy:
        """The policy with rules that allow."""
        return msgspec.structs.replace(self, allow=[*self.allow, *({"rule": rule} for rule in rules)])

    def denying(self, *rules: str) -> PermissionPolicy:
        """The policy with rules that deny."""
        return msgspec.structs.replace(self, deny=[*self.deny, *({"rule": rule} for rule in rules)])


class SecurityConfig(Record, kw_only=True):
    """How output is guarded."""

    enabled: bool = False
    classification_rules: list[Any] = []
    redaction_strategy: str = "Mask"
    network_whitelist: list[str] = []
    dangerous_commands: list[str] = []
    features: dict[str, Any] = {}


_LANES = ("control_max_concurrency", "query_max_concurrency", "execute_max_concurrency", "generate_max_concurrency")


class SessionQueueConfig(Record, kw_only=True):
    """How many tasks of each lane run at once. In `extra` are the other fields, by their names in JSON.

    What a file does not say is None and is not written: the program reads other numbers for it than it begins with.
    """

    control_max_concurrency: int | None = 2
    query_max_concurrency: int | None = 4
    execute_max_concurrency: int | None = 2
    generate_max_concurrency: int | None = 1
    OMITTED = frozenset(_LANES)
    NAMES = {name: name.partition("_")[0] + "MaxConcurrency" for name in _LANES}

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Self:
        """The config that a JSON object tells."""
        return super().of({**dict.fromkeys(cls.NAMES.values()), **value})


class SessionConfig(Record, kw_only=True):
    """What a session is set to."""

    name: str = ""
    workspace: str = ""
    system_prompt: str | None = None
    max_context_length: int = 0
    auto_compact: bool = False
    auto_compact_threshold: float = DEFAULT_AUTO_COMPACT_THRESHOLD
    storage_type: str = "file"
    queue_config: SessionQueueConfig | None = None
    confirmation_policy: ConfirmationPolicy | None = None
    permission_policy: PermissionPolicy | None = None
    parent_id: str | None = None
    security_config: SecurityConfig | None = None
    planning_mode: str = "Auto"
    goal_tracking: bool = False
    OMITTED = frozenset({"queue_config", "confirmation_policy", "permission_policy", "parent_id", "security_config"})
    PARTS = {
        "queue_config": SessionQueueConfig,
        "confirmation_policy": ConfirmationPolicy,
        "permission_policy": PermissionPolicy,
        "security_config": SecurityConfig,
    }
