"""Where the store of a user is, unless a URL says it."""

from __future__ import annotations

import os
from urllib.parse import quote


def default_url() -> str:
    """`HOLDFAST_URL`, else a SQLite file in the user's data directory."""
    if url := os.environ.get("HOLDFAST_URL"):
        return url
    import platformdirs

    path = os.path.join(platformdirs.user_data_dir("holdfast"), "holdfast.db").replace("\\", "/")
    return "sqlite://" + quote(os.fsencode(path), safe="/:~")  # a home may hold '#', '?' or '%', and any bytes
