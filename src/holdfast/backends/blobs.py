"""Blobs as files in a folder, named by their digest, compressed with zstd where that makes them smaller.

A blob is written beside its place, synced, and moved there, so that a name always means whole bytes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Generator
from contextlib import AbstractContextManager

import zstandard

from holdfast.backend import CHUNK, Blobs
from holdfast.backends.disk import FILE_MODE, make_dir, sync_dir, unavailable, write_all
from holdfast.backends.gate import BlobLock, Gate
from holdfast.errors import Conflict, Corrupt, Invalid

_RAW = b"\x00"
_ZSTD = b"\x01"
_DAMAGE = (errno.EIO, errno.EISDIR, errno.ELOOP, errno.ENOTDIR)
"""What stands in the place of a blob can't be one, or its sectors are bad."""
_HEX = frozenset("0123456789abcdef")


class DirectoryBlobs:
    """A folder of blobs, `ab/cdef…` for the digest `abcdef…`. `durable` syncs each before `put` returns."""

    def __init__(
        self, path: str, *, durable: bool = True, owner: str | None = None, gate: BlobLock | None = None
    ) -> None:
        self._path = path
        self._owner = owner
        self._durable = durable
        self._sure: set[str] = set()
        self._gate = gate or Gate(path, durable=durable)

    def put(self, digest: str, data: bytes) -> None:
        """Store the bytes.

        Raises:
            Unavailable: the disk refuses; nothing is left behind.
        """
        place = self._place(digest)
        try:
            if os.path.exists(place) and is_sound(self, digest):
                self._sync_names(os.path.dirname(place))  # whoever stored it may not have come so far yet
                return
        except OSError as error:
            raise unavailable(error, f"blob {digest} was not stored in {self._path}") from error
        content = packed(data)
        beside = f"{place}.{os.getpid()}.{threading.get_ident()}.tmp"
        try:
            make_dir(os.path.dirname(place), self._durable)
            self._write(beside, content)
            os.replace(beside, place)
            self._sync_names(os.path.dirname(place))
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise unavailable(error, f"blob {digest} was not stored in {self._path}") from error

    def _sync_names(self, folder: str) -> None:
        """Make the names in a folder of blobs durable, and, once for each process, its own and that of them all."""
        if not self._durable:
            return
        sync_dir(folder)
        if folder not in self._sure:
            sync_dir(self._path)
            sync_dir(os.path.dirname(os.path.abspath(self._path)))
            self._sure.add(folder)

    def _write(self, path: str, content: bytes) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), FILE_MODE)
        try:
            write_all(fd, content)
            if self._durable:
                os.fsync(fd)
        finally:
            os.close(fd)

    def get(self, digest: str) -> bytes | None:
        """The bytes, or None.

        Raises:
            Corrupt: the file is damaged, or the device can't read it.
            Unavailable: the system refuses.
        """
        place = self._place(digest)
        try:
            with open(place, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _DAMAGE:  # of this one: it hides no other
                raise Corrupt(f"blob {digest} can't be read: {error.strerror}", digest=digest) from error
            raise unavailable(error, f"blob {digest} can't be read") from error
        return unpacked(digest, content)

    def delete(self, digest: str) -> bool:
        """Remove the bytes.

        Raises:
            Unavailable: the system refuses; or the lock was lost meanwhile, and nothing was removed.
        """
        place = self._place(digest)
        self._gate.confirm()
        try:
            os.unlink(place)
            if self._durable:
                sync_dir(os.path.dirname(place))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise unavailable(error, f"blob {digest} was not deleted") from error
        return True

    def scan(self, after: str = "", limit: int = 1000) -> list[str]:
        """Digests above `after`, in order."""
        found: list[str] = []
        if not os.path.isdir(self._path):
            return found
        for folder in sorted(f for f in os.listdir(self._path) if len(f) == 2 and f >= after[:2]):
            names = os.listdir(os.path.join(self._path, folder))
            found += sorted(d for n in names if len(n) == 62 and (d := folder + n) > after)
            if len(found) >= limit:
                break
        return found[:limit]

    def shared(self) -> AbstractContextManager[None]:
        """Keep deleters out."""
        return self._gate.shared()

    @contextlib.contextmanager
    def exclusive(self) -> Generator[None]:
        """Keep everybody else out."""
        with self._gate.exclusive():
            if self._owner is not None and self.claim(self._owner) != self._owner:
                raise Conflict(f"{self._path} is marked as another store's: nothing in it may be deleted by this one")
            self._tidy()
            yield

    def claim(self, owner: str) -> str:
        """Mark the folder as this owner's unless it has one; whose it is."""
        mark = os.path.join(self._path, "owner")
        beside = f"{mark}.{os.getpid()}.{threading.get_ident()}"
        try:
            make_dir(self._path, self._durable)
            self._write(beside, owner.encode())
            with contextlib.suppress(FileExistsError):
                os.link(beside, mark)  # whole or not at all, and never over another's
            os.unlink(beside)
            sync_dir(self._path)
            with open(mark, "rb") as file:
                return file.read().decode("ascii", "replace")
        except OSError as error:
            raise unavailable(error, f"{mark} can't be written or read") from error

    def _tidy(self) -> None:
        """Remove what killed writers left beside the places of blobs: nobody is at work now."""
        for folder in os.listdir(self._path):
            if len(folder) == 2:
                for name in os.listdir(os.path.join(self._path, folder)):
                    if name.endswith(".tmp"):
                        with contextlib.suppress(OSError):  # there is no harm in it; the next one tries again
                            os.unlink(os.path.join(self._path, folder, name))

    def _place(self, digest: str) -> str:
        check_digest(digest)
        return os.path.join(self._path, digest[:2], digest[2:])


def is_sound(blobs: Blobs, digest: str) -> bool:
    """Whether what stands under a digest is what it says; what does not, a put replaces."""
    try:
        return blobs.get(digest) is not None
    except Corrupt:
        return False


def check_digest(digest: str) -> None:
    """Refuse what names no blob.

    Raises:
        Invalid: it is no digest.
    """
    if len(digest) != 64 or not _HEX.issuperset(digest):
        raise Invalid(f"{digest[:80]!r} is no SHA-256 in lower-case hex", digest=digest)


def packed(data: bytes) -> bytes:
    """A blob as it is stored: a byte that says how, then its bytes, by zstd where that makes them smaller."""
    small = zstandard.ZstdCompressor(level=3).compress(data)
    return _ZSTD + small if len(small) < len(data) else _RAW + data


def unpacked(digest: str, content: bytes) -> bytes:
    """The bytes of what `packed` made.

    Raises:
        Corrupt: they are damaged.
    """
    import hashlib  # loads OpenSSL, which most programs can do without

    try:
        data = _decompressed(content[1:]) if content[:1] == _ZSTD else content[1:]
    except zstandard.ZstdError as error:
        raise Corrupt(f"blob {digest} can't be unpacked: {error}", digest=digest) from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise Corrupt(f"blob {digest} does not hold the bytes of that digest", digest=digest)
    return data


def _decompressed(content: bytes) -> bytes:
    # The size is part of what may be damaged: it must not be believed before memory is asked for.
    if zstandard.get_frame_parameters(content).content_size > CHUNK:
        raise zstandard.ZstdError("it claims to be larger than a blob can be")
    return zstandard.decompress(content)
