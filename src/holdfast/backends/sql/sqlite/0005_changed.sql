-- changed: the number of the last change of a head that left no new entry, or none that stayed; each is one more than the
-- highest. Appends leave it alone, so it costs them nothing: what grew is told by the numbers of the rows of entries.
ALTER TABLE head ADD COLUMN changed INTEGER;
CREATE INDEX head_changed ON head (changed) WHERE changed > 0;
-- By which a position of a watch is known as this store's.
INSERT INTO meta VALUES ('store', lower(hex(randomblob(8))));
