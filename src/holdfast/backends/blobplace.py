"""Where a store's blobs are: in a folder beside it, in another folder, or in object storage.

The folder beside it always holds the lock, and a note of where the blobs are, once that is elsewhere: a store that is
opened without being told finds them, and one that is told another place is refused before it loses sight of any.
"""

from __future__ import annotations

import os
from urllib.parse import unquote, urlsplit

from holdfast.backend import Blobs
from holdfast.backends.blobs import DirectoryBlobs
from holdfast.backends.disk import FILE_MODE, make_dir, sync_dir, unavailable, write_all
from holdfast.backends.gate import Gate
from holdfast.errors import Invalid, Unavailable

NOTE = "where"
"""The file in the folder that says where the blobs are."""


def open_blobs(url: str | None, folder: str) -> Blobs:
    """The blobs of a store: in the folder beside it unless the URL, or the note of the first to open it, says where.

    Raises:
        Invalid: the URL is wrong, or not where this store's blobs are.
        Unavailable: the place can't be had.
    """
    noted = _noted(folder)
    if url and url != noted:
        check_unused(folder)
    place = url or noted
    if not place:
        return DirectoryBlobs(folder)
    blobs = _opened(place, folder)
    if noted is None:
        _note(folder, place)
    return blobs


def check_unused(folder: str) -> None:
    """Refuse to send a store's large values elsewhere if some may be where they were sent before.

    Raises:
        Invalid: they have a place.
    """
    noted = _noted(folder)
    if noted is not None:
        raise Invalid(f"this store keeps its large values in {noted}; leave blobs= away", blobs=noted)
    if _has_blobs(folder):
        raise Invalid(f"this store keeps its large values in {folder}; copy it to a new one to move them", blobs=folder)


def _opened(url: str, folder: str) -> Blobs:
    parts = urlsplit(url)
    if parts.scheme == "s3":
        from holdfast.backends.objects import ObjectBlobs

        return ObjectBlobs(url, Gate(folder))
    path = unquote(parts.path)
    if parts.scheme != "file" or parts.netloc or parts.query or parts.fragment or not os.path.isabs(path):
        raise Invalid(
            f"blobs={_plain(url)} is no place for large values; write file:///folder or s3://bucket/prefix",
            parameter="blobs",
        )
    return DirectoryBlobs(path)


def _plain(url: str) -> str:
    """A URL without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _noted(folder: str) -> str | None:
    try:
        with open(os.path.join(folder, NOTE), encoding="utf-8") as file:
            return file.read().strip() or None
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise Unavailable(f"{folder}/{NOTE}, which says where large values are, can't be read: {error}") from error


def _has_blobs(folder: str) -> bool:
    return os.path.isdir(folder) and any(len(name) == 2 for name in os.listdir(folder))


def _note(folder: str, url: str) -> None:
    """Write the note, whole or not at all; who comes second leaves the first one's."""
    beside = os.path.join(folder, f"{NOTE}.{os.getpid()}")
    try:
        make_dir(folder)
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), FILE_MODE)
        try:
            write_all(fd, url.encode() + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(beside, os.path.join(folder, NOTE))
        sync_dir(folder)
    except OSError as error:
        raise unavailable(error, f"{folder}/{NOTE} was not written") from error
