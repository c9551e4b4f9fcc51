"""Values too large for an event: they move out by themselves, come back whole, and are never held whole in memory."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

import holdfast
from holdfast import (
    Corrupt,
    Large,
    Store,
    TooLarge,
    Unavailable,
    assistant,
    custom,
    note,
    step,
    tool_call,
    tool_result,
    user,
)

MIB = 1024 * 1024
LIMIT = 64 * 1024


def content(store: Store, text: str) -> str | Large:
    session = store.session("s")
    session.append(user(text))
    (part,) = next(session.events(last=1)).payload.parts
    return part.content


@pytest.mark.parametrize("unit", ["x", "é", "\U0001f980", "\0", "\ud800"])
def test_a_text_moves_out_above_its_limit_and_comes_back_whole(store: Store, unit: str) -> None:
    size = len(unit.encode("utf-8", "surrogatepass"))
    small, large = unit * (LIMIT // size), unit * (LIMIT // size + 1)
    assert content(store, small) == small
    assert store.backend.blobs.scan() == []
    value = content(store, large)
    assert isinstance(value, Large)
    assert (value.size, value.form, str(value)) == (len(large) * size, "text", large)
    assert large.startswith(value.preview)
    assert 0 < len(value.preview) <= 1024
    assert len(next(store.session("s").events(last=1)).raw) < 8192
    assert store.session("s").messages()[-1].text == large


def test_json_of_any_kind_moves_out_too(store: Store) -> None:
    big = {"rows": [{"n": n, "text": "é\0", "big": 2**70} for n in range(5000)]}
    session = store.session("s")
    session.append(
        assistant(tool_call("c", "load", big)),
        tool_result("c", big),
        step("load", big, "out" * LIMIT),
        custom("x.rows", big),
        note("n" * LIMIT * 2),
    )
    call, result, did, own, noted = (e.payload for e in session.events())
    assert call.tool_calls[0].arguments.value() == big
    assert result.tool_results[0].response.value() == big
    assert (did.arguments.value(), str(did.output)) == (big, "out" * LIMIT)
    assert own.data.value() == big
    assert str(noted.text) == "n" * LIMIT * 2
    assert store.check().ok


def test_a_value_is_stored_once_however_often_it_is_said(store: Store) -> None:
    for id in "ab":
        store.session(id).append(user("x" * 3 * MIB), note("x" * 3 * MIB))
    assert len(store.backend.blobs.scan()) == 2  # three equal chunks are one, and one lists them


def test_bytes_of_a_stream_come_back_as_bytes(store: Store) -> None:
    data = bytes(range(256)) * 10_000
    session = store.session("s")
    session.append(custom("x.dump", Large.from_stream(io.BytesIO(data), form="bytes")))
    value = next(session.events()).payload.data
    assert value.value() == data
    with value.open() as stream:
        assert stream.read(10) == data[:10]


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 5 * MIB + 7])
def test_a_stream_of_any_length_comes_back(store: Store, size: int) -> None:
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    session = store.session("s")
    session.append(step("dump", output=Large.from_stream(io.BytesIO(data))))
    value = next(session.events()).payload.output
    assert (str(value), value.size) == (data.decode(), size)


def test_a_retry_of_a_large_append_is_known(store: Store) -> None:
    session = store.session("s")
    assert not session.append(user("x" * MIB), key="k").repeated
    assert session.append(user("x" * MIB), key="k").repeated
    with pytest.raises(holdfast.KeyReused):
        session.append(user("y" * MIB), key="k")


def test_a_large_value_is_copied_with_its_event(store: Store) -> None:
    session = store.session("s")
    session.append(user("x" * 3 * MIB, "small"), custom("x.y", {"k": "v" * LIMIT}))
    with holdfast.open("memory://") as other:
        copy = other.session("copy")
        copy.append(*session.events())
        assert [e.raw for e in copy.events()] == [e.raw for e in session.events()]
        assert copy.messages()[0].text == "x" * 3 * MIB + "\nsmall"
        assert other.check().ok
        again = next(copy.events()).payload
        copy.append(again)
        assert copy.messages()[-1].text == "x" * 3 * MIB + "\nsmall"


def test_a_missing_blob_harms_its_value_alone(store: Store) -> None:
    session = store.session("s")
    session.append(user("before"), user("lost words " * LIMIT), user("after"))
    for digest in store.backend.blobs.scan():
        store.backend.blobs.delete(digest)
    events = list(session.events())
    assert [e.seq for e in events] == [1, 2, 3]
    value = events[1].payload.parts[0].content
    assert value.preview.startswith("lost words")
    with pytest.raises(Corrupt):
        str(value)
    report = store.check()
    assert [(f.session, f.seq) for f in report.findings] == [("s", 2)]
    assert [h.seq for h in store.search("after")] == [3]


def test_the_beginning_of_a_large_text_is_searched(store: Store) -> None:
    store.session("s").append(user("needle " + "hay " * LIMIT))
    assert [h.seq for h in store.search("needle")] == [1]
    assert "needle" in store.search("needle")[0].snippet


def test_an_event_that_stays_large_is_refused(store: Store) -> None:
    session = store.session("s")
    with pytest.raises(TooLarge, match="4,194,304"):
        session.append(user("x", metadata={"k": "v" * 5 * MIB}))
    with pytest.raises(TooLarge):
        session.append(user(*(["x" * LIMIT] * 100)))
    assert session.info().last == 0


CHILD = """
import hashlib, io, json, resource, sys
import holdfast
from holdfast import Large, step

class Made(io.RawIOBase):
    def __init__(self, size):
        self.left, self.at, self.sha = size, 0, hashlib.sha256()
    def readable(self):
        return True
    def readinto(self, buffer):
        block = b"%015d\\n" % self.at * 4096
        size = min(len(buffer), self.left, len(block))
        buffer[:size] = block[:size]
        self.sha.update(block[:size])
        self.left -= size
        self.at += 1
        return size

def store_and_read(store, id, size):
    made = Made(size)
    session = store.session(id)
    session.append(step("dump", output=Large.from_stream(made)))
    read = hashlib.sha256()
    with next(session.events()).payload.output.open() as stream:
        while chunk := stream.read(65536):
            read.update(chunk)
    assert read.hexdigest() == made.sha.hexdigest()

def peak():
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

with holdfast.open(sys.argv[1]) as store:
    store_and_read(store, "warm", 4 << 20)
    before = peak()
    store_and_read(store, "big", int(sys.argv[2]))
    print(json.dumps({"before": before, "after": peak()}))
"""


@pytest.mark.parametrize("scheme", ["file", "sqlite"])
def test_a_large_output_is_never_held_whole(tmp_path, scheme: str, long: bool) -> None:
    size = (200 if long else 32) * MIB
    done = subprocess.run(
        [sys.executable, "-c", CHILD, f"{scheme}://{tmp_path}/store", str(size)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    grown = json.loads(done.stdout)
    assert grown["after"] - grown["before"] < 12 * MIB, "more than a few chunks were held"


def test_the_digest_names_the_whole_value(store: Store) -> None:
    text = "abc" * MIB
    value = content(store, text)
    assert isinstance(value, Large)
    assert value.ref is not None
    assert value.ref.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_a_blob_that_the_system_cant_read_hides_no_other(tmp_path: Path) -> None:
    with holdfast.open(f"file://{tmp_path}/store") as store:
        for id in ("bad", "good"):
            store.session(id).append(note(id * 100_000))
        ref = hashlib.sha256(b"bad" * 100_000).hexdigest()
        place = tmp_path / "store" / "blobs" / ref[:2] / ref[2:]
        place.unlink()
        place.mkdir()
        assert [finding.session for finding in store.check().findings] == ["bad"]
        with pytest.raises(Corrupt):
            store.backend.blobs.get(ref)
        with pytest.raises(Unavailable):
            store.backend.blobs.delete(ref)
        with holdfast.open("memory://") as target:
            report = holdfast.copy_store(store, target)
            assert (report.sessions, [one.session for one in report.failed]) == (1, ["bad"])
