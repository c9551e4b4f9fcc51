"""Words and paths where the locale is not UTF-8, and how a whole file gets its name.

Python takes arguments, variables and file names by the locale, and keeps each byte that it can't read as a lone
surrogate. Text is UTF-8 here whatever the locale; a path goes back to the system as the same bytes.
"""

from __future__ import annotations

import errno
import os
import stat

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What systems say of a file system that has no links, or no more of them."""


def as_text(given: str) -> str:
    """An argument or variable as the UTF-8 that its bytes are; as it is if they are none."""
    try:
        given.encode()
    except UnicodeEncodeError:
        try:
            return os.fsencode(given).decode()
        except UnicodeError:
            return given
    return given


def as_path(text: str) -> str:
    """A path in the form in which this process's system calls take it."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return os.fsdecode(text.encode("utf-8", "surrogateescape"))
    return text


def is_stream(path: str) -> bool:
    """Whether there is a pipe, socket or device at a path: nothing that can be read twice, or may be replaced."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False  # nothing is there, or it is told by whoever opens it
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def appear(beside: str, path: str) -> None:
    """Give a whole file its name, which never replaces another file, one that appeared meanwhile included.

    A link does so at once. Where there are none (FAT, some network and FUSE file systems), the name is taken by an
    empty file, which only one can make, and that is replaced: who is killed in between leaves the empty file. The
    system calls that rename without replacing are not those of every system, and fail on some of the same disks.

    Raises:
        FileExistsError: there is a file of that name.
        OSError: the disk refuses; no file is left under the name.
    """
    try:
        os.link(beside, path)
        return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        os.replace(beside, path)
    except OSError:  # who is interrupted leaves the name, as it may be that of the whole file by now
        os.unlink(path)
        raise
