"""Other programs' interfaces, over a Store."""
