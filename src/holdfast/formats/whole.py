"""Sources that are read as a whole, a database or a document: the sessions they tell, each with its events in order.

Unlike a transcript, such a source is rewritten in place. So a session is known again by a digest of all it says, and an
event by an id that the source's own ids make, or its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import msgspec

from holdfast.model import AnyPayload


class Item(msgspec.Struct, frozen=True):
    """An event to store: the `id` it has for ever, its time in microseconds or None for that of the one before it.

    `reason` says why a record could not be read; it is kept all the same. `number` is where it stands, from 1.
    """

    id: str
    at: int | None
    payload: AnyPayload
    number: int = 0
    reason: str = ""


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a source says of a session beside its events. `digest` tells whether anything of it changed.

    `created` and `active`, the last activity, are in microseconds. A tag that somebody changed here stays. `notes` are
    what is odd about the source, for people.
    """

    digest: str
    tags: dict[str, str | None] = {}
    metadata: dict[str, Any] = {}
    created: int | None = None
    active: int | None = None
    notes: tuple[str, ...] = ()


class Told(NamedTuple):
    """One session of a source. `id` is the program's own; `said` and `items` read the source, and may be called again.

    Both raise `Corrupt` where the source can't be read. `path` is its own file, where the source is a folder.
    """

    id: str
    said: Callable[[], Said]
    items: Callable[[], Iterator[Item]]
    path: str | None = None


class ToldDocument(NamedTuple):
    """A file of a source that is no session: the document that it becomes, byte for byte.

    `reason` says why the program itself could not read it; it is kept all the same, unless there is no `id`.
    """

    path: str
    id: str | None
    source: bytes
    reason: str = ""


class Whole(NamedTuple):
    """A kind of source: whose it is, whether a file is one by its path and first bytes, and the sessions it tells.

    `documents` are the files beside them, if it can have any. A kind that `is_folder` is looked for among folders.
    """

    program: str
    is_one: Callable[[str, bytes], bool]
    sessions: Callable[[str], AbstractContextManager[Iterator[Told]]]
    documents: Callable[[str], Iterator[ToldDocument]] | None = None
    is_folder: bool = False
