"""JSON as programs written in Rust read and write it, to the byte: serde_json's text, ryu's numbers, chrono's times.

Python differs in numbers that are very small or very large, and reads much that serde_json refuses. Times are kept as
text: theirs have nanoseconds, which no datetime of Python's holds.
"""

from __future__ import annotations

import json
import re
import struct
from collections import Counter
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from typing import Any, NoReturn, cast

from holdfast.clock import to_micros
from holdfast.plan import FIRST_TIME, LAST_TIME

DEPTH = 127
"""Arrays and objects that may stand in each other; serde_json refuses more."""
_HALF = re.compile("[\ud800-\udfff]")
_MAX_F32 = float.fromhex("0x1.fffffep127")


class F32(float):
    """A number that its program holds in 32 bits: it is written in the fewest digits that tell it from others there."""


class Repeated(dict[str, Any]):
    """An object in whose text some fields stand more than once: these. The last value is the one it holds."""

    names: tuple[str, ...] = ()


def repeated(value: dict[str, Any]) -> tuple[str, ...]:
    """The fields that stand more than once in the text of an object."""
    return value.names if isinstance(value, Repeated) else ()


class NotRust(ValueError):
    """Text that serde_json refuses, and why."""


def compact(value: Any) -> str:
    """A JSON value without any space, as `serde_json::to_string` writes it."""
    return "".join(_pieces(value, None, 0))


def pretty(value: Any) -> str:
    """A JSON value with an indent of two and no newline at its end, as `serde_json::to_string_pretty` writes it."""
    return "".join(_pieces(value, "  ", 0))


def _pieces(value: Any, indent: str | None, depth: int) -> Iterator[str]:
    if isinstance(value, dict):
        yield from _nested(cast("dict[str, Any]", value).items(), "{", "}", indent, depth)
    elif isinstance(value, list | tuple):
        yield from _nested([(None, item) for item in cast("list[Any]", value)], "[", "]", indent, depth)
    elif isinstance(value, F32):
        yield f32(value)
    elif isinstance(value, float):
        yield f64(value)
    else:
        yield json.dumps(value, ensure_ascii=False)


def _nested(items: Any, start: str, end: str, indent: str | None, depth: int) -> Iterator[str]:
    if not items:
        yield start + end
        return
    gap = "" if indent is None else "\n" + indent * (depth + 1)
    colon = ":" if indent is None else ": "
    yield start
    for index, (key, item) in enumerate(items):
        yield ("," if index else "") + gap
        if key is not None:
            yield json.dumps(key, ensure_ascii=False) + colon
        yield from _pieces(item, indent, depth + 1)
    yield end if indent is None else "\n" + indent * depth + end


def f64(value: float) -> str:
    """A number of 64 bits; what is no finite number is null."""
    return _number(Decimal(repr(float(value))), -5, 16) if _is_finite(value) else "null"


def f32(value: float) -> str:
    """The number of 32 bits that is nearest; what is no finite number there is null."""
    if not _is_finite(value) or abs(value) > _MAX_F32 * (1 + 2.0**-25):
        return "null"
    return _number(_shortest(struct.unpack("f", struct.pack("f", value))[0]), -6, 13)


def _is_finite(value: float) -> bool:
    return value - value == 0


def _number(value: Decimal, low: int, high: int) -> str:
    """Digits as ryu lays them out: the point is written while it stands behind `low` and up to `high` digits."""
    sign, digits, exponent = value.as_tuple()
    minus = "-" if sign else ""
    text = "".join(map(str, digits)).rstrip("0")
    if not text:
        return minus + "0.0"
    exponent = int(exponent) + len(digits) - len(text)
    point = len(text) + exponent
    if 0 < point <= high:
        text = text.ljust(point, "0")
        return f"{minus}{text[:point]}.{text[point:] or '0'}"
    if low < point <= 0:
        return f"{minus}0.{'0' * -point}{text}"
    return f"{minus}{text[0]}{'.' if text[1:] else ''}{text[1:]}e{point - 1}"


def _shortest(value: float) -> Decimal:
    """The fewest digits that no other number of 32 bits is nearer to; of those, the nearest."""
    if value == 0:
        return Decimal(repr(value))
    exact, (low, high), even = Decimal(abs(value)), _around(abs(value)), _bits(abs(value)) % 2 == 0
    for digits in range(1, 10):
        found = [Context(digits, rounding).create_decimal(exact) for rounding in (ROUND_FLOOR, ROUND_CEILING)]
        near = [d for d in found if low < Fraction(d) < high or (even and Fraction(d) in (low, high))]
        if near:
            best = min(near, key=lambda d: abs(Fraction(d) - Fraction(exact)))
            return best.copy_sign(Decimal(value))
    return Decimal(f"{value:.8e}")


def _bits(value: float) -> int:
    return int(struct.unpack("I", struct.pack("f", value))[0])


def _around(value: float) -> tuple[Fraction, Fraction]:
    """Half way to the neighbours among the numbers of 32 bits."""
    bits = _bits(value)
    exact, below = Fraction(value), Fraction(struct.unpack("f", struct.pack("I", bits - 1))[0])
    above = struct.unpack("f", struct.pack("I", bits + 1))[0]
    step = Fraction(above) - exact if _is_finite(above) else exact - below
    return (exact + below) / 2, exact + step / 2


def parse(data: bytes, *, once: Collection[str] = ()) -> Any:
    """The value of a whole JSON text, as `serde_json::from_slice` takes it; of two equal keys the last wins.

    Args:
        data: The text.
        once: The fields of the outermost object that it may not have twice: those that the struct it is read into has.

    Raises:
        NotRust: serde_json refuses it.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise NotRust(f"not UTF-8 at byte {error.start}") from None
    # A byte order mark and space of other kinds are none of JSON's; Python's reader finds both by itself.
    try:
        value: Any = json.loads(
            text, object_pairs_hook=_object, parse_constant=_no_number, parse_float=_finite, parse_int=_int
        )
    except NotRust:
        raise
    except RecursionError:
        raise NotRust("its JSON nests too deep") from None
    except ValueError as error:
        raise NotRust(f"no JSON: {error}") from None
    _check(value, DEPTH)
    if isinstance(value, dict) and (twice := [name for name in repeated(cast("Any", value)) if name in once]):
        raise NotRust(f"the field {twice[0]!r} stands there twice")
    return cast("Any", value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    twice, seen = Repeated(value), Counter(name for name, _ in pairs)
    twice.names = tuple(name for name in value if seen[name] > 1)
    return twice


def _no_number(word: str) -> NoReturn:
    raise NotRust(f"{word} is no JSON number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not _is_finite(value):
        raise NotRust(f"{digits:.40} is outside the range of a float")
    return value


def _int(digits: str) -> int | float:
    """What fits 64 bits is a whole number, signed or not; serde_json makes a float of any other."""
    if len(digits) < 25 and -(2**63) <= (value := int(digits)) < 2**64:
        return value if digits != "-0" else -0.0
    return _finite(digits)


def has_halves(text: str) -> bool:
    """Whether a text holds half of a surrogate pair, which no text of theirs can."""
    return _HALF.search(text) is not None


def _check(value: Any, left: int) -> None:
    if isinstance(value, str):
        if has_halves(value):
            raise NotRust("it holds half of a surrogate pair")
    elif isinstance(value, dict | list):
        if left == 0:
            raise NotRust(f"its JSON nests deeper than {DEPTH}")
        items = cast("dict[str, Any]", value)
        for item in items:
            _check(item, left - 1)
        if isinstance(value, dict):
            for item in items.values():
                _check(item, left - 1)


_SPACE = "[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
"""What Rust calls white space; Python's has four separators more."""
_TIME = re.compile(
    r"_*(?:([+-])0*(\d{1,6})|(\d{1,4}))_*-_*(\d\d?)_*-_*(\d\d?)[Tt ]_*(\d\d?)_*:_*(\d\d?)_*:_*(\d\d?)(?:\.(\d+))?_*"
    r"(?:[Zz]|[Uu][Tt][Cc]|([+-]|\u2212)(\d\d)(?::|_)*([0-5]\d))_*".replace("_", _SPACE),
    re.ASCII,
)
MAX_YEAR = 262_142
"""The last year that chrono knows; the first is the same before the year 0."""
_ERA = 146_097 * 86_400_000_000
"""Microseconds of 400 years, in which the calendar repeats itself."""


def trimmed(text: str) -> str:
    """A text without the white space around it, as `str::trim` leaves it."""
    return _AROUND.sub("", text)


_AROUND = re.compile(rf"\A{_SPACE}+|{_SPACE}+\Z")


def micros_of(text: str) -> int | None:
    """A time that chrono reads as a `DateTime`, in microseconds since 1970 UTC; None if it reads none.

    Beside RFC 3339 it takes spaces, single digits, `UTC` and years of any length. A time outside of the years 1 to 9999
    gives the nearest within. The second 60 counts as the first of the next minute; what is finer than a microsecond is
    left out.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    sign, long, short = found.group(1, 2, 3)
    year = int(long or short) * (-1 if sign == "-" else 1)
    month, day, hour, minute, second = (int(found[n]) for n in range(4, 9))
    hours, minutes = int(found[11] or 0), int(found[12] or 0)
    if abs(year) > MAX_YEAR or second > 60 or hours > 23:
        return None
    try:
        whole = datetime(2000 + year % 400, month, day, hour, minute, 0, tzinfo=UTC)
    except ValueError:
        return None
    offset = (hours * 60 + minutes) * (1 if found[10] in (None, "+") else -1)
    at = to_micros(whole + timedelta(seconds=second, minutes=-offset)) + int((found[9] or "0")[:6].ljust(6, "0"))
    return max(FIRST_TIME, min(at + (year - year % 400 - 2000) // 400 * _ERA, LAST_TIME))


def time_text(at: int) -> str:
    """Microseconds since 1970 UTC as `DateTime::to_rfc3339` writes them: with 0, 3 or 6 digits and `+00:00`."""
    whole = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)
    spec = "seconds" if at % 1_000_000 == 0 else "milliseconds" if at % 1000 == 0 else "microseconds"
    return whole.isoformat(timespec=spec)
