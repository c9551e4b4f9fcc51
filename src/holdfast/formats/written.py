"""What an export in another program's form came to."""

from __future__ import annotations

import msgspec


class Written(msgspec.Struct):
    """What was written. `left_out` counts the events that the program has no place for; `damaged` those unread."""

    sessions: int = 0
    messages: int = 0
    left_out: int = 0
    damaged: int = 0
