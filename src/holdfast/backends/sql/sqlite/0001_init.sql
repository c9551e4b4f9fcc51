-- A head for each session, with an index that lists the newest first. It goes by slots of 16 ms, within which a list
-- sorts: a session that is written to many times in a slot moves in the index once. Its log stands in the order in which
-- it was written, found by (head, seq); ids only where the writer gave one, so that those who give none pay nothing for them.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value
) WITHOUT ROWID;

-- zstd dictionaries by number. Bodies name the one they need in their first byte; none is ever removed.
CREATE TABLE dictionary (
    id   INTEGER PRIMARY KEY,
    data BLOB NOT NULL
);

CREATE TABLE head (
    n      INTEGER PRIMARY KEY,
    kind   TEXT NOT NULL,
    id     TEXT NOT NULL,
    rev    INTEGER NOT NULL,
    last   INTEGER NOT NULL,
    base   INTEGER NOT NULL,
    trim   INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    slot   INTEGER NOT NULL,
    dead   INTEGER NOT NULL,
    tags   BLOB NOT NULL,
    counts BLOB NOT NULL,
    body   BLOB NOT NULL,
    crc    INTEGER NOT NULL
);
CREATE UNIQUE INDEX head_id ON head (kind, id);
CREATE INDEX head_slot ON head (kind, slot) WHERE dead = 0;

CREATE TABLE tag (
    name  TEXT NOT NULL,
    value TEXT NOT NULL,
    head  INTEGER NOT NULL REFERENCES head (n),
    PRIMARY KEY (name, value, head)
) WITHOUT ROWID;

CREATE TABLE entry (
    n    INTEGER PRIMARY KEY,
    head INTEGER NOT NULL REFERENCES head (n),
    seq  INTEGER NOT NULL,
    id   TEXT,
    at   INTEGER NOT NULL,
    void INTEGER NOT NULL,
    crc  INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE UNIQUE INDEX entry_seq ON entry (head, seq);
CREATE UNIQUE INDEX entry_id ON entry (head, id) WHERE id IS NOT NULL;
