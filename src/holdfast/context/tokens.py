"""How many tokens a message takes: an estimate that needs no model's tokenizer, and loads nothing that is large.

It is made to err on the high side for prose, so that a context made by it fits. Who needs the exact number passes a
counter of their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TypeAlias, cast

from holdfast.errors import Invalid
from holdfast.model import Blob, File, Large, Message, Reasoning, Text, ToolCall, ToolResult, Uri

Counter: TypeAlias = Callable[[Message], int]
"""Says how many tokens a message takes when it is sent."""

PER_MESSAGE = 4
"""Tokens for a message itself: its role and its marks."""
PER_CALL = 8
"""Tokens for a tool call or a result, besides its name and its JSON."""
PER_IMAGE = 1600
"""Tokens for an image, a file or whatever stands at a URI, whatever its size."""

_WIDE = re.compile("[\u1100-\u11ff\u2e80-\ud7ff\uf900-\ufaff\uff00-\uffef\U0001f000-\U0003ffff]")


def estimate(message: Message) -> int:
    """The tokens that a message takes, about.

    A token for each 4 ASCII characters, for each 2 of other alphabets, and for each character of Chinese, Japanese,
    Korean or emoji; of JSON likewise. 1,600 for an image, file or URI, for other bytes one for each 4 characters of
    their base64. Large values are told by their size and their beginning.
    """
    return PER_MESSAGE + sum(_of_part(part) for part in message.parts)


def of_text(text: str) -> int:
    """The tokens that a text takes, about."""
    if text.isascii():
        return (len(text) + 3) // 4
    wide = len(_WIDE.findall(text))
    ascii_ = len(text.encode("ascii", "ignore"))
    return wide + (len(text) - wide - ascii_ + 1) // 2 + (ascii_ + 3) // 4


def counted(count: Counter, message: Message) -> int:
    """What a counter says of a message.

    Raises:
        Invalid: it does not say a number of tokens.
    """
    tokens = cast("object", count(message))
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0:
        raise Invalid(f"a counter of tokens says a whole number, 0 or more, not {tokens!r:.40}", tokens=tokens)
    return tokens


def _of_part(part: object) -> int:
    if isinstance(part, Text | Reasoning):
        return _of_value(part.content)
    if isinstance(part, ToolCall):
        return PER_CALL + of_text(part.name) + _of_value(part.arguments)
    if isinstance(part, ToolResult):
        return PER_CALL + _of_value(part.response)
    if isinstance(part, File | Uri) or (isinstance(part, Blob) and is_image(part)):
        return PER_IMAGE
    if isinstance(part, Blob):
        return _of_value(part.content)
    return PER_CALL + _of_value(getattr(part, "data", None))


def is_image(part: Blob | File | Uri) -> bool:
    """Whether a part is an image, as far as it says."""
    return part.modality == "image" or (part.mime_type or "").startswith("image/")


def _of_value(value: Any) -> int:
    if value is None:
        return 0
    if isinstance(value, str):
        return of_text(value)
    if not isinstance(value, Large):
        return of_text(json.dumps(value, ensure_ascii=False, default=str))
    if value.size < 0:
        return of_text(value.preview)  # a stream that was not stored yet: nobody knows
    begins = len(value.preview.encode("utf-8", "surrogatepass"))
    return -(-value.size * of_text(value.preview) // begins) if begins else (value.size + 3) // 4
