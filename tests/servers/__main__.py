"""The engines of which this machine has no server and was told no address, one a line: what pip is to bring."""

from __future__ import annotations

import sys
from pathlib import Path

# In place of this folder, whose modules are called as the drivers are.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from servers import postgres, redis  # noqa: E402  # they are found only now

for name, there in (("postgres", postgres.is_there), ("redis", redis.is_there)):
    if not there():
        print(name)
