"""A session's config, typed: a view of the `config` that its head holds as plain JSON.

Whoever writes through the view lays it over what is there, so fields that it does not know stay. Secrets are not
written: a text under the name of a key, token, secret, password or credential is left out, whoever gave it, and a
password in a URL becomes `***`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, cast

import msgspec

from holdfast.errors import Invalid
from holdfast.events.redact import without_password

_SECRET = re.compile(
    r"(apikey|accesskey|secretkey|privatekey|secret|password|passwd|passphrase|credentials?|token|authorization)$"
)
_URL = re.compile(r"(url|uri|endpoint|proxy)$")


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of a config. None, or the default, says nothing and changes nothing."""


class LlmConfig(_Part, frozen=True):
    """The model that a session talks to. There is no place for its key."""

    provider: str | None = None
    model: str | None = None
    base_url: str | None = None


class ConfirmationPolicy(_Part, frozen=True):
    """When a person is asked before a tool runs. `timeout_action` is Reject or AutoApprove; lanes are Control, Query,
    Execute and Generate; times are in milliseconds.
    """

    enabled: bool | None = None
    default_timeout_ms: int | None = None
    timeout_action: str | None = None
    yolo_lanes: tuple[str, ...] | None = None


class PermissionPolicy(_Part, frozen=True):
    """What tools may do: rules as `Bash(cargo:*)`, or as objects with that under `rule`; deny goes before allow, allow
    before ask, and `default_decision` (allow, deny or ask) is for the rest.
    """

    enabled: bool | None = None
    deny: tuple[Any, ...] | None = None
    allow: tuple[Any, ...] | None = None
    ask: tuple[Any, ...] | None = None
    default_decision: str | None = None


class SecurityConfig(_Part, frozen=True):
    """How output is guarded. `redaction_strategy` is Mask, Remove or Hash."""

    enabled: bool | None = None
    classification_rules: tuple[Any, ...] | None = None
    redaction_strategy: str | None = None
    network_whitelist: tuple[str, ...] | None = None
    dangerous_commands: tuple[str, ...] | None = None
    features: dict[str, Any] | None = None


class QueueConfig(_Part, frozen=True, rename="camel"):
    """How many tasks of each lane run at once, and what becomes of those that fail; stored in camelCase."""

    control_max_concurrency: int | None = None
    query_max_concurrency: int | None = None
    execute_max_concurrency: int | None = None
    generate_max_concurrency: int | None = None
    lane_handlers: dict[str, Any] | None = None
    enable_dlq: bool | None = None
    dlq_max_size: int | None = None
    enable_metrics: bool | None = None
    enable_alerts: bool | None = None
    default_timeout_ms: int | None = None
    storage_path: str | None = None
    retry_policy: dict[str, Any] | None = None
    rate_limit: dict[str, Any] | None = None
    priority_boost: dict[str, Any] | None = None
    pressure_threshold: int | None = None
    lane_timeouts: dict[str, int] | None = None


class SessionConfig(_Part, frozen=True):
    """What a session is set to; `SessionConfig.of(session.info().config)` reads it, `session.update(config=…)` writes.

    `storage_type` is memory, file or custom, `planning_mode` Auto, Enabled or Disabled; `auto_compact_threshold` is a
    share of `max_context_length`, which is in tokens. `max_artifacts` and `max_artifact_bytes` limit its artifacts.
    """

    name: str | None = None
    workspace: str | None = None
    system_prompt: str | None = None
    max_context_length: int | None = None
    auto_compact: bool | None = None
    auto_compact_threshold: float | None = None
    storage_type: str | None = None
    queue_config: QueueConfig | None = None
    confirmation_policy: ConfirmationPolicy | None = None
    permission_policy: PermissionPolicy | None = None
    security_config: SecurityConfig | None = None
    parent_id: str | None = None
    planning_mode: str | None = None
    goal_tracking: bool | None = None
    llm: LlmConfig | None = None
    max_artifacts: int | None = None
    max_artifact_bytes: int | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> SessionConfig:
        """The view of a stored config; what it does not know is not in it.

        Raises:
            Invalid: a field is not of its type; the message names it.
        """
        try:
            return msgspec.convert(dict(config), cls)
        except msgspec.ValidationError as error:
            raise Invalid(f"the config can't be read as a SessionConfig: {error}") from None

    def onto(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A stored config with what this one says laid over it, at any depth."""
        return _laid_over(config, cast("dict[str, Any]", msgspec.to_builtins(self)))


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    laid = dict(below)
    for name, value in above.items():
        under = laid.get(name)
        if isinstance(value, dict) and isinstance(under, dict):
            laid[name] = _laid_over(cast("dict[str, Any]", under), cast("dict[str, Any]", value))
        else:
            laid[name] = value
    return laid


def without_secrets(value: Any, names: Collection[str] = ()) -> Any:
    """A JSON value without the texts that are secrets by their names, and without what stands under one of `names`."""
    if isinstance(value, Mapping):
        kept: dict[Any, Any] = {}
        for key, item in cast("Mapping[Any, Any]", value).items():
            name = _plain(key)
            if key in names or (isinstance(item, str) and _SECRET.search(name)):
                continue
            if isinstance(item, str) and _URL.search(name):
                kept[key] = without_password(item)
            else:
                kept[key] = without_secrets(item, names)
        return kept
    if isinstance(value, list | tuple):
        return [without_secrets(item, names) for item in cast("list[Any]", value)]
    return value


def _plain(key: object) -> str:
    return key.lower().replace("_", "").replace("-", "") if isinstance(key, str) else ""


def without(value: Any, names: Collection[str]) -> Any:
    """A JSON value without what stands, at any depth, under one of the names."""
    if not names:
        return value
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {key: without(item, names) for key, item in items if key not in names}
    if isinstance(value, list | tuple):
        return [without(item, names) for item in cast("list[Any]", value)]
    return value


def secret_names(names: Collection[str]) -> frozenset[str]:
    """Names that a user gave for what must not be written.

    Raises:
        Invalid: one text instead of several.
    """
    if isinstance(names, str):
        raise Invalid("secrets is a list of names, not one text", secrets=names)
    return frozenset(names)
