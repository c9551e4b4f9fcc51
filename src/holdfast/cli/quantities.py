"""Lengths of time and sizes, as a person writes them on the command line."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import click

_NUMBER = re.compile(r"(\d{1,30}(?:\.\d{1,9})?) ?([A-Za-z]*)", re.ASCII)

SECONDS = {"": 1, "s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
BYTES = {
    "": 1,
    "b": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", 1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", 1)},
}


def seconds_of(text: str) -> int | float:
    """Seconds, from `90`, `90s`, `15min`, `12h`, `30d` or `2w`; whole ones exactly, however many.

    Raises:
        ValueError: it is none of these. `6m` is none, either: who means months must not get minutes.
    """
    if text.strip()[-1:] == "m":
        raise ValueError(f"{text!r} may mean minutes or months; write min for minutes, d for days")
    exact = _amount(text, text, SECONDS, "a length of time such as 90s, 15min, 12h, 30d or 2w")
    return int(exact) if exact.denominator == 1 else float(exact)


def bytes_of(text: str) -> int:
    """Bytes, from `4096`, `10MB` (of 1,000,000 bytes) or `10MiB` (of 1,048,576).

    Raises:
        ValueError: it is none of these, or no whole number of bytes.
    """
    wanted = "a size in bytes, or such as 10MB or 10MiB"
    exact = _amount(text, text.lower(), BYTES, wanted)
    if exact.denominator != 1:
        raise ValueError(f"{text!r} is no whole number of bytes")
    return int(exact)


def _amount(text: str, given: str, units: dict[str, int], wanted: str) -> Fraction:
    match = _NUMBER.fullmatch(given.strip())
    if match is None or match[2] not in units:
        raise ValueError(f"{text!r} is not {wanted}")
    return Fraction(match[1]) * units[match[2]]


class _Quantity(click.ParamType):  # pyright: ignore[reportMissingTypeArgument]  # older click's takes none
    """An option that takes a length of time or a size."""

    def __init__(self, name: str, parse: Any) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; a default that is a number already stays."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = _Quantity("duration", seconds_of)
SIZE = _Quantity("size", bytes_of)
