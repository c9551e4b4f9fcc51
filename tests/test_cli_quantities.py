"""Lengths of time and sizes, as a person writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.cli.quantities import bytes_of, seconds_of
from shell import Shell


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("90s", 90),
        ("1.5", 1.5),
        ("15min", 900),
        ("12h", 43_200),
        ("1.5h", 5400),
        ("30d", 2_592_000),
        ("2 w", 1_209_600),
        (" 7d ", 604_800),
        (str(2**64), 2**64),
        (f"{2**64}d", 2**64 * 86_400),
    ],
)
def test_a_length_of_time_is_read_exactly(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds
    assert isinstance(seconds_of(text), type(seconds))


@pytest.mark.parametrize(
    "text",
    ["", "d", "-1d", "+1d", "nan", "inf", "1e3", "1,5h", "6m", "6M", "1y", "1h30min", "٣d", "1_000", "0x10", "1dd"],
)
def test_what_is_no_length_of_time_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"such as 90s, 15min|may mean minutes or months"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("10B", 10),
        ("10kB", 10_000),
        ("10MB", 10_000_000),
        ("10mb", 10_000_000),
        ("1.5 GiB", 3 * 2**29),
        ("2TiB", 2**41),
        (str(2**70), 2**70),
    ],
)
def test_a_size_is_read_exactly(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1", "10M", "10 bytes", "nan", "0.5", "1.0001kB", "1e6"])
def test_what_is_no_size_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"a size in bytes|no whole number of bytes"):
        bytes_of(text)


def test_a_shell_is_told_what_it_may_write(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.ok("init")
    for args in (
        ["trash", "purge", "--older-than", "6m"],
        ["prune", "plan", "--max-bytes", "10M"],
        ["stuck", "--wait", "x"],
    ):
        done = shell(*args)
        assert (done.code, done.out) == (2, "")
        assert args[-1] in done.err
    assert shell.ok("stuck", "--older-than", "1h").err == "no run is stuck\n"
