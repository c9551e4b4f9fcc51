-- In the place of the script of this number, for servers without full text: searches read the entries themselves.
CREATE TABLE {schema}.words (
    kind  text COLLATE "C" NOT NULL,
    id    text COLLATE "C" NOT NULL,
    seq   bigint NOT NULL,
    PRIMARY KEY (kind, id, seq)
);
