"""The engines that can keep a store, each a module of its own, and how the one is opened that a URL names."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib.util import find_spec

from holdfast.backend import Backend, TextOf
from holdfast.errors import Unavailable
from holdfast.urls import parse_url


def open_backend(url: str, text_of: TextOf, *, create: bool = True) -> Backend:
    """The backend that a URL names; only its module is imported.

    Raises:
        Invalid: the URL is wrong.
        NotFound: there is none, and none is to be begun (`create`).
        Unavailable: the engine can't open it, or what it needs is not installed; the message says how to install it.
    """
    where = replace(parse_url(url), create=create)
    if not create and where.scheme in ("sqlite", "file") and not os.path.exists(where.path):
        raise where.absent()
    if where.scheme == "memory":
        from holdfast.backends.memory import MemoryBackend

        return MemoryBackend(text_of)
    if where.scheme == "file":
        from holdfast.backends.files import FilesBackend

        return FilesBackend(where, text_of)
    if where.scheme == "postgresql":
        require("psycopg", "postgres")
        from holdfast.backends.postgres import PostgresBackend

        return PostgresBackend(where, text_of)
    if where.scheme in ("redis", "rediss"):
        require("redis", "redis")
        from holdfast.backends.redis import RedisBackend

        return RedisBackend(where, text_of)
    from holdfast.backends.sqlite import SQLiteBackend

    return SQLiteBackend(where, text_of)


def require(driver: str, extra: str) -> None:
    """Refuse a store whose driver is not installed.

    Raises:
        Unavailable: it is not; the message says which extra brings it.
    """
    if find_spec(driver) is None:
        raise Unavailable(
            f"this store needs the Python package {driver!r}; pip install 'holdfast[{extra}]'", package=driver
        )


def rehearsed(inner: Backend, text_of: TextOf) -> Backend:
    """A backend over an open one in which everything can be tried, and nothing is stored."""
    from holdfast.backends.rehearsal import Rehearsal

    return Rehearsal(inner, text_of)
