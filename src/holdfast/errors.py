"""Every way a call can fail, as one tree.

    HoldfastError
    ├── NotFound               the session, event or document is not there
    │   └── Deleted            it was there, and was deleted on purpose
    │       └── Trashed        ... but is in the trash, and can be restored
    ├── Conflict               somebody else changed it first; nothing was written
    │   ├── Exists             it should not have been there yet
    │   ├── Stale              the stated position or revision is not the current one
    │   ├── LeaseHeld          another turn holds the session
    │   ├── LeaseLost          the turn that wrote was taken over
    │   └── KeyReused          an idempotency key came back with other content
    ├── Invalid                the input can't be stored as it is
    │   └── TooLarge           ... because it exceeds a stated limit
    ├── Denied                 it belongs to another user
    ├── ReadOnly               the store's files can't be written
    ├── Corrupt                stored bytes do not say what they said when written
    ├── Unavailable            the engine can't do it now; nothing was stored; try again
    └── Uncertain              the answer was lost; the same call with the same key resolves it

All but `Uncertain` are definite: nothing of the failed call was stored. Each carries its facts as attributes.
"""

from __future__ import annotations

__all__ = [
    "Conflict",
    "Corrupt",
    "Deleted",
    "Denied",
    "Exists",
    "HoldfastError",
    "Invalid",
    "KeyReused",
    "LeaseHeld",
    "LeaseLost",
    "NotFound",
    "ReadOnly",
    "Stale",
    "TooLarge",
    "Trashed",
    "Unavailable",
    "Uncertain",
]


class HoldfastError(Exception):
    """Base of all errors of holdfast.

    Args:
        message: One sentence that says what was wrong and what to do, in words that fit a program and a shell.
        **facts: What the sentence speaks of; each becomes an attribute.
    """

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts

    def __getattr__(self, name: str) -> object:
        facts = self.__dict__.get("facts", {})
        if name in facts:
            return facts[name]
        raise AttributeError(name)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.facts))


def _rebuild(cls: type[HoldfastError], message: str, facts: dict[str, object]) -> HoldfastError:
    return cls(message, **facts)


class NotFound(HoldfastError):
    """What was asked for is not there."""


class Deleted(NotFound):
    """The session was deleted; a late writer must not bring it back."""


class Trashed(Deleted):
    """The session is in the trash: nothing is written to it, and `store.trash.restore` brings it back."""


class Conflict(HoldfastError):
    """A precondition did not hold; nothing was written."""


class Exists(Conflict):
    """It was to be created and is there already."""


class Stale(Conflict):
    """The expected position or revision is not the current one."""


class LeaseHeld(Conflict):
    """Another turn holds the session; the error names the holder and when its lease expires."""


class LeaseLost(Conflict):
    """The writer's turn is over or was taken over by another holder."""


class KeyReused(Conflict):
    """The same idempotency key came with another content."""


class Invalid(HoldfastError, ValueError):
    """The input can't be stored as it is."""


class TooLarge(Invalid):
    """The input exceeds a stated limit."""


class Denied(HoldfastError, PermissionError):
    """The session belongs to another user."""

    # PermissionError (an OSError) turns two arguments into errno and text; one argument keeps ours.


class ReadOnly(HoldfastError):
    """The store can't be written: the mode of its files or folder is in the way, or its user may only read."""


class Corrupt(HoldfastError):
    """Stored bytes are damaged; they are kept as they are."""


class Unavailable(HoldfastError):
    """The engine can't do it now (locked, full, unreachable); nothing was stored; it may be tried again."""


class Uncertain(HoldfastError):
    """The answer was lost: stored or not is unknown. Repeat the call with the same key."""
