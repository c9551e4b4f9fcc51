"""Named bytes that a session made, and the sweep of those that nobody refers to."""
