"""Bodies packed one by one and many at once: the same bytes, whatever they are."""

from __future__ import annotations

import os

import pytest

from holdfast.backends.packing import Packer, dictionary
from holdfast.packed import PackedBody


@pytest.fixture
def packer() -> Packer:
    return Packer({1: dictionary(1)})


def _texts(count: int) -> list[bytes]:
    return [
        b'{"v":1,"type":"message","role":"user","n":%d,"text":"%s"}' % (n, b"as said before " * 9) for n in range(count)
    ]


@pytest.mark.parametrize(
    "odd",
    [[], [b""], [b"{}"], [os.urandom(3000)], [b"x" * 64, b"y" * 65], [b"z" * 4_000_000], [PackedBody(b"a" * 900)]],
    ids=["none", "empty", "tiny", "random", "small", "large", "packed"],
)
@pytest.mark.parametrize("count", [0, 1, 99, 100, 1000])
def test_many_are_packed_as_one_by_one(packer: Packer, count: int, odd: list[bytes]) -> None:
    for body in odd:
        if type(body) is PackedBody:
            body.packed = packer.pack(bytes(body))
    bodies = [*_texts(count), *odd]
    packed = packer.pack_all(bodies)
    assert packed == [packer.pack(body) for body in bodies]
    assert [packer.unpack(one) for one in packed] == [bytes(body) for body in bodies]
    assert all(len(one) <= len(body) + 1 for one, body in zip(packed, bodies, strict=True))
