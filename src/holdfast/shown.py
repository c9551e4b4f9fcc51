"""URLs for eyes and logs: what may be secret in one is not shown, whatever else is wrong with it."""

from __future__ import annotations

import re
from urllib.parse import unquote

LOCAL = ("sqlite", "file", "memory")
"""The schemes of stores without a server: '@' may be part of a file's name."""
_PASSWORD = re.compile(r"^([^:/]*://[^:/?#@]*):.*@", re.DOTALL)
_NO_PORT = re.compile(r"^([^:/]*://[^:/?#@\[\]]*):(?!\d*(?:[,/?#]|$))[^/?#@,]*(?=[,/?#]|$)")
"""What stands where a port should: a password whose host was forgotten."""
_BARE = re.compile(r"^([^:/?#@]+):(?!//).*@", re.DOTALL)
_BLOBS = re.compile(r"(?<=[?&]blobs=)[^&]*")


def shown(url: str) -> str:
    """A URL for eyes and logs: without its password, whatever else is wrong with it, and of blobs only the place."""
    if url.partition(":")[0] not in LOCAL:
        url = _BARE.sub(r"\1:***@", url)  # a scheme was forgotten; of a file's, '@' may be part of the name
    safe = _NO_PORT.sub(r"\1:***", _PASSWORD.sub(r"\1:***@", url))
    return _BLOBS.sub(lambda found: shown_place(unquote(found[0])), safe)


def shown_place(url: str) -> str:
    """A place for blobs without what may be secret in its URL."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}".partition("?")[0]
