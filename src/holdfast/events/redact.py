"""Secrets in what is about to be recorded: what an error's message says is not meant for a log, nor what a user names.

The rule for texts is small, so that it can be stated: the values of what is called a key, token, secret, password or
credential (`api_key=…`, `"password": "…"`), tokens behind `Bearer` or `Basic`, tokens that start as those of known
services do (`sk-…`, `ghp_…`, `AKIA…`), and the passwords in URLs become `***`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, cast

import msgspec

from holdfast.model import Large, Source

MASK = "***"
"""What stands for a secret."""
LIMIT = 2000
"""Characters that are kept of an error's message."""

_PASSWORD = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^\s/:@]*):[^\s/@]+@")

_RULES = (
    (_PASSWORD, r"\1:***@"),
    (re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE), r"\1 ***"),
    (
        re.compile(
            r"\b([\w-]*(?:api[_-]?key|access[_-]?key|token|secret|passwd|password|credential)s?)"
            r"([\"']?\s*[:=]\s*[\"']?)(?!\*\*\*)[^\s\"',;&}]+",
            re.IGNORECASE,
        ),
        r"\1\2***",
    ),
    (
        re.compile(r"\b(?:(?:sk|pk|rk)-|gh[oprsu]_|github_pat_|glpat-|xox[abeprs]-|hf_|AKIA|ASIA|AIza)[\w-]{10,}"),
        "***",
    ),
)


def without_password(url: str) -> str:
    """A URL, or a text with some, without passwords."""
    return _PASSWORD.sub(r"\1:***@", url)


def redacted(text: str) -> str:
    """The text without what looks like a secret, cut to `LIMIT` characters."""
    # Cut with room to spare, so that a long text costs little and no half of a secret is left at the end.
    text = text[: 2 * LIMIT]
    for pattern, instead in _RULES:
        text = pattern.sub(instead, text)
    return text if len(text) <= LIMIT else text[: LIMIT - 1] + "…"


def masked(value: Any, names: Collection[str]) -> Any:
    """A payload, or a JSON value, in which `***` stands for what is, at any depth, under one of the names."""
    if not names or isinstance(value, Large | Source):
        return value
    if isinstance(value, msgspec.Struct):
        changed = {field: masked(getattr(value, field), names) for field in value.__struct_fields__}
        return msgspec.structs.replace(value, **changed)
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {key: MASK if key in names else masked(item, names) for key, item in items}
    if isinstance(value, list | tuple):
        items = [masked(item, names) for item in cast("list[Any]", value)]
        return items if isinstance(value, list) else tuple(items)
    return value


def told(error: BaseException) -> str:
    """An exception as its type and message, without secrets."""
    try:
        message = str(error)
    except Exception as broken:  # noqa: BLE001  # a __str__ of somebody else's; the type is still worth recording
        message = f"(its message can't be told: {type(broken).__name__})"
    name = type(error).__qualname__
    return redacted(f"{name}: {message}" if message else name)
