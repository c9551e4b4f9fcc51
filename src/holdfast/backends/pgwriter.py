"""Commits as transactions: one statement where the heads are as this process left them, two round trips otherwise.

A process remembers the heads it wrote, plans on them, and has the server write only if they are still the same (by
revision and checksum). So the common append is one call, with no lock held while anybody waits for the network. If
nothing at all was written, because another process came first, an id is there already, or a commit would be refused,
the heads are locked, in one order for all, and all is planned again on what they say.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from holdfast.backends.pgarrays import int8s, register, texts
from holdfast.backends.pgchanges import GROW, WRITE, Change, Known, Written
from holdfast.backends.pgrows import ENTRY, HEAD, HIDDEN, Row, entry_crc, head_of, is_sound
from holdfast.backends.pgserver import CLASH, Connection, Server, cursor, did_nothing, may_be_tried_again
from holdfast.clock import now
from holdfast.errors import Corrupt, Unavailable, Uncertain
from holdfast.plan import FIRST_TIME, LAST_TIME, MAX_BASE, Commit, Head, Ref, Refused

REMEMBERED = 4096
"""Heads that a process keeps in memory."""
TRIES = 20
"""How often a batch is begun anew when it meets others that create or change the same heads."""
PAGE = 1000
"""Entries that are hidden or shown in one statement."""

Results = list[Head | Refused]
Packs = Sequence[Sequence[bytes]]


class Writer:
    """Makes commits into rows."""

    def __init__(self, server: Server, schema: str, durability: str) -> None:
        self._server = server
        self._durability = durability.encode()
        self._heads: OrderedDict[Ref, Known] = OrderedDict()
        self._lock = threading.Lock()
        given = ", ".join(["%b"] * (len(WRITE) - 1))
        patience = f"'{server.timeout * 1000:.0f}'"
        self._write = f"SELECT {schema}.write({_numbered(len(WRITE), patience)})".encode()
        self._grow = f"SELECT {schema}.grow({_numbered(len(GROW), patience)})".encode()
        self._piped = f"SELECT {schema}.write('{durability}', {patience}, {given})".encode()
        # Whoever's transaction it is has said how durable it is to be, and how long it waits.
        theirs = "current_setting('synchronous_commit'), current_setting('lock_timeout')"
        self._within = f"SELECT {schema}.write({theirs}, {given})".encode()
        self._wait = f"SET LOCAL lock_timeout = {patience}".encode()
        self._schema = schema

    def after_fork(self) -> None:
        """The lock may be a thread's that is not there in a child."""
        self._lock = threading.Lock()

    def commit(self, batch: Sequence[Commit], packs: Packs) -> Results:
        """Make commits in order, in one transaction."""
        results = self._as_remembered(batch, packs)
        if results is not None:
            return results
        for _ in range(TRIES):
            with self._server.lend() as db:
                try:
                    return self._locked(db, batch, packs)
                except psycopg.Error as error:
                    if not may_be_tried_again(error) or error.sqlstate == CLASH:  # the heads are locked: nobody else's
                        raise self._server.explain(error) from error
        raise Unavailable("others changed the same sessions all the time; nothing was stored, try again")

    def _as_remembered(self, batch: Sequence[Commit], packs: Packs) -> Results | None:
        """Make them on the heads as remembered; None if that can't be, and nothing was done."""
        changes: dict[Ref, Change] = {}
        results: Results = []
        for commit, packed in zip(batch, packs, strict=True):
            if commit.void or commit.delete or commit.trim is not None:
                return None
            change = changes.get(commit.ref)
            if change is None:
                change = changes[commit.ref] = Change(self._remembered(commit.ref), {})
            result = change.apply(commit, packed)
            if isinstance(result, Refused):
                return None
            results.append(result)
        written = Written(changes[ref] for ref in sorted(changes))
        if (grown := written.grown(self._durability)) is not None:
            sql, values, types = self._grow, grown, GROW
        else:
            sql, values, types = self._write, written.arguments(self._durability), WRITE
        with self._server.lend() as db:
            try:
                db.prepared.prepare(sql, types)
            except psycopg.Error as error:
                raise self._server.explain(error) from error  # nothing was sent yet
            try:
                db.call(sql, values, types)
            except psycopg.Error as error:
                if did_nothing(error):
                    return None
                raise self._server.lost(error) from error
            self._check_told(db)
        self._remember(written.known)
        return results

    def _locked(self, db: Connection, batch: Sequence[Commit], packs: Packs) -> Results:
        """Make them on the heads as they are, which nobody else changes meanwhile."""
        results, changes = self._planned(db, batch, packs, begin=True)
        written = Written(change for change in changes if change.changed)
        if not written.known:
            db.execute("COMMIT")
        else:
            reworked = self._rework(db, changes)
            try:
                with db.pipeline():
                    for sql, values in reworked:
                        db.execute(sql, values)
                    db.execute(self._piped, written.arguments(self._durability)[1:])
                    db.execute("COMMIT")
            except psycopg.Error as error:
                if may_be_tried_again(error):
                    raise
                raise self._server.lost(error) from error
            self._check_told(db)
        self._remember({change.known.head.ref: change.known for change in changes if change.known} | written.known)
        return results

    def within(self, db: psycopg.Connection[Any], batch: Sequence[Commit], packs: Packs) -> Results:
        """Make them in a transaction that is somebody else's to commit. Nothing of it is remembered."""
        register(db.adapters)
        results, changes = self._planned(db, batch, packs, begin=False)
        written = Written(change for change in changes if change.changed)
        if written.known:
            for sql, values in self._rework(db, changes):
                cursor(db).execute(sql, values)
            cursor(db).execute(self._within, written.arguments(self._durability)[1:])
        return results

    def _planned(
        self, db: psycopg.Connection[Any], batch: Sequence[Commit], packs: Packs, *, begin: bool
    ) -> tuple[Results, list[Change]]:
        keys: dict[Ref, set[str]] = {}
        for commit in batch:
            keys.setdefault(commit.ref, set()).update(entry.id for entry in commit.append if entry.id)
        heads, there = self._load(db, keys, begin=begin)
        deleted = {commit.ref for commit in batch if commit.delete}
        changes = {
            ref: Change(self._known(db, heads.get(ref), ref in deleted), there.get(ref, {})) for ref in sorted(keys)
        }
        results = [
            self._apply(changes[commit.ref], commit, packed) for commit, packed in zip(batch, packs, strict=True)
        ]
        return results, list(changes.values())

    def _apply(self, change: Change, commit: Commit, packed: Sequence[bytes]) -> Head | Refused:
        if change.known and change.known.damaged and not change.changed and not commit.delete:
            raise Corrupt(
                f"the head of {commit.ref.kind} {commit.ref.id!r} is damaged: its checksum does not match; its bytes "
                "are kept, and only a delete is taken",
                id=commit.ref.id,
            )
        return change.apply(commit, packed)

    def _load(
        self, db: psycopg.Connection[Any], keys: Mapping[Ref, set[str]], *, begin: bool
    ) -> tuple[dict[Ref, Row], dict[Ref, dict[str, int]]]:
        """The heads' rows, locked; and where the ids of new entries stand in their logs."""
        refs = sorted(keys)
        wanted = [(ref, key) for ref in refs for key in keys[ref]]
        lock = f"SELECT {HEAD} FROM {self._schema}.lock(%b, %b)".encode()
        look = (
            "SELECT e.kind, e.id, e.key, e.seq FROM unnest(%b, %b, %b) AS w (kind, id, key) "  # quoted
            f"JOIN {self._schema}.entry e ON e.kind = w.kind AND e.id = w.id AND e.key = w.key"
        ).encode()
        with db.pipeline():
            if begin:
                db.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
                db.execute(self._wait)
            locked = cursor(db).execute(lock, (texts([r.kind for r in refs]), texts([r.id for r in refs])))
            there = None
            if wanted:
                columns = [r.kind for r, _ in wanted], [r.id for r, _ in wanted], [key for _, key in wanted]
                there = cursor(db).execute(look, tuple(map(texts, columns)))
        found: dict[Ref, dict[str, int]] = {}
        for kind, id, key, seq in there.fetchall() if there else ():
            found.setdefault(Ref(kind, id), {})[key] = seq
        return {Ref(*row[:2]): row for row in locked.fetchall()}, found

    def _known(self, db: psycopg.Connection[Any], row: Row | None, deleted: bool) -> Known | None:
        if row is None:
            return None
        try:
            return Known(head_of(row), row[8], row[2], row[-1])
        except Corrupt:
            if not deleted:
                raise
            return Known(self._remains(db, row), b"", row[2], row[-1], damaged=True)

    def _remains(self, db: psycopg.Connection[Any], row: Row) -> Head:
        """What is left of a damaged head, for whoever deletes it: see `remains` of the rows in SQLite."""
        kind, id, rev, last, base, trim, at = row[:7]
        newest = (
            cursor(db)
            .execute(
                f"SELECT max(seq) FROM {self._schema}.entry WHERE kind = %s AND id = %s AND seq <= %s".encode(),
                (kind, id, MAX_BASE),
            )
            .fetchone()
        )
        seqs = [n for n in (last, base, trim, newest[0] if newest else 0) if n and 0 <= n <= MAX_BASE]
        return Head(
            Ref(kind, id),
            rev=max(now(), rev if 0 <= rev <= MAX_BASE else 0),
            last=max(seqs, default=0),
            at=at if FIRST_TIME <= at <= LAST_TIME else 0,
        )

    def _rework(self, db: psycopg.Connection[Any], changes: Sequence[Change]) -> list[tuple[bytes, tuple[Any, ...]]]:
        """The statements that change stored entries; those that hide some are made now."""
        todo: list[tuple[bytes, tuple[Any, ...]]] = []
        for change in changes:
            if not change.changed or not change.reworks or change.known is None:
                continue
            ref = change.known.head.ref
            if change.hides:
                self._hide(db, ref, change)
            if change.cut:
                upto = MAX_BASE * 2 - 1 if change.known.damaged else change.cut
                for table in ("entry", "words"):
                    sql = f"DELETE FROM {self._schema}.{table} WHERE kind = %s AND id = %s AND seq <= %s"
                    todo.append((sql.encode(), (*ref, upto)))
            if change.known.damaged:
                sql = f"DELETE FROM {self._schema}.tag WHERE kind = %s AND id = %s"
                todo.append((sql.encode(), tuple(ref)))
        return todo

    def _hide(self, db: psycopg.Connection[Any], ref: Ref, change: Change) -> None:
        """Hide stored entries, or show them again, a page at a time."""
        first, last = min(span.first for span in change.hides), max(span.last for span in change.hides)
        select = (
            f"SELECT {ENTRY} FROM {self._schema}.entry WHERE kind = %s AND id = %s AND seq BETWEEN %s AND %s "
            f"ORDER BY seq LIMIT {PAGE}"
        ).encode()
        update = (
            f"UPDATE {self._schema}.entry e SET hidden = n.hidden, crc = n.crc "
            "FROM unnest(%b, %b, %b) AS n (seq, hidden, crc) WHERE e.kind = %s AND e.id = %s AND e.seq = n.seq"
        ).encode()
        while rows := cursor(db).execute(select, (*ref, first, last)).fetchall():
            changed = [new for row in rows if (new := _hidden(ref, row, change)) is not None]
            if changed:
                db.execute(update, (*map(int8s, zip(*changed, strict=True)), *ref))
            first = rows[-1][0] + 1

    def _remembered(self, ref: Ref) -> Known | None:
        with self._lock:
            known = self._heads.get(ref)
            if known is not None:
                self._heads.move_to_end(ref)
            return known

    def _remember(self, known: Mapping[Ref, Known]) -> None:
        with self._lock:
            for ref, head in known.items():
                self._heads.pop(ref, None)
                if not head.damaged:
                    self._heads[ref] = head
            while len(self._heads) > REMEMBERED:
                self._heads.popitem(last=False)

    def _check_told(self, db: Connection) -> None:
        """A wait for a standby that was cancelled ends in a warning, and the commit is only here."""
        if db.warned:
            raise Uncertain(
                f"{self._server.shown} committed with a warning ({db.warned}): whether it is as durable as asked is "
                "not known; repeat with the same key",
                warning=db.warned,
            )


def _numbered(count: int, second: str) -> str:
    """So many arguments, and a second one that is always the same."""
    return ", ".join(("$1", second, *(f"${n}" for n in range(2, count + 1))))


def _hidden(ref: Ref, row: Row, change: Change) -> tuple[int, int, int] | None:
    """Seq, hidden and checksum of a row that is to say something else; one that is damaged stays so."""
    seq, key, at, hidden, crc, packed = row
    new = hidden
    for span in change.hides:
        if span.first <= seq <= span.last:
            new = HIDDEN if span.hide else 0
    if new == hidden:
        return None
    return seq, new, entry_crc(ref, seq, key, at, new, packed) if is_sound(ref, row) else crc
