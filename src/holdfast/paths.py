"""Words and paths where the locale is not UTF-8.

Python takes arguments, variables and file names by the locale, and keeps each byte that it can't read as a lone
surrogate. Text is UTF-8 here whatever the locale; a path goes back to the system as the same bytes.
"""

from __future__ import annotations

import os


def as_text(given: str) -> str:
    """An argument or variable as the UTF-8 that its bytes are; as it is if they are none."""
    try:
        given.encode()
    except UnicodeEncodeError:
        try:
            return os.fsencode(given).decode()
        except UnicodeError:
            return given
    return given


def as_path(text: str) -> str:
    """A path in the form in which this process's system calls take it."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return os.fsdecode(text.encode("utf-8", "surrogateescape"))
    return text
