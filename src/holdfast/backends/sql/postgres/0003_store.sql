-- By which a position of a watch is known as this store's.
-- From here on `grown` in a head names the transaction in which the head, or its log, changed last.
INSERT INTO {schema}.meta VALUES ('store', replace(gen_random_uuid()::text, '-', ''));
