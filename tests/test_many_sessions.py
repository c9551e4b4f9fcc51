"""What is done with all sessions of a store takes no more memory if there are more of them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

import holdfast
from holdfast import Policy, Store
from holdfast.backends import rows, sqlite
from holdfast.cli.transfer import _Counted, _ids, _write
from holdfast.events import totals
from holdfast.finding import listing
from holdfast.finding.watch import Watcher
from holdfast.plan import Commit, Entry, Ref

FEW, MANY = 200, 800
PAGE = 25
TOLERATED = 64
"""Bytes for one more session, which must be fewer than an id takes."""


class Nowhere:
    """A file that keeps nothing."""

    def write(self, data: bytes) -> int:
        return len(data)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Store]]:
    """Two stores, of few sessions and of many; every second one is in the trash."""
    place = tmp_path_factory.mktemp("stores")
    few, many = (holdfast.open(f"sqlite://{place}/{n}.db?durability=process") for n in (FEW, MANY))
    with few, many:
        for store, count in ((few, FEW), (many, MANY)):
            session = store.create("first")
            session.append(holdfast.user("x"), holdfast.usage("m", input_tokens=1))
            head, (body, used) = (
                store.head("first"),
                [entry.body for entry in store.backend.read(Ref("session", "first"))],
            )
            commits: list[Commit] = []
            for n in range(count):
                tags = {**head.tags, "trashed": "1"} if n % 2 else dict(head.tags)
                entries = [Entry("", head.at, body), Entry("", head.at, used)]
                ref = Ref("session", f"a-session-with-a-name-as-long-as-many-are-{n}")
                commits.append(
                    Commit(
                        ref=ref, at=head.at, if_rev=0, tags=tags, add=dict(head.counts), body=head.body, append=entries
                    )
                )
            store.backend.commit(commits)
        yield few, many


def exported(store: Store, _: Path) -> None:
    missing: list[str] = []
    ids = _Counted(_ids(store, missing, "jsonl"))
    assert _write(store, ids, "jsonl", False, cast("Any", Nowhere()), [], missing) == 0
    assert ids.count > FEW / 2


def backed_up(store: Store, place: Path) -> None:
    assert store.backup(str(place / "b"), dry_run=True).sessions > FEW


def pruned(store: Store, _: Path) -> None:
    assert store.prune(Policy(max_age=86_400)).matched > FEW / 2


def used(store: Store, _: Path) -> None:
    assert store.usage(by="model").total.calls > FEW / 2


def watched(store: Store, _: Path) -> None:
    assert len(Watcher(store.backend, since=0).changes()) > FEW


WORK: list[tuple[Callable[[Store, Path], None], int]] = [
    (exported, TOLERATED), (backed_up, TOLERATED), (pruned, TOLERATED), (used, TOLERATED),
    (watched, 500),  # it tells all that it found, in order, and no more of each is kept than that
]  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """No page holds all of the few, and no cache either."""
    for module in (listing, totals):
        monkeypatch.setattr(module, "PAGE", PAGE)
    monkeypatch.setattr(rows, "_known_head", rows._head)
    monkeypatch.setattr(sqlite, "KNOWN", 0)


def peak(work: Callable[[], None]) -> int:
    """Bytes."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("work", "each"), WORK, ids=lambda value: getattr(value, "__name__", ""))
def test_memory_does_not_grow_with_the_number_of_sessions(
    work: Callable[[Store, Path], None], each: int, stores: tuple[Store, Store], tmp_path: Path
) -> None:
    work(stores[0], tmp_path)  # what is made once is made
    few, many = (peak(lambda store=store: work(store, tmp_path)) for store in stores)
    assert (many - few) / (MANY - FEW) < each
