"""How heads are found: merged, page by page, from the lists of all shards.

A list holds its places in the order of their bytes. A page asks each shard for as many places as it may have to give,
and takes them down to where every shard has told all; then the heads are read, and those that changed meanwhile, or
do not carry the tags, are passed over.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple
from zlib import crc32

import msgspec

from holdfast.backend import Heads
from holdfast.backends import rediskeys
from holdfast.backends.rediscalls import Call
from holdfast.backends.rediskeys import AT, DEAD, ID, LIVING, TAG, TRASHED, Layout
from holdfast.backends.redisnodes import Servers
from holdfast.backends.redisrecords import head_of
from holdfast.errors import Corrupt
from holdfast.plan import Head, Ref

FEW = 2000
"""Heads that carry a tag up to which they are all read, rather than looked for in the list by time."""
CHUNK = 500
"""Heads that are read at a time."""


class Mark(NamedTuple):
    """How far a shard is: the number of the newest change, and a checksum that tells its head from others; 0: none.

    `life` tells in which life of its server that was: one that is restarted, or promoted, begins another.
    """

    number: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    head: int = 0
    life: int = 0


class Lists:
    """The lists of a store."""

    def __init__(self, servers: Servers, layout: Layout) -> None:
        self._servers = servers
        self._layout = layout
        self.shards = layout.shards
        self.shard_of = layout.shard_of

    def heads(self, refs: Sequence[Ref]) -> list[Head | Corrupt | None]:
        """Heads, or why one can't be trusted."""
        found: dict[Ref, Head | Corrupt | None] = {}
        for start in range(0, len(refs), CHUNK * 10):
            by_shard: dict[int, list[Ref]] = defaultdict(list)
            for ref in dict.fromkeys(refs[start : start + CHUNK * 10]):
                by_shard[self._layout.shard_of(ref)].append(ref)
            groups = [(s, some[n : n + CHUNK]) for s, some in by_shard.items() for n in range(0, len(some), CHUNK)]
            calls = [Call(shard, ("MGET", *(self._layout.keys(ref).head for ref in some))) for shard, some in groups]
            for (_, some), records in zip(groups, self._servers.ask(calls), strict=True):
                found.update((ref, _head(ref, record)) for ref, record in zip(some, records, strict=True))
        return [found[ref] for ref in refs]

    def find(
        self,
        kind: str,
        tags: Mapping[str, str | None],
        after: tuple[int, str] | None,
        limit: int,
        *,
        dead: bool,
        trashed: bool,
    ) -> Heads:
        """See `Backend.find`."""
        stands = DEAD if dead else TRASHED if trashed else LIVING
        few = self._few(kind, tags)
        if few is not None:
            return self._sorted(few, stands, tags, after, limit)
        bound = None if after is None else rediskeys.at_place(stands, max(after[0], 0), after[1])
        if after is not None and after[0] < 0:
            return Heads()
        return self._walk(AT, kind, stands, tags, bound, limit)

    def scan(self, kind: str, after: str, limit: int, *, trashed: bool) -> Heads:
        """See `Backend.scan`."""
        stands = TRASHED if trashed else LIVING
        return self._walk(ID, kind, stands, {}, stands + after.encode() if after else None, limit)

    def _walk(
        self, which: int, kind: str, stands: bytes, tags: Mapping[str, str | None], bound: bytes | None, limit: int
    ) -> Heads:
        """Heads in the order of a list: by time falling, by id rising. One that moved since its place was read comes
        where it stands now, if that is still behind the bound.
        """
        found, damaged, first = list[Head](), list[Ref](), bound
        size = limit if not tags else max(limit, CHUNK)
        while len(found) < limit:
            page, bound = self._page(which, kind, stands, bound, size)
            refs = [Ref(kind, place[9 if which == AT else 1 :].decode("utf-8", "replace")) for place in page]
            passed: list[tuple[Ref, bytes]] = []
            moved: list[Head] = []
            for ref, place, head in zip(refs, page, self.heads(refs), strict=True):
                if len(found) == limit:
                    break
                if not isinstance(head, Head):
                    damaged.append(ref)
                elif rediskeys.standing(head) != stands:
                    passed.append((ref, place))
                elif which == AT and (now := rediskeys.at_place(stands, head.at, ref.id)) != place:
                    passed.append((ref, place))
                    if _carries(head, tags) and (first is None or now < first):
                        moved.append(head)
                elif _carries(head, tags):
                    found.append(head)
            misplaced = list(self._misplaced(which, kind, passed))
            damaged += misplaced
            found += [head for head in moved if head.ref not in misplaced]
            if bound is None:
                break
        if which == AT:
            found.sort(key=lambda head: (head.at, head.ref.id), reverse=True)
        return Heads(found[:limit], damaged)

    def _misplaced(self, which: int, kind: str, passed: Sequence[tuple[Ref, bytes]]) -> Iterator[Ref]:
        """Heads whose places are not theirs; a head that moved meanwhile has left its old one."""
        calls = [
            Call(shard, ("ZSCORE", self._layout.list(shard, which, kind), place))
            for ref, place in passed
            for shard in (self._layout.shard_of(ref),)
        ]
        for (ref, place), score in zip(passed, self._servers.ask(calls), strict=True):
            if score is not None:
                head = self.heads([ref])[0]
                if not isinstance(head, Head) or (which, place) not in rediskeys.places(head):
                    yield ref

    def _page(
        self, which: int, kind: str, stands: bytes, bound: bytes | None, size: int
    ) -> tuple[list[bytes], bytes | None]:
        """The next places behind `bound`, and behind which to go on; None if there are no more."""
        shards = range(self._layout.shards)
        each = size if len(shards) == 1 else min(size, 2 * size // len(shards) + 8)
        edge = bytes([stands[0] + 1])
        if which == AT:
            command, start, stop = "ZREVRANGEBYLEX", b"(" + (bound or edge), b"[" + stands
        else:
            command, start, stop = "ZRANGEBYLEX", b"(" + bound if bound else b"[" + stands, b"(" + edge
        pages = self._servers.ask(
            [Call(s, (command, self._layout.list(s, which, kind), start, stop, "LIMIT", 0, each)) for s in shards]
        )
        merged = sorted((place for page in pages for place in page), reverse=which == AT)
        ends = [page[-1] for page in pages if len(page) == each]
        if not ends:
            return merged[:size], merged[size - 1] if len(merged) > size else None
        end = max(ends) if which == AT else min(ends)  # beyond it, a shard may have told less than it has
        safe = [place for place in merged if (place >= end if which == AT else place <= end)][:size]
        return safe, safe[-1]

    def _few(self, kind: str, tags: Mapping[str, str | None]) -> list[Ref] | None:
        """Those heads that carry the rarest of the tags, if they are few."""
        wanted = [(name, value) for name, value in tags.items() if value is not None]
        if not wanted:
            return None
        shards = range(self._layout.shards)
        counts = self._servers.ask(
            [
                Call(s, ("ZLEXCOUNT", self._layout.list(s, TAG, kind), *_span(name, value)))
                for name, value in wanted
                for s in shards
            ]
        )
        sums = [sum(counts[n : n + len(shards)]) for n in range(0, len(counts), len(shards))]
        count, (name, value) = min(zip(sums, wanted, strict=True))
        if count > FEW:
            return None
        low, high = _span(name, value)
        pages = self._servers.ask(
            [Call(s, ("ZRANGEBYLEX", self._layout.list(s, TAG, kind), low, high)) for s in shards]
        )
        start = len(low) - 1
        return [Ref(kind, place[start:].decode("utf-8", "replace")) for page in pages for place in page]

    def _sorted(
        self,
        refs: Sequence[Ref],
        stands: bytes,
        tags: Mapping[str, str | None],
        after: tuple[int, str] | None,
        limit: int,
    ) -> Heads:
        found, damaged = list[Head](), list[Ref]()
        for ref, head in zip(refs, self.heads(refs), strict=True):
            if not isinstance(head, Head):
                damaged.append(ref)
            elif after is not None and (head.at, ref.id) >= after:
                continue
            elif rediskeys.standing(head) == stands and _carries(head, tags):
                found.append(head)
        found.sort(key=lambda head: (head.at, head.ref.id), reverse=True)
        return Heads(found[:limit], damaged)

    def kinds(self) -> list[str]:
        """See `Backend.kinds`."""
        shards = range(self._layout.shards)
        answers = self._servers.ask([Call(s, ("SMEMBERS", self._layout.kinds(s))) for s in shards])
        return sorted({kind.decode("utf-8", "replace") for answer in answers for kind in answer})

    def changed(self, since: Sequence[Mark] | None) -> tuple[list[Mark], list[Ref], list[int]]:
        """How far each shard is, the heads whose changes have higher numbers than `since` says, and which shards were
        told whole.

        A head never leaves the list, so the one that a mark names is still at it or above. If it is not, the server
        lost its last moments, and what it numbered since may be below the mark. So it may after another life of the
        server, even if that head is there: it may have been lost, and changed again.
        """
        shards = range(self._layout.shards)
        if since is None:
            lives, newest = self._asked([("ZRANGE", -1, -1)] * len(shards))
            return [_mark(told, Mark(), life) for told, life in zip(newest, lives, strict=True)], [], []
        lives, found = self._asked([("ZRANGEBYSCORE", mark.number, "+inf") for mark in since])
        whole = [
            shard
            for shard, told, mark, life in zip(shards, found, since, lives, strict=True)
            if mark.number and (life != mark.life or all(crc32(place) != mark.head for place, _ in told))
        ]
        calls = [Call(shard, ("ZRANGE", self._layout.changed(shard), 0, -1, "WITHSCORES")) for shard in whole]
        anew = dict(zip(whole, map(_numbered, self._servers.ask(calls)), strict=True)) if calls else {}
        marks: list[Mark] = []
        refs: list[Ref] = []
        for shard, told, mark, life in zip(shards, found, since, lives, strict=True):
            news = anew.get(shard, [(place, number) for place, number in told if number > mark.number])
            marks.append(_mark(news, Mark() if shard in anew else mark, life))
            refs += [rediskeys.named_by(place) for place, _ in news]
        return marks, refs, whole

    def _asked(self, wanted: Sequence[tuple[Any, Any, Any]]) -> tuple[list[int], list[list[tuple[bytes, int]]]]:
        """In which life the server of each shard is, and then what a command tells of its list by change.

        In that order: of a server that lost something in between, the life is an old one, which shows the next time.
        """
        asked = self._servers.by_server(range(self._layout.shards))
        lives = [Call(some[0], ("INFO", "replication")) for some in asked]
        told = [
            Call(shard, (command, self._layout.changed(shard), low, high, "WITHSCORES"))
            for shard, (command, low, high) in enumerate(wanted)
        ]
        answers = self._servers.ask([*lives, *told])
        of = {shard: _life(answer) for some, answer in zip(asked, answers, strict=False) for shard in some}
        return [of[shard] for shard in range(len(told))], [_numbered(answer) for answer in answers[len(lives) :]]


def _life(info: bytes) -> int:
    """What tells a life of a server from others, in its answer to INFO."""
    return crc32(info.partition(b"master_replid:")[2].partition(b"\r\n")[0])


def _mark(told: Sequence[tuple[bytes, int]], before: Mark, life: int) -> Mark:
    """How far a shard is that has told this."""
    return Mark(told[-1][1], crc32(told[-1][0]), life) if told else before._replace(life=life)


def _numbered(answer: Sequence[bytes]) -> list[tuple[bytes, int]]:
    return [(place, int(number)) for place, number in zip(answer[::2], answer[1::2], strict=True)]


def _head(ref: Ref, record: bytes | None) -> Head | Corrupt | None:
    if record is None:
        return None
    try:
        return head_of(ref, record)
    except Corrupt as error:
        return error


def _carries(head: Head, tags: Mapping[str, str | None]) -> bool:
    return all(head.tags.get(name) == value for name, value in tags.items())


def _span(name: str, value: str) -> tuple[bytes, bytes]:
    """From where to where the list by tag has the heads that carry this one."""
    start = f"{name}\0{value}".encode()
    return b"[" + start + b"\0", b"(" + start + b"\1"
