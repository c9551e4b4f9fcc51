"""What is to be installed for the tests of servers, one a line: `pip GROUP` or `apt PACKAGE`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from servers import pgbouncer, postgres

if not postgres.is_there():
    print("pip servers-postgres")
if pgbouncer.program() is None and pgbouncer.may_be_installed():
    print("apt pgbouncer")
