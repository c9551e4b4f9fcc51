"""What is wrong with a store, and how its lists are made right again: every key is met, and every record held against
its checksum, its log and the lists. A session is judged only in a state that held still while it was looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from holdfast.backend import Problem
from holdfast.backends import rediskeys
from holdfast.backends.rediscalls import Call
from holdfast.backends.redisdrafts import Stored
from holdfast.backends.rediskeys import AT, DEAD, ID, LISTS, LIVING, TAG, TRASHED, Layout, Place
from holdfast.backends.redislogs import EXACT, Logs
from holdfast.backends.redisnodes import Servers
from holdfast.backends.redisrecords import STAMP, Bounds, bounds_in, bounds_of, head_of, id_in, spans_in
from holdfast.backends.rediswriter import script
from holdfast.clock import now
from holdfast.errors import Corrupt
from holdfast.plan import MAX_BASE, Head, Ref

PAGE = 1000
TRIES = 5
"""How often a session that changes meanwhile is looked at."""
NAMES = {AT: "time", ID: "id", TAG: "tag"}


class Check:
    """A look at everything in a store."""

    def __init__(self, servers: Servers, layout: Layout, logs: Logs) -> None:
        self._servers = servers
        self._layout = layout
        self._logs = logs
        self._mend = script("mend")

    def problems(self) -> list[Problem]:
        """What is wrong."""
        found: list[Problem] = []
        counts: Counter[tuple[int, int, str]] = Counter()
        for shard in range(self._layout.shards):
            refs = list(self._refs(shard, found))
            wrong = self._mistyped(shard, {ref.kind for ref in refs})
            found += [Problem(None, None, f"{key.decode()!r} is no list; holdfast check --repair") for key in wrong]
            for ref in refs:
                found += self._session(shard, ref, counts, listed=not wrong)
            if not wrong:
                found += self._strangers(shard, counts)
        return found

    def repair(self) -> int:
        """Give every head its places, and take away those that are nobody's; how many were wrong."""
        fixed = 0
        for shard in range(self._layout.shards):
            refs = list(self._refs(shard, []))
            kinds = {ref.kind for ref in refs}
            if wrong := self._mistyped(shard, kinds):
                fixed += self._servers.ask([Call(shard, ("UNLINK", *wrong), writes=True)])[0]
            fixed += sum(map(self._give_places, refs))
            for kind in kinds | self._kinds(shard):
                for which in LISTS:
                    fixed += sum(self._take_away(ref, which, place) for ref, place in self._walked(shard, which, kind))
            if kinds:
                add = Call(shard, ("SADD", self._layout.kinds(shard), *kinds), writes=True)
                fixed += self._servers.ask([add])[0]
        return fixed

    def _refs(self, shard: int, problems: list[Problem]) -> Iterator[Ref]:
        """The heads of a shard, each once, by their keys; logs without one are problems."""
        start = self._layout.tag(shard)
        heads, logs = set[bytes](), set[bytes]()
        cursor = b"0"
        while True:
            call = Call(shard, ("SCAN", cursor, "MATCH", self._layout.pattern(shard), "COUNT", PAGE))
            cursor, keys = self._servers.ask([call])[0]
            for key in keys:
                what, _, name = key[len(start) :].partition(b":")
                {b"head": heads, b"log": logs}.get(what, set[bytes]()).add(name)
            if cursor in (b"0", 0):
                break
        for name in sorted(heads):
            ref = rediskeys.ref_in(name)
            if ref is None:
                problems.append(Problem(None, None, f"the key of a head is damaged: {name!r}"))
            else:
                yield ref
        for name in sorted(logs - heads):
            ref = rediskeys.ref_in(name)
            if ref is None or not self._is_there(ref):
                problems.append(Problem(ref, None, "there is a log and no head"))

    def _is_there(self, ref: Ref) -> bool:
        return bool(self._servers.ask([Call(self._layout.shard_of(ref), ("EXISTS", self._layout.keys(ref).head))])[0])

    def _mistyped(self, shard: int, kinds: set[str]) -> list[bytes]:
        """The keys of a shard's lists where somebody else put a value of another type: none can be read or changed."""
        layout = self._layout
        sets = {layout.kinds(shard): b"set", layout.forgetting(shard): b"set", layout.changed(shard): b"zset"}
        wrong = self._not_as(shard, sets)
        if layout.kinds(shard) not in wrong:
            kinds = kinds | self._kinds(shard)
        return wrong + self._not_as(
            shard, {layout.list(shard, which, kind): b"zset" for kind in kinds for which in LISTS}
        )

    def _not_as(self, shard: int, types: Mapping[bytes, bytes]) -> list[bytes]:
        """The keys that are there and of another type than this."""
        told = self._servers.ask([Call(shard, ("TYPE", key)) for key in types])
        return [key for (key, type), is_of in zip(types.items(), told, strict=True) if is_of not in (type, b"none")]

    def _session(self, shard: int, ref: Ref, counts: Counter[tuple[int, int, str]], *, listed: bool) -> list[Problem]:
        """What is wrong with a session; its places are counted if it is looked for in the lists."""
        key = self._layout.keys(ref).head
        if self._layout.shard_of(ref) != shard:
            return [Problem(ref, None, "it is in a shard where it is not looked for")]
        found: list[Problem] = []
        for _ in range(TRIES):
            try:
                record: bytes = self._servers.ask([Call(shard, ("GET", key))])[0] or b""
                head = head_of(ref, record)
            except Corrupt as error:
                return [Problem(ref, None, error.message), *self._log(ref, None)]
            found = [*self._log(ref, head), *(self._places(ref, head) if listed else ())]
            after: bytes = self._servers.ask([Call(shard, ("GETRANGE", key, 0, STAMP - 1))])[0]
            if after == record[:STAMP]:
                for which, _ in rediskeys.places(head):
                    counts[shard, which, ref.kind] += 1
                return found
        return [problem for problem in found if problem.seq is not None]

    def _log(self, ref: Ref, head: Head | None) -> Iterator[Problem]:
        """What is wrong with the log of a head, or of a damaged one; or why it can't be read at all."""
        try:
            yield from self._readable_log(ref, head)
        except Corrupt as error:
            yield Problem(ref, None, error.message)

    def _readable_log(self, ref: Ref, head: Head | None) -> Iterator[Problem]:
        shard, key = self._layout.shard_of(ref), self._layout.keys(ref).log
        (bounds, hidden, forgetting), length = self._servers.ask(
            [Call(shard, ("HMGET", key, "m", "v", "t")), Call(shard, ("HLEN", key))]
        )
        if head is not None and head.dead:
            if length:
                yield Problem(ref, None, "it was deleted, and there is a log")
            return
        try:
            told = bounds_in(ref, bounds or b"")
            self._logs.learn(ref, told)
            if head is not None and told != bounds_of(head):
                yield Problem(ref, None, f"its log says that it runs {told}, its head {bounds_of(head)}")
        except Corrupt as error:
            yield Problem(ref, None, error.message)
        try:
            spans_in(ref, hidden)
        except Corrupt as error:
            yield Problem(ref, None, error.message)
        met = 0
        place = bounds_of(head).trim if head is not None else 0
        while True:
            part = self._logs.part(ref, place + 1, EXACT, PAGE)
            if part is None or not part.records or part.first + len(part.records) - 1 <= place:
                break
            problems, fields = self._entries(ref, part.bounds, part.first, part.records)
            yield from problems
            met += fields
            place = part.first + len(part.records) - 1
        if (
            head is not None
            and forgetting is None
            and length != met + sum(record is not None for record in (bounds, hidden))
        ):
            yield Problem(ref, None, f"its log has {length} fields, and its entries need {met}")

    def _entries(
        self, ref: Ref, bounds: Bounds, first: int, records: Sequence[bytes | None]
    ) -> tuple[list[Problem], int]:
        """What is wrong with some entries, and how many fields the log has for them."""
        found: list[Problem] = []
        ids: list[tuple[str, int]] = []
        for place, record in enumerate(records, first):
            entry = self._logs.plain(ref, bounds, place, record)
            if entry.fault:
                found.append(Problem(ref, entry.seq, entry.fault))
            if record is not None and not entry.fault and (id := id_in(record)):
                ids.append((id, place))
        if ids:
            call = Call(self._layout.shard_of(ref), ("HMGET", self._layout.keys(ref).log, *(f"i{id}" for id, _ in ids)))
            for (_, place), told in zip(ids, self._servers.ask([call])[0], strict=True):
                if told != b"%d" % place:
                    found.append(Problem(ref, bounds.base + place, "its id does not lead to it"))
        return found, sum(record is not None for record in records) + len(ids)

    def _places(self, ref: Ref, head: Head) -> Iterator[Problem]:
        """The places that a head should have and has not."""
        shard, keys = self._layout.shard_of(ref), self._layout.keys(ref)
        places = list(rediskeys.places(head))
        calls = [Call(shard, ("ZSCORE", keys[which - 1], place)) for which, place in places]
        calls.append(Call(shard, ("ZSCORE", keys.changed, rediskeys.member(ref))))
        calls.append(Call(shard, ("SISMEMBER", keys.kinds, ref.kind)))
        *scores, changed, kind = self._servers.ask(calls)
        for which in sorted({which for (which, _), score in zip(places, scores, strict=True) if score != b"0"}):
            yield Problem(ref, None, f"the list by {NAMES[which]} does not have it; holdfast check --repair")
        if changed is None:
            yield Problem(ref, None, "the list of changes does not have it; holdfast check --repair")
        if not kind:
            yield Problem(ref, None, "its kind is not among the kinds; holdfast check --repair")

    def _strangers(self, shard: int, counts: Counter[tuple[int, int, str]]) -> Iterator[Problem]:
        """Places in the lists that are nobody's; looked for where there are more than heads have."""
        for kind in sorted({kind for s, _, kind in counts if s == shard} | self._kinds(shard)):
            for which in LISTS:
                key = self._layout.list(shard, which, kind)
                if self._servers.ask([Call(shard, ("ZCARD", key))])[0] != counts[shard, which, kind]:
                    for ref, place in self._walked(shard, which, kind):
                        if self._is_strange(ref, shard, which, place):
                            what = f"the list by {NAMES[which]} has a place that is not its own"
                            yield Problem(ref, None, f"{what}; holdfast check --repair")

    def _kinds(self, shard: int) -> set[str]:
        answer = self._servers.ask([Call(shard, ("SMEMBERS", self._layout.kinds(shard)))])[0]
        return {kind.decode("utf-8", "replace") for kind in answer}

    def _walked(self, shard: int, which: int, kind: str) -> Iterator[tuple[Ref, bytes]]:
        """All places of a list, and the heads that they are of."""
        key, low = self._layout.list(shard, which, kind), b"-"
        while places := self._servers.ask([Call(shard, ("ZRANGEBYLEX", key, low, "+", "LIMIT", 0, PAGE))])[0]:
            for place in places:
                id = place[9:] if which == AT else place[1:] if which == ID else place.rpartition(b"\0")[2]
                yield Ref(kind, id.decode("utf-8", "replace")), place
            low = b"(" + places[-1]

    def _is_strange(self, ref: Ref, shard: int, which: int, place: bytes) -> bool:
        """Whether a place is not one of its head's, and is still there once that is known: a head that moves takes it
        along.
        """
        call = Call(shard, ("ZSCORE", self._layout.list(shard, which, ref.kind), place))
        return not self._owns(ref, which, place) and self._servers.ask([call])[0] is not None

    def _owns(self, ref: Ref, which: int, place: bytes) -> bool:
        """Whether a place is one of its head's; a damaged head keeps what it has."""
        try:
            record = self._servers.ask([Call(self._layout.shard_of(ref), ("GET", self._layout.keys(ref).head))])[0]
            return record is not None and (which, place) in rediskeys.places(head_of(ref, record))
        except Corrupt:
            return True

    def _give_places(self, ref: Ref) -> int:
        shard, keys = self._layout.shard_of(ref), self._layout.keys(ref)
        try:
            record = self._servers.ask([Call(shard, ("GET", keys.head))])[0]
            places = [part for place in rediskeys.places(head_of(ref, record or b"")) for part in place]
        except Corrupt:
            return 0
        arguments = [record[:STAMP], b"1", rediskeys.member(ref), 0, *places]
        return self._servers.ask([self._mend.call(shard, keys, arguments, writes=True)])[0]

    def _take_away(self, ref: Ref, which: int, place: bytes) -> int:
        if self._owns(ref, which, place):
            return 0
        shard, keys = self._layout.shard_of(ref), self._layout.keys(ref)
        stamp = self._servers.ask([Call(shard, ("GETRANGE", keys.head, 0, STAMP - 1))])[0]
        arguments = [stamp, b"0", b"", 1, which, place]
        return self._servers.ask([self._mend.call(shard, keys, arguments, writes=True)])[0]


def remains(servers: Servers, layout: Layout, ref: Ref, record: bytes, bounds: bytes | None) -> Stored:
    """What is left of a session whose head is damaged, for whoever deletes it on purpose.

    No number that was given is given again: `last` is the highest that its log or its head speaks of. No writer who
    knew the head knows its revision: it is the time in microseconds, and no head changes more often than that.
    """
    shard, keys = layout.shard_of(ref), layout.keys(ref)
    fields = servers.ask([Call(shard, ("HKEYS", keys.log))])[0]
    last = max((int(field) for field in fields if field.isdigit()), default=0)
    try:
        told = bounds_in(ref, bounds or b"")
        last = told.base + max(told.last, last)
    except Corrupt:
        last = min(last, MAX_BASE)
    head = Head(ref, rev=now(), last=last)
    return Stored(record[:STAMP], head, (), tuple(_all_places(servers, layout, ref)))


def _all_places(servers: Servers, layout: Layout, ref: Ref) -> Iterator[Place]:
    """Wherever the lists have a head, which can't tell it."""
    shard, keys = layout.shard_of(ref), layout.keys(ref)
    id = ref.id.encode()
    for stands in (LIVING, TRASHED, DEAD):
        yield ID, stands + id
    for which, ends in ((AT, id), (TAG, b"\0" + id)):
        low = b"-"
        while places := servers.ask([Call(shard, ("ZRANGEBYLEX", keys[which - 1], low, "+", "LIMIT", 0, PAGE))])[0]:
            yield from ((which, p) for p in places if (p[9:] == ends if which == AT else p.endswith(ends)))
            low = b"(" + places[-1]
