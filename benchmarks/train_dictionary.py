"""Train the zstd dictionary of new stores: `python -m benchmarks.train_dictionary [--size KiB] [--measure]`.

It is trained on what may be shipped: this project's own text, the phrases of typical.txt, and records of every type of
event and of imported transcripts made from those. It is measured on what it never saw: the benchmark's messages, made
transcripts of the same, and texts of other languages given with --texts.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from benchmarks import ours
from benchmarks.corpus import Corpus
from benchmarks.transcripts import Writer
from holdfast import codec, model, parts
from holdfast.backends.packing import CURRENT, LEVEL
from holdfast.large import LargeValues

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "src" / "holdfast" / "backends" / f"events.{CURRENT}.zdict"
SIZE = 32
"""KiB of the dictionary, decided by measurement: see docs/BENCHMARKS.md."""
RECORDS = 6000
"""Records to train on."""


class Short(Corpus):
    """The corpus without messages so long that parts of them would move to the blob store."""

    LONGEST = 10_000

    def size(self) -> int:
        """Characters of the next message."""
        return min(super().size(), self.LONGEST)


class OwnText(Short):
    """Texts of this project, cut as the corpus cuts the library's; short, as a long one needs no dictionary."""

    LONGEST = 2000

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        typical = (ROOT / "benchmarks" / "typical.txt").read_text("utf-8")
        source = [p.read_text("utf-8") for p in sorted((ROOT / "src").rglob("*.py"))]
        pages = [p.read_text("utf-8") for p in [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]]
        self.code = "\n".join(itertools.chain.from_iterable((typical, text) for text in source))
        self.prose = "\n".join(itertools.chain.from_iterable((typical, text) for text in pages))
        self.names = random.Random(seed)


def samples(corpus: OwnText, count: int) -> list[bytes]:
    """Bodies as a store holds them: of every type, and of imported lines."""
    makers = _makers(corpus)
    imported = _imported(corpus)
    large = LargeValues()
    found: list[bytes] = []
    for number in range(count):
        payload = next(imported) if number % 4 == 3 else corpus.names.choice(makers)()
        found.append(codec.encode(payload, large))
    return found


def _makers(corpus: OwnText) -> list[Callable[[], Any]]:
    """One for each shape of event; what is common stands several times."""
    pick = corpus.names.choice

    def prose() -> str:
        return corpus.cut(corpus.prose, corpus.size())

    def code() -> str:
        return corpus.cut(corpus.code, corpus.size())

    def call() -> str:
        return f"{pick(('call_', 'toolu_01', ''))}{corpus.names.getrandbits(64):x}"

    def tool() -> tuple[str, dict[str, Any]]:
        path = pick(("src/main.py", "README.md", "/home/user/project/src/index.ts", "tests/test_main.py"))
        return pick(
            (
                ("Bash", {"command": code()[:80], "description": prose()[:40], "timeout": 120000}),
                ("Read", {"file_path": path, "offset": 1, "limit": 200}),
                ("Edit", {"file_path": path, "old_string": code()[:200], "new_string": code()[:200]}),
                ("Write", {"file_path": path, "content": code()}),
                ("Grep", {"pattern": "def main", "path": "src", "output_mode": "content", "-n": True}),
                ("search", {"query": prose()[:60], "limit": 10}),
                ("web_search", {"query": prose()[:60], "url": "https://www.example.com/"}),
                ("shell", {"command": ["bash", "-lc", code()[:80]], "workdir": "/home/user/project"}),
            )
        )

    def calling() -> Any:
        name, arguments = tool()
        return model.assistant(prose()[:300], parts.tool_call(call(), name, arguments))

    def answering() -> Any:
        error = pick((True, False, False))
        response: Any = pick((code(), {"stdout": code(), "stderr": "", "exit_code": 0, "interrupted": False}))
        return model.tool_result(call(), response, is_error=error, name=pick((None, "Bash")), duration=1_250_000)

    def stepping() -> Any:
        name, arguments = tool()
        return model.step(name, arguments, code(), call_id=call(), duration=84_000, is_error=False, exit_code=0)

    def using() -> Any:
        name, provider = pick((("claude-sonnet-4-5", "anthropic"), ("gpt-5.2", "openai"), ("gemini-2.5-pro", "google")))
        return model.usage(
            name, corpus.names.randrange(50_000), corpus.names.randrange(2_000), provider=provider, response_id=call(),
            cache_read_tokens=corpus.names.randrange(50_000), cache_write_tokens=500, reasoning_tokens=64, cost=12_300,
        )  # fmt: skip

    return [
        *[lambda: model.user(prose())] * 4,
        *[lambda: model.assistant(prose())] * 4,
        *[calling] * 4,
        *[answering] * 6,
        *[stepping] * 2,
        *[using] * 2,
        lambda: model.assistant(parts.reasoning(prose()), prose()),
        lambda: model.system(prose()),
        lambda: model.note(prose()[:100], metadata={"author": "user"}),
        lambda: model.State(state=pick(("idle", "running", "completed", "error")), turn=call(), reason=prose()[:40]),
        lambda: model.Summary(content=prose(), start=1, end=corpus.names.randrange(1000)),
        lambda: model.Report(subject=prose()[:60], status="passed", checks=({"name": "tests", "status": "passed"},)),
        lambda: model.Tasks(tasks=({"id": "1", "content": prose()[:60], "status": "in_progress", "priority": "high"},)),
        lambda: model.Artifact(
            name="report.md", sha256=f"{corpus.names.getrandbits(256):064x}", size=1024, media_type="text/markdown"
        ),
        lambda: model.custom("x.deploy", {"name": prose()[:20], "value": 1, "ok": True}),
    ]


def _imported(corpus: Corpus) -> Iterator[Any]:
    """Messages that carry the line of a transcript they came from."""
    for number, (_, records) in enumerate(Writer(Path(), corpus=corpus).files()):
        for line, record in enumerate(records, 1):
            raw = msgspec.json.encode(record).decode()
            source = model.Source(file=f"{number}.jsonl", line=line, raw=raw)
            said = model.user(corpus.cut(corpus.prose, corpus.size()))
            yield msgspec.structs.replace(said, source=source)


def train(kib: int) -> bytes:
    """The dictionary."""
    trained = zstandard.train_dictionary(kib * 1024, samples(OwnText(5), RECORDS), level=LEVEL, d=8, steps=8, threads=1)
    return trained.as_bytes()


def measure(texts: Sequence[Path]) -> None:
    """A table of sizes and times for dictionaries of several sizes, on bodies that none of them was trained on."""
    sets = {"messages": _messages(2000), "short messages": [b for b in _messages(6000) if len(b) < 700]}
    sets["transcripts"] = [codec.encode(p, LargeValues()) for p in itertools.islice(_imported(Short(9)), 2000)]
    if texts:
        other = "\n".join(path.read_text("utf-8", "replace") for path in texts)
        corpus = Short(10)
        sets["other texts"] = [_body(corpus.cut(other, corpus.size())) for _ in range(2000)]
    trained: dict[str, bytes | None] = {"none": None, "shipped": TARGET.read_bytes()}
    trained |= {f"{kib} KiB": train(kib) for kib in (8, 16, 32, 64, 110)}
    print("| dictionary | bodies | packed ÷ plain | µs to pack | µs to unpack |\n|---|---|---|---|---|")
    for name, data in trained.items():
        for what, bodies in sets.items():
            print(f"| {name} | {what} | {' | '.join(_figures(data, bodies))} |")


def _figures(data: bytes | None, bodies: list[bytes]) -> list[str]:
    found = zstandard.ZstdCompressionDict(data) if data else None
    if found:
        found.precompute_compress(level=LEVEL)
    pack = zstandard.ZstdCompressor(level=LEVEL, dict_data=found, write_checksum=False, write_dict_id=False).compress
    unpack = zstandard.ZstdDecompressor(dict_data=found).decompress
    packed = [pack(body) for body in bodies]
    size = sum(map(len, packed)) / sum(map(len, bodies))
    return [f"{size:.3f}", *(f"{_best(call, some):.1f}" for call, some in ((pack, bodies), (unpack, packed)))]


def _best(call: Callable[[bytes], object], items: list[bytes]) -> float:
    """Microseconds for each, in the quickest of some rounds."""
    times: list[float] = []
    for _ in range(7):
        start = time.perf_counter()
        for item in items:
            call(item)
        times.append(time.perf_counter() - start)
    return min(times) / len(items) * 1e6


def _messages(count: int) -> list[bytes]:
    return [
        codec.encode(ours.payload(said), LargeValues()) for said in Corpus(8).said(count) if len(said.text) < 50_000
    ]


def _body(text: str) -> bytes:
    return codec.encode(model.tool_result("c1", text), LargeValues())


def main() -> None:
    """Train, and write or measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_dictionary", description=__doc__)
    parser.add_argument("--size", type=int, default=SIZE, help="KiB")
    parser.add_argument("--measure", action="store_true", help="compare sizes, write nothing")
    parser.add_argument("--texts", type=Path, nargs="*", default=[], help="files of other texts to measure on")
    asked = parser.parse_args()
    if asked.measure:
        measure(asked.texts)
    else:
        TARGET.write_bytes(train(asked.size))
        print(f"wrote {TARGET}, {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
