"""A store on a Redis or Valkey server or cluster; docs/REDIS.md tells what an acknowledgement means there.

Sessions are keys of their own, in shards that fit a cluster's slots (`rediskeys`). A commit is planned here and made by
one script, which checks that nothing changed since (`rediswriter`); so the script knows nothing of what a commit means.
"""

from __future__ import annotations

import os
import re
import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast
from zlib import crc32

from holdfast import search
from holdfast.backend import Heads, Hit, Problem, TextOf
from holdfast.backends import positions
from holdfast.backends.packing import CURRENT, Packer, dictionary
from holdfast.backends.redisblobs import blobs_of, noting
from holdfast.backends.rediscalls import Call
from holdfast.backends.redischeck import Check, remains
from holdfast.backends.rediscompact import compact
from holdfast.backends.redisduty import Duty
from holdfast.backends.redisforget import Forgetting
from holdfast.backends.rediskeys import META, Layout
from holdfast.backends.redislinks import Address, Links
from holdfast.backends.redislisten import Listening
from holdfast.backends.redislists import Lists, Mark
from holdfast.backends.redislogs import Logs
from holdfast.backends.redisnodes import Servers, slot_of
from holdfast.backends.rediswords import Words, sound
from holdfast.backends.rediswriter import Writer, script
from holdfast.errors import Corrupt, HoldfastError, Invalid, ReadOnly, Unavailable
from holdfast.plan import Commit, Entry, Head, Ref, Refused
from holdfast.shown import shown_place
from holdfast.urls import Location

FORMAT = 1
"""How a store is laid out; a newer one is refused."""
WRITES = frozenset({"SET", "SETRANGE", "UNLINK", "HSET", "HDEL", "ZADD", "ZREM", "SADD", "SREM"})
"""What a commit needs beside reading: a user who may run none of these may read. One who may run some is refused."""
PORT = 6379
MANY = 64
"""Shards of a new store on a cluster; on one server it has one."""


class RedisBackend:
    """Heads and logs in the keys of Redis. See `Backend` for what the methods promise."""

    def __init__(self, where: Location, text_of: TextOf) -> None:
        self._options = options = Options(where)
        duty = Duty(options.durability, options.replicas, options.timeout)
        seeds = [Address(host, port or PORT) for host, port in where.hosts]
        self._links = Links(seeds, options.connection, tls=where.scheme == "rediss", timeout=options.timeout, duty=duty)
        try:
            self._servers = Servers(self._links, options.timeout)
            self._layout, self._packer = self._opened(options, where)
        except BaseException:
            self._links.close()
            raise
        self._duty = duty
        self._lists = Lists(self._servers, self._layout)
        self._logs = Logs(self._servers, self._layout, self._packer.unpack)
        self._words = Words(self._servers, self._logs, self._lists, text_of)
        self._forgetting = Forgetting(self._servers, self._layout)
        self._writer = Writer(
            self._servers, self._layout, self._packer, partial(remains, self._servers, self._layout), self._own,
            self._forgetting.one,
        )  # fmt: skip
        self._listening = Listening(self._servers, self._links, self._layout.channel)
        self.blobs, self._note = blobs_of(options.blobs, self._servers, self._layout)

    def _opened(self, options: Options, where: Location) -> tuple[Layout, Packer]:
        """What the store says of itself; a new one is told now, and its id one of an earlier version."""
        meta = options.prefix.encode() + b":store"
        probe = Layout(options.prefix, 1).tag(0) + b"probe"
        self._servers.place({META: slot_of(meta), 0: slot_of(probe)})
        denied = self._servers.ask([script("probe").call(0, [probe], ())])[0]
        names = {name.decode() for name in denied}
        self._reads_only = names >= WRITES
        if names and (not self._reads_only or names - WRITES):
            told = ", ".join(sorted(names))
            raise Unavailable(f"the Redis user of this URL may not run {told}, which a commit needs; allow it")
        if not self._reads_only:
            self._check_replicas(options.replicas)
        if not where.create and b"layout" not in self._facts(meta):
            raise where.absent()
        shards = options.shards or (MANY if self._servers.cluster else 1)
        facts = self._told(meta, shards, secrets.token_hex(8))
        format, kept = _layout_in(facts[b"layout"])
        if format > FORMAT:
            raise Unavailable(f"the store {options.prefix!r} is of a newer format ({format}); update holdfast")
        if options.shards not in (None, kept):
            raise Invalid(f"the store {options.prefix!r} has {kept} shards, which can't be changed; leave shards= out")
        layout = Layout(options.prefix, kept, facts[b"id"].decode("ascii", "replace"))
        self._servers.place({META: slot_of(meta), **{s: slot_of(layout.tag(s)) for s in range(kept)}})
        # The copy in the store has no checksum; the shipped one is the same to the byte, and later ones add to it.
        dictionaries = {
            int(name.partition(b":")[2]): data for name, data in facts.items() if name.startswith(b"dictionary:")
        }
        return layout, Packer({**dictionaries, CURRENT: dictionary()})

    def _check_replicas(self, wanted: int) -> None:
        """Refuse masters that have too few replicas, as each commit would wait for them in vain."""
        for info in self._servers.each(("INFO", "replication")) if wanted else ():
            has = re.search(rb"connected_slaves:(\d+)", info)
            if has is None or int(has[1]) < wanted:
                raise Unavailable(
                    f"a Redis server has {has[1].decode() if has else 'no known'} replicas, and the store is to be "
                    f"opened with {wanted} (durability=replicated or replicas=); connect them, or open it with "
                    "durability=disk"
                )

    def _told(self, meta: bytes, shards: int, id: str) -> dict[bytes, bytes]:
        """What the store says of itself; of a new one that is what is given here."""
        facts = self._facts(meta)
        if b"layout" not in facts or b"id" not in facts:
            told: list[tuple[str, Any]] = [(f"dictionary:{CURRENT}", dictionary()), ("layout", _layout_record(shards))]
            told.append(("id", id))
            for outcome in self._servers.run([Call(META, ("HSETNX", meta, *it), writes=True) for it in told]):
                if isinstance(outcome, HoldfastError):
                    raise outcome
            facts = self._facts(meta)
        return facts

    def _own(self, shard: int) -> None:
        """Say of a shard that does not say so that it is this store's, unless it was emptied and another begun there.

        An empty one goes on as it was: with its id, and as many shards.
        """
        facts = self._told(self._layout.meta, self._layout.shards, self._layout.id)
        if facts[b"id"] != self._layout.id.encode() or _layout_in(facts[b"layout"])[1] != self._layout.shards:
            raise Unavailable(
                f"the store {self._options.prefix!r} was emptied and begun anew since it was opened here; nothing was "
                "stored; open it again"
            )
        calls = [Call(shard, ("SET", self._layout.owner(shard), self._layout.id), writes=True)]
        if self._note is not None:
            calls.append(Call(META, noting(self._layout, self._note), writes=True))
        for outcome in self._servers.run(calls):
            if isinstance(outcome, HoldfastError):
                raise outcome

    def _facts(self, meta: bytes) -> dict[bytes, bytes]:
        flat = self._servers.ask([Call(META, ("HGETALL", meta))])[0]
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def commit(self, batch: Sequence[Commit]) -> list[Head | Refused]:
        """Make commits in order, those of one session by one script."""
        if self._reads_only:
            raise ReadOnly("the Redis user of this URL may only read; open the store as one who may write")
        results = self._writer.commit(batch)
        self._listening.wake()
        return results

    def get(self, refs: Sequence[Ref]) -> list[Head | None]:
        """The heads."""
        found = self._lists.heads(refs)
        for head in found:
            if isinstance(head, Corrupt):
                raise head
        return cast("list[Head | None]", found)

    def read(
        self,
        ref: Ref,
        *,
        after: int = 0,
        upto: int | None = None,
        ids: Sequence[str] | None = None,
        limit: int | None = None,
        reverse: bool = False,
        voided: bool = False,
    ) -> list[Entry]:
        """Entries of one log."""
        if ids is not None:
            return self._logs.named(ref, ids, after, upto, limit, reverse=reverse, voided=voided)
        return self._logs.read(ref, after, upto, limit, reverse=reverse, voided=voided)

    def find(
        self,
        kind: str,
        tags: Mapping[str, str | None],
        *,
        after: tuple[int, str] | None = None,
        limit: int = 100,
        dead: bool = False,
        trashed: bool = False,
    ) -> Heads:
        """Living heads, or tombstones, newest first."""
        return self._lists.find(kind, tags, after, limit, dead=dead, trashed=trashed)

    def scan(self, kind: str, after: str = "", limit: int = 1000, *, trashed: bool = False) -> Heads:
        """Living heads by id."""
        return self._lists.scan(kind, after, limit, trashed=trashed)

    def kinds(self) -> list[str]:
        """The kinds of heads."""
        return self._lists.kinds()

    def search(
        self,
        kind: str,
        query: search.Node,
        *,
        id: str | None = None,
        tags: Mapping[str, str | None] | None = None,
        newest: bool = False,
        offset: int = 0,
        limit: int = 100,
    ) -> list[Hit]:
        """Entries that match: found by this process's index, read from Redis."""
        found = self._words.find(kind, query, id, tags or {}, newest=newest, offset=offset, limit=limit)
        by_ref: dict[Ref, list[int]] = defaultdict(list)
        for ref, place, _, _ in found:
            by_ref[ref].append(place)
        records = self._logs.records(by_ref)
        hits: list[Hit] = []
        for ref, place, crc, score in found:
            entry, record = records[ref].get(place, (None, None))
            if entry is not None and sound(entry, record, crc):
                hits.append(Hit(ref, entry, score))
        return hits

    def index(self) -> int:
        """Take in what is not indexed yet."""
        return self._words.catch_up()

    def changed(self, since: str | None = None) -> tuple[str, list[Ref]]:
        """The heads that changed, by the numbers of their last changes."""
        known = None if since is None else positions.read(since, self._layout.id, list[Mark])
        if since is not None and known is not None and len(known) != self._layout.shards:
            raise positions.no_position(since)
        marks, refs, _ = self._lists.changed(known)
        return positions.written(self._layout.id, marks), refs

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` after each commit of this process, and as soon as another's is told."""
        return self._listening.add(wake)

    def compact(self) -> None:
        """Have the servers write their files anew, without what is gone."""
        self._words.forget()
        self._forgetting.all()
        compact(self._servers, self._links)

    def verify(self) -> list[Problem]:
        """Every record's checksum, and whether the lists agree with the heads."""
        return Check(self._servers, self._layout, self._logs).problems()

    def repair(self) -> int:
        """Make the lists agree with the heads; how many places were wrong or missing."""
        fixed = Check(self._servers, self._layout, self._logs).repair()
        self._writer.forget()
        self._words.forget()
        return fixed

    def info(self) -> Mapping[str, str]:
        """Facts for a person."""
        masters = self._servers.masters()
        facts = self._duty.facts(masters[0])
        valkey = facts.get("valkey_version")
        return {
            "engine": "redis",
            "durability": self._duty.promised,
            "library": f"Valkey {valkey}" if valkey else f"Redis {facts.get('redis_version', '?')}",
            "servers": ", ".join(map(str, masters)),
            "appendfsync": facts.get("appendfsync", "?") if facts.get("aof_enabled") == "1" else "no append-only file",
            "prefix": self._options.prefix,
            "shards": str(self._layout.shards),
            "blobs": shown_place(self._note.blobs if self._note else self._options.blobs or "none"),
        }

    def close(self) -> None:
        """Close the connections."""
        self._listening.close()
        self._words.close()
        self._links.close()


class Options:
    """What the URL says."""

    def __init__(self, where: Location) -> None:
        params = where.params
        self.durability = params.get("durability", "disk")
        self.replicas = _number(params, "replicas", 1 if self.durability == "replicated" else 0, 1, 100)
        self.timeout = _seconds(params.get("timeout", "30"))
        self.shards = _number(params, "shards", None, 1, 1024)
        self.blobs = params.get("blobs", "")
        self.prefix = params.get("prefix", "holdfast")
        if not self.prefix or not self.prefix.isprintable() or set(self.prefix) & set("{}"):
            raise Invalid(f"prefix={self.prefix!r} must be printable, without braces", prefix=self.prefix)
        if not _is_number(where.path or "0"):
            raise Invalid(f"the database {where.path!r} in {where.url!r} is no number", url=where.url)
        self.connection: dict[str, Any] = {
            "db": int(where.path or 0), "username": where.user, "password": where.password,
        }  # fmt: skip
        if where.scheme == "rediss" and "sslrootcert" in params:
            file = os.path.expanduser(params["sslrootcert"])
            if not os.path.isfile(file):  # else it is told as a server that can't be reached
                raise Invalid(f"there is no file sslrootcert={file!r}; name one of certificates to trust", file=file)
            self.connection["ssl_ca_certs"] = file


def _number(params: Mapping[str, str], name: str, default: Any, least: int, most: int) -> Any:
    text = params.get(name)
    if text is None:
        return default
    if not _is_number(text) or not least <= int(text) <= most:
        raise Invalid(f"{name}={text!r} is no number from {least} to {most}", parameter=name)
    return int(text)


def _is_number(text: str) -> bool:
    """Whether it is digits, as many as `int` takes."""
    return text.isdecimal() and len(text) < 10


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 < seconds < 86_400:
        raise Invalid(f"timeout={text!r} is no number of seconds from 0 to 86,400", timeout=text)
    return seconds


def _layout_record(shards: int) -> bytes:
    text = b"%d %d" % (FORMAT, shards)
    return text + b" %d" % crc32(text)


def _layout_in(record: bytes) -> tuple[int, int]:
    text, _, crc = record.rpartition(b" ")
    if not crc.isdigit() or int(crc) != crc32(text):
        raise Corrupt(f"the store's layout is damaged ({record!r}); write it again as it was: HSET …:store layout")
    format, shards = text.split()
    return int(format), int(shards)
