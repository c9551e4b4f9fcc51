"""How often this process was forked off: what a child must not use of its parent's is told by comparing two numbers.

Asking for the process id costs a system call each time; this costs a global's look-up.
"""

from __future__ import annotations

import os

_count = 0


def count() -> int:
    """The number of forks between the process that imported holdfast and this one."""
    return _count


def _forked() -> None:
    global _count
    _count += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
