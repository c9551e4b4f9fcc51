"""JSON to the byte as programs written in Rust write it, and what they refuse to read."""

from __future__ import annotations

import json
import math
import struct

import pytest
from hypothesis import given, strategies as st

from holdfast.formats.rustjson import F32, NotRust, compact, f32, f64, micros_of, parse, pretty, time_text
from holdfast.plan import FIRST_TIME, LAST_TIME

F64S = [
    (0.0, "0.0"), (-0.0, "-0.0"), (1.0, "1.0"), (-1.5, "-1.5"), (0.1, "0.1"), (1e-4, "0.0001"), (1e-5, "0.00001"),
    (1.23e-5, "0.0000123"), (1e-6, "1e-6"), (1.5e-6, "1.5e-6"), (1e15, "1000000000000000.0"), (1e16, "1e16"),
    (1.5e16, "1.5e16"), (123456789012345680.0, "1.2345678901234568e17"), (5e-324, "5e-324"),
    (1.7976931348623157e308, "1.7976931348623157e308"), (123456.789, "123456.789"),
    (1234567890123456.0, "1234567890123456.0"),
]  # fmt: skip
F32S = {
    0.0: "0.0", 0.8: "0.8", 0.1: "0.1", 1e-6: "0.000001", 1e-7: "1e-7", 1e12: "1000000000000.0", 1e13: "1e13",
    16777216.0: "16777216.0", 3.4028235e38: "3.4028235e38", 1e-45: "1e-45", 0.30000001192092896: "0.3",
    0.3333333432674408: "0.33333334", -2.5: "-2.5", 9007199254740993.0: "9.007199e15",
}  # fmt: skip


@pytest.mark.parametrize(("value", "text"), F64S)
def test_a_number_of_64_bits(value: float, text: str) -> None:
    assert f64(value) == text


@pytest.mark.parametrize("value", F32S)
def test_a_number_of_32_bits(value: float) -> None:
    assert f32(value) == F32S[value]
    assert compact({"percent": F32(value)}) == f'{{"percent":{F32S[value]}}}'


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_of_64_bits_comes_back(value: float) -> None:
    text = f64(value)
    assert struct.pack("d", float(text)) == struct.pack("d", value)
    assert len(text.strip("-").partition("e")[0].replace(".", "").strip("0")) <= 17
    assert "E" not in text
    assert "+" not in text


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_every_number_of_32_bits_comes_back_in_the_fewest_digits(value: float) -> None:
    text = f32(value)
    assert struct.pack("f", float(text)) == struct.pack("f", value)
    digits = len(text.strip("-").partition("e")[0].replace(".", "").strip("0"))
    assert all(
        struct.unpack("f", struct.pack("f", float(f"{value:.{n - 1}e}")))[0] != value for n in range(1, digits)
    ), text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_null(value: float) -> None:
    assert (f64(value), f32(value), compact([value])) == ("null", "null", "[null]")


def test_what_is_too_large_for_32_bits_is_null() -> None:
    assert f32(3.5e38) == "null"


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_written_is_read_back(value: object) -> None:
    assert repr(parse(compact(value).encode())) == repr(value)
    assert repr(parse(pretty(value).encode())) == repr(value)


@given(VALUES.filter(lambda value: "." not in json.dumps(value) and "e" not in json.dumps(value)))
def test_but_for_numbers_it_is_what_python_writes(value: object) -> None:
    assert compact(value) == json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert pretty(value) == json.dumps(value, ensure_ascii=False, indent=2)


def test_text_is_escaped_no_more_than_it_must_be() -> None:
    assert (
        compact('\x00\x1f\x7f\b\f\n\r\t"\\/é\u2028🦀') == r'"\u0000\u001f' + "\x7f" + r"\b\f\n\r\t\"\\/é" + '\u2028🦀"'
    )
    assert pretty({}) == "{}"
    assert pretty({"a": [], "b": [1, {"c": None}]}) == (
        '{\n  "a": [],\n  "b": [\n    1,\n    {\n      "c": null\n    }\n  ]\n}'
    )


REFUSED = {
    "nothing": b"",
    "space alone": b" \n",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "a comma too many": b"[1,]",
    "half a pair": rb'"\ud800"',
    "half a pair in a key": rb'{"\udc00":1}',
    "no UTF-8": b'"\xff"',
    "NaN": b"NaN",
    "an infinity": b"[-Infinity]",
    "beyond a float": b"1e400",
    "a whole number beyond a float": b"1" * 400,
    "control characters": b'"\n"',
    "nested 128 deep": b"[" * 128 + b"]" * 128,
    "nested 100,000 deep": b"[" * 100_000 + b"]" * 100_000,
    "two values": b"{}{}",
    "single quotes": b"{'a':1}",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_serde_refuses_is_refused(name: str) -> None:
    with pytest.raises(NotRust):
        parse(REFUSED[name])


def test_numbers_are_read_as_serde_reads_them() -> None:
    assert parse(b"[18446744073709551615,-9223372036854775808]") == [2**64 - 1, -(2**63)]
    assert repr(parse(b"[18446744073709551616,-0]")) == "[1.8446744073709552e+19, -0.0]"
    assert parse(b"[" * 127 + b"]" * 127)


def test_a_key_that_comes_twice() -> None:
    assert parse(b'{"a":1,"a":2}') == {"a": 2}
    assert parse(b'{"b":{"a":1,"a":2}}', once=("a", "b")) == {"b": {"a": 2}}
    with pytest.raises(NotRust, match="'a'"):
        parse(b'{"a":{"c":1},"b":{},"a":[]}', once=("a", "b"))


TIMES = {
    "2026-11-21T02:23:58.813416685+00:00": 1795227838813416,
    "2026-11-21T02:23:58Z": 1795227838000000,
    "2026-11-21 02:23:58Z": 1795227838000000,
    "2026-11-21T02:23:58.5+0000": 1795227838500000,
    "2026-11-21T04:23:58.500+02:00": 1795227838500000,
    "2026-11-21T02:23:60Z": 1795227840000000,
    "2026-11-21T02:23:58.1234567891234Z": 1795227838123456,
    "2026-11-21T02:23:58": None,
    "2026-11-21": None,
    # What is read beside RFC 3339, by the parser of chrono 0.4
    "2026-11-21T02:23:58z": 1795227838000000,
    "2026-11-21t02:23:58 UTC": 1795227838000000,
    " 2026- 11 -21 2: 23 :58 .5 Z": None,
    " 2026- 11 -21  2: 23 :58.5 Z ": 1795227838500000,
    "2026-2-3T4:5:6Z": 1770091506000000,
    "+2026-02-03T04:05:06Z": 1770091506000000,
    "2026-02-03T04:05:06\u22120100": 1770095106000000,
    "2026-02-03T05:05:06+ 01 : 00": None,
    "2026-02-03T05:05:06+01 : 00": 1770091506000000,
    "2026-02-03T04:05:06+01": None,
    "2026-02-03T04:05:06+01:60": None,
    "2026-02-03T04:05:06+24:00": None,
    "2026-02-03T04:05:06\x1cZ": None,
    "20260-02-03T04:05:06Z": None,
    "2026-02-30T04:05:06Z": None,
    "0001-01-01T00:00:00Z": FIRST_TIME,
    "0001-01-01T00:00:00+01:00": FIRST_TIME,
    "9999-12-31T23:59:59.999999999Z": LAST_TIME,
    "9999-12-31T23:59:60Z": LAST_TIME,
    "+10000-01-01T00:00:00Z": LAST_TIME,
    "-0001-01-01T00:00:00Z": FIRST_TIME,
    "+262142-12-31T00:00:00Z": LAST_TIME,
    "+262143-01-01T00:00:00Z": None,
    "+" + "0" * 5000 + "2026-11-21T02:23:58Z": 1795227838000000,
    "+" + "9" * 5000 + "-11-21T02:23:58Z": None,
    "2026-13-21T02:23:58Z": None,
    "2026-11-21T02:23:61Z": None,
    "1795227838": None,
    "": None,
}


@pytest.mark.parametrize("text", TIMES)
def test_times_as_chrono_reads_them(text: str) -> None:
    assert micros_of(text) == TIMES[text]


@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_a_time_is_read_back(at: int) -> None:
    assert micros_of(time_text(at)) == at


def test_a_time_is_written_with_as_few_digits_as_chrono_does() -> None:
    at = 1795227838000000
    assert [time_text(at + more)[19:] for more in (0, 5000, 500_001)] == ["+00:00", ".005+00:00", ".500001+00:00"]
