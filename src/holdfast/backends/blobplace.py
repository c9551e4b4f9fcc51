"""Where a store's blobs are: in a folder beside it, in another folder, in object storage, or in its own database.

That is said when the store is begun, and noted in the folder beside it before there is a store that anybody could open;
so all who open it look in the same place, told or not. A store on PostgreSQL notes it in its own rows. The place itself
is marked with a word that only this store's note knows: no other store may delete in it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol, TypeAlias
from urllib.parse import unquote, urlsplit

import msgspec

from holdfast.backend import Blobs
from holdfast.backends.blobs import DirectoryBlobs
from holdfast.backends.disk import FILE_MODE, make_dir, sync_dir, unavailable, write_all
from holdfast.backends.gate import BlobLock, Gate
from holdfast.errors import Corrupt, Invalid
from holdfast.shown import shown_place

DATABASE = "database"
"""What the URL of a store says for blobs in its own file."""
NOTE = "where"
"""The file in the folder that says where the blobs are."""


class Note(msgspec.Struct, frozen=True):
    """What the file says: where, and the word that marks the place as this store's."""

    blobs: str
    owner: str


GateOf: TypeAlias = Callable[[str | None], BlobLock]
"""The lock for blobs that are in a folder; None for those that are elsewhere."""


class Place(Blobs, Protocol):
    """Blobs that are somewhere else than beside the store."""

    def claim(self, owner: str) -> str:
        """Mark the place as this owner's unless it has one; whose it is."""
        ...


def begun(url: str, gate_of: GateOf) -> Note:
    """What to note of a store that is about to be created. Who calls keeps others from creating it.

    Raises:
        Invalid: the URL is wrong, or another store has its blobs there.
        Unavailable: the place can't be had.
    """
    owner = os.urandom(16).hex()
    if url != DATABASE and placed(url, owner, gate_of).claim(owner) != owner:
        raise Invalid(f"another store keeps its large values in {shown_place(url)}; name a place of its own", blobs=url)
    return Note(url, owner)


def placed(url: str, owner: str, gate_of: GateOf) -> Place:
    """The blobs at a URL.

    Raises:
        Invalid: it names no place.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3":
        from holdfast.backends.objects import ObjectBlobs

        return ObjectBlobs(url, gate_of(None), owner)
    path = unquote(parts.path)
    if parts.scheme != "file" or parts.netloc or parts.query or parts.fragment or not os.path.isabs(path):
        raise Invalid(
            f"blobs={shown_place(url)} is no place for large values; write file:///folder or s3://bucket/prefix",
            parameter="blobs",
        )
    return DirectoryBlobs(path, owner=owner, gate=gate_of(path))


def check_same(url: str | None, note: Note | None, home: str) -> None:
    """Refuse another place than that of a store that was begun; without a note it is `home`.

    Raises:
        Invalid: the URL is another.
    """
    if url and (note is None or note.blobs != url):
        where = shown_place(note.blobs) if note else home
        raise Invalid(
            f"this store was begun with its large values in {where}; leave blobs= away, or copy it to a new store",
            blobs=where,
        )


def begin_blobs(url: str | None, folder: str) -> None:
    """Note in a folder where the blobs of a store will be that is about to be created; see `begun`.

    Raises:
        Unavailable: the note can't be written.
    """
    if url:
        _write(folder, begun(url, _gate_beside(folder)))


def open_blobs(
    url: str | None, folder: str, lock_of: Callable[[BlobLock], BlobLock] = lambda lock: lock
) -> Blobs | None:
    """The blobs of a store that was begun; None if they are in its database.

    Args:
        url: Where its URL says that they are, if it does.
        folder: Where they are, or the note of the place.
        lock_of: What the store adds to their lock.

    Raises:
        Invalid: the URL is not where this store's blobs are.
        Corrupt: the note can't be read.
        Unavailable: the place can't be had.
    """
    note = _noted(folder)
    check_same(url, note, folder)
    if note is None:
        return DirectoryBlobs(folder, gate=lock_of(Gate(folder)))
    gate_of = _gate_beside(folder)
    return None if note.blobs == DATABASE else placed(note.blobs, note.owner, lambda path: lock_of(gate_of(path)))


def _gate_beside(folder: str) -> GateOf:
    return lambda path: Gate(path or folder)


def _noted(folder: str) -> Note | None:
    path = os.path.join(folder, NOTE)
    try:
        with open(path, "rb") as file:
            return note_in(file.read(), path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unavailable(error, f"{path}, which says where large values are, can't be read") from error


def note_in(content: bytes, place: str) -> Note:
    """A note as it was written by msgspec.

    Raises:
        Corrupt: it is none.
    """
    try:
        return msgspec.json.decode(content, type=Note)
    except msgspec.MsgspecError:
        raise Corrupt(
            f'{place} does not say where large values are; it should be {{"blobs": URL, "owner": WORD}}, '
            "with the word in the file or object `owner` there",
            path=place,
        ) from None


def _write(folder: str, note: Note) -> None:
    beside = os.path.join(folder, f"{NOTE}.new")
    try:
        make_dir(folder)
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), FILE_MODE)
        try:
            write_all(fd, msgspec.json.encode(note))
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(beside, os.path.join(folder, NOTE))
        sync_dir(folder)
    except OSError as error:
        raise unavailable(error, f"{folder}/{NOTE} was not written") from error
