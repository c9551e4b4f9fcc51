"""Moving a store: copies, copies that keep up, backups, and the digests that prove them."""
