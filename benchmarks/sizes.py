"""Bytes on disk for each message, without and with the search index, against the same messages as plain JSONL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import zstandard

from benchmarks import ours
from benchmarks.bench import Bench
from benchmarks.corpus import Said
from benchmarks.rows import Row, at_most
from holdfast.backends.packing import LEVEL, Packer, dictionary


class Line(msgspec.Struct):
    """A message as a line of plain JSONL: when, who, what."""

    seq: int
    at: str
    role: str
    content: str


def run(bench: Bench) -> Iterator[Row]:
    """Stores are closed before they are weighed, so that the log of SQLite is folded in."""
    count = bench.scaled(20_000, 500)
    path = bench.path("holdfast.db")
    plain = 0
    bodies: list[bytes] = []
    with ours.store(path, "process") as store:
        session = store.session("s")
        for said in bench.corpus.batches(count):
            ours.extend(session, said)
            plain += sum(len(_line(one)) for one in said)
        bodies = [event.raw for event in session.events()]
    without = weight(path.parent)
    with ours.store(path, "process") as store:
        store.index()
    indexed = weight(path.parent)
    each = [size / count for size in (without, indexed, plain)]
    yield at_most("bytes a message, without the search index", each[0], each[2], 0.7, "plain JSONL", _bytes)
    yield at_most("bytes a message, with the search index", each[1], each[2], 1.1, "plain JSONL", _bytes)
    yield from _packing(bodies, plain)


def _line(said: Said) -> bytes:
    return msgspec.json.encode(Line(1000, "2026-01-31T12:00:00.000000Z", *said)) + b"\n"


def weight(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _packing(bodies: list[bytes], plain: int) -> Iterator[Row]:
    """What the dictionary is worth."""
    alone = zstandard.ZstdCompressor(level=LEVEL, write_checksum=False)
    packer = Packer({1: dictionary()})
    count = len(bodies)
    packed = sum(len(packer.pack(body)) for body in bodies)
    yield at_most("bytes a body, packed", packed / count, plain / count, None, "plain JSONL", _bytes)
    other = sum(len(alone.compress(body)) for body in bodies)
    yield at_most("bytes a body, packed", packed / count, other / count, None, "zstd without a dictionary", _bytes)


def _bytes(value: float) -> str:
    return f"{value:,.0f} B"
