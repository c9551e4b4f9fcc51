-- Heads that were put away stand apart (dead = 2), so that lists of the living need not step over them; here by time.
CREATE INDEX head_trash ON head (kind, slot) WHERE dead = 2;
