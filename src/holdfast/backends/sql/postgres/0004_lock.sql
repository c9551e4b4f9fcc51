-- The heads of a batch, locked in the order in which they are given. One by one, as a database that is distributed by
-- session locks rows of one session at a time only. By name, so that the table may be cut into partitions.
CREATE FUNCTION {schema}.lock(_kinds text[], _ids text[]) RETURNS TABLE (
    kind text, id text, rev bigint, last bigint, base bigint, "trim" bigint, at bigint, standing smallint,
    tags bytea, counts bytea, body bytea, crc bigint
) LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    FOR n IN 1 .. cardinality(_kinds) LOOP
        RETURN QUERY
            SELECT h.kind, h.id, h.rev, h.last, h.base, h.trim, h.at, h.standing, h.tags, h.counts, h.body, h.crc
            FROM {schema}.head h WHERE h.kind = _kinds[n] AND h.id = _ids[n] FOR UPDATE;
    END LOOP;
END
$$;

-- The same against deletion only.
CREATE FUNCTION {schema}.hold(_kinds text[], _ids text[]) RETURNS void LANGUAGE plpgsql
SET enable_seqscan = off AS $$
BEGIN
    FOR n IN 1 .. cardinality(_kinds) LOOP
        PERFORM 1 FROM {schema}.head h WHERE h.kind = _kinds[n] AND h.id = _ids[n] FOR KEY SHARE;
    END LOOP;
END
$$;

-- Gives heads that another server's transactions wrote a number that is not ahead of this one's.
CREATE FUNCTION {schema}.stamp() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    h record;
    now bigint := pg_current_xact_id()::text::bigint;
BEGIN
    FOR h IN SELECT kind, id FROM {schema}.head WHERE grown > now ORDER BY kind, id LOOP
        UPDATE {schema}.head SET grown = now WHERE kind = h.kind AND id = h.id;
    END LOOP;
END
$$;
