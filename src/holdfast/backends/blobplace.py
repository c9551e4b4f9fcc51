"""Where a store's blobs are: in a folder beside it, in another folder, in object storage, or in its own database.

That is said when the store is begun, and noted in the folder beside it before there is a store that anybody could open;
so all who open it look in the same place, told or not. The place itself is marked with a word that only this store's
note knows: no other store may delete in it.
"""

from __future__ import annotations

import os
import secrets
from typing import Protocol
from urllib.parse import unquote, urlsplit

import msgspec

from holdfast.backend import Blobs
from holdfast.backends.blobs import DirectoryBlobs
from holdfast.backends.disk import FILE_MODE, make_dir, sync_dir, unavailable, write_all
from holdfast.backends.gate import Gate
from holdfast.errors import Corrupt, Invalid

DATABASE = "database"
"""What the URL of a store says for blobs in its own file."""
NOTE = "where"
"""The file in the folder that says where the blobs are."""


class Note(msgspec.Struct, frozen=True):
    """What the file says: where, and the word that marks the place as this store's."""

    blobs: str
    owner: str


class Place(Blobs, Protocol):
    """Blobs that are somewhere else than beside the store."""

    def claim(self, owner: str) -> str:
        """Mark the place as this owner's unless it has one; whose it is."""
        ...


def begin_blobs(url: str | None, folder: str) -> None:
    """Note where the blobs of a store will be that is about to be created. Who calls keeps others from creating it.

    Raises:
        Invalid: the URL is wrong, or another store has its blobs there.
        Unavailable: the place can't be had, or the note not be written.
    """
    if not url:
        return
    owner = secrets.token_hex(16)
    if url != DATABASE and _opened(url, folder, owner).claim(owner) != owner:
        raise Invalid(f"another store keeps its large values in {_plain(url)}; name a place of its own", blobs=url)
    _write(folder, Note(url, owner))


def open_blobs(url: str | None, folder: str) -> Blobs | None:
    """The blobs of a store that was begun; None if they are in its database.

    Raises:
        Invalid: the URL is not where this store's blobs are.
        Corrupt: the note can't be read.
        Unavailable: the place can't be had.
    """
    note = _noted(folder)
    if url and (note is None or note.blobs != url):
        where = _plain(note.blobs) if note else folder
        raise Invalid(
            f"this store was begun with its large values in {where}; leave blobs= away, or copy it to a new store",
            blobs=where,
        )
    if note is None:
        return DirectoryBlobs(folder)
    return None if note.blobs == DATABASE else _opened(note.blobs, folder, note.owner)


def _opened(url: str, folder: str, owner: str) -> Place:
    parts = urlsplit(url)
    if parts.scheme == "s3":
        from holdfast.backends.objects import ObjectBlobs

        return ObjectBlobs(url, Gate(folder), owner)
    path = unquote(parts.path)
    if parts.scheme != "file" or parts.netloc or parts.query or parts.fragment or not os.path.isabs(path):
        raise Invalid(
            f"blobs={_plain(url)} is no place for large values; write file:///folder or s3://bucket/prefix",
            parameter="blobs",
        )
    return DirectoryBlobs(path, owner=owner)


def _plain(url: str) -> str:
    """A URL without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.scheme else url


def _noted(folder: str) -> Note | None:
    path = os.path.join(folder, NOTE)
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(), type=Note)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unavailable(error, f"{path}, which says where large values are, can't be read") from error
    except msgspec.MsgspecError:
        raise Corrupt(
            f'{path} does not say where large values are; it should be {{"blobs": URL, "owner": WORD}}, '
            "with the word in the file or object `owner` there",
            path=path,
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
