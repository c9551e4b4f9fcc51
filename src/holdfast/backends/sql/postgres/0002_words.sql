-- The words of entries for search, taken in some time after they were written; `meta` says up to which transactions.
-- words is null where they are too many for the type: such an entry is always looked at itself.
CREATE TABLE {schema}.words (
    kind  text COLLATE "C" NOT NULL,
    id    text COLLATE "C" NOT NULL,
    seq   bigint NOT NULL,
    words tsvector,
    PRIMARY KEY (kind, id, seq)
);
CREATE INDEX words_words ON {schema}.words USING gin (words);
CREATE INDEX words_unindexed ON {schema}.words (kind, id, seq) WHERE words IS NULL;
