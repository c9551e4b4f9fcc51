"""Stored values as words for a person: text made safe, durations, money, counts.

One invariant: no control character of stored text comes out raw, so that no recorded output can move a terminal's
cursor, set its title or hide what stands beside it.
"""

from __future__ import annotations

import re

# C0 but newline and tab, DEL, C1, what turns the direction of writing, and what has no UTF-8.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LINE = re.compile("[\n\t\u2028\u2029]")


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    named = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 27: "\\e"}
    return named.get(code) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def safe(text: str) -> str:
    """Text with its control characters shown as escapes; newlines and tabs stay."""
    return _CONTROL.sub(_escaped, text.replace("\r\n", "\n"))


def safe_line(text: str) -> str:
    """The same on one line: newlines and tabs are shown too."""
    return _LINE.sub(_escaped, _CONTROL.sub(_escaped, text))


def duration(micros: int) -> str:
    """A duration in microseconds as a person says it."""
    if micros < 1_000_000:
        return f"{micros / 1000:.0f} ms" if micros >= 10_000 else f"{micros / 1000:.1f} ms"
    seconds = micros / 1_000_000
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def money(micro_dollars: int) -> str:
    """Micro-dollars as dollars, with as many digits as they need."""
    sign, whole = ("-" if micro_dollars < 0 else ""), abs(micro_dollars)
    cents = f"{whole / 1_000_000:.6f}".rstrip("0")
    whole_part, _, fraction = cents.partition(".")
    return f"{sign}${whole_part}.{fraction.ljust(2, '0')}"


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """`1 message`, `2 messages`."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"
