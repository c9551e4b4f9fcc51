"""What durable files need, in one place: private modes, synced folders, a lock between processes.

A created, renamed or removed name is only durable once its folder was synced; ext4 hides that mistake, POSIX does not.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import sys
import time
from collections.abc import Callable, Collection, Generator

from holdfast.errors import HoldfastError, ReadOnly, Unavailable

FILE_MODE = 0o600
DIR_MODE = 0o700
MANY = 256
"""Files up to which each is synced by itself, which also tells of an error that the system met earlier."""
_SIGNATURE = 128


def unavailable(error: OSError, what: str) -> HoldfastError:
    """An error of the operating system as one of ours, with what to do."""
    hints = {
        errno.ENOSPC: "the disk is full; make room and try again",
        errno.EDQUOT: "the quota is used up; make room and try again",
        errno.EFBIG: "the file may not grow further (ulimit -f)",
        errno.EACCES: "permission denied; check the owner and the mode of the store's folder",
        errno.EPERM: "permission denied; check the owner and the mode of the store's folder",
        errno.EROFS: "the file system is read-only, and even who only reads notes its locks beside the data; "
        "copy the store to a disk that can be written",
        errno.EIO: "the device reported an error; look at the system's log before you go on",
    }
    hint = hints.get(error.errno or 0, error.strerror or str(error))
    kind = ReadOnly if error.errno == errno.EROFS else Unavailable
    return kind(f"{what}: {hint}", errno=error.errno, path=error.filename)


def make_dir(path: str, durable: bool = True) -> None:
    """Create a folder and its parents, private, each synced into the one above it."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(os.path.abspath(path))
    make_dir(parent, durable)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, DIR_MODE)
        try:
            if durable:
                sync_dir(parent)
        except BaseException:
            with contextlib.suppress(OSError):
                os.rmdir(path)  # who tries again must not find it and believe it to be synced
            raise


def sync_dir(path: str) -> None:
    """Make the names in a folder durable."""
    if sys.platform == "win32":
        return  # a folder can't be opened there, and NTFS logs its names
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file(path: str) -> None:
    """Make the bytes of a file durable, whoever wrote them."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_files(paths: Collection[str]) -> None:
    """Make the bytes of files durable; of very many all at once, as each sync takes a millisecond, needed or not."""
    if len(paths) > MANY and sys.platform == "linux":
        os.sync()
        return
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            sync_file(path)


def write_all(fd: int, data: bytes) -> None:
    """Write all bytes, however few the system takes at a time."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def whoami() -> str:
    """This process as a person would look for it."""
    return f"process {os.getpid()} on {platform.node()}"


def sign(fd: int, me: bytes) -> None:
    """Write into a lock file whose lock was taken who has it, so that whoever waits in vain can say so.

    `me` is this process's `signature`.
    """
    try:
        if read_at(fd, _SIGNATURE, 0) != me:
            write_at(fd, me, 0)
    except OSError:  # a name is not worth failing for, on a full disk say
        pass


def signature() -> bytes:
    """What this process writes into the lock files that it has; a forked child has another."""
    return whoami().ljust(_SIGNATURE - 1).encode(errors="replace")[: _SIGNATURE - 1] + b"\n"


def signed(fd: int) -> str:
    """Who took the lock of a lock file last."""
    with contextlib.suppress(OSError):
        return read_at(fd, _SIGNATURE, 0).decode(errors="replace").strip()
    return ""


if sys.platform == "win32":
    import msvcrt

    def read_at(fd: int, size: int, offset: int) -> bytes:
        """Up to `size` bytes from an offset on."""
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, size)

    def write_at(fd: int, data: bytes, offset: int) -> None:
        """Write all bytes from an offset on."""
        os.lseek(fd, offset, os.SEEK_SET)
        write_all(fd, data)

    def sync(fd: int) -> None:
        """Make a file's bytes durable, and its length."""
        os.fsync(fd)

    def try_lock(fd: int) -> bool:
        """Take the exclusive lock of an open file, if no other holder has it. It goes with the descriptor."""
        try:
            os.lseek(fd, 0, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def share_lock(fd: int) -> None:
        """There are no shared locks here: nobody can tell whether others have the file open."""

    def try_share(fd: int) -> bool:
        """Take the lock alone, as there are no shared ones here."""
        return try_lock(fd)

    def unlock(fd: int) -> None:
        """Give the lock back."""
        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    # A forked child shares the position of its parent's files, so it is never relied on.

    def read_at(fd: int, size: int, offset: int) -> bytes:
        """Up to `size` bytes from an offset on."""
        return os.pread(fd, size, offset)

    def write_at(fd: int, data: bytes, offset: int) -> None:
        """Write all bytes from an offset on."""
        done = os.pwrite(fd, data, offset)
        while done < len(data):
            done += os.pwrite(fd, memoryview(data)[done:], offset + done)

    def sync(fd: int) -> None:
        """Make a file's bytes durable, and its length."""
        if hasattr(os, "fdatasync"):
            os.fdatasync(fd)
        else:
            os.fsync(fd)

    def try_lock(fd: int) -> bool:
        """Take the exclusive lock of an open file, if no other holder has it. It goes with the descriptor."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def share_lock(fd: int) -> None:
        """Take a lock that others may share; while anybody has it, nobody gets the exclusive one."""
        fcntl.flock(fd, fcntl.LOCK_SH)

    def try_share(fd: int) -> bool:
        """Take a lock that others may share, if nobody has the exclusive one."""
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(fd: int) -> None:
        """Give the lock back."""
        fcntl.flock(fd, fcntl.LOCK_UN)


def lock(fd: int, timeout: float, what: str) -> None:
    """Wait for the exclusive lock of an open file, `timeout` seconds at most.

    Asking again and again costs little and, unlike a blocking wait, ends when the holder was stopped for good.

    Raises:
        Unavailable: somebody held it all the time.
    """
    _wait(try_lock, fd, timeout, what)


def share(fd: int, timeout: float, what: str) -> None:
    """Wait for a lock that others may share, `timeout` seconds at most; see `lock`."""
    _wait(try_share, fd, timeout, what)


def _wait(take: Callable[[int], bool], fd: int, timeout: float, what: str) -> None:
    if take(fd):
        return
    began = time.monotonic()
    while not take(fd):
        waited = time.monotonic() - began
        if waited > timeout:
            owner = signed(fd) or "another process"
            raise Unavailable(f"{what} was locked for {timeout:g} s by {owner}; is it stopped? Try again", owner=owner)
        # Holders take turns of a millisecond: ask often at first (measured: it halves p99), seldom in a long wait.
        time.sleep(0.0002 if waited < 0.2 else 0.01)


@contextlib.contextmanager
def locked(path: str, timeout: float) -> Generator[int]:
    """Hold the lock of a lock file, which stays where it is, unless its holder removes it."""
    until = time.monotonic() + timeout
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), FILE_MODE)
        try:
            lock(fd, timeout, path)
            if not _is_at(fd, path):  # the holder before removed it, so whoever comes now has the lock of another file
                if time.monotonic() > until:
                    raise Unavailable(f"{path} was another file each time it was locked, for {timeout:g} s; try again")
                continue
            sign(fd, signature())
            yield fd
            return
        finally:
            os.close(fd)


def _is_at(fd: int, path: str) -> bool:
    """Whether an open file is the one that the path leads to."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
