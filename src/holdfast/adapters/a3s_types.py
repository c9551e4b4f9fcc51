"""A session as a3s-code 2.0 saves it, and what it saves beside; fields that are not known here stay in `extra`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import msgspec

from holdfast.adapters.a3s_parts import (
    ContextUsage,
    LlmConfigData,
    LlmCostRecord,
    Message,
    Record,
    SessionConfig,
    SessionState,
    Task,
    TokenUsage,
)
from holdfast.errors import Invalid
from holdfast.events import reporting
from holdfast.formats import rustjson
from holdfast.formats.a3s import without_keys
from holdfast.formats.a3s_events import REPORT_SCHEMA, TRACE_SCHEMA
from holdfast.formats.a3s_get import marked
from holdfast.formats.a3s_in import parse_session
from holdfast.formats.a3s_rules import Refusal, Rule
from holdfast.formats.transcript import listing, mapping


class ToolDefinition(Record, kw_only=True):
    """A tool that the model may call."""

    name: str
    description: str = ""
    parameters: Any = None


class SessionData(Record, kw_only=True):
    """A session as it is saved. Times are in seconds since 1970."""

    id: str
    config: SessionConfig = msgspec.field(default_factory=SessionConfig)
    state: SessionState = SessionState.Unknown
    messages: list[Message] = msgspec.field(default_factory=list[Message])
    context_usage: ContextUsage = msgspec.field(default_factory=ContextUsage)
    total_usage: TokenUsage = msgspec.field(default_factory=TokenUsage)
    total_cost: float = 0.0
    model_name: str | None = None
    cost_records: list[LlmCostRecord] = msgspec.field(default_factory=list[LlmCostRecord])
    tool_names: list[str] = msgspec.field(default_factory=list[str])
    thinking_enabled: bool = False
    thinking_budget: int | None = None
    created_at: int = 0
    updated_at: int = 0
    llm_config: LlmConfigData | None = None
    tasks: list[Task] = msgspec.field(default_factory=list[Task])
    parent_id: str | None = None
    OMITTED = frozenset({"model_name", "llm_config", "parent_id"})
    PARTS: ClassVar[Mapping[str, type[Record]]] = {
        "config": SessionConfig,
        "messages": Message,
        "context_usage": ContextUsage,
        "total_usage": TokenUsage,
        "cost_records": LlmCostRecord,
        "llm_config": LlmConfigData,
        "tasks": Task,
    }

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Self:
        """The session that a JSON object tells; its tasks may be called `todos`."""
        told = dict(value)
        if "todos" in told and "tasks" not in told:
            told["tasks"] = told.pop("todos")
        return super().of(told)

    @classmethod
    def _read(cls, field: str, value: Any) -> Any:
        return SessionState(value) if field == "state" else super()._read(field, value)

    @staticmethod
    def tool_names_from_definitions(tools: Sequence[ToolDefinition]) -> list[str]:
        """The names of tools, in their order."""
        return [tool.name for tool in tools]

    def to_json(self) -> str:
        """The session's file as the program writes it; without the key of a model."""
        return rustjson.pretty(marked(without_keys(self.json())))

    @classmethod
    def from_json(cls, text: str | bytes) -> SessionData:
        """The session of a file.

        Raises:
            Invalid: the program would refuse it.
        """
        try:
            session, _ = parse_session(text.encode() if isinstance(text, str) else text)
        except Refusal as refusal:
            raise Invalid(f"no session of a3s-code: {refusal}") from None
        return cls.of(without_keys(session))


class ToolArtifact(Record, kw_only=True):
    """The whole output of a tool, of which the model was shown a part. Sizes are in bytes."""

    artifact_id: str
    artifact_uri: str
    tool_name: str
    content: str
    original_bytes: int
    shown_bytes: int


class ArtifactStore:
    """The artifacts of a session, by their URIs. There is no limit, and none is ever taken away to make room."""

    def __init__(self, artifacts: Sequence[ToolArtifact] = ()) -> None:
        self._found = {artifact.artifact_uri: artifact for artifact in artifacts}

    def put(self, artifact: ToolArtifact) -> None:
        """Add an artifact, in the place of one with the same URI."""
        self._found[artifact.artifact_uri] = artifact

    def get(self, uri: str) -> ToolArtifact | None:
        """The artifact with this URI."""
        return self._found.get(uri)

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[ToolArtifact]:
        return iter(self._found.values())


class TraceEvent(Record, kw_only=True):
    """One execution of a tool or program."""

    schema: str = TRACE_SCHEMA
    kind: str = "tool_execution"
    name: str
    success: bool
    exit_code: int
    duration_ms: int
    output_bytes: int
    metadata_keys: list[str] = msgspec.field(default_factory=list[str])
    artifact_uris: list[str] = msgspec.field(default_factory=list[str])
    details: Any = None
    OMITTED = frozenset({"metadata_keys", "artifact_uris", "details"})

    @classmethod
    def tool_execution(
        cls,
        name: str,
        success: bool,
        exit_code: int,
        duration_ms: int,
        output_bytes: int,
        metadata: Mapping[str, Any] | None = None,
    ) -> TraceEvent:
        """A tool ran; `metadata` names its keys, and the artifacts in it."""
        return cls(
            name=name,
            success=success,
            exit_code=exit_code,
            duration_ms=duration_ms,
            output_bytes=output_bytes,
            metadata_keys=sorted(metadata or ()),
            artifact_uris=sorted(set(_uris_in(dict(metadata or {})))),
        )


def _uris_in(value: Any) -> Iterator[str]:
    for name, item in mapping(value).items():
        if name == "artifact_uri" and isinstance(item, str):
            yield item
        yield from _uris_in(item)
    for item in listing(value):
        yield from _uris_in(item)


class VerificationCheck(Record, kw_only=True):
    """One check of a report."""

    id: str
    kind: str
    description: str
    status: str = "needs_review"
    required: bool = True
    suggested_tools: list[str] = msgspec.field(default_factory=list[str])
    evidence_uris: list[str] = msgspec.field(default_factory=list[str])
    residual_risk: str | None = None
    OMITTED = frozenset({"suggested_tools", "evidence_uris", "residual_risk"})

    def with_status(self, status: str) -> VerificationCheck:
        """The check, with what it came to."""
        return msgspec.structs.replace(self, status=status)


class VerificationReport(Record, kw_only=True):
    """What checks came to."""

    schema: str = REPORT_SCHEMA
    subject: str
    status: str
    checks: list[VerificationCheck] = msgspec.field(default_factory=list[VerificationCheck])
    residual_risks: list[str] = msgspec.field(default_factory=list[str])
    OMITTED = frozenset({"residual_risks"})
    PARTS: ClassVar[Mapping[str, type[Record]]] = {"checks": VerificationCheck}

    @classmethod
    def new(
        cls, subject: str, checks: Sequence[VerificationCheck], residual_risks: Sequence[str] = ()
    ) -> VerificationReport:
        """A report, whose status follows from its checks and risks."""
        status = reporting.status_of([check.json() for check in checks], residual_risks)
        return cls(subject=subject, status=status, checks=list(checks), residual_risks=list(residual_risks))


def checked(rule: Rule, value: Any, what: str) -> None:
    """Refuse to save what the program would not read.

    Raises:
        Invalid: it would refuse it, and why.
    """
    try:
        rule(value, "")
    except Refusal as refusal:
        raise Invalid(f"this {what} can't be saved, as a3s-code would not read it: {refusal}") from None
