-- Where the entries of a log stand: in runs of rows that follow each other. A run says that the entry `seq` is in row `n`,
-- the next in the next row, up to where the log's next run begins. A session that is written alone is one run; where
-- sessions take turns each append begins one. The newest runs of a log stand in its head, which every append writes
-- anyway, and move into this table some at a time; so an append need not write a page of an index for each session.
CREATE TABLE run (
    head INTEGER NOT NULL REFERENCES head (n),
    seq  INTEGER NOT NULL,
    n    INTEGER NOT NULL,
    PRIMARY KEY (head, seq)
) WITHOUT ROWID;

-- From the index alone: a row that is damaged must not mislead what leads to the others.
INSERT INTO run SELECT head, min(seq), min(n) FROM entry INDEXED BY entry_seq GROUP BY head, n - seq;

ALTER TABLE head ADD COLUMN runs BLOB NOT NULL DEFAULT x'';

DROP INDEX entry_seq;
