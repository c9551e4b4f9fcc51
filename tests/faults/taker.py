"""An import to be killed: `python -m faults.taker URL FOLDER`. It prints "go" when it begins, and "done" at its end."""

from __future__ import annotations

import os
import sys

from holdfast import open as open_store
from holdfast.importer import import_files
from holdfast.importing.sources import find_sources

if __name__ == "__main__":
    with open_store(sys.argv[1]) as opened:
        sources = find_sources([sys.argv[2]])
        os.write(1, b"go\n")
        import_files(opened, sources)
        os.write(1, b"done\n")
