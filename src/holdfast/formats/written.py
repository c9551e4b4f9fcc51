"""What an export in another program's form comes to, and who gets which file."""

from __future__ import annotations

import msgspec

from holdfast.errors import Conflict


class Written(msgspec.Struct):
    """What was written. `left_out` counts the events that the program has no place for; `damaged` those unread."""

    sessions: int = 0
    messages: int = 0
    left_out: int = 0
    damaged: int = 0


class Holders:
    """Which session holds each file of an export: no file has two."""

    def __init__(self) -> None:
        self._of: dict[str, str] = {}

    def take(self, name: str, session: str) -> None:
        """Give a file to a session.

        Raises:
            Conflict: another one has it.
        """
        other = self._of.setdefault(name, session)
        if other != session:
            raise Conflict(
                f"sessions {other!r} and {session!r} would share the file {name!r}; export them into different folders",
                session=session,
                other=other,
                file=name,
            )
