"""The engines of which this machine has no server and was told no address, one a line: what pip is to bring."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from servers import postgres

for name, there in (("postgres", postgres.is_there),):
    if not there():
        print(name)
