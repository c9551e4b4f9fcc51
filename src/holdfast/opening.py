"""How a store is opened."""

from __future__ import annotations

from collections.abc import Collection

from holdfast.store import Store
from holdfast.urls import default_url


def open(url: str | None = None, *, secrets: Collection[str] = ()) -> Store:
    """Open a store, creating it if it is not there.

    Args:
        secrets: Names under which nothing is written, at any depth: metadata and configs lack it, and in what is
            appended `***` stands for it. What looks like
            a secret by its name is never written of a config (see `SessionConfig`).
        url: `sqlite:///path/file.db`, `file:///path/dir`, `memory://`; by default `HOLDFAST_URL`, else a SQLite file in
            the user's data directory. `?durability=process` trades safety against power loss for speed.

    Raises:
        Invalid: the URL is wrong; the message names what is known.
        Unavailable: the engine can't open it.
    """
    return Store(url or default_url(), secrets)


def existing(url: str) -> Store:
    """Open a store that is there.

    Raises:
        NotFound: there is none; nothing was made.
        Invalid: the URL is wrong.
        Unavailable: the engine can't open it.
    """
    return Store(url, create=False)
