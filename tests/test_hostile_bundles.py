"""Bundles that somebody made up: whatever is in one, it is one damaged session, and never hides or stops another."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from pathlib import Path

import pytest

import holdfast
from holdfast import Corrupt, Store, user
from holdfast.bundle import contents, read_bundle, write_bundle


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sealed(text: bytes) -> bytes:
    """A line with a right checksum."""
    return b'{"crc":"%08x",%s\n' % (zlib.crc32(text), text[1:])


def line(**fields: object) -> bytes:
    return sealed(json.dumps(fields).encode())


def session_of(id: str, *lines: bytes) -> list[bytes]:
    """A session of one event."""
    return [line(holdfast=1, session=id, last=1, at=1), *lines, line(end=id, events=1)]


DEEP = b"[" * 100_000 + b"]" * 100_000
UNREADABLE = {
    "too deep": b'{"seq":1,"id":"e","at":1,"body":%s}' % DEEP,
    "no UTF-8": b'{"seq":1,"id":"e\xff","at":1,"body":{}}',
    "a long number": b'{"seq":%s,"id":"e","at":1,"body":{}}' % (b"9" * 6000),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_a_line_that_nobody_can_read_is_one_damaged_session(what: str) -> None:
    with holdfast.open("memory://") as store:
        store.session("good").append(user("hi"))
        good = list(write_bundle(store, ["good"]))
    lines = [*session_of("bad", sealed(UNREADABLE[what])), sealed(b'{"holdfast":1,"session":"x\xff"}'), *good]
    with holdfast.open("memory://") as store:
        told = {one.session: one.error for one in read_bundle(store, lines)}
    assert isinstance(told["bad"], Corrupt)
    assert isinstance(told[""], Corrupt)
    assert told["good"] is None
    assert set(contents(lines).faults) == {"bad", ""}


LISTS = [b"no JSON", b"[1]", b'["../../x"]', b"[" * 100_000, b'["\xff"]', b'"text"', b"{}"]
"""What should list the digests of chunks, and does not."""
NAMES = ["a:b:c", "x:1:" * 3000 + "x", "\0", "x:" + "9" * 6000]
"""What should name such a list."""
REFERENCES: list[dict[str, object]] = [
    {"sha256": "../../x", "size": 1},
    {"sha256": "0" * 64, "size": 1},
    *({"sha256": sha(b"q"), "size": 1, "manifest": sha(data)} for data in LISTS),
    *({"sha256": sha(b"q"), "size": 1, "manifest": text} for text in NAMES),
    {"sha256": sha(b"q"), "size": 1, "manifest": "1" * 64},
]  # fmt: skip


BAD = [f"bad{number}" for number in range(len(REFERENCES))]


def test_a_made_up_reference_is_one_damaged_event(base: str, tmp_path: Path) -> None:
    blobs = [line(blob=sha(data), data=base64.b64encode(data).decode()) for data in [b"q", *LISTS]]
    lines: list[bytes] = []
    for id, reference in zip(BAD, REFERENCES, strict=True):
        part = {"type": "text", "content": "x", "large": {"content": reference}}
        body = {"v": 1, "type": "message", "role": "user", "parts": [part]}
        lines += session_of(id, *blobs, line(seq=1, id="e", at=1, body=body))
    with holdfast.open(base) as store:
        store.session("good").append(user("hi"))
        told = {one.session: one.error for one in read_bundle(store, lines)}
        assert [id for id in BAD if told[id] is not None] == []  # what its events name is not for a bundle to say
        still_works(store, tmp_path)


def still_works(store: Store, place: Path) -> None:
    """Everything that reads a whole store says what is damaged, and goes on."""
    assert [hit.session for hit in store.search("hi")] == ["good"]
    assert {finding.session for finding in store.check().findings} == set(BAD)
    assert {finding.session for finding in store.check(sweep=True).findings} == set(BAD)
    for id in BAD:
        with pytest.raises(Corrupt):
            [message.text for message in store.session(id).messages()]
    with holdfast.open("memory://") as target:
        report = holdfast.copy_store(store, target)
        assert (report.sessions, {one.session for one in report.failed}) == (1, set(BAD))
    done = store.backup(str(place / "backup"))
    assert (done.sessions, set(done.damaged)) == (1, set(BAD))
    with holdfast.open("memory://") as target:
        report = target.restore(str(place / "backup"), partial=True)
        assert (report.sessions, {one.session for one in report.failed}) == (1, set(BAD))


@pytest.fixture(params=["memory", "sqlite", "file"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store may be."""
    places = {"memory": "memory://", "sqlite": f"sqlite://{tmp_path}/store.db", "file": f"file://{tmp_path}/store"}
    return places[request.param]
