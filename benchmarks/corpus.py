"""The messages: cut from the Python standard library found on the machine, the same for the same seed and Python.

Sizes are log-normal with a median of 600 bytes and a tail to 100 KB. What users and assistants say is prose from
docstrings; what tools answer is source code.
"""

from __future__ import annotations

import math
import random
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MEDIAN = 600
LARGEST = 100_000
SPREAD = 1.4
"""Sigma of the logarithm of a size; it makes about 1 message in 10,000 as long as `LARGEST`."""
ROLES = ("user", "assistant", "tool", "assistant")
_DOCSTRING = re.compile(r'"""(.{80,}?)"""', re.DOTALL)


class Said(NamedTuple):
    """One message: who, and what."""

    role: str
    text: str


class Corpus:
    """An endless supply of messages."""

    def __init__(self, seed: int = 7) -> None:
        files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
        self.code = "\n".join(f.read_text("utf-8", "replace") for f in files)
        self.prose = "\n\n".join(" ".join(text.split()) for text in _DOCSTRING.findall(self.code))
        self._random = random.Random(seed)
        self._count = 0

    def size(self) -> int:
        """Characters of the next message."""
        return max(20, min(LARGEST, round(self._random.lognormvariate(math.log(MEDIAN), SPREAD))))

    def one(self) -> Said:
        """The next message."""
        role = ROLES[self._count % len(ROLES)]
        self._count += 1
        return Said(role, self.cut(self.code if role == "tool" else self.prose, self.size()))

    def cut(self, text: str, size: int) -> str:
        """A piece of a text, from the start of a word on."""
        start = self._random.randrange(len(text) - size - 100)
        start = text.find(" ", start, start + 100) + 1 or start
        return text[start : start + size]

    def said(self, count: int) -> list[Said]:
        """The next so many messages."""
        return [self.one() for _ in range(count)]

    def batches(self, count: int, size: int = 500) -> Iterator[list[Said]]:
        """The next so many messages, a batch at a time."""
        for start in range(0, count, size):
            yield self.said(min(size, count - start))
