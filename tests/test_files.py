"""A store in a folder of logs: what stands in them, and what becomes of it when they are torn, damaged or swapped."""

from __future__ import annotations

from pathlib import Path

from holdfast.backend import Backend, open_backend
from holdfast.plan import Commit, Entry, Head, Ref

REF = Ref("session", "a")


def opened(place: Path, durability: str = "disk") -> Backend:
    return open_backend(f"file://{place}/store?durability={durability}", lambda body: body.decode())


def bodies(backend: Backend, ref: Ref = REF) -> list[bytes]:
    found = backend.read(ref, voided=True)
    assert [entry.fault for entry in found] == [""] * len(found)
    return [entry.body for entry in found]


def test_a_log_may_be_trimmed_more_than_once_in_a_batch(tmp_path: Path) -> None:
    backend = opened(tmp_path)
    backend.commit([Commit(ref=REF, if_rev=0, append=[Entry("", 0, b'{"n":1}'), Entry("", 0, b'{"n":2}')])])
    told = backend.commit(
        [
            Commit(ref=REF, trim=1, append=[Entry("", 0, b'{"n":3}')]),
            Commit(ref=REF, append=[Entry("", 0, b'{"n":4}')]),
            Commit(ref=REF, trim=2, append=[Entry("", 0, b'{"n":5}')]),
        ]
    )
    assert [isinstance(result, Head) for result in told] == [True] * 3
    assert bodies(backend) == [b'{"n":3}', b'{"n":4}', b'{"n":5}']
    backend.close()
    again = opened(tmp_path)
    assert bodies(again) == [b'{"n":3}', b'{"n":4}', b'{"n":5}']
    assert again.verify() == []
    again.close()
