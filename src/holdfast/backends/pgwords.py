"""The words of entries in a GIN index that is fed in batches, and caught up by every search.

`meta` holds the snapshot up to whose transactions all is indexed, and of which server: a dump that is restored on
another begins anew, as the numbers of its transactions mean nothing there. What a head's log got since is known from
the head (`grown`), and up to which seq it is indexed from the index itself. Indexing locks the heads it reads against
deletion (FOR KEY SHARE), never against an append; so words never outlive their entry.

The index knows words with their places, as far as the type goes; rows of which it does not know all are marked. Where
it can't tell (a phrase in a marked row, a word too long) what it finds is read and matched as the reference does. So a
query hits the same entries everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from holdfast import search
from holdfast.backend import TextOf, readable
from holdfast.backends.pgarrays import int8s, texts
from holdfast.backends.pgrows import ENTRY, Row
from holdfast.backends.pgserver import Connection, Server, cursor
from holdfast.errors import Corrupt
from holdfast.search import NORM

BATCH = 1024
"""Entries that one transaction takes in."""
HEADS = 256
"""Heads that one transaction takes entries of."""
MAX_WORD = 2000
"""Bytes of a word that the index tells apart; the type takes 2,046."""
MAX_WORDS = 900_000
"""Bytes that the words of an entry may take in the index; the type takes 1 MiB."""
MAX_PLACE = 16_383
"""The last place in a text that the type knows."""
MAX_PLACES = 255
"""Places of one word that the type keeps."""
MARK = "'+'"
"""The word of a row that holds not all places of its words, or not all of a word. No text has it: `+` separates."""
RULES = f"{NORM}.1"
"""By which rules a row's words are made of a text; an index by others is begun anew."""
_OF = ("", " AND kind = %s", " AND kind = %s AND id = %s")
SERVER = "(SELECT system_identifier::text FROM pg_control_system())"
"""Whose transactions they are; a standby that takes over is the same."""


class WordIndex:
    """The index over the entries of one schema."""

    def __init__(self, server: Server, schema: str, unpack: Callable[[bytes], bytes], text_of: TextOf) -> None:
        self._server = server
        self._schema = schema
        self._unpack = unpack
        self._text_of = text_of
        self._here = ("", "")
        """When the server was started, and its name: so its file is read once, and again when it is another."""
        self._all = ("", "")
        """A mark, and a state of the server in which nothing was behind it: both the same again, nothing is."""

    def catch_up(self) -> int:
        """Take in every entry that was there when it began and is not indexed yet; how many were taken in."""
        if self._is_up_to_date():
            return 0
        with self._server.guarded() as db:
            mark, now, horizon = self._positions(db)
            if mark is None:
                mark, horizon = self._begin(db)
            behind = self._behind(db, mark, horizon)
            done = 0
            for start in range(0, len(behind), HEADS):
                done += self._take_in(db, behind[start : start + HEADS])
            if behind:
                self._move_mark(db, mark, now)
            else:
                self._all = (mark, now)
        return done

    def _is_up_to_date(self) -> bool:
        """Whether no transaction has ended since nothing was behind: one short look."""
        sql = (
            # A replica's snapshot may be the same before and behind a commit.
            "SELECT pg_postmaster_start_time()::text, "  # quoted
            "CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_snapshot()::text END, "
            f"(SELECT value FROM {self._schema}.meta WHERE name = 'words'), "
            f"(SELECT value FROM {self._schema}.meta WHERE name = 'norm'), "
            f"(SELECT value FROM {self._schema}.meta WHERE name = 'server')"
        )
        started, now, mark, norm, server = self._server.often(sql, ())[0]
        if (mark, now) != self._all or norm != RULES:
            return False
        if self._here[0] != started:
            self._here = self._server.read(f"SELECT pg_postmaster_start_time()::text, {SERVER}")[0]
        return self._here == (started, server)

    def _positions(self, db: Connection) -> tuple[str | None, str, int]:
        """Up to where all is indexed, where the server stands, and the oldest transaction that may not be indexed."""
        row = self._server.one(
            db,
            (
                "SELECT m.value, pg_current_snapshot()::text, "  # quoted
                "coalesce(pg_snapshot_xmin(m.value::pg_snapshot)::text::bigint, 0) FROM (SELECT) AS one "
                f"LEFT JOIN {self._schema}.meta m ON m.name = 'words' AND EXISTS "
                f"(SELECT 1 FROM {self._schema}.meta n WHERE n.name = 'norm' AND n.value = %s) "
                f"AND EXISTS (SELECT 1 FROM {self._schema}.meta n WHERE n.name = 'server' AND n.value = {SERVER})"
            ),
            (RULES,),
        )
        return row[0], row[1], row[2]

    def _begin(self, db: Connection) -> tuple[str, int]:
        """An empty index, by these rules of normalisation."""
        db.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        db.execute(f"LOCK TABLE {self._schema}.meta IN SHARE ROW EXCLUSIVE MODE".encode())
        mark, _, horizon = self._positions(db)
        if mark is None:
            mark, horizon = "1:1:", 1
            db.execute(f"DELETE FROM {self._schema}.words".encode())  # quoted
            db.execute(f"SELECT {self._schema}.stamp()".encode())
            db.execute(
                (
                    f"INSERT INTO {self._schema}.meta "  # quoted
                    f"VALUES ('words', %s), ('norm', %s), ('server', {SERVER}) "
                    "ON CONFLICT (name) DO UPDATE SET value = excluded.value"
                ).encode(),
                (mark, RULES),
            )
        db.execute("COMMIT")
        return mark, horizon

    def _behind(self, db: Connection, mark: str, horizon: int, ref: Sequence[str] = ()) -> list[tuple[str, str]]:
        """The heads whose logs grew since; only those of a kind, or one, if `ref` says so."""
        sql = (
            f"SELECT kind, id FROM {self._schema}.head WHERE grown >= %s "  # quoted
            f"AND NOT pg_visible_in_snapshot(grown::text::xid8, %s::pg_snapshot){_OF[len(ref)]} ORDER BY kind, id"
        )
        return db.execute(sql.encode(), (horizon, mark, *ref)).fetchall()

    def is_there(self, db: Connection) -> bool:
        """Whether there is an index by these rules, as a transaction sees it that reads one state."""
        return self._positions(db)[0] is not None

    def fresh(self, db: Connection, kind: str, id: str | None) -> Iterator[Row]:
        """Kind, id and the columns of `ENTRY` of what is not indexed, as a transaction sees it that reads one state."""
        mark, _, horizon = self._positions(db)
        heads = self._behind(db, mark or "1:1:", horizon if mark else 0, (kind,) if id is None else (kind, id))
        columns = ", ".join(f"e.{name}" for name in ENTRY.split(", "))
        known = (
            f"(SELECT coalesce(max(w.seq), 0) FROM {self._schema}.words w WHERE w.kind = e.kind AND w.id = e.id)"
            if mark
            else "0"
        )
        sql = (
            f"SELECT e.kind, e.id, {columns} FROM {self._schema}.entry e "
            f"WHERE e.kind = %s AND e.id = %s AND e.seq > {known} ORDER BY e.seq"
        )
        for head in heads:
            yield from cursor(db).execute(sql.encode(), head)

    def _take_in(self, db: Connection, heads: Sequence[tuple[str, str]]) -> int:
        done = 0
        while True:
            db.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
            names = texts([kind for kind, _ in heads]), texts([id for _, id in heads])
            db.execute(f"SELECT {self._schema}.hold(%b, %b)".encode(), names)
            rows = cursor(db).execute(self._new_entries().encode(), names).fetchall()
            if rows:
                done += self._insert(db, rows)
            db.execute("COMMIT")
            if len(rows) < BATCH:
                return done

    def _new_entries(self) -> str:
        return (
            "SELECT e.kind, e.id, e.seq, e.body FROM unnest(%b, %b) WITH ORDINALITY AS h (kind, id, i) "
            f"CROSS JOIN LATERAL (SELECT coalesce(max(w.seq), 0) AS seq FROM {self._schema}.words w "
            "WHERE w.kind = h.kind AND w.id = h.id) AS known "
            # The inner limit: of a log that is far behind, no more is read and sorted than is taken.
            f"CROSS JOIN LATERAL (SELECT * FROM {self._schema}.entry n "
            f"WHERE n.kind = h.kind AND n.id = h.id AND n.seq > known.seq ORDER BY n.seq LIMIT {BATCH}) AS e "
            f"ORDER BY h.i, e.seq LIMIT {BATCH}"
        )

    def _insert(self, db: Connection, rows: Sequence[tuple[str, str, int, bytes]]) -> int:
        kinds, ids, seqs, bodies = zip(*rows, strict=True)
        vectors = [vector(self.words(body) or "") for body in bodies]
        sql = (
            f"INSERT INTO {self._schema}.words SELECT w.kind, w.id, w.seq, w.words::tsvector "  # quoted
            "FROM unnest(%b, %b, %b, %b) AS w (kind, id, seq, words) ON CONFLICT DO NOTHING"
        )
        return db.execute(sql.encode(), (texts(kinds), texts(ids), int8s(seqs), texts(vectors))).rowcount

    def _move_mark(self, db: Connection, mark: str, now: str) -> None:
        """Unless somebody else has moved it meanwhile: then the next search looks again at what this one has done."""
        db.execute(
            f"UPDATE {self._schema}.meta SET value = %s WHERE name = 'words' AND value = %s".encode(),
            (now, mark),
        )

    def words(self, packed: bytes) -> str | None:
        """The words of a row's body, as far as they can be read; None if it can't be read at all."""
        try:
            return readable(self._text_of, self._unpack(packed))
        except Corrupt:
            return None


def vector(text: str) -> str | None:
    """The words of a text with their places, as the type `tsvector` is written; None if they are too many."""
    places: dict[str, list[int]] = {}
    whole = True
    for place, word in enumerate(text.split(" "), 1):
        if word:
            known = _cut(word)
            whole = whole and known == word and place < MAX_PLACE
            at = places.setdefault(known, [])
            if place < MAX_PLACE:
                at.append(place)
    if sum(len(word.encode()) + 4 + 2 * len(at) for word, at in places.items()) > MAX_WORDS:
        return None
    parts = [
        f"{_quoted(word)}:{','.join(map(str, at[:MAX_PLACES]))}" if at else _quoted(word) for word, at in places.items()
    ]
    if not whole or any(len(at) > MAX_PLACES for at in places.values()):
        parts.append(MARK)
    return " ".join(parts)


def _cut(word: str) -> str:
    """As much of a word as the type takes."""
    return word if len(word) <= MAX_WORD // 4 else word.encode()[:MAX_WORD].decode("utf-8", "ignore")


def _quoted(word: str) -> str:
    return "'" + word.replace("\\", "\\\\").replace("'", "''") + "'"


class Terms(NamedTuple):
    """A query for the index. `sure` finds what hits, in rows that are not marked; `maybe` that and more, in any row.

    `plain`: it has no phrase, so both are one, and sure in every row. `cut`: it has words that the index does not tell
    from others, so `sure` may find more than hits.
    """

    sure: str
    maybe: str
    plain: bool
    cut: bool


def terms(node: search.Node) -> Terms:
    """A query for the index."""
    match node:
        case search.Phrase(tokens, prefix):
            words = [_quoted(_cut(token)) for token in tokens]
            if prefix:
                words[-1] += ":*"
            cut = any(len(token.encode()) >= MAX_WORD - 4 for token in tokens)
            return Terms(f"({' <-> '.join(words)})", f"({' & '.join(words)})", len(tokens) == 1 and not cut, cut)
        case search.Or(children):
            return _joined(" | ", [terms(child) for child in children], [])
        case search.And(children, without):
            return _joined(" & ", [terms(child) for child in children], [terms(child) for child in without])


def _joined(sign: str, found: Sequence[Terms], out: Sequence[Terms]) -> Terms:
    # Only what the index knows for sure is not wanted may be left out by it: where it sees a phrase, there is one.
    sure = [one.sure for one in found] + [f"!{one.sure}" for one in out if not one.cut]
    maybe = [one.maybe for one in found] + [f"!{one.sure}" for one in out if one.plain]
    every = [*found, *out]
    return Terms(
        f"({sign.join(sure)})",
        f"({sign.join(maybe)})",
        all(one.plain for one in every),
        any(one.cut for one in every),
    )
