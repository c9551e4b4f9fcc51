"""Other programs' files: read them, and write them where asked."""
