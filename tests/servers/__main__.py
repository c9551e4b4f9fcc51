"""What is to be installed for the tests of servers, one a line: `pip GROUP` or `apt PACKAGE`."""

from __future__ import annotations

import sys
from pathlib import Path

# In place of this folder, whose modules are called as the drivers are.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from servers import pgbouncer, postgres, redis  # noqa: E402  # they are found only now

for engine, there in (("postgres", postgres.is_there), ("redis", redis.is_there)):
    if not there():
        print(f"pip servers-{engine}")
if pgbouncer.program() is None and pgbouncer.may_be_installed():
    print("apt pgbouncer")
