"""What reaches the terminal: styles where they are wanted, columns that line up.

Stored text passes through `safe` or `safe_line` before it comes here.
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from holdfast.formats.words import safe_line

_JSON = re.compile("[\x7f-\x9f]")


class Span(NamedTuple):
    """Text in one style: "" for plain, or words such as "bold red"."""

    text: str
    style: str = ""


Line = list[Span]


def safe_json(text: str) -> str:
    """JSON text whose strings hold no raw DEL or C1 character: JSON itself only escapes C0."""
    return _JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def width_of(text: str) -> int:
    """Columns that text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def fit(text: str, width: int) -> str:
    """Text cut to so many columns, with an ellipsis if something is missing."""
    if width_of(text) <= width:
        return text
    kept = ""
    for character in text:
        if width_of(kept + character) >= width:
            break
        kept += character
    return kept + "…"


def columns(default: int = 100) -> int:
    """How wide the terminal is; `COLUMNS` has the first word."""
    given = os.environ.get("COLUMNS", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        return default


def styler(wanted: bool) -> Callable[[Span], str]:
    """What turns a span into characters: with rich's styles when wanted and installed, else the bare text."""
    if wanted:
        try:
            from rich.color import ColorSystem
            from rich.style import Style
        except ImportError:
            pass
        else:
            return lambda s: (
                Style.parse(s.style).render(s.text, color_system=ColorSystem.STANDARD) if s.style else s.text
            )
    return lambda s: s.text


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = (), grow: int) -> list[Line]:
    """Rows as aligned lines below bold titles; the column `grow` gives way when the terminal is narrow."""
    cells = [list(titles), *([safe_line(cell) for cell in row] for row in rows)]
    widths = [max(width_of(row[i]) for row in cells) for i in range(len(titles))]
    others = sum(widths) - widths[grow] + 2 * (len(titles) - 1)
    widths[grow] = min(widths[grow], max(columns() - others, 20))
    lines: list[Line] = []
    for row in cells:
        padded: list[str] = []
        for i, cell in enumerate(row):
            text = fit(cell, widths[i])
            gap = " " * (widths[i] - width_of(text))
            padded.append(gap + text if i in right else text + gap)
        lines.append([Span("  ".join(padded).rstrip(), "" if lines else "bold")])
    return lines


def ago(at: int, now: int) -> str:
    """A time in microseconds UTC as a person says it, seen from `now`."""
    seconds = (now - at) // 1_000_000
    if seconds < 0:
        return local(at)
    for size, unit in ((86_400 * 365, "y"), (86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def local(at: int, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """A time in microseconds UTC on the clock of this place; the number itself where no calendar reaches."""
    try:
        return datetime.fromtimestamp(at / 1_000_000).astimezone().strftime(form)
    except (OverflowError, ValueError, OSError):
        return f"{at} µs"
