"""Files of a `files` store that nothing speaks of any more: a writer was killed, or the system would not remove them.

Whoever opens the store and finds that its index can't be believed removes them, and so does `compact`. What can't be
removed keeps no store shut; the store is looked through again by the next one, and `compact` says what is in the way.
"""

from __future__ import annotations

import os
import re

from holdfast.backends.disk import unavailable
from holdfast.backends.engine import Connection
from holdfast.backends.logfile import remove_files
from holdfast.backends.replay import all_files
from holdfast.errors import HoldfastError

_TORN = re.compile(r"(.*\.jsonl)\.torn\.\d+")


def left_over(db: Connection, root: str) -> list[str]:
    """Logs that were replaced or never took their place, and what was set aside of those whose sessions are deleted.

    Nobody may be amid a commit; `db` sees the rows.
    """
    sql = "SELECT head.dead FROM log JOIN head ON head.n = log.head WHERE log.name = ?"
    found: list[str] = []
    for name in all_files(root, ""):
        torn = _TORN.fullmatch(name)
        if name.endswith((".jsonl.new", ".jsonl.old")) or (torn and db.execute(sql, (torn[1],)).fetchone() == (1,)):
            found.append(os.path.join(root, name))
    return found


def removed(paths: list[str]) -> HoldfastError | None:
    """Remove them; what is wrong if some are still there. The caller syncs the folders."""
    failed = remove_files(paths)
    if failed is None:
        return None
    return unavailable(failed, f"{failed.filename} is left of what was deleted and can't be removed")
