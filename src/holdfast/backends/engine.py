"""The SQLite library underneath: Python's own, or apsw where asked for. Connections, their settings, their errors.

Both libraries speak nearly the same dialect (`execute`, `executemany`, `fetchone`); this module hides the rest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Protocol, cast

from holdfast.backends.disk import unavailable
from holdfast.errors import Corrupt, HoldfastError, Invalid, ReadOnly, Unavailable

SAFE = (3, 51, 3)
"""From this version on SQLite is free of the WAL-reset bug; before it, checkpoints must not run beside writers."""

_BUSY, _LOCKED, _READONLY, _IOERR, _CORRUPT, _FULL, _CANTOPEN, _TOOBIG, _NOTADB = 5, 6, 8, 10, 11, 13, 14, 18, 26

_SYNC = (_IOERR | 4 << 8, _IOERR | 5 << 8)
"""SQLITE_IOERR_FSYNC and SQLITE_IOERR_DIR_FSYNC. A write that fails leaves no whole commit behind."""


class Rows(Protocol):
    """What a statement returned."""

    def fetchone(self) -> Any:
        """The next row, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """All rows."""
        ...


class Connection(Protocol):
    """One connection of either library."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Rows:
        """Run one statement."""
        ...

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Any:
        """Run one statement for each row of parameters."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class Engine:
    """One of the two libraries."""

    def __init__(self, name: str) -> None:
        self.name = name
        if name == "stdlib":
            import sqlite3

            # A message that quotes damaged text can't be decoded.
            self.errors: tuple[type[Exception], ...] = (sqlite3.Error, UnicodeDecodeError)
            self.version = sqlite3.sqlite_version
        elif name == "apsw":
            try:
                import apsw
            except ImportError:
                raise Invalid("engine=apsw needs the package apsw: pip install 'holdfast[apsw]'") from None
            self.errors = (apsw.Error, UnicodeDecodeError)
            self.version = apsw.sqlite_lib_version()
        else:
            raise Invalid(f"engine={name!r} is not one of stdlib, apsw", engine=name)

    def connect(self, path: str, timeout: float) -> Connection:
        """A connection that leaves transactions to the caller and may be handed from thread to thread."""
        if self.name == "apsw":
            import apsw

            connection = apsw.Connection(path)
            connection.set_busy_timeout(int(timeout * 1000))
            return cast("Connection", connection)
        import sqlite3

        plain = sqlite3.connect(
            path, timeout=timeout, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        # Damaged text must not fail the statement, and with it what is sound: its record's checksum tells.
        plain.text_factory = partial(str, encoding="utf-8", errors="replace")
        return cast("Connection", plain)

    def backup(self, source: Connection, path: str) -> None:
        """Copy the database that a connection has open, as it is at one moment, into a new file."""
        if self.name == "apsw":
            import apsw

            plain = cast("apsw.Connection", source)
            with contextlib.closing(apsw.Connection(path)) as there, there.backup("main", plain, "main") as copying:
                copying.step()  # all pages in one step: then it is one state, though others write
            return
        import sqlite3

        with contextlib.closing(sqlite3.connect(path)) as copy:
            cast("sqlite3.Connection", source).backup(copy)

    def safe(self) -> bool:
        """Whether this version is free of the WAL-reset bug."""
        return tuple(int(part) for part in self.version.split(".")[:3]) >= SAFE

    def is_sync_error(self, error: Exception) -> bool:
        """Whether all was written, and the system could not make it durable."""
        return _code(error) in _SYNC

    def is_full(self, error: Exception) -> bool:
        """Whether there was no room for what was written."""
        return _code(error) & 0xFF == _FULL

    def explain(self, error: Exception, path: str) -> HoldfastError:
        """An error of the library as one of ours, with what to do."""
        kind = _code(error) & 0xFF
        if kind in (_BUSY, _LOCKED):
            return Unavailable(f"{path} was locked by another program for too long; try again", path=path)
        if self.is_full(error):
            return Unavailable(f"the disk is full: nothing was stored in {path}; make room and try again", path=path)
        if kind == _NOTADB:
            return Corrupt(f"{path} is no SQLite database, or its first bytes are damaged ({error})", path=path)
        if kind == _CORRUPT or isinstance(error, UnicodeDecodeError):
            return Corrupt(f"{path} is damaged ({error}); 'holdfast check' says where", path=path)
        if kind == _READONLY:
            return ReadOnly(f"{path} can't be written; check its mode and that of its folder", path=path)
        if kind == _TOOBIG:
            return Invalid(f"a value is larger than SQLite takes: {error}", path=path)
        if kind in (_IOERR, _CANTOPEN):
            cause = error.__cause__ or error.__context__
            if isinstance(cause, OSError):
                return unavailable(cause, path)
            return Unavailable(f"{path}: {error}; check the disk, its free space and the folder's mode", path=path)
        return Unavailable(f"{path}: {error}", path=path)


def _code(error: Exception) -> int:
    """SQLite's extended result code, as either library gives it."""
    code = getattr(error, "sqlite_errorcode", None)
    return int(getattr(error, "extendedresult", 0) if code is None else code) or 0
