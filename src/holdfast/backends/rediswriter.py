"""How a batch of commits is written: planned here, then made by one script for each session, all sent at once.

The sessions that this process wrote last are remembered with their stamps, so a plain append is one round trip: the
script writes only if the stamp is still the same, and answers what is there if not. Then the commits are planned anew.
A refusal is only believed on what was read during the call.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from typing import Any

from holdfast import forks
from holdfast.backends.packing import Packer
from holdfast.backends.rediscalls import Script
from holdfast.backends.redisdrafts import Draft, Stored, draft, look, touch
from holdfast.backends.rediskeys import EACH, Layout
from holdfast.backends.redisnodes import WRITTEN, Servers
from holdfast.backends.redisrecords import STAMP, head_of, spans_in
from holdfast.errors import Corrupt, HoldfastError, Unavailable, Uncertain
from holdfast.plan import Commit, Head, Ref, Refused

REMEMBERED = 4096
"""Heads that a process keeps in memory."""
SMALL = 64 * 1024
"""Bytes of the largest body of a head that is kept there."""

Remains = Callable[[Ref, bytes, bytes | None], Stored]
"""What is left of a session whose head is damaged, from the record of its head and of its log's bounds."""


def script(name: str) -> Script:
    """A script that the package ships."""
    from hashlib import sha1

    source = files("holdfast.backends").joinpath(f"lua/{name}.lua").read_bytes()
    return Script(sha1(source).hexdigest(), source)  # noqa: S324  # the name that Redis gives to scripts


class _Group:
    """The commits of one session in a batch."""

    def __init__(self, ref: Ref) -> None:
        self.ref = ref
        self.numbers: list[int] = []
        self.commits: list[tuple[Commit, Sequence[bytes]]] = []
        self.stored: Stored | None = None
        self.fresh = False
        self.known: dict[str, int] = {}
        self.draft: Draft | None = None

    def ids(self) -> list[str]:
        """The ids of all its new entries."""
        return [entry.id for commit, _ in self.commits for entry in commit.append if entry.id]


class Writer:
    """Makes commits. One batch at a time."""

    def __init__(
        self,
        servers: Servers,
        layout: Layout,
        packer: Packer,
        remains: Remains,
        own: Callable[[int], None],
        forget: Callable[[Ref], None],
    ) -> None:
        self._servers = servers
        self._layout = layout
        self._packer = packer
        self._remains = remains
        self._own = own
        self._forget = forget
        self._script = script("commit")
        self._start()
        forks.watch(self)

    def _start(self) -> None:
        self._mutex = threading.Lock()
        self._remembered: OrderedDict[Ref, Stored] = OrderedDict()

    def before_fork(self) -> None:
        """See `forks`."""

    def after_fork(self, *, child: bool) -> None:
        """See `forks`: a thread of the parent may hold the lock."""
        if child:
            self._start()

    def commit(self, batch: Sequence[Commit]) -> list[Head | Refused]:
        """Make commits in order; what each came to. Raises as `Backend.commit` says."""
        with self._mutex:
            groups: dict[Ref, _Group] = {}
            for number, commit in enumerate(batch):
                group = groups.setdefault(commit.ref, _Group(commit.ref))
                group.numbers.append(number)
                group.commits.append((commit, self._packer.pack_all([entry.body for entry in commit.append])))
            try:
                self._write(list(groups.values()))
            except BaseException:
                for ref in groups:
                    self._remembered.pop(ref, None)
                raise
            self._remember(groups.values())
        results: dict[int, Head | Refused] = {}
        for group in groups.values():
            if group.draft is not None:
                if group.draft.forgets:
                    with contextlib.suppress(Unavailable, Uncertain):  # nobody is told of them, and `compact` ends it
                        self._forget(group.ref)
                results.update(zip(group.numbers, group.draft.results, strict=True))
        return [results[number] for number in range(len(batch))]

    def _write(self, groups: Sequence[_Group]) -> None:
        waiting = list(groups)
        for group in groups:
            group.stored = self._remembered.get(group.ref)
        stored = False
        while waiting:
            try:
                self._look([group for group in waiting if group.stored is None])
                ready = self._draft(waiting)
            except (Corrupt, Unavailable) as error:
                if stored:
                    raise _half(error) from error
                raise
            outcomes = self._send([group for group in ready if group.draft and group.draft.arguments is not None])
            stored = self._judge(outcomes, stored)
            waiting = [group for group in waiting if group.draft is None]

    def _look(self, groups: Sequence[_Group]) -> None:
        """Read what is stored of sessions."""
        calls = [
            self._script.call(self._layout.shard_of(g.ref), self._layout.keys(g.ref), look(g.ids())) for g in groups
        ]
        if calls:
            for group, answer in zip(groups, self._servers.ask(calls), strict=True):
                self._take(group, answer)

    def _take(self, group: _Group, answer: list[Any]) -> None:
        """Plan on what a server answered is there."""
        record, bounds, hidden, *known = answer
        base = 0
        group.fresh = True
        if record is None:
            group.stored = Stored(b"", None, ())
        else:
            try:
                head = head_of(group.ref, record)
                group.stored = Stored(record[:STAMP], head, spans_in(group.ref, hidden))
                base = head.base
            except Corrupt:
                if not group.commits[0][0].delete:
                    raise
                group.stored = self._remains(group.ref, record, bounds)
                known = []  # they go with the log
        group.known = {id[1:].decode(): int(seq) + base for id, seq in zip(known[::2], known[1::2], strict=True)}

    def _draft(self, groups: Sequence[_Group]) -> list[_Group]:
        """Plan the commits of sessions; those that are refused on what is only remembered are read first."""
        stale: list[_Group] = []
        for group in groups:
            group.draft = self._drafted(group)
            if group.draft.arguments is None and not group.fresh:
                stale.append(group)
        self._look(stale)
        for group in stale:
            group.draft = self._drafted(group)
        if self._servers.waits:
            for group in groups:
                group.draft = _confirmed(group)
        return list(groups)

    def _drafted(self, group: _Group) -> Draft:
        assert group.stored is not None  # noqa: S101  # remembered, or read just now
        return draft(group.ref, self._layout, group.stored, group.known, group.commits)

    def _send(self, groups: Sequence[_Group]) -> list[tuple[_Group, Any]]:
        calls = [
            self._script.call(self._layout.shard_of(g.ref), self._keys(g.ref, g.draft), g.draft.arguments, writes=True)
            for g in groups
            if g.draft and g.draft.arguments
        ]
        return list(zip(groups, self._servers.run(calls), strict=True)) if calls else []

    def _keys(self, ref: Ref, draft: Draft) -> Sequence[bytes]:
        """The keys of a commit; one that makes a head looks whose the shard is."""
        keys = self._layout.keys(ref)
        if draft.creates:
            return (*keys, self._layout.owner(self._layout.shard_of(ref)))
        if draft.forgets:
            return (*keys, self._layout.forgetting(self._layout.shard_of(ref)))
        return keys if draft.wide else keys[:EACH]

    def _judge(self, outcomes: Sequence[tuple[_Group, Any]], stored: bool) -> bool:
        """Note which sessions were written, and which must be planned anew; whether any was written so far."""
        errors = [outcome for _, outcome in outcomes if isinstance(outcome, HoldfastError)]
        stored = stored or any(outcome == WRITTEN for _, outcome in outcomes)
        if errors:
            uncertain = next((error for error in errors if isinstance(error, Uncertain)), None)
            if uncertain is not None:
                raise uncertain
            raise _half(errors[0]) if stored else errors[0]
        try:
            for group, outcome in outcomes:
                if isinstance(outcome, bytes):
                    group.draft = None
                    self._own(self._layout.shard_of(group.ref))
                elif outcome != WRITTEN:
                    group.draft = None
                    self._take(group, outcome)
        except (Corrupt, Unavailable) as error:
            if stored:
                raise _half(error) from error
            raise
        return stored

    def _remember(self, groups: Iterable[_Group]) -> None:
        for group in groups:
            if group.draft is None:
                continue
            after: Stored = group.draft.after
            if after.head is None or after.found_at is not None or len(after.head.body) > SMALL:
                self._remembered.pop(group.ref, None)
            else:
                self._remembered[group.ref] = after
                self._remembered.move_to_end(group.ref)
        while len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)

    def forget(self) -> None:
        """Believe nothing that is remembered."""
        with self._mutex:
            self._remembered.clear()


def _confirmed(group: _Group) -> Draft | None:
    """A draft that also waits for what it says is known: whoever wrote that may have died before it was durable."""
    draft, stored = group.draft, group.stored
    if draft is None or stored is None or draft.arguments is not None:
        return draft
    known = any(isinstance(result, Refused) and result.why == "known" for result in draft.results)
    return draft._replace(arguments=touch(stored)) if known else draft


def _half(error: Exception) -> Uncertain:
    return Uncertain(f"a part of the batch was stored, then it failed: {error}; repeat it with the same keys")
