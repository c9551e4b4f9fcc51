-- Every key begins with the session (kind, id), so all tables can be spread over machines by it. There is no sequence, and
-- nothing that two sessions would have to lock: what grew since when is told by the transactions that made it so.
-- Texts are compared code point by code point, whatever the database's own collation is.
CREATE TABLE {schema}.meta (
    name  text COLLATE "C" PRIMARY KEY,
    value text NOT NULL
);

-- zstd dictionaries by number. Bodies name the one they need in their first byte; none is ever removed.
CREATE TABLE {schema}.dictionary (
    number smallint PRIMARY KEY,
    data   bytea NOT NULL
);

-- standing: 0 living, 1 dead, 2 in the trash. grown: the transaction in which the log grew last.
CREATE TABLE {schema}.head (
    kind     text COLLATE "C" NOT NULL,
    id       text COLLATE "C" NOT NULL,
    rev      bigint NOT NULL,
    last     bigint NOT NULL,
    base     bigint NOT NULL,
    trim     bigint NOT NULL,
    at       bigint NOT NULL,
    standing smallint NOT NULL,
    grown    bigint NOT NULL,
    tags     bytea NOT NULL,
    counts   bytea NOT NULL,
    body     bytea NOT NULL,
    crc      bigint NOT NULL,
    PRIMARY KEY (kind, id)
);
CREATE INDEX head_at ON {schema}.head (kind, standing, at, id);
CREATE INDEX head_grown ON {schema}.head (grown);

-- Found by a digest of name and value: an index takes no value as long as a tag's may be.
CREATE TABLE {schema}.tag (
    kind   text COLLATE "C" NOT NULL,
    id     text COLLATE "C" NOT NULL,
    name   text COLLATE "C" NOT NULL,
    value  text COLLATE "C" NOT NULL,
    digest bigint NOT NULL,
    PRIMARY KEY (kind, id, name)
);
CREATE INDEX tag_digest ON {schema}.tag (kind, digest, id);

-- hidden is 0 or 85: no single flipped bit makes the one of the other.
CREATE TABLE {schema}.entry (
    kind   text COLLATE "C" NOT NULL,
    id     text COLLATE "C" NOT NULL,
    seq    bigint NOT NULL,
    key    text COLLATE "C",
    at     bigint NOT NULL,
    hidden smallint NOT NULL,
    crc    bigint NOT NULL,
    body   bytea NOT NULL,
    PRIMARY KEY (kind, id, seq)
);
CREATE UNIQUE INDEX entry_key ON {schema}.entry (kind, id, key) WHERE key IS NOT NULL;

CREATE TABLE {schema}.blob (
    digest text COLLATE "C" PRIMARY KEY,
    data   bytea NOT NULL
);

-- All rows of a batch of commits in one call. A head is changed only if it is still the one that was planned on (rev and
-- crc; rev -1: it must not be there); otherwise nothing at all is written, and SQLSTATE HF409 says so.
-- A plan is kept from call to call: one that was made when the tables held a page would read them whole ever after, hence
-- no scan of a whole table (enable_seqscan), and tags are deleted one by one.
--   numbers of a head:  its rev and crc as planned on, then rev, last, base, trim, at, standing, crc, whether its log grew
--   numbers of an entry: which head (from 1), seq, at, hidden, crc
-- _patience: how long to wait for another transaction that holds one of the heads, in ms.
-- A null among tags, counts and bodies leaves that column alone; a null tag value takes the tag away.
CREATE FUNCTION {schema}.write(
    _durability text, _patience text, _kinds text[], _ids text[], _heads bigint[],
    _tags bytea[], _counts bytea[], _bodies bytea[],
    _entries bigint[], _keys text[], _entry_bodies bytea[],
    _tag_heads bigint[], _tag_names text[], _tag_values text[]
) RETURNS void LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    h record;
    n bigint;
    stamp bigint := pg_current_xact_id()::text::bigint;
BEGIN
    PERFORM set_config('lock_timeout', _patience, true);
    IF current_setting('synchronous_commit') <> _durability THEN
        PERFORM set_config('synchronous_commit', _durability, true);
    END IF;
    FOR h IN
        SELECT * FROM unnest(_kinds, _ids, _tags, _counts, _bodies) WITH ORDINALITY
            AS given (kind, id, tags, counts, body, i)
    LOOP
        n := (h.i - 1) * 10;
        IF _heads[n + 1] < 0 THEN
            INSERT INTO {schema}.head (kind, id, rev, last, base, trim, at, standing, grown, tags, counts, body, crc)
            VALUES (h.kind, h.id, _heads[n + 3], _heads[n + 4], _heads[n + 5], _heads[n + 6], _heads[n + 7],
                    _heads[n + 8], stamp, h.tags, h.counts, h.body, _heads[n + 9])
            ON CONFLICT DO NOTHING;
        ELSE
            UPDATE {schema}.head SET
                rev = _heads[n + 3], last = _heads[n + 4], base = _heads[n + 5], trim = _heads[n + 6],
                at = _heads[n + 7], standing = _heads[n + 8], crc = _heads[n + 9],
                grown = CASE WHEN _heads[n + 10] = 0 THEN grown ELSE stamp END,
                tags = coalesce(h.tags, tags), counts = coalesce(h.counts, counts), body = coalesce(h.body, body)
            WHERE kind = h.kind AND id = h.id AND rev = _heads[n + 1] AND crc = _heads[n + 2];
        END IF;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'a head is another one by now' USING ERRCODE = 'HF409';
        END IF;
    END LOOP;
    IF cardinality(_kinds) = 1 THEN
        INSERT INTO {schema}.entry (kind, id, seq, key, at, hidden, crc, body)
        SELECT _kinds[1], _ids[1], _entries[e.i * 5 - 3], nullif(e.key, ''), _entries[e.i * 5 - 2],
               _entries[e.i * 5 - 1], _entries[e.i * 5], e.body
        FROM unnest(_keys, _entry_bodies) WITH ORDINALITY AS e (key, body, i);
    ELSE
        INSERT INTO {schema}.entry (kind, id, seq, key, at, hidden, crc, body)
        SELECT t.kind, t.id, _entries[e.i * 5 - 3], nullif(e.key, ''), _entries[e.i * 5 - 2],
               _entries[e.i * 5 - 1], _entries[e.i * 5], e.body
        FROM unnest(_keys, _entry_bodies) WITH ORDINALITY AS e (key, body, i)
        JOIN unnest(_kinds, _ids) WITH ORDINALITY AS t (kind, id, i) ON t.i = _entries[e.i * 5 - 4];
    END IF;
    IF cardinality(_tag_names) > 0 THEN
        FOR h IN
            SELECT g.i, g.name FROM unnest(_tag_heads, _tag_names, _tag_values) AS g (i, name, value)
            WHERE g.value IS NULL
        LOOP
            DELETE FROM {schema}.tag WHERE kind = _kinds[h.i] AND id = _ids[h.i] AND name = h.name;
        END LOOP;
        INSERT INTO {schema}.tag (kind, id, name, value, digest)
        SELECT _kinds[g.i], _ids[g.i], g.name, g.value, {schema}.digest(g.name, g.value)
        FROM unnest(_tag_heads, _tag_names, _tag_values) AS g (i, name, value)
        WHERE g.value IS NOT NULL
        ON CONFLICT (kind, id, name) DO UPDATE SET value = excluded.value, digest = excluded.digest;
    END IF;
END
$$;

-- The same for what is by far the most common: one session's log grows, and of its head only numbers and counts change.
CREATE FUNCTION {schema}.grow(
    _durability text, _patience text, _kind text, _id text, _head bigint[], _counts bytea,
    _entries bigint[], _keys text[], _bodies bytea[]
) RETURNS void LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('lock_timeout', _patience, true);
    IF current_setting('synchronous_commit') <> _durability THEN
        PERFORM set_config('synchronous_commit', _durability, true);
    END IF;
    UPDATE {schema}.head SET
        rev = _head[3], last = _head[4], at = _head[7], crc = _head[9], counts = _counts,
        grown = pg_current_xact_id()::text::bigint
    WHERE kind = _kind AND id = _id AND rev = _head[1] AND crc = _head[2];
    IF NOT FOUND THEN
        RAISE EXCEPTION 'a head is another one by now' USING ERRCODE = 'HF409';
    END IF;
    IF cardinality(_keys) = 1 THEN
        INSERT INTO {schema}.entry (kind, id, seq, key, at, hidden, crc, body)
        VALUES (_kind, _id, _entries[2], nullif(_keys[1], ''), _entries[3], _entries[4], _entries[5], _bodies[1]);
    ELSE
        INSERT INTO {schema}.entry (kind, id, seq, key, at, hidden, crc, body)
        SELECT _kind, _id, _entries[e.i * 5 - 3], nullif(e.key, ''), _entries[e.i * 5 - 2],
               _entries[e.i * 5 - 1], _entries[e.i * 5], e.body
        FROM unnest(_keys, _bodies) WITH ORDINALITY AS e (key, body, i);
    END IF;
END
$$;

CREATE FUNCTION {schema}.digest(name text, value text) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT ('x' || substr(md5(name || '=' || value), 1, 16))::bit(64)::bigint
$$;
